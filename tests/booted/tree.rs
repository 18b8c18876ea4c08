//! The Debian that every host boots: made once by `scripts/booted-tree`, kept below `/var/cache`, and never written to.
//!
//! Not here: what each host puts over it (`boot.rs`), and regent (`install.rs`).

use crate::harness::skip;
use crate::install;
use anyhow::{Context, Result, ensure};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where it is kept; another place is named by `REGENT_BOOTED_DIR`.
const CACHE: &str = "/var/cache/regent-booted";
/// What making and booting it needs beside what the lab needs.
const PROGRAMS: [&str; 2] = ["debootstrap", "systemd-nspawn"];

pub fn path() -> PathBuf {
    std::env::var_os("REGENT_BOOTED_DIR").map_or_else(|| CACHE.into(), PathBuf::from).join("tree")
}

fn is_there(program: &str) -> bool {
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|folder| Path::new(folder).join(program).exists())
}

/// Makes it where it is not there, or the README says otherwise by now. Nothing happens where it cannot be made: then every
/// scenario says so.
pub fn make() -> Result<()> {
    if !nix::unistd::geteuid().is_root() || !PROGRAMS.iter().all(|program| is_there(program)) {
        return Ok(());
    }
    let lines = install::of_the_distribution()?.join("\n");
    let mut script = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/booted-tree"));
    let mut script = script.arg(path()).stdin(Stdio::piped()).spawn().context("start scripts/booted-tree")?;
    script.stdin.take().expect("it is piped").write_all(lines.as_bytes())?;
    ensure!(script.wait()?.success(), "scripts/booted-tree failed");
    Ok(())
}

/// The tree, or the reason why there is none.
pub fn ready() -> Result<PathBuf> {
    let missing: Vec<&str> = PROGRAMS.iter().copied().filter(|program| !is_there(program)).collect();
    if !missing.is_empty() {
        return skip(format!("programs are missing: {} (scripts/prepare booted installs them)", missing.join(", ")));
    }
    Ok(path())
}
