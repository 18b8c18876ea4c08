//! The process that becomes `systemd-nspawn`: lays the host's disk over the tree that all hosts share, shows it a cgroup
//! tree as a machine of today has it, and hands over.
//!
//! Not here: when, and how often (`machine.rs`).

use crate::{cgroup, system};
use anyhow::{Context, Result, bail};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// What a host may do beside what systemd-nspawn gives by itself: all that regent's unit asks for, and not the clock.
const CAPABILITIES: &str = "CAP_NET_ADMIN,CAP_NET_RAW,CAP_SYS_NICE,CAP_IPC_LOCK";

/// What lies on volumes of its own: the folder on the host's disk, and where the host sees it.
pub const VOLUMES: [(&str, &str); 3] =
    [("postgresql", "/var/lib/postgresql"), ("regent", "/var/lib/regent"), ("journal", "/var/log/journal")];

/// Where a host has the id of its boot.
pub const BOOT_ID: &str = "/etc/boot_id";

/// What a host writes over the tree.
pub const UPPER: &str = "upper";

/// `NAME DIRECTORY TREE [SOURCE NAME-ON-THE-DISK]…`. Several trees stand with `:` between them, the uppermost first.
pub fn main(args: &[String]) -> Result<()> {
    let [name, directory, tree, attached @ ..] = args else { bail!("__boot NAME DIRECTORY TREE [SOURCE NAME]…") };
    system::set_propagation(libc::MS_SLAVE)?;
    let (directory, groups) = (Path::new(directory), cgroup::mount_point()?);
    let (root, disk) = (directory.join("root"), directory.join("disk"));
    for folder in [&root, &disk.join(UPPER), &disk.join("work")] {
        fs::create_dir_all(folder)?;
    }
    let layers =
        format!("lowerdir={tree},upperdir={},workdir={}", disk.join(UPPER).display(), disk.join("work").display());
    system::mount(Path::new("overlay"), &root, "overlay", 0, &layers)?;
    if groups != Path::new("/sys/fs/cgroup") {
        system::bind(&groups, Path::new("/sys/fs/cgroup"))?;
    }
    // The one that systemd-nspawn gives each boot is hidden from a service whose /proc/sys is read-only.
    let boot_id = directory.join("boot_id");
    fs::write(&boot_id, fs::read_to_string("/proc/sys/kernel/random/uuid")?)?;
    let mut nspawn = Command::new("systemd-nspawn");
    nspawn.args(["--quiet", "--boot", "--register=no", "--keep-unit", "--notify-ready=yes", "--console=pipe"]);
    nspawn.args(["--resolv-conf=off", "--timezone=off", "--link-journal=no"]);
    nspawn.arg(format!("--directory={}", root.display())).arg(format!("--machine={name}"));
    nspawn.arg(format!("--capability={CAPABILITIES}")).arg(format!("--network-namespace-path=/run/netns/{name}"));
    nspawn.arg(format!("--bind-ro={}:{BOOT_ID}", boot_id.display()));
    for (folder, place) in VOLUMES {
        nspawn.arg(format!("--bind={}:{place}", disk.join(folder).display()));
    }
    for pair in attached.chunks_exact(2) {
        nspawn.arg(format!("--bind={}:{}/{}", pair[0], crate::host::DISK, pair[1]));
    }
    Err(nspawn.exec()).context("start systemd-nspawn (package systemd-container)")
}
