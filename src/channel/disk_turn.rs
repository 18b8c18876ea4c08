//! One turn of the disk thread: check the header, write the own slot, read everything, deliver what moved.

use super::disk::TurnEnd;
use super::disk_file::DiskFile;
use super::disk_format::{Block, DiskId, Header, SLOTS_MAX, Slot};
use super::gate::Refusal;
use super::intake::{Arrival, Intake};
use crate::clock;
use crate::types::{ChannelName, Instant};
use std::io;
use std::path::PathBuf;

/// What the thread keeps between turns.
pub(super) struct Turn {
    name: ChannelName,
    path: PathBuf,
    /// The disk that the ledger names.
    expected: Option<DiskId>,
    intake: Intake,
    file: Option<DiskFile>,
    /// The header last accepted.
    header: Option<Header>,
    /// The own slot as it was last written under that header.
    written: Option<Block>,
    /// The newest own heartbeat: written again when the slot has moved.
    own: Option<Vec<u8>>,
    /// What was last seen in each slot.
    seen: Vec<Option<Vec<u8>>>,
}

impl Turn {
    pub(super) fn new(name: ChannelName, path: PathBuf, expected: Option<DiskId>, intake: Intake) -> Self {
        Turn {
            name,
            path,
            expected,
            intake,
            file: None,
            header: None,
            written: None,
            own: None,
            seen: vec![None; SLOTS_MAX],
        }
    }

    /// Does one turn; `doing` is told before each call that may hang.
    pub(super) fn run(&mut self, heartbeat: Option<Vec<u8>>, mut doing: impl FnMut(&'static str)) -> TurnEnd {
        let fresh = heartbeat.is_some();
        self.own = heartbeat.or(self.own.take());
        let end = self.attempt(fresh, &mut doing);
        end.unwrap_or_else(|(what, error)| {
            // Opened anew next time: another path to the disk, or a disk that came back, shows then.
            self.file = None;
            TurnEnd::Failed { why: format!("{what} failed: {}: {error}", self.path.display()) }
        })
    }

    fn attempt(
        &mut self,
        fresh: bool,
        doing: &mut impl FnMut(&'static str),
    ) -> Result<TurnEnd, (&'static str, io::Error)> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => {
                doing("opening the disk");
                DiskFile::open(&self.path, false).map_err(|e| ("opening the disk", e))?
            }
        };
        if self.header.is_none() {
            doing("reading the header");
            let first = file.read(0).map_err(|e| ("reading the header", e))?[0];
            if let Err(why) = self.accept(&first) {
                self.file = Some(file);
                return Ok(TurnEnd::Foreign { why });
            }
        }
        let header = self.header.clone().expect("accepted above or in an earlier turn");
        let Some(slot) = header.slot_of(&self.intake.gate().me) else {
            let end = self.claim(&mut file, header, doing);
            self.file = Some(file);
            return end;
        };
        if let Some(own) = self.own.as_ref().filter(|_| fresh || self.written.is_none()) {
            doing("writing a heartbeat");
            let block = header.encode_slot(slot, own);
            file.write(1 + slot, &block).map_err(|e| ("writing a heartbeat", e))?;
            self.written = Some(block);
        }
        doing("reading the slots");
        // What is read may have been written at any time until now: a slow read must not make it look newer.
        let at = clock::now();
        let blocks = file.read(header.slots.len()).map_err(|e| ("reading the slots", e))?.to_vec();
        self.file = Some(file);
        if let Err(why) = self.accept(&blocks[0]) {
            return Ok(TurnEnd::Foreign { why });
        }
        if self.header.as_ref() != Some(&header) {
            // Changed meanwhile: what was read belongs to an old order of slots. The next turn knows the new one.
            return Ok(TurnEnd::NothingWritten);
        }
        if !self.deliver(&header, slot, &blocks[1..], at) {
            return Ok(TurnEnd::Closed);
        }
        Ok(match &self.written {
            None => TurnEnd::NothingWritten,
            Some(written) if *written == blocks[1 + slot] => {
                TurnEnd::ReadBack { disk: header.disk, generation: header.generation }
            }
            Some(_) => TurnEnd::Failed { why: format!("slot {slot} does not read back: does another host write it?") },
        })
    }

