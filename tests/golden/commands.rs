//! From a line of a story to a command of the ledger. What a line leaves out is the present: the present boot and
//! incarnation of the node, the present epoch, term, level and round, the last fence.

use crate::story::Line;
use regent::ledger::{
    Basis, CheckAnswer, Claim, ClaimState, Command, FenceReason, Machine, NewOrder, NoLease, Phase, Service, Settings,
    Sighting, State,
};
use regent::types::{
    AgentAction, AgentOutcome, AgentRun, Boot, ChannelName, Epoch, FenceId, History, Incarnation, IncidentId, Leaving,
    Lsn, NodeName, PeerView, Position, Round, Seal, ServiceName, Sight, SystemId, Term, Timeline,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

static NEXT_REQUEST: AtomicU64 = AtomicU64::new(1_000_000);

pub const SYSTEM: SystemId = SystemId(7_000_000_000_000_000_001);

pub fn orders() -> ServiceName {
    "orders".parse().expect("a constant, valid name")
}

/// The n-th boot of a node.
pub fn boot(node: &NodeName, n: u64) -> Boot {
    Boot(format!("{node}-boot-{n}").into())
}

/// `2:0/1000`.
pub fn position(line: &Line, text: &str) -> Position {
    let (timeline, lsn) = text.split_once(':').unwrap_or_else(|| line.fail("expected a position as 1:0/1000"));
    Position { timeline: Timeline(line.parse(timeline)), lsn: line.parse(lsn) }
}

/// A position that a node can be at: each timeline before its own was left at 0/1000 times its number. `2:0/3000~0/2000`:
/// replayed up to there only.
pub fn seal(line: &Line, text: &str) -> Seal {
    let (text, system) = match text.split_once('!') {
        Some((text, system)) => (text, SystemId(line.parse(system))),
        None => (text, SYSTEM),
    };
    let (text, replayed) = text.split_once('~').map_or((text, None), |(end, replayed)| (end, Some(replayed)));
    let end = position(line, text);
    let history = history(end.timeline);
    Seal { system, history, end, replayed: replayed.map_or(end.lsn, |replayed| line.parse(replayed)) }
}

pub fn history(timeline: Timeline) -> History {
    let left = |t: u32| Position { timeline: Timeline(t), lsn: Lsn(u64::from(t) * 0x1000) };
    History((1..timeline.0).map(left).collect())
}

/// `lub`: lost on primary, up on secondary, blind on disk; `+db` where its database still feeds the observer's.
/// Why a node leaves.
pub fn leaving(line: &Line, why: &str) -> Leaving {
    match why {
        "daemon-stops" => Leaving::DaemonStops,
        "host-goes-down" => Leaving::HostGoesDown,
        other => line.fail(&format!("{other:?} is no reason to leave")),
    }
}

pub fn view(line: &Line, text: &str, boot: &Boot, incarnation: Incarnation) -> PeerView {
    let (sights, database_alive) = match text.strip_suffix("+db") {
        Some(sights) => (sights, true),
        None => (text, false),
    };
    let names = ["primary", "secondary", "disk", "fourth"].map(|c| c.parse::<ChannelName>().expect("valid"));
    let sight = |letter| match letter {
        'u' => Sight::Up,
        'l' => Sight::Lost,
        'b' => Sight::Blind,
        _ => line.fail("expected u, l or b for each channel"),
    };
    let channels = names.into_iter().zip(sights.chars().map(sight)).collect();
    PeerView { boot: boot.clone(), incarnation, channels, database_alive }
}

/// `db2:lll,w1:llu`.
pub fn pairs<'a>(line: &Line, text: &'a str) -> Vec<(NodeName, &'a str)> {
    let pair = |item: &'a str| {
        let (node, what) = item.split_once(':').unwrap_or_else(|| line.fail("expected NODE:WHAT,NODE:WHAT"));
        (line.parse(node), what)
    };
    text.split(',').filter(|t| !t.is_empty()).map(pair).collect()
}

