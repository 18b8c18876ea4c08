//! The settings under which the server runs that are regent's: those that it gives on the command line, and those that change
//! while it runs (`primary_conninfo` and its certificates, in postgresql.auto.conf).
//!
//! The command line wins over every file, so what safety needs stands there, and nothing else: everybody on the host can
//! read it. Not here: the operator's parameters (`parameters.rs`).

use super::error::{EngineError, Result};
use super::layout::{AUTO_CONF, Layout};
use super::writes::InOrder;
use super::{access, archive, slots, tls};
use crate::config::database_tls::TLS_PARAMETERS;
use crate::config::parameters::{is_owned, operators, operators_value};
use crate::config::{Config, Postgresql};
use crate::types::Upstream;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Set to nothing, so that no file sets them.
const NO_TARGET: [&str; 5] =
    ["recovery_target", "recovery_target_lsn", "recovery_target_name", "recovery_target_time", "recovery_target_xid"];

/// Given in regent's file unless the operator says otherwise.
const DEFAULTS: [(&str, &str); 7] = [
    ("wal_keep_size", "1GB"),
    // What a standby that stays away may cost: past it the slot is lost, and the primary's disk is not.
    ("max_slot_wal_keep_size", "4GB"),
    // A dead peer is noticed in seconds; the default is a minute.
    ("wal_sender_timeout", "10s"),
    // A standby asks for a sign after half of it, so a stream that is healthy is never silent for longer than that, and
    // `stream.rs` can tell one that is not. Half of it is more than the sender's own interval, which is half of STREAM_ENDS.
    ("wal_receiver_timeout", "5s"),
    // How long a standby waits before it asks its upstream again; the default is five seconds.
    ("wal_retrieve_retry_interval", "200ms"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "3"),
];

/// Of which regent needs some for each database node, on top of the operator's number: a slot; two connections, because a
/// copy takes two. Where the operator names none it is PostgreSQL's own number as long as that leaves some for others: a
/// restore with default settings, and a standby with an older value, refuse a primary's larger number of connections.
const ROOM: [(&str, usize); 2] = [("max_replication_slots", 1), ("max_wal_senders", 2)];
const UNNAMED: usize = 10;
const OF_OTHERS: usize = 4;

/// After what time an upstream ends a stream whose standby says nothing: before that standby gives the connection up itself
/// (`conninfo`: 5 s) and comes anew, since its slot takes one at a time.
const STREAM_ENDS: (&str, &str) = ("wal_sender_timeout", "4s");

/// When a connection over which nothing comes is given up.
pub struct Keepalives {
    pub idle: Duration,
    pub interval: Duration,
    pub count: u32,
}

/// Later than STREAM_ENDS, for the reason given there; and much sooner than TCP itself, which tries for a quarter of an hour.
/// It also bounds how long PostgreSQL's WAL receiver waits for a connection: it does not keep to `connect_timeout`.
pub const KEEPALIVES: Keepalives =
    Keepalives { idle: Duration::from_secs(2), interval: Duration::from_secs(1), count: 3 };

impl Keepalives {
    /// The time after which a lost connection has ended.
    pub const fn whole(&self) -> Duration {
        Duration::from_secs(self.idle.as_secs() + self.interval.as_secs() * self.count as u64)
    }
}

/// How many seconds a program of PostgreSQL's waits for a login: a server may ask a resolver that does not answer for the name
/// of each client. A network over which nothing comes is given up much sooner (KEEPALIVES).
const CONNECT: &str = "30";

/// How long a copy's connection may hold what the network does not take: TCP itself would try for a quarter of an hour. A
/// disk here that takes nothing for so long ends the copy as well.
const COPY_ENDS: &str = "120s";

/// Refuses parameters that regent owns.
pub fn check_parameters(postgresql: &Postgresql) -> Result<()> {
    match operators(postgresql).keys().find(|name| is_owned(name)) {
        Some(name) => Err(EngineError::OwnedParameter { name: name.clone() }),
        None => Ok(()),
    }
}

