//! One fence's cut as nftables rules: three chains of its own, one a hook, named by the fence. Pure.
//!
//! Each fence has base chains of its own, so that removing them needs no search for rules, and fence 1 cannot touch
//! what fence 2 added. A `drop` is final whatever other chains accept, so established connections are cut too: rules
//! such as `ct state established accept` elsewhere do not save them.

use crate::contract::Request;
use crate::contract::standing::Standings;
use crate::nft::TABLE;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;

/// Before conntrack and before every filter of the operator: nothing is spent on packets that are dropped anyway.
const PRIORITY: i32 = -310;

/// The hooks, and which addresses of a packet can be the node's there.
const HOOKS: [(&str, &[&str]); 3] = [("input", &["saddr"]), ("output", &["daddr"]), ("forward", &["saddr", "daddr"])];

/// An option that makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    #[error("option addresses holds {given:?}: expected IP addresses of the fenced node, with commas between them")]
    Address { given: String },
    #[error("option addresses holds {given}: cutting that would cut this host off from itself or from everybody")]
    Everybody { given: IpAddr },
    #[error("option addresses is needed for this action: the addresses of the fenced node")]
    NoAddresses,
    #[error("option regent_ports holds {given:?}: expected port numbers, with commas between them")]
    Port { given: String },
    #[error("option fence_id is {given:?}: expected a number")]
    Id { given: String },
}

/// What one fence cuts.
#[derive(Debug)]
pub struct Cut {
    pub id: u64,
    /// Written beside the rules, for whoever finds them.
    node: Option<String>,
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<u16>,
}

impl Cut {
    pub fn from_request(request: &Request) -> Result<Cut, CutError> {
        let text = request.text("fence_id").unwrap_or("0");
        let id = text.parse().map_err(|_| CutError::Id { given: text.to_owned() })?;
        let mut addresses = BTreeSet::new();
        for item in request.list("addresses") {
            let address: IpAddr = item.parse().map_err(|_| CutError::Address { given: item.to_owned() })?;
            if address.is_unspecified() || address.is_multicast() {
                return Err(CutError::Everybody { given: address });
            }
            addresses.insert(address);
        }
        let mut ports = BTreeSet::new();
        for item in request.list("regent_ports") {
            ports.insert(item.parse().map_err(|_| CutError::Port { given: item.to_owned() })?);
        }
        Ok(Cut { id, node: request.text("nodename").filter(|n| is_plain(n)).map(str::to_owned), addresses, ports })
    }

    /// A cut of documentation addresses, to ask the kernel whether it would take one.
    pub fn probe() -> Cut {
        let addresses = ["192.0.2.1", "2001:db8::1"].into_iter().filter_map(|a| a.parse().ok()).collect();
        Cut { id: 0, node: Some("probe".to_owned()), addresses, ports: BTreeSet::from([7420, 7421]) }
    }

    pub fn needs_addresses(&self) -> Result<(), CutError> {
        if self.addresses.is_empty() { Err(CutError::NoAddresses) } else { Ok(()) }
    }

    /// The addresses, as a person reads them.
    pub fn addresses(&self) -> String {
        join(&self.addresses)
    }

    fn chain(&self, hook: &str) -> String {
        format!("fence_{}_{hook}", self.id)
    }

    /// Declares and empties the chains, so that the transaction can be repeated.
    fn declare(&self) -> String {
        let mut text = format!("add table inet {TABLE}\n");
        for (hook, _) in HOOKS {
            let chain = self.chain(hook);
            let _ = writeln!(
                text,
                "add chain inet {TABLE} {chain} {{ type filter hook {hook} priority {PRIORITY}; policy accept; }}\n\
                 flush chain inet {TABLE} {chain}"
            );
        }
        text
    }

    /// The transaction that puts the cut in place.
    pub fn install(&self) -> String {
        let mut text = self.declare();
        let mark = self.node.as_ref().map(|node| format!(" comment \"node {node}\"")).unwrap_or_default();
        let (v4, v6): (Vec<&IpAddr>, Vec<&IpAddr>) = self.addresses.iter().partition(|a| a.is_ipv4());
        for (hook, sides) in HOOKS {
            let chain = self.chain(hook);
            for (family, addresses) in [("ip", &v4), ("ip6", &v6)] {
                if addresses.is_empty() {
                    continue;
                }
                for side in sides {
                    let rule =
                        format!("add rule inet {TABLE} {chain} {family} {side} {{ {} }}", join(addresses.iter()));
                    if !self.ports.is_empty() {
                        let ports = join(&self.ports);
                        let _ = writeln!(text, "{rule} meta l4proto {{ tcp, udp }} th dport {{ {ports} }} accept");
                        let _ = writeln!(text, "{rule} meta l4proto {{ tcp, udp }} th sport {{ {ports} }} accept");
                    }
                    if family == "ip6" {
                        // Without neighbour discovery regent's own packets would not find the node either.
                        let _ =
                            writeln!(text, "{rule} icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept");
                    }
                    let _ = writeln!(text, "{rule} drop{mark}");
                }
            }
        }
        text
    }

