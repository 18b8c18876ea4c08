//! `regent disk init` and `regent disk list`: makes a shared disk, and shows one. Not the channel itself (`disk.rs`).

use super::disk_file::DiskFile;
use super::disk_format::{BLOCK, Block, DiskId, Header, HeaderError, SLOTS_MAX, Slot, disk_len};
use super::key::Keys;
use super::wire;
use crate::types::{Boot, ClusterId, Incarnation, NodeName};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// How much of a disk is searched for something that is not ours before it is overwritten.
const SEARCHED: usize = SLOTS_MAX * BLOCK;

/// A disk that cannot be made or shown.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("{}: {doing} failed", path.display())]
    Io { path: PathBuf, doing: &'static str, source: io::Error },
    #[error(
        "{}: it is the disk of cluster {cluster} already (disk {disk}, generation {generation}): to initialise it anew, \
         stop that cluster and say --force", path.display()
    )]
    Initialised { path: PathBuf, cluster: ClusterId, disk: DiskId, generation: u64 },
    #[error("{}: it holds {found}: if nobody needs that any more, say --force", path.display())]
    InUse { path: PathBuf, found: &'static str },
    #[error("{}: it has {len} bytes, {slots} slots need {needed}", path.display())]
    TooSmall { path: PathBuf, len: u64, slots: usize, needed: usize },
    #[error("{slots} slots were asked for: expected 1 to {SLOTS_MAX}, and no name twice")]
    Slots { slots: usize },
    #[error("a cluster id of {len} bytes: expected 1 to 255")]
    Cluster { len: usize },
    #[error("{}: {source}", path.display())]
    Header { path: PathBuf, source: HeaderError },
}

/// What a disk holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiskReport {
    pub path: PathBuf,
    pub header: Header,
    pub slots: Vec<SlotReport>,
}

/// One slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SlotReport {
    pub slot: usize,
    pub owner: Option<NodeName>,
    pub content: SlotContent,
}

/// What is in a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotContent {
    Empty,
    /// Half-written, damaged or left from an earlier generation.
    Torn,
    Heartbeat {
        boot: Boot,
        incarnation: Incarnation,
        sequence: u64,
        /// Whether it is signed with one of the given keys; `None` when none was given.
        authentic: Option<bool>,
    },
    /// A whole slot whose content is no heartbeat of its owner.
    Foreign,
}

/// Makes `path`, a block device or a file (created where missing), a shared disk with a slot for each of `nodes` and
/// `spare` free ones. Refuses a disk of any cluster, and whatever else is written there, unless `force`; a device that
/// is mounted is always refused.
pub fn init(
    path: &Path,
    cluster: &ClusterId,
    nodes: &[NodeName],
    spare: usize,
    force: bool,
) -> Result<DiskReport, DiskError> {
    let io = |doing| move |source| DiskError::Io { path: path.to_owned(), doing, source };
    let slots = nodes.len() + spare;
    let mut names = nodes.to_vec();
    names.sort();
    names.dedup();
    if slots == 0 || slots > SLOTS_MAX || names.len() != nodes.len() {
        return Err(DiskError::Slots { slots });
    }
    if cluster.0.is_empty() || cluster.0.len() > 255 {
        return Err(DiskError::Cluster { len: cluster.0.len() });
    }
    if !path.exists() {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io("creating it"))?;
    }
    let mut file = DiskFile::open(path, true).map_err(io("opening it for direct, exclusive access"))?;
    let len = file.len().map_err(io("measuring it"))?;
    let before = inspect(path, &mut file, len)?;
    let generation = match (&before, force) {
        (Before::Blank, _) => 1,
        (Before::Ours(old), true) => old.generation + 1,
        (Before::Ours(old), false) => {
            let Header { cluster, disk, generation, .. } = old.clone();
            return Err(DiskError::Initialised { path: path.to_owned(), cluster, disk, generation });
        }
        (Before::Other(_), true) => 1,
        (Before::Other(found), false) => return Err(DiskError::InUse { path: path.to_owned(), found }),
    };
    let needed = disk_len(slots);
    if len < needed as u64 {
        let is_file = path.metadata().map_err(io("measuring it"))?.is_file();
        if !is_file {
            return Err(DiskError::TooSmall { path: path.to_owned(), len, slots, needed });
        }
        file.extend(slots).map_err(io("making it longer"))?;
    }
    let owners = nodes.iter().cloned().map(Some).chain(std::iter::repeat_n(None, spare)).collect();
    // The disk keeps its id while it serves the same cluster: daemons that watch it take over the new generation.
    let disk = match &before {
        Before::Ours(old) if old.cluster == *cluster => old.disk,
        _ => random_id().map_err(io("drawing a random id for it"))?,
    };
    let header = Header { cluster: cluster.clone(), disk, generation, slots: owners };
    for slot in 0..slots {
        file.write(1 + slot, &[0; BLOCK]).map_err(io("clearing a slot"))?;
    }
    // Last: until it is there, nobody takes the disk for a finished one.
    file.write(0, &header.encode()).map_err(io("writing its header"))?;
    list(path, None)
}

