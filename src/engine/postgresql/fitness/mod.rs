//! Whether this node's database could really serve as primary: looked at every minute by a task of its own, while the server
//! runs, and sooner for a while where something is amiss. A standby is a physical copy, so its own catalogs say what the primary has;
//! what the primary alone knows it is asked over a new connection, as a rewind or a copy would ask it.
//!
//! ```text
//!  catalogs.rs  this server: extensions, collations, checksums ┐
//!  primary.rs   the primary: settings, rights, collations      ├─► judge ─► core.unfit ─► the next observation
//!  host.rs      this host: room, memory, programs, the archive ┘
//! ```
//!
//! Every question has a deadline, and nothing waits for an answer: neither an observation nor an action. What could not be
//! asked is as it was: a primary that is gone is just when the last answer counts.
//!
//! Not here: what follows (`plan/objection.rs`), and which kinds bar a candidate (`config/bars.rs`).

mod catalogs;
mod disk;
mod host;
mod primary;

use super::core::Core;
use super::error::{EngineError, Result};
use super::session::Session;
use super::version;
use crate::clock;
use crate::types::{DbState, Instant, Lack, NodeName, Observation, Unfit, shortened};
use catalogs::{Catalogs, Server};
use disk::Disk;
use host::Host;
use primary::Primary;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio_postgres::Row;

/// How often it is looked, and how often at first where something is amiss or could not be asked: a cure shows soon, and what
/// stays is not asked for over and over.
const EVERY: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(10);
const AT_FIRST: u32 = 6;
/// How often what seldom changes is looked at: the files of extensions, in every database, and the operator's own check.
const RARELY: Duration = Duration::from_secs(300);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// Libraries that watch, and change nothing of what is done.
const WATCH: [&str; 6] =
    ["pg_stat_statements", "auto_explain", "pg_stat_kcache", "pg_qualstats", "pg_wait_sampling", "pg_stat_monitor"];

/// As what the database runs, and whom it follows: what it lacks depends on both.
type Part = (DbState, Option<NodeName>);

/// Looks for as long as the engine lives.
pub async fn run(core: Arc<Core>) {
    let mut seen = core.seen.subscribe();
    let (disk, mut found, mut as_before) = (Disk::new(core.clone()), Found::default(), 0);
    loop {
        let part = part(&seen.borrow_and_update().observation);
        let Some(part) = part else {
            // A copy may take its place.
            (found, as_before) = (Found::default(), 0);
            publish(&core, Vec::new());
            if seen.changed().await.is_err() {
                return;
            }
            continue;
        };
        let is_well = found.look(&disk, &part).await;
        let (known, state) = (found.clone(), part.0);
        let judged = disk.on("the libraries of the server", move |_| known.judge(state)).await;
        let is_well = is_well && judged.as_ref().is_ok_and(Vec::is_empty);
        let is_news = judged.is_ok_and(|unfit| publish(&core, unfit));
        as_before = if is_well || is_news { 0 } else { as_before + 1 };
        let pause = if is_well || as_before > AT_FIRST { EVERY } else { SOON };
        let becomes_another = seen.wait_for(|seen| self::part(&seen.observation).as_ref() != Some(&part));
        let _ = tokio::time::timeout(pause, becomes_another).await;
    }
}

/// `None`: it is not there to be asked.
fn part(seen: &Observation) -> Option<Part> {
    let is_open = matches!(seen.state, DbState::Standby | DbState::Primary);
    is_open.then(|| (seen.state, seen.follows.clone()))
}

/// Whether it is another finding than the one before.
fn publish(core: &Core, unfit: Vec<Unfit>) -> bool {
    let before = {
        let mut kept = core.unfit.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *kept, unfit.clone())
    };
    if before == unfit {
        return false;
    }
    for lack in unfit.iter().filter(|lack| !before.contains(lack)) {
        tracing::warn!(service = %core.service, kind = %lack.kind(), "not fit to serve: {lack}: {}", lack.cure());
    }
    let cured = |lack: &&Unfit| unfit.iter().all(|now| now.kind() != lack.kind());
    for lack in before.iter().filter(cured) {
        tracing::info!(service = %core.service, kind = %lack.kind(), "no longer: {lack}");
    }
    core.look.notify_one();
    true
}

