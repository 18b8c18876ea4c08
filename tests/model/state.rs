//! What the model knows of the world and of the ledger at one moment, and how that is packed into 192 bits.
//!
//! Not here: what may happen next. Three nodes a, b and c, all voters, all with a database; one service. Time is a
//! number of ticks that are left of something, never a date.

use crate::search::Key;

pub const NODES: [usize; 3] = [0, 1, 2];
/// The ticks for which a holder may use a lease, from before it asked.
pub const TTL: u8 = 2;
/// The ticks after which everybody else takes it for ended: one more, for the watchdog and the stop ladder.
pub const WAIT: u8 = TTL + 1;

/// A lease request on its way, or its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ask {
    #[default]
    None,
    Sent,
    Granted,
}

/// One host: its power, its daemon, its database, and what they keep.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Node {
    pub on: bool,
    /// Which boot of the kernel runs, or ran last.
    pub boot: u8,
    /// The daemon runs.
    pub up: bool,
    /// This start of the daemon has its incarnation from the ledger.
    pub joined: bool,
    /// The newest term that it voted in.
    pub term: u8,
    /// It takes itself for the leader of that term.
    pub leads: bool,
    /// As leader: the ticks until every lease it knows of has surely ended.
    pub book: u8,
    /// The epoch under which its postmaster acknowledges writes; 0 = none does.
    pub open: u8,
    /// It was told to stop, and has not ended yet.
    pub stopping: bool,
    pub lease_epoch: u8,
    /// The ticks that are left of its lease, by its own counting.
    pub lease_left: u8,
    /// The newest epoch under which it has vowed, on disk, never to write again.
    pub tomb: u8,
    pub ask: Ask,
    pub ask_epoch: u8,
    /// The ticks since it was about to send the request.
    pub ask_age: u8,
    /// It had applied the `Resume` when it asked.
    pub ask_resumed: bool,
    /// What it knows: 0 no pause, 1 the pause, 2 the resume.
    pub pause: u8,
    /// Only with the bug `GrantWithoutQuorum`: the epoch that a deposed leader still believes in.
    pub believes: u8,
}

/// How far a fence is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Stage {
    #[default]
    Unused,
    Ordered,
    /// Confirmed by a power agent.
    ByPower,
    /// Confirmed by the wait for the lease.
    ByLease,
    /// Used, void, or needed no more.
    Closed,
}

/// One fence of the ledger, and what its power agent is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fence {
    pub stage: Stage,
    pub target: u8,
    pub boot: u8,
    /// The device may still execute `off`.
    pub off: bool,
    /// The agent has said that it succeeded; that word is on its way to the ledger.
    pub said: bool,
}

/// The round in which voters look again, or the proposal that carries its answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Round {
    pub open: bool,
    pub target: u8,
    pub incarnation: u8,
    /// One bit a voter.
    pub answers: u8,
}

/// How an epoch came to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Via {
    #[default]
    Nothing,
    Release,
    Power,
    Lease,
}

/// What is committed. Raft is taken for granted: one list, extended only by a leader that a majority answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ledger {
    pub term: u8,
    pub epoch: u8,
    /// The holder of each epoch; the first place is unused.
    pub holder: [u8; 4],
    /// The present epoch is over by its holder's own word.
    pub released: bool,
    pub incarnation: [u8; 3],
    pub boot: [u8; 3],
    /// The present incarnation is declared dead.
    pub dead: [bool; 3],
    pub fences: [Fence; 3],
    /// Who has answered, in this term, that the confirmed fence holds: one bit a voter.
    pub checks: u8,
    /// Ticks since the verdict, up to `WAIT`.
    pub verdict_age: u8,
    pub round: Round,
    /// 0 never paused, 1 paused, 2 resumed.
    pub pause: u8,
    /// The wait for the lease proves nothing: since the pause, until the holder has renewed after the resume.
    pub barred: bool,
    /// How epochs 2 and 3 began.
    pub via: [Via; 2],
}

/// Rules about single steps that were broken once: they are remembered here, because the states afterwards do not show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Broken {
    pub s3: bool,
    pub s4: bool,
    pub s9: bool,
}

/// Everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct State {
    pub nodes: [Node; 3],
    /// Whether the link of each pair is cut: ab, ac, bc.
    pub cut: [bool; 3],
    /// How many faults of each kind may still happen.
    pub cuts: u8,
    pub crashes: u8,
    pub outages: u8,
    /// A device has lied about this node (plus one).
    pub lied: u8,
    pub ledger: Ledger,
    pub broken: Broken,
}

/// The place of a pair in `cut`.
pub fn pair(a: usize, b: usize) -> usize {
    a + b - 1
}

