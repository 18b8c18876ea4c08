//! A paused service, by a person's word: regent looks on. Nothing of it is started, stopped, moved or fenced until it is
//! resumed, by a person or when its time is over.
//!
//! Not here: what a keeper leaves undone (`plan/keeper/mod.rs`), and when a time is over (`plan/pause.rs`).

use super::apply::Moment;
use super::{Event, Happening, Refusal, State};
use crate::types::ServiceName;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// The number of its entry: the end of one does not end the next.
    pub number: u64,
    pub who: String,
    /// In the person's own words.
    pub why: Option<String>,
    /// It ends by itself after that; `None`: when a person says so.
    pub lasts: Option<Duration>,
}

impl State {
    /// Not while it moves: a primary that was told to stop in order would wait with that.
    pub(super) fn pause(
        &mut self,
        m: Moment,
        service: ServiceName,
        (who, why, lasts): (String, Option<String>, Option<Duration>),
    ) -> Result<Event, Refusal> {
        let record = self.services.get_mut(&service);
        let record = record.ok_or_else(|| Refusal::UnknownService { service: service.clone() })?;
        if record.paused {
            return Err(Refusal::Paused { service });
        }
        if record.moving.is_some() {
            return Err(Refusal::AlreadyMoving { service });
        }
        record.paused = true;
        record.pause = Some(Pause { number: m.index.0, who: who.clone(), why, lasts });
        if let Some(incident) = record.incident {
            self.record(incident, m, Happening::Paused { service, who });
        }
        Ok(Event::Noted)
    }

    /// After a resume `lease` proves nothing until the holder itself has renewed (H1.6). `number`: only that very pause ends.
    pub(super) fn resume(
        &mut self,
        m: Moment,
        service: ServiceName,
        who: String,
        number: Option<u64>,
    ) -> Result<Event, Refusal> {
        let record = self.services.get_mut(&service);
        let record = record.ok_or_else(|| Refusal::UnknownService { service: service.clone() })?;
        let is_it = |pause: &Pause| number.is_none_or(|number| number == pause.number);
        if !record.paused || record.pause.as_ref().is_some_and(|pause| !is_it(pause)) {
            return Err(Refusal::NotPaused { service });
        }
        (record.paused, record.pause) = (false, None);
        self.resumes += 1;
        record.unproven_resume = Some(self.resumes);
        if let Some(incident) = record.incident {
            self.record(incident, m, Happening::Resumed { service, who });
        }
        Ok(Event::Noted)
    }
}

#[cfg(test)]
mod tests {
    use super::super::world_test::*;
    use super::*;
    use crate::ledger::Command;
    use crate::types::Epoch;

    #[test]
    fn a_time_that_is_over_ends_its_own_pause_and_no_later_one() {
        let mut world = World::new();
        world.done(pause());
        let first = world.state.services[&orders()].pause.clone().expect("it is paused").number;
        world.done(resume());
        world.done(pause());
        let ends = |number| Command::Resume { service: orders(), who: "its time is over".to_owned(), number };
        assert_eq!(world.refused(ends(Some(first))), Refusal::NotPaused { service: orders() });
        let second = world.state.services[&orders()].pause.clone().expect("it is paused").number;
        world.done(ends(Some(second)));
        assert_eq!(world.refused(ends(None)), Refusal::NotPaused { service: orders() });
    }

    #[test]
    fn a_service_that_moves_is_not_paused() {
        let mut world = World::new();
        let (service, to, who) = (orders(), Some(node("db2")), String::new());
        world.done(Command::Switchover { service, epoch: Epoch(1), to, who });
        assert_eq!(world.refused(pause()), Refusal::AlreadyMoving { service: orders() });
    }
}
