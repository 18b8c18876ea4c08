//! Making a cluster's certificates: one CA, one heartbeat key, and two certificates a node. The manager's has the URI name
//! `regent://<cluster id>/<node>`, which is what peers check; the database's has another, which they refuse. Not here:
//! using them (`transport/`, `engine/postgresql/tls.rs`).

use crate::config::database_tls::{REPLICATION_USER, replication_role};
use crate::durable::{self, FileError};
use crate::types::{ClusterId, NodeName, WallTime};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use std::fs::DirBuilder;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a CA made by `init` is valid.
const CA_DAYS: u64 = 3650;
/// Clocks of hosts may differ: a certificate is valid from a little before it was made.
const BACKDATE: Duration = Duration::from_secs(3600);

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// Nothing is overwritten, ever. Move the file away first, if it is really to be replaced.
    #[error("{path} exists already and is not overwritten")]
    Exists { path: PathBuf },
    /// A file cannot be read or written.
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The directory was not made by `regent cert init`.
    #[error("{path} is not a CA made by `regent cert init`: {what}")]
    NotOurCa { path: PathBuf, what: String },
    /// The certificate library failed.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// No randomness.
    #[error("the system gives no random bytes")]
    Random,
}

/// The URI that names a node in its certificate.
pub fn node_uri(cluster: &ClusterId, node: &NodeName) -> String {
    format!("regent://{cluster}/{node}")
}

/// What `init` makes.
const OF_THE_CA: [&str; 3] = ["ca.pem", "ca.key", "heartbeat.key"];
/// What `issue` makes for one node, under the names that the configuration expects in `/etc/regent`.
const OF_A_NODE: [&str; 6] = ["node.pem", "node.key", "ca.pem", "heartbeat.key", "database.pem", "database.key"];

/// The URI that names a node's database in its certificate: no manager is called so.
pub fn database_uri(cluster: &ClusterId, node: &NodeName) -> String {
    format!("{DATABASE_SCHEME}{cluster}/{node}")
}

/// With which the URI of a database begins.
pub const DATABASE_SCHEME: &str = "regent-database://";

/// Makes a cluster: `ca.pem`, `ca.key` and `heartbeat.key` (32 bytes in hexadecimal) in `dir`, which is made when it is
/// missing. The cluster id is the name and 8 random hexadecimal digits.
pub fn init(dir: &Path, cluster: &str, now: WallTime) -> Result<(ClusterId, [PathBuf; 3]), CertError> {
    make_folder(dir)?;
    let files = OF_THE_CA.map(|name| dir.join(name));
    refuse_existing(&files)?;
    let id = ClusterId(format!("{cluster}-{}", hex(&random::<4>()?)));
    let key = KeyPair::generate()?;
    let mut params = params(&format!("regent CA of {id}"), &format!("regent://{id}"), now, CA_DAYS)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    write(&files[1], key.serialize_pem().as_bytes(), 0o600)?;
    write(&files[2], format!("{}\n", hex(&random::<32>()?)).as_bytes(), 0o600)?;
    write(&files[0], certificate.pem().as_bytes(), 0o644)?;
    Ok((id, files))
}

/// Issues what `node` needs in a folder of its name in `dir`, by the CA that `init` made there: its manager's and its
/// database's certificates, valid for `days`, with their keys, and the cluster's CA and heartbeat key beside them. `names`:
/// host names and addresses that stand in both certificates beside the node's own name.
pub fn issue(dir: &Path, node: &NodeName, names: &[String], days: u64, now: WallTime) -> Result<Issued, CertError> {
    let cluster = cluster_of(dir)?;
    issue_for(dir, node, &cluster, names, days, now)
}

/// The files of one node, in the order of `OF_A_NODE`.
pub type Issued = [PathBuf; 6];

fn issue_for(
    dir: &Path,
    node: &NodeName,
    cluster: &ClusterId,
    names: &[String],
    days: u64,
    now: WallTime,
) -> Result<Issued, CertError> {
    let folder = dir.join(node.as_str());
    let files = OF_A_NODE.map(|name| folder.join(name));
    refuse_existing(&files)?;
    let read = |name: &str| {
        let path = dir.join(name);
        std::fs::read_to_string(&path).map_err(io("read", &path))
    };
    let (ca, heartbeat_key) = (read("ca.pem")?, read("heartbeat.key")?);
    let issuer = Issuer::from_ca_cert_pem(&ca, KeyPair::from_pem(&read("ca.key")?)?)?;
    let names: Vec<&str> = [node.as_str()].into_iter().chain(names.iter().map(String::as_str)).collect();
    let signed = |common_name: &str, uri: &str| sign(params(common_name, uri, now, days)?, &names, &issuer);
    let manager = signed(&format!("{node} of {cluster}"), &node_uri(cluster, node))?;
    // As a client of another node's database it is known by this name.
    let database = signed(&replication_role(REPLICATION_USER, node), &database_uri(cluster, node))?;
    make_folder(&folder)?;
    write(&files[1], manager.1.as_bytes(), 0o600)?;
    write(&files[2], ca.as_bytes(), 0o644)?;
    write(&files[3], heartbeat_key.as_bytes(), 0o600)?;
    write(&files[5], database.1.as_bytes(), 0o600)?;
    write(&files[4], database.0.as_bytes(), 0o644)?;
    write(&files[0], manager.0.as_bytes(), 0o644)?;
    Ok(files)
}

