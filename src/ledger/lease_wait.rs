//! Whether waiting for a lease to end proves anything: for the fence agent `lease`, for an appointee that is passed over
//! (`pass_over.rs`), and for an earlier boot whose epoch a later one calls over (`claimed.rs`).
//!
//! Not here: how long the wait is (`settings.rs`), and the waiting (`plan`).

use super::{Fence, Machine, State};
use crate::known_bugs::{self, Bug};
use crate::types::{Boot, NodeName, ServiceName};

impl State {
    /// Why waiting for the lease would prove nothing about this fence's boot; `None` where it does.
    pub fn lease_objection(&self, f: &Fence) -> Option<String> {
        if f.lease_refuted {
            return Some("its database took writes after that wait".to_owned());
        }
        self.wait_objection(&f.target, &f.boot, f.epochs.keys())
    }

    /// The same of a boot that holds these services.
    pub(super) fn wait_objection<'a>(
        &self,
        node: &NodeName,
        boot: &Boot,
        services: impl Iterator<Item = &'a ServiceName>,
    ) -> Option<String> {
        self.settings.as_ref()?;
        let machine = self.nodes.get(node).filter(|n| &n.boot == boot).map(|n| &n.machine);
        let Some(machine) = machine else { return Some("its boot is not the present one".to_owned()) };
        self.wait_objection_on(machine, services)
    }

    /// The same of the boot that holds this service's epoch, after its node has joined in a later one. Of a guest that was
    /// started again it proves something all the same: no hypervisor runs one guest twice (docs/safety.md, assumptions).
    pub fn earlier_boot_objection(&self, service: &ServiceName) -> Option<String> {
        let record = self.services.get(service)?;
        let later = record.holder.as_ref().and_then(|holder| self.nodes.get(&holder.node)).map(|n| &n.machine);
        match later.is_some_and(|later| later.is_same_guest(&record.machine)) {
            true => None,
            false => self.wait_objection_on(&record.machine, std::iter::once(service)),
        }
    }

    fn wait_objection_on<'a>(
        &self,
        machine: &Machine,
        mut services: impl Iterator<Item = &'a ServiceName>,
    ) -> Option<String> {
        let settings = self.settings.as_ref()?;
        if machine.is_virtual && !settings.lease_on_virtual_machine {
            return Some(
                "it is a virtual machine, whose clock stops with it (lease_on_virtual_machine = true accepts that)"
                    .to_owned(),
            );
        }
        if machine.watchdog.is_none() && !settings.lease_without_watchdog {
            return Some("it reported no armed watchdog (lease_without_watchdog = true accepts that)".to_owned());
        }
        // The wait counts with what the ledger was seeded with; a host arms what its own file says.
        if let Some(armed) = machine.watchdog.filter(|armed| *armed > settings.watchdog)
            && !settings.lease_without_watchdog
        {
            let (armed, counted) = (armed.as_secs_f64(), settings.watchdog.as_secs_f64());
            return Some(format!(
                "its watchdog resets it only after {armed} s, and the wait for its lease counts with {counted} s: \
                 write the same timeout on every host"
            ));
        }
        if known_bugs::has(Bug::PauseIgnoredByLease) {
            return None;
        }
        services.find_map(|name| {
            let s = self.services.get(name)?;
            if s.paused {
                Some(format!("{name} is paused: its leases do not stop the database"))
            } else if s.unproven_resume.is_some() {
                Some(format!("{name} was resumed and its holder has not renewed since"))
            } else {
                None
            }
        })
    }
}
