//! What the wire format promises: every heartbeat survives it, nothing else passes.

use super::*;
use crate::types::Leaving;
use crate::types::{
    Alarm, ChannelName, CopyHealth, CopyProgress, DbState, Epoch, Failing, Health, HeardEnd, Lack, Lsn, Network,
    PeerView, Position, Released, ReplayLag, ServiceHealth, Sight, Timeline, Unfit,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

fn key(byte: u8) -> Key {
    Key::new(&[byte; 32])
}

fn keys() -> Keys {
    Keys::new(key(1), None)
}

/// A database that is copied, or one that replays: no database does both.
fn service(is_copied: bool) -> ServiceHealth {
    let copied = CopyProgress::copied(1 << 40, 1 << 43, Duration::from_secs(3600));
    let lag = ReplayLag { bytes: 1 << 43, seconds: 86_400, still: 86_400, delay: 3600 };
    ServiceHealth {
        state: DbState::Primary,
        writable: false,
        holds: Some(Epoch(41)),
        timeline: Timeline(12),
        position: Position { timeline: Timeline(12), lsn: Lsn(0x16_B374_D848) },
        streams_from: Some("db-node-02.example".parse().unwrap()),
        released: Some(Released { epoch: Epoch(40), position: None, lapsed: true, leaving: true, why: String::new() }),
        copy: is_copied.then_some(CopyHealth::UnderWay(copied)),
        network: (!is_copied).then_some(Network::Secondary),
        replay: (!is_copied).then_some(lag),
        file_fault: None,
        trouble: None,
        pending_restart: Vec::new(),
        lowered: Vec::new(),
        unfit: Vec::new(),
    }
}

/// A heartbeat with `peers` views and `services` services, every name of `name_len` letters.
fn heartbeat(peers: usize, services: usize, name_len: usize) -> Heartbeat {
    let name = |i: usize| format!("{i:0>name_len$}");
    let channels: BTreeMap<ChannelName, Sight> =
        ["primary", "secondary", "disk"].iter().map(|c| (c.parse().unwrap(), Sight::Blind)).collect();
    let view = PeerView {
        boot: Boot("0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0".into()),
        incarnation: Incarnation(1_000_000),
        channels,
        database_alive: false,
    };
    let end =
        HeardEnd { epoch: Epoch(41), end: Position { timeline: Timeline(40), lsn: Lsn(u64::MAX) }, silent_ms: 10_000 };
    let lapsed = |i| Alarm::Lapsed { service: name(i).parse().unwrap(), epoch: Epoch(41) };
    Heartbeat {
        cluster: ClusterId("orders".into()),
        node: name(99).parse().unwrap(),
        boot: view.boot.clone(),
        incarnation: Incarnation(17),
        sequence: 4711,
        body: Some(HeartbeatBody {
            views: (0..peers).map(|i| (name(i).parse().unwrap(), view.clone())).collect::<BTreeMap<_, _>>().into(),
            heard: (0..peers).map(|i| (name(i).parse().unwrap(), (Incarnation(1_000_000), u64::MAX))).collect(),
            health: Arc::new(Health {
                leaving: Some(Leaving::HostGoesDown),
                paused: (0..services).map(|i| name(i).parse().unwrap()).collect(),
                follows: Some("w1".parse().expect("valid")),
                services: (0..services).map(|i| (name(i).parse().unwrap(), service(i % 2 == 0))).collect(),
                watchdog_armed: true,
                log_write: Duration::from_micros(170),
                self_doubt: false,
                config_hash: u64::MAX,
                failing: [Failing::FinalWord, Failing::LeaseFile, Failing::WatchdogArm, Failing::LedgerFull].into(),
                ends: (0..services).map(|i| (name(i).parse().unwrap(), end.clone())).collect(),
                alarms: (0..services).map(lapsed).collect(),
            }),
            goodbye: None,
        }),
    }
}

#[test]
fn a_heartbeat_of_seven_nodes_fits_whole() {
    let sent = heartbeat(6, 4, 20);
    let bytes = encode(&sent, &key(1));
    assert_eq!(decode(&bytes, &keys()), Ok(sent));
}

#[test]
fn what_does_not_fit_is_left_out_and_the_heartbeat_still_sent() {
    let mut sent = heartbeat(16, 2, 63);
    let arrived = decode(&encode(&sent, &key(1)), &keys()).unwrap();
    let body = sent.body.as_mut().unwrap();
    body.heard.clear();
    body.views = Default::default();
    assert_eq!(arrived, sent, "health comes before views");

    let mut sent = heartbeat(0, 40, 63);
    let arrived = decode(&encode(&sent, &key(1)), &keys()).unwrap();
    sent.body = None;
    assert_eq!(arrived, sent, "a heartbeat without a body is one");
}

/// Whether a node may take over hangs on the kinds; what people read of them is in `status` there.
#[test]
fn what_databases_lack_is_said_by_its_kinds_before_anything_else_is_left_out() {
    let mut sent = heartbeat(6, 3, 20);
    let amiss = |what: String| vec![Unfit::Archive { why: what.clone() }, Unfit::Rejoin { why: what }];
    let lacks = |sent: &mut Heartbeat, amiss: &[Unfit]| {
        let health = Arc::make_mut(&mut sent.body.as_mut().unwrap().health);
        health.services.values_mut().for_each(|service| service.unfit = amiss.to_vec());
    };
    lacks(&mut sent, &amiss("x".to_owned()));
    assert_eq!(decode(&encode(&sent, &key(1)), &keys()), Ok(sent.clone()), "it fits as it is");
    lacks(&mut sent, &amiss("x".repeat(120)));
    let arrived = decode(&encode(&sent, &key(1)), &keys()).unwrap();
    lacks(&mut sent, &[Unfit::Brief(Lack::Archive), Unfit::Brief(Lack::Rejoin)]);
    assert_eq!(arrived, sent, "and nothing else is missing");
}

#[test]
fn an_unknown_body_is_still_a_heartbeat() {
    let sent = heartbeat(2, 1, 8);
    let bytes = encode(&sent, &key(1));
    let mut other = bytes[..bytes.len() - MAC_LEN].to_vec();
    other[9..11].copy_from_slice(&77u16.to_be_bytes());
    let mac = hmac::sign(&key(1).0, &other);
    other.extend_from_slice(mac.as_ref());
    assert_eq!(decode(&other, &keys()), Ok(Heartbeat { body: None, ..sent }));
}

#[test]
fn a_body_with_more_fields_is_read() {
    let json = serde_json::to_string(&heartbeat(1, 1, 8).body).unwrap();
    let more = json.replacen('{', "{\"mood\":\"fine\",", 1);
    assert_eq!(serde_json::from_str::<HeartbeatBody>(&more).ok(), heartbeat(1, 1, 8).body);
}

#[test]
fn both_keys_are_accepted_during_a_rotation_and_no_third() {
    let sent = heartbeat(2, 1, 8);
    let rotating = Keys::new(key(1), Some(key(2)));
    for signer in [1, 2] {
        assert!(decode(&encode(&sent, &key(signer)), &rotating).is_ok());
    }
    let refused = decode(&encode(&sent, &key(3)), &rotating).unwrap_err();
    assert!(matches!(&refused, WireError::BadMac { claim: Some(claim) } if claim.cluster == "orders"));
    assert!(refused.to_string().contains("orders"), "{refused}");
}

#[test]
fn another_outer_header_is_named() {
    let mut bytes = encode(&heartbeat(0, 0, 8), &key(1));
    bytes[8] = 9;
    assert_eq!(decode(&bytes, &keys()), Err(WireError::HeaderVersion { found: 9 }));
}

proptest! {
    #[test]
    fn any_flipped_bit_is_refused(bit in any::<prop::sample::Index>()) {
        let mut bytes = encode(&heartbeat(3, 1, 8), &key(1));
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(decode(&bytes, &keys()).is_err(), "bit {} was flipped unseen", bit);
    }

    #[test]
    fn any_shorter_or_longer_message_is_refused(len in 0usize..600) {
        let mut bytes = encode(&heartbeat(0, 0, 8), &key(1));
        prop_assume!(len != bytes.len());
        bytes.resize(len, 0);
        prop_assert!(decode(&bytes, &keys()).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(decode(&bytes, &keys()).is_err());
        prop_assert!(claim(&bytes).is_none() || bytes.starts_with(MAGIC));
    }

    /// Even who has the key cannot make the reader panic.
    #[test]
    fn authentic_arbitrary_bytes_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = MAGIC.to_vec();
        bytes.push(HEADER_VERSION);
        bytes.extend(tail);
        let mac = hmac::sign(&key(1).0, &bytes);
        bytes.extend_from_slice(mac.as_ref());
        let _ = claim(&bytes);
        let unproved = matches!(decode(&bytes, &keys()), Err(WireError::BadMac { .. }));
        prop_assert!(!unproved);
    }

    #[test]
    fn every_heartbeat_survives(
        peers in 0usize..5, services in 0usize..3, sequence in any::<u64>(), incarnation in any::<u64>(),
        cluster in "\\PC{0,40}", boot in "\\PC{0,40}",
    ) {
        let mut sent = heartbeat(peers, services, 8);
        sent.sequence = sequence;
        sent.incarnation = Incarnation(incarnation);
        sent.cluster = ClusterId(cluster);
        sent.boot = Boot(boot.into());
        prop_assert_eq!(decode(&encode(&sent, &key(1)), &keys()), Ok(sent));
    }
}
