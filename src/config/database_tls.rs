//! How the connections between one service's databases are kept private: what replication demands, the certificates of
//! the database's own, and the rules about both.
//!
//! Not here: the managers' TLS (`Tls`, `[security]`), and the lines of the access file (the engine writes them).

use super::names::LONGEST;
use super::problem::Problems;
use super::{Config, Node, Postgresql, Security, Tls, raw};
use crate::types::{NodeName, Quoted};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What replication demands of a connection between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicationTls {
    /// TLS, with both sides proved by certificates.
    Required,
    /// TLS where both sides have it; neither is proved. For the change of a running cluster, from one to the other.
    Optional,
    Off,
}

/// The TLS of a service's database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseTls {
    pub replication: ReplicationTls,
    /// Files of the database's own, for its server and as a client of the others. The manager's are never among them.
    pub files: Tls,
    /// `tls_ca` is written: the certificates are not by `regent cert issue`.
    pub by_operators_ca: bool,
}

/// Parameters that name certificates: regent gives them where replication uses TLS.
pub const TLS_PARAMETERS: [&str; 4] = ["ssl", "ssl_cert_file", "ssl_key_file", "ssl_ca_file"];

/// The name of the replication user unless the file says otherwise.
pub const REPLICATION_USER: &str = "regent_replication";

/// The replication role of one node: one for each, so that one node's can be revoked. One that PostgreSQL would cut off ends
/// in a number of the node's name instead.
pub fn replication_role(user: &str, node: &NodeName) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let mut role = format!("{user}_{}", node.as_str().chars().map(plain).collect::<String>());
    if role.len() > LONGEST {
        let end = (0..=LONGEST - 9).rev().find(|at| role.is_char_boundary(*at));
        role.truncate(end.unwrap_or(0));
        role.push_str(&format!("_{:08x}", crc32fast::hash(node.as_str().as_bytes())));
    }
    role
}

impl Postgresql {
    /// The common name in the certificate with which the database of `node` comes as a client.
    pub fn common_name(&self, node: &NodeName, about: &Node) -> String {
        match self.tls.by_operators_ca {
            true => about.hostname.clone(),
            false => replication_role(REPLICATION_USER, node),
        }
    }
}

/// Whether nothing that the nodes say to one another leaves a host.
pub(super) fn is_local(nodes: &BTreeMap<NodeName, Node>) -> bool {
    nodes.values().all(|node| node.primary.is_loopback() && node.secondary.is_loopback())
}

/// What replication demands where the file says nothing.
pub(super) fn demanded(security: &Security, nodes: &BTreeMap<NodeName, Node>) -> ReplicationTls {
    if security.insecure || is_local(nodes) { ReplicationTls::Off } else { ReplicationTls::Required }
}

/// Adds a problem for every rule that is broken.
pub(super) fn rules(config: &Config, file: &raw::File, problems: &mut Problems<'_>) {
    let open = !config.security.insecure && !is_local(&config.nodes);
    hostnames(config, problems);
    for (name, service) in &config.services {
        let key = format!("service.{name}.postgresql");
        let written = file.service.as_ref().and_then(|all| all.get(name.as_str())).and_then(|s| s.postgresql.as_ref());
        if let Some(written) = written {
            files(&key, &service.postgresql, written, problems);
        }
        let tls = &service.postgresql.tls;
        if open && tls.replication == ReplicationTls::Off {
            problems.add_hint(
                &format!("{key}.replication_tls"),
                "without TLS whoever reaches these networks can read the database",
                "remove the key, and give each node a certificate for its database (`regent cert issue`); in a running \
                 cluster \"optional\" comes first",
            );
        }
        if tls.replication != ReplicationTls::Off {
            let given = |name: &&String| TLS_PARAMETERS.contains(&name.to_ascii_lowercase().as_str());
            for parameter in service.postgresql.parameters.keys().filter(given) {
                problems.add_hint(
                    &format!("{key}.parameters.{parameter}"),
                    "regent sets this parameter itself, because replication uses TLS",
                    "remove it; tls_certificate, tls_key and tls_ca name certificates of your own",
                );
            }
        }
        for (i, line) in service.postgresql.hba.iter().enumerate().filter(|(_, line)| open && trusts_a_network(line)) {
            problems.add_hint(
                &format!("{key}.hba[{}]", i + 1),
                format!("{} lets in whoever comes from there, as any user that it names", Quoted(line)),
                "use scram-sha-256 or cert instead of trust",
            );
        }
    }
}

fn hostnames(config: &Config, problems: &mut Problems<'_>) {
    let mut owners: BTreeMap<String, &NodeName> = BTreeMap::new();
    for (name, node) in &config.nodes {
        let key = format!("nodes.{name}.hostname");
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if node.hostname.is_empty() || node.hostname.len() > 253 || !node.hostname.chars().all(fits) {
            problems.add(&key, format!("expected a host name, found {}", Quoted(&node.hostname)));
        }
        if let Some(other) = owners.insert(node.hostname.to_ascii_lowercase(), name) {
            problems.add(&key, format!("{} is already the host name of {other}", Quoted(&node.hostname)));
        }
    }
}

