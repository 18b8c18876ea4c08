//! A host that leaves in order: its daemon is asked to stop, or the host is shut down; and it comes back.
//!
//! Not here: what must not come of it (`invariants/leave.rs`).

use crate::cluster::{MS, S, World};
use regent::node::{Event, Node};
use regent::types::Leaving;
use std::time::Duration;

impl World {
    /// It is back so long after it has left. A service manager does not wait for ever.
    pub fn leave(&mut self, host: usize, leaving: Leaving, back: u64) {
        if self.hosts[host].daemon.is_none() || self.hosts[host].leaves.is_some() {
            return;
        }
        self.note(|w| format!("{} leaves: {leaving}", w.hosts[host].name));
        self.hosts[host].leaves = Some((leaving, back));
        self.give(host, Event::Leave(leaving));
        let life = self.hosts[host].life;
        self.after(150 * S, move |w| {
            if w.hosts[host].life == life {
                w.leaves_now(host);
            }
        });
    }

    /// After each event: it may have nothing left to do.
    pub fn ends_where_it_has_left(&mut self, host: usize) {
        let h = &self.hosts[host];
        if h.leaves.is_some() && !h.is_frozen() && h.daemon.as_ref().is_some_and(Node::has_left) {
            self.leaves_now(host);
        }
    }

    fn leaves_now(&mut self, host: usize) {
        let Some((leaving, back)) = self.hosts[host].leaves.take() else { return };
        crate::invariants::left(self, host);
        let (life, boots) = (self.hosts[host].life, self.hosts[host].boots);
        self.give(host, Event::Goodbye { back_within: Duration::from_secs(4) });
        self.after(MS, move |w| {
            if w.hosts[host].life != life {
                return;
            }
            match leaving {
                Leaving::DaemonStops => {
                    w.kill_daemon(host);
                    w.after(back, move |w| {
                        if w.hosts[host].boots == boots {
                            w.start_daemon(host);
                        }
                    });
                }
                Leaving::HostGoesDown => {
                    w.power_off(host);
                    w.after(back, move |w| w.power_back(host));
                }
            }
        });
    }
}
