//! The systemd files in an installed tree: `systemd-analyze verify` finds nothing, and sysusers and tmpfiles do what
//! they say. Needs systemd's own tools; without them each test prints SKIPPED, which fails where CI=true.

#![expect(clippy::disallowed_methods, reason = "a test waits by the clock of the one machine that it runs on")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name)
}

/// Prints why a test cannot run here; a failure in CI.
fn skip(reason: &str) {
    println!("SKIPPED: {reason}");
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "skipped in CI: {reason}");
}

fn is_installed(tool: &str) -> bool {
    let there = Command::new(tool).arg("--version").output().is_ok_and(|out| out.status.success());
    if !there {
        skip(&format!("{tool} is not installed (Debian: apt install systemd)"));
    }
    there
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().expect("a parent")).expect("create directories");
    fs::copy(from, to).unwrap_or_else(|e| panic!("{} to {}: {e}", from.display(), to.display()));
}

/// A root directory with the distribution's own units and regent installed as its package would be.
fn installed() -> tempfile::TempDir {
    let tree = tempfile::tempdir().expect("a temporary directory");
    let root = tree.path();
    let units = root.join("usr/lib/systemd/system");
    for host in ["/usr/lib/systemd/system", "/lib/systemd/system"] {
        for entry in fs::read_dir(host).into_iter().flatten().flatten() {
            if entry.path().is_file() {
                copy(&entry.path(), &units.join(entry.file_name()));
            }
        }
    }
    std::os::unix::fs::symlink("usr/lib", root.join("lib")).expect("a link");
    copy(Path::new(env!("CARGO_BIN_EXE_regent")), &root.join("usr/bin/regent"));
    copy(&source("regent.service"), &units.join("regent.service"));
    copy(&source("regent.sysusers"), &root.join("usr/lib/sysusers.d/regent.conf"));
    copy(&source("regent.tmpfiles"), &root.join("usr/lib/tmpfiles.d/regent.conf"));
    fs::create_dir_all(root.join("etc")).expect("etc");
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").expect("passwd");
    fs::write(root.join("etc/group"), "root:x:0:\n").expect("group");
    tree
}

fn verify(root: &Path) -> Output {
    Command::new("systemd-analyze")
        .arg("verify")
        .arg(format!("--root={}", root.display()))
        .args(["--recursive-errors=no", "--man=no", "regent.service"])
        .output()
        .expect("systemd-analyze runs")
}

#[test]
fn the_unit_is_clean_in_an_installed_tree() {
    if !is_installed("systemd-analyze") {
        return;
    }
    let tree = installed();
    let output = verify(tree.path());
    assert!(output.status.success() && text(&output).is_empty(), "{}\n{}", output.status, text(&output));
}

/// The database and what it runs are children of the daemon and inherit what confines it.
#[test]
fn the_unit_binds_no_archive_command() {
    let unit = fs::read_to_string(source("regent.service")).expect("the unit");
    let bound = ["ProtectSystem", "ProtectHome", "PrivateTmp", "NoNewPrivileges", "ReadOnlyPaths", "InaccessiblePaths"];
    let found: Vec<&str> = bound.into_iter().filter(|key| unit.contains(&format!("\n{key}="))).collect();
    assert!(found.is_empty(), "{found:?} bind programs that the database runs");
    let inherits = ["OOMScoreAdjust=-900", "OOMPolicy=continue"];
    assert!(inherits.iter().all(|line| unit.contains(line)), "the postmaster gets its own score from the daemon's");
}

#[test]
fn verify_would_see_an_unknown_setting_and_a_missing_program() {
    if !is_installed("systemd-analyze") {
        return;
    }
    let tree = installed();
    let unit = tree.path().join("usr/lib/systemd/system/regent.service");
    let good = fs::read_to_string(&unit).expect("the unit");
    fs::write(&unit, good.replace("OOMPolicy=", "OutOfMemoryPolicy=")).expect("write");
    let output = verify(tree.path());
    assert!(text(&output).contains("OutOfMemoryPolicy"), "an unknown setting went unseen: {}", text(&output));
    fs::write(&unit, good).expect("write");
    fs::remove_file(tree.path().join("usr/bin/regent")).expect("remove");
    let output = verify(tree.path());
    assert!(!output.status.success(), "a missing program went unseen: {}", text(&output));
}

