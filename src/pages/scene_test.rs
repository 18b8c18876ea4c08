//! A cluster as one of its nodes knows it, for tests of pages: the ledger after real commands, heartbeats, and what the
//! node knows alone. What its coordinator says is what the coordinator says of these.
//!
//! Not here: the scenes of the golden pages (`cli/render/scenes_test.rs`).

use super::{Behind, Known, OwnDatabase, Refused, Unheard, dry_run, refused_dry_run, status};
use crate::api::admin::Response;
use crate::api::status::Status;
use crate::config::{Config, Role};
use crate::ledger::world_test::*;
use crate::ledger::{Machine, Settings, set_voters};
use crate::plan::keeper::Step;
use crate::plan::{self, Applied, Lead, Outlook, Plan, Row, Timing, alarm, switchover};
use crate::types::{
    AgentName, AgentRun, Boot, ChannelName, ClusterId, CopyHealth, DbState, Epoch, Failing, Health, Incarnation,
    Instant, Network, NodeId, NodeName, PeerView, Position, ReplayLag, Room, Round, ServiceHealth, ServiceName, Sight,
    Survey, Unfit, WallTime,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const NOW: Instant = Instant(1_000_000_000_000);
/// The same moment for people.
pub(crate) const WALL: WallTime = WallTime(1_795_176_894_123);
/// An example with two database nodes and a witness.
pub(crate) const THREE: &str = include_str!("../../config/two-databases-and-witness.toml");
/// Where the WAL of every database ends.
pub(crate) const END: Position = Position { timeline: crate::types::Timeline(3), lsn: crate::types::Lsn(0x500_0148) };

/// So long ago.
pub(crate) fn ago(ms: u64) -> Instant {
    Instant(NOW.0 - ms * 1_000_000)
}

pub(crate) fn wall_ago(ms: u64) -> WallTime {
    WallTime(WALL.0 - ms)
}

/// The example with two more nodes, db3 and w2.
pub(crate) fn five() -> String {
    let nodes = "[nodes.db3]\nprimary = \"10.0.1.14\"\nsecondary = \"10.0.2.14\"\n\
                 [nodes.w2]\nrole = \"witness\"\nprimary = \"10.0.1.15\"\nsecondary = \"10.0.2.15\"\n[channels.disk]";
    let device = "node.db2 = { ip = \"10.0.3.12\" }";
    THREE.replace("[channels.disk]", nodes).replace(device, &format!("{device}\nnode.db3 = {{ ip = \"10.0.3.14\" }}"))
}

/// The nodes of a scene: their incarnations and Raft ids.
const NODES: [(&str, u64, &str); 5] = [
    ("db1", 1, "5f1c8a9e"),
    ("db2", 2, "7a2d8a9e"),
    ("w1", 3, "93ce8a9e"),
    ("db3", 4, "61aa8a9e"),
    ("w2", 5, "c0de8a9e"),
];

/// The cluster, and the node that answers.
pub(crate) struct Scene {
    pub world: World,
    pub config: Config,
    timing: Timing,
    pub rows: BTreeMap<NodeName, Row>,
    pub leader: Option<NodeName>,
    /// What the answering node remembers of its term, where it leads.
    pub lead: Lead,
    pub applied: Applied,
    pub own: BTreeMap<ServiceName, OwnDatabase>,
    pub failing: BTreeMap<Failing, String>,
    pub room: Option<Room>,
    pub behind: BTreeMap<ServiceName, BTreeMap<NodeName, Duration>>,
    pub not_joined: Option<String>,
    pub phi: BTreeMap<(NodeName, ChannelName), f64>,
    pub unusable: BTreeMap<ChannelName, String>,
    pub monitors: BTreeMap<(AgentName, NodeName), (WallTime, AgentRun)>,
    pub rivals: Vec<String>,
    pub refused: Vec<Refused>,
    pub unheard: Vec<Unheard>,
    pub waiting: Vec<String>,
    /// Lines of the log, and answers.
    pub dropped: (u64, u64),
}

impl Scene {
    /// db1 is the primary in epoch 3 and the databases of the others stream from it, w1 leads, and all hear each other.
    pub(crate) fn new(me: &str, file: &str) -> Scene {
        Scene::on(me, file, machine("db1"))
    }

    /// The same, with db1 on this machine.
    pub(crate) fn on(me: &str, file: &str, db1: Machine) -> Scene {
        let config = Config::parse(file, "regent.toml", None, me).expect("an example");
        let world = world(&config, db1);
        let names = config.nodes.keys();
        let rows = names.map(|name| (name.clone(), row(&config, name))).collect();
        let mut scene = Scene {
            world,
            timing: Timing::new(&config),
            config,
            rows,
            leader: Some(node("w1")),
            lead: Lead::new(TERM, ago(600_000), Round(4)),
            applied: Applied::default(),
            own: BTreeMap::new(),
            failing: BTreeMap::new(),
            room: None,
            behind: BTreeMap::new(),
            not_joined: None,
            phi: BTreeMap::new(),
            unusable: BTreeMap::new(),
            monitors: BTreeMap::new(),
            rivals: Vec::new(),
            refused: Vec::new(),
            unheard: Vec::new(),
            waiting: Vec::new(),
            dropped: (0, 0),
        };
        for name in scene.databases() {
            let is_primary = name == node("db1");
            let (state, from) = if is_primary { (DbState::Primary, None) } else { (DbState::Standby, Some("db1")) };
            scene.database(name.as_str(), state, END, from);
        }
        scene.health("db1").watchdog_armed = true;
        scene
    }

    fn databases(&self) -> Vec<NodeName> {
        let nodes = self.config.nodes.iter().filter(|(_, node)| node.role == Role::Database);
        nodes.map(|(name, _)| name.clone()).collect()
    }

    /// A node's row, to change it.
    pub(crate) fn row(&mut self, name: &str) -> &mut Row {
        self.rows.get_mut(&node(name)).expect("a node")
    }

    pub(crate) fn health(&mut self, name: &str) -> &mut Health {
        Arc::make_mut(&mut self.row(name).health)
    }

    /// What one node sees of another on the two networks and on the disk.
    pub(crate) fn sees(&mut self, observer: &str, peer: &str, sights: [Sight; 3]) {
        Arc::make_mut(&mut self.row(observer).views).insert(node(peer), view(peer, sights));
    }

    /// What a node says of its copy.
    pub(crate) fn copies(&mut self, name: &str, copy: CopyHealth) {
        self.health(name).services.values_mut().for_each(|health| health.copy = Some(copy));
    }

    /// For how long each of these has lacked something.
    pub(crate) fn lags(&mut self, lags: &[(&str, u64)]) {
        let lags = lags.iter().map(|(name, seconds)| (node(name), Duration::from_secs(*seconds)));
        self.behind.insert(orders(), lags.collect());
    }

    /// Over which network a node's database streams.
    pub(crate) fn streams_over(&mut self, name: &str, network: Network) {
        self.health(name).services.values_mut().for_each(|health| health.network = Some(network));
    }

    /// What a node says of its replay.
    pub(crate) fn replays(&mut self, name: &str, lag: ReplayLag) {
        self.health(name).services.values_mut().for_each(|health| health.replay = Some(lag));
    }

    /// What a node says that its database lacks.
    pub(crate) fn lacks(&mut self, name: &str, unfit: Vec<Unfit>) {
        self.health(name).services.values_mut().for_each(|health| health.unfit = unfit.clone());
    }

    /// What a node says of its database.
    pub(crate) fn database(&mut self, name: &str, state: DbState, position: Position, from: Option<&str>) {
        let (timeline, streams_from) = (position.timeline, from.map(node));
        let database = ServiceHealth {
            state,
            holds: None,
            writable: state == DbState::Primary,
            timeline,
            position,
            streams_from,
            released: None,
            copy: None,
            network: None,
            replay: None,
            file_fault: None,
            trouble: None,
            pending_restart: Vec::new(),
            lowered: Vec::new(),
            unfit: Vec::new(),
        };
        self.health(name).services.insert(orders(), database);
    }

    /// What the answering node alone knows of its database of `orders`.
    pub(crate) fn own(&mut self) -> &mut OwnDatabase {
        self.own.entry(orders()).or_default()
    }

    /// What the keeper of the answering node does.
    pub(crate) fn keeps(&mut self, step: Step) {
        self.own().step = Some(step);
    }

    /// A configured node never joined.
    pub(crate) fn without(&mut self, name: &str) {
        self.world.state.nodes.remove(&node(name));
        self.rows.remove(&node(name));
        for row in self.rows.values_mut() {
            Arc::make_mut(&mut row.views).remove(&node(name));
        }
    }

    fn seen<'a>(&'a self, rows: &'a BTreeMap<NodeName, Row>) -> Outlook<'a> {
        let Scene { world, config, timing, .. } = self;
        let applied = &self.applied;
        Outlook { now: NOW, me: &config.node, state: &world.state, config, timing, applied, rows }
    }

    fn leads(&self) -> bool {
        self.leader.as_ref() == Some(&self.config.node)
    }

    /// What the coordinator plans on the answering node; nothing where it does not lead.
    pub(crate) fn plan(&self) -> Plan {
        if !self.leads() {
            return Plan::default();
        }
        let Scene { world, config, timing, lead, applied, rows, .. } = self;
        let doubts_itself = rows[&config.node].health.self_doubt;
        let (me, state, monitored) = (&config.node, &world.state, &plan::Monitored::default());
        plan::coordinate(&plan::Input {
            now: NOW,
            me,
            state,
            config,
            timing,
            lead,
            applied,
            rows,
            monitored,
            doubts_itself,
        })
    }

    /// The page.
    pub(crate) fn status(&self) -> Status {
        self.look(status)
    }

    /// Any part of it.
    pub(crate) fn look<T>(&self, of: impl FnOnce(&Known) -> T) -> T {
        let plan = self.plan();
        let mut rows = self.rows.clone();
        if self.leads() {
            // As its heartbeats say.
            let own = rows.get_mut(&self.config.node).expect("its own row");
            Arc::make_mut(&mut own.health).alarms = alarm::carried(&plan);
        }
        let renewed = if self.leads() { self.lead.renewed.clone() } else { BTreeMap::new() };
        of(&Known {
            seen: self.seen(&rows),
            cluster: &ClusterId("orders".to_owned()),
            answered_at: WALL,
            term: TERM,
            leader: self.leader.as_ref(),
            notes: &plan.notes,
            waiting: self.waiting.clone(),
            renewed,
            own: self.own.clone(),
            failing: self.failing.clone(),
            behind: self.behind.clone(),
            not_joined: self.not_joined.clone(),
            phi: self.phi.clone(),
            unusable: self.unusable.clone(),
            monitors: &self.monitors,
            rivals: self.rivals.clone(),
            refused: self.refused.clone(),
            unheard: self.unheard.clone(),
            room: self.room,
            log_lines_dropped: self.dropped.0,
            answers_dropped: self.dropped.1,
        })
    }

    fn target_behind(&self) -> Option<Behind> {
        let time = *self.behind.get(&orders())?.get(&node("db2"))?;
        Some(Behind { time, limit: self.config.failover.max_lag_time })
    }

    /// The dry run of a move to db2; `said`: what db1 and db2 would meet it with.
    pub(crate) fn dry_run(&self, said: [Result<Survey, String>; 2]) -> Response {
        match switchover::decide(&self.seen(&self.rows), &orders(), Some(&node("db2"))) {
            Ok(planned) => dry_run(
                &planned,
                self.target_behind(),
                &[node("db1"), node("db2")].into_iter().zip(said).collect::<Vec<_>>(),
            ),
            Err(why) => refused_dry_run(&why),
        }
    }
}

/// The ledger that the file seeds, once its nodes have joined and db1 holds epoch 3.
fn world(config: &Config, db1: Machine) -> World {
    let ids = NODES.iter().map(|(name, id, _)| (node(name), NodeId(*id)));
    let ids: BTreeMap<_, _> = ids.filter(|(name, _)| config.nodes.contains_key(name)).collect();
    let mut world = World::with(db1, |settings| {
        *settings = Settings::seed(config);
        settings.nodes.iter_mut().for_each(|(name, settings)| settings.id = ids[name]);
    });
    let applied = world.state.applied;
    set_voters(&mut world.state, applied, vec![ids.values().copied().collect()]);
    for (name, id, _) in NODES.iter().skip(3).filter(|(name, ..)| ids.contains_key(&node(name))) {
        assert_eq!(world.done(join(name, 1, &[])), crate::ledger::Event::Joined { incarnation: Incarnation(*id) });
    }
    for (name, _, boot) in NODES {
        if let Some(record) = world.state.nodes.get_mut(&node(name)) {
            record.boot = Boot(format!("{boot}-0000-4000-8000-000000000000").into());
        }
    }
    let boot = world.state.nodes[&node("db1")].boot.clone();
    let service = world.state.services.get_mut(&orders()).expect("it was created");
    service.epoch = Epoch(3);
    service.holder.as_mut().expect("it is installed").boot = boot;
    world.at = WALL;
    world
}

/// What a node says that hears everybody: a witness without a disk only on the networks.
fn row(config: &Config, name: &NodeName) -> Row {
    let sights = |peer: &NodeName| {
        let disk = config.nodes[name].disk && config.nodes[peer].disk;
        [Sight::Up, Sight::Up, if disk { Sight::Up } else { Sight::Blind }]
    };
    let peers = config.nodes.keys().filter(|peer| *peer != name);
    let views = peers.map(|peer| (peer.clone(), view(peer.as_str(), sights(peer)))).collect();
    let log_write = Duration::from_millis(2);
    let health = Health { config_hash: config.hash, log_write, ..Health::default() };
    Row { at: NOW, incarnation: incarnation(name.as_str()), views: Arc::new(views), health: Arc::new(health) }
}

fn incarnation(name: &str) -> Incarnation {
    let (_, id, _) = NODES.iter().find(|(node, ..)| *node == name).expect("a node");
    Incarnation(*id)
}

fn view(peer: &str, sights: [Sight; 3]) -> PeerView {
    let channels = ["primary", "secondary", "disk"].map(|channel| channel.parse().expect("valid"));
    let channels = channels.into_iter().zip(sights).collect();
    PeerView { boot: boot(peer, 1), incarnation: incarnation(peer), channels, database_alive: false }
}
