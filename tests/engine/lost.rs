//! What a failover lost is listed from the WAL that a rejoin keeps, by the code that `regent lost` uses: every transaction
//! after the fork, its savepoints with it, and the segments that are missing.

use crate::cluster::{Cluster, Database, bin_dir, possible};
use futures::SinkExt;
use regent::api::admin::{Request, Response};
use regent::api::lost::LostPart;
use regent::api::socket::AdminSocket;
use regent::api::status::{
    CameBack, Durations, IncidentKind, IncidentOutcome, IncidentReport, IncidentSummary, MayBeLost, SCHEMA,
};
use regent::engine::postgresql::{DivergedWal, Reader};
use regent::types::{
    DbAction, DbDone, DbState, Epoch, IncidentId, LostChange, LostSummary, LostTransaction, Lsn, RelationFile,
    Timeline, WallTime,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Command, Output};
use std::time::Duration;

const SEGMENT: u64 = 1 << 20;

/// Two nodes with small segments; the second has a table `notes` of ten rows, and takes nothing any more.
async fn parted() -> (Cluster, Lsn) {
    let cluster = Cluster::running_with(&["db1", "db2"], |postgresql| {
        postgresql.initdb_options = vec!["--wal-segsize=1".to_owned()];
        postgresql.parameters.insert("max_prepared_transactions".into(), "5".into());
    })
    .await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    db1.sql("create table notes (id int, note text); create table held (id int)").await;
    db1.sql("insert into notes select i, 'a' from generate_series(1, 10) i").await;
    db1.sql("checkpoint").await;
    db1.sql("insert into orders values (1)").await;
    db2.until_ids(&[1]).await;
    let DbDone::Sealed(seal) = db2.done(DbAction::Seal).await else { panic!("no seal") };
    (cluster, seal.end.lsn)
}

/// What only db1 gets, over three segments; then it dies. Brings a transaction that is open until then.
async fn write_on(db1: &Database) {
    db1.sql("insert into notes values (101, 'n'), (102, 'n'), (103, 'n')").await;
    db1.sql("update notes set note = 'b' where id in (1, 2)").await;
    db1.sql("delete from notes where id = 3").await;
    db1.sql("analyze notes").await;
    db1.sql("begin; select id from notes where id = 4 for update; commit").await;
    db1.sql(
        "begin; insert into notes values (111); savepoint kept; insert into notes values (112), (113); release kept; \
         savepoint undone; insert into notes values (114); rollback to undone; insert into orders values (2); commit",
    )
    .await;
    db1.sql("begin; insert into notes values (121); rollback").await;
    db1.sql("select pg_switch_wal()").await;
    copy(db1, 5).await;
    db1.sql(
        "begin; insert into notes values (131); savepoint s; insert into notes values (132); prepare transaction 'p'",
    )
    .await;
    db1.sql("commit prepared 'p'").await;
    db1.sql("begin; insert into held values (1); prepare transaction 'undecided'").await;
    db1.sql("select pg_switch_wal()").await;
    db1.sql("create table made (id int)").await;
    db1.sql("insert into made select generate_series(1, 4)").await;
    let open = db1.client().await.expect("in");
    open.batch_execute("begin; insert into held values (2)").await.expect("open");
    db1.sql("truncate orders").await;
    db1.enclosure().kill();
    db1.until_state(DbState::Stopped).await;
}

async fn copy(node: &Database, rows: u32) {
    let client = node.client().await.expect("in");
    let mut sink = pin!(client.copy_in("copy notes from stdin").await.expect("begun"));
    let text: String = (1..=rows).map(|row| format!("{row}\tcopied\n")).collect();
    sink.send(std::io::Cursor::new(text.into_bytes())).await.expect("sent");
    sink.close().await.expect("ended");
}

/// The list, and how it ended.
async fn list(node: &Database, wal: &DivergedWal) -> (Vec<LostTransaction>, LostSummary) {
    let reader = Reader::new(&node.config, &"orders".parse().expect("a name")).expect("a reader");
    let mut told = Vec::new();
    let summary = reader.list(wal, |lost| told.push(lost.clone())).await.expect("listed");
    assert_eq!(summary.transactions, told.len() as u64);
    (told, summary)
}

fn find(node: &Database, folder: &Path, after: Lsn) -> DivergedWal {
    let reader = Reader::new(&node.config, &"orders".parse().expect("a name")).expect("a reader");
    reader.find(folder, Timeline(1), after).expect("found")
}

