//! S9: no appointment rests on a fence by power, or by a person, of a boot that somebody with a say still hears.

use crate::cluster::World;
use regent::ledger::{Basis, Confirmation, State};
use regent::types::AgentKind;

pub fn appointment(w: &mut World, before: &State, basis: &Basis) {
    let Basis::Fenced { fence, .. } = basis else { return };
    let Some(fence) = before.fences.get(fence) else { return };
    let demands_silence = match &fence.confirmed {
        Some(Confirmation::Level { kinds, .. }) => kinds.contains(&AgentKind::Power),
        Some(Confirmation::Human { force, .. }) => !force,
        None => true,
    };
    let host = w.host(&fence.target);
    let h = &w.hosts[host];
    let lives = h.is_sending() && h.boot() == fence.boot;
    let heard_by = w.who_can_tell(host).next();
    if demands_silence
        && lives
        && let Some(by) = heard_by
    {
        let what = format!("an appointment on the fence of {}, which {} hears", fence.target, w.hosts[by].name);
        w.violate("S9", what);
    }
}
