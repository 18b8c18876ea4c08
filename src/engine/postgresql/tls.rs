//! The certificates of the database's own: handed to its user at the daemon's start, and what a connection to another
//! node's database proves by them. The manager's certificate and key are never among them: with these anybody could speak
//! as the node.
//!
//! Not here: what the access file demands (`access.rs`), and making certificates (`consensus/certs.rs`).

use super::core::Core;
use super::error::{EngineError, Result};
use super::layout::Layout;
use crate::config::{Postgresql, ReplicationTls, Tls};
use crate::rights::{self, Access, Rights};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// No certificate file is longer.
const LIMIT: u64 = 1 << 20;

/// What a server and libpq are told of a service's certificates.
pub fn server_settings(layout: &Layout) -> Vec<(&'static str, String)> {
    if !is_handed_over(layout) {
        return Vec::new();
    }
    vec![
        ("ssl", "on".to_owned()),
        ("ssl_ca_file", layout.tls_ca().display().to_string()),
        ("ssl_cert_file", layout.tls_certificate().display().to_string()),
        ("ssl_key_file", layout.tls_key().display().to_string()),
    ]
}

/// The fields of a conninfo. Without certificates a connection that demands them fails, and says what is missing.
pub fn conninfo_fields(postgresql: &Postgresql, layout: &Layout) -> Vec<(&'static str, String)> {
    let mode = match postgresql.tls.replication {
        ReplicationTls::Required => "verify-full",
        ReplicationTls::Optional if is_handed_over(layout) => "prefer",
        ReplicationTls::Optional | ReplicationTls::Off => return Vec::new(),
    };
    vec![
        ("sslmode", mode.to_owned()),
        ("sslrootcert", layout.tls_ca().display().to_string()),
        ("sslcert", layout.tls_certificate().display().to_string()),
        ("sslkey", layout.tls_key().display().to_string()),
    ]
}

/// Whether the database's user has a certificate, its key, and whose certificates it believes. The last of them is
/// handed over last.
pub fn is_handed_over(layout: &Layout) -> bool {
    layout.tls_certificate().exists()
}

/// Hands what the file names to the database's user, if it is fit; what was handed over before stays otherwise. Says
/// what is amiss. Whether a server that runs has to read it.
pub fn hand_over(core: &Core) -> bool {
    let service = &core.service;
    let tls = &core.postgresql().tls;
    let missing = |error: &EngineError| match error {
        EngineError::File { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    };
    let before = handed_over(&core.layout);
    match (tls.replication, try_to_hand_over(core)) {
        (_, Ok(Some(amiss))) => {
            tracing::error!(%service, certificate = %tls.files.certificate.display(), "other nodes will refuse it: {amiss}");
        }
        (_, Ok(None)) => {}
        (ReplicationTls::Optional, Err(error)) if missing(&error) => {
            tracing::warn!(%service, %error, "replication goes without TLS");
        }
        (_, Err(error)) => {
            tracing::error!(%service, %error, "the database's certificate cannot be used; \
                what was handed to the server before, if anything, stays");
        }
    }
    handed_over(&core.layout) != before
}

/// What the database's user has.
fn handed_over(layout: &Layout) -> [Option<String>; 3] {
    let files = [layout.tls_ca(), layout.tls_certificate(), layout.tls_key()];
    files.map(|file| layout.inside.read_text(&file, LIMIT).ok())
}

/// What is amiss with a certificate that was handed over all the same.
fn try_to_hand_over(core: &Core) -> Result<Option<String>> {
    let (layout, postgresql) = (&core.layout, core.postgresql());
    let files = [layout.tls_certificate(), layout.tls_key(), layout.tls_ca()];
    if postgresql.tls.replication == ReplicationTls::Off {
        for file in files {
            Rights::own().remove(&file)?;
        }
        return Ok(None);
    }
    let Tls { ca, certificate, key } = &postgresql.tls.files;
    let user = &layout.inside;
    let (ca_pem, certificate_pem) = (public(user, ca)?, public(user, certificate)?);
    let key_pem =
        rights::read_secret_for(user, key).map_err(|source| EngineError::Secret { path: key.clone(), source })?;
    let key_pem = String::from_utf8_lossy(&key_pem).into_owned();
    let pems = Pems { ca: (ca, &ca_pem), certificate: (certificate, &certificate_pem), key: (key, &key_pem) };
    pems.client()?;
    rights::hand_file(&layout.tls_ca(), &ca_pem, Access::Reads(user))?;
    // A server takes no key that others may read, and libpq none that its own user does not own.
    rights::hand_file(&layout.tls_key(), &key_pem, Access::Owner(user))?;
    rights::hand_file(&layout.tls_certificate(), &certificate_pem, Access::Reads(user))?;
    let me = core.config.me();
    Ok(amiss(&certificate_pem, &postgresql.common_name(&core.config.node, me), &me.hostname))
}

fn public(user: &Rights, path: &Path) -> Result<String> {
    let text = String::from_utf8(rights::read_for(user, path, LIMIT)?);
    text.map_err(|error| EngineError::Malformed { path: path.to_owned(), detail: error.to_string() })
}

/// What a client of another node's database proves and demands; `None` where nothing is demanded.
pub fn client(core: &Core) -> Result<Option<ClientConfig>> {
    let (layout, postgresql) = (&core.layout, core.postgresql());
    if postgresql.tls.replication != ReplicationTls::Required {
        return Ok(None);
    }
    if !is_handed_over(layout) {
        let path = postgresql.tls.files.certificate.clone();
        let detail = "the database has no certificate that can be used, and replication_tls = \"required\"; \
            see the daemon's log, and `regent cert issue`"
            .to_owned();
        return Err(EngineError::Malformed { path, detail });
    }
    let read = |path: &Path| Ok::<_, EngineError>(layout.inside.read_text(path, LIMIT)?);
    let (ca, certificate, key) = (layout.tls_ca(), layout.tls_certificate(), layout.tls_key());
    let (ca_pem, certificate_pem, key_pem) = (read(&ca)?, read(&certificate)?, read(&key)?);
    let pems = Pems { ca: (&ca, &ca_pem), certificate: (&certificate, &certificate_pem), key: (&key, &key_pem) };
    pems.client().map(Some)
}

/// Three files, by path and text.
struct Pems<'a> {
    ca: (&'a Path, &'a str),
    certificate: (&'a Path, &'a str),
    key: (&'a Path, &'a str),
}

