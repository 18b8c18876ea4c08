//! The quorum as a whole: three real nodes over TLS on loopback, their networks stalled, their leaders lost.

#![expect(clippy::disallowed_methods, reason = "tests of the real world wait for it and time it")]

mod harness;

use harness::{Cluster, LONG, connect_plain, copy_dir, entry, name, timing};
use regent::consensus::{Consensus, Event, Network, ProposeError, ReadError, StartError, StoreError};
use regent::types::WallTime;
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_file_everywhere_is_enough_for_a_first_start() {
    let mut cluster = Cluster::prepare(11, timing(50, 150, 300)).await;
    cluster.start_node("db1").await;
    cluster.start_node("db2").await;
    let db1 = &cluster.nodes[&name("db1")].consensus;
    // With one voter missing nobody initialises, and it says whom it waits for.
    let told = async {
        while !db1.waiting().iter().any(|w| w.contains("first start: waiting for w1")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, told).await.expect("it says that it waits for w1");
    assert_eq!(db1.leadership().term.0, 0);
    assert!(matches!(db1.propose(entry(1), LONG).await, Err(ProposeError::NotLeader { leader: None })));

    cluster.start_node("w1").await;
    let proposed = cluster.commit(1).await;
    for (node, running) in &cluster.nodes {
        running.until_applied(1).await;
        let applied = running.applied();
        assert_eq!((applied.len(), applied[0].index), (1, proposed.index), "{node}");
        assert!(!applied[0].replay);
        assert_eq!(running.consensus.waiting(), [] as [String; 0]);
    }
    let leader = cluster.leader().await;
    let follower = &cluster.nodes[&cluster.others(&leader)[0]].consensus;
    let refused = follower.propose(entry(2), LONG).await.expect_err("a follower");
    assert_eq!(refused, ProposeError::NotLeader { leader: Some(leader.clone()) });
    assert!(matches!(follower.quorum_read(LONG).await, Err(ReadError::NotLeader { .. })));
    let read = cluster.nodes[&leader].consensus.quorum_read(LONG).await.expect("a quorum");
    assert!(read >= proposed.index);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_leader_is_replaced_and_comes_back_with_what_it_had() {
    let mut cluster = Cluster::start(12, timing(50, 150, 300)).await;
    for number in 1..=10 {
        cluster.commit(number).await;
    }
    let old = cluster.leader().await;
    let old_term = cluster.nodes[&old].consensus.leadership().term;
    cluster.stop_node(&old).await;
    cluster.commit(11).await;
    let new = cluster.leader().await;
    assert!(new != old && cluster.nodes[&new].consensus.leadership().term > old_term);

    cluster.start_node(old.as_str()).await;
    let back = &cluster.nodes[&old];
    back.until_applied(11).await;
    let applied = back.applied();
    let numbers: Vec<u64> = applied.iter().map(|a| a.entry.at.0).collect();
    assert_eq!(numbers, (1..=11).collect::<Vec<_>>(), "each once, in order");
    assert!(applied[0].replay && !applied[10].replay, "its own log is replayed, the rest is new");
    // No term is skipped in what it tells, and it does not lead in its old one.
    let events = back.events();
    assert!(!events.iter().any(|e| matches!(e, Event::Leadership(l) if l.i_lead && l.term == old_term)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_stopped_and_started_again_goes_on() {
    let mut cluster = Cluster::start(13, timing(50, 150, 300)).await;
    let before = cluster.commit(1).await;
    for node in ["db1", "db2", "w1"] {
        cluster.stop_node(&name(node)).await;
    }
    for node in ["w1", "db1", "db2"] {
        cluster.start_node(node).await;
    }
    let after = cluster.commit(2).await;
    assert!(after.index > before.index && after.term > before.term, "a restarted leader must be elected again");
    for running in cluster.nodes.values() {
        running.until_applied(2).await;
        let numbers: Vec<WallTime> = running.applied().iter().map(|a| a.entry.at).collect();
        assert_eq!(numbers, [WallTime(1), WallTime(2)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_network_may_stall_everywhere() {
    // Long timings: without asking the other network early, a commit would wait for the whole election timeout.
    let cluster = Cluster::start(14, timing(600, 4000, 8000)).await;
    cluster.commit(1).await;
    let mut number = 1;
    for stalled in [Network::Primary, Network::Secondary] {
        let other = if stalled == Network::Primary { Network::Secondary } else { Network::Primary };
        let leader = cluster.leader().await;
        let term = cluster.nodes[&leader].consensus.leadership().term;
        let peer = &cluster.others(&leader)[0];
        cluster.set_network(stalled, false);
        let began = Instant::now();
        for _ in 0..20 {
            number += 1;
            cluster.commit(number).await;
        }
        let took = began.elapsed();
        assert!(took < Duration::from_secs(4), "20 commits took {took:?} while {stalled:?} stalled");
        // A message of the daemon gets through as well, once.
        let said = cluster.nodes[&leader].consensus.call(peer, b"lease".to_vec(), LONG).await.expect("answered");
        assert_eq!(said, [leader.as_str().as_bytes(), b":lease"].concat());
        until(&cluster, "the other network is used", |paths| paths.in_use == Some(other)).await;
        let now = cluster.nodes[&cluster.leader().await].consensus.leadership().term;
        assert_eq!(now, term, "the leader was lost with one network ({stalled:?})");
        cluster.set_network(stalled, true);
        until(&cluster, "both work again", |paths| {
            paths.in_use == Some(Network::Primary) && paths.paths.iter().all(|p| p.connected && p.error.is_none())
        })
        .await;
    }
}

async fn until(cluster: &Cluster, what: &str, good: impl Fn(&regent::consensus::PeerPaths) -> bool) {
    let wait = async {
        while !cluster.nodes.values().all(|n| n.consensus.paths().iter().all(&good)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let paths = || cluster.nodes.values().map(|n| n.consensus.paths()).collect::<Vec<_>>();
    tokio::time::timeout(LONG, wait).await.unwrap_or_else(|_| panic!("in vain: {what}: {:#?}", paths()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_confirms_nothing_and_takes_nothing() {
    let cluster = Cluster::start(15, timing(50, 150, 300)).await;
    cluster.commit(1).await;
    let old = cluster.leader().await;
    cluster.set_node(&old, false);
    let cut = &cluster.nodes[&old].consensus;
    // The others elect one of them and go on.
    let new = cluster.leader_but(Some(&old)).await;
    cluster.nodes[&new].consensus.propose(entry(2), LONG).await.expect("a majority goes on");
    let alone = |event: &Event| matches!(event, Event::Leadership(l) if l.i_lead && !l.quorum_acked);
    cluster.nodes[&old]
        .until("it is told that no quorum answers", |events| {
            let first = events.iter().position(|e| matches!(e, Event::Leadership(l) if l.quorum_acked));
            first.is_some_and(|first| events[first..].iter().any(alone))
        })
        .await;
    let second = Duration::from_secs(1);
    let read = cut.quorum_read(second).await;
    assert!(read.is_err(), "{read:?}");
    let taken = cut.propose(entry(99), second).await;
    assert!(matches!(taken, Err(ProposeError::NotLeader { .. })), "{taken:?}");

    cluster.set_node(&old, true);
    cluster.nodes[&old].until_applied(2).await;
    let numbers: Vec<WallTime> = cluster.nodes[&old].applied().iter().map(|a| a.entry.at).collect();
    assert_eq!(numbers, [WallTime(1), WallTime(2)], "what it was offered alone is nowhere");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_on_request() {
    let cluster = Cluster::start(16, timing(50, 150, 300)).await;
    cluster.commit(1).await;
    let old = cluster.leader().await;
    let term = cluster.nodes[&old].consensus.leadership().term;
    let to = cluster.others(&old)[1].clone();
    let began = Instant::now();
    cluster.nodes[&old].consensus.transfer_leadership(&to, LONG).await.expect("handed over");
    println!("handed over in {:?}", began.elapsed());
    // The old leader has voted for it; it takes proposals once a quorum has answered it.
    let leads = |event: &Event| matches!(event, Event::Leadership(l) if l.term.0 == term.0 + 1 && l.quorum_acked);
    cluster.nodes[&to].until("the new leader leads", |events| events.iter().any(leads)).await;
    cluster.nodes[&to].consensus.propose(entry(2), LONG).await.expect("the new leader takes proposals");
    assert_eq!(cluster.nodes[&to].consensus.leadership().term.0, term.0 + 1);
    let told = |event: &Event| matches!(event, Event::Leadership(l) if l.term.0 == term.0 + 1 && l.leader.as_ref() == Some(&to));
    cluster.nodes[&old].until("the old leader is told", |events| events.iter().any(told)).await;
    let not_me = cluster.nodes[&old].consensus.transfer_leadership(&to, LONG).await.expect_err("it leads no more");
    assert_eq!(not_me.to_string(), "this node does not lead");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_catches_up_by_a_snapshot() {
    let mut cluster = Cluster::prepare(17, timing(50, 150, 300)).await;
    cluster.snapshot_every = 20;
    for node in ["db1", "db2", "w1"] {
        cluster.start_node(node).await;
    }
    cluster.commit(1).await;
    let away = cluster.others(&cluster.leader().await)[0].clone();
    cluster.stop_node(&away).await;
    for number in 2..=100 {
        cluster.commit(number).await;
    }
    cluster.start_node(away.as_str()).await;
    let back = &cluster.nodes[&away];
    let by_snapshot = |event: &Event| matches!(event, Event::Advanced(a) if a.snapshot && !a.replay && a.index.0 > 50);
    back.until("a snapshot from the leader", |events| events.iter().any(by_snapshot)).await;
    cluster.commit(101).await;
    back.until_applied(101).await;
    let state = |node| cluster.nodes[&node].applied().last().expect("applied").state.clone();
    let leader = cluster.leader().await;
    assert_eq!(state(away.clone()), state(leader));
    // And with its own snapshot it starts again.
    cluster.stop_node(&away).await;
    cluster.start_node(away.as_str()).await;
    let own = |event: &Event| matches!(event, Event::Advanced(a) if a.snapshot && a.replay);
    cluster.nodes[&away].until("its own snapshot", |events| events.iter().any(own)).await;
    cluster.commit(102).await;
    cluster.nodes[&away].until_applied(102).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_or_a_used_directory_is_refused() {
    let mut cluster = Cluster::start(18, timing(50, 150, 300)).await;
    let used = Consensus::start(cluster.options("db1")).await.err();
    assert!(matches!(used, Some(StartError::Store(StoreError::InUse { .. }))), "{used:?}");
    cluster.stop_node(&name("db1")).await;
    let mut options = cluster.options("db2");
    options.data_dir = cluster.data_dir("db1");
    let text = Consensus::start(options).await.err().expect("refused").to_string();
    assert!(text.contains("belongs to node db1") && text.contains("this is node db2"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_whose_disk_was_wiped_does_not_vote_again() {
    let mut cluster = Cluster::start(19, timing(50, 150, 300)).await;
    cluster.commit(1).await;
    let wiped = cluster.others(&cluster.leader().await)[0].clone();
    cluster.stop_node(&wiped).await;
    let saved = cluster.dir.path().join("saved");
    copy_dir(&cluster.data_dir(wiped.as_str()), &saved);
    std::fs::remove_dir_all(cluster.data_dir(wiped.as_str())).expect("removed");
    cluster.start_node(wiped.as_str()).await;
    let leader = cluster.leader().await;
    let told = async {
        let refused = |n: &harness::Running| {
            n.consensus
                .refusals()
                .iter()
                .any(|r| r.who == wiped.as_str() && r.reason.contains("another data directory"))
        };
        while !refused(&cluster.nodes[&leader]) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, told).await.expect("the leader shows the refusal");
    cluster.commit(2).await;
    let node = &cluster.nodes[&wiped];
    assert!(node.events().is_empty() && !node.consensus.waiting().is_empty(), "it took part");

    // With its own directory back it takes part again.
    cluster.stop_node(&wiped).await;
    std::fs::remove_dir_all(cluster.data_dir(wiped.as_str())).expect("removed");
    copy_dir(&saved, &cluster.data_dir(wiped.as_str()));
    cluster.start_node(wiped.as_str()).await;
    cluster.nodes[&wiped].until_applied(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_whose_log_went_backwards_is_refused_and_harms_nobody() {
    let mut cluster = Cluster::start(21, timing(50, 150, 300)).await;
    cluster.commit(1).await;
    let leader = cluster.leader().await;
    let rolled_back = cluster.others(&leader)[0].clone();
    let restart_from_copy = async |cluster: &mut Cluster, restore: bool| {
        cluster.stop_node(&rolled_back).await;
        let (data, copy) = (cluster.data_dir(rolled_back.as_str()), cluster.dir.path().join("copy"));
        if restore {
            std::fs::remove_dir_all(&data).expect("removed");
            copy_dir(&copy, &data);
        } else {
            copy_dir(&data, &copy);
        }
        cluster.start_node(rolled_back.as_str()).await;
    };
    restart_from_copy(&mut cluster, false).await;
    for number in 2..=20 {
        cluster.commit(number).await;
    }
    cluster.nodes[&rolled_back].until_applied(20).await;
    restart_from_copy(&mut cluster, true).await;
    let told = async {
        let refused = |n: &harness::Running| {
            n.consensus.refusals().iter().any(|r| r.who == rolled_back.as_str() && r.reason.contains("went backwards"))
        };
        while !refused(&cluster.nodes[&leader]) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, told).await.expect("the leader shows it");
    cluster.commit(21).await;
    assert_eq!(cluster.leader().await, leader, "the leader was lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_show_up_in_the_refusals() {
    let cluster = Cluster::start(20, timing(50, 150, 300)).await;
    let mut stranger = connect_plain(20, [127, 20, 9, 9]).await;
    let mut closed = [0; 1];
    let ended = tokio::io::AsyncReadExt::read(&mut stranger, &mut closed).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "the connection stays open");
    let refusals = cluster.nodes[&name("db1")].consensus.refusals();
    assert!(refusals.iter().any(|r| r.reason == "no configured node has this address"), "{refusals:?}");
}