#[test]
fn the_group_and_the_directories_are_made() {
    if !is_installed("systemd-sysusers") || !is_installed("systemd-tmpfiles") {
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        skip("only root may give directories to root");
        return;
    }
    let tree = installed();
    let root = format!("--root={}", tree.path().display());
    let output = Command::new("systemd-sysusers").args([&root, "regent.conf"]).output().expect("runs");
    assert!(output.status.success(), "{}", text(&output));
    let groups = fs::read_to_string(tree.path().join("etc/group")).expect("group");
    let group = groups.lines().find_map(|line| line.strip_prefix("regent:x:")).expect("the group regent");
    let group: u32 = group.trim_end_matches(':').parse().expect("a number");

    let output = Command::new("systemd-tmpfiles").args(["--create", &root, "regent.conf"]).output().expect("runs");
    assert!(output.status.success(), "{}", text(&output));
    for (path, mode, gid) in [("var/lib/regent", 0o700, 0), ("run/regent", 0o755, 0), ("etc/regent", 0o750, group)] {
        let meta = fs::metadata(tree.path().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (mode, 0, gid), "{path}");
    }
}

/// Without it a server that runs is taken for one that is not there: whose it is, its directory in /proc says.
#[test]
fn the_unit_lets_the_daemon_see_which_directory_a_process_of_another_user_works_in() {
    if !nix::unistd::geteuid().is_root() {
        skip("only root may start a process of another user");
        return;
    }
    let unit = fs::read_to_string(source("regent.service")).expect("the unit");
    let kept =
        unit.lines().filter_map(|line| line.strip_prefix("CapabilityBoundingSet=")).flat_map(str::split_whitespace);
    let kept: Vec<String> = kept.map(|name| format!("+{}", name.trim_start_matches("CAP_").to_lowercase())).collect();
    let mut server = Command::new("setpriv");
    server.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sleep", "60"]).current_dir("/usr");
    let mut server = server.spawn().expect("setpriv is there");
    let link = format!("/proc/{}/cwd", server.id());
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    // It is another user's from a moment after its start on.
    while fs::metadata(format!("/proc/{}", server.id())).expect("it runs").uid() != 65534 {
        assert!(std::time::Instant::now() < end, "it stays root's");
        std::thread::yield_now();
    }
    let bounds = format!("--bounding-set=-all,{}", kept.join(","));
    let seen = Command::new("setpriv").args([&bounds, "readlink", &link]).output().expect("setpriv is there");
    server.kill().expect("it runs");
    server.wait().expect("it ends");
    assert!(seen.status.success() && text(&seen).trim() == "/usr", "{kept:?}: {}", text(&seen));
}

/// One value of the unit.
fn setting(key: &str) -> String {
    let unit = fs::read_to_string(source("regent.service")).expect("the unit");
    let value = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("the unit says nothing of {key}")).to_owned()
}

/// On SIGINT the database goes on, on SIGTERM the node leaves in order; and what that takes by the examples' times fits.
#[test]
fn the_unit_tells_a_restart_from_a_stop_and_gives_it_time() {
    assert_eq!((setting("KillSignal"), setting("RestartKillSignal")), ("SIGTERM".to_owned(), "SIGINT".to_owned()));
    assert_eq!(setting("KillMode"), "process", "neither is for the database");
    let seconds: u64 = setting("TimeoutStopSec").trim_end_matches('s').parse().expect("seconds");
    for (example, node) in [("two-databases-and-witness", "db1"), ("three-databases", "db1")] {
        let text = fs::read_to_string(source(&format!("../config/{example}.toml"))).expect("an example");
        let config = regent::config::Config::parse(&text, "regent.toml", None, node).expect("an example");
        let takes = regent::config::timing::leave_within(&config);
        assert!(takes.as_secs() < seconds, "{example}: a stop may take {takes:?}, the unit gives {seconds} s");
    }
}