pub fn names(line: &Line, text: &str) -> Vec<NodeName> {
    text.split(',').filter(|t| !t.is_empty()).map(|t| line.parse(t)).collect()
}

/// What the ledger knows of a node, or nothing.
pub fn present(state: &State, node: &NodeName) -> (Boot, Incarnation) {
    state.nodes.get(node).map_or((boot(node, 1), Incarnation(0)), |n| (n.boot.clone(), n.incarnation))
}

pub fn run(line: &Line, outcome: &str) -> AgentRun {
    let outcome = match outcome {
        "succeeded" => AgentOutcome::Succeeded,
        "failed" => AgentOutcome::Failed { status: 1 },
        "timed-out" => AgentOutcome::TimedOut,
        "not-run" => AgentOutcome::NotRun,
        "not-begun" => AgentOutcome::NotBegun,
        _ => line.fail("expected succeeded, failed, timed-out, not-run or not-begun"),
    };
    let took = line.get("took").map_or(Duration::from_millis(800), |took| line.duration(took));
    AgentRun { outcome, tries: 1, took, output: String::new() }
}

fn action(line: &Line, word: &str) -> AgentAction {
    match word {
        "off" => AgentAction::Off,
        "on" => AgentAction::On,
        "status" => AgentAction::Status,
        _ => line.fail("expected off, on or status"),
    }
}

/// One line on its way to a command, beside the ledger that it is written for.
struct Draft<'a, 'b> {
    line: &'a Line<'b>,
    state: &'a State,
    term: Term,
}

/// A join as its line says, whatever its verb.
pub fn join(line: &Line, state: &State, term: Term) -> Command {
    Draft { line, state, term }.join()
}

/// The command of a line; `None` where its verb is none of the ledger's.
pub fn command(line: &Line, state: &State, term: Term, settings: &Settings) -> Option<Command> {
    let d = Draft { line, state, term };
    Some(match line.verb() {
        "seed" => Command::Seed { settings: Box::new(settings.clone()) },
        "join" => d.join(),
        "declare" => d.declare(),
        "fence" => d.fence(),
        "order" => d.order(),
        "ended" => {
            let order = line.parse(line.word(1));
            Command::OrderDone { fence: d.fence_id(), order, run: run(line, line.word(2)) }
        }
        "next-level" => {
            let why = line.say("why", "it did not confirm");
            Command::NextLevel { fence: d.fence_id(), term: d.term(), level: d.level(), round: d.round(), why }
        }
        "confirm" => Command::HumanConfirm {
            incident: IncidentId(line.number("incident").unwrap_or(state.last_incident.0)),
            target: d.node(1),
            who: d.who(),
            force: line.has("force"),
        },
        "refute" => Command::Refute {
            fence: d.fence_id(),
            level: line.number("level").map(|l| l as u32 - 1),
            round: d.round(),
            refuted: d.refuted(),
            by: line.parse(line.need("by")),
            channel: line.parse(line.get("on").unwrap_or("disk")),
            what: line.say("what", "2 heartbeats after the confirmation"),
            struck: line.get("struck").map(|node| line.parse(node)),
        },
        "assisting" => {
            let node: NodeName = line.parse(line.need("by"));
            let (_, incarnation) = present(state, &node);
            let incarnation = line.number("inc").map_or(incarnation, Incarnation);
            Command::Assisting { fence: d.fence_id(), agent: line.parse(line.word(1)), node, incarnation }
        }
        "assisted" => Command::Assisted {
            fence: d.fence_id(),
            agent: line.parse(line.word(1)),
            action: action(line, line.word(2)),
            run: run(line, line.word(3)),
            node: line.parse(line.need("by")),
        },
        "lift" => Command::Lift { fence: d.fence_id(), who: d.who(), power_on: line.has("power-on") },
        "close" => Command::CloseFence { fence: d.fence_id() },
        "maintenance" => {
            let lasts = line.get("for").map(|time| line.duration(time));
            Command::Maintenance { node: d.node(1), who: d.who(), lasts }
        }
        "end-maintenance" => Command::EndMaintenance { node: d.node(1), number: line.number("number"), who: d.who() },
        "forgive" => Command::Forgive { node: d.node(1), failures: line.number("failures").unwrap_or(1) as u32 },
        _ => return d.of_service(),
    })
}

