//! Looks how much room the volume has on which the ledger lies, so that everybody hears of it before there is none.
//!
//! Not here: what is little (`types/room.rs`).

use super::wakeup::Wakeup;
use crate::consensus::Consensus;
use crate::node::Event;
use crate::types::Room;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

const EVERY: Duration = Duration::from_secs(2);
/// What changes by less is no news.
const STEP: u64 = 1 << 20;

/// The node hears of it whenever it is another.
#[expect(clippy::disallowed_methods, reason = "how often a number is looked at")]
pub fn watch(data_dir: PathBuf, consensus: &Arc<Consensus>, wakeups: &mpsc::UnboundedSender<Wakeup>) {
    let (consensus, wakeups) = (consensus.clone(), wakeups.clone());
    tokio::spawn(async move {
        let mut turn = tokio::time::interval(EVERY);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last: Option<Room> = None;
        loop {
            turn.tick().await;
            let (at, has_reserve) = (data_dir.clone(), consensus.log_has_reserve());
            // The disk may be one that does not answer.
            let looked = tokio::task::spawn_blocking(move || look(&at, has_reserve)).await;
            let Ok(Ok(room)) = looked else { continue };
            if last.is_some_and(|last| is_alike(&last, &room)) {
                continue;
            }
            say(last.as_ref(), &room, &data_dir);
            last = Some(room);
            if wakeups.send(Wakeup::Node(Event::LedgerRoom { room })).is_err() {
                return;
            }
        }
    });
}

/// What the kernel says.
fn look(data_dir: &Path, has_reserve: bool) -> io::Result<Room> {
    let about = nix::sys::statvfs::statvfs(data_dir)?;
    let block = about.fragment_size();
    Ok(Room {
        free_bytes: about.blocks_free() * block,
        size_bytes: about.blocks() * block,
        // A file system without a table of files says that it has none.
        free_files: (about.files() > 0).then(|| about.files_free()),
        has_reserve,
    })
}

fn is_alike(last: &Room, room: &Room) -> bool {
    let words = |room: &Room| room.failing().map(|(what, _)| what);
    last.free_bytes / STEP == room.free_bytes / STEP
        && (last.size_bytes, last.has_reserve, words(last)) == (room.size_bytes, room.has_reserve, words(room))
}

/// Once for each change, at the priority that it has.
fn say(last: Option<&Room>, room: &Room, data_dir: &Path) {
    let (before, now) = (last.and_then(Room::failing).map(|(what, _)| what), room.failing());
    let volume = data_dir.display();
    match now {
        Some((what, why)) if before != Some(what) => match what {
            crate::types::Failing::LedgerFull => tracing::error!(%volume, why, "{what}"),
            _ => tracing::warn!(%volume, why, "{what}"),
        },
        None if before.is_some() => tracing::info!(%volume, %room, "there is room for the ledger again"),
        _ => {}
    }
}
