//! The watchdog device: hardware that resets the host unless it is fed in time.
//!
//! Source: Linux `include/uapi/linux/watchdog.h` and Documentation/watchdog/watchdog-api.rst. Closing the device
//! without the magic character leaves it armed: a daemon that dies does not disarm it.
//!
//! Not here: when it may be fed (only by the loop that checked the lease or saw the database gone).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod ioctl {
    nix::ioctl_read!(get_support, b'W', 0, super::Info);
    nix::ioctl_read!(keepalive, b'W', 5, libc::c_int);
    nix::ioctl_readwrite!(set_timeout, b'W', 6, libc::c_int);
    nix::ioctl_read!(get_timeout, b'W', 7, libc::c_int);
}

/// `struct watchdog_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Info {
    options: u32,
    firmware_version: u32,
    identity: [u8; 32],
}

/// `WDIOF_MAGICCLOSE`: a close after the character `V` disarms it.
const MAGIC_CLOSE: u32 = 0x0100;
/// The character that announces an intended close.
const FAREWELL: &[u8] = b"V";

/// A watchdog that does not do what is needed.
#[derive(Debug, thiserror::Error)]
pub enum WatchdogError {
    #[error(
        "cannot open the watchdog {device}: {source}; is it busy (RuntimeWatchdogSec in systemd's system.conf), or missing?"
    )]
    Open { device: PathBuf, source: io::Error },
    #[error("the watchdog {device} refused to {doing}: {source}")]
    Device { device: PathBuf, doing: &'static str, source: io::Error },
    #[error(
        "the watchdog {device} was asked for {asked:?} and set itself to {given:?}; write that as its timeout, if lease and timing allow it"
    )]
    OtherTimeout { device: PathBuf, asked: Duration, given: Duration },
}

/// An armed watchdog. Dropping it leaves it armed: the host is reset unless someone feeds it.
#[derive(Debug)]
pub struct Watchdog {
    device: PathBuf,
    file: File,
    timeout: Duration,
    identity: String,
    can_be_disarmed: bool,
}

impl Watchdog {
    /// Opens and thereby arms the device, sets its timeout (whole seconds, rounded up), and reads it back. A device
    /// that takes another timeout than asked for is disarmed again and refused: safety counts on the figure.
    pub fn arm(device: &Path, timeout: Duration) -> Result<Self, WatchdogError> {
        let file = OpenOptions::new()
            .write(true)
            .open(device)
            .map_err(|source| WatchdogError::Open { device: device.to_owned(), source })?;
        let mut watchdog =
            Watchdog { device: device.to_owned(), file, timeout, identity: String::new(), can_be_disarmed: false };
        match watchdog.set_up(timeout) {
            Ok(()) => Ok(watchdog),
            Err(error) => {
                // Opening has armed it. If it cannot be used, it must not reset the host either.
                let _ = watchdog.disarm();
                Err(error)
            }
        }
    }

    fn set_up(&mut self, timeout: Duration) -> Result<(), WatchdogError> {
        let fd = self.file.as_raw_fd();
        let mut info = Info::default();
        // SAFETY: the descriptor is open, and the structure is the kernel's own layout.
        unsafe { ioctl::get_support(fd, &raw mut info) }.map_err(self.refused("tell what it is"))?;
        self.can_be_disarmed = info.options & MAGIC_CLOSE != 0;
        let name = info.identity.split(|byte| *byte == 0).next().unwrap_or_default();
        self.identity = String::from_utf8_lossy(name).into_owned();
        let mut seconds = libc::c_int::try_from(timeout.as_millis().div_ceil(1000)).unwrap_or(libc::c_int::MAX);
        let asked = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        // SAFETY: the descriptor is open, and the kernel reads and writes one int.
        unsafe { ioctl::set_timeout(fd, &raw mut seconds) }.map_err(self.refused("set its timeout"))?;
        let mut given: libc::c_int = 0;
        // SAFETY: as above.
        unsafe { ioctl::get_timeout(fd, &raw mut given) }.map_err(self.refused("tell its timeout"))?;
        let given = Duration::from_secs(u64::try_from(given).unwrap_or_default());
        self.timeout = given;
        if given != asked {
            return Err(WatchdogError::OtherTimeout { device: self.device.clone(), asked, given });
        }
        self.feed()
    }

    /// The timeout, as the device itself tells it.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// What the device calls itself.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Whether `disarm` can disarm it (a kernel with `nowayout` has none that can be).
    pub fn can_be_disarmed(&self) -> bool {
        self.can_be_disarmed
    }

    /// Puts the reset off by one timeout.
    pub fn feed(&mut self) -> Result<(), WatchdogError> {
        let mut ignored: libc::c_int = 0;
        // SAFETY: the descriptor is open; the kernel ignores the argument.
        unsafe { ioctl::keepalive(self.file.as_raw_fd(), &raw mut ignored) }.map_err(self.refused("be fed")).map(drop)
    }

    /// Disarms it: the magic character, then the close.
    pub fn disarm(mut self) -> Result<(), WatchdogError> {
        let written = self.file.write_all(FAREWELL);
        written.map_err(|source| WatchdogError::Device { device: self.device.clone(), doing: "be disarmed", source })
    }

    fn refused(&self, doing: &'static str) -> impl FnOnce(nix::Error) -> WatchdogError + use<> {
        let device = self.device.clone();
        move |error| WatchdogError::Device { device, doing, source: error.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requests_are_those_of_the_kernels_header() {
        // linux/watchdog.h on x86_64 and arm64: WDIOC_GETSUPPORT, KEEPALIVE, SETTIMEOUT, GETTIMEOUT.
        assert_eq!(nix::request_code_read!(b'W', 0, size_of::<Info>()), 0x8028_5700);
        assert_eq!(nix::request_code_read!(b'W', 5, size_of::<libc::c_int>()), 0x8004_5705);
        assert_eq!(nix::request_code_readwrite!(b'W', 6, size_of::<libc::c_int>()), 0xc004_5706);
        assert_eq!(nix::request_code_read!(b'W', 7, size_of::<libc::c_int>()), 0x8004_5707);
    }

    #[test]
    fn a_device_that_is_missing_or_no_watchdog_is_named() {
        let missing = Watchdog::arm(Path::new("/dev/no-such-watchdog"), Duration::from_secs(5)).expect_err("missing");
        assert!(missing.to_string().contains("/dev/no-such-watchdog"), "{missing}");
        let file = tempfile::NamedTempFile::new().expect("a file");
        let other = Watchdog::arm(file.path(), Duration::from_secs(5)).expect_err("a plain file");
        assert!(matches!(other, WatchdogError::Device { doing: "tell what it is", .. }), "{other}");
    }
}
