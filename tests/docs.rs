//! Every command that the documents show is known and understood: collected from the `sh` blocks, looked up in a table
//! that says how it is exercised, and run that way with the real programs. And the table of effects has a row for each.
//!
//! Not here: what the commands do to a cluster (`tests/lab`) and whether the sentences around them are true.

use regent::node::Effect;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// How a shown command is exercised.
enum How {
    /// As it is shown, in a directory of its own with a configuration, a CA and a disk. It must succeed.
    AsShown,
    /// Asking a daemon that is not there, with these words added for the person at the terminal. Its exit status says
    /// that the arguments were understood and nobody answered.
    WithoutDaemon { added: &'static [&'static str], status: i32 },
    /// It tries the real host, as root: only its words are read here, before its own help. The lab runs it.
    WithHelp,
    /// With another action, which reads all options and touches nothing.
    AsAction(&'static str),
    /// The target stands in the Makefile. What it does takes minutes, and root.
    Target,
}

const UNANSWERED: How = How::WithoutDaemon { added: &[], status: 4 };
const CONFIRMED: How = How::WithoutDaemon { added: &["--yes"], status: 4 };

/// How each command begins, and how it is exercised. The longest beginning counts. A command that is not here fails
/// the test, and so does a row that no document needs.
const TABLE: &[(&str, How)] = &[
    ("make", How::Target),
    ("regent cert init", How::AsShown),
    ("regent cert issue", How::AsShown),
    ("regent config check", How::AsShown),
    ("regent config check --host", How::WithHelp),
    ("regent disk init", How::AsShown),
    ("regent disk list", How::AsShown),
    ("regent status", UNANSWERED),
    // The codes of monitoring plug-ins: 3 is UNKNOWN.
    ("regent status --nagios", How::WithoutDaemon { added: &[], status: 3 }),
    ("regent history", UNANSWERED),
    ("regent explain", UNANSWERED),
    ("regent lost", UNANSWERED),
    ("regent switchover", UNANSWERED),
    ("regent failover", CONFIRMED),
    ("regent reinit", CONFIRMED),
    ("regent accept", CONFIRMED),
    ("regent pause", UNANSWERED),
    ("regent resume", UNANSWERED),
    ("regent maintenance", UNANSWERED),
    ("regent reload", UNANSWERED),
    ("regent restart", CONFIRMED),
    ("regent fence", CONFIRMED),
    ("regent fence confirm", CONFIRMED),
    ("regent unfence", UNANSWERED),
    ("fence_regent_ipmi", How::AsAction("validate-all")),
    // Their own validation asks the kernel, or needs what only `off` is given: the names of the options are checked.
    ("fence_regent_firewall", How::AsAction("metadata")),
    ("fence_regent_credentials", How::AsAction("metadata")),
];

/// Programs of the system that the documents use besides. They are not run.
const OTHERS: &[&str] = &[
    "apt-get",
    "cargo",
    "chown",
    "cp",
    "echo",
    "install",
    "mkdir",
    "mount",
    "mv",
    "nft",
    "reboot",
    "runuser",
    "systemctl",
    "systemd-sysusers",
    "systemd-tmpfiles",
];

/// Paths of a real host, and what stands for them in the directory of a test.
const PLACES: &[(&str, &str)] = &[("/dev/disk/by-id/shared-heartbeat", "heartbeat"), ("/etc/regent/bmc.pw", "bmc.pw")];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every document of the repository: those at its top, and all in `docs/`.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in [root().to_owned(), root().join("docs")] {
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let paths = entries.map(|entry| entry.expect("an entry").path());
        found.extend(paths.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    found.sort();
    assert!(found.len() > 5, "only {} documents", found.len());
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// One line of a document inside a block, with the block's language.
struct Line<'a> {
    number: usize,
    language: &'a str,
    text: &'a str,
}

fn lines_in_blocks(text: &str) -> Vec<Line<'_>> {
    let mut found = Vec::new();
    let mut block = None;
    for (index, line) in text.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), block) {
            (Some(language), None) => block = Some(language.trim()),
            (Some(_), Some(_)) => block = None,
            (None, Some(language)) => found.push(Line { number: index + 1, language, text: line.trim() }),
            (None, None) => {}
        }
    }
    assert_eq!(block, None, "a block is not closed");
    found
}

/// A command as it is shown, without `sudo`.
struct Shown {
    number: usize,
    words: Vec<String>,
}

impl Shown {
    fn text(&self) -> String {
        self.words.join(" ")
    }
}

