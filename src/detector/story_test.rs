//! Runs the stories under `tests/golden/detector`: text in, views out. `REWRITE=1` writes what came out into the file.
//!
//! The observer is `me`; its peers are `a` and `b`. A paragraph is commands, `----`, and what `look` shows.

use super::Detector;
use crate::config;
use crate::types::{Boot, ChannelName, Incarnation, Instant, NodeName};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// Profile `lan`.
pub fn lan() -> config::Detector {
    config::Detector {
        interval: Duration::from_millis(200),
        phi_threshold: 8.0,
        acceptable_pause: Duration::from_secs(1),
        window: 100,
        min_deviation: Duration::from_millis(40),
        rise: 3,
        startup_grace: Duration::from_secs(10),
    }
}

type Arguments = BTreeMap<String, String>;

struct Story {
    detector: Detector,
    /// What is still to come, by time and then by order of writing.
    events: BTreeMap<(Instant, usize), (String, Arguments)>,
    written: usize,
}

fn millis(text: &str) -> u64 {
    text.strip_suffix("ms").and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{text:?}: expected 12ms"))
}

fn moment(arguments: &Arguments, key: &str) -> Instant {
    Instant(millis(arguments.get(key).unwrap_or_else(|| panic!("{key}= is missing"))) * 1_000_000)
}

impl Story {
    fn new() -> Self {
        let names = |list: &[&str]| list.iter().map(|n| n.parse::<NodeName>().unwrap()).collect();
        let channels: Vec<ChannelName> = ["primary", "secondary", "disk"].iter().map(|n| n.parse().unwrap()).collect();
        let me = "me".parse().unwrap();
        Story {
            detector: Detector::new(me, &names(&["a", "b"]), &channels, &lan(), Instant(0)),
            events: BTreeMap::new(),
            written: 0,
        }
    }

    fn schedule(&mut self, at: Instant, command: &str, arguments: &Arguments) {
        self.events.insert((at, self.written), (command.to_owned(), arguments.clone()));
        self.written += 1;
    }

    fn run(&mut self, line: &str) -> Option<String> {
        let mut words = line.split_whitespace();
        let command = words.next().unwrap();
        let pairs = words.map(|word| word.split_once('=').unwrap_or_else(|| panic!("{word:?}: expected key=value")));
        let arguments: Arguments = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        match command {
            "beats" => {
                let (mut at, until) = (moment(&arguments, "from"), moment(&arguments, "until"));
                while at <= until {
                    self.schedule(at, "beat", &arguments);
                    at += Duration::from_millis(200);
                }
            }
            "look" => return Some(self.look(moment(&arguments, "at"))),
            other => self.schedule(moment(&arguments, "at"), other, &arguments),
        }
        None
    }

    fn happen(&mut self, now: Instant, command: &str, arguments: &Arguments) {
        let node = || arguments["node"].parse::<NodeName>().unwrap();
        let incarnation = || Incarnation(arguments.get("inc").map_or(1, |n| n.parse().unwrap()));
        let boot = || Boot(format!("boot-of-{}", incarnation()));
        match command {
            "beat" => {
                for channel in arguments["on"].split(',') {
                    self.detector.heard(now, &channel.parse().unwrap(), &node(), &boot(), incarnation());
                }
            }
            "known" => self.detector.known(now, &node(), &boot(), incarnation()),
            "without" => self.detector.without(&node(), &arguments["channel"].parse().unwrap()),
            "doubt" => self.detector.doubt(now, Duration::from_millis(millis(&arguments["late"]))),
            "goodbye" => {
                let within = Duration::from_millis(millis(&arguments["within"]));
                self.detector.goodbye(now, &node(), incarnation(), within);
            }
            "channel" => {
                let usable = if arguments["is"] == "usable" { Ok(()) } else { Err(arguments["is"].clone()) };
                self.detector.channel_state(now, &arguments["name"].parse().unwrap(), usable);
            }
            other => panic!("unknown command {other:?}"),
        }
    }

    fn look(&mut self, now: Instant) -> String {
        while let Some(first) = self.events.first_entry().filter(|first| first.key().0 <= now) {
            let ((at, _), (command, arguments)) = first.remove_entry();
            self.happen(at, &command, &arguments);
        }
        let mut out = String::new();
        let doubt = if self.detector.is_self_doubting(now) { " (doubts itself)" } else { "" };
        writeln!(out, "{now:?}{doubt}").unwrap();
        for (name, view) in self.detector.views(now) {
            let sights: Vec<String> = ["primary", "secondary", "disk"]
                .iter()
                .map(|c| format!("{c}={:?}", view.channels[&c.parse::<ChannelName>().unwrap()]).to_lowercase())
                .collect();
            let suspects = if view.suspects(3) { " SUSPECT" } else { "" };
            writeln!(out, "  {name}#{} {}{suspects}", view.incarnation, sights.join(" ")).unwrap();
        }
        let next = self.detector.next_change(now).map_or("never".to_owned(), |next| format!("{next:?}"));
        writeln!(out, "  next change: {next}").unwrap();
        out
    }
}

/// The file with every expectation replaced by what comes out.
fn replay(text: &str) -> String {
    let mut story = Story::new();
    let mut out = String::new();
    let mut shown = String::new();
    let mut skipping = false;
    for line in text.lines() {
        match line {
            "----" => {
                skipping = true;
                write!(out, "----\n{}", std::mem::take(&mut shown)).unwrap();
            }
            "" => {
                skipping = false;
                out.push('\n');
            }
            _ if skipping => {}
            _ => {
                writeln!(out, "{line}").unwrap();
                if !line.starts_with('#') {
                    shown.extend(story.run(line));
                }
            }
        }
    }
    out
}

#[test]
fn the_stories_end_as_they_are_written() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/detector");
    let mut seen = 0;
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let played = replay(&text);
        if std::env::var_os("REWRITE").is_some() {
            std::fs::write(&file, &played).unwrap();
        } else {
            assert!(played == text, "{} ends otherwise; now:\n{played}", file.display());
        }
        seen += 1;
    }
    assert!(seen >= 6, "only {seen} stories were found in {}", folder.display());
}
