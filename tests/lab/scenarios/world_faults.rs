//! The lab tests itself: each fault does what its name says, to one host only.

use crate::bmc::{Bmc, Mode as BmcMode};
use crate::disk::Mode as DiskMode;
use crate::harness::{Scenario, skip};
use crate::host::{Host, SHARED_DISK};
use crate::network::Net;
use crate::world::World;
use anyhow::{Result, ensure};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_secs(30);

pub const SCENARIOS: [Scenario; 8] = [
    Scenario {
        name: "world_hosts_reach_each_other",
        shows: "two hosts ping on every network",
        within: SHORT,
        alone: false,
        run: ping,
    },
    Scenario {
        name: "world_cut_links",
        shows: "a pulled cable and a one-way cut stop one network only",
        within: SHORT,
        alone: false,
        run: cut,
    },
    Scenario {
        name: "world_freeze",
        shows: "a frozen host stands still, children in cgroups too",
        within: SHORT,
        alone: false,
        run: freeze,
    },
    Scenario {
        name: "world_power_cut",
        shows: "kills the whole tree; a new boot id and an empty /run",
        within: SHORT,
        alone: false,
        run: power,
    },
    Scenario {
        name: "world_bmc",
        shows: "power off by IPMI kills the host, power on boots it",
        within: SHORT,
        alone: false,
        run: bmc,
    },
    Scenario {
        name: "world_bmc_misbehaves",
        shows: "lying, slow, stuck and dead devices",
        within: SHORT,
        alone: false,
        run: bad_bmc,
    },
    Scenario {
        name: "world_shared_disk",
        shows: "ok, eio, ro, delay and hang for one host only",
        within: SHORT,
        alone: false,
        run: disk,
    },
    Scenario {
        name: "world_hung_disk_power_cut",
        shows: "a host whose disk hangs can still lose power",
        within: SHORT,
        alone: false,
        run: hung,
    },
];

fn two(world: &mut World) -> Result<(Arc<Host>, Arc<Host>)> {
    let (a, b) = (world.add_host("a")?, world.add_host("b")?);
    a.power_on()?;
    b.power_on()?;
    Ok((a, b))
}

fn reaches(from: &Host, to: &Host, net: Net) -> Result<bool> {
    let lab = std::env::current_exe()?;
    let output = from.output(&lab.to_string_lossy(), &["__ping", net.nic(), &to.address(net)])?;
    Ok(output.status.success())
}

fn ping(world: &mut World) -> Result<()> {
    let (a, b) = two(world)?;
    for net in [Net::Primary, Net::Secondary, Net::Management] {
        ensure!(reaches(&a, &b, net)?, "a does not reach b on {net}");
        ensure!(reaches(&b, &a, net)?, "b does not reach a on {net}");
    }
    ensure!(a.run("hostname", &[])?.trim() == "a", "the host does not know its name");
    let outside = Command::new(std::env::current_exe()?).args(["__ping", "lo", &a.address(Net::Primary)]).output()?;
    ensure!(!outside.status.success(), "the machine's own network reaches into the world");
    Ok(())
}

