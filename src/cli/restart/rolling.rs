//! Which database of a service is restarted next: the standbys one after another, then the primary moves, which restarts it
//! as well. What standbys must have as high as the primary becomes lower in the other order: they take no less than it had,
//! so it is restarted first, in its place. A function of what `status` says and of what this run has done.
//!
//! Not here: doing it (`mod.rs`).

use crate::api::status::{DatabaseStatus, Phase, ServiceStatus};
use crate::types::{DbState, NodeName};
use std::collections::BTreeSet;

/// Settings that a standby must have at least as high as its primary: raised on the standbys first, lowered on the primary
/// first (PostgreSQL: "Hot Standby", administrator's overview).
const AT_LEAST_THE_PRIMARYS: [&str; 5] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
];

/// What is to be restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// `pending`: only if its restart is.
    One { node: NodeName, pending: bool },
    /// Those with a pending restart, or all.
    Rolling { all: bool },
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Restart(NodeName),
    /// The primary moves away from here.
    Move {
        from: NodeName,
    },
    Finished,
    /// A person has to look first.
    Stops(String),
}

impl Which {
    fn is_due(&self, node: &NodeName, database: &DatabaseStatus) -> bool {
        match self {
            Which::One { node: one, pending } => one == node && (!pending || !database.pending_restart.is_empty()),
            Which::Rolling { all } => *all || !database.pending_restart.is_empty(),
        }
    }
}

/// The next step; `done`: what this run has restarted.
pub fn next(service: &ServiceStatus, which: &Which, done: &BTreeSet<NodeName>) -> Next {
    let due = |(node, database): &(&NodeName, &DatabaseStatus)| !done.contains(*node) && which.is_due(node, database);
    let due: Vec<(&NodeName, &DatabaseStatus)> = service.databases.iter().filter(due).collect();
    if due.is_empty() {
        return Next::Finished;
    }
    let Some(primary) = service.primary.as_ref().filter(|_| service.phase == Phase::Installed) else {
        let left: Vec<&str> = due.iter().map(|(node, _)| node.as_str()).collect();
        return Next::Stops(format!(
            "the service is {}: nothing is restarted until a primary takes writes (left: {})",
            super::super::render::phase(service.phase),
            left.join(", ")
        ));
    };
    let moves = due.iter().find(|(node, _)| *node == primary).filter(|_| matches!(which, Which::Rolling { .. }));
    let in_place = moves.filter(|(_, database)| !database.lowered.is_empty());
    if in_place.is_some_and(|(_, database)| !raises(database)) {
        return Next::Restart(primary.clone());
    }
    match (due.iter().find(|(node, _)| *node != primary), which) {
        (Some((node, _)), Which::One { .. }) => Next::Restart((*node).clone()),
        (Some((node, database)), Which::Rolling { .. }) => match not_well(service, primary, done) {
            None => Next::Restart((*node).clone()),
            Some(other) if other == *node && database.state == DbState::Standby => Next::Restart((*node).clone()),
            Some(other) => Next::Stops(format!("{other} does not stream: nothing further is restarted until it does")),
        },
        (None, _) if in_place.is_some() => Next::Restart(primary.clone()),
        (None, Which::One { .. }) => Next::Restart(primary.clone()),
        (None, Which::Rolling { .. }) => Next::Move { from: primary.clone() },
    }
}

/// Whether it gets more of anything that standbys must have as high as it has: these go first then, and once more afterwards.
fn raises(database: &DatabaseStatus) -> bool {
    let raised = |name: &String| AT_LEAST_THE_PRIMARYS.contains(&name.as_str()) && !database.lowered.contains(name);
    database.pending_restart.iter().any(raised)
}

/// The primary, where it would be restarted in its place: one that has more than a standby may have less of hands that on.
pub fn in_place<'a>(service: &'a ServiceStatus, which: &Which) -> Option<&'a NodeName> {
    let primary = service.primary.as_ref()?;
    let database = service.databases.get(primary).filter(|database| which.is_due(primary, database))?;
    let restarts = matches!(which, Which::One { .. }) || !database.lowered.is_empty();
    restarts.then_some(primary)
}

/// A standby that this run has restarted, or will, and that does not stream.
fn not_well<'a>(service: &'a ServiceStatus, primary: &NodeName, done: &BTreeSet<NodeName>) -> Option<&'a NodeName> {
    let well = |database: &DatabaseStatus| database.state == DbState::Standby && database.streams_from.is_some();
    let others = service.databases.iter().filter(|(node, _)| *node != primary);
    let mut unwell: Vec<&NodeName> = others.filter(|(_, database)| !well(database)).map(|(node, _)| node).collect();
    // What was restarted comes first: it may be why.
    unwell.sort_by_key(|node| !done.contains(*node));
    unwell.first().copied()
}

