//! A fresh copy of the upstream's database: made beside the old one and swapped in when it is whole; the old one is kept
//! aside (`aside.rs`). pg_basebackup makes it, or the operator's own program. Where its parts belong, and whether a
//! copy can work at all, says `places.rs`.

#![expect(clippy::disallowed_methods, reason = "how often a copy is looked at: it tells nobody how far it is")]

use super::command::{self, Told};
use super::control::Control;
use super::core::Core;
use super::error::{EngineError, Result};
use super::layout::Layout;
use super::places::{Extent, Places};
use super::program::Run;
use super::session::Session;
use super::{access, archive, own_files, rejoin, remembered, settings, slots, start};
use crate::clock;
use crate::config::Command;
use crate::types::{CopyStage, SystemId, Upstream};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

const CLONING: &str = "a clone\n";
const CLONE_COMMAND: &str = "clone_command";
/// How often a copy by the operator's program is looked at.
const LOOKS: Duration = Duration::from_secs(2);
const DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// What is copied.
pub struct Original<'a> {
    /// An open connection to it.
    pub session: &'a Session,
    pub from: &'a Upstream,
    pub conninfo: &'a str,
    pub system: SystemId,
    pub extent: &'a Extent,
}

/// Clones. Brings the folder that keeps the old directory, if there was one.
pub async fn clone(core: &Arc<Core>, original: Original<'_>) -> Result<Option<String>> {
    let places = find_places(core, original.from, original.extent).await?;
    let slot = slots::ready_at(original.session, &core.config.node).await?;
    let places = core
        .on_disk(move |core| {
            let mark = core.layout.mark()?;
            own_files::keep(core, mark.is_some_and(|mark| mark == CLONING || mark == rejoin::REWINDING))?;
            core.layout.set_mark(CLONING)?;
            remembered::forget(core)?;
            places.prepare()?;
            access::write(&core.config, &core.current(), &core.layout)?;
            Ok::<_, EngineError>(places)
        })
        .await?;
    let new = Layout { data_dir: places.data.clone(), ..core.layout.clone() };
    // Whoever looks how far it is may do so still when it has ended.
    let places = Arc::new(places);
    match &core.postgresql().commands.clone {
        Some(command) => by_command(core, command, &places, &new, &original, &slot).await?,
        None => by_basebackup(core, &places, &new, &original, &slot).await?,
    }
    let conninfo = original.conninfo.to_owned();
    core.on_disk_in_order(move |core, in_order| {
        places.compare()?;
        own_files::put_back(core, &new)?;
        // A standby before it is in its place: there is no moment at which it could start as a primary.
        start::make_standby_in(in_order, &new, &conninfo)?;
        new.sync_volumes()?;
        places.swap(&core.layout, core.postgresql().old_copies)
    })
    .await
}

/// Has PostgreSQL's own program make it, and compares it with the manifest that the source sent.
async fn by_basebackup(
    core: &Arc<Core>,
    places: &Places,
    new: &Layout,
    original: &Original<'_>,
    slot: &str,
) -> Result<()> {
    if let Err(error) = copy(core, places, original.conninfo, slot).await {
        // It may have been the network, also one that takes every question: then the next copy goes through.
        let next = core.networks.first().other();
        core.networks.prefer(next);
        tracing::warn!(service = %core.service, upstream = %original.from.node, %error, "the copy broke: the next one begins over the {next}");
        return Err(error);
    }
    verify(core, new).await?;
    must_be_of(original, new, &Control::read(new, &core.user).await?)
}

/// Has the operator's own program make it. Where that could not, it is an error like any other, unless the file says who
/// takes its place.
async fn by_command(
    core: &Arc<Core>,
    command: &Command,
    places: &Arc<Places>,
    new: &Layout,
    original: &Original<'_>,
    slot: &str,
) -> Result<()> {
    match restore(core, command, places, new, original).await {
        Err(error) if core.postgresql().commands.clone_falls_back => {
            tracing::warn!(service = %core.service, %error, "pg_basebackup makes the copy");
            let again = places.clone();
            core.on_disk(move |_| again.prepare()).await?;
            by_basebackup(core, places, new, original, slot).await
        }
        done => done,
    }
}

async fn restore(
    core: &Arc<Core>,
    command: &Command,
    places: &Arc<Places>,
    new: &Layout,
    original: &Original<'_>,
) -> Result<()> {
    core.copying.is_at(CopyStage::Copying);
    let told = told(core, places, original);
    tokio::select! {
        done = command::run(core, CLONE_COMMAND, command, &told) => done?,
        never = watch(core, places, original.extent) => match never {},
    }
    core.copying.is_at(CopyStage::Verifying);
    command::must_be_database(core, CLONE_COMMAND, new).await?;
    let gathered = places.clone();
    core.on_disk(move |_| gathered.gather()).await?;
    let control = Control::read(new, &core.user).await?;
    must_be_of(original, new, &control)?;
    let (made, place) = (new.clone(), core.layout.data_dir.clone());
    core.on_disk(move |_| archive::keep(&made, &place)).await?;
    rejoin::must_lead_to(core, original.from, new, &control).await
}

