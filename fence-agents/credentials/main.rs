//! `fence_regent_credentials`: takes from a fenced node what lets it reach the databases of this host.
//!
//! What it stops: logins and replication connections from the node's addresses to this host's databases, its sessions
//! that are open, its replication role on the primary, and whatever the operator's own commands revoke. What it does
//! not stop: anything between the node and its own clients, and regent itself. It assists; it does not isolate.

#![expect(
    clippy::disallowed_methods,
    reason = "a program of its own that lives for one action: its caller keeps the deadline"
)]

mod block;
#[path = "../contract/mod.rs"]
mod contract;
mod crl;
mod database;
mod hba;
mod operator;
mod record;
mod role;
mod server;
mod target;

use contract::standing::Standings;
use contract::{Action, Answer, Kind, Opt, Request, Spec, with_causes};
use database::Database;
use std::error::Error;
use std::process::ExitCode;
use target::Target;

const SPEC: Spec = Spec {
    name: "fence_regent_credentials",
    shortdesc: "Access fencing on this host's PostgreSQL",
    longdesc: "fence_regent_credentials puts reject lines for a fenced node on top of the pg_hba.conf of each database \
               on this host, ends the node's connections, sets its replication role to NOLOGIN where the database is \
               the primary, installs a certificate revocation list, and runs the operator's own revoke command. on \
               undoes exactly that, and in-force lists every fence that has something in force here. Options of several \
               databases are lists in the same order, with commas.",
    options: &[
        Opt::text("addresses", "Addresses of the fenced node, with commas between them"),
        Opt {
            default: Some("0"),
            ..Opt::text("fence_id", "Number of the fence; on undoes what off did under the same one")
        },
        Opt::text("hba_file", "The pg_hba.conf of each database on this host"),
        Opt::text("socket_dir", "The directory of each database's Unix socket"),
        Opt { default: Some("5432"), ..Opt::text("port", "The port of each database, which names its Unix socket") },
        Opt { default: Some("postgres"), ..Opt::text("superuser", "The superuser of each database") },
        Opt::text("replication_role", "The role with which the fenced node replicates, per database"),
        Opt::text("crl_source", "Revocation list, signed by the operator's CA, that names the node's certificate"),
        Opt::text("crl_file", "The file that ssl_crl_file of the databases names; crl_source is copied over it"),
        Opt::text("revoke", "Shell command that off runs; it finds NODE, FENCE_ID and ACTION in its environment"),
        Opt::text("restore", "Shell command that on runs, likewise"),
        Opt {
            kind: Kind::Second,
            default: Some("10"),
            ..Opt::text("command_timeout", "How long revoke or restore may take")
        },
        Opt {
            kind: Kind::Second,
            default: Some("5"),
            ..Opt::text("database_timeout", "How long the work on one database may take")
        },
    ],
    actions: &[
        Action::On,
        Action::Off,
        Action::Status,
        Action::Monitor,
        Action::Metadata,
        Action::Manpage,
        Action::ValidateAll,
        Action::InForce,
    ],
    metadata: include_str!("metadata.xml"),
};

/// Some parts failed; every other part was done all the same.
#[derive(Debug, thiserror::Error)]
#[error("{failed} of {all} parts failed:\n{report}")]
struct PartsFailed {
    failed: usize,
    all: usize,
    report: String,
}

/// What each part came to, in order.
#[derive(Default)]
struct Report {
    lines: Vec<String>,
    failed: usize,
    /// What is told besides the parts.
    told: Vec<String>,
}

impl Report {
    fn add(&mut self, part: &str, result: Result<String, Box<dyn Error>>) {
        match result {
            Ok(text) => self.lines.push(format!("{part}: {text}")),
            Err(error) => {
                self.failed += 1;
                self.lines.push(format!("{part}: FAILED: {}", with_causes(error.as_ref())));
            }
        }
    }

    fn answer(self, word: &str) -> Result<Answer, Box<dyn Error>> {
        let all = self.lines.len();
        let report = [self.lines, self.told].concat().join("\n");
        if self.failed > 0 {
            return Err(PartsFailed { failed: self.failed, all, report }.into());
        }
        Ok(Answer::Done(format!("{word}\n{report}")))
    }
}

