//! The layout of the shared disk: a header block, then one block per slot. Pure: bytes in, bytes out.
//!
//! Every block has 4096 bytes and ends with the CRC-32 of the rest. The header names the cluster, the disk (a random
//! id), its generation and the owner of each slot. A slot carries one heartbeat, which brings its own signature
//! (`wire.rs`), and names disk, generation and slot, so that a block copied from elsewhere is not taken for one.
//! Numbers are big-endian.

use crate::types::{ClusterId, NodeName, Quoted};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The size and alignment of everything on the disk.
pub const BLOCK: usize = 4096;
/// No disk has more slots.
pub const SLOTS_MAX: usize = 32;
/// The longest heartbeat that fits into a slot.
pub const PAYLOAD_MAX: usize = BLOCK - SLOT_PREFIX - CRC;

const HEADER_MAGIC: &[u8; 8] = b"regentDK";
const SLOT_MAGIC: &[u8; 8] = b"regentSL";
const VERSION: u16 = 1;
const CRC: usize = 4;
const SLOT_PREFIX: usize = 8 + 2 + 16 + 8 + 2 + 4;
const _: () = assert!(super::wire::MAX_LEN <= PAYLOAD_MAX, "every heartbeat fits into a slot");

/// One disk, by a random number written when it was initialised.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct DiskId(pub [u8; 16]);

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<DiskId> for String {
    fn from(id: DiskId) -> String {
        id.to_string()
    }
}

impl TryFrom<String> for DiskId {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let number = u128::from_str_radix(&text, 16).ok().filter(|_| text.len() == 32);
        let number =
            number.ok_or_else(|| format!("{} is not a disk id: expected 32 hexadecimal digits", Quoted(&text)))?;
        Ok(DiskId(number.to_be_bytes()))
    }
}

/// The first block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Header {
    pub cluster: ClusterId,
    pub disk: DiskId,
    /// Grows each time the same disk is initialised again.
    pub generation: u64,
    /// The owner of each slot, `None` = free.
    pub slots: Vec<Option<NodeName>>,
}

/// A first block that is no header of this cluster's disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("it is empty: run `regent disk init` on one node")]
    Empty,
    #[error("it is not a regent disk")]
    Foreign,
    #[error("its header has format {found}, this program knows {VERSION}")]
    Version { found: u16 },
    #[error("its header is damaged")]
    Damaged,
}

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot<'a> {
    /// Nothing was ever written.
    Empty,
    /// Half-written, damaged, or not of this disk: no sign of life, and no error.
    Torn,
    /// A signed heartbeat.
    Full(&'a [u8]),
}

/// Where the slots begin: the header takes one block.
pub fn slot_offset(index: usize) -> usize {
    (1 + index) * BLOCK
}

/// How many bytes a disk with this many slots uses.
pub fn disk_len(slots: usize) -> usize {
    slot_offset(slots)
}

impl Header {
    /// The slot of `node`.
    pub fn slot_of(&self, node: &NodeName) -> Option<usize> {
        self.slots.iter().position(|owner| owner.as_ref() == Some(node))
    }

    /// The header as a block. At most [`SLOTS_MAX`] slots and 255 bytes of cluster id.
    pub fn encode(&self) -> Block {
        assert!(self.slots.len() <= SLOTS_MAX, "{} slots", self.slots.len());
        let mut out = Writer::new();
        out.put(HEADER_MAGIC);
        out.put(&VERSION.to_be_bytes());
        out.put(&self.disk.0);
        out.put(&self.generation.to_be_bytes());
        out.text(&self.cluster.0);
        out.put(&[u8::try_from(self.slots.len()).expect("at most SLOTS_MAX")]);
        for owner in &self.slots {
            out.text(owner.as_ref().map_or("", NodeName::as_str));
        }
        out.finish()
    }

