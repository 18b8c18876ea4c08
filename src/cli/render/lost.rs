//! What a failover lost, as text: each part as it is found, so that the first lines stand there while the last are read.
//!
//! Not here: which parts there are (`api/lost.rs`).

use crate::api::lost::{Loss, LostPart, LostWal};
use crate::types::{LostChange, LostSummary, LostTransaction, MissingWal, RelationSort};

/// The text of one loss, and what its end has to explain.
#[derive(Debug, Default)]
pub struct Listing {
    /// Something is marked as seen in part.
    partly: bool,
    /// A file of before the fork that nobody could name.
    number: Option<LostChange>,
}

impl Listing {
    /// The next part.
    pub fn part(&mut self, part: &LostPart) -> String {
        match part {
            LostPart::Loss(loss) => head(loss),
            LostPart::Transaction(lost) => self.transaction(lost),
            LostPart::End(summary) => self.end(summary),
        }
    }

    fn transaction(&mut self, lost: &LostTransaction) -> String {
        self.partly |= lost.partly_seen;
        let mut text = format!("\n{}  transaction {}", lost.committed_at, lost.xid);
        if lost.prepared {
            text += ", prepared";
        }
        if lost.subtransactions > 0 {
            text += &format!(", with {}", counted(lost.subtransactions as u64, "savepoint", "savepoints"));
        }
        if lost.partly_seen {
            text += " *";
        }
        for change in &lost.relations {
            if change.relation.is_none() && !change.made {
                self.number = Some(change.clone());
            }
            text += &format!("\n  {}: {}", name(change), done(change).join(", "));
        }
        if lost.catalog {
            text += "\n  changes the catalog (DDL)";
        }
        text + "\n"
    }

    fn end(&self, summary: &LostSummary) -> String {
        let LostSummary { transactions, without_rows, rolled_back, open, prepared, .. } = summary;
        let mut text = match transactions {
            0 => "\nNo transaction that changed a row was committed after the fork.\n".to_owned(),
            1 => "\n1 transaction was committed after the fork and is lost.\n".to_owned(),
            n => format!("\n{n} transactions were committed after the fork and are lost.\n"),
        };
        let of = |count: &u64, what: &str| (*count > 0).then(|| format!("{count} {what}"));
        let others = [
            of(without_rows, "committed without a row of users (probe, statistics, locks)"),
            of(rolled_back, "rolled back (transactions and savepoints)"),
            of(open, "open at the end (transactions and savepoints)"),
            of(prepared, "prepared and not decided"),
        ];
        let others: Vec<String> = others.into_iter().flatten().collect();
        if !others.is_empty() {
            text += &format!("Not listed: {}.\n", others.join("; "));
        }
        for gap in &summary.missing {
            text += &format!("MISSING: {}\n", missing(gap));
        }
        if !summary.missing.is_empty() {
            text += "And possibly more was lost: what was committed there is not listed, nor all of what reaches over it.\n";
        }
        if let Some(why) = &summary.unnamed {
            text += &format!("Relations are shown by number, because the database here was not asked: {why}.\n");
        }
        if let Some(LostChange { file, .. }) = &self.number {
            text += &format!(
                "Numbers are tablespace/database/file. In the database with that oid, as {file} shows, ask a server of this \
                 service:\n  select pg_filenode_relation({}, {})::regclass  -- in database {}\n",
                file.tablespace, file.number, file.database
            );
        }
        if self.partly {
            text += "* may have begun before the WAL that was read: what it wrote there is not counted.\n";
        }
        text
    }
}

fn head(loss: &Loss) -> String {
    let what = &loss.what;
    let mut text = format!(
        "Incident {}: what {} acknowledged for {} in epoch {}, on timeline {} after {}, and {} has not\n",
        loss.incident, what.node, what.service, what.epoch, what.timeline, what.after, what.by
    );
    if let Some(LostWal { folder, timeline, fork, end }) = &loss.wal {
        let end = end.map_or_else(|| "as far as there is any".to_owned(), |end| format!("to {end}"));
        text += &format!("  Read from {}: timeline {timeline}, from the fork at {fork} {end}\n", folder.display());
    }
    if let Some(why) = &loss.not_read {
        text += &format!("  Nothing can be listed: {why}\n");
    }
    text
}

fn name(change: &LostChange) -> String {
    match &change.relation {
        Some(relation) => {
            let pieces = if relation.sort == RelationSort::Toast { " (pieces of large values)" } else { "" };
            format!("{}.{}.{}{pieces}", relation.database, relation.schema, relation.name)
        }
        None if change.made => format!("{} (a file made after the fork)", change.file),
        None => change.file.to_string(),
    }
}

fn done(change: &LostChange) -> Vec<String> {
    let LostChange { inserted, updated, deleted, removed, .. } = change;
    let of = |count: &u64, what: &str| (*count > 0).then(|| format!("{count} {what}"));
    let rows = [of(inserted, "inserted"), of(updated, "updated"), of(deleted, "deleted")];
    let removed = removed.then(|| "its file was removed (TRUNCATE, DROP or a rewrite)".to_owned());
    rows.into_iter().chain([removed]).flatten().collect()
}

fn missing(gap: &MissingWal) -> String {
    let MissingWal { first, last, after, why } = gap;
    let said = why.as_ref().map_or(String::new(), |why| format!(": {why}"));
    match after {
        Some(at) => format!("{first} cannot be read after {at}{said}"),
        None if why.is_some() => format!("{first} cannot be read{said}"),
        None if first == last => format!("{first} is not there"),
        None => format!("{first} to {last} are not there"),
    }
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
