//! What a starting daemon finds on its host: boot, the final words and leases of earlier daemons. Reading and
//! writing of small files only; what they mean is the node's.
//!
//! Not here: which machine it is (`machine.rs`).

use super::machine;
use crate::action::guard::{self, GuardError};
use crate::action::watchdog::{self, Tried, Watchdog};
use crate::config::{Config, Role};
use crate::durable::{self, FileError};
use crate::errors::with_causes;
use crate::node::{Start, WatchdogSaid};
use crate::types::{Boot, ClusterId, Epoch, Instant, Released, ServiceName, Span};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

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

impl From<FileError> for HostError {
    fn from(FileError { doing, path, source }: FileError) -> Self {
        HostError::File { doing, path, source }
    }
}

pub(super) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HostError {
    let path = path.to_owned();
    move |source| HostError::File { doing, path, source }
}

/// The present boot of this host.
pub fn boot(config: &Config) -> Result<Boot, HostError> {
    let text = fs::read_to_string(&config.boot_id_file).map_err(failed("read", &config.boot_id_file))?;
    match text.trim() {
        "" => Err(HostError::NoBootId { path: config.boot_id_file.clone() }),
        boot => Ok(Boot(boot.into())),
    }
}

/// What trying the watchdog came to.
#[derive(Debug, Default)]
pub struct WatchdogTried {
    /// `None`: none is to be used here.
    said: Option<WatchdogSaid>,
    /// The timeout that it takes.
    timeout: Option<Duration>,
}

/// What the shell has of the watchdog.
#[derive(Debug, Default)]
pub struct Opened {
    /// Armed, and fed when the node says so.
    pub armed: Option<Watchdog>,
    /// Armed and not as it should be, so nobody counts on it; it cannot be disarmed either.
    pub unusable: Option<Watchdog>,
}

/// Tries the watchdog before it is needed. Where a database may run under a lease that an earlier daemon of this boot
/// kept, it is armed and stays armed.
///
/// Where such a lease has ended it is left alone: to open it is to feed it, and a daemon that starts and dies, again and
/// again, would keep the reset away from a host whose guard may be dead too.
pub fn try_watchdog(
    config: &Config,
    kept: &BTreeMap<ServiceName, (Epoch, Instant)>,
    now: Instant,
) -> (WatchdogTried, Opened) {
    // A witness has nothing that a reset would stop.
    let Some(settings) = config.watchdog.as_ref().filter(|_| config.me().role == Role::Database) else {
        return Default::default();
    };
    let device = settings.device.display();
    let works = |said, timeout| WatchdogTried { said: Some(said), timeout: Some(timeout) };
    if kept.values().any(|(_, end)| *end <= now) {
        tracing::warn!(%device, "the watchdog was not tried, because a lease that was kept has ended: it is armed with the next lease");
        return (works(WatchdogSaid::Disarmed, settings.timeout), Opened::default());
    }
    let sysfs = Path::new(watchdog::SYSFS);
    match watchdog::try_out(&settings.device, settings.timeout, sysfs, !kept.is_empty()) {
        Ok(Tried::Armed(watchdog)) => {
            let can_be_disarmed = watchdog.can_be_disarmed();
            let (identity, timeout) = (watchdog.identity(), watchdog.timeout());
            tracing::info!(%device, identity, timeout = %Span(timeout), can_be_disarmed, "the watchdog is armed and stays armed");
            let tried = works(WatchdogSaid::Armed { can_be_disarmed }, timeout);
            (tried, Opened { armed: Some(watchdog), unusable: None })
        }
        Ok(Tried::Disarmed { identity, timeout }) => {
            tracing::info!(%device, identity, timeout = %Span(timeout), "the watchdog works; it is armed with the first lease");
            (works(WatchdogSaid::Disarmed, timeout), Opened::default())
        }
        Ok(Tried::NotOpened) => {
            tracing::warn!(
                %device,
                "the watchdog was not tried, because nobody could disarm it (nowayout): it is armed with the first lease, \
                 and fed from then on for as long as this host runs"
            );
            (works(WatchdogSaid::Disarmed, settings.timeout), Opened::default())
        }
        Err(failed) => {
            let why = with_causes(&failed.error);
            tracing::error!(%device, why, "the watchdog cannot be armed, so no lease will be asked for");
            let tried = WatchdogTried { said: Some(WatchdogSaid::NotArmed { why }), timeout: None };
            (tried, Opened { armed: None, unusable: failed.open.map(|open| *open) })
        }
    }
}

