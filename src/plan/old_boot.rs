//! Two boots of one node. The later one calls an epoch of the earlier one over, while nobody knows whether that has ended:
//! the wait for its last lease, or its fence where the wait proves nothing. Or both are heard, and people are told.
//!
//! Not here: which joins are believed at once (`ledger/claimed.rs`), and refusing them (`node/twins.rs`).

use super::note::{Note, Passing};
use super::{Input, Plan};
use crate::ledger::{Command, FenceReason, Service};
use crate::types::{Boot, Instant, ServiceName};

/// A boot that asks to join while another boot of its node sends heartbeats.
#[derive(Clone, Debug)]
pub struct Twin {
    /// The boot that asks.
    pub other: Boot,
    /// When it was first refused, and when last.
    pub since: Instant,
    pub asked: Instant,
    /// When the boot that the ledger knows was heard last, by anybody, as far as this leader knew then.
    pub heard: Instant,
}

/// Both run: heartbeats go on long after the other boot began to ask. (What a reboot left on its way is no such heartbeat.)
pub fn say_twins(input: &Input, plan: &mut Plan) {
    for (node, twin) in &input.lead.twins {
        let forgotten = twin.asked + input.timing.transfer;
        let Some(record) = input.state.nodes.get(node).filter(|_| input.now < forgotten) else { continue };
        if record.boot != twin.other && twin.heard > twin.since + input.timing.recent {
            let (node, boot, other) = (node.clone(), record.boot.clone(), twin.other.clone());
            plan.say(Note::TwoMachines { node, boot, other });
            plan.wake_at(forgotten);
        }
    }
}

/// The last moment at which a lease of the service's present epoch may have been granted or held open, as this leader
/// knows: it granted it, or a leader before it did, or a pause held it open.
pub fn last_lease(input: &Input, name: &ServiceName, service: &Service) -> Instant {
    let renewed = input.lead.renewed.get(name).filter(|(epoch, _)| *epoch == service.epoch).map(|(_, at)| *at);
    let began = input.applied.epoch.get(name).copied().unwrap_or(input.lead.since);
    // Renewals may have failed all through a pause: its holder has the time of a lease to renew after it.
    let resumed = input.applied.resumed.get(name).copied().unwrap_or(began);
    renewed.unwrap_or_default().max(began.min(input.now)).max(resumed).max(input.lead.since)
}

/// Since the join nothing was granted to that boot, and before it nothing that this leader does not count.
pub fn wait(input: &Input, name: &ServiceName, service: &Service, plan: &mut Plan) {
    let (Some(holder), Some(settings)) = (&service.holder, &input.state.settings) else { return };
    let ends = last_lease(input, name, service) + settings.lease_wait();
    if input.now < ends {
        plan.wake_at(ends);
        let left = Passing(ends.since(input.now));
        return plan.say(Note::AwaitsEarlierBoot { service: name.clone(), node: holder.node.clone(), left });
    }
    let (epoch, boot) = (service.epoch, holder.boot.clone());
    let Some(why) = input.state.earlier_boot_objection(name) else {
        return plan.propose(Command::WaitedOut { service: name.clone(), epoch, boot });
    };
    if input.state.fence_of(service).is_some() {
        return;
    }
    plan.say(Note::EarlierBootMayGoOn { service: name.clone(), node: holder.node.clone(), why });
    if !input.doubts_itself {
        let reason = FenceReason::Lapsed { service: name.clone(), epoch, term: input.lead.term };
        plan.propose(Command::OpenFence { target: holder.node.clone(), boot, reason });
    }
}
