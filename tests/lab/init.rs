//! The first process of a host: sets up what a booted host has (an empty `/run`, its own `/proc`, its boot id, its
//! name, its cgroup tree), says `ready`, and then only buries the orphans. Killed with the host.

use crate::host::DISK;
use crate::{cgroup, system};
use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use std::io::Write;
use std::path::Path;

/// `NAME DIRECTORY CGROUP [SOURCE NAME-ON-THE-DISK]…`
pub fn main(args: &[String]) -> Result<()> {
    let [name, directory, group, attached @ ..] = args else {
        anyhow::bail!("__init NAME DIRECTORY CGROUP [SOURCE NAME-ON-THE-DISK]…")
    };
    let children = SigSet::from(Signal::SIGCHLD);
    children.thread_block()?;
    set_up(name, Path::new(directory), Path::new(group), attached)?;
    std::io::stdout().write_all(b"ready\n")?;
    loop {
        while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive) {}
        children.wait()?;
    }
}

fn set_up(name: &str, directory: &Path, group: &Path, attached: &[String]) -> Result<()> {
    system::set_propagation(libc::MS_SLAVE)?;
    nix::unistd::sethostname(name).context("set the host name")?;
    // The disk before `/run`: whatever it is bound from stays reachable.
    system::bind(&directory.join("disk"), Path::new(DISK))?;
    for pair in attached.chunks_exact(2) {
        system::bind(Path::new(&pair[0]), &Path::new(DISK).join(&pair[1]))?;
    }
    let tmpfs = |target: &str, options| system::mount(Path::new("tmpfs"), Path::new(target), "tmpfs", 0, options);
    tmpfs("/run", "mode=755")?;
    tmpfs("/dev/shm", "mode=1777")?;
    system::mount(Path::new("proc"), Path::new("/proc"), "proc", 0, "")?;
    system::bind(&directory.join("boot_id"), Path::new("/proc/sys/kernel/random/boot_id"))?;
    // The tree begins at the host's own cgroup: what the host makes in it is frozen and killed with the host. (Bound,
    // because a second mount of this file system on itself is refused.)
    system::bind(group, &cgroup::mount_point()?)
}
