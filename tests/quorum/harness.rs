//! Three real nodes on loopback, TLS on, and a wire between each two on each network that a test can let stall.

use regent::config::{RaftTiming, Tls};
use regent::consensus::{Addresses, Applied, Consensus, Event, Network, Options, Proposed, Security, Streams, certs};
use regent::ledger::{Command, Entry};
use regent::types::{FenceId, NodeName, WallTime};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Nothing here takes this long, except on a machine that does ten other things.
pub const LONG: Duration = Duration::from_secs(60);

const PORT: u16 = 17_420;
/// Peers dial this one: the wire's end.
const WIRE: u16 = 17_421;

pub fn name(n: &str) -> NodeName {
    n.parse().expect("a valid name")
}

/// A proposal that is told apart by its time.
pub fn entry(number: u64) -> Entry {
    Entry { at: WallTime(number), command: Command::CloseFence { fence: FenceId(number) } }
}

pub fn timing(heartbeat: u64, min: u64, max: u64) -> RaftTiming {
    RaftTiming {
        heartbeat: Duration::from_millis(heartbeat),
        election_min: Duration::from_millis(min),
        election_max: Duration::from_millis(max),
        slow_write: Duration::from_millis(500),
    }
}

/// One running node.
pub struct Running {
    pub consensus: Arc<Consensus>,
    seen: watch::Receiver<Vec<Event>>,
    readers: [JoinHandle<()>; 2],
}

impl Running {
    /// Everything that was applied here since it started.
    pub fn applied(&self) -> Vec<Applied> {
        let applied = |event: &Event| match event {
            Event::Applied(applied) => Some(applied.clone()),
            _ => None,
        };
        self.seen.borrow().iter().filter_map(applied).collect()
    }

    pub fn events(&self) -> Vec<Event> {
        self.seen.borrow().clone()
    }

    /// Waits until the events satisfy this.
    pub async fn until(&self, what: &str, satisfied: impl FnMut(&Vec<Event>) -> bool) {
        let mut seen = self.seen.clone();
        let waited = tokio::time::timeout(LONG, seen.wait_for(satisfied)).await;
        assert!(matches!(waited, Ok(Ok(_))), "in vain: {what}; it waits for {:?}", self.consensus.waiting());
    }

    /// Waits until this proposal is applied here.
    pub async fn until_applied(&self, number: u64) {
        let is = |event: &Event| matches!(event, Event::Applied(applied) if applied.entry.at == WallTime(number));
        self.until(&format!("proposal {number}"), |events| events.iter().any(is)).await;
    }
}

/// What does not get through now: it is swallowed, as by a broken switch.
#[derive(Clone, Default)]
struct Faults {
    networks: BTreeSet<Network>,
    nodes: BTreeSet<NodeName>,
}

pub struct Cluster {
    pub dir: tempfile::TempDir,
    net: u8,
    timing: RaftTiming,
    pub snapshot_every: u64,
    pub nodes: BTreeMap<NodeName, Running>,
    faults: watch::Sender<Faults>,
    wires: Vec<JoinHandle<()>>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.wires.iter().for_each(JoinHandle::abort);
    }
}

const NAMES: [&str; 3] = ["db1", "db2", "w1"];

