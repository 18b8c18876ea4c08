//! A damaged log: bytes flipped, blocks zeroed, files cut short, emptied, exchanged or gone, after an orderly end and
//! after a crash. Either everything that was acknowledged is there, or the start is refused with the file's name and
//! what to do; never is a part silently missing.

use super::crash_test::in_memory;
use super::durable::Durable;
use super::image::Image;
use super::store_test::{C, entry, log_id};
use super::{Store, StoreError};
use crate::consensus::raft::{SnapshotMeta, Vote};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a directory holds: the log and its mark.
#[derive(Clone)]
struct Files {
    log: Vec<u8>,
    mark: Vec<u8>,
}

impl Files {
    fn read(path: &Path) -> Files {
        let read = |path: &Path| std::fs::read(path).expect("there");
        Files { log: read(path), mark: read(&path.with_extension("mark")) }
    }

    fn write(&self, path: &Path) {
        std::fs::write(path, &self.log).expect("written");
        std::fs::write(path.with_extension("mark"), &self.mark).expect("written");
    }
}

/// A log with everything in it: as it stood before the last write, as a crash after it leaves it, and after an orderly
/// end; and what was acknowledged.
struct Made {
    before: Files,
    crashed: Files,
    closed: Files,
    image: Image,
}

async fn made(path: &Path) -> Made {
    let mut store: Store<C> = Store::open(Arc::new(Durable::open(path, false).expect("new"))).expect("empty");
    store.save_vote(&Vote::new(3, 2)).await.expect("saved");
    for index in 0..60 {
        store.blocking_append([entry(3, index)]).await.expect("appended");
    }
    let meta = SnapshotMeta { last_log_id: Some(log_id(3, 40)), ..Default::default() };
    store.save_snapshot(&meta, "the ledger ".repeat(900).as_bytes()).await.expect("saved");
    store.purge(log_id(3, 30)).await.expect("purged");
    store.save_vote(&Vote::new(4, 1)).await.expect("saved");
    let before = Files::read(path);
    store.blocking_append([entry(4, 60)]).await.expect("appended");
    let (crashed, image) = (Files::read(path), store.image());
    store.close();
    Made { before, crashed, closed: Files::read(path), image }
}

enum Found {
    Everything,
    Refused,
}

/// Starts on it. A part that is missing, a panic, or a refusal that does not help is the end of the test.
fn judge(path: &Path, image: &Image, what: &str) -> Found {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let durable = Durable::open(path, true)?;
        Store::<C>::open(Arc::new(durable)).map(|store| (store.image(), store.close()).0)
    }));
    match opened.unwrap_or_else(|_| panic!("{what}: it panics")) {
        Ok(found) => {
            let same = (found.vote, &found.log, found.purged) == (image.vote, &image.log, image.purged);
            assert!(same && found.snapshot == image.snapshot, "{what}: something acknowledged is silently missing");
            Found::Everything
        }
        Err(error) => {
            let text = error.to_string();
            let helps = text.contains("raft.") && text.contains("remove the node and add it again");
            assert!(matches!(error, StoreError::Corrupt { .. }) && helps, "{what}: {text}");
            Found::Refused
        }
    }
}

struct Tried {
    path: PathBuf,
    image: Image,
    whole: u32,
    refused: u32,
}

impl Tried {
    fn judge(&mut self, files: &Files, what: &str) {
        files.write(&self.path);
        match judge(&self.path, &self.image, what) {
            Found::Everything => self.whole += 1,
            Found::Refused => {
                self.refused += 1;
                // Once more: a refused start must not have mended it into something shorter that passes.
                judge(&self.path, &self.image, &format!("{what}, started again"));
            }
        }
    }
}