impl State {
    /// Every node is up and joined, all links work, node a holds epoch 1 and has just renewed, node b leads.
    pub fn start(cuts: u8, crashes: u8, outages: u8) -> State {
        let node = Node { on: true, boot: 1, up: true, joined: true, term: 1, ..Node::default() };
        let mut state = State { nodes: [node; 3], cuts, crashes, outages, ..State::default() };
        let a = &mut state.nodes[0];
        (a.open, a.lease_epoch, a.lease_left) = (1, 1, TTL);
        let b = &mut state.nodes[1];
        (b.leads, b.book) = (true, WAIT);
        state.ledger = Ledger { term: 1, epoch: 1, incarnation: [1; 3], boot: [1; 3], ..Ledger::default() };
        state
    }

    /// The holder or appointee of the present epoch.
    pub fn holder(&self) -> usize {
        self.ledger.holder[self.ledger.epoch as usize] as usize
    }

    /// Both daemons run and their link works.
    pub fn linked(&self, a: usize, b: usize) -> bool {
        a != b && self.nodes[a].up && self.nodes[b].up && !self.cut[pair(a, b)]
    }

    /// Directly or over the third node: requests and releases are relayed.
    pub fn reaches(&self, a: usize, b: usize) -> bool {
        a == b || self.linked(a, b) || self.linked(a, 3 - a - b) && self.linked(3 - a - b, b)
    }

    /// Whether a majority answers this node as a leader: itself and one more that knows no newer term.
    pub fn has_quorum(&self, n: usize) -> bool {
        let me = &self.nodes[n];
        me.up && me.leads && NODES.into_iter().any(|v| self.linked(n, v) && self.nodes[v].term <= me.term)
    }

    /// The node that can commit now.
    pub fn leader(&self) -> Option<usize> {
        NODES.into_iter().find(|n| self.has_quorum(*n))
    }

    /// The fence that is open against the present boot of a node.
    pub fn fence_of(&self, n: usize) -> Option<usize> {
        (0..3).find(|id| {
            let fence = &self.ledger.fences[*id];
            let open = matches!(fence.stage, Stage::Ordered | Stage::ByPower | Stage::ByLease);
            open && fence.target as usize == n
        })
    }

    /// Forgets what can have no effect any more, so that states which differ only in that are one.
    pub fn tidied(mut self) -> State {
        for node in &mut self.nodes {
            if !node.on {
                let kept = Node { boot: node.boot, term: node.term, tomb: node.tomb, pause: node.pause, ..*node };
                *node =
                    Node { boot: kept.boot, term: kept.term, tomb: kept.tomb, pause: kept.pause, ..Node::default() };
            }
            if node.lease_left == 0 {
                node.lease_epoch = 0;
            }
            if node.ask == Ask::None {
                (node.ask_epoch, node.ask_age, node.ask_resumed) = (0, 0, false);
            }
        }
        for fence in &mut self.ledger.fences {
            if fence.stage == Stage::Closed && !fence.off && !fence.said {
                (fence.target, fence.boot) = (0, 0);
            }
        }
        self
    }
}

/// Fields one after the other into one word.
struct Into64(u64, u32);

impl Into64 {
    fn put(&mut self, value: u8, bits: u32) {
        self.0 |= (value as u64) << self.1;
        self.1 += bits;
    }
}

struct From64(u64);

impl From64 {
    fn take(&mut self, bits: u32) -> u8 {
        let value = (self.0 & ((1 << bits) - 1)) as u8;
        self.0 >>= bits;
        value
    }

    fn flag(&mut self) -> bool {
        self.take(1) == 1
    }
}

impl Node {
    /// 30 bits.
    fn pack(&self, into: &mut Into64) {
        let flags = self.on as u8 | (self.up as u8) << 1 | (self.joined as u8) << 2 | (self.leads as u8) << 3;
        into.put(flags | (self.stopping as u8) << 4 | (self.ask_resumed as u8) << 5, 6);
        into.put(self.boot | self.term << 2 | self.book << 4 | self.open << 6, 8);
        into.put(self.lease_epoch | self.lease_left << 2 | self.tomb << 4 | (self.ask as u8) << 6, 8);
        into.put(self.ask_epoch | self.ask_age << 2 | self.pause << 4 | self.believes << 6, 8);
    }

