//! The guard: a process of its own that kills the database when the lease ends, also while the daemon is dead, stopped
//! or starved (S5). It knows one thing: a file that says until when, on CLOCK_BOOTTIME.
//!
//! It sleeps until the end that it last read, or until the file is replaced, reads again, and either sleeps on
//! (renewed), goes (released), or kills the database's whole cgroup.
//!
//! Not here: deciding about the lease. A host whose kernel hangs is for the watchdog or the fence.

use crate::engine::enclosure::Enclosure;
use crate::types::{Boot, Epoch, Instant};
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use serde::{Deserialize, Serialize};
use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// What the holder of a lease writes at each renewal, for the guard and for the next daemon of the same boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseFile {
    pub boot: Boot,
    pub epoch: Epoch,
    /// When it ends, on this host's boot clock: the drift allowance is already taken off.
    pub end: Instant,
    /// The database is stopped and nothing is left to guard.
    pub released: bool,
}

/// A lease file that cannot be read or written, or a guard that did not stand up.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    #[error("cannot {doing} the lease file {path}: {source}")]
    File { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} is not a lease file: {detail}")]
    Malformed { path: PathBuf, detail: String },
    #[error("the guard {program} did not stand up: {detail}")]
    NotPosted { program: PathBuf, detail: String },
    #[error("regent guard: {given:?} is not an option; it takes --lease FILE --data-dir DIR [--cgroup DIR]")]
    Usage { given: String },
}

/// What a guard needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardOptions {
    pub lease: PathBuf,
    /// The database's cgroup, where it has one.
    pub cgroup: Option<PathBuf>,
    /// Its data directory: processes that work in it are the database's too.
    pub data_dir: PathBuf,
}

/// Replaces the lease file, whole. No wait for a disk: the run directory is gone after a boot, and so is the lease.
pub fn write_lease(path: &Path, lease: &LeaseFile) -> Result<(), GuardError> {
    let failed = |doing| move |source| GuardError::File { doing, path: path.to_owned(), source };
    let text = serde_json::to_vec(lease).map_err(|error| failed("encode")(error.into()))?;
    let new = path.with_extension("new");
    fs::write(&new, text).map_err(failed("write"))?;
    fs::rename(&new, path).map_err(failed("replace"))
}

/// Reads the lease file.
pub fn read_lease(path: &Path) -> Result<LeaseFile, GuardError> {
    let text = fs::read(path).map_err(|source| GuardError::File { doing: "read", path: path.to_owned(), source })?;
    serde_json::from_slice(&text)
        .map_err(|error| GuardError::Malformed { path: path.to_owned(), detail: error.to_string() })
}

/// Says in the lease file that there is nothing left to guard; for the moment when the database's cgroup is empty.
/// Where there is no lease there is no guard either.
pub fn stand_down(path: &Path) {
    if let Ok(lease) = read_lease(path)
        && !lease.released
        && let Err(error) = write_lease(path, &LeaseFile { released: true, ..lease })
    {
        tracing::warn!(%error, "the guard cannot be told that the database is stopped");
    }
}

/// Posts a guard: `PROGRAM guard ...`, in a session of its own. Returns when it stands (or another stands already).
pub async fn spawn(program: &Path, options: &GuardOptions) -> Result<(), GuardError> {
    let failed = |detail: String| GuardError::NotPosted { program: program.to_owned(), detail };
    let mut command = std::process::Command::new(program);
    command.arg("guard").arg("--lease").arg(&options.lease).arg("--data-dir").arg(&options.data_dir);
    if let Some(cgroup) = &options.cgroup {
        command.arg("--cgroup").arg(cgroup);
    }
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    // SAFETY: one system call between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            Ok(())
        });
    }
    let mut child = tokio::process::Command::from(command).spawn().map_err(|error| failed(error.to_string()))?;
    let mut said = child.stdout.take().ok_or_else(|| failed("no pipe".to_owned()))?;
    // Reaped here for as long as this daemon lives; it outlives the daemon.
    tokio::spawn(async move {
        let _ = child.wait().await;
    });
    let mut word = [0; 1];
    match tokio::time::timeout(Duration::from_secs(5), said.read_exact(&mut word)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(failed("it ended at once; see its message on standard error".to_owned())),
        Err(_) => Err(failed("no word from it within 5 s".to_owned())),
    }
}

/// The options of `regent guard`, from its arguments after the word `guard`.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<GuardOptions, GuardError> {
    let (mut lease, mut cgroup, mut data_dir) = (None, None, None);
    let mut arguments = arguments.into_iter();
    while let Some(name) = arguments.next() {
        let value = arguments.next().map(PathBuf::from);
        match name.to_str() {
            Some("--lease") => lease = value,
            Some("--cgroup") => cgroup = value,
            Some("--data-dir") => data_dir = value,
            _ => return Err(GuardError::Usage { given: name.to_string_lossy().into_owned() }),
        }
    }
    match (lease, data_dir) {
        (Some(lease), Some(data_dir)) => Ok(GuardOptions { lease, cgroup, data_dir }),
        _ => Err(GuardError::Usage { given: "without --lease or --data-dir".to_owned() }),
    }
}

