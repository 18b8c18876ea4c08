//! A real PostgreSQL 15 on one of two hosts.

use crate::hosts::{Hosts, SURVIVOR};
use crate::{eventually, must};
use std::path::PathBuf;
use std::process::Child;

const BIN: &str = "/usr/lib/postgresql/15/bin";

pub struct Postgres<'a> {
    hosts: &'a Hosts,
    folder: tempfile::TempDir,
    /// The port of the service that its clients know; a replica beside it has another.
    pub port: u16,
    server: Option<Child>,
}

impl<'a> Postgres<'a> {
    /// A new database on the survivor, with the roles `app` and `repl_db1` and a superuser whom root may be.
    pub fn start(hosts: &'a Hosts) -> Postgres<'a> {
        let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
        let path = folder.path().display().to_string();
        must("chown", &["postgres", &path]);
        let data = format!("{path}/data");
        let initdb = format!("{BIN}/initdb");
        must("runuser", &["-u", "postgres", "--", &initdb, "-N", "-A", "trust", "-U", "postgres", "-D", &data]);
        let mut postgres = Postgres { hosts, folder, port: 5432, server: None };
        postgres.write_access();
        std::fs::write(format!("{data}/pg_ident.conf"), "regent root postgres\nregent postgres postgres\n")
            .expect("written");
        postgres.run();
        postgres.sql("CREATE ROLE app LOGIN; CREATE ROLE repl_db1 LOGIN REPLICATION");
        postgres
    }

    /// A standby of this database on the same host, which has replayed what is there now.
    pub fn replica(&self) -> Postgres<'a> {
        let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
        let path = folder.path().display().to_string();
        must("chown", &["postgres", &path]);
        let (data, backup) = (format!("{path}/data"), format!("{BIN}/pg_basebackup"));
        let (from, port) = (self.socket_dir(), self.port.to_string());
        let words = ["-u", "postgres", "--", &backup, "-h", &from, "-p", &port, "-U", "postgres", "-R", "-D", &data];
        must("runuser", &[&words[..], &["-c", "fast", "--no-sync"]].concat());
        let mut replica = Postgres { hosts: self.hosts, folder, port: self.port + 1, server: None };
        replica.write_access();
        replica.run();
        replica
    }

    fn write_access(&self) {
        let lines = "# the operator's\nlocal all postgres peer map=regent\nlocal replication postgres peer map=regent\n\
                     host all all 10.99.1.0/24 trust\nhost replication all 10.99.1.0/24 trust\n";
        std::fs::write(self.hba(), lines).expect("written");
        must("chown", &["postgres", &self.hba().display().to_string()]);
        must("chmod", &["640", &self.hba().display().to_string()]);
    }

    /// Starts the server.
    pub fn run(&mut self) {
        let (hba, dir) = (format!("hba_file={}", self.hba().display()), self.socket_dir());
        let port = format!("port={}", self.port);
        let (data, program) = (format!("{dir}/data"), format!("{BIN}/postgres"));
        let (sockets, listen) = (format!("unix_socket_directories={dir}"), format!("listen_addresses={SURVIVOR}"));
        let words = [
            "runuser",
            "-u",
            "postgres",
            "--",
            &program,
            "-D",
            &data,
            "-c",
            &hba,
            "-c",
            &sockets,
            "-c",
            &listen,
            "-c",
            "fsync=off",
            "-c",
            &port,
        ];
        self.server = Some(self.hosts.start_in(&self.hosts.survivor, &words));
        eventually("the database answers", || (self.try_sql("SELECT 1").0 == 0).then_some(()));
    }

    /// Stops the server: at once, nothing is written that matters.
    pub fn stop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        let pid = std::fs::read_to_string(self.folder.path().join("data/postmaster.pid")).unwrap_or_default();
        if let Some(pid) = pid.lines().next().and_then(|line| line.parse().ok()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGQUIT);
        }
        let _ = server.wait();
    }

    /// Makes the next start a standby without an upstream.
    pub fn becomes_standby(&self) {
        std::fs::write(self.folder.path().join("data/standby.signal"), "").expect("written");
    }

    pub fn hba(&self) -> PathBuf {
        self.folder.path().join("pg_hba.conf")
    }

    pub fn socket_dir(&self) -> String {
        self.folder.path().display().to_string()
    }

    fn try_sql(&self, statement: &str) -> (i32, String) {
        let (dir, port) = (self.socket_dir(), self.port.to_string());
        let words = ["-XAtq", "-h", &dir, "-p", &port, "-U", "postgres", "-d", "postgres", "-c", statement];
        let said = crate::call("psql", &words, "");
        (said.status, said.text)
    }

    /// Runs a statement as superuser on the socket.
    pub fn sql(&self, statement: &str) -> String {
        let (status, text) = self.try_sql(statement);
        assert_eq!(status, 0, "{statement}: {text}");
        text.trim().to_owned()
    }
}

impl Drop for Postgres<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}
