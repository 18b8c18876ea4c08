//! Who may connect: the access file that regent hands PostgreSQL from its run directory, and the replication roles,
//! one for each database node.
//!
//! The credentials agent puts reject lines at the top of the same file, between `# regent fence ID begin` and
//! `# regent fence ID end`, under a lock on `pg_hba.conf.lock`. Those blocks stay when the file is written anew.

use super::error::{EngineError, Result};
use super::layout::Layout;
use super::password::{passfile_line, passwords};
use crate::config::{Config, Node, Postgresql, ReplicationTls, Role, database_tls};
use crate::rights::{self, Access};
use crate::types::NodeName;
use nix::fcntl::{Flock, FlockArg};
use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

/// No access file is longer.
const HBA_LIMIT: u64 = 1 << 20;
/// The name of the identity map for local connections.
const MAP: &str = "regent";
/// And of the one from the names in certificates to the replication roles.
const TLS_MAP: &str = "regent_tls";

/// The replication role of one node.
pub fn replication_role(postgresql: &Postgresql, node: &NodeName) -> String {
    database_tls::replication_role(&postgresql.replication_user, node)
}

/// The replication roles of all database nodes.
pub fn replication_roles(config: &Config, postgresql: &Postgresql) -> Vec<String> {
    database_nodes(config).map(|(name, _)| replication_role(postgresql, name)).collect()
}

/// All nodes that have a database.
pub fn database_nodes(config: &Config) -> impl Iterator<Item = (&NodeName, &Node)> {
    config.nodes.iter().filter(|(_, node)| node.role == Role::Database)
}

/// Writes pg_hba.conf, pg_ident.conf and the password file into the run directory. Fence blocks that stand in the
/// present access file are kept. Whether a server that runs has to read them anew.
pub fn write(config: &Config, postgresql: &Postgresql, layout: &Layout) -> Result<bool> {
    layout.make_directories()?;
    let user = &layout.inside;
    let passwords = passwords_in_order(postgresql, layout, &config.node)?;
    if let Some(first) = passwords.first() {
        log_in_with(postgresql, layout, &config.node, first)?;
    }
    let ident = ident_lines(config, postgresql);
    let same_ident = is_ident(layout, &ident);
    rights::hand_file(&layout.ident(), &ident, Access::Reads(user))?;
    let lock_path = layout.run.join("pg_hba.conf.lock");
    let lock = rights::open_own(&lock_path).map_err(EngineError::file("create", &lock_path))?;
    let _held = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, error)| EngineError::file("lock", &lock_path)(error.into()))?;
    let present = present_of(&layout.hba)?;
    let text = format!("{}{}", fence_blocks(&present), hba_lines(config, postgresql, !passwords.is_empty()));
    rights::hand_file(&layout.hba, &text, Access::Reads(user))?;
    Ok(!same_ident || present != text)
}

/// Whether these files say something else than they would.
pub fn differs(config: &Config, postgresql: &Postgresql, layout: &Layout) -> Result<bool> {
    let has_password = !passwords(postgresql, &layout.inside)?.is_empty();
    let present = present_of(&layout.hba)?;
    let wanted = format!("{}{}", fence_blocks(&present), hba_lines(config, postgresql, has_password));
    Ok(present != wanted || !is_ident(layout, &ident_lines(config, postgresql)))
}

/// The passwords with which this node may be let in, the one with which it was last first.
pub fn passwords_in_order(postgresql: &Postgresql, layout: &Layout, node: &NodeName) -> Result<Vec<String>> {
    let mut all = passwords(postgresql, &layout.inside)?;
    let present = layout.inside.read_text(&layout.passfile(), HBA_LIMIT).unwrap_or_default();
    let role = replication_role(postgresql, node);
    all.sort_by_key(|password| present != passfile_line(&role, password));
    Ok(all)
}

/// From here on PostgreSQL's own programs, and a server that follows another, log in with this password.
pub fn log_in_with(postgresql: &Postgresql, layout: &Layout, node: &NodeName, password: &str) -> Result<()> {
    let line = passfile_line(&replication_role(postgresql, node), password);
    // libpq takes no password file that anybody else may read.
    Ok(rights::hand_file(&layout.passfile(), &line, Access::Owner(&layout.inside))?)
}

/// Whether a fence has a node's credentials revoked here.
pub fn is_revoked(layout: &Layout) -> Result<bool> {
    Ok(!fence_blocks(&present_of(&layout.hba)?).is_empty())
}

