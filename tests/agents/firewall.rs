//! `fence_regent_firewall` between two hosts, with real packets.

use crate::hosts::{Hosts, NODE, NODE_V6, SURVIVOR, SURVIVOR_V6};
use crate::{FIREWALL, Said, eventually, is_root};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// Long enough for a packet on a cable inside this machine, with both cores busy.
const SOON: Duration = Duration::from_millis(400);

fn ask(hosts: &Hosts, action: &str, fence: u32) -> Said {
    let input = format!("action={action}\nnodename=db1\nfence_id={fence}\naddresses={NODE},{NODE_V6}\n");
    hosts.call(&hosts.survivor, &[FIREWALL], &input)
}

/// A service that sends back what it gets, for as long as the test runs.
fn echo(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || std::io::copy(&mut (&stream), &mut (&stream)));
        }
    });
}

fn listen(hosts: &Hosts, host: &str, port: u16) {
    echo(hosts.within(host, || TcpListener::bind(("::", port))).expect("a free port in a new namespace"));
}

fn connect_within(hosts: &Hosts, from: &str, to: &str, port: u16, limit: Duration) -> std::io::Result<TcpStream> {
    let address = SocketAddr::new(to.parse().expect("an address"), port);
    hosts.within(from, || TcpStream::connect_timeout(&address, limit))
}

/// A connection that should come about: the limit leaves room for a packet that is sent again.
fn connect(hosts: &Hosts, from: &str, to: &str, port: u16) -> std::io::Result<TcpStream> {
    connect_within(hosts, from, to, port, Duration::from_secs(10))
}

/// Whether a connection that should not come about does not.
fn is_cut(hosts: &Hosts, from: &str, to: &str, port: u16) -> bool {
    connect_within(hosts, from, to, port, SOON).is_err()
}

/// Whether a byte comes back.
fn answers(stream: &mut TcpStream, limit: Duration) -> bool {
    stream.set_read_timeout(Some(limit)).expect("a limit");
    let mut byte = [0];
    stream.write_all(b"x").is_ok() && stream.read_exact(&mut byte).is_ok()
}

fn udp_passes(hosts: &Hosts, from: &str, to: (&str, &str), port: u16) -> bool {
    let (to_host, to_address) = to;
    let receiver = hosts.within(to_host, || UdpSocket::bind(("::", port))).expect("a free port");
    receiver.set_read_timeout(Some(SOON)).expect("a limit");
    let sender = hosts.within(from, || UdpSocket::bind(("::", port))).expect("a free port");
    let address = SocketAddr::new(to_address.parse().expect("an address"), port);
    let mapped = match address {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), port),
        v6 => v6,
    };
    // A local drop shows as an error of the sender.
    sender.send_to(b"x", mapped).is_ok() && receiver.recv_from(&mut [0; 8]).is_ok()
}

#[test]
fn what_worked_before_fails_after_off_and_works_again_after_on() {
    if !is_root() {
        return;
    }
    let hosts = Hosts::start();
    let (node, survivor) = (hosts.node.as_str(), hosts.survivor.as_str());
    // As on most hosts: a stateful firewall that lets established connections through, so that they are tracked.
    let stateful = "table inet mine {\nchain input {\ntype filter hook input priority 0; policy accept;\n\
                    ct state established,related accept\n}\n}\n";
    assert_eq!(hosts.call(survivor, &["nft", "-f", "-"], stateful).status, 0);
    for port in [5432, 7420] {
        listen(&hosts, survivor, port);
        listen(&hosts, node, port);
    }
    let mut old: Vec<TcpStream> = [(node, SURVIVOR), (node, SURVIVOR_V6), (survivor, NODE), (survivor, NODE_V6)]
        .map(|(from, to)| connect(&hosts, from, to, 5432).expect("it works before"))
        .into();
    assert!(
        old.iter_mut().all(|stream| answers(stream, Duration::from_secs(5))),
        "established connections work before"
    );
    assert_eq!(ask(&hosts, "status", 1).status, 0);
    assert_eq!(ask(&hosts, "monitor", 1).status, 0);

    for _ in 0..2 {
        let off = ask(&hosts, "off", 1);
        assert_eq!(off.status, 0, "the second time changes nothing: {off:?}");
    }
    assert_eq!(ask(&hosts, "status", 1).status, 2);
    for stream in &mut old {
        assert!(!answers(stream, SOON), "an established connection survived");
    }
    for (from, to) in [(node, SURVIVOR), (node, SURVIVOR_V6), (survivor, NODE), (survivor, NODE_V6)] {
        assert!(is_cut(&hosts, from, to, 5432), "{from} still reaches {to}:5432");
        let mut regent = connect(&hosts, from, to, 7420).expect("regent's own port passes");
        assert!(answers(&mut regent, Duration::from_secs(5)), "{from} to {to}:7420");
    }
    for (from, to) in [(node, (survivor, SURVIVOR)), (survivor, (node, NODE_V6))] {
        assert!(udp_passes(&hosts, from, to, 7421), "heartbeats of {from} pass");
        assert!(!udp_passes(&hosts, from, to, 9999), "any other datagram of {from} does not");
    }

    for _ in 0..2 {
        assert_eq!(ask(&hosts, "on", 1).status, 0);
    }
    assert_eq!(ask(&hosts, "status", 1).status, 0);
    for (from, to) in [(node, SURVIVOR), (survivor, NODE_V6)] {
        assert!(answers(&mut connect(&hosts, from, to, 5432).expect("it works again"), Duration::from_secs(5)));
    }
    for stream in &mut old {
        assert!(answers(stream, Duration::from_secs(10)), "the old connection goes on");
    }
}

