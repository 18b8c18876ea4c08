//! The distribution's own units: one that is enabled starts a server of its own with the host, or when its package is
//! upgraded. On the directory or the port of a service that is in the way of regent's.
//!
//! Asked of systemd, and of Debian's list of clusters where that is there. A host without systemd has no such units. Not
//! here: masking one. That is the operator's, who may want the server to be another one.

use crate::config::Config;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// A program that does not answer holds up nobody.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where a server listens that is not told where.
const DEFAULT_PORT: u16 = 5432;
/// As the units of every distribution are called.
const UNITS: &str = "postgresql*.service";

/// What a unit serves: the directory where that is known, and the port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Server {
    data_dir: Option<PathBuf>,
    port: u16,
}

/// The units of this host that would get in the way of a service, each as a sentence that says how to end it.
pub async fn rivals(config: &Config) -> Vec<String> {
    let clusters = clusters(&asked("pg_lsclusters", &["--no-header"]).await);
    let words = ["show", "--property=Id,LoadState,UnitFileState,Environment"];
    let words: Vec<&str> = words.into_iter().chain(clusters.keys().map(String::as_str)).chain([UNITS]).collect();
    let enabled = enabled(&asked("systemctl", &words).await, &clusters);
    let found = enabled.iter().filter_map(|(unit, server)| Some(sentence(unit, &contested(config, server)?)));
    found.collect()
}

/// What a program prints; nothing where there is none.
async fn asked(program: &str, words: &[&str]) -> String {
    let mut question = Command::new(program);
    question.args(words).env("LC_ALL", "C").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(PATIENCE, question.output()).await {
        Ok(Ok(answer)) => String::from_utf8_lossy(&answer.stdout).into_owned(),
        _ => String::new(),
    }
}

/// Debian's clusters, by their units: `15 main 5432 down postgres /var/lib/postgresql/15/main /var/log/…` a line.
fn clusters(list: &str) -> BTreeMap<String, Server> {
    let cluster = |line: &str| {
        let mut words = line.split_whitespace();
        let (version, name, port) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
        let data_dir = words.nth(2).map(PathBuf::from);
        Some((format!("postgresql@{version}-{name}.service"), Server { data_dir, port }))
    };
    list.lines().filter_map(cluster).collect()
}

/// The units that systemd would start, with what they serve. Debian's own unit is none: it only pulls in its clusters'.
fn enabled(shown: &str, clusters: &BTreeMap<String, Server>) -> BTreeMap<String, Server> {
    let unit = |block: &str| {
        let properties: BTreeMap<&str, &str> = block.lines().filter_map(|line| line.split_once('=')).collect();
        let of = |name| properties.get(name).copied().unwrap_or_default();
        let (id, starts) = (of("Id"), of("LoadState") == "loaded" && of("UnitFileState").starts_with("enabled"));
        let server = clusters.get(id).cloned().or_else(|| by_environment(of("Environment")));
        starts.then_some((id.to_owned(), server?))
    };
    shown.split("\n\n").filter_map(unit).collect()
}

/// What a unit serves that says it in its environment, as those of other distributions do.
fn by_environment(environment: &str) -> Option<Server> {
    let of = |name: &str| environment.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let data_dir = PathBuf::from(of("PGDATA")?.trim_matches('"'));
    let port = of("PGPORT").and_then(|port| port.parse().ok()).unwrap_or(DEFAULT_PORT);
    Some(Server { data_dir: Some(data_dir), port })
}

/// What of a service such a server would take.
fn contested(config: &Config, server: &Server) -> Option<String> {
    config.services.iter().find_map(|(service, known)| {
        let ours = &known.postgresql;
        if server.data_dir.as_ref() == Some(&ours.data_dir) {
            return Some(format!("in the data directory of {service} ({})", ours.data_dir.display()));
        }
        (server.port == ours.port).then(|| format!("on the port of {service} ({})", ours.port))
    })
}

fn sentence(unit: &str, contested: &str) -> String {
    format!(
        "{unit} is enabled: with the host, or when its package is upgraded, it starts a server {contested}: \
         systemctl disable --now {unit}; systemctl mask {unit}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "15  main    5432 down   postgres /var/lib/postgresql/15/main /var/log/postgresql/a.log\n\
                          16  other   5433 online postgres /var/lib/postgresql/16/other /var/log/postgresql/b.log\n";

    fn shown(units: &[(&str, &str, &str, &str)]) -> String {
        let block = |(id, load, state, environment): &(&str, &str, &str, &str)| {
            format!("Environment={environment}\nId={id}\nLoadState={load}\nUnitFileState={state}\n")
        };
        units.iter().map(block).collect::<Vec<_>>().join("\n")
    }

    fn names(found: &BTreeMap<String, Server>) -> Vec<&str> {
        found.keys().map(String::as_str).collect()
    }

    #[test]
    fn a_unit_counts_while_it_is_enabled_and_not_masked() {
        let clusters = clusters(DEBIAN);
        let is = |load, state| {
            let shown = shown(&[
                ("postgresql.service", "loaded", "enabled", ""),
                ("postgresql@15-main.service", load, state, ""),
            ]);
            names(&enabled(&shown, &clusters)).len()
        };
        assert_eq!((is("loaded", "enabled-runtime"), is("loaded", "enabled")), (1, 1));
        assert_eq!((is("masked", "masked"), is("loaded", "disabled"), is("not-found", "")), (0, 0, 0));
        assert_eq!(names(&enabled("", &clusters)), [""; 0], "a host without systemd");
    }

    #[test]
    fn a_server_is_in_the_way_by_its_directory_or_its_port() {
        let text = include_str!("../../../config/two-databases-and-witness.toml");
        let config = Config::parse(text, "the example", Some("db1"), "db1").expect("a valid example");
        let clusters = clusters(DEBIAN);
        let of = |unit: &str| contested(&config, &clusters[unit]);
        let main = of("postgresql@15-main.service").expect("it is the example's own directory");
        assert_eq!(main, "in the data directory of orders (/var/lib/postgresql/15/main)");
        assert_eq!(of("postgresql@16-other.service"), None, "another server is nobody's business");
        let elsewhere = Server { data_dir: Some("/srv/other".into()), port: 5432 };
        assert_eq!(contested(&config, &elsewhere).as_deref(), Some("on the port of orders (5432)"));
    }

    #[test]
    fn other_distributions_say_it_in_the_environment_of_the_unit() {
        let shown = shown(&[
            ("postgresql.service", "loaded", "enabled", "PGDATA=/var/lib/pgsql/data PG_OOM_ADJUST_FILE=/x"),
            ("postgresql-16.service", "loaded", "enabled", "PGPORT=5444 PGDATA=/var/lib/pgsql/16/data"),
        ]);
        let found = enabled(&shown, &BTreeMap::new());
        assert_eq!(found["postgresql.service"].port, 5432);
        let other = Server { data_dir: Some("/var/lib/pgsql/16/data".into()), port: 5444 };
        assert_eq!(found["postgresql-16.service"], other);
    }

    #[test]
    fn the_sentence_says_what_to_type() {
        let said = sentence("postgresql@15-main.service", "on the port of orders (5432)");
        assert!(said.ends_with(
            "systemctl disable --now postgresql@15-main.service; systemctl mask postgresql@15-main.service"
        ));
    }
}
