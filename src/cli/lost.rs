//! `regent lost`: each transaction that an incident may have lost, read from the WAL that the former primary kept. The ledger
//! says which node and where; the WAL is read on the host on which it lies, and nothing is changed.
//!
//! Not here: how it is read (`engine/postgresql/lost.rs`).

use super::exit::UsageError;
use super::render::lost::Listing;
use super::{Common, Exit, config, fence, output, verb};
use crate::api::admin::{Request, Response};
use crate::api::lost::{Loss, LostPart, LostWal};
use crate::api::status::{MayBeLost, SCHEMA};
use crate::config::Config;
use crate::engine::postgresql::Reader;
use crate::types::{IncidentId, NodeName};
use anyhow::Context;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Arguments {
    /// Which incident
    #[arg(value_name = "INCIDENT", value_parser = fence::incident_id)]
    incident: IncidentId,
    /// A directory with the WAL of the node that is named, as the pg_wal of a host that is off
    #[arg(long, value_name = "DIR")]
    wal: Option<PathBuf>,
}

pub fn run(common: &Common, arguments: &Arguments) -> anyhow::Result<Exit> {
    let report = match verb::ask(common, &Request::Explain { incident: Some(arguments.incident) })? {
        Response::Incident(report) => report,
        other => return verb::finish(common, &other),
    };
    if report.losses.is_empty() && !common.json {
        output::say(&format!("Incident {} names nothing that may be lost.", arguments.incident));
    }
    let mut exit = Exit::Done;
    for loss in report.losses {
        if !list(common, arguments, loss)? {
            exit = Exit::Incomplete;
        }
    }
    Ok(exit)
}

/// Lists one loss. Whether all of it could be.
fn list(common: &Common, arguments: &Arguments, what: MayBeLost) -> anyhow::Result<bool> {
    let mut listing = Listing::default();
    let mut say = |part: LostPart| match common.json {
        true => output::say_json(&part),
        false => output::say(&listing.part(&part)),
    };
    let loss = |wal, not_read| Loss { schema: SCHEMA, incident: arguments.incident, what: what.clone(), wal, not_read };
    let config = || config::load(common);
    let (folder, config) = match source(arguments.incident, &what, arguments.wal.as_deref(), config)? {
        Source::Folder(folder, config) => (folder, config),
        Source::None(why) => {
            say(LostPart::Loss(Box::new(loss(None, Some(why)))));
            return Ok(false);
        }
    };
    if !nix::unistd::geteuid().is_root() {
        let why =
            "regent lost reads WAL with the rights of the database's user, and only root may take them; run it as root";
        return Err(UsageError(why.to_owned()).into());
    }
    let reader = Reader::new(&config, &what.service)?;
    let wal = reader.find(&folder, what.timeline, what.after)?;
    let shown = LostWal { folder: wal.folder.clone(), timeline: wal.timeline, fork: wal.fork, end: wal.end };
    say(LostPart::Loss(Box::new(loss(Some(shown), None))));
    let told = |transaction: &_| say(LostPart::Transaction(Clone::clone(transaction)));
    let summary = verb::block_on(async { Ok(reader.list(&wal, told).await?) })?;
    let is_complete = summary.missing.is_empty();
    say(LostPart::End(summary));
    Ok(is_complete)
}

/// Where the WAL is, or why it is not here.
enum Source {
    Folder(PathBuf, Box<Config>),
    None(String),
}

fn source(
    incident: IncidentId,
    what: &MayBeLost,
    named: Option<&Path>,
    config: impl Fn() -> anyhow::Result<Config>,
) -> anyhow::Result<Source> {
    if let Some(named) = named {
        // pg_waldump runs in another directory.
        let named = std::path::absolute(named).with_context(|| format!("--wal {}", named.display()))?;
        return Ok(Source::Folder(named, Box::new(config()?)));
    }
    let kept = match kept(what) {
        Ok(kept) => kept,
        Err(why) => return Ok(Source::None(why)),
    };
    let config = config()?;
    let data_dir = config.services.get(&what.service).map(|service| service.postgresql.data_dir.clone());
    Ok(match here(kept, &what.node, &config.node, data_dir.as_deref()) {
        Some(folder) => Source::Folder(folder, Box::new(config)),
        None => {
            let (node, folders) = (&what.node, kept.join(" or "));
            Source::None(format!("its WAL is kept on {node}, in {folders}: run `regent lost {incident}` on {node}"))
        }
    })
}

