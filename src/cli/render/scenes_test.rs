//! What stands behind the golden pages: for each, the cluster from which the daemon would give this answer, so that no
//! page shows a sentence that the daemon cannot say.
//!
//! Not here: the rest of a page, which is data written by hand (`golden_test.rs`).

use crate::api::admin::Response;
use crate::api::status::Readiness;
use crate::config::{Config, Role};
use crate::ledger::NodeSettings;
use crate::ledger::world_test::{DB1, DB2, W1, World, at, boot, join, machine, node, orders, pause};
use crate::pages;
use crate::plan::readiness::{self, Beside};
use crate::plan::{Outlook, Row, Timing, switchover};
use crate::types::{
    DbState, Epoch, Failing, Health, Incarnation, Instant, NodeId, NodeName, PeerView, Position, ServiceHealth,
    ServiceName, Sight,
};
use std::collections::BTreeMap;
use std::sync::Arc;

const NOW: Instant = Instant(1_000_000_000_000);

/// The cluster of the pages, as one of its nodes sees it.
pub struct Scene {
    world: World,
    config: Config,
    timing: Timing,
    rows: BTreeMap<NodeName, Row>,
    beside: Beside,
}

impl Scene {
    /// db1 is the primary in epoch 3, db2 streams from it, w1 is a witness, and all hear each other.
    fn new(me: &str, world: World) -> Scene {
        let text = include_str!("../../../config/two-databases-and-witness.toml");
        Scene::with(me, text, world, &[("db1", DB1), ("db2", DB2), ("w1", W1)])
    }

    /// As `new`, and db3 streams too, and w2 votes too.
    fn of_five(me: &str) -> Scene {
        let mut world = World::with(machine("db1"), |settings| {
            settings.nodes.insert(node("db3"), NodeSettings { id: NodeId(4), role: Role::Database });
            settings.nodes.insert(node("w2"), NodeSettings { id: NodeId(5), role: Role::Witness });
        });
        ["db3", "w2"].into_iter().for_each(|name| drop(world.done(join(name, 1, &[]))));
        let nodes = [("db1", DB1), ("db2", DB2), ("w1", W1), ("db3", Incarnation(4)), ("w2", Incarnation(5))];
        let mut scene = Scene::with(me, include_str!("../../../config/five-voters.toml"), world, &nodes);
        scene.database("db3", DbState::Standby, at(3, 0x500_0148), Some("db1"));
        scene
    }

    fn with(me: &str, text: &str, mut world: World, nodes: &[(&str, Incarnation)]) -> Scene {
        world.state.services.get_mut(&orders()).expect("it was created").epoch = Epoch(3);
        let config = Config::parse(text, "regent.toml", None, me).expect("an example");
        let timing = Timing::new(&config);
        let row = |incarnation| {
            let health = Arc::new(Health { config_hash: config.hash, ..Health::default() });
            Row { at: NOW, incarnation, views: Arc::default(), health }
        };
        let rows: BTreeMap<_, _> = nodes.iter().map(|(name, incarnation)| (node(name), row(*incarnation))).collect();
        let beside = Beside { has_leader: true, ..Beside::default() };
        let mut scene = Scene { world, config, timing, rows, beside };
        for (name, incarnation) in nodes {
            scene.sees(name, *incarnation, Sight::Up);
        }
        scene.database("db1", DbState::Primary, at(3, 0x500_0148), None);
        scene.database("db2", DbState::Standby, at(3, 0x500_0148), Some("db1"));
        scene
    }

    fn health(&mut self, name: &str) -> &mut Health {
        Arc::make_mut(&mut self.rows.get_mut(&node(name)).expect("a node").health)
    }

    fn sees(&mut self, name: &str, incarnation: Incarnation, sight: Sight) {
        let channels = ["primary", "secondary", "disk"].map(|channel| (channel.parse().expect("valid"), sight));
        let view = PeerView { boot: boot(name, 1), incarnation, channels: channels.into(), database_alive: false };
        let own = self.rows.get_mut(&self.config.node).expect("its own row");
        Arc::make_mut(&mut own.views).insert(node(name), view);
    }

    fn database(&mut self, name: &str, state: DbState, position: Position, from: Option<&str>) {
        let (timeline, streams_from) = (position.timeline, from.map(node));
        let database = ServiceHealth { state, holds: None, timeline, position, streams_from, released: None };
        self.health(name).services.insert(orders(), database);
    }

    fn outlook(&self) -> Outlook<'_> {
        let Scene { world, config, timing, rows, .. } = self;
        Outlook { now: NOW, me: &config.node, state: &world.state, config, timing, rows }
    }

    /// The standing answer about one service.
    pub fn readiness(&self, name: &ServiceName) -> Readiness {
        let judged = readiness::judge(&self.outlook(), &self.beside, name);
        let readiness::Readiness { failover_ready, survives_one_more, reasons } = judged;
        Readiness { failover_ready, survives_one_more, reasons: reasons.iter().map(ToString::to_string).collect() }
    }

    /// The dry run of a switchover to db2.
    pub fn dry_run(&self) -> Response {
        pages::dry_run(&switchover::decide(&self.outlook(), &orders(), Some(&node("db2"))))
    }
}

/// The scene of a page; `None` where nothing on the page is judged.
pub fn of(page: &str) -> Option<Scene> {
    let scene = match page {
        "status_healthy" => Scene::of_five("db2"),
        "status_one_standby" | "switchover_plan" => Scene::new("db2", World::new()),
        "status_failing" => {
            let mut scene = Scene::new("db1", World::new());
            let why = "cannot write the lease file /run/regent/orders/lease: No space left on device (os error 28)";
            scene.beside.own_failing.insert(Failing::LeaseFile, why.to_owned());
            scene.health("db2").failing.insert(Failing::WatchdogArm);
            scene
        }
        "status_fencing" => {
            let mut scene = Scene::new("db2", World::dead());
            scene.sees("db1", DB1, Sight::Lost);
            scene.database("db2", DbState::Standby, at(3, 0x500_0148), None);
            scene.beside.broken_devices.push(("ipmi".parse().expect("valid"), node("db1")));
            scene
        }
        "status_paused_without_witness" => {
            let mut world = World::new();
            world.done(pause());
            world.state.nodes.remove(&node("w1"));
            let mut scene = Scene::new("db2", world);
            scene.rows.remove(&node("w1"));
            scene
        }
        "switchover_refused" => {
            let mut scene = Scene::new("db2", World::new());
            scene.database("db2", DbState::Standby, at(3, 0x100_0148), Some("w1"));
            scene.health("db2").failing.insert(Failing::WatchdogArm);
            scene
        }
        _ => return None,
    };
    Some(scene)
}
