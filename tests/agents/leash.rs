//! The leash: what becomes of an agent whose daemon is killed, stopped or replaced, with real processes. The daemon is
//! played by this test program, started once more.

use crate::runner::{Script, is_alive, order, runner_with, wait};
use crate::{eventually, is_root, unique};
use regent::action::confinement::RunName;
use regent::action::leashes::Leashes;
use regent::action::leftovers::Leftover;
use regent::clock;
use regent::engine::enclosure::own_cgroup;
use regent::types::{AgentAction, AgentOrder, AgentOutcome, FenceId, Instant};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How a run is confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Born in its cgroup.
    Born,
    /// The kernel has no clone3: it enters its cgroup.
    Enters,
    /// Known by its environment.
    Word,
}

const WAYS: [Way; 3] = [Way::Born, Way::Enters, Way::Word];
/// Tells the other process what to play: folder, owner, deadline in milliseconds, way.
const PLAY: &str = "REGENT_TEST_DAEMON";
const LONG: Duration = Duration::from_secs(60);
/// An agent that goes on in a session of its own, and says where it is.
const WANDERER: &str = "setsid sh -c 'echo $$ > $0/child.new; mv $0/child.new $0/child; exec sleep 300' $DIR &\n\
                        cat /proc/self/cgroup > $DIR/cgroup; echo $$ > $DIR/own; sleep 300";

fn leashes(run_dir: &Path, owner: &str, way: Way) -> Leashes {
    let parent = own_cgroup().filter(|_| way != Way::Word);
    Leashes::new(env!("CARGO_BIN_EXE_regent"), run_dir, owner, parent)
}

fn off(deadline: Duration) -> AgentOrder {
    AgentOrder { fence: Some(FenceId(7)), ..order(AgentAction::Off, &[("port", "1")], deadline) }
}

/// A daemon that runs one agent.
struct Daemon {
    script: Script,
    owner: String,
    way: Way,
    process: Child,
    /// The agent, and its child in another session.
    agents: [String; 2],
}

impl Daemon {
    fn start(way: Way, deadline: Duration) -> Daemon {
        let (script, owner) = (Script::new(WANDERER), unique());
        let play = format!("{}|{owner}|{}|{way:?}", script.path("").display(), deadline.as_millis());
        let process = Command::new(std::env::current_exe().expect("this program"))
            .args(["leash::the_daemon", "--exact", "--nocapture"])
            .env(PLAY, play)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let agents =
            ["own", "child"].map(|file| eventually(file, || Some(script.read(file)).filter(|t| t.ends_with('\n'))));
        Daemon { script, owner, way, process, agents }
    }

    /// On CLOCK_BOOTTIME: when the daemon asked for its agent.
    fn asked(&self) -> Instant {
        Instant(self.script.read("asked").parse().expect("a moment"))
    }

    fn lives(&self) -> bool {
        self.agents.iter().any(|pid| is_alive(pid))
    }

    fn kill(&mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("reaped");
    }

    fn next(&self) -> Leashes {
        leashes(&self.script.path(""), &self.owner, self.way)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.next().end_leftovers();
    }
}

/// Not a test of its own: the other process. It ends by itself if nobody ends it.
#[test]
fn the_daemon() {
    let Ok(play) = std::env::var(PLAY) else { return };
    let parts: Vec<&str> = play.split('|').collect();
    let [folder, owner, deadline, way] = parts[..] else { panic!("{play}") };
    let way = WAYS.into_iter().find(|known| format!("{known:?}") == way).expect("a way");
    if way == Way::Enters {
        forbid_clone3();
    }
    let folder = PathBuf::from(folder);
    let runner = runner_with(folder.join("agent"), leashes(&folder, owner, way));
    std::fs::write(folder.join("asked"), clock::now().0.to_string()).expect("written");
    wait(runner.run(&off(Duration::from_millis(deadline.parse().expect("a number"))), 1));
}

