//! The file or block device behind the shared disk: whole blocks, past every cache, durable when the write returns.
//!
//! Every call here may hang for as long as the disk likes: none is made on a thread that anybody waits for.

use super::disk_format::{BLOCK, Block, SLOTS_MAX, disk_len};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Memory that O_DIRECT accepts: aligned, and large enough for a whole disk.
#[repr(C, align(4096))]
struct Area([u8; disk_len_max()]);

const fn disk_len_max() -> usize {
    (1 + SLOTS_MAX) * BLOCK
}

/// An open disk, with the memory through which it is read and written.
pub struct DiskFile {
    file: File,
    area: Box<Area>,
}

impl DiskFile {
    /// Opens an existing file or device. With `exclusively`, a device that is mounted or otherwise in use is refused.
    pub fn open(path: &Path, exclusively: bool) -> io::Result<Self> {
        let flags = libc::O_DIRECT | libc::O_DSYNC | if exclusively { libc::O_EXCL } else { 0 };
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
        Ok(DiskFile { file, area: Box::new(Area([0; disk_len_max()])) })
    }

    /// Opens it for reading only.
    pub fn open_read_only(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path)?;
        Ok(DiskFile { file, area: Box::new(Area([0; disk_len_max()])) })
    }

    /// The size in bytes, of a device too.
    pub fn len(&self) -> io::Result<u64> {
        (&self.file).seek(SeekFrom::End(0))
    }

    /// Makes a file as long as a disk with `slots` slots.
    pub fn extend(&self, slots: usize) -> io::Result<()> {
        self.file.set_len(disk_len(slots) as u64)
    }

    /// Reads the header and the first `slots` slots in one go.
    pub fn read(&mut self, slots: usize) -> io::Result<&[Block]> {
        let bytes = &mut self.area.0[..disk_len(slots)];
        self.file.read_exact_at(bytes, 0)?;
        Ok(bytes.as_chunks::<BLOCK>().0)
    }

    /// Writes one block: 0 is the header, slot n is n + 1. It is on the disk when this returns.
    pub fn write(&mut self, index: usize, block: &Block) -> io::Result<()> {
        self.area.0[..BLOCK].copy_from_slice(block);
        self.file.write_all_at(&self.area.0[..BLOCK], (index * BLOCK) as u64)
    }
}
