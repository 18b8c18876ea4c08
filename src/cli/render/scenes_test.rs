//! What stands behind the golden pages: for each, the cluster from which the daemon gives this answer, so that no page
//! shows a sentence that the daemon cannot say.
//!
//! Not here: how a scene is made (`pages/scene_test.rs`).

use crate::api::admin::Response;
use crate::api::status::Status;
use crate::ledger::world_test::*;
use crate::ledger::{Command, Machine, Sighting};
use crate::pages::scene_test::{END, NOW, Scene, THREE, WALL, ago, five, wall_ago};
use crate::pages::{self, Refused};
use crate::plan::keeper::{FailedCopy, Step};
use crate::plan::reason::Waiting;
use crate::types::{
    AgentAction, AgentOutcome, AgentRun, Archiver, CopyHealth, CopyProgress, DbState, Epoch, Failing, FileFault,
    IncidentId, Instant, KeptFolder, LastCheckpoint, Lsn, Network, OpenSession, Position, Prepared, Replay, ReplayLag,
    Sessions, Sight, Survey, Timeline, Trouble, Unfit, WalReader, WallTime,
};
use std::time::Duration;

const LOST: [Sight; 3] = [Sight::Lost; 3];

/// The pages with their answers.
/// The status of one scene.
pub fn status_of(name: &str) -> Status {
    let all = answers_of_scenes().into_iter();
    let found = all.filter_map(|(scene, answer)| match answer {
        Response::Status(status) if scene == name => Some(*status),
        _ => None,
    });
    found.last().expect("a scene of that name")
}

pub fn answers_of_scenes() -> Vec<(&'static str, Response)> {
    let plan = |scene: Scene, said| scene.dry_run(said);
    let status = |scene: Scene| Response::Status(Box::new(scene.status()));
    let ended = failed_over();
    let incident =
        |id| Response::Incident(Box::new(pages::report(&ended.state, &ended.state.incidents[&IncidentId(id)])));
    vec![
        ("history", history(&ended)),
        ("history_empty", history(&World::new())),
        ("incident_failover", incident(1)),
        ("incident_open", incident(2)),
        ("status_healthy", status(healthy(&five()))),
        ("status_one_standby", status(healthy(THREE))),
        ("status_failing", status(failing())),
        ("status_copying", status(copying())),
        ("status_replay", status(replaying())),
        ("status_wrong_file", status(wrong_file())),
        ("status_unfit", status(unfit())),
        ("status_fencing", status(fencing())),
        ("status_lapsed", status(lapsed())),
        ("status_paused_without_witness", status(paused())),
        ("switchover_plan", plan(healthy(THREE), quiet())),
        ("switchover_plan_busy", plan(healthy(THREE), busy())),
        ("switchover_plan_unknown", plan(healthy(THREE), unknown())),
        ("switchover_refused", plan(refused(), quiet())),
    ]
}

/// Databases that a move meets with nothing.
fn quiet() -> [Result<Survey, String>; 2] {
    let from = Survey {
        checkpoint: Some(LastCheckpoint { age: 118, wal: 37 << 20 }),
        archiver: Some(Archiver { waiting: 0, failing: None }),
        ..Survey::default()
    };
    [Ok(from), Ok(Survey { replay: Some(Replay::default()), ..Survey::default() })]
}

/// Everything that a move may meet.
fn busy() -> [Result<Survey, String>; 2] {
    let session = |pid, state: &str, age| OpenSession {
        pid,
        user: "reports".to_owned(),
        database: "shop".to_owned(),
        application: "psql".to_owned(),
        state: state.to_owned(),
        age,
    };
    let reader = |application: &str, copies, behind| WalReader {
        application: application.to_owned(),
        address: Some("192.0.2.7".to_owned()),
        copies,
        behind,
    };
    let from = Survey {
        checkpoint: Some(LastCheckpoint { age: 1_700, wal: 9 << 30 }),
        archiver: Some(Archiver { waiting: 412, failing: Some(("000000030000000000000042".to_owned(), 35)) }),
        prepared: Some(Prepared { count: 2, oldest: ("transfer-17".to_owned(), 7_300) }),
        open: Sessions {
            count: 7,
            named: vec![session(4711, "idle in transaction", 200_000), session(4712, "active", 2)],
        },
        readers: vec![reader("warehouse", false, 123 << 20), reader("pg_basebackup", true, 0)],
        stranded_slots: vec!["search".to_owned(), "warehouse".to_owned()],
        replay: None,
    };
    let held_by = Sessions { count: 1, named: vec![session(815, "active", 340)] };
    let replay = Replay { bytes: 300 << 20, age: Some(12), delay: 0, held_by };
    [Ok(from), Ok(Survey { replay: Some(replay), ..Survey::default() })]
}

