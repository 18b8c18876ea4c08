//! The lab tests itself: watchdogs that reset, volumes that fill.

use crate::harness::Scenario;
use crate::host::{Ballast, DISK, Host};
use crate::watchdogs::{WATCHDOG_NAME, Watchdogs};
use crate::world::World;
use anyhow::{Result, ensure};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(1);
/// WDIOC_SETTIMEOUT and WDIOC_KEEPALIVE of `linux/watchdog.h`.
const SET_TIMEOUT: libc::c_ulong = 0xc004_5706;
const KEEP_ALIVE: libc::c_ulong = 0x8004_5705;

pub const SCENARIOS: [Scenario; 2] = [
    Scenario {
        name: "world_watchdogs",
        shows: "one that is not fed resets its host, one that was disarmed or lost its power does not",
        within: SHORT,
        alone: false,
        run: watchdogs,
    },
    Scenario {
        name: "world_full_volumes",
        shows: "full of bytes, full of files, freed again, kept over a power cut",
        within: SHORT,
        alone: false,
        run: volumes,
    },
];

/// As a program of the host would.
fn arm(device: &Path) -> Result<File> {
    let file = File::options().write(true).open(device)?;
    request(&file, SET_TIMEOUT, TIMEOUT.as_secs() as i32)?;
    Ok(file)
}

fn request(device: &File, request: libc::c_ulong, mut given: i32) -> Result<()> {
    // SAFETY: the descriptor is open, and both requests take a pointer to one int.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), request, &raw mut given) };
    ensure!(done == 0, "the request {request:#x}: {}", std::io::Error::last_os_error());
    Ok(())
}

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
    // The magic close disarms.
    arm(&devices.file("b"))?.write_all(b"V")?;
    let fed = arm(&devices.file("a"))?;
    for _ in 0..6 {
        ensure!(!is_reset_within(&a, &boot_a, TIMEOUT / 3)?, "a host that was fed for was reset");
        request(&fed, KEEP_ALIVE, 0)?;
    }
    // Whoever dies does not disarm it.
    drop(fed);
    ensure!(is_reset_within(&a, &boot_a, TIMEOUT * 5)?, "a host that nobody feeds for was not reset");
    ensure!(b.boot_id()? == boot_b, "the other host was reset");
    ensure!(devices.resets() == 1, "{} resets were counted", devices.resets());

    let boot = a.boot_id()?;
    drop(arm(&devices.file("a"))?);
    a.power_cut()?;
    a.power_on()?;
    let after = a.boot_id()?;
    ensure!(after != boot && !is_reset_within(&a, &after, TIMEOUT * 3)?, "a device that lost its power reset its host");
    devices.break_device("a")?;
    ensure!(arm(&devices.file("a")).is_err(), "a broken device was armed");
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
