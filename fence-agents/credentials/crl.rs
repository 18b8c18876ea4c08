//! A certificate revocation list that the operator's CA signed beforehand, put over the file that PostgreSQL uses.
//!
//! The file as it was is kept beside it (`.unfenced`), and so is the list of each fence (`.fence-N`): `on` puts back
//! the list of the newest fence that remains, or the file as it was. OpenSSL uses one list for each issuer, so two
//! fences at a time need lists that name both nodes.

use crate::contract::Request;
use crate::hba::{self, HbaError};
use std::fs;
use std::io;
use std::path::PathBuf;

/// Why the list could not be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum CrlError {
    #[error("{path} cannot be {what}", path = path.display())]
    Io { path: PathBuf, what: &'static str, source: io::Error },
    #[error("crl_source and crl_file belong together: {missing} is not given")]
    Half { missing: &'static str },
    #[error("{path} is no list in PEM form: expected a line with BEGIN X509 CRL", path = path.display())]
    NoList { path: PathBuf },
    #[error(transparent)]
    Replace(#[from] HbaError),
}

/// A list and the place where it belongs.
pub struct Crl {
    source: PathBuf,
    file: PathBuf,
}

impl Crl {
    /// `None` when neither option is given.
    pub fn from_request(request: &Request) -> Result<Option<Crl>, CrlError> {
        match (request.text("crl_source"), request.text("crl_file")) {
            (None, None) => Ok(None),
            (Some(source), Some(file)) => Ok(Some(Crl { source: source.into(), file: file.into() })),
            (None, _) => Err(CrlError::Half { missing: "crl_source" }),
            (_, None) => Err(CrlError::Half { missing: "crl_file" }),
        }
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.file.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    }

    fn copy(&self, from: &PathBuf, to: &PathBuf) -> Result<(), CrlError> {
        let error = |source| CrlError::Io { path: to.clone(), what: "written", source };
        fs::copy(from, to).map(drop).map_err(error)
    }

    /// Puts the list in place. Done again, it changes nothing.
    pub fn install(&self, fence: u64) -> Result<String, CrlError> {
        let unreadable = |source| CrlError::Io { path: self.source.clone(), what: "read", source };
        let list = fs::read_to_string(&self.source).map_err(unreadable)?;
        if !list.contains("-----BEGIN X509 CRL-----") {
            return Err(CrlError::NoList { path: self.source.clone() });
        }
        let unfenced = self.beside(".unfenced");
        if !unfenced.exists() {
            self.copy(&self.file, &unfenced)?;
        }
        self.copy(&self.source, &self.beside(&format!(".fence-{fence}")))?;
        hba::replace(&self.file, list.as_bytes())?;
        Ok(format!("{} installed as {}", self.source.display(), self.file.display()))
    }

    /// Takes this fence's list away, and puts back what then belongs there.
    pub fn remove(&self, fence: u64) -> Result<String, CrlError> {
        let mine = self.beside(&format!(".fence-{fence}"));
        if !mine.exists() {
            return Ok("no list of this fence is installed".to_owned());
        }
        let unfenced = self.beside(".unfenced");
        let newest = self.fences()?.into_iter().filter(|other| *other != fence).max();
        let right = newest.map_or(unfenced.clone(), |other| self.beside(&format!(".fence-{other}")));
        let bytes = fs::read(&right).map_err(|source| CrlError::Io { path: right.clone(), what: "read", source })?;
        hba::replace(&self.file, &bytes)?;
        // In this order: an interrupted run can be repeated.
        if newest.is_none() {
            fs::remove_file(&unfenced).map_err(|source| CrlError::Io { path: unfenced, what: "removed", source })?;
        }
        fs::remove_file(&mine).map_err(|source| CrlError::Io { path: mine, what: "removed", source })?;
        Ok(format!("{} put back from {}", self.file.display(), right.display()))
    }

    /// Whether this fence's list was put in place and is still known.
    pub fn is_installed(&self, fence: u64) -> Result<bool, CrlError> {
        Ok(self.fences()?.contains(&fence))
    }

    /// The fences whose lists are kept beside the file.
    fn fences(&self) -> Result<Vec<u64>, CrlError> {
        let folder = self.file.parent().unwrap_or(std::path::Path::new("/"));
        let unreadable = |source| CrlError::Io { path: folder.to_owned(), what: "listed", source };
        let prefix = format!("{}.fence-", self.file.file_name().unwrap_or_default().to_string_lossy());
        let mut fences = Vec::new();
        for entry in fs::read_dir(folder).map_err(unreadable)? {
            let name = entry.map_err(unreadable)?.file_name();
            if let Some(fence) = name.to_string_lossy().strip_prefix(&prefix).and_then(|n| n.parse().ok()) {
                fences.push(fence);
            }
        }
        Ok(fences)
    }
}
