//! Watches whether the stream of a running standby gets on, and turns it to the other network where it does not: the order of
//! the addresses in `primary_conninfo` is turned, and the server reads it anew. It goes on streaming over what works, also
//! when the other network is back.
//!
//! It is turned only where the upstream answers over the other network, so that nothing is turned back and forth while both
//! are lost; and after a turn it rests, longer each time, until a stream has lasted.
//!
//! A turn holds the engine's turn, and an action that is asked for meanwhile interrupts it. What it writes then lands before
//! what that action writes, or not at all (`writes.rs`); and it only turns the addresses of whom the file names already.
//!
//! Not here: whom to follow. What can be asked over which network: `upstream.rs`.

use super::core::Core;
use super::error::{EngineError, Result};
use super::networks::network_of;
use super::session::{Place, Receiver, Session};
use super::{reload, seal, settings, sockets, upstream};
use crate::clock;
use crate::types::{DbState, Instant, Lsn, Network, Span, Upstream};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};

/// Without a connection for so long, the networks are asked. One that only broke is there again by then.
const UNCONNECTED: Duration = Duration::from_millis(1500);
/// The present network answers, and for so long nothing has come of its connections all the same: the other one is tried.
/// Two connections have come to nothing by then (`wal_receiver_timeout`).
const STUCK: Duration = Duration::from_secs(12);
/// How often they are asked while the stream does not get on: each time costs the upstream two logins.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How long a network is kept at least; each further turn makes it twice as long.
const REST: Duration = Duration::from_secs(10);
const REST_MAX: Duration = Duration::from_secs(300);
/// A stream that lasted for so long begins anew.
const STEADY: Duration = Duration::from_secs(60);
/// How long a turn may wait for its disk: whoever acts next must not wait for it.
const WRITE: Duration = Duration::from_secs(2);

/// What one look shows.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// There is nothing that this could better: it writes or replays what it has.
    Busy,
    /// The receiver, and when the last message came.
    Connected { pid: i32, message: String },
    /// It waits for WAL, and no receiver is connected.
    Unconnected { replayed: Option<Lsn> },
}

/// What was seen of one stream.
#[derive(Debug, Default)]
struct Watch {
    last: Option<Seen>,
    /// When it got on last, or the watch began.
    since: Option<Instant>,
    /// A connection was there since then, and nothing came over it.
    in_vain: bool,
    asked: Option<Instant>,
    turned: Option<Instant>,
    turns: u32,
    flows_since: Option<Instant>,
}

impl Watch {
    /// Whether the networks are to be asked now: for how long it has not got on. `silence`: how long a connection that is
    /// healthy is silent at most, where that is known.
    fn sees(&mut self, seen: Seen, silence: Option<Duration>, now: Instant) -> Option<Duration> {
        let last = self.last.replace(seen.clone());
        let limit = match (&seen, last) {
            (Seen::Connected { pid, message }, Some(Seen::Connected { pid: before, message: last }))
                if *pid == before =>
            {
                if *message != last {
                    return self.gets_on(now);
                }
                self.in_vain = true;
                silence
            }
            (Seen::Connected { .. }, _) => silence,
            (Seen::Unconnected { replayed }, Some(Seen::Unconnected { replayed: before })) if *replayed != before => {
                return self.begins(now);
            }
            (Seen::Unconnected { .. }, _) => Some(UNCONNECTED),
            (Seen::Busy, _) => return self.begins(now),
        };
        self.flows_since = self.flows_since.filter(|_| matches!(seen, Seen::Connected { .. }));
        let lost = now.since(*self.since.get_or_insert(now));
        let is_due = |at: Option<Instant>, pause| at.is_none_or(|at| now.since(at) >= pause);
        let asks = limit.is_some_and(|limit| lost >= limit)
            && is_due(self.asked, ASK_EVERY)
            && is_due(self.turned, self.rest());
        asks.then(|| {
            self.asked = Some(now);
            lost
        })
    }

    fn begins(&mut self, now: Instant) -> Option<Duration> {
        (self.since, self.in_vain) = (Some(now), false);
        None
    }

