//! What the ledger's unit tests stand on: two database nodes, a witness, one service, and every command in few words.
//! Every refusal is checked to have changed nothing but the records of refusals.

use super::{
    AgentSettings, Answer, Basis, CheckAnswer, Claim, ClaimState, Command, Entry, Event, FenceReason, Machine,
    NewOrder, NodeSettings, Refusal, Settings, Sighting, State, apply, set_voters,
};
use crate::config::{OnLapsed, PowerOn, Role};
use crate::types::{
    AgentAction, AgentKind, AgentOutcome, AgentRun, Boot, ChannelName, Epoch, FenceId, History, Incarnation, LogIndex,
    Lsn, NodeId, NodeName, PeerView, Position, Round, Seal, ServiceName, Sight, SystemId, Term, Timeline, WallTime,
};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) const SYSTEM: SystemId = SystemId(7_000_000_000_000_000_001);
/// The term of every entry, but where a test says otherwise.
pub(crate) const TERM: Term = Term(5);
/// The incarnations that `World::new` gives out.
pub(crate) const DB1: Incarnation = Incarnation(1);
pub(crate) const DB2: Incarnation = Incarnation(2);
pub(crate) const W1: Incarnation = Incarnation(3);
pub(crate) const FENCE: FenceId = FenceId(1);

pub(crate) fn node(name: &str) -> NodeName {
    name.parse().expect("a valid name")
}

pub(crate) fn orders() -> ServiceName {
    "orders".parse().expect("a valid name")
}

/// The n-th boot of a node.
pub(crate) fn boot(name: &str, n: u32) -> Boot {
    Boot(format!("{name}-boot-{n}").into())
}

pub(crate) fn at(timeline: u32, lsn: u64) -> Position {
    Position { timeline: Timeline(timeline), lsn: Lsn(lsn) }
}

pub(crate) fn machine(name: &str) -> Machine {
    let hardware = [format!("hardware of {name}")].into();
    Machine { id: format!("machine of {name}"), is_virtual: false, watchdog: Some(Duration::from_secs(5)), hardware }
}

/// Sealed reports of these nodes, all at the same place on timeline 1.
pub(crate) fn seals(names: &[&str]) -> BTreeMap<NodeName, Seal> {
    let seal = Seal { system: SYSTEM, history: History::default(), end: at(1, 1000), replayed: Lsn(1000) };
    names.iter().map(|name| (node(name), seal.clone())).collect()
}

/// One voter's sight of an incarnation: a letter a channel, `u`p, `l`ost or `b`lind.
pub(crate) fn sees(incarnation: Incarnation, sights: &str) -> Sighting {
    let names = ["primary", "secondary", "disk"].map(|c| c.parse::<ChannelName>().expect("valid"));
    let sight = |letter| match letter {
        'u' => Sight::Up,
        'l' => Sight::Lost,
        _ => Sight::Blind,
    };
    let channels = names.into_iter().zip(sights.chars().map(sight)).collect();
    let view = PeerView { boot: boot("db1", 1), incarnation, channels, database_alive: false };
    Sighting { view, silent_ms: BTreeMap::new() }
}

pub(crate) fn answers(of: &[(&str, Sighting)]) -> BTreeMap<NodeName, Sighting> {
    of.iter().map(|(name, s)| (node(name), s.clone())).collect()
}

/// The voters' answers to a check: all hold.
pub(crate) fn hold(names: &[&str]) -> BTreeMap<NodeName, CheckAnswer> {
    names.iter().map(|name| (node(name), CheckAnswer::Holds)).collect()
}

fn settings() -> Settings {
    let agent = |kind, everywhere| AgentSettings { kind, isolates: false, everywhere, timeout: Duration::from_secs(9) };
    let name = |text: &str| text.parse().expect("a valid name");
    let of = |id, role| NodeSettings { id: NodeId(id), role };
    Settings {
        nodes: BTreeMap::from([
            (node("db1"), of(1, Role::Database)),
            (node("db2"), of(2, Role::Database)),
            (node("w1"), of(3, Role::Witness)),
        ]),
        channels: ["primary", "secondary", "disk"].map(|c| c.parse().expect("valid")).into(),
        ttl: Duration::from_secs(5),
        drift_permille: 10,
        watchdog: Duration::from_secs(5),
        stop: Duration::from_secs(2),
        levels: vec![vec![name("ipmi")], vec![name("lease")], vec![name("switch")]],
        assist: vec![name("revoke")],
        agents: BTreeMap::from([
            (name("ipmi"), agent(AgentKind::Power, false)),
            (name("lease"), agent(AgentKind::Lease, false)),
            (name("switch"), agent(AgentKind::Network, false)),
            (name("revoke"), agent(AgentKind::Access, false)),
        ]),
        on_lapsed: OnLapsed::Alarm,
        power_on: PowerOn::Manual,
        lease_without_watchdog: false,
        lease_on_virtual_machine: false,
        services: BTreeMap::from([(orders(), true)]),
    }
}

