//! What is stored, decoded: the vote, the log, the marks and the snapshot; and how each is encoded under its key.
//!
//! Every value begins with a CRC-32 of the rest, so that a flipped bit is an error and not another vote.

use super::{Backend, Change, StoreError};
use crate::consensus::raft::{LogEntry, LogId, SnapshotMeta, Vote};
use crate::types::Quoted;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything that one node of Raft has stored.
#[derive(Clone, Default)]
pub struct Image {
    pub vote: Option<Vote>,
    /// The last entry known to be committed. May lag behind: it is written along with other writes.
    pub committed: Option<LogId>,
    /// The last entry that was removed because a snapshot covers it.
    pub purged: Option<LogId>,
    /// The entries after `purged`, without a hole.
    pub log: BTreeMap<u64, LogEntry>,
    pub snapshot: Option<(SnapshotMeta, Arc<Vec<u8>>)>,
}

const VOTE: &[u8] = b"vote";
const COMMITTED: &[u8] = b"committed";
const PURGED: &[u8] = b"purged";
const SNAPSHOT: &[u8] = b"snapshot";
const LOG: &[u8] = b"log/";

/// Seals bytes with their checksum.
pub fn seal(body: &[u8]) -> Vec<u8> {
    let mut value = crc32fast::hash(body).to_le_bytes().to_vec();
    value.extend_from_slice(body);
    value
}

/// The sealed bytes, or what is wrong with them.
pub fn unseal(value: &[u8]) -> Result<&[u8], String> {
    let (sum, body) = value.split_first_chunk::<4>().ok_or("a value is shorter than its checksum")?;
    match crc32fast::hash(body) == u32::from_le_bytes(*sum) {
        true => Ok(body),
        false => Err("a checksum does not match".into()),
    }
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    seal(&serde_json::to_vec(value).expect("Raft's types and the ledger's are encodable as JSON: they have text keys"))
}

fn decode<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, String> {
    let body = unseal(value).map_err(|what| format!("{key}: {what}"))?;
    serde_json::from_slice(body).map_err(|e| format!("{key}: {e}"))
}

fn log_key(index: u64) -> Vec<u8> {
    [LOG, &index.to_be_bytes()].concat()
}

pub fn put_vote(vote: &Vote) -> Change {
    Change::Put(VOTE.into(), encode(vote))
}

pub fn put_committed(committed: &Option<LogId>) -> Change {
    Change::Put(COMMITTED.into(), encode(committed))
}

pub fn put_purged(purged: &LogId) -> Change {
    Change::Put(PURGED.into(), encode(purged))
}

pub fn put_entry(entry: &LogEntry) -> Change {
    Change::Put(log_key(entry.log_id.index), encode(entry))
}

pub fn delete_entry(index: u64) -> Change {
    Change::Delete(log_key(index))
}

/// Meta and data in one value, so that they can never disagree: length of the meta, meta, data.
pub fn put_snapshot(meta: &SnapshotMeta, data: &[u8]) -> Change {
    let meta = serde_json::to_vec(meta).expect("a snapshot's meta has text keys");
    let length = u32::try_from(meta.len()).expect("a membership is far smaller than 4 GiB");
    let body = [&length.to_le_bytes(), meta.as_slice(), data].concat();
    Change::Put(SNAPSHOT.into(), seal(&body))
}

fn decode_snapshot(value: &[u8]) -> Result<(SnapshotMeta, Arc<Vec<u8>>), String> {
    let body = unseal(value).map_err(|what| format!("snapshot: {what}"))?;
    let (length, rest) = body.split_first_chunk::<4>().ok_or("snapshot: too short")?;
    let (meta, data) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or("snapshot: cut off")?;
    let meta = serde_json::from_slice(meta).map_err(|e| format!("snapshot: {e}"))?;
    Ok((meta, Arc::new(data.to_vec())))
}

impl Image {
    /// Reads everything from the backend and checks that it hangs together.
    pub fn load(backend: &dyn Backend) -> Result<Self, StoreError> {
        let stored = backend.load()?;
        Self::read(&stored).map_err(|what| StoreError::Corrupt { path: backend.path(), what })
    }

    fn read(stored: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Self, String> {
        let mut image = Image::default();
        for (key, value) in stored {
            match key.as_slice() {
                VOTE => image.vote = Some(decode("vote", value)?),
                COMMITTED => image.committed = decode("committed", value)?,
                PURGED => image.purged = Some(decode("purged", value)?),
                SNAPSHOT => image.snapshot = Some(decode_snapshot(value)?),
                other => match other.strip_prefix(LOG).and_then(|index| <[u8; 8]>::try_from(index).ok()) {
                    Some(index) => {
                        let index = u64::from_be_bytes(index);
                        let entry: LogEntry = decode(&format!("log entry {index}"), value)?;
                        if entry.log_id.index != index {
                            return Err(format!("log entry {index} says that it is {}", entry.log_id.index));
                        }
                        image.log.insert(index, entry);
                    }
                    None => return Err(format!("unknown key {}", Quoted(String::from_utf8_lossy(other)))),
                },
            }
        }
        image.check()?;
        Ok(image)
    }

    fn check(&self) -> Result<(), String> {
        let first = self.purged.map(|purged| purged.index + 1).or(self.log.keys().next().copied());
        for (expected, index) in (first.unwrap_or(0)..).zip(self.log.keys()) {
            if *index != expected {
                return Err(format!("log entry {expected} is missing before {index}"));
            }
        }
        let covered = self.snapshot.as_ref().and_then(|(meta, _)| meta.last_log_id);
        if self.purged > covered {
            return Err("entries were removed that no snapshot covers".into());
        }
        Ok(())
    }

    /// Nothing was ever voted or logged here.
    pub fn is_blank(&self) -> bool {
        self.vote.is_none() && self.log.is_empty() && self.snapshot.is_none() && self.purged.is_none()
    }
}
