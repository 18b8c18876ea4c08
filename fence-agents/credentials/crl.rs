//! A certificate revocation list that the operator's CA signed beforehand, put over the file that PostgreSQL uses.
//!
//! The file as it was is kept beside it (`.unfenced`), and so is the list of each fence (`.fence-N`): `on` puts back
//! the list of the newest fence that remains, or the file as it was. OpenSSL uses one list for each issuer, so two
//! fences at a time need lists that name both nodes. The list of the fence is laid down before anything else is
//! touched, and taken away after everything else: a run that is killed at any line leaves a trace that `on` ends.

use crate::contract::{Action, Request};
use crate::hba::{self, HbaError};
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

    /// Copies as a whole: half a list would be put back later.
    fn copy(&self, from: &Path, to: &Path) -> Result<(), CrlError> {
        let error = |source| CrlError::Io { path: to.to_owned(), what: "written", source };
        let mut temporary = to.as_os_str().to_owned();
        temporary.push(".new");
        fs::copy(from, &temporary).and_then(|_| hba::put(temporary.as_ref(), to)).map_err(error)
    }

    /// Puts the list in place. Done again, it changes nothing.
    pub fn install(&self, fence: u64) -> Result<String, CrlError> {
        let source = self.source.as_ref().ok_or(CrlError::Half { missing: "crl_source" })?;
        let unreadable = |error| CrlError::Io { path: source.clone(), what: "read", source: error };
        let list = fs::read_to_string(source).map_err(unreadable)?;
        if !list.contains("-----BEGIN X509 CRL-----") {
            return Err(CrlError::NoList { path: source.clone() });
        }
        self.copy(source, &self.beside(&format!(".fence-{fence}")))?;
        let unfenced = self.beside(".unfenced");
        if !unfenced.exists() {
            self.copy(&self.file, &unfenced)?;
        }
        hba::replace(&self.file, list.as_bytes())?;
        Ok(format!("{} installed as {}", source.display(), self.file.display()))
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
        let gone = |source| CrlError::Io { path: mine.clone(), what: "removed", source };
        if !unfenced.exists() {
            // An interrupted run: the file was not exchanged yet, or is put back already.
            fs::remove_file(&mine).map_err(gone)?;
            return Ok(format!("{} is as it was", self.file.display()));
        }
        let bytes = fs::read(&right).map_err(|source| CrlError::Io { path: right.clone(), what: "read", source })?;
        hba::replace(&self.file, &bytes)?;
        // In this order: an interrupted run can be repeated.
        if newest.is_none() {
            fs::remove_file(&unfenced).map_err(|source| CrlError::Io { path: unfenced, what: "removed", source })?;
        }
        fs::remove_file(&mine).map_err(gone)?;
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
