//! The watchdog against a stand-in: a file of a small FUSE file system that answers the real requests.

use crate::cluster::possible;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, IoctlFlags, LockOwner,
    OpenFlags, ReplyAttr, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyOpen, ReplyWrite, Request, WriteFlags,
};
use regent::action::watchdog::{Tried, Watchdog, WatchdogError, try_out};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

/// What the stand-in was told, in order; and how it is made.
#[derive(Default)]
struct Told {
    timeout: i32,
    feeds: u32,
    opened: u32,
    farewell: bool,
    closed: bool,
    /// The longest timeout that it accepts.
    at_most: i32,
    /// Its driver does not know the magic close.
    without_magic: bool,
    /// The kernel leaves no way out, and answers so.
    stays: bool,
    refuses_feeds: bool,
    refuses_writes: bool,
}

struct StandIn(Arc<Mutex<Told>>);

fn attributes(ino: INodeNo) -> FileAttr {
    let directory = ino == INodeNo::ROOT;
    FileAttr {
        ino,
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if directory { FileType::Directory } else { FileType::RegularFile },
        perm: if directory { 0o755 } else { 0o600 },
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        flags: 0,
        blksize: 512,
    }
}

impl Filesystem for StandIn {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name == "watchdog" {
            true => reply.entry(&Duration::ZERO, &attributes(INodeNo(2)), Generation(0)),
            false => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&Duration::ZERO, &attributes(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.0.lock().expect("no panic holds it").opened += 1;
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut told = self.0.lock().expect("no panic holds it");
        if told.refuses_writes {
            return reply.error(Errno::EIO);
        }
        told.farewell = data == b"V";
        reply.written(u32::try_from(data.len()).expect("short"));
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.0.lock().expect("no panic holds it").closed = true;
        reply.ok();
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        request: u32,
        given: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        let mut told = self.0.lock().expect("no panic holds it");
        match request {
            0x8028_5700 => {
                let mut info = [0; 40];
                let magic = if told.without_magic { 0 } else { 0x100 };
                info[..4].copy_from_slice(&(0x8080_u32 | magic).to_ne_bytes());
                info[8..16].copy_from_slice(b"stand-in");
                reply.ioctl(0, &info);
            }
            0x8004_5704 if told.stays => reply.error(Errno::EBUSY),
            0x8004_5705 if told.refuses_feeds => reply.error(Errno::EIO),
            0x8004_5705 => {
                told.feeds += 1;
                reply.ioctl(0, &0_i32.to_ne_bytes());
            }
            0xc004_5706 => {
                told.timeout = i32::from_ne_bytes(given.try_into().expect("an int")).min(told.at_most);
                reply.ioctl(0, &told.timeout.to_ne_bytes());
            }
            0x8004_5707 => reply.ioctl(0, &told.timeout.to_ne_bytes()),
            _ => reply.error(Errno::ENOTTY),
        }
    }
}

/// A mounted stand-in: its device and what it was told.
fn stand_in(at_most: i32) -> (tempfile::TempDir, fuser::BackgroundSession, Arc<Mutex<Told>>) {
    made(Told { at_most, ..Told::default() })
}

fn made(told: Told) -> (tempfile::TempDir, fuser::BackgroundSession, Arc<Mutex<Told>>) {
    let directory = tempfile::tempdir().expect("a directory");
    let told = Arc::new(Mutex::new(told));
    let session = fuser::spawn_mount(StandIn(told.clone()), directory.path(), &fuser::Config::default());
    (directory, session.expect("FUSE can be mounted"), told)
}

/// The file system hears of a close a moment after it.
fn closed(told: &Mutex<Told>) -> bool {
    (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(5));
        told.lock().expect("no panic holds it").closed
    })
}

#[test]
fn a_watchdog_is_armed_fed_and_disarmed_by_its_real_requests() {
    if !possible() {
        return;
    }
    let (directory, _session, told) = stand_in(60);
    let mut watchdog = Watchdog::arm(&directory.path().join("watchdog"), Duration::from_millis(4500)).expect("armed");
    assert_eq!((watchdog.timeout(), watchdog.identity()), (Duration::from_secs(5), "stand-in"));
    assert!(watchdog.can_be_disarmed());
    watchdog.feed().expect("fed");
    watchdog.feed().expect("fed");
    assert_eq!(told.lock().expect("free").feeds, 3, "once at arming");
    watchdog.disarm().expect("disarmed");
    assert!(closed(&told) && told.lock().expect("free").farewell);
}

#[test]
fn a_daemon_that_dies_leaves_the_watchdog_armed() {
    if !possible() {
        return;
    }
    let (directory, _session, told) = stand_in(60);
    drop(Watchdog::arm(&directory.path().join("watchdog"), Duration::from_secs(5)).expect("armed"));
    assert!(closed(&told) && !told.lock().expect("free").farewell);
}

