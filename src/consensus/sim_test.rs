//! The same store and state machine under openraft's deterministic runtime: three nodes, virtual time, leaders cut off,
//! 2 % of the messages lost. The same seed gives the same trace, and no term has two leaders.

use super::event::Event;
use super::leaders::Leaders;
use super::machine::Machine;
use super::member::Member;
use super::options::{Options, Security};
use super::raft::{CommittedLeaderId, Proposal, SimTypes as C, Snapshot, Vote};
use super::store::memory::Memory;
use super::store::{Backend, Change, Store};
use super::transport::Addresses;
use super::transport::proto::{RaftKind, RaftRequest};
use crate::config::RaftTiming;
use crate::ledger::{Command, Entry};
use crate::types::{FenceId, NodeId, NodeName, WallTime};
use openraft::async_runtime::AsyncRuntime;
use openraft::error::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{Config, EmptyNode, OptionalSend, Raft, RaftNetworkFactory, RaftNetworkV2, SnapshotPolicy};
use openraft_rt_sim::{SimInstant, SimRuntime};
use rand::RngExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

type Node = Raft<C, Machine<C>>;
type Rpc = RPCError<C>;

#[derive(Default)]
struct World {
    nodes: Mutex<BTreeMap<u64, Node>>,
    cut: Mutex<BTreeSet<u64>>,
    trace: Mutex<Vec<String>>,
}

impl World {
    fn log(&self, line: String) {
        self.trace.lock().unwrap().push(format!("{:?} {line}", <SimInstant as openraft::Instant>::now()));
    }

    async fn hop(&self, from: u64, to: u64) -> Result<(), Rpc> {
        let delay = SimRuntime::thread_rng().random_range(100..3000_u64);
        SimRuntime::sleep(Duration::from_micros(delay)).await;
        let cut = self.cut.lock().unwrap().clone();
        match cut.contains(&from) || cut.contains(&to) || SimRuntime::thread_rng().random_range(0..100) < 2 {
            true => Err(RPCError::Unreachable(Unreachable::from_string("lost"))),
            false => Ok(()),
        }
    }
}

struct Net {
    world: Arc<World>,
    me: u64,
}

struct Conn {
    world: Arc<World>,
    me: u64,
    to: u64,
}

impl RaftNetworkFactory<C> for Net {
    type Network = Conn;
    async fn new_client(&mut self, to: u64, _: &EmptyNode) -> Conn {
        Conn { world: self.world.clone(), me: self.me, to }
    }
}

macro_rules! rpc {
    ($self:ident, $method:ident, $request:expr) => {{
        $self.world.hop($self.me, $self.to).await?;
        $self.world.log(format!("{}->{} {} {}", $self.me, $self.to, stringify!($method), $request));
        let node = $self.world.nodes.lock().unwrap()[&$self.to].clone();
        let answer = node.$method($request).await.map_err(|e| RPCError::Unreachable(Unreachable::new(&e)))?;
        $self.world.hop($self.to, $self.me).await?;
        Ok(answer)
    }};
}

impl RaftNetworkV2<C> for Conn {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<C>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<C>, Rpc> {
        rpc!(self, append_entries, request)
    }

    async fn vote(&mut self, request: VoteRequest<C>, _: RPCOption) -> Result<VoteResponse<C>, Rpc> {
        rpc!(self, vote, request)
    }

    async fn pre_vote(&mut self, request: VoteRequest<C>, _: RPCOption) -> Result<VoteResponse<C>, Rpc> {
        rpc!(self, pre_vote, request)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        self.world.hop(self.me, self.to).await?;
        self.world.log(format!("{}->{} snapshot {}", self.me, self.to, snapshot.meta));
        let node = self.world.nodes.lock().unwrap()[&self.to].clone();
        let answer = node.install_full_snapshot(vote, snapshot).await;
        Ok(answer.map_err(|e| RPCError::Unreachable(Unreachable::new(&e)))?)
    }
}

async fn leader(world: &World, not: u64) -> u64 {
    loop {
        let nodes = world.nodes.lock().unwrap().clone();
        if let Some((id, _)) = nodes.iter().find(|(id, node)| **id != not && node.is_leader()) {
            return *id;
        }
        SimRuntime::sleep(Duration::from_millis(1)).await;
    }
}

fn name(id: u64) -> NodeName {
    format!("n{id}").parse().expect("valid")
}

