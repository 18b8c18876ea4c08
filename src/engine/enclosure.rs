//! The enclosure of one database: the cgroup in which all of its processes live, so that "nothing of it is left" can
//! be known and "kill all of it" cannot miss one.
//!
//! Where no cgroup v2 can be made, the processes are found by their working directory instead: every process of a
//! PostgreSQL server, an orphaned backend too, works in the data directory. Processes that something else
//! started on the same data directory are found that way in any case: they count as members too.
//!
//! Not here: when to kill. The engine's stop ladder and the guard decide that.

use crate::rights::{self, Rights};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// No path is longer.
const RECORD_LIMIT: u64 = 4096;

/// The processes of one database.
#[derive(Clone, Debug)]
pub struct Enclosure {
    /// The cgroup's directory; `None` where none could be made.
    cgroup: Option<PathBuf>,
    /// The database's data directory.
    data_dir: PathBuf,
}

/// The cgroup that an earlier daemon of this boot noted, where the note is this process's own: whoever could write another
/// one would choose what is killed.
pub fn recorded(record: &Path) -> Option<PathBuf> {
    String::from_utf8(rights::read_own(record, RECORD_LIMIT).ok()?).ok().map(PathBuf::from)
}

impl Enclosure {
    /// The enclosure called `name`, below this process's own cgroup; or the one whose path the file `record` holds,
    /// while that still exists (an earlier daemon of this boot made it, perhaps from another cgroup).
    pub fn locate(name: &str, record: &Path, data_dir: &Path) -> Self {
        let recorded = recorded(record).filter(|path| path.ends_with(name) && path.join("cgroup.procs").exists());
        let cgroup = recorded.or_else(|| own_cgroup().map(|own| own.join(name)));
        Enclosure { cgroup, data_dir: data_dir.to_owned() }
    }

    /// The enclosure whose cgroup is known.
    pub fn at(cgroup: Option<PathBuf>, data_dir: &Path) -> Self {
        Enclosure { cgroup, data_dir: data_dir.to_owned() }
    }

    /// The cgroup's directory, where there is one.
    pub fn cgroup(&self) -> Option<&Path> {
        self.cgroup.as_deref()
    }

    /// Makes the cgroup and opens its door: whoever writes `0` into this file is in it. `None`: no cgroup can be made
    /// here, and processes are tracked by their working directory.
    pub fn open_door(&self, record: &Path) -> Option<File> {
        let cgroup = self.cgroup.as_ref()?;
        if let Err(error) = fs::create_dir(cgroup)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            tracing::warn!(cgroup = %cgroup.display(), %error, "no cgroup for the database: tracked by directory");
            return None;
        }
        let noted = cgroup.to_str().map_or(Ok(()), |text| Rights::own().replace_unflushed(record, 0o600, text));
        if let Err(error) = noted {
            tracing::warn!(record = %record.display(), %error, "the cgroup's path could not be noted");
        }
        File::options().write(true).open(cgroup.join("cgroup.procs")).ok()
    }

    /// The ids of all processes that are left: of the cgroup, and of the data directory.
    pub fn members(&self) -> Vec<i32> {
        let mut members = self.in_cgroup();
        members.extend(working_in(&self.data_dir));
        members.sort_unstable();
        members.dedup();
        members
    }

    /// Whether the cgroup has a process. Cheap: one read. Processes that others started are not seen here.
    pub fn is_populated(&self) -> bool {
        match &self.cgroup {
            None => !working_in(&self.data_dir).is_empty(),
            Some(cgroup) => {
                fs::read_to_string(cgroup.join("cgroup.events")).is_ok_and(|events| events.contains("populated 1"))
            }
        }
    }

    /// Whether nothing is left anywhere: cgroup empty, and no process in the data directory.
    pub fn is_empty(&self) -> bool {
        !self.is_populated() && self.members().is_empty()
    }

    /// SIGKILL to everything in it, frozen and stopped processes too.
    pub fn kill(&self) {
        if let Some(cgroup) = &self.cgroup {
            // Before Linux 5.14 there is no such file; the loop below does it then.
            let _ = fs::write(cgroup.join("cgroup.kill"), "1");
        }
        for pid in self.members() {
            // SAFETY: a plain system call; a process that is gone by now is what we want.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }

    /// Removes the cgroup; the kernel refuses while a process is in it. The next start makes it again.
    pub fn tear_down(&self) {
        if let Some(cgroup) = &self.cgroup {
            let _ = fs::remove_dir(cgroup);
        }
    }

    /// Resolves when nothing is left. A process in uninterruptible sleep is left.
    pub async fn emptied(&self) {
        loop {
            let members = self.members();
            if members.is_empty() && !self.is_populated() {
                return;
            }
            match (&self.cgroup, members.first()) {
                (Some(cgroup), None) => event_in(cgroup).await,
                (_, Some(pid)) => {
                    // Any one of them must end first; the kernel tells. The bound covers what it cannot tell.
                    let end = async {
                        if let Ok(pidfd) = Pidfd::open(*pid) {
                            pidfd.ended().await;
                        }
                    };
                    let _ = tokio::time::timeout(Duration::from_millis(100), end).await;
                }
                (None, None) => return,
            }
        }
    }

    fn in_cgroup(&self) -> Vec<i32> {
        let Some(cgroup) = &self.cgroup else { return Vec::new() };
        let list = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
        list.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()
    }
}

/// Waits for a change of `cgroup.events` (the kernel raises POLLPRI), or a short while.
async fn event_in(cgroup: &Path) {
    let Ok(file) = File::open(cgroup.join("cgroup.events")) else { return };
    // SAFETY: the file owns its descriptor and is not taken out of the wrapper.
    let Ok(events) = (unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) }) else { return };
    let _ = tokio::time::timeout(Duration::from_millis(100), events.ready(Interest::PRIORITY)).await;
}

