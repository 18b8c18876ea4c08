//! Mutual TLS between nodes: both sides check the CA, the cluster id and the node name. TLS 1.3 only; no resumption, so
//! that no session outlives the certificate that opened it.

use super::identity::{self, CertificateRefusal};
use crate::config;
use crate::rights::{self, SecretError};
use crate::types::{ClusterId, NodeName};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore, ServerConfig,
    SignatureScheme,
};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why this node's own TLS files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path}: {what}")]
    Read { path: PathBuf, what: String },
    #[error("{path}")]
    Secret {
        path: PathBuf,
        #[source]
        source: SecretError,
    },
    #[error("{path} cannot be this node's certificate: {source}")]
    NotOurs {
        path: PathBuf,
        #[source]
        source: CertificateRefusal,
    },
    #[error("{certificate} and {key} do not fit together: {what}")]
    Mismatch { certificate: PathBuf, key: PathBuf, what: String },
}

/// The loaded files.
pub struct Tls {
    cluster: ClusterId,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    server: Arc<ServerConfig>,
}

impl Tls {
    /// Loads the files and checks that they are this node's.
    pub fn load(files: &config::Tls, cluster_name: &str, me: &NodeName) -> Result<Self, TlsError> {
        let chain = certificates(&files.certificate)?;
        let cluster = check_own(&files.certificate, &chain[0], cluster_name, me)?;
        Self::build(files, chain, cluster)
    }

    fn build(files: &config::Tls, chain: Vec<CertificateDer<'static>>, cluster: ClusterId) -> Result<Self, TlsError> {
        let read = |path: &Path, what: String| TlsError::Read { path: path.to_owned(), what };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&files.ca)? {
            roots.add(certificate).map_err(|e| read(&files.ca, e.to_string()))?;
        }
        let roots = Arc::new(roots);
        let secret = |source| TlsError::Secret { path: files.key.clone(), source };
        let pem = rights::read_secret(&files.key).map_err(secret)?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|e| read(&files.key, e.to_string()))?;
        let mismatch = |e: rustls::Error| TlsError::Mismatch {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            what: e.to_string(),
        };
        let verifier = PeerVerifier::new(roots.clone(), cluster.clone(), None).map_err(|e| read(&files.ca, e))?;
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(mismatch)?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(mismatch)?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Tls { cluster, roots, chain, key, server: Arc::new(server) })
    }

    /// The cluster that this node's certificate names.
    pub fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// For accepting.
    pub fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        tokio_rustls::TlsAcceptor::from(self.server.clone())
    }

    /// For dialling `peer`, and nobody else.
    pub fn connector(&self, peer: &NodeName) -> Result<tokio_rustls::TlsConnector, rustls::Error> {
        let verifier = PeerVerifier::new(self.roots.clone(), self.cluster.clone(), Some(peer.clone()));
        let verifier = verifier.map_err(rustls::Error::General)?;
        let client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        // Only a test comes without a certificate.
        let mut client = match self.chain.is_empty() {
            true => client.with_no_client_auth(),
            false => client.with_client_auth_cert(self.chain.clone(), self.key.clone_key())?,
        };
        client.alpn_protocols = vec![b"h2".to_vec()];
        client.resumption = Resumption::disabled();
        Ok(tokio_rustls::TlsConnector::from(Arc::new(client)))
    }
}

/// A visitor that a test sends: with files that do not fit, or with none.
#[cfg(test)]
impl Tls {
    pub fn load_unchecked(files: &config::Tls, cluster: ClusterId, ca: &Path) -> Self {
        let files = config::Tls { ca: ca.to_owned(), ..files.clone() };
        let chain = certificates(&files.certificate).expect("certificates");
        Self::build(&files, chain, cluster).expect("files that can be read")
    }

    pub fn without_certificate(self) -> Self {
        Tls { chain: Vec::new(), ..self }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = |what: String| TlsError::Read { path: path.to_owned(), what };
    let found = CertificateDer::pem_file_iter(path).map_err(|e| read(e.to_string()))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|e| read(e.to_string()))?;
    if found.is_empty() { Err(read("it holds no certificate".into())) } else { Ok(found) }
}

fn check_own(
    path: &Path,
    certificate: &CertificateDer<'_>,
    cluster_name: &str,
    me: &NodeName,
) -> Result<ClusterId, TlsError> {
    let check = || {
        let (cluster, node) = identity::node_of(certificate)?;
        let named = cluster.strip_prefix(cluster_name).and_then(|rest| rest.strip_prefix('-'));
        if named.is_none() {
            let ours = ClusterId(cluster_name.to_owned());
            return Err(CertificateRefusal::AnotherCluster { theirs: cluster, ours });
        }
        if &node != me {
            return Err(CertificateRefusal::AnotherNode { found: node, expected: me.clone() });
        }
        Ok(ClusterId(cluster))
    };
    check().map_err(|source| TlsError::NotOurs { path: path.to_owned(), source })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Checks a peer's certificate, on either side.
#[derive(Debug)]
struct PeerVerifier {
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
    provider: Arc<CryptoProvider>,
    cluster: ClusterId,
    /// The node that was dialled; `None` where any node of the cluster may come.
    expected: Option<NodeName>,
}

impl PeerVerifier {
    fn new(roots: Arc<RootCertStore>, cluster: ClusterId, expected: Option<NodeName>) -> Result<Self, String> {
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider()).build();
        let clients = clients.map_err(|e| e.to_string())?;
        Ok(PeerVerifier { roots, clients, provider: provider(), cluster, expected })
    }

    fn check_name(&self, certificate: &CertificateDer<'_>) -> Result<(), CertificateRefusal> {
        let (cluster, node) = identity::node_of(certificate)?;
        if cluster != self.cluster.0 {
            return Err(CertificateRefusal::AnotherCluster { theirs: cluster, ours: self.cluster.clone() });
        }
        match &self.expected {
            Some(expected) if *expected != node => {
                Err(CertificateRefusal::AnotherNode { found: node, expected: expected.clone() })
            }
            _ => Ok(()),
        }
    }

    fn judge(&self, chain: Result<(), rustls::Error>, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let refusal = match chain {
            Ok(()) => match self.check_name(certificate) {
                Ok(()) => return Ok(()),
                Err(refusal) => refusal,
            },
            Err(rustls::Error::InvalidCertificate(error)) => identity::explain(&error, certificate),
            Err(other) => CertificateRefusal::Other { what: other.to_string() },
        };
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal)))))
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let chain = ParsedCertificate::try_from(end_entity).and_then(|parsed| {
            verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)
        });
        self.judge(chain, end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let chain = self.clients.verify_client_cert(end_entity, intermediates, now).map(|_| ());
        self.judge(chain, end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.clients.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.clients.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients.supported_verify_schemes()
    }
}

/// A failed handshake: whether it refuses somebody (and is not merely a broken line), and the sentence for it.
pub fn explain_handshake(error: &io::Error) -> (bool, String) {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return (false, error.to_string());
    };
    match tls {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => (true, inner.to_string()),
        rustls::Error::NoCertificatesPresented => (true, CertificateRefusal::NoCertificate.to_string()),
        rustls::Error::AlertReceived(alert) => {
            (true, format!("it refused this node's certificate ({})", alert.as_str().unwrap_or("an unknown alert")))
        }
        rustls::Error::InvalidMessage(_) => (true, "it does not speak TLS".to_owned()),
        other => (true, format!("TLS: {other}")),
    }
}
