//! The paths between hosts: two networks, a shared disk, and the connections (Raft, leases, questions) that use either
//! network. It knows who reaches whom, how late, how often and how surely; nothing of what is carried.

use crate::cluster::MS;
use rand::RngExt;
use rand::rngs::StdRng;

/// The names of the channels, as configured.
pub const CHANNELS: [&str; 3] = ["primary", "secondary", "disk"];
/// The index of the disk among them.
pub const DISK: usize = 2;

/// All paths of one cluster.
pub struct Network {
    /// How often each direction of each path is cut: `cut[channel][from][to]`, for the two networks only. A count, so
    /// that one fault that ends does not heal another.
    cut: [Vec<Vec<u32>>; 2],
    /// Connections of this host fail, although datagrams pass: an expired certificate, a full disk under the Raft log.
    pub unconnected: Vec<bool>,
    /// What this host asks arrives, and nothing else gets through to it on a connection, no answer either.
    pub one_way: Vec<bool>,
    /// The longest additional delay of a message on a connection to this host, and from it, in ns.
    pub stalls: Vec<(u64, u64)>,
    /// How many messages on connections in a thousand come seconds late.
    pub late_messages: u32,
    /// What this host writes to the shared disk is not there (torn, refused, hung).
    pub disk_mute: Vec<bool>,
    /// What this host reads of the shared disk is not new (hung, an error, a stale path).
    pub disk_deaf: Vec<bool>,
    /// Hosts that do not use the disk at all.
    pub diskless: Vec<bool>,
    /// How many datagrams in a thousand are lost, per network.
    pub loss: [u32; 2],
    /// How many in a thousand arrive twice, the second time up to a second later, and thereby out of order.
    pub twice: u32,
    /// How many in a thousand are overtaken by later ones.
    pub late: u32,
    /// The longest usual delay of one datagram, in ns, per network.
    pub delay_max: [u64; 2],
}

impl Network {
    pub fn new(diskless: Vec<bool>) -> Self {
        let n = diskless.len();
        Network {
            cut: [vec![vec![0; n]; n], vec![vec![0; n]; n]],
            unconnected: vec![false; n],
            one_way: vec![false; n],
            stalls: vec![(0, 0); n],
            late_messages: 0,
            disk_mute: vec![false; n],
            disk_deaf: vec![false; n],
            diskless,
            loss: [0, 0],
            twice: 0,
            late: 0,
            delay_max: [3 * MS; 2],
        }
    }

    fn hosts(&self) -> usize {
        self.diskless.len()
    }

    /// Everything works again.
    pub fn heal(&mut self) {
        *self = Network::new(std::mem::take(&mut self.diskless));
    }

    /// Cuts one direction of one path.
    pub fn cut(&mut self, channel: usize, from: usize, to: usize) {
        self.cut[channel][from][to] += u32::from(from != to);
    }

    /// Takes one cut of it back.
    pub fn join(&mut self, channel: usize, from: usize, to: usize) {
        self.cut[channel][from][to] = self.cut[channel][from][to].saturating_sub(1);
    }

    /// Cuts or joins a host's own card: both directions, to everybody.
    pub fn set_card(&mut self, channel: usize, host: usize, cut: bool) {
        for other in (0..self.hosts()).filter(|o| *o != host) {
            for (from, to) in [(host, other), (other, host)] {
                self.cut[channel][from][to] = u32::from(cut);
            }
        }
    }

    /// Cuts both networks between two hosts, both directions.
    pub fn cut_pair(&mut self, a: usize, b: usize) {
        for channel in 0..2 {
            self.cut(channel, a, b);
            self.cut(channel, b, a);
        }
    }

    /// The disk hangs, or works again, for this host.
    pub fn set_disk(&mut self, host: usize, hangs: bool) {
        (self.disk_mute[host], self.disk_deaf[host]) = (hangs, hangs);
    }

    /// Whether something written by `from` arrives at `to`, chance aside.
    pub fn carries(&self, channel: usize, from: usize, to: usize) -> bool {
        if channel == DISK {
            !self.diskless[from] && !self.diskless[to] && !self.disk_mute[from] && !self.disk_deaf[to]
        } else {
            self.cut[channel][from][to] == 0
        }
    }

    /// Whether packets pass between the two both ways, over one of the networks.
    pub fn reaches(&self, a: usize, b: usize) -> bool {
        a == b || (0..2).any(|c| self.carries(c, a, b) && self.carries(c, b, a))
    }

    /// Whether a connection between the two daemons works.
    pub fn connects(&self, a: usize, b: usize) -> bool {
        a == b || self.hears(a, b) && !self.one_way[a]
    }

    /// Whether what `from` asks arrives at `to`, whatever becomes of the answer.
    pub fn hears(&self, from: usize, to: usize) -> bool {
        self.reaches(from, to) && !self.unconnected[from] && !self.unconnected[to] && !self.one_way[to]
    }

    /// The delays after which copies of one heartbeat arrive: none when it is lost, two when it is doubled.
    pub fn beat(&self, rng: &mut StdRng, channel: usize, from: usize, to: usize) -> [Option<u64>; 2] {
        if !self.carries(channel, from, to) {
            return [None, None];
        }
        if channel == DISK {
            return [Some(rng.random_range(MS..20 * MS)), None];
        }
        let mut chance = |permille: u32| permille > 0 && rng.random_range(0..1000) < permille;
        if chance(self.loss[channel]) {
            return [None, None];
        }
        let (twice, late) = (chance(self.twice), chance(self.late));
        let first = rng.random_range(MS / 10..self.delay_max[channel]) + if late { 300 * MS } else { 0 };
        [Some(first), twice.then(|| rng.random_range(MS..1000 * MS))]
    }

    /// The delay of one message on a connection.
    pub fn message(&self, rng: &mut StdRng, from: usize, to: usize) -> u64 {
        let usual = rng.random_range(MS / 10..self.delay_max[0].min(self.delay_max[1]));
        let stall = self.stalls[from].1 + self.stalls[to].0;
        let stalled = if stall > 0 { rng.random_range(0..stall) } else { 0 };
        let late = self.late_messages > 0 && rng.random_range(0..1000) < self.late_messages;
        usual + stalled + if late { rng.random_range(200 * MS..8000 * MS) } else { 0 }
    }
}
