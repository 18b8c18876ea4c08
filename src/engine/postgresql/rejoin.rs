//! Coming back: makes a stopped or absent directory a standby of another node, by the least that is needed: nothing, a
//! rewind, or a clone.
//!
//! From the first touch to the verified standby signal a marker beside the directory forbids every start, because in
//! between the directory would start as a primary. What only this node has is kept before it is overwritten.

#![expect(
    clippy::disallowed_methods,
    reason = "how often the upstream is asked again: a plain wait that proves nothing"
)]

use super::clone::{self, Original};
use super::control::{Control, ControlState, segment_name, segment_start};
use super::core::Core;
use super::error::{EngineError, Result};
use super::keep;
use super::label;
use super::layout::{BACKUP_LABEL, Layout, STANDBY_SIGNAL};
use super::places::{Extent, Tablespace};
use super::program::Run;
use super::session::Session;
use super::timeline::{history_file, history_of, parse_history};
use super::{alike, archive, end, own_files, parameters, remembered, settings, start, upstream, version};
use crate::clock;
use crate::types::{CopyStage, History, Lsn, Position, SystemId, Upstream};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long a freshly promoted upstream may take to its first checkpoint, from which pg_rewind learns its timeline.
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(120);
const REWIND_DEADLINE: Duration = Duration::from_secs(3600);

/// What the marker says, from the first touch on. A rewind that did not end leaves a directory of no use.
const COMPARING: &str = "a comparison with the upstream\n";
pub const REWINDING: &str = "a rewind\n";

/// What is known of the upstream.
struct Source {
    system: SystemId,
    end: Position,
    history: History,
    /// Where the oldest WAL begins that it still has, as far as it told.
    oldest: Lsn,
    /// How large it is, and which parts lie elsewhere.
    extent: Extent,
}

/// What has to be done.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    Nothing,
    Rewind { fork: Lsn },
    Clone { why: String },
}

/// Makes the directory a standby of `upstream`, `on_order` by a copy whatever there is. Brings what was done, and the
/// folder of what only this node had.
pub async fn rejoin(core: &Arc<Core>, upstream: &Upstream, on_order: bool) -> Result<(String, Option<String>)> {
    core.must_be_stopped("rejoin").await?;
    let mark = core.on_disk(|core| core.layout.mark()).await?.unwrap_or_default();
    let absent = core.on_disk(|core| core.layout.is_absent()).await;
    let is_unfinished = !mark.is_empty() && mark != COMPARING;
    // It can only be cloned. Where this host refused that, the upstream is not asked while it still would.
    if (absent || is_unfinished || on_order)
        && let Some(extent) = core.copying.refused(upstream, clock::now())
    {
        clone::find_places(core, upstream, &extent).await?;
    }
    let (session, source) = ask(core, upstream).await?;
    must_be_of_its_version(core, &session, upstream).await?;
    await_checkpoint(&session, source.end.timeline.0).await?;
    let conninfo = core.conninfo(upstream);
    let (how, kept) = if absent {
        clone::clone(core, source.original(&session, upstream, &conninfo)).await?;
        ("cloned: the directory was empty".to_owned(), None)
    } else if is_unfinished {
        let kept = clone::clone(core, source.original(&session, upstream, &conninfo)).await?;
        (format!("cloned: {} was unfinished", mark.trim()), kept)
    } else if on_order {
        let kept = clone::clone(core, source.original(&session, upstream, &conninfo)).await?;
        ("cloned: on order".to_owned(), kept)
    } else {
        compare_and_move(core, upstream, (&session, &source), &conninfo).await?
    };
    // A copy or a rewind that went over one network is followed by a stream over it.
    let conninfo = core.conninfo(upstream);
    core.on_disk_in_order(move |core, in_order| {
        start::make_standby(in_order, core, &conninfo)?;
        core.layout.unset_mark()?;
        own_files::forget(core)
    })
    .await?;
    Ok((how, kept))
}