    fn gets_on(&mut self, now: Instant) -> Option<Duration> {
        let flows_since = *self.flows_since.get_or_insert(now);
        if now.since(flows_since) >= STEADY {
            self.turns = 0;
        }
        self.begins(now)
    }

    /// How long the present network is kept after the last turn.
    fn rest(&self) -> Duration {
        REST.saturating_mul(1 << self.turns.saturating_sub(1).min(16)).min(REST_MAX)
    }

    /// Why the stream is to be turned away from `present`, if it is, where these answer.
    fn why(&self, present: Network, answering: &[Network], now: Instant) -> Option<Why> {
        let lasts = now.since(self.since?);
        match (answering.contains(&present.other()), answering.contains(&present)) {
            (true, false) => Some(Why::NoAnswer),
            (true, true) if self.in_vain && lasts >= STUCK => Some(Why::InVain),
            _ => None,
        }
    }

    fn was_turned(&mut self, now: Instant) {
        (self.turned, self.turns, self.flows_since) = (Some(now), self.turns + 1, None);
        self.begins(now);
    }
}

/// Why a stream is turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    NoAnswer,
    InVain,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Why::NoAnswer => "the upstream does not answer over the present one any more",
            Why::InVain => "the upstream answers over the present one, but nothing comes of the connections",
        })
    }
}

/// Watches for as long as the engine lives, with each look of the observer. `asked` counts the actions.
pub async fn run(core: Arc<Core>, turn: Arc<Mutex<()>>, asked: watch::Receiver<u64>) {
    let mut looks = core.seen.subscribe();
    let mut attendant = Attendant { core: core.clone(), turn, asked, watch: Watch::default(), said: None };
    while looks.changed().await.is_ok() {
        let follows = {
            let seen = looks.borrow_and_update();
            let follows = seen.observation.follows.clone();
            follows.filter(|_| seen.observation.state == DbState::Standby && seen.observation.trouble.is_none())
        };
        let Some(upstream) = follows.and_then(|node| core.config.upstream(&core.service, &node)) else {
            (attendant.watch, attendant.said) = (Watch::default(), None);
            continue;
        };
        if let Err(error) = attendant.looks(&upstream).await {
            tracing::debug!(service = %core.service, %error, "whether the stream gets on is not known");
        }
    }
}

struct Attendant {
    core: Arc<Core>,
    turn: Arc<Mutex<()>>,
    asked: watch::Receiver<u64>,
    watch: Watch,
    /// Over which network it streams, from whom, as the log knows it, and by which receiver.
    said: Option<(Upstream, Network, i32)>,
}

impl Attendant {
    async fn looks(&mut self, upstream: &Upstream) -> Result<()> {
        let deadline = self.core.postgresql().probe_timeout;
        let look = async {
            let session = self.core.session().await?;
            Ok::<_, EngineError>((session.place().await?, silence(&session).await?))
        };
        let late = |_| EngineError::NoAnswer { what: "the server, asked for its stream,", after: deadline };
        let (place, silence) = tokio::time::timeout(deadline, look).await.map_err(late)??;
        let lost = self.watch.sees(seen(&place), silence, clock::now());
        let Some(lost) = lost else {
            return self.tells(upstream, place.receiver.as_ref()).await;
        };
        let present = self.present(upstream, &place).await;
        let answering = upstream::answering(&self.core, upstream).await?;
        let Some(why) = self.watch.why(present, &answering, clock::now()) else { return Ok(()) };
        if self.turns(upstream, present.other()).await? {
            self.watch.was_turned(clock::now());
            let (service, to, from) = (&self.core.service, present.other(), present);
            tracing::warn!(
                %service, upstream = %upstream.node, silent_for = %Span(lost),
                "the stream is turned from the {from} to the {to}: {why}"
            );
        }
        Ok(())
    }

    /// Over which network the connection goes, or the next one will.
    async fn present(&self, upstream: &Upstream, place: &Place) -> Network {
        let used = match &place.receiver {
            Some(receiver) => self.used(upstream, receiver.pid).await,
            None => None,
        };
        let first = settings::addresses_in(&place.conninfo).first().copied();
        used.or_else(|| network_of(&self.core.config, first?)).unwrap_or(self.core.networks.first())
    }

