//! The configuration from outside: bad files against their golden errors, the examples, and the numbers in the docs.
//!
//! `REWRITE=1 cargo test --test config` writes the golden texts and the tables of `docs/timing.md` and
//! `docs/detector.md` anew; read the difference before you commit it.

use regent::config::timing::{bounds, inequalities, show};
use regent::config::trouble::{RULES, bound};
use regent::config::{Config, Problem, Profile, report, verdict_possible};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn parse(text: &str) -> Result<Config, Vec<Problem>> {
    Config::parse(text, "regent.toml", None, "db1")
}

/// The text or, for a valid file, the word `valid`.
fn shown(result: Result<Config, Vec<Problem>>) -> String {
    match result {
        Ok(_) => "valid\n".to_owned(),
        Err(problems) => problems.iter().map(|problem| format!("{problem}\n")).collect(),
    }
}

/// Compares with a file, or writes it where REWRITE is set.
fn assert_golden(path: &Path, actual: &str) {
    if std::env::var_os("REWRITE").is_some() {
        fs::write(path, actual).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        return;
    }
    let expected =
        fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}; write it with REWRITE=1", path.display()));
    assert_eq!(expected, actual, "{} differs; REWRITE=1 writes it anew", path.display());
}

#[test]
fn bad_files_are_refused_with_every_error_at_once() {
    let folder = root().join("tests/golden/config");
    let mut files: Vec<PathBuf> =
        fs::read_dir(&folder).expect("the golden folder").map(|e| e.expect("entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "toml"));
    files.sort();
    assert!(files.len() > 20, "only {} golden files", files.len());
    for file in files {
        let text = fs::read_to_string(&file).expect("readable");
        let actual = shown(parse(&text));
        assert_ne!(actual, "valid\n", "{} is accepted", file.display());
        assert_golden(&file.with_extension("txt"), &actual);
    }
}

fn example(name: &str) -> Config {
    let path = root().join("config").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    match Config::parse(&text, name, None, "db1.example.org") {
        Ok(config) => config,
        Err(problems) => panic!("{}", shown(Err(problems))),
    }
}

const EXAMPLES: [&str; 3] = ["three-databases.toml", "two-databases-and-witness.toml", "five-voters.toml"];

#[test]
fn every_example_is_valid_and_there_is_no_other() {
    let mut there: Vec<String> = fs::read_dir(root().join("config"))
        .expect("config/")
        .map(|e| e.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    there.sort();
    let mut expected = EXAMPLES.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(there, expected);
    for name in EXAMPLES {
        assert_eq!(example(name).node.as_str(), "db1", "{name}");
    }
}

#[test]
fn the_full_example_says_the_defaults() {
    // What three-databases.toml writes out as "default" must be what a file without those lines gets.
    let full = example("three-databases.toml");
    let bare = example("two-databases-and-witness.toml");
    assert_eq!(full.detector, bare.detector);
    assert_eq!(full.raft, bare.raft);
    assert_eq!(full.lease, bare.lease);
    assert_eq!(full.watchdog, bare.watchdog);
    assert_eq!(full.failover, bare.failover);
    assert_eq!(full.security, bare.security);
    assert_eq!(
        (&full.data_dir, &full.run_dir, &full.boot_id_file, &full.product_uuid_file, &full.network_devices_dir),
        (&bare.data_dir, &bare.run_dir, &bare.boot_id_file, &bare.product_uuid_file, &bare.network_devices_dir)
    );
    let [ours, theirs] = [&full, &bare].map(|c| &c.fencing);
    assert_eq!(
        (ours.retry, ours.retry_max, ours.on_lapsed, ours.power_on),
        (theirs.retry, theirs.retry_max, theirs.on_lapsed, theirs.power_on)
    );
    assert_eq!(ours.agents.keys().collect::<Vec<_>>(), theirs.agents.keys().collect::<Vec<_>>());
    for (name, agent) in &ours.agents {
        let other = &theirs.agents[name];
        assert_eq!(
            (agent.kind, &agent.command, agent.isolates, agent.everywhere, agent.timeout, agent.tries, agent.monitor),
            (other.kind, &other.command, other.isolates, other.everywhere, other.timeout, other.tries, other.monitor),
            "{name}"
        );
    }
    let [ours, theirs] = [&full, &bare].map(|c| c.services.values().next().expect("one service").clone());
    assert_eq!(
        (ours.on_crash, ours.max_restarts, ours.restart_window, ours.start_timeout, ours.start_stalled),
        (theirs.on_crash, theirs.max_restarts, theirs.restart_window, theirs.start_timeout, theirs.start_stalled)
    );
    assert_eq!(
        (ours.stop_fast, ours.stop_immediate, ours.stop_kill),
        (theirs.stop_fast, theirs.stop_immediate, theirs.stop_kill)
    );
    assert_eq!((&ours.bars, &ours.troubles), (&theirs.bars, &theirs.troubles));
    let [ours, theirs] = [ours.postgresql, theirs.postgresql];
    assert_eq!(
        (ours.port, ours.os_user, ours.superuser, ours.replication_user, ours.probe_interval, ours.probe_timeout),
        (
            theirs.port,
            theirs.os_user,
            theirs.superuser,
            theirs.replication_user,
            theirs.probe_interval,
            theirs.probe_timeout
        )
    );
}

#[test]
fn no_damage_to_a_file_makes_the_parser_panic() {
    let text = fs::read_to_string(root().join("config/two-databases-and-witness.toml")).expect("readable");
    let mut refused = 0;
    for (i, c) in text.char_indices() {
        let (before, after) = (&text[..i], &text[i + c.len_utf8()..]);
        for damaged in [before.to_owned(), format!("{before}{after}"), format!("{before}\u{e9}\"{after}")] {
            for problem in parse(&damaged).err().into_iter().flatten() {
                assert!(problem.line <= damaged.lines().count() + 1 && problem.column > 0, "{problem}");
                refused += 1;
            }
        }
    }
    assert!(refused > text.len(), "hardly any damage was noticed: {refused}");
}

/// Three database nodes on loopback, where nothing but the profile is set.
fn bare(profile: &str) -> String {
    let mut text = format!("cluster = \"c\"\nprofile = \"{profile}\"\nchannels.disk.path = \"/d\"\n");
    for n in 1..=3 {
        writeln!(text, "[nodes.db{n}]\nprimary = \"127.0.1.{n}\"\nsecondary = \"127.0.2.{n}\"").expect("a String");
    }
    text + "[watchdog]\n[[fencing.level]]\nagents = [\"ipmi\"]\n[[fencing.level]]\nagents = [\"lease\"]\n\
            [fencing.agents.ipmi]\nnode.db1.ip = \"127.0.3.1\"\nnode.db2.ip = \"127.0.3.2\"\nnode.db3.ip = \"127.0.3.3\"\n\
            [service.s]\nengine = \"postgresql\"\npostgresql = { data_dir = \"/x/{node}\", bin_dir = \"/b\" }\n"
}

fn profile(name: &str) -> Config {
    parse(&bare(name)).unwrap_or_else(|problems| panic!("{}", shown(Err(problems))))
}

#[test]
fn every_profile_satisfies_every_timing_rule() {
    for name in ["fast", "lan", "wan"] {
        let config = profile(name);
        assert!(inequalities(&config).len() >= 12);
        for rule in inequalities(&config) {
            assert!(rule.holds, "{name}: {rule:?}");
        }
    }
    assert_eq!(parse(&bare("lan").replace("profile = \"lan\"\n", "")).expect("valid").profile, Profile::Lan);
}

#[test]
fn the_lease_rule_is_sharp() {
    // ttl × 0.899 must exceed 3 × 0.5 + (3 × 1 + 0.2) + 1 + 1 = 6.7 s, so 7.452 s is too little and 7.453 s is enough.
    let with = |ttl: &str| shown(parse(&format!("{}[lease]\nttl = \"{ttl}\"\n", bare("lan"))));
    assert_eq!(with("7453ms"), "valid\n");
    let refused = with("7452ms");
    assert!(refused.contains("lease.ttl") && refused.contains("6.7 s > 6.7 s is false"), "{refused}");
}

#[test]
fn the_node_comes_from_the_option_the_file_or_the_host() {
    let text = bare("lan");
    let node = |given: Option<&str>, text: &str, host: &str| {
        Config::parse(text, "regent.toml", given, host).map(|c| c.node.to_string()).map_err(|p| shown(Err(p)))
    };
    assert_eq!(node(None, &text, "db2").as_deref(), Ok("db2"));
    assert_eq!(node(None, &text, "db2.example.org").as_deref(), Ok("db2"));
    assert_eq!(node(None, &format!("node = \"db3\"\n{text}"), "db2").as_deref(), Ok("db3"));
    assert_eq!(node(Some("db1"), &format!("node = \"db3\"\n{text}"), "db2").as_deref(), Ok("db1"));
    let refused = node(None, &text, "mail").expect_err("no such node");
    assert!(refused.contains("\"mail\", from the host name"), "{refused}");
}

#[test]
fn the_node_s_name_is_put_into_paths() {
    let config = parse(&bare("lan")).expect("valid");
    assert_eq!(config.services.values().next().expect("one").postgresql.data_dir, Path::new("/x/db1"));
    let other = Config::parse(&bare("lan"), "regent.toml", Some("db2"), "").expect("valid");
    assert_eq!(config.hash, other.hash, "the same file must have the same hash on every host");
}

#[test]
fn tls_is_required_off_loopback_alone() {
    assert_eq!(profile("lan").security.tls, None);
    let off = bare("lan").replace("127.0.", "10.0.");
    assert!(parse(&off).expect("valid").security.tls.is_some());
    let insecure = parse(&format!("{off}[security]\ninsecure = true\n")).expect("valid");
    assert_eq!(insecure.security.tls, None);
    assert!(report(&insecure).warnings.iter().any(|w| w.starts_with("insecure")));
}

#[test]
fn an_archive_that_is_nowhere_is_warned_of() {
    let warned = |parameters: &str| {
        let text =
            bare("lan").replace("bin_dir = \"/b\"", &format!("bin_dir = \"/b\", parameters = {{ {parameters} }}"));
        report(&parse(&text).expect("valid")).warnings.iter().any(|w| w.contains("archive_mode is on, and neither"))
    };
    assert!(warned("archive_mode = \"on\"") && warned("archive_mode = \"always\", archive_command = \"\""));
    assert!(!warned("archive_mode = \"off\"") && !warned("archive_command = \"\""));
    assert!(!warned("archive_mode = \"on\", archive_command = \"cp %p /archive/%f\""));
    assert!(!warned("archive_mode = \"on\", archive_library = \"basic_archive\""));
}

/// Whether a verdict about `node` is possible with `failure`.
fn possible(config: &Config, failure: &str, node: &str) -> bool {
    let rows = verdict_possible(config);
    let row = rows.iter().find(|row| row.failure == failure).unwrap_or_else(|| panic!("no row {failure:?}"));
    row.verdict[&node.parse().expect("a name")]
}

#[test]
fn a_diskless_witness_with_one_dead_nic_prevents_a_verdict() {
    let config = example("two-databases-and-witness.toml");
    assert!(possible(&config, "nothing broken", "db1"));
    assert!(!possible(&config, "w1: primary interface", "db1"));
    assert!(!possible(&config, "secondary network", "db2"));
    assert!(!possible(&config, "w1: whole node", "db1"), "no majority is left");
    assert!(possible(&config, "db1: primary interface", "db1"), "its own broken interface hides nobody else");
    let with_disk = bare("lan").replace("[nodes.db3]", "[nodes.db3]\nrole = \"witness\"");
    let with_disk = parse(&with_disk).expect("valid");
    assert!(possible(&with_disk, "db3: primary interface", "db1"), "with the disk it has two of three");
    assert!(possible(&with_disk, "shared disk", "db1"), "both networks are left");
}

#[test]
fn five_voters_survive_any_one_failure_and_the_death_of_a_primary() {
    let rows = verdict_possible(&example("five-voters.toml"));
    let hidden: Vec<_> = rows.iter().filter(|row| !row.possible).map(|row| row.failure.as_str()).collect();
    // Two channels alone: a dead network leaves one, and one is no majority of two.
    assert_eq!(hidden, ["primary network", "secondary network"]);
}

#[test]
fn the_report_is_printed_and_serialised() {
    let report = report(&example("two-databases-and-witness.toml"));
    assert_golden(&root().join("tests/golden/config/report.out"), &report.to_string());
    let json = serde_json::to_value(&report).expect("serialisable");
    assert_eq!(json["bounds"]["detection_usual_ms"], 1410);
    assert_eq!(json["bounds"]["detection_worst_ms"], 2265);
    assert_eq!(json["bounds"]["levels"][1]["agents"][0], "lease");
    assert_eq!(json["inequalities"][0]["holds"], true);
}

/// The tables of docs/timing.md, from the code.
fn tables() -> [(&'static str, String); 3] {
    let profiles = [profile("fast"), profile("lan"), profile("wan")];
    let mut settings = "| key | fast | lan | wan |\n|---|---|---|---|\n".to_owned();
    let mut row = |key: &str, value: &dyn Fn(&Config) -> String| {
        let [fast, lan, wan] = profiles.each_ref().map(value);
        writeln!(settings, "| `{key}` | {fast} | {lan} | {wan} |").expect("a String");
    };
    row("detector.interval", &|c| show(c.detector.interval));
    row("detector.phi_threshold", &|c| c.detector.phi_threshold.to_string());
    row("detector.acceptable_pause", &|c| show(c.detector.acceptable_pause));
    row("detector.min_deviation", &|c| show(c.detector.min_deviation));
    row("detector.window", &|c| c.detector.window.to_string());
    row("detector.rise", &|c| c.detector.rise.to_string());
    row("detector.startup_grace", &|c| show(c.detector.startup_grace));
    row("raft.heartbeat", &|c| show(c.raft.heartbeat));
    row("raft.election_min", &|c| show(c.raft.election_min));
    row("raft.election_max", &|c| show(c.raft.election_max));
    row("raft.slow_write", &|c| show(c.raft.slow_write));
    row("lease.ttl", &|c| show(c.lease.ttl));
    row("lease.renew", &|c| show(c.lease.renew));
    row("lease.drift_permille", &|c| c.lease.drift_permille.to_string());
    row("lease.grace", &|c| show(c.lease.grace));
    row("lease.stop_immediate", &|c| show(c.lease.stop_immediate));
    row("lease.stop_kill", &|c| show(c.lease.stop_kill));
    row("watchdog.timeout", &|c| show(c.watchdog.as_ref().expect("written").timeout));
    row("fencing.retry", &|c| show(c.fencing.retry));
    row("fencing.retry_max", &|c| show(c.fencing.retry_max));
    row("fencing.agents.*.timeout", &|c| show(c.fencing.agents.values().next().expect("ipmi").timeout));
    row("fencing.agents.*.tries", &|c| c.fencing.agents.values().next().expect("ipmi").tries.to_string());
    row("fencing.agents.*.monitor", &|c| show(c.fencing.agents.values().next().expect("ipmi").monitor));
    row("failover.max_lag", &|c| format!("{} MiB", c.failover.max_lag >> 20));
    row("failover.max_silence", &|c| show(c.failover.max_silence));
    row("failover.max_lag_time", &|c| show(c.failover.max_lag_time));
    row("failover.choose", &|c| show(c.failover.choose));
    row("failover.catch_up", &|c| show(c.failover.catch_up));
    row("failover.install", &|c| show(c.failover.install));
    let service = |c: &Config| c.services.values().next().expect("one service").clone();
    row("service.*.max_restarts", &|c| service(c).max_restarts.to_string());
    row("service.*.restart_window", &|c| show(service(c).restart_window));
    row("service.*.start_timeout", &|c| show(service(c).start_timeout));
    row("service.*.start_stalled", &|c| show(service(c).start_stalled));
    row("service.*.stop_fast", &|c| show(service(c).stop_fast));
    row("service.*.stop_immediate", &|c| show(service(c).stop_immediate));
    row("service.*.stop_kill", &|c| show(service(c).stop_kill));
    row("service.*.trouble.stalled_after", &|c| show(service(c).troubles.stalled_after));
    row("service.*.postgresql.probe_interval", &|c| show(service(c).postgresql.probe_interval));
    row("service.*.postgresql.probe_timeout", &|c| show(service(c).postgresql.probe_timeout));
    [("settings", settings), ("rules", rules_table(&profiles)), ("bounds", bounds_table(&profiles))]
}

fn rules_table(profiles: &[Config; 3]) -> String {
    let mut text = "| rule | formula | fast | lan | wan | why |\n|---|---|---|---|---|---|\n".to_owned();
    let [fast, lan, wan] = profiles.each_ref().map(inequalities);
    for ((fast, lan), wan) in fast.iter().zip(&lan).zip(&wan) {
        let [a, b, c] = [fast, lan, wan].map(|r| format!("{} {} {}", show(r.left), r.relation, show(r.right)));
        writeln!(text, "| {} | {} | {a} | {b} | {c} | {} |", fast.name, fast.formula, fast.why).expect("a String");
    }
    text
}

fn bounds_table(profiles: &[Config; 3]) -> String {
    let mut text = "| bound | formula | fast | lan | wan |\n|---|---|---|---|---|\n".to_owned();
    let [fast, lan, wan] = profiles.each_ref().map(bounds);
    for (i, (name, formula, _)) in lan.lines().iter().enumerate() {
        let [a, b, c] = [&fast, &lan, &wan].map(|bounds| show(bounds.lines()[i].2));
        writeln!(text, "| {name} | {formula} | {a} | {b} | {c} |").expect("a String");
    }
    for (i, title) in ["failover, power device confirms at once", "failover, only `lease` confirms"].iter().enumerate()
    {
        let [a, b, c] = [&fast, &lan, &wan].map(|bounds| show(bounds.levels[i].failover));
        writeln!(text, "| {title} | see below | {a} | {b} | {c} |").expect("a String");
        let [a, b, c] = [&fast, &lan, &wan].map(|bounds| show(bounds.levels[i].started));
        writeln!(text, "| {title}; the database started first | see below | {a} | {b} | {c} |").expect("a String");
    }
    text
}

/// The table of docs/detector.md, from the code.
fn detection_table() -> String {
    let head = "| profile | interval | `acceptable_pause`: always forgiven | suspected after, usually | suspected after, at worst |";
    let mut text = format!("{head}\n|---|---|---|---|---|\n");
    for name in ["fast", "lan", "wan"] {
        let (config, bounds) = (profile(name), bounds(&profile(name)));
        let title = if name == "lan" { "`lan` (default)".to_owned() } else { format!("`{name}`") };
        let times = [config.detector.interval, bounds.freeze_tolerated, bounds.detection_usual, bounds.detection_worst];
        writeln!(text, "| {title} | {} |", times.map(show).join(" | ")).expect("a String");
    }
    text
}

/// The page with these tables between their marks.
fn with_tables(path: &Path, tables: &[(&str, String)]) -> String {
    let mut page = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    for (name, table) in tables {
        let (open, close) = (format!("<!-- table: {name} -->\n"), format!("<!-- end: {name} -->"));
        let start = page.find(&open).unwrap_or_else(|| panic!("no {open}")) + open.len();
        let end = page.find(&close).unwrap_or_else(|| panic!("no {close}"));
        page.replace_range(start..end, table);
    }
    page
}

#[test]
fn the_numbers_in_the_detector_page_are_those_of_the_code() {
    let path = root().join("docs/detector.md");
    assert_golden(&path, &with_tables(&path, &[("detection", detection_table())]));
}

/// The table of local trouble in docs/operations.md, from the code.
fn trouble_table() -> String {
    let head = "| trouble | key | probe | limit | default | may be | clients are without writes for (`fast`, `lan`, `wan`) | why so |";
    let mut text = format!("{head}\n|---|---|---|---|---|---|---|---|\n");
    let profiles = [profile("fast"), profile("lan"), profile("wan")];
    for rule in &RULES {
        let bounds = profiles.each_ref().map(|config| {
            let service = config.services.values().next().expect("one service");
            assert_eq!(service.troubles.policy(rule.kind), rule.default, "{:?}", rule.kind);
            bound(config, service, rule.kind).map(show)
        });
        let bounds = match bounds {
            [Some(fast), Some(lan), Some(wan)] => format!("{fast}, {lan}, {wan}"),
            _ => "until it is put right".to_owned(),
        };
        let (key, default) = (rule.kind.key(), rule.default.word());
        let allowed: Vec<_> = rule.allowed.iter().map(|policy| format!("`{}`", policy.word())).collect();
        let (name, allowed) = (key.replace('_', " "), allowed.join(", "));
        writeln!(
            text,
            "| {name} | `{key}` | {} | {} | `{default}` | {allowed} | {bounds} | {} |",
            rule.probe, rule.limit, rule.why
        )
        .expect("a String");
    }
    text
}

#[test]
fn the_table_of_local_trouble_is_that_of_the_code() {
    let path = root().join("docs/operations.md");
    assert_golden(&path, &with_tables(&path, &[("trouble", trouble_table())]));
}

#[test]
fn the_numbers_in_the_timing_page_are_those_of_the_code() {
    let path = root().join("docs/timing.md");
    let page = with_tables(&path, &tables());
    let lan = bounds(&profile("lan"));
    let sentence = format!(
        "**A host may freeze for {} (profile `lan`) and nothing happens; one that holds a primary and freezes for longer \
         than {} is shot.**",
        show(lan.freeze_tolerated),
        show(lan.freeze_fatal)
    );
    // The page is wrapped, the sentence is not.
    assert!(page.replace('\n', " ").contains(&sentence), "docs/timing.md must say: {sentence}");
    assert_golden(&path, &page);
}

/// What `regent config check` says where the server's program gives itself out for this version, and whether it accepts the file.
fn judged(version: &str) -> (bool, String) {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a directory");
    let (server, file) = (folder.path().join("postgres"), folder.path().join("regent.toml"));
    fs::write(&server, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")).expect("written");
    fs::set_permissions(&server, fs::Permissions::from_mode(0o755)).expect("mine");
    let example = fs::read_to_string(root().join("config/two-databases-and-witness.toml")).expect("readable");
    let bin_dir = folder.path().display().to_string();
    let text = format!("node = \"db1\"\n{}", example.replace("/usr/lib/postgresql/15/bin", &bin_dir));
    fs::write(&file, text).expect("written");
    let checked =
        std::process::Command::new(env!("CARGO_BIN_EXE_regent")).args(["config", "check"]).arg(&file).output();
    let checked = checked.expect("it runs");
    let said = [checked.stdout, checked.stderr].map(|bytes| String::from_utf8(bytes).expect("text")).concat();
    (checked.status.success(), said)
}

#[test]
fn programs_of_a_version_that_is_too_old_are_refused_and_newer_ones_warned_about() {
    let key = "service.orders.postgresql.bin_dir: ";
    let (valid, said) = judged("12.22 (Debian 12.22-1)");
    assert!(!valid && said.contains(key) && said.contains("is of PostgreSQL 12"), "{said}");
    let (valid, said) = judged("19beta1");
    assert!(valid && said.contains(key) && said.contains("with which regent was not tried"), "{said}");
    let (valid, said) = judged("17.12");
    assert!(valid && !said.contains(key), "{said}");
}
