//! The guard: a process of its own that kills the database when the lease ends, also while the daemon is dead, stopped
//! or starved (S5). It knows one thing: a file that says until when, on CLOCK_BOOTTIME.
//!
//! It sleeps until the end that it last read, or until the file is replaced, reads again, and either sleeps on
//! (renewed), goes (released), or kills the database's whole cgroup. When the daemon ends and its database goes on, it
//! sends the goodbye that the daemon left (`daemon_watch.rs`).
//!
//! Not here: deciding about the lease. A host whose kernel hangs is for the watchdog or the fence.

use super::daemon_watch::DaemonWatch;
use crate::engine::enclosure::Enclosure;
use crate::last_words;
use crate::rights::{self, Rights};
use crate::types::{Boot, Epoch, Instant, Quoted};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use serde::{Deserialize, Serialize};
use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
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
    /// The process that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daemon: Option<u32>,
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
    #[error(
        "regent guard: {} is not an option; it takes --lease FILE --data-dir DIR [--cgroup DIR] [--goodbye FILE]",
        Quoted(given)
    )]
    Usage { given: String },
}

/// What a guard needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardOptions {
    pub lease: PathBuf,
    /// What is sent when the daemon ends without a word.
    pub goodbye: Option<PathBuf>,
    /// The database's cgroup, where it has one.
    pub cgroup: Option<PathBuf>,
    /// Its data directory: processes that work in it are the database's too.
    pub data_dir: PathBuf,
}

/// The size of a lease file, and of its spare: what is there is overwritten, so a full file system refuses no renewal.
const PAGE: usize = 4096;
/// A reader may have opened what has become the spare since, and is overwritten: then the name is another file's by now.
const READS: usize = 3;

/// Replaces the lease file, whole. No wait for a disk: the run directory is gone after a boot, and so is the lease.
///
/// A renewal takes no space: a spare of the same size stands beside it from the first lease on, is overwritten in place,
/// and changes places with it. A spare that was written in part is not there for anybody, and has no valid checksum.
pub fn write_lease(path: &Path, lease: &LeaseFile) -> Result<(), GuardError> {
    let failed = |doing| move |source| GuardError::File { doing, path: path.to_owned(), source };
    let page = encode(lease).map_err(failed("encode"))?;
    let spare = path.with_extension("spare");
    overwrite(&spare, &page).map_err(failed("write"))?;
    match exchange(path, &spare) {
        Ok(()) => Ok(()),
        Err(Errno::ENOENT) => {
            rename(&spare, path).map_err(failed("replace"))?;
            overwrite(&spare, &page).map_err(failed("write the spare of"))
        }
        // A file system that cannot exchange: there each renewal needs a new file.
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => rename(&spare, path).map_err(failed("replace")),
        Err(error) => Err(failed("replace")(error.into())),
    }
}

/// Whether a lease could be written: its spare is there and takes a page. What anybody reads stays as it is.
pub fn try_lease(path: &Path) -> Result<(), GuardError> {
    let failed = |doing| move |source| GuardError::File { doing, path: path.to_owned(), source };
    if let Some(directory) = path.parent() {
        let made = Rights::own().make_directories(directory);
        made.map_err(|error| failed("make the directory of")(error.source))?;
    }
    overwrite(&path.with_extension("spare"), &[b'\n'; PAGE]).map_err(failed("write the spare of"))
}

/// The lease as text, the checksum of that, and nothing up to the end of the page.
fn encode(lease: &LeaseFile) -> io::Result<Vec<u8>> {
    let mut page = serde_json::to_vec(lease)?;
    let checksum = crc32fast::hash(&page);
    page.extend(format!("\n{checksum:08x}\n").bytes());
    if page.len() > PAGE {
        return Err(io::Error::other(format!("it has {} bytes, and a page has {PAGE}", page.len())));
    }
    page.resize(PAGE, b'\n');
    Ok(page)
}

/// In place: what the file has of the file system's space it keeps.
fn overwrite(file: &Path, page: &[u8]) -> io::Result<()> {
    rights::open_own(file)?.write_all_at(page, 0)
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    Rights::own().rename(from, to).map_err(|error| error.source)
}

/// The two names change their files, at once.
fn exchange(one: &Path, other: &Path) -> Result<(), Errno> {
    renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE)
}

