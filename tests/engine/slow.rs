//! A primary that lets in only after a long while, as one that asks a resolver which does not answer for each client's name.

use crate::cluster::{Cluster, possible, timed};
use crate::coming_back::fail_over;
use regent::engine::Engine;
use regent::types::{DbAction, DbDone, Upstream};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// What such a login takes.
const LOGIN: Duration = Duration::from_secs(12);

/// Hands on every connection, after that time.
async fn hold_up(at: SocketAddr, to: SocketAddr) {
    let door = TcpListener::bind(at).await.expect("a free address");
    tokio::spawn(async move {
        while let Ok((mut from, _)) = door.accept().await {
            tokio::spawn(async move {
                tokio::time::sleep(LOGIN).await;
                let Ok(mut on) = TcpStream::connect(to).await else { return };
                let _ = tokio::io::copy_bidirectional(&mut from, &mut on).await;
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_takes_long_is_waited_for_by_a_rewind_a_copy_and_a_stream() {
    if !possible() {
        return;
    }
    let mut cluster = Cluster::running(&["db1", "db2", "db3"]).await;
    fail_over(&cluster).await;
    cluster.node("db2").lease(2, Duration::from_secs(3600));
    let (port, real) = (cluster.node("db2").postgresql().port, cluster.node("db2").config.me().clone());
    let held_up = [real.primary, real.secondary].map(|address| match address {
        IpAddr::V4(v4) => IpAddr::from([v4.octets()[0], v4.octets()[1], v4.octets()[2], 200]),
        IpAddr::V6(_) => unreachable!("these tests use IPv4"),
    });
    for (at, to) in held_up.into_iter().zip([real.primary, real.secondary]) {
        hold_up((at, port).into(), (to, port).into()).await;
    }
    let upstream = Upstream { node: "db2".parse().expect("a name"), addresses: held_up.to_vec(), port };
    let directory = cluster.node("db3").postgresql().data_dir.clone();
    cluster.node("db3").enclosure().kill();
    for name in ["db1", "db3"] {
        let node = cluster.nodes.get_mut(name).expect("a node");
        let known = Arc::make_mut(&mut node.config).nodes.get_mut(&upstream.node).expect("a node");
        (known.primary, known.secondary) = (held_up[0], held_up[1]);
        cluster.engine(name);
    }
    cluster.node("db3").until_state(regent::types::DbState::Stopped).await;
    std::fs::remove_dir_all(directory).expect("removed");
    for (name, how) in [("db1", "rewound"), ("db3", "cloned")] {
        let node = cluster.node(name);
        let rejoin = DbAction::Rejoin { upstream: upstream.clone(), order: None };
        let (done, _) = timed(how, node.done(rejoin)).await;
        let DbDone::Rejoined { how: did, .. } = done else { panic!("{done:?}") };
        assert!(did.starts_with(how), "{did}");
        let start = node.engine().perform(DbAction::StartStandby { upstream: Some(upstream.clone()) });
        timed("start", start).await;
        node.until("streaming", |seen| seen.streams_from.is_some()).await;
    }
}
