//! A shared disk that fails on demand, for one host only: a file system in user space with one file a host over one
//! backing file. A hang is a request that is simply not answered, until the control says otherwise; no thread of the
//! lab waits with it.

use anyhow::{Context, Result};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request,
    WriteFlags,
};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

const SIZE: u64 = 1 << 20;
/// The kernel may not remember names or attributes: each answer depends on the control.
const REMEMBER: Duration = Duration::ZERO;

/// How the disk treats one host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    Ok,
    /// Every access fails with EIO.
    Eio,
    /// Writes fail with EROFS.
    ReadOnly,
    /// Every access takes this long.
    Delay(Duration),
    /// No access returns until the mode is changed.
    Hang,
}

/// The control of one host's side of the disk.
#[derive(Clone)]
pub struct Control {
    side: Arc<Side>,
}

struct Side {
    state: Mutex<SideState>,
    backing: Arc<File>,
}

#[derive(Default)]
struct SideState {
    mode: Mode,
    waiting: Vec<Access>,
}

/// One request of the kernel, with the way to answer it.
enum Access {
    Read { offset: u64, size: u32, reply: ReplyData },
    Write { offset: u64, data: Vec<u8>, reply: ReplyWrite },
    Sync { reply: ReplyEmpty },
}

impl Control {
    /// Changes the mode. Requests that hung are served by the new one.
    pub fn set(&self, mode: Mode) {
        let waiting = {
            let mut state = self.side.state.lock().unwrap();
            state.mode = mode;
            std::mem::take(&mut state.waiting)
        };
        for access in waiting {
            self.side.clone().serve(access);
        }
    }

    /// How many requests hang at the moment.
    pub fn hanging(&self) -> usize {
        self.side.state.lock().unwrap().waiting.len()
    }

    /// The host has lost its power: what it waited for is over.
    pub fn power_loss(&self) {
        let waiting = std::mem::take(&mut self.side.state.lock().unwrap().waiting);
        waiting.into_iter().for_each(|access| access.fail(Errno::EIO));
    }
}

impl Side {
    fn serve(self: Arc<Side>, access: Access) {
        let mode = {
            let mut state = self.state.lock().unwrap();
            if state.mode == Mode::Hang {
                state.waiting.push(access);
                return;
            }
            state.mode
        };
        match mode {
            Mode::Eio => access.fail(Errno::EIO),
            Mode::ReadOnly if matches!(access, Access::Write { .. }) => access.fail(Errno::EROFS),
            Mode::Delay(by) => {
                std::thread::spawn(move || {
                    std::thread::sleep(by);
                    access.perform(&self.backing);
                });
            }
            _ => access.perform(&self.backing),
        }
    }
}

impl Access {
    fn fail(self, error: Errno) {
        match self {
            Access::Read { reply, .. } => reply.error(error),
            Access::Write { reply, .. } => reply.error(error),
            Access::Sync { reply } => reply.error(error),
        }
    }

    fn perform(self, backing: &File) {
        match self {
            Access::Read { offset, size, reply } => {
                let mut data = vec![0; u64::from(size).min(SIZE.saturating_sub(offset)) as usize];
                match backing.read_exact_at(&mut data, offset) {
                    Ok(()) => reply.data(&data),
                    Err(_) => reply.error(Errno::EIO),
                }
            }
            Access::Write { offset, data, reply } => {
                if offset + data.len() as u64 > SIZE {
                    return reply.error(Errno::ENOSPC);
                }
                match backing.write_all_at(&data, offset) {
                    Ok(()) => reply.written(data.len() as u32),
                    Err(_) => reply.error(Errno::EIO),
                }
            }
            Access::Sync { reply } => match backing.sync_data() {
                Ok(()) => reply.ok(),
                Err(_) => reply.error(Errno::EIO),
            },
        }
    }
}

/// The disk, mounted. Unmounted when dropped; when the process dies, every hanging request fails by itself.
pub struct SharedDisk {
    mounted: PathBuf,
    names: Vec<String>,
    sides: Vec<Arc<Side>>,
    _session: BackgroundSession,
}

impl SharedDisk {
    /// A blank disk of 1 MiB with a file for each of `hosts`.
    pub fn create(directory: &Path, hosts: &[&str]) -> Result<SharedDisk> {
        let (backing, mounted) = (directory.join("shared-disk.img"), directory.join("shared"));
        std::fs::create_dir(&mounted)?;
        let backing = Arc::new(OpenOptions::new().read(true).write(true).create(true).truncate(false).open(backing)?);
        backing.set_len(SIZE)?;
        let side = || Arc::new(Side { state: Mutex::default(), backing: backing.clone() });
        let sides: Vec<_> = hosts.iter().map(|_| side()).collect();
        let names: Vec<String> = hosts.iter().map(|name| name.to_string()).collect();
        let mut config = Config::default();
        config.mount_options = vec![MountOption::RW, MountOption::FSName("regent-lab".into())];
        config.acl = fuser::SessionACL::All;
        let served = Served { names: names.clone(), sides: sides.clone() };
        let session = fuser::spawn_mount(served, &mounted, &config).context("mount the shared disk through FUSE")?;
        Ok(SharedDisk { mounted, names, sides, _session: session })
    }

    /// The control of one host's side.
    pub fn control(&self, host: &str) -> Result<Control> {
        let at = self.names.iter().position(|name| name == host);
        let at = at.with_context(|| format!("host {host} has no side of the shared disk"))?;
        Ok(Control { side: self.sides[at].clone() })
    }

    /// The file that this host sees.
    pub fn file(&self, host: &str) -> PathBuf {
        self.mounted.join(host)
    }
}

/// The file system: a directory (inode 1) with one file a host (inodes from 2).
struct Served {
    names: Vec<String>,
    sides: Vec<Arc<Side>>,
}

impl Served {
    fn attributes(&self, inode: u64) -> Option<FileAttr> {
        let is_file = inode >= 2 && ((inode - 2) as usize) < self.sides.len();
        if !is_file && inode != 1 {
            return None;
        }
        Some(FileAttr {
            ino: INodeNo(inode),
            size: if is_file { SIZE } else { 0 },
            blocks: if is_file { SIZE / 512 } else { 0 },
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_file { FileType::RegularFile } else { FileType::Directory },
            perm: if is_file { 0o660 } else { 0o755 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn serve(&self, inode: INodeNo, access: Access) {
        match self.sides.get(u64::from(inode).wrapping_sub(2) as usize) {
            Some(side) => side.clone().serve(access),
            None => access.fail(Errno::ENOENT),
        }
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.names.iter().position(|n| OsStr::new(n) == name).and_then(|i| self.attributes(i as u64 + 2));
        match found {
            Some(attributes) => reply.entry(&REMEMBER, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode.into()) {
            Some(attributes) => reply.attr(&REMEMBER, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Every access comes to us: one host must see at once what another wrote.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.serve(inode, Access::Read { offset, size, reply });
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.serve(inode, Access::Write { offset, data: data.to_vec(), reply });
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.serve(inode, Access::Sync { reply });
    }
}
