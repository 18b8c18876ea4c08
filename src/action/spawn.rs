//! Starts programs: an agent in the cgroup of its run, where it is from its first instruction, and its leash, without
//! waiting for it.
//!
//! Not with the standard library's `Command`, for two reasons. It can only enter a cgroup afterwards, and the kernel
//! lets a process move from one cgroup to another only when every processor has passed through its scheduler: ten
//! milliseconds and more, in each fence. A process that is *born* in a cgroup (clone3, CLONE_INTO_CGROUP) waits for
//! nothing; where that is not to be had (before Linux 5.7, forbidden by a filter of system calls) it enters. And it
//! waits until the program has begun, which on a busy host takes as long again.
//!
//! Not here: which program, and when it ends.

use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The ways into a cgroup: its directory, and the file through which a process enters.
#[derive(Debug)]
pub struct Door {
    directory: File,
    procs: File,
}

impl Door {
    /// Of the cgroup with this directory.
    pub fn of(cgroup: &Path) -> io::Result<Door> {
        let procs = File::options().write(true).open(cgroup.join("cgroup.procs"))?;
        Ok(Door { directory: File::open(cgroup)?, procs })
    }
}

/// What is started. It runs in `/` and in a process group of its own, with this environment alone.
pub struct Program<'a> {
    pub path: &'a Path,
    pub arguments: &'a [&'a OsStr],
    pub environment: &'a [(&'a str, &'a str)],
    /// Its standard input, output and error.
    pub streams: [BorrowedFd<'a>; 3],
    /// Into which cgroup it goes; otherwise it stays in that of this process.
    pub door: Option<&'a Door>,
    /// Its beginning may wait for everything else that wants to run: it changes that itself when it has begun.
    pub yields: bool,
}

/// A process that is about to begin its program.
#[derive(Debug)]
#[must_use]
pub struct Beginning {
    pid: Pid,
    trouble: PipeReader,
}

impl Beginning {
    /// Waits until the program runs. Whoever gets the process's id waits for its end.
    pub fn confirm(mut self) -> io::Result<Pid> {
        let mut errno = [0; 4];
        // The other end of the pipe is closed when the program begins.
        match self.trouble.read_exact(&mut errno) {
            Err(_) => Ok(self.pid),
            Ok(()) => {
                let _ = waitpid(self.pid, None);
                Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno)))
            }
        }
    }
}

/// Everything that the child needs, prepared before it exists: it may only make system calls.
struct Plan<'a> {
    program: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    streams: [RawFd; 3],
    /// Where it says why it could not begin.
    trouble: RawFd,
    door: Option<&'a Door>,
    yields: bool,
}

/// Starts a program and does not wait until it has begun.
pub fn start(program: &Program<'_>) -> io::Result<Beginning> {
    let (trouble, say) = io::pipe()?;
    let path = program.path.as_os_str();
    let arguments = [path].into_iter().chain(program.arguments.iter().copied());
    let variables = program.environment.iter().map(|(name, value)| CString::new(format!("{name}={value}")));
    let plan = Plan {
        program: CString::new(path.as_bytes())?,
        arguments: arguments.map(|word| CString::new(word.as_bytes())).collect::<Result<_, _>>()?,
        environment: variables.collect::<Result<_, _>>()?,
        // The standard library sees to it that 0, 1 and 2 are open, so that each is itself or above them.
        streams: program.streams.map(|stream| stream.as_raw_fd()),
        trouble: say.as_raw_fd(),
        door: program.door,
        yields: program.yields,
    };
    Ok(Beginning { pid: give_birth(&plan)?, trouble })
}

/// Makes the child and lets it begin. Returns in the parent only.
fn give_birth(plan: &Plan<'_>) -> io::Result<Pid> {
    let argv = ended_by_null(&plan.arguments);
    let envp = ended_by_null(&plan.environment);
    let born_inside = plan.door.map(|door| {
        // SAFETY: the structure is plain numbers, and zero means absent for each.
        let mut how: libc::clone_args = unsafe { std::mem::zeroed() };
        how.flags = INTO_CGROUP;
        how.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
        how.cgroup = u64::from(door.directory.as_raw_fd().unsigned_abs());
        // SAFETY: without CLONE_VM this is a fork: the child goes on with a copy of this memory, and only makes
        // system calls.
        unsafe { libc::syscall(libc::SYS_clone3, &raw const how, size_of::<libc::clone_args>()) }
    });
    let (pid, must_enter) = match born_inside {
        Some(pid) if pid >= 0 => (pid, None),
        // SAFETY: as above.
        other => (libc::c_long::from(unsafe { libc::fork() }), other.and(plan.door)),
    };
    match i32::try_from(pid) {
        Ok(0) => begin(plan, must_enter, &argv, &envp),
        Ok(pid) if pid > 0 => Ok(Pid::from_raw(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

fn ended_by_null(list: &[CString]) -> Vec<*const libc::c_char> {
    list.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect()
}

/// `CLONE_INTO_CGROUP` of clone3.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// The child's part: from its birth to the program. No allocation, no lock, system calls alone.
fn begin(plan: &Plan<'_>, enter: Option<&Door>, argv: &[*const libc::c_char], envp: &[*const libc::c_char]) -> ! {
    const ROOT: &CStr = c"/";
    // SAFETY: system calls on descriptors and zero-terminated lists that this process has a copy of.
    unsafe {
        let mut nothing: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut nothing);
        let ready = enter.is_none_or(|door| libc::write(door.procs.as_raw_fd(), c"0".as_ptr().cast(), 1) == 1)
            && libc::setpgid(0, 0) == 0
            && plan.streams.iter().zip(0..).all(|(stream, number)| libc::dup2(*stream, number) == number)
            && libc::chdir(ROOT.as_ptr()) == 0
            // What this process ignores or has blocked, a program would ignore as well.
            && libc::sigprocmask(libc::SIG_SETMASK, &raw const nothing, std::ptr::null_mut()) == 0
            && libc::signal(libc::SIGPIPE, libc::SIG_DFL) != libc::SIG_ERR;
        if ready {
            // All of it would be closed when the program begins; one that yields may begin late. Before Linux 5.9 it
            // is late then.
            let trouble = plan.trouble.unsigned_abs();
            libc::close_range(3, trouble - 1, 0);
            libc::close_range(trouble + 1, libc::c_uint::MAX, 0);
            if plan.yields {
                libc::setpriority(libc::PRIO_PROCESS, 0, 19);
            }
            libc::execve(plan.program.as_ptr(), argv.as_ptr(), envp.as_ptr());
        }
        let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO).to_ne_bytes();
        libc::write(plan.trouble, errno.as_ptr().cast(), errno.len());
        libc::_exit(127)
    }
}
