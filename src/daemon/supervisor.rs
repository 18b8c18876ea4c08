//! Word to the service manager: ready, alive, stopping. Given by a thread of its own, because a service manager that
//! stands still leaves its socket full, and that must not hold up the loop.
//!
//! Not here: when the loop is alive (it says so itself, at each pulse).

use crate::scheduling;
use sd_notify::NotifyState;
use std::io;
use std::sync::mpsc;
use std::time::Duration;

/// Words that may wait; more are dropped, as they say the same.
const WAITING: usize = 4;
/// How long the last word may take.
const PATIENCE: Duration = Duration::from_millis(200);

/// The way to the service manager.
pub struct Supervisor {
    words: mpsc::SyncSender<NotifyState<'static>>,
    ended: mpsc::Receiver<()>,
}

impl Supervisor {
    pub fn start() -> io::Result<Self> {
        let (words, said) = mpsc::sync_channel(WAITING);
        let (end, ended) = mpsc::channel();
        std::thread::Builder::new().name("supervisor".to_owned()).stack_size(64 << 10).spawn(move || {
            // A word that is late by the unit's WatchdogSec is a daemon that is killed.
            scheduling::as_the_loop();
            for word in said {
                // Not under systemd: there is nobody to notify.
                let _ = sd_notify::notify(&[word]);
            }
            drop(end);
        })?;
        Ok(Supervisor { words, ended })
    }

    /// Never waits.
    pub fn tell(&self, word: NotifyState<'static>) {
        let _ = self.words.try_send(word);
    }

    /// Says the last word, and gives it a moment to leave.
    pub fn end(self) {
        self.tell(NotifyState::Stopping);
        drop(self.words);
        let _ = self.ended.recv_timeout(PATIENCE);
    }
}
