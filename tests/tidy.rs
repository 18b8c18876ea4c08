//! The architecture and the style, checked. Each rule is one test whose message says the reason.
//!
//! It looks at the files that git tracks, so that build products and editors' files do not count. Where git is absent
//! the rules cannot be checked, and that is a failure, not a pass.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which module may write `use crate::…` of which. The arrows of ARCHITECTURE.md; an upward arrow is a design error.
/// `*` = everything; `a::b` = only that part of `a`.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("types", &["known_bugs"]),
    // Arithmetic: config judges a file by the times that the detector waits.
    ("detection", &[]),
    ("config", &["types", "detection"]),
    ("clock", &["types"]),
    ("scheduling", &[]),
    // What a process says when it ends: of use to every module that ends one.
    ("last_words", &[]),
    // How an error is told: of use to every module that tells one.
    ("errors", &[]),
    // The one way in which a small file is written so that it lasts.
    ("durable", &[]),
    // With whose rights a file is written or read where others write.
    ("rights", &["durable", "last_words"]),
    ("channel", &["types", "config", "clock", "scheduling", "rights"]),
    ("detector", &["types", "detection", "config", "known_bugs"]),
    ("ledger", &["types", "config", "known_bugs"]),
    ("lease", &["types", "ledger", "known_bugs"]),
    ("plan", &["types", "config", "ledger", "lease", "known_bugs"]),
    // Of the channels only what is pure: which heartbeats are recordings.
    ("node", &["types", "config", "detector", "ledger", "lease", "plan", "channel::replay", "known_bugs"]),
    // The guard kills a cgroup, and sends what the daemon left.
    (
        "action",
        &["types", "config", "clock", "errors", "last_words", "rights", "engine::enclosure", "channel::goodbye"],
    ),
    ("engine", &["types", "config", "clock", "errors", "durable", "rights", "action"]),
    ("consensus", &["types", "config", "clock", "errors", "durable", "rights", "last_words", "scheduling", "ledger"]),
    ("api", &["types", "config"]),
    // Of the admin socket only the schema of what it carries.
    ("pages", &["types", "config", "ledger", "plan", "api::admin", "api::status"]),
    ("daemon", &["*"]),
    ("cli", &["*"]),
    // Faults on purpose, for the tests of the tests: asked about where the right behaviour stands.
    ("known_bugs", &[]),
];

/// Modules that decide with values only.
const PURE: &[&str] =
    &["types", "detection", "errors", "config", "detector", "lease", "ledger", "plan", "node", "pages", "known_bugs"];

/// The parts of other modules that are pure all the same.
const PURE_FILES: &[&str] = &[
    "src/channel/disk_format.rs",
    "src/channel/gate.rs",
    "src/channel/replay.rs",
    "src/channel/wire.rs",
    "src/engine/postgresql/losses.rs",
    "src/engine/postgresql/segments.rs",
    "src/engine/postgresql/waldump.rs",
];

/// What a pure module may not name: the world, its clock and its dice.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::os::unix::net",
    "std::process",
    "std::thread",
    "std::env",
    "std::io::stdin",
    "std::io::stdout",
    "std::time::Instant",
    "std::time::SystemTime",
    "SystemTime::now",
    "Instant::now",
    "HashMap",
    "HashSet",
    "tokio",
    "tonic",
    "openraft",
    "redb",
    "nix::",
    "libc::",
    // A seeded generator is a value; these are dice.
    "rand::rng()",
    "rand::random",
    "ThreadRng",
    "SysRng",
    "jiff::",
    "tracing::",
    "println!",
    "eprintln!",
];

/// Files outside of `src/clock.rs` that read a clock all the same, each with the reason why no decision hangs on it.
const CLOCK_READERS: &[(&str, &str)] = &[
    ("src/action/fence.rs", "the deadline of a child process is a plain time-out: nothing is proved by it"),
    ("src/consensus/store/durable.rs", "how long a write takes while this host runs: a sleep is not the disk's fault"),
    ("src/consensus/transport/peer.rs", "the time-out of one question to a peer"),
    ("src/consensus/transport/refusals.rs", "how long ago somebody was refused, for status alone"),
    ("src/engine/postgresql/observer.rs", "how long the server was silent while this host ran"),
    ("src/engine/postgresql/prober.rs", "how long a write is under way while this host runs"),
    ("src/engine/postgresql/promote.rs", "a patience that a sleep of the host must not use up"),
];

