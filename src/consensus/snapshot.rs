//! The bytes of a snapshot: the ledger's state as one JSON object that begins with the number of its format, on disk and
//! on the way to a peer alike.
//!
//! Not here: what a snapshot covers (`store/image.rs` keeps that beside it), and when one is made (`machine.rs`).

use crate::ledger::State;
use crate::ledger::format::{FORMAT, Format, NewerFormat};
use serde::{Deserialize, Serialize};

/// Why bytes are no snapshot that can be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Written by a newer regent.
    #[error("the snapshot has {0}")]
    Newer(#[from] NewerFormat),
    /// Something else, or damaged.
    #[error("the snapshot is no ledger: {0}")]
    Unreadable(#[from] serde_json::Error),
}

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    #[serde(flatten)]
    state: &'a State,
}

/// The number alone: the rest may be of a shape that is not known here.
#[derive(Deserialize)]
struct Head {
    #[serde(default = "first")]
    format: u32,
}

fn first() -> u32 {
    Format::default().into()
}

/// The state in the present format.
pub fn encode(state: &State) -> Vec<u8> {
    serde_json::to_vec(&Written { format: FORMAT, state }).expect("the ledger's maps have text keys or numbers")
}

/// The state, from any format that is read. One without a number has the first.
pub fn decode(bytes: &[u8]) -> Result<State, SnapshotError> {
    let head: Head = serde_json::from_slice(bytes)?;
    Format::try_from(head.format)?;
    Ok(serde_json::from_slice(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::world_test::World;

    #[test]
    fn a_snapshot_begins_with_its_format_and_one_without_a_number_has_the_first() {
        let state = World::fenced().state;
        let bytes = encode(&state);
        assert!(bytes.starts_with(format!("{{\"format\":{FORMAT},\"settings\":").as_bytes()));
        assert_eq!(decode(&bytes).expect("its own"), state);
        assert_eq!(decode(&serde_json::to_vec(&state).expect("plain")).expect("from before the number"), state);
    }

    #[test]
    fn a_newer_snapshot_is_refused_whatever_is_in_it() {
        let newer = format!("{{\"format\":{},\"settings\":7,\"leaves\":[]}}", FORMAT + 1);
        let text = decode(newer.as_bytes()).expect_err("newer").to_string();
        assert_eq!(
            text,
            format!(
                "the snapshot has format {}, and this regent reads formats up to {FORMAT}: upgrade regent on this host",
                FORMAT + 1
            )
        );
        assert!(matches!(decode(b"PGDMP"), Err(SnapshotError::Unreadable(_))));
    }
}