/// What was found last; what could not be asked again stays.
#[derive(Clone, Debug, Default)]
struct Found {
    server: Option<Server>,
    catalogs: Option<Catalogs>,
    /// The major versions of the programs, zero where there are none, and of the data.
    versions: Option<(u32, u32)>,
    primary: Option<Primary>,
    host: Option<Host>,
    rejoin: Option<Unfit>,
    archive: Option<Unfit>,
    /// When what seldom changes was looked at.
    rarely: Option<Instant>,
}

impl Found {
    /// Whether everything could be asked.
    async fn look(&mut self, disk: &Disk, (state, follows): &Part) -> bool {
        let core = &disk.core;
        let is_due = self.rarely.is_none_or(|at| clock::now().since(at) >= RARELY);
        let asked = self.look_here(disk, *state, is_due).await;
        if let Err(error) = &asked {
            tracing::debug!(service = %core.service, %error, "whether it could serve is not wholly known");
        }
        let there = match follows.as_ref().and_then(|node| core.config.upstream(&core.service, node)) {
            Some(upstream) if *state == DbState::Standby => {
                let used = self.catalogs.as_ref().map_or(&[][..], |catalogs| &catalogs.collations);
                match primary::ask(core, &upstream, used).await {
                    Ok((primary, rejoin)) => {
                        (self.primary, self.rejoin) = (Some(primary), rejoin);
                        true
                    }
                    Err(error) => {
                        tracing::debug!(service = %core.service, %error, "the primary could not be asked");
                        self.rejoin = primary::refusal(&error).or(self.rejoin.take());
                        false
                    }
                }
            }
            _ => {
                (self.primary, self.rejoin) = (None, None);
                true
            }
        };
        asked.is_ok() && there
    }

    async fn look_here(&mut self, disk: &Disk, state: DbState, is_due: bool) -> Result<()> {
        let core = &disk.core;
        self.host = Some(disk.on("this host's volumes", host::look).await?);
        let session = local("postgres", core).await?;
        let server = catalogs::server(&session).await?;
        // Whatever was amiss is looked at again, so that its cure shows.
        if is_due || self.archive.is_some() {
            self.archive = host::archive(disk, &server).await?;
        }
        let catalogs = self.catalogs.as_ref();
        if is_due || catalogs.is_some_and(|catalogs| !catalogs.missing.is_empty()) {
            let programs = match version::of_programs(&core.layout, &core.user, "look at the programs").await {
                Err(EngineError::Spawn { .. }) => 0,
                programs => programs?,
            };
            let data = disk.on("the data directory", |core| core.layout.major_version()).await?;
            self.versions = data.map(|data| (programs, data));
            self.catalogs = match state {
                DbState::Standby => Some(catalogs::read(disk, &session, &server).await?),
                _ => None,
            };
            self.rarely = Some(clock::now());
        }
        self.server = Some(server);
        Ok(())
    }

    /// What follows from it, one of a kind, the gravest first.
    fn judge(&self, state: DbState) -> Vec<Unfit> {
        let host = self.host.clone().unwrap_or_default();
        let mut all: Vec<Unfit> = host.room.clone().into_iter().collect();
        all.extend(self.archive.clone());
        if let Some(server) = &self.server {
            all.extend(server.checksums.clone());
        }
        if let Some((programs, data)) = self.versions.filter(|(programs, data)| programs != data) {
            all.push(Unfit::Version { programs, data });
        }
        if state == DbState::Standby {
            all.extend(self.rejoin.clone());
            if let Some(catalogs) = &self.catalogs {
                all.extend(catalogs.extensions());
                let there = self.primary.as_ref().map(|primary| &primary.collations);
                all.extend(catalogs.collations_that_differ(there));
            }
            if let Some((server, primary)) = self.server.as_ref().zip(self.primary.as_ref()) {
                all.extend(compared(server, primary, &host));
            }
        }
        let by_kind: BTreeMap<Lack, Unfit> = all.into_iter().rev().map(|lack| (lack.kind(), lack)).collect();
        by_kind.into_values().collect()
    }
}

