//! `regent run`: the daemon of this host, in the foreground; systemd keeps it.

use super::{Common, Exit, config};
use crate::daemon::journal::Lines;
use crate::daemon::{self, log::Log};
use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};
use std::sync::Arc;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged where `REGENT_LOG` says nothing else.
const LOGGED: &str = "info,openraft=error";

pub fn run(common: &Common) -> anyhow::Result<Exit> {
    let (config, origin) = config::load_with_origin(common)?;
    let config = Arc::new(config);
    let log = write_log()?;
    let dropped = log.dropped();
    hear_signals()?;
    share_one_heap();
    stay_in_memory();
    // One thread for all that waits: a loop that hangs takes the heartbeats, the lease and the log with it, so that the
    // others see a dead node and not a half-dead one; and an idle daemon wakes one thread, not three. What blocks (the
    // log's writes, the shared disk, a database's files) has threads of its own.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("the runtime cannot be started")?;
    // A task of its own is woken without a detour through the kernel; what `block_on` runs itself is not.
    let ended = runtime.block_on(async {
        tokio::spawn(daemon::run(config, origin, dropped)).await.expect("a panic aborts the process")
    });
    // Tasks under way (an agent, a database's start) are not waited for: whoever comes next takes them up.
    runtime.shutdown_background();
    log.end();
    ended.map(|()| Exit::Done).context("the daemon cannot run")
}

/// To standard error, which systemd keeps with each line's priority, without ever waiting for it. `REGENT_LOG` has the form `level,module=level,…`.
fn write_log() -> anyhow::Result<Log> {
    let wanted = std::env::var("REGENT_LOG").unwrap_or_else(|_| LOGGED.to_owned());
    let targets: Targets = wanted.parse().with_context(|| {
        format!(
            "REGENT_LOG={wanted}: expected level,module=level,… with the levels off, error, warn, info, debug and trace"
        )
    })?;
    let (lines, log) = daemon::log::to(std::io::stderr());
    // Set by systemd where it connected standard error to the journal.
    let to_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let lines = tracing_subscriber::fmt::layer().with_writer(lines).event_format(Lines::new(to_journal));
    tracing_subscriber::registry().with(lines).with(targets).init();
    Ok(log)
}

/// Whoever started this process may have blocked signals, and a program inherits that: an orderly end would never come.
fn hear_signals() -> anyhow::Result<()> {
    SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])
        .thread_unblock()
        .context("signals cannot be unblocked")
}

/// One thread does nearly all the work: an arena for each of the others would only be locked in memory beside it.
fn share_one_heap() {
    // SAFETY: a setting of glibc's allocator, before there is a second thread.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
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
