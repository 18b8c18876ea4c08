//! Trouble of a database whose node is fine: seen at once, and ended when asked.

use crate::cluster::{Cluster, Database, LADDER, possible, timed};
use regent::config::Troubles;
use regent::engine::Engine;
use regent::types::{DbAction, DbDone, DbOutcome, DbState, Epoch, Lsn, Observation, Silence, StopLadder, Trouble};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn signal(pid: i32, signal: i32) {
    // SAFETY: a plain system call on a process of this test's own.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "process {pid}");
}

/// A client whose backend does something for long; the backend's id.
async fn busy_backend(node: &Database) -> (tokio_postgres::Client, i32) {
    let client = node.client().await.expect("it answers");
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).await.expect("answered").get(0);
    (client, pid)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_postmaster_is_seen_at_once_and_started_again() {
    if !possible() {
        return;
    }
    let slow = |p: &mut regent::config::Postgresql| p.probe_interval = Duration::from_secs(30);
    let cluster = Cluster::running_with(&["db1"], slow).await;
    let db1 = cluster.node("db1");
    db1.until("writable", |seen| seen.writable).await;
    let from = Instant::now();
    signal(db1.postmaster(), libc::SIGKILL);
    db1.until("down", |seen| matches!(seen.state, DbState::Stopping | DbState::Stopped)).await;
    println!("TIME kill -9 seen: {:?}", from.elapsed());
    assert!(from.elapsed() < Duration::from_millis(500), "{:?}: by the probe, not by the pidfd", from.elapsed());
    db1.until_state(DbState::Stopped).await;
    timed("restart after kill -9", db1.done(DbAction::StartPrimary { epoch: Epoch(1), known: None })).await;
    println!("TIME kill -9 to writable again: {:?}", from.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_postmaster_is_not_answering_and_can_be_stopped() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1"]).await;
    let db1 = cluster.node("db1");
    db1.until("writable", |seen| seen.writable).await;
    signal(db1.postmaster(), libc::SIGSTOP);
    let from = Instant::now();
    let seen = db1.until("silent", |seen| silence(seen).is_some_and(|silence| silence.serves_nobody)).await;
    println!("TIME SIGSTOP seen: {:?}", from.elapsed());
    assert_eq!((seen.state, seen.writable), (DbState::Primary, false));
    let stopped = timed("stop of a frozen postmaster", db1.done(DbAction::Stop { ladder: LADDER })).await;
    assert!(matches!(stopped.0, DbDone::Stopped { clean: false, .. }) && db1.enclosure().is_empty());
    assert!(stopped.1 < Duration::from_secs(5), "no rung was waited for that could not work: {:?}", stopped.1);
}

fn silence(seen: &Observation) -> Option<Silence> {
    match seen.trouble {
        Some(Trouble::NotAnswering(silence)) => Some(silence),
        _ => None,
    }
}

/// Every process of the server but its postmaster is stopped, so that it answers nobody; then one of them goes on working.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_answers_nobody_is_still_until_something_of_it_moves() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1"]).await;
    let db1 = cluster.node("db1");
    db1.until("writable", |seen| seen.writable).await;
    let (client, backend) = busy_backend(db1).await;
    let works =
        tokio::spawn(async move { client.batch_execute("select count(*) from generate_series(1, 1e10)").await });
    let postmaster = db1.postmaster();
    let children = || {
        let all = std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).expect("it lives");
        all.split_whitespace().map(|pid| pid.parse::<i32>().expect("a pid")).collect::<Vec<_>>()
    };
    // A worker of autovacuum may have ended by now.
    // SAFETY: a plain system call on a process of this test's own.
    let stop = |pid: &i32| unsafe { libc::kill(*pid, libc::SIGSTOP) } == 0;
    let stopped: Vec<i32> = children().into_iter().filter(stop).collect();
    assert!(stopped.contains(&backend), "{stopped:?}");
    let is_still = |seen: &Observation| silence(seen).is_some_and(|silence| silence.still_ms > 1500);
    let seen = db1.until("still", is_still).await;
    assert!(!silence(&seen).expect("it is silent").serves_nobody, "its postmaster lives: {seen:?}");
    signal(backend, libc::SIGCONT);
    let moves = |seen: &Observation| silence(seen).is_some_and(|silence| silence.still_ms < 1000);
    let seen = db1.until("moving", moves).await;
    assert!(silence(&seen).expect("it is silent").since_ms > 1500, "{seen:?}");
    stopped.iter().for_each(|pid| signal(*pid, libc::SIGCONT));
    db1.until("answering", |seen| silence(seen).is_none() && seen.writable).await;
    signal(backend, libc::SIGINT);
    works.await.expect("it ended").expect_err("it was cancelled");
}