/// Whether a running standby can follow `upstream` as it is; why not, if so. Touches nothing.
pub async fn compare(core: &Arc<Core>, upstream: &Upstream) -> Result<Option<String>> {
    // Before the upstream is asked: what arrives meanwhile is no lead over it.
    let here = core.seen.borrow().observation.clone();
    let (session, source) = ask(core, upstream).await?;
    let control = Control::read(&core.layout, &core.user).await?;
    if control.system != source.system {
        return Ok(Some(format!("{} has another database, {}", upstream.node, source.system)));
    }
    // It waits for more, so what it has replayed is all that it can use of its WAL.
    let end = Position { lsn: here.replayed.unwrap_or(here.position.lsn), ..here.position };
    Ok(match decide(core, &control, (true, end), &here.history, (&session, &source)).await? {
        Way::Nothing => None,
        Way::Rewind { fork } => Some(format!("its WAL ends at {end}, and {} left it at {fork}", upstream.node)),
        Way::Clone { why } => Some(why),
    })
}

async fn compare_and_move(
    core: &Arc<Core>,
    upstream: &Upstream,
    (session, source): (&Session, &Source),
    conninfo: &str,
) -> Result<(String, Option<String>)> {
    let control = Control::read(&core.layout, &core.user).await?;
    if control.system != source.system {
        return Err(EngineError::OtherDatabase {
            here: control.system,
            there: source.system,
            node: upstream.node.clone(),
            data_dir: core.layout.data_dir.clone(),
        });
    }
    let here = control.system;
    core.on_disk(move |core| {
        core.layout.set_mark(COMPARING)?;
        remembered::forget_others(core, here)
    })
    .await?;
    let end = local_end(core, &control).await;
    let history =
        core.on_disk(move |core| history_of(&core.layout.inside, &core.layout.data_dir, end.1.timeline)).await;
    match decide(core, &control, end, &history, (session, source)).await? {
        Way::Nothing => Ok(("nothing to do: its history is the upstream's".to_owned(), None)),
        Way::Clone { why } => {
            let kept = clone::clone(core, source.original(session, upstream, conninfo)).await?;
            Ok((format!("cloned: {why}"), kept))
        }
        Way::Rewind { fork } => {
            let kept = keep::divergent_wal(core, &control, fork, end.1).await?;
            match rewind(core, upstream, conninfo, source).await {
                Ok(()) => Ok((format!("rewound to {fork} on timeline {}", end.1.timeline), kept)),
                Err(error) => {
                    tracing::warn!(service = %core.service, %error, "the rewind failed: cloning");
                    // It may have been the network, and then the connection that there is went with it.
                    let (session, source) = ask(core, upstream).await?;
                    let conninfo = core.conninfo(upstream);
                    let aside = clone::clone(core, source.original(&session, upstream, &conninfo)).await?;
                    Ok((format!("cloned: the rewind failed: {error}"), kept.or(aside)))
                }
            }
        }
    }
}

/// The end of the local WAL, and whether it is certain.
async fn local_end(core: &Arc<Core>, control: &Control) -> (bool, Position) {
    if control.state == ControlState::ShutDown {
        let known = control.clone();
        if let Ok(end) = core.on_disk(move |core| known.final_end(&core.layout)).await {
            return (true, end);
        }
    }
    match end::at_rest(&core.layout, &core.user, control).await {
        Ok(end) => (true, end),
        Err(error) => {
            tracing::warn!(service = %core.service, %error, "the end of the local WAL is not known");
            (false, control.known_end())
        }
    }
}

/// Decides by lineage, and where that leaves nothing to do, by what the WAL holds: on one timeline the numbers alone do not
/// tell whose it is.
async fn decide(
    core: &Arc<Core>,
    control: &Control,
    end: (bool, Position),
    history: &History,
    (session, source): (&Session, &Source),
) -> Result<Way> {
    let (way, end) = (choose(control, end, history, source), end.1);
    let is_shared = way == Way::Nothing && end.timeline == source.end.timeline;
    if is_shared && alike::differs_before(core, session, control, end).await? {
        return Ok(Way::Clone { why: format!("its WAL before {end} is another one than the upstream's") });
    }
    Ok(way)
}

