//! To which addresses a process has open TCP connections: the server says by which name its WAL receiver connected, and not
//! to which of the addresses.
//!
//! Source: proc(5), `/proc/PID/net/tcp` and `/proc/PID/fd`.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The state of a connection that is open, as the kernel writes it.
const ESTABLISHED: &str = "01";

/// The other ends of this process's open connections; none where it is gone.
pub fn of_process(pid: i32) -> Vec<SocketAddr> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
    let sockets: BTreeSet<u64> = links.filter_map(|link| inode(link.to_str()?)).collect();
    let tables = ["tcp", "tcp6"].map(|name| fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default());
    let lines = tables.iter().flat_map(|table| table.lines().filter_map(connection));
    lines.filter(|(_, inode)| sockets.contains(inode)).map(|(to, _)| to).collect()
}

/// Of "socket:[4711]".
fn inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The other end of an open connection, and its socket's inode.
fn connection(line: &str) -> Option<(SocketAddr, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (remote, state, inode) = (fields.get(2)?, fields.get(3)?, fields.get(9)?);
    let (address, port) = remote.split_once(':')?;
    let to = SocketAddr::new(parse(address)?, u16::from_str_radix(port, 16).ok()?);
    (*state == ESTABLISHED).then_some((to, inode.parse().ok()?))
}

/// Words of four bytes, each as a number of this machine's byte order.
fn parse(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let bytes = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            let address = Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?);
            Some(address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_other_end_of_a_connection_of_this_process_is_found() {
        for address in ["127.0.9.7:0", "[::1]:0"] {
            // A machine without IPv6 has nothing to show for it.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let to = listener.local_addr().expect("bound");
            let connected = TcpStream::connect(to).expect("it listens");
            let me = i32::try_from(std::process::id()).expect("small");
            assert!(of_process(me).contains(&to), "{to} is not among {:?}", of_process(me));
            drop(connected);
        }
    }

    #[test]
    fn what_is_no_open_connection_is_none() {
        let listens =
            "0: 0100007F:157B 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 1 0 100 0 0 10 0";
        assert_eq!(connection(listens), None);
        assert_eq!(connection("sl local_address rem_address st tx_queue"), None);
        assert!(of_process(-1).is_empty());
    }
}