fn ptrace(request: libc::c_uint, pid: i32) -> bool {
    // SAFETY: a plain system call on a process of this test's own, without memory of this one.
    let done = unsafe {
        libc::ptrace(request, pid, std::ptr::null_mut::<libc::c_void>(), std::ptr::null_mut::<libc::c_void>())
    };
    done == 0
}

/// A debugger holds the postmaster: its sessions go on, and nobody says that it serves nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_postmaster_under_a_debugger_is_not_taken_for_a_dead_one() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1"]).await;
    let db1 = cluster.node("db1");
    db1.until("writable", |seen| seen.writable).await;
    let postmaster = db1.postmaster();
    // A tracer is a thread: this one holds it until the end.
    let (held, hold) = std::sync::mpsc::channel::<()>();
    let (attached, is_attached) = std::sync::mpsc::channel();
    let tracer = std::thread::spawn(move || {
        assert!(ptrace(libc::PTRACE_ATTACH, postmaster), "root may");
        // SAFETY: a plain system call that writes nothing.
        assert_eq!(unsafe { libc::waitpid(postmaster, std::ptr::null_mut(), libc::__WALL) }, postmaster);
        attached.send(()).expect("it is waited for");
        let _ = hold.recv();
        assert!(ptrace(libc::PTRACE_DETACH, postmaster), "it lives");
    });
    is_attached.recv().expect("attached");
    assert_eq!(regent::engine::enclosure::process_state(postmaster), Some('t'));
    // A new connection gets no answer after some looks; the old ones do.
    let seen = db1.until("silent", |seen| silence(seen).is_some()).await;
    assert!(!silence(&seen).expect("it is silent").serves_nobody, "{seen:?}");
    drop(held);
    tracer.join().expect("it ended");
    db1.until("answering", |seen| silence(seen).is_none() && seen.writable).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_climbs_until_the_last_process_is_gone() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1"]).await;
    let db1 = cluster.node("db1");
    let (_client, backend) = busy_backend(db1).await;
    signal(backend, libc::SIGSTOP);
    let ms = Duration::from_millis;
    let ladder = StopLadder { fast: ms(400), immediate: ms(400), kill: ms(2000) };
    let (stopped, took) = timed("stop with a stuck backend", db1.done(DbAction::Stop { ladder })).await;
    assert!(matches!(stopped, DbDone::Stopped { clean: false, position: None }), "{stopped:?}");
    assert!(took >= ms(800), "it did not climb: {took:?}");
    // Whoever inherited it may not have reaped it yet.
    let state = regent::engine::enclosure::process_state(backend);
    assert!(db1.engine().processes().is_empty() && matches!(state, None | Some('Z' | 'X')), "{state:?}");
}

