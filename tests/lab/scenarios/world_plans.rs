//! The lab tests what it plans: every cluster that a scenario builds has a configuration that regent accepts, the same
//! on every host; and a scenario that is to be alone is.

use crate::harness::Scenario;
use crate::network::Net;
use crate::plan::{Devices, Plan};
use crate::turns::Turns;
use crate::world::World;
use anyhow::{Result, anyhow, ensure};
use regent::config::Config;
use std::sync::{Barrier, Mutex};
use std::time::Duration;

pub const SCENARIOS: [Scenario; 2] = [
    Scenario {
        name: "world_plans_are_valid",
        shows: "regent accepts every configuration that the lab writes",
        within: Duration::from_secs(30),
        alone: false,
        run: plans,
    },
    Scenario {
        name: "world_turns_are_kept",
        shows: "what is to be alone runs last, with nothing beside it; the others run side by side",
        within: Duration::from_secs(30),
        alone: false,
        run: turns,
    },
];

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

/// Three workers. The first three wait for each other, so they must run side by side.
fn turns(_: &mut World) -> Result<()> {
    let is_alone = |n: &u32| [0, 3, 7].contains(n);
    let (turns, together) = (Turns::new(0..9, is_alone), Barrier::new(3));
    let (running, order) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let work = || -> Result<()> {
        while let Some(turn) = turns.next(|| false) {
            let beside = {
                let mut running = running.lock().unwrap();
                running.push(turn.what);
                order.lock().unwrap().push(turn.what);
                running.clone()
            };
            if [1, 2, 4].contains(&turn.what) {
                together.wait();
            }
            std::thread::sleep(Duration::from_millis(5));
            let mut running = running.lock().unwrap();
            let alone = running.iter().chain(&beside).any(is_alone);
            ensure!(!alone || (running.len() == 1 && beside.len() == 1), "{running:?}, {beside:?} ran side by side");
            running.retain(|n| *n != turn.what);
        }
        Ok(())
    };
    std::thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..3).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("panics abort"))
    })?;
    let order = order.into_inner().unwrap();
    ensure!(order.len() == 9 && order[6..] == [0, 3, 7], "they began in the order {order:?}");
    let over = Turns::new(0..2, is_alone);
    ensure!(over.next(|| true).is_none(), "one began after everything was over");
    Ok(())
}