/// The guard's whole life. For `main`: it takes over the process.
pub fn run(options: &GuardOptions) -> ExitCode {
    let Some(_post) = take_post(&options.lease) else {
        say_that_it_stands();
        return ExitCode::SUCCESS;
    };
    harden();
    let enclosure = Enclosure::at(options.cgroup.clone(), &options.data_dir);
    let Ok(timer) = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC) else {
        eprintln!("regent guard: the kernel has no timer on CLOCK_BOOTTIME");
        return ExitCode::FAILURE;
    };
    // Before the first reading, so that no replacement falls between the two.
    let changes = Changes::of(&options.lease);
    let mut known = match read_lease(&options.lease) {
        Ok(lease) => lease,
        Err(error) => {
            eprintln!("regent guard: {error}");
            return ExitCode::FAILURE;
        }
    };
    say_that_it_stands();
    loop {
        // An absolute time in the past lets the timer fire at once: no clock needs to be read.
        let end = TimeSpec::from_duration(Duration::from_nanos(known.end.0.max(1)));
        if timer.set(Expiration::OneShot(end), TimerSetTimeFlags::TFD_TIMER_ABSTIME).is_err() {
            return kill(&enclosure, known.epoch);
        }
        let has_ended = wait(&timer, changes.as_ref());
        match read_lease(&options.lease) {
            Ok(lease) if lease.released => return ExitCode::SUCCESS,
            // An end that was read stays: a file that is gone, torn or of another boot renews nothing.
            Ok(lease) if lease.boot == known.boot && (lease.end > known.end || !has_ended) => known = lease,
            _ if has_ended => return kill(&enclosure, known.epoch),
            _ => {}
        }
    }
}

/// Waits for the lease's end, or a change of its file. Whether it was the end.
fn wait(timer: &TimerFd, changes: Option<&Changes>) -> bool {
    let timer_fd = timer.as_fd();
    let mut both = vec![PollFd::new(timer_fd, PollFlags::POLLIN)];
    both.extend(changes.map(|changes| PollFd::new(changes.0.as_fd(), PollFlags::POLLIN)));
    let _ = poll(&mut both, PollTimeout::NONE);
    if let Some(changes) = changes {
        changes.forget();
    }
    both[0].any().unwrap_or(false)
}

/// Tells of replacements in the lease file's directory. Without it (no inotify left) the guard looks at the end only.
struct Changes(OwnedFd);

impl Changes {
    fn of(lease: &Path) -> Option<Self> {
        let directory = CString::new(lease.parent()?.as_os_str().as_encoded_bytes()).ok()?;
        // SAFETY: system calls on a terminated string; the descriptor is new and nobody else's.
        let fd = unsafe {
            let raw = libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK);
            if raw < 0 {
                return None;
            }
            OwnedFd::from_raw_fd(raw)
        };
        // SAFETY: the descriptor is open and the string ends with a zero.
        let watch = unsafe { libc::inotify_add_watch(fd.as_raw_fd(), directory.as_ptr(), libc::IN_MOVED_TO) };
        (watch >= 0).then_some(Changes(fd))
    }

    /// What changed does not matter: the lease file is read anew in any case.
    fn forget(&self) {
        let mut events = [0_u8; 4096];
        // SAFETY: the buffer is this function's own and as long as said.
        while unsafe { libc::read(self.0.as_raw_fd(), events.as_mut_ptr().cast(), events.len()) } > 0 {}
    }
}

fn kill(enclosure: &Enclosure, epoch: Epoch) -> ExitCode {
    eprintln!("regent guard: the lease of epoch {epoch} has ended: the database is killed");
    loop {
        enclosure.kill();
        if enclosure.is_empty() {
            return ExitCode::SUCCESS;
        }
        // A process in uninterruptible sleep dies when its disk answers; a new one must not slip in until then.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One guard a lease file. A guard that is just leaving is waited for; one that stays makes this one needless.
fn take_post(lease: &Path) -> Option<Flock<File>> {
    let mut file = File::create(lease.with_extension("guard")).ok()?;
    for _ in 0..20 {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(post) => return Some(post),
            Err((back, _)) => file = back,
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

/// What load and memory pressure may do to others they may not do to the guard. Each as far as it is permitted.
fn harden() {
    let _ = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE);
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    // SAFETY: a system call on a local structure.
    unsafe {
        let mut highest: libc::sched_param = std::mem::zeroed();
        highest.sched_priority = libc::sched_get_priority_max(libc::SCHED_RR);
        libc::sched_setscheduler(0, libc::SCHED_RR, &raw const highest);
    }
}

fn say_that_it_stands() {
    use std::io::Write;
    let mut out = io::stdout();
    // Whoever waited for the word may be gone.
    let _ = out.write_all(b"+").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_read_as_it_was_written_and_stood_down() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("lease");
        let lease = LeaseFile { boot: Boot("b".into()), epoch: Epoch(7), end: Instant(5), released: false };
        write_lease(&path, &lease).expect("written");
        assert_eq!(read_lease(&path).expect("read"), lease);
        stand_down(&path);
        assert!(read_lease(&path).expect("read").released);
        fs::write(&path, "{").expect("written");
        assert!(matches!(read_lease(&path), Err(GuardError::Malformed { .. })));
    }

    #[test]
    fn options_are_read_and_unknown_ones_are_named() {
        let given = ["--lease", "/l", "--data-dir", "/d", "--cgroup", "/c"].map(OsString::from);
        let expected = GuardOptions { lease: "/l".into(), cgroup: Some("/c".into()), data_dir: "/d".into() };
        assert_eq!(parse(given).expect("valid"), expected);
        let error = parse(["--leas", "/l"].map(OsString::from)).expect_err("no such option");
        assert!(error.to_string().contains("--leas"), "{error}");
        assert!(parse([]).is_err());
    }
}