fn present_of(path: &Path) -> Result<String> {
    match rights::read_own(path, HBA_LIMIT) {
        Ok(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(EngineError::file("read", path)(error)),
    }
}

fn is_ident(layout: &Layout, ident: &str) -> bool {
    rights::read_own(&layout.ident(), HBA_LIMIT).is_ok_and(|present| present == ident.as_bytes())
}

fn ident_lines(config: &Config, postgresql: &Postgresql) -> String {
    let (superuser, os_user) = (quoted(&postgresql.superuser), quoted(&postgresql.os_user));
    let mut text = format!("{MAP} root {superuser}\n{MAP} {os_user} {superuser}\n");
    for (name, node) in database_nodes(config) {
        let (common_name, role) = (postgresql.common_name(name, node), replication_role(postgresql, name));
        let _ = writeln!(text, "{TLS_MAP} {} {}", quoted(&common_name), quoted(&role));
    }
    text
}

fn hba_lines(config: &Config, postgresql: &Postgresql, with_password: bool) -> String {
    let mut text = String::from(
        "# Written by regent; changes are lost. The operator's lines come from the configuration.\n\
         # Local superuser connections: regent's own, and the database's operating system user.\n",
    );
    let superuser = quoted(&postgresql.superuser);
    let _ = writeln!(text, "local all {superuser} peer map={MAP}");
    text.push_str(
        "# Replication and rewind: each node by its own role and from its own addresses, and no other way.\n",
    );
    for (name, node) in database_nodes(config) {
        let role = replication_role(postgresql, name);
        let (kind, method) = demands(postgresql, with_password, postgresql.common_name(name, node) == role);
        for source in [node.primary, node.secondary].map(source_of) {
            let _ = writeln!(text, "{kind} replication,postgres {} {source} {method}", quoted(&role));
        }
    }
    for role in replication_roles(config, postgresql) {
        let role = quoted(&role);
        let _ = writeln!(text, "host all,replication {role} all reject");
        let _ = writeln!(text, "local all,replication {role} reject");
    }
    text.push_str("# The operator's lines.\n");
    for line in &postgresql.hba {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// What proves that a connection is the node's: the kind of its line and the method. `is_named`: the certificate's common
/// name is the role's name.
///
/// The common name is mapped to the role where the certificate is the only proof. Beside a password PostgreSQL knows no
/// map: there it must be the role's very name, or else any certificate of that CA is taken with the password.
fn demands(postgresql: &Postgresql, with_password: bool, is_named: bool) -> (&'static str, String) {
    match (postgresql.tls.replication, with_password) {
        (ReplicationTls::Required, false) => ("hostssl", format!("cert map={TLS_MAP}")),
        (ReplicationTls::Required, true) => {
            let clientcert = if is_named { "verify-full" } else { "verify-ca" };
            ("hostssl", format!("scram-sha-256 clientcert={clientcert}"))
        }
        (ReplicationTls::Optional | ReplicationTls::Off, true) => ("host", "scram-sha-256".to_owned()),
        (ReplicationTls::Optional | ReplicationTls::Off, false) => ("host", "trust".to_owned()),
    }
}

/// From where a node's connections come. Between loopback addresses the kernel chooses the source by itself.
fn source_of(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) if v4.is_loopback() => "127.0.0.0/8".to_owned(),
        IpAddr::V4(v4) => format!("{v4}/32"),
        IpAddr::V6(v6) => format!("{v6}/128"),
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The blocks of the credentials agent, as they stand. A block without its end goes up to the next begin or the end
/// of the run of its lines: a revocation must not be lost for want of a line.
fn fence_blocks(text: &str) -> String {
    let mut blocks = String::new();
    let mut inside = false;
    for line in text.lines() {
        let mark = line.strip_prefix("# regent fence ");
        inside |= mark.is_some_and(|rest| rest.ends_with(" begin"));
        if line.starts_with("# Written by regent") {
            inside = false;
        }
        if inside {
            blocks.push_str(line);
            blocks.push('\n');
        }
        inside &= !mark.is_some_and(|rest| rest.ends_with(" end"));
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fence_blocks_are_kept_and_nothing_else() {
        let text = "# regent fence 7 begin\nhost all \"regent_db1\" all reject\n# regent fence 7 end\n\
                    # Written by regent; changes are lost.\nlocal all all peer\n";
        let kept = fence_blocks(text);
        assert_eq!(kept, "# regent fence 7 begin\nhost all \"regent_db1\" all reject\n# regent fence 7 end\n");
        assert_eq!(fence_blocks(&format!("{kept}# Written by regent\nx\n")), kept);
        let torn =
            "# regent fence 7 begin\nhost all \"regent_db1\" all reject\n# Written by regent\nlocal all all peer\n";
        assert_eq!(fence_blocks(torn), "# regent fence 7 begin\nhost all \"regent_db1\" all reject\n");
    }
}
