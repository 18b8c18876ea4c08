//! The lab tests itself: watchdogs that reset, volumes that fill.

use crate::harness::Scenario;
use crate::host::{Ballast, DISK, Host};
use crate::watchdogs::{WATCHDOG_NAME, Watchdogs};
use crate::world::World;
use anyhow::{Result, ensure};
use regent::action::watchdog::Watchdog;
use std::path::Path;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(1);

pub const SCENARIOS: [Scenario; 2] = [
    Scenario {
        name: "world_watchdogs",
        shows: "one that is not fed resets its host, one that was disarmed or lost its power does not",
        within: SHORT,
        run: watchdogs,
    },
    Scenario {
        name: "world_full_volumes",
        shows: "full of bytes, full of files, freed again, kept over a power cut",
        within: SHORT,
        run: volumes,
    },
];

fn is_reset_within(host: &Host, boot: &str, within: Duration) -> Result<bool> {
    let end = Instant::now() + within;
    while Instant::now() < end {
        if host.is_on() && host.boot_id()? != boot {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(false)
}

fn watchdogs(world: &mut World) -> Result<()> {
    let (a, b) = (world.add_host("a")?, world.add_host("b")?);
    let devices = Watchdogs::create(&world.directory, vec![a.clone(), b.clone()])?;
    for host in [&a, &b] {
        host.attach(devices.file(&host.name), WATCHDOG_NAME)?;
        host.power_on()?;
    }
    let (boot_a, boot_b) = (a.boot_id()?, b.boot_id()?);
    Watchdog::arm(&devices.file("b"), TIMEOUT)?.disarm()?;
    let mut fed = Watchdog::arm(&devices.file("a"), TIMEOUT)?;
    for _ in 0..6 {
        ensure!(!is_reset_within(&a, &boot_a, TIMEOUT / 3)?, "a host that was fed for was reset");
        fed.feed()?;
    }
    // Whoever dies does not disarm it.
    drop(fed);
    ensure!(is_reset_within(&a, &boot_a, TIMEOUT * 5)?, "a host that nobody feeds for was not reset");
    ensure!(b.boot_id()? == boot_b, "the other host was reset");
    ensure!(devices.resets() == 1, "{} resets were counted", devices.resets());

    let boot = a.boot_id()?;
    drop(Watchdog::arm(&devices.file("a"), TIMEOUT)?);
    a.power_cut()?;
    a.power_on()?;
    let after = a.boot_id()?;
    ensure!(after != boot && !is_reset_within(&a, &after, TIMEOUT * 3)?, "a device that lost its power reset its host");
    devices.break_device("a")?;
    ensure!(Watchdog::arm(&devices.file("a"), TIMEOUT).is_err(), "a broken device was armed");
    ensure!(!devices.is_armed("a")?, "a broken device counts as armed");
    a.run("test", &["-e", &format!("{DISK}/{WATCHDOG_NAME}")]).map(drop)
}

fn volumes(world: &mut World) -> Result<()> {
    let host = world.add_host("a")?;
    host.add_volume("one", 4)?;
    host.power_on()?;
    let place = Path::new(DISK).join("one");
    let write = |name: &str| host.run("sh", &["-c", &format!("echo word > {}", place.join(name).display())]);
    write("before")?;
    host.fill_volume("one", Ballast::Bytes)?;
    ensure!(write("more").is_err(), "a full volume takes more");
    ensure!(host.run("sh", &["-c", &format!("echo word > {DISK}/beside")]).is_ok(), "the disk beside it is full");
    host.free_volume("one")?;
    host.fill_volume("one", Ballast::Files)?;
    ensure!(write("new").is_err(), "a volume without room for a file takes one");
    write("before")?;
    host.power_cut()?;
    host.power_on()?;
    ensure!(write("new").is_err(), "a power cut freed a volume");
    host.free_volume("one")?;
    write("new").map(drop)
}
