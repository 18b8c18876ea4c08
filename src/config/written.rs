//! What a file says, key by key: to tell two versions of it apart by the names that their author knows.
//!
//! Not here: what a key means.

use std::collections::BTreeMap;
use toml::{Table, Value};

/// Every key with its value, as text, by its whole path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written(BTreeMap<String, String>);

/// What of a service's table counts as soon as the daemon has read it again.
const READ_AGAIN: [&str; 3] = ["hba", "parameters", "replication_password_file"];

impl Written {
    /// What the text says; nothing where it is no TOML.
    pub fn of(text: &str) -> Self {
        let mut keys = BTreeMap::new();
        if let Ok(table) = text.parse::<Table>() {
            flatten("", &table, &mut keys);
        }
        Written(keys)
    }

    /// The keys that are another in `new`: those that count at once, and those that a restart of regent takes.
    pub fn changes(&self, new: &Written) -> (Vec<String>, Vec<String>) {
        let all = self.0.iter().filter(|(key, value)| new.0.get(*key) != Some(*value));
        let added = new.0.keys().filter(|key| !self.0.contains_key(*key));
        let mut changed: Vec<String> = all.map(|(key, _)| key).chain(added).cloned().collect();
        changed.sort();
        changed.into_iter().partition(|key| is_read_again(key))
    }

    /// What counts of `new` when it was read again: of all else what counted before.
    pub fn read_again(&self, new: &Written) -> Self {
        let fixed = self.0.iter().filter(|(key, _)| !is_read_again(key));
        let again = new.0.iter().filter(|(key, _)| is_read_again(key));
        Written(fixed.chain(again).map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

/// `service.NAME.postgresql.hba` and the like, `service.NAME.postgresql.parameters.…`; no name of a service has a dot in it that TOML
/// would not quote.
fn is_read_again(key: &str) -> bool {
    let Some(rest) = key.strip_prefix("service.") else { return false };
    // Of one node alone.
    if let Some((_, own)) = rest.split_once(".node.") {
        return own.split_once('.').is_some_and(|(_, own)| own.starts_with("parameters."));
    }
    let Some((_, own)) = rest.split_once(".postgresql.") else { return false };
    READ_AGAIN.iter().any(|name| own == *name || own.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

fn flatten(path: &str, table: &Table, keys: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            Value::Table(inner) => flatten(&path, inner, keys),
            other => {
                keys.insert(path, other.to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_changed_are_told_apart_by_what_takes_them() {
        let old = Written::of(
            "node = 'a'\n[lease]\nttl = '8s'\n[service.orders.postgresql]\nport = 5432\nhba = ['x']\n[service.orders.postgresql.parameters]\nwork_mem = '8MB'\nssl = 'on'\n",
        );
        let new = Written::of(
            "node = 'a'\n[lease]\nttl = '9s'\n[service.orders.postgresql]\nport = 5432\nhba = ['x', 'y']\n[service.orders.postgresql.parameters]\nwork_mem = '9MB'\n",
        );
        let (at_once, later) = old.changes(&new);
        let under = |key: &str| format!("service.orders.postgresql.{key}");
        assert_eq!(at_once, [under("hba"), under("parameters.ssl"), under("parameters.work_mem")]);
        assert_eq!(later, ["lease.ttl"]);
        let now = old.read_again(&new);
        assert_eq!(now.changes(&new), (Vec::new(), vec!["lease.ttl".to_owned()]), "and is named again next time");
    }
}
