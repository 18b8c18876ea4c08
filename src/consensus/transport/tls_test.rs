//! Each way in which a node can be refused, against a real listener, with the sentence that `status` shows.

use super::dial::{Dial, DialError};
use super::proto::{CallRequest, HelloReply, HelloRequest, RaftRequest};
use super::refusals::Refusals;
use super::server::{self, Gate, Service};
use super::tls::{Tls, TlsError};
use super::{Addresses, Credentials, HEADER_CLUSTER, HEADER_FOUNDER, HEADER_NODE, Identity};
use crate::config;
use crate::consensus::certs;
use crate::types::{ClusterId, NodeName, WallTime};
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::{Code, Status};

const DAY: u64 = 86_400_000;

fn now() -> WallTime {
    let now = rustls::pki_types::UnixTime::now();
    WallTime(now.as_secs() * 1000)
}

fn name(n: &str) -> NodeName {
    n.parse().expect("valid")
}

struct Deaf;
impl Service for Deaf {
    fn hello(&self) -> HelloReply {
        HelloReply { node: "db1".into(), ..HelloReply::default() }
    }
    fn raft(&self, _: NodeName, _: RaftRequest) -> BoxFuture<'_, Result<Vec<u8>, String>> {
        Box::pin(async { Err("not here".into()) })
    }
    fn call(&self, from: NodeName, _: CallRequest) -> BoxFuture<'_, Result<Vec<u8>, String>> {
        Box::pin(async move { Ok(from.to_string().into_bytes()) })
    }
    fn seen(&self, _: &NodeName) {}
    fn founder_of(&self, node: &NodeName) -> Option<String> {
        (node.as_str() == "db2").then(|| "f2".to_owned())
    }
    fn listening(&self, _: SocketAddr, error: Option<String>) {
        assert_eq!(error, None);
    }
}

/// A CA, and db1 listening; the addresses differ from test to test.
struct Listener {
    dir: tempfile::TempDir,
    cluster: ClusterId,
    refusals: Arc<Refusals>,
    net: u8,
    server: JoinHandle<()>,
    _stop: oneshot::Sender<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn files(dir: &Path, node: &str) -> config::Tls {
    config::Tls {
        ca: dir.join(node).join("ca.pem"),
        certificate: dir.join(node).join("node.pem"),
        key: dir.join(node).join("node.key"),
    }
}

fn tls(dir: &Path, cluster: &str, node: &str) -> Arc<Tls> {
    Arc::new(Tls::load(&files(dir, node), cluster, &name(node)).expect("loaded"))
}

fn ip(net: u8, host: u8) -> IpAddr {
    IpAddr::from([127, 1, net, host])
}

impl Listener {
    async fn start(net: u8, secure: bool) -> Self {
        Self::with(net, |dir, id| match secure {
            true => (Credentials::Tls(tls(dir, "orders", "db1")), id),
            false => {
                let cluster = ClusterId("orders".into());
                (Credentials::Insecure { cluster: cluster.clone() }, cluster)
            }
        })
    }

    fn with(net: u8, proof: impl FnOnce(&Path, ClusterId) -> (Credentials, ClusterId)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (id, _) = certs::init(dir.path(), "orders", now()).expect("a CA");
        certs::issue(dir.path(), &name("db1"), &[], 1, now()).expect("issued");
        certs::issue(dir.path(), &name("db2"), &[], 1, now()).expect("issued");
        let (credentials, cluster) = proof(dir.path(), id);
        let on = |host| Addresses {
            primary: SocketAddr::new(ip(net, host), 17_420),
            secondary: SocketAddr::new(ip(net, host + 100), 17_420),
        };
        let refusals = Arc::new(Refusals::default());
        let gate = Gate {
            credentials,
            me: Identity { cluster: cluster.clone(), node: name("db1"), founder: "f1".into() },
            nodes: BTreeMap::from([(name("db1"), on(1)), (name("db2"), on(2)), (name("db3"), on(3))]),
            refusals: refusals.clone(),
            silence: Duration::from_secs(2),
        };
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(server::serve(Arc::new(gate), Arc::new(Deaf), stopped));
        Listener { dir, cluster, refusals, net, server, _stop: stop }
    }

    fn dial(&self, credentials: Credentials, host: u8) -> Dial {
        Dial {
            credentials,
            peer: name("db1"),
            local: ip(self.net, host),
            remote: SocketAddr::new(ip(self.net, 1), 17_420),
            timeout: Duration::from_secs(10),
            silence: Duration::from_secs(2),
        }
    }

