//! Each part of a page from the ledger and from heartbeats.
//!
//! Not here: whole pages (`tests/golden/cli`).

use super::scene_test::*;
use super::{Refused, Unheard, fence, report};
use crate::api::status::{NodeState, Phase, ServiceStatus, WatchdogState};
use crate::ledger::world_test::*;
use crate::ledger::{Basis, Command, IncidentKind};
use crate::plan::keeper::{FailedCopy, Step};
use crate::plan::reason::Waiting;
use crate::types::{
    AgentAction, AgentOutcome, AgentRun, Alarm, CopyHealth, CopyProgress, DbState, Epoch, Incarnation, Instant, Lsn,
    NodeName, Position, Sight, Timeline, Trouble, WallTime,
};
use std::time::Duration;

use Sight::{Blind, Lost, Up};

fn service(scene: &Scene) -> ServiceStatus {
    scene.status().services[&orders()].clone()
}

fn phase(scene: &Scene) -> Phase {
    service(scene).phase
}

/// db1 gives its epoch back.
fn release(scene: &mut Scene) {
    let boot = scene.world.state.nodes[&node("db1")].boot.clone();
    scene.world.done(Command::Release {
        service: orders(),
        epoch: Epoch(3),
        node: node("db1"),
        boot,
        incarnation: DB1,
        position: Some(at(1, 1000)),
        lapsed: false,
        leaving: false,
        why: "its database ended".to_owned(),
    });
}

fn appoint(scene: &mut Scene) {
    let boot = scene.world.state.nodes[&node("db2")].boot.clone();
    scene.world.done(Command::Appoint {
        service: orders(),
        prior: Epoch(3),
        node: node("db2"),
        boot,
        incarnation: DB2,
        basis: Basis::Released,
        seals: seals(&["db2"]),
        why: "it has most WAL".to_owned(),
    });
}

#[test]
fn a_service_goes_through_its_phases() {
    let mut scene = Scene::new("db2", THREE);
    assert_eq!(phase(&scene), Phase::Installed);
    release(&mut scene);
    assert_eq!(phase(&scene), Phase::Vacant);
    assert_eq!(service(&scene).primary, Some(node("db1")), "whoever held it last");
    appoint(&mut scene);
    assert_eq!((phase(&scene), service(&scene).primary), (Phase::Appointed, Some(node("db2"))));
    scene.world.done(promoting(4, "db2", DB2));
    assert_eq!(phase(&scene), Phase::Promoting);
    scene.world.done(installed(4, "db2", DB2, at(2, 1100)));
    assert_eq!(phase(&scene), Phase::Installed);
}

#[test]
fn what_holds_a_service_up_goes_before_what_its_epoch_has_come_to() {
    let mut scene = Scene::new("db2", THREE);
    // The leader says so, and any node shows it.
    scene.health("w1").alarms.insert(Alarm::Lapsed { service: orders(), epoch: Epoch(3) });
    assert_eq!(phase(&scene), Phase::Lapsed);
    scene.leader = None;
    assert_eq!(phase(&scene), Phase::Installed, "without a leader nobody counts renewals");
    scene.leader = Some(node("w1"));
    scene.world.declare_dead();
    assert_eq!(phase(&scene), Phase::Fencing);
    scene.world.done(pause());
    assert_eq!(phase(&scene), Phase::Paused);
    scene.world.state.services.clear();
    assert_eq!(phase(&scene), Phase::Unmanaged);
    let ServiceStatus { primary, lease, epoch, .. } = service(&scene);
    assert_eq!((primary, lease, epoch), (None, None, Epoch(0)));
}

#[test]
fn a_node_that_is_not_let_in_says_why() {
    let mut scene = Scene::new("db2", THREE);
    scene.not_joined = Some("two machines use its name".to_owned());
    let status = scene.status();
    assert_eq!(status.nodes[&node("db2")].refusals, ["two machines use its name"]);
    assert!(status.nodes[&node("db1")].refusals.is_empty());
    assert_eq!(status.warnings.last().map(String::as_str), Some("db2 has not joined: two machines use its name"));
}

fn remaining(scene: &Scene) -> Option<u64> {
    let lease = service(scene).lease.expect("somebody holds the epoch");
    assert_eq!(lease.holder, node("db1"));
    lease.remaining_ms
}