/// The commands of all `sh` blocks. A line that ends with a backslash goes on in the next.
fn commands(text: &str) -> Vec<Shown> {
    let mut found = Vec::new();
    let mut begun: Vec<String> = Vec::new();
    for line in lines_in_blocks(text).iter().filter(|line| line.language == "sh" && !line.text.is_empty()) {
        let (part, goes_on) = line.text.strip_suffix('\\').map_or((line.text, false), |part| (part, true));
        begun.extend(part.split_whitespace().map(str::to_owned));
        if !goes_on {
            let mut words = std::mem::take(&mut begun);
            if words.first().is_some_and(|word| word == "sudo") {
                words.remove(0);
            }
            found.push(Shown { number: line.number, words });
        }
    }
    assert!(begun.is_empty(), "the last command of a document does not end: {begun:?}");
    found
}

/// The row of the table whose beginning is the longest that fits.
fn row(shown: &Shown) -> Option<(usize, &'static How)> {
    let fits = |beginning: &str| {
        let beginning: Vec<&str> = beginning.split_whitespace().collect();
        shown.words.len() >= beginning.len() && beginning.iter().zip(&shown.words).all(|(a, b)| a == b)
    };
    let rows = TABLE.iter().enumerate().filter(|(_, (beginning, _))| fits(beginning));
    rows.max_by_key(|(_, (beginning, _))| beginning.len()).map(|(index, (_, how))| (index, how))
}

fn program(name: &str) -> &'static str {
    match name {
        "regent" => env!("CARGO_BIN_EXE_regent"),
        "fence_regent_ipmi" => env!("CARGO_BIN_EXE_fence_regent_ipmi"),
        "fence_regent_firewall" => env!("CARGO_BIN_EXE_fence_regent_firewall"),
        "fence_regent_credentials" => env!("CARGO_BIN_EXE_fence_regent_credentials"),
        other => panic!("{other} is in the table and is no program of ours"),
    }
}

/// Where the commands of one document run.
struct Place {
    folder: PathBuf,
}

impl Place {
    /// A directory with what the document takes for granted: what it shows how to make is left to it.
    fn make(document: &Path, shown: &[Shown]) -> Place {
        let name = document.file_stem().expect("a document has a name");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("docs").join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        }
        fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let place = Place { folder };
        let shows = |beginning: &str| shown.iter().any(|s| s.text().starts_with(beginning));
        place.must(&["cert", "init", "own-ca", "--cluster", "orders"]);
        place.must(&["cert", "issue", "db1", "own-ca"]);
        place.write_config();
        place.write_secret("bmc.pw");
        if !shows("regent cert init") {
            place.must(&["cert", "init", "regent-ca", "--cluster", "orders"]);
        }
        if !shows("regent disk init") {
            place.must(&["disk", "init", "heartbeat"]);
        }
        place
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// The example that the README begins with, as db1's, with files that are there.
    fn write_config(&self) {
        let mut text = read(&root().join("config/three-databases.toml"));
        let changes = [
            ("# node = \"db1\"", "node = \"db1\"".to_owned()),
            ("/etc/regent/ca.pem", self.path("own-ca/db1/ca.pem")),
            ("/etc/regent/node.pem", self.path("own-ca/db1/node.pem")),
            ("/etc/regent/node.key", self.path("own-ca/db1/node.key")),
            ("/etc/regent/heartbeat.key", self.path("own-ca/db1/heartbeat.key")),
        ];
        for (from, to) in changes {
            assert!(text.contains(from), "config/three-databases.toml has no {from} any more");
            text = text.replace(from, &to);
        }
        fs::write(self.folder.join("regent.toml"), text).expect("write the configuration");
    }

    fn write_secret(&self, name: &str) {
        let path = self.folder.join(name);
        fs::write(&path, "secret\n").expect("write a secret");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set its mode");
    }