impl Pems<'_> {
    /// Errors where they are none, or do not fit together.
    fn client(&self) -> Result<ClientConfig> {
        let malformed = |path: &Path, detail: String| EngineError::Malformed { path: path.to_owned(), detail };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(self.ca)? {
            roots.add(certificate).map_err(|error| malformed(self.ca.0, error.to_string()))?;
        }
        let key = PrivateKeyDer::from_pem_slice(self.key.1.as_bytes());
        let key = key.map_err(|error| malformed(self.key.0, format!("a private key without a passphrase: {error}")))?;
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        builder
            .with_safe_default_protocol_versions()
            .map_err(|error| malformed(self.ca.0, error.to_string()))?
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates(self.certificate)?, key)
            .map_err(|error| {
                malformed(self.certificate.0, format!("the certificate of {}: {error}", self.key.0.display()))
            })
    }
}

fn certificates((path, pem): (&Path, &str)) -> Result<Vec<CertificateDer<'static>>> {
    let malformed = |detail: String| EngineError::Malformed { path: path.to_owned(), detail };
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| malformed(error.to_string()))?;
    if found.is_empty() { Err(malformed("a certificate in PEM".to_owned())) } else { Ok(found) }
}

/// Why other nodes will not take this certificate, as a client's or a server's.
fn amiss(pem: &str, common_name: &str, hostname: &str) -> Option<String> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, parsed) = X509Certificate::from_der(&der).ok()?;
    let found = parsed.subject().iter_common_name().find_map(|name| name.as_str().ok()).unwrap_or_default();
    if found != common_name {
        return Some(format!("its common name is {found}, expected was {common_name}"));
    }
    let names = parsed.subject_alternative_name().ok().flatten().map(|names| names.value.general_names.clone());
    let named = names.into_iter().flatten().any(|name| match name {
        GeneralName::DNSName(dns) => dns.eq_ignore_ascii_case(hostname),
        _ => false,
    });
    if !named {
        return Some(format!("it does not name the host {hostname} (subjectAltName, DNS)"));
    }
    let validity = parsed.validity();
    (!validity.is_valid()).then(|| format!("it is valid from {} to {}", validity.not_before, validity.not_after))
}
