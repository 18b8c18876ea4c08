//! Making a cluster's certificates: one CA, one heartbeat key, and one certificate a node whose URI name
//! `regent://<cluster id>/<node>` is what peers check. Not here: using them (`transport/`).

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
const OF_A_NODE: [&str; 4] = ["node.pem", "node.key", "ca.pem", "heartbeat.key"];

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

/// Issues what `node` needs in a folder of its name in `dir`, by the CA that `init` made there: its certificate, valid
/// for `days`, and key, and the cluster's CA and heartbeat key beside them.
pub fn issue(dir: &Path, node: &NodeName, days: u64, now: WallTime) -> Result<[PathBuf; 4], CertError> {
    let cluster = cluster_of(dir)?;
    issue_for(dir, node, &cluster, days, now)
}

fn issue_for(
    dir: &Path,
    node: &NodeName,
    cluster: &ClusterId,
    days: u64,
    now: WallTime,
) -> Result<[PathBuf; 4], CertError> {
    let folder = dir.join(node.as_str());
    let files = OF_A_NODE.map(|name| folder.join(name));
    refuse_existing(&files)?;
    let read = |name: &str| {
        let path = dir.join(name);
        std::fs::read_to_string(&path).map_err(io("read", &path))
    };
    let (ca, heartbeat_key) = (read("ca.pem")?, read("heartbeat.key")?);
    let issuer = Issuer::from_ca_cert_pem(&ca, KeyPair::from_pem(&read("ca.key")?)?)?;
    let key = KeyPair::generate()?;
    let mut params = params(&format!("{node} of {cluster}"), &node_uri(cluster, node), now, days)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer)?;
    make_folder(&folder)?;
    write(&files[1], key.serialize_pem().as_bytes(), 0o600)?;
    write(&files[2], ca.as_bytes(), 0o644)?;
    write(&files[3], heartbeat_key.as_bytes(), 0o600)?;
    write(&files[0], certificate.pem().as_bytes(), 0o644)?;
    Ok(files)
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
pub(super) fn issue_foreign(dir: &Path, node: &NodeName, cluster: &str, now: WallTime) -> [PathBuf; 4] {
    issue_for(dir, node, &ClusterId(cluster.into()), 1, now).expect("issued")
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
        issue(dir.path(), &node, 30, NOW).expect("issued");
        for name in ["ca.key", "heartbeat.key", "db1/node.key", "db1/heartbeat.key"] {
            let mode = std::fs::metadata(dir.path().join(name)).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let key = std::fs::read_to_string(dir.path().join("heartbeat.key")).expect("read");
        assert!(key.trim().len() == 64 && key.trim().bytes().all(|b| b.is_ascii_hexdigit()));
        assert!(matches!(init(dir.path(), "orders", NOW), Err(CertError::Exists { .. })));
        assert!(matches!(issue(dir.path(), &node, 30, NOW), Err(CertError::Exists { .. })));
    }

    #[test]
    fn a_node_gets_what_its_configuration_expects_by_default() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        init(dir.path(), "orders", NOW).expect("made");
        let issued = issue(dir.path(), &"db1".parse().expect("valid"), 30, NOW).expect("issued");
        let written = ["ca ", "certificate ", "key ", "heartbeat_keys "];
        let example = include_str!("../../config/three-databases.toml").lines();
        let defaults: Vec<_> = example.filter(|line| !written.iter().any(|key| line.starts_with(key))).collect();
        let config = crate::config::Config::parse(&defaults.join("\n"), "regent.toml", None, "db1").expect("valid");
        let tls = config.security.tls.expect("required off loopback");
        let expected = [&tls.certificate, &tls.key, &tls.ca, &config.security.heartbeat_keys[0]];
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
        let text = issue(dir.path(), &node, 30, NOW).expect_err("no CA").to_string();
        assert!(text.contains("ca.pem"), "{text}");
    }
}
