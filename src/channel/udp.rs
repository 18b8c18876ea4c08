//! Heartbeats over one network: a socket bound to its own address and interface, that is bound again when the address
//! moves, comes or goes.
//!
//! Sending never waits and never fails: what cannot be sent is counted. Whether anybody is heard is the detector's
//! business; here a network is unusable only when the own socket cannot be bound or the own address is gone.

use super::gate::Refusal;
use super::intake::{Arrival, Intake};
use super::socket::{Bound, Message, Place, place_of};
use super::wire::{MAX_LEN, WireError};
use crate::clock::{self, BootTimer};
use crate::types::{ChannelName, NodeName};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// How often it is looked whether the address has moved, and a failed bind tried again.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A network channel. Dropping it closes the socket.
#[derive(Debug)]
pub struct Udp {
    shared: Arc<Shared>,
    state: watch::Receiver<Result<(), String>>,
    task: JoinHandle<()>,
}

/// What became of the messages that were sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SendCount {
    pub sent: u64,
    pub failed: u64,
    /// The last failure, with the peer that it was meant for.
    pub last_failure: Option<String>,
}

#[derive(Debug)]
struct Shared {
    name: ChannelName,
    local: SocketAddr,
    peers: BTreeMap<NodeName, SocketAddr>,
    socket: Mutex<Option<Arc<Bound>>>,
    count: Mutex<SendCount>,
    /// Sending failed in a way that a moved address would explain.
    look: Notify,
}

impl Udp {
    /// Starts the channel, within a tokio runtime. It binds now, or later when it cannot: see [`Self::state`]. Fails
    /// only without free file descriptors.
    pub fn bind(
        name: ChannelName,
        local: SocketAddr,
        peers: BTreeMap<NodeName, SocketAddr>,
        intake: Intake,
    ) -> io::Result<Self> {
        let timer = BootTimer::new()?;
        let shared = Arc::new(Shared {
            name,
            local,
            peers,
            socket: Mutex::default(),
            count: Mutex::default(),
            look: Notify::new(),
        });
        let (publish, state) = watch::channel(Err("not bound yet".to_owned()));
        let task = tokio::spawn(run(shared.clone(), intake, timer, publish));
        Ok(Udp { shared, state, task })
    }

    /// Sends one encoded heartbeat to every peer. Never waits.
    pub fn send(&self, bytes: &[u8]) {
        let socket = self.shared.socket.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut count = self.shared.count.lock().unwrap_or_else(PoisonError::into_inner);
        for (node, address) in &self.shared.peers {
            let sent = match &socket {
                Some(socket) => socket.send(bytes, *address),
                None => Err(io::ErrorKind::NotConnected.into()),
            };
            match sent {
                Ok(()) => count.sent += 1,
                Err(error) => {
                    count.failed += 1;
                    count.last_failure = Some(format!("to {node} at {address}: {error}"));
                    if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENODEV | libc::ENXIO)) {
                        self.shared.look.notify_one();
                    }
                }
            }
        }
    }

    /// Whether this host can use the network: `Err` says why not. Changes can be awaited.
    pub fn state(&self) -> watch::Receiver<Result<(), String>> {
        self.state.clone()
    }

    pub fn name(&self) -> &ChannelName {
        &self.shared.name
    }

    /// What became of the messages that were sent, for `status`.
    pub fn count(&self) -> SendCount {
        self.shared.count.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Udp {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Binds and receives, for ever.
async fn run(shared: Arc<Shared>, intake: Intake, mut timer: BootTimer, publish: watch::Sender<Result<(), String>>) {
    loop {
        let opened = place_of(shared.local.ip()).and_then(|place| Ok((Bound::open(shared.local, &place)?, place)));
        match opened {
            Ok((bound, place)) => {
                let bound = Arc::new(bound);
                *shared.socket.lock().unwrap_or_else(PoisonError::into_inner) = Some(bound.clone());
                say(&publish, &shared, usable(&shared, &place));
                if !serve(&shared, &intake, &mut timer, &bound, &place).await {
                    return;
                }
                // Closed before it is bound again: the address would be in use.
                *shared.socket.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
            Err(error) => {
                say(&publish, &shared, Err(format!("cannot bind {}: {error}", shared.local)));
                timer.set(clock::now() + LOOK_EVERY);
                timer.fired().await;
            }
        }
    }
}

fn usable(shared: &Shared, place: &Place) -> Result<(), String> {
    match place {
        Place::Nowhere => Err(format!("no interface of this host has the address {}", shared.local.ip())),
        Place::Loopback | Place::On(_) => Ok(()),
    }
}

fn say(publish: &watch::Sender<Result<(), String>>, shared: &Shared, state: Result<(), String>) {
    publish.send_if_modified(|present| {
        let changed = *present != state;
        if changed {
            match &state {
                Ok(()) => tracing::info!(channel = %shared.name, local = %shared.local, "bound"),
                Err(why) => tracing::warn!(channel = %shared.name, "{why}"),
            }
            *present = state;
        }
        changed
    });
}

/// Receives until the address is elsewhere (true) or nobody takes arrivals any more (false).
async fn serve(shared: &Shared, intake: &Intake, timer: &mut BootTimer, bound: &Bound, place: &Place) -> bool {
    // One byte more than a heartbeat may have, so that a longer one is seen to be longer.
    let mut buffer = [0; MAX_LEN + 1];
    let mut empty_at = clock::now();
    timer.set(clock::now() + LOOK_EVERY);
    loop {
        tokio::select! {
            received = bound.receive(&mut buffer, &mut empty_at) => match received {
                Ok(message) => {
                    if !take(shared, intake, &buffer, message).await {
                        return false;
                    }
                }
                // An interface that went down, or an error report about something sent: the next look tells.
                Err(error) => tracing::debug!(channel = %shared.name, "receiving: {error}"),
            },
            () = timer.fired() => {
                if has_moved(shared, place) {
                    return true;
                }
                timer.set(clock::now() + LOOK_EVERY);
            }
            () = shared.look.notified() => {
                if has_moved(shared, place) {
                    return true;
                }
            }
        }
    }
}

fn has_moved(shared: &Shared, place: &Place) -> bool {
    place_of(shared.local.ip()).is_ok_and(|now| now != *place)
}

/// Checks one message and delivers it. False when nobody takes arrivals any more.
async fn take(shared: &Shared, intake: &Intake, buffer: &[u8], message: Message) -> bool {
    match check(shared, intake, buffer, message) {
        Ok(arrival) => intake.deliver(arrival).await,
        Err(refusal) => {
            intake.refuse(clock::now(), &shared.name, message.from, &refusal);
            true
        }
    }
}

fn check(shared: &Shared, intake: &Intake, buffer: &[u8], message: Message) -> Result<Arrival, Refusal> {
    let Message { len, cut, from, at } = message;
    if cut || len > MAX_LEN {
        return Err(WireError::NotAHeartbeat.into());
    }
    let heartbeat = intake.admit(&buffer[..len])?;
    let expected = shared.peers.get(&heartbeat.node).map(SocketAddr::ip);
    match (from, expected) {
        (Some(from), Some(expected)) if from == expected => {
            Ok(Arrival { channel: shared.name.clone(), at, from: Some(from), heartbeat })
        }
        (Some(from), Some(expected)) => Err(Refusal::ForeignAddress { node: heartbeat.node, from, expected }),
        _ => Err(Refusal::UnknownNode { node: heartbeat.node }),
    }
}

#[cfg(test)]
#[path = "udp_test.rs"]
mod tests;