    fn run(&self, name: &str, words: &[String]) -> Output {
        let mut command = Command::new(program(name));
        command.args(words).current_dir(&self.folder).stdin(Stdio::null());
        command.env("REGENT_CONFIG", self.folder.join("regent.toml"));
        command.output().unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn must(&self, words: &[&str]) {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let output = self.run("regent", &words);
        assert!(output.status.success(), "regent {}: {}", words.join(" "), said(&output));
    }

    /// Exercises one command; an error says what came out.
    fn exercise(&self, shown: &Shown, how: &How) -> Result<(), String> {
        let name = shown.words[0].as_str();
        let mut words: Vec<String> = shown.words[1..].iter().map(|word| self.here(word)).collect();
        let wanted = match how {
            How::Target => return has_target(&words),
            How::AsShown => 0,
            How::WithHelp => {
                words.push("--help".to_owned());
                0
            }
            How::WithoutDaemon { added, status } => {
                words.extend(added.iter().map(|word| (*word).to_owned()));
                words.extend(["--socket".to_owned(), self.path("nobody.sock")]);
                *status
            }
            How::AsAction(action) => {
                let given = words.iter_mut().find(|word| word.starts_with("--action="));
                *given.ok_or("it is shown without an action")? = format!("--action={action}");
                0
            }
        };
        let output = self.run(name, &words);
        if output.status.code() == Some(wanted) {
            return Ok(());
        }
        let ran = format!("{name} {}", words.join(" "));
        Err(format!("{ran}\n  ended with {}, expected {wanted}: {}", output.status, said(&output)))
    }

    /// A word with the places of a real host replaced by ours.
    fn here(&self, word: &str) -> String {
        PLACES.iter().fold(word.to_owned(), |word, (there, here)| word.replace(there, &self.path(here)))
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Whether the first word that is no variable is a target of the Makefile.
fn has_target(words: &[String]) -> Result<(), String> {
    let target = words.iter().find(|word| !word.contains('=')).ok_or("it names no target")?;
    let makefile = read(&root().join("Makefile"));
    let exists = makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
    if exists { Ok(()) } else { Err(format!("the Makefile has no target {target}")) }
}

#[test]
fn every_command_that_the_documents_show_is_understood() {
    let (mut failed, mut used) = (Vec::new(), vec![false; TABLE.len()]);
    for document in documents() {
        let shown = commands(&read(&document));
        if shown.is_empty() {
            continue;
        }
        let place = Place::make(&document, &shown);
        for command in &shown {
            let at = format!("{}:{}: {}", document.display(), command.number, command.text());
            match row(command) {
                Some((index, how)) => {
                    used[index] = true;
                    failed.extend(place.exercise(command, how).err().map(|why| format!("{at}\n  {why}")));
                }
                None if OTHERS.contains(&command.words[0].as_str()) => {}
                None => failed.push(format!("{at}\n  is not in the table of tests/docs.rs: say there how it is tried")),
            }
        }
    }
    let unused = TABLE.iter().zip(used).filter(|(_, used)| !used);
    failed.extend(unused.map(|((beginning, _), _)| format!("no document shows `{beginning}`: take its row out")));
    assert!(failed.is_empty(), "the documents show commands that do not work:\n{}", failed.join("\n"));
}

#[test]
fn every_block_says_what_it_is() {
    let mut found = Vec::new();
    for document in documents() {
        let text = read(&document);
        let unknown = lines_in_blocks(&text);
        let unknown = unknown.iter().filter(|line| !["sh", "text", "toml"].contains(&line.language));
        found.extend(unknown.map(|line| format!("{}:{}: {:?}", document.display(), line.number, line.language)));
    }
    assert!(found.is_empty(), "only blocks marked `sh` are tried as commands; mark these:\n{}", found.join("\n"));
}

#[test]
fn commands_are_found_as_a_reader_sees_them() {
    let text =
        "regent lost\n```sh\nsudo regent fence confirm db1 \\\n    --incident 7\n```\n```text\nregent said\n```\n";
    let found: Vec<(usize, String)> = commands(text).iter().map(|shown| (shown.number, shown.text())).collect();
    assert_eq!(found, [(4, "regent fence confirm db1 --incident 7".to_owned())]);
    let beginning = row(&commands(text)[0]).map(|(index, _)| TABLE[index].0);
    assert_eq!(beginning, Some("regent fence confirm"), "the longest beginning counts");
    let unknown = Shown { number: 1, words: vec!["regent".into(), "fenced".into()] };
    assert!(row(&unknown).is_none(), "an unknown command must not pass for a known one");
}

/// All effects by name; an effect that is not here does not compile.
macro_rules! effects {
    ($($name:ident),+ $(,)?) => {
        const EFFECTS: &[&str] = &[$(stringify!($name)),+];
        fn name(effect: &Effect) -> &'static str {
            match effect {
                $(Effect::$name { .. } => stringify!($name)),+
            }
        }
    };
}

effects! {
    Beat, Ask, Reply, Propose, Told, QuorumRead, Transfer, RunAgent, EndAgent, LookInForce, UndoInForce, Db, AbortDb, Tombstone,
    KeepLease, TryLease, ArmWatchdog, FeedWatchdog, DisarmWatchdog, Say,
}

#[test]
fn every_effect_has_its_row_that_says_what_becomes_of_it_when_it_fails() {
    assert!(EFFECTS.contains(&name(&Effect::ArmWatchdog)));
    let text = read(&root().join("docs/effects.md"));
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let named: Vec<_> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
    assert_eq!(named, EFFECTS, "docs/effects.md has the effects in the order of the code, each once");
    for row in &rows {
        assert_eq!(row.len(), 5, "{}: a cell is missing", row[0]);
        assert!(row.iter().all(|cell| !cell.is_empty()), "{}: an empty cell", row[0]);
    }
    assert_eq!(EFFECTS.iter().collect::<BTreeSet<_>>().len(), EFFECTS.len());
}