/// Decides by lineage first. `end` is the local end and whether it is certain.
fn choose(control: &Control, end: (bool, Position), history: &History, source: &Source) -> Way {
    let (certain, end) = end;
    // Where both name the same timeline, both must have left it for the same reason: a number that was used twice
    // would make pg_rewind believe that nothing is different.
    let shared =
        history.0.iter().filter_map(|left| source.history.left_at(left.timeline).map(|there| (left.lsn, there)));
    let forked_earlier = shared.clone().any(|(here, there)| here != there);
    if end.timeline == source.end.timeline {
        if *history != source.history {
            return Way::Clone { why: format!("timeline {} was used twice", end.timeline) };
        }
        if control.was_primary() {
            return Way::Clone { why: format!("it was a primary on timeline {} as well", end.timeline) };
        }
        if end.lsn > source.end.lsn {
            return Way::Clone { why: format!("it is ahead of the upstream, at {end}") };
        }
        return source.goes_on_from(end);
    }
    match source.history.left_at(end.timeline) {
        Some(fork)
            if !forked_earlier && certain && end.lsn <= fork && (control.is_clean() || !control.was_primary()) =>
        {
            source.goes_on_from(end)
        }
        Some(fork) => Way::Rewind { fork },
        // It is on a branch of its own: back to where the branches part.
        None => {
            let parting = |left: &Position| source.history.left_at(left.timeline).map(|there| there.min(left.lsn));
            let on_source = history.left_at(source.end.timeline).map(|left| left.min(source.end.lsn));
            match history.0.iter().filter_map(parting).next_back().max(on_source) {
                Some(fork) => Way::Rewind { fork },
                None => {
                    Way::Clone { why: format!("timeline {} has nothing in common with the upstream", end.timeline) }
                }
            }
        }
    }
}

impl Source {
    fn original<'a>(&'a self, session: &'a Session, from: &'a Upstream, conninfo: &'a str) -> Original<'a> {
        Original { session, from, conninfo, system: self.system, extent: &self.extent }
    }

    /// What comes after `end`, which the upstream has in its own history, must still be there: a rewind finds nothing to do.
    fn goes_on_from(&self, end: Position) -> Way {
        if end.lsn < self.oldest {
            let why = format!("the upstream has removed the WAL after {end}, and begins at {}", self.oldest);
            return Way::Clone { why };
        }
        Way::Nothing
    }
}

/// Refuses a copy, made by whatever program, from whose end there is no way to where the upstream is by now: it is a backup of
/// another line, or the WAL after it is nowhere.
pub async fn must_lead_to(core: &Arc<Core>, upstream: &Upstream, copy: &Layout, control: &Control) -> Result<()> {
    let (_session, source) = ask(core, upstream).await?;
    let (made, end) = (copy.clone(), control.known_end());
    let (history, has_archive, first) = core
        .on_disk(move |core| {
            let first = made.text_within(BACKUP_LABEL).ok().and_then(|label| label::start(&label));
            let history = history_of(&made.inside, &made.data_dir, end.timeline);
            (history, archive::restore_command(&core.layout).is_some(), first)
        })
        .await;
    let first = first.unwrap_or(control.redo);
    let name = segment_name(end.timeline, first, control.segment_size);
    let comes_with_it = copy.inside.exists(&copy.wal().join(name));
    let why = match source.history.left_at(end.timeline) {
        _ if end.timeline == source.end.timeline && end.lsn > source.end.lsn => {
            format!("it is ahead of {}, which is at {}", upstream.node, source.end)
        }
        None if end.timeline != source.end.timeline => {
            format!("{} has no timeline {} in its history", upstream.node, end.timeline)
        }
        Some(fork) if end.lsn > fork => format!("{} left that timeline at {fork}", upstream.node),
        _ if !history.0.iter().all(|left| source.history.0.contains(left)) => {
            format!("its timeline {} comes from another one than that of {}", end.timeline, upstream.node)
        }
        _ if !has_archive && !comes_with_it && first < source.oldest => format!(
            "{} has removed the WAL from {first} on, and the program left no restore_command to get it by",
            upstream.node
        ),
        _ => return Ok(()),
    };
    let why = format!("it left a database at {end} that cannot become a standby: {why}");
    Err(EngineError::Command { key: "clone_command", why })
}

