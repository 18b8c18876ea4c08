//! Gathers what this node knows for the page that `status` shows.
//!
//! Not here: what the page says of it (`pages`).

use super::{Daemon, operator};
use crate::api::status::Status;
use crate::clock;
use crate::pages::{self, Known, OwnDatabase, Refused, Unheard};
use crate::types::{ChannelName, Instant, NodeName, ServiceName};
use std::collections::BTreeMap;

/// The answer to `status`.
pub(super) fn status(daemon: &Daemon) -> Status {
    let node = &daemon.node;
    let now = clock::now();
    let (term, leader) = node.leader();
    let refused = daemon.consensus.refusals().into_iter();
    let refused =
        refused.map(|r| Refused { who: r.who, address: r.address.to_string(), reason: r.reason, count: r.count });
    let unheard = daemon.intake.refused().into_iter();
    let unheard = unheard.map(|r| Unheard { channel: r.channel, last: r.last, count: r.count });
    pages::status(&Known {
        seen: node.outlook(now),
        cluster: daemon.consensus.cluster(),
        answered_at: clock::wall(),
        term,
        leader,
        notes: node.notes(),
        waiting: daemon.consensus.waiting(),
        renewed: node.leads().map(|lead| lead.renewed.clone()).unwrap_or_default(),
        own: daemon.config.services.keys().map(|name| (name.clone(), own(daemon, name))).collect(),
        failing: node.failing(),
        room: node.room(),
        behind: node.behind(now),
        not_joined: node.refused_join().map(ToString::to_string),
        phi: phi(daemon, now),
        unusable: unusable(daemon),
        monitors: &daemon.monitors,
        rivals: daemon.rivals.found(),
        refused: refused.collect(),
        unheard: unheard.collect(),
        log_lines_dropped: daemon.dropped.lines(),
        answers_dropped: operator::undelivered(),
    })
}

fn own(daemon: &Daemon, name: &ServiceName) -> OwnDatabase {
    let step = daemon.node.keeping().get(name).cloned();
    let kept = daemon.shell.engines.get(name).map(|engine| engine.kept()).unwrap_or_default();
    let Some(keeper) = daemon.node.keepers().get(name) else {
        return OwnDatabase { step, kept, ..OwnDatabase::default() };
    };
    OwnDatabase {
        step,
        lease: keeper.lease().map(|lease| (lease.epoch(), lease.until())),
        trouble: keeper.seen().trouble.clone(),
        last_error: keeper.last_error().map(str::to_owned),
        copy: keeper.seen().copy,
        failed_copy: keeper.failed_copy(),
        kept,
        overridden: keeper.seen().files.overridden.clone(),
    }
}

fn phi(daemon: &Daemon, now: Instant) -> BTreeMap<(NodeName, ChannelName), f64> {
    let detector = daemon.node.detector();
    let own = daemon.node.rows().get(&daemon.config.node);
    let views = own.into_iter().flat_map(|row| row.views.iter());
    let links = views.flat_map(|(peer, view)| view.channels.keys().map(move |channel| (peer, channel)));
    let phi = links.filter_map(|(peer, channel)| {
        let phi = detector.phi(now, peer, channel)?;
        Some(((peer.clone(), channel.clone()), phi))
    });
    phi.collect()
}

fn unusable(daemon: &Daemon) -> BTreeMap<ChannelName, String> {
    let detector = daemon.node.detector();
    let channels = daemon.config.channels().into_iter();
    channels.filter_map(|channel| detector.unusable(&channel).map(str::to_owned).map(|why| (channel, why))).collect()
}
