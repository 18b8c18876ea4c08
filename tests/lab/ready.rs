//! READY is judged: what `status` said just before a fault took the primary away is compared with what came of it. A READY
//! after which nobody served in time was wrong, and so was a NOT READY after which another node did. Every scenario is
//! judged by it when it has passed.
//!
//! Faults tell of themselves (`Host::struck`), so no scenario can forget it; one that is an exception says why
//! ([`Ready::allow`]). What clients saw decides, and READY promises one failure: a second one that `status` could not have
//! shown is no wrong READY.
//! Not here: whether a failover is in time where a scenario waits for one (`bounds.rs`).

use crate::bounds::Bound;
use crate::client::writer::{self, Ack};
use crate::cluster::Cluster;
use crate::host::Host;
use crate::network::Net;
use crate::plan::SERVICE;
use crate::status::{Service, Status};
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Result, ensure};
use regent::api::admin::{Request, SOCKET_NAME};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// What is struck so soon after something else was struck for a reader of `status` at the same time.
const SAME: Duration = Duration::from_millis(200);
/// A blow is complete by then.
const STRUCK: Duration = Duration::from_secs(1);
/// A failure of something else that is younger need not be in `status` yet.
const NOTICED: Duration = Duration::from_secs(10);

/// What a fault does to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// Nobody hears of it: no power, frozen, or no cable left.
    Gone,
    /// It is told to go, and serves until somebody else does or until it stops.
    Leaves,
    /// Its database is killed: a restart in place may answer that too.
    DatabaseKilled,
    /// Its power device does not do what it should, which shows when it is needed.
    Device,
    /// Anything else: what is left must do.
    Hurt,
}

/// Told of every fault just before it is struck.
pub type OnFault = Arc<dyn Fn(&Host, Blow) + Send + Sync>;

/// Which word was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    Ready,
    NotReady,
}

/// A fault, and what was said before it.
#[derive(Clone, Debug)]
pub struct Fault {
    pub host: String,
    pub blow: Blow,
    pub at: Stamp,
    /// `None`: nobody could be asked.
    pub said: Option<Said>,
}

/// What `status` said of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub ready: bool,
    pub reasons: Vec<String>,
    /// Who took writes.
    pub primary: Option<String>,
}

/// The printed bounds.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub failover: Duration,
    pub started: Duration,
}

/// What came of a fault that took the primary away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Right,
    /// The word was kept, or broken, by more than the fault: by this.
    Open(&'static str),
    Is(Wrong),
}

/// What a scenario is judged by.
#[derive(Default)]
pub struct Ready(Mutex<Record>);

#[derive(Default)]
struct Record {
    /// `None`: there is no cluster, or it is not whole yet.
    bounds: Option<Bounds>,
    faults: Vec<Fault>,
    /// When the writer was stopped.
    ended: Option<Stamp>,
    allowed: Vec<(Wrong, &'static str)>,
}

impl Ready {
    /// What is printed for this cluster: from now on it is judged.
    pub fn promises(&self, bounds: Bounds) {
        self.lock().bounds = Some(bounds);
    }

    /// That word may be wrong in this scenario.
    pub fn allow(&self, wrong: Wrong, why: &'static str) {
        println!("a wrong {wrong:?} is allowed: {why}");
        self.lock().allowed.push((wrong, why));
    }

    /// From now on nobody writes.
    pub fn ends(&self) {
        self.lock().ended.get_or_insert(Stamp::now());
    }

    fn strikes(&self, host: &Host, blow: Blow, ask: impl Fn() -> Option<Said>) {
        let mut record = self.lock();
        let last = record.faults.last().filter(|last| Stamp::now().since(last.at) < SAME);
        let said = last.map_or_else(ask, |last| last.said.clone());
        record.faults.push(Fault { host: host.name.clone(), blow, at: Stamp::now(), said });
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.0.lock().expect("no holder of this lock can panic")
    }
}

impl Host {
    /// A fault is struck.
    pub fn struck(&self, blow: Blow) {
        let told = self.on_fault.lock().expect("panics abort").clone();
        told.into_iter().for_each(|told| told(self, blow));
    }
}

impl Cluster<'_> {
    /// From now on every fault has on record what was said before it.
    pub fn listens_to_ready(&self) -> Result<()> {
        let bounds = Bounds { failover: self.bound(Bound::Failover)?, started: self.bound(Bound::Started)? };
        self.world.ready.promises(bounds);
        let hosts = self.hosts();
        for host in &hosts {
            let (hosts, ready) = (hosts.clone(), self.world.ready.clone());
            let told: OnFault = Arc::new(move |host, blow| ready.strikes(host, blow, || ask(&hosts)));
            *host.on_fault.lock().expect("panics abort") = Some(told);
        }
        Ok(())
    }
}

/// The leader's word, else that of any node which answers.
fn ask(hosts: &[Arc<Host>]) -> Option<Said> {
    let able = hosts.iter().filter(|host| host.is_on() && !host.is_frozen());
    let told: Vec<(String, Status)> = able.filter_map(|host| Some((host.name.clone(), status(host)?))).collect();
    let leads = told.iter().find(|(name, status)| status.quorum.leader.as_ref() == Some(name));
    let (_, status) = leads.or(told.first())?;
    status.services.get(SERVICE).map(said)
}