#[test]
fn the_holder_says_when_its_own_lease_ends() {
    let mut scene = Scene::new("db1", THREE);
    assert_eq!(remaining(&scene), None, "it has not asked yet");
    scene.own().lease = Some((Epoch(3), None));
    assert_eq!(remaining(&scene), None, "it was granted none yet");
    scene.own().lease = Some((Epoch(3), Some(Instant(NOW.0 + 2_100_000_000))));
    assert_eq!(remaining(&scene), Some(2100));
    scene.own().lease = Some((Epoch(3), Some(ago(1))));
    assert_eq!(remaining(&scene), Some(0));
    scene.own().lease = Some((Epoch(2), Some(Instant(NOW.0 + 2_100_000_000))));
    assert_eq!(remaining(&scene), None, "of an epoch that is over");
}

/// What the leader says counts for whoever reads it: a holder whose host hangs may write until its watchdog resets it.
#[test]
fn the_leader_says_when_everybody_else_takes_a_lease_for_ended() {
    let mut scene = Scene::new("w1", THREE);
    let settings = scene.world.state.settings.clone().expect("it is seeded");
    let wait = settings.lease_wait();
    assert!(wait > settings.ttl + settings.watchdog + settings.stop, "drift makes it longer");
    scene.lead.renewed.insert(orders(), (Epoch(3), NOW));
    assert_eq!(remaining(&scene), Some(wait.as_millis() as u64));
    scene.lead.renewed.insert(orders(), (Epoch(3), ago(1000)));
    assert_eq!(remaining(&scene), Some(wait.as_millis() as u64 - 1000));
    scene.lead.renewed.insert(orders(), (Epoch(3), ago(60_000)));
    assert_eq!(remaining(&scene), Some(0));
}

#[test]
fn a_lease_that_a_pause_holds_open_has_no_end() {
    let mut leader = Scene::new("w1", THREE);
    leader.lead.renewed.insert(orders(), (Epoch(3), ago(1000)));
    let mut holder = Scene::new("db1", THREE);
    holder.own().lease = Some((Epoch(3), Some(Instant(NOW.0 + 2_100_000_000))));
    for mut scene in [leader, holder] {
        assert!(remaining(&scene).is_some());
        scene.world.done(pause());
        assert_eq!(remaining(&scene), None);
        scene.world.done(resume());
        assert_eq!(remaining(&scene), None, "nobody may count before it has renewed");
    }
}

#[test]
fn only_the_leader_and_the_holder_know_when_a_lease_ends() {
    let mut scene = Scene::new("db2", THREE);
    scene.lead.renewed.insert(orders(), (Epoch(3), ago(1000)));
    assert_eq!(remaining(&scene), None);
    scene.leader = Some(node("db2"));
    assert!(remaining(&scene).is_some());
    scene.lead.renewed.insert(orders(), (Epoch(2), ago(1000)));
    assert_eq!(remaining(&scene), None, "of an epoch that is over");
    release(&mut scene);
    assert_eq!(service(&scene).lease, None);
}

#[test]
fn lag_is_counted_from_what_the_primary_said_last() {
    let mut scene = Scene::new("db2", &five());
    let further = |bytes: u64| Position { timeline: Timeline(3), lsn: Lsn(END.lsn.0 + bytes) };
    scene.database("db1", DbState::Primary, further(3500), None);
    scene.database("db3", DbState::Standby, further(4000), Some("db1"));
    scene.own().last_error = Some("the last start failed".to_owned());
    assert_eq!(service(&scene).databases[&node("db2")].trouble.as_deref(), Some("the last start failed"));
    scene.own().trouble = Some(Trouble::VolumeFull);
    let lag = |scene: &Scene, name: &str| service(scene).databases[&node(name)].lag_bytes;
    assert_eq!(["db1", "db2", "db3"].map(|name| lag(&scene, name)), [None, Some(3500), Some(0)]);
    let databases = service(&scene).databases;
    let trouble: Vec<_> = databases.values().map(|database| database.trouble.as_deref()).collect();
    let said = "its volume is full (trouble.volume_full = \"switchover\")";
    assert_eq!(trouble, [None, Some(said), None], "of others it is not known");
    scene.rows.remove(&node("db1"));
    assert_eq!(["db1", "db2", "db3"].map(|name| lag(&scene, name)), [None; 3]);
    let unheard = &service(&scene).databases[&node("db1")];
    assert_eq!((unheard.state, unheard.position), (DbState::Unclear, None));
}

