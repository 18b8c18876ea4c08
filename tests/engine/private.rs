//! Replication that is kept private: what nodes prove to one another, in each of the ways in which it can be set up; who is
//! refused; and a cluster that gets its certificates while it runs.

use crate::cluster::{Cluster, LADDER, bin_dir, possible};
use crate::coming_back::fail_over;
use crate::company::Company;
use regent::clock;
use regent::config::ReplicationTls;
use regent::consensus::certs;
use regent::engine::Engine;
use regent::types::{DbAction, DbState, Epoch, NodeName};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

const NAMES: [&str; 3] = ["db1", "db2", "db3"];
const PASSWORD: &str = "of the replication roles";

/// Puts a file there that its owner alone may read.
fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("in a folder")).expect("made");
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("mine");
}

/// Certificates by `regent cert issue`, where the configuration looks for them.
fn issue(cluster: &Cluster) {
    let authority = cluster.path().join("ca");
    certs::init(&authority, "test", clock::wall()).expect("a CA");
    for name in cluster.nodes.keys() {
        let node: NodeName = name.parse().expect("a name");
        certs::issue(&authority, &node, &[], 1, clock::wall()).expect("issued");
        let own = cluster.path().join(name);
        fs::create_dir_all(&own).expect("made");
        fs::rename(authority.join(name), own.join("tls")).expect("moved");
    }
}

/// Certificates by a company's CA, in the same places.
fn install(company: &Company, cluster: &Cluster) {
    for (name, node) in &cluster.nodes {
        let (pem, key) = company.issue(&node.config.me().hostname);
        let tls = cluster.path().join(name).join("tls");
        put(&tls.join("ca.pem"), &company.pem);
        put(&tls.join("database.pem"), &pem);
        put(&tls.join("database.key"), &key);
    }
}

/// One way to set it up.
#[derive(Clone, Copy)]
struct Way {
    password: bool,
    by_operators_ca: bool,
    user: &'static str,
}

const CERTIFICATES: Way = Way { password: false, by_operators_ca: false, user: "regent_replication" };

/// Three nodes, none started, with their certificates in place.
fn prepared(way: Way) -> Cluster {
    let mut cluster = Cluster::with(&NAMES, |postgresql| {
        postgresql.replication_user = way.user.to_owned();
        postgresql.tls.replication = ReplicationTls::Required;
        postgresql.tls.by_operators_ca = way.by_operators_ca;
        let folder = postgresql.data_dir.parent().expect("of this node");
        postgresql.replication_password_file = way.password.then(|| folder.join("replication.pw"));
    });
    if way.password {
        NAMES.iter().for_each(|name| put(&cluster.path().join(name).join("replication.pw"), PASSWORD));
    }
    if way.by_operators_ca {
        for node in cluster.nodes.values_mut() {
            let config = Arc::get_mut(&mut node.config).expect("no engine yet");
            config.nodes.iter_mut().for_each(|(name, node)| node.hostname = format!("{name}.example.org"));
        }
        install(&Company::new(), &cluster);
    } else {
        issue(&cluster);
    }
    for name in NAMES {
        cluster.engine(name);
    }
    cluster
}