impl Draft<'_, '_> {
    fn node(&self, word: usize) -> NodeName {
        self.line.parse(self.line.word(word))
    }

    fn who(&self) -> String {
        self.line.say("who", "dba")
    }

    fn term(&self) -> Term {
        self.line.number("term").map_or(self.term, Term)
    }

    fn fence_id(&self) -> FenceId {
        self.line.number("fence").map_or(self.state.last_fence, FenceId)
    }

    fn level(&self) -> u32 {
        let present = self.state.fences.get(&self.fence_id()).map_or(0, |f| f.level);
        self.line.number("level").map_or(present, |l| l as u32 - 1)
    }

    fn round(&self) -> u32 {
        let present = self.state.fences.get(&self.fence_id()).map_or(0, |f| f.round);
        self.line.number("round").map_or(present, |r| r as u32 - 1)
    }

    /// How many confirmations of the fence were refuted.
    fn refuted(&self) -> u32 {
        let present = self.state.fences.get(&self.fence_id()).map_or(0, |f| f.refuted);
        self.line.number("refuted").map_or(present, |n| n as u32)
    }

    fn boot(&self, node: &NodeName) -> Boot {
        self.line.number("boot").map_or(present(self.state, node).0, |n| boot(node, n))
    }

    fn incarnation(&self, node: &NodeName) -> Incarnation {
        self.line.number("inc").map_or(present(self.state, node).1, Incarnation)
    }

    fn holder_incarnation(&self) -> Incarnation {
        let holder = self.state.services.get(&self.service()).and_then(|s| s.holder.as_ref());
        holder.map_or(Incarnation(0), |h| h.incarnation)
    }

    fn service(&self) -> ServiceName {
        self.line.get("service").map_or(orders(), |name| self.line.parse(name))
    }

    fn epoch(&self, key: &str) -> Epoch {
        let present = self.state.services.get(&self.service()).map_or(Epoch(0), |s| s.epoch);
        self.line.number(key).map_or(present, Epoch)
    }

    fn join(&self) -> Command {
        let node = self.node(1);
        let machine = Machine {
            id: self.line.say("machine", &format!("machine of {node}")),
            is_virtual: self.line.has("virtual"),
            watchdog: (!self.line.has("no-watchdog"))
                .then(|| self.line.get("watchdog").map_or(Duration::from_secs(5), |time| self.line.duration(time))),
            hardware: match self.line.get("hardware") {
                Some("none") => BTreeSet::new(),
                Some(parts) => parts.split('+').map(|part| part.replace('_', " ")).collect(),
                None => [format!("hardware of {node}")].into(),
            },
        };
        let over = self.line.get("over").map(|text| {
            let (epoch, at) = text.split_once('@').map_or((text, None), |(e, at)| (e, Some(at)));
            let position = at.map(|at| position(self.line, at));
            Claim { epoch: Epoch(self.line.parse(epoch)), state: ClaimState::Over { position } }
        });
        let adopts = self.line.number("adopts").map(|e| Claim { epoch: Epoch(e), state: ClaimState::Adopted });
        let claims = over.or(adopts).map(|claim| (orders(), claim)).into_iter().collect();
        // Each line is a need of its own, unless it says which one it repeats.
        let request = self.line.number("request").unwrap_or_else(|| NEXT_REQUEST.fetch_add(1, Ordering::Relaxed));
        let succeeds = self.line.number("succeeds").map(Incarnation);
        Command::Join { boot: self.boot(&node), node, request, succeeds, machine, claims }
    }

