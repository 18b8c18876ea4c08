//! The lab tests itself: with the fence disabled on purpose (`src/known_bugs.rs`), a primary that is cut off or
//! thawed while another was promoted must be *seen* to write. A judge that does not see it is no judge.

use crate::cluster::Cluster;
use crate::harness::Scenario;
use crate::network::Net;
use crate::plan::Plan;
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Result, bail, ensure};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(240);
/// Longer than the old primary's lease: what it does until then is what the fence would have prevented.
const UNTIL_ITS_LEASE_ENDS: Duration = Duration::from_secs(10);

pub const SCENARIOS: [Scenario; 2] = [
    Scenario {
        name: "without_a_fence_both_networks_of_the_primary",
        shows: "4 must fail with the fence disabled: two writers are seen",
        within: LONG,
        alone: false,
        run: both,
    },
    Scenario {
        name: "without_a_fence_frozen_for_too_long",
        shows: "6 must fail with the fence disabled: two writers are seen",
        within: LONG,
        alone: false,
        run: frozen,
    },
];

fn broken() -> Plan {
    Plan { bug: Some("fence_disabled"), ..Plan::default() }
}

fn both(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, broken())?;
    let before = cluster.reign()?;
    let fault = Stamp::now();
    cluster.host(&before.primary)?.link_down(Net::Primary)?;
    cluster.host(&before.primary)?.link_down(Net::Secondary)?;
    let (after, _) = cluster.wait_failover(&before, fault, Duration::from_secs(60))?;
    two_writers(&mut cluster, &before.primary, &after.primary)
}

fn frozen(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, broken())?;
    let before = cluster.reign()?;
    let host = cluster.host(&before.primary)?.clone();
    let fault = Stamp::now();
    host.freeze()?;
    let (after, _) = cluster.wait_failover(&before, fault, Duration::from_secs(40))?;
    // Thawed, the daemon hears within a millisecond that its epoch is over and stops the database before it has written
    // once: what the fence is for is the daemon that is late. The signal is delivered with the thaw.
    let daemon = nix::unistd::Pid::from_raw(i32::try_from(cluster.daemon_process(&before.primary)?)?);
    nix::sys::signal::kill(daemon, nix::sys::signal::Signal::SIGSTOP)?;
    host.thaw()?;
    two_writers(&mut cluster, &before.primary, &after.primary)
}

/// Nothing was switched off, and the judge that every scenario ends with says why that was wrong.
fn two_writers(cluster: &mut Cluster, before: &str, after: &str) -> Result<()> {
    std::thread::sleep(UNTIL_ITS_LEASE_ENDS);
    ensure!(cluster.device("ipmi", before)?.offs() == 0, "the fence was not disabled: {before} was switched off");
    match cluster.judge(&[before, after]) {
        Err(found) if found.to_string().starts_with("two writers") => {
            println!("found, as it must be: {found}");
            Ok(())
        }
        Err(other) => Err(other.context("the judge objects, but not to two writers")),
        Ok(_) => bail!("{before} was promoted over without any fence, and the judge saw one writer only"),
    }
}