/// What the primary has and this standby has not.
fn compared(server: &Server, primary: &Primary, host: &Host) -> Vec<Unfit> {
    let mut all = Vec::new();
    if server.version != primary.version {
        all.push(Unfit::MinorVersion { here: server.version, primary: primary.version });
    }
    let missing = primary.preloads.iter().filter(|name| !server.preloads.contains(name));
    let (watching, others): (Vec<&String>, Vec<&String>) = missing.partition(|name| WATCH.contains(&name.as_str()));
    let named = |names: &[&String]| {
        let installed = names.iter().all(|name| server.finds_library(name));
        (shortened(&names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")), installed)
    };
    if !others.is_empty() {
        let (names, installed) = named(&others);
        all.push(Unfit::Libraries { names, installed });
    }
    if !watching.is_empty() {
        let (names, installed) = named(&watching);
        all.push(Unfit::Monitoring { names, installed });
    }
    if host.memory.is_some_and(|here| here < primary.memory) {
        all.push(Unfit::Memory { needed: primary.memory, here: host.memory.unwrap_or_default() });
    }
    if primary.has_huge_pages && host.huge_pages.is_some_and(|here| here < primary.memory) {
        all.push(Unfit::HugePages { needed: primary.memory, here: host.huge_pages.unwrap_or_default() });
    }
    all
}

/// A session of its own in this database: the kept one is for what cannot wait. The server ends what takes too long as well.
async fn local(database: &str, core: &Core) -> Result<Session> {
    let session = Session::open_in(database, &core.layout, core.postgresql(), ANSWER).await?;
    let limit = format!("set statement_timeout = {}", ANSWER.as_millis());
    answered("the server", session.execute("limit what is asked", &limit)).await??;
    Ok(session)
}

async fn rows(session: &Session, doing: &'static str, question: &str) -> Result<Vec<Row>> {
    answered(doing, session.client().query_typed(question, &[])).await?.map_err(EngineError::sql(doing))
}

async fn answered<T>(what: &'static str, answer: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(ANSWER, answer).await.map_err(|_| EngineError::NoAnswer { what, after: ANSWER })
}

/// The names in a list of libraries, as they are compared.
fn libraries(list: &str) -> Vec<String> {
    let bare = |name: &str| {
        let name = name.trim().trim_matches('"').trim();
        name.strip_prefix("$libdir/").unwrap_or(name).trim_end_matches(".so").to_owned()
    };
    list.split(',').map(bare).filter(|name| !name.is_empty()).collect()
}

/// A text as a literal of SQL.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn server(preloads: &str) -> Server {
        let (library_path, package_libraries) = ("$libdir".to_owned(), Path::new("/nowhere").to_owned());
        Server { version: 150_003, preloads: libraries(preloads), library_path, package_libraries, ..Server::default() }
    }

    fn primary(preloads: &str) -> Primary {
        Primary { version: 150_003, preloads: libraries(preloads), memory: 1 << 30, ..Primary::default() }
    }

    #[test]
    fn a_list_of_libraries_is_read_however_it_is_written() {
        let names = libraries(r#" "$libdir/timescaledb" ,pg_stat_statements, /opt/x.so,"#);
        assert_eq!(names, ["timescaledb", "pg_stat_statements", "/opt/x"]);
        assert!(libraries("").is_empty());
    }

    #[test]
    fn what_only_watches_is_told_from_what_is_enforced() {
        let host = Host::default();
        let lacks = |here: &str, there: &str| compared(&server(here), &primary(there), &host);
        assert_eq!(lacks("citus, pg_stat_statements", "citus"), []);
        let names = || "pgaudit, sepgsql".to_owned();
        assert_eq!(lacks("", "pgaudit,sepgsql"), [Unfit::Libraries { names: names(), installed: false }]);
        let both = lacks("", "auto_explain, citus");
        assert_eq!(both.iter().map(Unfit::kind).collect::<Vec<_>>(), [Lack::Libraries, Lack::Monitoring]);
    }

    #[test]
    fn memory_counts_where_it_is_known() {
        let lacks = |memory, huge_pages, has_huge_pages| {
            let host = Host { memory, huge_pages, ..Host::default() };
            let all = compared(&server(""), &Primary { has_huge_pages, ..primary("") }, &host);
            all.iter().map(Unfit::kind).collect::<Vec<_>>()
        };
        assert_eq!(lacks(Some(2 << 30), Some(0), false), []);
        assert_eq!(lacks(None, None, true), []);
        assert_eq!(lacks(Some(1 << 29), Some(0), true), [Lack::Memory, Lack::HugePages]);
        assert_eq!(lacks(Some(2 << 30), Some(1 << 30), true), []);
    }

    #[test]
    fn another_minor_version_is_told() {
        let newer = Primary { version: 150_012, ..primary("") };
        let told = compared(&server(""), &newer, &Host::default());
        assert_eq!(told, [Unfit::MinorVersion { here: 150_003, primary: 150_012 }]);
    }
}
