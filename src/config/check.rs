//! Rules that concern more than one value: nodes, networks, security, services. Each violation is a problem with the
//! key at which it can be put right. Fencing has a file of its own (`check_fencing.rs`), timing too (`timing.rs`).

use super::problem::Problems;
use super::{Config, Role, access_lines, check_fencing, database_tls, names, parameters, raw, trouble, values};
use crate::types::Quoted;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;

/// Options of initdb that regent gives, or that would do something else than make a database.
const OWN_INITDB: [&str; 15] = [
    "-D",
    "--pgdata",
    "-U",
    "--username",
    "-X",
    "--waldir",
    "-A",
    "--auth",
    "-W",
    "--pwprompt",
    "--pwfile",
    "-n",
    "-S",
    "-V",
    "-?",
];

/// Adds a problem for every rule that the configuration breaks.
pub(super) fn rules(config: &Config, file: &raw::File, problems: &mut Problems<'_>) {
    voters(config, problems);
    roles(config, file, problems);
    addresses(config, problems);
    security(config, file, problems);
    paths(config, problems);
    numbers(config, problems);
    services(config, problems);
    parameters::rules(file, problems);
    database_tls::rules(config, file, problems);
    names::rules(config, problems);
    access_lines::rules(config, problems);
    trouble::rules(config, problems);
    check_fencing::rules(config, problems);
}

fn voters(config: &Config, problems: &mut Problems<'_>) {
    let voters = config.nodes.len();
    if voters < 3 {
        problems.add_hint(
            "nodes",
            format!(
                "{voters} voter{}: automatic failover is refused below three, because a majority must judge without \
                 the accused",
                if voters == 1 { "" } else { "s" }
            ),
            "add a node with role = \"witness\": it needs no database",
        );
    }
    if !config.nodes.values().any(|node| node.role == Role::Database) {
        problems.add("nodes", "no node has role = \"database\": nothing could run a service");
    }
}

fn roles(config: &Config, file: &raw::File, problems: &mut Problems<'_>) {
    for (name, node) in &config.nodes {
        let key = format!("nodes.{name}");
        let written = file.nodes.as_ref().and_then(|nodes| nodes.get(name.as_str()));
        if node.role == Role::Witness && written.is_some_and(|w| w.priority.is_some()) {
            problems.add_hint(
                &format!("{key}.priority"),
                "a witness has no priority: it never becomes primary",
                "remove the key, or the role",
            );
        }
        if node.disk && !problems.is_written("channels.disk") {
            problems.add_hint(
                &format!("{key}.disk"),
                "there is no shared disk",
                "add [channels.disk] with a path, or remove the key",
            );
        }
        if node.role == Role::Database && !node.disk && config.disk.is_some() {
            problems.add_hint(
                &format!("{key}.disk"),
                "a database node must use the disk channel where there is one: it would count as lost there for ever",
                "remove the key, or [channels.disk]",
            );
        }
    }
}

fn addresses(config: &Config, problems: &mut Problems<'_>) {
    let mut owners: BTreeMap<IpAddr, String> = BTreeMap::new();
    let mut all = Vec::new();
    for (name, node) in &config.nodes {
        for (network, address) in [("primary", node.primary), ("secondary", node.secondary)] {
            all.push((format!("nodes.{name}.{network}"), address));
        }
    }
    let loopback = all.iter().filter(|(_, address)| address.is_loopback()).count();
    for (key, address) in &all {
        if let Some(owner) = owners.get(address) {
            let rule = "every node needs two addresses of its own, on two separate networks";
            problems.add_hint(key, format!("{address} is already {owner}"), rule);
        } else {
            owners.insert(*address, key.clone());
        }
        if address.is_unspecified() || address.is_multicast() {
            problems.add(key, format!("{address} is not the address of one host"));
        }
        if matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
            let rule = "give the hosts addresses of a network, as in fd00::/8";
            problems.add_hint(key, format!("{address} is one address on every network: it says not which"), rule);
        }
        if address.is_loopback() && loopback < all.len() {
            problems.add(key, format!("{address} is a loopback address, which no other host can reach"));
        }
    }
    for (name, service) in &config.services {
        for (other, node) in &config.nodes {
            if node.role == Role::Database && node.grpc_port == service.postgresql.port {
                problems.add(
                    &format!("service.{name}.postgresql.port"),
                    format!("{} is also the gRPC port of {other}", node.grpc_port),
                );
            }
        }
    }
}

