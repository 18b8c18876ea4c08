//! What the primary says of itself over a new connection, in the role and from the address of a rewind or a copy: so that
//! what keeps one of these from being made shows before one is needed.
//!
//! Not here: the rewind and the copy (`rejoin.rs`), and how the primary is reached (`upstream.rs`).

use super::catalogs::{Collation, locale_column};
use super::{answered, libraries, literal, rows};
use crate::engine::postgresql::core::Core;
use crate::engine::postgresql::error::{EngineError, Result};
use crate::engine::postgresql::initdb::REWIND_READS;
use crate::engine::postgresql::session::Session;
use crate::engine::postgresql::{rejoin, upstream};
use crate::types::{Unfit, Upstream, shortened};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What it said.
#[derive(Clone, Debug, Default)]
pub struct Primary {
    /// `server_version_num`.
    pub version: u32,
    /// Empty also where a role that somebody else made may not know them.
    pub preloads: Vec<String>,
    /// Its shared memory, in bytes; before 15 its `shared_buffers`.
    pub memory: u64,
    pub has_huge_pages: bool,
    /// The version of each collation that was asked for, by provider and locale, where it has one.
    pub collations: BTreeMap<(String, String), String>,
}

const ABOUT: &str = "select current_setting('server_version_num')::int, \
    case when pg_has_role('pg_read_all_settings', 'usage') then current_setting('shared_preload_libraries') end, \
    coalesce((select setting::bigint << 20 from pg_settings where name = 'shared_memory_size'), \
        pg_size_bytes(current_setting('shared_buffers'))), \
    coalesce(current_setting('huge_pages_status', true), current_setting('huge_pages')) = 'on', \
    pg_is_in_recovery(), \
    (select rolreplication from pg_roles where rolname = current_user), \
    current_setting('max_wal_senders')::int - (select count(*)::int from pg_stat_replication)";

/// A copy takes two of the primary's WAL senders.
const SENDERS: i32 = 2;

/// What it says, and what it does not allow. Error: it did not let this node in, or did not answer.
pub async fn ask(core: &Arc<Core>, upstream: &Upstream, used: &[Collation]) -> Result<(Primary, Option<Unfit>)> {
    let session = upstream::open(core, upstream).await?;
    let about = rows(&session, "ask the primary what it has", ABOUT).await?;
    let row = about.first().filter(|row| !row.get::<_, bool>(4)).ok_or_else(|| EngineError::Refused {
        action: "ask the primary what it has",
        why: format!("{} is in recovery", upstream.node),
    })?;
    answered("the primary, asked as by a rejoin,", rejoin::asks(&session, upstream)).await??;
    let version = u32::try_from(row.get::<_, i32>(0)).unwrap_or_default();
    let primary = Primary {
        version,
        preloads: libraries(row.get::<_, Option<&str>>(1).unwrap_or_default()),
        memory: u64::try_from(row.get::<_, i64>(2)).unwrap_or_default(),
        has_huge_pages: row.get(3),
        collations: collations(&session, version, used).await?,
    };
    let may_copy = row.get::<_, Option<bool>>(5).unwrap_or_default();
    let denied = match forbidden(&session, may_copy).await? {
        None if row.get::<_, i32>(6) < SENDERS => {
            let why = "a copy needs two WAL senders of the primary, and they are taken: raise max_wal_senders, or end readers";
            Some(Unfit::Rejoin { why: why.to_owned() })
        }
        denied => denied,
    };
    Ok((primary, denied))
}

/// What of a rewind or a copy its role may not do.
async fn forbidden(session: &Session, may_copy: bool) -> Result<Option<Unfit>> {
    if !may_copy {
        return Ok(Some(Unfit::Rejoin { why: "its role may not replicate (alter role … replication)".to_owned() }));
    }
    let functions = REWIND_READS.map(|function| format!("('{function}')")).join(", ");
    let question = format!(
        "select f from (values {functions}) v (f) where not has_function_privilege('pg_catalog.' || f, 'execute')"
    );
    let denied = rows(session, "ask the primary for the rights of a rewind", &question).await?;
    let names: Vec<&str> = denied.iter().map(|row| row.get(0)).collect();
    let why = || shortened(&format!("execute on {}", names.join(", ")));
    Ok((!names.is_empty()).then(|| Unfit::Rejoin { why: why() }))
}

/// Where the primary answered that it does not let this node in: it would not let a rewind in either. Whether a server that
/// does not answer would, nobody knows.
pub fn refusal(error: &EngineError) -> Option<Unfit> {
    let EngineError::Sql { detail, code: Some(code), .. } = error else { return None };
    // Refused by name, password or access line; by a right; for want of a connection; no such database, or none that lets
    // anybody in; by a trigger on the login; by a library that its settings name.
    let is_refusal =
        code.starts_with("28") || ["42501", "53300", "3D000", "55000", "P0001", "58P01"].contains(&code.as_str());
    is_refusal.then(|| Unfit::Rejoin { why: shortened(detail) })
}

/// The versions that it has of these. One of libc that it has under no such name has the version of all of libc.
async fn collations(session: &Session, version: u32, used: &[Collation]) -> Result<BTreeMap<(String, String), String>> {
    if used.is_empty() {
        return Ok(BTreeMap::new());
    }
    let (locale, in_database) = (locale_column(version, "coll"), locale_column(version, "dat"));
    let wanted = used.iter().map(|c| format!("({}, {})", literal(&c.provider), literal(&c.locale)));
    let wanted = wanted.collect::<Vec<_>>().join(", ");
    let of_databases = match version {
        ..150_000 => "null::text".to_owned(),
        _ => format!(
            "(select pg_database_collation_actual_version(d.oid) from pg_database d \
             where d.datlocprovider::text = w.provider and d.{in_database}::text = w.locale limit 1)"
        ),
    };
    let question = format!(
        "select w.provider, w.locale, coalesce( \
         (select pg_collation_actual_version(c.oid) from pg_collation c \
            where c.collprovider::text = w.provider and c.{locale}::text = w.locale limit 1), \
         {of_databases}, \
         case w.provider when 'c' then (select pg_collation_actual_version(c.oid) from pg_collation c \
            where c.collprovider = 'c' and c.collcollate !~* '^(c|posix)(\\.|$)' limit 1) end) \
         from (values {wanted}) w (provider, locale)"
    );
    let found = rows(session, "ask the primary for its collations", &question).await?;
    let one = |row: &tokio_postgres::Row| {
        let version = row.get::<_, Option<String>>(2)?;
        Some(((row.get(0), row.get(1)), version))
    };
    Ok(found.iter().filter_map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_from_a_server_that_does_not_answer() {
        let error = |code: Option<&str>| EngineError::Sql {
            doing: "connect to the upstream",
            detail: "FATAL: no".to_owned(),
            code: code.map(str::to_owned),
        };
        for code in ["28P01", "28000", "42501", "53300", "3D000"] {
            assert_eq!(refusal(&error(Some(code))), Some(Unfit::Rejoin { why: "FATAL: no".to_owned() }), "{code}");
        }
        for code in [None, Some("57P03"), Some("57P01"), Some("XX000")] {
            assert_eq!(refusal(&error(code)), None, "{code:?}: it starts, stops, or is not there");
        }
    }
}
