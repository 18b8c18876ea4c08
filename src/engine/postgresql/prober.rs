//! The read-write probe of a primary: ready, not merely alive.
//!
//! It runs on a connection and a task of its own: a commit that hangs in a stalled volume cannot be cancelled, and
//! must neither hold up the observer nor be joined by more of its kind.
//!
//! With `archive_timeout` a commit in a second of rest makes a WAL segment to be archived, most of it empty. There a server at
//! which nobody writes is asked whether somebody has tried since: that needs no commit. Its volume is proved by regent's own
//! write beside it (`pages.rs`), and the first client that writes, or fails to, has the next probe write again.

#![expect(
    clippy::disallowed_methods,
    reason = "how long one write is under way while this host runs: a sleep of the host is not the disk's fault"
)]

use super::core::Core;
use super::error::{EngineError, Result};
use super::session::{Session, Tried};
use crate::config::Postgresql;
use crate::types::Trouble;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;

/// So many failures in a row say something of its volume.
const CERTAIN: u32 = 2;

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
    /// How many in a row failed.
    failed: u32,
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
            // The observer's own question was answered, so the server runs. Whether its volume stalls, regent's own write tells.
            let ms = postgresql.probe_timeout.as_millis();
            return (false, Some(Trouble::ProbeFailed { error: format!("its commit has not ended for {ms} ms") }));
        }
        match &state.last {
            None => (false, None),
            Some(Ended { failure: Some(failure), failed, .. }) => {
                let certain = failure.code.as_deref().filter(|_| *failed >= CERTAIN);
                (false, Some(trouble_of(certain, &failure.error)))
            }
            Some(Ended { at, failure: None, .. }) => {
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
    let (mut session, mut since): (Option<Session>, Option<Tried>) = (None, None);
    loop {
        sender.send_modify(|state| state.under_way = Some(Instant::now()));
        let written = proves_or_writes(&core, &mut session, &mut since).await;
        let failure = |error: EngineError| Failure { code: error.code().map(str::to_owned), error: error.to_string() };
        let failure = written.err().map(failure);
        let before = sender.borrow().last.as_ref().map(|last| last.failed);
        let failed = failure.as_ref().map_or(0, |_| before.unwrap_or_default().saturating_add(1));
        let last = Ended { at: Instant::now(), failure, failed };
        let changed = (before == Some(0)) != (failed == 0) || failed == CERTAIN;
        sender.send_replace(ProbeState { under_way: None, last: Some(last) });
        if changed {
            core.look.notify_one();
        }
        tokio::time::sleep(core.postgresql().probe_interval).await;
    }
}

/// A write, or the proof that nobody wanted one since the last that worked.
async fn proves_or_writes(core: &Core, session: &mut Option<Session>, since: &mut Option<Tried>) -> Result<()> {
    let last = since.take();
    let open = session_of(core, session).await?;
    if let Some(last) = &last
        && core.pages.trouble(core.postgresql().probe_timeout).is_none()
        && open.tried().await?.is_still(last)
    {
        *since = Some(last.clone());
        return Ok(());
    }
    open.write_probe(core.config.node.as_str()).await?;
    // What is tried between the write and this question is seen by the next one all the same: its number is a new one.
    *since = Some(open.tried().await?).filter(|tried| tried.segments_by_time);
    Ok(())
}

async fn session_of<'s>(core: &Core, session: &'s mut Option<Session>) -> Result<&'s Session> {
    let postgresql = core.postgresql();
    Ok(match session.take().filter(|open| !open.is_closed()) {
        Some(open) => session.insert(open),
        None => session.insert(Session::open(&core.layout, postgresql, postgresql.probe_timeout).await?),
    })
}

/// What an error of the probe means.
fn trouble_of(code: Option<&str>, error: &str) -> Trouble {
    match code {
        Some("53100") => Trouble::VolumeFull,
        Some("58030") => Trouble::VolumeReadOnly { error: error.to_owned() },
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