    fn declare(&self) -> Command {
        let target = self.node(1);
        let incarnation = self.incarnation(&target);
        let seen = self.line.number("seen-inc").map_or(incarnation, Incarnation);
        let (boot, _) = present(self.state, &target);
        let sighting = |text| Sighting { view: view(self.line, text, &boot, seen), silent_ms: BTreeMap::new() };
        let answers = pairs(self.line, self.line.need("by")).into_iter().map(|(n, text)| (n, sighting(text)));
        let next = self.state.rounds.get(&target).filter(|(term, _)| *term == self.term()).map_or(1, |(_, r)| r.0 + 1);
        let round = Round(self.line.number("round").unwrap_or(next));
        let hearing = self.line.get("hearing").map(|names| names.split(',').map(|n| self.line.parse(n)).collect());
        let (term, answers, hearing) = (self.term(), answers.collect(), hearing.unwrap_or_default());
        Command::DeclareDead { incarnation, term, round, answers, target, hearing }
    }

    fn fence(&self) -> Command {
        let target = self.node(1);
        let reason = match self.line.number("lapsed") {
            Some(epoch) => FenceReason::Lapsed { service: self.service(), epoch: Epoch(epoch), term: self.term() },
            None => FenceReason::Operator { who: self.who() },
        };
        Command::OpenFence { boot: self.boot(&target), target, reason }
    }

    fn order(&self) -> Command {
        let action = action(self.line, self.line.word(2));
        let executor: NodeName = self.line.parse(self.line.get("by").unwrap_or("w1"));
        let new = |agent: &str| NewOrder { agent: self.line.parse(agent), action, executor: executor.clone() };
        let orders = self.line.word(1).split('+').map(new).collect();
        let level = (!self.line.has("beside") && action == AgentAction::Off).then(|| self.level());
        Command::Order { fence: self.fence_id(), term: self.term(), level, round: self.round(), orders }
    }

    fn of_service(&self) -> Option<Command> {
        let (line, service) = (self.line, self.service());
        Some(match line.verb() {
            "create" => {
                let node = self.node(1);
                Command::Create { service, boot: self.boot(&node), incarnation: self.incarnation(&node), node }
            }
            "appoint" => self.appoint(),
            "promoting" => self.promoting(),
            "installed" => {
                let node = self.node(1);
                let system = line.number("system").map_or(SYSTEM, SystemId);
                let position = position(line, line.need("at"));
                Command::Installed {
                    service,
                    epoch: self.epoch("epoch"),
                    incarnation: self.incarnation(&node),
                    node,
                    system,
                    position,
                }
            }
            "release" => {
                let node = self.node(1);
                Command::Release {
                    service,
                    epoch: self.epoch("epoch"),
                    boot: self.boot(&node),
                    incarnation: self.incarnation(&node),
                    node,
                    position: line.get("at").map(|at| position(line, at)),
                    lapsed: line.has("lapsed"),
                    leaving: line.has("leaving"),
                    why: line.say("why", "its database could not go on"),
                }
            }
            "deny-lease" => Command::DenyLease { service, epoch: self.epoch("epoch") },
            "pass-over" => {
                let no_lease = if line.has("waited") { NoLease::Waited } else { NoLease::NeverGranted };
                Command::PassOver { service, epoch: self.epoch("epoch"), term: self.term(), no_lease }
            }
            "waited-out" => self.waited_out(),
            "renewed" => Command::Renewed {
                service,
                epoch: self.epoch("epoch"),
                incarnation: line.number("inc").map_or(self.holder_incarnation(), Incarnation),
                resumed: line.number("resume").unwrap_or(self.state.resumes),
            },
            "rejoined" => Command::Rejoined {
                service,
                epoch: self.epoch("epoch"),
                node: self.node(1),
                how: line.say("how", "rewound"),
                kept: line.get("kept").map(str::to_owned),
                order: line.number("order"),
            },
            _ => return self.of_its_course(),
        })
    }

