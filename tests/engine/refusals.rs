//! Files with which no server of this host starts, or no standby could be: each is refused before it counts, by the check of the
//! file alone where that can be known, by the check on the host, and by a daemon that is to read it again.

use crate::cluster::{Cluster, bin_dir, possible, version};
use regent::config::Config;
use std::path::Path;
use std::process::Command;

/// What is written into the file, and the words by which it is refused: without PostgreSQL, and on the host.
struct Line {
    parameters: &'static [(&'static str, &'static str)],
    hba: Option<&'static str>,
    alone: Option<&'static str>,
    on_host: &'static str,
}

const fn value(parameters: &'static [(&'static str, &'static str)], alone: &'static str) -> Line {
    Line { parameters, hba: None, alone: Some(alone), on_host: alone }
}

/// Known on the host alone.
const fn tried(parameters: &'static [(&'static str, &'static str)], on_host: &'static str) -> Line {
    Line { parameters, hba: None, alone: None, on_host }
}

const fn access(hba: &'static str, alone: &'static str) -> Line {
    Line { parameters: &[], hba: Some(hba), alone: Some(alone), on_host: alone }
}

const LINES: [Line; 33] = [
    value(&[("wal_keep_segments", "64")], "write wal_keep_size"),
    value(&[("work_mem", "64 megabytes")], "found \"64 megabytes\""),
    value(&[("statement_timeout", "30 seconds")], "found \"30 seconds\""),
    value(&[("shared_buffers", "-1GB")], "found \"-1GB\""),
    value(&[("wal_level", "minimal")], "there is no replication"),
    value(&[("wal_level", "replicas")], "expected one of"),
    value(&[("superuser_reserved_connections", "100")], "leave none of 100"),
    value(&[("max_connections", "3")], "leave none of 3"),
    value(&[("max_connections", "-5")], "expected a whole number"),
    value(&[("max_wal_senders", "-1")], "expected a whole number"),
    value(&[("fsync", "maybe")], "expected on or off"),
    value(&[("hot_standby", "off")], "regent sets this parameter itself"),
    value(&[("synchronous_standby_names", "*")], "no synchronous mode"),
    value(&[("password_encryption", "scram")], "expected one of md5, scram-sha-256"),
    access("host all all 10.0.0.0/8 scram", "write scram-sha-256"),
    access("hosts all all 10.0.0.0/8 md5", "begins no access line"),
    access("host all all 10.0.0.0/8", "not a whole access line"),
    access("host all all ::ffff:10.0.0.0/104 md5", "matches nobody"),
    tried(&[("max_connctions", "500")], "unrecognized configuration parameter \"max_connctions\""),
    tried(&[("shared_preload_libraries", "pg_stat_statments")], "pg_stat_statments"),
    tried(&[("session_preload_libraries", "nope")], "nope"),
    tried(&[("shared_buffers", "900GB")], "more than the memory of this host"),
    tried(&[("huge_pages", "on")], "vm.nr_hugepages"),
    tried(&[("ssl", "on"), ("ssl_cert_file", "/nowhere/pem"), ("ssl_key_file", "/nowhere/key")], "/nowhere/pem"),
    tried(&[("archive_mode", "maybe")], "archive_mode"),
    tried(&[("synchronous_commit", "onn")], "synchronous_commit"),
    tried(&[("max_wal_size", "1MB")], "max_wal_size"),
    // As long as a segment, and a little more: no server has less than two of them.
    tried(&[("max_wal_size", "20MB")], "max_wal_size"),
    tried(&[("min_wal_size", "16MB")], "min_wal_size"),
    tried(&[("logging_collector", "on"), ("log_directory", "/proc/no/place")], "/proc/no/place"),
    value(&[("archive_command", "true"), ("archive_library", "basic_archive")], "keep one of the two"),
    tried(&[("timezone", "Middle/Earth")], "Middle/Earth"),
    Line { parameters: &[], hba: Some("host all all 10.0.0.0/33 md5"), alone: None, on_host: "10.0.0.0/33" },
];

/// The file of the first of three nodes.
fn file(folder: &Path, line: &Line) -> String {
    let mut text = "cluster = \"c\"\nnode = \"db1\"\n".to_owned();
    for (key, name) in [("data_dir", "regent"), ("run_dir", "run")] {
        text.push_str(&format!("{key} = \"{}\"\n", folder.join(name).display()));
    }
    for n in 1..=3 {
        text.push_str(&format!("[nodes.db{n}]\nprimary = \"127.0.1.{n}\"\nsecondary = \"127.0.2.{n}\"\n"));
    }
    text.push_str("[service.orders]\nengine = \"postgresql\"\n[service.orders.postgresql]\n");
    text.push_str(&format!("data_dir = \"{}\"\nbin_dir = \"{}\"\n", folder.join("main").display(), bin_dir()));
    text.push_str(&format!("hba = {:?}\n[service.orders.postgresql.parameters]\n", line.hba.as_slice()));
    for (name, value) in line.parameters {
        text.push_str(&format!("{name} = {value:?}\n"));
    }
    text
}

/// What `regent config check` says, and whether it takes the file.
fn check(file: &Path, options: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_regent"));
    let checked = command.args(["config", "check"]).arg(file).args(options).output().expect("it runs");
    let said = [checked.stdout, checked.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (checked.status.success(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_server_takes_is_refused_with_the_reason_before_it_counts() {
    if !possible() {
        return;
    }
    let folder = tempfile::Builder::new().prefix("regent-refusals-").tempdir_in("/var/tmp").expect("a directory");
    let path = folder.path().join("regent.toml");
    let cluster = Cluster::running(&["db1"]).await;
    let engine = cluster.node("db1").engine();
    // Before 15 no server says how many huge pages it needs.
    let is_known = |line: &&Line| version() >= 15 || line.on_host != "vm.nr_hugepages";
    for line in LINES.iter().filter(is_known) {
        let what = format!("{:?} {:?}", line.parameters, line.hba);
        let text = file(folder.path(), line);
        std::fs::write(&path, &text).expect("written");
        let (alone, said) = check(&path, &[]);
        assert_eq!(alone, line.alone.is_none(), "{what}: {said}");
        assert!(line.alone.is_none_or(|words| said.contains(words)), "{what}: {said}");
        let (on_host, said) = check(&path, &["--host"]);
        println!("{what}: {}", said.lines().next().unwrap_or_default());
        assert!(!on_host && said.contains(line.on_host), "{what}: {said}");
        // A daemon that reads it again: the file's own rules, then PostgreSQL.
        let Ok(config) = Config::parse(&text, "regent.toml", None, "db1") else { continue };
        let given = &config.services.values().next().expect("one service").postgresql;
        let mut new = cluster.node("db1").postgresql().clone();
        new.parameters.extend(given.parameters.clone());
        new.hba.extend(given.hba.clone());
        let refused = engine.try_out(&new).await.expect_err(&what).to_string();
        assert!(refused.contains(line.on_host), "{what}: {refused}");
    }
    let good = Line {
        parameters: &[
            ("max_wal_senders", "0"),
            ("wal_level", "logical"),
            ("max_connections", "40"),
            ("max_wal_size", "32MB"),
            ("min_wal_size", "32MB"),
            ("logging_collector", "on"),
        ],
        hba: Some("hostssl all +dba fd00::/8 scram-sha-256"),
        alone: None,
        on_host: "",
    };
    std::fs::write(&path, file(folder.path(), &good)).expect("written");
    for options in [&[][..], &["--host"]] {
        let (taken, said) = check(&path, options);
        assert!(taken, "{said}");
    }
}
