//! Slots of readers that are no nodes (pg_receivewal, Barman): the primary has them, and each standby has them too and moves
//! them along behind what the primary says, so that such a reader goes on without a gap whoever is promoted.
//!
//! A standby's slot holds more than the primary's, never less, once it was there before the reader came past it: one that is
//! made later begins where the WAL of that standby begins, which is said.
//!
//! Not here: making them (`slots.rs`). None is ever dropped: one that leaves the file is the operator's.

use super::core::Core;
use super::error::{EngineError, Result};
use super::session::Session;
use super::upstream;
use crate::types::{Lsn, NodeName};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Of a standby only those that nobody reads from: they cannot be moved along.
const QUESTION: &str = "select slot_name::text, restart_lsn::text from pg_replication_slots \
    where slot_type = 'physical' and (active_pid is null or not pg_is_in_recovery())";

/// A slot here that holds less than the primary's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    pub slot: String,
    pub here: Lsn,
    pub at_primary: Lsn,
}

/// What is to be done with the slots here, by what the upstream says of its own.
#[derive(Debug, Default, PartialEq, Eq)]
struct Moves {
    advance: Vec<(String, Lsn)>,
    gaps: Vec<Gap>,
}

fn moves(here: &BTreeMap<String, Lsn>, there: &BTreeMap<String, Lsn>, names: &[String]) -> Moves {
    let mut moves = Moves::default();
    for name in names {
        let (Some(own), Some(theirs)) = (here.get(name), there.get(name)) else { continue };
        if own < theirs {
            moves.advance.push((name.clone(), *theirs));
        } else if own > theirs {
            moves.gaps.push(Gap { slot: name.clone(), here: *own, at_primary: *theirs });
        }
    }
    moves
}

/// Moves this standby's slots up to those of whom it follows. Brings those that hold less.
pub async fn advance(core: &Arc<Core>, follows: &NodeName) -> Result<Vec<Gap>> {
    let names = &core.postgresql().outsider_slots;
    let Some(upstream) = core.config.upstream(&core.service, follows) else { return Ok(Vec::new()) };
    let there = places(&upstream::open(core, &upstream).await?).await?;
    let here = places(&*core.session().await?).await?;
    let moves = moves(&here, &there, names);
    if !moves.advance.is_empty() {
        // What writes goes over a connection of its own.
        let session = Session::open(&core.layout, core.postgresql(), core.postgresql().probe_timeout).await?;
        for (name, to) in &moves.advance {
            // Names were checked with the file. A server that was promoted meanwhile has the reader itself.
            let statement = format!(
                "select pg_replication_slot_advance('{name}', least('{to}'::pg_lsn, pg_last_wal_replay_lsn())) \
                 where pg_is_in_recovery() and exists (select from pg_replication_slots where slot_name = '{name}' \
                 and restart_lsn < least('{to}'::pg_lsn, pg_last_wal_replay_lsn()))"
            );
            session.execute("move a replication slot along", &statement).await?;
        }
    }
    Ok(moves.gaps)
}

async fn places(session: &Session) -> Result<BTreeMap<String, Lsn>> {
    let doing = "ask for the places of replication slots";
    let asked = tokio::time::timeout(Duration::from_secs(10), session.client().query_typed(QUESTION, &[])).await;
    let late = |_| EngineError::NoAnswer { what: doing, after: Duration::from_secs(10) };
    let rows = asked.map_err(late)?.map_err(EngineError::sql(doing))?;
    let place = |text: Option<&str>| text.and_then(|text| text.parse::<Lsn>().ok());
    Ok(rows.iter().filter_map(|row| Some((row.get(0), place(row.get(1))?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_moves_up_to_the_primarys_and_never_past_it() {
        let places = |all: &[(&str, u64)]| all.iter().map(|(name, lsn)| ((*name).to_owned(), Lsn(*lsn))).collect();
        let here = places(&[("ahead", 9), ("behind", 3), ("equal", 5), ("lonely", 1), ("yours", 1)]);
        let there = places(&[("ahead", 7), ("behind", 8), ("equal", 5), ("yours", 8), ("other", 2)]);
        let names: Vec<_> = ["ahead", "behind", "equal", "lonely", "other"].map(str::to_owned).into();
        let expected = Moves {
            advance: vec![("behind".to_owned(), Lsn(8))],
            gaps: vec![Gap { slot: "ahead".to_owned(), here: Lsn(9), at_primary: Lsn(7) }],
        };
        assert_eq!(moves(&here, &there, &names), expected);
    }
}