/// Files of more than 600 lines, each with the reason why it is one concept all the same.
const LONG_FILES: &[(&str, &str)] = &[];
const FILE_LINES_ASKED: usize = 600;
const FILE_LINES_MAX: usize = 800;

/// Functions of more than 70 lines that stood when the rule came: `file::name` and its length then. It may shrink.
const LONG_FUNCTIONS: &[(&str, usize)] = &[];
const FUNCTION_LINES_MAX: usize = 70;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every tracked file (and every new one that is not ignored), relative to the root.
fn files() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("tidy needs git to know which files belong to the repository: install it");
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("file names are UTF-8");
    let files: Vec<PathBuf> = text
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        .filter(|f| root().join(f).is_file())
        .collect();
    assert!(files.len() > 10, "git lists only {} files", files.len());
    files
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

fn rust_files() -> Vec<(PathBuf, String)> {
    let is_rust = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "rs");
    files().into_iter().filter(is_rust).map(|file| (file.clone(), read(&file))).collect()
}

/// `src/plan/keeper/mod.rs` -> `plan`, `src/clock.rs` -> `clock`; `None` outside of modules.
fn module(file: &Path) -> Option<String> {
    let inside = file.strip_prefix("src").ok()?;
    let first = inside.iter().next()?.to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(name, "lib" | "main")).then(|| name.to_owned())
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// Whether this file, or the part of it from this line on, is a test: tests may use what the code may not.
fn is_test_file(file: &Path) -> bool {
    file.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| stem == "tests" || stem.ends_with("_test"))
}

/// The lines of code before the inline tests, numbered from one.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    // `#[cfg(test)] mod a_test;` names another file: the code goes on after it.
    let next = text.lines().skip(1).chain([""]);
    let tests_begin = |(line, next): &(&str, &str)| line.trim() == "#[cfg(test)]" && next.trim_end().ends_with('{');
    let code = text.lines().zip(next).take_while(move |pair| !tests_begin(pair));
    code.enumerate().map(|(index, (line, _))| (index + 1, line)).filter(|(_, line)| !is_comment(line))
}

fn report(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}\n{}", found.join("\n"));
}

/// The modules that one line names after `crate::`: also each of `crate::{a, b::c}`.
fn imports(line: &str) -> Vec<String> {
    let mut names = Vec::new();
    for part in line.split("crate::").skip(1) {
        let list = part.strip_prefix('{').map_or(part, |inner| inner.split('}').next().unwrap_or(inner));
        let items: Vec<&str> = if part.starts_with('{') { list.split(',').collect() } else { vec![list] };
        for item in items {
            let name: String = item.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if !name.is_empty() {
                names.push(name);
            }
        }
    }
    names
}

#[test]
fn imports_follow_the_arrows() {
    let table: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    let mut found = Vec::new();
    for (file, text) in rust_files() {
        let Some(module) = module(&file) else { continue };
        let Some(allowed) = table.get(module.as_str()) else {
            found.push(format!("{}: module {module} is not in the table MAY_IMPORT of tests/tidy.rs", file.display()));
            continue;
        };
        for (number, line) in code_lines(&text) {
            for name in imports(line) {
                let parts = || allowed.iter().filter(|part| part.starts_with(&format!("{name}::")));
                let part_of = || parts().any(|part| line.contains(&format!("crate::{part}")));
                let whole = allowed.contains(&"*") || allowed.contains(&name.as_str());
                let fine = name == module || whole || part_of();
                if !fine && table.contains_key(name.as_str()) {
                    found.push(format!("{}:{number}: {module} may not import {name}", file.display()));
                }
            }
        }
    }
    report("Data flows one way through the folders; an upward import makes a decision depend on its effects.", &found);
}

