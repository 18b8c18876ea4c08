//! The watchdog device: hardware that resets the host unless it is fed in time.
//!
//! Source: Linux `include/uapi/linux/watchdog.h`, Documentation/watchdog/watchdog-api.rst and
//! Documentation/ABI/testing/sysfs-class-watchdog. Closing the device without the magic character leaves it armed: a
//! daemon that dies does not disarm it.
//!
//! A kernel may be told that no way leads back (`nowayout`): then the character is accepted and means nothing, and
//! whoever closes an armed device has the host reset. So a device is closed only when it said that it is disarmed, or
//! can be; one that cannot be stays open, and whoever opened it has to feed it.
//!
//! Not here: when it may be fed (only by the loop that checked the lease or saw the database gone).

use crate::types::Span;
use nix::errno::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod ioctl {
    nix::ioctl_read!(get_support, b'W', 0, super::Info);
    nix::ioctl_read!(set_options, b'W', 4, libc::c_int);
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
/// `WDIOS_DISABLECARD`.
const DISABLE: libc::c_int = 1;
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
        "the watchdog {device} was asked for {} and set itself to {}; write that as its timeout, if lease and timing allow it",
        Span(*asked), Span(*given)
    )]
    OtherTimeout { device: PathBuf, asked: Duration, given: Duration },
    #[error("the watchdog {device} takes {what} of {}, and was to be asked for {}", Span(*limit), Span(*asked))]
    OutOfRange { device: PathBuf, what: &'static str, limit: Duration, asked: Duration },
    #[error("the watchdog {device} cannot be disarmed (nowayout, or a driver without magic close)")]
    NoWayOut { device: PathBuf },
}

/// A device that could not be armed as it should be. One that is open is armed all the same, and resets the host unless
/// it is fed: closing it would not disarm it.
#[derive(Debug)]
pub struct NotArmed {
    pub error: WatchdogError,
    pub open: Option<Box<Watchdog>>,
}

/// A device that could not be disarmed.
#[derive(Debug)]
pub struct StillArmed {
    pub error: WatchdogError,
    pub watchdog: Watchdog,
}

/// What the kernel tells of a device without opening it, which would arm it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// Once armed, it cannot be disarmed. `None`: not told.
    pub no_way_out: Option<bool>,
    /// It runs: somebody armed it.
    pub is_active: bool,
    at_least: Option<Duration>,
    at_most: Option<Duration>,
}

/// Where the kernel describes its watchdogs.
pub const SYSFS: &str = "/sys/class/watchdog";

impl Described {
    /// What stands below `sysfs` about the device; nothing where it does not stand there (an old kernel or driver).
    pub fn of(sysfs: &Path, device: &Path) -> Self {
        let device = device.canonicalize().unwrap_or_else(|_| device.to_owned());
        // The old name of the first one.
        let name = match device.file_name().unwrap_or_default().to_string_lossy() {
            name if name == "watchdog" => "watchdog0".to_owned(),
            name => name.into_owned(),
        };
        let read = |what: &str| std::fs::read_to_string(sysfs.join(&name).join(what)).ok();
        let seconds = |what| read(what)?.trim().parse().ok().filter(|s| *s > 0).map(Duration::from_secs);
        Described {
            no_way_out: read("nowayout").map(|text| text.trim() == "1"),
            is_active: read("state").is_some_and(|text| text.trim() == "active"),
            at_least: seconds("min_timeout"),
            at_most: seconds("max_timeout"),
        }
    }

    /// Whether it can take this timeout at all.
    pub fn takes(&self, device: &Path, timeout: Duration) -> Result<(), WatchdogError> {
        let asked = Duration::from_secs(timeout.as_millis().div_ceil(1000) as u64);
        let outside = |what, limit| WatchdogError::OutOfRange { device: device.to_owned(), what, limit, asked };
        match (self.at_least, self.at_most) {
            (Some(least), _) if asked < least => Err(outside("a timeout of no less than that", least)),
            (_, Some(most)) if asked > most => Err(outside("a timeout of no more than that", most)),
            _ => Ok(()),
        }
    }
}

/// What trying a device came to.
#[derive(Debug)]
pub enum Tried {
    /// It is armed: it was to be, or it cannot be disarmed.
    Armed(Watchdog),
    /// It was armed as it should be, and disarmed.
    Disarmed { identity: String, timeout: Duration },
    /// Nobody could disarm it again, so it was not opened; by what the kernel tells it takes the timeout.
    NotOpened,
}

