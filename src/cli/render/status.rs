//! The status of a cluster as a page of text: services first, because they are what it is all for.

use super::table;
use super::words::{agent_kind, milliseconds, node_role, node_state, or_dash, phase, sight, time_of_day, watchdog};
use crate::api::status::{
    DatabaseStatus, DeviceStatus, FenceStatus, KeptStatus, NodeState, NodeStatus, Phase, Quorum, ReplayStatus, Seen,
    SeenOn, ServiceStatus, Status, UnfitStatus,
};
use crate::types::{Network, NodeName, ServiceName, Size};

/// The whole page.
pub fn status(status: &Status) -> String {
    let mut text = head(status);
    for alarm in &status.alarms {
        text += &format!("ALARM: {}\n", alarm.what);
    }
    for (name, service) in &status.services {
        text += &format!("\n{}", service_section(name, service));
    }
    text += &section("Nodes", &nodes(status));
    text += &section("What each node sees of the others (phi of this node's own observations)", &matrix(status));
    text += &section("Fences that are not closed", &fences(&status.fences));
    text += &section("Fence devices", &devices(status));
    if !status.incidents.is_empty() {
        text += &section("Latest incidents", &super::history(&status.incidents));
    }
    if let Some(room) = &status.ledger_volume {
        text += &format!("\nOn the volume of the ledger of {} {room}.\n", status.answered_by);
    }
    text += &section("Warnings", &(bullets(&status.warnings) + &bullets(&dropped(status))));
    text
}

/// What was written for people and reached nobody.
fn dropped(status: &Status) -> Vec<String> {
    let by = &status.answered_by;
    let log = format!("{} lines of the log of {by} were dropped: nobody read them in time", status.log_lines_dropped);
    let answers = format!("{} answers of {by} were dropped: whoever asked did not read", status.answers_dropped);
    let all = [(status.log_lines_dropped, log), (status.answers_dropped, answers)];
    all.into_iter().filter(|(count, _)| *count > 0).map(|(_, sentence)| sentence).collect()
}

