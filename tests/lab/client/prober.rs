//! The prober of one host, as scenarios use it.

use super::oracle::Commit;
use crate::host::Host;
use crate::network::Net;
use crate::time::Stamp;
use anyhow::{Context, Result};
use std::fs;
use std::process::{Child, Command};

/// Starts a prober in `host`. It ends with its host; what it writes is read with [`commits`].
pub fn start(host: &Host, data_dir: &str) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("__prober").arg(host.log("probes")).arg(&host.name).arg(data_dir).arg(host.address(Net::Primary));
    host.start(command, "prober")
}

/// Every commit that was acknowledged inside `host`, over all its boots.
pub fn commits(host: &Host) -> Result<Vec<Commit>> {
    let text = fs::read_to_string(host.log("probes")).unwrap_or_default();
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete
        .lines()
        .map(|line| parse(host, line).with_context(|| format!("probes of {}: {line:?}", host.name)))
        .collect()
}

fn parse(host: &Host, line: &str) -> Result<Commit> {
    let (start, ack) = line.split_once(' ').context("two numbers are expected")?;
    Ok(Commit { host: host.name.clone(), start: Stamp(start.parse()?), ack: Stamp(ack.parse()?) })
}
