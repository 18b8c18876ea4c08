//! Whom the server follows stands in one file, and what was asked for last is what it says in the end: also where an earlier
//! write hangs with its disk and whoever asked for it was interrupted and went away.
//!
//! Each write takes a number when it is asked for, and does its work alone. One that begins when a later one was asked for
//! does nothing; one that is under way is waited for, so that the later one lands after it.
//!
//! Not here: what is written (`settings.rs`), and who may act (`mod.rs`).

use super::error::{EngineError, Result};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The writes of one database's file.
#[derive(Debug, Default)]
pub struct Writes {
    asked: AtomicU64,
    at_work: Mutex<()>,
}

/// The place of one write among the others.
#[derive(Debug)]
pub struct Asked(u64);

/// Whoever has it writes alone, and was asked for last when it began. Only [`Writes::in_order`] gives it.
#[derive(Debug)]
pub struct InOrder(());

impl Writes {
    /// From here on no earlier write begins.
    pub fn ask(&self) -> Asked {
        Asked(self.asked.fetch_add(1, Ordering::SeqCst) + 1)
    }

    /// Does the work in its turn; blocks while an earlier one is at it.
    pub fn in_order<T>(&self, asked: &Asked, work: impl FnOnce(&InOrder) -> Result<T>) -> Result<T> {
        let _alone = self.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        if self.asked.load(Ordering::SeqCst) != asked.0 {
            return Err(EngineError::Overtaken);
        }
        work(&InOrder(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, mpsc};

    #[test]
    fn a_write_that_hangs_lands_before_the_one_that_was_asked_for_later() {
        let (writes, file) = (Arc::new(Writes::default()), Arc::new(Mutex::new("nothing")));
        let (hangs, goes_on) = mpsc::channel::<()>();
        let (begun, has_begun) = mpsc::channel();
        let write =
            |asked: Asked, text: &'static str, wait: Option<mpsc::Receiver<()>>, begun: Option<mpsc::Sender<()>>| {
                let (writes, file) = (writes.clone(), file.clone());
                std::thread::spawn(move || {
                    writes.in_order(&asked, |_| {
                        begun.map(|begun| begun.send(()));
                        wait.map(|wait| wait.recv());
                        *file.lock().expect("no panic") = text;
                        Ok(())
                    })
                })
            };
        let first = write(writes.ask(), "db1", Some(goes_on), Some(begun));
        has_begun.recv().expect("it began");
        let (second, third) = (writes.ask(), writes.ask());
        let (last, overtaken) = (write(third, "db3", None, None), write(second, "db2", None, None));
        hangs.send(()).expect("it waits");
        let ended = [first, last, overtaken].map(|thread| thread.join().expect("no panic"));
        assert!(matches!(ended, [Ok(()), Ok(()), Err(EngineError::Overtaken)]), "{ended:?}");
        assert_eq!(*file.lock().expect("no panic"), "db3");
    }
}