/// One database says nothing, the other something that has to be waited for.
fn unknown() -> [Result<Survey, String>; 2] {
    let archiver = Some(Archiver { waiting: 5, failing: None });
    let from = Survey { archiver, ..Survey::default() };
    [Ok(from), Err("its database did not answer within 3 s".to_owned())]
}

fn history(world: &World) -> Response {
    Response::History {
        incidents: world.state.incidents.values().rev().map(|incident| pages::summary(incident)).collect(),
    }
}

/// db1 lost its power and db2 took over, in steps of the ledger's own; then an operator has w1 fenced.
fn failed_over() -> World {
    let mut world = World::new();
    let heard = |sights, silent: [u64; 3]| {
        let channels = ["primary", "secondary", "disk"].map(|channel| channel.parse().expect("valid"));
        Sighting { silent_ms: channels.into_iter().zip(silent).collect(), ..sees(DB1, sights) }
    };
    let sights = [("db2", heard("lll", [1020, 1010, 1040])), ("w1", heard("llb", [1019, 1009, 1040]))];
    let off = ran(AgentOutcome::Succeeded, "Success: Powered OFF");
    let steps = [
        (0, dead(DB1, TERM, answers(&sights))),
        (2, order("ipmi", AgentAction::Off, Some(0))),
        (250, Command::OrderDone { fence: FENCE, order: 0, run: off }),
        (270, appoint_db2(1, by_fence(hold(&["db2", "w1"])))),
        (275, promoting(2, "db2", DB2)),
        (460, installed(2, "db2", DB2, at(2, 2000))),
        (61_000, open_fence("w1", 1)),
    ];
    for (ms, command) in steps {
        world.at = WallTime(WALL.0 - 120_000 + ms);
        world.done(command);
    }
    world
}

fn ran(outcome: AgentOutcome, output: &str) -> AgentRun {
    AgentRun { outcome, tries: 1, took: Duration::from_millis(240), output: output.to_owned() }
}

/// db2 answers, and every device with it.
fn healthy(file: &str) -> Scene {
    let mut scene = Scene::new("db2", file);
    scene.keeps(Step::Wait(Waiting::StandbyOf(node("db1"))));
    measures(&mut scene, "db1", &[0.3, 0.4, 0.1]);
    // The witness has no disk; what is shown is rounded.
    measures(&mut scene, "w1", &[0.25, 0.0]);
    devices_work(&mut scene);
    scene
}

/// The suspicion levels of the answering node, channel by channel.
fn measures(scene: &mut Scene, peer: &str, phi: &[f64]) {
    let channels = ["primary", "secondary", "disk"].map(|channel| channel.parse().expect("valid"));
    scene.phi.extend(channels.into_iter().map(|channel| (node(peer), channel)).zip(phi.iter().copied()));
}

fn devices_work(scene: &mut Scene) {
    let devices = [("credentials", "db1"), ("firewall", "db1"), ("ipmi", "db1"), ("ipmi", "db2"), ("ipmi", "db3")];
    for ((agent, target), seconds) in devices.into_iter().zip([12, 12, 12, 9, 9]) {
        let device = (agent.parse().expect("valid"), node(target));
        scene.monitors.insert(device, (wall_ago(seconds * 1000), ran(AgentOutcome::Succeeded, "")));
    }
}

