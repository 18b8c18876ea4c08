//! How Raft's messages travel between the hosts: what the world's network carries now, late, twice, or not at all.
//! What was sent may arrive after whoever sent it has given up, or has died.

use crate::member::{Answering, C};
use openraft::async_runtime::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use rand::RngExt;
use regent::consensus::{CallError, Line, RaftKind, RaftRequest};
use regent::types::NodeName;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::oneshot;

/// Which hosts reach which, copied from the world whenever something may have changed there.
#[derive(Default)]
pub struct Reach {
    pub connects: Vec<Vec<bool>>,
    /// A host that stands still: what is sent to it waits.
    pub frozen: Vec<bool>,
    /// A host whose disk holds writes back.
    pub slow: Vec<bool>,
    /// What members answer to a leader that sends entries gets lost, so that it cannot commit; or, where the next leader
    /// is not to have them, what it sends.
    pub holds: bool,
    pub inherits: Option<bool>,
    /// In a thousand.
    pub loss: u32,
    /// Who answers on each host, by the life of its daemon.
    pub members: Vec<Option<(u64, Arc<dyn Answering>)>>,
    /// Counted, for the summary and for the comparison of two runs.
    pub sent: u64,
    pub twice: u64,
    pub lost: u64,
    pub hash: u64,
}

/// All connections of one cluster.
#[derive(Clone, Default)]
pub struct Wires(Arc<Mutex<Reach>>);

impl Wires {
    pub fn lock(&self) -> MutexGuard<'_, Reach> {
        self.0.lock().expect("one thread")
    }

    /// Nothing is written on this host now.
    pub fn stalls(&self, host: usize) -> bool {
        self.is_frozen(host) || self.lock().slow.get(host).copied().unwrap_or(false)
    }

    pub fn is_frozen(&self, host: usize) -> bool {
        self.lock().frozen.get(host).copied().unwrap_or(false)
    }
}

/// From one life of a daemon to one other host.
pub struct Cable {
    pub wires: Wires,
    pub from: (usize, u64),
    pub to: usize,
    pub names: [NodeName; 2],
}

type Said = Result<Vec<u8>, CallError>;
type Reply = Arc<Mutex<Option<oneshot::Sender<Said>>>>;

impl Line for Cable {
    fn name(&self) -> &NodeName {
        &self.names[1]
    }

    fn address(&self) -> IpAddr {
        Ipv4Addr::UNSPECIFIED.into()
    }

    fn carry(&self, request: RaftRequest, deadline: Duration) -> Pin<Box<dyn Future<Output = Said> + Send + '_>> {
        let trip =
            Trip { wires: self.wires.clone(), from: self.from, to: self.to, names: self.names.clone(), deadline };
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let reply: Reply = Arc::new(Mutex::new(Some(reply)));
            // What a stall makes the real transport do: the same message over the other network as well.
            if SimRuntime::thread_rng().random_range(0..100) < 3 {
                trip.wires.lock().twice += 1;
                let late = Duration::from_micros(SimRuntime::thread_rng().random_range(1_000..400_000));
                drop(SimRuntime::spawn(trip.clone().travel(request.clone(), reply.clone(), late)));
            }
            let node = trip.names[1].clone();
            drop(SimRuntime::spawn(trip.travel(request, reply, Duration::ZERO)));
            match SimRuntime::timeout(deadline, answer).await {
                Err(_) => Err(CallError::TimedOut { node, after: deadline }),
                Ok(Err(_)) => Err(CallError::Unreachable { node, why: "the connection broke".to_owned() }),
                Ok(Ok(said)) => said,
            }
        })
    }
}

/// One message, there and back.
#[derive(Clone)]
struct Trip {
    wires: Wires,
    from: (usize, u64),
    to: usize,
    names: [NodeName; 2],
    deadline: Duration,
}

impl Trip {
    async fn travel(self, request: RaftRequest, reply: Reply, late: Duration) {
        SimRuntime::sleep(late).await;
        self.note(&request);
        let appends = request.kind() == RaftKind::Append;
        if !self.hop(self.from.0, self.to).await || appends && self.is_held() == Some(false) {
            return self.lose(reply).await;
        }
        // What waits in a socket of a host that stands still is read when it goes on, if the daemon still lives.
        let life = self.member().map(|(life, _)| life);
        while self.wires.is_frozen(self.to) {
            SimRuntime::sleep(Duration::from_millis(5)).await;
        }
        let said = match self.member() {
            Some((now, member)) if Some(now) == life => member.answer(self.names[0].clone(), request).await,
            _ => return self.lose(reply).await,
        };
        if !self.hop(self.to, self.from.0).await || appends && self.is_held() == Some(true) {
            return self.lose(reply).await;
        }
        let node = self.names[1].clone();
        if let Some(reply) = reply.lock().expect("one thread").take() {
            // Whoever asked may have given up.
            let _ = reply.send(said.map_err(|reason| CallError::Refused { node, reason }));
        }
    }

    /// Whether entries are held up now, and if so, whether members get them.
    fn is_held(&self) -> Option<bool> {
        let reach = self.wires.lock();
        let by_chance = || SimRuntime::thread_rng().random_range(0..2) == 0;
        reach.holds.then(|| reach.inherits.unwrap_or_else(by_chance))
    }

    fn member(&self) -> Option<(u64, Arc<dyn Answering>)> {
        self.wires.lock().members.get(self.to).cloned().flatten()
    }

    /// One way. Whether it arrived.
    async fn hop(&self, from: usize, to: usize) -> bool {
        let (delay, lost) = {
            let mut rng = SimRuntime::thread_rng();
            let delay = if rng.random_range(0..50) == 0 { 3_000..60_000 } else { 100..3_000 };
            (rng.random_range(delay), rng.random_range(0..1000))
        };
        SimRuntime::sleep(Duration::from_micros(delay)).await;
        let reach = self.wires.lock();
        reach.connects[from][to] && lost >= reach.loss.max(2)
    }

    /// Nothing comes back: noticed at once, or only by the deadline.
    async fn lose(&self, reply: Reply) {
        self.wires.lock().lost += 1;
        if SimRuntime::thread_rng().random_range(0..2) == 0 {
            SimRuntime::sleep(self.deadline).await;
        }
        drop(reply);
    }

    fn note(&self, request: &RaftRequest) {
        let mut reach = self.wires.lock();
        reach.sent += 1;
        let mut mix = |n: u64| reach.hash = (reach.hash ^ n).wrapping_mul(0x100_0000_01b3);
        mix(crate::log::now_of_runtime());
        mix((self.from.0 << 8 | self.to) as u64);
        request.head.iter().for_each(|byte| mix(u64::from(*byte)));
    }
}

/// The types of openraft are fixed here, once.
const _: fn() = || {
    fn is_answering<T: Answering>() {}
    is_answering::<regent::consensus::Member<C>>();
};