    /// Says hello from `host` with these headers.
    async fn hello(&self, dial: &Dial, who: [&str; 3]) -> Result<(), Status> {
        let connected = async {
            loop {
                match dial.connect().await {
                    // The listener is still coming up.
                    Err(DialError::Io(e)) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
                        tokio::task::yield_now().await;
                    }
                    other => return other,
                }
            }
        };
        let (mut client, _gone) = connected.await.map_err(|e| Status::unavailable(e.to_string()))?;
        let mut request = tonic::Request::new(HelloRequest {});
        for (header, value) in [HEADER_CLUSTER, HEADER_NODE, HEADER_FOUNDER].into_iter().zip(who) {
            request.metadata_mut().insert(header, value.parse().expect("plain text"));
        }
        client.hello(request).await.map(|_| ())
    }

    /// The one refusal that was noted; the server notes it on its own time.
    async fn refusal(&self) -> String {
        loop {
            if let Some(refusal) = self.refusals.list().first() {
                return format!("{}: {}", refusal.who, refusal.reason);
            }
            tokio::task::yield_now().await;
        }
    }

    /// What db1 notes when db2 comes with these files.
    async fn refused_with(&self, dir: &Path) -> String {
        let files = files(dir, "db2");
        // The visitor's own checks are not what is tested: it takes whatever it was given.
        let own = Tls::load_unchecked(&files, self.cluster.clone(), &self.dir.path().join("ca.pem"));
        let dial = self.dial(Credentials::Tls(Arc::new(own)), 2);
        let said = self.hello(&dial, [&self.cluster.0, "db2", "f2"]).await;
        assert!(said.is_err(), "it was let in");
        self.refusal().await
    }
}

#[tokio::test]
async fn a_node_with_a_right_certificate_is_let_in() {
    let db1 = Listener::start(1, true).await;
    let dial = db1.dial(Credentials::Tls(tls(db1.dir.path(), "orders", "db2")), 2);
    db1.hello(&dial, [&db1.cluster.0, "db2", "f2"]).await.expect("let in");
    assert_eq!(db1.refusals.list(), []);
}

#[tokio::test]
async fn another_ca_is_refused() {
    let db1 = Listener::start(2, true).await;
    let other = tempfile::tempdir().expect("a temporary directory");
    certs::init(other.path(), "orders", now()).expect("another CA");
    certs::issue(other.path(), &name("db2"), &[], 1, now()).expect("issued");
    let refusal = db1.refused_with(other.path()).await;
    assert!(refusal.contains("db2?: its certificate was issued by another CA (CN=regent CA of orders-"), "{refusal}");
}

#[tokio::test]
async fn another_cluster_is_refused() {
    let db1 = Listener::start(3, true).await;
    std::fs::remove_dir_all(db1.dir.path().join("db2")).expect("removed");
    certs::issue_foreign(db1.dir.path(), &name("db2"), "billing-12345678", now());
    let refusal = db1.refused_with(db1.dir.path()).await;
    let expected = format!("its certificate is for another cluster (billing-12345678), this is {}", db1.cluster);
    assert!(refusal.contains(&expected), "{refusal}");
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let db1 = Listener::start(4, true).await;
    let old = WallTime(now().0 - 10 * DAY);
    std::fs::remove_dir_all(db1.dir.path().join("db2")).expect("removed");
    certs::issue(db1.dir.path(), &name("db2"), &[], 1, old).expect("issued");
    let refusal = db1.refused_with(db1.dir.path()).await;
    assert!(refusal.contains("its certificate has expired (") && refusal.contains("regent cert issue"), "{refusal}");
}

/// The certificate of a node's database, in the place of its manager's.
fn of_the_database(dir: &Path, node: &str) {
    for kind in ["pem", "key"] {
        let (database, manager) = (format!("database.{kind}"), format!("node.{kind}"));
        std::fs::rename(dir.join(node).join(database), dir.join(node).join(manager)).expect("issued");
    }
}

#[tokio::test]
async fn nobody_is_a_manager_with_a_databases_certificate() {
    let db1 = Listener::start(9, true).await;
    of_the_database(db1.dir.path(), "db2");
    let refusal = db1.refused_with(db1.dir.path()).await;
    let id = &db1.cluster;
    let expected = format!("its certificate is that of a database ({id}/db2), with which nobody is a manager");
    assert!(refusal.contains(&expected), "{refusal}");
    // Nor is a server, and a daemon does not start with it.
    let impostor = Listener::with(10, |dir, id| {
        of_the_database(dir, "db1");
        let own = Tls::load_unchecked(&files(dir, "db1"), id.clone(), &dir.join("ca.pem"));
        (Credentials::Tls(Arc::new(own)), id)
    });
    let dial = impostor.dial(Credentials::Tls(tls(impostor.dir.path(), "orders", "db2")), 2);
    let said = impostor.hello(&dial, [&impostor.cluster.0, "db2", "f2"]).await.expect_err("it passed for a manager");
    assert!(said.message().contains("that of a database"), "{said}");
    let own = Tls::load(&files(impostor.dir.path(), "db1"), "orders", &name("db1")).err().expect("refused");
    assert!(crate::errors::with_causes(&own).contains("that of a database"), "{own}");
}

