//! S3: a verdict carries suspicions of a majority of all voters, each with a majority of the configured channels lost
//! for exactly the incarnation that lives. Counted here again, from the evidence alone; whether the evidence was true
//! is S8's.

use crate::cluster::World;
use regent::ledger::{Command, State};
use regent::types::Sight;

pub fn verdict(w: &mut World, before: &State, command: &Command) {
    let Command::DeclareDead { target, answers, .. } = command else { return };
    let (Some(record), Some(settings)) = (before.nodes.get(target), &before.settings) else { return };
    let suspects = answers.iter().filter(|(voter, said)| {
        let lost = said.view.channels.values().filter(|sight| **sight == Sight::Lost).count();
        *voter != target && said.view.incarnation == record.incarnation && lost * 2 > settings.channels.len()
    });
    let count = suspects.count();
    if count * 2 <= w.hosts.len() {
        w.violate("S3", format!("{target} is declared dead by {count} of {} voters", w.hosts.len()));
    }
}
