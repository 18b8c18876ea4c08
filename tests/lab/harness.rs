//! Runs scenarios one after another (or several at once), each in a process of its own, and clears up after each from outside, so that a
//! panic, a timeout or an interrupt leaves nothing behind. Knows PASS, FAIL and SKIPPED. There are no retries.
//!
//! Not here: which is next (`turns.rs`).

use crate::pace;
use crate::ready;
use crate::system;
use crate::turns::Turns;
use crate::world::{self, PREFIX, World};
use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

/// One scenario: a name, what it shows, how long it may take, and the function that runs it in a fresh world.
pub struct Scenario {
    pub name: &'static str,
    pub shows: &'static str,
    pub within: Duration,
    /// It loads the machine on purpose, or measures what load changes: nothing runs beside it.
    pub alone: bool,
    pub run: fn(&mut World) -> Result<()>,
}

/// An error that is no failure: something that this machine does not have.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Skip {
    pub reason: String,
}

/// Ends a scenario as SKIPPED.
pub fn skip<T>(reason: impl Into<String>) -> Result<T> {
    Err(Skip { reason: reason.into() }.into())
}

/// What the names of scenarios begin with that run only where a filter begins with it too.
const LARGE: &str = "large_";

/// The exit status by which a scenario's process says that it was skipped.
const SKIPPED: i32 = 77;

enum Outcome {
    Pass,
    Fail(String),
    Skipped(String),
}

struct Options {
    filters: Vec<String>,
    repeat: u32,
    jobs: u32,
    list: bool,
    keep: bool,
    show: bool,
}

fn parse(args: &[String]) -> Result<Options> {
    let mut options = Options { filters: Vec::new(), repeat: 1, jobs: 1, list: false, keep: false, show: false };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--list" => options.list = true,
            "--keep" => options.keep = true,
            "--repeat" => {
                let n = args.next().context("--repeat needs a number")?;
                options.repeat = n.parse().with_context(|| format!("--repeat: {n:?} is not a number"))?;
            }
            "--jobs" => {
                let n = args.next().context("--jobs needs a number")?;
                options.jobs = n.parse().with_context(|| format!("--jobs: {n:?} is not a number"))?;
            }
            "--nocapture" | "--show-output" => options.show = true,
            other if other.starts_with('-') => {
                bail!(
                    "unknown option {other}; there are [FILTER…] [--repeat N] [--jobs N] [--list] [--keep] [--show-output]"
                )
            }
            filter => options.filters.push(filter.to_owned()),
        }
    }
    Ok(options)
}

/// The whole run. Returns the exit status.
pub fn main(scenarios: &[Scenario], args: &[String]) -> Result<i32> {
    let options = parse(args)?;
    let asked = |s: &Scenario| !s.name.starts_with(LARGE) || options.filters.iter().any(|f| f.starts_with(LARGE));
    let chosen =
        |s: &&Scenario| asked(s) && (options.filters.is_empty() || options.filters.iter().any(|f| s.name.contains(f)));
    let chosen: Vec<&Scenario> = scenarios.iter().filter(chosen).collect();
    if options.list {
        chosen.iter().for_each(|s| println!("{:<44} {}", s.name, s.shows));
        return Ok(0);
    }
    let unable = what_is_missing();
    if unable.is_none() {
        world::destroy_orphans()?;
    }
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block()?;
    let interrupt = interrupt(signals);
    let all = (1..=options.repeat).flat_map(|round| chosen.iter().enumerate().map(move |(n, s)| (round, n, *s)));
    let turns = Turns::new(all, |(_, _, scenario)| scenario.alone);
    let counts = Mutex::new([0; 3]);
    let work = || -> Result<()> {
        while let Some(turn) = turns.next(|| interrupt.has_come()) {
            let (round, number, scenario) = turn.what;
            let start = Instant::now();
            let name = format!("{PREFIX}{}-{round}-{number}", std::process::id());
            let outcome = match &unable {
                Some(reason) => Outcome::Skipped(reason.clone()),
                None => run_one(scenario, &name, &options, &interrupt)?,
            };
            let mut counts = counts.lock().expect("no holder of this lock can panic");
            counts[match outcome {
                Outcome::Pass => 0,
                Outcome::Fail(_) => 1,
                Outcome::Skipped(_) => 2,
            }] += 1;
            report(scenario.name, &outcome, start.elapsed().as_secs_f64());
        }
        Ok(())
    };
    std::thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..options.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a panic here is a bug of the harness"))
    })?;
    if interrupt.has_come() {
        return Ok(130);
    }
    let [passed, failed, skipped] = counts.into_inner().expect("no holder of this lock can panic");
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    let skips_fail = std::env::var_os("CI").is_some_and(|v| v == "true") && skipped > 0;
    if skips_fail {
        println!("CI=true: a skipped scenario is a failure");
    }
    Ok(i32::from(failed > 0 || skips_fail))
}