#[test]
fn only_consensus_knows_openraft() {
    let mut found = Vec::new();
    for (file, text) in rust_files() {
        if file.starts_with("src") && module(&file).as_deref() != Some("consensus") {
            let named = |line: &str| line.contains("openraft::") || line.contains("openraft_");
            let lines = code_lines(&text).filter(|(_, line)| named(line));
            found.extend(lines.map(|(number, _)| format!("{}:{number}", file.display())));
        }
    }
    report("openraft can be replaced or simulated only as long as one module knows it.", &found);
}

#[test]
fn pure_modules_touch_no_world_and_no_clock() {
    let mut found = Vec::new();
    for (file, text) in rust_files() {
        let is_pure = module(&file).is_some_and(|module| PURE.contains(&module.as_str()))
            || PURE_FILES.iter().any(|pure| file == Path::new(pure));
        if !is_pure || is_test_file(&file) {
            continue;
        }
        for (number, line) in code_lines(&text) {
            // `crate::types::Instant` is a value; only reading a clock into one is barred.
            for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                found.push(format!("{}:{number}: {word}", file.display()));
            }
        }
    }
    let gone: Vec<_> = PURE_FILES.iter().filter(|file| !root().join(file).is_file()).map(|f| (*f).to_owned()).collect();
    report("Listed in PURE_FILES and not there.", &gone);
    let rule = "A decision is a pure function of (state, input, now): only so can every run be replayed from its seed.";
    report(rule, &found);
}

#[test]
fn only_the_clock_module_reads_a_clock() {
    let words = ["SystemTime::now", "Instant::now", "Timestamp::now", "Zoned::now", "clock_gettime"];
    let mut found = Vec::new();
    for (file, text) in rust_files() {
        let listed = CLOCK_READERS.iter().find(|(name, reason)| file == Path::new(name) && reason.len() > 20);
        if listed.is_some() && !code_lines(&text).any(|(_, line)| words.iter().any(|word| line.contains(word))) {
            found.push(format!("{}: reads no clock any more, take it out of CLOCK_READERS", file.display()));
        }
        let has_reason = listed.is_some();
        let is_clock = module(&file).as_deref() == Some("clock");
        if !file.starts_with("src") || is_clock || has_reason || is_test_file(&file) {
            continue;
        }
        for (number, line) in code_lines(&text) {
            let read = words.iter().filter(|word| line.contains(**word));
            found.extend(read.map(|word| format!("{}:{number}: {word}", file.display())));
        }
    }
    report(
        "One clock (CLOCK_BOOTTIME): a second one steps back, or stops while the host sleeps. Use crate::clock.",
        &found,
    );
}

#[test]
fn every_module_says_what_it_is() {
    let first = |text: &str| text.lines().next().unwrap_or_default().starts_with("//!");
    // A build script's output is included, not written by hand; everything tracked is written by hand.
    let found: Vec<String> =
        rust_files().iter().filter(|(_, text)| !first(text)).map(|(file, _)| file.display().to_string()).collect();
    report("A reader must learn from the first line what a file is, and what it is not (`//!`).", &found);
    let vague: Vec<String> = rust_files()
        .iter()
        .filter(|(_, text)| text.starts_with("//! To be described"))
        .map(|(file, text)| format!("{} ({} lines)", file.display(), text.lines().count()))
        .filter(|line| !line.ends_with("(1 lines)"))
        .collect();
    report("This module has content and no description.", &vague);
}

#[test]
fn files_are_short() {
    let reasons: BTreeMap<&str, &str> = LONG_FILES.iter().copied().collect();
    let mut found = Vec::new();
    for (file, text) in rust_files() {
        let (name, lines) = (file.display().to_string(), text.lines().count());
        let has_reason = reasons.get(name.as_str()).is_some_and(|reason| reason.len() > 20);
        if lines > FILE_LINES_MAX || lines > FILE_LINES_ASKED && !has_reason {
            found.push(format!("{name}: {lines} lines"));
        }
        if lines <= FILE_LINES_ASKED && reasons.contains_key(name.as_str()) {
            found.push(format!("{name}: {lines} lines need no reason any more, take it out of LONG_FILES"));
        }
    }
    report("One concept a file: over 600 lines only with a reason in LONG_FILES, over 800 never.", &found);
}

