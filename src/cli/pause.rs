//! `regent pause` and `regent resume`.

use super::verb::{self, Waiting, parse_duration, perform};
use super::{Common, Exit, output};
use crate::api::admin::Request;
use crate::clock;
use crate::types::{NodeName, ServiceName};
use std::collections::BTreeSet;
use std::time::Duration;

#[derive(clap::Args)]
pub struct Pause {
    /// Which service, where there are several
    #[arg(long, value_name = "SERVICE")]
    service: Option<ServiceName>,
    /// Why, in your words, for whoever looks at `regent status`
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// It ends by itself after that, as in 90m or 2h
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    lasts: Option<Duration>,
    /// Wait until every node that is up knows of it
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(clap::Args)]
pub struct Resume {
    /// Which service, where there are several
    #[arg(long, value_name = "SERVICE")]
    service: Option<ServiceName>,
    /// Wait until every node that is up knows of it
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub fn pause(common: &Common, arguments: Pause) -> anyhow::Result<Exit> {
    let Pause { service, reason, lasts, wait, waiting } = arguments;
    let lasts_ms = lasts.map(|time| time.as_millis() as u64);
    let exit = perform(common, &waiting, &Request::Pause { service: service.clone(), reason, lasts_ms })?;
    known(common, &waiting, (exit, wait), (service, true))
}

pub fn resume(common: &Common, arguments: Resume) -> anyhow::Result<Exit> {
    let Resume { service, wait, waiting } = arguments;
    let exit = perform(common, &waiting, &Request::Resume { service: service.clone() })?;
    known(common, &waiting, (exit, wait), (service, false))
}

/// Waits, where that is wanted and it was done, until everybody knows.
fn known(
    common: &Common,
    waiting: &Waiting,
    (exit, wait): (Exit, bool),
    (service, paused): (Option<ServiceName>, bool),
) -> anyhow::Result<Exit> {
    const EVERY: Duration = Duration::from_millis(100);
    if !wait || exit != Exit::Done {
        return Ok(exit);
    }
    let (end, mut told) = (clock::now() + waiting.timeout(), BTreeSet::new());
    loop {
        let late = not_yet(common, service.as_ref(), paused)?;
        if late.is_empty() {
            return Ok(Exit::Done);
        }
        if clock::now() > end {
            let names: Vec<&str> = late.iter().map(NodeName::as_str).collect();
            output::complain(&format!("it is in the ledger, and {} did not learn of it in time", names.join(", ")));
            return Ok(Exit::Unknown);
        }
        for node in late.into_iter().filter(|node| told.insert(node.clone())) {
            verb::tell(common, &format!("{node} does not know of it yet"));
        }
        std::thread::sleep(EVERY);
    }
}

fn not_yet(common: &Common, service: Option<&ServiceName>, paused: bool) -> anyhow::Result<Vec<NodeName>> {
    use crate::api::status::NodeState;
    let status = verb::ask_status(common)?;
    let name = service.or_else(|| status.services.keys().next());
    let Some(name) = name else { return Ok(Vec::new()) };
    let up = status.nodes.iter().filter(|(_, node)| node.state == NodeState::Up);
    Ok(up.filter(|(_, node)| node.paused.contains(name) != paused).map(|(name, _)| name.clone()).collect())
}