#[test]
fn a_watchdog_with_another_timeout_than_asked_for_is_refused_and_disarmed() {
    if !possible() {
        return;
    }
    let (directory, _session, told) = stand_in(3);
    let refused =
        Watchdog::arm(&directory.path().join("watchdog"), Duration::from_secs(5)).expect_err("another timeout");
    assert!(
        matches!(refused.error, WatchdogError::OtherTimeout { given, .. } if given == Duration::from_secs(3)),
        "{refused:?}"
    );
    assert!(refused.open.is_none());
    assert!(closed(&told) && told.lock().expect("free").farewell);
}

/// What the kernel tells of the stand-in.
fn sysfs(nowayout: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let device = directory.path().join("watchdog0");
    std::fs::create_dir(&device).expect("a fresh folder");
    std::fs::write(device.join("nowayout"), nowayout).expect("a writable folder");
    std::fs::write(device.join("state"), "inactive\n").expect("a writable folder");
    directory
}

const TIMEOUT: Duration = Duration::from_secs(5);

fn device(directory: &Path) -> PathBuf {
    directory.join("watchdog")
}

#[test]
fn a_watchdog_is_tried_at_the_start_and_left_disarmed_unless_a_database_may_run() {
    if !possible() {
        return;
    }
    let (directory, _session, told) = stand_in(60);
    let (device, ways) = (device(directory.path()), sysfs("0\n"));
    let tried = try_out(&device, TIMEOUT, ways.path(), false).expect("it works");
    assert!(matches!(&tried, Tried::Disarmed { identity, timeout } if identity == "stand-in" && *timeout == TIMEOUT));
    assert!(closed(&told) && told.lock().expect("free").farewell);
    let tried = try_out(&device, TIMEOUT, ways.path(), true).expect("it works");
    let Tried::Armed(watchdog) = tried else { panic!("a database may run: {tried:?}") };
    assert_eq!(watchdog.timeout(), TIMEOUT);
}

#[test]
fn a_watchdog_without_a_way_out_is_opened_when_it_is_needed_and_stays_open() {
    if !possible() {
        return;
    }
    let (directory, _session, told) = stand_in(60);
    let (device, ways) = (device(directory.path()), sysfs("1\n"));
    let tried = try_out(&device, TIMEOUT, ways.path(), false).expect("it takes the timeout");
    assert!(matches!(tried, Tried::NotOpened), "{tried:?}");
    assert_eq!(told.lock().expect("free").opened, 0, "opening arms it");
    let Tried::Armed(watchdog) = try_out(&device, TIMEOUT, ways.path(), true).expect("armed") else {
        panic!("it was to stay armed")
    };
    assert!(!watchdog.can_be_disarmed());
    let mut still = watchdog.disarm().expect_err("there is no way out");
    assert!(matches!(still.error, WatchdogError::NoWayOut { .. }), "{}", still.error);
    still.watchdog.feed().expect("it is open still");
    assert!(!told.lock().expect("free").closed, "closed, it would reset the host");
}

#[test]
fn a_watchdog_that_could_not_be_disarmed_stays_open_and_is_fed_on() {
    if !possible() {
        return;
    }
    // Two ways to fail: the request is refused, or the character cannot be written.
    for told in [Told { stays: true, ..Told::default() }, Told { refuses_writes: true, ..Told::default() }] {
        let (directory, _session, told) = made(Told { at_most: 60, ..told });
        let watchdog = Watchdog::arm(&device(directory.path()), TIMEOUT).expect("armed");
        let mut still = watchdog.disarm().expect_err("it refuses");
        assert!(still.error.to_string().contains("refused to be disarmed"), "{}", still.error);
        still.watchdog.feed().expect("it is open still");
        let told = told.lock().expect("free");
        assert!(!told.closed && told.feeds == 2, "closed, it would reset the host");
    }
}

#[test]
fn a_watchdog_without_magic_close_is_not_closed_either_when_its_timeout_is_another() {
    if !possible() {
        return;
    }
    let (directory, _session, told) = made(Told { at_most: 3, without_magic: true, ..Told::default() });
    let (device, ways) = (device(directory.path()), sysfs("0\n"));
    let refused = try_out(&device, TIMEOUT, ways.path(), false).expect_err("another timeout");
    assert!(refused.error.to_string().contains("set itself to 3 s"), "{}", refused.error);
    let mut open = refused.open.expect("it is armed, and somebody has to feed it");
    open.feed().expect("fed");
    // The device takes it now: what is open is set up again.
    told.lock().expect("free").at_most = 60;
    let again = open.again(TIMEOUT).expect("armed as it should be");
    assert_eq!((again.timeout(), again.can_be_disarmed()), (TIMEOUT, false));
    assert_eq!(told.lock().expect("free").opened, 1);
}

#[test]
fn a_watchdog_that_cannot_be_fed_says_so() {
    if !possible() {
        return;
    }
    let (directory, _session, told) = stand_in(60);
    let mut watchdog = Watchdog::arm(&device(directory.path()), TIMEOUT).expect("armed");
    told.lock().expect("free").refuses_feeds = true;
    let error = watchdog.feed().expect_err("it refuses");
    assert!(error.to_string().contains("refused to be fed"), "{error}");
}
