//! What the files of relations are called, by the word of the database that runs on this host, primary or standby. Each is
//! asked about once.
//!
//! Not here: which files. One that was made after a fork must not be asked about: on this side another may have its number.

use super::error::{EngineError, Result};
use super::layout::Layout;
use super::session::Session;
use crate::config::Postgresql;
use crate::types::{LostTransaction, RelationFile, RelationName, RelationSort};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_postgres::types::Type;

const ANSWER: Duration = Duration::from_secs(5);

/// The relation of a file, and the table whose large values it holds.
const WHICH: &str = "select coalesce(owners.nspname, n.nspname)::text, coalesce(o.relname, c.relname)::text, \
    c.relkind::text from pg_class c join pg_namespace n on n.oid = c.relnamespace \
    left join pg_class o on o.reltoastrelid = c.oid left join pg_namespace owners on owners.oid = o.relnamespace \
    where c.oid = pg_filenode_relation($1, $2)";
const DATABASE: &str = "select datname::text from pg_database where oid = $1 and datallowconn";

/// Names of files, as far as somebody answers.
#[derive(Debug)]
pub struct Relations<'a> {
    layout: &'a Layout,
    postgresql: &'a Postgresql,
    /// By the database's number: its name and a connection; `None` where there is none.
    databases: BTreeMap<u32, Option<(String, Session)>>,
    known: BTreeMap<RelationFile, Option<RelationName>>,
    /// Why nobody answers.
    silent: Option<String>,
}

impl<'a> Relations<'a> {
    pub fn new(layout: &'a Layout, postgresql: &'a Postgresql) -> Self {
        Relations { layout, postgresql, databases: BTreeMap::new(), known: BTreeMap::new(), silent: None }
    }

    /// Why names are missing, where nobody answered.
    pub fn silent(&self) -> Option<&str> {
        self.silent.as_deref()
    }

    /// Names the relations of a transaction. Whether anything of users' is in it.
    pub async fn name(&mut self, transaction: &mut LostTransaction) -> bool {
        for change in transaction.relations.iter_mut().filter(|change| !change.made) {
            change.relation = self.of(change.file).await;
        }
        settle(transaction)
    }

    async fn of(&mut self, file: RelationFile) -> Option<RelationName> {
        if let Some(known) = self.known.get(&file) {
            return known.clone();
        }
        if self.silent.is_some() {
            return None;
        }
        let found = match self.ask(file).await {
            Ok(found) => found,
            Err(error) => {
                self.silent = Some(error.to_string());
                return None;
            }
        };
        self.known.insert(file, found.clone());
        found
    }

    async fn ask(&mut self, file: RelationFile) -> Result<Option<RelationName>> {
        if !self.databases.contains_key(&file.database) {
            let opened = self.open(file.database).await?;
            self.databases.insert(file.database, opened);
        }
        let Some((database, session)) = self.databases.get(&file.database).and_then(Option::as_ref) else {
            return Ok(None);
        };
        let doing = "ask the local server for the name of a relation";
        let numbers: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&file.tablespace, Type::OID), (&file.number, Type::OID)];
        let answer = tokio::time::timeout(ANSWER, session.client().query_typed(WHICH, &numbers)).await;
        let rows = answer.map_err(|_| EngineError::NoAnswer { what: doing, after: ANSWER })?;
        let rows = rows.map_err(EngineError::sql(doing))?;
        Ok(rows.first().map(|row| {
            let (schema, name, kind) = (row.get::<_, String>(0), row.get::<_, String>(1), row.get::<_, &str>(2));
            let sort = sort(&schema, &name, kind);
            RelationName { database: database.clone(), schema, name, sort }
        }))
    }

    /// A connection to the database with this number; `None` where there is no such database.
    async fn open(&self, oid: u32) -> Result<Option<(String, Session)>> {
        let session = Session::open(self.layout, self.postgresql, ANSWER).await?;
        let rows = session.client().query_typed(DATABASE, &[(&oid, Type::OID)]).await;
        let rows = rows.map_err(EngineError::sql("ask the local server for its databases"))?;
        let Some(row) = rows.first() else { return Ok(None) };
        let name: String = row.get(0);
        let session = Session::open_in(&name, self.layout, self.postgresql, ANSWER).await?;
        Ok(Some((name, session)))
    }
}

fn sort(schema: &str, name: &str, kind: &str) -> RelationSort {
    match kind {
        _ if (schema, name) == ("pg_catalog", "pg_largeobject") => RelationSort::Table,
        _ if schema == "pg_catalog" || schema == "information_schema" => RelationSort::Catalog,
        _ if (schema, name) == ("regent", "probe") => RelationSort::Probe,
        "t" => RelationSort::Toast,
        "r" | "m" => RelationSort::Table,
        _ => RelationSort::Other,
    }
}

/// With names known: what is no table of a user is not listed, nor is the row of regent's
/// own probe. Whether anything is left.
fn settle(transaction: &mut LostTransaction) -> bool {
    let mut sorts = transaction.relations.iter().flat_map(|change| &change.relation).map(|name| name.sort);
    transaction.catalog |= sorts.any(|sort| sort == RelationSort::Catalog);
    let is_listed = |name: &RelationName| matches!(name.sort, RelationSort::Table | RelationSort::Toast);
    transaction.relations.retain(|change| change.relation.as_ref().is_none_or(is_listed));
    transaction.catalog || !transaction.relations.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{LostChange, Lsn};

    fn settled(relations: &[(&str, &str, &str)]) -> (LostTransaction, bool) {
        let change = |(number, (schema, name, kind)): (u32, &(&str, &str, &str))| LostChange {
            file: RelationFile { tablespace: 1663, database: 5, number },
            relation: (!name.is_empty()).then(|| RelationName {
                database: "shop".into(),
                schema: (*schema).into(),
                name: (*name).into(),
                sort: sort(schema, name, kind),
            }),
            made: false,
            removed: false,
            inserted: 1,
            updated: 0,
            deleted: 0,
        };
        let mut transaction = LostTransaction {
            xid: 700,
            committed_at: String::new(),
            commit: Lsn(1),
            prepared: false,
            subtransactions: 0,
            relations: (16384..).zip(relations).map(change).collect(),
            catalog: false,
            partly_seen: false,
        };
        let is_lost = settle(&mut transaction);
        (transaction, is_lost)
    }

    #[test]
    fn the_probe_alone_is_no_loss() {
        let probe = ("regent", "probe", "r");
        assert!(!settled(&[probe]).1 && !settled(&[]).1);
        let (told, is_lost) = settled(&[probe, ("public", "orders", "r")]);
        assert_eq!((told.relations.len(), is_lost), (1, true));
        assert!(settled(&[("", "", "")]).1 && settled(&[("pg_catalog", "pg_largeobject", "r")]).1);
    }

    #[test]
    fn indexes_and_rewritten_catalogs_are_not_listed_as_relations_of_users() {
        let (told, _) =
            settled(&[("pg_catalog", "pg_class", "r"), ("public", "orders", "r"), ("public", "orders_pkey", "i")]);
        let names: Vec<_> =
            told.relations.iter().flat_map(|change| &change.relation).map(|name| name.name.as_str()).collect();
        assert_eq!((names, told.catalog), (vec!["orders"], true));
    }

    #[test]
    fn what_nobody_can_name_stays_with_its_numbers() {
        assert_eq!(settled(&[("", "", "")]).0.relations.len(), 1);
    }
}
