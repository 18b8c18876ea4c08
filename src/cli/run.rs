//! `regent run`: the daemon of this host, in the foreground; systemd keeps it.

use super::{Common, Exit, config};
use crate::daemon;
use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};
use std::sync::Arc;
use tracing_subscriber::EnvFilter;

pub fn run(common: &Common) -> anyhow::Result<Exit> {
    let config = Arc::new(config::load(common)?);
    let filter = EnvFilter::try_from_env("REGENT_LOG").unwrap_or_else(|_| EnvFilter::new("info,openraft=error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    hear_signals()?;
    stay_in_memory();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    let ended = runtime.block_on(daemon::run(config));
    // Tasks under way (an agent, a database's start) are not waited for: whoever comes next takes them up.
    runtime.shutdown_background();
    ended.map(|()| Exit::Done).context("the daemon cannot run")
}

/// Whoever started this process may have blocked signals, and a program inherits that: an orderly end would never come.
fn hear_signals() -> anyhow::Result<()> {
    SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]).thread_unblock().context("signals cannot be unblocked")
}

/// A page that must be read back from a full or slow disk would look like death. Only pages that were touched are
/// locked. Without the right to lock memory (a trial on a workstation) it runs all the same.
fn stay_in_memory() {
    // SAFETY: a system call that changes no memory of ours.
    let locked = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) };
    if locked != 0 {
        tracing::debug!(error = %std::io::Error::last_os_error(), "memory is not locked");
    }
}