#[tokio::test]
async fn no_certificate_is_refused() {
    let db1 = Listener::start(5, true).await;
    let own = Tls::load_unchecked(&files(db1.dir.path(), "db2"), db1.cluster.clone(), &db1.dir.path().join("ca.pem"));
    let dial = db1.dial(Credentials::Tls(Arc::new(own.without_certificate())), 2);
    assert!(db1.hello(&dial, [&db1.cluster.0, "db2", "f2"]).await.is_err());
    let refusal = db1.refusal().await;
    assert!(refusal.contains("it presented no certificate"), "{refusal}");
}

#[tokio::test]
async fn another_nodes_name_is_refused_by_who_is_dialled_and_by_who_dials() {
    let db1 = Listener::start(6, true).await;
    let own = tls(db1.dir.path(), "orders", "db2");
    let dial = db1.dial(Credentials::Tls(own.clone()), 2);
    let said = db1.hello(&dial, [&db1.cluster.0, "db3", "f3"]).await.expect_err("refused");
    assert_eq!(said.code(), Code::PermissionDenied);
    assert!(said.message().contains("it calls itself db3, but its certificate is for another node (db2)"), "{said}");

    let dial = Dial { peer: name("db3"), ..db1.dial(Credentials::Tls(own), 2) };
    let Err(DialError::Refused(reason)) = dial.connect().await else { panic!("db1 passed for db3") };
    assert_eq!(reason, "its certificate is for another node (db1), expected was db3");
}

#[tokio::test]
async fn an_unknown_address_a_foreign_address_and_a_second_directory_are_refused() {
    let db1 = Listener::start(7, true).await;
    let own = Credentials::Tls(tls(db1.dir.path(), "orders", "db2"));
    let id = db1.cluster.0.clone();
    let said = db1.hello(&db1.dial(own.clone(), 3), [&id, "db2", "f2"]).await.expect_err("refused");
    assert!(said.message().contains("it comes from an address that is not db2's (127.1.7.2, 127.1.7.102)"), "{said}");
    let said = db1.hello(&db1.dial(own.clone(), 2), [&id, "db2", "other"]).await.expect_err("refused");
    assert!(said.message().contains("another data directory") && said.message().contains("two hosts share"), "{said}");
    assert!(db1.hello(&db1.dial(own, 99), [&id, "db2", "f2"]).await.is_err());
    let list = db1.refusals.list();
    assert!(list.iter().any(|r| r.who == "unknown" && r.reason == "no configured node has this address"), "{list:?}");
    assert_eq!(list.len(), 3);
}

#[tokio::test]
async fn without_tls_the_name_must_come_from_its_own_address() {
    let db1 = Listener::start(8, false).await;
    let plain = Credentials::Insecure { cluster: db1.cluster.clone() };
    db1.hello(&db1.dial(plain.clone(), 2), ["orders", "db2", "f2"]).await.expect("let in");
    let refused = async |host, who| db1.hello(&db1.dial(plain.clone(), host), who).await.expect_err("refused");
    let said = refused(3, ["orders", "db2", "f2"]).await;
    assert!(said.message().contains("an address that is not db2's"), "{said}");
    let said = refused(2, ["billing", "db2", "f2"]).await;
    assert!(said.message().contains("it belongs to cluster billing, this is orders"), "{said}");
    let said = refused(2, ["orders", "db9", "f9"]).await;
    assert!(said.message().contains("db9 is not a configured node"), "{said}");
    let said = refused(1, ["orders", "db1", "f1"]).await;
    assert!(said.message().contains("this node's own name (db1)"), "{said}");
    assert_eq!(db1.refusals.list().len(), 4);
}

#[test]
fn own_files_that_belong_to_another_node_or_cluster_are_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    certs::init(dir.path(), "orders", now()).expect("a CA");
    certs::issue(dir.path(), &name("db1"), &[], 1, now()).expect("issued");
    let load = |cluster, node: &str| Tls::load(&files(dir.path(), "db1"), cluster, &name(node)).err();
    let describe = |error: Option<TlsError>| error.expect("refused").to_string();
    let text = describe(load("orders", "db2"));
    assert!(text.contains("db1/node.pem") && text.contains("another node (db1), expected was db2"), "{text}");
    let text = describe(load("billing", "db1"));
    assert!(text.contains("another cluster (orders-"), "{text}");
}
