//! What the observer and the actions share: the configuration of one service, its paths, its processes, and the one
//! SQL connection.

use super::archive;
use super::aside::Aside;
use super::copying::Copying;
use super::error::{EngineError, Result};
use super::layout::Layout;
use super::looks::Seen;
use super::networks::Networks;
use super::pages::Pages;
use super::postmaster::Postmaster;
use super::program::OsUser;
use super::runs::Runs;
use super::session::Session;
use super::writes::{InOrder, Writes};
use super::{home, settings, tls};
use crate::config::{Config, Postgresql};
use crate::engine::enclosure::Enclosure;
use crate::types::{FileFault, Files, NodeName, ServiceName, SystemId, Unfit, Upstream};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::{Mutex, Notify, watch};

/// Shared by everything that belongs to one service's database.
#[derive(Debug)]
pub struct Core {
    pub config: Arc<Config>,
    pub service: ServiceName,
    pub layout: Layout,
    pub user: OsUser,
    pub enclosure: Enclosure,
    /// The program that is the guard (`PROGRAM guard ...`).
    pub guard: PathBuf,
    /// The rewind or copy that runs.
    pub copying: Copying,
    /// What lies aside, and a word that a rejoin has put something there.
    pub aside: Aside,
    pub moved: Notify,
    /// Over which of its networks another node is reached first.
    pub networks: Networks,
    /// regent's own writes beside the data.
    pub pages: Pages,
    writes: Writes,
    /// And whether it is in the database in which regent is at home.
    session: Mutex<Option<(Arc<Session>, bool)>>,
    /// Held while the replication roles are looked at.
    pub tends_roles: Mutex<()>,
    /// What of the configuration changes while the daemon runs: the operator's parameters and access lines.
    given: RwLock<Arc<Postgresql>>,
    /// Why the server goes on with an earlier daemon's parameters and access lines, if it does.
    pub refused: std::sync::Mutex<Option<FileFault>>,
    /// What the server had to be started without, if anything: its log, a socket, its environment_file.
    pub without: std::sync::Mutex<Option<FileFault>>,
    /// Whether it is settled that a server that ran already gets this daemon's parameters and access lines.
    pub renewed: AtomicBool,
    /// What the server says of its files.
    pub files: watch::Sender<Files>,
    /// Asks for a look at them at once.
    pub files_changed: Notify,
    /// It was handed over since an earlier daemon.
    pub has_new_certificate: bool,
    /// The database that was made here, until anything else is done with it.
    pub made: std::sync::Mutex<Option<SystemId>>,
    /// Held while the note of what this node remembers is changed: the first look that counts for it.
    pub remembers_from: std::sync::Mutex<u64>,
    /// What the database lacks to serve as primary, as it was found last (`fitness/`).
    pub unfit: std::sync::Mutex<Vec<Unfit>>,
    /// Asks the observer to look at once.
    pub look: Notify,
    /// The latest observation, and how many looks there were.
    pub seen: watch::Sender<Seen>,
}

impl Core {
    pub fn new(config: Arc<Config>, service: ServiceName, guard: PathBuf) -> Result<Self> {
        let known = config.services.get(&service);
        let postgresql = &known.ok_or_else(|| EngineError::NoSuchService { service: service.clone() })?.postgresql;
        settings::check_parameters(postgresql)?;
        // Several daemons of one machine may share a cgroup (tests, the demo): the directory tells their databases apart.
        let mark = crc32fast::hash(postgresql.data_dir.as_os_str().as_encoded_bytes());
        let name = format!("regent-{service}-{}-{mark:08x}", config.node);
        let enclosure = Enclosure::locate(&name, &config.cgroup_record(&service), &postgresql.data_dir);
        let runs = Runs::beside(enclosure.cgroup());
        let left = runs.end_leftovers();
        if !left.is_empty() {
            tracing::warn!(%service, processes = left.len(), "ended what an earlier daemon's actions had left running");
        }
        let user = OsUser::find(&postgresql.os_user, &service, runs)?;
        let layout = Layout::new(&config, &service, &user)?;
        layout.make_directories()?;
        let (seen, _) = watch::channel(Seen::nothing());
        let (session, look, copying) = (Mutex::new(None), Notify::new(), Copying::default());
        let has_new_certificate = false;
        let given = RwLock::new(Arc::new(postgresql.clone()));
        let (files, _) = watch::channel(Files::default());
        let mut core = Core {
            config,
            service,
            layout,
            user,
            enclosure,
            guard,
            copying,
            aside: Aside::default(),
            moved: Notify::new(),
            networks: Networks::default(),
            pages: Pages::default(),
            writes: Writes::default(),
            session,
            tends_roles: Mutex::new(()),
            given,
            refused: std::sync::Mutex::default(),
            without: std::sync::Mutex::default(),
            renewed: AtomicBool::new(false),
            files,
            files_changed: Notify::new(),
            has_new_certificate,
            made: std::sync::Mutex::default(),
            remembers_from: std::sync::Mutex::default(),
            unfit: std::sync::Mutex::default(),
            look,
            seen,
        };
        core.has_new_certificate = tls::hand_over(&core);
        archive::forget_without_commands(&core)?;
        Ok(core)
    }