/// Everybody sees that a copy is under way, or failed; its own node says why and when the next one comes.
#[test]
fn a_copy_is_shown_with_how_far_it_is_or_why_it_failed() {
    let mut scene = Scene::new("db2", &five());
    let copy = |scene: &Scene, name: &str| service(scene).databases[&node(name)].copy.clone();
    assert_eq!((copy(&scene, "db2"), copy(&scene, "db3")), (None, None));
    let progress = CopyProgress::copied(1 << 30, 4 << 30, Duration::from_secs(60));
    scene.copies("db3", CopyHealth::UnderWay(progress));
    let of_another = copy(&scene, "db3").expect("it is under way");
    assert_eq!((of_another.percent, of_another.left_ms), (Some(25), Some(180_000)));
    assert_eq!((of_another.done_bytes, of_another.total_bytes), (Some(1 << 30), Some(4 << 30)));
    scene.copies("db3", CopyHealth::Failed(3));
    let of_another = copy(&scene, "db3").expect("it failed");
    assert_eq!(of_another.what, "its copy failed 3 times; why is in `regent status` there");
    assert_eq!((of_another.stage, of_another.failed, of_another.error), (None, 3, None));

    let (error, again_at) = ("it lacks 1.0 GiB".to_owned(), Some(Instant(NOW.0 + 9_500_000_000)));
    scene.own().last_error = Some(error.clone());
    scene.own().failed_copy = Some(FailedCopy { tries: 2, error: error.clone(), again_at });
    let own = copy(&scene, "db2").expect("it failed");
    assert_eq!(own.what, "its copy failed 2 times: it lacks 1.0 GiB; it is tried again in 9 s");
    assert_eq!((own.error, own.next_ms), (Some(error.clone()), Some(9500)));
    assert_eq!(service(&scene).databases[&node("db2")].trouble, None, "it is told once");
    scene.own().failed_copy = Some(FailedCopy { tries: 2, error: error.clone(), again_at: Some(NOW) });
    assert_eq!(copy(&scene, "db2").expect("it failed").next_ms, None, "there is nobody to follow");
    scene.own().failed_copy = Some(FailedCopy { tries: 2, error, again_at: None });
    scene.own().copy = Some(progress);
    let own = copy(&scene, "db2").expect("it is under way");
    assert_eq!((own.what, own.failed, own.next_ms), (progress.to_string(), 2, None));
}

/// A dead node's last word was that it is the primary: no operator may read that of it any more.
#[test]
fn what_the_copy_of_a_dead_node_is_nobody_knows() {
    let mut scene = Scene::new("db2", THREE);
    assert_eq!(service(&scene).databases[&node("db1")].state, DbState::Primary);
    scene.world.done(dead(DB1, TERM, answers(&[("db2", sees(DB1, "lll")), ("w1", sees(DB1, "llb"))])));
    let db1 = &service(&scene).databases[&node("db1")];
    assert_eq!((db1.state, db1.position), (DbState::Unclear, Some(END.lsn)), "where its WAL ended still counts");
    assert_eq!(db1.trouble.as_deref(), Some("its node is declared dead; its position is what it said last"));
}

#[test]
fn coordinator_raft_and_keeper_say_what_is_done_now() {
    let mut scene = Scene::new("db2", THREE);
    scene.keeps(Step::Wait(Waiting::StandbyOf(node("db1"))));
    assert_eq!(service(&scene).what_now, ["db2: standby of db1"]);
    scene.world.done(pause());
    scene.waiting.push("waiting for w1: no route to host".to_owned());
    scene.leader = Some(node("db2"));
    let paused = "orders is paused: nothing is fenced, nobody is appointed (`regent resume` ends that)";
    assert_eq!(service(&scene).what_now, [paused, "waiting for w1: no route to host", "db2: standby of db1"]);
}

