//! One value of every command, refusal and kind of step, and a state in which nothing is empty: what `encoding.rs`
//! writes down. The values mean nothing together.
//!
//! Written without `..`: a new field does not compile before somebody has thought of its written form.

use regent::config::{OnLapsed, PowerOn, Role};
use regent::ledger::{
    AcceptedCopy, AcceptedLoss, AgentSettings, Basis, Begun, Cause, CheckAnswer, Claim, ClaimState, Claimed, Command,
    Confirmation, CopyOrder, EpochRecord, Fence, FenceReason, FenceState, Happening, Holder, Incident, IncidentKind,
    Life, Machine, Maintenance, Move, NewOrder, NoLease, NodeRecord, NodeSettings, Order, OrderState, Outcome, Over,
    Pause, Phase, Refusal, Refused, RestartOrder, Service, Settings, Sighting, State, StepRecord,
};
use regent::types::{
    AgentAction, AgentKind, AgentName, AgentOutcome, AgentRun, Boot, ChannelName, Epoch, FenceId, History, Incarnation,
    IncidentId, LogIndex, Lsn, NodeId, NodeName, PeerView, Position, Round, Seal, ServiceName, Sight, SystemId, Term,
    Timeline, WallTime,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const AT: WallTime = WallTime(1_700_000_000_000);
const EPOCH: Epoch = Epoch(4);
const FENCE: FenceId = FenceId(5);
const INCIDENT: IncidentId = IncidentId(6);
const LIFE: Incarnation = Incarnation(7);
const TERM: Term = Term(8);
const ROUND: Round = Round(9);
const SYSTEM: SystemId = SystemId(7_000_000_000_000_000_001);
const END: Position = Position { timeline: Timeline(2), lsn: Lsn(0x1_0000_0028) };

fn db1() -> NodeName {
    "db1".parse().expect("valid")
}

fn orders() -> ServiceName {
    "orders".parse().expect("valid")
}

fn ipmi() -> AgentName {
    "ipmi".parse().expect("valid")
}

fn disk() -> ChannelName {
    "disk".parse().expect("valid")
}

fn boot() -> Boot {
    Boot("boot-1".into())
}

fn why() -> String {
    "why".to_owned()
}

fn who() -> String {
    "the operator".to_owned()
}

pub fn machine() -> Machine {
    Machine {
        id: "machine-1".to_owned(),
        is_virtual: true,
        watchdog: Some(Duration::from_millis(5500)),
        hardware: ["part-1".to_owned(), "part-2".to_owned()].into(),
    }
}

fn sighting() -> Sighting {
    let channels = ["disk", "primary", "secondary"].map(|name| name.parse().expect("valid"));
    let channels = channels.into_iter().zip([Sight::Up, Sight::Lost, Sight::Blind]).collect();
    let view = PeerView { boot: boot(), incarnation: LIFE, channels, database_alive: true };
    Sighting { view, silent_ms: BTreeMap::from([(disk(), 10)]) }
}

fn answers() -> BTreeMap<NodeName, Sighting> {
    BTreeMap::from([(db1(), sighting())])
}

fn run() -> AgentRun {
    AgentRun {
        outcome: AgentOutcome::Failed { status: 3 },
        tries: 2,
        took: Duration::from_millis(1500),
        output: "no".to_owned(),
    }
}

fn seal() -> Seal {
    Seal { system: SYSTEM, history: History(vec![END]), end: END, replayed: Lsn(8) }
}

pub fn check_answers() -> [CheckAnswer; 2] {
    [CheckAnswer::Holds, CheckAnswer::Refuted { channel: disk(), what: "it beats".to_owned() }]
}

fn checks() -> BTreeMap<NodeName, CheckAnswer> {
    let names = ["db1", "db2"].map(|name| name.parse().expect("valid"));
    names.into_iter().zip(check_answers()).collect()
}

pub fn claim_states() -> [ClaimState; 2] {
    [ClaimState::Adopted, ClaimState::Over { position: Some(END) }]
}

pub fn fence_reasons() -> [FenceReason; 2] {
    [FenceReason::Operator { who: who() }, FenceReason::Lapsed { service: orders(), epoch: EPOCH, term: TERM }]
}

pub fn bases() -> [Basis; 3] {
    [Basis::Released, Basis::PassedOver, Basis::Fenced { fence: FENCE, term: TERM, checks: checks() }]
}

pub fn causes() -> [Cause; 3] {
    [Cause::Verdict { term: TERM, round: ROUND }, Cause::Lapse { term: TERM }, Cause::Order]
}

pub fn confirmations() -> [Confirmation; 2] {
    [
        Confirmation::Level { level: 1, round: 2, kinds: [AgentKind::Power].into() },
        Confirmation::Human { who: who(), force: true },
    ]
}

pub fn phases() -> [Phase; 4] {
    [Phase::Creating, Phase::Appointed, Phase::Promoting { timeline: Timeline(3) }, Phase::Installed]
}

pub fn order_states() -> [OrderState; 2] {
    [OrderState::Running, OrderState::Done { run: run() }]
}

pub fn outcomes() -> [Outcome; 4] {
    [
        Outcome::Open,
        Outcome::Moved { to: db1(), epoch: EPOCH },
        Outcome::Stayed { on: db1(), epoch: EPOCH },
        Outcome::Ended { why: why() },
    ]
}

pub fn ends() -> [Over; 2] {
    [Over::Released { position: Some(END), at_join: true, lapsed: true, leaving: true }, Over::PassedOver]
}

pub fn settings() -> Settings {
    let agent = AgentSettings {
        kind: AgentKind::Power,
        isolates: true,
        everywhere: false,
        timeout: Duration::from_millis(20_500),
    };
    Settings {
        nodes: BTreeMap::from([(db1(), NodeSettings { id: NodeId(1), role: Role::Database })]),
        channels: [disk()].into(),
        ttl: Duration::from_secs(8),
        drift_permille: 101,
        watchdog: Duration::from_secs(5),
        stop: Duration::from_secs(2),
        levels: vec![vec![ipmi()]],
        assist: vec!["revoke".parse().expect("valid")],
        agents: BTreeMap::from([(ipmi(), agent)]),
        on_lapsed: OnLapsed::Alarm,
        power_on: PowerOn::Auto,
        lease_without_watchdog: false,
        lease_on_virtual_machine: true,
        services: BTreeMap::from([(orders(), true)]),
    }
}

/// Every command.
pub fn commands() -> Vec<Command> {
    let (service, node, boot, incarnation, epoch) = (orders(), db1(), boot(), LIFE, EPOCH);
    let claim = Claim { epoch, state: ClaimState::Over { position: Some(END) } };
    let [operator, _] = fence_reasons();
    let [_, _, fenced] = bases();
    let mut commands = fence_commands();
    commands.extend([
        Command::Seed { settings: Box::new(settings()) },
        Command::Join {
            node: node.clone(),
            boot: boot.clone(),
            request: 10,
            succeeds: Some(LIFE),
            machine: machine(),
            claims: BTreeMap::from([(service.clone(), claim)]),
        },
        Command::DeclareDead {
            target: node.clone(),
            incarnation,
            term: TERM,
            round: ROUND,
            answers: answers(),
            hearing: [db1()].into(),
        },
        Command::OpenFence { target: node.clone(), boot: boot.clone(), reason: operator },
        Command::Create { service: service.clone(), node: node.clone(), boot: boot.clone(), incarnation },
        Command::Appoint {
            service: service.clone(),
            prior: epoch,
            node: node.clone(),
            boot: boot.clone(),
            incarnation,
            basis: fenced,
            seals: BTreeMap::from([(node.clone(), seal())]),
            why: why(),
        },
        Command::Promoting { service: service.clone(), epoch, node: node.clone(), incarnation, timeline: Timeline(3) },
        Command::Installed {
            service: service.clone(),
            epoch,
            node: node.clone(),
            incarnation,
            system: SYSTEM,
            position: END,
        },
        Command::Release {
            service: service.clone(),
            epoch,
            node: node.clone(),
            boot,
            incarnation,
            position: Some(END),
            lapsed: true,
            leaving: true,
            why: why(),
        },
        Command::DenyLease { service: service.clone(), epoch },
        Command::PassOver { service: service.clone(), epoch, term: TERM, no_lease: NoLease::NeverGranted },
        Command::WaitedOut { service: service.clone(), epoch, boot: Boot("boot-0".into()) },
    ]);
    commands.extend(course_commands());
    commands
}

/// How far a service is, and what people want of it.
fn course_commands() -> Vec<Command> {
    let (service, node, incarnation, epoch) = (orders(), db1(), LIFE, EPOCH);
    vec![
        Command::Progress { service: service.clone(), epoch, end: END },
        Command::AcceptLoss { service: service.clone(), epoch, to: Some(node.clone()), bytes: Some(4096), who: who() },
        Command::Reinit { service: service.clone(), epoch, node: node.clone(), who: who(), cancel: true },
        Command::Restart { service: service.clone(), epoch, node: node.clone(), who: who(), cancel: true },
        Command::Restarted { service: service.clone(), node: node.clone(), order: 1 },
        Command::AcceptCopy {
            service: service.clone(),
            epoch,
            node: Some(node.clone()),
            bytes: Some(4096),
            who: who(),
        },
        Command::Switchover { service: service.clone(), epoch, to: Some(node.clone()), who: who() },
        Command::CancelSwitchover { service: service.clone(), epoch, why: why() },
        Command::Maintenance { node: node.clone(), who: who(), lasts: Some(Duration::from_secs(60)) },
        Command::EndMaintenance { node: node.clone(), number: Some(3), who: who() },
        Command::Forgive { node: node.clone(), failures: 2 },
        Command::Pause { service: service.clone(), who: who(), why: None, lasts: None },
        Command::Pause { service: service.clone(), who: who(), why: Some(why()), lasts: Some(Duration::from_secs(60)) },
        Command::Resume { service: service.clone(), who: who(), number: None },
        Command::Resume { service: service.clone(), who: who(), number: Some(3) },
        Command::Renewed { service: service.clone(), epoch, incarnation, resumed: 11 },
        Command::Rejoined {
            service,
            epoch,
            node,
            how: "rewind".to_owned(),
            kept: Some("a folder".to_owned()),
            order: Some(2),
        },
    ]
}

fn fence_commands() -> Vec<Command> {
    let (fence, node, incarnation) = (FENCE, db1(), LIFE);
    let order = NewOrder { agent: ipmi(), action: AgentAction::Off, executor: db1() };
    vec![
        Command::Order { fence, term: TERM, level: Some(1), round: 2, orders: vec![order] },
        Command::OrderDone { fence, order: 3, run: run() },
        Command::NextLevel { fence, term: TERM, level: 1, round: 2, why: why() },
        Command::HumanConfirm { incident: INCIDENT, target: node.clone(), who: who(), force: false },
        Command::Refute {
            fence,
            level: Some(1),
            round: 2,
            refuted: 3,
            by: node.clone(),
            channel: disk(),
            what: "it beats".to_owned(),
            struck: Some(node.clone()),
        },
        Command::Assisting { fence, agent: ipmi(), node: node.clone(), incarnation },
        Command::Assisted { fence, agent: ipmi(), node: node.clone(), action: AgentAction::On, run: run() },
        Command::Lift { fence, who: who(), power_on: true },
        Command::CloseFence { fence },
    ]
}

/// Every refusal.
pub fn refusals() -> Vec<Refusal> {
    let (service, node, epoch, fence, term) = (orders, db1, EPOCH, FENCE, TERM);
    vec![
        Refusal::NotSeeded,
        Refusal::AlreadySeeded,
        Refusal::UnknownNode { node: node() },
        Refusal::UnknownService { service: service() },
        Refusal::OtherMachine { node: node(), machine: "machine-2".to_owned() },
        Refusal::EpochElsewhere { node: node(), service: service(), epoch },
        Refusal::TwoMachines { node: node(), boot: boot(), other: Boot("boot-2".into()) },
        Refusal::OldBoot { node: node(), boot: boot() },
        Refusal::SpentJoin { node: node() },
        Refusal::ClaimMissing { node: node(), service: service(), epoch },
        Refusal::CannotAdopt { service: service(), epoch, why: why() },
        Refusal::OldIncarnation { node: node(), incarnation: LIFE },
        Refusal::AlreadyDead { node: node() },
        Refusal::OldTerm { based_on: Term(1), term },
        Refusal::SpentRound { term, round: ROUND },
        Refusal::NoDoubleMajority { node: node(), suspecting: 1 },
        Refusal::UnknownFence { fence },
        Refusal::FenceState { fence, state: "open".to_owned() },
        Refusal::OldLevel { fence },
        Refusal::UnknownAgent { agent: ipmi() },
        Refusal::OppositeOrder { node: node() },
        Refusal::LeaseProvesNothing { node: node(), why: why() },
        Refusal::NotThatIncident { incident: INCIDENT, node: node() },
        Refusal::ShowsLife { node: node(), what: "it beats".to_owned() },
        Refusal::OldEpoch { service: service(), epoch, current: Epoch(5) },
        Refusal::EpochNotOver { service: service(), epoch },
        Refusal::NotFenced { fence, epoch },
        Refusal::NotChecked { fence, missing: "db2".to_owned() },
        Refusal::CheckRefuted { fence, node: node(), what: "it beats".to_owned() },
        Refusal::NotEligible { node: node(), why: why() },
        Refusal::NotHolder { service: service(), epoch, node: node() },
        Refusal::TimelineTaken { service: service(), timeline: Timeline(3) },
        Refusal::Paused { service: service() },
        Refusal::NotPaused { service: service() },
        Refusal::AlreadyMoving { service: service() },
        Refusal::NoPrimary { service: service() },
        Refusal::Exists { service: service(), epoch },
        Refusal::NotAllowed { why: why() },
    ]
}

/// Every kind of step.
pub fn happenings() -> Vec<Happening> {
    let (service, node, epoch, fence) = (orders, db1, EPOCH, FENCE);
    let (agent, action, executor, round) = (ipmi, AgentAction::Off, db1, 2);
    vec![
        Happening::DeclaredDead { target: node(), incarnation: LIFE, round: ROUND, answers: answers() },
        Happening::FenceOpened { fence, target: node(), boot: boot(), why: why() },
        Happening::Ordered { fence, order: 3, agent: agent(), action, executor: executor(), level: Some(1) },
        Happening::AgentEnded {
            fence,
            agent: agent(),
            action,
            executor: executor(),
            outcome: AgentOutcome::Succeeded,
            took_ms: 12,
            tries: 1,
            output: "off".to_owned(),
        },
        Happening::LevelFailed { fence, level: 1, round, why: why() },
        Happening::FenceConfirmed { fence, how: "level 1".to_owned() },
        Happening::FenceRefuted { fence, by: node(), channel: disk(), what: "it beats".to_owned() },
        Happening::FenceVoid { fence, why: why() },
        Happening::FenceLifting { fence, who: who() },
        Happening::FenceClosed { fence },
        Happening::SwitchoverAsked { service: service(), epoch, to: Some(node()), who: who() },
        Happening::SwitchoverCancelled { service: service(), why: why() },
        Happening::Released { service: service(), epoch, node: node(), position: Some(END), why: why() },
        Happening::PassedOver { service: service(), epoch, node: node(), no_lease: NoLease::Waited },
        Happening::Appointed {
            service: service(),
            epoch,
            node: node(),
            basis: "fence 5".to_owned(),
            positions: BTreeMap::from([(node(), END)]),
            checks: checks(),
            why: why(),
        },
        Happening::MayBeLost {
            service: service(),
            epoch,
            node: node(),
            timeline: Timeline(2),
            after: Lsn(9),
            by: node(),
        },
        Happening::Promoting { service: service(), epoch, node: node(), timeline: Timeline(3) },
        Happening::Installed { service: service(), epoch, node: node(), position: END },
        Happening::Joined { node: node(), boot: boot(), incarnation: LIFE },
        Happening::Rejoined { node: node(), how: "clone".to_owned(), kept: Some("a folder".to_owned()) },
        Happening::LossAccepted { service: service(), to: Some(db1()), bytes: Some(4096), who: who() },
        Happening::CopyAccepted { service: service(), node: node(), bytes: Some(4096), who: who() },
        Happening::CopyTakenBack { service: service(), node: node(), who: who() },
        Happening::Paused { service: service(), who: who() },
        Happening::Resumed { service: service(), who: who() },
        Happening::Refused { command: "Appoint".to_owned(), refusal: Refusal::Paused { service: service() } },
    ]
}

fn service() -> Service {
    let [released, _] = ends();
    Service {
        epoch: EPOCH,
        holder: Some(Holder { node: db1(), boot: boot(), incarnation: LIFE }),
        appointed_in: TERM,
        denied: true,
        phase: Phase::Installed,
        over: Some(released),
        machine: machine(),
        claimed: Some(Claimed { by: LIFE, position: Some(END) }),
        system: Some(SYSTEM),
        timeline: Timeline(2),
        begun: BTreeMap::from([(Timeline(3), Begun { epoch: EPOCH, node: db1(), after: Lsn(9) })]),
        failed: BTreeMap::from([(db1(), 1)]),
        final_end: Some(END),
        known_end: Some(END),
        accepted_loss: Some(AcceptedLoss { to: Some(db1()), who: who() }),
        accepted_copy: Some(AcceptedCopy {
            node: db1(),
            number: 2,
            who: who(),
            bytes: Some(4096),
            appointed: Some(EPOCH),
        }),
        to_copy: BTreeMap::from([(db1(), CopyOrder { number: 1, who: who() })]),
        copy_orders: 2,
        to_restart: BTreeMap::from([(db1(), RestartOrder { number: 1, who: who() })]),
        restart_orders: 1,
        sealed_at: Lsn(9),
        moving: Some(Move { to: Some(db1()), incident: INCIDENT }),
        paused: true,
        pause: Some(Pause { number: 4, who: who(), why: Some(why()), lasts: Some(Duration::from_secs(60)) }),
        unproven_resume: Some(11),
        history: vec![EpochRecord { epoch: EPOCH, node: db1(), start: END }],
        incident: Some(INCIDENT),
    }
}

fn fence() -> Fence {
    let [_, done] = order_states();
    let [level, _] = confirmations();
    let order = Order {
        number: 3,
        agent: ipmi(),
        action: AgentAction::Off,
        executor: db1(),
        executor_incarnation: LIFE,
        term: TERM,
        level: Some(1),
        round: 2,
        state: done,
    };
    Fence {
        id: FENCE,
        target: db1(),
        boot: boot(),
        incident: INCIDENT,
        cause: Cause::Order,
        epochs: BTreeMap::from([(orders(), EPOCH)]),
        state: FenceState::Confirmed,
        level: 1,
        round: 2,
        orders: vec![order],
        on_failed: 3,
        confirmed: Some(level),
        heard_by: BTreeMap::from([(db1(), LIFE)]),
        assisted: BTreeMap::from([(db1(), BTreeSet::from([ipmi()]))]),
        used: true,
        stays_off: false,
        without_power_at: 0,
        refuted: 1,
        all_levels_from: Some(2),
        lease_refuted: true,
        struck: BTreeMap::from([(1, db1())]),
        checks: checks(),
        last_life: Some(disk()),
    }
}

/// A state with something in every field.
pub fn state() -> State {
    let node = NodeRecord {
        boot: boot(),
        incarnation: LIFE,
        machine: machine(),
        life: Life::Up,
        past_boots: [Boot("boot-0".into())].into(),
        request: 10,
        failures: 2,
    };
    let incident = Incident {
        id: INCIDENT,
        kind: IncidentKind::Switchover,
        subject: db1(),
        services: [orders()].into(),
        settled: [orders()].into(),
        opened: AT,
        outcome: Outcome::Open,
        steps: vec![StepRecord { at: AT, index: LogIndex(12), what: Happening::FenceClosed { fence: FENCE } }.into()],
        forgotten: 4,
    };
    let refused = Refused { index: LogIndex(12), at: AT, command: "Lift".to_owned(), refusal: Refusal::NotSeeded };
    State {
        settings: Some(settings().into()),
        voters: vec![[NodeId(1), NodeId(2)].into()],
        nodes: BTreeMap::from([(db1(), node.into())]),
        services: BTreeMap::from([(orders(), service().into())]),
        fences: BTreeMap::from([(FENCE, fence().into())]),
        incidents: BTreeMap::from([(INCIDENT, incident.into())]),
        refusals: [refused.into()].into(),
        last_incarnation: LIFE,
        rounds: BTreeMap::from([(db1(), (TERM, ROUND))]),
        last_fence: FENCE,
        last_incident: INCIDENT,
        resumes: 11,
        maintenance: BTreeMap::from([(
            db1(),
            Maintenance { number: 3, who: who(), lasts: Some(Duration::from_secs(60)) },
        )]),
        maintenances: 3,
        applied: LogIndex(13),
    }
}
