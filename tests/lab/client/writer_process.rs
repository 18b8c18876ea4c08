//! The writer's process: one row after another, each in a transaction of its own, on whatever server takes writes.
//! It knows all addresses and has no hint. Prints a line for each acknowledged row.

use super::{Connection, connect, run_client};
use crate::time::Stamp;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// After this without an answer, the other servers are asked too.
const DOUBT: Duration = Duration::from_millis(50);
/// One attempt to connect. Below TCP's first repetition of a lost SYN (1 s): a new attempt is better than that.
const ATTEMPT: Duration = Duration::from_millis(250);
/// Between two questions to a server that does not take writes.
const AGAIN: Duration = Duration::from_millis(5);

/// `LOG PAUSE_MS PORT ADDRESS…`
pub fn main(args: &[String]) -> Result<()> {
    let [log, pause, port, addresses @ ..] = args else { bail!("__writer LOG PAUSE_MS PORT ADDRESS...") };
    ensure!(!addresses.is_empty(), "the writer knows no address");
    let log = OpenOptions::new().create(true).append(true).open(log).with_context(|| format!("open {log}"))?;
    let (pause, port) = (Duration::from_millis(pause.parse()?), port.parse()?);
    run_client(write_on(log, pause, port, addresses))
}

async fn write_on(mut log: File, pause: Duration, port: u16, addresses: &[String]) -> Result<()> {
    let mut current = find(port, addresses).await;
    let mut id = 0_i64;
    loop {
        id += 1;
        let start = Stamp::now();
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&id];
        let insert = current.0.client.execute("insert into lab_writes (id) values ($1)", &values);
        let next = tokio::select! {
            biased;
            done = insert => match done {
                Ok(_) => {
                    writeln!(log, "{id} {} {} {}", start.0, Stamp::now().0, current.1)?;
                    None
                }
                Err(_) => Some(find(port, addresses).await),
            },
            other = async { sleep(DOUBT).await; find(port, addresses).await } => Some(other),
        };
        match next {
            Some(next) => current = next,
            None => sleep(pause).await,
        }
    }
}

/// Asks every address at once, again and again, until one takes writes.
async fn find(port: u16, addresses: &[String]) -> (Connection, String) {
    let mut asked = tokio::task::JoinSet::new();
    for address in addresses {
        let address = address.clone();
        asked.spawn(async move { (writable(port, &address).await, address) });
    }
    match asked.join_next().await {
        Some(Ok(found)) => found,
        _ => unreachable!("there is an address, none of these tasks ends before it found a server, panics abort"),
    }
}

/// Waits until the server at this address takes writes.
async fn writable(port: u16, address: &str) -> Connection {
    loop {
        if let Ok(connection) = connect(address, port, ATTEMPT).await {
            while let Ok(Ok(row)) =
                timeout(ATTEMPT, connection.client.query_one("show transaction_read_only", &[])).await
            {
                if row.get::<_, &str>(0) == "off" {
                    return connection;
                }
                sleep(AGAIN).await;
            }
        }
        sleep(AGAIN).await;
    }
}
