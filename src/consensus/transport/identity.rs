//! Who a certificate says it is, and why it is refused: each reason has its own sentence.

use crate::consensus::certs::DATABASE_SCHEME;
use crate::types::{ClusterId, NodeName};
use rustls::CertificateError;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Why a certificate is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateRefusal {
    #[error("its certificate was issued by another CA ({issuer}): use one by this cluster's CA (`regent cert issue`)")]
    AnotherCa { issuer: String },
    #[error("its certificate is for another cluster ({theirs}), this is {ours}")]
    AnotherCluster { theirs: String, ours: ClusterId },
    #[error("its certificate is for another node ({found}), expected was {expected}")]
    AnotherNode { found: NodeName, expected: NodeName },
    #[error("its certificate has expired ({until}): issue a new one (`regent cert issue`)")]
    Expired { until: String },
    #[error("its certificate is not valid before {from}: compare the clocks of both hosts")]
    NotYetValid { from: String },
    #[error("it presented no certificate")]
    NoCertificate,
    #[error("its certificate is that of a database ({name}), with which nobody is a manager")]
    OfADatabase { name: String },
    #[error("its certificate does not name a regent node: {what}")]
    NotANode { what: String },
    #[error("its certificate is refused: {what}")]
    Other { what: String },
}

/// Cluster and node from the URI name `regent://<cluster id>/<node>`.
pub fn node_of(certificate: &CertificateDer<'_>) -> Result<(String, NodeName), CertificateRefusal> {
    let refused = |what: String| CertificateRefusal::NotANode { what };
    let uris = uris_of_der(certificate).map_err(refused)?;
    if let Some(name) = uris.iter().find_map(|uri| uri.strip_prefix(DATABASE_SCHEME)) {
        return Err(CertificateRefusal::OfADatabase { name: name.to_owned() });
    }
    let Some(name) = uris.iter().find_map(|uri| uri.strip_prefix("regent://")) else {
        return Err(refused("it has no name that begins with regent://".into()));
    };
    let (cluster, node) = name.split_once('/').ok_or_else(|| refused(format!("regent://{name} names no node")))?;
    let node = node.parse().map_err(|e: crate::types::InvalidName| refused(e.to_string()))?;
    Ok((cluster.to_owned(), node))
}

/// The URI names of the first certificate of a PEM file.
pub fn uris_of_pem(pem: &[u8]) -> Result<Vec<String>, String> {
    uris_of_der(&CertificateDer::from_pem_slice(pem).map_err(|e| e.to_string())?)
}

fn uris_of_der(certificate: &CertificateDer<'_>) -> Result<Vec<String>, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| e.to_string())?;
    let Some(names) = parsed.subject_alternative_name().map_err(|e| e.to_string())? else {
        return Ok(Vec::new());
    };
    let uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    });
    Ok(uris.collect())
}

/// What rustls found wrong with a certificate, in our words.
pub fn explain(error: &CertificateError, certificate: &CertificateDer<'_>) -> CertificateRefusal {
    let parsed = X509Certificate::from_der(certificate).map(|(_, parsed)| parsed);
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => CertificateRefusal::AnotherCa {
            issuer: parsed.map_or_else(|_| "unreadable".into(), |c| c.issuer().to_string()),
        },
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => CertificateRefusal::Expired {
            until: parsed.map_or_else(|_| "unreadable".into(), |c| c.validity().not_after.to_string()),
        },
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            let from = parsed.map_or_else(|_| "unreadable".into(), |c| c.validity().not_before.to_string());
            CertificateRefusal::NotYetValid { from }
        }
        other => CertificateRefusal::Other { what: other.to_string() },
    }
}