/// As the filter does that systemd sets up for `RestrictNamespaces`.
fn forbid_clone3() {
    let filter = |code: u32, jt, jf, k| libc::sock_filter { code: u16::try_from(code).expect("small"), jt, jf, k };
    let number = u32::try_from(libc::SYS_clone3).expect("a system call's number");
    let mut program = [
        filter(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        filter(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
        filter(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs()),
        filter(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
    // SAFETY: a filter that lives until the call returns.
    let set = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0)
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// Cgroups of this owner.
fn cgroups(owner: &str) -> Vec<String> {
    let owner = format!("+{:08x}+", crc32fast::hash(owner.as_bytes()));
    let all = own_cgroup().into_iter().flat_map(std::fs::read_dir).flatten().flatten();
    all.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|name| name.contains(&owner)).collect()
}

/// Processes whose command line is that of a leash of this owner.
fn leash_processes(owner: &str) -> Vec<String> {
    let owner = format!("+{:08x}+", crc32fast::hash(owner.as_bytes()));
    let all = std::fs::read_dir("/proc").expect("mounted").flatten();
    all.map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|pid| {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split('\0').nth(1) == Some("leash") && line.contains(&owner)
        })
        .collect()
}

fn nothing_is_left(owner: &str) {
    eventually("no cgroup is left", || cgroups(owner).is_empty().then_some(()));
    eventually("no leash is left", || leash_processes(owner).is_empty().then_some(()));
}

#[test]
fn a_child_in_a_session_of_its_own_is_gone_at_the_deadline() {
    if !is_root() {
        return;
    }
    for way in [Way::Born, Way::Word] {
        let (script, owner) = (Script::new(WANDERER), unique());
        let runner = runner_with(script.path("agent"), leashes(&script.path(""), &owner, way));
        let limit = Duration::from_millis(1500);
        let run = wait(runner.run(&off(limit), 1));
        assert_eq!(run.outcome, AgentOutcome::TimedOut, "{way:?} {run:?}");
        assert!(run.took >= limit && run.took < limit * 3, "{way:?} {run:?}");
        for file in ["own", "child"] {
            assert!(!script.read(file).is_empty(), "{way:?}: the agent had begun");
            eventually("it is gone", || (!is_alive(&script.read(file))).then_some(()));
        }
        nothing_is_left(&owner);
    }
}

#[test]
fn an_agent_whose_daemon_is_dead_or_stopped_goes_on_to_its_deadline_and_no_further() {
    if !is_root() {
        return;
    }
    let limit = Duration::from_secs(4);
    let cases = WAYS.map(|way| (way, true)).into_iter().chain([(Way::Born, false)]);
    let daemons = cases.map(|(way, killed)| {
        let mut daemon = Daemon::start(way, limit);
        match killed {
            true => daemon.kill(),
            // SAFETY: a plain system call on a child that is not reaped yet.
            false => assert_eq!(unsafe { libc::kill(daemon.process.id().cast_signed(), libc::SIGSTOP) }, 0),
        }
        let own = daemon.script.read("cgroup").contains("agent+7+off+agent+db1");
        assert_eq!(own, way != Way::Word, "{way:?}: {}", daemon.script.read("cgroup"));
        (daemon, killed)
    });
    for (daemon, killed) in daemons.collect::<Vec<_>>() {
        let until = daemon.asked() + limit;
        let lived = eventually("the deadline", || {
            let now = clock::now();
            (!daemon.lives()).then_some(now)
        });
        let late = lived.since(until);
        println!(
            "TIME deadline to gone, {:?}, daemon {}: {late:?}",
            daemon.way,
            if killed { "dead" } else { "stopped" }
        );
        assert!(lived >= until, "{:?}: ended {:?} before its deadline", daemon.way, until.since(lived));
        assert!(late < Duration::from_secs(2), "{:?}: {late:?}", daemon.way);
        nothing_is_left(&daemon.owner);
    }
}

#[test]
fn the_next_daemon_ends_at_once_what_is_left_and_names_it() {
    if !is_root() {
        return;
    }
    for way in WAYS {
        let mut daemon = Daemon::start(way, LONG);
        daemon.kill();
        let stranger = leashes(&daemon.script.path(""), &unique(), way);
        assert_eq!(stranger.end_leftovers(), [], "{way:?}: another daemon's agents are none of its business");
        assert!(daemon.agents.iter().all(|pid| is_alive(pid)), "{way:?}: nothing has ended them yet");
        let begun = clock::now();
        let ended = daemon.next().end_leftovers();
        println!("TIME ending what is left, {way:?}: {:?}", clock::now().since(begun));
        let [Leftover { run, processes, is_gone: true }] = &ended[..] else { panic!("{way:?}: {ended:?}") };
        assert!(daemon.agents.iter().all(|pid| processes.contains(&pid.trim().parse().expect("a pid"))), "{ended:?}");
        let target = run.target.as_ref().map(|target| target.as_str());
        assert_eq!((run.fence, run.agent.as_str(), target), (Some(FenceId(7)), "agent", Some("db1")));
        let said = ended[0].to_string();
        assert!(said.contains("off of agent agent for db1 (fence 7); what it did is unknown"), "{said}");
        assert!(!daemon.lives(), "{way:?}");
        assert_eq!(daemon.next().end_leftovers(), [], "{way:?}: said once");
        nothing_is_left(&daemon.owner);
    }
}

#[test]
fn what_is_left_is_found_by_a_daemon_in_another_cgroup() {
    let Some(own) = own_cgroup().filter(|_| is_root()) else { return };
    let mut daemon = Daemon::start(Way::Born, LONG);
    daemon.kill();
    let elsewhere = own.join(format!("leash-test-{}", daemon.owner));
    let next = Leashes::new(env!("CARGO_BIN_EXE_regent"), &daemon.script.path(""), &daemon.owner, Some(elsewhere));
    assert_eq!(next.end_leftovers().len(), 1);
    assert!(!daemon.lives());
}

#[test]
fn a_leash_holds_nothing_of_its_daemon_and_is_an_ordinary_process() {
    if !is_root() {
        return;
    }
    let daemon = Daemon::start(Way::Born, LONG);
    let pid = eventually("the leash", || leash_processes(&daemon.owner).pop());
    let kinds = |pid: &str| -> Vec<String> {
        let all = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten();
        all.map(|fd| std::fs::read_link(fd.path()).unwrap_or_default().display().to_string()).collect()
    };
    // Its three streams and its timer.
    let own = |open: &Vec<String>| open.len() == 4 && open.iter().any(|kind| kind.contains("timerfd"));
    eventually("only its own is open", || Some(kinds(&pid)).filter(own));
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or_default()
    };
    println!("MEMORY of a leash: {} kB of its own, {} kB of files", field("RssAnon"), field("RssFile"));
    assert_eq!((field("Threads"), field("VmLck")), (1, 0), "{status}");
    assert!(field("RssAnon") < 4096, "{status}");
    // SAFETY: a plain system call.
    let policy = unsafe { libc::sched_getscheduler(pid.parse().expect("a pid")) };
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let nice = stat[stat.rfind(')').expect("a stat line")..].split(' ').nth(17);
    assert_eq!((policy, nice), (libc::SCHED_OTHER, Some("0")), "{stat}");
}

#[test]
fn many_runs_and_monitors_leave_nothing_behind() {
    if !is_root() {
        return;
    }
    let (script, owner) = (Script::new("exit 0"), unique());
    let runner = runner_with(script.path("agent"), leashes(&script.path(""), &owner, Way::Born));
    for _ in 0..10 {
        for action in [AgentAction::Monitor, AgentAction::Off, AgentAction::Status] {
            let run = wait(runner.run(&order(action, &[("port", "1")], LONG), 1));
            assert_eq!(run.outcome, AgentOutcome::Succeeded, "{run:?}");
        }
    }
    nothing_is_left(&owner);
    // Other tests of this process have children of their own, that are reaped in their time.
    eventually("every child is reaped", || (zombies() == 0).then_some(()));
}

/// Children of this process that have ended and nobody waited for.
fn zombies() -> usize {
    let me = std::process::id().to_string();
    let all = std::fs::read_dir("/proc").expect("mounted").flatten();
    all.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
        .filter(|stat| {
            let after: Vec<&str> = stat[stat.rfind(')').unwrap_or_default()..].split(' ').collect();
            after.get(1) == Some(&"Z") && after.get(2) == Some(&me.as_str())
        })
        .count()
}

/// A figure, not a test: how long it takes from asking to the agent's first line, beside a plain start of the same.
#[test]
fn how_long_a_start_takes_with_and_without_a_leash() {
    if !is_root() {
        return;
    }
    let (script, owner) = (Script::new("date +%s%N > $DIR/first"), unique());
    let runner = runner_with(script.path("agent"), leashes(&script.path(""), &owner, Way::Born));
    let wall = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos();
    let since = |asked: u128| {
        let first: u128 = script.read("first").trim().parse().expect("a time");
        Duration::from_nanos(u64::try_from(first.saturating_sub(asked)).expect("short"))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (mut with, mut without, mut taken) = (Vec::new(), Vec::new(), Vec::new());
    let run =
        RunName { fence: None, action: AgentAction::Monitor, agent: "agent".parse().expect("a name"), target: None };
    let alone = leashes(&script.path(""), &owner, Way::Born);
    for _ in 0..30 {
        let asked = wall();
        let ended = runtime.block_on(runner.run(&off(LONG), 1));
        assert_eq!(ended.outcome, AgentOutcome::Succeeded, "{ended:?}");
        with.push(since(asked));
        eventually("the last leash is gone", || leash_processes(&owner).is_empty().then_some(()));
        let asked = wall();
        let (stdin, mut input) = std::io::pipe().expect("a pipe");
        std::io::Write::write_all(&mut input, b"action=off\n").expect("written");
        drop(input);
        let mut plain = Command::new(script.path("agent"));
        plain.env_clear().env("PATH", "/usr/bin:/bin").stdin(stdin).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(plain.status().expect("started").success());
        without.push(since(asked));
        let begun = clock::now();
        let leash = alone.take(&run, begun + LONG).expect("taken");
        taken.push(clock::now().since(begun));
        leash.end();
    }
    for list in [&mut with, &mut without, &mut taken] {
        list.sort();
    }
    println!("TIME from asking to the first line, median of 30: {:?} leashed, {:?} plain", with[15], without[15]);
    println!("TIME of it until cgroup and leash are there: {:?}", taken[15]);
}