/// A certificate of a new key that also has these names, and the key: both in PEM.
fn sign(
    mut params: CertificateParams,
    names: &[&str],
    issuer: &Issuer<'_, KeyPair>,
) -> Result<(String, String), CertError> {
    let key = KeyPair::generate()?;
    for name in names {
        params.subject_alt_names.push(match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName((*name).try_into()?),
        });
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, issuer)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// The cluster id that the CA in `dir` carries.
pub fn cluster_of(dir: &Path) -> Result<ClusterId, CertError> {
    cluster_in(&dir.join("ca.pem"))
}

/// The cluster id in any certificate of ours, the CA's or a node's.
pub fn cluster_in(path: &Path) -> Result<ClusterId, CertError> {
    let path = path.to_owned();
    let bytes = std::fs::read(&path).map_err(io("read", &path))?;
    let found = super::transport::identity::uris_of_pem(&bytes);
    let found = found.map_err(|what| CertError::NotOurCa { path: path.clone(), what })?;
    let id = found.iter().find_map(|uri| uri.strip_prefix("regent://")).and_then(|rest| rest.split('/').next());
    match id {
        Some(id) if !id.is_empty() => Ok(ClusterId(id.to_owned())),
        _ => Err(CertError::NotOurCa { path, what: "it carries no regent:// name".into() }),
    }
}

fn params(name: &str, uri: &str, now: WallTime, days: u64) -> Result<CertificateParams, CertError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    let from = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(now.0);
    params.not_before = from - BACKDATE;
    params.not_after = from + Duration::from_secs(days.saturating_mul(86_400));
    Ok(params)
}

fn random<const N: usize>() -> Result<[u8; N], CertError> {
    let random = ring::rand::generate::<[u8; N]>(&ring::rand::SystemRandom::new()).map_err(|_| CertError::Random)?;
    Ok(random.expose())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn make_folder(dir: &Path) -> Result<(), CertError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io("make", dir))
}

fn refuse_existing(files: &[PathBuf]) -> Result<(), CertError> {
    match files.iter().find(|path| path.exists()) {
        Some(path) => Err(CertError::Exists { path: path.clone() }),
        None => Ok(()),
    }
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CertError> {
    let written = durable::create(path, mode, |file| file.write_all(bytes));
    written.map_err(|FileError { doing: action, path, source }| CertError::Io { action, path, source })
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CertError {
    move |source| CertError::Io { action, path: path.to_owned(), source }
}

/// A certificate of the same CA that names another cluster: for the test that such a one is refused.
#[cfg(test)]
pub(super) fn issue_foreign(dir: &Path, node: &NodeName, cluster: &str, now: WallTime) -> Issued {
    issue_for(dir, node, &ClusterId(cluster.into()), &[], 1, now).expect("issued")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const NOW: WallTime = WallTime(1_790_000_000_000);

    #[test]
    fn nothing_is_overwritten_and_keys_are_private() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (id, _) = init(dir.path(), "orders", NOW).expect("made");
        assert_eq!(id.0.len(), "orders-".len() + 8);
        assert_eq!(cluster_of(dir.path()).expect("read"), id);
        let node = "db1".parse().expect("valid");
        issue(dir.path(), &node, &[], 30, NOW).expect("issued");
        for name in ["ca.key", "heartbeat.key", "db1/node.key", "db1/heartbeat.key", "db1/database.key"] {
            let mode = std::fs::metadata(dir.path().join(name)).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let key = std::fs::read_to_string(dir.path().join("heartbeat.key")).expect("read");
        assert!(key.trim().len() == 64 && key.trim().bytes().all(|b| b.is_ascii_hexdigit()));
        assert!(matches!(init(dir.path(), "orders", NOW), Err(CertError::Exists { .. })));
        assert!(matches!(issue(dir.path(), &node, &[], 30, NOW), Err(CertError::Exists { .. })));
    }

    #[test]
    fn a_node_gets_what_its_configuration_expects_by_default() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        init(dir.path(), "orders", NOW).expect("made");
        let issued = issue(dir.path(), &"db1".parse().expect("valid"), &[], 30, NOW).expect("issued");
        let written = ["ca ", "certificate ", "key ", "heartbeat_keys ", "tls_"];
        let example = include_str!("../../config/three-databases.toml").lines();
        let defaults: Vec<_> = example.filter(|line| !written.iter().any(|key| line.starts_with(key))).collect();
        let config = crate::config::Config::parse(&defaults.join("\n"), "regent.toml", None, "db1").expect("valid");
        let tls = config.security.tls.expect("required off loopback");
        let database = &config.services.values().next().expect("a service").postgresql.tls.files;
        let (heartbeat_key, manager) = (&config.security.heartbeat_keys[0], [&tls.certificate, &tls.key, &tls.ca]);
        let expected = manager.into_iter().chain([heartbeat_key, &database.certificate, &database.key]);
        assert_eq!(database.ca, tls.ca);
        for (issued, expected) in issued.iter().zip(expected) {
            assert_eq!(issued.file_name(), expected.file_name());
            assert_eq!(expected.parent(), Some(Path::new("/etc/regent")));
        }
        assert_eq!(cluster_in(&issued[0]).expect("a certificate"), cluster_of(dir.path()).expect("a CA"));
    }

    #[test]
    fn issuing_needs_a_ca_of_ours() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let node = "db1".parse().expect("valid");
        let text = issue(dir.path(), &node, &[], 30, NOW).expect_err("no CA").to_string();
        assert!(text.contains("ca.pem"), "{text}");
    }
}
