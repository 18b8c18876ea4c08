//! What stories must show, and which do: refusals, transitions and goals are noted while a story is played; rules,
//! hazards, points and kinds a story names itself, in comments that begin with `# Shows:`.

use crate::fates::{Seen, TRANSITIONS};
use crate::goals::{ledger_goals, name};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

/// The rules, each in a sentence.
const RULES: &[(&str, &str)] = &[
    ("S1", "one writer"),
    ("S2", "fence first: no appointment before the previous epoch is over"),
    ("S3", "double majority for a verdict"),
    ("S4", "epochs, incarnations, fence ids and terms only grow"),
    ("S5", "the holder stops first"),
    ("S6", "nothing acknowledged is lost: here the final position of a planned move; there is no synchronous mode yet"),
    ("S7", "every decision and refusal can be explained from the ledger"),
    ("S8", "one bad channel moves nothing by force"),
    ("S9", "a fence is checked, not believed"),
    ("S10", "the accuser doubts itself first"),
    ("L1", "it comes back: rounds without end, and whatever can be done is done"),
];

/// The twelve points of the design's section 7.
const POINTS: &[(&str, &str)] = &[
    ("point 1", "one slow read of the store does not demote a healthy primary"),
    ("point 2", "a stop has an end, and the lease is not renewed while stopping"),
    ("point 3", "a hung or full disk, a frozen postmaster: something happens, or is said"),
    ("point 4", "the time of day steps back and nothing waits for it"),
    ("point 5", "who wakes late with an old epoch changes nothing"),
    ("point 6", "the agent says success and the host is still on"),
    (
        "point 7",
        "what outlives the daemon ends with the lease (here the guard's deadline; virtual addresses are not built)",
    ),
    ("point 8", "a pause of a replica that leads demotes nobody"),
    ("point 9", "two hosts with one name"),
    ("point 10", "no state is assigned that cannot be reached"),
    ("point 11", "what a rewind takes away is kept and named"),
    ("point 12", "it can be said why it did, or did not, fail over"),
];

/// The interleavings of sections 1 and 3 of the hazards.
const HAZARDS: &[(&str, &str)] = &[
    ("1.1", "a lying device, and a restarted daemon of the same boot"),
    ("1.2a", "a fast reboot before any verdict"),
    ("1.2b", "a fast reboot between verdict and fence, with an `off` still on its way"),
    ("1.2c", "a fence that was confirmed is consumed after the node came back"),
    ("1.2d", "a confirmation commits late, in another term"),
    ("1.3", "somebody else starts the database"),
    ("1.4a", "a living, cut-off holder that released on its disk slot is not a refutation"),
    ("1.4c", "agents that only assist confirm nothing"),
    ("1.4d", "an assistant's work evaporates when a survivor reboots"),
    ("1.5", "lease proves nothing about a virtual machine"),
    ("1.6", "pause, partition, resume that the holder never hears"),
    ("1.7", "a file that differs on one host"),
    ("1.8", "the lease book of an earlier term; a grant after a verdict"),
    ("1.9a", "a release that times out and commits later"),
    ("1.9b", "an appointee that gives up while its promotion is under way"),
    ("1.9c", "processes that are left after the postmaster"),
    ("1.10", "the daemon is dead, the database lives"),
    ("1.11a", "a deposed leader's `off` that may still land"),
    ("1.11b", "a deposed leader's `on` that may still land"),
    ("1.11c", "two fences of one node do not undo each other"),
    ("1.11e", "`on` goes to every agent that was tried"),
    ("1.12", "stale evidence and a leader that slept"),
    ("1.13", "a promotion that wakes after its epoch is over"),
    ("1.14", "the human who is wrong, early or late"),
    ("1.15", "two machines under one name, and a boot that was succeeded"),
    ("1.16a", "a diskless witness"),
    ("1.16b", "two database nodes on one disk"),
    ("1.16c", "fewer voters than a majority of all are left"),
    ("1.16d", "blind channels count for nothing"),
    ("1.16e", "a cold start of the whole site"),
    ("1.16f", "a heartbeat that lands late, a drained backlog, a recording"),
    ("1.17a", "two voters judge nobody"),
    ("1.17b", "both halves of a joint membership"),
    ("3.1", "alive, and without a lease"),
    ("3.2", "leader and holder cut from each other, a third voter between them"),
    ("3.3", "a weak agent does not make a strong level weaker"),
    ("3.4", "levels are tried in rounds, by other voters too"),
    ("3.5", "coming back is not circular"),
    ("3.6", "a verdict on a living node"),
    ("3.7", "a dead standby is not fenced"),
    ("3.8", "past failures rank lower and exclude nobody"),
    ("3.10", "an appointee that neither fails nor falls silent"),
    ("3.11", "an election does not restart the wait for the lease"),
    ("3.12", "quorum lost: the primary stops at the end of its lease"),
    ("3.14", "a common stall"),
];

/// The kinds of fence of the design's section 4.5.
const KINDS: &[(&str, &str)] = &[
    ("kind power", "ends an epoch; any heartbeat of that boot refutes it"),
    ("kind storage", "ends an epoch"),
    ("kind lease", "ends an epoch where a watchdog was reported and no guest can be paused"),
    ("kind network", "ends none, unless it is declared to isolate"),
    ("kind access", "ends none"),
];

