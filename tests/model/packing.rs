//! How a state is packed into 256 bits, and unpacked.
//!
//! Not here: what the fields mean. `states_survive_packing` looks at both on every state of a scope.

use crate::search::Key;
use crate::state::{Agent, Ask, Deed, Fence, NoLease, Node, Order, Stage, State, Via};

/// Fields one after the other into one word.
struct Into64(u64, u32);

impl Into64 {
    fn put(&mut self, value: u8, bits: u32) {
        self.0 |= (value as u64) << self.1;
        self.1 += bits;
    }

    fn whole(self) -> u64 {
        assert!(self.1 <= 64, "a word has {} bits", self.1);
        self.0
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
    /// 30 bits, without what it is at as an executor.
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
            ..Node::default()
        }
    }

    /// 10 bits.
    fn pack_agent(&self, into: &mut Into64) {
        into.put(self.applied | (self.agent as u8) << 3 | self.agent_order << 6, 8);
        into.put(self.agent_left, 2);
    }

    fn unpack_agent(&mut self, from: &mut From64) {
        self.applied = from.take(3);
        let agents = [Agent::None, Agent::Asked, Agent::Warranted, Agent::Running, Agent::Succeeded, Agent::Failed];
        self.agent = agents[from.take(3) as usize];
        (self.agent_order, self.agent_left) = (from.take(2), from.take(2));
    }
}

impl Order {
    /// 9 bits.
    fn pack(&self, into: &mut Into64) {
        into.put(self.deed as u8 | self.about << 2 | self.executor << 4 | self.term << 6, 8);
        into.put(self.orphaned as u8, 1);
    }

    fn unpack(from: &mut From64) -> Order {
        let deed = [Deed::Nothing, Deed::Off, Deed::On][from.take(2) as usize];
        let (about, executor, term) = (from.take(2), from.take(2), from.take(2));
        Order { deed, about, executor, term, orphaned: from.flag() }
    }
}

impl Fence {
    /// 10 bits.
    fn pack(&self, into: &mut Into64) {
        into.put(self.stage as u8 | self.target << 3 | self.boot << 5, 7);
        into.put(self.off as u8 | (self.said as u8) << 1 | (self.was_heard as u8) << 2, 3);
    }

    fn unpack(from: &mut From64) -> Fence {
        let stages = [Stage::Unused, Stage::Ordered, Stage::ByPower, Stage::ByLease, Stage::Closed];
        let stage = stages[from.take(3) as usize];
        let (target, boot) = (from.take(2), from.take(2));
        Fence { stage, target, boot, off: from.flag(), said: from.flag(), was_heard: from.flag() }
    }
}

/// Four words: nodes a and b; node c with what the world may still do; the ledger; executors and orders.
pub fn pack(s: &State) -> Key {
    let l = &s.ledger;
    let mut words = [Into64(0, 0), Into64(0, 0), Into64(0, 0), Into64(0, 0)];
    let [first, second, third, fourth] = &mut words;
    s.nodes[0].pack(first);
    s.nodes[1].pack(first);
    s.nodes[2].pack(second);
    second.put(s.cut[0] as u8 | (s.cut[1] as u8) << 1 | (s.cut[2] as u8) << 2 | s.cuts << 3, 5);
    second.put(s.crashes | s.outages << 2 | (s.lied as u8) << 4, 5);
    second.put(s.steady[0] as u8 | (s.steady[1] as u8) << 1 | (s.steady[2] as u8) << 2, 3);
    second.put(l.via[0] as u8 | (l.via[1] as u8) << 3, 6);
    second.put(l.round.open as u8 | l.round.target << 1 | l.round.incarnation << 3 | l.round.answers << 5, 8);
    second.put(l.term | l.epoch << 2, 4);
    second.put(l.denied as u8 | (l.own as u8) << 1 | (l.granted as u8) << 2, 3);
    third.put(l.holder[1] | l.holder[2] << 2 | l.holder[3] << 4 | (l.released as u8) << 6, 7);
    third.put(l.incarnation[0] | l.incarnation[1] << 2 | l.incarnation[2] << 4, 6);
    third.put(l.boot[0] | l.boot[1] << 2 | l.boot[2] << 4, 6);
    third.put(l.dead[0] as u8 | (l.dead[1] as u8) << 1 | (l.dead[2] as u8) << 2 | l.verdict_age << 3, 5);
    third.put(l.pause | (l.barred as u8) << 2 | l.checks << 3 | (l.round.stale as u8) << 6, 7);
    l.fences.iter().for_each(|fence| fence.pack(third));
    s.nodes.iter().for_each(|node| node.pack_agent(fourth));
    l.orders.iter().for_each(|order| order.pack(fourth));
    fourth.put(l.ordered | (l.running as u8) << 2 | l.order_age << 3, 5);
    let b = &s.broken;
    let early = b.s3 as u8 | (b.s4 as u8) << 1;
    first.put(early, 2);
    first.put(l.passes as u8, 2);
    third.put(b.s8 as u8 | (b.s9 as u8) << 1 | (b.order as u8) << 2, 3);
    words.map(|word| word.whole())
}

/// The state that `pack` made a key of.
pub fn unpack(key: &Key) -> State {
    let [mut first, mut second, mut third, mut fourth] = key.map(From64);
    let mut s = State {
        nodes: [Node::unpack(&mut first), Node::unpack(&mut first), Node::unpack(&mut second)],
        ..State::default()
    };
    s.cut = [second.flag(), second.flag(), second.flag()];
    (s.cuts, s.crashes, s.outages, s.lied) = (second.take(2), second.take(2), second.take(2), second.flag());
    s.steady = [second.flag(), second.flag(), second.flag()];
    let vias = [Via::Nothing, Via::Release, Via::Power, Via::Lease, Via::Unheard, Via::PassedOver];
    let l = &mut s.ledger;
    l.via = [vias[second.take(3) as usize], vias[second.take(3) as usize]];
    l.round.open = second.flag();
    (l.round.target, l.round.incarnation, l.round.answers) = (second.take(2), second.take(2), second.take(3));
    (l.term, l.epoch) = (second.take(2), second.take(2));
    (l.denied, l.own, l.granted) = (second.flag(), second.flag(), second.flag());
    l.holder = [0, third.take(2), third.take(2), third.take(2)];
    l.released = third.flag();
    l.incarnation = [third.take(2), third.take(2), third.take(2)];
    l.boot = [third.take(2), third.take(2), third.take(2)];
    l.dead = [third.flag(), third.flag(), third.flag()];
    l.verdict_age = third.take(2);
    (l.pause, l.barred, l.checks, l.round.stale) = (third.take(2), third.flag(), third.take(3), third.flag());
    l.fences = [Fence::unpack(&mut third), Fence::unpack(&mut third), Fence::unpack(&mut third)];
    s.nodes.iter_mut().for_each(|node| node.unpack_agent(&mut fourth));
    l.orders = [Order::unpack(&mut fourth), Order::unpack(&mut fourth), Order::unpack(&mut fourth)];
    (l.ordered, l.running, l.order_age) = (fourth.take(2), fourth.flag(), fourth.take(2));
    (s.broken.s3, s.broken.s4) = (first.flag(), first.flag());
    s.ledger.passes = [NoLease::Unsaid, NoLease::Never, NoLease::Waited][first.take(2) as usize];
    (s.broken.s8, s.broken.s9, s.broken.order) = (third.flag(), third.flag(), third.flag());
    s
}
