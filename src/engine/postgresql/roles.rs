//! What each node's replication role must have on the primary: that it may log in and replicate, its password, and the rights
//! to all that a rejoin, a rewind and a copy ask for. A primary looks once a minute, when it has taken over, and when regent's
//! file is read again, and puts right what somebody has changed: hardening scripts know nothing of regent.
//!
//! One thing is left as it is: a login that a fence took. On a standby nothing is done: its roles are the primary's.
//!
//! Not here: whether a standby is let in (`fitness/primary.rs` tries), and how a role is made first (`initdb.rs`).

use super::core::Core;
use super::error::{EngineError, Result};
use super::initdb::{self, MEMBER_OF, REWIND_READS};
use super::session::{HOME, Session};
use super::{access, password};
use crate::types::DbState;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::Row;

const EVERY: Duration = Duration::from_secs(60);
/// How long a server may take for all of it.
const DEADLINE: Duration = Duration::from_secs(10);
/// A copy takes two connections.
const SESSIONS: usize = 2;

/// What a rejoin asks beside what a rewind reads; as everybody may, where nobody has taken it from the public.
const ASKED: [&str; 15] = [
    "pg_control_system()",
    "pg_control_init()",
    "pg_control_checkpoint()",
    "pg_is_in_recovery()",
    "pg_current_wal_flush_lsn()",
    "pg_current_wal_insert_lsn()",
    "pg_walfile_name(pg_lsn)",
    "pg_last_wal_receive_lsn()",
    "pg_last_wal_replay_lsn()",
    "pg_stat_get_wal_receiver()",
    "pg_stat_get_activity(integer)",
    "pg_tablespace_location(oid)",
    "pg_tablespace_size(oid)",
    "pg_create_physical_replication_slot(name, boolean, boolean)",
    "pg_drop_replication_slot(name)",
];
const SEEN: [&str; 8] = [
    "pg_stat_wal_receiver",
    "pg_stat_activity",
    "pg_stat_replication",
    "pg_settings",
    "pg_roles",
    "pg_database",
    "pg_tablespace",
    "pg_replication_slots",
];

/// A statement that puts something right, and what it does in words.
struct Repair {
    what: String,
    statement: String,
}

/// Looks for as long as the engine lives, while the database is a primary.
pub async fn run(core: Arc<Core>) {
    let mut seen = core.seen.subscribe();
    let mut failure = None;
    loop {
        if seen.borrow_and_update().observation.state != DbState::Primary {
            if seen.changed().await.is_err() {
                return;
            }
            continue;
        }
        let error = tend(&core).await.err().map(|error| error.to_string());
        if let Some(error) = error.as_ref().filter(|_| error != failure) {
            tracing::warn!(service = %core.service, error, "what the replication roles may do was not looked at");
        }
        failure = error;
        let becomes_another = seen.wait_for(|seen| seen.observation.state != DbState::Primary);
        let _ = tokio::time::timeout(EVERY, becomes_another).await;
    }
}

/// Has a primary's roles be as they must. Brings what was put right.
pub async fn tend(core: &Arc<Core>) -> Result<Vec<String>> {
    let late = |_| EngineError::NoAnswer { what: "the server, asked for the replication roles,", after: DEADLINE };
    tokio::time::timeout(DEADLINE, put_right(core)).await.map_err(late)?
}

async fn put_right(core: &Arc<Core>) -> Result<Vec<String>> {
    // One at a time, on a session that nothing urgent waits for.
    let _turn = core.tends_roles.lock().await;
    let session = Session::open(&core.layout, core.postgresql(), core.postgresql().probe_timeout).await?;
    if session.place().await?.in_recovery {
        return Ok(Vec::new());
    }
    let roles = access::replication_roles(&core.config, core.postgresql());
    let mut done = repair(core, &session, wrong(core, &session, &roles).await?).await?;
    // One that was just made has what the public may, and no more.
    done.extend(repair(core, &session, rights(&session, &roles).await?).await?);
    Ok(done)
}

async fn repair(core: &Core, session: &Session, repairs: Vec<Repair>) -> Result<Vec<String>> {
    let mut done = Vec::new();
    for repair in repairs {
        session.execute("put the replication roles right", &repair.statement).await?;
        tracing::warn!(service = %core.service, "{}", repair.what);
        done.push(repair.what);
    }
    Ok(done)
}

async fn wrong(core: &Arc<Core>, session: &Session, roles: &[String]) -> Result<Vec<Repair>> {
    let given = core.current();
    let (passwords, is_revoked) = core
        .on_disk(move |core| {
            let passwords = password::passwords(&given, &core.layout.inside)?;
            Ok::<_, EngineError>((passwords, access::is_revoked(&core.layout)?))
        })
        .await?;
    let verifier = || password::verifier(&core.current(), &core.layout.inside);
    let present = ask(session, LOOK).await?;
    let mut repairs = database(session, roles.len() * SESSIONS).await?;
    for role in roles {
        let Some(row) = present.iter().find(|row| row.get::<_, &str>(0) == role) else {
            let statement = initdb::role_statements(role, verifier()?.as_deref()).join("; ");
            repairs.push(Repair { what: format!("role {role} was not there: it is made"), statement });
            continue;
        };
        repairs.extend(attributes(role, row, is_revoked));
        let kept: Option<&str> = row.get(6);
        if let Some(first) = passwords.first()
            && !kept.is_some_and(|kept| password::is_kept_as(first, kept))
            && let Some(verifier) = verifier()?
        {
            let statement = format!("alter role \"{role}\" password '{verifier}'");
            repairs
                .push(Repair { what: format!("role {role} has the password of replication_password_file"), statement });
        }
    }
    Ok(repairs)
}