fn damage(tried: &mut Tried, files: &Files, how: &str, rng: &mut StdRng) {
    tried.judge(files, &format!("{how}, undamaged"));
    assert_eq!(tried.refused, 0, "{how}: refused without damage");
    let used: Vec<usize> =
        files.log.chunks(4096).enumerate().filter(|(_, p)| p.iter().any(|b| *b != 0)).map(|p| p.0).collect();
    // The header and both commit slots, byte by byte.
    for offset in 0..320 {
        let mut damaged = files.clone();
        damaged.log[offset] ^= [0x01, 0x80, 0xff, 0x02][offset % 4];
        tried.judge(&damaged, &format!("{how}, byte {offset} of the log flipped"));
    }
    for bit in 0..8 {
        let mut damaged = files.clone();
        damaged.log[9] ^= 1 << bit;
        tried.judge(&damaged, &format!("{how}, bit {bit} of the byte that rules redb's file flipped"));
    }
    for _ in 0..150 {
        let page = used[rng.random_range(0..used.len())];
        let offset = page * 4096 + rng.random_range(0..4096);
        let mut damaged = files.clone();
        damaged.log[offset] ^= 1 << rng.random_range(0..8);
        tried.judge(&damaged, &format!("{how}, a bit of byte {offset} of the log flipped"));
    }
    for page in &used {
        let mut damaged = files.clone();
        damaged.log[page * 4096..(page + 1) * 4096].fill(0);
        tried.judge(&damaged, &format!("{how}, page {page} of the log zeroed"));
    }
    for _ in 0..40 {
        let mut damaged = files.clone();
        let length = rng.random_range(0..files.log.len());
        let length = if rng.random_range(0..2) == 0 { length / 4096 * 4096 } else { length };
        damaged.log.truncate(length);
        tried.judge(&damaged, &format!("{how}, the log cut off at {length}"));
    }
    for offset in (0..16).chain(4096..4112).chain(8192..8212) {
        let mut damaged = files.clone();
        damaged.mark[offset] ^= 0x10;
        tried.judge(&damaged, &format!("{how}, byte {offset} of the mark flipped"));
    }
    for length in [0, 1, 12, 4096, 4100, 8191, 8200, 12287] {
        let mut damaged = files.clone();
        damaged.mark.truncate(length);
        tried.judge(&damaged, &format!("{how}, the mark cut off at {length}"));
    }
}

#[tokio::test]
async fn a_damaged_log_is_whole_or_refused_and_never_silently_shorter() {
    let dir = in_memory();
    let made = made(&dir.path().join("raft.redb")).await;
    let mut rng = StdRng::seed_from_u64(5);
    for (how, files) in [("after a crash", &made.crashed), ("after an orderly end", &made.closed)] {
        let path = dir.path().join("raft.redb");
        let mut tried = Tried { path, image: made.image.clone(), whole: 0, refused: 0 };
        damage(&mut tried, files, how, &mut rng);
        println!(
            "{how}: {} damaged logs, {} whole all the same, {} refused",
            tried.whole + tried.refused,
            tried.whole,
            tried.refused
        );
        assert!(tried.whole > 20 && tried.refused > 100, "{how}");
    }
}

#[tokio::test]
async fn an_older_an_emptied_and_a_missing_log_are_refused() {
    let dir = in_memory();
    let path = dir.path().join("raft.redb");
    let made = made(&path).await;
    let refused = |what: &str| {
        let Err(error) = Durable::open(&path, true) else { panic!("{what} is taken") };
        assert!(matches!(error, StoreError::Corrupt { .. }), "{what}: {error}");
        error.to_string()
    };
    let older = Files { log: made.before.log.clone(), mark: made.crashed.mark.clone() };
    older.write(&path);
    let text = refused("an older copy");
    assert!(text.contains("holds 64 of 65 acknowledged writes"), "{text}");
    Files { mark: made.closed.mark.clone(), ..older }.write(&path);
    assert!(refused("an older copy of a log that was closed").contains("changed or damaged since"));
    Files { log: Vec::new(), ..made.closed.clone() }.write(&path);
    assert!(refused("an empty log").contains("it is empty or gone"));
    std::fs::remove_file(&path).expect("removed");
    assert!(refused("no log").contains("it is empty or gone"));
    assert!(!path.exists(), "a refusal made a new log");
    std::fs::remove_file(path.with_extension("mark")).expect("removed");
    assert!(refused("neither log nor mark").contains("raft.mark is corrupt (it was there, and is gone)"));
    made.closed.write(&path);
    assert!(Durable::open(&path, true).is_ok());
}