fn security(config: &Config, file: &raw::File, problems: &mut Problems<'_>) {
    let Some(written) = &file.security else { return };
    if config.security.insecure {
        for (name, value) in [("ca", &written.ca), ("certificate", &written.certificate), ("key", &written.key)] {
            if value.is_some() {
                problems.add_hint(
                    &format!("security.{name}"),
                    "contradicts insecure = true",
                    "remove one of the two: insecure = true switches TLS off",
                );
            }
        }
    }
    let keys = config.security.heartbeat_keys.len();
    if !(1..=2).contains(&keys) {
        problems.add(
            "security.heartbeat_keys",
            format!("expected one file, or two during a rotation (the first signs, both are accepted), found {keys}"),
        );
    }
}

fn paths(config: &Config, problems: &mut Problems<'_>) {
    let mut absolute = |key: &str, path: &Path| {
        if !path.is_absolute() {
            problems.add(key, format!("expected a path that begins with \"/\", found {}", Quoted(path.display())));
        }
    };
    absolute("data_dir", &config.data_dir);
    absolute("run_dir", &config.run_dir);
    absolute("boot_id_file", &config.boot_id_file);
    absolute("product_uuid_file", &config.product_uuid_file);
    absolute("network_devices_dir", &config.network_devices_dir);
    for (i, key) in config.security.heartbeat_keys.iter().enumerate() {
        absolute(&format!("security.heartbeat_keys[{}]", i + 1), key);
    }
    if let Some(tls) = &config.security.tls {
        absolute("security.ca", &tls.ca);
        absolute("security.certificate", &tls.certificate);
        absolute("security.key", &tls.key);
    }
    if let Some(disk) = &config.disk {
        absolute("channels.disk.path", &disk.path);
    }
    if let Some(watchdog) = &config.watchdog {
        absolute("watchdog.device", &watchdog.device);
    }
    for (name, service) in &config.services {
        absolute(&format!("service.{name}.postgresql.data_dir"), &service.postgresql.data_dir);
        absolute(&format!("service.{name}.postgresql.bin_dir"), &service.postgresql.bin_dir);
        if let Some(wal) = &service.postgresql.wal_dir {
            absolute(&format!("service.{name}.postgresql.wal_dir"), wal);
        }
        if let Some(file) = &service.postgresql.replication_password_file {
            absolute(&format!("service.{name}.postgresql.replication_password_file"), file);
        }
    }
    if config.data_dir.starts_with(&config.run_dir) {
        problems.add("data_dir", "lies in run_dir, which is gone after a boot: votes must survive one");
    }
}

