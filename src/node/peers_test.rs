//! What a node believes of its peers: what is a sign of life, what is new, and who has a quorum without it.

use super::context_test::{NOW, config, context};
use super::peers::Peers;
use crate::ledger::world_test::*;
use crate::types::fitting;
use crate::types::{
    ChannelName, ClusterId, DbState, Epoch, Health, HeardEnd, Heartbeat, HeartbeatBody, Incarnation, Leaving,
    LeftGoodbye, PeerView, ServiceHealth, Sight, Timeline,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

fn beat(name: &str, incarnation: Incarnation, sequence: u64, body: HeartbeatBody) -> Heartbeat {
    let (cluster, boot) = (ClusterId("orders".to_owned()), boot(name, 1));
    Heartbeat { cluster, node: node(name), boot, incarnation, sequence, body: Some(body) }
}

#[test]
fn a_recording_is_no_sign_of_life_and_what_was_said_before_is_no_news() {
    let db1 = context("db1", DB1, &World::new().state);
    let mut peers = Peers::new(&config("db1"), NOW);
    let channel = ChannelName::primary();
    let hear = |peers: &mut Peers, sequence, body: HeartbeatBody| {
        let heartbeat = beat("db2", DB2, sequence, body);
        peers.is_sign_of_life(&channel, NOW, &heartbeat) && peers.hear(&db1, &channel, NOW, &heartbeat)
    };
    let quiet = HeartbeatBody::default();
    assert!(!hear(&mut peers, 1, quiet.clone()), "the first may be a recording");
    assert!(hear(&mut peers, 2, quiet.clone()), "its first word");
    assert!(!hear(&mut peers, 2, quiet.clone()), "the same once more");
    assert!(!hear(&mut peers, 3, quiet.clone()), "alive, and nothing new");
    let health = Health { self_doubt: true, ..Health::default() };
    let doubts = HeartbeatBody { health: Arc::new(health), ..HeartbeatBody::default() };
    assert!(hear(&mut peers, 4, doubts));
    assert!(peers.rows()[&node("db2")].health.self_doubt);
    let silent = peers.silence(NOW + Duration::from_millis(70), &node("db2"));
    assert_eq!(silent, BTreeMap::from([(channel, 70)]));
}

#[test]
fn the_goodbye_that_a_daemon_left_behind_excuses_its_silence_and_says_nothing_else() {
    let db1 = context("db1", DB1, &World::new().state);
    let mut peers = Peers::new(&config("db1"), NOW);
    let channel = ChannelName::primary();
    let hear = |peers: &mut Peers, heartbeat: &Heartbeat| {
        peers.is_sign_of_life(&channel, NOW, heartbeat) && peers.hear(&db1, &channel, NOW, heartbeat)
    };
    let health = Arc::new(Health { self_doubt: true, ..Health::default() });
    let last = HeartbeatBody { health, ..HeartbeatBody::default() };
    assert!(!hear(&mut peers, &beat("db2", DB2, 1, last.clone())));
    assert!(hear(&mut peers, &beat("db2", DB2, 2, last)));
    let end = NOW + Duration::from_secs(8);
    let from = beat("db2", DB2, 0, HeartbeatBody::default());
    let left = LeftGoodbye::new(from, end, (Duration::from_secs(8), Duration::from_secs(8)));
    let letter = fitting(left.letters(), end, NOW).expect("all of it is left");
    assert!(hear(&mut peers, &letter));
    assert!(peers.rows()[&node("db2")].health.self_doubt, "what it said last stays");
    assert!(!hear(&mut peers, &letter), "a recording of it is none");
}

#[test]
fn what_an_incarnation_that_is_over_says_is_not_heard() {
    let mut world = World::new();
    world.declare_dead();
    world.power_off();
    let mut db2 = context("db2", DB2, &world.state);
    Arc::make_mut(&mut db2.state).nodes.get_mut(&node("db1")).expect("known").incarnation = Incarnation(9);
    let mut peers = Peers::new(&config("db2"), NOW);
    let channel = ChannelName::primary();
    for sequence in 1..4 {
        let heartbeat = beat("db1", DB1, sequence, HeartbeatBody::default());
        let alive = peers.is_sign_of_life(&channel, NOW, &heartbeat);
        assert_eq!(alive, sequence > 1, "it is one all the same: the witness of its fence must hear of it");
        assert!(!peers.hear(&db2, &channel, NOW, &heartbeat));
    }
    assert!(peers.rows().is_empty());
}

#[test]
fn others_have_a_quorum_where_one_sees_enough_others_on_a_network() {
    let mut db1 = context("db1", DB1, &World::new().state);
    let sees = |channel: &str| {
        let mut peers = Peers::new(&config("db1"), NOW);
        let channels = BTreeMap::from([(channel.parse().expect("valid"), Sight::Up)]);
        let view = PeerView { boot: boot("w1", 1), incarnation: W1, channels, database_alive: false };
        let views = Arc::new(BTreeMap::from([(node("w1"), view)]));
        for sequence in 1..3 {
            let heartbeat = beat("db2", DB2, sequence, HeartbeatBody { views: views.clone(), ..Default::default() });
            let channel = "disk".parse().expect("valid");
            if peers.is_sign_of_life(&channel, NOW, &heartbeat) {
                peers.hear(&db1, &channel, NOW, &heartbeat);
            }
        }
        peers
    };
    assert!(!sees("disk").have_a_quorum_without_us(&db1), "a log travels on no disk");
    let peers = sees("secondary");
    assert!(peers.have_a_quorum_without_us(&db1));
    db1.now = NOW + db1.timing.recent + Duration::from_nanos(1);
    assert!(!peers.have_a_quorum_without_us(&db1), "that was so, and is old");
}

/// w1 hears db1, the primary, and then hears of db2 that db1 had come further.
#[test]
fn how_far_a_primary_wrote_is_remembered_whoever_heard_it() {
    let w1 = context("w1", W1, &World::new().state);
    let mut peers = Peers::new(&config("w1"), NOW);
    let mut sequence = 0;
    let mut hear = |peers: &mut Peers, name: &str, incarnation, health: Health| {
        for _ in 0..2 {
            sequence += 1;
            let body = HeartbeatBody { health: Arc::new(health.clone()), ..HeartbeatBody::default() };
            let heartbeat = beat(name, incarnation, sequence, body);
            if peers.is_sign_of_life(&ChannelName::primary(), NOW, &heartbeat) {
                peers.hear(&w1, &ChannelName::primary(), NOW, &heartbeat);
            }
        }
    };
    let database = |state, lsn| ServiceHealth {
        state,
        writable: true,
        holds: Some(Epoch(1)),
        timeline: Timeline(1),
        position: at(1, lsn),
        streams_from: None,
        released: None,
        copy: None,
        network: None,
        replay: None,
        file_fault: None,
        trouble: None,
        pending_restart: Vec::new(),
        lowered: Vec::new(),
        unfit: Vec::new(),
    };
    let says = |state, lsn| Health { services: [(orders(), database(state, lsn))].into(), ..Health::default() };
    let told = |epoch, lsn| {
        let heard = HeardEnd { epoch: Epoch(epoch), end: at(1, lsn), silent_ms: 0 };
        Health { ends: [(orders(), heard)].into(), ..Health::default() }
    };
    let known = |peers: &Peers| peers.heard_ends(&w1.state).get(&orders()).map(|known| known.end);
    assert_eq!(known(&peers), None);
    hear(&mut peers, "db1", DB1, says(DbState::Primary, 0x3000));
    hear(&mut peers, "db1", DB1, says(DbState::Stopped, 0x1000));
    assert_eq!(known(&peers), Some(at(1, 0x3000)), "what is closed reaches no less far");
    hear(&mut peers, "db2", DB2, told(1, 0x5000));
    hear(&mut peers, "db2", DB2, Health::default());
    assert_eq!(known(&peers), Some(at(1, 0x5000)), "db2 does not know it any more");
    hear(&mut peers, "db2", DB2, told(7, 0x9000));
    assert_eq!(known(&peers), Some(at(1, 0x5000)), "of another epoch");
}

/// The last words over a network are here first; what stands in the slot of the disk was written before.
#[test]
fn who_leaves_does_so_for_good_until_the_next_start_of_its_daemon() {
    let db1 = context("db1", DB1, &World::new().state);
    let mut peers = Peers::new(&config("db1"), NOW);
    let mut hear = |channel: ChannelName, incarnation, sequence, leaving| {
        let health = Arc::new(Health { leaving, ..Health::default() });
        let heartbeat = beat("db2", incarnation, sequence, HeartbeatBody { health, ..HeartbeatBody::default() });
        if peers.is_sign_of_life(&channel, NOW, &heartbeat) {
            peers.hear(&db1, &channel, NOW, &heartbeat);
        }
        peers.rows().get(&node("db2")).and_then(|row| row.health.leaving)
    };
    let leaves = Some(Leaving::DaemonStops);
    assert_eq!(hear(ChannelName::disk(), DB2, 1, None), None);
    assert_eq!(hear(ChannelName::primary(), DB2, 1, None), None);
    assert_eq!(hear(ChannelName::primary(), DB2, 3, leaves), leaves);
    assert_eq!(hear(ChannelName::disk(), DB2, 2, None), leaves, "an earlier word came later");
    let back = Incarnation(DB2.0 + 10);
    hear(ChannelName::primary(), back, 1, None);
    assert_eq!(hear(ChannelName::primary(), back, 2, None), None, "it is an ordinary node again");
}
