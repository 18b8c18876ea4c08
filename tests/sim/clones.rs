//! A copy of a host that boots beside it: an image of its disk on another machine, or the same guest started twice. It joins
//! with the same name and installation, and says that nothing of the epochs that its node held goes on.
//!
//! Not here: a daemon of its own. It asks, and sends heartbeats for a while.

use crate::cluster::{MS, S, World};
use rand::RngExt;
use rand::rngs::StdRng;
use regent::ledger::{Claim, ClaimState, Command, Holder, Machine};
use regent::node::{Event, PeerRequest};
use regent::types::{Boot, Heartbeat};
use std::sync::Arc;

/// For how many turns of 200 ms the copy runs.
const TURNS: u64 = 40;

/// In the name of each boot of a copy.
const MARK: &str = "-clone";

/// Whether this boot is a copy's.
fn is_copy(boot: &Boot) -> bool {
    boot.0.contains(MARK)
}

/// What the copy says of its hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hardware {
    /// That of another machine.
    Other,
    /// Nothing can be read there.
    Unknown,
    /// The very same: a guest that is started twice, or parts that were moved.
    SameGuest,
}

impl World {
    /// The join of a copy of the host. Its copy of the log is as new as that of its twin.
    pub fn join_of_copy(&self, host: usize, boot: &Boot, hardware: Hardware) -> Command {
        let (state, h) = (self.log.state(), &self.hosts[host]);
        let name = &h.name;
        let mine = |s: &regent::ledger::Service| s.over.is_none() && s.holder.as_ref().is_some_and(|h| &h.node == name);
        let over = |epoch| Claim { epoch, state: ClaimState::Over { position: None } };
        let claims = state.services.iter().filter(|(_, s)| mine(s)).map(|(name, s)| (name.clone(), over(s.epoch)));
        let own = h.machine(None);
        let machine = match hardware {
            Hardware::Other => Machine { hardware: [format!("hardware beside {name}")].into(), ..own },
            Hardware::Unknown => Machine { hardware: Default::default(), ..own },
            Hardware::SameGuest => Machine { is_virtual: true, ..own },
        };
        let succeeds = state.nodes.get(name).map(|n| n.incarnation);
        let (boot, request, claims) = (boot.clone(), self.now, claims.collect());
        Command::Join { node: name.clone(), boot, request, succeeds, machine, claims }
    }

    /// Whether the ledger takes a copy of this host for the node.
    pub fn is_a_copy_present(&self, host: usize) -> bool {
        self.log.state().nodes.get(&self.hosts[host].name).is_some_and(|n| is_copy(&n.boot))
    }

    /// It asks the leader, as a daemon does.
    pub fn knock(&mut self, command: Command) {
        let (Some((leader, _)), Command::Join { node, .. }) = (self.log.leader, &command) else { return };
        let (from, request) = (node.clone(), PeerRequest::Propose(Box::new(command)));
        self.give(leader, Event::Asked { reply: u64::MAX, from, request });
    }
}

/// A copy of the host boots, asks the leader or reaches the log past it (as a leader that has heard of nobody lets it), and
/// once it has joined it sends heartbeats. Then it goes.
pub fn boots(w: &mut World, rng: &mut StdRng, host: usize) {
    let boot = Boot(format!("{}{MARK}{}", w.hosts[host].name, w.now).into());
    let hardware = match rng.random_range(0..3) {
        0 => Hardware::Other,
        // That no hypervisor runs one guest twice is taken for granted (docs/safety.md).
        2 if !w.hosts[host].is_virtual => Hardware::SameGuest,
        _ => Hardware::Unknown,
    };
    let asks = rng.random_range(0..2) == 0;
    for turn in 0..TURNS {
        let boot = boot.clone();
        w.after(turn * 200 * MS, move |w| {
            let record = w.log.state().nodes.get(&w.hosts[host].name);
            let is_past = record.is_some_and(|n| n.past_boots.contains(&boot));
            let Some(incarnation) = record.filter(|n| n.boot == boot).map(|n| n.incarnation) else {
                if turn == 0 || asks && !is_past && turn.is_multiple_of(3) {
                    let join = w.join_of_copy(host, &boot, hardware);
                    if asks { w.knock(join) } else { w.order(join) }
                }
                return;
            };
            if let Some(beat) = w.hosts[host].last_beat.clone() {
                w.carry(host, &Arc::new(Heartbeat { boot, incarnation, sequence: turn, ..(*beat).clone() }));
            }
        });
    }
    w.after(TURNS * 200 * MS, move |w| boot_again(w, host));
}

/// Stopped in order, it gives back what it was appointed to.
fn give_back(w: &mut World, host: usize) {
    let of_copy = |h: &&Holder| h.node == w.hosts[host].name && is_copy(&h.boot);
    let services = w.log.state().services.iter().filter(|(_, s)| s.over.is_none());
    let held =
        services.filter_map(|(name, s)| Some((name.clone(), s.epoch, s.holder.clone().filter(|h| of_copy(&h))?)));
    let words = held.map(|(service, epoch, Holder { node, boot, incarnation })| {
        let why = "stopped in order".to_owned();
        Command::Release { service, epoch, node, boot, incarnation, position: None, lapsed: false, leaving: false, why }
    });
    let words: Vec<_> = words.collect();
    words.into_iter().for_each(|word| w.order(word));
}

/// The copy is gone. Where the ledger takes it for the node, a person boots the node again, also one that regent had
/// switched off before the copy came: by then it took the copy for the node.
pub fn boot_again(w: &mut World, host: usize) {
    give_back(w, host);
    let boots = w.hosts[host].boots;
    if !w.is_a_copy_present(host) {
        return;
    }
    if !w.hosts[host].power {
        w.power_on(host);
    } else {
        w.power_off(host);
        w.after(2 * S, move |w| {
            if w.hosts[host].boots == boots {
                w.power_back(host);
            }
        });
    }
}
