//! The PostgreSQL engine: one service's database on this node, versions 13 to 18.
//!
//! ```text
//!  perform(DbAction) ─► initdb · start · seal · promote · stop · rejoin ─► the postmaster, in a cgroup of its own
//!                                                                                  │ socket, pidfd, control file
//!  latest(), changed() ◄── observer (doorway, prober) ◄────────────────────────────┘
//! ```
//!
//! What runs here is started by regent alone: the access file and the socket are in the run directory, which is gone
//! after a boot, so a server that anything else starts on the same directory serves no client of theirs by regent's
//! rules, and is seen as running all the same (its processes work in the data directory). It is then observed, and
//! stopped like any other. The server outlives the daemon: a new engine finds it by its lock file.
//!
//! Not here: when to do what. It never opens a database for writes but for `StartPrimary` and `Promote`, and then only
//! while the lease file in the run directory names that epoch and has not ended.

mod access;
mod activity;
mod alike;
mod archive;
mod aside;
mod clone;
mod command;
mod control;
mod copying;
mod core;
mod distribution;
mod doorway;
mod end;
mod environment;
mod error;
mod files;
mod fitness;
mod home;
mod initdb;
mod keep;
mod label;
mod layout;
mod log;
mod looks;
mod losses;
mod lost;
mod mounts;
mod networks;
mod numbers;
mod observer;
mod older;
mod outside;
mod outsiders;
mod own_files;
mod pages;
mod parameters;
mod password;
mod places;
mod postmaster;
mod prober;
mod program;
mod progress;
mod promote;
mod reach;
mod rejoin;
mod relations;
mod reload;
mod remembered;
mod renewal;
mod replay;
mod restored;
mod roles;
mod runs;
mod seal;
mod segments;
mod session;
mod settings;
mod slots;
mod sockets;
mod start;
mod stop;
mod stream;
mod survey;
mod timeline;
mod tls;
mod trial;
mod unblock;
mod upstream;
pub mod version;
mod volume;
mod waldump;
mod warnings;
mod writes;

pub use access::replication_role;
pub use command::unusable;
pub use distribution::rivals;
pub use error::EngineError;
pub use lost::{DivergedWal, Reader};
pub use outside::amiss;
pub use renewal::Taken;
pub use trial::on_this_host;

use self::core::Core;
use super::{Engine, enclosure};
use crate::action::guard;
use crate::config::{Config, Postgresql};
use crate::types::{DbAction, DbDone, DbOutcome, DbState, KeptFolder, Observation, ServiceName, StopLadder, Survey};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex, watch};

/// How long an action waits for a look of after it, where somebody waits for the action.
const BRIEFLY: Duration = Duration::from_millis(100);

/// One service's database on this node. Dropping it leaves the database as it is.
#[derive(Debug)]
pub struct PostgreSql {
    core: Arc<Core>,
    observer: tokio::task::JoinHandle<()>,
    /// Writes down how far the database came.
    remembering: tokio::task::JoinHandle<()>,
    /// Looks what lies aside.
    aside: tokio::task::JoinHandle<()>,
    /// What a server that runs already has from an earlier daemon is brought up to date once.
    renewal: tokio::task::JoinHandle<()>,
    /// A stream that does not get on is turned to the other network.
    stream: tokio::task::JoinHandle<()>,
    /// Looks whether it could serve.
    fitness: tokio::task::JoinHandle<()>,
    /// Keeps the server's log within its bound.
    log: tokio::task::JoinHandle<()>,
    /// Has the replication roles be as they must.
    roles: tokio::task::JoinHandle<()>,
    /// One action at a time.
    turn: Arc<Mutex<()>>,
    /// Counts the stops that were asked for: each interrupts what is under way.
    stops: watch::Sender<u64>,
    /// Counts what was asked for: each interrupts a comparison.
    asked: watch::Sender<u64>,
    /// The version of the observation that `latest` last handed out.
    handed_out: AtomicU64,
}

impl PostgreSql {
    /// The engine of one service of this node; must be called within a tokio runtime. A database that runs already is
    /// adopted as it is. Errors: the service or its user does not exist, or a parameter belongs to regent.
    pub fn new(config: Arc<Config>, service: ServiceName) -> Result<Self, EngineError> {
        Self::with_guard(config, service, PathBuf::from("/proc/self/exe"))
    }