/// A function: its name, the line it begins on, and its length from `fn` to its closing brace.
struct Function {
    name: String,
    line: usize,
    length: usize,
}

/// Finds functions by the layout that rustfmt guarantees: a body ends with a brace in the column where the line with
/// its `fn` began. Rough, and enough for code that passes `cargo fmt --check`.
fn functions(text: &str) -> Vec<Function> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = &line[..line.len() - line.trim_start().len()];
        let end = lines[start..].iter().position(|l| {
            l.strip_prefix(indent)
                .is_some_and(|rest| rest == "}" || !rest.starts_with([' ', '}']) && rest.ends_with([';', '}']))
        });
        if let Some(end) = end {
            found.push(Function { name, line: start + 1, length: end + 1 });
        }
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let mut rest = line.trim_start();
    for word in ["pub(crate) ", "pub(super) ", "pub ", "const ", "async ", "unsafe ", "extern \"C\" "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let name: String = rest.strip_prefix("fn ")?.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    Some(name)
}

#[test]
fn functions_fit_a_screen() {
    let ratchet: BTreeMap<&str, usize> = LONG_FUNCTIONS.iter().copied().collect();
    let (mut found, mut seen) = (Vec::new(), 0);
    for (file, text) in rust_files() {
        for function in functions(&text) {
            seen += 1;
            let key = format!("{}::{}", file.display(), function.name);
            let allowed = ratchet.get(key.as_str()).copied().unwrap_or(FUNCTION_LINES_MAX);
            if function.length > allowed {
                let Function { line, length, .. } = function;
                found.push(format!("{key} (line {line}): {length} lines, {allowed} are allowed"));
            }
        }
    }
    assert!(seen > 50, "the parser found only {seen} functions");
    report("What does not fit a screen is not reviewed: split it, decisions from deeds.", &found);
}

#[test]
fn the_function_parser_measures() {
    let text = "impl A {\n    pub async fn long(\n        a: u8,\n    ) -> u8 {\n        if a {\n        }\n        a\n    }\n}\n\
                fn one() {}\ntrait T {\n    fn declared(&self);\n    fn next(&self) {\n        x();\n    }\n}\n";
    let measured: Vec<(String, usize, usize)> =
        functions(text).into_iter().map(|f| (f.name, f.line, f.length)).collect();
    let expected = [("long", 2, 7), ("one", 10, 1), ("declared", 12, 1), ("next", 13, 3)];
    assert_eq!(measured, expected.map(|(name, line, length)| (name.to_owned(), line, length)));
}

#[test]
fn nothing_is_left_undone() {
    // Written in two halves, so that this file does not find itself.
    let words = [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("#[ign", "ore"), concat!("dbg", "!(")];
    let mut found = Vec::new();
    for (file, text) in rust_files() {
        for (number, line) in text.lines().enumerate() {
            let undone = words.iter().filter(|word| line.contains(**word));
            found.extend(undone.map(|word| format!("{}:{}: {word}", file.display(), number + 1)));
        }
    }
    report("What is not there is left out, and said in the documents; a placeholder pretends.", &found);
}

/// What ends the program or a test may show values as they are: whoever reads that reads the code.
const FOR_DEVELOPERS: &[&str] = &["panic!", "assert!", "assert_eq!", "assert_ne!", "expect(", "unreachable!"];

/// The line before `at` that opens what it stands in: the nearest one that is indented less.
fn opening<'a>(lines: &[(usize, &'a str)], at: usize) -> Option<&'a str> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let (inner, before) = (indent(lines[at].1), &lines[..at]);
    before.iter().rev().map(|(_, line)| *line).find(|line| !line.trim().is_empty() && indent(line) < inner)
}

