//! openraft's log storage over a [`Backend`]: the same code for the file and for memory.

use super::image::{self, Image};
use super::{Backend, StoreError};
use crate::consensus::leaders::Leaders;
use crate::consensus::raft::{LedgerTypes, LogEntry, LogId, Snapshot, SnapshotMeta, Vote};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use std::fmt::Debug;
use std::io;
use std::marker::PhantomData;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::oneshot;

/// The stored log, vote and snapshot of one node. Clones share it.
pub struct Store<C> {
    image: Arc<Mutex<Image>>,
    backend: Arc<dyn Backend>,
    leaders: Option<Arc<Leaders>>,
    types: PhantomData<fn() -> C>,
}

impl<C> Clone for Store<C> {
    fn clone(&self) -> Self {
        Store {
            image: self.image.clone(),
            backend: self.backend.clone(),
            leaders: self.leaders.clone(),
            types: PhantomData,
        }
    }
}

impl<C> Store<C> {
    /// Reads what the backend has.
    pub fn open(backend: Arc<dyn Backend>) -> Result<Self, StoreError> {
        let image = Image::load(backend.as_ref())?;
        Ok(Store { image: Arc::new(Mutex::new(image)), backend, leaders: None, types: PhantomData })
    }

    /// Tells `leaders` of every vote that is saved from now on.
    pub fn announce_votes(&mut self, leaders: Arc<Leaders>) {
        self.leaders = Some(leaders);
    }

    /// A copy of everything that is stored.
    pub fn image(&self) -> Image {
        self.lock().clone()
    }

    /// Nothing was ever voted or logged here.
    pub fn image_is_blank(&self) -> bool {
        self.lock().is_blank()
    }

    /// The last index that is stored here, in the log or covered by a snapshot.
    pub fn last_index(&self) -> Option<u64> {
        let image = self.lock();
        let covered = image.snapshot.as_ref().and_then(|(meta, _)| meta.last_log_id).max(image.purged);
        image.log.keys().next_back().copied().max(covered.map(|id| id.index))
    }

    /// See [`Backend::write_latency`].
    pub fn write_latency(&self) -> std::time::Duration {
        self.backend.write_latency()
    }

    /// See [`Backend::has_reserve`].
    pub fn has_reserve(&self) -> bool {
        self.backend.has_reserve()
    }

    /// Keeps the snapshot, unless a newer one is there already; durable when it returns.
    pub async fn save_snapshot(&self, meta: &SnapshotMeta, data: &[u8]) -> io::Result<()> {
        let change = image::put_snapshot(meta, data);
        let written = {
            let mut image = self.lock();
            if image.snapshot.as_ref().is_some_and(|(old, _)| old.last_log_id >= meta.last_log_id) {
                return Ok(());
            }
            image.snapshot = Some((meta.clone(), Arc::new(data.to_vec())));
            // Under the lock: a builder and a leader's snapshot may come at the same time, and on disk too the newer
            // one must be the last.
            self.begin_write(vec![change])
        };
        finish(written).await
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Option<Snapshot> {
        let (meta, data) = self.lock().snapshot.clone()?;
        Some(Snapshot { meta, snapshot: data.to_vec() })
    }

    /// Writes what waits and lets go of the file.
    pub fn close(&self) {
        self.backend.close();
    }

    async fn write_now(&self, changes: Vec<super::Change>) -> io::Result<()> {
        finish(self.begin_write(changes)).await
    }

    fn begin_write(&self, changes: Vec<super::Change>) -> oneshot::Receiver<()> {
        let (done, written) = oneshot::channel();
        // The receiver may be gone when the caller was dropped: the write counts all the same.
        let answer = move || {
            let _ = done.send(());
        };
        self.backend.write(changes, Some(Box::new(answer)));
        written
    }

    fn lock(&self) -> MutexGuard<'_, Image> {
        self.image.lock().expect("no code panics while it holds the image: a panic aborts the process")
    }
}

async fn finish(written: oneshot::Receiver<()>) -> io::Result<()> {
    written.await.map_err(|_| io::Error::other("the log writer has ended"))
}

impl<C: LedgerTypes> RaftLogReader<C> for Store<C> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<LogEntry>, io::Error> {
        Ok(self.lock().log.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.lock().vote)
    }
}

impl<C: LedgerTypes> RaftLogStorage<C> for Store<C> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<C>, io::Error> {
        let image = self.lock();
        let last = image.log.values().next_back().map(|entry| entry.log_id);
        Ok(LogState { last_purged_log_id: image.purged, last_log_id: last.or(image.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.write_now(vec![image::put_vote(vote)]).await?;
        self.lock().vote = Some(*vote);
        if let Some(leaders) = &self.leaders {
            leaders.voted(vote);
        }
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // Not worth a flush of its own: a lost mark costs some replay after a crash, and no read is answered before the
        // leader has named the commit index again (ReadIndex).
        self.backend.write(vec![image::put_committed(&committed)], None);
        self.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<C>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries.into_iter().collect();
        let changes = entries.iter().map(image::put_entry).collect();
        self.lock().log.extend(entries.into_iter().map(|entry| (entry.log_id.index, entry)));
        self.backend.write(changes, Some(Box::new(move || callback.io_completed(Ok(())))));
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let first = last_log_id.map_or(0, |last| last.index + 1);
        let removed = self.lock().log.split_off(&first);
        self.write_now(removed.keys().map(|index| image::delete_entry(*index)).collect()).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let mut changes = vec![image::put_purged(&log_id)];
        {
            let mut image = self.lock();
            let kept = image.log.split_off(&(log_id.index + 1));
            let removed = std::mem::replace(&mut image.log, kept);
            changes.extend(removed.keys().map(|index| image::delete_entry(*index)));
            image.purged = Some(log_id);
        }
        self.write_now(changes).await
    }
}
