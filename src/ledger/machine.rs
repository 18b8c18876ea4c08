//! Which machine a node runs on, and what one boot says of another: whether a later boot of a name proves that the
//! earlier one is over.
//!
//! Not here: reading it from the host (`daemon/machine.rs`), and what a join may end (`join.rs`, `claimed.rs`).

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// What a joining daemon says of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Which installation: the same after a reboot, and the same in an image of its disk.
    pub id: String,
    pub is_virtual: bool,
    /// The watchdog's time-out as read back, where one is armed before every lease.
    pub watchdog: Option<Duration>,
    /// What an image does not copy, each as a hash: the product's UUID, the hardware addresses. Empty where the machine
    /// has none, or where the daemon did not say.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub hardware: BTreeSet<String>,
}

/// How two boots of one name are related.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Likeness {
    /// One physical machine: it runs one boot at a time, so the later one proves that the earlier one is over.
    Same,
    /// Another one: nothing that it says is about the earlier boot.
    Other,
    /// Nobody can tell: parts were changed, it is virtual (a hypervisor may run one guest twice), or it has nothing that
    /// an image would not copy.
    Unclear,
}

impl Machine {
    /// What this machine is to the one of an earlier boot.
    pub fn compare(&self, earlier: &Machine) -> Likeness {
        if self.id != earlier.id {
            return Likeness::Other;
        }
        let (ours, theirs) = (&self.hardware, &earlier.hardware);
        if !ours.is_empty() && !theirs.is_empty() && ours.is_disjoint(theirs) {
            return Likeness::Other;
        }
        match ours == theirs && !ours.is_empty() && !self.is_virtual && !earlier.is_virtual {
            true => Likeness::Same,
            false => Likeness::Unclear,
        }
    }

    /// Whether both are one guest of one hypervisor, as far as it can be told: the same installation on the very same
    /// virtual hardware.
    pub fn is_same_guest(&self, earlier: &Machine) -> bool {
        let same_hardware = self.hardware == earlier.hardware && !self.hardware.is_empty();
        self.is_virtual && earlier.is_virtual && self.id == earlier.id && same_hardware
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(hardware: &[&str]) -> Machine {
        let hardware = hardware.iter().map(|part| (*part).to_owned()).collect();
        Machine { id: "installation".to_owned(), hardware, ..Machine::default() }
    }

    #[test]
    fn only_the_very_same_hardware_proves_that_the_earlier_boot_is_over() {
        let earlier = machine(&["uuid", "card"]);
        assert_eq!(machine(&["uuid", "card"]).compare(&earlier), Likeness::Same);
        assert_eq!(machine(&["uuid", "new card"]).compare(&earlier), Likeness::Unclear, "a card was changed");
        assert_eq!(machine(&["uuid"]).compare(&earlier), Likeness::Unclear, "a card is not found any more");
        assert_eq!(machine(&["another uuid", "another card"]).compare(&earlier), Likeness::Other, "an image of it");
        assert_eq!(machine(&[]).compare(&earlier), Likeness::Unclear, "nothing can be read");
        assert_eq!(machine(&[]).compare(&machine(&[])), Likeness::Unclear, "nor could it before");
        let virtual_one = |hardware| Machine { is_virtual: true, ..machine(hardware) };
        let guest = virtual_one(&["uuid", "card"]);
        assert_eq!(guest.compare(&guest), Likeness::Unclear, "a guest may run twice");
        let installed_anew = Machine { id: "another installation".to_owned(), ..earlier.clone() };
        assert_eq!(installed_anew.compare(&earlier), Likeness::Other);
    }

    #[test]
    fn a_guest_is_told_by_all_of_its_virtual_hardware() {
        let guest = |hardware| Machine { is_virtual: true, ..machine(hardware) };
        assert!(guest(&["uuid", "card"]).is_same_guest(&guest(&["uuid", "card"])));
        assert!(!guest(&["new uuid", "card"]).is_same_guest(&guest(&["uuid", "card"])), "a copy with the same address");
        assert!(!guest(&[]).is_same_guest(&guest(&[])), "nothing can be read");
        assert!(!guest(&["uuid"]).is_same_guest(&machine(&["uuid"])), "a guest made of a physical machine");
        assert!(!machine(&["uuid"]).is_same_guest(&machine(&["uuid"])), "no guest at all");
        let installed_anew = Machine { id: "another installation".to_owned(), ..guest(&["uuid"]) };
        assert!(!installed_anew.is_same_guest(&guest(&["uuid"])));
    }
}
