//! The few system calls that the lab needs and no crate in the tree offers: mounts and process descriptors.
//! Not here: what they are used for.

use anyhow::{Context, Result};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).with_context(|| format!("{} holds a zero byte", path.display()))
}

/// Mounts `source` (a device, a file system's name, or a path to bind) on `target`.
pub fn mount(source: &Path, target: &Path, kind: &str, flags: libc::c_ulong, options: &str) -> Result<()> {
    let (source_c, target_c) = (c_path(source)?, c_path(target)?);
    let (kind_c, options_c) = (CString::new(kind)?, CString::new(options)?);
    // SAFETY: all four pointers are to strings that end in zero and outlive the call.
    let done =
        unsafe { libc::mount(source_c.as_ptr(), target_c.as_ptr(), kind_c.as_ptr(), flags, options_c.as_ptr().cast()) };
    if done == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error()).with_context(|| {
        format!("mount {} on {} (type {kind:?}, options {options:?})", source.display(), target.display())
    })
}

/// Makes the file or directory `source` visible at `target`.
pub fn bind(source: &Path, target: &Path) -> Result<()> {
    mount(source, target, "", libc::MS_BIND, "")
}

/// Undoes a mount.
pub fn unmount(target: &Path) -> Result<()> {
    let target_c = c_path(target)?;
    // SAFETY: the pointer is to a string that ends in zero and outlives the call.
    let done = unsafe { libc::umount2(target_c.as_ptr(), 0) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error()).with_context(|| format!("unmount {}", target.display()))
    }
}

/// Changes how mounts below `/` spread to and from other mount namespaces (`MS_PRIVATE`, `MS_SLAVE`).
pub fn set_propagation(kind: libc::c_ulong) -> Result<()> {
    mount(Path::new("none"), Path::new("/"), "", kind | libc::MS_REC, "")
}

/// A descriptor of a process: names that process even when its number is used again.
pub fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Moves the calling thread into the namespaces of `fd`. Allocates nothing: it may be called between fork and exec.
pub fn enter(fd: &OwnedFd, namespaces: libc::c_int) -> io::Result<()> {
    // SAFETY: the call takes two integers; the descriptor is open.
    if unsafe { libc::setns(fd.as_raw_fd(), namespaces) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives the calling thread new namespaces. Allocates nothing.
pub fn leave(namespaces: libc::c_int) -> io::Result<()> {
    // SAFETY: the call takes an integer.
    if unsafe { libc::unshare(namespaces) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Writes "0" to an open `cgroup.procs`: moves the calling process there. Allocates nothing.
pub fn join_cgroup(procs: &OwnedFd) -> io::Result<()> {
    // SAFETY: the buffer is one byte long and static.
    let written = unsafe { libc::write(procs.as_raw_fd(), b"0".as_ptr().cast(), 1) };
    if written == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The calling process is killed when its parent dies. Allocates nothing.
pub fn die_with_parent() -> io::Result<()> {
    // SAFETY: the call takes integers.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// `CPUSchedulingPolicy=rr`, `CPUSchedulingPriority=5` and `CPUSchedulingResetOnFork=yes` of `systemd/regent.service`: load
/// must not look like death. Where it is not permitted, load may. Allocates nothing.
pub fn schedule_as_the_unit_does() -> io::Result<()> {
    // SAFETY: the structure is plain numbers, and all zeroes is a value of it.
    let mut given: libc::sched_param = unsafe { std::mem::zeroed() };
    given.sched_priority = 5;
    // SAFETY: a system call on a local structure.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &raw const given) };
    Ok(())
}
