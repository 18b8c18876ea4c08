//! The writer, as scenarios use it: start it, ask when it was served, compare what was acknowledged with what is there.

use crate::host::Host;
use crate::time::Stamp;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// A running writer.
pub struct Writer {
    process: Child,
    log: PathBuf,
}

/// One acknowledged row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    pub id: i64,
    /// When the row was sent, and when its commit was acknowledged.
    pub start: Stamp,
    pub ack: Stamp,
    pub address: String,
}

/// What became of the acknowledged rows.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    pub acknowledged: usize,
    /// Acknowledged and not in the table.
    pub lost: Vec<i64>,
    /// In the table more than once.
    pub duplicates: Vec<i64>,
}

impl Writer {
    /// Starts a writer on `client`, with a pause of `pause` between two rows.
    pub fn start(client: &Host, port: u16, addresses: &[String], pause: Duration) -> Result<Writer> {
        let log = client.log("writes");
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("__writer").arg(&log).arg(pause.as_millis().to_string()).arg(port.to_string()).args(addresses);
        Ok(Writer { process: client.start(command, "writer")?, log })
    }

    /// Everything that was acknowledged so far, in order.
    pub fn acks(&self) -> Result<Vec<Ack>> {
        read(&self.log)
    }

    /// Waits for the first row that was sent after `instant` and acknowledged.
    pub fn first_after(&self, instant: Stamp, within: Duration) -> Result<Ack> {
        let end = Instant::now() + within;
        loop {
            if let Some(ack) = self.acks()?.into_iter().find(|a| a.start >= instant) {
                return Ok(ack);
            }
            ensure!(Instant::now() < end, "no write was acknowledged for {within:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The longest time between two acknowledgements, one of them after `instant`.
    pub fn longest_gap_after(&self, instant: Stamp) -> Result<Duration> {
        let acks = self.acks()?;
        let gaps = acks.windows(2).filter(|pair| pair[1].ack >= instant).map(|pair| pair[1].ack.since(pair[0].ack));
        Ok(gaps.max().unwrap_or_default())
    }

    /// Lets it stand still, or go on.
    pub fn stand_still(&self, stands: bool) -> Result<()> {
        let signal = if stands { libc::SIGSTOP } else { libc::SIGCONT };
        // SAFETY: a plain system call on a child that was not waited for.
        ensure!(unsafe { libc::kill(self.process.id() as i32, signal) } == 0, "the writer is gone");
        Ok(())
    }

    /// Ends the writer and returns what was acknowledged.
    pub fn stop(mut self) -> Result<Vec<Ack>> {
        self.process.kill()?;
        self.process.wait()?;
        self.acks()
    }
}

/// What a writer's log tells, in order.
pub fn read(log: &Path) -> Result<Vec<Ack>> {
    // The writer writes on: a last line without an end is not there yet.
    let text = fs::read_to_string(log).unwrap_or_default();
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete.lines().map(|line| parse(line).with_context(|| format!("{}: {line:?}", log.display()))).collect()
}

fn parse(line: &str) -> Result<Ack> {
    let mut fields = line.split(' ');
    let mut next = || fields.next().context("a field is missing");
    let (id, start, ack) = (next()?.parse()?, Stamp(next()?.parse()?), Stamp(next()?.parse()?));
    Ok(Ack { id, start, ack, address: next()?.to_owned() })
}

/// Compares what was acknowledged with the ids in the table.
pub fn compare(acks: &[Ack], table: &[i64]) -> Comparison {
    let mut there = BTreeSet::new();
    let mut duplicates: Vec<i64> = table.iter().filter(|id| !there.insert(**id)).copied().collect();
    duplicates.dedup();
    let lost = acks.iter().map(|a| a.id).filter(|id| !there.contains(id)).collect();
    Comparison { acknowledged: acks.len(), lost, duplicates }
}