/// Finds out at the start whether the device can be armed. `needed`: a database may run already, so it stays armed.
///
/// One that has no way out is not opened before it is needed: every restart of the daemon on a host without a database
/// would otherwise bring a host nearer to its reset that had nothing to guard. One that runs already is opened in any
/// case: whoever armed it is gone, and nobody feeds it.
pub fn try_out(device: &Path, timeout: Duration, sysfs: &Path, needed: bool) -> Result<Tried, NotArmed> {
    let described = Described::of(sysfs, device);
    if described.no_way_out == Some(true) && !described.is_active && !needed {
        let takes = described.takes(device, timeout);
        return takes.map(|()| Tried::NotOpened).map_err(|error| NotArmed { error, open: None });
    }
    let watchdog = Watchdog::arm_described(device, timeout, &described)?;
    if needed || !watchdog.can_be_disarmed() {
        return Ok(Tried::Armed(watchdog));
    }
    let (identity, timeout) = (watchdog.identity().to_owned(), watchdog.timeout());
    match watchdog.disarm() {
        Ok(()) => Ok(Tried::Disarmed { identity, timeout }),
        Err(still) => {
            tracing::warn!(error = %still.error, "the watchdog was tried and stays armed");
            Ok(Tried::Armed(still.watchdog))
        }
    }
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
    /// that takes another timeout than asked for is refused, and disarmed again if it can be: safety counts on the figure.
    pub fn arm(device: &Path, timeout: Duration) -> Result<Self, NotArmed> {
        Watchdog::arm_described(device, timeout, &Described::of(Path::new(SYSFS), device))
    }

    fn arm_described(device: &Path, timeout: Duration, described: &Described) -> Result<Self, NotArmed> {
        let unopened = |error| NotArmed { error, open: None };
        let file = OpenOptions::new()
            .write(true)
            .open(device)
            .map_err(|source| unopened(WatchdogError::Open { device: device.to_owned(), source }))?;
        let can_be_disarmed = described.no_way_out != Some(true);
        let watchdog = Watchdog { device: device.to_owned(), file, timeout, identity: String::new(), can_be_disarmed };
        watchdog.again(timeout)
    }

    /// Sets up a device that is open.
    pub fn again(mut self, timeout: Duration) -> Result<Self, NotArmed> {
        match self.set_up(timeout) {
            Ok(()) => Ok(self),
            // Opening has armed it. If it cannot be used, it must not reset the host either.
            Err(error) if self.can_be_disarmed => match self.disarm() {
                Ok(()) => Err(NotArmed { error, open: None }),
                Err(still) => Err(NotArmed { error, open: Some(Box::new(still.watchdog)) }),
            },
            Err(error) => Err(NotArmed { error, open: Some(Box::new(self)) }),
        }
    }

    fn set_up(&mut self, timeout: Duration) -> Result<(), WatchdogError> {
        let fd = self.file.as_raw_fd();
        let mut info = Info::default();
        // SAFETY: the descriptor is open, and the structure is the kernel's own layout.
        unsafe { ioctl::get_support(fd, &raw mut info) }.map_err(self.refused("tell what it is"))?;
        self.can_be_disarmed &= info.options & MAGIC_CLOSE != 0;
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

    /// Whether `disarm` can disarm it: its driver knows the magic close, and the kernel leaves a way out.
    pub fn can_be_disarmed(&self) -> bool {
        self.can_be_disarmed
    }

    /// Puts the reset off by one timeout.
    pub fn feed(&mut self) -> Result<(), WatchdogError> {
        let mut ignored: libc::c_int = 0;
        // SAFETY: the descriptor is open; the kernel ignores the argument.
        unsafe { ioctl::keepalive(self.file.as_raw_fd(), &raw mut ignored) }.map_err(self.refused("be fed")).map(drop)
    }

    /// Disarms and closes it. One that is not disarmed comes back open: it has to be fed on.
    pub fn disarm(mut self) -> Result<(), Box<StillArmed>> {
        match self.stop() {
            Ok(()) => Ok(()),
            Err(error) => Err(Box::new(StillArmed { error, watchdog: self })),
        }
    }

    fn stop(&mut self) -> Result<(), WatchdogError> {
        if !self.can_be_disarmed {
            return Err(WatchdogError::NoWayOut { device: self.device.clone() });
        }
        let mut disable = DISABLE;
        // The request is answered, the character is not: a kernel without a way out accepts that all the same.
        // SAFETY: the descriptor is open, and the kernel reads one int.
        let answer = unsafe { ioctl::set_options(self.file.as_raw_fd(), &raw mut disable) };
        // Not every driver knows it: any other error says only that.
        if let Err(error @ (Errno::EBUSY | Errno::EPERM | Errno::EIO)) = answer {
            return Err(self.refused("be disarmed")(error));
        }
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
        // linux/watchdog.h on x86_64 and arm64: WDIOC_GETSUPPORT, SETOPTIONS, KEEPALIVE, SETTIMEOUT, GETTIMEOUT.
        assert_eq!(nix::request_code_read!(b'W', 0, size_of::<Info>()), 0x8028_5700);
        assert_eq!(nix::request_code_read!(b'W', 4, size_of::<libc::c_int>()), 0x8004_5704);
        assert_eq!(nix::request_code_read!(b'W', 5, size_of::<libc::c_int>()), 0x8004_5705);
        assert_eq!(nix::request_code_readwrite!(b'W', 6, size_of::<libc::c_int>()), 0xc004_5706);
        assert_eq!(nix::request_code_read!(b'W', 7, size_of::<libc::c_int>()), 0x8004_5707);
    }

    #[test]
    fn a_device_that_is_missing_or_no_watchdog_is_named() {
        let missing = Watchdog::arm(Path::new("/dev/no-such-watchdog"), Duration::from_secs(5)).expect_err("missing");
        assert!(missing.error.to_string().contains("/dev/no-such-watchdog") && missing.open.is_none(), "{missing:?}");
        let file = tempfile::NamedTempFile::new().expect("a file");
        let other = Watchdog::arm(file.path(), Duration::from_secs(5)).expect_err("a plain file");
        assert!(matches!(other.error, WatchdogError::Device { doing: "tell what it is", .. }), "{other:?}");
    }

    /// What the kernel would tell of a device called `name`.
    fn described(name: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
        let sysfs = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(sysfs.path().join(name)).expect("a fresh folder");
        for (file, text) in files {
            std::fs::write(sysfs.path().join(name).join(file), text).expect("a writable folder");
        }
        sysfs
    }

    #[test]
    fn a_device_without_a_way_out_is_not_opened_before_it_is_needed() {
        let files = [("nowayout", "1\n"), ("state", "inactive\n"), ("min_timeout", "2\n"), ("max_timeout", "60\n")];
        let sysfs = described("watchdog0", &files);
        // Opening it would fail, and say so: there is no such device here.
        let device = Path::new("/dev/no-such-directory/watchdog");
        let tried = try_out(device, Duration::from_secs(5), sysfs.path(), false);
        assert!(matches!(tried, Ok(Tried::NotOpened)), "{tried:?}");
        let refused = try_out(device, Duration::from_secs(90), sysfs.path(), false).expect_err("out of its range");
        assert!(refused.error.to_string().contains("60 s"), "{}", refused.error);
        let needed = try_out(device, Duration::from_secs(5), sysfs.path(), true).expect_err("it is missing");
        assert!(matches!(needed.error, WatchdogError::Open { .. }), "a database may run: it is opened");
        std::fs::write(sysfs.path().join("watchdog0/state"), "active\n").expect("a writable folder");
        let runs = try_out(device, Duration::from_secs(5), sysfs.path(), false).expect_err("it is missing");
        assert!(matches!(runs.error, WatchdogError::Open { .. }), "it runs, and nobody feeds it: it is opened");
    }

    #[test]
    fn what_the_kernel_does_not_tell_is_not_known() {
        let sysfs = described("watchdog1", &[("nowayout", "0\n"), ("max_timeout", "0\n")]);
        let known = Described::of(sysfs.path(), Path::new("/dev/watchdog1"));
        assert_eq!(known, Described { no_way_out: Some(false), ..Described::default() });
        assert_eq!(Described::of(sysfs.path(), Path::new("/dev/watchdog")), Described::default());
    }
}
