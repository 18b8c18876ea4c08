//! What a starting daemon finds on its host: boot, machine, the final words and leases of earlier daemons. Reading and
//! writing of small files only; what they mean is the node's.

use crate::action::guard;
use crate::config::Config;
use crate::ledger::Machine;
use crate::node::{Start, WatchdogSaid};
use crate::types::{Boot, ClusterId, Instant, Released, ServiceName};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file of the host that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("cannot {doing} {}", path.display())]
    File { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is empty: expected this boot's id, as in /proc/sys/kernel/random/boot_id", path.display())]
    NoBootId { path: PathBuf },
    #[error("{} is damaged: expected the final word of an epoch as regent wrote it; nothing is started on a guess", path.display())]
    Tombstone { path: PathBuf },
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HostError {
    let path = path.to_owned();
    move |source| HostError::File { doing, path, source }
}

/// Everything that the node needs to know of its host at the start.
#[expect(clippy::disallowed_methods, reason = "here the seed is drawn from which the node draws everything else")]
pub fn look(config: &Config, cluster: ClusterId) -> Result<Start, HostError> {
    let boot_text = fs::read_to_string(&config.boot_id_file).map_err(failed("read", &config.boot_id_file))?;
    let boot = Boot(boot_text.trim().into());
    if boot.0.is_empty() {
        return Err(HostError::NoBootId { path: config.boot_id_file.clone() });
    }
    let machine = Machine {
        id: machine_id(config)?,
        is_virtual: is_virtual(),
        watchdog: config.watchdog.as_ref().filter(|w| w.device.exists()).map(|w| w.timeout),
    };
    let mut tombstones = BTreeMap::new();
    for name in config.services.keys() {
        if let Some(released) = read_tombstone(config, name)? {
            tombstones.insert(name.clone(), released);
        }
    }
    let kept =
        config.services.keys().filter_map(|name| Some((name.clone(), kept_lease(config, name, &boot)?))).collect();
    let seed = rand::random();
    let watchdog = config.watchdog.as_ref().map(|_| WatchdogSaid::Disarmed);
    Ok(Start { cluster, boot, machine, tombstones, kept, watchdog, seed })
}

/// The operating system's id of the machine, with one of our own: the same after a reboot, another on every host.
#[expect(clippy::disallowed_methods, reason = "an id must not come twice; nothing is replayed from it")]
fn machine_id(config: &Config) -> Result<String, HostError> {
    let path = config.data_dir.join("machine");
    if !path.exists() {
        write_durably(&path, format!("{:032x}", rand::random::<u128>()).as_bytes())?;
    }
    let own = fs::read_to_string(&path).map_err(failed("read", &path))?;
    let system = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    Ok(format!("{}-{}", system.trim(), own.trim()))
}

/// Whether a hypervisor says that it is there. The CPU flag is what `systemd-detect-virt` looks at first as well.
fn is_virtual() -> bool {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let by_flag =
        cpu.lines().filter(|l| l.starts_with("flags")).any(|l| l.split_whitespace().any(|f| f == "hypervisor"));
    by_flag || Path::new("/sys/hypervisor/type").exists()
}

fn tombstone_path(config: &Config, service: &ServiceName) -> PathBuf {
    config.data_dir.join(format!("released-{service}.json"))
}

fn read_tombstone(config: &Config, service: &ServiceName) -> Result<Option<Released>, HostError> {
    let path = tombstone_path(config, service);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|_| HostError::Tombstone { path }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", &path)(error)),
    }
}

/// Writes the final word so that it outlives a power cut.
pub fn write_tombstone(config: &Config, service: &ServiceName, released: &Released) -> Result<(), HostError> {
    let text = serde_json::to_vec(released).expect("plain data");
    write_durably(&tombstone_path(config, service), &text)
}

fn write_durably(path: &Path, content: &[u8]) -> Result<(), HostError> {
    let new = path.with_extension("new");
    let mut file = fs::File::create(&new).map_err(failed("write", &new))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed("write", &new))?;
    fs::rename(&new, path).map_err(failed("replace", path))?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::File::open(dir).and_then(|d| d.sync_all()).map_err(failed("sync", dir))
}

/// The lease file of a service.
pub fn lease_path(config: &Config, service: &ServiceName) -> PathBuf {
    config.run_dir.join(service.as_str()).join("lease")
}

/// The lease that an earlier daemon of this boot kept. A pause holds it open: then it reaches further than any lease.
fn kept_lease(config: &Config, service: &ServiceName, boot: &Boot) -> Option<(crate::types::Epoch, Instant)> {
    let lease = guard::read_lease(&lease_path(config, service)).ok()?;
    (lease.boot == *boot && !lease.released).then_some((lease.epoch, lease.end))
}