fn report(name: &str, outcome: &Outcome, took: f64) {
    match outcome {
        Outcome::Pass => println!("PASS    {name:<44} {took:6.1} s"),
        Outcome::Skipped(reason) => println!("SKIPPED {name:<44} {reason}"),
        Outcome::Fail(reason) => println!("FAIL    {name:<44} {took:6.1} s\n{reason}"),
    }
    let _ = std::io::stdout().flush();
}

/// Why no scenario at all can run here.
pub fn what_is_missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root: namespaces and cgroups need it".into());
    }
    if let Err(error) = crate::cgroup::mount_point() {
        return Some(format!("{error:#}"));
    }
    let there = |program: &&&str| {
        let path = std::env::var("PATH").unwrap_or_default();
        !path.split(':').chain(["/usr/sbin", "/sbin"]).any(|dir| Path::new(dir).join(program).exists())
    };
    let missing: Vec<&str> = ["ip", "nft", "ipmi_sim", "ipmitool", "runuser"].iter().filter(there).copied().collect();
    (!missing.is_empty()).then(|| format!("programs are missing: {}", missing.join(", ")))
}

/// Whether this process was asked to end.
struct Interrupt {
    come: Mutex<bool>,
    changed: Condvar,
}

impl Interrupt {
    fn has_come(&self) -> bool {
        *self.come.lock().expect("no holder of this lock can panic")
    }

    /// Returns when it has come.
    fn wait(&self) {
        let come = self.come.lock().expect("no holder of this lock can panic");
        drop(self.changed.wait_while(come, |come| !*come).expect("no holder of this lock can panic"));
    }
}

fn interrupt(signals: SigSet) -> Arc<Interrupt> {
    let interrupt = Arc::new(Interrupt { come: Mutex::new(false), changed: Condvar::new() });
    let told = interrupt.clone();
    std::thread::spawn(move || {
        while signals.wait().is_ok() {
            *told.come.lock().expect("no holder of this lock can panic") = true;
            told.changed.notify_all();
        }
    });
    interrupt
}

