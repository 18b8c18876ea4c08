//! How long the quorum takes: commits, quorum reads, a lost leader. It measures and prints, and asserts nothing about
//! the times: `make bench-quorum`.

#![expect(clippy::disallowed_methods, reason = "a measurement reads clocks")]

#[expect(dead_code, reason = "the tests use the rest of it")]
mod harness;

use harness::{Cluster, LONG, entry, timing};
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

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    measure(31, 50, 150, 300).await;
    measure(32, 20, 80, 160).await;
}