    async fn used(&self, upstream: &Upstream, pid: i32) -> Option<Network> {
        let ends = self.core.on_disk(move |_| sockets::of_process(pid)).await;
        let to = ends.into_iter().find(|to| to.port() == upstream.port && upstream.addresses.contains(&to.ip()))?;
        network_of(&self.core.config, to.ip())
    }

    /// Says over which network a stream that gets on goes, where that is new; whatever is connected next begins with it.
    async fn tells(&mut self, upstream: &Upstream, receiver: Option<&Receiver>) -> Result<()> {
        let Some(pid) = receiver.map(|receiver| receiver.pid).filter(|_| self.watch.flows_since.is_some()) else {
            return Ok(());
        };
        if self.said.as_ref().is_some_and(|(of, _, by)| of == upstream && *by == pid) {
            return Ok(());
        }
        let Some(network) = self.used(upstream, pid).await else { return Ok(()) };
        if self.said.as_ref().is_none_or(|(of, over, _)| (of, *over) != (upstream, network)) {
            tracing::info!(service = %self.core.service, upstream = %upstream.node, "streams over the {network}");
        }
        self.core.networks.prefer(network);
        self.core.networks.is_used(pid, network);
        self.said = Some((upstream.clone(), network, pid));
        Ok(())
    }

    /// Turns the stream to `network`, unless an action is under way or asked for: that one says whom to follow, and how.
    async fn turns(&mut self, upstream: &Upstream, network: Network) -> Result<bool> {
        self.asked.borrow_and_update();
        let Ok(_turn) = self.turn.try_lock() else { return Ok(false) };
        tokio::select! {
            _ = self.asked.changed() => Ok(false),
            turned = tokio::time::timeout(WRITE, turn(&self.core, upstream, network)) => turned.unwrap_or(Ok(false)),
        }
    }
}

async fn turn(core: &Arc<Core>, upstream: &Upstream, network: Network) -> Result<bool> {
    // An action may have come between.
    let place = core.session().await?.place().await?;
    if !place.in_recovery || !leads_to(upstream, &place.conninfo) {
        return Ok(false);
    }
    core.networks.prefer(network);
    let conninfo = core.conninfo(upstream);
    if conninfo == place.conninfo {
        // PostgreSQL itself went over to the network that comes second, and begins with the first.
        if let Some(receiver) = &place.receiver {
            seal::end_receiver(core, receiver.pid);
        }
        return Ok(true);
    }
    let (upstream, wanted) = (upstream.clone(), conninfo.clone());
    let leads = core
        .on_disk_in_order(move |core, in_order| {
            let mut leads = false;
            settings::renew_conninfo(in_order, &core.layout, |present| {
                leads = leads_to(&upstream, present);
                leads.then_some(conninfo)
            })?;
            Ok(leads)
        })
        .await?;
    Ok(leads && reload::read_again(core, &wanted).await?)
}

/// Whether this is how that upstream is reached, in whichever order.
fn leads_to(upstream: &Upstream, conninfo: &str) -> bool {
    let addresses = settings::addresses_in(conninfo);
    !addresses.is_empty() && addresses.iter().all(|address| upstream.addresses.contains(address))
}

fn seen(place: &Place) -> Seen {
    match &place.receiver {
        Some(receiver) if receiver.writes => Seen::Busy,
        Some(Receiver { pid, streaming: true, last_message: Some(message), .. }) => {
            Seen::Connected { pid: *pid, message: message.clone() }
        }
        // It waits for the startup process to say from where on.
        Some(_) => Seen::Busy,
        None if place.awaits_wal => Seen::Unconnected { replayed: place.replayed },
        None => Seen::Busy,
    }
}