fn said(service: &Service) -> Said {
    let primary = service.primary.clone().filter(|_| service.phase == "installed");
    Said { ready: service.readiness.failover_ready, reasons: service.readiness.reasons.clone(), primary }
}

/// By the admin socket of a daemon: a program that asks would have to be started first, and a fault is timed.
fn status(host: &Host) -> Option<Status> {
    let root = Path::new("/proc").join(host.first_pid()?.to_string()).join("root");
    let mut socket = UnixStream::connect(root.join("run/regent").join(SOCKET_NAME)).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    let request = serde_json::to_string(&Request::Status).ok()?;
    writeln!(socket, "{request}").ok()?;
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

/// All that a judgement takes.
pub struct Evidence {
    pub bounds: Bounds,
    pub faults: Vec<Fault>,
    pub acks: Vec<Ack>,
    /// Of hosts, by their addresses.
    pub names: BTreeMap<String, String>,
    /// From then on nobody wrote.
    pub end: Stamp,
}

/// What was seen in this world; `None`: there was no cluster, or it did not become whole.
pub fn seen(world: &World) -> Result<Option<Evidence>> {
    let record = world.ready.lock();
    let (Some(bounds), Ok(client)) = (record.bounds, world.host("client")) else { return Ok(None) };
    let acks = writer::read(&client.log("writes"))?;
    let names = world.hosts.iter().flat_map(|(name, host)| addresses(name, host)).collect();
    let end = record.ended.unwrap_or_else(Stamp::now);
    Ok(Some(Evidence { bounds, faults: record.faults.clone(), acks, names, end }))
}

/// Judges a scenario that has passed.
pub fn judge(world: &World) -> Result<()> {
    let Some(Evidence { bounds, faults, acks, names, end }) = seen(world)? else { return Ok(()) };
    let allowed = world.ready.lock().allowed.clone();
    let mut wrong = Vec::new();
    for number in 0..faults.len() {
        let Some((verdict, told)) = of(&faults, number, bounds, &acks, &names, end) else { continue };
        println!("{told}: {verdict:?}");
        let is_allowed = |found: Wrong| allowed.iter().any(|(allowed, _)| *allowed == found);
        wrong.extend(matches!(verdict, Verdict::Is(found) if !is_allowed(found)).then_some(told));
    }
    ensure!(wrong.is_empty(), "what status said before a fault was wrong: {}", wrong.join("; "));
    Ok(())
}

fn addresses(name: &str, host: &Host) -> [(String, String); 2] {
    [Net::Primary, Net::Secondary].map(|net| (host.address(net), name.to_owned()))
}

/// One fault, if it took the primary away: whether what was said before it was right, and both in words.
pub fn of(
    faults: &[Fault],
    number: usize,
    bounds: Bounds,
    acks: &[Ack],
    names: &BTreeMap<String, String>,
    end: Stamp,
) -> Option<(Verdict, String)> {
    let fault = &faults[number];
    let said = fault.said.as_ref().filter(|said| said.primary.as_ref() == Some(&fault.host))?;
    let bound = match fault.blow {
        Blow::Gone | Blow::Leaves => bounds.failover,
        Blow::DatabaseKilled => bounds.started.max(bounds.failover),
        Blow::Device | Blow::Hurt => return None,
    };
    // What the host itself still does while it is struck is no service after the fault.
    let by = |ack: &Ack| names.get(&ack.address);
    let over = |ack: &Ack| fault.blow != Blow::Leaves && ack.start.since(fault.at) > STRUCK;
    let after = |ack: &&Ack| ack.start >= fault.at && (by(ack) != Some(&fault.host) || over(ack));
    let served = acks.iter().find(after).map(|ack| (by(ack), ack.ack.since(fault.at)));
    let in_time = served.filter(|(_, outage)| *outage <= bound);
    let elsewhere = in_time.is_some_and(|(by, _)| by != Some(&fault.host));
    let second = faults.iter().enumerate().any(|(other, another)| {
        let near = fault.at.since(another.at) <= NOTICED && another.at.since(fault.at) <= bound;
        let is_another = another.host != fault.host || another.at > fault.at;
        other != number && (another.blow == Blow::Device || (near && is_another))
    });
    let verdict = match said.ready {
        true if in_time.is_some() => Verdict::Right,
        true if second => Verdict::Open("something else failed too"),
        true if end.since(fault.at) < bound => Verdict::Open("the scenario ended before"),
        true => Verdict::Is(Wrong::Ready),
        false if elsewhere => Verdict::Is(Wrong::NotReady),
        false => Verdict::Right,
    };
    let word = if said.ready { "READY".to_owned() } else { format!("NOT READY ({})", said.reasons.join("; ")) };
    let came = match served {
        Some((by, outage)) => format!("{} served after {outage:?}", by.map_or("a stranger", String::as_str)),
        None => "nobody served after it".to_owned(),
    };
    Some((
        verdict,
        format!("{word} was said before {:?} of {}; {came}, and the bound is {bound:?}", fault.blow, fault.host),
    ))
}
