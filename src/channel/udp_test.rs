//! Two nodes on loopback addresses, with real sockets.

use super::super::gate::Gate;
use super::super::key::{Key, Keys};
use super::super::wire;
use super::*;
use crate::types::{Boot, ClusterId, Heartbeat, Incarnation};
use std::collections::BTreeSet;
use tokio::sync::mpsc;

fn keys() -> Keys {
    Keys::new(Key::new(&[7; 32]), None)
}

fn intake(me: &str, peer: &str, room: usize) -> (Intake, mpsc::Receiver<Arrival>) {
    let (arrivals, receiver) = mpsc::channel(room);
    let gate = Gate {
        cluster: ClusterId("orders".into()),
        me: me.parse().unwrap(),
        peers: BTreeSet::from([peer.parse().unwrap()]),
        keys: keys(),
    };
    (Intake::new(gate, arrivals), receiver)
}

fn beat(node: &str, sequence: u64) -> Heartbeat {
    Heartbeat {
        cluster: ClusterId("orders".into()),
        node: node.parse().unwrap(),
        boot: Boot("b".into()),
        incarnation: Incarnation(1),
        sequence,
        body: None,
    }
}

/// A free port on both addresses: bound once to find it, then free again.
fn free_port(addresses: &[&str]) -> u16 {
    loop {
        let first = std::net::UdpSocket::bind((addresses[0], 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        if addresses[1..].iter().all(|a| std::net::UdpSocket::bind((*a, port)).is_ok()) {
            return port;
        }
    }
}

fn channel(local: &str, peer: (&str, &str), port: u16, intake: Intake) -> Udp {
    let peers = BTreeMap::from([(peer.0.parse().unwrap(), SocketAddr::new(peer.1.parse().unwrap(), port))]);
    Udp::bind("primary".parse().unwrap(), SocketAddr::new(local.parse().unwrap(), port), peers, intake).unwrap()
}

async fn bound(udp: &Udp) {
    udp.state().wait_for(Result::is_ok).await.unwrap();
}

#[tokio::test]
async fn a_heartbeat_arrives_with_its_sender_and_others_are_refused() {
    let (one, two) = ("127.0.71.1", "127.0.71.2");
    let port = free_port(&[one, two]);
    let (intake_one, _arrivals_one) = intake("db1", "db2", 16);
    let (intake_two, mut arrivals) = intake("db2", "db1", 16);
    let sender = channel(one, ("db2", two), port, intake_one);
    let receiver = channel(two, ("db1", one), port, intake_two.clone());
    bound(&sender).await;
    bound(&receiver).await;

    let before = clock::now();
    // A stranger's bytes, and the right words from a wrong address: each refused, then the good one arrives.
    let stranger = std::net::UdpSocket::bind(("127.0.71.3", 0)).unwrap();
    stranger.send_to(b"hello", (two, port)).unwrap();
    stranger.send_to(&wire::encode(&beat("db1", 1), keys().signing()), (two, port)).unwrap();
    stranger.send_to(&vec![0; MAX_LEN + 500], (two, port)).unwrap();
    sender.send(&wire::encode(&beat("db1", 2), keys().signing()));
    let arrival = arrivals.recv().await.unwrap();
    assert_eq!(arrival.heartbeat, beat("db1", 2));
    assert_eq!(arrival.from, Some(one.parse().unwrap()));
    assert!(arrival.at >= before && arrival.at <= clock::now());
    let kinds: Vec<(&str, u64)> = intake_two.refused().iter().map(|row| (row.kind, row.count)).collect();
    assert_eq!(kinds, [("foreign_address", 1), ("not_a_heartbeat", 2)]);
    assert_eq!(sender.count(), SendCount { sent: 1, failed: 0, last_failure: None });
}

#[tokio::test]
async fn a_drained_backlog_counts_by_the_time_of_arrival() {
    let (one, two) = ("127.0.72.1", "127.0.72.2");
    let port = free_port(&[one, two]);
    let (intake_one, _arrivals_one) = intake("db1", "db2", 16);
    // Room for one: the second waits in the kernel until the first is taken.
    let (intake_two, mut arrivals) = intake("db2", "db1", 1);
    let sender = channel(one, ("db2", two), port, intake_one);
    let receiver = channel(two, ("db1", one), port, intake_two);
    bound(&sender).await;
    bound(&receiver).await;
    for sequence in 1..=4 {
        sender.send(&wire::encode(&beat("db1", sequence), keys().signing()));
    }
    let sent = clock::now();
    let mut timer = BootTimer::new().unwrap();
    timer.set(sent + Duration::from_millis(300));
    timer.fired().await;
    for sequence in 1..=4 {
        let arrival = arrivals.recv().await.unwrap();
        assert_eq!(arrival.heartbeat.sequence, sequence);
        let late = arrival.at.since(sent);
        assert!(late < Duration::from_millis(250), "the backlog counts as {late:?} later than it arrived");
    }
}

#[tokio::test]
async fn an_address_in_use_is_named_and_bound_once_it_is_free() {
    let one = "127.0.73.1";
    let port = free_port(&[one]);
    let taken = std::net::UdpSocket::bind((one, port)).unwrap();
    let (intake, _arrivals) = intake("db1", "db2", 16);
    let udp = channel(one, ("db2", "127.0.73.2"), port, intake);
    let why = udp.state().wait_for(|s| matches!(s, Err(why) if why.contains("cannot bind"))).await.unwrap().clone();
    assert!(why.unwrap_err().contains(one));
    udp.send(b"never waits");
    assert_eq!(udp.count().failed, 1);
    drop(taken);
    bound(&udp).await;
}

/// 203.0.113.0/24 is for documentation: no interface has its addresses, and from a missing address nothing is sent.
#[tokio::test]
async fn an_address_that_is_not_there_is_no_reason_to_give_up() {
    let (intake, _arrivals) = intake("db1", "db2", 16);
    let udp = channel("203.0.113.9", ("db2", "203.0.113.10"), 7421, intake);
    let why = udp.state().wait_for(|s| matches!(s, Err(why) if why.contains("no interface"))).await.unwrap().clone();
    assert!(why.unwrap_err().contains("203.0.113.9"));
    udp.send(b"never waits");
    let count = udp.count();
    assert_eq!((count.sent, count.failed), (0, 1), "{count:?}");
}