#[test]
fn what_operators_read_is_no_debug_format() {
    // In a format, or as the sigil of a field in the journal.
    let is_field = |line: &str| line.contains("= ?") || line.contains("(?") || line.contains(", ?");
    let is_debug =
        |line: &str| line.contains(":?}") || line.contains(":#?}") || (line.contains("tracing::") && is_field(line));
    let mut found = Vec::new();
    for (file, text) in rust_files().into_iter().filter(|(file, _)| file.starts_with("src") && !is_test_file(file)) {
        let lines: Vec<_> = code_lines(&text).collect();
        for (at, (number, line)) in lines.iter().enumerate().filter(|(_, (_, line))| is_debug(line)) {
            let is_excused = |line: &str| FOR_DEVELOPERS.iter().any(|word| line.contains(word));
            let outermost = lines[..at].iter().rev().find(|(_, line)| line.starts_with("impl"));
            let in_debug = outermost.is_some_and(|(_, line)| line.contains("Debug for"));
            if !is_excused(line) && !opening(&lines, at).is_some_and(is_excused) && !in_debug {
                found.push(format!("{}:{number}: {}", file.display(), line.trim()));
            }
        }
    }
    let rule = "A debug format shows Rust's words, and no two versions of a type alike: give it a Display, or quote text with \
                types::Quoted.";
    report(rule, &found);
}

/// Where files of a database's user are near, a file is written, moved or given away by `src/rights.rs` alone.
const FILE_WORK: &[&str] = &[
    "fs::write(",
    "fs::rename(",
    "fs::copy(",
    "fs::create_dir",
    "fs::remove_",
    "fs::set_permissions(",
    "fs::hard_link(",
    "File::create",
    "File::options(",
    "OpenOptions::",
    "chown(",
    "symlink(",
];
/// Lines that do such work all the same, each with the reason why nobody else has a hand in it.
const FILE_WORKERS: &[(&str, &str, &str)] = &[
    ("src/engine/enclosure.rs", "cgroup", "the kernel's files"),
    ("src/action/confinement.rs", "path", "the kernel's files: cgroups"),
    ("src/action/spawn.rs", "cgroup", "the kernel's files"),
    ("src/action/leashes.rs", "&path", "the kernel's files: cgroups"),
    ("src/action/leashes.rs", "/dev/null", "a device"),
    ("src/action/guard.rs", "/proc/self/oom_score_adj", "the kernel's file"),
    ("src/action/watchdog.rs", "OpenOptions::new()", "a device, named by the operator"),
    ("src/engine/postgresql/start.rs", "File::options()", "the server's log, in the daemon's own directory"),
    ("fence-agents/credentials/hba.rs", "fchown(&*file", "a new file, by its descriptor, with its owner's rights"),
];

#[test]
fn files_near_a_foreign_user_are_worked_on_with_its_rights() {
    let near = ["src/engine", "src/action", "fence-agents"];
    let mut found = Vec::new();
    let files = rust_files().into_iter().filter(|(file, _)| near.iter().any(|place| file.starts_with(place)));
    for (file, text) in files.filter(|(file, _)| !is_test_file(file)) {
        for (number, line) in code_lines(&text).filter(|(_, line)| FILE_WORK.iter().any(|work| line.contains(work))) {
            let is_told = |(name, what, _): &(&str, &str, &str)| file == Path::new(name) && line.contains(what);
            if !FILE_WORKERS.iter().any(is_told) {
                found.push(format!("{}:{number}: {}", file.display(), line.trim()));
            }
        }
    }
    report("Root follows no foreign link: let src/rights.rs do it, with the rights of the directory's user.", &found);
}

/// The files of `src/node` that know the whole node: all others are parts.
const WHOLE_NODE: &[&str] = &["mod.rs", "routing.rs"];

#[test]
fn parts_of_the_node_know_no_whole() {
    let mut found = Vec::new();
    let is_part = |file: &Path| {
        let name = file.strip_prefix("src/node").ok()?.to_str()?.to_owned();
        (!WHOLE_NODE.contains(&name.as_str()) && !is_test_file(file)).then_some(())
    };
    for (file, text) in rust_files().into_iter().filter(|(file, _)| is_part(file).is_some()) {
        for (number, line) in code_lines(&text) {
            let is_whole = |word: &str| word == "Node";
            if line.split(|c: char| !c.is_alphanumeric() && c != '_').any(is_whole) {
                found.push(format!("{}:{number}: {}", file.display(), line.trim()));
            }
        }
    }
    report("A part is handed what it needs; what takes more than one part stands in node/routing.rs.", &found);
}

