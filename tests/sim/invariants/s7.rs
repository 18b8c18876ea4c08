//! S7: every decision can be explained from the ledger alone, refusals too.

use crate::cluster::World;
use regent::ledger::{Answer, Basis, Command, Happening, State};
use regent::types::Epoch;

/// A refusal is recorded, or is the repetition of the last one.
pub fn committed(w: &mut World, _before: &State, after: &State, command: &Command, answer: &Answer) {
    let Answer::Refused(refusal) = answer else { return };
    let recorded = after.refusals.back().is_some_and(|r| r.command == command.name() && &r.refusal == refusal);
    if !recorded {
        w.violate("S7", format!("the refusal of {} is not in the ledger", command.name()));
    }
    if let Command::Appoint { basis: Basis::Fenced { fence, .. }, .. } = command
        && let Some(fence) = after.fences.get(fence)
    {
        let said = |what: &Happening| matches!(what, Happening::Refused { refusal: r, .. } if r == refusal);
        let incident = after.incidents.get(&fence.incident);
        if !incident.is_some_and(|i| i.steps.iter().any(|step| said(&step.what))) {
            w.violate("S7", "the incident does not say why an appointment was refused".to_owned());
        }
    }
}

/// The incident of an appointment has the reason for which the epoch before was over: that epoch's own release, or the
/// confirmation of the very fence on which the appointment rests, which was opened against its holder's boot.
pub fn appointment(w: &mut World, before: &State, after: &State, command: &Command, epoch: Epoch) {
    let Command::Appoint { service, prior, basis, .. } = command else { return };
    let about = after.incidents.values().filter(|i| i.services.contains(service));
    let steps: Vec<_> = about.flat_map(|i| &i.steps).map(|step| &step.what).collect();
    let says = |is: &dyn Fn(&Happening) -> bool| steps.iter().any(|step| is(step));
    let appointed = says(&|s| matches!(s, Happening::Appointed { epoch: e, .. } if *e == epoch));
    let over = match basis {
        Basis::Released => {
            says(&|s| matches!(s, Happening::Released { service: of, epoch: e, .. } if of == service && e == prior))
        }
        Basis::PassedOver => {
            says(&|s| matches!(s, Happening::PassedOver { service: of, epoch: e, .. } if of == service && e == prior))
        }
        Basis::Fenced { fence, .. } => {
            let holder = before.services.get(service).and_then(|s| s.holder.as_ref());
            let boot = holder.map(|h| (&h.node, &h.boot));
            says(&|s| matches!(s, Happening::FenceConfirmed { fence: f, .. } if f == fence))
                && says(&|s| match s {
                    Happening::FenceOpened { fence: f, target, boot: b, .. } => f == fence && boot == Some((target, b)),
                    _ => false,
                })
        }
    };
    if !appointed || !over {
        w.violate("S7", format!("no incident explains epoch {epoch} of {service}"));
    }
}
