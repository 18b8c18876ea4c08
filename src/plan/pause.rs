//! A pause on the leader: what is said of it, again every hour, so that nobody forgets it, and its end where it has a time.
//!
//! Not here: the pause itself (`ledger/pause.rs`).

use super::{Input, Note, Plan};
use crate::ledger::{Command, Service};
use crate::types::ServiceName;
use std::time::Duration;

/// How often a person is reminded.
const REMINDER: Duration = Duration::from_secs(3600);

/// The service is paused: nothing else is planned for it. A leader that has not seen it begin counts from its own start as
/// the leader: the end may be late, and is never early.
pub(super) fn goes_on(input: &Input, name: &ServiceName, service: &Service, plan: &mut Plan) {
    let began = input.applied.paused.get(name).copied().unwrap_or(input.lead.since);
    let lasted = input.now.since(began);
    let hours = lasted.as_secs() / REMINDER.as_secs();
    plan.say(Note::Paused { service: name.clone() });
    if hours > 0 {
        plan.say(Note::StillPaused { service: name.clone(), hours });
    }
    let Some(pause) = &service.pause else { return };
    let Some(end) = pause.lasts.map(|lasts| began + lasts) else { return };
    match input.now < end {
        true => plan.wake_at(end),
        false => plan.propose(Command::Resume {
            service: name.clone(),
            who: "its time is over".to_owned(),
            number: Some(pause.number),
        }),
    }
}
