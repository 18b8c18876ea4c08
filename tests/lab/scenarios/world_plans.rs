//! The lab tests what it writes: every cluster that a scenario builds has a configuration that regent accepts, the same
//! on every host.

use crate::harness::Scenario;
use crate::network::Net;
use crate::plan::{Devices, Plan};
use crate::world::World;
use anyhow::{Result, anyhow, ensure};
use regent::config::Config;
use std::time::Duration;

pub const SCENARIOS: [Scenario; 1] = [Scenario {
    name: "world_plans_are_valid",
    shows: "regent accepts every configuration that the lab writes",
    within: Duration::from_secs(30),
    run: plans,
}];

fn plans(_: &mut World) -> Result<()> {
    let all = [
        Plan::default(),
        Plan::with_witness(),
        Plan::five_voters(),
        Plan { witnesses: 1, ..Plan::default() },
        Plan { levels: &[&["ipmi"], &["pdu"]], ..Plan::default() },
        Plan { levels: &[&["ipmi"], &["lease"]], ..Plan::default() },
        Plan { power_on: "manual", on_crash: "failover", ..Plan::default() },
        Plan { insecure: true, ..Plan::default() },
        Plan { watchdogs: Devices::All, second: true, ..Plan::five_voters() },
        Plan { impatient: true, ..Plan::five_voters() },
        Plan { profile: "fast", failover: "install = \"20s\"", ..Plan::default() },
    ];
    for plan in all {
        let mut hashes = Vec::new();
        let names = plan.node_names();
        let number = |name: &str| names.iter().position(|n| n == name).unwrap_or_default() as u8 + 11;
        for name in &names {
            let base = |agent: &str| if agent == "ipmi" { 100 } else { 150 };
            let text = plan.toml(
                name,
                |node, net| net.address(number(node)),
                |agent, node| Net::Management.address(base(agent) + number(node)),
            )?;
            let config = Config::parse(&text, "regent.toml", None, name).map_err(|problems| {
                let said: Vec<String> = problems.iter().map(|p| format!("{}: {}", p.key, p.message)).collect();
                anyhow!("{plan:?}\n{text}\n{}", said.join("\n"))
            })?;
            hashes.push(config.hash);
        }
        ensure!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "the files of {names:?} differ by more than `node`");
    }
    Ok(())
}