    /// Takes over the header if it is of our disk; else says why it is not, and forgets the one before.
    fn accept(&mut self, block: &Block) -> Result<(), String> {
        let path = self.path.display();
        let found = Header::decode(block).map_err(|error| format!("{path}: {error}"))?;
        let ours = &self.intake.gate().cluster;
        if found.cluster != *ours {
            return Err(format!("{path}: it is the disk of cluster {}, this is {ours}", found.cluster));
        }
        let before = self.header.as_ref().map(|h| (h.disk, h.generation));
        let expected = self.expected.or(before.map(|(disk, _)| disk));
        if let Some(expected) = expected.filter(|expected| *expected != found.disk) {
            return Err(format!("{path}: it is disk {}, expected {expected}: was it replaced?", found.disk));
        }
        if let Some((_, known)) = before.filter(|(_, known)| found.generation < *known) {
            let older = found.generation;
            return Err(format!("{path}: its header is an old one, generation {older} after {known}"));
        }
        if self.header.as_ref() != Some(&found) {
            self.seen.fill(None);
            self.written = None;
            self.header = Some(found);
        }
        Ok(())
    }

    /// Takes a free slot. Another node may take the same one in the same instant; who is overwritten does not find its
    /// name in a later turn and takes another.
    fn claim(
        &mut self,
        file: &mut DiskFile,
        mut header: Header,
        doing: &mut impl FnMut(&'static str),
    ) -> Result<TurnEnd, (&'static str, io::Error)> {
        let me = self.intake.gate().me.clone();
        doing("reading the header");
        let now = file.read(0).map_err(|e| ("reading the header", e))?[0];
        if let Err(why) = self.accept(&now) {
            return Ok(TurnEnd::Foreign { why });
        }
        if self.header.as_ref() != Some(&header) {
            return Ok(TurnEnd::NothingWritten);
        }
        let Some(free) = header.slots.iter_mut().find(|owner| owner.is_none()) else {
            let path = self.path.display();
            let why = format!("{path}: it has no slot for {me} and no free one: initialise it with all node names");
            return Ok(TurnEnd::Foreign { why });
        };
        *free = Some(me);
        doing("claiming a slot");
        file.write(0, &header.encode()).map_err(|e| ("claiming a slot", e))?;
        let back = file.read(0).map_err(|e| ("reading the header", e))?[0];
        match self.accept(&back) {
            Ok(()) => Ok(TurnEnd::NothingWritten),
            Err(why) => Ok(TurnEnd::Foreign { why }),
        }
    }

    /// Delivers every peer's heartbeat that differs from the one last seen. False when nobody takes them any more.
    fn deliver(&mut self, header: &Header, own: usize, slots: &[Block], at: Instant) -> bool {
        for (slot, block) in slots.iter().enumerate() {
            let Some(owner) = header.slots[slot].as_ref().filter(|_| slot != own) else { continue };
            let Slot::Full(bytes) = header.decode_slot(slot, block) else { continue };
            if self.seen[slot].as_deref() == Some(bytes) {
                continue;
            }
            self.seen[slot] = Some(bytes.to_vec());
            let admitted = self.intake.admit(bytes).and_then(|heartbeat| {
                if heartbeat.node == *owner {
                    Ok(heartbeat)
                } else {
                    Err(Refusal::ForeignSlot { node: heartbeat.node, owner: owner.clone() })
                }
            });
            match admitted {
                Ok(heartbeat) => {
                    let arrival = Arrival { channel: self.name.clone(), at, from: None, heartbeat };
                    if !self.intake.deliver_now(arrival) {
                        return false;
                    }
                }
                Err(refusal) => self.intake.refuse(at, &self.name, None, &refusal),
            }
        }
        true
    }
}