fn random_id() -> io::Result<DiskId> {
    let mut id = [0; 16];
    SystemRandom::new().fill(&mut id).map_err(|_| io::Error::other("the kernel gives no random bytes"))?;
    Ok(DiskId(id))
}

/// What was there before.
enum Before {
    Blank,
    Ours(Header),
    Other(&'static str),
}

fn inspect(path: &Path, file: &mut DiskFile, len: u64) -> Result<Before, DiskError> {
    let blocks = usize::try_from(len).unwrap_or(SEARCHED).min(SEARCHED) / BLOCK;
    if blocks == 0 {
        return Ok(if len == 0 { Before::Blank } else { Before::Other("data that regent did not write") });
    }
    let read = file.read(blocks - 1);
    let read = read.map_err(|source| DiskError::Io { path: path.to_owned(), doing: "reading it", source })?;
    if let Ok(header) = Header::decode(&read[0]) {
        return Ok(Before::Ours(header));
    }
    let bytes = read.as_flattened();
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(Before::Blank);
    }
    Ok(Before::Other(signature(bytes).unwrap_or("data that regent did not write")))
}

/// The best known things that a disk may hold, by their magic numbers (as in libblkid).
fn signature(bytes: &[u8]) -> Option<&'static str> {
    const KNOWN: [(usize, &[u8], &str); 10] = [
        (0x438, &[0x53, 0xef], "an ext2, ext3 or ext4 file system"),
        (0, b"XFSB", "an XFS file system"),
        (0x10040, b"_BHRfS_M", "a btrfs file system"),
        (0, b"LUKS\xba\xbe", "an encrypted (LUKS) volume"),
        (512, b"LABELONE", "an LVM physical volume"),
        (4086, b"SWAPSPACE2", "swap space"),
        (512, b"EFI PART", "a GPT partition table"),
        (0, b"SBD_SBD_", "an SBD disk of another cluster manager"),
        (0x1000, &[0xfc, 0x4e, 0x2b, 0xa9], "a member of a RAID"),
        (510, &[0x55, 0xaa], "a partition table or boot sector"),
    ];
    let found = KNOWN.iter().find(|(at, magic, _)| bytes.get(*at..).is_some_and(|rest| rest.starts_with(magic)));
    found.map(|(_, _, name)| *name)
}

/// Reads a disk's header and all its slots. Writes nothing.
pub fn list(path: &Path, keys: Option<&Keys>) -> Result<DiskReport, DiskError> {
    let io = |doing| move |source| DiskError::Io { path: path.to_owned(), doing, source };
    let mut file = DiskFile::open_read_only(path).map_err(io("opening it for direct access"))?;
    let first = file.read(0).map_err(io("reading its header"))?;
    let header = Header::decode(&first[0]);
    let header = header.map_err(|source| DiskError::Header { path: path.to_owned(), source })?;
    let blocks = file.read(header.slots.len()).map_err(io("reading its slots"))?;
    let slot = |(slot, owner): (usize, &Option<NodeName>)| SlotReport {
        slot,
        owner: owner.clone(),
        content: content(&header, slot, owner.as_ref(), &blocks[1 + slot], keys),
    };
    let slots = header.slots.iter().enumerate().map(slot).collect();
    Ok(DiskReport { path: path.to_owned(), header, slots })
}

fn content(header: &Header, slot: usize, owner: Option<&NodeName>, block: &Block, keys: Option<&Keys>) -> SlotContent {
    let bytes = match header.decode_slot(slot, block) {
        Slot::Empty => return SlotContent::Empty,
        Slot::Torn => return SlotContent::Torn,
        Slot::Full(bytes) => bytes,
    };
    let of_owner = wire::claim(bytes).is_some_and(|claim| {
        claim.cluster == header.cluster.0 && Some(claim.node.as_str()) == owner.map(NodeName::as_str)
    });
    match wire::claimed_life(bytes).filter(|_| of_owner) {
        Some((boot, incarnation, sequence)) => {
            let authentic = keys.map(|keys| wire::decode(bytes, keys).is_ok());
            SlotContent::Heartbeat { boot, incarnation, sequence, authentic }
        }
        None => SlotContent::Foreign,
    }
}

impl fmt::Display for DiskReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Header { cluster, disk, generation, .. } = &self.header;
        writeln!(f, "{}: cluster {cluster}, disk {disk}, generation {generation}", self.path.display())?;
        for SlotReport { slot, owner, content } in &self.slots {
            let owner = owner.as_ref().map_or("(free)", NodeName::as_str);
            writeln!(f, "  slot {slot:<2}  {owner:<16}  {content}")?;
        }
        Ok(())
    }
}

impl fmt::Display for SlotContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SlotContent::Empty => f.write_str("never written"),
            SlotContent::Torn => f.write_str("torn, or of an earlier generation"),
            SlotContent::Foreign => f.write_str("not a heartbeat of its owner"),
            SlotContent::Heartbeat { boot, incarnation, sequence, authentic } => {
                let signed = match authentic {
                    Some(true) => "",
                    Some(false) => ", signed with another key",
                    None => ", signature not checked",
                };
                write!(f, "incarnation {incarnation}, sequence {sequence}, boot {boot}{signed}")
            }
        }
    }
}

#[cfg(test)]
#[path = "disk_admin_test.rs"]
mod tests;