/// For how long a healthy connection says nothing at most: the receiver asks for a sign after half of `wal_receiver_timeout`.
/// Half as long again is for the answer. `None` where it never asks.
async fn silence(session: &Session) -> Result<Option<Duration>> {
    let question = "select (extract(epoch from current_setting('wal_receiver_timeout')::interval) * 1000)::bigint";
    let rows = session.client().query_typed(question, &[]).await;
    let rows = rows.map_err(EngineError::sql("ask the server for wal_receiver_timeout"))?;
    let timeout = rows.first().map_or(0, |row| row.get::<_, i64>(0));
    Ok(u64::try_from(timeout).ok().filter(|ms| *ms > 0).map(|ms| Duration::from_millis(ms / 4 * 3)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant(1_000_000_000_000);
    const SILENCE: Option<Duration> = Some(Duration::from_millis(3750));
    const BOTH: [Network; 2] = [Network::Primary, Network::Secondary];
    const LOST: Seen = Seen::Unconnected { replayed: None };
    const NONE: [u64; 0] = [];

    fn connected(pid: i32, message: u64) -> Seen {
        Seen::Connected { pid, message: message.to_string() }
    }

    fn at(seconds: u64) -> Instant {
        START + Duration::from_secs(seconds)
    }

    /// In which of these seconds the networks are asked.
    fn asks(watch: &mut Watch, seconds: std::ops::Range<u64>, seen: impl Fn(u64) -> Seen) -> Vec<u64> {
        seconds.filter(|second| watch.sees(seen(*second), SILENCE, at(*second)).is_some()).collect()
    }

    #[test]
    fn a_stream_that_hears_from_its_upstream_is_left_alone_and_one_that_does_not_is_not() {
        let mut watch = Watch::default();
        // A sign every two seconds, as from a primary that writes nothing.
        assert_eq!(asks(&mut watch, 0..60, |second| connected(1, second / 2)), NONE);
        assert_eq!(asks(&mut watch, 60..70, |_| connected(1, 29)), [62, 64, 66, 68], "it was heard last at 58");
        assert!(Watch::default().sees(connected(1, 0), None, START).is_none());
        let mut never = Watch::default();
        assert!((0..99).all(|second| never.sees(connected(1, 0), None, at(second)).is_none()), "it asks for no sign");
    }

    #[test]
    fn what_replays_or_waits_for_its_disk_is_not_lost() {
        let mut watch = Watch::default();
        assert_eq!(asks(&mut watch, 0..60, |_| Seen::Busy), NONE);
        assert_eq!(asks(&mut watch, 60..90, |second| Seen::Unconnected { replayed: Some(Lsn(second)) }), NONE);
        assert_eq!(asks(&mut watch, 90..96, |_| LOST), [92, 94]);
    }

    #[test]
    fn a_receiver_that_comes_and_goes_gets_on_only_when_something_comes() {
        let mut watch = Watch::default();
        let in_vain = |second: u64| if second.is_multiple_of(3) { LOST } else { connected(second as i32 / 3, 0) };
        assert!(!asks(&mut watch, 0..20, in_vain).is_empty());
        assert_eq!(watch.why(Network::Primary, &BOTH, at(11)), None);
        assert_eq!(watch.why(Network::Primary, &BOTH, at(13)), Some(Why::InVain));
        let mut refused = Watch::default();
        assert!(!asks(&mut refused, 0..60, |_| LOST).is_empty());
        assert_eq!(refused.why(Network::Primary, &BOTH, at(60)), None, "it is not the network");
    }

    #[test]
    fn a_stream_is_turned_to_a_network_that_answers_alone() {
        let mut watch = Watch::default();
        asks(&mut watch, 0..5, |_| LOST);
        let why = |present, answering: &[Network]| watch.why(present, answering, at(5));
        assert_eq!(why(Network::Primary, &[Network::Secondary]), Some(Why::NoAnswer));
        assert_eq!(why(Network::Secondary, &[Network::Primary]), Some(Why::NoAnswer));
        assert_eq!(why(Network::Secondary, &[Network::Secondary]), None);
        assert_eq!(why(Network::Primary, &[]), None, "both are lost");
    }

    #[test]
    fn after_a_turn_it_rests_longer_each_time_until_a_stream_has_lasted() {
        let (mut watch, mut turned) = (Watch::default(), Vec::new());
        for second in 0..1000 {
            if watch.sees(LOST, SILENCE, at(second)).is_some() {
                turned.push(second);
                watch.was_turned(at(second));
            }
        }
        assert_eq!(turned, [2, 12, 32, 72, 152, 312, 612, 912]);
        asks(&mut watch, 1000..1070, |second| connected(1, second));
        let again = asks(&mut watch, 1070..1073, |_| LOST);
        assert_eq!(again, [1071], "it lasted for a minute");
    }
}
