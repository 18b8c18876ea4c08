//! A backend in memory, without threads: for the deterministic runtime, which has one thread and a virtual clock.

use super::{Backend, Change, Done, StoreError};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

/// Keys and values that live as long as this value: keep it, and a node can be started on it again.
#[derive(Default)]
pub struct Memory {
    stored: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Backend for Memory {
    fn load(&self) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StoreError> {
        Ok(self.stored.lock().expect("a panic aborts the process").clone())
    }

    fn write(&self, changes: Vec<Change>, done: Option<Done>) {
        {
            let mut stored = self.stored.lock().expect("a panic aborts the process");
            for change in changes {
                match change {
                    Change::Put(key, value) => drop(stored.insert(key, value)),
                    Change::Delete(key) => drop(stored.remove(&key)),
                }
            }
        }
        if let Some(done) = done {
            done();
        }
    }

    fn write_latency(&self) -> Duration {
        Duration::ZERO
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("memory")
    }
}