/// All that would be done, in order, one sentence each.
pub fn steps(service: &ServiceStatus, which: &Which) -> Vec<String> {
    let (mut done, mut steps) = (BTreeSet::new(), Vec::new());
    loop {
        match next(service, which, &done) {
            Next::Finished => return steps,
            Next::Stops(why) => {
                steps.push(why);
                return steps;
            }
            Next::Restart(node) => {
                let pending = service.databases.get(&node).map(because).unwrap_or_default();
                let is_primary = service.primary.as_ref() == Some(&node);
                let lowered = service.databases.get(&node).map(|database| database.lowered.join(", "));
                let lowered = lowered.filter(|lowered| is_primary && !lowered.is_empty());
                let place = match (is_primary, lowered) {
                    (true, None) => "the primary, where it is: nobody can write meanwhile".to_owned(),
                    (true, Some(lowered)) => format!(
                        "the primary, where it is, because no standby may have less of {lowered} than it: nobody can write \
                         meanwhile"
                    ),
                    (false, _) => {
                        "a standby: it stops in order, and is waited for until it streams and has caught up".to_owned()
                    }
                };
                steps.push(format!("{node} is restarted, {place}{pending}"));
                done.insert(node);
            }
            Next::Move { from } => {
                let pending = service.databases.get(&from).map(because).unwrap_or_default();
                steps.push(format!(
                    "the primary moves away from {from} in order, which restarts it as a standby{pending}"
                ));
                done.insert(from);
            }
        }
    }
}

fn because(database: &DatabaseStatus) -> String {
    match database.pending_restart.join(", ") {
        nothing if nothing.is_empty() => nothing,
        pending => format!(" (pending: {pending})"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::render::scenes_test::status_of;
    use super::*;

    fn node(name: &str) -> NodeName {
        name.parse().expect("valid")
    }

    /// A primary db1, and standbys db2 and db3 that stream; these wait for a restart.
    fn service(pending: &[&str]) -> ServiceStatus {
        let mut status = status_of("status_healthy");
        let (_, mut service) = status.services.pop_first().expect("one");
        assert_eq!(service.primary, Some(node("db1")), "the scene is another one");
        for (name, database) in &mut service.databases {
            let waits = pending.contains(&name.as_str());
            database.pending_restart = waits.then(|| "shared_buffers".to_owned()).into_iter().collect();
        }
        service
    }

    const PENDING: Which = Which::Rolling { all: false };

    fn after(done: &[&str]) -> BTreeSet<NodeName> {
        done.iter().map(|name| node(name)).collect()
    }

    #[test]
    fn the_standbys_come_first_and_the_primary_moves_last() {
        let service = service(&["db1", "db2", "db3"]);
        assert_eq!(next(&service, &PENDING, &after(&[])), Next::Restart(node("db2")));
        assert_eq!(next(&service, &PENDING, &after(&["db2"])), Next::Restart(node("db3")));
        assert_eq!(next(&service, &PENDING, &after(&["db2", "db3"])), Next::Move { from: node("db1") });
        assert_eq!(next(&service, &PENDING, &after(&["db1", "db2", "db3"])), Next::Finished);
        assert_eq!(steps(&service, &PENDING).len(), 3);
    }

    #[test]
    fn what_is_lowered_the_primary_has_first_in_its_place() {
        let mut service = service(&["db1", "db2", "db3"]);
        for database in service.databases.values_mut() {
            (database.pending_restart, database.lowered) =
                (vec!["max_connections".into()], vec!["max_connections".into()]);
        }
        assert_eq!(next(&service, &PENDING, &after(&[])), Next::Restart(node("db1")));
        assert_eq!(in_place(&service, &PENDING), service.primary.as_ref());
        assert_eq!(next(&service, &PENDING, &after(&["db1"])), Next::Restart(node("db2")));
        assert_eq!(next(&service, &PENDING, &after(&["db1", "db2"])), Next::Restart(node("db3")));
        assert_eq!(next(&service, &PENDING, &after(&["db1", "db2", "db3"])), Next::Finished);
        // Beside something that becomes higher the standbys come first, and the primary does not hand on what it has.
        let primary = service.databases.get_mut(&node("db1")).expect("there");
        primary.pending_restart.push("max_worker_processes".into());
        assert_eq!(next(&service, &PENDING, &after(&[])), Next::Restart(node("db2")));
        assert_eq!(next(&service, &PENDING, &after(&["db2", "db3"])), Next::Restart(node("db1")));
    }

    #[test]
    fn a_second_run_does_what_is_left() {
        assert_eq!(next(&service(&["db1"]), &PENDING, &after(&[])), Next::Move { from: node("db1") });
        assert_eq!(next(&service(&[]), &PENDING, &after(&[])), Next::Finished);
        assert_eq!(next(&service(&[]), &Which::Rolling { all: true }, &after(&[])), Next::Restart(node("db2")));
    }

    #[test]
    fn nothing_goes_on_beside_a_standby_that_does_not_stream_or_without_a_primary() {
        let mut service = service(&["db1", "db2", "db3"]);
        service.databases.get_mut(&node("db2")).expect("there").streams_from = None;
        let Next::Stops(why) = next(&service, &PENDING, &after(&["db2"])) else { panic!("it went on") };
        assert!(why.contains("db2 does not stream"), "{why}");
        service.phase = Phase::Paused;
        assert!(matches!(next(&service, &PENDING, &after(&[])), Next::Stops(_)));
    }

    #[test]
    fn one_node_is_restarted_where_it_is() {
        let service = service(&[]);
        let one = |pending| Which::One { node: node("db1"), pending };
        assert_eq!(next(&service, &one(false), &after(&[])), Next::Restart(node("db1")));
        assert_eq!(next(&service, &one(true), &after(&[])), Next::Finished);
        assert_eq!(next(&service, &one(false), &after(&["db1"])), Next::Finished);
    }
}
