//! The goodbye of a daemon that ended without a word: kept in a file as bytes ready to send, and sent by the guard, which
//! has no key. The daemon signs it anew with each renewal of a lease.
//!
//! Not here: whether that daemon has ended (`action/guard.rs`), and what a goodbye is worth (the detector).

use super::disk_file::DiskFile;
use super::disk_format::Header;
use super::key::Key;
use super::wire;
use crate::clock;
use crate::config::Config;
use crate::types::{ClusterId, Instant, LeftGoodbye, NodeName, fitting};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Before it is sent again, because a datagram may get lost. Whoever had it takes the second for a repetition.
const AGAIN: [Duration; 3] = [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(200)];

/// A goodbye, and the way of each channel.
#[derive(Debug, Serialize, Deserialize)]
pub struct Prepared {
    /// The process that left it: it is for the end of that one alone.
    pub daemon: u32,
    end: Instant,
    /// The longest is the last.
    letters: Vec<(Duration, Vec<u8>)>,
    /// One's own address on each network, and those of the peers.
    networks: Vec<(IpAddr, Vec<SocketAddr>)>,
    disk: Option<Slot>,
}

/// The own slot on the shared disk.
#[derive(Debug, Serialize, Deserialize)]
struct Slot {
    path: PathBuf,
    cluster: String,
    node: NodeName,
}

impl Prepared {
    /// Signs what this process leaves behind.
    pub fn new(config: &Config, cluster: &ClusterId, left: &LeftGoodbye, key: &Key) -> Prepared {
        let me = config.me();
        let others = || config.nodes.iter().filter(|(name, _)| **name != config.node).map(|(_, node)| node);
        let primary = others().map(|n| SocketAddr::new(n.primary, n.heartbeat_port)).collect();
        let secondary = others().map(|n| SocketAddr::new(n.secondary, n.heartbeat_port)).collect();
        let disk = config.disk.as_ref().filter(|_| me.disk);
        Prepared {
            daemon: std::process::id(),
            end: left.end(),
            letters: left.letters().map(|(needs, letter)| (needs, wire::encode(&letter, key))).collect(),
            networks: vec![(me.primary, primary), (me.secondary, secondary)],
            disk: disk.map(|disk| Slot {
                path: disk.path.clone(),
                cluster: cluster.0.clone(),
                node: config.node.clone(),
            }),
        }
    }

    /// Leaves it in that file, whole. It is gone after a boot, and so is what it speaks of.
    pub fn leave(&self, path: &Path) -> io::Result<()> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let new = path.with_extension("new");
        let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        fs::rename(&new, path)
    }

    /// What was left there.
    pub fn find(path: &Path) -> io::Result<Prepared> {
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }

    /// Sends it on every channel, and again. May hang for as long as a disk likes: for a thread of its own.
    pub fn send(&self) {
        for pause in AGAIN {
            std::thread::sleep(pause);
            let Some(letter) = self.fitting_now() else { return };
            for (from, peers) in &self.networks {
                // One network may be gone; the others are there for that.
                if let Ok(socket) = UdpSocket::bind((*from, 0)) {
                    peers.iter().for_each(|peer| drop(socket.send_to(letter, peer)));
                }
            }
        }
        if let (Some(slot), Some(letter)) = (&self.disk, self.fitting_now()) {
            let _ = slot.write(letter);
        }
    }

    fn fitting_now(&self) -> Option<&[u8]> {
        let letters = self.letters.iter().map(|(needs, letter)| (*needs, letter.as_slice()));
        fitting(letters, self.end, clock::now())
    }
}

impl Slot {
    /// Writes it where the daemon wrote, if that is still this node's slot of this cluster's disk.
    fn write(&self, letter: &[u8]) -> io::Result<()> {
        let mut file = DiskFile::open(&self.path, false)?;
        let header = Header::decode(&file.read(0)?[0]).map_err(io::Error::other)?;
        match header.slot_of(&self.node).filter(|_| header.cluster.0 == self.cluster) {
            Some(slot) => file.write(1 + slot, &header.encode_slot(slot, letter)),
            None => Err(io::Error::other("it is no slot of this node any more")),
        }
    }
}
