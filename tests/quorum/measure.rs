//! How long the quorum takes: commits, quorum reads, a lost leader; and what it costs to apply an entry to a ledger that
//! remembers much. It measures and prints, and asserts nothing about the times: `make bench-quorum`.

#![expect(clippy::disallowed_methods, reason = "a measurement reads clocks")]

#[expect(dead_code, reason = "the tests use the rest of it")]
mod harness;

use harness::{Cluster, LONG, entry, timing};
use regent::config::Config;
use regent::ledger::{self, Command, Entry, Fence, FenceReason, Machine, NewOrder, Settings, State};
use regent::types::{
    AgentAction, AgentName, AgentOutcome, AgentRun, Boot, FenceId, LogIndex, NodeName, Term, WallTime,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

fn spread(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |permille: usize| times[(times.len() - 1) * permille / 1000];
    println!("{name}: n={} min {:?} p50 {:?} p99 {:?} max {:?}", times.len(), at(0), at(500), at(990), at(1000));
}

async fn measure(net: u8, heartbeat: u64, min: u64, max: u64) {
    let label = format!("{heartbeat}/{min}/{max}");
    let mut cluster = Cluster::start(net, timing(heartbeat, min, max)).await;
    let leader = cluster.leader().await;
    let consensus = cluster.nodes[&leader].consensus.clone();
    let (mut commits, mut reads) = (Vec::new(), Vec::new());
    for number in 0..1000 {
        let began = Instant::now();
        consensus.propose(entry(number), LONG).await.expect("committed");
        commits.push(began.elapsed());
        let began = Instant::now();
        consensus.quorum_read(LONG).await.expect("confirmed");
        reads.push(began.elapsed());
    }
    let follower = &cluster.nodes[&cluster.others(&leader)[0]];
    let mut applied = Vec::new();
    for number in 2000..2200 {
        let began = Instant::now();
        let (proposed, ()) = tokio::join!(consensus.propose(entry(number), LONG), follower.until_applied(number));
        proposed.expect("committed");
        applied.push(began.elapsed());
    }
    drop(consensus);
    spread(&format!("{label} commit"), commits);
    spread(&format!("{label} quorum read"), reads);
    spread(&format!("{label} proposal to applied on a follower"), applied);
    let mut lost = Vec::new();
    for number in 0..10 {
        let old = cluster.leader().await;
        let began = Instant::now();
        cluster.stop_node(&old).await;
        cluster.commit(3000 + number).await;
        lost.push(began.elapsed());
        cluster.start_node(old.as_str()).await;
        cluster.nodes[&old].until_applied(3000 + number).await;
    }
    spread(&format!("{label} leader stopped to first commit"), lost);
}

/// A ledger as the consensus keeps it: every copy that was published lives on while the next entry is applied.
struct Ledger {
    state: Arc<State>,
    published: Vec<Arc<State>>,
    index: u64,
    took: Vec<Duration>,
}

impl Ledger {
    fn apply(&mut self, command: Command) {
        self.published.push(self.state.clone());
        if self.published.len() > 64 {
            self.published.clear();
        }
        self.index += 1;
        let entry = Entry { at: WallTime(self.index), command };
        let began = Instant::now();
        ledger::apply(Arc::make_mut(&mut self.state), LogIndex(self.index), Term(1), &entry);
        self.took.push(began.elapsed());
    }

    fn fence(&self) -> &Fence {
        self.state.fences[&FenceId(1)].get()
    }

    /// db1 is fenced on order, round after round, and no level confirms.
    fn rounds(&mut self, rounds: u32) {
        let (fence, term, until) = (FenceId(1), Term(1), self.fence().round + rounds);
        let executor: NodeName = "db2".parse().expect("a valid name");
        let levels = self.state.settings.as_ref().expect("seeded").levels.clone();
        while self.fence().round < until {
            let round = self.fence().round;
            let due: Vec<_> = (0u32..).zip(&levels).filter(|(level, _)| self.fence().is_level_due(*level)).collect();
            for (level, agents) in due {
                let new = |agent: &AgentName| NewOrder {
                    agent: agent.clone(),
                    action: AgentAction::Off,
                    executor: executor.clone(),
                };
                let (first, orders): (_, Vec<_>) = (self.fence().next_order(), agents.iter().map(new).collect());
                let numbers = first..first + orders.len() as u32;
                self.apply(Command::Order { fence, term, level: Some(level), round, orders });
                for order in numbers {
                    let output = "no answer from the device ".repeat(10);
                    let (outcome, took) = (AgentOutcome::TimedOut, Duration::from_secs(20));
                    self.apply(Command::OrderDone { fence, order, run: AgentRun { outcome, tries: 3, took, output } });
                }
            }
            let (level, why) = (self.fence().level, "it did not confirm".to_owned());
            self.apply(Command::NextLevel { fence, term, level, round, why });
        }
    }
}

fn measure_apply() {
    let text = include_str!("../../config/two-databases-and-witness.toml");
    let config = Config::parse(text, "regent.toml", None, "db1").expect("an example");
    let mut ledger = Ledger { state: Arc::default(), published: Vec::new(), index: 0, took: Vec::new() };
    let settings = Settings::seed(&config);
    let voters = settings.nodes.values().map(|node| node.id).collect();
    ledger::set_voters(Arc::make_mut(&mut ledger.state), LogIndex(0), vec![voters]);
    ledger.apply(Command::Seed { settings: Box::new(settings) });
    for node in config.nodes.keys() {
        let boot = Boot(format!("boot of {node}").into());
        let machine = Machine { id: node.to_string(), ..Machine::default() };
        ledger.apply(Command::Join {
            node: node.clone(),
            boot,
            request: 1,
            succeeds: None,
            machine,
            claims: BTreeMap::new(),
        });
    }
    let (target, boot) = ("db1".parse().expect("a valid name"), Boot("boot of db1".into()));
    ledger.apply(Command::OpenFence { target, boot, reason: FenceReason::Operator { who: "the benchmark".into() } });
    let mut done = 0;
    for until in [1_000, 50_000] {
        ledger.rounds(until - 1_000 - done);
        ledger.took.clear();
        ledger.rounds(1_000);
        done = until;
        let bytes = regent::consensus::snapshot::encode(&ledger.state).len();
        spread(
            &format!("apply, rounds {} to {until} of a fence, a snapshot of {bytes} bytes", until - 999),
            ledger.took.clone(),
        );
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    measure_apply();
    measure(31, 50, 150, 300).await;
    measure(32, 20, 80, 160).await;
}
