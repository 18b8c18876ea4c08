//! Where the files of one service's database are, on this node, and how such a file is written for the database's user.

use super::error::{EngineError, Result};
use super::program::OsUser;
use super::timeline::history_file;
use super::version;
use crate::config::Config;
use crate::durable::FileError;
use crate::rights::{self, Rights};
use crate::types::{ServiceName, Timeline};
use std::path::{Path, PathBuf};

/// No text that regent reads in the data directory is longer.
const TEXT_LIMIT: u64 = 1 << 20;

/// Every path that the engine uses. See each field for its life time: `run` is gone after a boot.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The database's own directory.
    pub data_dir: PathBuf,
    pub bin_dir: PathBuf,
    /// `<run_dir>/<service>`: pg_hba.conf, postgresql.conf, lease. Gone after a boot, so that what anything else starts then finds no access
    /// file. Nobody but the daemon's user writes in it.
    pub run: PathBuf,
    /// In `run`: the server's socket; the database's user owns it.
    pub socket: PathBuf,
    /// Where there is one besides, for programs that look for it there.
    pub more_sockets: Vec<PathBuf>,
    /// In `run`: who may connect.
    pub hba: PathBuf,
    /// In `run`: how far the lease reaches, for the guard.
    pub lease: PathBuf,
    /// In `run`: what the guard sends when the daemon ends without a word.
    pub goodbye: PathBuf,
    /// `<regent data_dir>/<service>`: what this node remembers of its database.
    pub keep: PathBuf,
    /// What the server writes to standard error.
    pub log: PathBuf,
    /// Of the database's user: with them everything in the data directory is done.
    pub inside: Rights,
}

/// What regent reads or writes in the data directory, whose user may have put anything there. Beside these: the history
/// files and segments in `pg_wal`, by their numbers.
pub const INSIDE: [&str; 9] = [
    POSTMASTER_PID,
    STANDBY_SIGNAL,
    RECOVERY_SIGNAL,
    AUTO_CONF,
    PG_VERSION,
    BACKUP_LABEL,
    PROMOTE,
    CONTROL,
    CURRENT_LOGS,
];
pub const POSTMASTER_PID: &str = "postmaster.pid";
pub const STANDBY_SIGNAL: &str = "standby.signal";
pub const RECOVERY_SIGNAL: &str = "recovery.signal";
pub const AUTO_CONF: &str = "postgresql.auto.conf";
pub const CONF: &str = "postgresql.conf";
pub const PG_VERSION: &str = "PG_VERSION";
pub const BACKUP_LABEL: &str = "backup_label";
pub const PROMOTE: &str = "promote";
pub const CONTROL: &str = "global/pg_control";
/// Which files the server's own logging writes.
pub const CURRENT_LOGS: &str = "current_logfiles";

impl Layout {
    pub fn new(config: &Config, service: &ServiceName, user: &OsUser) -> Result<Self> {
        let known = config.services.get(service);
        let known = known.ok_or_else(|| EngineError::NoSuchService { service: service.clone() })?;
        Ok(Layout {
            data_dir: known.postgresql.data_dir.clone(),
            bin_dir: known.postgresql.bin_dir.clone(),
            run: config.service_dir(service),
            socket: config.socket_dir(service),
            more_sockets: known.postgresql.on_host.socket_dirs.clone(),
            hba: config.access_file(service),
            lease: config.lease_file(service),
            goodbye: config.goodbye_file(service),
            keep: config.data_dir.join(service.as_str()),
            log: config.log_file(service),
            inside: user.rights(),
        })
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }

    pub fn ident(&self) -> PathBuf {
        self.run.join("pg_ident.conf")
    }

    /// The file of settings that the server reads first (`parameters.rs`).
    pub fn conf(&self) -> PathBuf {
        self.run.join("postgresql.conf")
    }

    /// What the database's own files of settings said when they were last read without an error.
    pub fn kept_settings(&self) -> PathBuf {
        self.keep.join("postgresql.kept")
    }

    pub fn passfile(&self) -> PathBuf {
        self.run.join("pgpass")
    }

    /// Whose certificates the database believes.
    pub fn tls_ca(&self) -> PathBuf {
        self.run.join("database-ca.pem")
    }

    pub fn tls_certificate(&self) -> PathBuf {
        self.run.join("database.pem")
    }

    pub fn tls_key(&self) -> PathBuf {
        self.run.join("database.key")
    }

    /// A name in the data directory.
    pub fn within(&self, name: &str) -> PathBuf {
        self.data_dir.join(name)
    }

    pub fn wal(&self) -> PathBuf {
        self.data_dir.join("pg_wal")
    }

    /// What a small file in the data directory says.
    pub fn text_within(&self, name: &str) -> std::result::Result<String, FileError> {
        self.inside.read_text(&self.within(name), TEXT_LIMIT)
    }