/// All settings of the command line, as `name=value`.
pub fn command_line(config: &Config, postgresql: &Postgresql, layout: &Layout) -> Vec<String> {
    let mut settings: Vec<String> = room(config, postgresql).collect();
    if layout.knows(IDLE_SLOTS) {
        settings.push(format!("{IDLE_SLOTS}=0"));
    }
    let sockets = [&layout.socket].into_iter().chain(&layout.more_sockets).map(PathBuf::as_path);
    let owned = [
        ("config_file", layout.conf().display().to_string()),
        ("unix_socket_permissions", "0777".to_owned()),
        ("listen_addresses", listen_addresses(config, postgresql)),
        ("port", postgresql.port.to_string()),
        ("hba_file", layout.hba.display().to_string()),
        ("ident_file", layout.ident().display().to_string()),
        ("unix_socket_directories", socket_directories(sockets)),
        ("restart_after_crash", "off".to_owned()),
        ("hot_standby", "on".to_owned()),
        ("wal_log_hints", "on".to_owned()),
        ("full_page_writes", "on".to_owned()),
        ("recovery_target_timeline", "latest".to_owned()),
        ("recovery_min_apply_delay", format!("{}ms", postgresql.apply_delay.as_millis())),
        ("recovery_end_command", String::new()),
        ("primary_slot_name", slots::slot_of(&config.node)),
    ];
    settings.extend(owned.into_iter().map(|(name, value)| format!("{name}={value}")));
    settings.extend(NO_TARGET.map(|name| format!("{name}=")));
    // Where there is one it comes and goes with the conninfo.
    if archive::restore_command(layout).is_none() {
        settings.push("restore_command=".to_owned());
    }
    settings
}

/// What regent needs comes on top of what is there for others. A value that is no number is left for the server to refuse.
fn room(config: &Config, postgresql: &Postgresql) -> impl Iterator<Item = String> {
    let nodes = access::database_nodes(config).count();
    ROOM.into_iter().filter_map(move |(name, each)| {
        let outsiders = if name == "max_replication_slots" { postgresql.outsider_slots.len() } else { 0 };
        let own = each * nodes + outsiders;
        let number = match operators_value(postgresql, name) {
            Some(value) => value.trim().parse::<usize>().ok()? + own,
            None => UNNAMED.max(OF_OTHERS + own),
        };
        Some(format!("{name}={number}"))
    })
}

/// What regent gives beside the operator's parameters, where those do not name it.
pub fn defaults(postgresql: &Postgresql, layout: &Layout) -> Vec<(&'static str, &'static str)> {
    // After a crash the server first makes the data directory durable: one call for the volume, not one a file
    // (0.1 s instead of seconds).
    let sync = layout.knows(INIT_SYNC).then_some((INIT_SYNC, "syncfs"));
    let all = DEFAULTS.into_iter().chain(sync);
    all.filter(|(name, _)| operators_value(postgresql, name).is_none()).collect()
}

/// After what time a slot that nobody reads from is spent. The bound of regent's slots is `max_slot_wal_keep_size`.
const IDLE_SLOTS: &str = "idle_replication_slot_timeout";
const INIT_SYNC: &str = "recovery_init_sync_method";
/// A server that knows it can have its primary's logical slots.
pub const SLOT_SYNC: &str = "sync_replication_slots";

/// Any beginning of these words that is no other's says so, as the server reads it.
fn is_off(value: &str) -> bool {
    ["0", "f", "n", "of"].iter().any(|word| value.trim().to_ascii_lowercase().starts_with(word))
}

/// On real networks everything, so that an address that comes up later (a virtual one, a repaired card) is served
/// too; what may connect is the access file's business. On loopback, where hosts share one network, and where the operator
/// names addresses, those and the node's own two: by these the others stream from it.
fn listen_addresses(config: &Config, postgresql: &Postgresql) -> String {
    let me = config.me();
    let named = &postgresql.on_host.listen;
    if named.is_none() && !me.primary.is_loopback() && !me.secondary.is_loopback() {
        return "*".to_owned();
    }
    let own = [me.primary, me.secondary];
    let more = named.iter().flatten().filter(|address| !own.contains(address));
    own.iter().chain(more).map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Regent's own first: what PostgreSQL's programs read in postmaster.pid is that one.
pub fn socket_directories<'a>(all: impl IntoIterator<Item = &'a Path>) -> String {
    all.into_iter().map(|directory| directory.display().to_string()).collect::<Vec<_>>().join(",")
}

