//! Watchdog devices, one a host: a file system in user space whose files answer the kernel's requests, and that really
//! resets a host whose device was opened and is not fed in time. A device can be told to be none any more.
//!
//! Not here: what a reset is (`host.rs`).

use crate::host::Host;
use anyhow::{Context, Result};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    IoctlFlags, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyOpen,
    ReplyWrite, Request, WriteFlags,
};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// The device's name on a host's disk.
pub const WATCHDOG_NAME: &str = "watchdog";
/// The kernel may not remember names or attributes: each answer depends on the state.
const REMEMBER: Duration = Duration::ZERO;
/// How often it is looked whether a device was fed. Real ones are no more exact.
const TICK: Duration = Duration::from_millis(50);
/// What a device is set to before anybody sets it.
const FACTORY: i32 = 60;

/// What a host's device is.
struct Device {
    host: Arc<Host>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// It cannot be opened.
    broken: bool,
    timeout: i32,
    /// When it was fed last, and in which boot; nothing while it is disarmed.
    fed: Option<(String, Instant)>,
    farewell: bool,
    resets: u32,
}

/// The devices of a world, mounted. Unmounted when dropped.
pub struct Watchdogs {
    mounted: PathBuf,
    devices: Arc<Vec<Device>>,
    _session: BackgroundSession,
}

impl Watchdogs {
    /// A device for each host.
    pub fn create(directory: &Path, hosts: Vec<Arc<Host>>) -> Result<Watchdogs> {
        let mounted = directory.join("watchdogs");
        std::fs::create_dir(&mounted)?;
        let state = || Mutex::new(State { timeout: FACTORY, ..State::default() });
        let devices: Arc<Vec<_>> = Arc::new(hosts.into_iter().map(|host| Device { host, state: state() }).collect());
        let mut config = Config::default();
        config.mount_options = vec![MountOption::RW, MountOption::FSName("regent-lab-watchdogs".into())];
        config.acl = fuser::SessionACL::All;
        let session = fuser::spawn_mount(Served(devices.clone()), &mounted, &config).context("mount the watchdogs")?;
        let watched = Arc::downgrade(&devices);
        std::thread::spawn(move || {
            while let Some(devices) = watched.upgrade() {
                devices.iter().for_each(Device::tick);
                drop(devices);
                std::thread::sleep(TICK);
            }
        });
        Ok(Watchdogs { mounted, devices, _session: session })
    }

    /// The file that this host sees.
    pub fn file(&self, host: &str) -> PathBuf {
        self.mounted.join(host)
    }

    /// From now on the host's device cannot be opened.
    pub fn break_device(&self, host: &str) -> Result<()> {
        self.device(host)?.state.lock().unwrap().broken = true;
        Ok(())
    }

    /// Whether it would reset its host if nobody fed it.
    pub fn is_armed(&self, host: &str) -> Result<bool> {
        Ok(self.device(host)?.state.lock().unwrap().fed.is_some())
    }

    /// How often any device reset its host.
    pub fn resets(&self) -> u32 {
        self.devices.iter().map(|device| device.state.lock().unwrap().resets).sum()
    }

    fn device(&self, host: &str) -> Result<&Device> {
        let found = self.devices.iter().find(|device| device.host.name == host);
        found.with_context(|| format!("host {host} has no watchdog"))
    }
}

impl Device {
    fn feed(&self, state: &mut State) {
        state.fed = Some((self.host.boot_id().unwrap_or_default(), Instant::now()));
    }

    /// Resets the host when its time is over. A host that lost its power meanwhile has a device that starts anew.
    fn tick(&self) {
        // Before the lock: whoever cuts a host's power waits until its files are closed, which the file system must hear.
        let boot = if self.host.is_on() { self.host.boot_id().ok() } else { None };
        {
            let mut state = self.state.lock().unwrap();
            let limit = Duration::from_secs(state.timeout.unsigned_abs().into());
            let Some((armed_in, fed)) = &state.fed else { return };
            let same_boot = boot.as_ref() == Some(armed_in);
            if same_boot && fed.elapsed() < limit {
                return;
            }
            state.fed = None;
            if !same_boot {
                return;
            }
            state.resets += 1;
        }
        println!("the watchdog of {} resets it", self.host.name);
        if let Err(error) = self.host.power_off().and_then(|()| self.host.power_on()) {
            eprintln!("the reset of {}: {error:#}", self.host.name);
        }
    }

    /// The requests of `linux/watchdog.h`. `None`: not one of them.
    fn request(&self, request: u32, given: &[u8]) -> Option<Vec<u8>> {
        let mut state = self.state.lock().unwrap();
        Some(match request {
            0x8028_5700 => {
                // KEEPALIVEPING, MAGICCLOSE and SETTIMEOUT.
                let mut info = vec![0; 40];
                info[..4].copy_from_slice(&0x8180_u32.to_ne_bytes());
                info[8..11].copy_from_slice(b"lab");
                info
            }
            0x8004_5705 => {
                self.feed(&mut state);
                0_i32.to_ne_bytes().to_vec()
            }
            0xc004_5706 => {
                state.timeout = i32::from_ne_bytes(given.try_into().ok()?);
                state.timeout.to_ne_bytes().to_vec()
            }
            0x8004_5707 => state.timeout.to_ne_bytes().to_vec(),
            _ => return None,
        })
    }
}

/// The file system: a directory (inode 1) with one file a host (inodes from 2).
struct Served(Arc<Vec<Device>>);

impl Served {
    fn device(&self, inode: INodeNo) -> Option<&Device> {
        self.0.get(u64::from(inode).wrapping_sub(2) as usize)
    }

    fn attributes(inode: u64) -> FileAttr {
        let directory = inode == 1;
        FileAttr {
            ino: INodeNo(inode),
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
            blksize: 512,
            flags: 0,
        }
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.0.iter().position(|device| OsStr::new(&device.host.name) == name) {
            Some(index) => reply.entry(&REMEMBER, &Served::attributes(index as u64 + 2), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&REMEMBER, &Served::attributes(inode.into()));
    }

    fn open(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let Some(device) = self.device(inode) else { return reply.error(Errno::ENOENT) };
        let mut state = device.state.lock().unwrap();
        if state.broken {
            return reply.error(Errno::ENODEV);
        }
        state.farewell = false;
        device.feed(&mut state);
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        _: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let Some(device) = self.device(inode) else { return reply.error(Errno::ENOENT) };
        let mut state = device.state.lock().unwrap();
        state.farewell = data.contains(&b'V');
        device.feed(&mut state);
        reply.written(data.len() as u32);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        if let Some(device) = self.device(inode) {
            let mut state = device.state.lock().unwrap();
            if state.farewell {
                state.fed = None;
            }
        }
        reply.ok();
    }

    fn ioctl(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        request: u32,
        given: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        match self.device(inode).and_then(|device| device.request(request, given)) {
            Some(answer) => reply.ioctl(0, &answer),
            None => reply.error(Errno::ENOTTY),
        }
    }
}
