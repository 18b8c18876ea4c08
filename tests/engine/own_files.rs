//! What is a node's own configuration in its data directory stays so: through a rewind, through one that breaks in the middle,
//! and through a copy.

use crate::cluster::{Cluster, Database, bin_dir, possible};
use crate::coming_back::fail_over;
use regent::types::{DbAction, DbDone};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

/// A name, what a node's own file of that name says, and its mode.
const FILES: [(&str, u32); 6] = [
    ("postgresql.conf", 0o600),
    ("conf.d/memory.conf", 0o640),
    ("pg_hba.conf", 0o600),
    ("server.key", 0o600),
    ("server.crt", 0o644),
    ("keys/other.key", 0o400),
];

fn says(name: &str, node: &str) -> String {
    match name {
        "postgresql.conf" => format!(
            "include_dir 'conf.d'\nssl_key_file = '/nowhere' # {node}\nssl_dh_params_file = 'keys/other.key'\nssl_key_file = 'server.key'\n"
        ),
        "conf.d/memory.conf" => format!("work_mem = '{}MB'\n", if node == "db1" { 7 } else { 9 }),
        _ => format!("# {name} of {node}\n"),
    }
}

/// Each node has its own.
fn give(node: &Database) {
    let user = nix::unistd::User::from_name("postgres").expect("asked").expect("there");
    for (name, mode) in FILES {
        let path = node.postgresql().data_dir.join(name);
        let folder = path.parent().expect("one");
        fs::create_dir_all(folder).expect("made");
        let _ = fs::remove_file(&path);
        fs::write(&path, says(name, node.config.node.as_str())).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mine");
        for path in [folder, &path] {
            nix::unistd::chown(path, Some(user.uid), Some(user.gid)).expect("root");
        }
    }
}

fn has_its_own(node: &Database) {
    for (name, mode) in FILES {
        let path = node.postgresql().data_dir.join(name);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(text, says(name, node.config.node.as_str()), "{}", path.display());
        let about = fs::metadata(&path).expect("there");
        assert_eq!(about.permissions().mode() & 0o777, mode, "{}", path.display());
        assert_ne!(about.uid(), 0, "{}", path.display());
    }
    let aside = node.postgresql().data_dir.with_file_name(".regent-main.own");
    assert!(!aside.exists(), "what was kept aside is still there");
}

async fn prepared() -> Cluster {
    let cluster = Cluster::running(&["db1", "db2"]).await;
    for name in ["db1", "db2"] {
        give(cluster.node(name));
    }
    cluster.node("db1").sql("alter system set work_mem = '17MB'").await;
    fail_over(&cluster).await;
    cluster.node("db2").sql("alter system set work_mem = '19MB'").await;
    cluster
}

/// ALTER SYSTEM's, too.
fn has_its_own_values(node: &Database, value: &str) {
    let text = fs::read_to_string(node.postgresql().data_dir.join("postgresql.auto.conf")).expect("there");
    assert!(text.contains(&format!("work_mem = '{value}'")), "{text}");
}

/// The programs, of which pg_rewind breaks in the middle; with a pg_basebackup that does not work either, or one that does.
fn broken_programs(cluster: &Cluster, copies: bool) -> PathBuf {
    let path = cluster.path().join(if copies { "bin" } else { "bin-without-copies" });
    fs::create_dir(&path).expect("made");
    for program in fs::read_dir(bin_dir()).expect("programs").flatten() {
        let target = match program.file_name().to_str() {
            Some("pg_rewind") => continue,
            Some("pg_basebackup") if !copies => "/bin/false".into(),
            _ => program.path(),
        };
        symlink(target, path.join(program.file_name())).expect("linked");
    }
    let script =
        "#!/bin/sh\ncd \"$2\" || exit 2\necho broken > postgresql.conf\nrm -rf server.key conf.d keys\nexit 1\n";
    fs::write(path.join("pg_rewind"), script).expect("written");
    fs::set_permissions(path.join("pg_rewind"), fs::Permissions::from_mode(0o755)).expect("mine");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewind_leaves_a_node_its_own_configuration() {
    if !possible() {
        return;
    }
    let cluster = prepared().await;
    let DbDone::Rejoined { how, .. } = cluster.follow("db1", "db2").await else { panic!("it did not rejoin") };
    assert!(how.contains("rewound"), "{how}");
    has_its_own(cluster.node("db1"));
    has_its_own_values(cluster.node("db1"), "17MB");
    has_its_own(cluster.node("db2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_after_a_rewind_that_broke_leaves_a_node_its_own_configuration() {
    if !possible() {
        return;
    }
    let mut cluster = prepared().await;
    let bin = broken_programs(&cluster, true);
    cluster.change("db1", |postgresql| postgresql.bin_dir = bin);
    cluster.engine("db1");
    let DbDone::Rejoined { how, .. } = cluster.follow("db1", "db2").await else { panic!("it did not rejoin") };
    assert!(how.contains("cloned: the rewind failed"), "{how}");
    has_its_own(cluster.node("db1"));
    has_its_own_values(cluster.node("db1"), "17MB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_daemon_finds_what_was_kept_of_a_rewind_and_a_copy_that_broke() {
    if !possible() {
        return;
    }
    let mut cluster = prepared().await;
    let bin = broken_programs(&cluster, false);
    cluster.change("db1", |postgresql| postgresql.bin_dir = bin);
    cluster.engine("db1");
    let upstream = cluster.upstream("db2");
    let failed = cluster.node("db1").fails(DbAction::Rejoin { upstream, order: None }).await;
    assert!(failed.contains("/false") || failed.contains("pg_basebackup"), "{failed}");
    cluster.change("db1", |postgresql| postgresql.bin_dir = bin_dir().into());
    cluster.engine("db1");
    let DbDone::Rejoined { how, .. } = cluster.follow("db1", "db2").await else { panic!("it did not rejoin") };
    assert!(how.contains("cloned: a clone was unfinished"), "{how}");
    has_its_own(cluster.node("db1"));
    has_its_own_values(cluster.node("db1"), "17MB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_database_gets_the_other_nodes_configuration() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::with(&["db1", "db2"], |_| {});
    cluster.engine("db1");
    cluster.engine("db2");
    cluster.create("db1").await;
    give(cluster.node("db1"));
    cluster.follow("db2", "db1").await;
    let conf = fs::read_to_string(cluster.node("db2").postgresql().data_dir.join("conf.d/memory.conf"));
    assert_eq!(conf.expect("copied"), says("conf.d/memory.conf", "db1"));
}
