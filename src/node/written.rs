//! How the WAL of each service's primary grew, by this node's own clock: so it can say for how long a standby has lacked
//! something, in seconds of commits and not only in bytes.
//!
//! Not here: how far the primary is known to have written (`plan/known_end.rs`), and what follows from it
//! (`plan/readiness.rs`).

use crate::plan::{Outlook, known_end, reaches};
use crate::types::{DbState, Epoch, LagTracker, NodeName, ServiceName};
use std::collections::BTreeMap;
use std::time::Duration;

/// See the module. Each is of the epoch that was installed last.
#[derive(Debug, Default)]
pub(super) struct Written(BTreeMap<ServiceName, (Epoch, LagTracker)>);

impl Written {
    /// Takes up what is known by now.
    pub fn look(&mut self, seen: &Outlook) {
        for (name, service) in &seen.state.services {
            let (Some(last), Some(known)) = (service.history.last(), known_end(seen, name)) else { continue };
            let (epoch, written) = match self.0.get_mut(name) {
                Some(written) => written,
                None => self.0.entry(name.clone()).or_insert((last.epoch, LagTracker::default())),
            };
            if *epoch != last.epoch {
                (*epoch, *written) = (last.epoch, LagTracker::default());
            }
            written.ahead(seen.now, known.end.lsn);
        }
    }

    /// For how long each standby has lacked something that the primary is known to have written. Nobody who was not heard of
    /// lately is in it.
    pub fn behind(&self, seen: &Outlook) -> BTreeMap<ServiceName, BTreeMap<NodeName, Duration>> {
        let of = |(name, (epoch, written)): (&ServiceName, &(Epoch, LagTracker))| {
            let service = seen.state.services.get(name)?;
            let known = known_end(seen, name).filter(|_| service.history.last().is_some_and(|l| l.epoch == *epoch))?;
            let standby = |node: &NodeName| {
                let database = seen.database(node, name).filter(|database| database.state == DbState::Standby)?;
                let at = reaches(service, known.end, database.position);
                Some((node.clone(), written.behind(seen.now, at)))
            };
            Some((name.clone(), seen.rows.keys().filter_map(standby).collect()))
        };
        self.0.iter().filter_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::ledger::world_test::*;
    use crate::plan::{Applied, Row, Timing};
    use crate::types::{Health, Incarnation, Instant, ServiceHealth, Timeline};
    use std::sync::Arc;

    fn row(incarnation: Incarnation, state: DbState, lsn: u64, now: Instant) -> Row {
        let position = at(1, lsn);
        let database = ServiceHealth {
            file_fault: None,
            trouble: None,
            pending_restart: Vec::new(),
            lowered: Vec::new(),
            unfit: Vec::new(),
            state,
            holds: None,
            writable: false,
            timeline: Timeline(1),
            position,
            streams_from: None,
            released: None,
            copy: None,
            network: None,
            replay: None,
        };
        let health = Health { services: [(orders(), database)].into(), ..Health::default() };
        Row { at: now, incarnation, views: Arc::default(), health: Arc::new(health) }
    }

    /// What w1 says of db2 after these words of both, at these seconds.
    fn behind(words: &[(u64, u64, u64)]) -> Option<Duration> {
        let text = include_str!("../../config/two-databases-and-witness.toml");
        let config = Config::parse(text, "regent.toml", None, "w1").expect("an example");
        let (timing, world) = (Timing::new(&config), World::new());
        let mut written = Written::default();
        let mut last = None;
        for (second, primary, standby) in words {
            let now = Instant(1_000_000_000_000) + Duration::from_secs(*second);
            let rows = BTreeMap::from([
                (node("db1"), row(DB1, DbState::Primary, *primary, now)),
                (node("db2"), row(DB2, DbState::Standby, *standby, now)),
            ]);
            let (me, state) = (&config.node, &world.state);
            let applied = &Applied::default();
            let seen = Outlook { now, me, state, config: &config, timing: &timing, applied, rows: &rows };
            written.look(&seen);
            last = written.behind(&seen).get(&orders()).and_then(|all| all.get(&node("db2")).copied());
        }
        last
    }

    #[test]
    fn a_standby_is_behind_since_the_primary_was_first_past_what_it_has() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(behind(&[(0, 1000, 1000), (3600, 1000, 1000)]), seconds(0), "an idle primary");
        assert_eq!(behind(&[(0, 1000, 1000), (60, 2000, 1000), (65, 3000, 1000)]), seconds(5));
        assert_eq!(behind(&[(0, 1000, 1000), (60, 2000, 1000), (65, 3000, 2000)]), seconds(0));
        assert_eq!(behind(&[(0, 1000, 1000), (60, 2000, 1000), (65, 3000, 2000), (70, 3000, 2500)]), seconds(5));
    }
}
