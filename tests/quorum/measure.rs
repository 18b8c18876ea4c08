//! Measurements, not tests: `cargo test --test quorum -- --ignored --nocapture --test-threads 1`.

use crate::harness::{Cluster, LONG, entry, timing};
use std::time::Duration;
use tokio::time::Instant;

fn spread(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |permille: usize| times[(times.len() - 1) * permille / 1000];
    println!("{name}: n={} min {:?} p50 {:?} p99 {:?} max {:?}", times.len(), at(0), at(500), at(990), at(1000));
}

async fn measure(net: u8, heartbeat: u64, min: u64, max: u64) {
    let label = format!("{heartbeat}/{min}/{max}");
    let mut cluster = Cluster::start(net, timing(heartbeat, min, max)).await;
    let leader = cluster.leader().await;
    let consensus = cluster.nodes[&leader].consensus.clone();
    let (mut commits, mut reads) = (Vec::new(), Vec::new());
    for number in 0..1000 {
        let began = Instant::now();
        consensus.propose(entry(number), LONG).await.expect("committed");
        commits.push(began.elapsed());
        let began = Instant::now();
        consensus.quorum_read(LONG).await.expect("confirmed");
        reads.push(began.elapsed());
    }
    let follower = &cluster.nodes[&cluster.others(&leader)[0]];
    let mut applied = Vec::new();
    for number in 2000..2200 {
        let began = Instant::now();
        let (proposed, ()) = tokio::join!(consensus.propose(entry(number), LONG), follower.until_applied(number));
        proposed.expect("committed");
        applied.push(began.elapsed());
    }
    drop(consensus);
    spread(&format!("{label} commit"), commits);
    spread(&format!("{label} quorum read"), reads);
    spread(&format!("{label} proposal to applied on a follower"), applied);
    let mut lost = Vec::new();
    for number in 0..10 {
        let old = cluster.leader().await;
        let began = Instant::now();
        cluster.stop_node(&old).await;
        cluster.commit(3000 + number).await;
        lost.push(began.elapsed());
        cluster.start_node(old.as_str()).await;
        cluster.nodes[&old].until_applied(3000 + number).await;
    }
    spread(&format!("{label} leader stopped to first commit"), lost);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn times_at_50_150_300() {
    measure(31, 50, 150, 300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn times_at_20_80_160() {
    measure(32, 20, 80, 160).await;
}
