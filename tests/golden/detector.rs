//! The stage of `tests/golden/detector`: one observer's failure detector. The observer is `me`; its peers are `a` and
//! `b`; `look` shows its views.

use crate::story::{Line, Stage};
use regent::config;
use regent::detector::Detector;
use regent::types::{Boot, ChannelName, Incarnation, Instant, NodeName};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

const CHANNELS: [&str; 3] = ["primary", "secondary", "disk"];
const INTERVAL: Duration = Duration::from_millis(200);

/// Profile `lan`.
fn lan() -> config::Detector {
    config::Detector {
        interval: INTERVAL,
        phi_threshold: 8.0,
        acceptable_pause: Duration::from_secs(1),
        window: 100,
        min_deviation: Duration::from_millis(40),
        rise: 3,
        startup_grace: Duration::from_secs(10),
    }
}

type Happening = Box<dyn FnOnce(&mut Detector)>;

pub struct Observer {
    detector: Detector,
    /// What is still to come, by time and then by order of writing.
    events: BTreeMap<(Instant, usize), Happening>,
    written: usize,
}

impl Observer {
    pub fn new() -> Self {
        let peers = ["a", "b"].map(|n| n.parse().expect("valid")).into();
        let channels: Vec<ChannelName> = CHANNELS.iter().map(|n| n.parse().expect("valid")).collect();
        let me = "me".parse().expect("valid");
        let detector = Detector::new(me, &peers, &channels, &lan(), Instant(0));
        Observer { detector, events: BTreeMap::new(), written: 0 }
    }

    fn schedule(&mut self, at: Instant, happening: impl FnOnce(&mut Detector) + 'static) {
        self.events.insert((at, self.written), Box::new(happening));
        self.written += 1;
    }

    fn look(&mut self, now: Instant) -> String {
        while let Some(first) = self.events.first_entry().filter(|first| first.key().0 <= now) {
            first.remove()(&mut self.detector);
        }
        let mut out = String::new();
        let doubt = if self.detector.is_self_doubting(now) { " (doubts itself)" } else { "" };
        writeln!(out, "{now:?}{doubt}").expect("a string takes everything");
        for (name, view) in self.detector.views(now) {
            let sights: Vec<String> = CHANNELS
                .iter()
                .map(|c| format!("{c}={:?}", view.channels[&c.parse::<ChannelName>().expect("valid")]).to_lowercase())
                .collect();
            let suspects = if view.suspects(CHANNELS.len()) { " SUSPECT" } else { "" };
            writeln!(out, "  {name}#{} {}{suspects}", view.incarnation, sights.join(" "))
                .expect("a string takes everything");
        }
        let next = self.detector.next_change(now).map_or("never".to_owned(), |next| format!("{next:?}"));
        writeln!(out, "  next change: {next}").expect("a string takes everything");
        out
    }
}

impl Stage for Observer {
    fn run(&mut self, line: &Line) -> String {
        let moment = |key: &str| Instant(0) + line.duration(line.need(key));
        if line.verb() == "look" {
            return self.look(moment("at"));
        }
        let node = || -> NodeName { line.parse(line.need("node")) };
        let channel = |text: &str| -> ChannelName { line.parse(text) };
        let incarnation = Incarnation(line.number("inc").unwrap_or(1));
        let boot = Boot(format!("boot-of-{incarnation}").into());
        if line.verb() == "beats" {
            let on: Vec<_> = line.need("on").split(',').map(channel).collect();
            let (mut at, until, node) = (moment("from"), moment("until"), node());
            while at <= until {
                let (on, node, boot) = (on.clone(), node.clone(), boot.clone());
                self.schedule(at, move |d| on.iter().for_each(|c| d.heard(at, c, &node, &boot, incarnation)));
                at += INTERVAL;
            }
            return String::new();
        }
        let at = moment("at");
        match line.verb() {
            "known" => {
                let node = node();
                self.schedule(at, move |d| d.known(at, &node, &boot, incarnation));
            }
            "without" => {
                let (node, channel) = (node(), channel(line.need("channel")));
                self.schedule(at, move |d| d.without(&node, &channel));
            }
            "doubt" => {
                let late = line.duration(line.need("late"));
                self.schedule(at, move |d| d.doubt(at, late));
            }
            "goodbye" => {
                let (node, within) = (node(), line.duration(line.need("within")));
                self.schedule(at, move |d| d.goodbye(at, &node, incarnation, within));
            }
            "channel" => {
                let (name, is) = (channel(line.need("name")), line.need("is").to_owned());
                let usable = if is == "usable" { Ok(()) } else { Err(is) };
                self.schedule(at, move |d| d.channel_state(at, &name, usable));
            }
            other => line.fail(&format!("unknown command {other:?}")),
        }
        String::new()
    }
}