/// Everything that the node needs to know of its host at the start.
#[expect(clippy::disallowed_methods, reason = "here the seed is drawn from which the node draws everything else")]
pub fn look(
    config: &Config,
    cluster: ClusterId,
    boot: Boot,
    kept: BTreeMap<ServiceName, (Epoch, Instant)>,
    tried: WatchdogTried,
) -> Result<Start, HostError> {
    let machine = machine::machine(config, tried.timeout)?;
    let mut tombstones = BTreeMap::new();
    for name in config.services.keys() {
        if let Some(released) = read_tombstone(config, name)? {
            tombstones.insert(name.clone(), released);
        }
    }
    let seed = rand::random();
    Ok(Start { cluster, boot, machine, tombstones, kept, watchdog: tried.said, seed })
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

pub(super) fn write_durably(path: &Path, content: &[u8]) -> Result<(), HostError> {
    durable::replace(path, 0o644, |file| file.write_all(content))?;
    Ok(())
}

/// The leases that an earlier daemon of this boot kept. A pause holds one open: then it reaches further than any lease.
pub fn kept_leases(config: &Config, boot: &Boot) -> BTreeMap<ServiceName, (Epoch, Instant)> {
    let kept = |service: &ServiceName| match guard::read_lease(&config.lease_file(service)) {
        Ok(lease) => (lease.boot == *boot && !lease.released).then_some((lease.epoch, lease.end)),
        Err(GuardError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
        // Nothing is concluded from it: without a lease a database that runs is stopped.
        Err(error) => {
            tracing::error!(%service, %error, "no lease is taken up");
            None
        }
    };
    config.services.keys().filter_map(|name| Some((name.clone(), kept(name)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::guard::{LeaseFile, write_lease};

    const BOOT: &str = "b1";

    /// The example's configuration with directories of a test's own, and a watchdog that is a plain file: to open it for
    /// one fails, and says so.
    fn host() -> (tempfile::TempDir, Config, ServiceName) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let text = include_str!("../../config/three-databases.toml");
        let mut config = Config::parse(text, "the example", Some("db1"), "db1").expect("a valid example");
        let device = folder.path().join("watchdog");
        fs::write(&device, "").expect("a writable folder");
        config.run_dir = folder.path().to_owned();
        config.watchdog.as_mut().expect("the example has one").device = device;
        let service = config.services.keys().next().expect("the example has one").clone();
        fs::create_dir(folder.path().join(service.as_str())).expect("a fresh folder");
        (folder, config, service)
    }

    fn keep(config: &Config, service: &ServiceName, end: Instant) {
        let lease = LeaseFile { boot: Boot(BOOT.into()), epoch: Epoch(3), end, released: false, daemon: None };
        write_lease(&config.lease_file(service), &lease).expect("written");
    }

    #[test]
    fn a_watchdog_is_opened_at_the_start_unless_a_kept_lease_has_ended() {
        let (_folder, config, service) = host();
        let tried = |now| {
            let kept = kept_leases(&config, &Boot(BOOT.into()));
            try_watchdog(&config, &kept, Instant(now)).0
        };
        let is_refused = |tried: &WatchdogTried| {
            matches!(&tried.said, Some(WatchdogSaid::NotArmed { why }) if why.contains("watchdog"))
                && tried.timeout.is_none()
        };
        let first = tried(5);
        assert!(is_refused(&first), "the device is no watchdog, and that is found out before it is needed: {first:?}");
        keep(&config, &service, Instant(10));
        let running = tried(5);
        assert!(is_refused(&running), "a database may run under its lease: {running:?}");
        let ended = tried(10);
        assert_eq!(ended.said, Some(WatchdogSaid::Disarmed), "to open it would feed it");
    }

    #[test]
    fn a_torn_lease_file_is_no_lease() {
        let (_folder, config, service) = host();
        keep(&config, &service, Instant(10));
        assert_eq!(kept_leases(&config, &Boot(BOOT.into())).len(), 1);
        assert_eq!(kept_leases(&config, &Boot("b2".into())).len(), 0, "another boot's");
        let path = config.lease_file(&service);
        let whole = fs::read_to_string(&path).expect("there");
        // A number of another renewal: the text alone would pass.
        let torn = whole.replacen("\"epoch\":3", "\"epoch\":4", 1);
        assert_ne!(torn, whole);
        fs::write(&path, torn).expect("writable");
        assert_eq!(kept_leases(&config, &Boot(BOOT.into())).len(), 0);
    }
}
