//! The watchdog against a stand-in: a file of a small FUSE file system that answers the real requests.

use crate::cluster::possible;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, IoctlFlags, LockOwner, OpenFlags,
    ReplyAttr, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyWrite, Request, WriteFlags,
};
use regent::action::watchdog::{Watchdog, WatchdogError};
use std::ffi::OsStr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

/// What the stand-in was told, in order; and the longest timeout that it accepts.
#[derive(Default)]
struct Told {
    timeout: i32,
    at_most: i32,
    feeds: u32,
    farewell: bool,
    closed: bool,
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
        self.0.lock().expect("no panic holds it").farewell = data == b"V";
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
                info[..4].copy_from_slice(&0x8180_u32.to_ne_bytes());
                info[8..16].copy_from_slice(b"stand-in");
                reply.ioctl(0, &info);
            }
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
    let directory = tempfile::tempdir().expect("a directory");
    let told = Arc::new(Mutex::new(Told { at_most, ..Told::default() }));
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
        matches!(refused, WatchdogError::OtherTimeout { given, .. } if given == Duration::from_secs(3)),
        "{refused}"
    );
    assert!(closed(&told) && told.lock().expect("free").farewell);
}
