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
use super::error::{EngineError, Result};
use super::layout::{CURRENT_LOGS, Layout};
use crate::errors::with_causes;
use crate::rights::Rights;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked at: a server that logs as fast as a disk takes it writes some tens of MiB meanwhile.
const EVERY: Duration = Duration::from_millis(250);
/// Readable by the group, as Debian has it.
const MODE: u32 = 0o640;
const DIRECTORY_MODE: u32 = 0o750;
/// So much of the end of a log is read for its last words.
const TAIL: u64 = 64 << 10;

/// Opens the log for a server that is about to start, and says how long it is. Where that cannot be done the server starts all
/// the same.
pub fn open(core: &Core) -> Result<(File, u64)> {
    let opened = appending(&core.layout).and_then(|file| Ok((file.metadata()?.len(), file)));
    match opened {
        Ok((length, file)) => Ok((file, length)),
        Err(error) => {
            core.starts_without(&core.layout.log.display().to_string(), &format!("its log: {}", with_causes(&error)));
            let nowhere = Path::new("/dev/null");
            let file = File::options().append(true).open(nowhere).map_err(EngineError::file("open", nowhere))?;
            Ok((file, 0))
        }
    }
}

fn appending(layout: &Layout) -> io::Result<File> {
    let log = &layout.log;
    if let Some(directory) = log.parent() {
        layout.make_where_missing(directory, DIRECTORY_MODE).map_err(io::Error::other)?;
    }
    layout.inside.within(|| {
        let file = regular(File::options().append(true).create(true).mode(MODE), log)?;
        // Whatever mask there was when it was made. One that the operator made is as the operator wants it.
        let _ = file.set_permissions(std::fs::Permissions::from_mode(MODE));
        Ok(file)
    })?
}

/// Opened without waiting for what is no file, and never where a link leads to.
fn regular(options: &mut std::fs::OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    // A pipe would have been opened without its reader; a file is written to in order.
    // SAFETY: the descriptor is open.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_APPEND) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

/// Keeps the log within its bound for as long as the daemon lives.
pub async fn run(core: Arc<Core>) {
    loop {
        tokio::time::sleep(EVERY).await;
        let limit = core.postgresql().on_host.log_limit;
        let done = core.on_disk(move |core| keep_within(&core.layout, limit)).await;
        if let Err(error) = done {
            let log = &core.layout.log;
            tracing::warn!(service = %core.service, log = %log.display(), %error, "the server's log has outgrown its limit and cannot be emptied");
        }
    }
}

/// At its limit the end of the log becomes the earlier file, and the log begins anew.
fn keep_within(layout: &Layout, limit: u64) -> io::Result<()> {
    let log = &layout.log;
    if std::fs::symlink_metadata(&log).map_or(0, |about| about.len()) <= limit {
        return Ok(());
    }
    layout.inside.within(|| {
        let mut file = regular(File::options().read(true).append(true), log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
        // On a full volume there is no room for a copy, and emptying it makes some.
        if let Err(error) = copy_end(file.try_clone()?, log, limit) {
            tracing::warn!(log = %log.display(), %error, "no earlier part of the server's log is kept");
        }
        file.set_len(0)
    })?
}

/// What is written meanwhile comes along, as far as it is no more than was there.
fn copy_end(from: File, log: &Path, limit: u64) -> io::Result<()> {
    let (draft, earlier) = (log.with_extension("log.new"), log.with_extension("log.1"));
    let mut options = File::options();
    // Whatever stood there, it is gone or in the way.
    let _ = std::fs::remove_file(&draft);
    let copied = options.write(true).create_new(true).mode(MODE).open(&draft);
    let copied = copied.and_then(|mut to| io::copy(&mut from.take(2 * limit), &mut to));
    match copied.and_then(|_| std::fs::rename(&draft, &earlier)) {
        Ok(()) => Ok(()),
        Err(error) => {
            let _ = std::fs::remove_file(&draft);
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