    /// The transaction that removes every chain of this fence that the kernel shows, whoever made it and however it is
    /// hooked: what another version or a hand left half done goes too. `None` when there is none. The table stays, even
    /// when it is empty now: removing it could race with another fence that is just being added.
    pub fn remove(&self, ruleset: &[Value]) -> Option<String> {
        let mut text = String::new();
        for (_, chain) in chains(ruleset).filter(|(id, _)| *id == self.id) {
            let _ = writeln!(text, "flush chain inet {TABLE} {chain}\ndelete chain inet {TABLE} {chain}");
        }
        Some(text).filter(|text| !text.is_empty())
    }

    fn has_chain(&self, ruleset: &[Value], hook: &str) -> bool {
        let name = self.chain(hook);
        ruleset.iter().any(|object| object["chain"]["name"] == name.as_str() && object["chain"]["hook"] == hook)
    }

    /// Whether the kernel drops packets of every address of this cut, at every hook and in every direction.
    pub fn is_in_place(&self, ruleset: &[Value]) -> bool {
        HOOKS.iter().all(|(hook, sides)| {
            self.has_chain(ruleset, hook) && sides.iter().all(|side| self.drops(ruleset, hook, side))
        })
    }

    fn drops(&self, ruleset: &[Value], hook: &str, side: &str) -> bool {
        let chain = self.chain(hook);
        let dropped: BTreeSet<IpAddr> = ruleset
            .iter()
            .map(|object| &object["rule"])
            .filter(|rule| rule["chain"] == chain.as_str())
            .filter_map(|rule| rule["expr"].as_array())
            // Exactly a match and a drop: a rule with further conditions would not drop everything.
            .filter(|expr| expr.len() == 2 && expr[1].get("drop").is_some())
            .map(|expr| &expr[0]["match"])
            .filter(|found| found["left"]["payload"]["field"] == side && found["op"] == "==")
            .flat_map(|found| addresses_of(&found["right"]))
            .collect();
        self.addresses.is_subset(&dropped)
    }
}

/// The chains of all fences, each with the number in its name.
fn chains(ruleset: &[Value]) -> impl Iterator<Item = (u64, &str)> {
    ruleset.iter().filter_map(|object| object["chain"]["name"].as_str()).filter_map(|name| {
        let (number, hook) = name.strip_prefix("fence_")?.split_once('_')?;
        // Written as this agent writes it: "fence_007_input" is somebody else's.
        let id = number.parse::<u64>().ok().filter(|id| id.to_string() == number)?;
        (!hook.is_empty()).then_some((id, name))
    })
}

/// What every fence has in the kernel, a chain without a rule included.
pub fn in_force(ruleset: &[Value]) -> Standings {
    let rules = |chain: &str| {
        let chain = chain.to_owned();
        ruleset.iter().map(|object| &object["rule"]).filter(move |rule| rule["chain"] == chain.as_str())
    };
    let mut fences: BTreeMap<u64, (Option<&str>, Vec<String>)> = BTreeMap::new();
    for (id, chain) in chains(ruleset) {
        let (node, list) = fences.entry(id).or_default();
        *node = node.or(rules(chain).find_map(|rule| rule["comment"].as_str()?.strip_prefix("node ")));
        list.push(format!("{chain} ({} rules)", rules(chain).count()));
    }
    let mut found = Standings::default();
    for (id, (node, list)) in fences {
        found.add(id, node, &format!("chains {}", list.join(", ")));
    }
    found
}

/// Whether a node's name can stand in a rule's comment, in quotes.
fn is_plain(node: &str) -> bool {
    (1..=64).contains(&node.len()) && node.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// The addresses on the right side of a match: one, or a set of them.
fn addresses_of(right: &Value) -> Vec<IpAddr> {
    let parse = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
    match right.get("set").and_then(Value::as_array) {
        Some(items) => items.iter().filter_map(parse).collect(),
        None => parse(right).into_iter().collect(),
    }
}

fn join<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}