fn main() -> ExitCode {
    contract::run(&SPEC, act)
}

async fn act(request: &Request) -> Result<Answer, Box<dyn Error>> {
    let target = Target::from_request(request)?;
    let databases = database::from_request(request)?;
    match request.action {
        Action::Off => off(request, &target, &databases).await,
        Action::On => on(request, &target, &databases).await,
        Action::Monitor => monitor(&databases).await,
        Action::InForce => in_force(request, &databases).await,
        Action::ValidateAll => {
            target.needs_addresses()?;
            Ok(Answer::Done(format!("Success: the options are valid, for {} databases", databases.len())))
        }
        _ => Ok(status(request, &target, &databases)?),
    }
}

async fn off(request: &Request, target: &Target, databases: &[Database]) -> Result<Answer, Box<dyn Error>> {
    target.needs_addresses()?;
    let mut report = Report::default();
    // Files first: what reads them afterwards, reads the new ones.
    if let Some(crl) = crl::Crl::from_request(request)? {
        report.add("revocation list", crl.install(target.fence).map_err(Into::into));
    }
    for database in databases {
        report.add(&database.name(), database.revoke(target).await.map_err(Into::into));
    }
    if let Some(done) = operator::run(request, "revoke", target).await {
        report.add("revoke command", done.map_err(Into::into));
    }
    if report.lines.is_empty() {
        report.lines.push("nothing on this host applies: no database, revocation list or command is configured".into());
    }
    report.answer("Success: revoked")
}

async fn on(request: &Request, target: &Target, databases: &[Database]) -> Result<Answer, Box<dyn Error>> {
    let mut report = Report::default();
    if let Some(crl) = crl::Crl::from_request(request)? {
        report.add("revocation list", crl.remove(target.fence).map_err(Into::into));
    }
    for database in databases {
        report.add(&database.name(), database.restore(target).await.map_err(Into::into));
    }
    if let Some(done) = operator::run(request, "restore", target).await {
        report.add("restore command", done.map_err(Into::into));
    }
    report.answer("Success: restored")
}

async fn monitor(databases: &[Database]) -> Result<Answer, Box<dyn Error>> {
    let mut report = Report::default();
    for database in databases {
        report.add(&database.name(), database.look().await.map_err(Into::into));
    }
    report.answer("Monitor: usable")
}

/// What fences have in force here. A part that cannot be looked at is a failure; the others are told all the same.
async fn in_force(request: &Request, databases: &[Database]) -> Result<Answer, Box<dyn Error>> {
    let (mut found, mut report) = (Standings::default(), Report::default());
    if let Some(crl) = crl::Crl::from_request(request)? {
        let fences = crl.fences().map(|fences| {
            fences.iter().for_each(|fence| found.add(*fence, None, &format!("revocation list over {}", crl.name())));
            "looked at".to_owned()
        });
        report.add("revocation list", fences.map_err(Into::into));
    }
    for database in databases {
        report.add(&database.name(), database.in_force(&mut found).await.map_err(Into::into));
    }
    report.told = found.lines();
    report.answer("In force on this host:")
}

/// Off when everything that is kept in files on this host is in place, and there is something.
fn status(request: &Request, target: &Target, databases: &[Database]) -> Result<Answer, Box<dyn Error>> {
    let mut parts = Vec::new();
    for database in databases {
        if let Some(revoked) = database.is_revoked(target)? {
            parts.push(revoked);
        }
    }
    if let Some(crl) = crl::Crl::from_request(request)? {
        parts.push(crl.is_installed(target.fence)?);
    }
    if !parts.is_empty() && parts.iter().all(|revoked| *revoked) {
        return Ok(Answer::Off("Status: OFF (revoked)".to_owned()));
    }
    Ok(Answer::On("Status: ON (not revoked)".to_owned()))
}

#[cfg(test)]
#[test]
fn the_metadata_is_what_the_options_say() {
    contract::check_golden_metadata(&SPEC, "fence-agents/credentials/metadata.xml");
}
