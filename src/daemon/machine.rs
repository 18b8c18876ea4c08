//! Which machine this is: the installation, which an image of its disk copies, and the hardware, which it does not.
//!
//! Not here: what two boots of one name are to each other (`ledger/machine.rs`).

use super::host::{HostError, failed, write_durably};
use crate::config::Config;
use crate::ledger::Machine;
use ring::digest;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How much of a hash tells two parts apart.
const HASH_BYTES: usize = 8;

/// What this host is. `watchdog`: the time-out that its watchdog takes.
pub fn machine(config: &Config, watchdog: Option<Duration>) -> Result<Machine, HostError> {
    let (id, is_virtual, hardware) = (installation(config)?, is_virtual(), hardware(config));
    if hardware.is_empty() {
        let (uuid, devices) = (config.product_uuid_file.display(), config.network_devices_dir.display());
        tracing::warn!(
            %uuid, %devices,
            "neither a product UUID nor a hardware address can be read: an image of this machine cannot be told from it, \
             so after a boot its epochs end only when their last leases have"
        );
    }
    Ok(Machine { id, is_virtual, watchdog, hardware })
}

/// The operating system's id of the machine, with one of our own: the same after a reboot, and in an image.
#[expect(clippy::disallowed_methods, reason = "an id must not come twice; nothing is replayed from it")]
fn installation(config: &Config) -> Result<String, HostError> {
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

/// The product's UUID and the hardware addresses, as hashes: who reads the ledger need not learn them.
fn hardware(config: &Config) -> BTreeSet<String> {
    let uuid = fs::read_to_string(&config.product_uuid_file).ok().and_then(|text| named("uuid", &text));
    let devices = fs::read_dir(&config.network_devices_dir).into_iter().flatten().flatten();
    let addresses = devices.filter_map(|device| named("address", &permanent_address(device.path())?));
    uuid.into_iter().chain(addresses).collect()
}

/// The address that a network device came with. None of one that is made by software, or that was given another: a
/// bonding interface gives its own, and tells the permanent one.
fn permanent_address(device: PathBuf) -> Option<String> {
    let read = |name: &str| fs::read_to_string(device.join(name)).ok();
    if !device.join("device").exists() {
        return None;
    }
    let given = || read("addr_assign_type").filter(|kind| kind.trim() == "0").and_then(|_| read("address"));
    read("bonding_slave/perm_hwaddr").or_else(given)
}

/// A part of the hardware by its kind. What a vendor has left empty (all zeros, all ones) names nothing.
fn named(kind: &str, text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let mut digits = text.chars().filter(char::is_ascii_hexdigit).peekable();
    let first = *digits.peek()?;
    if matches!(first, '0' | 'f') && digits.all(|digit| digit == first) {
        return None;
    }
    let hash = digest::digest(&digest::SHA256, format!("{kind} {text}").as_bytes());
    Some(hash.as_ref().iter().take(HASH_BYTES).map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Likeness;

    /// A host of the example's configuration, with these files: what is read lies in folders of a test's own.
    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Config) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let text = include_str!("../../config/three-databases.toml");
        let mut config = Config::parse(text, "the example", Some("db1"), "db1").expect("a valid example");
        config.data_dir = folder.path().join("data");
        config.product_uuid_file = folder.path().join("uuid");
        config.network_devices_dir = folder.path().join("net");
        fs::create_dir(&config.data_dir).expect("a fresh folder");
        for (name, content) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("in the folder")).expect("a writable folder");
            fs::write(path, content).expect("a writable folder");
        }
        (folder, config)
    }

    const CARD: &[(&str, &str)] = &[
        ("uuid", "4C4C4544-0042-3510-8052-B4C04F564433\n"),
        ("net/eth0/device/vendor", "0x8086"),
        ("net/eth0/addr_assign_type", "0\n"),
        ("net/eth0/address", "52:54:00:12:34:56\n"),
    ];

    #[test]
    fn a_machine_is_told_by_what_an_image_does_not_copy() {
        let (_folder, config) = host(CARD);
        let first = machine(&config, None).expect("readable");
        assert_eq!(first.hardware.len(), 2, "{first:?}");
        assert!(first.hardware.iter().all(|part| part.len() == 2 * HASH_BYTES), "{first:?}");
        let again = machine(&config, None).expect("readable");
        assert_eq!((&again.id, &again.hardware), (&first.id, &first.hardware), "the same after a reboot");
        // The image has the very same installation, and boots on a machine with another UUID and another card.
        fs::write(&config.product_uuid_file, "4c4c4544-0042-3510-8052-b4c04f564499").expect("writable");
        fs::write(config.network_devices_dir.join("eth0/address"), "52:54:00:ab:cd:ef").expect("writable");
        let image = machine(&config, None).expect("readable");
        assert_eq!(image.id, first.id);
        assert_eq!(image.compare(&first), Likeness::Other);
    }

    #[test]
    fn what_software_made_or_a_vendor_left_empty_names_no_machine() {
        let (_folder, config) = host(&[
            ("uuid", "00000000-0000-0000-0000-000000000000"),
            ("net/lo/address", "00:00:00:00:00:00"),
            ("net/docker0/addr_assign_type", "0"),
            ("net/docker0/address", "02:42:ac:11:00:02"),
            ("net/eth1/device/vendor", "0x8086"),
            ("net/eth1/addr_assign_type", "1"),
            ("net/eth1/address", "b6:2f:00:00:00:01"),
        ]);
        assert_eq!(hardware(&config), BTreeSet::new(), "a bridge and a random address are no hardware");
        let (_folder, config) = host(&[
            ("net/eth0/device/vendor", "0x8086"),
            ("net/eth0/addr_assign_type", "3"),
            ("net/eth0/address", "52:54:00:00:00:01"),
            ("net/eth0/bonding_slave/perm_hwaddr", "52:54:00:00:00:02"),
        ]);
        assert_eq!(hardware(&config).into_iter().collect::<Vec<_>>(), [named("address", "52:54:00:00:00:02").unwrap()]);
    }

    #[test]
    fn a_machine_that_has_none_of_it_joins_all_the_same() {
        let (_folder, config) = host(&[]);
        let machine = machine(&config, None).expect("nothing of it is needed");
        assert!(machine.hardware.is_empty());
    }
}