async fn start(world: &Arc<World>, id: u64) -> mpsc::UnboundedReceiver<Event> {
    let config = Config {
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(20),
        max_in_snapshot_log_to_keep: 5,
        replication_lag_threshold: 10,
        ..Config::default()
    };
    let (sender, events) = mpsc::unbounded_channel();
    let names = (1..=3).map(|id| (NodeId(id), name(id))).collect();
    let mut store: Store<C> = Store::open(Arc::new(Memory::default())).expect("an empty memory");
    let machine = Machine::new(store.clone(), sender.clone());
    store.announce_votes(Arc::new(Leaders::new(NodeId(id), names, sender, None)));
    let config = Arc::new(config.validate().expect("valid"));
    let node = Node::new(id, config, Net { world: world.clone(), me: id }, store, machine).await.expect("started");
    world.nodes.lock().unwrap().insert(id, node);
    events
}

async fn write_some(world: &World, node: &Node, first: u64, count: u64) {
    for number in first..first + count {
        let entry = Entry { at: WallTime(number), command: Command::CloseFence { fence: FenceId(number) } };
        let write = node.client_write(Proposal(Arc::new(entry)));
        let written = SimRuntime::timeout(Duration::from_secs(1), write).await;
        world.log(format!("wrote {}", matches!(written, Ok(Ok(_)))));
    }
}

async fn story(world: Arc<World>) -> Vec<Vec<Event>> {
    let mut streams = Vec::new();
    for id in 1..=3 {
        streams.push(start(&world, id).await);
    }
    let first = world.nodes.lock().unwrap()[&1].clone();
    first.initialize(BTreeSet::from([1, 2, 3])).await.expect("initialised");
    let mut now = leader(&world, 0).await;
    SimRuntime::sleep(Duration::from_secs(1)).await;
    for round in 0..6 {
        let node = world.nodes.lock().unwrap()[&now].clone();
        write_some(&world, &node, round * 100, 8).await;
        world.cut.lock().unwrap().insert(now);
        world.log(format!("CUT {now}"));
        now = leader(&world, now).await;
        world.log(format!("LEADER {now}"));
        SimRuntime::sleep(Duration::from_millis(500)).await;
        // Enough that the one that is cut off can only catch up by a snapshot.
        let node = world.nodes.lock().unwrap()[&now].clone();
        write_some(&world, &node, round * 100 + 50, 30).await;
        world.cut.lock().unwrap().clear();
        SimRuntime::sleep(Duration::from_secs(1)).await;
        now = leader(&world, 0).await;
    }
    let nodes: Vec<Node> = std::mem::take(&mut *world.nodes.lock().unwrap()).into_values().collect();
    for node in nodes {
        node.shutdown().await.expect("stopped");
    }
    streams.into_iter().map(|mut stream| std::iter::from_fn(|| stream.try_recv().ok()).collect()).collect()
}

/// A member of a cluster of so many, on what `memory` holds, and what it tells.
fn open(memory: &Arc<Memory>, nodes: u64) -> (Member<C>, mpsc::UnboundedReceiver<Event>) {
    let ms = Duration::from_millis;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let options = Options {
        cluster: "some".into(),
        me: name(1),
        nodes: (1..=nodes).map(|id| (name(id), Addresses { primary: address, secondary: address })).collect(),
        data_dir: "none".into(),
        timing: RaftTiming { heartbeat: ms(50), election_min: ms(150), election_max: ms(300), slow_write: ms(300) },
        security: Security::Insecure,
        config_hash: 0,
        snapshot_every: 1000,
        keep_entries: 10,
    };
    let (sender, events) = mpsc::unbounded_channel();
    (Member::open(options, memory.clone(), sender).expect("whole"), events)
}

/// One life of a cluster of one node on what `memory` holds: proposes some, and tells what it heard.
async fn life(memory: &Arc<Memory>, proposals: u64) -> Vec<Event> {
    let (member, mut events) = open(memory, 1);
    member.start(BTreeMap::new(), member.is_blank()).await.expect("started");
    for number in 0..proposals {
        let entry = Entry { at: WallTime(number), command: Command::CloseFence { fence: FenceId(number) } };
        while member.propose(entry.clone(), Duration::from_secs(1)).await.is_err() {
            SimRuntime::sleep(Duration::from_millis(10)).await;
        }
    }
    member.shutdown().await;
    std::iter::from_fn(|| events.try_recv().ok()).collect()
}

