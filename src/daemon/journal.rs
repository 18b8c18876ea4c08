//! Lines as the system's journal wants them: with their priority before them, so that `journalctl -p warning` shows what
//! needs a person. Where the journal does not read (a terminal, a file), lines have no prefix.
//!
//! Not here: where the lines go (`log.rs`), and which level a line has (`node::Said`).

use std::fmt;
use tracing::field::display;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::node::Said;
use crate::plan::note::Subject;
use crate::types::Severity;

/// The priorities of syslog(3), as sd-daemon(3) has them before a line.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// A line, with the priority where the journal reads it.
pub struct Lines {
    format: Format,
    to_journal: bool,
}

impl Lines {
    /// `to_journal`: whether systemd connected standard error to the journal.
    pub fn new(to_journal: bool) -> Self {
        Lines { format: Format::default().with_ansi(false), to_journal }
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if self.to_journal {
            write!(to, "<{}>", priority(*event.metadata().level()))?;
        }
        self.format.format_event(context, to, event)
    }
}

/// Writes what a node says: one line, at its severity, with what it is about as fields.
pub fn write(said: &Said) {
    let Subject { service, node, fence, epoch, incident } = said.subject();
    let (service, node, fence) = (service.map(display), node.map(display), fence.map(display));
    let (epoch, incident) = (epoch.map(display), incident.map(display));
    match said.severity() {
        Severity::Info => tracing::info!(service, node, fence, epoch, incident, "{said}"),
        Severity::Warn => tracing::warn!(service, node, fence, epoch, incident, "{said}"),
        Severity::Error => tracing::error!(service, node, fence, epoch, incident, "{said}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::note::{Note, Passing};
    use crate::types::Epoch;
    use std::io::Write;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is written of these, where the journal reads or not.
    fn written(to_journal: bool, said: &[Said]) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let layer = tracing_subscriber::fmt::layer();
        let layer = layer.with_writer(move || writer.clone()).event_format(Lines::new(to_journal));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || said.iter().for_each(write));
        let bytes = sink.0.lock().expect("no panic").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn what_needs_a_person_has_its_priority_and_its_fields() {
        let lapsed = Note::Lapsed {
            service: "orders".parse().expect("valid"),
            holder: "db1".parse().expect("valid"),
            epoch: Epoch(3),
            silent: Passing(Some(Duration::from_secs(9))),
        };
        let exhausted = Note::LevelsExhausted {
            target: "db1".parse().expect("valid"),
            incident: crate::types::IncidentId(7),
            round: 1,
            wait: Passing(Some(Duration::from_secs(2))),
        };
        let said = [Said::Coordinator(lapsed), Said::Coordinator(exhausted), Said::WatchdogFedAgain];
        let text = written(true, &said);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("<3>") && lines[0].contains("ERROR"), "{text}");
        assert!(lines[0].contains("LAPSED: db1 holds epoch 3 of orders"), "{text}");
        assert!(lines[0].contains("service=orders node=db1 epoch=3"), "{text}");
        assert!(lines[1].starts_with("<3>") && lines[1].contains("regent fence confirm db1 --incident 7"), "{text}");
        assert!(lines[1].contains("node=db1") && lines[1].contains("incident=7"), "{text}");
        assert!(lines[2].starts_with("<6>"), "{text}");
        assert!(!written(false, &said).contains("<3>"), "a file gets no prefix");
    }
}
