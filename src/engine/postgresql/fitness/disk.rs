//! File work of these looks, on a thread that may hang with its disk: one at a time, so that a disk that hangs takes one
//! thread and not one with every look.
//!
//! Not here: what is looked at.

use super::ANSWER;
use crate::engine::postgresql::core::Core;
use crate::engine::postgresql::error::{EngineError, Result};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The way to the disks.
#[derive(Clone, Debug)]
pub struct Disk {
    pub core: Arc<Core>,
    free: Arc<Semaphore>,
}

impl Disk {
    pub fn new(core: Arc<Core>) -> Disk {
        Disk { core, free: Arc::new(Semaphore::new(1)) }
    }

    /// Does the work, and waits for it within limits. Error: it takes too long, or what was begun before it still does.
    pub async fn on<T, F>(&self, what: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Core) -> T + Send + 'static,
    {
        let late = || EngineError::NoAnswer { what, after: ANSWER };
        let turn = self.free.clone().try_acquire_owned().map_err(|_| late())?;
        let work = move |core: &Core| {
            let _turn = turn;
            work(core)
        };
        super::answered(what, self.core.on_disk(work)).await
    }
}
