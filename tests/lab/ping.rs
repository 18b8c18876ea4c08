//! One echo request over one NIC: whether a host answers, below any program. (Debian's minimal tree has no `ping`.)

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(1);
/// Echo request, code 0, checksum, identifier 0x7265, sequence 1: the checksum of these words is fixed.
const REQUEST: [u8; 8] = [8, 0, 0x85, 0x99, 0x72, 0x65, 0, 1];

/// `NIC ADDRESS`. The exit status is 0 when an answer came, 1 when none did.
pub fn main(args: &[String]) -> Result<i32> {
    let [nic, address] = args else { bail!("__ping NIC ADDRESS") };
    let address: Ipv4Addr = address.parse().with_context(|| format!("{address:?} is no address"))?;
    let mut socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    socket.bind_device(Some(nic.as_bytes()))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let target = SockAddr::from(SocketAddrV4::new(address, 0));
    // A NIC without a carrier refuses at once: that is an answer as well.
    if socket.send_to(&REQUEST, &target).is_err() {
        return Ok(1);
    }
    let end = Instant::now() + WAIT;
    let mut packet = [0; 256];
    while Instant::now() < end {
        // The IP header comes first: 20 bytes, since nobody here sets options; the source is at 12.
        if let Ok(length) = socket.read(&mut packet)
            && length >= 28
            && packet[12..16] == address.octets()
            && packet[20] == 0
            && packet[24..26] == REQUEST[4..6]
        {
            return Ok(0);
        }
    }
    Ok(1)
}
