//! The prober's process, inside a database host: commits a row again and again, over the Unix socket and over TCP, on
//! connections that it keeps and on new ones. Prints a line for each commit that was acknowledged.
//!
//! It is frozen and killed with its host: what it saw is in its file.

use super::{Connection, connect, run_client};
use crate::time::Stamp;
use anyhow::{Context, Result, bail};
use std::cell::{Cell, RefCell};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Two kept connections take turns: a row every 10 ms.
const KEPT_EVERY: Duration = Duration::from_millis(20);
/// A new connection costs the server a process: not as often.
const NEW_EVERY: Duration = Duration::from_millis(100);
const CONNECT: Duration = Duration::from_secs(1);

struct Probe {
    host: String,
    data_dir: PathBuf,
    address: String,
    log: RefCell<File>,
    sequence: Cell<i64>,
}

#[derive(Clone, Copy)]
enum Way {
    Socket,
    Tcp,
}

/// `LOG HOST DATA_DIR ADDRESS`
pub fn main(args: &[String]) -> Result<()> {
    let [log, host, data_dir, address] = args else { bail!("__prober LOG HOST DATA_DIR ADDRESS") };
    let file = OpenOptions::new().create(true).append(true).open(log).with_context(|| format!("open {log}"))?;
    let probe = Probe {
        host: host.clone(),
        data_dir: data_dir.into(),
        address: address.clone(),
        log: RefCell::new(file),
        sequence: Cell::new(0),
    };
    run_client(async {
        let half = KEPT_EVERY / 2;
        tokio::try_join!(
            probe.run(Way::Socket, true, Duration::ZERO),
            probe.run(Way::Tcp, true, half),
            probe.run(Way::Socket, false, half / 2),
            probe.run(Way::Tcp, false, NEW_EVERY / 2),
        )?;
        Ok(())
    })
}

impl Probe {
    async fn run(&self, way: Way, keep: bool, offset: Duration) -> Result<()> {
        let every = if keep { KEPT_EVERY } else { NEW_EVERY };
        let mut next = Instant::now() + offset;
        let mut kept: Option<Connection> = None;
        loop {
            sleep_until(next).await;
            next = (next + every).max(Instant::now());
            let connection = match kept.take() {
                Some(connection) => connection,
                None => match self.connect(way).await {
                    Ok(connection) => connection,
                    Err(_) => continue,
                },
            };
            let start = Stamp::now();
            let (sequence, stamp) = (self.sequence.get() + 1, start.0 as i64);
            self.sequence.set(sequence);
            let row = "insert into lab_probe (host, epoch_ns, seq) values ($1, $2, $3)";
            let done = connection.client.execute(row, &[&self.host, &stamp, &sequence]).await;
            if done.is_ok() {
                writeln!(self.log.borrow_mut(), "{} {}", start.0, Stamp::now().0)?;
            }
            if keep && !connection.client.is_closed() {
                kept = Some(connection);
            }
        }
    }

    async fn connect(&self, way: Way) -> Result<Connection> {
        let (port, directory) = listens_at(&self.data_dir)?;
        let host = match way {
            Way::Socket => directory,
            Way::Tcp => self.address.clone(),
        };
        connect(&host, port, CONNECT).await
    }
}

/// The port and the socket directory of a running server: the fourth and fifth line of its `postmaster.pid`.
fn listens_at(data_dir: &Path) -> Result<(u16, String)> {
    let text = fs::read_to_string(data_dir.join("postmaster.pid"))?;
    let mut lines = text.lines().skip(3);
    let port = lines.next().context("postmaster.pid has no port yet")?.trim().parse()?;
    let directory = lines.next().filter(|d| !d.is_empty()).context("postmaster.pid has no socket directory")?;
    Ok((port, directory.split(',').next().unwrap_or(directory).trim().to_owned()))
}