fn numbers(config: &Config, problems: &mut Problems<'_>) {
    let mut within = |key: &str, value: u64, range: RangeInclusive<u64>, why: &str| {
        if !range.contains(&value) {
            problems.add(key, format!("expected {} to {}, found {value}: {why}", range.start(), range.end()));
        }
    };
    let window = "fewer samples give no deviation, more react to the network of an hour ago";
    within("detector.window", config.detector.window as u64, 10..=10_000, window);
    within("detector.rise", config.detector.rise.into(), 1..=100, "heartbeats in a row before a channel is up again");
    let drift = "a time service may slew a clock by up to 10.05 %; a clock that nobody slews is off by less than 0.1 %";
    within("lease.drift_permille", config.lease.drift_permille.into(), 1..=200, drift);
    let moves = "each is remembered for an hour";
    within("failover.max_per_hour", config.failover.max_per_hour.into(), 0..=super::MOST_MOVES.into(), moves);
    for (name, agent) in &config.fencing.agents {
        let deadline = "tries share one timeout";
        within(&format!("fencing.agents.{name}.tries"), agent.tries.into(), 1..=10, deadline);
    }
    for (name, service) in &config.services {
        let counted = "each is remembered for restart_window";
        let most = 0..=super::MOST_RESTARTS as u64;
        within(&format!("service.{name}.max_restarts"), service.max_restarts.into(), most, counted);
    }
    for (name, service) in &config.services {
        let key = format!("service.{name}.postgresql.old_copies");
        within(&key, service.postgresql.old_copies as u64, 1..=20, "what a copy replaces is kept until the next one");
        if let Some(rate) = service.postgresql.copy_max_rate {
            let key = format!("service.{name}.postgresql.copy_max_rate");
            within(&key, rate, 32 << 10..=1 << 30, "bytes in a second, as pg_basebackup takes them");
        }
    }
    if !(1.0..=16.0).contains(&config.detector.phi_threshold) {
        problems.add(
            "detector.phi_threshold",
            format!(
                "expected 1 to 16, found {}: at 1 every tenth pause is a false alarm, beyond 16 the tail of the normal \
                 distribution says nothing about networks",
                config.detector.phi_threshold
            ),
        );
    }
    if let Some(watchdog) = &config.watchdog
        && watchdog.timeout.subsec_nanos() != 0
    {
        problems.add("watchdog.timeout", "expected whole seconds: the kernel's watchdog devices count in seconds");
    }
}

fn services(config: &Config, problems: &mut Problems<'_>) {
    let mut ports = BTreeMap::new();
    for (name, service) in &config.services {
        let key = format!("service.{name}.postgresql");
        let directory = &service.postgresql.data_dir;
        for (what, other) in [("data_dir", &config.data_dir), ("run_dir", &config.run_dir)] {
            if directory.starts_with(other) || other.starts_with(directory) {
                let (ours, theirs) = (Quoted(other.display()), Quoted(directory.display()));
                let message = format!("{theirs} and regent's own {what} {ours} must not contain one another");
                problems.add(&format!("{key}.data_dir"), message);
            }
        }
        if let Some(other) = ports.insert(service.postgresql.port, name) {
            problems.add(
                &format!("{key}.port"),
                format!("{} is already the port of service.{other}", service.postgresql.port),
            );
        }
        for (other, with) in config.services.range(..name) {
            let theirs = &with.postgresql.data_dir;
            if theirs.starts_with(directory) || directory.starts_with(theirs) {
                problems.add(&format!("{key}.data_dir"), format!("overlaps the directory of service.{other}"));
            }
        }
        if let Some(wal) = &service.postgresql.wal_dir
            && (wal.starts_with(directory) || directory.starts_with(wal))
        {
            problems.add(&format!("{key}.wal_dir"), "must not contain data_dir, nor lie in it");
        }
        values::rules(&key, &service.postgresql, problems);
        outsider_slots(&key, &service.postgresql.outsider_slots, problems);
        let owned = |option: &&String| OWN_INITDB.iter().any(|own| option.starts_with(own));
        for option in service.postgresql.initdb_options.iter().filter(owned) {
            problems.add_hint(
                &format!("{key}.initdb_options"),
                format!("regent says {} to initdb itself", Quoted(option)),
                "remove it; data_dir, wal_dir and superuser have keys of their own",
            );
        }
    }
}

/// Each must be a name that PostgreSQL takes for a slot, and not one of regent's own.
fn outsider_slots(key: &str, slots: &[String], problems: &mut Problems<'_>) {
    let key = format!("{key}.outsider_slots");
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    for (at, slot) in slots.iter().enumerate() {
        let why = match slot.as_str() {
            _ if slot.is_empty() || slot.len() > 63 || !slot.chars().all(legal) => {
                "is no name of a slot: expected 1 to 63 lower case letters, digits and _"
            }
            _ if slot.starts_with("regent_") => "begins with regent_, as the slots of nodes do: choose another name",
            _ if slots[..at].contains(slot) => "is named twice: every reader needs a slot of its own",
            _ => continue,
        };
        problems.add(&key, format!("{} {why}", Quoted(slot)));
    }
}
