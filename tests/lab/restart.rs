//! Daemons that end and are started again, as their service manager would: in order or by SIGKILL, after its 100 ms.
//!
//! Not here: a daemon that stays away.

use crate::cluster::{Cluster, RESTART_AFTER};
use crate::postgres;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a daemon may take from its start to its join. Nothing waits for it meanwhile, so it is generous.
const JOINED_WITHIN: Duration = Duration::from_secs(30);

/// How a daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// SIGINT, as `systemctl restart` does with the unit: it says goodbye, and its database goes on.
    InOrder,
    Killed,
}

pub const ENDINGS: [Ending; 2] = [Ending::InOrder, Ending::Killed];

impl Cluster<'_> {
    /// How often a node has joined so far, over all its daemons.
    pub fn joins(&self, node: &str) -> Result<usize> {
        let path = self.host(node)?.log("regent");
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(text.matches(&format!("joined as {node},")).count())
    }

    /// Waits for a join after the first `before` ones.
    pub fn wait_joined(&self, node: &str, before: usize) -> Result<()> {
        let end = Instant::now() + JOINED_WITHIN;
        while self.joins(node)? <= before {
            ensure!(Instant::now() < end, "the daemon of {node} has not joined for {JOINED_WITHIN:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub fn end_daemon(&self, node: &str, ending: Ending) -> Result<()> {
        match ending {
            Ending::InOrder => self.signal_daemon(node, Signal::SIGINT, Duration::from_secs(5)),
            Ending::Killed => self.kill_daemon(node),
        }
    }

    /// Ends a node's daemon, starts the next, and returns when that has joined.
    pub fn restart_daemon(&self, node: &str, ending: Ending) -> Result<()> {
        let joins = self.joins(node)?;
        self.end_daemon(node, ending)?;
        std::thread::sleep(RESTART_AFTER);
        self.start_daemon(node)?;
        self.wait_joined(node, joins)
    }

    /// The same on every node at once.
    pub fn restart_every_daemon(&self, ending: Ending) -> Result<()> {
        let names = self.plan.node_names();
        let joins: Vec<usize> = names.iter().map(|name| self.joins(name)).collect::<Result<_>>()?;
        std::thread::scope(|scope| {
            let restart = |name| {
                self.end_daemon(name, ending)?;
                std::thread::sleep(RESTART_AFTER);
                self.start_daemon(name)
            };
            let all: Vec<_> = names.iter().map(|name| scope.spawn(move || restart(name))).collect();
            all.into_iter().try_for_each(|one| one.join().expect("panics abort"))
        })?;
        names.iter().zip(joins).try_for_each(|(name, before)| self.wait_joined(name, before))
    }

    /// Which postmaster runs on each database host.
    pub fn postmasters(&self) -> Result<BTreeMap<String, String>> {
        let names = self.plan.database_names().into_iter();
        names
            .map(|name| Ok((name.clone(), postgres::postmaster_since(self.host(&name)?, postgres::FOLDERS[0])?)))
            .collect()
    }
}