/// The lock file answers nobody, as on a volume that hangs: a pipe that no process writes to.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_on_a_volume_that_does_not_answer_kills_in_time() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1"]).await;
    let db1 = cluster.node("db1");
    let lock = db1.postgresql().data_dir.join("postmaster.pid");
    let postmaster = db1.postmaster();
    std::fs::remove_file(&lock).expect("it is there");
    nix::unistd::mkfifo(&lock, nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("a pipe");
    let ms = Duration::from_millis;
    let stop = DbAction::Stop { ladder: StopLadder { fast: ms(400), immediate: ms(400), kill: ms(2000) } };
    let stopping = db1.engine().perform(stop);
    tokio::pin!(stopping);
    // The stop itself may wait for its last look; that the database is dead may not.
    let early = tokio::time::timeout(ms(2000), &mut stopping).await;
    let state = regent::engine::enclosure::process_state(postmaster);
    // Each look that hangs on the pipe ends when it has a writer: what fails here must not hang too.
    let pipe = std::fs::OpenOptions::new().read(true).write(true).open(&lock).expect("both ends");
    std::fs::remove_file(&lock).expect("no further look hangs");
    drop(pipe);
    // To its end: the last step of a stop sends the guard away.
    let ended = match early {
        Ok(ended) => Ok(ended),
        Err(_) => tokio::time::timeout(ms(20_000), stopping).await,
    };
    assert!(matches!(ended, Ok(DbOutcome::Done(DbDone::Stopped { clean: false, .. }))), "{ended:?}");
    assert!(matches!(state, None | Some('Z' | 'X')), "the postmaster still runs: {state:?}");
}

