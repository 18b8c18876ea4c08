//! Sees: turns the database at one moment into an [`Observation`], every probe interval and at once when the
//! postmaster ends. One cheap query a look while the server runs; next to nothing while it does not.

#![expect(
    clippy::disallowed_methods,
    reason = "how often the server is looked at, and for how long it was silent while this host ran"
)]

use super::activity::Activity;
use super::control::Control;
use super::core::Core;
use super::error::EngineError;
use super::files::FilesWatch;
use super::keep;
use super::layout::{CONTROL, STANDBY_SIGNAL};
use super::postmaster::{Phase, Postmaster, phase};
use super::prober::Prober;
use super::progress::Progress;
use super::replay::Replay;
use super::session::Place;
use super::slots::Upkeep;
use super::timeline::{history_of, timeline_on_disk};
use super::warnings::Warnings;
use super::{doorway, looks, settings};
use crate::clock;
use crate::types::{DbState, Files, History, Observation, Position, Silence, SystemId, Timeline, Trouble};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// How many looks pass between two tries of a new connection.
const DOORWAY_EVERY: u32 = 5;

/// Looks for as long as the engine lives.
pub async fn run(core: Arc<Core>) {
    let mut memory = Memory::default();
    let mut kept = None;
    loop {
        let mut observation = memory.look(&core).await;
        if kept.is_none() {
            let look = core.on_disk(|core| keep::kept(&core.layout));
            kept = tokio::time::timeout(core.postgresql().probe_timeout, look).await.ok();
        }
        observation.kept = kept.clone().unwrap_or_default();
        observation.copy = core.copying.progress();
        observation.files = core.files.borrow().clone();
        observation.unfit = core.unfit.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let moving = matches!(observation.state, DbState::Starting | DbState::Stopping | DbState::Unclear);
        looks::publish(&core.seen, observation);
        let interval = core.postgresql().probe_interval;
        let pause = if moving { interval.min(Duration::from_millis(50)) } else { interval };
        let end = async {
            match &memory.postmaster {
                Some(postmaster) => postmaster.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = core.look.notified() => {}
            () = end => {}
        }
    }
}

/// What one look leaves for the next.
#[derive(Default)]
struct Memory {
    postmaster: Option<Postmaster>,
    /// What the running postmaster's server said last.
    last: Option<Observation>,
    identity: Option<(SystemId, u64)>,
    history: Option<(Timeline, History)>,
    /// The control file at rest, by its time of change.
    control: Option<(SystemTime, Control)>,
    /// Nothing was left at the last look, processes of others included.
    was_empty: bool,
    silent_since: Option<Instant>,
    activity: Option<Activity>,
    looks_since_doorway: u32,
    prober: Option<Prober>,
    warnings: Option<Warnings>,
    upkeep: Option<Upkeep>,
    files: Option<FilesWatch>,
    progress: Progress,
    replay: Replay,
}

impl Memory {
    async fn look(&mut self, core: &Arc<Core>) -> Observation {
        if self.postmaster.as_ref().is_some_and(|postmaster| !postmaster.lives()) {
            *self = Memory { control: self.control.take(), ..Memory::default() };
            // What its next start was to change belongs to a server that is no more.
            core.files.send_if_modified(Files::forget_waiting);
        }
        if self.postmaster.is_none() {
            let deadline = core.postgresql().probe_timeout;
            match tokio::time::timeout(deadline, core.postmaster()).await {
                Ok(found) => self.postmaster = found,
                Err(_) => {
                    let since_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
                    let trouble = Some(Trouble::VolumeStalled { since_ms });
                    return Observation { trouble, ..Observation::unclear() };
                }
            }
        }
        let Some(pid) = self.postmaster.as_ref().map(|postmaster| postmaster.pid) else {
            core.pages.rest();
            return self.look_at_rest(core).await;
        };
        self.watch_pages(core, pid).await;
        self.look_at_server(core).await
    }

    /// Where its places are is asked of the disk, once.
    async fn watch_pages(&self, core: &Arc<Core>, pid: i32) {
        let watches = core.clone();
        let watch = tokio::task::spawn_blocking(move || watches.pages.watch(&watches, pid));
        let _ = tokio::time::timeout(core.postgresql().probe_timeout, watch).await;
    }

    /// No postmaster: stopped, on its way there, absent or forbidden to start.
    async fn look_at_rest(&mut self, core: &Arc<Core>) -> Observation {
        let was_empty = self.was_empty;
        // All of /proc is searched once, when the database went down; after that a look at the cgroup is enough.
        let empty = core
            .on_disk(move |core| if was_empty { !core.enclosure.is_populated() } else { core.enclosure.is_empty() })
            .await;
        self.was_empty = empty;
        if !empty {
            return Observation { state: DbState::Stopping, ..Observation::unclear() };
        }
        let (marked, absent, changed) = core
            .on_disk(|core| {
                let changed = core.layout.inside.modified(&core.layout.within(CONTROL));
                // Whether it may be started is not known where nobody can look.
                let marked = core.layout.mark().map_or(true, |mark| mark.is_some());
                (marked, core.layout.is_absent(), changed)
            })
            .await;
        let state = match (marked, absent) {
            (true, _) => DbState::Unstartable,
            (false, true) => DbState::Absent,
            (false, false) => DbState::Stopped,
        };
        if state == DbState::Absent {
            return Observation { state, ..Observation::unclear() };
        }
        if let Some(changed) = changed
            && self.control.as_ref().is_none_or(|(read, _)| *read != changed)
            && let Ok(control) = Control::read(&core.layout, &core.user).await
        {
            self.control = Some((changed, control));
        }
        let Some((_, control)) = self.control.clone() else {
            return Observation { state, ..Observation::unclear() };
        };
        self.describe_rest(core, state, control).await
    }

    async fn describe_rest(&self, core: &Arc<Core>, state: DbState, control: Control) -> Observation {
        core.on_disk(move |core| {
            let ended = control.state == super::control::ControlState::ShutDown;
            let end = if ended { control.final_end(&core.layout).ok() } else { None };
            let position = end.unwrap_or_else(|| control.known_end());
            Observation {
                state,
                system: Some(control.system),
                position,
                history: history_of(&core.layout.inside, &core.layout.data_dir, position.timeline),
                clean: control.is_clean(),
                starts_in_recovery: core.layout.has_within(STANDBY_SIGNAL),
                ..Observation::unclear()
            }
        })
        .await
    }

    /// A postmaster lives: what does its server say?
    async fn look_at_server(&mut self, core: &Arc<Core>) -> Observation {
        self.was_empty = false;
        if self.postmaster.as_ref().is_some_and(Postmaster::is_frozen) {
            return self.silent(core);
        }
        let deadline = core.postgresql().probe_timeout;
        // It may answer as before: what it has open it finds.
        let volume = core.pages.trouble(deadline);
        if matches!(volume, Some(Trouble::DirectoryGone { .. })) {
            return Observation { writable: false, trouble: volume, ..self.before() };
        }
        let answer = tokio::time::timeout(deadline, async { core.session().await?.place().await }).await;
        let place = match answer {
            Ok(Ok(place)) => place,
            Ok(Err(error)) => return self.unanswered(core, &error).await,
            // Its recovery may take everything that the host has.
            Err(_) => {
                let error = EngineError::NoAnswer { what: "the server", after: deadline };
                return self.unanswered(core, &error).await;
            }
        };
        self.looks_since_doorway += 1;
        if self.looks_since_doorway >= DOORWAY_EVERY || self.silent_since.is_some() {
            if !doorway::answers(&core.layout, core.postgresql(), deadline).await {
                return self.silent(core);
            }
            self.looks_since_doorway = 0;
        }
        (self.silent_since, self.activity) = (None, None);
        self.describe_server(core, place).await
    }

    async fn describe_server(&mut self, core: &Arc<Core>, place: Place) -> Observation {
        if self.identity.is_none()
            && let Ok(session) = core.session().await
        {
            self.identity = session.identity().await.ok();
        }
        self.upkeep.get_or_insert_with(|| Upkeep::start(core.clone()));
        self.files.get_or_insert_with(|| FilesWatch::start(core.clone()));
        let position = self.position(core, &place).await;
        let history = self.history_of(core, position.timeline).await;
        let follows = settings::addresses_in(&place.conninfo).into_iter().find_map(|host| core.node_at(host));
        let streaming = place.receiver.as_ref().filter(|receiver| receiver.streaming);
        let streams_from =
            streaming.and_then(|receiver| receiver.host.as_deref()).and_then(|host| core.node_called(host));
        let mut observation = Observation {
            state: if place.in_recovery { DbState::Standby } else { DbState::Primary },
            system: self.identity.map(|(system, _)| system),
            position,
            replayed: place.replayed.filter(|_| place.in_recovery),
            replay: self.replay.look(&place, clock::now()),
            history,
            follows: follows.filter(|_| place.in_recovery),
            awaits_wal: place.in_recovery && self.awaits_wal(&place),
            streams_from,
            network: streaming.and_then(|receiver| core.networks.used_by(receiver.pid)),
            ..Observation::unclear()
        };
        let volume = core.pages.trouble(core.postgresql().probe_timeout);
        if place.in_recovery {
            (self.prober, self.warnings) = (None, None);
            observation.trouble = volume;
        } else {
            let pid = self.postmaster.as_ref().map_or(0, |postmaster| postmaster.pid);
            let prober = self.prober.get_or_insert_with(|| Prober::start(core.clone(), pid));
            (observation.writable, observation.trouble) = prober.judge(core.postgresql());
            // A commit may find room in what is there already, until the next segment.
            observation.writable &= !volume.as_ref().is_some_and(Trouble::is_of_the_volume);
            let warnings = self.warnings.get_or_insert_with(|| Warnings::start(core.clone()));
            let limits = &core.config.services[&core.service].troubles;
            // The log's volume, and what comes in time, are told last.
            let grave = volume.clone().filter(Trouble::is_of_the_volume).or(observation.trouble);
            let soon = volume.clone().filter(|trouble| *trouble != Trouble::LogVolumeFull);
            observation.trouble = grave.or(soon).or_else(|| warnings.trouble(limits)).or(volume);
        }
        self.last = Some(observation.clone());
        observation
    }

    /// It waits, or asked again at the moment of this look: what it has is replayed as before.
    fn awaits_wal(&self, place: &Place) -> bool {
        let waited = |last: &Observation| last.awaits_wal && last.replayed == place.replayed;
        place.awaits_wal || self.last.as_ref().is_some_and(waited)
    }

    async fn position(&mut self, core: &Arc<Core>, place: &Place) -> Position {
        let lsn = place.end();
        if let Some((_, timeline)) = place.flushed {
            return Position { timeline, lsn };
        }
        let received = place.receiver.as_ref().map(|receiver| receiver.timeline).filter(|t| t.0 > 0);
        let timeline = match (received, self.identity) {
            (Some(timeline), _) => Some(timeline),
            (None, Some((_, segment))) => {
                core.on_disk(move |core| timeline_on_disk(&core.layout.inside, &core.layout.data_dir, lsn, segment))
                    .await
            }
            (None, None) => None,
        };
        let before = self.last.as_ref().map(|last| last.position.timeline);
        Position { timeline: timeline.or(before).unwrap_or_default(), lsn }
    }

    async fn history_of(&mut self, core: &Arc<Core>, timeline: Timeline) -> History {
        if let Some((known, history)) = &self.history
            && *known == timeline
        {
            return history.clone();
        }
        let history = core.on_disk(move |core| history_of(&core.layout.inside, &core.layout.data_dir, timeline)).await;
        if timeline.0 <= 1 || !history.0.is_empty() {
            self.history = Some((timeline, history.clone()));
        }
        history
    }

    /// The server refused or broke the connection.
    async fn unanswered(&mut self, core: &Arc<Core>, error: &EngineError) -> Observation {
        let before = self.last.clone().unwrap_or_else(Observation::unclear);
        if self.postmaster.as_ref().is_some_and(|postmaster| !postmaster.lives()) {
            return Observation { state: DbState::Stopping, ..before };
        }
        let pid = self.postmaster.as_ref().map_or(0, |postmaster| postmaster.pid);
        match core.on_disk(move |core| phase(&core.layout, pid)).await {
            Some(Phase::Stopping) => Observation { state: DbState::Stopping, writable: false, ..before },
            Some(Phase::Ready) if matches!(error, EngineError::NoAnswer { .. }) => self.silent(core),
            // It answers, with a refusal: no free slot even for the superuser, a broken catalogue.
            Some(Phase::Ready) => {
                let trouble = Some(Trouble::ProbeFailed { error: error.to_string() });
                let state = if self.last.is_some() { before.state } else { DbState::Starting };
                Observation { state, trouble, writable: false, ..before }
            }
            _ => {
                (self.silent_since, self.activity) = (None, None);
                let progress = self.progress.look(core, pid).await;
                Observation { state: DbState::Starting, progress, ..Observation::unclear() }
            }
        }
    }

    /// The server lives and does not answer: what it was when it last did, and since when it is silent.
    fn silent(&mut self, core: &Core) -> Observation {
        let since = *self.silent_since.get_or_insert_with(Instant::now);
        let pid = self.postmaster.as_ref().map_or(0, |postmaster| postmaster.pid);
        let since_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let before = self.before();
        let still = self.activity.get_or_insert_with(|| Activity::begins(since)).still_for(pid, Instant::now());
        let still_ms = u64::try_from(still.as_millis()).unwrap_or(u64::MAX);
        let serves_nobody = self.postmaster.as_ref().is_some_and(Postmaster::is_frozen);
        // Who waits for a volume is neither slow nor hung.
        let stalls = core.pages.trouble(core.postgresql().probe_timeout).filter(|_| !serves_nobody);
        let stalls = stalls.filter(|trouble| matches!(trouble, Trouble::VolumeStalled { .. }));
        let silence = Trouble::NotAnswering(Silence { since_ms, still_ms, serves_nobody });
        Observation { writable: false, trouble: Some(stalls.unwrap_or(silence)), ..before }
    }

    /// What it was when it last said something.
    fn before(&self) -> Observation {
        let starting = || Observation { state: DbState::Starting, ..Observation::unclear() };
        self.last.clone().unwrap_or_else(starting)
    }
}
