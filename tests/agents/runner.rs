//! The runner: with small agents made for the test, and with Debian's own.

use crate::bmc::{Bmc, PASSWORD, Power, USER};
use crate::{FIREWALL, IPMI, eventually, is_root, unique};
use regent::action::fence::{Runner, UNTIL_THE_DEADLINE};
use regent::action::leashes::Leashes;
use regent::config::Agent;
use regent::engine::enclosure::own_cgroup;
use regent::types::{AgentAction, AgentKind, AgentName, AgentOrder, AgentOutcome, AgentRun};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

const NAME: &str = "agent";

fn name(text: &str) -> AgentName {
    text.parse().expect("a name")
}

fn agent(command: impl Into<PathBuf>) -> Agent {
    Agent {
        kind: AgentKind::Power,
        command: command.into(),
        options: BTreeMap::new(),
        node: BTreeMap::new(),
        isolates: false,
        everywhere: false,
        timeout: Duration::from_secs(10),
        tries: 1,
        monitor: Duration::ZERO,
    }
}

fn runner(command: impl Into<PathBuf>) -> Runner {
    runner_with(command, leashes())
}

pub fn runner_with(command: impl Into<PathBuf>, leashes: Leashes) -> Runner {
    Runner::with_agents([(name(NAME), agent(command))].into(), leashes)
}

pub fn leashes() -> Leashes {
    let run_dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    Leashes::new(env!("CARGO_BIN_EXE_regent"), &run_dir, &unique(), own_cgroup())
}

pub fn order(action: AgentAction, options: &[(&str, &str)], deadline: Duration) -> AgentOrder {
    AgentOrder {
        agent: name(NAME),
        action,
        target: "db1".parse().expect("a name"),
        fence: None,
        options: options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        deadline,
    }
}

pub fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(work)
}

fn run(runner: &Runner, order: &AgentOrder, tries: u32) -> AgentRun {
    wait(runner.run(order, tries))
}

/// An agent made of shell lines. `$DIR` is its folder; it declares the options `port`, `fence_id` and `password`.
pub struct Script {
    folder: tempfile::TempDir,
}