/// The folders that the ledger names, or why it names none.
fn kept(what: &MayBeLost) -> Result<&[String], String> {
    let MayBeLost { node, by, came_back, .. } = what;
    match came_back {
        _ if node == by => Err(format!(
            "{node} is another machine by now; where the disk of the former one is left, --wal DIR reads its pg_wal"
        )),
        None => Err(format!(
            "{node} has not come back as a standby: when it does, its WAL is kept there and can be listed; while its host \
             is off, --wal DIR reads its pg_wal from wherever that is mounted"
        )),
        Some(back) if back.kept.is_empty() => Err(format!(
            "{node} came back ({}) and kept no WAL: it had none after the fork, or no room to keep it, which its log says",
            back.how
        )),
        Some(back) => Ok(&back.kept),
    }
}

/// Which of these folders to read, if they are on this host: one beside the data directory of the service rather than
/// another's, and the WAL alone rather than a whole directory.
fn here(kept: &[String], of: &NodeName, this: &NodeName, data_dir: Option<&Path>) -> Option<PathBuf> {
    if of != this {
        return None;
    }
    let beside = data_dir.map(|data_dir| format!("{}.", data_dir.display()));
    let is_beside = |folder: &&String| beside.as_ref().is_some_and(|beside| folder.starts_with(beside.as_str()));
    let is_wal = |folder: &&String| folder.contains(".diverged-");
    let best = kept.iter().max_by_key(|folder| (is_beside(folder), is_wal(folder)))?;
    Some(best.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::status::CameBack;
    use crate::types::{Epoch, Lsn, Timeline, WallTime};

    fn loss(by: &str, came_back: Option<&[&str]>) -> MayBeLost {
        let name = |name: &str| name.parse().expect("a name");
        let came_back = came_back.map(|kept| CameBack {
            at_ms: WallTime(1),
            how: "rewound to 0/3000148".into(),
            kept: kept.iter().map(|folder| (*folder).to_owned()).collect(),
        });
        MayBeLost {
            service: "orders".parse().expect("a name"),
            epoch: Epoch(1),
            node: name("db1"),
            timeline: Timeline(1),
            after: Lsn(0x300_0148),
            by: name(by),
            came_back,
        }
    }

    #[test]
    fn why_nothing_can_be_read_is_said() {
        let why = |loss: &MayBeLost| kept(loss).expect_err("nothing is kept");
        assert!(why(&loss("db2", None)).contains("has not come back"));
        assert!(why(&loss("db2", Some(&[]))).contains("rewound to 0/3000148) and kept no WAL"));
        assert!(why(&loss("db1", Some(&["/data/main.diverged-1-1"]))).contains("another machine"));
    }

    #[test]
    fn the_folder_beside_the_data_directory_is_read_on_its_own_host_alone() {
        let folders = ["/data/other.diverged-1-1", "/data/main.replaced-1", "/data/main.diverged-1-1"];
        let folders = folders.map(String::from);
        let node = |name: &str| name.parse::<NodeName>().expect("a name");
        let data_dir = Path::new("/data/main");
        let found = |this: &str, data_dir| here(&folders, &node("db1"), &node(this), data_dir);
        assert_eq!(found("db1", Some(data_dir)), Some("/data/main.diverged-1-1".into()));
        assert_eq!(found("db2", Some(data_dir)), None);
        assert_eq!(
            here(&folders[..2], &node("db1"), &node("db1"), Some(data_dir)),
            Some("/data/main.replaced-1".into())
        );
        assert_eq!(
            here(&folders[..1], &node("db1"), &node("db1"), Some(data_dir)),
            Some("/data/other.diverged-1-1".into()),
            "a data directory behind a link has its folder elsewhere"
        );
    }
}
