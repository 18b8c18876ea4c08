//! The paths between hosts: two networks and a shared disk. It knows who reaches whom, how late and how surely;
//! nothing of what is carried.

use crate::cluster::MS;
use rand::RngExt;
use rand::rngs::StdRng;

/// The names of the channels, as configured.
pub const CHANNELS: [&str; 3] = ["primary", "secondary", "disk"];
/// The index of the disk among them.
pub const DISK: usize = 2;

/// All paths of one cluster.
pub struct Network {
    /// `cut[channel][from][to]`; for the two networks only.
    cut: [Vec<Vec<bool>>; 2],
    /// Reads and writes of the shared disk hang on this host.
    pub disk_hangs: Vec<bool>,
    /// How many datagrams in a thousand are lost, per channel.
    pub loss: [u32; 2],
    /// The longest delay of one datagram, in ns.
    pub delay_max: u64,
}

impl Network {
    pub fn new(hosts: usize) -> Self {
        Network {
            cut: [vec![vec![false; hosts]; hosts], vec![vec![false; hosts]; hosts]],
            disk_hangs: vec![false; hosts],
            loss: [0, 0],
            delay_max: 3 * MS,
        }
    }

    /// Everything works again.
    pub fn heal(&mut self) {
        *self = Network::new(self.disk_hangs.len());
    }

    /// Cuts or joins one direction of one path.
    pub fn set_cut(&mut self, channel: usize, from: usize, to: usize, cut: bool) {
        if from != to {
            self.cut[channel][from][to] = cut;
        }
    }

    /// Cuts or joins a host's own card: both directions, to everybody.
    pub fn set_card(&mut self, channel: usize, host: usize, cut: bool) {
        for other in 0..self.disk_hangs.len() {
            self.set_cut(channel, host, other, cut);
            self.set_cut(channel, other, host, cut);
        }
    }

    /// Whether something written by `from` arrives at `to`, chance aside.
    pub fn carries(&self, channel: usize, from: usize, to: usize) -> bool {
        if channel == DISK { !self.disk_hangs[from] && !self.disk_hangs[to] } else { !self.cut[channel][from][to] }
    }

    /// Whether a connection between the two works, over either network.
    pub fn connects(&self, a: usize, b: usize) -> bool {
        a == b || (0..2).any(|c| self.carries(c, a, b) && self.carries(c, b, a))
    }

    /// The delay of one heartbeat, or `None` when it is lost.
    pub fn beat(&self, rng: &mut StdRng, channel: usize, from: usize, to: usize) -> Option<u64> {
        if channel == DISK {
            return self.carries(DISK, from, to).then(|| rng.random_range(MS..20 * MS));
        }
        let lost = self.loss[channel] > 0 && rng.random_range(0..1000) < self.loss[channel];
        (self.carries(channel, from, to) && !lost).then(|| rng.random_range(MS / 10..self.delay_max))
    }

    /// The delay of one message on a connection.
    pub fn message(&self, rng: &mut StdRng) -> u64 {
        rng.random_range(MS / 10..self.delay_max)
    }
}
