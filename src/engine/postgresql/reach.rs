//! Whether the WAL of a directory reaches a position. Answered from the segment that holds the position: its pages name
//! their own place, and each record names the one before it, so what an earlier use of the file left is not taken for WAL.
//! A few small reads, wherever the WAL begins and ends.
//!
//! A position within a record that never became whole is reached where that record begins and its page was begun: a
//! standby receives WAL in pieces that end anywhere. What follows a switch of the segment is nothing, up to the next one.
//!
//! Not here: where that WAL ends (`end.rs`), and what follows from it (`older.rs`).
//!
//! Sources: `xlog_internal.h` (`XLogPageHeaderData`, `XLogLongPageHeaderData`) and `xlogrecord.h` (`XLogRecord`).

use super::control::record_end;
use crate::types::Lsn;

/// The lengths of a page's header: of any page, and of the first one of a segment.
const HEADER: u64 = 24;
const LONG_HEADER: u64 = 40;
/// A page whose first bytes end a record that began before it.
const CONTINUES: u16 = 1;
/// No record is shorter than its header.
const LEAST_RECORD: u32 = 24;
/// A switch of the segment: the resource manager and the kind of the record.
const SWITCH: (u8, u8) = (0, 0x40);

/// How the WAL is cut, which a directory keeps for life.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub segment: u64,
    pub block: u64,
}

/// What a record's header says, as far as it is there.
struct Record {
    length: u32,
    previous: Option<u64>,
    switches: bool,
}

/// The WAL of one timeline: `read` fills its argument from that position on, and says whether so much is there.
pub struct Wal<R> {
    pub cut: Cut,
    pub read: R,
}

impl<E, R: FnMut(Lsn, &mut [u8]) -> Result<bool, E>> Wal<R> {
    /// Whether everything before `end` is there.
    pub fn reaches(&mut self, end: Lsn) -> Result<bool, E> {
        let Some(last) = end.0.checked_sub(1) else { return Ok(true) };
        let page = last - last % self.cut.block;
        let is_there = self.header(page)?.is_some();
        if end.0 <= page + self.header_length(page) {
            // No byte of a record lies between: where this page was not begun, the one before must be whole.
            return if is_there { Ok(true) } else { self.reaches(Lsn(page)) };
        }
        let Some(from) = self.record_before(page)? else { return Ok(is_there) };
        if self.walk(from, end.0, is_there)? {
            return Ok(true);
        }
        // What ended the page before may be the switch itself, of which the rest is all that this page has.
        let begun = from - from % self.cut.block;
        if begun.is_multiple_of(self.cut.segment) || from == begun + HEADER {
            return Ok(false);
        }
        let Some(earlier) = self.record_before(begun - self.cut.block)? else { return Ok(false) };
        self.walk(earlier, end.0, is_there)
    }

    /// Where the walk begins: the first record of the latest page in the segment, up to this one, that was begun and in
    /// which a record begins. `None`: one record fills all of it.
    fn record_before(&mut self, page: u64) -> Result<Option<u64>, E> {
        let mut at = page;
        loop {
            if let Some((info, rest)) = self.header(at)? {
                let begins = at + self.header_length(at);
                let first = if info & CONTINUES == 0 { begins } else { begins + u64::from(rest).next_multiple_of(8) };
                if first < at + self.cut.block {
                    return Ok(Some(first));
                }
            }
            if at.is_multiple_of(self.cut.segment) {
                return Ok(None);
            }
            at -= self.cut.block;
        }
    }

    /// Goes from record to record. Where the page of the end was not begun, only a switch of the segment leads there.
    fn walk(&mut self, from: u64, end: u64, page_is_there: bool) -> Result<bool, E> {
        let (mut at, mut before) = (from, None);
        while at < end {
            if at.is_multiple_of(self.cut.block) {
                at += self.header_length(at);
            }
            let Some(record) = self.record(at)? else { return Ok(false) };
            let follows =
                record.previous.is_none_or(|previous| before.map_or(previous < at, |true_one| previous == true_one));
            if record.length < LEAST_RECORD || !follows {
                return Ok(false);
            }
            before = Some(at);
            at = match record.switches {
                true => (at + 1).next_multiple_of(self.cut.segment),
                false => record_end(Lsn(at), record.length, self.cut.segment, self.cut.block).0,
            };
            if at >= end {
                return Ok(record.switches || page_is_there);
            }
        }
        Ok(page_is_there)
    }