    /// Reads a first block.
    pub fn decode(block: &[u8; BLOCK]) -> Result<Header, HeaderError> {
        if block.iter().all(|byte| *byte == 0) {
            return Err(HeaderError::Empty);
        }
        let mut rest = block.strip_prefix(HEADER_MAGIC).ok_or(HeaderError::Foreign)?;
        let found = number(&mut rest).map(u16::from_be_bytes).ok_or(HeaderError::Damaged)?;
        if !has_crc(block) {
            return Err(HeaderError::Damaged);
        }
        if found != VERSION {
            return Err(HeaderError::Version { found });
        }
        Self::read(rest).ok_or(HeaderError::Damaged)
    }

    fn read(mut rest: &[u8]) -> Option<Header> {
        let disk = DiskId(number(&mut rest)?);
        let generation = u64::from_be_bytes(number(&mut rest)?);
        let cluster = ClusterId(text(&mut rest)?.to_owned());
        let [count] = number(&mut rest)?;
        let mut slots = Vec::new();
        for _ in 0..count {
            let owner = text(&mut rest)?;
            slots.push(if owner.is_empty() { None } else { Some(owner.parse().ok()?) });
        }
        (slots.len() <= SLOTS_MAX).then_some(Header { cluster, disk, generation, slots })
    }

    /// A slot's block with a heartbeat of at most [`PAYLOAD_MAX`] bytes.
    pub fn encode_slot(&self, index: usize, heartbeat: &[u8]) -> Block {
        let mut out = Writer::new();
        out.put(&self.slot_prefix(index));
        out.put(&u32::try_from(heartbeat.len()).expect("at most PAYLOAD_MAX").to_be_bytes());
        out.put(heartbeat);
        out.finish()
    }

    /// Reads a slot's block.
    pub fn decode_slot<'a>(&self, index: usize, block: &'a [u8; BLOCK]) -> Slot<'a> {
        if block.iter().all(|byte| *byte == 0) {
            return Slot::Empty;
        }
        let payload = || {
            let mut rest = block.strip_prefix(self.slot_prefix(index).as_slice())?;
            let len = usize::try_from(u32::from_be_bytes(number(&mut rest)?)).ok()?;
            (len <= PAYLOAD_MAX).then(|| &rest[..len])
        };
        payload().filter(|_| has_crc(block)).map_or(Slot::Torn, Slot::Full)
    }

    fn slot_prefix(&self, index: usize) -> [u8; SLOT_PREFIX - 4] {
        let mut prefix = [0; SLOT_PREFIX - 4];
        prefix[..8].copy_from_slice(SLOT_MAGIC);
        prefix[8..10].copy_from_slice(&VERSION.to_be_bytes());
        prefix[10..26].copy_from_slice(&self.disk.0);
        prefix[26..34].copy_from_slice(&self.generation.to_be_bytes());
        prefix[34..].copy_from_slice(&u16::try_from(index).expect("at most SLOTS_MAX").to_be_bytes());
        prefix
    }
}

/// One block's bytes.
pub type Block = [u8; BLOCK];

struct Writer {
    block: Block,
    len: usize,
}

impl Writer {
    fn new() -> Self {
        Writer { block: [0; BLOCK], len: 0 }
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        assert!(end <= BLOCK - CRC, "a block of {end} bytes");
        self.block[self.len..end].copy_from_slice(bytes);
        self.len = end;
    }

    fn text(&mut self, text: &str) {
        self.put(&[u8::try_from(text.len()).expect("cluster ids have at most 255 bytes, node names 63")]);
        self.put(text.as_bytes());
    }

    fn finish(mut self) -> Block {
        let crc = crc32fast::hash(&self.block[..BLOCK - CRC]);
        self.block[BLOCK - CRC..].copy_from_slice(&crc.to_be_bytes());
        self.block
    }
}

fn has_crc(block: &Block) -> bool {
    crc32fast::hash(&block[..BLOCK - CRC]).to_be_bytes() == block[BLOCK - CRC..]
}

