//! What of a service lies outside its data directory, on this host: its server's log, more directories for its socket and
//! addresses to listen on, and what its programs find in their environment. How that may be written.
//!
//! Not here: making and reading it (`engine/postgresql/`: `log.rs`, `settings.rs`, `environment.rs`).

use super::problem::Problems;
use super::{Config, raw};
use crate::types::Quoted;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Where Debian and its tools look for PostgreSQL's logs.
const LOG_DIR: &str = "/var/log/postgresql";
const LOG_LIMIT: u64 = 32 << 20;
/// Less than one large statement would leave nothing to read; more than this is no bound.
const LOG_LIMITS: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 40;
/// The kernel takes no longer path for a socket (`sun_path`, without its end).
pub(super) const SOCKET_PATH: usize = 107;

/// One service's, as this node has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnHost {
    /// The directory of the server's log.
    pub log_dir: PathBuf,
    /// When the log is as large it begins anew, and one earlier is kept.
    pub log_limit: u64,
    /// Where there is a socket beside the one in the run directory.
    pub socket_dirs: Vec<PathBuf>,
    /// On which addresses the server listens beside the node's own two; `None`: on all.
    pub listen: Option<BTreeSet<IpAddr>>,
    /// What the server and the operator's programs find in their environment.
    pub environment: BTreeMap<String, String>,
    /// The same in a file, for secrets; it wins.
    pub environment_file: Option<PathBuf>,
}

impl Default for OnHost {
    fn default() -> Self {
        OnHost {
            log_dir: LOG_DIR.into(),
            log_limit: LOG_LIMIT,
            socket_dirs: Vec::new(),
            listen: None,
            environment: BTreeMap::new(),
            environment_file: None,
        }
    }
}

/// What is written for this node, with the paths as they are on it.
pub(super) fn of(written: &raw::Service, node: &str, expand: impl Fn(&Path) -> PathBuf) -> OnHost {
    let none = raw::Postgresql::default();
    let postgresql = written.postgresql.as_ref().unwrap_or(&none);
    let own = written.node.as_ref().and_then(|all| all.get(node)).and_then(|member| member.listen.as_ref());
    let listen: Vec<&Vec<IpAddr>> = postgresql.listen.iter().chain(own).collect();
    let text = |(name, value): (&String, &super::read::Scalar)| (name.clone(), value.0.clone());
    OnHost {
        log_dir: expand(postgresql.log_dir.as_deref().unwrap_or(Path::new(LOG_DIR))),
        log_limit: postgresql.log_limit.as_ref().map_or(LOG_LIMIT, |size| size.0),
        socket_dirs: postgresql.socket_dirs.iter().flatten().map(|path| expand(path)).collect(),
        listen: (!listen.is_empty()).then(|| listen.into_iter().flatten().copied().collect()),
        environment: postgresql.environment.iter().flatten().map(text).collect(),
        environment_file: postgresql.environment_file.as_deref().map(expand),
    }
}

/// Adds a problem for whatever cannot be meant so.
pub(super) fn rules(config: &Config, file: &raw::File, problems: &mut Problems<'_>) {
    for (name, service) in &config.services {
        let key = format!("service.{name}.postgresql");
        let (on_host, data_dir) = (&service.postgresql.on_host, &service.postgresql.data_dir);
        log(config, &key, (on_host, data_dir), problems);
        let taken = [data_dir, &config.run_dir, &config.data_dir];
        sockets(&key, on_host, service.postgresql.port, &taken, problems);
        let written = file.service.as_ref().and_then(|all| all.get(name.as_str()));
        for (key, addresses) in listens(&key, name.as_str(), written) {
            listen(&key, addresses, problems);
        }
        for (variable, value) in &on_host.environment {
            if let Some(why) = refused(variable, value) {
                problems.add_hint(&format!("{key}.environment.{variable}"), why, "remove it");
            }
        }
        if let Some(path) = on_host.environment_file.as_ref().filter(|path| !path.is_absolute()) {
            problems.add(&format!("{key}.environment_file"), not_absolute(path));
        }
    }
}

fn not_absolute(path: &Path) -> String {
    format!("expected a path that begins with \"/\", found {}", Quoted(path.display()))
}

fn log(config: &Config, key: &str, (on_host, data_dir): (&OnHost, &Path), problems: &mut Problems<'_>) {
    let (at, directory) = (format!("{key}.log_dir"), &on_host.log_dir);
    if !directory.is_absolute() {
        problems.add(&at, not_absolute(directory));
    } else if directory.starts_with(data_dir) {
        let remedy =
            "choose a directory outside it; a server of which logging_collector is on has its own way of logging";
        problems.add_hint(&at, "lies in the database's own directory, which a copy replaces", remedy);
    } else if directory.starts_with(&config.data_dir) || directory.starts_with(&config.run_dir) {
        let why = "lies where regent keeps its ledger and the leases: a log that fills that volume ends the manager";
        problems.add_hint(&at, why, "choose a directory of its own, on another volume if you can");
    }
    if !LOG_LIMITS.contains(&on_host.log_limit) {
        problems.add(&format!("{key}.log_limit"), format!("expected 1MiB to 1TiB, found {} bytes", on_host.log_limit));
    }
}