/// A ledger under test.
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) term: Term,
    /// The time of day of what is applied.
    pub(crate) at: WallTime,
}

impl World {
    /// Three nodes have joined; db1 is the installed primary of `orders` in epoch 1, on timeline 1.
    pub(crate) fn new() -> World {
        World::with(machine("db1"), |_| {})
    }

    /// As `new`, with db1 on this machine and with changed settings.
    pub(crate) fn with(db1: Machine, change: impl FnOnce(&mut Settings)) -> World {
        let mut settings = settings();
        change(&mut settings);
        let mut world = World { state: State::default(), term: TERM, at: WallTime(0) };
        world.done(Command::Seed { settings: Box::new(settings) });
        let voters = [1, 2, 3].map(NodeId).into();
        set_voters(&mut world.state, LogIndex(2), vec![voters]);
        for (name, incarnation) in [("db1", DB1), ("db2", DB2), ("w1", W1)] {
            let machine = if name == "db1" { db1.clone() } else { machine(name) };
            let (node, boot, request) = (node(name), boot(name, 1), next_request());
            let join = Command::Join { node, boot, request, succeeds: None, machine, claims: BTreeMap::new() };
            assert_eq!(world.done(join), Event::Joined { incarnation });
        }
        world.done(Command::Create { service: orders(), node: node("db1"), boot: boot("db1", 1), incarnation: DB1 });
        world.done(installed(1, "db1", DB1, at(1, 100)));
        world
    }

    /// As `new`, and db1 was declared dead by the two others, to whom all channels are lost: fence 1 is open.
    pub(crate) fn dead() -> World {
        let mut world = World::new();
        world.declare_dead();
        world
    }

    /// As `dead`, and the power agent has confirmed.
    pub(crate) fn fenced() -> World {
        let mut world = World::dead();
        world.power_off();
        world
    }

    pub(crate) fn declare_dead(&mut self) {
        let lost = answers(&[("db2", sees(DB1, "lll")), ("w1", sees(DB1, "lll"))]);
        let declared = self.done(dead(DB1, TERM, lost));
        assert_eq!(declared, Event::Declared { target: node("db1"), fence: Some(FENCE) });
    }

    pub(crate) fn power_off(&mut self) {
        self.done(order("ipmi", AgentAction::Off, Some(0)));
        let ended = self.done(ended(0, AgentOutcome::Succeeded));
        assert_eq!(ended, Event::OrderEnded { fence: FENCE, confirmed: true });
    }

    fn apply(&mut self, command: Command) -> Answer {
        let entry = Entry { at: self.at, command };
        let index = LogIndex(self.state.applied.0 + 1);
        apply(&mut self.state, index, self.term, &entry)
    }

    /// Applies what must be accepted.
    pub(crate) fn done(&mut self, command: Command) -> Event {
        match self.apply(command.clone()) {
            Answer::Done(event) => event,
            Answer::Refused(refusal) => panic!("{command:?} was refused: {refusal}"),
        }
    }

    /// Applies what must be refused; nothing but the records of refusals may change.
    pub(crate) fn refused(&mut self, command: Command) -> Refusal {
        let before = self.state.clone();
        let Answer::Refused(refusal) = self.apply(command.clone()) else { panic!("{command:?} was accepted") };
        assert_eq!(self.state.refusals.back().map(|r| &r.refusal), Some(&refusal));
        let State { applied, refusals, incidents, .. } = self.state.clone();
        assert_eq!(self.state, State { applied, refusals, incidents, ..before }, "{refusal} changed the state");
        refusal
    }

    /// The epoch and its holder.
    pub(crate) fn primary(&self) -> (Epoch, NodeName) {
        let service = &self.state.services[&orders()];
        (service.epoch, service.holder.clone().expect("a service has a holder").node)
    }
}

