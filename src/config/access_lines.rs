//! The operator's lines of PostgreSQL's access file: those that a server would not take, as far as that can be told without one,
//! and those for which it has to ask a resolver.
//!
//! Not here: what they may let in (`database_tls.rs`), and regent's own lines (the engine writes them).
//!
//! Source: PostgreSQL manual, "The pg_hba.conf File".

use super::Config;
use super::database_tls::words;
use super::parameters::operators_value;
use super::problem::Problems;
use crate::types::Quoted;
use std::net::IpAddr;

const KINDS: [&str; 6] = ["local", "host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc"];
const METHODS: [&str; 14] = [
    "trust",
    "reject",
    "md5",
    "scram-sha-256",
    "password",
    "gss",
    "sspi",
    "ident",
    "peer",
    "pam",
    "bsd",
    "ldap",
    "radius",
    "cert",
];
/// From 18 on.
const NEWER: &str = "oauth";
const KEYWORDS: [&str; 3] = ["all", "samehost", "samenet"];

/// Adds a problem for every line that no server takes, or that matches nobody.
pub(super) fn rules(config: &Config, problems: &mut Problems<'_>) {
    for (name, service) in &config.services {
        for (i, line) in service.postgresql.hba.iter().enumerate() {
            if let Some((why, remedy)) = unfit(line) {
                problems.add_hint(&format!("service.{name}.postgresql.hba[{}]", i + 1), why, remedy);
            }
        }
    }
}

fn unfit(line: &str) -> Option<(String, String)> {
    let words = words(line);
    let kind = words.first()?.as_str();
    if kind.starts_with("include") {
        return None;
    }
    if !KINDS.contains(&kind) {
        let why = format!("{} begins no access line", Quoted(kind));
        return Some((why, format!("expected one of {}", KINDS.join(", "))));
    }
    let rest = if kind == "local" { 3 } else { 4 };
    let address = words.get(3).filter(|_| kind != "local").map(|word| word.trim_matches('"'));
    let mask = words.get(4).is_some_and(|word| address.is_some() && word.parse::<IpAddr>().is_ok());
    let Some(method) = words.get(rest + usize::from(mask)) else {
        return Some((format!("{} is not a whole access line", Quoted(line)), "it ends with a method".to_owned()));
    };
    let method = method.trim_matches('"');
    if !METHODS.contains(&method) && method != NEWER {
        let hint = match method {
            "scram" | "scram-sha256" | "scram_sha_256" => "write scram-sha-256".to_owned(),
            _ => format!("expected one of {}", METHODS.join(", ")),
        };
        return Some((format!("{} is no method of an access line", Quoted(method)), hint));
    }
    let of_address = address?.split('/').next()?.parse::<IpAddr>().ok()?;
    matches!(of_address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()).then(|| {
        let why = format!("{} matches nobody: PostgreSQL knows a client of IPv4 by its address of IPv4", Quoted(line));
        (why, format!("write {} with the length of its network", of_address.to_canonical()))
    })
}

/// For which of the services' settings a server asks a resolver with each login: one that does not answer holds up standbys too.
pub fn slow_logins(config: &Config) -> Vec<String> {
    let mut all = Vec::new();
    for (name, service) in &config.services {
        let (postgresql, slow) = (&service.postgresql, "each login, a standby's too, waits for the resolver");
        let is_on = |value: &String| ["on", "true", "yes", "1"].contains(&value.trim().to_ascii_lowercase().as_str());
        if operators_value(postgresql, "log_hostname").is_some_and(is_on) {
            all.push(format!("service {name}: log_hostname = on: {slow}; one that does not answer costs seconds"));
        }
        if let Some(line) = postgresql.hba.iter().find(|line| names_a_host(line)) {
            let line = Quoted(line);
            all.push(format!("service {name}: the access line {line} names a host: {slow}; write its addresses"));
        }
    }
    all
}

fn names_a_host(line: &str) -> bool {
    let words = words(line);
    let (Some(kind), Some(address)) = (words.first(), words.get(3)) else { return false };
    let address = address.trim_matches('"');
    let is_address = address.split('/').next().is_some_and(|address| address.parse::<IpAddr>().is_ok());
    kind.starts_with("host") && !is_address && !KEYWORDS.contains(&address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_no_server_takes_or_that_match_nobody_are_told() {
        for line in [
            "host all all 10.0.0.0/8 scram",
            "hosts all all 10.0.0.0/8 md5",
            "host all all 10.0.0.0 255.0.0.0 scram-sha256",
            "host all all 10.0.0.0/8",
            "local all all",
            "host all all ::ffff:10.0.0.0/104 md5",
        ] {
            assert!(unfit(line).is_some(), "{line}");
        }
        for line in [
            "host all all 10.0.0.0/8 scram-sha-256 clientcert=verify-ca",
            "hostssl \"my db\" +dba fd00::/8 cert map=x",
            "host all all 10.0.0.0 255.0.0.0 md5",
            "host all all app.example.org ldap ldapserver=x",
            "local all all peer",
            "include_if_exists /etc/x.conf",
            "# nothing",
            "",
        ] {
            assert_eq!(unfit(line), None, "{line}");
        }
        assert!(names_a_host("host all all app.example.org md5") && names_a_host("hostssl a b .example.org md5"));
        assert!(!names_a_host("host all all fd00::1/128 md5") && !names_a_host("host all all samenet md5"));
        assert!(!names_a_host("local all all peer"));
    }
}