/// How this node reaches an upstream: every address, and time limits that end a dead connection.
pub fn conninfo(config: &Config, postgresql: &Postgresql, layout: &Layout, upstream: &Upstream) -> String {
    let addresses: Vec<String> = upstream.addresses.iter().map(ToString::to_string).collect();
    // The certificate is held against the name, and the connection goes to the address: no name service is asked.
    let name = config.nodes.get(&upstream.node).map_or(upstream.node.as_str(), |node| &node.hostname);
    let mut fields = vec![
        ("host", vec![name; addresses.len()].join(",")),
        ("hostaddr", addresses.join(",")),
        ("port", upstream.port.to_string()),
        ("user", access::replication_role(postgresql, &config.node)),
        ("application_name", config.node.to_string()),
        ("connect_timeout", CONNECT.to_owned()),
        ("keepalives", "1".to_owned()),
        ("keepalives_idle", KEEPALIVES.idle.as_secs().to_string()),
        ("keepalives_interval", KEEPALIVES.interval.as_secs().to_string()),
        ("keepalives_count", KEEPALIVES.count.to_string()),
        ("tcp_user_timeout", KEEPALIVES.whole().as_millis().to_string()),
        ("target_session_attrs", "any".to_owned()),
        ("gssencmode", "disable".to_owned()),
    ];
    if postgresql.replication_password_file.is_some() {
        fields.push(("passfile", layout.passfile().display().to_string()));
    }
    let (name, time) = STREAM_ENDS;
    if operators_value(postgresql, name).is_none() {
        fields.push(("options", format!("-c {name}={time}")));
    }
    // The worker that copies logical slots from the primary asks for them in a database.
    if layout.knows(SLOT_SYNC) && operators_value(postgresql, SLOT_SYNC).is_some_and(|value| !is_off(value)) {
        fields.push(("dbname", "postgres".to_owned()));
    }
    fields.extend(tls::conninfo_fields(postgresql, layout));
    let quoted = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
    let field = |(name, value): &(&str, String)| format!("{name}='{}'", quoted(value));
    fields.iter().map(field).collect::<Vec<_>>().join(" ")
}

/// The same for a copy, whose disk may be busy for longer than a stream may be silent.
pub fn for_a_copy(conninfo: &str) -> String {
    format!("{conninfo} options='-c tcp_user_timeout={COPY_ENDS}'")
}

/// Sets `primary_conninfo` in postgresql.auto.conf (empty: follow nobody) beside the database's certificates, and takes out
/// of that file what regent owns: after a rewind or a clone it is the other node's.
pub fn write_conninfo(_: &InOrder, layout: &Layout, conninfo: &str, durable: bool) -> Result<()> {
    let (path, inside) = (layout.within(AUTO_CONF), &layout.inside);
    let text = with_conninfo(&present(layout)?, conninfo, layout);
    let written = match durable {
        true => inside.replace(&path, 0o600, &text),
        false => inside.replace_unflushed(&path, 0o600, &text),
    };
    Ok(written?)
}

/// Writes the file of a server that runs anew, with the conninfo that `renewed` makes of the one that it has. Whether
/// the server has to read it.
pub fn renew_conninfo(_: &InOrder, layout: &Layout, renewed: impl FnOnce(&str) -> Option<String>) -> Result<bool> {
    let present = present(layout)?;
    let conninfo = conninfo_in(&present);
    let text = with_conninfo(&present, &renewed(&conninfo).unwrap_or(conninfo), layout);
    let is_new = text != present;
    if is_new {
        layout.inside.replace(&layout.within(AUTO_CONF), 0o600, &text)?;
    }
    Ok(is_new)
}

/// Takes these lines out of the file, which the server cannot read, and sets `primary_conninfo` as it was asked for.
pub fn drop_lines(_: &InOrder, layout: &Layout, wrong: &[u32], conninfo: &str) -> Result<()> {
    let lines = present(layout)?;
    let kept = (1..).zip(lines.lines()).filter(|(number, _)| !wrong.contains(number));
    let kept: String = kept.map(|(_, line)| format!("{line}\n")).collect();
    Ok(layout.inside.replace(&layout.within(AUTO_CONF), 0o600, &with_conninfo(&kept, conninfo, layout))?)
}

fn present(layout: &Layout) -> Result<String> {
    match layout.text_within(AUTO_CONF) {
        Ok(text) => Ok(text),
        Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error.into()),
    }
}

/// The conninfo that regent wrote last.
fn conninfo_in(text: &str) -> String {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("primary_conninfo = '")?.strip_suffix('\''));
    lines.next_back().unwrap_or_default().replace("''", "'")
}

