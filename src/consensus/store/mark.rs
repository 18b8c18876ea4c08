//! How many writes of the log were acknowledged, kept beside it in a file of its own: two slots, written in turn, each
//! with a checksum. A log file that was rolled back, emptied or damaged in its newest part is found out by it; by itself
//! it would look like one whose last writes were never finished. An orderly end leaves a checksum of the whole log file
//! as well: redb trusts what it wrote last in an orderly end, and falls over it when that was damaged since.
//!
//! Not here: what was written. A whole directory that went back in time is told by its peers (`transport/network.rs`).

use super::StoreError;
use super::image::{seal, unseal};
use crate::durable::{self, FileError};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Far enough apart that no sector, and no page, holds both.
const SLOT: u64 = 4096;
const CLOSED: u64 = 2 * SLOT;

/// The open file.
pub struct Mark {
    file: File,
    acknowledged: u64,
}

impl Mark {
    /// Opens it. `made`: it was there before, and must not be missing.
    pub fn open(path: &Path, made: bool) -> Result<Self, StoreError> {
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { action, path, source }
        };
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => {
                let read = read(&file).map_err(io("read", path))?;
                let corrupt = |what: &str| StoreError::Corrupt { path: path.to_owned(), what: what.to_owned() };
                let acknowledged = read.ok_or_else(|| corrupt("neither of its two counts can be read"))?;
                Ok(Mark { file, acknowledged })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && made => {
                Err(StoreError::Corrupt { path: path.to_owned(), what: "it was there, and is gone".to_owned() })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(create(path)?),
            Err(error) => Err(io("open", path)(error)),
        }
    }

    /// So many writes were acknowledged, or a few more.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Durable when it returns.
    pub fn set(&mut self, acknowledged: u64) -> io::Result<()> {
        self.file.write_all_at(&seal(&acknowledged.to_le_bytes()), acknowledged % 2 * SLOT)?;
        self.file.sync_data()?;
        self.acknowledged = acknowledged;
        Ok(())
    }

    /// After an orderly end of `log`: nobody writes to it until the next start.
    pub fn close(&self, log: &Path) -> io::Result<()> {
        let body = [&self.acknowledged.to_le_bytes()[..], &sum(log)?.to_le_bytes()].concat();
        self.file.write_all_at(&seal(&body), CLOSED)?;
        self.file.sync_data()
    }

    /// Whether `log` is what an orderly end left, where there was one. From then on it may be written to.
    pub fn reopen(&self, log: &Path) -> io::Result<bool> {
        let Some(closed) = read_slot::<12, 16>(&self.file, CLOSED)? else { return Ok(true) };
        let (count, left) = closed.split_at(8);
        if count == self.acknowledged.to_le_bytes() && left != sum(log)?.to_le_bytes() {
            return Ok(false);
        }
        self.file.write_all_at(&[0; 16], CLOSED)?;
        self.file.sync_data()?;
        Ok(true)
    }
}

/// The greater of the counts that can be read: a torn write leaves the one before it.
fn read(file: &File) -> io::Result<Option<u64>> {
    let counts = [read_slot::<8, 12>(file, 0)?, read_slot::<8, 12>(file, SLOT)?];
    Ok(counts.into_iter().flatten().map(u64::from_le_bytes).max())
}

/// What is sealed there, if it reads back.
fn read_slot<const BODY: usize, const SEALED: usize>(file: &File, at: u64) -> io::Result<Option<[u8; BODY]>> {
    let mut sealed = [0; SEALED];
    match file.read_exact_at(&mut sealed, at) {
        Ok(()) => Ok(unseal(&sealed).ok().and_then(|body| body.try_into().ok())),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// A checksum of everything in the file.
fn sum(path: &Path) -> io::Result<u32> {
    let mut hasher = crc32fast::Hasher::new();
    let (mut file, mut piece) = (File::open(path)?, vec![0; 1 << 16]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finalize()),
            length => hasher.update(&piece[..length]),
        }
    }
}

/// Both slots at once: it is never there by half.
fn create(path: &Path) -> Result<Mark, FileError> {
    let file = durable::replace(path, 0o600, |file| {
        file.set_len(3 * SLOT)?;
        (0..2).try_for_each(|slot| file.write_all_at(&seal(&0_u64.to_le_bytes()), slot * SLOT))
    })?;
    Ok(Mark { file, acknowledged: 0 })
}
