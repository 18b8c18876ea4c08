//! A pg_hba.conf on disk: read, and replaced as a whole, under a lock that regent's engine takes too.

use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long another holder of the lock is waited for, and how often it is looked at.
const LOCK_LOOKS: u32 = 250;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Why a file could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum HbaError {
    #[error("{path} cannot be {what}", path = path.display())]
    Io { path: PathBuf, what: &'static str, source: io::Error },
    #[error("{path} stayed locked by another process for 5 s", path = path.display())]
    Locked { path: PathBuf },
}

fn failed(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> HbaError {
    move |source| HbaError::Io { path: path.to_owned(), what, source }
}

/// The text of the file, or `None` when there is no such file.
pub fn read(path: &Path) -> Result<Option<String>, HbaError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, "read")(error)),
    }
}

/// Replaces the text of the file by what `edit` makes of it, atomically, keeping owner and mode. Returns the new text,
/// or `None` when there is no such file.
pub async fn edit(path: &Path, edit: impl FnOnce(&str) -> String) -> Result<Option<String>, HbaError> {
    let real = match fs::canonicalize(path) {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path, "found")(error)),
    };
    let lock = lock(path).await?;
    let Some(old) = read(&real)? else { return Ok(None) };
    let new = edit(&old);
    if new != old {
        replace(&real, new.as_bytes())?;
    }
    drop(lock);
    Ok(Some(new))
}

/// An exclusive lock on `PATH.lock`. Looked at again and again: a blocking wait could not be given a limit.
async fn lock(path: &Path) -> Result<Flock<File>, HbaError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&name)
        .map_err(failed(&name, "opened"))?;
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

/// Writes a file beside the old one, with the same owner and mode, and renames it over the old one.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), HbaError> {
    let old = fs::metadata(path).map_err(failed(path, "looked at"))?;
    let mut name = path.as_os_str().to_owned();
    name.push(".regent-new");
    let temporary = PathBuf::from(name);
    let write = || -> io::Result<()> {
        // A left-over of an interrupted run could have another owner: begin anew.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        fchown(&file, Some(old.uid()), Some(old.gid()))?;
        file.set_permissions(old.permissions())?;
        put(&temporary, path)
    };
    write().map_err(failed(path, "replaced"))
}

/// Puts a file that is written whole in the place of another, so that a power cut leaves the one or the other.
pub fn put(temporary: &Path, path: &Path) -> io::Result<()> {
    File::open(temporary)?.sync_all()?;
    fs::rename(temporary, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}