    /// As it was when the daemon started: everything but the parameters and the access lines is so until it ends.
    pub fn postgresql(&self) -> &Postgresql {
        &self.config.services[&self.service].postgresql
    }

    /// With the parameters and the access lines of the file that was read last.
    pub fn current(&self) -> Arc<Postgresql> {
        self.given.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From here on these parameters and access lines count.
    pub fn give(&self, postgresql: Arc<Postgresql>) {
        *self.given.write().unwrap_or_else(PoisonError::into_inner) = postgresql;
    }

    /// Whether a server has an earlier daemon's parameters and access lines, because PostgreSQL refuses this one's.
    pub fn has_earlier_lines(&self) -> bool {
        let is_refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        is_refused && self.layout.hba.exists() && self.layout.conf().exists()
    }

    /// All settings of the command line.
    pub fn command_line(&self) -> Vec<String> {
        settings::command_line(&self.config, &self.current(), &self.layout)
    }

    /// The open connection to the local server; opened anew where it is gone.
    pub async fn session(&self) -> Result<Arc<Session>> {
        let mut kept = self.session.lock().await;
        let away = match kept.take().filter(|(session, _)| !session.is_closed()) {
            Some((session, true)) => {
                *kept = Some((session.clone(), true));
                return Ok(session);
            }
            away => away.map(|(session, _)| session),
        };
        let (session, is_home) = home::open(self, self.postgresql().probe_timeout, away).await?;
        *kept = Some((session.clone(), is_home));
        Ok(session)
    }

    /// Does file work on a thread that may hang with its disk.
    pub async fn on_disk<T, F>(self: &Arc<Self>, work: F) -> T
    where
        T: Send + 'static,
        F: FnOnce(&Core) -> T + Send + 'static,
    {
        let core = self.clone();
        tokio::task::spawn_blocking(move || work(&core)).await.expect("a panic there has aborted the program")
    }

    /// The same for work on the file that says whom the server follows: what was asked for last is what stands.
    pub async fn on_disk_in_order<T, F>(self: &Arc<Self>, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Core, &InOrder) -> Result<T> + Send + 'static,
    {
        let asked = self.writes.ask();
        self.on_disk(move |core| core.writes.in_order(&asked, |in_order| work(core, in_order))).await
    }

    /// How an upstream is reached, over the network that comes first at present.
    pub fn conninfo(&self, upstream: &Upstream) -> String {
        let ordered = self.networks.ordered(&self.config, upstream);
        settings::conninfo(&self.config, &self.current(), &self.layout, &ordered)
    }

    /// The running postmaster, if there is one.
    pub async fn postmaster(self: &Arc<Self>) -> Option<Postmaster> {
        self.on_disk(|core| Postmaster::find(&core.layout)).await
    }

    /// The postmaster, or the error that the database does not run.
    pub async fn running(self: &Arc<Self>, action: &'static str) -> Result<Postmaster> {
        let state = "not running".to_owned();
        self.postmaster().await.ok_or(EngineError::WrongState { action, state, remedy: "start it as a standby first" })
    }

    /// Refuses while any process is left.
    pub async fn must_be_stopped(self: &Arc<Self>, action: &'static str) -> Result<()> {
        if self.on_disk(|core| core.enclosure.is_empty()).await && self.postmaster().await.is_none() {
            return Ok(());
        }
        Err(EngineError::WrongState { action, state: "running".to_owned(), remedy: "stop it first" })
    }

    /// The node that has this address.
    pub fn node_at(&self, address: IpAddr) -> Option<NodeName> {
        let mut nodes = self.config.nodes.iter();
        nodes.find(|(_, node)| node.primary == address || node.secondary == address).map(|(name, _)| name.clone())
    }

    /// The node whose database goes by this name or address.
    pub fn node_called(&self, host: &str) -> Option<NodeName> {
        let mut nodes = self.config.nodes.iter();
        let named = nodes.find(|(_, node)| node.hostname.eq_ignore_ascii_case(host)).map(|(name, _)| name.clone());
        named.or_else(|| host.parse().ok().and_then(|address| self.node_at(address)))
    }
}