/// Reads the lease file. Another user's is none, and one whose checksum does not fit is not a lease file.
pub fn read_lease(path: &Path) -> Result<LeaseFile, GuardError> {
    let failed = |source| GuardError::File { doing: "read", path: path.to_owned(), source };
    let mut detail = String::new();
    for _ in 0..READS {
        match decode(&rights::read_own(path, PAGE as u64).map_err(failed)?) {
            Ok(lease) => return Ok(lease),
            Err(why) => detail = why,
        }
    }
    Err(GuardError::Malformed { path: path.to_owned(), detail })
}

fn decode(page: &[u8]) -> Result<LeaseFile, String> {
    let mut lines = page.split(|byte| *byte == b'\n');
    let (text, checksum) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    if format!("{:08x}", crc32fast::hash(text)).as_bytes() != checksum {
        return Err("its checksum does not fit: it was written in part, or by another version".to_owned());
    }
    serde_json::from_slice(text).map_err(|error| error.to_string())
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
    if let Some(goodbye) = &options.goodbye {
        command.arg("--goodbye").arg(goodbye);
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
    let (mut lease, mut goodbye, mut cgroup, mut data_dir) = (None, None, None, None);
    let mut arguments = arguments.into_iter();
    while let Some(name) = arguments.next() {
        let value = arguments.next().map(PathBuf::from);
        match name.to_str() {
            Some("--lease") => lease = value,
            Some("--goodbye") => goodbye = value,
            Some("--cgroup") => cgroup = value,
            Some("--data-dir") => data_dir = value,
            _ => return Err(GuardError::Usage { given: name.to_string_lossy().into_owned() }),
        }
    }
    match (lease, data_dir) {
        (Some(lease), Some(data_dir)) => Ok(GuardOptions { lease, goodbye, cgroup, data_dir }),
        _ => Err(GuardError::Usage { given: "without --lease or --data-dir".to_owned() }),
    }
}

/// The guard's whole life. For `main`: it takes over the process.
pub fn run(options: &GuardOptions) -> ExitCode {
    let _post = match take_post(&options.lease) {
        Post::Mine(post) => Some(post),
        Post::Anothers => {
            say_that_it_stands();
            return ExitCode::SUCCESS;
        }
        // Nobody can tell: two guards do no harm, and none would.
        Post::Unknown => None,
    };
    harden();
    let enclosure = Enclosure::at(options.cgroup.clone(), &options.data_dir);
    let Ok(timer) = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC) else {
        last_words::say("regent guard: the kernel has no timer on CLOCK_BOOTTIME");
        return ExitCode::FAILURE;
    };
    // Before the first reading, so that no replacement falls between the two.
    let changes = Changes::of(&options.lease);
    let mut known = match read_lease(&options.lease) {
        Ok(lease) => lease,
        Err(error) => {
            last_words::say(&format!("regent guard: {error}"));
            return ExitCode::FAILURE;
        }
    };
    say_that_it_stands();
    let mut daemon = DaemonWatch::new(options.goodbye.clone());
    loop {
        daemon.look_at(known.daemon, &enclosure);
        // An absolute time in the past lets the timer fire at once: no clock needs to be read.
        let end = TimeSpec::from_duration(Duration::from_nanos(known.end.0.max(1)));
        if timer.set(Expiration::OneShot(end), TimerSetTimeFlags::TFD_TIMER_ABSTIME).is_err() {
            return kill(&enclosure, known.epoch);
        }
        let has_ended = wait(&timer, changes.as_ref(), &mut daemon, &enclosure);
        match read_lease(&options.lease) {
            Ok(lease) if lease.released => return ExitCode::SUCCESS,
            // An end that was read stays: a file that is gone, torn or of another boot renews nothing.
            Ok(lease) if lease.boot == known.boot && (lease.end > known.end || !has_ended) => {
                if lease != known {
                    daemon.has_written();
                }
                known = lease;
            }
            _ if has_ended => return kill(&enclosure, known.epoch),
            _ => {}
        }
    }
}

