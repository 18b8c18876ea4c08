//! What a primary says of itself that stops it in time and not yet: WAL that is not archived fills its volume, and rows that
//! are never frozen use its transaction numbers up. Asked every ten seconds, beside everything else.
//!
//! Not here: what follows (`config/trouble.rs`).

#![expect(clippy::disallowed_methods, reason = "how often the server is asked: a plain wait that proves nothing")]

use super::core::Core;
use super::error::{EngineError, Result};
use super::session::Session;
use crate::config::Troubles;
use crate::types::Trouble;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

const EVERY: Duration = Duration::from_secs(10);

/// The files that wait, the age of the oldest of them in seconds, and whether the archiver has had none since that was
/// written. Beside them, the age of the oldest row and multixact of all databases.
const ASK: &str = "select count(f.name), coalesce(extract(epoch from now() - min(f.modification)), 0)::bigint, \
    coalesce((select last_archived_time from pg_stat_archiver) < min(f.modification), true), \
    (select max(greatest(age(datfrozenxid), mxid_age(datminmxid)))::bigint from pg_database) \
    from pg_ls_archive_statusdir() f where f.name like '%.ready' and current_setting('archive_mode') <> 'off'";

/// The running questions to one server. They end when dropped.
pub struct Warnings {
    task: tokio::task::JoinHandle<()>,
    said: watch::Receiver<Option<Said>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    waiting: u64,
    /// For how long the oldest has waited.
    seconds: u64,
    /// None was archived since that one was ready.
    stands: bool,
    /// Of the oldest row, in transactions.
    age: u64,
}

impl Warnings {
    pub fn start(core: Arc<Core>) -> Self {
        let (sender, said) = watch::channel(None);
        let task = tokio::spawn(async move {
            loop {
                let deadline = core.postgresql().probe_timeout;
                let asked = tokio::time::timeout(deadline, async { ask(&*core.session().await?).await }).await;
                // What is not answered is known otherwise.
                if let Ok(Ok(found)) = asked {
                    sender.send_replace(Some(found));
                }
                tokio::time::sleep(EVERY).await;
            }
        });
        Warnings { task, said }
    }

    pub fn trouble(&self, limits: &Troubles) -> Option<Trouble> {
        self.said.borrow().as_ref().and_then(|said| said.trouble(limits))
    }
}

impl Drop for Warnings {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Said {
    /// The end of the numbers is the end of all writes; WAL that waits is not yet.
    fn trouble(self, limits: &Troubles) -> Option<Trouble> {
        let Said { waiting, seconds, stands, age } = self;
        if age >= u64::from(limits.wraparound_age) {
            return Some(Trouble::WraparoundNear { age });
        }
        let stuck = waiting > 0 && stands && Duration::from_secs(seconds) >= limits.archiver_after;
        stuck.then_some(Trouble::ArchiverStuck { waiting, seconds })
    }
}

async fn ask(session: &Session) -> Result<Said> {
    let doing = "ask the server for its archiver and the age of its rows";
    let rows = session.client().query_typed(ASK, &[]).await.map_err(EngineError::sql(doing))?;
    let row = rows.first().ok_or(EngineError::NoAnswer { what: doing, after: Duration::ZERO })?;
    let number = |i: usize| u64::try_from(row.get::<_, i64>(i)).unwrap_or_default();
    Ok(Said { waiting: number(0), seconds: number(1), stands: row.get(2), age: number(3) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archiver_that_is_only_behind_is_no_trouble_and_one_that_stands_is() {
        let said = Said { waiting: 40, seconds: 700, stands: true, age: 1000 };
        let trouble = |said: Said| said.trouble(&Troubles::default());
        assert_eq!(trouble(said), Some(Trouble::ArchiverStuck { waiting: 40, seconds: 700 }));
        assert_eq!(trouble(Said { stands: false, ..said }), None);
        assert_eq!(trouble(Said { seconds: 599, ..said }), None);
        assert_eq!(trouble(Said { waiting: 0, ..said }), None);
        assert_eq!(trouble(Said { age: 1_600_000_000, ..said }), Some(Trouble::WraparoundNear { age: 1_600_000_000 }));
    }
}
