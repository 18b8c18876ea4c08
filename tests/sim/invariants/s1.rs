//! S1: at no moment would two postmasters acknowledge a write for one service.

use crate::cluster::World;

pub fn check(w: &mut World) {
    for service in 0..w.services.len() {
        let mut first = None;
        for host in 0..w.hosts.len() {
            if !w.acknowledges(host, service) || w.is_excused(host, service) {
                continue;
            }
            if let Some(other) = first {
                let (a, b): (usize, usize) = (other, host);
                let what = format!("{} and {} both acknowledge writes", w.hosts[a].name, w.hosts[b].name);
                return w.violate("S1", what);
            }
            first = Some(host);
        }
    }
}