/// Asks the upstream who it is and where. A standby is no source: the primary may be ahead of it on another line.
async fn ask(core: &Arc<Core>, upstream: &Upstream) -> Result<(Session, Source)> {
    let session = upstream::open(core, upstream).await?;
    let (system, segment) = session.identity().await?;
    let (end, history) = position(&session, upstream).await?;
    let oldest = oldest_wal(&session, segment).await;
    let extent = Extent { wal: 2 * segment, ..extent(&session).await? };
    Ok((session, Source { system, end, history, oldest, extent }))
}

/// Asks what nobody comes back without, and leaves it at that. Errors: what the upstream does not answer.
pub async fn asks(session: &Session, upstream: &Upstream) -> Result<()> {
    session.identity().await?;
    position(session, upstream).await?;
    at_checkpoint(session).await.map(drop)
}

/// Where the upstream is, and on which line.
async fn position(session: &Session, upstream: &Upstream) -> Result<(Position, History)> {
    let doing = "ask the upstream for its position";
    let place = session.place().await?;
    let Some((lsn, timeline)) = place.flushed else {
        let why = format!("{} is in recovery itself; a node rejoins the primary", upstream.node);
        return Err(EngineError::Refused { action: "rejoin", why });
    };
    let history = if timeline.0 > 1 {
        let question = format!("select convert_from(pg_read_binary_file('pg_wal/{}'), 'UTF8')", history_file(timeline));
        let rows = session.client().query_typed(&question, &[]).await.map_err(EngineError::sql(doing))?;
        rows.first().map(|row| parse_history(row.get(0))).unwrap_or_default()
    } else {
        History::default()
    };
    Ok((Position { timeline, lsn }, history))
}

/// What would have to be copied. Sizes are not told to a role that an earlier version made: then they are not known.
async fn extent(session: &Session) -> Result<Extent> {
    let question = "select oid, spcname::text, pg_tablespace_location(oid) from pg_tablespace order by oid";
    let rows = session.client().query_typed(question, &[]).await;
    let rows = rows.map_err(EngineError::sql("ask the upstream for its tablespaces"))?;
    let question = "select oid, pg_tablespace_size(oid) from pg_tablespace";
    let sizes = session.client().query_typed(question, &[]).await.unwrap_or_default();
    let sizes = sizes.iter().filter_map(|row| Some((row.get::<_, u32>(0), u64::try_from(row.get::<_, i64>(1)).ok()?)));
    let sizes: BTreeMap<u32, u64> = sizes.collect();
    let mut extent = Extent::default();
    for row in rows {
        let (oid, name, location) = (row.get(0), row.get::<_, String>(1), PathBuf::from(row.get::<_, &str>(2)));
        let size = sizes.get(&oid).copied();
        // The two that every database has, and those that a developer's setting puts into the directory itself.
        match location.is_absolute() {
            true => extent.tablespaces.push(Tablespace { oid, name, location, size }),
            false => extent.size = size.map(|size| size + extent.size.unwrap_or_default()).or(extent.size),
        }
    }
    Ok(extent)
}

/// Refuses what would end in a copy that no server here could start.
async fn must_be_of_its_version(core: &Core, session: &Session, upstream: &Upstream) -> Result<()> {
    let rows = session.client().query_typed("select current_setting('server_version_num')::int / 10000", &[]).await;
    let rows = rows.map_err(EngineError::sql("ask the upstream for its version"))?;
    let there = rows.first().and_then(|row| u32::try_from(row.get::<_, i32>(0)).ok()).unwrap_or_default();
    let here = version::of_programs(&core.layout, &core.user, "rejoin").await?;
    if here == there {
        return Ok(());
    }
    let (node, bin_dir) = (&upstream.node, core.layout.bin_dir.display());
    let why =
        format!("{bin_dir} is of PostgreSQL {here}, and {node} runs {there}; name the programs of {there} in bin_dir");
    Err(EngineError::Refused { action: "rejoin", why })
}

