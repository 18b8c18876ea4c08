//! Who was refused and why: bounded, counted, for `status`.

#![expect(clippy::disallowed_methods, reason = "how long ago somebody was refused: for status alone")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// So many different refusals are kept; the oldest gives way.
const KEPT: usize = 64;

/// One refused party, as often as it came with the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its name, where it gave one; else "unknown".
    pub who: String,
    pub address: IpAddr,
    pub reason: String,
    pub count: u64,
    /// How long ago it was refused last.
    pub ago: Duration,
}

/// Who, from where, and why.
type Key = (String, IpAddr, String);
/// How often, and when last.
type Times = (u64, Option<Instant>);

/// The collected refusals.
#[derive(Default)]
pub struct Refusals {
    kept: Mutex<BTreeMap<Key, Times>>,
}

impl Refusals {
    /// Notes one, and logs it when it is new.
    pub fn note(&self, who: &str, address: IpAddr, reason: &str) {
        let mut kept = self.kept.lock().expect("a panic aborts the process");
        let key = (who.to_owned(), address, reason.to_owned());
        if !kept.contains_key(&key) {
            tracing::warn!(who, %address, reason, "refused");
            if kept.len() >= KEPT {
                let oldest = kept.iter().min_by_key(|(_, (_, last))| *last).map(|(key, _)| key.clone());
                oldest.and_then(|key| kept.remove(&key));
            }
        }
        let entry = kept.entry(key).or_default();
        *entry = (entry.0 + 1, Some(Instant::now()));
    }

    /// All of them, the latest first.
    pub fn list(&self) -> Vec<Refusal> {
        let now = Instant::now();
        let kept = self.kept.lock().expect("a panic aborts the process");
        let mut list: Vec<Refusal> = kept
            .iter()
            .map(|((who, address, reason), (count, last))| Refusal {
                who: who.clone(),
                address: *address,
                reason: reason.clone(),
                count: *count,
                ago: last.map_or(Duration::MAX, |last| now.duration_since(last)),
            })
            .collect();
        list.sort_by_key(|refusal| refusal.ago);
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_and_bounded() {
        let refusals = Refusals::default();
        let address = IpAddr::from([127, 0, 0, 1]);
        refusals.note("db9", address, "unknown");
        refusals.note("db9", address, "unknown");
        assert_eq!(refusals.list()[0].count, 2);
        for n in 0..200 {
            refusals.note(&format!("x{n}"), address, "unknown");
        }
        let list = refusals.list();
        assert_eq!(list.len(), KEPT);
        assert!(list.iter().any(|r| r.who == "x199") && !list.iter().any(|r| r.who == "db9"), "the oldest gave way");
    }
}
