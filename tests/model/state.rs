//! What the model knows of the world and of the ledger at one moment.
//!
//! Not here: what may happen next, and how a state is packed. Three nodes a, b and c, all voters, all with a database;
//! one service. Time is a number of ticks that are left of something, never a date.

pub const NODES: [usize; 3] = [0, 1, 2];
/// The ticks for which a holder may use a lease, from before it asked.
pub const TTL: u8 = 2;
/// The ticks after which everybody else takes it for ended: one more, for the watchdog and the stop ladder.
pub const WAIT: u8 = TTL + 1;
/// The ticks for which an agent may run, from before its executor asked or its leader proposed the order; and the ticks
/// after which the ledger may end an order without a word of its executor. They are one number here: no slack helps.
pub const ORDER: u8 = 2;

/// A lease request on its way, or its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ask {
    #[default]
    None,
    Sent,
    Granted,
}

/// What the executor of an order is at: the question for its warrant, the agent, the agent's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Agent {
    #[default]
    None,
    /// It asked whether the order still runs, and how old it is.
    Asked,
    /// The answer is there, or on its way. A leader's own proposal is such an answer.
    Warranted,
    Running,
    /// The agent has ended; that word is on its way to the ledger.
    Succeeded,
    Failed,
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
    /// As executor: how far its own copy of the ledger is, in beginnings and ends of orders.
    pub applied: u8,
    pub agent: Agent,
    /// The number of the order that the agent is about.
    pub agent_order: u8,
    /// The ticks for which the agent may run yet, or would if it began now.
    pub agent_left: u8,
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
    /// Without executors: the device may still execute `off`.
    pub off: bool,
    /// Without executors: the agent has said that it succeeded; that word is on its way to the ledger.
    pub said: bool,
    /// When its first order was proposed, one of the two others had heard the target for a whole tick.
    pub was_heard: bool,
}

/// What a device is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Deed {
    #[default]
    Nothing,
    Off,
    On,
}

/// One order of the ledger to one executor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Order {
    pub deed: Deed,
    /// `Off`: the fence. `On`: the node.
    pub about: u8,
    pub executor: u8,
    /// The incarnation that was to execute it is gone.
    pub orphaned: bool,
    /// The term of the leader that proposed it.
    pub term: u8,
}

/// The round in which voters look again, or the proposal that carries its answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Round {
    pub open: bool,
    pub target: u8,
    pub incarnation: u8,
    /// One bit a voter.
    pub answers: u8,
    /// A tick has passed since it began, or another leader has come.
    pub stale: bool,
}

/// Why a holder surely has no lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum NoLease {
    #[default]
    Unsaid,
    /// It was never granted one.
    Never,
    /// It was waited for.
    Waited,
}

/// How an epoch came to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Via {
    #[default]
    Nothing,
    Release,
    Power,
    Lease,
    /// By power, and the device had lied: the node was on, and nobody could hear that.
    Unheard,
    /// Its predecessor's holder was denied its lease, and released nothing that the model told apart.
    PassedOver,
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
    /// The holder of the present epoch gets no lease any more.
    pub denied: bool,
    /// The leader that appointed it leads still, in the same term, and whether it has granted it a lease since.
    pub own: bool,
    pub granted: bool,
    /// Why it is to be passed over: proposed, and not committed yet.
    pub passes: NoLease,
    pub round: Round,
    /// 0 never paused, 1 paused, 2 resumed.
    pub pause: u8,
    /// The wait for the lease proves nothing: since the pause, until the holder has renewed after the resume.
    pub barred: bool,
    /// How epochs 2 and 3 began.
    pub via: [Via; 2],
    /// With executors. One order runs at a time: the last one, or none.
    pub orders: [Order; 3],
    pub ordered: u8,
    pub running: bool,
    /// Ticks since the last order, up to `ORDER`.
    pub order_age: u8,
}

/// Rules about single steps that were broken once: they are remembered here, because the states afterwards do not show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Broken {
    pub s3: bool,
    pub s4: bool,
    pub s8: bool,
    pub s9: bool,
    /// A device acted for an order that did not run.
    pub order: bool,
}

/// Everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct State {
    pub nodes: [Node; 3],
    /// Whether the link of each pair is cut: ab, ac, bc.
    pub cut: [bool; 3],
    /// Whether the two of each pair have heard each other, or have not, for a whole tick without a break. Counted only
    /// where somebody asks.
    pub steady: [bool; 3],
    /// How many faults of each kind may still happen.
    pub cuts: u8,
    pub crashes: u8,
    pub outages: u8,
    /// A device has lied.
    pub lied: bool,
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

    /// Whether the two have heard each other for a whole tick without a break.
    pub fn heard_steadily(&self, a: usize, b: usize) -> bool {
        self.linked(a, b) && self.steady[pair(a, b)]
    }

    /// The number and the order that run.
    pub fn running(&self) -> Option<(u8, &Order)> {
        let l = &self.ledger;
        l.running.then(|| (l.ordered, &l.orders[l.ordered as usize - 1]))
    }

    /// The order that runs by this node's own copy of the ledger.
    pub fn running_by_the_copy_of(&self, n: usize) -> Option<(u8, &Order)> {
        let applied = self.nodes[n].applied;
        let number = applied.div_ceil(2);
        (applied % 2 == 1).then(|| (number, &self.ledger.orders[number as usize - 1]))
    }

    /// The node that an order is about.
    pub fn target(&self, order: &Order) -> usize {
        match order.deed {
            Deed::On => order.about as usize,
            Deed::Off | Deed::Nothing => self.ledger.fences[order.about as usize].target as usize,
        }
    }

    /// The ledger ends the order that runs.
    pub fn end_order(&mut self) {
        (self.ledger.running, self.ledger.order_age) = (false, 0);
    }

    /// How many beginnings and ends of orders the ledger has seen.
    pub fn order_steps(&self) -> u8 {
        (2 * self.ledger.ordered).saturating_sub(u8::from(self.ledger.running))
    }

    /// This epoch was ended by a device that lied while nobody could tell. What its holder does under it is excused, which
    /// its lease ends; what anybody does under another is not.
    pub fn ended_unheard(&self, epoch: u8) -> bool {
        epoch > 0 && epoch < self.ledger.epoch && self.ledger.via[epoch as usize - 1] == Via::Unheard
    }

    /// Forgets what can have no effect any more, so that states which differ only in that are one.
    pub fn tidied(mut self) -> State {
        for node in &mut self.nodes {
            if !node.on {
                let Node { boot, term, tomb, pause, applied, .. } = *node;
                *node = Node { boot, term, tomb, pause, applied, ..Node::default() };
            }
            if node.lease_left == 0 {
                node.lease_epoch = 0;
            }
            if node.ask == Ask::None {
                (node.ask_epoch, node.ask_age, node.ask_resumed) = (0, 0, false);
            }
        }
        self.forget_orders();
        for id in 0..3 {
            let orders = &self.ledger.orders;
            let is_ordered = orders.iter().any(|order| order.deed == Deed::Off && order.about as usize == id);
            let fence = &mut self.ledger.fences[id];
            if fence.stage == Stage::Closed && !fence.off && !fence.said && !is_ordered {
                (fence.target, fence.boot, fence.was_heard) = (0, 0, false);
            }
        }
        self
    }

    /// An order has no effect any more once its executor's copy is past its end, or that incarnation is gone, and no
    /// agent is left of it.
    fn forget_orders(&mut self) {
        let steps = self.order_steps();
        for order in &mut self.ledger.orders {
            order.orphaned |= order.deed != Deed::Nothing && !self.nodes[order.executor as usize].up;
        }
        for n in NODES {
            let concerns =
                |order: &Order| order.executor as usize == n && !order.orphaned && order.deed != Deed::Nothing;
            while self.nodes[n].applied < steps && !concerns(&self.ledger.orders[self.nodes[n].applied as usize / 2]) {
                self.nodes[n].applied += 1;
            }
            if self.nodes[n].agent == Agent::None {
                (self.nodes[n].agent_order, self.nodes[n].agent_left) = (0, 0);
            }
            if matches!(self.nodes[n].agent, Agent::Succeeded | Agent::Failed) {
                self.nodes[n].agent_left = 0;
            }
        }
        for number in 1..=3 {
            let runs = self.ledger.running && self.ledger.ordered == number;
            let order = self.ledger.orders[number as usize - 1];
            let executor = &self.nodes[order.executor as usize];
            let in_effect = runs || executor.applied < 2 * number || executor.agent_order == number;
            if !in_effect {
                self.ledger.orders[number as usize - 1] = Order::default();
            }
        }
    }
}
