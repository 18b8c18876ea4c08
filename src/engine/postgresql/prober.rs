//! The read-write probe of a primary: ready, not merely alive.
//!
//! It runs on a connection and a task of its own: a commit that hangs in a stalled volume cannot be cancelled, and
//! must neither hold up the observer nor be joined by more of its kind.

#![expect(
    clippy::disallowed_methods,
    reason = "how long one write is under way while this host runs: a sleep of the host is not the disk's fault"
)]

use super::core::Core;
use super::error::{EngineError, Result};
use super::session::Session;
use crate::config::Postgresql;
use crate::types::Trouble;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;

/// The running probe of one postmaster. Ends when dropped.
pub struct Prober {
    task: tokio::task::JoinHandle<()>,
    state: watch::Receiver<ProbeState>,
}

#[derive(Clone, Debug)]
struct ProbeState {
    /// When the present write began, while one is under way.
    under_way: Option<Instant>,
    last: Option<Ended>,
}

/// How a write ended, and when.
#[derive(Clone, Debug)]
struct Ended {
    at: Instant,
    failure: Option<Failure>,
}

/// Why a write failed: the server's SQLSTATE, where it sent one, and the text.
#[derive(Clone, Debug)]
struct Failure {
    code: Option<String>,
    error: String,
}

impl Prober {
    /// Begins to probe the server of the postmaster `pid`.
    pub fn start(core: Arc<Core>, pid: i32) -> Self {
        let (sender, state) = watch::channel(ProbeState { under_way: None, last: None });
        tracing::debug!(service = %core.service, pid, "the database is out of recovery: probing writes");
        Prober { task: tokio::spawn(probe(core, sender)), state }
    }

    /// Whether the database accepts writes now, and what is wrong where it does not.
    pub fn judge(&self, postgresql: &Postgresql) -> (bool, Option<Trouble>) {
        let state = self.state.borrow();
        if state.under_way.is_some_and(|began| began.elapsed() > postgresql.probe_timeout) {
            // The observer's own question was answered, so the server runs: what hangs is its disk.
            return (false, Some(Trouble::VolumeStalled));
        }
        match &state.last {
            None => (false, None),
            Some(Ended { failure: Some(failure), .. }) => {
                (false, Some(trouble_of(failure.code.as_deref(), &failure.error)))
            }
            Some(Ended { at, failure: None }) => {
                (at.elapsed() <= postgresql.probe_interval + postgresql.probe_timeout, None)
            }
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn probe(core: Arc<Core>, sender: watch::Sender<ProbeState>) {
    let mut session: Option<Session> = None;
    loop {
        sender.send_modify(|state| state.under_way = Some(Instant::now()));
        let written = write(&core, &mut session).await;
        let failure = |error: EngineError| Failure { code: error.code().map(str::to_owned), error: error.to_string() };
        let last = Ended { at: Instant::now(), failure: written.err().map(failure) };
        let was_fine = sender.borrow().last.as_ref().is_some_and(|last| last.failure.is_none());
        let changed = was_fine != last.failure.is_none();
        sender.send_replace(ProbeState { under_way: None, last: Some(last) });
        if changed {
            core.look.notify_one();
        }
        tokio::time::sleep(core.postgresql().probe_interval).await;
    }
}

async fn write(core: &Core, session: &mut Option<Session>) -> Result<()> {
    let postgresql = core.postgresql();
    let open = match session.take().filter(|open| !open.is_closed()) {
        Some(open) => session.insert(open),
        None => session.insert(Session::open(&core.layout, postgresql, postgresql.probe_timeout).await?),
    };
    open.write_probe(core.config.node.as_str()).await
}

/// What an error of the probe means.
fn trouble_of(code: Option<&str>, error: &str) -> Trouble {
    match code {
        Some("53100") => Trouble::VolumeFull,
        Some("58030") => Trouble::VolumeStalled,
        // Program limit: no transaction numbers are given out any more. A copy of the data has the same trouble.
        Some("54000") => Trouble::Travels { cause: error.to_owned() },
        _ => Trouble::ProbeFailed { error: error.to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_volume_and_a_cause_that_travels_are_told_apart() {
        assert_eq!(trouble_of(Some("53100"), "x"), Trouble::VolumeFull);
        assert!(matches!(trouble_of(Some("54000"), "wraparound"), Trouble::Travels { .. }));
        assert!(matches!(trouble_of(Some("55P03"), "lock"), Trouble::ProbeFailed { .. }));
    }
}
