//! A client that writes one row after another, knows where each database is and gets no hint where the primary is, and keeps
//! account of what was acknowledged to it.

#![expect(clippy::disallowed_methods, reason = "how often the demo's client tries again")]

use super::place::{PORT, Place};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{Client, NoTls};

/// No statement may take longer: a client that waits for a dead host learns nothing.
const STATEMENT_WITHIN: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(10);

/// What was acknowledged.
#[derive(Default)]
pub struct Account {
    acknowledged: BTreeSet<i64>,
    /// The database's time of the last acknowledged row, in milliseconds (all nodes share one host's clock here).
    last_ms: Option<i64>,
    longest_gap_ms: i64,
}

/// The running writer. It ends when this is dropped.
pub struct Writer {
    account: Arc<Mutex<Account>>,
    sockets: Vec<PathBuf>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Writer {
    pub fn start(place: &Place) -> Writer {
        let (account, sockets) = (Arc::<Mutex<Account>>::default(), place.sockets());
        let task = tokio::spawn(write_on(account.clone(), sockets.clone()));
        Writer { account, sockets, task }
    }

    pub fn acknowledged(&self) -> usize {
        self.lock().acknowledged.len()
    }

    /// The longest time between two acknowledged rows since this was last asked.
    pub fn take_longest_gap(&self) -> Duration {
        let gap = std::mem::take(&mut self.lock().longest_gap_ms);
        Duration::from_millis(gap.unsigned_abs())
    }

    /// How many acknowledged rows the present primary does not have.
    pub async fn lost(&self) -> anyhow::Result<usize> {
        let client = connect(&self.sockets).await?;
        let rows = client.query("select id from regent_demo", &[]).await?;
        let there: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
        Ok(self.lock().acknowledged.difference(&there).count())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Account> {
        self.account.lock().expect("a panic aborts the process, so no lock is poisoned")
    }
}

/// Whichever node takes writes now.
async fn connect(sockets: &[PathBuf]) -> anyhow::Result<Client> {
    let mut config = tokio_postgres::Config::new();
    for socket in sockets {
        config.host_path(socket);
    }
    config.port(PORT).user("postgres").dbname("postgres").connect_timeout(STATEMENT_WITHIN);
    config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    let (client, connection) = tokio::time::timeout(STATEMENT_WITHIN * 4, config.connect(NoTls)).await??;
    // Its error is seen by the next statement.
    tokio::spawn(connection);
    client
        .batch_execute("create table if not exists regent_demo (id bigint primary key, at timestamptz not null)")
        .await?;
    Ok(client)
}

/// Writes until it is aborted. An id is used once: after an error nobody knows whether its row is there.
async fn write_on(account: Arc<Mutex<Account>>, sockets: Vec<PathBuf>) {
    const INSERT: &str = "insert into regent_demo values ($1, clock_timestamp()) \
                          returning (extract(epoch from at) * 1000)::bigint";
    let mut id = 0i64;
    loop {
        let Ok(client) = connect(&sockets).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        loop {
            id += 1;
            match tokio::time::timeout(STATEMENT_WITHIN, client.query_one(INSERT, &[&id])).await {
                Ok(Ok(row)) => account.lock().expect("never poisoned, see above").acknowledge(id, row.get(0)),
                Ok(Err(_)) | Err(_) => break,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Account {
    fn acknowledge(&mut self, id: i64, at_ms: i64) {
        self.acknowledged.insert(id);
        if let Some(last) = self.last_ms {
            self.longest_gap_ms = self.longest_gap_ms.max(at_ms - last);
        }
        self.last_ms = Some(at_ms);
    }
}