const LOOK: &str = "select r.rolname::text, r.rolcanlogin, r.rolreplication, r.rolinherit, r.rolconnlimit, \
    coalesce(r.rolvaliduntil < 'infinity', false), r.rolpassword, \
    coalesce(shobj_description(r.oid, 'pg_authid'), '') ~ '(^|\\n)regent fence [0-9]+ of node ', \
    array(select coalesce(d.datname::text, '') from pg_db_role_setting s left join pg_database d on d.oid = s.setdatabase \
        where s.setrole = r.oid) \
    from pg_authid r";

/// What the role itself may.
fn attributes(role: &str, row: &Row, is_revoked: bool) -> Vec<Repair> {
    let is_fenced = is_revoked || row.get(7);
    let lacks = [
        (!row.get::<_, bool>(1) && !is_fenced, "login", "may log in again"),
        (!row.get::<_, bool>(2), "replication", "may replicate again"),
        (!row.get::<_, bool>(3), "inherit", "has the rights of its groups again"),
        (row.get::<_, i32>(4) >= 0, "connection limit -1", "has no connection limit any more"),
        (row.get(5), "valid until 'infinity'", "has a password without an end again"),
    ];
    let alter = |words: &str| format!("alter role \"{role}\" {words}");
    let lacks = lacks.into_iter().filter(|(is_wrong, ..)| *is_wrong);
    let mut repairs: Vec<Repair> =
        lacks.map(|(_, words, what)| Repair { what: format!("role {role} {what}"), statement: alter(words) }).collect();
    // A time limit or another path makes of a rejoin what nobody wants.
    repairs.extend(row.get::<_, Vec<String>>(8).into_iter().map(|database| {
        let within = match database.is_empty() {
            true => String::new(),
            false => format!("in database \"{}\" ", database.replace('"', "\"\"")),
        };
        Repair {
            what: format!("role {role} has no settings of its own any more"),
            statement: alter(&format!("{within}reset all")),
        }
    }));
    repairs
}

/// What the roles may not do that they must: asked of the server, in its own words.
async fn rights(session: &Session, roles: &[String]) -> Result<Vec<Repair>> {
    let list = |names: &[&str]| names.iter().map(|name| format!("('{name}')")).collect::<Vec<_>>().join(", ");
    let roles = roles.iter().map(|role| format!("('{}')", role.replace('\'', "''"))).collect::<Vec<_>>().join(", ");
    let functions = list(&[&REWIND_READS[..], &ASKED[..]].concat());
    let question = format!(
        "with role (name) as (values {roles}), there as (select name from role join pg_roles on rolname = name) \
         select format('grant execute on function pg_catalog.%s to %I', f.f, t.name) \
             from there t, (values {functions}) f (f) where to_regprocedure('pg_catalog.' || f.f) is not null \
             and not has_function_privilege(t.name, 'pg_catalog.' || f.f, 'execute') \
         union all select format('grant select on pg_catalog.%I to %I', v.v, t.name) from there t, (values {seen}) v (v) \
             where not has_table_privilege(t.name, 'pg_catalog.' || v.v, 'select') \
         union all select format('grant %I to %I', g.g, t.name) from there t, (values {groups}) g (g) \
             where not pg_has_role(t.name, g.g, 'member') \
         union all select format('grant connect on database {HOME} to %I', t.name) from there t \
             where not has_database_privilege(t.name, '{HOME}', 'connect')",
        seen = list(&SEEN),
        groups = list(&MEMBER_OF),
    );
    let rows = ask(session, &question).await?;
    let repair = |row: &Row| {
        let statement: String = row.get(0);
        Repair { what: format!("a right that rejoins need was given back: {statement}"), statement }
    };
    Ok(rows.iter().map(repair).collect())
}

/// The database in which they ask: a limit that leaves too few sessions for the nodes.
async fn database(session: &Session, sessions: usize) -> Result<Vec<Repair>> {
    let question =
        format!("select from pg_database where datname = '{HOME}' and datconnlimit between 0 and {sessions} - 1");
    let is_tight = !ask(session, &question).await?.is_empty();
    let what = format!("database {HOME} lets {sessions} sessions in again: so many the nodes need");
    let statement = format!("alter database {HOME} connection limit {sessions}");
    Ok(is_tight.then_some(Repair { what, statement }).into_iter().collect())
}

async fn ask(session: &Session, question: &str) -> Result<Vec<Row>> {
    let doing = "ask for the replication roles";
    session.client().query_typed(question, &[]).await.map_err(EngineError::sql(doing))
}
