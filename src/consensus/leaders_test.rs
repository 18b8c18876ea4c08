//! Who leads, as it is told after a restart.

use super::event::Event;
use super::leaders::Leaders;
use super::raft::Vote;
use crate::types::{NodeId, Term};
use std::collections::BTreeMap;
use tokio::sync::mpsc;

#[test]
fn a_restarted_member_learns_its_leader_from_what_it_sends() {
    let names: BTreeMap<_, _> =
        [(1, "db1"), (2, "db2")].map(|(id, name)| (NodeId(id), name.parse().expect("valid"))).into();
    let stored = Vote::new_committed(5, 2);
    let (sender, mut events) = mpsc::unbounded_channel();
    let leaders = Leaders::new(NodeId(1), names, sender, Some(stored));
    assert_eq!(leaders.current().leader, None, "whoever led before the restart may not lead now");
    leaders.heard(Term(4), NodeId(2));
    leaders.heard(Term(5), NodeId(1));
    assert!(events.try_recv().is_err(), "neither an older term nor this member itself is news");
    leaders.heard(Term(5), NodeId(2));
    leaders.heard(Term(5), NodeId(2));
    let Ok(Event::Leadership(told)) = events.try_recv() else { panic!("it was told") };
    assert_eq!((told.term, told.leader.as_ref().map(|n| n.as_str()), told.i_lead), (Term(5), Some("db2"), false));
    assert!(events.try_recv().is_err(), "once");
}
