//! What a process says on standard error when it ends, or has killed: said without ever waiting for a reader. A full
//! pipe, a stalled journal or a stopped terminal may cost the words, never the deed.
//!
//! Not here: the daemon's log (`daemon::log`), and what the command line answers (`cli::output`).

use std::io::Write;
use std::sync::mpsc;
use std::time::Duration;

/// How long the words may take. Where they are heard at all it is microseconds.
const PATIENCE: Duration = Duration::from_millis(200);
/// The speaker needs next to nothing, and all of it is locked in memory.
const STACK: usize = 64 << 10;

/// Says it, or gives up after a moment.
pub fn say(words: &str) {
    let line = format!("{words}\n");
    let (said, heard) = mpsc::channel();
    let speak = move || {
        let _ = std::io::stderr().write_all(line.as_bytes());
        let _ = said.send(());
    };
    // Where no thread can be had, nothing is said: waiting for a reader would be worse.
    if std::thread::Builder::new().stack_size(STACK).spawn(speak).is_ok() {
        let _ = heard.recv_timeout(PATIENCE);
    }
}