#[test]
fn two_fences_of_one_node_are_independent() {
    if !is_root() {
        return;
    }
    let hosts = Hosts::start();
    listen(&hosts, &hosts.survivor, 5432);
    let reaches = || !is_cut(&hosts, &hosts.node, SURVIVOR, 5432);
    connect(&hosts, &hosts.node, SURVIVOR, 5432).expect("it works before");
    assert_eq!((ask(&hosts, "off", 1).status, ask(&hosts, "off", 2).status), (0, 0));
    assert_eq!(ask(&hosts, "on", 1).status, 0);
    assert_eq!((ask(&hosts, "status", 1).status, ask(&hosts, "status", 2).status), (0, 2));
    assert!(!reaches(), "the second fence still holds");
    assert_eq!(ask(&hosts, "on", 3).status, 0, "a fence that never was");
    assert!(!reaches());
    assert_eq!(ask(&hosts, "on", 2).status, 0);
    connect(&hosts, &hosts.node, SURVIVOR, 5432).expect("it works again");
}

#[test]
fn a_cut_that_was_tampered_with_is_not_in_place_and_off_repairs_it() {
    if !is_root() {
        return;
    }
    let hosts = Hosts::start();
    assert_eq!(ask(&hosts, "off", 7).status, 0);
    let flushed = hosts.call(&hosts.survivor, &["nft", "flush", "chain", "inet", "regent_fence", "fence_7_output"], "");
    assert_eq!(flushed.status, 0, "{flushed:?}");
    assert_eq!(ask(&hosts, "status", 7).status, 0);
    assert_eq!((ask(&hosts, "off", 7).status, ask(&hosts, "status", 7).status), (0, 2));
    let more = format!("action=status\nfence_id=7\naddresses={NODE},{NODE_V6},10.99.1.7\n");
    assert_eq!(hosts.call(&hosts.survivor, &[FIREWALL], &more).status, 0, "an address of it is not cut");
}

#[test]
fn rules_of_the_operator_are_neither_touched_nor_in_the_way() {
    if !is_root() {
        return;
    }
    let hosts = Hosts::start();
    listen(&hosts, &hosts.survivor, 5432);
    let mine = "table inet mine {\nchain input {\ntype filter hook input priority -500; policy accept;\naccept\n}\n}\n";
    assert_eq!(hosts.call(&hosts.survivor, &["nft", "-f", "-"], mine).status, 0);
    let list = || hosts.call(&hosts.survivor, &["nft", "list", "table", "inet", "mine"], "").text;
    let before = list();
    assert_eq!(ask(&hosts, "off", 1).status, 0);
    assert!(is_cut(&hosts, &hosts.node, SURVIVOR, 5432), "an accept elsewhere does not save it");
    assert_eq!(ask(&hosts, "on", 1).status, 0);
    assert_eq!(list(), before);
    eventually("the node gets through again", || connect(&hosts, &hosts.node, SURVIVOR, 5432).ok());
}
