//! The ledger: the state machine that Raft replicates, and the one place where the safety rules are enforced.
//! `apply` is total and deterministic: no clock, no float, no randomness, ordered maps only.

use crate::types::{LogIndex, NodeId, Term, WallTime};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The leader's time of day when it took the proposal: for people, never decided upon.
    pub at: WallTime,
    pub command: Command,
}

/// A command. (The real list replaces this.)
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    Nothing,
}

/// What an entry did. (The real one replaces this.)
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer;

/// The whole replicated state. (The real one replaces this.)
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub voters: Vec<BTreeSet<NodeId>>,
}

/// Applies one committed entry.
pub fn apply(_state: &mut State, _index: LogIndex, _term: Term, _entry: &Entry) -> Answer {
    Answer
}

/// A membership entry was committed: one set, or both halves of a joint one.
pub fn set_voters(state: &mut State, _index: LogIndex, voters: Vec<BTreeSet<NodeId>>) {
    state.voters = voters;
}