    /// The major version of the data directory, as `initdb` noted it.
    pub fn major_version(&self) -> Option<u32> {
        self.text_within(PG_VERSION).ok()?.trim().parse().ok()
    }

    /// Whether the server of this directory knows the setting; not, where its version is not known.
    pub fn knows(&self, setting: &str) -> bool {
        self.major_version().is_some_and(|version| version::knows(version, setting))
    }

    pub fn has_within(&self, name: &str) -> bool {
        self.inside.exists(&self.within(name))
    }

    /// With whose rights the siblings of the data directory are made, moved and removed.
    pub fn around(&self) -> Result<Rights> {
        Ok(Rights::in_directory(self.data_dir.parent().unwrap_or(Path::new("/")), &self.inside)?)
    }

    /// What the marker says, where there is one; nothing, where that cannot be read.
    pub fn mark(&self) -> Result<Option<String>> {
        let (around, marker) = (self.around()?, self.marker());
        Ok(around.exists(&marker).then(|| around.read_text(&marker, TEXT_LIMIT).unwrap_or_default()))
    }

    /// From here on the directory is not started, until [`Self::unset_mark`].
    pub fn set_mark(&self, mark: &str) -> Result<()> {
        Ok(self.around()?.replace(&self.marker(), 0o600, mark)?)
    }

    pub fn unset_mark(&self) -> Result<()> {
        Ok(self.around()?.remove(&self.marker())?)
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
        self.inside.names(&self.data_dir).map_or(true, |names| names.is_empty())
    }

    /// Every name at which the database's user may have put anything and regent reads or writes, as far as they are known
    /// beforehand; segments are named by what they hold.
    pub fn foreign_names(&self) -> Vec<PathBuf> {
        let history = (2..8).map(|timeline| self.wal().join(history_file(Timeline(timeline))));
        let beside = [self.marker(), self.beside(".regent-", ".clone")];
        INSIDE.map(|name| self.within(name)).into_iter().chain(history).chain(beside).collect()
    }

    /// Makes the run and keep directories, which are this process's own, and in the first the one of the socket, which the
    /// database's user owns: clients on this host may reach it.
    pub fn make_directories(&self) -> Result<()> {
        let own = Rights::own();
        for directory in [&self.run, &self.keep] {
            own.make_directories(directory)?;
        }
        // One that an earlier version gave away comes back.
        rights::give_directory(&self.run, &own)?;
        own.make_directory(&self.run, 0o755)?;
        own.make_directory(&self.socket, 0o755)?;
        Ok(rights::give_directory(&self.socket, &self.inside)?)
    }

    /// Makes the further directories of sockets where they are gone (`/run` is empty after a boot), and brings those in which
    /// a server can have one, and what is amiss with the others.
    pub fn make_sockets(&self) -> (Vec<&Path>, Vec<FileError>) {
        let make = |directory: &PathBuf| {
            self.make_where_missing(directory, 0o755)?;
            self.inside.must_write_in(directory)
        };
        let (mut usable, mut amiss) = (vec![self.socket.as_path()], Vec::new());
        for directory in &self.more_sockets {
            match make(directory) {
                Ok(()) => usable.push(directory),
                Err(error) => amiss.push(error),
            }
        }
        (usable, amiss)
    }

    /// Makes an empty directory that PostgreSQL accepts as its own: the data directory, one beside it, one for a part of it.
    pub fn make_for_database(&self, directory: &Path) -> Result<()> {
        Ok(self.make_owned(directory, 0o700)?)
    }

    /// The same with this mode where there is no such directory yet, and with those that it lies in.
    pub fn make_where_missing(&self, directory: &Path, mode: u32) -> std::result::Result<(), FileError> {
        if directory.is_dir() {
            return Ok(());
        }
        let parent = directory.parent().unwrap_or(Path::new("/"));
        Rights::in_directory(parent, &self.inside)?.make_directories(parent)?;
        self.make_owned(directory, mode)
    }

    fn make_owned(&self, directory: &Path, mode: u32) -> std::result::Result<(), FileError> {
        let around = Rights::in_directory(directory.parent().unwrap_or(Path::new("/")), &self.inside)?;
        around.make_directory(directory, mode)?;
        // Only where nobody else can write, so that no link leads this elsewhere.
        if around != self.inside {
            rights::give_directory(directory, &self.inside)?;
        }
        Ok(())
    }

    /// Makes everything in the data directory durable: one call for each volume that it lies on, which is quicker by far
    /// than one for each file, as PostgreSQL's own programs do it.
    pub fn sync_volumes(&self) -> Result<()> {
        let links = self.within("pg_tblspc");
        let spaces = self.inside.names(&links).unwrap_or_default().into_iter().map(|name| links.join(name));
        for directory in [self.data_dir.clone(), self.wal()].into_iter().chain(spaces) {
            self.inside.sync_volume_of(&directory)?;
        }
        Ok(())
    }
}