pub(crate) fn join(name: &str, n: u32, claims: &[(u64, ClaimState)]) -> Command {
    let claims =
        claims.iter().map(|(epoch, state)| (orders(), Claim { epoch: Epoch(*epoch), state: *state })).collect();
    let (request, succeeds) = (next_request(), None);
    Command::Join { node: node(name), boot: boot(name, n), request, succeeds, machine: machine(name), claims }
}

/// Each join of a test is a need of its own.
fn next_request() -> u64 {
    thread_local!(static LAST: Cell<u64> = const { Cell::new(0) });
    LAST.set(LAST.get() + 1);
    LAST.get()
}

pub(crate) fn dead(incarnation: Incarnation, term: Term, answers: BTreeMap<NodeName, Sighting>) -> Command {
    Command::DeclareDead {
        target: node("db1"),
        incarnation,
        term,
        round: Round(1),
        answers,
        hearing: Default::default(),
    }
}

pub(crate) fn open_fence(name: &str, n: u32) -> Command {
    let reason = FenceReason::Operator { who: "the operator".to_owned() };
    Command::OpenFence { target: node(name), boot: boot(name, n), reason }
}

/// One order of fence 1, in its first round, run by w1.
pub(crate) fn order(agent: &str, action: AgentAction, level: Option<u32>) -> Command {
    let new = NewOrder { agent: agent.parse().expect("a valid name"), action, executor: node("w1") };
    Command::Order { fence: FENCE, term: TERM, level, round: 0, orders: vec![new] }
}

pub(crate) fn ended(order: u32, outcome: AgentOutcome) -> Command {
    let run = AgentRun { outcome, tries: 1, took: Duration::from_millis(10), output: String::new() };
    Command::OrderDone { fence: FENCE, order, run }
}

pub(crate) fn next_level(level: u32) -> Command {
    Command::NextLevel { fence: FENCE, term: TERM, level, round: 0, why: "it failed".to_owned() }
}

/// db2 for the epoch after `prior`, with its own sealed report.
pub(crate) fn appoint_db2(prior: u64, basis: Basis) -> Command {
    appoint("db2", 1, DB2, prior, basis)
}

pub(crate) fn appoint(name: &str, n: u32, incarnation: Incarnation, prior: u64, basis: Basis) -> Command {
    Command::Appoint {
        service: orders(),
        prior: Epoch(prior),
        node: node(name),
        boot: boot(name, n),
        incarnation,
        basis,
        seals: seals(&[name]),
        why: "it has most WAL".to_owned(),
    }
}

/// Fence 1, checked in the present term by these voters.
pub(crate) fn by_fence(checks: BTreeMap<NodeName, CheckAnswer>) -> Basis {
    Basis::Fenced { fence: FENCE, term: TERM, checks }
}

pub(crate) fn release(epoch: u64, n: u32, incarnation: Incarnation) -> Command {
    Command::Release {
        service: orders(),
        epoch: Epoch(epoch),
        node: node("db1"),
        boot: boot("db1", n),
        incarnation,
        position: Some(at(1, 1000)),
        lapsed: false,
        leaving: false,
        why: "its database ended".to_owned(),
    }
}

pub(crate) fn promoting(epoch: u64, name: &str, incarnation: Incarnation) -> Command {
    Command::Promoting { service: orders(), epoch: Epoch(epoch), node: node(name), incarnation, timeline: Timeline(2) }
}

pub(crate) fn installed(epoch: u64, name: &str, incarnation: Incarnation, position: Position) -> Command {
    Command::Installed {
        service: orders(),
        epoch: Epoch(epoch),
        node: node(name),
        incarnation,
        system: SYSTEM,
        position,
    }
}

/// The same of another service.
pub(crate) fn of_service(mut command: Command, other: &ServiceName) -> Command {
    match &mut command {
        Command::Create { service, .. }
        | Command::Appoint { service, .. }
        | Command::Promoting { service, .. }
        | Command::Installed { service, .. }
        | Command::Release { service, .. } => other.clone_into(service),
        other => panic!("{} is of no service here", other.name()),
    }
    command
}

pub(crate) fn pause() -> Command {
    Command::Pause { service: orders(), who: "the operator".to_owned(), why: None, lasts: None }
}

pub(crate) fn resume() -> Command {
    Command::Resume { service: orders(), who: "the operator".to_owned(), number: None }
}

pub(crate) fn renewed(resumed: u64) -> Command {
    Command::Renewed { service: orders(), epoch: Epoch(1), incarnation: DB1, resumed }
}