    /// The same, with another program as the guard: `PROGRAM guard ...`.
    pub fn with_guard(config: Arc<Config>, service: ServiceName, guard: PathBuf) -> Result<Self, EngineError> {
        let core = Arc::new(Core::new(config, service, guard)?);
        let observer = tokio::spawn(observer::run(core.clone()));
        let remembering = tokio::spawn(remembered::run(core.clone()));
        let aside = tokio::spawn(aside::run(core.clone()));
        let (stops, _) = watch::channel(0);
        let (asked, _) = watch::channel(0);
        let turn = Arc::new(Mutex::new(()));
        let renewal = tokio::spawn(renewal::run(core.clone(), turn.clone(), stops.subscribe()));
        let stream = tokio::spawn(stream::run(core.clone(), turn.clone(), asked.subscribe()));
        let fitness = tokio::spawn(fitness::run(core.clone()));
        let log = tokio::spawn(log::run(core.clone()));
        let roles = tokio::spawn(roles::run(core.clone()));
        let handed_out = AtomicU64::new(0);
        Ok(PostgreSql {
            core,
            observer,
            remembering,
            aside,
            renewal,
            stream,
            fitness,
            log,
            roles,
            turn,
            stops,
            asked,
            handed_out,
        })
    }

    /// Every name at which the database's user may have put anything in regent's way; for tests that do so.
    pub fn foreign_names(&self) -> Vec<PathBuf> {
        self.core.layout.foreign_names()
    }

    /// The ids of all processes of the database that are left.
    pub fn processes(&self) -> Vec<i32> {
        self.core.enclosure.members()
    }

    /// The folders beside the database that incidents of the ledger name: none of them is removed, nor what belongs to it.
    /// Before this is said nothing is.
    pub fn are_named(&self, folders: BTreeSet<String>) {
        self.core.aside.are_named(folders);
    }

    /// What lies aside here: old copies, and WAL that only this node had.
    pub fn kept(&self) -> Vec<KeptFolder> {
        self.core.aside.found()
    }

    /// What a planned move would meet here, in the server's own words; nothing waits for it.
    pub async fn survey(&self) -> Result<Survey, EngineError> {
        survey::survey(&self.core).await
    }

    /// Has PostgreSQL try the parameters and access lines of a new file, and changes nothing. Errors: what it refuses.
    pub async fn try_out(&self, postgresql: &Postgresql) -> Result<(), EngineError> {
        renewal::try_out(&self.core, postgresql).await
    }

    /// Takes the parameters, access lines and passwords of a new file, which were tried.
    pub async fn take(&self, postgresql: Postgresql) -> Result<Taken, EngineError> {
        renewal::take(&self.core, Arc::new(postgresql)).await
    }

    /// Where this is the primary, has the replication roles be as they must. Brings what was put right.
    pub async fn tend_roles(&self) -> Result<Vec<String>, EngineError> {
        roles::tend(&self.core).await
    }

    /// Has the database's files looked at now.
    pub fn look_at_files(&self) {
        self.core.files_changed.notify_one();
    }