    fn unpack(from: &mut From64) -> Node {
        let (on, up, joined, leads) = (from.flag(), from.flag(), from.flag(), from.flag());
        let (stopping, ask_resumed) = (from.flag(), from.flag());
        let (boot, term, book, open) = (from.take(2), from.take(2), from.take(2), from.take(2));
        let (lease_epoch, lease_left, tomb) = (from.take(2), from.take(2), from.take(2));
        let ask = [Ask::None, Ask::Sent, Ask::Granted][from.take(2) as usize];
        let (ask_epoch, ask_age, pause, believes) = (from.take(2), from.take(2), from.take(2), from.take(2));
        Node {
            on,
            boot,
            up,
            joined,
            term,
            leads,
            book,
            open,
            stopping,
            lease_epoch,
            lease_left,
            tomb,
            ask,
            ask_epoch,
            ask_age,
            ask_resumed,
            pause,
            believes,
        }
    }
}

impl Fence {
    /// 9 bits.
    fn pack(&self, into: &mut Into64) {
        into.put(self.stage as u8 | self.target << 3 | self.boot << 5, 7);
        into.put(self.off as u8 | (self.said as u8) << 1, 2);
    }

    fn unpack(from: &mut From64) -> Fence {
        let stages = [Stage::Unused, Stage::Ordered, Stage::ByPower, Stage::ByLease, Stage::Closed];
        let stage = stages[from.take(3) as usize];
        Fence { stage, target: from.take(2), boot: from.take(2), off: from.flag(), said: from.flag() }
    }
}

/// Three words: nodes a and b; node c with what the world may still do; the ledger.
pub fn pack(s: &State) -> Key {
    let l = &s.ledger;
    let (mut first, mut second, mut third) = (Into64(0, 0), Into64(0, 0), Into64(0, 0));
    s.nodes[0].pack(&mut first);
    s.nodes[1].pack(&mut first);
    s.nodes[2].pack(&mut second);
    second.put(s.cut[0] as u8 | (s.cut[1] as u8) << 1 | (s.cut[2] as u8) << 2 | s.cuts << 3, 5);
    second.put(s.crashes | s.outages << 2 | s.lied << 4, 6);
    second.put(s.broken.s3 as u8 | (s.broken.s4 as u8) << 1 | (s.broken.s9 as u8) << 2, 3);
    second.put(l.via[0] as u8 | (l.via[1] as u8) << 2, 4);
    second.put(l.round.open as u8 | l.round.target << 1 | l.round.incarnation << 3 | l.round.answers << 5, 8);
    second.put(l.term | l.epoch << 2 | l.checks << 4, 7);
    third.put(l.holder[1] | l.holder[2] << 2 | l.holder[3] << 4 | (l.released as u8) << 6, 7);
    third.put(l.incarnation[0] | l.incarnation[1] << 2 | l.incarnation[2] << 4, 6);
    third.put(l.boot[0] | l.boot[1] << 2 | l.boot[2] << 4, 6);
    third.put(l.dead[0] as u8 | (l.dead[1] as u8) << 1 | (l.dead[2] as u8) << 2 | l.verdict_age << 3, 5);
    third.put(l.pause | (l.barred as u8) << 2, 3);
    l.fences.iter().for_each(|fence| fence.pack(&mut third));
    [first.0, second.0, third.0]
}

/// The state that `pack` made a key of.
pub fn unpack(key: &Key) -> State {
    let [mut first, mut second, mut third] = key.map(From64);
    let mut s = State {
        nodes: [Node::unpack(&mut first), Node::unpack(&mut first), Node::unpack(&mut second)],
        ..State::default()
    };
    s.cut = [second.flag(), second.flag(), second.flag()];
    (s.cuts, s.crashes, s.outages, s.lied) = (second.take(2), second.take(2), second.take(2), second.take(2));
    s.broken = Broken { s3: second.flag(), s4: second.flag(), s9: second.flag() };
    let vias = [Via::Nothing, Via::Release, Via::Power, Via::Lease];
    let l = &mut s.ledger;
    l.via = [vias[second.take(2) as usize], vias[second.take(2) as usize]];
    let open = second.flag();
    l.round = Round { open, target: second.take(2), incarnation: second.take(2), answers: second.take(3) };
    (l.term, l.epoch, l.checks) = (second.take(2), second.take(2), second.take(3));
    l.holder = [0, third.take(2), third.take(2), third.take(2)];
    l.released = third.flag();
    l.incarnation = [third.take(2), third.take(2), third.take(2)];
    l.boot = [third.take(2), third.take(2), third.take(2)];
    l.dead = [third.flag(), third.flag(), third.flag()];
    l.verdict_age = third.take(2);
    (l.pause, l.barred) = (third.take(2), third.flag());
    l.fences = [Fence::unpack(&mut third), Fence::unpack(&mut third), Fence::unpack(&mut third)];
    s
}