/// What these modules cannot show, and why.
const ELSEWHERE: &[(&str, &str)] = &[
    ("hazard 1.4b, a firewall that silences the check", "which packets an agent drops is the agent's: tests/agents"),
    (
        "hazard 1.11d, a device that acts on an `off` long after its time-out",
        "the device's queue is outside; the simulation has such a device (`Late`)",
    ),
    (
        "hazard 1.11f, the wrong target's device",
        "identities are compared by the agent (option guid); an `off` during which another node falls silent is not held back in this version",
    ),
    (
        "hazard 1.15, a voter restored from a snapshot; a cloned cluster",
        "Raft's log and the stamps are consensus's: tests/quorum",
    ),
    (
        "hazard 1.16, a disk that is another disk; two clusters on one disk",
        "the slot's header is the channel's: src/channel/disk_test.rs",
    ),
    ("hazard 1.17, removing the holder; learners", "membership changes and learners are not built"),
    ("hazard 3.9, a switchover for the clients' network that repeats itself", "not built"),
    ("hazard 3.13, the whole synchronous set gone", "there is no synchronous mode"),
    (
        "point 7, a virtual address on two hosts",
        "virtual addresses are not built; the lease file, which has the same life time, is shown",
    ),
];

/// Which stories show what.
#[derive(Default)]
pub struct Shown {
    by: BTreeMap<String, BTreeSet<String>>,
}

/// Every refusal of the ledger, from its source: one that is added without a story is missing here at once.
fn refusals() -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ledger/refusal.rs");
    let text = std::fs::read_to_string(file).expect("the source of the refusals");
    let body = text.split_once("pub enum Refusal {").expect("the refusals are an enum").1;
    let body = body.split_once("\n}").expect("an enum ends").0;
    let variants = body.lines().filter_map(|line| line.strip_prefix("    "));
    let variants = variants.filter(|line| line.starts_with(char::is_uppercase));
    let names: Vec<_> = variants.map(|line| line.chars().take_while(char::is_ascii_alphanumeric).collect()).collect();
    assert!(names.len() > 30, "only {} refusals were found in the source", names.len());
    names
}

/// Everything that must be shown: section, key, sentence.
fn wanted() -> Vec<(&'static str, String, String)> {
    let mut wanted = Vec::new();
    let mut list = |section, items: &[(&str, &str)], prefix: &str| {
        wanted.extend(items.iter().map(|(key, words)| (section, format!("{prefix}{key}"), (*words).to_owned())));
    };
    list("Rules", RULES, "");
    list("Points of the design, section 7", POINTS, "");
    list("Hazards, sections 1 and 3", HAZARDS, "hazard ");
    list("Kinds of fence", KINDS, "");
    wanted.extend(refusals().into_iter().map(|name| ("Refusals", name, String::new())));
    for (kind, rows) in TRANSITIONS {
        wanted.extend(rows.iter().map(|row| ("Transitions", format!("{kind}: {row}"), String::new())));
    }
    wanted.extend(ledger_goals().iter().map(|goal| ("Goals of a database node", name(goal), String::new())));
    wanted
}

impl Shown {
    /// Notes one story: what it says it shows, and what it was seen to show.
    pub fn note(&mut self, name: &str, text: &str, seen: Seen) {
        let declared: BTreeSet<String> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# Shows:"))
            .flat_map(|list| list.trim().trim_end_matches('.').split(','))
            .map(|key| key.trim().to_owned())
            .collect();
        assert!(!declared.is_empty() || name.starts_with("detector/"), "{name} does not say what it shows");
        let known: BTreeSet<String> = wanted().into_iter().map(|(_, key, _)| key).collect();
        for key in declared {
            let observed = TRANSITIONS.iter().any(|(kind, _)| key.starts_with(&format!("{kind}: ")));
            assert!(known.contains(&key) && !observed, "{name} says that it shows {key:?}, which is not in the list");
            self.by.entry(key).or_default().insert(name.to_owned());
        }
        for key in seen.refusals.into_iter().chain(seen.transitions).chain(seen.goals) {
            self.by.entry(key).or_default().insert(name.to_owned());
        }
    }

    /// What no story shows.
    pub fn missing(&self) -> Vec<String> {
        let all = wanted().into_iter().filter(|(_, key, _)| !self.by.contains_key(key));
        all.map(|(section, key, words)| format!("  {section}: {key} {words}")).collect()
    }

    /// The table, for people.
    pub fn table(&self) -> String {
        let mut out = "# What the golden stories show\n\nWritten and checked by `cargo test --test golden`; `REWRITE=1` \
                       writes it anew.\nRefusals, transitions and goals are those that were seen while the stories were \
                       played; the rest a story names itself.\n"
            .to_owned();
        let mut before = "";
        for (section, key, words) in wanted() {
            if section != before {
                let all: Vec<_> = wanted().into_iter().filter(|(s, ..)| *s == section).collect();
                writeln!(out, "\n## {section}\n\n{} of {}.\n\n| what | shown by |\n|---|---|", all.len(), all.len())
                    .expect("a string takes everything");
                before = section;
            }
            let by: Vec<_> = self.by.get(&key).into_iter().flatten().map(|n| n.trim_end_matches(".txt")).collect();
            let shown = match by.len() {
                0..=4 => by.join(", "),
                n => format!("{} and {} more", by[..4].join(", "), n - 4),
            };
            let words = if words.is_empty() { words } else { format!(": {words}") };
            writeln!(out, "| {key}{words} | {shown} |").expect("a string takes everything");
        }
        out += "\n## Not expressible here\n\n| what | why, and where else |\n|---|---|\n";
        for (what, why) in ELSEWHERE {
            writeln!(out, "| {what} | {why} |").expect("a string takes everything");
        }
        out
    }
}