#[test]
fn the_ledger_says_how_a_node_is_and_the_own_view_where_that_says_up() {
    let mut scene = Scene::new("db2", THREE);
    let state = |scene: &Scene, name: &str| scene.status().nodes[&node(name)].state;
    scene.sees("db2", "db1", [Lost, Up, Up]);
    scene.sees("w1", "db1", [Lost, Lost, Lost]);
    assert_eq!(state(&scene, "db1"), NodeState::Up, "not a majority of channels, and another's view");
    scene.sees("db2", "db1", [Lost, Blind, Blind]);
    assert_eq!(state(&scene, "db1"), NodeState::Up, "blind is not lost");
    scene.sees("db2", "db1", [Lost, Lost, Up]);
    assert_eq!(state(&scene, "db1"), NodeState::Suspect);
    scene.world.declare_dead();
    assert_eq!(state(&scene, "db1"), NodeState::Dead);
    scene.without("w1");
    assert_eq!((state(&scene, "w1"), state(&scene, "db2")), (NodeState::NotJoined, NodeState::Up));
    let status = scene.status();
    let w1 = &status.nodes[&node("w1")];
    assert_eq!((w1.incarnation, &w1.boot, w1.watchdog, w1.log_write_ms), (None, &None, None, None));
}

#[test]
fn what_an_earlier_incarnation_said_is_not_shown_of_a_node() {
    let mut scene = Scene::new("db2", THREE);
    let shown = |scene: &Scene, name: &str| scene.status().nodes[&node(name)].clone();
    assert_eq!(shown(&scene, "db1").watchdog, Some(WatchdogState::Armed));
    assert_eq!(shown(&scene, "db2").watchdog, Some(WatchdogState::Disarmed));
    scene.health("db1").self_doubt = true;
    scene.health("db1").config_hash += 1;
    assert!(shown(&scene, "db1").self_doubt && shown(&scene, "db1").config_differs);
    scene.row("db1").incarnation = Incarnation(0);
    let db1 = shown(&scene, "db1");
    assert!(!db1.self_doubt && !db1.config_differs);
    assert_eq!((db1.watchdog, db1.log_write_ms), (None, None));
    let file = THREE.replace("[watchdog]\ndevice = \"/dev/watchdog\"\n", "");
    let without = Scene::new("db2", &file.replace("[fencing]\n", "[fencing]\nlease_without_watchdog = true\n"));
    assert_eq!(shown(&without, "db1").watchdog, Some(WatchdogState::Absent));
}

#[test]
fn suspicion_levels_are_shown_of_own_views_alone_and_are_finite() {
    let mut scene = Scene::new("db2", THREE);
    let channel = |name: &str| name.parse::<crate::types::ChannelName>().expect("valid");
    scene.sees("db2", "db1", [Lost, Lost, Up]);
    scene.phi.insert((node("db1"), channel("primary")), f64::INFINITY);
    scene.phi.insert((node("db1"), channel("disk")), 0.5);
    let matrix = scene.status().matrix;
    let phi = |observer: &str, on: &str| matrix[&node(observer)][&node("db1")].channels[&channel(on)].phi;
    assert_eq!([phi("db2", "primary"), phi("db2", "secondary"), phi("db2", "disk")], [Some(999.0), None, Some(0.5)]);
    assert_eq!(phi("w1", "disk"), None);
    let suspects = |observer: &str| matrix[&node(observer)][&node("db1")].suspects;
    assert!(suspects("db2") && !suspects("w1"));
}

fn stage(world: &World) -> (String, Option<String>) {
    let shown = fence::status(&world.state.fences[&FENCE]);
    (shown.stage, shown.confirmed_by)
}

fn by(stage: &str, who: Option<&str>) -> (String, Option<String>) {
    (stage.to_owned(), who.map(str::to_owned))
}

