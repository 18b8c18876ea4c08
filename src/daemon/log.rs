//! Where the log's lines go: through a queue with an end, to a thread that writes them. A reader that stands still (a
//! full pipe, a stalled journal) costs lines, never time: they are dropped and counted, and the log itself says how
//! many, once there is room again.
//!
//! Not here: what is logged, and the last words of a process that ends in the middle of something (`crate::last_words`).

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// Lines that may wait to be written.
const LINES: usize = 4096;
/// How long an orderly end waits for them.
const PATIENCE: Duration = Duration::from_millis(500);

/// The log's thread; for whoever ends the process.
pub struct Log {
    worker: WorkerGuard,
    dropped: Dropped,
}

/// How many lines nobody read in time, or could not be written.
#[derive(Clone)]
pub struct Dropped {
    waiting_in_vain: ErrorCounter,
    unwritten: Arc<AtomicU64>,
}

impl Dropped {
    pub fn lines(&self) -> u64 {
        self.waiting_in_vain.dropped_lines() as u64 + self.unwritten.load(Ordering::Relaxed)
    }
}

/// Lines to `out`. What is returned first never waits, whatever `out` does.
pub fn to(out: impl Write + Send + 'static) -> (NonBlocking, Log) {
    let counter = Arc::new(OnceLock::new());
    let counted = Counted { out, counter: counter.clone(), said: 0 };
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES).thread_name("log");
    let (lines, worker) = builder.finish(counted);
    let dropped = Dropped { waiting_in_vain: lines.error_counter(), unwritten: Arc::default() };
    let _ = counter.set(dropped.clone());
    (lines, Log { worker, dropped })
}

impl Log {
    pub fn dropped(&self) -> Dropped {
        self.dropped.clone()
    }

    /// Gives what waits a moment to be written.
    pub fn end(self) {
        let (written, done) = mpsc::channel();
        let flush = move || {
            drop(self.worker);
            let _ = written.send(());
        };
        if std::thread::Builder::new().stack_size(64 << 10).spawn(flush).is_ok() {
            let _ = done.recv_timeout(PATIENCE);
        }
    }
}

/// Says after the lines how many were dropped.
struct Counted<W> {
    out: W,
    counter: Arc<OnceLock<Dropped>>,
    /// The count that was said last.
    said: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let (Err(_), Some(dropped)) = (self.out.write_all(line), self.counter.get()) {
            dropped.unwritten.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    /// Called when nothing waits any more: there is room again.
    fn flush(&mut self) -> io::Result<()> {
        let dropped = self.counter.get().map_or(0, Dropped::lines);
        if dropped > self.said {
            let lost = dropped - self.said;
            let word = format!("regent: {lost} lines of this log were dropped: nobody read them\n");
            if self.out.write_all(word.as_bytes()).is_ok() {
                self.said = dropped;
            }
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use std::io::{BufRead, BufReader};

    /// More than a pipe and the queue hold.
    const FLOOD: usize = LINES * 4;

    #[test]
    fn a_log_that_nobody_reads_holds_nobody_up_and_says_afterwards_what_was_lost() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let (mut lines, log) = to(writer);
        let begun = clock::now();
        for n in 0..FLOOD {
            lines.write_all(format!("line {n} {}\n", "x".repeat(100)).as_bytes()).expect("it never fails");
        }
        let took = clock::now().since(begun);
        assert!(took < Duration::from_secs(1), "writing a log that nobody reads took {took:?}");
        let lost = log.dropped().lines();
        assert!(lost > 0 && lost < FLOOD as u64, "{lost} lines were dropped");
        // Somebody reads again: what waited comes, and once the word about the rest.
        let reading = std::thread::spawn(move || {
            let all: Vec<String> = BufReader::new(reader).lines().map(|line| line.expect("text")).collect();
            all
        });
        log.end();
        drop(lines);
        let all = reading.join().expect("no panic");
        let word = format!("regent: {lost} lines of this log were dropped: nobody read them");
        assert_eq!(all.iter().filter(|line| line.starts_with("regent: ")).collect::<Vec<_>>(), [&word]);
        assert_eq!(all.len() as u64, FLOOD as u64 - lost + 1, "what was not dropped was written");
    }

    #[test]
    fn an_orderly_end_waits_for_nobody_who_does_not_read() {
        let (_reader, writer) = std::io::pipe().expect("a pipe");
        let (mut lines, log) = to(writer);
        for _ in 0..LINES {
            lines.write_all("x".repeat(100).as_bytes()).expect("it never fails");
        }
        let begun = clock::now();
        log.end();
        let took = clock::now().since(begun);
        assert!(took < PATIENCE * 2, "{took:?}");
    }
}