fn cut(world: &mut World) -> Result<()> {
    let (a, b) = two(world)?;
    a.link_down(Net::Primary)?;
    ensure!(!reaches(&a, &b, Net::Primary)?, "the cut network still works");
    ensure!(reaches(&a, &b, Net::Secondary)?, "the other network was cut as well");
    a.link_up(Net::Primary)?;
    ensure!(reaches(&a, &b, Net::Primary)?, "the network did not come back");

    // One way: b hears a, a does not hear b.
    a.block_input(Net::Secondary)?;
    let before = received(&b, Net::Secondary)?;
    ensure!(!reaches(&a, &b, Net::Secondary)?, "an answer came through a one-way cut");
    ensure!(received(&b, Net::Secondary)? > before, "nothing arrived in the direction that is open");
    a.unblock_input(Net::Secondary)?;
    ensure!(reaches(&a, &b, Net::Secondary)?, "the one-way cut did not end");

    // The other way: a hears b, b does not hear a.
    a.block_output(Net::Secondary)?;
    let before = received(&b, Net::Secondary)?;
    ensure!(!reaches(&a, &b, Net::Secondary)?, "something came through the other one-way cut");
    ensure!(received(&b, Net::Secondary)? == before, "something arrived in the direction that is cut");
    a.unblock_output(Net::Secondary)?;
    ensure!(reaches(&a, &b, Net::Secondary)?, "the other one-way cut did not end");

    a.isolate()?;
    for net in [Net::Primary, Net::Secondary, Net::Management] {
        ensure!(!reaches(&b, &a, net)?, "an isolated host was reached on {net}");
    }
    Ok(())
}

fn received(host: &Host, net: Net) -> Result<u64> {
    let text = host.run("cat", &["/proc/net/dev"])?;
    let line = text.lines().find_map(|l| l.trim().strip_prefix(net.nic())?.strip_prefix(':').map(str::to_owned));
    Ok(line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok()).unwrap_or_default())
}

/// Starts a program in `host` that counts in a file on its disk, from a cgroup that the host made itself.
fn start_counter(host: &Host) -> Result<()> {
    let tree = crate::cgroup::mount_point()?;
    let tree = tree.display();
    let script = format!(
        "mkdir -p {tree}/database && (echo 0 > {tree}/database/cgroup.procs; \
         setsid sh -c 'while :; do echo >> /srv/count; sleep 0.01; done') > /dev/null 2>&1 &"
    );
    host.run("sh", &["-c", &script])?;
    wait_for(Duration::from_secs(5), "the counter to start", || Ok(count(host) > 0))
}

/// How far the counter is: it adds one byte to its file each time.
fn count(host: &Host) -> u64 {
    fs::metadata(host.disk().join("count")).map(|meta| meta.len()).unwrap_or_default()
}