fn sockets(key: &str, on_host: &OnHost, port: u16, taken: &[&PathBuf], problems: &mut Problems<'_>) {
    for (at, directory) in on_host.socket_dirs.iter().enumerate() {
        let key = format!("{key}.socket_dirs[{}]", at + 1);
        let text = directory.to_string_lossy();
        if !directory.is_absolute() {
            problems.add(&key, not_absolute(directory));
        } else if text.contains([',', '"', '\'', '\\']) || text.chars().any(char::is_control) || text.trim() != text {
            problems.add(&key, format!("{} has a character that PostgreSQL's list does not take", Quoted(&text)));
        } else if let Some(long) = too_long(directory, port) {
            problems.add_hint(&key, long, "choose a shorter one");
        } else if taken.iter().any(|taken| directory.starts_with(taken)) {
            let why = "lies in a directory of regent's or of the database: its own socket is in run_dir already";
            problems.add_hint(&key, why, "choose another one, as in /var/run/postgresql");
        } else if on_host.socket_dirs[..at].contains(directory) {
            problems.add(&key, format!("{} is named twice", Quoted(&text)));
        }
    }
}

/// Why no socket of that port can be there.
fn too_long(directory: &Path, port: u16) -> Option<String> {
    let length = directory.join(format!(".s.PGSQL.{port}")).as_os_str().len();
    (length > SOCKET_PATH)
        .then(|| format!("the path of the socket would have {length} bytes, and the kernel takes {SOCKET_PATH}"))
}

/// Every place where addresses are written.
fn listens<'f>(key: &str, service: &str, written: Option<&'f raw::Service>) -> Vec<(String, &'f [IpAddr])> {
    let Some(written) = written else { return Vec::new() };
    let of_all = written.postgresql.as_ref().and_then(|postgresql| postgresql.listen.as_deref());
    let of_nodes = written.node.iter().flatten().filter_map(|(node, member)| Some((node, member.listen.as_deref()?)));
    let of_nodes = of_nodes.map(|(node, addresses)| (format!("service.{service}.node.{node}.listen"), addresses));
    of_all.map(|addresses| (format!("{key}.listen"), addresses)).into_iter().chain(of_nodes).collect()
}

fn listen(key: &str, addresses: &[IpAddr], problems: &mut Problems<'_>) {
    for (at, address) in addresses.iter().enumerate() {
        let key = format!("{key}[{}]", at + 1);
        if address.is_unspecified() {
            problems.add_hint(&key, format!("{address} is every address"), "remove the key: that is the default");
        } else if address.is_multicast() {
            problems.add(&key, format!("{address} is not the address of one host"));
        } else if addresses[..at].contains(address) {
            problems.add(&key, format!("{address} is named twice"));
        }
    }
}

/// Why a variable is not taken. What regent itself says to PostgreSQL's programs, and reads of what they say, rests on these.
pub fn refused(name: &str, value: &str) -> Option<&'static str> {
    let mut letters = name.chars();
    let is_word = letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_');
    match name {
        _ if !is_word => Some("is no name of a variable: expected letters, digits and _"),
        _ if name.starts_with("PGBACKREST_") => None,
        _ if name.starts_with("PG") => {
            Some("PostgreSQL's own programs read it: regent tells them where to go and by whom")
        }
        _ if name.starts_with("LD_") => Some("it puts other code into the server and into regent's programs"),
        _ if name.starts_with("LC_") || name == "LANG" || name == "LANGUAGE" => {
            Some("regent reads what PostgreSQL's programs say, in English; lc_messages is a parameter")
        }
        _ if name.starts_with("REGENT_") => Some("regent tells its own programs something by these"),
        "PATH" => Some("regent's programs are found by it; name the program of a command by its whole path"),
        _ if value.contains('\0') => Some("no value can hold the character of number 0"),
        _ => None,
    }
}

/// What a file of variables says: NAME=VALUE a line, the value as it stands or in quotes; empty lines and those that begin
/// with # say nothing. Errors: the number of a line and what is wrong with it, and nothing of what it says.
pub fn variables(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut variables = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            return Err(format!("line {number}: expected NAME=VALUE"));
        };
        let quoted = |mark: char| value.strip_prefix(mark).and_then(|rest| rest.strip_suffix(mark));
        let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
        if let Some(why) = refused(name, value) {
            return Err(format!("line {number}: {} {why}", Quoted(name)));
        }
        variables.insert(name.to_owned(), value.to_owned());
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_regents_programs_rest_on_is_refused_and_what_archive_tools_want_is_not() {
        for name in
            ["PGDATA", "PGHOST", "PG_OOM_ADJUST_FILE", "LD_PRELOAD", "PATH", "LC_ALL", "REGENT_NODE", "a b", "", "1A"]
        {
            assert!(refused(name, "x").is_some(), "{name}");
        }
        for name in ["AWS_PROFILE", "PGBACKREST_STANZA", "KRB5_KTNAME", "HOME", "https_proxy", "_x"] {
            assert_eq!(refused(name, "x"), None, "{name}");
        }
    }

    #[test]
    fn a_file_of_variables_is_read_and_its_errors_tell_no_value() {
        let read = variables("# keys\nAWS_PROFILE=backup\n\nAWS_SECRET_ACCESS_KEY=\"a=b c\"\nX='\n").expect("right");
        let expected = [("AWS_PROFILE", "backup"), ("AWS_SECRET_ACCESS_KEY", "a=b c"), ("X", "'")];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        let error = variables("A=1\nPGPASSWORD=hush\n").expect_err("refused");
        assert!(error.starts_with("line 2: \"PGPASSWORD\"") && !error.contains("hush"), "{error}");
        assert_eq!(variables("hush\n"), Err("line 1: expected NAME=VALUE".to_owned()));
    }
}
