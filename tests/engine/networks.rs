//! One of two networks between databases is lost in silence, or takes small packets only, or both are lost: what becomes of
//! the stream, of copies and of rewinds. And a turn of the stream whose write hangs while somebody else acts.

use crate::cluster::{Cluster, Database, LADDER, bin_dir, possible, timed};
use crate::held::Held;
use regent::engine::Engine;
use regent::types::{DbAction, DbDone, DbOutcome, Epoch, Network, Seal, Timeline};
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// PostgreSQL's traffic with one address is thrown away, without a word to either side.
struct Lost(String);

impl Lost {
    /// All of it.
    fn whole(node: &Database, address: IpAddr) -> Lost {
        Self::with(node, address, "")
    }

    /// What is larger than a login, as where a path takes smaller packets than it says.
    fn large(node: &Database, address: IpAddr) -> Lost {
        Self::with(node, address, "ip length > 1200")
    }

    fn with(node: &Database, address: IpAddr, which: &str) -> Lost {
        let port = node.postgresql().port;
        let table = format!("regent_{}", address.to_string().replace('.', "_"));
        nft(&format!(
            "table inet {table} {{\n chain in {{\n type filter hook input priority 0; policy accept;\n \
             ip daddr {address} tcp dport {port} {which} drop\n ip saddr {address} tcp sport {port} {which} drop\n }}\n}}\n"
        ));
        Lost(table)
    }
}

impl Drop for Lost {
    fn drop(&mut self) {
        nft(&format!("delete table inet {}\n", self.0));
    }
}

fn nft(rules: &str) {
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft is there");
    nft.stdin.take().expect("piped").write_all(rules.as_bytes()).expect("written");
    assert!(nft.wait().expect("it ends").success(), "{rules}");
}

fn networks(node: &Database) -> [IpAddr; 2] {
    [node.config.me().primary, node.config.me().secondary]
}

