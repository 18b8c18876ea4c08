//! Two nodes on one real file, with O_DIRECT. It lies under /var/tmp, because a tmpfs may not know O_DIRECT.

use super::super::disk_admin::{self, SlotContent};
use super::super::gate::Gate;
use super::super::intake::Arrival;
use super::super::key::{Key, Keys};
use super::super::wire;
use super::*;
use crate::types::{Boot, ClusterId, Heartbeat, Incarnation, NodeName};
use std::collections::BTreeSet;
use std::path::Path;
use tokio::sync::mpsc;

fn keys() -> Keys {
    Keys::new(Key::new(&[7; 32]), None)
}

/// Profile `lan`, but for the pause.
fn timing() -> config::Detector {
    config::Detector {
        interval: Duration::from_millis(40),
        phi_threshold: 8.0,
        acceptable_pause: Duration::from_millis(800),
        window: 100,
        min_deviation: Duration::from_millis(40),
        rise: 3,
        startup_grace: Duration::from_secs(10),
    }
}

struct Node {
    disk: Disk,
    arrivals: mpsc::Receiver<Arrival>,
    intake: Intake,
    name: NodeName,
}

fn start_in(cluster: &str, path: &Path, me: &str) -> Node {
    let (arrivals, receiver) = mpsc::channel(64);
    let gate = Gate {
        cluster: ClusterId(cluster.into()),
        me: me.parse().unwrap(),
        peers: ["db1", "db2", "w1"].iter().map(|n| n.parse().unwrap()).collect::<BTreeSet<NodeName>>(),
        keys: keys(),
    };
    let intake = Intake::new(gate, arrivals);
    let disk = Disk::start("disk".parse().unwrap(), path.to_owned(), &timing(), None, intake.clone()).unwrap();
    Node { disk, arrivals: receiver, intake, name: me.parse().unwrap() }
}

fn start(path: &Path, me: &str) -> Node {
    start_in("orders", path, me)
}

impl Node {
    fn beat(&self, sequence: u64) {
        let heartbeat = Heartbeat {
            cluster: self.intake.gate().cluster.clone(),
            node: self.name.clone(),
            boot: Boot("b".into()),
            incarnation: Incarnation(1),
            sequence,
            body: None,
        };
        self.disk.send(&wire::encode(&heartbeat, keys().signing()));
    }

    async fn usable(&self) {
        self.disk.state().wait_for(Result::is_ok).await.unwrap();
    }

    /// Waits until it is blind for a reason that contains `why`.
    async fn blind(&self, why: &str) {
        let is_it = |state: &Result<(), String>| state.as_ref().is_err_and(|said| said.contains(why));
        let mut state = self.disk.state();
        let waited = tokio::time::timeout(Duration::from_secs(20), state.wait_for(is_it)).await;
        assert!(waited.is_ok(), "blind because of {why:?} was expected, it is {:?}", *self.disk.state().borrow());
    }

    async fn hears(&mut self, node: &str, sequence: u64) {
        loop {
            let arrival = self.arrivals.recv().await.unwrap();
            assert_eq!(arrival.heartbeat.node.as_str(), node);
            assert!(arrival.at <= clock::now() && arrival.from.is_none());
            if arrival.heartbeat.sequence == sequence {
                return;
            }
        }
    }
}

fn disk(names: &[&str], spare: usize) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = folder.path().join("disk");
    let names: Vec<NodeName> = names.iter().map(|n| n.parse().unwrap()).collect();
    disk_admin::init(&path, &ClusterId("orders".into()), &names, spare, false).unwrap();
    (folder, path)
}

#[tokio::test]
async fn two_nodes_hear_each_other_through_their_slots() {
    let (_folder, path) = disk(&["db1", "db2"], 0);
    let (mut one, mut two) = (start(&path, "db1"), start(&path, "db2"));
    one.blind("no heartbeat of this node").await;
    for sequence in 1..=3 {
        one.beat(sequence);
        two.hears("db1", sequence).await;
        two.beat(10 + sequence);
        one.hears("db2", 10 + sequence).await;
    }
    one.usable().await;
    let report = disk_admin::list(&path, Some(&keys())).unwrap();
    assert_eq!(one.disk.disk(), Some((report.header.disk, 1)));
    let expected = SlotContent::Heartbeat {
        boot: Boot("b".into()),
        incarnation: Incarnation(1),
        sequence: 3,
        authentic: Some(true),
    };
    assert_eq!(report.slots[0].content, expected);
    let other = Keys::new(Key::new(&[8; 32]), None);
    let report = disk_admin::list(&path, Some(&other)).unwrap();
    assert!(report.to_string().contains("signed with another key"), "{report}");
}

#[tokio::test]
async fn a_node_without_a_slot_takes_a_free_one_or_says_that_there_is_none() {
    let (_folder, path) = disk(&["db1"], 1);
    let mut one = start(&path, "db1");
    let two = start(&path, "db2");
    two.beat(1);
    two.usable().await;
    one.hears("db2", 1).await;
    let third = start(&path, "w1");
    third.blind("no free one").await;
}

#[tokio::test]
async fn a_foreign_zeroed_or_older_header_is_blind_and_named() {
    let (folder, path) = disk(&["db1", "db2"], 0);
    let stranger = start_in("staging", &path, "db1");
    stranger.blind("cluster orders").await;
    let one = start(&path, "db1");
    one.beat(1);
    one.usable().await;

    let old = std::fs::read(&path).unwrap();
    let cluster = ClusterId("orders".into());
    let names = ["db1".parse().unwrap(), "db2".parse().unwrap()];
    disk_admin::init(&path, &cluster, &names, 0, true).unwrap();
    one.disk.state().wait_for(|_| one.disk.disk().is_some_and(|(_, generation)| generation == 2)).await.unwrap();
    one.beat(2);
    let mut timer = BootTimer::new().unwrap();
    while one.disk.disk().is_none_or(|(_, generation)| generation < 2) {
        timer.set(clock::now() + Duration::from_millis(10));
        timer.fired().await;
    }
    std::fs::write(&path, &old).unwrap();
    one.blind("generation 1 after 2").await;
    std::fs::write(&path, vec![0; old.len()]).unwrap();
    one.blind("it is empty").await;
    let other = folder.path().join("other");
    disk_admin::init(&other, &cluster, &names, 0, false).unwrap();
    std::fs::copy(&other, &path).unwrap();
    one.blind("was it replaced").await;
}

#[tokio::test]
async fn an_error_of_the_disk_is_blind_and_it_comes_back() {
    let (_folder, path) = disk(&["db1", "db2"], 0);
    let one = start(&path, "db1");
    one.beat(1);
    one.usable().await;
    let whole = std::fs::read(&path).unwrap();
    // Shorter than its header says: every read fails.
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(4096).unwrap();
    one.blind("reading the slots failed").await;
    std::fs::write(&path, &whole).unwrap();
    one.usable().await;
}

#[tokio::test]
async fn a_torn_slot_is_no_heartbeat_and_no_error() {
    use std::os::unix::fs::FileExt;
    let (_folder, path) = disk(&["db1", "db2"], 0);
    let mut one = start(&path, "db1");
    let two = start(&path, "db2");
    two.beat(1);
    one.hears("db2", 1).await;
    drop(two);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"torn", 2 * 4096 + 300).unwrap();
    one.beat(1);
    one.usable().await;
    assert!(one.intake.refused().is_empty(), "{:?}", one.intake.refused());
    assert!(one.arrivals.try_recv().is_err());
}
