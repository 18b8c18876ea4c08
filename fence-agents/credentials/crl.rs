//! A certificate revocation list that the operator's CA signed beforehand, put over the file that PostgreSQL uses.
//!
//! The file as it was is kept beside it (`.unfenced`), and so is the list of each fence (`.fence-N`): `on` puts back
//! the list of the newest fence that remains, or the file as it was. OpenSSL uses one list for each issuer, so two
//! fences at a time need lists that name both nodes. The list of the fence is laid down before anything else is
//! touched, and taken away after everything else: a run that is killed at any line leaves a trace that `on` ends.

use crate::contract::{Action, Request};
use crate::hba::{self, HbaError};
use regent::durable::FileError;
use regent::rights::Rights;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

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
    #[error(transparent)]
    File(#[from] FileError),
}

/// A list and the place where it belongs.
pub struct Crl {
    /// Needed to install it, and for nothing else.
    source: Option<PathBuf>,
    file: PathBuf,
}

impl Crl {
    /// `None` when neither option is given.
    pub fn from_request(request: &Request) -> Result<Option<Crl>, CrlError> {
        match (request.text("crl_source"), request.text("crl_file")) {
            (None, None) => Ok(None),
            (Some(source), Some(file)) => Ok(Some(Crl { source: Some(source.into()), file: file.into() })),
            (None, Some(file)) if matches!(request.action, Action::On | Action::InForce) => {
                Ok(Some(Crl { source: None, file: file.into() }))
            }
            (None, _) => Err(CrlError::Half { missing: "crl_source" }),
            (_, None) => Err(CrlError::Half { missing: "crl_file" }),
        }
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.file.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    }

    /// With whose rights the file and what is kept beside it are worked on.
    fn rights(&self) -> Result<Rights, CrlError> {
        Ok(hba::rights(&self.file)?)
    }

    /// Puts the list in place. Done again, it changes nothing.
    pub fn install(&self, fence: u64) -> Result<String, CrlError> {
        let source = self.source.as_ref().ok_or(CrlError::Half { missing: "crl_source" })?;
        let unreadable = |error| CrlError::Io { path: source.clone(), what: "read", source: error };
        let list = fs::read_to_string(source).map_err(unreadable)?;
        if !list.contains("-----BEGIN X509 CRL-----") {
            return Err(CrlError::NoList { path: source.clone() });
        }
        let rights = self.rights()?;
        // As a whole: half a list would be put back later.
        rights.replace(&self.beside(&format!(".fence-{fence}")), 0o644, &list)?;
        let unfenced = self.beside(".unfenced");
        if !rights.exists(&unfenced) {
            rights.replace(&unfenced, 0o644, &rights.read_text(&self.file, hba::LIMIT)?)?;
        }
        hba::replace(&rights, &self.file, list.as_bytes())?;
        Ok(format!("{} installed as {}", source.display(), self.file.display()))
    }

    /// Takes this fence's list away, and puts back what then belongs there.
    pub fn remove(&self, fence: u64) -> Result<String, CrlError> {
        let (mine, rights) = (self.beside(&format!(".fence-{fence}")), self.rights()?);
        if !rights.exists(&mine) {
            return Ok("no list of this fence is installed".to_owned());
        }
        let unfenced = self.beside(".unfenced");
        let newest = self.fences()?.into_iter().filter(|other| *other != fence).max();
        let right = newest.map_or(unfenced.clone(), |other| self.beside(&format!(".fence-{other}")));
        if !rights.exists(&unfenced) {
            // An interrupted run: the file was not exchanged yet, or is put back already.
            rights.remove(&mine)?;
            return Ok(format!("{} is as it was", self.file.display()));
        }
        hba::replace(&rights, &self.file, &rights.read(&right, hba::LIMIT)?)?;
        // In this order: an interrupted run can be repeated.
        if newest.is_none() {
            rights.remove(&unfenced)?;
        }
        rights.remove(&mine)?;
        Ok(format!("{} put back from {}", self.file.display(), right.display()))
    }

    /// Whether this fence's list was put in place and is still known.
    pub fn is_installed(&self, fence: u64) -> Result<bool, CrlError> {
        Ok(self.fences()?.contains(&fence))
    }

    /// The file that is exchanged, as a person reads it.
    pub fn name(&self) -> String {
        self.file.display().to_string()
    }

    /// The fences whose lists are kept beside the file.
    pub fn fences(&self) -> Result<Vec<u64>, CrlError> {
        let folder = self.file.parent().unwrap_or(Path::new("/"));
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