    async fn act(&self, action: DbAction) -> Result<DbDone, EngineError> {
        let core = &self.core;
        if !matches!(action, DbAction::Initdb) {
            core.made.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        match action {
            DbAction::Initdb => Ok(DbDone::Created { system: initdb::initdb(core).await? }),
            DbAction::StartPrimary { epoch, known } => {
                let opened = start::start_primary(core, epoch, known).await?;
                Ok(opened.map_or(DbDone::Plain, |position| DbDone::Writable { position }))
            }
            DbAction::StartStandby { upstream } => {
                start::start_standby(core, upstream.as_ref()).await.map(|()| DbDone::Plain)
            }
            DbAction::Follow { upstream } => seal::follow(core, &upstream).await.map(|()| DbDone::Plain),
            DbAction::Compare { upstream } => Ok(DbDone::Compared { unfit: rejoin::compare(core, &upstream).await? }),
            DbAction::Seal => Ok(DbDone::Sealed(seal::seal(core).await?)),
            DbAction::Promote { epoch, timeline } => {
                Ok(DbDone::Writable { position: promote::promote(core, epoch, timeline).await? })
            }
            DbAction::Checkpoint => {
                core.session().await?.execute("write a checkpoint", "checkpoint").await.map(|()| DbDone::Plain)
            }
            DbAction::FindEnd { from } => {
                core.must_be_stopped("look for the end of its WAL").await?;
                Ok(DbDone::Ends { at: end::after_a_crash(&core.layout, &core.user, from).await? })
            }
            DbAction::Stop { ladder } => self.stop(ladder).await,
            DbAction::AcceptCopy { .. } => {
                core.must_be_stopped("accept the copy").await?;
                core.on_disk(remembered::forget).await.map(|()| DbDone::Plain)
            }
            DbAction::Rejoin { upstream, order } => {
                let _shown = core.copying.begins();
                let rejoined = rejoin::rejoin(core, &upstream, order.is_some()).await;
                core.moved.notify_one();
                let (how, kept) = rejoined?;
                Ok(DbDone::Rejoined { how, kept })
            }
        }
    }

    /// An action that worked waits for a look of after it: for what, and for how long. What it said is so, whatever is seen;
    /// but of what changes what the database is, a look of before would have it done once more.
    fn waits_for(&self, action: &DbAction) -> (Option<DbState>, Duration) {
        let long = self.core.postgresql().probe_timeout * 2;
        match action {
            DbAction::StartPrimary { .. } | DbAction::Promote { .. } => (Some(DbState::Primary), long),
            DbAction::StartStandby { .. } => (Some(DbState::Standby), long),
            DbAction::Initdb | DbAction::Rejoin { .. } | DbAction::AcceptCopy { .. } => (None, long),
            // Somebody waits for the answer, or it can be done twice.
            DbAction::Follow { .. }
            | DbAction::Compare { .. }
            | DbAction::Seal
            | DbAction::Checkpoint
            | DbAction::FindEnd { .. }
            | DbAction::Stop { .. } => (None, BRIEFLY),
        }
    }

    async fn stop(&self, ladder: StopLadder) -> Result<DbDone, EngineError> {
        let (clean, position) = stop::stop(&self.core, ladder).await?;
        // Nothing is left that a guard could have to kill; the next start posts a new one.
        guard::stand_down(&self.core.layout.lease);
        Ok(DbDone::Stopped { clean, position })
    }
}

/// What a guard of this service's database needs to know, for whoever posts one without an engine.
pub fn guard_options(config: &Config, service: &ServiceName) -> Result<guard::GuardOptions, EngineError> {
    let known = config.services.get(service);
    let known = known.ok_or_else(|| EngineError::NoSuchService { service: service.clone() })?;
    Ok(guard::GuardOptions {
        lease: config.lease_file(service),
        goodbye: Some(config.goodbye_file(service)),
        cgroup: enclosure::recorded(&config.cgroup_record(service)),
        data_dir: known.postgresql.data_dir.clone(),
    })
}

impl Engine for PostgreSql {
    /// A `Stop` interrupts whatever else is under way, and everything a comparison; else each waits for its turn.
    async fn perform(&self, action: DbAction) -> DbOutcome {
        let is_stop = matches!(action, DbAction::Stop { .. });
        if is_stop {
            self.stops.send_modify(|count| *count += 1);
        }
        self.asked.send_modify(|count| *count += 1);
        let (mut stops, mut asked) = (self.stops.subscribe(), self.asked.subscribe());
        let compares = matches!(action, DbAction::Compare { .. });
        let rejoins = matches!(action, DbAction::Rejoin { .. });
        let (led_to, patience) = self.waits_for(&action);
        let core = &self.core;
        let _turn = self.turn.lock().await;
        let outcome = if is_stop {
            self.act(action).await
        } else {
            tokio::select! {
                _ = stops.changed() => Err(EngineError::Interrupted),
                _ = asked.changed(), if compares => Err(EngineError::Interrupted),
                outcome = self.act(action) => outcome,
            }
        };
        tokio::select! {
            _ = stops.changed(), if !is_stop => {}
            () = looks::once_more(&core.seen, &core.look, led_to, if outcome.is_ok() { patience } else { BRIEFLY }) => {}
        }
        match outcome {
            Ok(done) => DbOutcome::Done(done),
            Err(error) if rejoins && !self.core.copying.has_cost() => DbOutcome::Refused { error: error.to_string() },
            Err(error) => DbOutcome::Failed { error: error.to_string() },
        }
    }

    fn latest(&self) -> Observation {
        let seen = self.core.seen.borrow();
        self.handed_out.store(seen.version, Ordering::Relaxed);
        seen.observation.clone()
    }

    async fn changed(&self) {
        let mut seen = self.core.seen.subscribe();
        while seen.borrow_and_update().version <= self.handed_out.load(Ordering::Relaxed) {
            if seen.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Drop for PostgreSql {
    fn drop(&mut self) {
        self.observer.abort();
        self.remembering.abort();
        self.aside.abort();
        self.renewal.abort();
        self.stream.abort();
        self.fitness.abort();
        self.log.abort();
        self.roles.abort();
    }
}
