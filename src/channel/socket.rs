//! One UDP socket, bound to its own address and to the interface that has it, with the kernel's receive times.
//!
//! Not here: when to bind again, and what a message means (`udp.rs`).

use crate::clock;
use crate::types::Instant;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// The network interface that has an address: its name, and its index, which differs when it was made anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub index: u32,
}

/// Where an address is on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A loopback address: always there.
    Loopback,
    On(Interface),
    /// No interface has it (yet, or any more).
    Nowhere,
}

/// Looks where `address` is now.
pub fn place_of(address: IpAddr) -> io::Result<Place> {
    if address.is_loopback() {
        return Ok(Place::Loopback);
    }
    for entry in nix::ifaddrs::getifaddrs()? {
        if entry.address.as_ref().and_then(ip).is_some_and(|(found, _)| found == address) {
            let index = nix::net::if_::if_nametoindex(entry.interface_name.as_str())?;
            return Ok(Place::On(Interface { name: entry.interface_name, index }));
        }
    }
    Ok(Place::Nowhere)
}

fn ip(address: &SockaddrStorage) -> Option<(IpAddr, u16)> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some((v4.ip().into(), v4.port()));
    }
    address.as_sockaddr_in6().map(|v6| (v6.ip().into(), v6.port()))
}

/// A bound socket.
#[derive(Debug)]
pub struct Bound {
    socket: UdpSocket,
}

/// One received message: its length in the buffer, whether it was cut to fit, where from, and when it arrived.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    pub len: usize,
    pub cut: bool,
    pub from: Option<IpAddr>,
    pub at: Instant,
}

impl Bound {
    /// Binds to `local` although no interface may have that address yet, and to the interface where one has: then a
    /// packet that came in by another way is not taken for this network's.
    pub fn open(local: SocketAddr, place: &Place) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        match local {
            SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
            SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
        }
        if let Place::On(interface) = place
            && let Err(error) = socket.bind_device(Some(interface.name.as_bytes()))
        {
            // Not permitted here: the address alone must do.
            tracing::info!(%local, interface = interface.name, "heartbeats are not bound to the interface: {error}");
        }
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        socket.bind(&SockAddr::from(local))?;
        Ok(Bound { socket: UdpSocket::from_std(socket.into())? })
    }

    /// Sends without waiting: a full buffer is an error like any other.
    pub fn send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        socket2::SockRef::from(&self.socket).send_to(bytes, &SockAddr::from(to)).map(|_| ())
    }

    /// Waits for a message. `empty_at` is when this socket was last seen empty: what is read next came later.
    /// Cancel-safe.
    pub async fn receive(&self, buffer: &mut [u8], empty_at: &mut Instant) -> io::Result<Message> {
        self.socket
            .async_io(Interest::READABLE, || {
                let before = clock::now();
                match receive_now(self.socket.as_raw_fd(), buffer) {
                    Err(Errno::EAGAIN) => {
                        *empty_at = before;
                        Err(io::ErrorKind::WouldBlock.into())
                    }
                    Err(errno) => Err(errno.into()),
                    Ok((len, cut, from, stamp)) => {
                        // The stamp is a time of day, which may have been set meanwhile: it is believed within bounds.
                        let at = stamp.map_or_else(clock::now, clock::at_stamp).max(*empty_at);
                        Ok(Message { len, cut, from, at })
                    }
                }
            })
            .await
    }
}

type Received = (usize, bool, Option<IpAddr>, Option<Duration>);

fn receive_now(fd: std::os::fd::RawFd, buffer: &mut [u8]) -> Result<Received, Errno> {
    let mut control = cmsg_space!(TimeSpec);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(fd, &mut slices, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    let stamp = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
        _ => None,
    });
    let from = message.address.as_ref().and_then(ip).map(|(from, _)| from);
    Ok((message.bytes, message.flags.contains(MsgFlags::MSG_TRUNC), from, stamp))
}