impl Cluster {
    /// Certificates and wires; no node runs. `net` keeps the addresses of tests apart.
    pub async fn prepare(net: u8, timing: RaftTiming) -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").expect("a temporary directory");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let now = WallTime(u64::try_from(now.as_millis()).expect("before the year 500 million"));
        certs::init(dir.path(), "orders", now).expect("a CA");
        let faults = watch::Sender::new(Faults::default());
        let mut wires = Vec::new();
        for node in NAMES.map(name) {
            certs::issue(dir.path(), &node, &[], 1, now).expect("a certificate");
            for network in [Network::Primary, Network::Secondary] {
                let ip = ip(net, &node, network);
                let listener = TcpListener::bind((ip, WIRE)).await.expect("a free loopback address");
                let to = SocketAddr::new(ip, PORT);
                wires.push(tokio::spawn(carry(listener, to, node.clone(), network, faults.subscribe())));
            }
        }
        Cluster { dir, net, timing, snapshot_every: 1000, nodes: BTreeMap::new(), faults, wires }
    }

    /// All three running, with a leader.
    pub async fn start(net: u8, timing: RaftTiming) -> Self {
        let mut cluster = Self::prepare(net, timing).await;
        for node in NAMES {
            cluster.start_node(node).await;
        }
        cluster.leader().await;
        cluster
    }

    pub fn data_dir(&self, node: &str) -> PathBuf {
        self.dir.path().join("data").join(node)
    }

    pub fn options(&self, me: &str) -> Options {
        let nodes = NAMES.map(name).into_iter().map(|node| {
            let port = if node.as_str() == me { PORT } else { WIRE };
            let on = |network| SocketAddr::new(ip(self.net, &node, network), port);
            let addresses = Addresses { primary: on(Network::Primary), secondary: on(Network::Secondary) };
            (node, addresses)
        });
        let file = |name: &str| self.dir.path().join(me).join(name);
        Options {
            cluster: "orders".into(),
            me: name(me),
            nodes: nodes.collect(),
            data_dir: self.data_dir(me),
            timing: self.timing.clone(),
            security: Security::Tls(Tls { ca: file("ca.pem"), certificate: file("node.pem"), key: file("node.key") }),
            config_hash: 1,
            snapshot_every: self.snapshot_every,
            keep_entries: 5,
        }
    }

    pub async fn start_node(&mut self, node: &str) {
        let (consensus, streams) = Consensus::start(self.options(node)).await.expect("started");
        let Streams { mut events, mut calls } = streams;
        let (sender, seen) = watch::channel(Vec::new());
        let events = tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                sender.send_modify(|seen| seen.push(event));
            }
        });
        // The daemon of a test answers a call with the caller's name and the message.
        let calls = tokio::spawn(async move {
            while let Some(call) = calls.recv().await {
                let _ = call.reply.send([call.from.as_str().as_bytes(), b":", &call.body].concat());
            }
        });
        let running = Running { consensus: Arc::new(consensus), seen, readers: [events, calls] };
        self.nodes.insert(name(node), running);
    }

    /// Stops a node; its directory stays.
    pub async fn stop_node(&mut self, node: &NodeName) {
        let running = self.nodes.remove(node).expect("it runs");
        running.readers.iter().for_each(JoinHandle::abort);
        let Some(consensus) = Arc::into_inner(running.consensus) else { panic!("{node} is still used") };
        consensus.shutdown().await;
    }

    /// Waits for a leader that a quorum follows.
    pub async fn leader(&self) -> NodeName {
        self.leader_but(None).await
    }

    /// The same, but for a node that may not have noticed yet that it leads no more.
    pub async fn leader_but(&self, not: Option<&NodeName>) -> NodeName {
        let find = async {
            loop {
                for (node, running) in self.nodes.iter().filter(|(node, _)| Some(*node) != not) {
                    if running.consensus.leadership().quorum_acked {
                        return node.clone();
                    }
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let waiting = || self.nodes.values().map(|n| n.consensus.waiting()).collect::<Vec<_>>();
        tokio::time::timeout(LONG, find).await.unwrap_or_else(|_| panic!("no leader: {:?}", waiting()))
    }

    /// Proposes at whoever leads, until it is applied.
    pub async fn commit(&self, number: u64) -> Proposed {
        let tries = async {
            loop {
                let leader = self.leader().await;
                match self.nodes[&leader].consensus.propose(entry(number), LONG).await {
                    Ok(proposed) => return proposed,
                    Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
                }
            }
        };
        tokio::time::timeout(LONG, tries).await.unwrap_or_else(|_| panic!("proposal {number} was not committed"))
    }

    /// Lets a whole network stall, or flow again.
    pub fn set_network(&self, network: Network, flows: bool) {
        self.faults.send_modify(|faults| match flows {
            true => drop(faults.networks.remove(&network)),
            false => drop(faults.networks.insert(network)),
        });
    }

    /// Cuts a node off on both networks, or lets it back.
    pub fn set_node(&self, node: &NodeName, reachable: bool) {
        self.faults.send_modify(|faults| match reachable {
            true => drop(faults.nodes.remove(node)),
            false => drop(faults.nodes.insert(node.clone())),
        });
    }

    pub fn others(&self, not: &NodeName) -> Vec<NodeName> {
        self.nodes.keys().filter(|node| *node != not).cloned().collect()
    }
}

fn ip(net: u8, node: &NodeName, network: Network) -> IpAddr {
    let host = NAMES.iter().position(|n| *n == node.as_str()).expect("one of ours") as u8 + 1;
    match network {
        Network::Primary => IpAddr::from([127, net, 1, host]),
        Network::Secondary => IpAddr::from([127, net, 2, host]),
    }
}

async fn carry(
    listener: TcpListener,
    to: SocketAddr,
    node: NodeName,
    network: Network,
    faults: watch::Receiver<Faults>,
) {
    while let Ok((visitor, from)) = listener.accept().await {
        let IpAddr::V4(ip) = from.ip() else { panic!("loopback is IPv4 here") };
        let ends = [node.clone(), name(NAMES[usize::from(ip.octets()[3]) - 1])];
        let wire = Wire { ends, network, faults: faults.clone() };
        tokio::spawn(async move {
            // The node checks where its visitors come from: this wire must not be seen.
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind(SocketAddr::new(from.ip(), 0)).expect("a loopback address");
            let Ok(node) = socket.connect(to).await else { return };
            // A wire adds no delay of its own.
            let _ = (visitor.set_nodelay(true), node.set_nodelay(true));
            let ((a, b), (c, d)) = (visitor.into_split(), node.into_split());
            tokio::select! {
                () = pump(a, d, wire.clone()) => {}
                () = pump(c, b, wire) => {}
            }
        });
    }
}

/// One connection between two nodes.
#[derive(Clone)]
struct Wire {
    ends: [NodeName; 2],
    network: Network,
    faults: watch::Receiver<Faults>,
}

impl Wire {
    async fn flows(&mut self) -> bool {
        let (ends, network) = (&self.ends, self.network);
        let flows = |f: &Faults| !f.networks.contains(&network) && !ends.iter().any(|end| f.nodes.contains(end));
        self.faults.wait_for(flows).await.is_ok()
    }
}

type Reader = tokio::net::tcp::OwnedReadHalf;
type Writer = tokio::net::tcp::OwnedWriteHalf;

async fn pump(mut from: Reader, mut to: Writer, mut wire: Wire) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        if !wire.flows().await || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Copies a directory of plain files.
pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for file in std::fs::read_dir(from).expect("read") {
        let file = file.expect("an entry");
        std::fs::copy(file.path(), to.join(file.file_name())).expect("copied");
    }
}

/// Connects to a node's real address, past TLS, as a stranger would.
pub async fn connect_plain(net: u8, from: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(IpAddr::from(from), 0)).expect("a loopback address");
    socket.connect(SocketAddr::new(ip(net, &name("db1"), Network::Primary), PORT)).await.expect("db1 listens")
}
