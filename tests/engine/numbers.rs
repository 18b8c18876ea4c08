//! The numbers of timelines: a promotion takes the number that it was given, whoever else was given the ones before; what
//! PostgreSQL makes of the placeholders, at a standby that runs, that starts, and that was a primary itself.

use crate::cluster::{Cluster, Database, LADDER, bin_dir, possible, version};
use regent::types::{DbAction, DbDone, DbState, Epoch, Timeline};
use std::path::{Path, PathBuf};
use std::time::Duration;

fn history(node: &Database, timeline: u32) -> PathBuf {
    node.postgresql().data_dir.join(format!("pg_wal/{timeline:08X}.history"))
}

fn is_placeholder(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.starts_with("# regent:") && text.lines().count() == 1)
}

/// Appointed under this epoch: sealed, and promoted to this timeline.
async fn take_over(node: &Database, epoch: u64, timeline: u32) {
    node.done(DbAction::Seal).await;
    node.lease(epoch, Duration::from_secs(60));
    let promote = DbAction::Promote { epoch: Epoch(epoch), timeline: Timeline(timeline) };
    let DbDone::Writable { position } = node.done(promote).await else { panic!("not writable") };
    assert_eq!(position.timeline, Timeline(timeline));
}

async fn streams_on(node: &Database, timeline: u32) {
    let there = move |seen: &regent::types::Observation| {
        seen.state == DbState::Standby && seen.position.timeline.0 == timeline && seen.streams_from.is_some()
    };
    node.until(&format!("streaming on timeline {timeline}"), there).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_skips_the_numbers_that_others_were_given() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2", "db3", "db4"]).await;
    let [db1, db2, db3, db4] = ["db1", "db2", "db3", "db4"].map(|name| cluster.node(name));
    db1.sql("insert into orders values (1)").await;
    for node in [db2, db3, db4] {
        node.until_ids(&[1]).await;
    }
    db4.done(DbAction::Stop { ladder: LADDER }).await;
    db1.enclosure().kill();
    // 2 was given to somebody who is gone, and so was 3.
    take_over(db2, 4, 4).await;
    assert!(is_placeholder(&history(db2, 2)) && is_placeholder(&history(db2, 3)) && !is_placeholder(&history(db2, 4)));
    db2.sql("insert into orders values (2)").await;
    let seen = db2.until("writable", |seen| seen.writable).await;
    assert_eq!(seen.history.0.iter().map(|left| left.timeline.0).collect::<Vec<_>>(), [1], "it left timeline 1");

    // A standby on timeline 1 follows it without a restart, and gets the placeholders on the way.
    let before = db3.postmaster();
    db3.done(DbAction::Follow { upstream: cluster.upstream("db2") }).await;
    streams_on(db3, 4).await;
    db3.until_ids(&[1, 2]).await;
    assert_eq!(db3.postmaster(), before);
    assert!(is_placeholder(&history(db3, 2)) && is_placeholder(&history(db3, 3)) && !is_placeholder(&history(db3, 4)));
    // So does one that starts only then; and either starts again later on.
    cluster.follow("db4", "db2").await;
    for (node, name) in [(db3, "db3"), (db4, "db4"), (db3, "db3")] {
        node.done(DbAction::Stop { ladder: LADDER }).await;
        let DbDone::Rejoined { how, kept: None } = cluster.follow(name, "db2").await else {
            panic!("it kept something")
        };
        assert!(how.contains("nothing to do"), "{name}: {how}");
        streams_on(node, 4).await;
        node.until_ids(&[1, 2]).await;
    }
    // And the next primary counts on from there.
    db2.enclosure().kill();
    take_over(db3, 5, 5).await;
    db4.done(DbAction::Follow { upstream: cluster.upstream("db3") }).await;
    streams_on(db4, 5).await;
    let rejoined = cluster.follow("db2", "db3").await;
    assert!(matches!(&rejoined, DbDone::Rejoined { how, .. } if !how.contains("cloned")), "{rejoined:?}");
    let rejoined = cluster.follow("db1", "db3").await;
    assert!(matches!(&rejoined, DbDone::Rejoined { how, .. } if !how.contains("cloned")), "{rejoined:?}");
    db1.until_ids(&[1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_appointee_that_was_passed_over_is_rewound_and_what_it_acknowledged_is_kept() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2", "db3"]).await;
    let [db1, db2, db3] = ["db1", "db2", "db3"].map(|name| cluster.node(name));
    db1.sql("insert into orders values (1)").await;
    db2.until_ids(&[1]).await;
    db3.until_ids(&[1]).await;
    db3.done(DbAction::Seal).await;
    // What only db2 has of timeline 1, in several segments, and then of its own.
    db1.sql("insert into orders values (10)").await;
    for _ in 0..3 {
        db1.sql("select pg_switch_wal()").await;
        db1.sql("insert into orders select max(id) + 1 from orders").await;
    }
    db2.until_ids(&[1, 10, 11, 12, 13]).await;
    db1.enclosure().kill();
    take_over(db2, 2, 2).await;
    db2.sql("insert into orders values (20)").await;
    db2.enclosure().kill();
    db2.until_state(DbState::Stopped).await;
    take_over(db3, 3, 3).await;
    assert!(is_placeholder(&history(db3, 2)));
    db3.sql("insert into orders values (30)").await;

    let DbDone::Rejoined { how, kept: Some(kept) } = cluster.follow("db2", "db3").await else { panic!("nothing kept") };
    assert!(how.contains("rewound"), "{how}");
    streams_on(db2, 3).await;
    db2.until_ids(&[1, 30]).await;
    // Every row that is gone can be read from the folder: of its own timeline, and of the one that it had followed.
    let found = |timeline: u32| {
        let begins = format!("{timeline:08X}");
        let names = std::fs::read_dir(&kept).expect("a folder").flatten();
        let mut names: Vec<_> = names.map(|e| e.file_name().into_string().expect("text")).collect();
        names.retain(|name| name.starts_with(&begins));
        names.sort();
        let inserts = |name: &String| {
            let dump = std::process::Command::new(Path::new(bin_dir()).join("pg_waldump"))
                .arg(Path::new(&kept).join(name))
                .output();
            String::from_utf8_lossy(&dump.expect("it runs").stdout).matches("INSERT off").count()
        };
        names.iter().map(inserts).sum::<usize>()
    };
    assert!(found(1) >= 3 && found(2) >= 1, "{} and {} inserts in {kept}", found(1), found(2));
    let rejoined = cluster.follow("db1", "db3").await;
    assert!(matches!(&rejoined, DbDone::Rejoined { how, kept: Some(_) } if how.contains("rewound")), "{rejoined:?}");
    db1.until_ids(&[1, 30]).await;
    // All of them start again as they are.
    for name in ["db1", "db2"] {
        cluster.node(name).done(DbAction::Stop { ladder: LADDER }).await;
        let rejoined = cluster.follow(name, "db3").await;
        assert!(matches!(&rejoined, DbDone::Rejoined { how, .. } if how.contains("nothing to do")), "{rejoined:?}");
        streams_on(cluster.node(name), 3).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_with_a_placeholder_and_nothing_after_it_starts_all_the_same() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2", "db3"]).await;
    let [db1, db2, db3] = ["db1", "db2", "db3"].map(|name| cluster.node(name));
    db1.sql("insert into orders values (1)").await;
    db2.until_ids(&[1]).await;
    db3.until_ids(&[1]).await;
    db1.enclosure().kill();
    take_over(db2, 3, 3).await;
    // db3 had fetched one file when its power went; it starts with nobody to follow, and then follows.
    db3.done(DbAction::Stop { ladder: LADDER }).await;
    std::fs::copy(history(db2, 2), history(db3, 2)).expect("copied");
    db3.done(DbAction::StartStandby { upstream: None }).await;
    db3.until_state(DbState::Standby).await;
    assert!(!history(db3, 2).exists());
    // A failed promotion leaves one at a standby that runs. It follows all the same.
    std::fs::copy(history(db2, 2), history(db3, 2)).expect("copied");
    db3.done(DbAction::Follow { upstream: cluster.upstream("db2") }).await;
    streams_on(db3, 3).await;
    assert!(is_placeholder(&history(db3, 2)), "the primary's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_is_taken_is_not_promoted_to() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2", "db3"]).await;
    let [db1, db2, db3] = ["db1", "db2", "db3"].map(|name| cluster.node(name));
    db1.enclosure().kill();
    take_over(db2, 2, 2).await;
    cluster.follow_running("db3", "db2").await;
    streams_on(db3, 2).await;
    db2.enclosure().kill();
    db3.done(DbAction::Seal).await;
    db3.lease(3, Duration::from_secs(60));
    for taken in [1, 2] {
        let error = db3.fails(DbAction::Promote { epoch: Epoch(3), timeline: Timeline(taken) }).await;
        assert!(error.contains("already has timeline 2"), "{error}");
    }
    let text = "1\t0/3000000\tby somebody else\n";
    std::fs::write(history(db3, 3), text).expect("written");
    let error = db3.fails(DbAction::Promote { epoch: Epoch(3), timeline: Timeline(3) }).await;
    assert!(error.contains("already has timeline 3"), "{error}");
    assert_eq!(db3.until_state(DbState::Standby).await.position.timeline, Timeline(2));
    // A true history is never overwritten: here it counts as taken, like any.
    take_over(db3, 4, 4).await;
    assert_eq!(std::fs::read_to_string(history(db3, 3)).expect("there"), text);
}

/// Rows that a restore from the archive ends with, and what the server said meanwhile.
fn restored(folder: &Path, backup: &Path, archive: &Path) -> (String, String) {
    let script = format!(
        "set -e; cd {folder}; cp -a {backup} restored; rm -f restored/postmaster.*; touch restored/recovery.signal
         cat > restored/postgresql.auto.conf <<< \"restore_command = 'cp {archive}/%f %p'\"
         {bin}/pg_ctl -D restored -w -t 60 -l {folder}/log -o \"-c listen_addresses='' -c hba_file={folder}/hba \\
             -c unix_socket_directories={folder} -c port=5999 -c max_wal_senders=30\" start >&2
         while [ \"$(psql -XtA -h {folder} -p 5999 -c 'select pg_is_in_recovery()' postgres)\" = t ]; do sleep 0.1; done
         psql -XtA -h {folder} -p 5999 -c 'select string_agg(id::text, chr(44) order by id) from orders' postgres
         {bin}/pg_ctl -D restored -w -m immediate stop >&2",
        bin = bin_dir(),
        folder = folder.display(),
        backup = backup.display(),
        archive = archive.display(),
    );
    let output = std::process::Command::new("runuser").args(["-u", "postgres", "--", "bash", "-c", &script]).output();
    let output = output.expect("bash runs");
    let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
    assert!(output.status.success(), "{}\n{log}", String::from_utf8_lossy(&output.stderr));
    (String::from_utf8_lossy(&output.stdout).trim().to_owned(), log)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_from_the_archive_passes_the_numbers_that_were_skipped() {
    if !possible() {
        return;
    }
    let place = tempfile::Builder::new().prefix("regent-archive-").tempdir_in("/var/tmp").expect("a directory");
    let (archive, folder) = (place.path().join("wal"), place.path().to_owned());
    std::fs::create_dir(&archive).expect("made");
    std::fs::write(folder.join("hba"), "local all all trust\n").expect("written");
    let user = nix::unistd::User::from_name("postgres").expect("readable").expect("it is installed");
    for path in [&folder, &archive] {
        std::os::unix::fs::chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("root");
    }
    // Whole or not at all, as an archive must have it.
    let command = format!("cp %p {0}/.%f && mv {0}/.%f {0}/%f", archive.display());
    let cluster = Cluster::running_with(&["db1", "db2"], |postgresql| {
        postgresql.parameters.insert("archive_mode".into(), "on".into());
        postgresql.parameters.insert("archive_command".into(), command.clone());
    })
    .await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    db1.sql("insert into orders values (1)").await;
    // A backup as any tool makes one, on the first timeline.
    let (client, backup) = (db1.client().await.expect("in"), folder.join("backup"));
    let (begin, end) = match version() {
        ..15 => ("pg_start_backup('test', true, false)", "pg_stop_backup(false)"),
        _ => ("pg_backup_start('test', true)", "pg_backup_stop()"),
    };
    client.batch_execute(&format!("select {begin}")).await.expect("begun");
    let copied = std::process::Command::new("cp").arg("-a").arg(&db1.postgresql().data_dir).arg(&backup).status();
    assert!(copied.expect("cp runs").success());
    let row = client.query_one(&format!("select labelfile from {end}"), &[]).await.expect("ended");
    std::fs::write(backup.join("backup_label"), row.get::<_, &str>(0)).expect("written");
    // What a dead primary had not archived yet, nobody archives for it: that is another matter.
    let question = "select pg_walfile_name(pg_current_wal_insert_lsn())";
    let present: String = client.query_one(question, &[]).await.expect("asked").get(0);
    let before = u64::from_str_radix(&present[16..], 16).expect("a segment") - 1;
    until(|| archive.join(format!("{}{before:08X}", &present[..16])).exists()).await;
    db2.until_ids(&[1]).await;
    db1.enclosure().kill();
    // Two that were appointed came to nothing.
    take_over(db2, 4, 4).await;
    assert!(is_placeholder(&history(db2, 2)) && is_placeholder(&history(db2, 3)));
    db2.sql("insert into orders values (2); checkpoint").await;
    db2.sql("insert into orders values (3)").await;
    let client = db2.client().await.expect("in");
    let row = client.query_one("select pg_walfile_name(pg_switch_wal())", &[]).await.expect("asked");
    let last = archive.join(row.get::<_, &str>(0));
    until(|| last.exists()).await;
    assert!(archive.join("00000002.history").exists() && archive.join("00000003.history").exists());
    let (rows, log) = restored(&folder, &backup, &archive);
    assert_eq!(rows, "1,2,3", "{log}");
}

async fn until(holds: impl Fn() -> bool) {
    let from = std::time::Instant::now();
    while !holds() {
        assert!(from.elapsed() < Duration::from_secs(30), "it does not come to that");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