/// The directory of this process's own cgroup in the v2 hierarchy, wherever that is mounted.
pub fn own_cgroup() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    own_cgroup_in(&mounts, &own)
}

fn own_cgroup_in(mounts: &str, own: &str) -> Option<PathBuf> {
    let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        if !kind.starts_with("cgroup2 ") {
            return None;
        }
        let mut fields = place.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let below = Path::new(own).strip_prefix(root).ok()?;
        Some(if below.as_os_str().is_empty() { PathBuf::from(point) } else { Path::new(point).join(below) })
    })
}

/// The processes whose working directory is `directory`. Zombies have none.
fn working_in(directory: &Path) -> Vec<i32> {
    let Ok(directory) = directory.canonicalize() else { return Vec::new() };
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let ids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|pid: &i32| is_postgres(*pid) && works_in(*pid, &directory)).collect()
}

/// Whether the process is one of a PostgreSQL server: a shell that stands in the directory is not.
fn is_postgres(pid: i32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe"))
        .is_ok_and(|exe| exe.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"postgres")))
}

/// Whether the process works in this (canonical) directory.
pub fn works_in(pid: i32, directory: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == directory)
}

/// The state letter of a process (`R`, `S`, `D`, `T`, `Z`, ...); `None` when it is gone.
pub fn process_state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat[stat.rfind(')')? + 1..].trim_start().chars().next()
}

/// A handle on one process that cannot be confused by a reused id, and that tells of its end at once.
#[derive(Debug)]
pub struct Pidfd {
    fd: AsyncFd<OwnedFd>,
}

impl Pidfd {
    /// A handle on the process that has this id now.
    pub fn open(pid: i32) -> io::Result<Self> {
        // SAFETY: pidfd_open takes two integers and returns a new descriptor (close-on-exec) or -1.
        let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let raw = i32::try_from(raw).ok().filter(|raw| *raw >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the kernel just made it, and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        // SAFETY: the wrapper owns the descriptor for as long as it is registered.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        Ok(Pidfd { fd })
    }

    /// Resolves when the process has ended (its exit may still be unread by its parent).
    pub async fn ended(&self) {
        let _ = self.fd.readable().await;
    }

    /// Sends a signal to exactly this process.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        let fd = self.fd.get_ref().as_raw_fd();
        // SAFETY: the descriptor is open for as long as `self`; no information block is passed.
        let sent =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<libc::siginfo_t>(), 0) };
        if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Moves the calling process through an open door. For use between fork and exec: no allocation, one write.
pub fn step_in(mut door: &File) -> io::Result<()> {
    door.write_all(b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_cgroup_is_found_wherever_v2_is_mounted() {
        let hybrid = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let found = own_cgroup_in(hybrid, "4:memory:/x\n0::/system.slice/regent.service\n");
        assert_eq!(found, Some("/sys/fs/cgroup/unified/system.slice/regent.service".into()));
        let inside = "41 31 0:38 /a /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(own_cgroup_in(inside, "0::/a/b\n"), Some("/sys/fs/cgroup/b".into()));
        assert_eq!(own_cgroup_in(inside, "0::/a\n"), Some("/sys/fs/cgroup".into()));
        assert_eq!(own_cgroup_in(inside, "4:memory:/a\n"), None, "no v2 hierarchy");
    }

    #[test]
    fn the_state_of_a_process_is_read() {
        let me = i32::try_from(std::process::id()).expect("a pid fits");
        assert!(matches!(process_state(me), Some('R' | 'S' | 'D')));
        assert_eq!(process_state(i32::MAX), None);
    }
}