/// The primary cannot keep its lease for the guard, and db2 could not take over.
fn failing() -> Scene {
    let mut scene = Scene::new("db1", THREE);
    let why = "cannot write the lease file /run/regent/orders/lease: No space left on device (os error 28)";
    scene.failing.insert(Failing::LeaseFile, why.to_owned());
    scene.health("db1").failing.insert(Failing::LeaseFile);
    scene.health("db2").failing.insert(Failing::WatchdogArm);
    scene.keeps(Step::Wait(Waiting::Primary));
    scene.own().lease = Some((Epoch(3), Some(Instant(NOW.0 + 2_100_000_000))));
    scene.dropped = (1312, 2);
    devices_work(&mut scene);
    scene
}

/// db2 has no room for a copy, and db3 is being copied.
fn copying() -> Scene {
    let mut scene = Scene::new("db2", &five());
    let nowhere = Position::default();
    scene.database("db2", DbState::Unstartable, END, None);
    scene.database("db3", DbState::Absent, nowhere, None);
    let why =
        "refused to copy the database: a copy takes 3.0 GiB on the volume of /var/lib/postgresql/15: it lacks 1.0 GiB";
    let again_at = Some(Instant(NOW.0 + 7_400_000_000));
    let folder = |name: &str, bytes, days: u64, named| KeptFolder {
        folder: format!("/var/lib/postgresql/15/{name}"),
        bytes,
        made: Some(wall_ago(days * 86_400_000)),
        named,
    };
    let kept = [
        folder("main.diverged-20261115T120000000Z-2", 32 << 20, 5, true),
        folder("main.replaced-20261119T120000000Z", 2 << 30, 1, false),
    ];
    scene.own().kept = kept.into();
    scene.own().last_error = Some(why.to_owned());
    scene.own().failed_copy = Some(FailedCopy { tries: 12, error: why.to_owned(), again_at });
    scene.keeps(Step::Wait(Waiting::RejoinAgain));
    let progress = CopyProgress::copied(5 << 30, 40 << 30, Duration::from_secs(90));
    scene.copies("db3", CopyHealth::UnderWay(progress));
    devices_work(&mut scene);
    scene
}

/// db2's replay stands still, and db3 is delayed on purpose and has lost a network.
fn replaying() -> Scene {
    let mut scene = healthy(&five());
    scene.lags(&[("db2", 0), ("db3", 45)]);
    scene.replays("db2", ReplayLag { bytes: 3 << 20, seconds: 80, still: 75, delay: 0 });
    scene.streams_over("db2", Network::Primary);
    scene.streams_over("db3", Network::Secondary);
    scene.replays("db3", ReplayLag { bytes: 12 << 30, seconds: 3603, still: 0, delay: 3600 });
    devices_work(&mut scene);
    scene
}

/// A line of a file is wrong on db2; on db3, which answers, something waits for a restart, and a parameter is overridden.
fn wrong_file() -> Scene {
    let mut scene = Scene::new("db3", &five());
    let health = scene.health("db2").services.values_mut().next().expect("a database");
    let wrong = "unrecognized configuration parameter \"idle_sesion_timeout\"";
    health.file_fault = Some(FileFault::new("/srv/postgresql/orders/postgresql.conf", 817, wrong, 1));
    let health = scene.health("db3").services.values_mut().next().expect("a database");
    health.pending_restart = vec!["max_connections".to_owned(), "shared_buffers".to_owned()];
    let told = "work_mem is 8MB by /srv/postgresql/orders/postgresql.auto.conf line 3, and not 64MB as in regent.toml";
    scene.own().overridden = vec![told.to_owned()];
    devices_work(&mut scene);
    scene
}

/// db2 could not serve, and db3 could, with something amiss.
fn unfit() -> Scene {
    let mut scene = healthy(&five());
    let which = "libc 2.36, 2.31 on the primary (en_US.utf8 in app)".to_owned();
    scene.lacks("db2", vec![Unfit::Collations { which }, Unfit::MinorVersion { here: 150_012, primary: 150_008 }]);
    let why = "archive_command: there is no program pgbackrest".to_owned();
    scene.lacks("db3", vec![Unfit::Archive { why }]);
    // What the primary lacks bars nobody.
    scene.lacks("db1", vec![Unfit::Room { place: "/srv/wal".to_owned(), free: 41 << 20 }]);
    scene
}