#[test]
fn a_fence_goes_through_its_stages() {
    let mut world = World::dead();
    assert_eq!(stage(&world), by("trying", None));
    world.power_off();
    assert_eq!(stage(&world), by("confirmed", Some("level 1")));
    world.done(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
    assert_eq!(stage(&world), by("checked", Some("level 1")));
    let who = "the operator".to_owned();
    world.done(Command::Lift { fence: FENCE, who, power_on: true });
    assert_eq!(stage(&world), by("unfencing", None));
}

#[test]
fn a_fence_is_confirmed_by_whoever_vouched_for_it_and_refuted_by_life() {
    let mut world = World::dead();
    let incident = world.state.fences[&FENCE].incident;
    let who = "the operator".to_owned();
    world.done(Command::HumanConfirm { incident, target: node("db1"), who, force: false });
    assert_eq!(stage(&world), by("confirmed", Some("the operator")));
    let (by, channel, what) = (node("w1"), "primary".parse().expect("valid"), "two heartbeats".to_owned());
    world.done(Command::Refute { fence: FENCE, level: None, round: 0, refuted: 0, by, channel, what, struck: None });
    assert_eq!(stage(&world).0, "refuted");
}

#[test]
fn every_order_of_a_fence_is_told_with_the_end_that_it_came_to() {
    let mut world = World::dead();
    world.done(order("ipmi", AgentAction::Off, Some(0)));
    let attempts = |world: &World| fence::status(&world.state.fences[&FENCE]).attempts;
    assert_eq!(attempts(&world), ["ipmi off on w1 is running"]);
    let output = "connecting\nno answer".to_owned();
    let run = AgentRun { outcome: AgentOutcome::TimedOut, tries: 2, took: Duration::from_secs(9), output };
    world.done(Command::OrderDone { fence: FENCE, order: 0, run });
    assert_eq!(attempts(&world), ["ipmi off on w1 timed out: no answer"]);
}

#[test]
fn a_device_is_shown_with_each_target_and_what_its_monitor_said() {
    let mut scene = Scene::new("db2", THREE);
    let device = |target: &str| ("ipmi".parse().expect("valid"), node(target));
    let run =
        |outcome, output: &str| (WALL, AgentRun { outcome, tries: 1, took: Duration::ZERO, output: output.to_owned() });
    scene.monitors.insert(device("db1"), run(AgentOutcome::Failed { status: 1 }, "no answer"));
    let shown = |scene: &Scene, agent: &str| -> Vec<_> {
        let devices = scene.status().devices.into_iter().filter(|device| device.agent.as_str() == agent);
        devices.map(|d| (d.target, d.monitor.map(|m| (m.ok, m.error)))).collect()
    };
    let failed = (node("db1"), Some((false, Some("no answer".to_owned()))));
    assert_eq!(shown(&scene, "ipmi"), [failed.clone(), (node("db2"), None)]);
    // A host that is off answers.
    scene.monitors.insert(device("db2"), run(AgentOutcome::IsOff, "off"));
    assert_eq!(shown(&scene, "ipmi"), [failed, (node("db2"), Some((true, None)))]);
    assert_eq!(shown(&scene, "firewall"), [(node("db1"), None)], "it has no targets: it is tried with the first node");
}

#[test]
fn what_accepts_less_and_whoever_was_refused_is_a_warning() {
    let accepting = "[security]\ninsecure = true\n[fencing]\nlease_on_virtual_machine = true\n\
                     lease_without_watchdog = true\n";
    let mut scene = Scene::new("db2", &THREE.replace("[fencing]\n", accepting));
    let (who, address, reason) = ("db9".to_owned(), "10.0.9.9".to_owned(), "unknown".to_owned());
    scene.refused.push(Refused { who, address, reason, count: 3 });
    let (primary, disk) = ("primary".parse().expect("valid"), "disk".parse().expect("valid"));
    scene.unheard.push(Unheard { channel: primary, last: "a message with a wrong MAC".to_owned(), count: 2 });
    scene.unusable.insert(disk, "no such device".to_owned());
    scene.rivals.push("postgresql@15-main.service is enabled".to_owned());
    let warnings = [
        "insecure = true: nodes do not prove who they are",
        "lease_without_watchdog = true: a host whose daemons are dead or stuck may write past its lease",
        "lease_on_virtual_machine = true: a paused virtual machine may write past its lease when it wakes",
        "refused db9 from 10.0.9.9: unknown (3 times)",
        "refused on primary: a message with a wrong MAC (2 times)",
        "db2 cannot use channel disk: no such device",
        "db2: postgresql@15-main.service is enabled",
    ];
    assert_eq!(scene.status().warnings, warnings);
}

/// Without a majority nothing is decided, and the page says so.
#[test]
fn quorum_is_counted_by_own_sight() {
    let mut scene = Scene::new("db2", &five());
    let margin = |scene: &Scene| (scene.status().quorum.connected, scene.status().quorum.margin);
    assert_eq!(margin(&scene), (5, 2));
    let gone: Vec<NodeName> = ["db1", "w1", "w2"].map(node).into();
    for name in &gone {
        scene.sees("db2", name.as_str(), [Lost; 3]);
    }
    scene.leader = None;
    assert_eq!((margin(&scene), scene.status().quorum.leader), ((2, -1), None));
}

#[test]
fn an_incident_says_where_its_time_went() {
    let mut world = World::new();
    let mut at_ms = |ms, command| {
        world.at = WallTime(ms);
        world.done(command);
    };
    let mut lost = sees(DB1, "lll");
    lost.silent_ms = [("primary", 1200), ("disk", 1000)].map(|(c, ms)| (c.parse().expect("valid"), ms)).into();
    at_ms(10_000, dead(DB1, TERM, answers(&[("db2", lost), ("w1", sees(DB1, "llb"))])));
    at_ms(10_020, order("ipmi", AgentAction::Off, Some(0)));
    at_ms(10_270, ended(0, AgentOutcome::Succeeded));
    at_ms(10_300, appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
    at_ms(10_400, promoting(2, "db2", DB2));
    at_ms(10_500, installed(2, "db2", DB2, at(2, 1100)));
    let incident = world.state.incidents.values().next_back().expect("a failover");
    assert_eq!(incident.kind, IncidentKind::Failover);
    let told = report(&world.state, incident);
    assert_eq!(told.summary.headline, "failover of db1 ended with db2 as primary in epoch 2");
    let d = told.durations;
    let parts = [d.detect_ms, d.verdict_ms, d.fence_ms, d.check_ms, d.promote_ms, d.total_ms];
    assert_eq!(parts, [1000, 20, 250, 30, 200, 1500].map(Some));
    let evidence = &told.steps[0].details;
    assert_eq!(evidence[0], "db2: disk lost for 1000 ms, primary lost for 1200 ms, secondary lost");
}

#[test]
fn what_an_incident_forgot_is_counted_where_it_was() {
    let mut world = World::dead();
    for round in 0..300 {
        while world.state.fences[&FENCE].round == round {
            let (level, why) = (world.state.fences[&FENCE].level, "it did not confirm".to_owned());
            world.done(Command::NextLevel { fence: FENCE, term: TERM, level, round, why });
        }
    }
    let incident = world.state.incidents.values().next_back().expect("a failover");
    let told = report(&world.state, incident);
    let gap = format!("{} later steps that repeat others are not kept", incident.forgotten);
    assert!(incident.forgotten > 0);
    assert_eq!(told.steps.iter().position(|step| step.what == gap), Some(incident.first_steps()));
    assert_eq!(told.steps.len(), incident.steps.len() + 1);
}

#[test]
fn a_loss_says_how_its_node_came_back_until_it_is_a_primary_again() {
    let mut world = World::new();
    let one = [("db2", sees(DB1, "lll")), ("w1", sees(DB1, "llb"))];
    world.done(dead(DB1, TERM, answers(&one)));
    world.done(order("ipmi", AgentAction::Off, Some(0)));
    world.done(ended(0, AgentOutcome::Succeeded));
    world.done(appoint_db2(1, by_fence(hold(&["db2", "w1"]))));
    world.done(promoting(2, "db2", DB2));
    world.done(installed(2, "db2", DB2, at(2, 1100)));
    let loss = |world: &World| {
        let incident = world.state.incidents.values().next().expect("a failover");
        let [loss] = &report(&world.state, incident).losses[..] else { panic!("one loss") };
        loss.clone()
    };
    let alone = loss(&world);
    assert_eq!(
        (alone.node.as_str(), alone.by.as_str(), alone.epoch, alone.timeline),
        ("db1", "db2", Epoch(1), Timeline(1))
    );
    assert_eq!(alone.came_back, None);
    let rejoined = |of: &str, kept: Option<&str>| Command::Rejoined {
        service: orders(),
        epoch: Epoch(2),
        node: node(of),
        how: "rewound".to_owned(),
        kept: kept.map(str::to_owned),
        order: None,
    };
    world.done(rejoined("db2", Some("/another/node")));
    assert_eq!(loss(&world).came_back, None, "that was another node");
    for kept in [None, Some("/main.diverged-1-1")] {
        world.done(rejoined("db1", kept));
    }
    let back = loss(&world).came_back.expect("it came back");
    assert_eq!((back.how.as_str(), back.kept), ("rewound", vec!["/main.diverged-1-1".to_owned()]));
}