fn with_conninfo(present: &str, conninfo: &str, layout: &Layout) -> String {
    let name = |line: &str| line.split(['=', ' ', '\t']).next().unwrap_or_default().to_ascii_lowercase();
    let certificates = tls::server_settings(layout);
    let run = layout.run.display().to_string();
    // Those that regent gave before go, too; an operator's own stay where replication uses no TLS.
    let given = |line: &str| TLS_PARAMETERS.contains(&name(line).as_str());
    let takes_tls = !certificates.is_empty() || present.lines().any(|line| given(line) && line.contains(&run));
    let goes = |line: &&str| is_owned(&name(line)) || takes_tls && given(line);
    let mut text: String = present.lines().filter(|line| !goes(line)).map(|line| format!("{line}\n")).collect();
    for (name, value) in certificates.iter().map(|(name, value)| (*name, value.as_str())) {
        text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
    }
    let followed = archive::restore_command(layout).filter(|_| !conninfo.is_empty());
    if let Some(command) = followed {
        let quoted = command.replace('\\', "\\\\").replace('\'', "''");
        text.push_str(&format!("restore_command = '{quoted}'\n"));
    }
    text.push_str(&format!("primary_conninfo = '{}'\n", conninfo.replace('\'', "''")));
    text
}

/// The addresses that a conninfo names.
pub fn addresses_in(conninfo: &str) -> Vec<IpAddr> {
    // Earlier versions wrote them as hosts.
    let found = conninfo.split_once("hostaddr='").or_else(|| conninfo.split_once("host='"));
    let Some((_, rest)) = found else { return Vec::new() };
    rest.split('\'').next().unwrap_or_default().split(',').filter_map(|host| host.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_conninfo_replaces_what_came_from_elsewhere() {
        let layout = layout(tempfile::tempdir().expect("a directory").path());
        let with_conninfo = |present: &str, conninfo: &str| with_conninfo(present, conninfo, &layout);
        let present = "# Do not edit\nwork_mem = '8MB'\nprimary_conninfo = 'host=other'\nport = 99\n";
        let text = with_conninfo(present, "host='10.0.0.1' user='a'");
        assert_eq!(text, "# Do not edit\nwork_mem = '8MB'\nprimary_conninfo = 'host=''10.0.0.1'' user=''a'''\n");
        assert_eq!(with_conninfo(&text, ""), "# Do not edit\nwork_mem = '8MB'\nprimary_conninfo = ''\n");
    }

    /// A service whose run directory is this one.
    fn layout(run: &std::path::Path) -> Layout {
        let path = |name: &str| run.join(name);
        Layout {
            data_dir: path("main"),
            bin_dir: path("bin"),
            run: run.to_owned(),
            socket: path("socket"),
            more_sockets: Vec::new(),
            hba: path("pg_hba.conf"),
            lease: path("lease"),
            goodbye: path("goodbye"),
            keep: path("keep"),
            log: path("log"),
            inside: crate::rights::Rights::own(),
        }
    }

    #[test]
    fn certificates_that_were_handed_over_are_named_and_taken_back_and_an_operators_own_stay() {
        let run = tempfile::tempdir().expect("a directory");
        let layout = layout(run.path());
        let operators = "ssl = 'on'\nssl_cert_file = '/etc/ssl/own.pem'\n";
        assert_eq!(with_conninfo(operators, "", &layout), format!("{operators}primary_conninfo = ''\n"));
        std::fs::write(layout.tls_certificate(), "").expect("written");
        let text = with_conninfo(operators, "", &layout);
        let place = run.path().display();
        assert!(
            text.contains("ssl = 'on'\n") && text.contains(&format!("ssl_key_file = '{place}/database.key'\n")),
            "{text}"
        );
        assert!(!text.contains("own.pem"), "{text}");
        assert_eq!(with_conninfo(&text, "", &layout), text);
        std::fs::remove_file(layout.tls_certificate()).expect("removed");
        assert_eq!(with_conninfo(&text, "", &layout), "primary_conninfo = ''\n");
    }

    #[test]
    fn the_conninfo_that_was_written_last_is_read_back() {
        let text = "primary_conninfo = 'host=''10.0.0.1'' user=''a'''\n";
        assert_eq!(conninfo_in(text), "host='10.0.0.1' user='a'");
        assert_eq!(conninfo_in("primary_conninfo = ''\n"), "");
        assert_eq!(conninfo_in(""), "");
    }

    #[test]
    fn the_addresses_of_a_conninfo_are_read_back() {
        let addresses = ["10.0.1.1".parse::<IpAddr>().unwrap(), "10.0.2.1".parse().unwrap()];
        assert_eq!(addresses_in("host='db1,db1' hostaddr='10.0.1.1,10.0.2.1' port='5432'"), addresses);
        assert_eq!(addresses_in("host='10.0.1.1,10.0.2.1' port='5432'"), addresses, "as it was written before");
        assert!(addresses_in("").is_empty());
    }
}