#[test]
fn only_its_file_writes_what_all_parts_look_at() {
    let mut found = Vec::new();
    let writes = |line: &str| {
        let mut rest = line.match_indices("context.").map(|(at, word)| &line[at + word.len()..]);
        rest.any(|rest| {
            let after = rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
            after.starts_with(" = ") || after.starts_with(" += ")
        })
    };
    let is_part = |file: &Path| file.starts_with("src/node") && !file.ends_with("context.rs") && !is_test_file(file);
    for (file, text) in rust_files().into_iter().filter(|(file, _)| is_part(file)) {
        let lines = code_lines(&text).filter(|(_, line)| writes(line) || line.contains("&mut desk.context"));
        found.extend(lines.map(|(number, line)| format!("{}:{number}: {}", file.display(), line.trim())));
    }
    report("The context is read by every part: it is brought up to date by its own methods.", &found);
}

#[test]
fn the_repository_speaks_of_no_machine() {
    let words = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("deb.deb", "ian.org"),
        concat!("crates", ".io"),
        concat!("docker", ".io"),
        concat!("gh", "cr.io"),
    ];
    let mut found = Vec::new();
    for file in files() {
        // Cargo writes the registry's address into its lock files by itself.
        if file.file_name().is_some_and(|name| name == "Cargo.lock") {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(root().join(&file)) else { continue };
        for (number, line) in text.lines().enumerate() {
            let named = words.iter().filter(|word| line.contains(**word));
            found.extend(named.map(|word| format!("{}:{}: {word}", file.display(), number + 1)));
        }
    }
    report("What names one machine, or the place where a package came from, is wrong on every other machine.", &found);
}

/// The targets of Markdown links, `[text](target)`, outside of code.
fn links(text: &str) -> Vec<String> {
    let mut in_code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        in_code ^= line.trim_start().starts_with("```");
        if in_code {
            continue;
        }
        for part in line.split("](").skip(1) {
            found.extend(part.split(')').next().map(str::to_owned));
        }
    }
    found
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut found = Vec::new();
    for file in files().into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "md")) {
        for link in links(&read(&file)) {
            let target = link.split('#').next().unwrap_or_default();
            let is_elsewhere = target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            let folder = root().join(&file).parent().expect("a file has a folder").to_owned();
            if !is_elsewhere && !folder.join(target).exists() {
                found.push(format!("{}: {link}", file.display()));
            }
        }
    }
    report("A link that leads nowhere was once right: the document was not moved with its subject.", &found);
}

/// Every `make WORD` in text: the words.
fn make_targets_named(text: &str) -> Vec<String> {
    let code = text.split('`').enumerate().filter(|(index, _)| index % 2 == 1).map(|(_, inside)| inside);
    let fenced = text.lines().filter(|line| line.trim_start().starts_with("make ")).map(str::trim);
    let mut words = Vec::new();
    for part in code.chain(fenced) {
        let after = part.trim_start_matches("sudo ").strip_prefix("make ");
        let is_word = |word: &&str| !word.contains('=') && !word.starts_with('-');
        if let Some(word) = after.and_then(|after| after.split_whitespace().find(is_word)) {
            words.push(word.to_owned());
        }
    }
    words
}

#[test]
fn named_make_targets_exist() {
    let makefile = read(Path::new("Makefile"));
    let exists = |target: &str| makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
    let mut found = Vec::new();
    for file in ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"].map(Path::new) {
        if root().join(file).is_file() {
            let named = make_targets_named(&read(file));
            found.extend(named.iter().filter(|t| !exists(t)).map(|t| format!("{}: make {t}", file.display())));
        }
    }
    report("The first command that a reader tries must work.", &found);
}