/// What a member answers that has just been started again on what an earlier life left: to a leader's heartbeat, to a
/// candidate, and to a candidate once its start is over.
async fn started_again(memory: &Arc<Memory>) -> [Result<String, String>; 3] {
    let (first, _) = open(memory, 3);
    first.start(BTreeMap::new(), true).await.expect("started");
    first.shutdown().await;
    let (member, _events) = open(memory, 3);
    let member = Arc::new(member);
    let again = member.clone();
    let started = SimRuntime::spawn(async move { again.start(BTreeMap::new(), false).await });
    SimRuntime::sleep(Duration::from_millis(20)).await;
    let ask = async |kind: RaftKind, from: u64, head: Vec<u8>| {
        let answer = member.handle(&name(from), RaftRequest { kind: kind.into(), head, body: Vec::new() }).await;
        answer.map(|answer| String::from_utf8(answer).expect("text"))
    };
    let beat = AppendEntriesRequest::<C> {
        vote: Vote::new_committed(7, 2),
        prev_log_id: None,
        entries: Vec::new(),
        leader_commit: None,
    };
    let wants = |term: u64| {
        let last_log_id = Some(openraft::LogId { leader_id: CommittedLeaderId::new(6), index: 9 });
        let request = VoteRequest::<C> { vote: Vote::new(term, 3), last_log_id, leadership_transfer: true };
        serde_json::to_vec(&request).expect("text keys")
    };
    let heard = ask(RaftKind::Append, 2, serde_json::to_vec(&beat).expect("text keys")).await;
    let early = ask(RaftKind::Vote, 3, wants(8)).await;
    started.await.expect("it ends").expect("started");
    let late = ask(RaftKind::Vote, 3, wants(9)).await;
    member.shutdown().await;
    [heard, early, late]
}

#[test]
fn a_member_that_starts_again_hears_its_leader_at_once_and_votes_only_when_no_promise_can_stand() {
    let [heard, early, late] = SimRuntime::with_seed(1).block_on(started_again(&Arc::new(Memory::default())));
    assert_eq!(heard.as_deref(), Ok("\"Success\""));
    assert_eq!(early, Err("n1 is not voting yet".to_owned()));
    assert!(late.as_ref().is_ok_and(|vote| vote.contains("\"vote_granted\":true")), "{late:?}");
}

#[test]
fn what_was_stored_before_the_start_is_no_news_even_if_its_commit_was_forgotten() {
    let memory = Arc::new(Memory::default());
    let applied = |proposals| {
        let events = SimRuntime::with_seed(1).block_on(life(&memory, proposals));
        let applied = events.into_iter().filter_map(|event| match event {
            Event::Applied(applied) => Some((applied.entry.at.0, applied.replay)),
            _ => None,
        });
        applied.collect::<Vec<_>>()
    };
    assert_eq!(applied(2), [(0, false), (1, false)]);
    // The mark rides along with later writes: a crash loses it.
    memory.write(vec![Change::Delete(b"committed".into())], None);
    assert_eq!(applied(1), [(0, true), (1, true), (0, false)]);
}

struct Run {
    network: Vec<String>,
    executor: Vec<String>,
    events: Vec<Vec<Event>>,
}

fn run(seed: u64) -> Run {
    let mut runtime = SimRuntime::with_seed(seed);
    runtime.record_trace(true);
    let world = Arc::new(World::default());
    let events = runtime.block_on(story(world.clone()));
    let network = std::mem::take(&mut *world.trace.lock().unwrap());
    Run { network, executor: runtime.take_trace(), events }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let (first, again, other) = (run(7), run(7), run(8));
    assert!(first.network.iter().filter(|line| line.contains("LEADER")).count() == 6);
    assert!(first.network.iter().any(|line| line.contains("snapshot")), "nobody caught up by a snapshot");
    assert_eq!(first.network, again.network);
    assert!(first.executor == again.executor, "the executors' traces differ");
    assert_ne!(first.network, other.network, "the seed changes nothing");
}

#[test]
fn no_term_has_two_leaders_and_no_index_two_entries() {
    for seed in 1..=5 {
        let events: Vec<Event> = run(seed).events.into_iter().flatten().collect();
        let (mut leaders, mut entries) = (BTreeMap::new(), BTreeMap::new());
        for event in &events {
            match event {
                Event::Leadership(now) => {
                    if let Some(leader) = &now.leader {
                        assert_eq!(
                            leaders.entry(now.term).or_insert(leader),
                            &leader,
                            "seed {seed}, term {}",
                            now.term
                        );
                    }
                }
                Event::Applied(applied) => {
                    let this = (applied.term, applied.entry.at);
                    assert_eq!(entries.entry(applied.index).or_insert(this), &this, "seed {seed}");
                }
                Event::Advanced(_) => {}
            }
        }
        assert!(leaders.len() >= 7 && entries.len() >= 40, "seed {seed}: {} {}", leaders.len(), entries.len());
    }
}