/// What a stop reads to say how it ended comes after SIGKILL, so an error there leaves nothing alive.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_cannot_say_how_it_ended_has_killed_all_the_same() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1"]).await;
    let db1 = cluster.node("db1");
    let control = db1.postgresql().data_dir.join("global/pg_control");
    std::fs::rename(&control, control.with_extension("away")).expect("it is there");
    let ms = Duration::from_millis;
    let ladder = StopLadder { fast: Duration::ZERO, immediate: ms(400), kill: ms(2000) };
    let ended = db1.engine().perform(DbAction::Stop { ladder }).await;
    assert!(matches!(ended, DbOutcome::Failed { .. }), "{ended:?}");
    assert!(db1.engine().processes().is_empty(), "{:?}", db1.engine().processes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loaded_database_stops_fast_after_a_checkpoint() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2"]).await;
    let db1 = cluster.node("db1");
    for worker in 0..4_i64 {
        let client = db1.client().await.expect("it answers");
        tokio::spawn(async move {
            let mut id = worker << 32;
            while client.execute("insert into orders values ($1)", &[&id]).await.is_ok() {
                id += 1;
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    timed("checkpoint under load", db1.done(DbAction::Checkpoint)).await;
    let (stopped, _) = timed("fast stop, loaded", db1.done(DbAction::Stop { ladder: LADDER })).await;
    let DbDone::Stopped { clean: true, position: Some(end) } = stopped else { panic!("{stopped:?}") };
    let sealed = cluster.node("db2").done(DbAction::Seal).await;
    let DbDone::Sealed(seal) = sealed else { panic!("{sealed:?}") };
    assert_eq!(seal.end, end, "all WAL has reached the standby");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_cannot_write_is_trouble_and_names_its_error() {
    if !possible() {
        return;
    }
    let quick = |p: &mut regent::config::Postgresql| p.probe_timeout = Duration::from_millis(400);
    let cluster = Cluster::running_with(&["db1"], quick).await;
    let db1 = cluster.node("db1");
    db1.until("writable", |seen| seen.writable).await;
    // Neither of these stops the probe: they are a session's own to undo.
    db1.sql("alter system set synchronous_standby_names = 'nobody'").await;
    db1.sql("set synchronous_commit = local; alter role postgres set default_transaction_read_only = on").await;
    db1.sql("select pg_reload_conf()").await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(db1.engine().latest().writable, "{:?}", db1.engine().latest());
    let client = db1.client().await.expect("it answers");
    client.batch_execute("begin read write; lock table regent.probe in access exclusive mode").await.expect("locked");
    let seen = db1.until("in trouble", |seen| seen.trouble.is_some()).await;
    assert_eq!((seen.state, seen.writable), (DbState::Primary, false));
    client.batch_execute("rollback").await.expect("ended");
    db1.until("writable", |seen| seen.writable && seen.trouble.is_none()).await;
}

/// The process of this postmaster that recovers.
async fn startup_process(node: &Database) -> i32 {
    loop {
        for pid in node.enclosure().members() {
            let title = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if title.contains("startup recovering") {
                return pid;
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_shows_progress_while_it_replays_and_none_while_its_process_stands_still() {
    if !possible() {
        return;
    }
    let much_wal = |p: &mut regent::config::Postgresql| {
        for (name, value) in [("max_wal_size", "10GB"), ("checkpoint_timeout", "1h")] {
            p.parameters.insert(name.to_owned(), value.to_owned());
        }
    };
    let cluster = Cluster::running_with(&["db1"], much_wal).await;
    let db1 = cluster.node("db1");
    db1.done(DbAction::Checkpoint).await;
    db1.sql("create table rows (id bigint primary key, text text)").await;
    db1.sql("insert into rows select i, repeat('x', 200) from generate_series(1, 400000) i").await;
    signal(db1.postmaster(), libc::SIGKILL);
    db1.until_state(DbState::Stopped).await;
    let start = db1.engine().perform(DbAction::StartPrimary { epoch: Epoch(1), known: None });
    let watch = async {
        let startup = startup_process(db1).await;
        signal(startup, libc::SIGSTOP);
        // The last bytes before it stopped may be seen once.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let stopped = db1.engine().latest();
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let later = db1.engine().latest();
        assert_eq!((stopped.state, stopped.progress), (DbState::Starting, later.progress), "it stands still");
        signal(startup, libc::SIGCONT);
        let done = db1.until("getting on", |seen| seen.state != DbState::Starting || seen.progress > later.progress);
        done.await
    };
    let (outcome, moved) = tokio::join!(start, watch);
    assert!(matches!(outcome, DbOutcome::Done(DbDone::Writable { .. })), "{outcome:?}");
    println!("after the stop: {:?}, {}", moved.state, moved.progress);
    db1.until("writable", |seen| seen.writable).await;
}

/// What a server makes in advance: files with nothing in them yet, far ahead of what it writes.
fn empty_segments(node: &Database) {
    for number in 0x60..0x80 {
        let path = node.postgresql().data_dir.join(format!("pg_wal/0000000100000000000000{number:X}"));
        std::fs::File::create(&path).and_then(|file| file.set_len(16 << 20)).expect("made");
        std::os::unix::fs::chown(&path, Some(owner_of(node).0), Some(owner_of(node).1)).expect("root");
    }
}

fn owner_of(node: &Database) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt;
    let about = std::fs::metadata(&node.postgresql().data_dir).expect("there");
    (about.uid(), about.gid())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_dead_primarys_wal_is_what_a_standby_with_all_of_it_has() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2"]).await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    let mut equal = 0;
    for round in 0..6_i64 {
        db1.until("writable", |seen| seen.writable).await;
        let from = db1.engine().latest().position;
        // Rows of every length, so that the end lies anywhere in a page; the third round crosses segments.
        let rows = if round == 2 { 200_000 } else { 37 * round };
        let text = 11 * round + 1;
        db1.sql(&format!("create table t{round} as select i, repeat('x', {text}) from generate_series(1, {rows}) i"))
            .await;
        let client = db1.client().await.expect("it answers");
        let row = client.query_one("select pg_current_wal_flush_lsn()::text", &[]).await.expect("answered");
        let acknowledged: Lsn = row.get::<_, &str>(0).parse().expect("an LSN");
        signal(db1.postmaster(), libc::SIGKILL);
        db1.until_state(DbState::Stopped).await;
        empty_segments(db1);
        let (done, took) = timed("the end of the WAL", db1.done(DbAction::FindEnd { from })).await;
        let DbDone::Ends { at } = done else { panic!("{done:?}") };
        assert!(at.lsn >= acknowledged, "round {round}: {at} lies before what was flushed, {acknowledged}");
        assert!(took < Duration::from_secs(1), "{took:?}");
        // The standby has no more than that, and mostly all of it: what was written at the last moment and not flushed was
        // not sent, and not acknowledged.
        let sealed = db2.done(DbAction::Seal).await;
        let DbDone::Sealed(seal) = sealed else { panic!("{sealed:?}") };
        assert!(seal.end <= at, "round {round}: {at} lies before {}, which the standby has", seal.end);
        assert_eq!(seal.end.timeline, at.timeline);
        equal += u32::from(seal.end == at);
        db1.done(DbAction::StartPrimary { epoch: Epoch(1), known: None }).await;
        assert!(db1.fails(DbAction::FindEnd { from }).await.contains("running"));
        cluster.follow_running("db2", "db1").await;
    }
    assert!(equal > 0, "the standby had all of it at least once");
}

/// Other limits of what comes in time than those of the file, which are hours and weeks.
fn limit(cluster: &mut Cluster, change: impl FnOnce(&mut Troubles)) {
    let node = cluster.nodes.get_mut("db1").expect("a node of this cluster");
    let config = Arc::make_mut(&mut node.config);
    change(&mut config.services.values_mut().next().expect("one service").troubles);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archiver_that_fails_is_trouble_once_its_oldest_file_has_waited_and_none_when_it_goes_on() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::with(&["db1"], |p: &mut regent::config::Postgresql| {
        for (name, value) in [("archive_mode", "on"), ("archive_command", "false")] {
            p.parameters.insert(name.to_owned(), value.to_owned());
        }
    });
    let patience = Duration::from_secs(6);
    limit(&mut cluster, |troubles| troubles.archiver_after = patience);
    cluster.engine("db1");
    cluster.create("db1").await;
    let db1 = cluster.node("db1");
    db1.sql("select pg_switch_wal()").await;
    let from = Instant::now();
    let stuck = |seen: &Observation| matches!(seen.trouble, Some(Trouble::ArchiverStuck { .. }));
    let seen = db1.until("stuck", stuck).await;
    println!("TIME stuck archiver seen: {:?}", from.elapsed());
    let Some(trouble @ Trouble::ArchiverStuck { waiting, seconds }) = seen.trouble else { panic!("waited for") };
    assert!(seconds >= patience.as_secs() && waiting >= 1, "{trouble}");
    assert_eq!(trouble.to_string(), format!("its archiver is stuck: {waiting} files wait, the oldest for {seconds} s"));
    assert!(seen.writable, "it is not yet a reason not to write");
    // It goes on, and archives what waited.
    db1.sql("alter system set archive_command = 'true'").await;
    db1.sql("select pg_reload_conf()").await;
    db1.sql("insert into orders values (1); select pg_switch_wal()").await;
    db1.until("well", |seen| seen.trouble.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wraparound_is_near_from_its_limit_on() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::new(&["db1"]);
    let limit_at = 5000;
    limit(&mut cluster, |troubles| troubles.wraparound_age = limit_at);
    cluster.engine("db1");
    cluster.create("db1").await;
    let db1 = cluster.node("db1");
    let seen = db1.until("writable", |seen| seen.writable).await;
    assert_eq!(seen.trouble, None);
    let age = async || {
        let client = db1.client().await.expect("it answers");
        let question = "select max(age(datfrozenxid))::bigint from pg_database";
        client.query_one(question, &[]).await.expect("asked").get::<_, i64>(0)
    };
    assert!(age().await < i64::from(limit_at));
    // Nothing but numbers.
    db1.sql("do $$ begin for i in 1..5000 loop perform pg_current_xact_id(); commit; end loop; end $$").await;
    let near = |seen: &Observation| matches!(seen.trouble, Some(Trouble::WraparoundNear { .. }));
    let seen = db1.until("near its wraparound", near).await;
    let Some(trouble @ Trouble::WraparoundNear { age: told }) = seen.trouble else { panic!("waited for") };
    assert!(told >= u64::from(limit_at) && told <= age().await.cast_unsigned(), "{trouble}");
    assert!(trouble.to_string().contains(&format!("its oldest row is {told} transactions old")), "{trouble}");
    assert!(seen.writable && seen.state == DbState::Primary);
}