/// Waits for the lease's end, a change of its file, or the end of the daemon. Whether it was the lease's end.
fn wait(timer: &TimerFd, changes: Option<&Changes>, daemon: &mut DaemonWatch, enclosure: &Enclosure) -> bool {
    let mut all = vec![PollFd::new(timer.as_fd(), PollFlags::POLLIN)];
    all.extend(changes.map(|changes| PollFd::new(changes.0.as_fd(), PollFlags::POLLIN)));
    let before = all.len();
    all.extend(daemon.ends().map(|ends| PollFd::new(ends, PollFlags::POLLIN)));
    let _ = poll(&mut all, PollTimeout::NONE);
    let lease_has_ended = all[0].any().unwrap_or(false);
    let daemon_has_ended = all.get(before).is_some_and(|daemon| daemon.any().unwrap_or(false));
    if let Some(changes) = changes {
        changes.forget();
    }
    if daemon_has_ended {
        daemon.has_ended(enclosure);
    }
    lease_has_ended
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
    loop {
        enclosure.kill();
        if enclosure.is_empty() {
            // Words come after deeds: whoever reads them may stand still.
            last_words::say(&format!("regent guard: the lease of epoch {epoch} had ended: the database was killed"));
            return ExitCode::SUCCESS;
        }
        // A process in uninterruptible sleep dies when its disk answers; a new one must not slip in until then.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether this guard is the one.
enum Post {
    Mine(Flock<File>),
    Anothers,
    /// The post's file cannot be made: the file system has no room for one more name.
    Unknown,
}

/// One guard a lease file. A guard that is just leaving is waited for; one that stays makes this one needless.
fn take_post(lease: &Path) -> Post {
    let Ok(mut file) = rights::open_own(&lease.with_extension("guard")) else { return Post::Unknown };
    for _ in 0..20 {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(post) => return Post::Mine(post),
            Err((back, _)) => file = back,
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Post::Anothers
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
        let lease =
            LeaseFile { boot: Boot("b".into()), epoch: Epoch(7), end: Instant(5), released: false, daemon: None };
        write_lease(&path, &lease).expect("written");
        try_lease(&path).expect("there is room for another");
        assert_eq!(read_lease(&path).expect("read"), lease);
        stand_down(&path);
        assert!(read_lease(&path).expect("read").released);
        fs::write(&path, "{").expect("written");
        let malformed = read_lease(&path).expect_err("no lease file");
        assert!(matches!(malformed, GuardError::Malformed { .. }), "{malformed}");
        assert!(malformed.to_string().contains(&path.display().to_string()), "it is named: {malformed}");
    }

    #[test]
    fn a_renewal_makes_no_file_and_a_torn_one_is_no_renewal() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("lease");
        let lease = |end| LeaseFile {
            boot: Boot("b".into()),
            epoch: Epoch(7),
            end: Instant(end),
            released: false,
            daemon: None,
        };
        let files = || {
            let entries = fs::read_dir(dir.path()).expect("readable").map(|e| e.expect("an entry"));
            let mut files: Vec<_> = entries.map(|e| e.metadata().expect("there")).map(|m| (m.ino(), m.len())).collect();
            files.sort_unstable();
            files
        };
        write_lease(&path, &lease(5)).expect("written");
        let first = files();
        assert_eq!(first.iter().map(|(_, len)| *len).collect::<Vec<_>>(), [PAGE as u64; 2], "both are there at once");
        for end in 6..9 {
            write_lease(&path, &lease(end)).expect("written");
            assert_eq!(read_lease(&path).expect("read"), lease(end));
            assert_eq!(files(), first, "a renewal took a new file");
        }
        // The daemon dies while it overwrites the spare, at any byte of it: the lease is what it was.
        let spare = path.with_extension("spare");
        let (old, new) = (fs::read(&spare).expect("there"), encode(&lease(123_456)).expect("short"));
        for torn in 1..200 {
            let mix = [&new[..torn], &old[torn..]].concat();
            let read = decode(&mix);
            assert!(
                read.is_err() || mix == new || mix == old,
                "{torn} bytes of a renewal were taken for one: {read:?}"
            );
        }
        assert_eq!(read_lease(&path).expect("read"), lease(8));
    }

    #[test]
    fn options_are_read_and_unknown_ones_are_named() {
        let given = ["--lease", "/l", "--data-dir", "/d", "--cgroup", "/c", "--goodbye", "/g"].map(OsString::from);
        let (goodbye, cgroup) = (Some("/g".into()), Some("/c".into()));
        let expected = GuardOptions { lease: "/l".into(), goodbye, cgroup, data_dir: "/d".into() };
        assert_eq!(parse(given).expect("valid"), expected);
        let error = parse(["--leas", "/l"].map(OsString::from)).expect_err("no such option");
        assert!(error.to_string().contains("--leas"), "{error}");
        assert!(parse([]).is_err());
    }
}
