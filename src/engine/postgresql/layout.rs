//! Where the files of one service's database are, on this node, and how such a file is written for the database's user.

use super::error::{EngineError, Result};
use super::program::OsUser;
use crate::config::Config;
use crate::durable;
use crate::types::ServiceName;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Every path that the engine uses. See each field for its life time: `run` is gone after a boot.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The database's own directory.
    pub data_dir: PathBuf,
    pub bin_dir: PathBuf,
    /// `<run_dir>/<service>`: socket, pg_hba.conf, lease. Gone after a boot, so that what anything else starts then
    /// finds no access file.
    pub run: PathBuf,
    /// In `run`: who may connect.
    pub hba: PathBuf,
    /// In `run`: how far the lease reaches, for the guard.
    pub lease: PathBuf,
    /// In `run`: what the guard sends when the daemon ends without a word.
    pub goodbye: PathBuf,
    /// `<regent data_dir>/<service>`: the server's log before its own logging begins.
    pub keep: PathBuf,
}

impl Layout {
    pub fn new(config: &Config, service: &ServiceName) -> Result<Self> {
        let known = config.services.get(service);
        let known = known.ok_or_else(|| EngineError::NoSuchService { service: service.clone() })?;
        Ok(Layout {
            data_dir: known.postgresql.data_dir.clone(),
            bin_dir: known.postgresql.bin_dir.clone(),
            run: config.service_dir(service),
            hba: config.access_file(service),
            lease: config.lease_file(service),
            goodbye: config.goodbye_file(service),
            keep: config.data_dir.join(service.as_str()),
        })
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }

    pub fn ident(&self) -> PathBuf {
        self.run.join("pg_ident.conf")
    }

    pub fn passfile(&self) -> PathBuf {
        self.run.join("pgpass")
    }

    pub fn cgroup_record(&self) -> PathBuf {
        self.run.join("cgroup")
    }

    pub fn log(&self) -> PathBuf {
        self.keep.join("postgresql.log")
    }

    pub fn standby_signal(&self) -> PathBuf {
        self.data_dir.join("standby.signal")
    }

    pub fn auto_conf(&self) -> PathBuf {
        self.data_dir.join("postgresql.auto.conf")
    }

    /// The marker that forbids a start: beside the data directory, on its volume, so that neither pg_rewind nor a
    /// replaced directory takes it along.
    pub fn marker(&self) -> PathBuf {
        self.beside(".regent-", ".unstartable")
    }

    /// A sibling of the data directory: `<prefix><its name><suffix>`.
    pub fn beside(&self, prefix: &str, suffix: &str) -> PathBuf {
        let name = self.data_dir.file_name().unwrap_or_default().to_string_lossy();
        self.data_dir.with_file_name(format!("{prefix}{name}{suffix}"))
    }

    /// Whether the data directory is missing or has nothing in it.
    pub fn is_absent(&self) -> bool {
        fs::read_dir(&self.data_dir).map_or(true, |mut entries| entries.next().is_none())
    }

    /// Makes the run and keep directories: the run directory can be entered by the database's group, not by others.
    pub fn make_directories(&self, user: &OsUser) -> Result<()> {
        for directory in [&self.run, &self.keep] {
            fs::create_dir_all(directory).map_err(EngineError::file("create", directory))?;
        }
        // The server puts its socket here: its user owns the directory, and clients on this host may reach it.
        user.own(&self.run)?;
        fs::set_permissions(&self.run, fs::Permissions::from_mode(0o755))
            .map_err(EngineError::file("set the mode of", &self.run))
    }
}

/// Writes a file so that it is there whole, or not at all, also after a crash. Owned by the database's user.
pub fn write_durably(path: &Path, text: &str, user: &OsUser) -> Result<()> {
    durable::replace(path, 0o600, |file| write_for(user, text, file))?;
    Ok(())
}

/// Writes a file whole or not at all. For files that need not outlive a crash: no wait for the disk.
pub fn write_quickly(path: &Path, text: &str, user: &OsUser) -> Result<()> {
    Ok(durable::replace_unflushed(path, 0o600, |file| write_for(user, text, file))?)
}

/// Writes the text, and gives the file to the database's user before it has its name.
pub fn write_for(user: &OsUser, text: &str, file: &mut File) -> io::Result<()> {
    file.write_all(text.as_bytes())?;
    user.own_file(file)
}

/// Makes everything in a data directory durable: one call for each volume that it lies on, which is quicker by far
/// than one for each file, as PostgreSQL's own programs do it.
pub fn sync_volumes(data_dir: &Path) -> Result<()> {
    let tablespaces =
        fs::read_dir(data_dir.join("pg_tblspc")).into_iter().flatten().flatten().map(|entry| entry.path());
    for directory in [data_dir.to_owned(), data_dir.join("pg_wal")].into_iter().chain(tablespaces) {
        let open = File::open(&directory).map_err(EngineError::file("open", &directory))?;
        // SAFETY: the descriptor is open.
        if unsafe { libc::syncfs(open.as_raw_fd()) } != 0 {
            return Err(EngineError::file("sync the volume of", &directory)(std::io::Error::last_os_error()));
        }
    }
    Ok(())
}