impl Script {
    pub fn new(body: &str) -> Script {
        let folder = tempfile::tempdir().expect("a folder");
        let text = format!(
            "#!/bin/sh\nDIR={}\nread first\nif [ \"$first\" = action=metadata ]; then\n\
             echo '<resource-agent name=\"x\"><parameters><parameter name=\"port\" required=\"1\"/>\
             <parameter name=\"fence_id\"/><parameter name=\"password\"/></parameters>\
             <actions><action name=\"off\"/><action name=\"on\"/><action name=\"status\"/></actions></resource-agent>'\n\
             exit 0\nfi\n{body}\n",
            folder.path().display()
        );
        let script = Script { folder };
        // Not written by this process: a child that another test starts meanwhile would hold the file open, and what
        // is open for writing cannot be run.
        let mut writer = Command::new("sh")
            .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
            .arg(script.path("agent"))
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        writer.stdin.take().expect("piped").write_all(text.as_bytes()).expect("written");
        assert!(writer.wait().expect("waited for").success());
        script
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn runner(&self) -> Runner {
        runner(self.path("agent"))
    }
}

pub fn is_alive(pid: &str) -> bool {
    // A zombie has no command line.
    std::fs::read(format!("/proc/{}/cmdline", pid.trim())).is_ok_and(|line| !line.is_empty())
}

const SECONDS: Duration = Duration::from_secs(10);

#[test]
fn the_input_begins_with_the_action_and_offers_only_what_is_declared() {
    let script = Script::new("{ echo \"$first\"; cat; } > $DIR/input; echo \"$#\" > $DIR/arguments");
    let options = [("ip", "10.0.0.1"), ("offer:fence_id", "7"), ("offer:addresses", "10.0.0.2")];
    let off = run(&script.runner(), &order(AgentAction::Off, &options, SECONDS), 1);
    assert_eq!(off.outcome, AgentOutcome::Succeeded, "{off:?}");
    assert_eq!(script.read("input"), "action=off\nnodename=db1\nport=db1\nip=10.0.0.1\nfence_id=7\n");
    assert_eq!(script.read("arguments").trim(), "0");
    let own = [("fence_id", "mine"), ("offer:fence_id", "7"), ("port", "3")];
    run(&script.runner(), &order(AgentAction::Off, &own, SECONDS), 1);
    assert_eq!(script.read("input"), "action=off\nnodename=db1\nfence_id=mine\nport=3\n");
    run(&script.runner(), &order(AgentAction::Monitor, &[], SECONDS), 1);
    assert_eq!(script.read("input"), "action=monitor\nnodename=db1\n", "monitor asks the device, not for a target");
}

#[test]
fn an_agent_whose_input_cannot_be_written_as_a_whole_is_never_started() {
    let script = Script::new("touch $DIR/started");
    let long = "x".repeat(300_000);
    let off = run(&script.runner(), &order(AgentAction::Off, &[("port", "1"), ("comment", &long)], SECONDS), 3);
    assert_eq!(off.outcome, AgentOutcome::NotRun, "{off:?}");
    let smuggled = run(&script.runner(), &order(AgentAction::Off, &[("port", "1\naction=on")], SECONDS), 1);
    assert_eq!(smuggled.outcome, AgentOutcome::NotRun, "{smuggled:?}");
    assert!(smuggled.output.contains("cannot be handed over"), "{smuggled:?}");
    assert!(!script.path("started").exists());
    run(&script.runner(), &order(AgentAction::Off, &[("port", "1")], SECONDS), 1);
    assert!(script.path("started").exists(), "the test sees a start");
}

#[test]
fn the_deadline_kills_the_whole_process_group() {
    let script =
        Script::new("trap '' TERM INT HUP\nsleep 300 & echo $! > $DIR/child; echo $$ > $DIR/own; wait; sleep 300");
    let options = [("port", "1")];
    let off = run(&script.runner(), &order(AgentAction::Off, &options, Duration::from_millis(500)), 3);
    assert_eq!((off.outcome, off.tries), (AgentOutcome::TimedOut, 1));
    assert!(off.took >= Duration::from_millis(500) && off.took < Duration::from_secs(3), "{off:?}");
    for file in ["own", "child"] {
        let pid = script.read(file);
        assert!(!pid.is_empty(), "the agent had begun");
        eventually("it is gone", || (!is_alive(&pid)).then_some(()));
    }
}

#[test]
fn what_an_agent_leaves_behind_is_killed_at_its_end() {
    let script = Script::new("sleep 300 & echo $! > $DIR/child; exit 0");
    let off = run(&script.runner(), &order(AgentAction::Off, &[("port", "1")], SECONDS), 1);
    assert_eq!(off.outcome, AgentOutcome::Succeeded);
    assert!(off.took < Duration::from_secs(3), "its open output holds nobody up: {off:?}");
    let child = script.read("child");
    eventually("it is gone", || (!is_alive(&child)).then_some(()));
}

#[test]
fn a_dropped_run_kills_its_agent() {
    let script = Script::new("echo $$ > $DIR/own; sleep 300");
    let runner = script.runner();
    let order = order(AgentAction::Off, &[("port", "1")], Duration::from_secs(60));
    let pid = wait(async {
        let mut run = Box::pin(runner.run(&order, 1));
        loop {
            let tick = tokio::time::timeout(Duration::from_millis(10), &mut run).await;
            assert!(tick.is_err(), "it ran to an end: {tick:?}");
            if script.read("own").ends_with('\n') {
                return script.read("own");
            }
        }
    });
    eventually("it is gone", || (!is_alive(&pid)).then_some(()));
}

#[test]
fn failures_are_tried_again_so_often_and_no_oftener() {
    let body = "echo x >> $DIR/count; [ $(wc -l < $DIR/count) -ge 3 ] || { echo not yet; exit 1; }";
    for (tries, outcome) in [(2, AgentOutcome::Failed { status: 1 }), (5, AgentOutcome::Succeeded)] {
        let script = Script::new(body);
        let off = run(&script.runner(), &order(AgentAction::Off, &[("port", "1")], SECONDS), tries);
        assert_eq!((off.outcome, off.tries), (outcome, tries.min(3)), "{off:?}");
    }
    let script = Script::new("sleep 0.3; exit 1");
    let off = run(&script.runner(), &order(AgentAction::Off, &[("port", "1")], Duration::from_millis(800)), 100);
    assert!(off.tries <= 3 && off.took < Duration::from_secs(3), "the deadline counts all tries: {off:?}");
}

#[test]
fn a_device_that_refuses_for_a_while_is_asked_again_within_the_deadline() {
    // Refuses at once, until a file is there.
    let body = "date +%s%N >> $DIR/at; [ -e $DIR/works ] || { echo busy; exit 1; }";
    let script = Script::new(body);
    let runner = script.runner();
    let off = order(AgentAction::Off, &[("port", "1")], Duration::from_secs(20));
    let works = script.path("works");
    let begun = std::time::Instant::now();
    let (run, since) = wait(async {
        let repaired = async {
            tokio::time::sleep(Duration::from_secs(4)).await;
            std::fs::write(&works, "").expect("written");
            std::time::Instant::now()
        };
        tokio::join!(runner.run(&off, UNTIL_THE_DEADLINE), repaired)
    });
    assert_eq!(run.outcome, AgentOutcome::Succeeded, "{run:?}");
    assert!(begun.elapsed() >= Duration::from_secs(4) && since.elapsed() < Duration::from_secs(2), "{run:?}");
    assert!((5..=9).contains(&run.tries), "often at first, then once a second: {run:?}");
    assert_eq!(script.read("at").lines().count(), run.tries as usize, "every try is counted: {run:?}");
}

#[test]
fn why_the_tries_failed_stays_when_the_deadline_cuts_one_off() {
    let script = Script::new("echo x >> $DIR/count; [ $(wc -l < $DIR/count) -ge 3 ] && sleep 30; echo busy; exit 1");
    let deadline = Duration::from_secs(1);
    let off = run(&script.runner(), &order(AgentAction::Off, &[("port", "1")], deadline), UNTIL_THE_DEADLINE);
    assert_eq!((off.outcome, off.tries, off.output.as_str()), (AgentOutcome::TimedOut, 3, "busy"), "{off:?}");
}

#[test]
fn a_bmc_that_gets_its_sessions_back_within_the_deadline_is_switched_off() {
    if !is_root() {
        return;
    }
    let mut bmc = Bmc::start(Power::Obeys);
    bmc.take_all_sessions();
    let port = bmc.port.to_string();
    let options = [("ip", "127.0.0.1"), ("ipport", port.as_str()), ("username", USER), ("password", PASSWORD)];
    let runner = runner(IPMI);
    let refused = run(&runner, &order(AgentAction::Off, &options, SECONDS), 2);
    assert_eq!((refused.outcome, refused.tries), (AgentOutcome::Failed { status: 1 }, 2), "{refused:?}");
    assert!(refused.output.contains("no free session"), "{refused:?}");
    let off = order(AgentAction::Off, &options, Duration::from_secs(20));
    let (run, back) = std::thread::scope(|scope| {
        let run = scope.spawn(|| run(&runner, &off, UNTIL_THE_DEADLINE));
        std::thread::sleep(Duration::from_secs(3));
        bmc.forget_sessions();
        let back = std::time::Instant::now();
        (run.join().expect("ended"), back)
    });
    assert_eq!((run.outcome, bmc.is_on()), (AgentOutcome::Succeeded, false), "{run:?}");
    assert!(run.tries > 3 && back.elapsed() < Duration::from_secs(3), "{run:?}, {:?}", back.elapsed());
}

#[test]
fn exit_status_two_means_off_for_status_and_monitor_alone() {
    let script = Script::new("exit 2");
    let outcome = |action| run(&script.runner(), &order(action, &[("port", "1")], SECONDS), 1).outcome;
    assert_eq!(outcome(AgentAction::Status), AgentOutcome::IsOff);
    assert_eq!(outcome(AgentAction::Monitor), AgentOutcome::IsOff);
    assert_eq!(outcome(AgentAction::Off), AgentOutcome::Failed { status: 2 });
    assert_eq!(outcome(AgentAction::On), AgentOutcome::Failed { status: 2 });
    let killed = Script::new("kill -9 $$");
    let off = run(&killed.runner(), &order(AgentAction::Off, &[("port", "1")], SECONDS), 1);
    assert_eq!(off.outcome, AgentOutcome::Failed { status: 137 });
}

#[test]
fn one_action_at_a_time_on_a_device_and_several_devices_at_once() {
    // Two runs on one device: each fails when it meets the other one.
    let alone = Script::new("mkdir $DIR/busy || exit 9; sleep 0.2; rmdir $DIR/busy");
    let runner = alone.runner();
    let off = order(AgentAction::Off, &[("port", "1"), ("offer:fence_id", "1")], SECONDS);
    let again = order(AgentAction::On, &[("port", "1"), ("offer:fence_id", "2")], SECONDS);
    let (one, two) = wait(async { tokio::join!(runner.run(&off, 1), runner.run(&again, 1)) });
    assert_eq!((one.outcome, two.outcome), (AgentOutcome::Succeeded, AgentOutcome::Succeeded));
    // Two devices: each needs the other one to be there at the same time.
    let body = "me=$(grep ^port=); touch $DIR/$me; for i in $(seq 80); do [ $(ls $DIR | grep -c port=) = 2 ] && exit 0; \
                sleep 0.05; done; exit 8";
    let together = Script::new(&body.replace("grep ^port=)", "grep ^port= -)"));
    let runner = together.runner();
    let left = order(AgentAction::Off, &[("port", "1")], SECONDS);
    let right = order(AgentAction::Off, &[("port", "2")], SECONDS);
    let (one, two) = wait(async { tokio::join!(runner.run(&left, 1), runner.run(&right, 1)) });
    assert_eq!((one.outcome, two.outcome), (AgentOutcome::Succeeded, AgentOutcome::Succeeded), "{one:?} {two:?}");
}

#[test]
fn a_device_that_stays_busy_is_not_run_at_all() {
    let script = Script::new("sleep 1");
    let runner = script.runner();
    let long = order(AgentAction::Off, &[("port", "1")], SECONDS);
    let short = order(AgentAction::Off, &[("port", "1")], Duration::from_millis(300));
    let (first, second) = wait(async { tokio::join!(runner.run(&long, 1), runner.run(&short, 1)) });
    assert_eq!(first.outcome, AgentOutcome::Succeeded);
    assert_eq!((second.outcome, second.tries), (AgentOutcome::NotRun, 0));
    assert!(second.output.contains("another action held the device"), "{second:?}");
}

#[test]
fn a_monitor_gives_way_to_an_off_and_is_begun_again() {
    let body =
        "echo $first >> $DIR/log; [ $first = action=off ] && exit 0; [ $(grep -c monitor $DIR/log) = 2 ] || sleep 30";
    let script = Script::new(body);
    let runner = script.runner();
    let monitor = order(AgentAction::Monitor, &[("port", "1")], SECONDS);
    let off = order(AgentAction::Off, &[("port", "1")], SECONDS);
    let (monitored, off) = wait(async {
        let urgent = async {
            while !script.read("log").contains("monitor") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            runner.run(&off, 1).await
        };
        tokio::join!(runner.run(&monitor, 1), urgent)
    });
    assert_eq!(off.outcome, AgentOutcome::Succeeded);
    assert!(off.took < Duration::from_secs(5), "{off:?}");
    assert_eq!((monitored.outcome, monitored.tries), (AgentOutcome::Succeeded, 1));
    assert_eq!(script.read("log"), "action=monitor\naction=off\naction=monitor\n");
}

#[test]
fn secrets_leave_in_no_output() {
    let script = Script::new("cat; cat $DIR/pw >&2; exit 1");
    std::fs::write(script.path("pw"), "kept-in-a-file\n").expect("written");
    let file = script.path("pw").display().to_string();
    let options = [("port", "1"), ("password", "plain-secret"), ("password_file", file.as_str())];
    let off = run(&script.runner(), &order(AgentAction::Off, &options, SECONDS), 1);
    assert!(off.output.contains("password=***"), "{off:?}");
    assert!(!off.output.contains("plain-secret") && !off.output.contains("kept-in-a-file"), "{off:?}");
}

#[test]
fn the_environment_is_clean_and_output_is_bounded() {
    let script = Script::new("env; i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; env >&2");
    let off = run(&script.runner(), &order(AgentAction::Off, &[("port", "1")], SECONDS), 1);
    assert!(off.output.contains("line 2999") && !off.output.contains("line 2979\n"), "{off:?}");
    assert!(off.output.contains("LC_ALL=C") && !off.output.contains("CARGO"), "{off:?}");
    assert!(off.output.lines().count() <= 40);
}

#[test]
fn what_cannot_be_run_is_said_and_what_does_not_fit_is_warned_of() {
    let missing = run(&runner("fence_no_such_thing"), &order(AgentAction::Off, &[], SECONDS), 3);
    assert_eq!(missing.outcome, AgentOutcome::NotRun);
    assert!(missing.output.contains("fence_no_such_thing: no such program"), "{missing:?}");
    let mut stranger = order(AgentAction::Off, &[], SECONDS);
    stranger.agent = name("other");
    assert_eq!(run(&runner(IPMI), &stranger, 1).outcome, AgentOutcome::NotRun);

    let mut ipmi = agent(IPMI);
    ipmi.options = [("lanplus", "1"), ("usrname", "admin")].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
    let mute = Script::new("exit 0");
    std::fs::write(mute.path("agent"), "#!/bin/sh\necho hello\n").expect("written");
    let agents = [(name("ipmi"), ipmi), (name("firewall"), agent(FIREWALL)), (name("mute"), agent(mute.path("agent")))];
    let warnings: Vec<String> =
        wait(Runner::with_agents(agents.into(), leashes()).check()).iter().map(|w| w.to_string()).collect();
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(warnings[0].contains("option \"usrname\" is not declared"), "{warnings:?}");
    assert!(warnings[1].contains("needs option \"ip\" for every target"), "{warnings:?}");
    assert!(warnings[2].contains("answered action=metadata with something else"), "{warnings:?}");
}

#[test]
fn debians_fence_dummy_works_unchanged() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("status").display().to_string();
    std::fs::write(&file, "on").expect("written");
    let runner = runner("fence_dummy");
    let options = [("type", "file"), ("status_file", file.as_str()), ("offer:fence_id", "7")];
    let outcome = |action| run(&runner, &order(action, &options, Duration::from_secs(30)), 1);
    assert_eq!(outcome(AgentAction::Status).outcome, AgentOutcome::Succeeded);
    let off = outcome(AgentAction::Off);
    assert_eq!(off.outcome, AgentOutcome::Succeeded, "{off:?}");
    assert_eq!(std::fs::read_to_string(&file).expect("read"), "off");
    assert_eq!(outcome(AgentAction::Status).outcome, AgentOutcome::IsOff);
    assert_eq!(outcome(AgentAction::On).outcome, AgentOutcome::Succeeded);
    assert_eq!(std::fs::read_to_string(&file).expect("read"), "on");
}

