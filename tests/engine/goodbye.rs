//! What a daemon leaves with the guard: sent on every channel when that daemon ends and its database goes on, and by
//! nobody else at no other time.

use crate::guarding::{REGENT, Victim};
use regent::action::guard::{GuardOptions, LeaseFile, spawn, write_lease};
use regent::channel::goodbye::Prepared;
use regent::channel::key::Key;
use regent::channel::{Keys, disk_admin, wire};
use regent::clock;
use regent::config::Config;
use regent::types::{Boot, ClusterId, Epoch, Heartbeat, Incarnation, LeftGoodbye};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const LEASE: Duration = Duration::from_secs(8);

/// db1's host, whose guard stands, and db2, which listens on both networks.
struct Host {
    run: tempfile::TempDir,
    data: tempfile::TempDir,
    config: Config,
    cluster: ClusterId,
    peers: [UdpSocket; 2],
    daemon: Child,
    database: Victim,
}

fn key() -> Key {
    Key::new(&[7; 32])
}

impl Host {
    fn new() -> Host {
        let (run, data) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let text = include_str!("../../config/three-databases.toml");
        let mut config = Config::parse(text, "the example", Some("db1"), "db1").expect("a valid example");
        let listens = |address: &str| UdpSocket::bind((address, 0)).expect("loopback");
        let primary = listens("127.0.0.3");
        let port = primary.local_addr().expect("bound").port();
        let peers = [primary, UdpSocket::bind(("127.0.0.4", port)).expect("the port is free there")];
        for peer in &peers {
            peer.set_read_timeout(Some(Duration::from_millis(1))).expect("a time-out");
        }
        let place = |config: &mut Config, name: &str, primary: &str, secondary: &str| {
            let node = config.nodes.get_mut(&name.parse().expect("valid")).expect("the example has it");
            node.primary = primary.parse().expect("an address");
            node.secondary = secondary.parse().expect("an address");
            node.heartbeat_port = port;
        };
        place(&mut config, "db1", "127.0.0.1", "127.0.0.2");
        place(&mut config, "db2", "127.0.0.3", "127.0.0.4");
        place(&mut config, "db3", "127.0.0.5", "127.0.0.6");
        let cluster = ClusterId("orders".to_owned());
        let disk = run.path().join("disk");
        std::fs::write(&disk, "").expect("written");
        let names = ["db1", "db2"].map(|name| name.parse().expect("valid"));
        disk_admin::init(&disk, &cluster, &names, 0, false).expect("a disk");
        config.disk.as_mut().expect("the example has one").path = disk;
        let daemon = Command::new("sleep").arg("600").spawn().expect("every system has it");
        let database = Victim::in_directory(data.path());
        Host { run, data, config, cluster, peers, daemon, database }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.run.path().join(name)
    }

    /// A lease of that process, and its goodbye; `left_by`: the process that the goodbye is of.
    async fn holds(&self, left_by: u32) {
        let lease = LeaseFile {
            boot: Boot("b".into()),
            epoch: Epoch(1),
            end: clock::now() + LEASE,
            released: false,
            daemon: Some(self.daemon.id()),
        };
        let from = Heartbeat {
            cluster: self.cluster.clone(),
            node: self.config.node.clone(),
            boot: Boot("b".into()),
            incarnation: Incarnation(3),
            sequence: 0,
            body: None,
        };
        let left = LeftGoodbye::new(from, lease.end, (LEASE, LEASE));
        let mut prepared = Prepared::new(&self.config, &self.cluster, &left, &key());
        prepared.daemon = left_by;
        prepared.leave(&self.path("goodbye")).expect("left");
        write_lease(&self.path("lease"), &lease).expect("written");
        let (lease, goodbye) = (self.path("lease"), Some(self.path("goodbye")));
        let options = GuardOptions { lease, goodbye, cgroup: None, data_dir: self.data.path().to_owned() };
        spawn(Path::new(REGENT), &options).await.expect("the guard stands");
    }

    fn daemon_ends(&mut self) -> Instant {
        self.daemon.kill().expect("our own child");
        self.daemon.wait().expect("our own child");
        Instant::now()
    }

    /// For how long db2 is asked to wait, by network, within so long.
    fn heard(&self, within: Duration) -> [Option<Duration>; 2] {
        let (keys, end) = (Keys::new(key(), None), Instant::now() + within);
        let mut heard = [None; 2];
        let mut bytes = [0; 8192];
        while Instant::now() < end && heard.iter().any(Option::is_none) {
            for (peer, heard) in self.peers.iter().zip(&mut heard) {
                let Ok((length, _)) = peer.recv_from(&mut bytes) else { continue };
                *heard = back_within(&wire::decode(&bytes[..length], &keys).expect("authentic"));
            }
        }
        heard
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn back_within(heartbeat: &Heartbeat) -> Option<Duration> {
    let goodbye = heartbeat.body.as_ref()?.goodbye?;
    assert!(goodbye.left_behind && heartbeat.sequence == u64::MAX, "{heartbeat:?}");
    Some(goodbye.back_within)
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_daemon_ends_its_goodbye_is_sent_on_every_channel_and_promises_no_more_than_is_left() {
    let mut host = Host::new();
    host.holds(host.daemon.id()).await;
    assert_eq!(host.heard(Duration::from_secs(2)), [None; 2], "it lives");
    let ended = host.daemon_ends();
    let heard = host.heard(Duration::from_secs(1));
    println!("TIME end of the daemon to its goodbye: {:?}", ended.elapsed());
    for promised in heard {
        // Two of the eight seconds are over.
        let promised = promised.expect("on both networks");
        assert!(promised <= Duration::from_secs(6) && promised > Duration::from_secs(5), "{promised:?}");
    }
    let on_disk = || {
        let report = disk_admin::list(&host.path("disk"), Some(&Keys::new(key(), None))).expect("a disk");
        format!("{report:?}").contains(&u64::MAX.to_string())
    };
    let end = Instant::now() + Duration::from_secs(3);
    while !on_disk() {
        assert!(Instant::now() < end, "nothing was written into its slot");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!host.database.has_ended(), "its lease goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_daemon_left_is_not_for_the_end_of_the_next() {
    let mut host = Host::new();
    host.holds(std::process::id()).await;
    host.daemon_ends();
    assert_eq!(host.heard(Duration::from_secs(1)), [None; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_to_wait_for_a_database_that_ended_too() {
    let mut host = Host::new();
    host.holds(host.daemon.id()).await;
    host.database = Victim::in_directory(tempfile::tempdir().expect("a directory").path());
    host.daemon_ends();
    assert_eq!(host.heard(Duration::from_secs(1)), [None; 2]);
}