fn number<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (found, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*found)
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let [len] = number(rest)?;
    let (found, after) = rest.split_at_checked(usize::from(len))?;
    *rest = after;
    std::str::from_utf8(found).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        let owners = ["db1", "db2", "w1"];
        let mut slots: Vec<_> = owners.iter().map(|name| Some(name.parse().unwrap())).collect();
        slots.push(None);
        Header { cluster: ClusterId("orders".into()), disk: DiskId([7; 16]), generation: 3, slots }
    }

    #[test]
    fn the_largest_header_fits() {
        let slots = (0..SLOTS_MAX).map(|i| Some(format!("{i:0>63}").parse().unwrap())).collect();
        let header = Header { cluster: ClusterId("x".repeat(255)), slots, ..header() };
        assert_eq!(Header::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn a_header_that_is_not_ours_is_told_from_a_damaged_one() {
        assert_eq!(Header::decode(&[0; BLOCK]), Err(HeaderError::Empty));
        assert_eq!(Header::decode(&[b'x'; BLOCK]), Err(HeaderError::Foreign));
        let mut newer = header().encode();
        newer[9] = 2;
        let crc = crc32fast::hash(&newer[..BLOCK - CRC]).to_be_bytes();
        newer[BLOCK - CRC..].copy_from_slice(&crc);
        assert_eq!(Header::decode(&newer), Err(HeaderError::Version { found: 2 }));
    }

    #[test]
    fn a_slot_of_another_disk_generation_or_place_is_none() {
        let block = header().encode_slot(1, b"beat");
        assert_eq!(header().decode_slot(1, &block), Slot::Full(b"beat"));
        assert_eq!(header().decode_slot(2, &block), Slot::Torn);
        assert_eq!(Header { generation: 4, ..header() }.decode_slot(1, &block), Slot::Torn);
        assert_eq!(Header { disk: DiskId([8; 16]), ..header() }.decode_slot(1, &block), Slot::Torn);
        assert_eq!(header().decode_slot(1, &[0; BLOCK]), Slot::Empty);
        let full = [9; PAYLOAD_MAX];
        assert_eq!(header().decode_slot(0, &header().encode_slot(0, &full)), Slot::Full(&full));
    }

    #[test]
    fn a_disk_id_is_written_as_it_is_read() {
        let id = DiskId([0x0a; 16]);
        assert_eq!(DiskId::try_from(id.to_string()), Ok(id));
        assert!(DiskId::try_from("xyz".to_owned()).is_err());
    }

    proptest! {
        /// A write that stopped in the middle leaves the head of the new block and the tail of the old one.
        #[test]
        fn a_torn_slot_is_no_sign_of_life(cut in 1usize..BLOCK) {
            let (old, new) = (header().encode_slot(0, &[1; 900]), header().encode_slot(0, &[2; 901]));
            let mut torn = old;
            torn[..cut].copy_from_slice(&new[..cut]);
            let slot = header().decode_slot(0, &torn);
            prop_assert!(slot == Slot::Torn || torn == old || torn == new, "cut at {}", cut);
        }

        #[test]
        fn a_flipped_bit_spoils_the_header(bit in 0..BLOCK * 8) {
            let mut block = header().encode();
            block[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Header::decode(&block).is_err());
        }

        #[test]
        fn arbitrary_blocks_never_panic(bytes in proptest::collection::vec(any::<u8>(), 200), sound in any::<bool>()) {
            let mut block = [0; BLOCK];
            block[..8].copy_from_slice(HEADER_MAGIC);
            block[8..10].copy_from_slice(&VERSION.to_be_bytes());
            block[10..210].copy_from_slice(&bytes);
            if sound {
                let crc = crc32fast::hash(&block[..BLOCK - CRC]).to_be_bytes();
                block[BLOCK - CRC..].copy_from_slice(&crc);
            }
            let _ = Header::decode(&block);
            prop_assert_eq!(header().decode_slot(0, &block), Slot::Torn);
        }
    }
}
