//! The server's log: what it writes to standard error, in a file of the database's user that its group may read. It is bounded
//! while the server runs, whatever an application has it log: at its limit what it holds becomes the one earlier file, and it
//! begins anew. Beside the ledger it is not, so that no log fills the volume of that.
//!
//! The server keeps the open file for its life, so the file is copied and emptied, and not replaced; what is logged in between
//! may be lost. Everything here is done with the rights of the database's user, who may have put anything there.
//!
//! Not here: the server's own logging, where the operator has switched that on (`logging_collector`): its files are the
//! operator's. They are read here, because a server says there why it does not start.

#![expect(clippy::disallowed_methods, reason = "how often the length of a file is looked at")]

use super::core::Core;
use super::layout::{CURRENT_LOGS, Layout};
use crate::errors::with_causes;
use crate::rights::Rights;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked at while it grows: a server that logs as fast as a disk takes it writes some tens of MiB meanwhile.
const EVERY: Duration = Duration::from_millis(250);
/// And while it does not.
const AT_REST: Duration = Duration::from_secs(1);
/// Readable by the group, as Debian has it.
const MODE: u32 = 0o640;
const DIRECTORY_MODE: u32 = 0o750;
/// So much of the end of a log is read for its last words.
const TAIL: u64 = 64 << 10;

/// Where the output of a server goes that is about to start, and how long the log is. Where it cannot be written the server
/// starts all the same.
pub fn open(core: &Core) -> (Stdio, Stdio, u64) {
    let opened = appending(&core.layout).and_then(|file| {
        let length = file.metadata()?.len();
        Ok((Stdio::from(file.try_clone()?), Stdio::from(file), length))
    });
    opened.unwrap_or_else(|error| {
        core.starts_without(&core.layout.log.display().to_string(), &format!("its log: {}", with_causes(&error)));
        (Stdio::null(), Stdio::null(), 0)
    })
}

fn appending(layout: &Layout) -> io::Result<File> {
    if let Some(directory) = layout.log.parent() {
        layout.make_where_missing(directory, DIRECTORY_MODE).map_err(io::Error::other)?;
    }
    layout.inside.append(&layout.log, MODE).map_err(io::Error::other)
}

/// Keeps the log within its bound for as long as the daemon lives.
pub async fn run(core: Arc<Core>) {
    let (mut length, mut pause) = (0, AT_REST);
    loop {
        tokio::time::sleep(pause).await;
        let limit = core.postgresql().on_host.log_limit;
        match core.on_disk(move |core| keep_within(&core.layout, limit)).await {
            Ok(now) => {
                pause = if now == length { AT_REST } else { EVERY };
                length = now;
            }
            Err(error) => {
                let log = &core.layout.log;
                tracing::warn!(service = %core.service, log = %log.display(), %error, "the server's log has outgrown its limit and cannot be emptied");
            }
        }
    }
}

/// At its limit the end of the log becomes the earlier file, and the log begins anew. Brings how long it was found.
fn keep_within(layout: &Layout, limit: u64) -> io::Result<u64> {
    let log = &layout.log;
    let found = std::fs::symlink_metadata(log).map_or(0, |about| about.len());
    if found <= limit {
        return Ok(found);
    }
    let mut file = layout.inside.open(log).map_err(io::Error::other)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
    // On a full volume there is no room for a copy, and emptying it makes some.
    if let Err(error) = copy_end(layout, file, limit) {
        let error = with_causes(&error);
        tracing::warn!(log = %log.display(), error, "no earlier part of the server's log is kept");
    }
    layout.inside.append(log, MODE).map_err(io::Error::other)?.set_len(0)?;
    Ok(found)
}

/// What is written meanwhile comes along, as far as it is no more than was there.
fn copy_end(layout: &Layout, from: File, limit: u64) -> io::Result<()> {
    let (draft, earlier) = (layout.log.with_extension("log.new"), layout.log.with_extension("log.1"));
    let mut to = layout.inside.new_file(&draft, MODE).map_err(io::Error::other)?;
    let copied = io::copy(&mut from.take(2 * limit), &mut to);
    match copied.and_then(|_| layout.inside.rename(&draft, &earlier).map_err(io::Error::other)) {
        Ok(()) => Ok(()),
        Err(error) => {
            // It would take what room there is.
            let _ = layout.inside.remove_any(&draft);
            Err(error)
        }
    }
}

/// What the server has logged since its log was this long: the end of it, with the end of what its own logging wrote.
pub fn since(layout: &Layout, from: u64) -> String {
    let mut text = end_of(&layout.inside, &layout.log, from);
    for path in own_files(layout) {
        text.push('\n');
        text.push_str(&end_of(&layout.inside, &path, 0));
    }
    text
}

/// The files that the server's own logging writes at present, by its own note, which every start takes away first.
fn own_files(layout: &Layout) -> Vec<std::path::PathBuf> {
    let note = layout.text_within(CURRENT_LOGS).unwrap_or_default();
    let files = note.lines().filter_map(|line| line.split_once(' ')).map(|(_, path)| layout.within(path));
    files.collect()
}

/// The end of a file, from there on where it has not begun anew.
fn end_of(inside: &Rights, path: &Path, from: u64) -> String {
    let mut text = Vec::new();
    if let Ok(mut file) = inside.open(path) {
        let length = file.metadata().map_or(0, |about| about.len());
        let from = if from > length { 0 } else { from };
        if file.seek(SeekFrom::Start(from.max(length.saturating_sub(TAIL)))).is_ok() {
            // What cannot be read of it is not said.
            let _ = file.take(TAIL).read_to_end(&mut text);
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}
