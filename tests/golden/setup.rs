//! The cluster of a story: profile `lan` from a configuration text, with the nodes, levels and switches that the story
//! names. Nodes whose name begins with `w` are witnesses.

use crate::story::Line;
use regent::config::trouble::RULES;
use regent::config::{Agent, Config, Fencing, OnCrash, OnLapsed, PowerOn, Service};
use regent::types::{AgentKind, AgentName, ServiceName};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

const HEAD: &str = r#"
cluster = "orders"
data_dir = "/nowhere"
profile = "lan"
[security]
insecure = true
[channels.disk]
path = "/dev/shared"
[watchdog]
device = "/dev/watchdog"
[fencing]
power_on = "auto"
[[fencing.level]]
agents = ["lease"]
[service.orders]
engine = "postgresql"
bootstrap = "initdb"
[service.orders.postgresql]
data_dir = "/var/lib/postgresql/15/main"
bin_dir = "/usr/lib/postgresql/15/bin"
"#;

/// The configuration as `node` has it.
pub fn config(line: &Line, node: &str) -> Config {
    let names: Vec<&str> = line.get("nodes").unwrap_or("db1,db2,w1").split(',').collect();
    let mut text = HEAD.to_owned();
    for (i, name) in (11..).zip(&names) {
        let role = if name.starts_with('w') { "role = \"witness\"\n" } else { "" };
        writeln!(text, "[nodes.{name}]\n{role}primary = \"10.0.1.{i}\"\nsecondary = \"10.0.2.{i}\"").expect("a string");
    }
    let mut config = match Config::parse(&text, "story", Some(node), node) {
        Ok(config) => config,
        Err(problems) => line.fail(&problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
    };
    fencing(line, &mut config.fencing);
    if line.has("no-watchdog") {
        config.watchdog = None;
    }
    for name in &names {
        if let Some(wishes) = line.get(name) {
            let settings = config.nodes.get_mut(&line.parse(name)).expect("just written");
            for wish in wishes.split(',') {
                match wish.split_once(':') {
                    Some(("priority", n)) => settings.priority = line.parse(n),
                    Some(("location", place)) => settings.location = Some(place.to_owned()),
                    _ if wish == "diskless" => settings.disk = false,
                    _ => member(line, &mut config.services, (name, wish)),
                }
            }
        }
    }
    let service = config.services.values_mut().next().expect("one service");
    service.bootstrap_initdb = !line.has("no-bootstrap");
    if line.has("on-crash-restart") {
        service.on_crash = OnCrash::Restart;
    }
    if line.has("on-crash-failover") {
        service.on_crash = OnCrash::Failover;
    }
    for (kind, policy) in
        line.get("policy").into_iter().flat_map(|all| all.split(',')).filter_map(|one| one.split_once(':'))
    {
        let rule = RULES.iter().find(|rule| rule.kind.key() == kind).expect("a kind of trouble");
        let policy = rule.allowed.iter().find(|allowed| allowed.word() == policy).expect("a policy that it may have");
        service.troubles = service.troubles.clone().with(rule.kind, *policy);
    }
    config
}

/// What a node is for in the service.
fn member(line: &Line, services: &mut BTreeMap<ServiceName, Service>, (node, wish): (&str, &str)) {
    let service = services.values_mut().next().expect("one service");
    let member = service.members.entry(line.parse(node)).or_default();
    match wish.split_once(':') {
        None if wish == "never-leads" => member.may_lead = false,
        Some(("delay", time)) => (member.apply_delay, member.may_lead) = (line.duration(time), false),
        Some(("follow", other)) => member.follow = Some(line.parse(other)),
        _ => line.fail("expected priority:N, location:NAME, diskless, never-leads, delay:TIME or follow:NODE"),
    }
}

fn fencing(line: &Line, fencing: &mut Fencing) {
    let names = |text: &str| -> Vec<AgentName> {
        text.split(['+', ',']).filter(|n| !n.is_empty()).map(|n| line.parse(n)).collect()
    };
    let of = |kind, isolates, everywhere| Agent {
        kind,
        command: "fence_agent".into(),
        options: BTreeMap::new(),
        node: BTreeMap::new(),
        isolates,
        everywhere,
        timeout: Duration::from_secs(10),
        tries: 2,
        monitor: Duration::ZERO,
    };
    let agents = [
        ("ipmi", of(AgentKind::Power, false, false)),
        ("pdu", of(AgentKind::Power, false, false)),
        ("san", of(AgentKind::Storage, false, false)),
        ("gateway", of(AgentKind::Network, true, false)),
        ("switch", of(AgentKind::Network, false, false)),
        ("revoke", of(AgentKind::Access, false, false)),
        ("firewall", of(AgentKind::Network, false, true)),
    ];
    fencing.agents = agents.into_iter().map(|(name, agent)| (line.parse(name), agent)).collect();
    fencing.levels = line.get("levels").unwrap_or("ipmi/lease").split('/').map(names).collect();
    fencing.assist = names(line.get("assist").unwrap_or(""));
    fencing.lease_without_watchdog = line.has("lease-without-watchdog");
    fencing.lease_on_virtual_machine = line.has("lease-on-virtual-machine");
    fencing.on_lapsed = if line.has("on-lapsed-fence") { OnLapsed::Fence } else { OnLapsed::Alarm };
    fencing.power_on = if line.has("power-on-manual") { PowerOn::Manual } else { PowerOn::Auto };
}