/// `notes 3/2/1`: inserted, updated, deleted; `new` for a file of after the fork, `gone` for one that went with the commit.
fn words(lost: &LostTransaction) -> String {
    let changes = lost.relations.iter().map(|change| {
        let LostChange { relation, made, removed, inserted, updated, deleted, .. } = change;
        let name = relation.as_ref().map_or("?", |name| &name.name);
        let name = if *made { "new" } else { name };
        format!("{name} {inserted}/{updated}/{deleted}{}", if *removed { " gone" } else { "" })
    });
    let catalog = lost.catalog.then(|| "catalog".to_owned());
    changes.chain(catalog).collect::<Vec<_>>().join(", ")
}

const LOST: [&str; 9] = [
    "notes 3/0/0",
    "notes 0/2/0",
    "notes 0/0/1",
    "orders 1/0/0, notes 3/0/0",
    "notes 5/0/0",
    "notes 2/0/0",
    "catalog",
    "new 4/0/0",
    "orders 0/0/0 gone, catalog",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failover_lost_is_listed_to_the_row() {
    if !possible() {
        return;
    }
    let (cluster, after) = parted().await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    write_on(db1).await;

    // The host is off: its own pg_wal is read, and nobody can say what the files are called.
    let off = find(db1, &db1.postgresql().data_dir.join("pg_wal"), after);
    let (unnamed, summary) = list(db1, &off).await;
    assert!(summary.unnamed.is_some() && summary.missing.is_empty(), "{summary:?}");
    assert!(unnamed.iter().flat_map(|lost| &lost.relations).all(|change| change.relation.is_none()));

    db2.lease(2, Duration::from_secs(60));
    db2.done(DbAction::Promote { epoch: Epoch(2), timeline: Timeline(2) }).await;
    let rejoined = cluster.follow("db1", "db2").await;
    let DbDone::Rejoined { kept: Some(kept), .. } = rejoined else { panic!("nothing was kept: {rejoined:?}") };
    let wal = find(db1, Path::new(&kept), Lsn(0));
    assert_eq!((wal.timeline, wal.fork), (Timeline(1), after), "the note says where the fork is");
    let (told, summary) = list(db1, &wal).await;
    assert_eq!(told.iter().map(words).collect::<Vec<_>>(), LOST);
    assert_eq!(summary.unnamed, None);
    assert!(summary.without_rows >= 2, "ANALYZE and a lock at least: {summary:?}");
    assert_eq!(summary.missing, [], "all of it was kept");
    assert!(summary.read_to >= wal.end, "{:?} of {:?}", summary.read_to, wal.end);
    // A savepoint and a transaction; the client's, and the one that is prepared.
    assert_eq!((summary.rolled_back, summary.open, summary.prepared), (2, 1, 1), "{summary:?}");
    assert_eq!(told.iter().map(|lost| lost.subtransactions).collect::<Vec<_>>(), [0, 0, 0, 2, 0, 1, 0, 0, 0]);
    assert_eq!(told.iter().map(|lost| lost.prepared).collect::<Vec<_>>().iter().filter(|p| **p).count(), 1);
    assert!(told.iter().all(|lost| !lost.partly_seen), "the checkpoint before the fork lists what ran");
    assert!(told.windows(2).all(|pair| pair[0].committed_at <= pair[1].committed_at), "in the order of their commits");
    // The same by its numbers while the host was off, but for regent's own, which are known by their name.
    let plain = |list: &[LostTransaction]| list.iter().map(|lost| lost.xid).collect::<Vec<_>>();
    let mut of_host = unnamed;
    of_host.retain(|lost| plain(&told).contains(&lost.xid));
    assert_eq!(plain(&of_host), plain(&told));
    let notes = told[0].relations[0].file;
    let rows = |list: &[LostTransaction], file: RelationFile| -> (u64, u64, u64) {
        let of_file = list.iter().flat_map(|lost| &lost.relations).filter(|change| change.file == file);
        of_file.fold((0, 0, 0), |sum, c| (sum.0 + c.inserted, sum.1 + c.updated, sum.2 + c.deleted))
    };
    assert_eq!((rows(&told, notes), rows(&of_host, notes)), ((13, 2, 1), (13, 2, 1)));
}

/// The segments of a folder, in their order.
fn segments(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut found: Vec<_> =
        entries.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().len() == 24)).collect();
    found.sort();
    found
}

