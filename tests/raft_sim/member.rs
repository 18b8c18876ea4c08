//! One life of one host's Raft: regent's own `Member` under openraft's deterministic runtime, from the start of the
//! daemon until it is killed.

use crate::disk::{Disk, Platter};
use crate::wires::{Cable, Wires};
use openraft::EmptyNode;
use openraft::async_runtime::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use regent::config::Config;
use regent::consensus::{Event, LeaderId, LedgerTypes, Line, Member, Options, Outcome, Proposal, RaftRequest};
use regent::types::{NodeId, NodeName};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

openraft::declare_raft_types!(
    /// regent's types on the deterministic runtime.
    pub C:
        D = Proposal,
        R = Outcome,
        NodeId = u64,
        Node = EmptyNode,
        LeaderId = LeaderId,
        AsyncRuntime = SimRuntime,
);
impl LedgerTypes for C {}

/// Who handles Raft's messages on a host.
pub trait Answering: Send + Sync {
    fn answer(&self, from: NodeName, request: RaftRequest) -> Answer<'_>;
}

type Answer<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send + 'a>>;

impl Answering for Member<C> {
    fn answer(&self, from: NodeName, request: RaftRequest) -> Answer<'_> {
        Box::pin(async move { self.handle(&from, request).await })
    }
}

/// A running daemon's part in Raft.
pub struct Life {
    pub life: u64,
    pub member: Arc<Member<C>>,
    pub events: mpsc::UnboundedReceiver<Event>,
    disk: Arc<Disk>,
    /// Dropped, it ends.
    _alive: oneshot::Sender<()>,
}

impl Life {
    /// Inside the runtime. Why it could not start, if so, goes to `failed`.
    pub fn start(
        config: &Config,
        life: u64,
        platter: &Platter,
        wires: &Wires,
        failed: impl Fn(String) + Send + 'static,
    ) -> Life {
        let mut options = Options::from_config(config);
        // Small, so that whoever was away for a while catches up by a snapshot.
        (options.snapshot_every, options.keep_entries) = (60, 10);
        let names: Vec<NodeName> = options.nodes.keys().cloned().collect();
        let host = names.iter().position(|n| *n == config.node).expect("a host of this cluster");
        let stalls = wires.clone();
        let disk = Disk::start(platter.clone(), move || stalls.stalls(host));
        let (sender, events) = mpsc::unbounded_channel();
        let member = Member::open(options, disk.clone(), sender).expect("what was written reads back");
        let member = Arc::new(member);
        let lines = (0..names.len()).filter(|to| *to != host).map(|to| {
            let names = [names[host].clone(), names[to].clone()];
            let cable: Arc<dyn Line> = Arc::new(Cable { wires: wires.clone(), from: (host, life), to, names });
            (NodeId(to as u64 + 1), cable)
        });
        wires.lock().members[host] = Some((life, member.clone()));
        let (alive, killed) = oneshot::channel::<()>();
        let initialise = host == 0 && member.is_blank();
        drop(SimRuntime::spawn(live(member.clone(), lines.collect(), initialise, killed, failed)));
        Life { life, member, events, disk, _alive: alive }
    }

    /// Killed: from now on nothing that it does has any effect.
    pub fn kill(self, host: usize, wires: &Wires) {
        self.disk.cut();
        wires.lock().members[host] = None;
    }
}

async fn live(
    member: Arc<Member<C>>,
    lines: BTreeMap<NodeId, Arc<dyn Line>>,
    initialise: bool,
    mut killed: oneshot::Receiver<()>,
    failed: impl Fn(String),
) {
    tokio::select! {
        biased;
        _ = &mut killed => return member.shutdown().await,
        started = member.start(lines, initialise) => {
            if let Err(why) = started {
                failed(why);
            }
        }
    }
    // Ends when its sender is dropped.
    let _ = killed.await;
    member.shutdown().await;
}
