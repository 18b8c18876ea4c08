//! A join of another boot of a node whose present boot is still heard, by this leader or by anybody who tells it: it is
//! refused. Who is heard goes on, whatever a copy of it says.
//!
//! Not here: what a join is worth that is accepted (`ledger/claimed.rs`), and telling people (`plan/old_boot.rs`).

use super::context::Context;
use super::leading::Leading;
use super::peers::Peers;
use crate::ledger::Refusal;
use crate::plan::Twin;
use crate::types::{Boot, NodeName};

impl Leading {
    /// Why this leader does not propose the join of that boot; `None` where it does, or does not lead.
    pub fn refuses_join(&mut self, context: &Context, peers: &Peers, node: &NodeName, boot: &Boot) -> Option<Refusal> {
        let lead = self.lead_mut()?;
        let record = context.state.nodes.get(node).filter(|r| r.boot != *boot && !r.past_boots.contains(boot))?;
        let heard = peers.last_sign(node, record.incarnation);
        let Some(heard) = heard.filter(|at| context.now.since(*at) <= context.timing.recent) else {
            lead.twins.remove(node);
            return None;
        };
        let new = || Twin { other: boot.clone(), since: context.now, asked: context.now, heard };
        let twin = lead.twins.entry(node.clone()).or_insert_with(new);
        if twin.other != *boot {
            *twin = new();
        }
        (twin.asked, twin.heard) = (context.now, heard);
        Some(Refusal::TwoMachines { node: node.clone(), boot: record.boot.clone(), other: boot.clone() })
    }
}