    /// How far a service is, and what people want of it.
    fn of_its_course(&self) -> Option<Command> {
        let (line, service) = (self.line, self.service());
        Some(match line.verb() {
            "progress" => {
                Command::Progress { service, epoch: self.epoch("epoch"), end: position(line, line.need("at")) }
            }
            "accept-loss" => Command::AcceptLoss {
                service,
                epoch: self.epoch("epoch"),
                to: line.get("to").map(|to| line.parse(to)),
                bytes: line.number("bytes"),
                who: self.who(),
            },
            "reinit" => Command::Reinit {
                service,
                epoch: self.epoch("epoch"),
                node: self.node(1),
                who: self.who(),
                cancel: line.has("cancel"),
            },
            "restart" => Command::Restart {
                service,
                epoch: self.epoch("epoch"),
                node: self.node(1),
                who: self.who(),
                cancel: line.has("cancel"),
            },
            "accept-copy" => Command::AcceptCopy {
                service,
                epoch: self.epoch("epoch"),
                node: line.get("on").map(|on| line.parse(on)),
                bytes: line.number("bytes"),
                who: self.who(),
            },
            "switchover" => {
                let to = line.get("to").map(|to| line.parse(to));
                Command::Switchover { service, epoch: self.epoch("epoch"), to, who: self.who() }
            }
            "cancel" => {
                let why = line.say("why", "the operator thought better of it");
                Command::CancelSwitchover { service, epoch: self.epoch("epoch"), why }
            }
            "pause" => Command::Pause {
                service,
                who: self.who(),
                why: self.line.get("why").map(str::to_owned),
                lasts: self.line.get("for").map(|time| self.line.duration(time)),
            },
            "resume" => Command::Resume { service, who: self.who(), number: self.line.number("number") },
            _ => return None,
        })
    }

    fn waited_out(&self) -> Command {
        let (line, service) = (self.line, self.service());
        let holder = self.state.services.get(&service).and_then(|s| s.holder.clone());
        let holder = holder.unwrap_or_else(|| line.fail("nobody holds it"));
        let boot = line.number("boot").map_or(holder.boot, |n| boot(&holder.node, n));
        Command::WaitedOut { epoch: self.epoch("epoch"), service, boot }
    }

    /// To the timeline that was said, or the next one.
    fn promoting(&self) -> Command {
        let (service, node) = (self.service(), self.node(1));
        let next = |s: &Service| match s.phase {
            Phase::Promoting { timeline } => timeline,
            _ => s.next_timeline(Timeline(1)),
        };
        let next = self.state.services.get(&service).map_or(Timeline(2), |s| next(s));
        let timeline = self.line.number("timeline").map_or(next, |t| Timeline(t as u32));
        let (epoch, incarnation) = (self.epoch("epoch"), self.incarnation(&node));
        Command::Promoting { service, epoch, incarnation, node, timeline }
    }

    fn appoint(&self) -> Command {
        let line = self.line;
        let node = self.node(1);
        let basis = match line.number("by-fence") {
            None if line.has("passed-over") => Basis::PassedOver,
            None => Basis::Released,
            Some(fence) => {
                let holds = names(line, line.get("checked").unwrap_or("")).into_iter();
                let mut checks: BTreeMap<_, _> = holds.map(|n| (n, CheckAnswer::Holds)).collect();
                for by in names(line, line.get("refuted").unwrap_or("")) {
                    let what = "2 heartbeats of that boot after the confirmation".to_owned();
                    checks.insert(by, CheckAnswer::Refuted { channel: line.parse("disk"), what });
                }
                Basis::Fenced { fence: FenceId(fence), term: self.term(), checks }
            }
        };
        let at = |item: &str| {
            let (node, at) = item.split_once('@').unwrap_or_else(|| line.fail("expected NODE@POSITION"));
            (line.parse(node), seal(line, at))
        };
        let seals = line.get("sealed").unwrap_or("").split(',').filter(|t| !t.is_empty()).map(at).collect();
        Command::Appoint {
            service: self.service(),
            prior: self.epoch("after"),
            boot: self.boot(&node),
            incarnation: self.incarnation(&node),
            node,
            basis,
            seals,
            why: line.say("why", "the story says so"),
        }
    }
}