/// `orders: db1 (epoch 3)`, for one-line output.
pub fn primaries(status: &Status) -> String {
    let one = |(name, service): (&ServiceName, &ServiceStatus)| {
        format!("{name}: {} (epoch {})", or_dash(service.primary.as_ref()), service.epoch)
    };
    status.services.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// A title and its body; nothing where the body is empty.
fn section(title: &str, body: &str) -> String {
    if body.is_empty() { String::new() } else { format!("\n{title}\n{body}") }
}

fn bullets(sentences: &[String]) -> String {
    sentences.iter().map(|sentence| format!("  - {sentence}\n")).collect()
}

fn head(status: &Status) -> String {
    format!(
        "Cluster {}, answered by {} at {}, regent {}\n{}\n",
        status.cluster,
        status.answered_by,
        time_of_day(status.answered_at_ms),
        status.version,
        quorum(&status.quorum)
    )
}

fn quorum(quorum: &Quorum) -> String {
    let Quorum { leader, term, voters, connected, margin } = quorum;
    let leader = leader.as_ref().map_or("NO LEADER".to_owned(), |leader| format!("leader {leader}"));
    let margin = match margin {
        ..0 => format!("NO QUORUM: {} more needed", margin.unsigned_abs()),
        0 => "no margin: one more loss stops all decisions".to_owned(),
        1 => "one more may be lost".to_owned(),
        n => format!("{n} more may be lost"),
    };
    format!("Quorum: {connected} of {voters} voters connected, {leader}, term {term}; {margin}")
}

fn service_section(name: &ServiceName, service: &ServiceStatus) -> String {
    let primary = match (&service.primary, service.phase) {
        (_, Phase::Unmanaged) => "NOT MANAGED".to_owned(),
        (Some(primary), Phase::Installed | Phase::Paused) => format!("primary {primary}"),
        (Some(primary), Phase::Appointed | Phase::Promoting) => format!("NO PRIMARY YET, {primary} takes over"),
        (Some(primary), _) => format!("NO PRIMARY, last {primary}"),
        (None, _) => "NO PRIMARY".to_owned(),
    };
    let lease = match &service.lease {
        None => "no lease".to_owned(),
        Some(lease) => {
            let left = lease.remaining_ms.map(|ms| format!(" for {} more", milliseconds(ms))).unwrap_or_default();
            format!("lease with {}{left}", lease.holder)
        }
    };
    let mut text = format!("Service {name}: {primary}, epoch {}, {}, {lease}\n", service.epoch, phase(service.phase));
    if let Some(pause) = &service.pause {
        let lasted = pause.lasted_ms.map(|ms| format!(" for {}", milliseconds(ms))).unwrap_or_default();
        let left = pause.left_ms.map(|ms| format!(", {} left", milliseconds(ms))).unwrap_or_default();
        let why = pause.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        text += &format!("  PAUSED{lasted} by {}{left}{why}\n", pause.who);
    }
    let ready = &service.readiness;
    text += match (ready.failover_ready, ready.survives_one_more) {
        (true, true) => "  Ready: a failover would succeed now, and the cluster survives one more failure.\n",
        (true, false) => "  READY ONCE: a failover would succeed now; one more failure would not be survived:\n",
        (false, _) => "  NOT READY: a failover would not succeed now:\n",
    };
    text += &bullets(&ready.reasons);
    if let Some(bytes) = ready.would_lose_bytes {
        let what = "and what was committed since the last heartbeat";
        let age = ready.would_lose_seconds.map(|seconds| format!(" and {seconds} s of commits")).unwrap_or_default();
        text += &format!("  A failover now would lose {} of WAL{age}, {what}.\n", Size(bytes));
    }
    if primary.starts_with("NO PRIMARY") {
        text += "  Which of six causes it is, and what to do: docs/no-primary.md\n";
    }
    for sentence in &service.what_now {
        text += &format!("  Now: {sentence}\n");
    }
    text += &databases(service);
    for (node, database) in &service.databases {
        text += &kept(node, &database.kept);
    }
    text
}

/// What lies aside on a node.
fn kept(node: &NodeName, folders: &[KeptStatus]) -> String {
    if folders.is_empty() {
        return String::new();
    }
    let whole = Size(folders.iter().map(|kept| kept.bytes).sum());
    let mut text = format!("  Kept on {node}: {} of what only it had, {whole}:\n", folders.len());
    for KeptStatus { folder, bytes, age_seconds, named } in folders {
        let age = age_seconds.map(|seconds| format!(", {} old", milliseconds(seconds * 1000))).unwrap_or_default();
        let stays = if *named { ", named by an incident" } else { "" };
        text += &format!("    {folder} ({}{age}{stays})\n", Size(*bytes));
    }
    text
}

fn databases(service: &ServiceStatus) -> String {
    let shows_replay =
        service.databases.values().any(|database| database.replay.is_some_and(|replay| is_shown(&replay)));
    let mut header = vec!["database", "state", "timeline", "position", "lag"];
    header.extend(shows_replay.then_some("to replay"));
    header.extend(["streams from", "notes"]);
    let row = |(node, database): (&NodeName, &DatabaseStatus)| {
        let copy = database.copy.iter().map(|copy| copy.what.as_str());
        let waits = database.pending_restart.join(", ");
        let waits = (!waits.is_empty()).then(|| format!("its next start changes {waits} (`regent restart`)"));
        let ordered = database.restart_ordered.as_ref().map(|who| format!("its restart is ordered by {who}"));
        let to_copy = database.copy_ordered.as_ref().map(|who| format!("its copy is ordered by {who}"));
        let notes = [&database.trouble, &database.file_fault, &waits, &ordered, &to_copy];
        let notes = notes.into_iter().flatten().map(String::as_str);
        let notes: Vec<&str> = notes.chain(copy).chain(database.overridden.iter().map(String::as_str)).collect();
        let mut row = vec![
            node.to_string(),
            database.state.to_string(),
            database.timeline.to_string(),
            or_dash(database.position),
            or_dash(database.lag_bytes.map(Size)),
        ];
        row.extend(shows_replay.then(|| or_dash(database.replay.filter(is_shown).map(replay))));
        row.extend([upstream(database), notes.join("; ")]);
        row
    };
    table(&header, service.databases.iter().map(row)) + &lacks(service)
}

/// What they lack, each with its cure.
fn lacks(service: &ServiceStatus) -> String {
    let each = service.databases.iter().flat_map(|(node, database)| database.unfit.iter().map(move |u| (node, u)));
    let line = |(node, UnfitStatus { kind, bars, what, cure }): (&NodeName, &UnfitStatus)| {
        let bars = if *bars { "NO CANDIDATE, " } else { "" };
        format!("  {node}: {bars}{what} ({kind}): {cure}\n")
    };
    each.map(line).collect()
}

/// The primary network goes without saying.
fn upstream(database: &DatabaseStatus) -> String {
    let over = database.network.filter(|network| *network != Network::Primary);
    let over = over.map(|network| format!(" ({network})")).unwrap_or_default();
    database.streams_from.as_ref().map_or("-".to_owned(), |upstream| format!("{upstream}{over}"))
}

/// A standby that is written to always has a little left.
fn is_shown(replay: &ReplayStatus) -> bool {
    replay.seconds >= 2
}

fn replay(replay: ReplayStatus) -> String {
    let ReplayStatus { bytes, seconds, delay_seconds, .. } = replay;
    let delay = if delay_seconds > 0 { format!(" (delayed by {delay_seconds} s)") } else { String::new() };
    format!("{}, {seconds} s{delay}", Size(bytes))
}

fn nodes(status: &Status) -> String {
    let header =
        ["node", "role", "state", "leader", "incarnation", "boot", "addresses", "watchdog", "log write", "notes"];
    let row = |(name, node): (&NodeName, &NodeStatus)| {
        let boot = node.boot.as_ref().map(|boot| boot.0.chars().take(8).collect::<String>());
        vec![
            name.to_string(),
            node_role(node.role).to_owned(),
            node_state(node.state).to_owned(),
            if node.leader { "leader" } else { "" }.to_owned(),
            or_dash(node.incarnation),
            or_dash(boot),
            node.addresses.join(" "),
            or_dash(node.watchdog.map(watchdog)),
            or_dash(node.log_write_ms.map(milliseconds)),
            node_notes(node),
        ]
    };
    table(&header, status.nodes.iter().map(row))
}

fn node_notes(node: &NodeStatus) -> String {
    let mut notes = Vec::new();
    let maintenance = node.maintenance.as_ref().map(|word| match word.left_ms {
        Some(left) => format!("in maintenance by {} for {} more", word.who, milliseconds(left)),
        None => format!("in maintenance by {}", word.who),
    });
    notes.extend(maintenance.as_deref());
    let leaving = node.leaving.as_ref().map(|why| match node.state {
        NodeState::Left => why.to_string(),
        _ => format!("leaves: {why}"),
    });
    notes.extend(leaving.as_deref());
    if node.self_doubt {
        notes.push("doubts itself");
    }
    if node.config_differs {
        notes.push("other configuration file");
    }
    notes.extend(node.failing.iter().map(String::as_str));
    notes.extend(node.refusals.iter().map(String::as_str));
    notes.join("; ")
}

fn matrix(status: &Status) -> String {
    let mut header = vec!["observer", "of", ""];
    header.extend(status.channels.iter().map(|channel| channel.as_str()));
    let mut rows = Vec::new();
    for (observer, peers) in &status.matrix {
        for (peer, seen) in peers {
            rows.push(matrix_row(status, observer, peer, seen));
        }
    }
    if rows.is_empty() { String::new() } else { table(&header, rows) }
}

fn matrix_row(status: &Status, observer: &NodeName, peer: &NodeName, seen: &Seen) -> Vec<String> {
    let suspects = if seen.suspects { "SUSPECTS" } else { "" };
    let mut row = vec![observer.to_string(), peer.to_string(), suspects.to_owned()];
    for channel in &status.channels {
        row.push(match seen.channels.get(channel) {
            None => "-".to_owned(),
            Some(SeenOn { sight: s, phi: None }) => sight(*s).to_owned(),
            Some(SeenOn { sight: s, phi: Some(phi) }) => format!("{} {phi:.1}", sight(*s)),
        });
    }
    row
}

fn fences(fences: &[FenceStatus]) -> String {
    let mut text = String::new();
    for fence in fences {
        let incident = fence.incident.map(|id| format!(", incident {id}")).unwrap_or_default();
        let by = fence.confirmed_by.as_ref().map(|by| format!(", confirmed by {by}")).unwrap_or_default();
        text += &format!("  {}: {}{by} (fence {}{incident})\n", fence.node, fence.stage, fence.id);
        for attempt in &fence.attempts {
            text += &format!("    {attempt}\n");
        }
    }
    text
}

fn devices(status: &Status) -> String {
    let header = ["agent", "kind", "target", "monitor", "said"];
    let row = |device: &DeviceStatus| {
        let (monitor, said) = match &device.monitor {
            None => ("not yet".to_owned(), String::new()),
            Some(monitor) => {
                let ago = milliseconds(status.answered_at_ms.0.saturating_sub(monitor.at_ms.0));
                let word = if monitor.ok { "ok" } else { "FAILED" };
                (format!("{word} {ago} ago"), monitor.error.clone().unwrap_or_default())
            }
        };
        vec![device.agent.to_string(), agent_kind(device.kind).to_owned(), device.target.to_string(), monitor, said]
    };
    if status.devices.is_empty() { String::new() } else { table(&header, status.devices.iter().map(row)) }
}