/// db1 is dead, has no watchdog, and its device does not answer. db2 leads, and has trouble of its own.
fn fencing() -> Scene {
    let service = "[service.billing]\nengine = \"postgresql\"\n[service.billing.postgresql]\nport = 5433\n\
                   data_dir = \"/var/lib/postgresql/15/billing\"\nbin_dir = \"/usr/lib/postgresql/15/bin\"\n";
    let insecure = "[security]\ninsecure = true\n";
    let virtual_machines = "[fencing]\nlease_on_virtual_machine = true\n";
    let file = format!("{}\n{insecure}{service}", THREE.replace("[fencing]\n", virtual_machines));
    let mut scene = Scene::on("db2", &file, Machine { watchdog: None, ..machine("db1") });
    scene.leader = Some(node("db2"));
    scene.keeps(Step::Wait(Waiting::NobodyToFollow(DbState::Standby)));
    scene.own().trouble = Some(Trouble::VolumeFull);
    scene.row("db1").at = ago(9_000);
    scene.sees("db2", "db1", LOST);
    scene.sees("w1", "db1", [Sight::Lost, Sight::Lost, Sight::Blind]);
    measures(&mut scene, "db1", &[12.7, 12.6, 12.9]);
    measures(&mut scene, "w1", &[0.2, 0.1]);
    let end = Position { timeline: Timeline(3), lsn: Lsn(END.lsn.0 + 3500) };
    scene.database("db1", DbState::Primary, end, None);
    scene.database("db2", DbState::Standby, END, None);
    scene.lead.renewed.insert(orders(), (Epoch(3), ago(9_000)));

    let said = "Unable to establish IPMI v2 / RMCP+ session";
    let world = &mut scene.world;
    world.at = wall_ago(6_000);
    world.done(dead(DB1, TERM, answers(&[("db2", sees(DB1, "lll")), ("w1", sees(DB1, "llb"))])));
    world.done(order("ipmi", AgentAction::Off, Some(0)));
    world.at = wall_ago(1_000);
    let run = ran(AgentOutcome::Failed { status: 1 }, said);
    world.done(Command::OrderDone { fence: FENCE, order: 0, run: run.clone() });
    world.done(next_level(0));
    world.done(next_level(1));
    // The second round, in which every level was tried: nobody could begin an agent.
    let level = 0;
    world.done(Command::NextLevel { fence: FENCE, term: TERM, level, round: 1, why: "it failed".to_owned() });
    world.at = WALL;
    scene.applied.fence_level.insert(FENCE, ago(1_000));
    scene.monitors.insert(("ipmi".parse().expect("valid"), node("db1")), (wall_ago(130_000), run));

    let other = Refused {
        who: "w1".to_owned(),
        address: "10.0.9.9".to_owned(),
        reason: "its certificate is of cluster billing".to_owned(),
        count: 3,
    };
    scene.refused.push(other);
    let w1 = scene.health("w1");
    w1.log_write = Duration::from_millis(1450);
    w1.self_doubt = true;
    w1.config_hash += 1;
    scene
}

/// db1 lives and renews no more. The leader counts, and says so.
fn lapsed() -> Scene {
    let mut scene = Scene::new("w1", THREE);
    scene.lead.renewed.insert(orders(), (Epoch(3), ago(40_000)));
    scene.database("db1", DbState::Stopped, END, None);
    scene.health("db1").watchdog_armed = false;
    devices_work(&mut scene);
    scene
}

/// An operator paused it, and the witness was never there.
fn paused() -> Scene {
    let mut scene = healthy(THREE);
    scene.leader = Some(node("db2"));
    scene.world.done(pause());
    scene.without("w1");
    scene
}

/// db2 is no target: it streams from elsewhere, is behind, and could not hold a lease.
fn refused() -> Scene {
    let mut scene = Scene::new("db2", THREE);
    let far_behind = Position { timeline: Timeline(3), lsn: Lsn(0x100_0148) };
    scene.database("db2", DbState::Standby, far_behind, Some("w1"));
    scene.health("db2").failing.insert(Failing::WatchdogArm);
    scene
}