fn name(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_is_missing_or_damaged_is_named_and_the_rest_is_listed() {
    if !possible() {
        return;
    }
    let (cluster, after) = parted().await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    write_on(db1).await;
    db2.lease(2, Duration::from_secs(60));
    db2.done(DbAction::Promote { epoch: Epoch(2), timeline: Timeline(2) }).await;
    let rejoined = cluster.follow("db1", "db2").await;
    let DbDone::Rejoined { kept: Some(kept), .. } = rejoined else { panic!("nothing was kept: {rejoined:?}") };
    let kept = PathBuf::from(kept);
    let all = segments(&kept);
    assert_eq!(all.len(), 3, "{all:?}");
    let told = |list: &[LostTransaction]| list.iter().map(words).collect::<Vec<_>>();

    let aside = cluster.path().join("aside");
    fs::rename(&all[1], &aside).expect("moved");
    let (list_of_two, summary) = list(db1, &find(db1, &kept, after)).await;
    let gap: Vec<_> = summary.missing.iter().map(|gap| (gap.first.clone(), gap.last.clone(), gap.after)).collect();
    assert_eq!(gap, [(name(&all[1]), name(&all[1]), None)]);
    assert_eq!(told(&list_of_two), [&LOST[..4], &LOST[6..]].concat(), "what lies in the segment is not listed");
    assert!(list_of_two[4..].iter().all(|lost| lost.partly_seen), "they may have begun in it");
    fs::rename(&aside, &all[1]).expect("moved back");

    let mut bytes = fs::read(&all[1]).expect("readable");
    // In the middle of its first record but one: the header of the page stays.
    bytes[200..400].fill(0xee);
    fs::write(&aside, &bytes).expect("written");
    fs::copy(&aside, &all[1]).expect("written over");
    let (with_damage, summary) = list(db1, &find(db1, &kept, after)).await;
    let [damage] = &summary.missing[..] else { panic!("{:?}", summary.missing) };
    assert_eq!((&damage.first, damage.why.is_some()), (&name(&all[1]), true), "{damage:?}");
    assert!(damage.after.is_some_and(|at| at.0 % SEGMENT < 400), "{damage:?}");
    assert_eq!(told(&with_damage), [&LOST[..4], &LOST[6..]].concat());

    fs::remove_file(&all[2]).expect("removed");
    let (_, summary) = list(db1, &find(db1, &kept, after)).await;
    assert_eq!(summary.missing.last().map(|gap| (gap.first.clone(), gap.after)), Some((name(&all[2]), None)));
    all[..2].iter().for_each(|path| fs::remove_file(path).expect("removed"));
    let reader = Reader::new(&db1.config, &"orders".parse().expect("a name")).expect("a reader");
    let error = reader.find(&kept, Timeline(1), after).expect_err("nothing is there").to_string();
    assert!(error.contains("no WAL segment is in it") && error.contains("diverged"), "{error}");
}

/// What the ledger says of incident 7: db1 may have lost something after this position.
fn incident(after: Lsn, kept: Option<&str>) -> IncidentReport {
    let name = |name: &str| name.parse().expect("a name");
    let loss = MayBeLost {
        service: "orders".parse().expect("a name"),
        epoch: Epoch(1),
        node: name("db1"),
        timeline: Timeline(1),
        after,
        by: name("db2"),
        came_back: kept.map(|kept| CameBack { at_ms: WallTime(2), how: "rewound".into(), kept: vec![kept.into()] }),
    };
    let summary = IncidentSummary {
        id: IncidentId(7),
        kind: IncidentKind::Failover,
        services: vec!["orders".parse().expect("a name")],
        subject: Some(name("db1")),
        opened_at_ms: WallTime(1),
        closed_at_ms: None,
        outcome: IncidentOutcome::Open,
        headline: String::new(),
    };
    IncidentReport { schema: SCHEMA, summary, steps: vec![], durations: Durations::default(), losses: vec![loss] }
}

/// A host: a configuration file as the node's, and a daemon that knows this incident.
struct Desk {
    folder: PathBuf,
    daemon: tokio::task::JoinHandle<()>,
}

impl Desk {
    async fn of(database: &Database, node: &str, folder: &Path, report: IncidentReport) -> Desk {
        fs::create_dir(folder).expect("made");
        let text = include_str!("../../config/two-databases-and-witness.toml");
        let postgresql = database.postgresql();
        let head = format!("node = \"{node}\"\nrun_dir = \"{}\"\n", database.config.run_dir.display());
        let data_dir = format!("\"{}\"\nport = {}\n", postgresql.data_dir.display(), postgresql.port);
        assert!(text.contains("\"/var/lib/postgresql/15/main\""));
        let text = head + &text.replace("\"/var/lib/postgresql/15/main\"", &data_dir);
        let text = text.replace("/usr/lib/postgresql/15/bin", bin_dir());
        fs::write(folder.join("regent.toml"), text).expect("written");
        let socket = AdminSocket::bind(&folder.join("admin.sock")).await.expect("bound");
        let (sender, mut asked) = tokio::sync::mpsc::channel(4);
        let daemon = tokio::spawn(async move {
            tokio::spawn(socket.serve(sender));
            while let Some((request, reply)) = asked.recv().await {
                assert_eq!(request, Request::Explain { incident: Some(IncidentId(7)) });
                reply.send(Response::Incident(Box::new(report.clone()))).await.expect("it waits");
            }
        });
        Desk { folder: folder.to_owned(), daemon }
    }

    async fn lost(&self, words: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_regent"));
        command.args(["lost", "7", "--config"]).arg(self.folder.join("regent.toml"));
        command.arg("--socket").arg(self.folder.join("admin.sock")).args(words);
        let ended = tokio::task::spawn_blocking(move || command.output()).await.expect("it ends");
        let Output { status, stdout, stderr } = ended.expect("it runs");
        assert_eq!(String::from_utf8_lossy(&stderr), "", "{}", String::from_utf8_lossy(&stdout));
        (status.code(), String::from_utf8(stdout).expect("text"))
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.daemon.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_lists_on_the_nodes_own_host_and_says_there_what_is_missing() {
    if !possible() {
        return;
    }
    let (cluster, after) = parted().await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    write_on(db1).await;
    let place = |name: &str| cluster.path().join(name);
    let away = Desk::of(db1, "db1", &place("away"), incident(after, None)).await;
    let (code, said) = away.lost(&[]).await;
    assert_eq!(code, Some(8), "{said}");
    assert!(said.contains("db1 has not come back as a standby") && said.contains("--wal DIR"), "{said}");
    let wal = db1.postgresql().data_dir.join("pg_wal").display().to_string();
    let (code, said) = away.lost(&["--wal", &wal]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(": 3 inserted") && said.contains("select pg_filenode_relation(1663, "), "{said}");

    db2.lease(2, Duration::from_secs(60));
    db2.done(DbAction::Promote { epoch: Epoch(2), timeline: Timeline(2) }).await;
    let DbDone::Rejoined { kept: Some(kept), .. } = cluster.follow("db1", "db2").await else { panic!("nothing kept") };
    let elsewhere = Desk::of(db2, "db2", &place("elsewhere"), incident(after, Some(&kept))).await;
    let (code, said) = elsewhere.lost(&[]).await;
    assert!(code == Some(8) && said.contains("run `regent lost 7` on db1") && said.contains(&kept), "{said}");
    let back = Desk::of(db1, "db1", &place("back"), incident(after, Some(&kept))).await;
    let (code, said) = back.lost(&[]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("postgres.public.notes: 2 updated") && said.contains("9 transactions were committed"),
        "{said}"
    );
    let (code, lines) = back.lost(&["--json"]).await;
    let parts: Vec<LostPart> =
        lines.lines().map(|line| serde_json::from_str(line).expect("a line of the schema")).collect();
    let told =
        parts.iter().filter_map(|part| if let LostPart::Transaction(lost) = part { Some(words(lost)) } else { None });
    assert_eq!((code, told.collect::<Vec<_>>()), (Some(0), LOST.map(str::to_owned).to_vec()));
    assert!(matches!((&parts[0], parts.last()), (LostPart::Loss(_), Some(LostPart::End(_)))), "{lines}");

    let last = segments(Path::new(&kept)).pop().expect("three");
    fs::remove_file(&last).expect("removed");
    let (code, said) = back.lost(&[]).await;
    assert!(code == Some(8) && said.contains(&format!("MISSING: {} is not there", name(&last))), "{said}");
}