fn files(key: &str, postgresql: &Postgresql, written: &raw::Postgresql, problems: &mut Problems<'_>) {
    let (tls, named) = (&postgresql.tls, [&written.tls_ca, &written.tls_certificate, &written.tls_key]);
    let values = [("tls_ca", &tls.files.ca), ("tls_certificate", &tls.files.certificate), ("tls_key", &tls.files.key)];
    for ((name, path), named) in values.into_iter().zip(named) {
        let key = format!("{key}.{name}");
        if named.is_some() && tls.replication == ReplicationTls::Off {
            problems.add_hint(
                &key,
                "replication uses no TLS here",
                "remove the key, or write replication_tls = \"required\"; parameters can name certificates for clients alone",
            );
        }
        if named.is_some() && !path.is_absolute() {
            problems.add(&key, format!("expected a path that begins with \"/\", found {}", Quoted(path.display())));
        }
        if named.is_none() && tls.by_operators_ca {
            problems
                .add(&key, "missing: tls_ca names a CA of your own, so the certificate and its key must be named too");
        }
    }
}

/// Whether a line of an access file is `trust` for more than this host itself.
fn trusts_a_network(line: &str) -> bool {
    let words = words(line);
    let mut words = words.iter().map(String::as_str);
    let (Some(kind), Some(address)) = (words.next(), words.nth(2)) else { return false };
    if !kind.starts_with("host") {
        return false;
    }
    let rest: Vec<&str> = words.collect();
    let mask = rest.first().and_then(|word| word.parse::<IpAddr>().ok());
    let method = if mask.is_some() { rest.get(1) } else { rest.first() };
    method.is_some_and(|method| method.trim_matches('"').eq_ignore_ascii_case("trust")) && !is_this_host(address, mask)
}

/// Whether an address of an access file, with the mask that may stand beside it, is loopback alone.
fn is_this_host(address: &str, mask: Option<IpAddr>) -> bool {
    if matches!(address, "localhost" | "samehost") {
        return true;
    }
    let (address, bits) = address.split_once('/').map_or((address, None), |(a, bits)| (a, bits.parse::<u32>().ok()));
    let Ok(address) = address.parse::<IpAddr>() else { return false };
    let (needed, masked) = match (address, mask) {
        (IpAddr::V4(_), Some(IpAddr::V4(mask))) => (8, Some(mask.to_bits().leading_ones())),
        (IpAddr::V4(_), _) => (8, None),
        (IpAddr::V6(_), Some(IpAddr::V6(mask))) => (128, Some(mask.to_bits().leading_ones())),
        (IpAddr::V6(_), _) => (128, None),
    };
    address.is_loopback() && masked.or(bits).is_none_or(|bits| bits >= needed)
}

/// The words of a line of an access file: spaces part them, but not within double quotes.
pub(super) fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            '#' if !quoted => break,
            c if c.is_whitespace() && !quoted => {
                // After a comma a list goes on.
                if !word.is_empty() && !word.ends_with(',') {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The sentence for a service whose replication may go without TLS.
pub fn warning(service: &str, tls: &DatabaseTls) -> Option<String> {
    let optional = tls.replication == ReplicationTls::Optional;
    optional.then(|| {
        format!(
            "service {service}: replication_tls = \"optional\": whoever reaches these networks can read the database"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_trusts_more_than_this_host_is_known_by_its_method_and_its_address() {
        for line in [
            "host all all 10.0.0.0/8 trust",
            "hostssl \"my db\" all 10.0.0.1/32 TRUST",
            "host replication all 0.0.0.0/0 trust # for now",
            "hostnossl all postgres all trust",
            "host all all samenet trust",
            "host all all .example.org trust",
            "host all all 10.0.0.0 255.0.0.0 trust",
            "host all all 127.0.0.0 0.0.0.0 trust",
            "host all all 127.0.0.1/0 trust",
            "host all all ::/0 trust",
            "host all, replication all 10.0.0.0/8 trust",
            "host all all 10.0.0.0/8 \"trust\"",
        ] {
            assert!(trusts_a_network(line), "{line}");
        }
        for line in [
            "local all all trust",
            "host all all 127.0.0.0/8 trust",
            "host all all 127.0.0.1 255.255.255.255 trust",
            "host all all ::1/128 trust",
            "host all all localhost trust",
            "host trust trust 10.0.0.0/8 scram-sha-256",
            "host all \"trust me\" 10.0.0.0/8 md5",
            "# host all all 10.0.0.0/8 trust",
        ] {
            assert!(!trusts_a_network(line), "{line}");
        }
    }
}