/// The addresses of whom the standby follows, as its file has them.
fn followed(node: &Database) -> Vec<IpAddr> {
    let text = std::fs::read_to_string(node.postgresql().data_dir.join("postgresql.auto.conf")).expect("readable");
    let addresses = text.split_once("hostaddr=''").and_then(|(_, rest)| rest.split_once('\'')).expect("it follows").0;
    addresses.split(',').map(|address| address.parse().expect("an address")).collect()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(40);
    while !holds() {
        assert!(Instant::now() < end, "not {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_network_is_lost_goes_on_over_the_other() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2"]).await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    let [primary, secondary] = networks(db1);
    let server = db2.postmaster();
    assert_eq!(followed(db2), [primary, secondary]);
    db2.until("on the primary network", |seen| seen.network == Some(Network::Primary)).await;
    let lost = Lost::whole(db1, primary);
    db1.sql("insert into orders values (1)").await;
    let (_, took) = timed("the stream after its network was lost", db2.until_ids(&[1])).await;
    assert!(took < Duration::from_secs(7), "PostgreSQL by itself takes ten seconds");
    assert_eq!(followed(db2), [secondary, primary]);
    db2.until("on the secondary network", |seen| seen.network == Some(Network::Secondary)).await;

    drop(lost);
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(followed(db2), [secondary, primary], "it stays on what works");
    let _lost = Lost::whole(db1, secondary);
    db1.sql("insert into orders values (2)").await;
    timed("the stream after its second network was lost", db2.until_ids(&[1, 2])).await;
    assert_eq!((followed(db2), db2.postmaster()), (vec![primary, secondary], server));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_network_takes_small_packets_only_goes_on_over_the_other() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2"]).await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    let [primary, secondary] = networks(db1);
    let _lost = Lost::large(db1, primary);
    db1.sql("insert into orders select generate_series(1, 1000)").await;
    let ids: Vec<i64> = (1..=1000).collect();
    timed("the stream after large packets were lost", until("turned", || followed(db2) == [secondary, primary])).await;
    db2.until_ids(&ids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_networks_lost_nothing_is_turned_until_one_is_back() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2"]).await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    let [primary, secondary] = networks(db1);
    let file = db2.postgresql().data_dir.join("postgresql.auto.conf");
    let written = || std::fs::metadata(&file).and_then(|about| about.modified()).expect("it is there");
    let (server, before) = (db2.postmaster(), written());
    let (_lost, other) = (Lost::whole(db1, primary), Lost::whole(db1, secondary));
    db1.sql("insert into orders values (1)").await;
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert_eq!((written(), followed(db2)), (before, vec![primary, secondary]), "nothing to turn to");
    drop(other);
    timed("the stream after the other network was back", db2.until_ids(&[1])).await;
    assert_eq!((followed(db2), db2.postmaster()), (vec![secondary, primary], server));
}

/// PostgreSQL's programs, with one of them slowed down; it notes with what words it was called.
fn slow_copies(folder: &Path) {
    std::fs::create_dir(folder).expect("made");
    for program in std::fs::read_dir(bin_dir()).expect("programs").flatten() {
        let place = folder.join(program.file_name());
        if program.file_name() == "pg_basebackup" {
            let real = program.path().display().to_string();
            let said = folder.join("calls").display().to_string();
            let script = format!(
                "#!/bin/sh\necho \"$@\" >> {said}\ntest -e {folder}/slow && exec {real} --max-rate=2048 \"$@\"\n\
                 exec {real} \"$@\"\n",
                folder = folder.display()
            );
            std::fs::write(&place, script).expect("written");
            Command::new("chmod").arg("755").arg(&place).status().expect("mine");
        } else {
            std::os::unix::fs::symlink(program.path(), place).expect("linked");
        }
    }
    std::fs::write(folder.join("calls"), "").expect("written");
    std::fs::write(folder.join("slow"), "").expect("written");
    Command::new("chmod").args(["777"]).args([folder.to_owned(), folder.join("calls")]).status().expect("mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_network_is_lost_is_repeated_over_the_other() {
    if !possible() {
        return;
    }
    let programs = tempfile::Builder::new().prefix("regent-bin-").tempdir_in("/var/tmp").expect("a directory");
    Command::new("chmod").arg("755").arg(programs.path()).status().expect("mine");
    let bin = programs.path().join("bin");
    slow_copies(&bin);
    let mut cluster = Cluster::with(&["db1", "db2"], |postgresql| postgresql.bin_dir.clone_from(&bin));
    for name in ["db1", "db2"] {
        cluster.engine(name);
    }
    cluster.create("db1").await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    let [primary, secondary] = networks(db1);
    let action = DbAction::Rejoin { upstream: cluster.upstream("db1"), order: None };
    let breaks = async {
        db2.until("copied", |seen| seen.copy.is_some_and(|copy| copy.done > 0)).await;
        (Lost::whole(db1, primary), Instant::now())
    };
    let (outcome, (_lost, since)) = tokio::join!(db2.engine().perform(action.clone()), breaks);
    println!("TIME the end of a copy after its network was lost: {:?}", since.elapsed());
    assert!(matches!(outcome, DbOutcome::Failed { .. }), "{outcome:?}");
    // Of its two connections the first says goodbye over the second, whose time begins anew then.
    assert!(since.elapsed() < Duration::from_secs(15), "it hangs");
    std::fs::remove_file(bin.join("slow")).expect("removed");
    timed("the next copy", cluster.follow("db2", "db1")).await;
    let calls = std::fs::read_to_string(bin.join("calls")).expect("readable");
    let orders: Vec<bool> =
        calls.lines().map(|call| call.contains(&format!("hostaddr='{secondary},{primary}'"))).collect();
    assert_eq!(orders, [false, true], "{calls}");
    assert_eq!(followed(db2), [secondary, primary], "and so does the stream");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_finds_its_network_lost_begins_over_the_other() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::with(&["db1", "db2"], |_| {});
    for name in ["db1", "db2"] {
        cluster.engine(name);
    }
    cluster.create("db1").await;
    let [primary, secondary] = networks(cluster.node("db1"));
    let _lost = Lost::whole(cluster.node("db1"), primary);
    let (done, took) = timed("a copy whose first network is lost", cluster.follow("db2", "db1")).await;
    assert!(matches!(&done, DbDone::Rejoined { how, .. } if how.starts_with("cloned")), "{done:?}");
    assert!(took < Duration::from_secs(8), "it waited for the first network again and again");
    assert_eq!(followed(cluster.node("db2")), [secondary, primary]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewind_whose_network_is_lost_goes_over_the_other() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2"]).await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    db2.done(DbAction::Seal).await;
    db1.sql("insert into orders values (1)").await;
    db1.done(DbAction::Stop { ladder: LADDER }).await;
    db2.lease(2, Duration::from_secs(600));
    db2.done(DbAction::Promote { epoch: Epoch(2), timeline: Timeline(2) }).await;
    let [primary, secondary] = networks(db2);
    let _lost = Lost::whole(db2, primary);
    let (done, took) = timed("a rewind whose first network is lost", cluster.follow("db1", "db2")).await;
    assert!(matches!(&done, DbDone::Rejoined { how, .. } if how.starts_with("rewound")), "{done:?}");
    assert!(took < Duration::from_secs(8), "it waited for the first network again and again");
    assert_eq!(followed(db1), [secondary, primary]);
    db1.until_ids(&[]).await;
}

/// The disk takes the turned file only once somebody else acted: what that one asked for stands in the end, and neither it
/// nor a stop waits for the turn.
#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_is_late_changes_nobody_elses_word() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::running(&["db1", "db2", "db3"]).await;
    for act in ["follow", "stop and start", "seal"] {
        // What a turn has come to before is gone on with.
        let present = followed(cluster.node("db2"))[0];
        let held = Held::open_of(&cluster.node("db2").postgresql().data_dir, "postgresql.auto.conf");
        let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
        let lost = Lost::whole(db1, present);
        until("turned", || held.holds()).await;
        let to = cluster.upstream("db3");
        let goes_on = async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            assert!(held.holds(), "it was given up");
            held.release();
        };
        match act {
            "follow" => {
                let follow = db2.done(DbAction::Follow { upstream: to.clone() });
                tokio::join!(follow, goes_on);
            }
            "seal" => {
                let sealed = tokio::join!(db2.done(DbAction::Seal), goes_on).0;
                assert!(matches!(sealed, DbDone::Sealed(Seal { .. })), "{sealed:?}");
            }
            _ => {
                db2.done(DbAction::Stop { ladder: LADDER }).await;
                assert!(held.holds(), "the stop waited for it");
                let start = db2.done(DbAction::StartStandby { upstream: Some(to.clone()) });
                tokio::join!(start, goes_on);
            }
        }
        // Whatever was late has landed by now.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let client = db2.client().await.expect("in");
        client.batch_execute("select pg_reload_conf()").await.expect("told");
        tokio::time::sleep(Duration::from_millis(500)).await;
        let conninfo: String =
            client.query_one("select current_setting('primary_conninfo')", &[]).await.expect("asked").get(0);
        let expected = to.addresses.iter().any(|address| conninfo.contains(&address.to_string()));
        assert!(expected && act != "seal" || conninfo.is_empty(), "after {act} it follows {conninfo}");
        drop((lost, held));
        cluster.engine("db2");
        cluster.follow_running("db2", "db1").await;
    }
}

/// It waits for the turn no more than a stop does, and what lands late makes no standby of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_is_late_keeps_nobody_from_taking_over() {
    if !possible() {
        return;
    }
    let cluster = Cluster::running(&["db1", "db2"]).await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    let held = Held::open_of(&db2.postgresql().data_dir, "postgresql.auto.conf");
    let _lost = Lost::whole(db1, db1.config.me().primary);
    until("turned", || held.holds()).await;
    db2.lease(2, Duration::from_secs(600));
    timed("promote", db2.done(DbAction::Promote { epoch: Epoch(2), timeline: Timeline(2) })).await;
    assert!(held.holds(), "it waited for the turn");
    held.release();
    tokio::time::sleep(Duration::from_secs(1)).await;
    db2.sql("select pg_reload_conf(); insert into orders values (1)").await;
    db2.done(DbAction::Stop { ladder: LADDER }).await;
    db2.lease(2, Duration::from_secs(600));
    db2.done(DbAction::StartPrimary { epoch: Epoch(2), known: None }).await;
    db2.sql("insert into orders values (2)").await;
    let text = std::fs::read_to_string(db2.postgresql().data_dir.join("postgresql.auto.conf")).expect("readable");
    assert!(text.contains("primary_conninfo = ''\n"), "{text}");
}
