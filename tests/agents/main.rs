//! The three fence agents and the runner, against the real things: `ipmi_sim`, nftables in network namespaces,
//! PostgreSQL, and agents of the ecosystem. Root is needed; without it every test says SKIPPED, which is a failure
//! where `CI=true`.

#![expect(clippy::disallowed_methods, reason = "tests of the real world wait for it and time it")]

mod bmc;
mod contract;
mod credentials;
mod firewall;
mod hosts;
mod in_force;
mod ipmi;
mod leash;
mod postgres;
mod runner;

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

pub const IPMI: &str = env!("CARGO_BIN_EXE_fence_regent_ipmi");
pub const FIREWALL: &str = env!("CARGO_BIN_EXE_fence_regent_firewall");
pub const CREDENTIALS: &str = env!("CARGO_BIN_EXE_fence_regent_credentials");

/// Whether the test can run at all. Says why not.
pub fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "SKIPPED where CI=true: this test needs root");
        println!("SKIPPED: this test needs root");
    }
    root
}

/// What an agent answered.
#[derive(Debug)]
pub struct Said {
    pub status: i32,
    pub text: String,
}

/// Runs a program with lines on its standard input, to its end.
pub fn call(program: &str, arguments: &[&str], input: &str) -> Said {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    // A program that judges its arguments alone may have ended before it is written to.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    said(child.wait_with_output().expect("waited for"))
}

pub fn said(output: Output) -> Said {
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Said { status: output.status.code().unwrap_or(-1), text }
}

/// Runs a program that must succeed; returns what it printed.
pub fn must(program: &str, arguments: &[&str]) -> String {
    let said = call(program, arguments, "");
    assert_eq!(said.status, 0, "{program} {arguments:?}: {}", said.text);
    said.text
}

/// Waits until `look` finds something; the limit is there for a test that fails.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "did not happen within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A number that no other test of any run on this host uses at the same time.
pub fn unique() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}{}", std::process::id() % 100_000, NEXT.fetch_add(1, Ordering::Relaxed))
}