/// What the primary knows of each standby's connection: its application's name, whether it is by TLS, and by which name.
async fn connections(cluster: &Cluster, primary: &str) -> Vec<(String, bool, Option<String>)> {
    let question = "select r.application_name, s.ssl, s.client_dn from pg_stat_replication r \
        join pg_stat_ssl s using (pid) where r.state = 'streaming' order by 1";
    let client = cluster.node(primary).client().await.expect("the server lets us in");
    let rows = client.query(question, &[]).await.expect("asked");
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

/// Start, loss of the primary, rewind, clone, and back in order: each connection on the way is by TLS and by certificate.
async fn full_round(way: Way) {
    let cluster = prepared(way);
    cluster.create("db1").await;
    cluster.follow("db2", "db1").await;
    fail_over(&cluster).await;
    let (db1, db2) = (cluster.node("db1"), cluster.node("db2"));
    let rewound = format!("{:?}", cluster.follow("db1", "db2").await);
    assert!(rewound.contains("rewound"), "{rewound}");
    let cloned = format!("{:?}", cluster.follow("db3", "db2").await);
    assert!(cloned.contains("cloned"), "{cloned}");
    let common_name = |name: &str| match way.by_operators_ca {
        true => format!("/CN={name}.example.org"),
        false => format!("/CN=regent_replication_{name}"),
    };
    let proved = |name: &str| (name.to_owned(), true, Some(common_name(name)));
    until_connections(&cluster, "db2", &[proved("db1"), proved("db3")]).await;
    // Back to the first, in order.
    db2.done(DbAction::Stop { ladder: LADDER }).await;
    db1.done(DbAction::Seal).await;
    db1.lease(3, Duration::from_secs(3600));
    db1.done(DbAction::Promote { epoch: Epoch(3), timeline: regent::types::Timeline(3) }).await;
    cluster.follow("db2", "db1").await;
    cluster.follow_running("db3", "db1").await;
    until_connections(&cluster, "db1", &[proved("db2"), proved("db3")]).await;
    db1.sql("insert into orders values (4)").await;
    db2.until_ids(&[1, 3, 4]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_round_by_certificates() {
    if possible() {
        full_round(CERTIFICATES).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_round_with_a_password_beside_the_certificates() {
    if possible() {
        full_round(Way { password: true, ..CERTIFICATES }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_round_by_certificates_of_an_operators_own_ca_whose_names_are_mapped_to_roles() {
    if possible() {
        full_round(Way { by_operators_ca: true, user: "replicator", ..CERTIFICATES }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_round_by_certificates_of_an_operators_own_ca_with_a_password() {
    if possible() {
        full_round(Way { by_operators_ca: true, password: true, user: "replicator" }).await;
    }
}

/// What psql says, as the database's user, over TCP.
fn psql(conninfo: &str, password: Option<&str>) -> Result<String, String> {
    let mut command = Command::new("runuser");
    command
        .args(["-u", "postgres", "--"])
        .arg(Path::new(bin_dir()).join("psql"))
        .args(["-XtA", "-c", "select 1", conninfo]);
    // Nothing of this process's environment or user may help it.
    command.env("PGPASSWORD", password.unwrap_or_default()).env("HOME", "/nonexistent").current_dir("/");
    let output = command.output().expect("psql runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Files that the database's user can read.
fn readable(folder: &Path, pems: &[(&str, &str)]) -> Vec<PathBuf> {
    let user = nix::unistd::User::from_name("postgres").expect("readable").expect("it is installed");
    let paths = pems.iter().map(|(name, text)| {
        let path = folder.join(name);
        put(&path, text);
        std::os::unix::fs::chown(&path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("root");
        path
    });
    let paths = paths.collect();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("mine");
    paths
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_prove_to_be_a_node_is_refused() {
    if !possible() {
        return;
    }
    for password in [false, true] {
        let cluster = prepared(Way { password, ..CERTIFICATES });
        cluster.create("db1").await;
        let (me, port) = (cluster.node("db1").config.me(), cluster.node("db1").postgresql().port);
        let secret = password.then_some(PASSWORD);
        let run = cluster.node("db1").run();
        let to = |rest: &str| {
            let place = format!("host=db1 hostaddr={} port={port} dbname=postgres", me.primary);
            psql(&format!("{place} user=regent_replication_db2 {rest}"), secret)
        };
        let root = format!("sslrootcert={}", run.join("database-ca.pem").display());
        let by = |folder: &Path| {
            let (pem, key) = (folder.join("database.pem"), folder.join("database.key"));
            format!("sslmode=verify-full {root} sslcert={} sslkey={}", pem.display(), key.display())
        };
        // In the clear, and by TLS without a certificate; with the password, where there is one.
        let plain = to("sslmode=disable").expect_err("in the clear");
        // In the words of 13 and of later versions.
        assert!(plain.contains("SSL off") || plain.contains("no encryption"), "{plain}");
        let bare = to(&format!("sslmode=verify-full {root} sslcert=/nonexistent sslkey=/nonexistent"));
        assert!(bare.as_ref().is_err_and(|why| why.contains("certificate")), "{bare:?}");
        // With a certificate of another CA, whatever name it has.
        let folder = tempfile::Builder::new().prefix("regent-tls-").tempdir_in("/var/tmp").expect("a directory");
        let (pem, key) = Company::new().issue("regent_replication_db2");
        readable(folder.path(), &[("database.pem", &pem), ("database.key", &key)]);
        let foreign = to(&by(folder.path()));
        assert!(foreign.as_ref().is_err_and(|why| why.contains("unknown ca")), "{foreign:?}");
        // With another node's certificate, of the right CA.
        let another = to(&by(&run));
        assert!(another.as_ref().is_err_and(|why| why.contains("authentication failed")), "{another:?}");
        // With its own it is let in: what was refused was refused for what it lacked.
        assert_eq!(to(&by(&cluster.node("db2").run())).as_deref(), Ok("1"));
        // And its own name counts, not merely its certificate: a server that is another is not believed.
        let place = format!("host=db3 hostaddr={} port={port} dbname=postgres", me.primary);
        let impostor = psql(&format!("{place} user=regent_replication_db2 {}", by(&cluster.node("db2").run())), secret);
        assert!(impostor.as_ref().is_err_and(|why| why.contains("does not match host name")), "{impostor:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_prove_to_be_the_primary_is_not_followed() {
    if !possible() {
        return;
    }
    let mut cluster = prepared(CERTIFICATES);
    cluster.create("db1").await;
    cluster.follow("db2", "db1").await;
    // From now on db1 comes with another node's certificate, of the right CA.
    let (run, another) = (cluster.node("db1").run(), cluster.node("db3").run());
    for file in ["database.pem", "database.key"] {
        fs::write(run.join(file), fs::read(another.join(file)).expect("handed over")).expect("written");
    }
    let upstream = cluster.upstream("db1");
    cluster.node("db1").sql("select pg_reload_conf()").await;
    let refused = loop {
        let refused = cluster.node("db3").fails(DbAction::Rejoin { upstream: upstream.clone(), order: None }).await;
        // Until the server has read them.
        if refused.contains("not valid for name") {
            break refused;
        }
    };
    assert!(refused.contains("connect to the upstream"), "{refused}");
    assert_eq!(cluster.node("db3").until_state(DbState::Absent).await.state, DbState::Absent);
    // Nor does a standby go on streaming that has to connect again.
    cluster.node("db1").sql("select pg_terminate_backend(pid) from pg_stat_replication").await;
    cluster.node("db2").until("without an upstream", |seen| seen.streams_from.is_none()).await;
    let log = cluster.node("db2").log();
    while !fs::read_to_string(&log).expect("there").contains("does not match host name") {
        assert!(cluster.node("db2").engine().latest().streams_from.is_none(), "it streams from another");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A node without a certificate asks nobody, and says what it lacks.
    fs::remove_dir_all(cluster.path().join("db3/tls")).expect("removed");
    fs::remove_file(cluster.node("db3").run().join("database.pem")).expect("removed");
    cluster.engine("db3");
    let bare = cluster.node("db3").fails(DbAction::Rejoin { upstream, order: None }).await;
    assert!(bare.contains("has no certificate") && bare.contains("regent cert issue"), "{bare}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_fit_costs_neither_the_server_nor_the_one_before() {
    if !possible() {
        return;
    }
    let mut cluster = prepared(CERTIFICATES);
    cluster.create("db1").await;
    let tls = cluster.path().join("db1/tls");
    let (run, before) = (cluster.node("db1").run(), fs::read_to_string(tls.join("database.pem")).expect("there"));
    let (another, _) = Company::new().issue("db1");
    for unfit in [another.as_str(), "no certificate", ""] {
        put(&tls.join("database.pem"), unfit);
        cluster.engine("db1");
        assert_eq!(fs::read_to_string(run.join("database.pem")).expect("there"), before);
        let db1 = cluster.node("db1");
        db1.done(DbAction::Stop { ladder: LADDER }).await;
        db1.lease(1, Duration::from_secs(3600));
        db1.done(DbAction::StartPrimary { epoch: Epoch(1), known: None }).await;
    }
    // One that is fit takes the place of the one before, and the server that runs shows it from then on.
    let renewed = cluster.path().join("renewed");
    fs::rename(cluster.path().join("ca"), &renewed).expect("moved");
    let issued = certs::issue(&renewed, &"db1".parse().expect("a name"), &[], 1, clock::wall()).expect("issued");
    put(&tls.join("database.pem"), &fs::read_to_string(&issued[4]).expect("issued"));
    put(&tls.join("database.key"), &fs::read_to_string(&issued[5]).expect("issued"));
    let (shown, postmaster) = (shown_by(&cluster, "db1"), cluster.node("db1").postmaster());
    assert!(shown.is_some());
    cluster.engine("db1");
    for _ in 0..100 {
        if shown_by(&cluster, "db1") != shown {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_ne!(shown_by(&cluster, "db1"), shown, "the server still shows the old certificate");
    assert_eq!(cluster.node("db1").postmaster(), postmaster);
    let key = fs::read_to_string(tls.join("database.key")).expect("there");
    // A key that others may read is no secret; nor is one that is a pipe or has no end waited for.
    fs::set_permissions(tls.join("database.key"), fs::Permissions::from_mode(0o644)).expect("mine");
    cluster.engine("db1");
    assert_eq!(fs::read_to_string(run.join("database.key")).expect("there"), key);
    for endless in ["/dev/zero", "/dev/null"] {
        fs::remove_file(tls.join("database.key")).expect("removed");
        std::os::unix::fs::symlink(endless, tls.join("database.key")).expect("linked");
        cluster.engine("db1");
        assert_eq!(fs::read_to_string(run.join("database.key")).expect("there"), key);
    }
}

/// The certificate that a server shows to whoever connects.
fn shown_by(cluster: &Cluster, name: &str) -> Option<String> {
    let (me, port) = (cluster.node(name).config.me(), cluster.node(name).postgresql().port);
    let mut client = Command::new("openssl");
    client.args(["s_client", "-starttls", "postgres", "-connect", &format!("{}:{port}", me.primary)]);
    let output = client.stdin(std::process::Stdio::null()).output().expect("openssl runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----")?;
    rest.split_once("-----END").map(|(pem, _)| pem.to_owned())
}

/// Restarts the "daemon" of a node with another file; the server goes on.
fn restart(cluster: &mut Cluster, name: &'static str, replication: ReplicationTls) {
    let node = cluster.nodes.get_mut(name).expect("a node");
    node.drop_engine();
    let mut config = (*node.config).clone();
    let service = config.services.values_mut().next().expect("one service");
    service.postgresql.tls.replication = replication;
    node.config = Arc::new(config);
    cluster.engine(name);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_runs_without_certificates_gets_them_without_a_restart_of_any_server() {
    if !possible() {
        return;
    }
    // As an earlier version ran it: without a password and without TLS.
    let mut cluster = Cluster::running(&NAMES).await;
    let plain = |name: &str| (name.to_owned(), false, None);
    assert_eq!(connections(&cluster, "db1").await, [plain("db2"), plain("db3")]);
    let postmasters: Vec<i32> = NAMES.iter().map(|name| cluster.node(name).postmaster()).collect();
    // First the files say that TLS may be; then the certificates are there; then it must be. One node after the other.
    for name in NAMES {
        restart(&mut cluster, name, ReplicationTls::Optional);
        assert_streams(&cluster).await;
    }
    issue(&cluster);
    for replication in [ReplicationTls::Optional, ReplicationTls::Required] {
        for name in NAMES {
            restart(&mut cluster, name, replication);
            assert_streams(&cluster).await;
        }
    }
    let proved = |name: &str| (name.to_owned(), true, Some(format!("/CN=regent_replication_{name}")));
    until_connections(&cluster, "db1", &[proved("db2"), proved("db3")]).await;
    let now: Vec<i32> = NAMES.iter().map(|name| cluster.node(name).postmaster()).collect();
    assert_eq!(now, postmasters);
    // And back: what was given is taken away again, and every server can still be started.
    for replication in [ReplicationTls::Optional, ReplicationTls::Off] {
        for name in NAMES {
            if replication == ReplicationTls::Off {
                let _ = fs::remove_dir_all(cluster.path().join(name).join("tls"));
            }
            restart(&mut cluster, name, replication);
            assert_streams(&cluster).await;
        }
    }
    let db2 = cluster.node("db2");
    db2.done(DbAction::Stop { ladder: LADDER }).await;
    cluster.follow("db2", "db1").await;
    assert!(!cluster.node("db2").run().join("database.key").exists());
}

/// What is written now gets to both standbys.
async fn assert_streams(cluster: &Cluster) {
    let db1 = cluster.node("db1");
    db1.sql("insert into orders select coalesce(max(id), 0) + 1 from orders").await;
    let ids = db1.ids().await;
    for name in ["db2", "db3"] {
        cluster.node(name).until_ids(&ids).await;
    }
}

async fn until_connections(cluster: &Cluster, primary: &str, expected: &[(String, bool, Option<String>)]) {
    for _ in 0..200 {
        if connections(cluster, primary).await == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{:?}", connections(cluster, primary).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_managers_key_is_out_of_the_database_users_reach() {
    if !possible() {
        return;
    }
    let cluster = prepared(CERTIFICATES);
    cluster.create("db1").await;
    let own = cluster.path().join("db1/tls");
    let manager = fs::read_to_string(own.join("node.key")).expect("issued");
    // With everything that it can read, wherever that is.
    let mut find = Command::new("runuser");
    find.args(["-u", "postgres", "--", "find"]).arg(cluster.path()).args(["-type", "f", "-readable", "-print0"]);
    let found = find.current_dir("/").output().expect("find runs").stdout;
    let files = found.split(|byte| *byte == 0).filter(|path| !path.is_empty());
    let files: Vec<PathBuf> = files.map(|path| String::from_utf8_lossy(path).into_owned().into()).collect();
    assert!(files.iter().any(|path| path.ends_with("database.key")), "the search finds what is handed over: {files:?}");
    let secret: String = manager.lines().filter(|line| !line.starts_with("---")).collect();
    for path in files {
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).replace('\n', "");
        assert!(!text.contains(&secret), "{} holds the manager's key", path.display());
    }
}

/// Where the database's user owns the folder in which its secrets are looked for, it can put a link there; what the link
/// leads to is read with that user's rights.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_hands_the_database_user_no_secret_that_is_not_its_own() {
    if !possible() {
        return;
    }
    let mut cluster = prepared(Way { password: true, ..CERTIFICATES });
    cluster.create("db1").await;
    let user = nix::unistd::User::from_name("postgres").expect("readable").expect("it is installed");
    let (own, run) = (cluster.path().join("db1"), cluster.node("db1").run());
    let roots = cluster.path().join("roots");
    fs::rename(own.join("tls"), &roots).expect("moved");
    let folder = own.join("tls");
    fs::create_dir(&folder).expect("made");
    for owned in [&own, &folder] {
        std::os::unix::fs::chown(owned, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("root");
    }
    let link = |from: PathBuf, to: PathBuf| {
        let _ = fs::remove_file(&from);
        std::os::unix::fs::symlink(to, &from).expect("linked");
        std::os::unix::fs::lchown(&from, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("root");
    };
    // The manager's pair in the place of the database's, and another key of root's in the place of the password.
    link(folder.join("ca.pem"), roots.join("ca.pem"));
    link(folder.join("database.pem"), roots.join("node.pem"));
    link(folder.join("database.key"), roots.join("node.key"));
    link(own.join("replication.pw"), roots.join("heartbeat.key"));
    let before = fs::read_to_string(run.join("database.key")).expect("handed over");
    cluster.engine("db1");
    // The server that runs keeps what it has.
    let seen = cluster.node("db1").until("in fault", |seen| seen.files.fault.is_some()).await;
    let fault = seen.files.fault.expect("waited for").to_string();
    assert!(fault.contains("replication.pw") && fault.contains("Permission denied"), "{fault}");
    assert_eq!(fs::read_to_string(run.join("database.key")).expect("there"), before);
    cluster.node("db1").done(DbAction::Stop { ladder: LADDER }).await;
    cluster.engine("db1");
    let db1 = cluster.node("db1");
    db1.lease(1, Duration::from_secs(3600));
    let refused = db1.fails(DbAction::StartPrimary { epoch: Epoch(1), known: None }).await;
    assert!(refused.contains("replication.pw") && refused.contains("Permission denied"), "{refused}");
    let secret = fs::read_to_string(roots.join("heartbeat.key")).expect("there");
    assert!(!fs::read_to_string(run.join("pgpass")).expect("there").contains(secret.trim()));
}
