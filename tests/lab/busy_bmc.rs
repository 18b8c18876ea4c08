//! A BMC whose sessions are all taken: it answers, and opens no session. It stands in for `ipmi_sim` at the device's
//! address, with the two answers that a client gets so far. Not here: the device itself (`bmc.rs`).

use crate::network::Switch;
use crate::system;
use anyhow::{Context, Result};
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What it is until it is dropped.
pub struct Busy {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Busy {
    /// Answers at `address`, in the switch's namespace.
    pub fn at(address: &str, switch: &Switch) -> Result<Busy> {
        let network = switch.namespace()?;
        let place = (address.to_owned(), 623);
        let bound = std::thread::spawn(move || {
            // A socket stays in the namespace in which it was made; so does this thread, which ends here.
            system::enter(&network, libc::CLONE_NEWNET)?;
            UdpSocket::bind((place.0.as_str(), place.1))
        });
        let socket = bound.join().expect("no panic there").context("bind in place of the device")?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let ends = Arc::new(AtomicBool::new(false));
        let told = ends.clone();
        let thread = std::thread::spawn(move || {
            let mut request = [0; 512];
            while !told.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut request) else { continue };
                if let Some(answer) = answer(&request[..length]) {
                    // Whoever asked may be gone.
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Ok(Busy { ends, thread: Some(thread) })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Outside of a session: what it can do (IPMI 2.0, MD5). To an open session request: status 01h, insufficient resources.
fn answer(request: &[u8]) -> Option<Vec<u8>> {
    if *request.get(4)? == 0 {
        let (sequence, command) = (*request.get(18)?, *request.get(19)?);
        let body = [0x20, sequence, command, 0, 1, 0x84, 4, 2, 0, 0, 0, 0];
        let head = [0x81, 0x1c];
        let message = [&head[..], &[checksum(&head)], &body, &[checksum(&body)]].concat();
        let session = [6, 0, 0xff, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, message.len() as u8];
        return Some([&session[..], &message].concat());
    }
    let tag = *request.get(16)?;
    Some(vec![6, 0, 0xff, 7, 6, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, tag, 1])
}

fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}
