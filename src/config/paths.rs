//! Where regent's own files of a service are, as far as more than one module must find them.
//!
//! Not here: what the engine alone uses (its own layout), and what the files hold.

use super::Config;
use crate::types::ServiceName;
use std::path::{Path, PathBuf};

impl Config {
    /// The directory of what is gone after a boot: access file, lease. Nobody but the daemon's user writes in it.
    pub fn service_dir(&self, service: &ServiceName) -> PathBuf {
        self.run_dir.join(service.as_str())
    }

    /// The directory of the server's Unix socket: in it the database's user may do what it likes.
    pub fn socket_dir(&self, service: &ServiceName) -> PathBuf {
        self.service_dir(service).join("socket")
    }

    /// In which cgroup the database's processes live.
    pub fn cgroup_record(&self, service: &ServiceName) -> PathBuf {
        self.service_dir(service).join("cgroup")
    }

    /// How far the lease reaches, for the guard and the next daemon: without it nothing is opened for writes.
    pub fn lease_file(&self, service: &ServiceName) -> PathBuf {
        self.service_dir(service).join("lease")
    }

    /// What the daemon leaves with the guard, to be sent should it end without a word.
    pub fn goodbye_file(&self, service: &ServiceName) -> PathBuf {
        self.service_dir(service).join("goodbye")
    }

    /// What the server writes to standard error. Beside the logs of the distribution's own servers it has a name of its own.
    pub fn log_file(&self, service: &ServiceName) -> PathBuf {
        let known = self.services.get(service).map(|known| known.postgresql.on_host.log_dir.as_path());
        known.unwrap_or(Path::new("/")).join(format!("regent-{service}.log"))
    }

    /// Who may connect to the database: PostgreSQL's access file, which fence agents put reject lines into.
    pub fn access_file(&self, service: &ServiceName) -> PathBuf {
        self.service_dir(service).join("pg_hba.conf")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A daemon takes up what the one before it left, which may have been of another version.
    #[test]
    fn a_service_s_files_stay_where_they_are() {
        let text = include_str!("../../config/three-databases.toml");
        let config = Config::parse(text, "regent.toml", Some("db1"), "").expect("an example");
        let (service, run) = (&"orders".parse().expect("valid"), Path::new("/run/regent/orders"));
        assert_eq!(config.service_dir(service), run);
        assert_eq!(config.socket_dir(service), run.join("socket"));
        assert_eq!(config.cgroup_record(service), run.join("cgroup"));
        assert_eq!(config.lease_file(service), run.join("lease"));
        assert_eq!(config.goodbye_file(service), run.join("goodbye"));
        assert_eq!(config.log_file(service), Path::new("/var/log/postgresql/regent-orders.log"));
        assert_eq!(config.access_file(service), run.join("pg_hba.conf"));
    }
}
