//! What a manager costs while nothing happens: processor time and resident memory.

use crate::cluster::Cluster;
use crate::plan::Plan;
use crate::time::Stamp;
use crate::world::World;
use anyhow::{Context, Result};
use std::fs;
use std::time::Duration;

const WATCHED: Duration = Duration::from_secs(60);
const PROCESSOR_TARGET: f64 = 1.5;
const MEMORY_TARGET: f64 = 48.0;

/// The row: the dearest manager of a quiet cluster at profile `lan`.
pub fn measure(world: &mut World) -> Result<()> {
    let mut cluster = Cluster::start(world, Plan { probers: false, ..Plan::default() })?;
    let primary = cluster.reign()?.primary;
    cluster.stop_writer()?;
    std::thread::sleep(Duration::from_secs(5));
    let names = cluster.plan.node_names();
    let processes: Vec<u32> = names.iter().map(|name| cluster.daemon_process(name)).collect::<Result<_>>()?;
    let start = Stamp::now();
    let before: Vec<Duration> = processes.iter().map(|p| processor_time(*p)).collect::<Result<_>>()?;
    std::thread::sleep(WATCHED);
    let watched = Stamp::now().since(start);
    for ((name, process), before) in names.iter().zip(&processes).zip(before) {
        let percent = 100.0 * (processor_time(*process)? - before).as_secs_f64() / watched.as_secs_f64();
        let mebibytes = resident(*process)? as f64 / 1024.0;
        let met = percent <= PROCESSOR_TARGET && mebibytes <= MEMORY_TARGET;
        println!(
            "idle manager on {name}{}: {percent:.2} % of one core, {mebibytes:.1} MiB resident; target \
             {PROCESSOR_TARGET} % and {MEMORY_TARGET} MiB {}",
            if *name == primary { " (primary)" } else { "" },
            if met { "met" } else { "MISSED" }
        );
    }
    Ok(())
}

/// Processor time of a process so far, ended threads included: the scheduler's own account, not the sampled ticks of
/// `/proc/PID/stat`, of which an idle manager collects too few.
fn processor_time(process: u32) -> Result<Duration> {
    let clock = nix::time::clock_getcpuclockid(nix::unistd::Pid::from_raw(process as i32))?;
    Ok(clock.now().with_context(|| format!("the processor time of process {process}"))?.into())
}

/// Resident memory in KiB.
fn resident(process: u32) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB")).with_context(|| format!("{path}: no VmRSS"))?;
    Ok(number.trim().parse()?)
}