/// Where the oldest WAL begins that is still there: PostgreSQL removes by the number of a segment, whatever its timeline.
/// Zero where a role that somebody else made may not look: then nothing is known to be gone.
async fn oldest_wal(session: &Session, segment: u64) -> Lsn {
    let question = "select min(substr(name, 9) collate \"C\") from pg_ls_dir('pg_wal', true, false) name \
        where name ~ '^[0-9A-F]{24}$'";
    let rows = session.client().query_typed(question, &[]).await.unwrap_or_default();
    let name = rows.first().and_then(|row| row.get::<_, Option<&str>>(0));
    name.and_then(|name| segment_start(name, segment)).unwrap_or_default()
}

/// Until its first checkpoint a new primary's control file names the old timeline, and pg_rewind (before 16) believes
/// that there is nothing to do.
async fn await_checkpoint(session: &Session, timeline: u32) -> Result<()> {
    let waits = async {
        loop {
            if at_checkpoint(session).await? == Some(timeline) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let after = CHECKPOINT_PATIENCE;
    tokio::time::timeout(after, waits)
        .await
        .unwrap_or(Err(EngineError::NoAnswer { what: "the upstream's first checkpoint", after }))
}

/// On which timeline its last checkpoint is.
async fn at_checkpoint(session: &Session) -> Result<Option<u32>> {
    let rows = session.client().query_typed("select timeline_id from pg_control_checkpoint()", &[]).await;
    let rows = rows.map_err(EngineError::sql("ask the upstream for its checkpoint"))?;
    Ok(rows.first().and_then(|row| u32::try_from(row.get::<_, i32>(0)).ok()))
}

async fn rewind(core: &Arc<Core>, upstream: &Upstream, conninfo: &str, source: &Source) -> Result<()> {
    core.on_disk_in_order(|core, in_order| {
        own_files::keep(core, false)?;
        core.layout.set_mark(REWINDING)?;
        own_files::make_writable(core)?;
        remembered::forget(core)?;
        // The single-user recovery that pg_rewind may need refuses to run beside it. The marker stands.
        core.layout.inside.remove(&core.layout.within(STANDBY_SIGNAL))?;
        settings::write_conninfo(in_order, &core.layout, "", true)
    })
    .await?;
    let server = format!("--source-server={conninfo} dbname='postgres'");
    let run = Run {
        user: &core.user,
        program: core.layout.program("pg_rewind"),
        arguments: vec![
            "--target-pgdata".as_ref(),
            core.layout.data_dir.as_os_str(),
            server.as_ref(),
            "--no-ensure-shutdown".as_ref(),
            "--no-sync".as_ref(),
        ],
        environment: vec![("LC_ALL", "C".as_ref())],
        input: String::new(),
        deadline: REWIND_DEADLINE,
    };
    end_recovery_alone(core).await?;
    core.copying.is_at(CopyStage::Rewinding);
    let said = run.finish().await?;
    core.on_disk(|core| {
        own_files::put_back(core, &core.layout)?;
        core.layout.sync_volumes()
    })
    .await?;
    tracing::info!(service = %core.service, upstream = %upstream.node, %said, "rewound");
    let control = Control::read(&core.layout, &core.user).await?;
    if control.system == source.system {
        return Ok(());
    }
    let detail = format!("after the rewind the system identifier is {}", control.system);
    Err(EngineError::Malformed { path: core.layout.data_dir.clone(), detail })
}

/// pg_rewind wants a directory that was shut down in order: crash recovery by a single-user server, which no client
/// can reach.
async fn end_recovery_alone(core: &Arc<Core>) -> Result<()> {
    if Control::read(&core.layout, &core.user).await?.is_clean() {
        return Ok(());
    }
    // As it ran: prepared transactions, for one, are not recovered with fewer places for them than there were.
    parameters::prepare(core).await?;
    let mut settings = core.command_line();
    settings.push("archive_mode=off".to_owned());
    // Its last checkpoint would remove the WAL before the fork, in which pg_rewind looks for the common one.
    settings.push("wal_keep_size=1TB".to_owned());
    let mut arguments: Vec<&OsStr> =
        vec!["--single".as_ref(), "-F".as_ref(), "-D".as_ref(), core.layout.data_dir.as_os_str()];
    for setting in &settings {
        arguments.extend::<[&OsStr; 2]>(["-c".as_ref(), setting.as_ref()]);
    }
    arguments.push("template1".as_ref());
    let run = Run {
        user: &core.user,
        program: core.layout.program("postgres"),
        arguments,
        environment: vec![("LC_ALL", "C".as_ref())],
        input: String::new(),
        deadline: REWIND_DEADLINE,
    };
    run.finish().await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Timeline;
    use std::collections::BTreeMap;

    fn at(timeline: u32, lsn: u64) -> Position {
        Position { timeline: Timeline(timeline), lsn: Lsn(lsn) }
    }

    fn local(state: ControlState) -> Control {
        Control {
            system: SystemId(1),
            state,
            checkpoint: Lsn(50),
            redo: Lsn(50),
            timeline: Timeline(1),
            min_recovery: at(0, 0),
            segment_size: 16 << 20,
            block_size: 8192,
            settings: BTreeMap::new(),
        }
    }

    fn way(state: ControlState, end: Position, history: &[Position], source: (Position, &[Position])) -> Way {
        let (end_there, left) = source;
        let history_there = History(left.to_vec());
        let extent = Extent::default();
        let source = Source { system: SystemId(1), end: end_there, history: history_there, oldest: Lsn(60), extent };
        choose(&local(state), (true, end), &History(history.to_vec()), &source)
    }

    #[test]
    fn the_least_that_is_needed_is_chosen_by_lineage() {
        let promoted = (at(2, 200), &[at(1, 100)][..]);
        assert_eq!(way(ControlState::ShutDown, at(1, 100), &[], promoted), Way::Nothing, "stopped exactly at the fork");
        assert_eq!(way(ControlState::ShutDown, at(1, 101), &[], promoted), Way::Rewind { fork: Lsn(100) });
        assert_eq!(
            way(ControlState::InProduction, at(1, 90), &[], promoted),
            Way::Rewind { fork: Lsn(100) },
            "crashed"
        );
        assert_eq!(way(ControlState::InArchiveRecovery, at(1, 90), &[], promoted), Way::Nothing, "a standby behind");
        assert_eq!(way(ControlState::ShutDownInRecovery, at(1, 120), &[], promoted), Way::Rewind { fork: Lsn(100) });
        assert_eq!(way(ControlState::ShutDownInRecovery, at(2, 150), &[at(1, 100)], promoted), Way::Nothing);
    }

    #[test]
    fn a_timeline_number_that_was_used_twice_is_cloned_not_rewound() {
        let promoted = (at(2, 200), &[at(1, 100)][..]);
        let twice = way(ControlState::ShutDown, at(2, 150), &[at(1, 90)], promoted);
        assert!(matches!(twice, Way::Clone { .. }), "{twice:?}");
        let also_primary = way(ControlState::InProduction, at(2, 150), &[at(1, 100)], promoted);
        assert!(matches!(also_primary, Way::Clone { .. }), "{also_primary:?}");
    }

    #[test]
    fn what_lacks_wal_that_the_upstream_has_removed_is_cloned() {
        let cloned = |way: Way| matches!(way, Way::Clone { why } if why.contains("has removed the WAL after"));
        let promoted = (at(2, 200), &[at(1, 100)][..]);
        assert!(cloned(way(ControlState::InArchiveRecovery, at(1, 59), &[], (at(1, 200), &[]))));
        assert!(cloned(way(ControlState::ShutDownInRecovery, at(1, 59), &[], promoted)), "and has nothing to rewind");
        assert_eq!(way(ControlState::InArchiveRecovery, at(1, 60), &[], (at(1, 200), &[])), Way::Nothing);
    }

    #[test]
    fn a_branch_of_its_own_is_rewound_to_the_parting() {
        let source = (at(3, 300), &[at(1, 100)][..]);
        assert_eq!(way(ControlState::ShutDown, at(2, 200), &[at(1, 90)], source), Way::Rewind { fork: Lsn(90) });
        let foreign = way(ControlState::ShutDown, at(9, 200), &[], source);
        assert!(matches!(foreign, Way::Clone { .. }), "{foreign:?}");
    }
}