/// What the program is told.
fn told(core: &Core, places: &Places, original: &Original<'_>) -> Told {
    let mut told = Told::new(core, &places.data, places.wal());
    let from = original.from;
    told.add("upstream", &from.node);
    told.add("host", from.addresses.first().map(ToString::to_string).unwrap_or_default());
    told.add("upstream_port", from.port);
    told.add("user", access::replication_role(core.postgresql(), &core.config.node));
    let has_password = core.current().replication_password_file.is_some();
    let passfile = has_password.then(|| core.layout.passfile().display().to_string());
    told.add("passfile", passfile.unwrap_or_default());
    told.add("conninfo", settings::for_a_copy(original.conninfo));
    for space in &original.extent.tablespaces {
        if let Some(place) = places.space(space.oid) {
            told.add_tablespace(space.name.clone(), place.to_owned());
        }
    }
    told
}

/// Says how far it is by what it takes on the disk, compared with what the source takes.
async fn watch(core: &Arc<Core>, places: &Arc<Places>, source: &Extent) -> Infallible {
    let spaces: u64 = source.tablespaces.iter().filter_map(|space| space.size).sum();
    loop {
        tokio::time::sleep(LOOKS).await;
        let at = places.clone();
        let taken = core.on_disk(move |_| at.taken()).await;
        if let Some(size) = source.size {
            core.copying.has(taken, size + spaces, clock::now());
        }
    }
}

fn must_be_of(original: &Original<'_>, new: &Layout, control: &Control) -> Result<()> {
    if control.system == original.system {
        return Ok(());
    }
    let (node, found) = (&original.from.node, control.system);
    let detail = format!("the clone of {node} has system identifier {found}, not {}", original.system);
    Err(EngineError::Malformed { path: new.data_dir.clone(), detail })
}

/// Where it would go. Refuses what cannot work, and remembers of what size that was.
pub async fn find_places(core: &Arc<Core>, from: &Upstream, extent: &Extent) -> Result<Places> {
    let known = extent.clone();
    let find = core.on_disk(move |core| {
        let around = core.layout.around()?;
        if let Some(parent) = core.layout.data_dir.parent() {
            around.make_directories(parent)?;
        }
        Places::find(&core.layout, core.postgresql().wal_dir.as_deref(), &known, core.aside.spared())
    });
    let found = find.await;
    if let Err(EngineError::Refused { .. }) = &found {
        core.copying.is_refused(from, extent, clock::now());
    }
    found
}

async fn copy(core: &Arc<Core>, places: &Places, conninfo: &str, slot: &str) -> Result<()> {
    let source = format!("--dbname={}", settings::for_a_copy(conninfo));
    // From here on until the standby streams, the upstream keeps the WAL that it needs.
    let slot = format!("--slot={slot}");
    let (parts, rate) =
        (places.arguments(), core.postgresql().copy_max_rate.map(|rate| format!("--max-rate={}k", rate >> 10)));
    let mut run = Run {
        user: &core.user,
        program: core.layout.program("pg_basebackup"),
        arguments: vec![
            "-D".as_ref(),
            places.data.as_os_str(),
            source.as_ref(),
            "--wal-method=stream".as_ref(),
            slot.as_ref(),
            "--checkpoint=fast".as_ref(),
            "--no-password".as_ref(),
            "--no-sync".as_ref(),
            "--progress".as_ref(),
        ],
        environment: vec![("LC_ALL", "C".as_ref())],
        input: String::new(),
        deadline: DEADLINE,
    };
    run.arguments.extend(parts.iter().map(AsRef::<std::ffi::OsStr>::as_ref));
    run.arguments.extend(rate.iter().map(AsRef::<std::ffi::OsStr>::as_ref));
    core.copying.is_at(CopyStage::Copying);
    run.finish_telling(|line| core.copying.says(line, clock::now())).await.map(drop)
}

/// Reads the whole copy and compares it with the manifest that the source sent: what a disk lost on the way is found
/// before the copy is anybody's standby. Its WAL is read by its own recovery.
async fn verify(core: &Arc<Core>, copy: &Layout) -> Result<()> {
    core.copying.is_at(CopyStage::Verifying);
    let run = Run {
        user: &core.user,
        program: core.layout.program("pg_verifybackup"),
        arguments: vec!["--no-parse-wal".as_ref(), "--quiet".as_ref(), copy.data_dir.as_os_str()],
        environment: vec![("LC_ALL", "C".as_ref())],
        input: String::new(),
        deadline: DEADLINE,
    };
    run.finish().await.map(drop)
}