#[test]
fn debians_fence_ipmilan_and_ours_work_through_the_runner() {
    if !is_root() {
        return;
    }
    let bmc = Bmc::start(Power::Obeys);
    let port = bmc.port.to_string();
    let mut options =
        vec![("ip", "127.0.0.1"), ("ipport", &port), ("username", USER), ("password", PASSWORD), ("lanplus", "1")];
    options.extend([("cipher", "3"), ("offer:fence_id", "7"), ("offer:addresses", "192.0.2.1")]);
    for command in ["fence_ipmilan", IPMI] {
        let runner = runner(command);
        let outcome = |action| run(&runner, &order(action, &options, Duration::from_secs(40)), 1);
        for (action, expected, is_on) in [
            (AgentAction::Monitor, AgentOutcome::Succeeded, true),
            (AgentAction::Off, AgentOutcome::Succeeded, false),
            (AgentAction::Status, AgentOutcome::IsOff, false),
            (AgentAction::On, AgentOutcome::Succeeded, true),
            (AgentAction::Status, AgentOutcome::Succeeded, true),
        ] {
            let run = outcome(action);
            assert_eq!((run.outcome, bmc.is_on()), (expected, is_on), "{command} {action:?}: {run:?}");
            assert!(!run.output.contains(PASSWORD), "{run:?}");
            println!("{command} {action:?}: {:?}", run.took);
        }
    }
}

#[test]
fn a_silent_bmc_is_cut_off_at_the_deadline() {
    if !is_root() {
        return;
    }
    let options = [("ip", "127.0.0.1"), ("ipport", "1"), ("username", USER), ("password", PASSWORD)];
    let off = run(&runner(IPMI), &order(AgentAction::Off, &options, Duration::from_millis(700)), 5);
    assert_eq!(off.outcome, AgentOutcome::TimedOut, "{off:?}");
    assert!(off.took < Duration::from_secs(2), "{off:?}");
}