/// Waits for something that gives no event, looking often.
fn wait_for(within: Duration, what: &str, mut seen: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + within;
    while !seen()? {
        ensure!(Instant::now() < end, "waited {within:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Whether the counter moves within a while in which it would move some thirty times.
fn counts(host: &Host) -> bool {
    let before = count(host);
    std::thread::sleep(Duration::from_millis(400));
    count(host) != before
}

fn freeze(world: &mut World) -> Result<()> {
    let (a, b) = two(world)?;
    start_counter(&a)?;
    start_counter(&b)?;
    ensure!(counts(&a), "the counter does not count");
    a.freeze()?;
    ensure!(!counts(&a), "a frozen host goes on");
    ensure!(counts(&b), "the other host was frozen as well");
    ensure!(a.run("true", &[]).is_err(), "a program was started in a frozen host");
    ensure!(reaches(&b, &a, Net::Primary)?, "the kernel of a frozen host answers pings: it stays on its networks");
    a.thaw()?;
    wait_for(Duration::from_secs(5), "the thawed host to go on", || Ok(counts(&a)))?;
    a.freeze()?;
    a.power_cut()?;
    ensure!(!a.is_on(), "a frozen host did not lose its power");
    Ok(())
}

fn power(world: &mut World) -> Result<()> {
    let (a, b) = two(world)?;
    start_counter(&a)?;
    a.run("sh", &["-c", "echo kept > /srv/file; echo gone > /run/file; echo gone > /dev/shm/file"])?;
    let (group, boot) = (world.cgroup.path().join("a"), a.boot_id()?);
    ensure!(a.run("cat", &["/proc/sys/kernel/random/boot_id"])?.trim() == boot, "the host sees another boot id");
    ensure!(b.boot_id()? != boot, "two hosts have one boot id");
    let start = Instant::now();
    a.power_cut()?;
    println!("a power cut takes {:?}", start.elapsed());
    ensure!(!counts(&a), "a process in a cgroup of its own survived the power cut");
    ensure!(!group.exists(), "the host's cgroup is left");
    ensure!(!reaches(&b, &a, Net::Primary)?, "a host without power answers");
    ensure!(a.run("true", &[]).is_err(), "a program was started in a host without power");

    let start = Instant::now();
    a.power_on()?;
    println!("a power-on takes {:?}", start.elapsed());
    ensure!(a.boot_id()? != boot, "the boot id did not change");
    ensure!(
        a.run("cat", &["/proc/sys/kernel/random/boot_id"])?.trim() == a.boot_id()?,
        "the host sees the old boot id"
    );
    ensure!(a.run("sh", &["-c", "ls -A /run /dev/shm | grep file || true"])?.is_empty(), "/run was not empty");
    ensure!(a.run("cat", &["/srv/file"])? == "kept\n", "the disk forgot");
    ensure!(reaches(&b, &a, Net::Primary)?, "the host is back and not reached");
    Ok(())
}

fn with_bmc(world: &mut World) -> Result<(Arc<Host>, Arc<Host>, Bmc)> {
    let (a, b) = two(world)?;
    let bmc = Bmc::start("bmc-a", 111, a.clone(), world.switch.clone(), &world.directory, &world.cgroup)?;
    Ok((a, b, bmc))
}

/// ipmitool in `host`, as a fence agent would use it.
fn power_status(host: &Host, bmc: &Bmc) -> Result<String> {
    let (user, password) = (crate::bmc::USER, crate::bmc::PASSWORD);
    let tail = ["-U", user, "-P", password, "chassis", "power", "status"];
    let mut args = vec!["-C", "3", "-N", "1", "-R", "1", "-I", "lanplus", "-H", &bmc.address];
    args.extend(tail);
    Ok(host.run("ipmitool", &args)?.trim().to_owned())
}

fn bmc(world: &mut World) -> Result<()> {
    let (a, b, bmc) = with_bmc(world)?;
    start_counter(&a)?;
    ensure!(power_status(&b, &bmc)? == "Chassis Power is on", "the device does not say on");
    let start = Instant::now();
    bmc.ipmitool(&["chassis", "power", "off"])?;
    wait_for(Duration::from_secs(5), "the host to be off", || Ok(!a.is_on()))?;
    println!("power off takes {:?}", start.elapsed());
    ensure!(power_status(&b, &bmc)? == "Chassis Power is off", "the device does not say off");
    ensure!(!counts(&a), "the host runs on");
    ensure!(bmc.offs() == 1, "the device was told {} times", bmc.offs());
    let boot = a.boot_id()?;
    bmc.ipmitool(&["chassis", "power", "on"])?;
    wait_for(Duration::from_secs(5), "the host to be on", || Ok(a.is_on()))?;
    ensure!(power_status(&b, &bmc)? == "Chassis Power is on", "the device does not say on again");
    ensure!(a.boot_id()? != boot, "the boot id did not change");
    Ok(())
}

fn bad_bmc(world: &mut World) -> Result<()> {
    let (a, b, bmc) = with_bmc(world)?;
    start_counter(&a)?;
    bmc.set_mode(BmcMode::Lying);
    bmc.ipmitool(&["chassis", "power", "off"])?;
    wait_for(Duration::from_secs(5), "the lie", || Ok(power_status(&b, &bmc)? == "Chassis Power is off"))?;
    ensure!(a.is_on() && counts(&a), "a lying device did switch the host off");

    bmc.set_mode(BmcMode::Stuck);
    let _ = bmc.ipmitool(&["chassis", "power", "off"]);
    ensure!(power_status(&b, &bmc)? == "Chassis Power is on" && counts(&a), "a stuck device did switch");

    bmc.set_mode(BmcMode::Slow(Duration::from_millis(700)));
    let start = Instant::now();
    ensure!(power_status(&b, &bmc)? == "Chassis Power is on", "a slow device gives a wrong answer");
    ensure!(start.elapsed() >= Duration::from_millis(700), "a slow device was quick");

    bmc.set_mode(BmcMode::Honest);
    bmc.power_down()?;
    ensure!(power_status(&b, &bmc).is_err(), "a device without power answers");
    ensure!(a.is_on() && counts(&a), "the host went with its device");
    bmc.power_up()?;
    ensure!(power_status(&b, &bmc)? == "Chassis Power is on", "the device did not come back");
    Ok(())
}

fn write_block(host: &Host) -> Result<String> {
    let of = format!("of={SHARED_DISK}");
    let args = ["if=/dev/zero", &of, "bs=4096", "count=1", "oflag=direct", "conv=notrunc"];
    let output = host.output("dd", &args)?;
    Ok(if output.status.success() { "ok".into() } else { String::from_utf8_lossy(&output.stderr).into_owned() })
}

fn disk_world(world: &mut World) -> Result<(Arc<Host>, Arc<Host>)> {
    if !Path::new("/dev/fuse").exists() {
        return skip("/dev/fuse is missing");
    }
    let (a, b) = (world.add_host("a")?, world.add_host("b")?);
    world.add_disk(&["a", "b"])?;
    a.power_on()?;
    b.power_on()?;
    Ok((a, b))
}

fn disk(world: &mut World) -> Result<()> {
    let (a, b) = disk_world(world)?;
    let control = world.disk.as_ref().expect("it was added").control("a")?;
    let script = format!("printf %4096s hello | dd of={SHARED_DISK} bs=4096 oflag=direct conv=notrunc status=none");
    a.run("sh", &["-c", &script])?;
    let script = format!("dd if={SHARED_DISK} bs=4096 count=1 iflag=direct status=none | tail -c 5");
    ensure!(b.run("sh", &["-c", &script])? == "hello", "b does not read what a wrote");
    for (mode, word) in [(DiskMode::Eio, "Input/output error"), (DiskMode::ReadOnly, "Read-only file system")] {
        control.set(mode);
        let said = write_block(&a)?;
        ensure!(said.contains(word), "{mode:?}: expected {word:?}, got {said}");
        ensure!(write_block(&b)? == "ok", "{mode:?} hit the other host as well");
    }
    control.set(DiskMode::Delay(Duration::from_millis(300)));
    let start = Instant::now();
    ensure!(write_block(&a)? == "ok" && start.elapsed() >= Duration::from_millis(300), "a slow disk was quick");

    control.set(DiskMode::Hang);
    let (hung, ended) = (a.clone(), std::sync::mpsc::channel());
    std::thread::spawn(move || ended.0.send(write_block(&hung)));
    wait_for(Duration::from_secs(5), "the write to hang", || Ok(control.hanging() > 0))?;
    ensure!(write_block(&b)? == "ok", "the hang hit the other host as well");
    ensure!(ended.1.try_recv().is_err(), "a hanging write returned");
    control.set(DiskMode::Ok);
    ensure!(ended.1.recv_timeout(Duration::from_secs(5))?? == "ok", "the hanging write did not go on");
    Ok(())
}

fn hung(world: &mut World) -> Result<()> {
    let (a, _b) = disk_world(world)?;
    let control = world.disk.as_ref().expect("it was added").control("a")?;
    control.set(DiskMode::Hang);
    let hung = a.clone();
    std::thread::spawn(move || write_block(&hung));
    wait_for(Duration::from_secs(5), "the write to hang", || Ok(control.hanging() > 0))?;
    a.power_cut()?;
    ensure!(!a.is_on(), "the host is still on");
    control.set(DiskMode::Ok);
    a.power_on()?;
    ensure!(write_block(&a)? == "ok", "the disk does not work after the power came back");
    Ok(())
}
