//! Names that PostgreSQL and the kernel must be able to keep apart, in the lengths and letters that they allow: the nodes'
//! replication roles, the users of a service, and the paths of its sockets.
//!
//! Not here: how a role's name is made (`database_tls.rs`).

use super::database_tls::{REPLICATION_USER, replication_role};
use super::on_host::SOCKET_PATH;
use super::problem::Problems;
use super::{Config, Role};
use crate::types::Quoted;
use std::collections::BTreeMap;

/// PostgreSQL cuts longer names off.
pub(super) const LONGEST: usize = 63;

/// Adds a problem for every name that would be taken for another one, or for something else.
pub(super) fn rules(config: &Config, problems: &mut Problems<'_>) {
    roles(config, problems);
    sockets(config, problems);
    for (name, service) in &config.services {
        let postgresql = &service.postgresql;
        let users = [("superuser", &postgresql.superuser), ("replication_user", &postgresql.replication_user)];
        for (key, user) in users {
            if let Some(why) = unfit(user) {
                let key = format!("service.{name}.postgresql.{key}");
                problems.add(&key, format!("{} cannot be the name of a user here: {why}", Quoted(user)));
            }
        }
        let role_of = |node| replication_role(&postgresql.replication_user, node);
        if let Some(node) = config.nodes.keys().find(|node| role_of(node) == postgresql.superuser) {
            problems.add_hint(
                &format!("service.{name}.postgresql.superuser"),
                format!("{} is the replication role of {node}", Quoted(&postgresql.superuser)),
                "correct superuser, or replication_user",
            );
        }
    }
}

/// Each node's role is its own: what one node is let in by, or loses by a fence, is no other's.
fn roles(config: &Config, problems: &mut Problems<'_>) {
    let mut owners = BTreeMap::new();
    for (name, _) in config.nodes.iter().filter(|(_, node)| node.role == Role::Database) {
        let role = replication_role(REPLICATION_USER, name);
        if let Some(other) = owners.insert(role.clone(), name) {
            problems.add_hint(
                &format!("nodes.{name}"),
                format!(
                    "its replication role would be {role}, as that of {other}: in a role's name upper case is lower case, \
                     and every other character than a letter or digit is _"
                ),
                "name one of the two otherwise",
            );
        }
    }
}

fn sockets(config: &Config, problems: &mut Problems<'_>) {
    let own = format!("nodes.{}.run_dir", config.node);
    let key = if problems.is_written(&own) { own.as_str() } else { "run_dir" };
    for (name, service) in &config.services {
        let path = config.socket_dir(name).join(format!(".s.PGSQL.{}", service.postgresql.port));
        let length = path.as_os_str().len();
        if length > SOCKET_PATH {
            problems.add_hint(
                key,
                format!(
                    "the database's socket would be {}, of {length} bytes: no path of a socket may have more than \
                     {SOCKET_PATH}",
                    Quoted(path.display())
                ),
                "name a shorter directory",
            );
        }
    }
}

/// Why a name is none for a user.
fn unfit(user: &str) -> Option<String> {
    const MEANT: [char; 6] = ['"', '\'', '\\', ':', ',', '='];
    let why = match user {
        "" => "it is empty".to_owned(),
        _ if user.len() > LONGEST => {
            format!("it has {} bytes, and PostgreSQL cuts names off after {LONGEST}", user.len())
        }
        _ if user.starts_with("pg_") => "those that begin with pg_ are PostgreSQL's own".to_owned(),
        "public" | "none" | "all" | "replication" => "PostgreSQL takes it for something else".to_owned(),
        _ if user.starts_with(['/', '+', '@', '-']) => {
            "its first character means something in PostgreSQL's access files".to_owned()
        }
        _ if user.chars().any(|c| c.is_control() || c.is_whitespace() || MEANT.contains(&c)) => {
            "spaces and any of \" ' \\ : , = mean something in the files and commands that it stands in".to_owned()
        }
        _ => return None,
    };
    Some(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::NodeName;
    use std::collections::BTreeSet;

    #[test]
    fn a_role_has_a_name_of_its_own_that_fits_however_long_the_nodes_is() {
        let role = |node: &str| replication_role(REPLICATION_USER, &node.parse::<NodeName>().expect("a name"));
        assert_eq!(role("db-1.example.org"), "regent_replication_db_1_example_org", "names that fit stay");
        let fits = "a".repeat(LONGEST - REPLICATION_USER.len() - 1);
        assert_eq!(role(&fits), format!("regent_replication_{fits}"));
        let long = "very-long-name-of-a-host-in-some-rack.of-a-datacentre.example.o";
        let alike = [long, &long.replace('-', "_"), &long.replace(".o", ".x"), &long[..45], &long[..60], &long[..62]];
        let roles: BTreeSet<String> = alike.iter().map(|node| role(node)).collect();
        assert_eq!(roles.len(), alike.len(), "{roles:?}");
        assert!(roles.iter().all(|role| role.len() <= LONGEST), "{roles:?}");
        let of_a_long_user = replication_role(&"ü".repeat(31), &long.parse().expect("a name"));
        assert!(of_a_long_user.len() <= LONGEST && of_a_long_user.starts_with('ü'), "{of_a_long_user}");
    }

    #[test]
    fn names_that_mean_something_else_are_no_users() {
        for user in ["", "pg_admin", "all", "+dba", "@file", "/re", "a b", "a\"b", "a'b", "a\\b", "a:b", "a,b", "a=b"] {
            assert!(unfit(user).is_some(), "{user:?}");
        }
        assert!(unfit(&"ä".repeat(32)).is_some());
        for user in ["postgres", "Postgres", "DBA-1", "größe", "regent_replication", "a.b$1"] {
            assert_eq!(unfit(user), None, "{user:?}");
        }
    }
}