fn run_one(scenario: &Scenario, world: &str, options: &Options, interrupt: &Interrupt) -> Result<Outcome> {
    let directory = Path::new(world::BASE).join(world);
    fs::create_dir_all(&directory)?;
    let log_path = directory.join("scenario.log");
    let log = File::create(&log_path)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["__scenario", scenario.name, world]).stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log);
    // SAFETY: one system call between fork and exec.
    unsafe { command.pre_exec(system::die_with_parent) };
    let child = command.spawn().context("start the scenario's process")?;
    let end = wait(child, scenario.within, interrupt)?;
    if options.keep && !matches!(end, End::Interrupted) {
        println!("kept: {} (cgroup of the same name); interrupt to clear up", directory.display());
        interrupt.wait();
    }
    let outcome = match end {
        End::Exited(0) => Outcome::Pass,
        End::Exited(SKIPPED) => Outcome::Skipped(last_lines(&log_path, 1)),
        End::Exited(status) => Outcome::Fail(format!("exit status {status}")),
        End::Signalled(signal) => Outcome::Fail(format!("killed by signal {signal}")),
        End::TimedOut => Outcome::Fail(format!("not finished within {:?}", scenario.within)),
        End::Interrupted => Outcome::Fail("interrupted".into()),
    };
    if options.show && matches!(outcome, Outcome::Pass) {
        println!("{}", fs::read_to_string(&log_path).unwrap_or_default().trim_end());
    }
    let outcome = match outcome {
        Outcome::Fail(reason) => Outcome::Fail(explain(&reason, &directory, &log_path)),
        other => other,
    };
    let failed = matches!(outcome, Outcome::Fail(_));
    world::destroy(world, failed)?;
    if failed {
        drop_disks(&directory);
    }
    Ok(outcome)
}

enum End {
    Exited(i32),
    Signalled(i32),
    TimedOut,
    Interrupted,
}

fn wait(mut child: Child, within: Duration, interrupt: &Interrupt) -> Result<End> {
    let (sender, ended) = mpsc::channel();
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    std::thread::spawn(move || sender.send(child.wait()));
    let deadline = Instant::now() + within;
    loop {
        match ended.recv_timeout(Duration::from_millis(50)) {
            Ok(status) => {
                let status = status?;
                return Ok(match status.code() {
                    Some(code) => End::Exited(code),
                    None => End::Signalled(status.signal().unwrap_or_default()),
                });
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("the waiting thread is gone"),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        let interrupted = interrupt.has_come();
        if interrupted || Instant::now() >= deadline {
            nix::sys::signal::kill(pid, Signal::SIGKILL)?;
            return Ok(if interrupted { End::Interrupted } else { End::TimedOut });
        }
    }
}

/// What a person needs first: the scenario's own words, then the end of each program's log.
fn explain(reason: &str, directory: &Path, log: &Path) -> String {
    let mut text = format!("        {reason}; logs: {}\n{}", directory.display(), indent(&last_lines(log, 20)));
    for log in logs(directory) {
        text += &format!("        --- {}\n{}", log.display(), indent(&last_lines(&log, 12)));
    }
    text
}

/// The daemons' logs: `HOST/regent.log`.
fn logs(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut logs: Vec<_> = entries.flatten().map(|e| e.path().join("regent.log")).filter(|p| p.exists()).collect();
    logs.sort();
    logs
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("        | {line}\n")).collect()
}

fn last_lines(path: &Path, count: usize) -> String {
    let mut text = String::new();
    let _ = File::open(path).and_then(|mut file| file.read_to_string(&mut text));
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// A failure keeps its logs, not gigabytes of databases.
fn drop_disks(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let disk = entry.path().join("disk");
        if disk.exists() {
            let _ = fs::remove_dir_all(&disk);
        }
    }
}

/// One scenario, in its own process: `NAME WORLD`. Returns the exit status.
pub fn run_in_this_process(scenarios: &[Scenario], args: &[String]) -> i32 {
    let [name, world] = args else {
        eprintln!("__scenario NAME WORLD");
        return 2;
    };
    let Some(scenario) = scenarios.iter().find(|s| s.name == name) else {
        eprintln!("there is no scenario {name}");
        return 2;
    };
    let done = World::create(world).and_then(|mut world| {
        let done = (scenario.run)(&mut world).and_then(|()| pace::judge(&world)).and_then(|()| ready::judge(&world));
        // A world is not taken apart from within: the harness does that, in the same way after success and failure.
        std::mem::forget(world);
        done
    });
    match done {
        Ok(()) => 0,
        Err(error) => match error.downcast_ref::<Skip>() {
            Some(skip) => {
                eprintln!("{skip}");
                SKIPPED
            }
            None => {
                eprintln!("{error:#}");
                1
            }
        },
    }
}
