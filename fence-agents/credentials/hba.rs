//! A pg_hba.conf on disk: read, and replaced as a whole, under a lock that regent's engine takes too.
//!
//! It may lie in a directory of the database's user, who may have put a link to anywhere in its place: so it is worked on
//! with the rights of the first owner of a directory on the way there who is not root (`regent::rights`).

use nix::fcntl::{Flock, FlockArg};
use regent::durable::{self, FileError};
use regent::rights::Rights;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long another holder of the lock is waited for, and how often it is looked at.
const LOCK_LOOKS: u32 = 250;
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// No access file and no revocation list is longer.
pub const LIMIT: u64 = 16 << 20;

/// Why a file could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum HbaError {
    #[error("{path} cannot be {what}", path = path.display())]
    Io { path: PathBuf, what: &'static str, source: io::Error },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path} stayed locked by another process for 5 s", path = path.display())]
    Locked { path: PathBuf },
}

fn failed(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> HbaError {
    move |source| HbaError::Io { path: path.to_owned(), what, source }
}

/// With whose rights a file is worked on.
pub fn rights(path: &Path) -> Result<Rights, FileError> {
    Rights::of_owner(path.parent().unwrap_or(Path::new("/")))
}

/// The file that a name leads to, as far as those rights go; `None` where there is none.
fn find(rights: &Rights, path: &Path) -> Result<Option<PathBuf>, HbaError> {
    match rights.within(|| fs::canonicalize(path)).and_then(|found| found) {
        Ok(real) => Ok(Some(real)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, "found")(error)),
    }
}

/// The text of the file, or `None` when there is no such file.
pub fn read(path: &Path) -> Result<Option<String>, HbaError> {
    let rights = rights(path)?;
    let Some(real) = find(&rights, path)? else { return Ok(None) };
    Ok(Some(rights.read_text(&real, LIMIT)?))
}

/// Replaces the text of the file by what `edit` makes of it, atomically, keeping owner and mode. Returns the new text,
/// or `None` when there is no such file.
pub async fn edit(path: &Path, edit: impl FnOnce(&str) -> String) -> Result<Option<String>, HbaError> {
    let rights = rights(path)?;
    let Some(real) = find(&rights, path)? else { return Ok(None) };
    let lock = lock(&rights, path).await?;
    let old = rights.read_text(&real, LIMIT)?;
    let new = edit(&old);
    if new != old {
        replace(&rights, &real, new.as_bytes())?;
    }
    drop(lock);
    Ok(Some(new))
}

/// An exclusive lock on `PATH.lock`. Looked at again and again: a blocking wait could not be given a limit.
async fn lock(rights: &Rights, path: &Path) -> Result<Flock<File>, HbaError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let mut file = rights.open_lock(&name)?;
    for _ in 0..LOCK_LOOKS {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((same, nix::errno::Errno::EWOULDBLOCK)) => file = same,
            Err((_, error)) => return Err(failed(&name, "locked")(error.into())),
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    Err(HbaError::Locked { path: name })
}

/// Puts these bytes in the place of a file, with its owner and mode.
pub fn replace(rights: &Rights, path: &Path, bytes: &[u8]) -> Result<(), HbaError> {
    let put = || {
        let old =
            fs::symlink_metadata(path).map_err(|source| FileError { doing: "look at", path: path.into(), source })?;
        durable::replace(path, 0o600, |file| {
            file.write_all(bytes)?;
            let new = file.metadata()?;
            if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
                fchown(&*file, Some(old.uid()), Some(old.gid()))?;
            }
            file.set_permissions(old.permissions())
        })
        .map(drop)
    };
    Ok(rights.within(put).map_err(failed(path, "replaced"))??)
}