    /// The record that begins here; `None` where its page was not begun.
    fn record(&mut self, at: u64) -> Result<Option<Record>, E> {
        let Some(head) = self.word(at)? else { return Ok(None) };
        let second = self.next_word(at);
        let third = self.next_word(second);
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]);
        let previous = self.word(second)?.map(u64::from_ne_bytes);
        let kind = self.word(third)?;
        let switches = kind.is_some_and(|kind| (kind[1], kind[0] & 0xF0) == SWITCH);
        Ok(Some(Record { length, previous, switches }))
    }

    /// Where the eight bytes after these lie: a page's header may come between.
    fn next_word(&self, at: u64) -> u64 {
        let next = at + 8;
        if next.is_multiple_of(self.cut.block) { next + self.header_length(next) } else { next }
    }

    /// Eight bytes of a record; `None` where their page was not begun.
    fn word(&mut self, at: u64) -> Result<Option<[u8; 8]>, E> {
        if self.header(at - at % self.cut.block)?.is_none() {
            return Ok(None);
        }
        let mut bytes = [0; 8];
        Ok((self.read)(Lsn(at), &mut bytes)?.then_some(bytes))
    }

    /// The flags of the page and how much of a record continues there; `None` where it was not begun.
    fn header(&mut self, page: u64) -> Result<Option<(u16, u32)>, E> {
        let mut bytes = [0; 20];
        if !(self.read)(Lsn(page), &mut bytes)? {
            return Ok(None);
        }
        let [m0, m1, i0, i1, _, _, _, _, rest @ ..] = bytes;
        let [a0, a1, a2, a3, a4, a5, a6, a7, r0, r1, r2, r3] = rest;
        let named = u64::from_ne_bytes([a0, a1, a2, a3, a4, a5, a6, a7]);
        let is_begun = u16::from_ne_bytes([m0, m1]) != 0 && named == page;
        Ok(is_begun.then(|| (u16::from_ne_bytes([i0, i1]), u32::from_ne_bytes([r0, r1, r2, r3]))))
    }

    fn header_length(&self, page: u64) -> u64 {
        if page.is_multiple_of(self.cut.segment) { LONG_HEADER } else { HEADER }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    const CUT: Cut = Cut { segment: 64 << 10, block: 8 << 10 };

    /// Writes records as PostgreSQL does, from the beginning of the second segment on.
    struct Writer {
        bytes: Vec<u8>,
        at: u64,
        before: u64,
    }

    impl Writer {
        fn new() -> Writer {
            Writer { bytes: vec![0; 256 << 10], at: CUT.segment, before: CUT.segment - 32 }
        }

        fn begin_page(&mut self, rest: u64) {
            let (page, info) = (self.at, u16::from(rest > 0));
            let length = if page.is_multiple_of(CUT.segment) { 40 } else { 24 };
            self.put(&[&0xD110_u16.to_ne_bytes()[..], &info.to_ne_bytes(), &1_u32.to_ne_bytes()].concat());
            self.put(&[&page.to_ne_bytes()[..], &u32::try_from(rest).expect("small").to_ne_bytes()].concat());
            self.at = page + length;
        }

        fn put(&mut self, bytes: &[u8]) {
            let at = usize::try_from(self.at).expect("small");
            self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
            self.at += bytes.len() as u64;
        }

        /// Brings where it begins and where it ends.
        fn record(&mut self, length: u64, kind: (u8, u8)) -> (Lsn, Lsn) {
            if self.at.is_multiple_of(CUT.block) {
                self.begin_page(0);
            }
            let (begins, tail) = (self.at, [kind.1, kind.0, 0, 0, 9, 9, 9, 9]);
            let head = [u32::try_from(length).expect("small").to_ne_bytes(), [7; 4]].concat();
            let mut body = [&head[..], &self.before.to_ne_bytes(), &tail].concat();
            body.resize(usize::try_from(length.next_multiple_of(8)).expect("small"), 0xAB);
            let mut rest = &body[..];
            while !rest.is_empty() {
                if self.at.is_multiple_of(CUT.block) {
                    self.begin_page(length - (body.len() - rest.len()) as u64);
                }
                let room = usize::try_from(CUT.block - self.at % CUT.block).expect("small").min(rest.len());
                self.put(&rest[..room]);
                rest = &rest[room..];
            }
            self.before = begins;
            (Lsn(begins), Lsn(self.at))
        }

        fn switch(&mut self) -> Lsn {
            let (_, end) = self.record(24, SWITCH);
            self.at = end.0.next_multiple_of(CUT.segment);
            Lsn(self.at)
        }

        fn reaches(&self, end: Lsn) -> bool {
            let read = |at: Lsn, into: &mut [u8]| {
                let at = usize::try_from(at.0).expect("small");
                let found = self.bytes.get(at..at + into.len());
                found.inspect(|found| into.copy_from_slice(found));
                Ok::<_, Infallible>(found.is_some())
            };
            Wal { cut: CUT, read }.reaches(end).expect("it cannot fail")
        }
    }

    const ROW: (u8, u8) = (10, 0);

    #[test]
    fn wal_reaches_up_to_its_last_record_and_no_further() {
        let mut wal = Writer::new();
        // Odd lengths, so that records cross pages in every way; one is longer than two pages.
        for length in (0..400).map(|i| if i == 200 { 20_000 } else { 24 + i % 190 }) {
            let (_, end) = wal.record(length, ROW);
            assert!(wal.reaches(end) && wal.reaches(Lsn(end.0 - 9)), "{length} at {end}");
            assert!(!wal.reaches(Lsn(end.0 + 64)), "{length} at {end}");
            assert!(!wal.reaches(Lsn(end.0 + CUT.segment)), "{length} at {end}");
        }
    }

    #[test]
    fn what_an_earlier_use_of_the_file_left_is_no_wal() {
        let mut wal = Writer::new();
        let ends: Vec<Lsn> = (0..20).map(|_| wal.record(100, ROW).1).collect();
        // The same bytes lie on: but the record before them is another one.
        let cut = usize::try_from(ends[9].0).expect("small");
        wal.bytes[cut + 8..cut + 16].copy_from_slice(&77_u64.to_ne_bytes());
        assert!(wal.reaches(ends[9]) && !wal.reaches(ends[10]) && !wal.reaches(ends[19]));
    }

    #[test]
    fn a_position_within_a_record_that_never_became_whole_is_reached_where_its_page_was_begun() {
        let mut wal = Writer::new();
        wal.record(7000, ROW);
        let (begins, end) = wal.record(30_000, ROW);
        let torn = begins.0.next_multiple_of(CUT.block) + CUT.block;
        let cut = usize::try_from(torn).expect("small");
        wal.bytes[cut..].fill(0);
        assert!(wal.reaches(Lsn(torn)) && wal.reaches(begins) && wal.reaches(Lsn(torn - 100)));
        assert!(!wal.reaches(end) && !wal.reaches(Lsn(torn + 100)));
    }

    #[test]
    fn after_a_switch_the_rest_of_the_segment_is_there() {
        for length in [100, 8192 - 40 - 8, 8192 - 40 - 16, 8192 - 40] {
            let mut wal = Writer::new();
            let (_, before) = wal.record(length, ROW);
            assert!(!wal.reaches(Lsn(2 * CUT.segment)), "nothing was switched yet");
            let next = wal.switch();
            assert_eq!(next, Lsn(2 * CUT.segment));
            assert!(wal.reaches(next) && wal.reaches(Lsn(before.0 + 30_000)), "{length}");
            assert!(!wal.reaches(Lsn(next.0 + 100)), "{length}");
            let (_, end) = wal.record(100, ROW);
            assert!(wal.reaches(end) && wal.reaches(next), "{length}");
        }
    }

    #[test]
    fn a_directory_without_that_wal_does_not_reach_it() {
        assert!(!Writer::new().reaches(Lsn(CUT.segment + 500)));
        assert!(!Writer::new().reaches(Lsn(1 << 40)));
    }
}
