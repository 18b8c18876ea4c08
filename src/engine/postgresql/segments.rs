//! Which segments of a directory hold the WAL of one line of history, and which of them are missing. Decided from names.
//!
//! Not here: what is in them (`lost.rs`).

use super::control::{segment_name, segment_start};
use crate::types::{Lsn, MissingWal, Timeline};
use std::collections::BTreeMap;

/// Segments in a row whose files have the number of one timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub timeline: Timeline,
    /// Counted from the beginning of the WAL.
    pub first: u64,
    pub last: u64,
}

/// What of the wanted WAL is there, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cover {
    pub stretches: Vec<Stretch>,
    pub missing: Vec<MissingWal>,
}

/// The WAL that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub from: Lsn,
    /// `None`: as far as there is any.
    pub end: Option<Lsn>,
    /// A file of a later timeline is another node's.
    pub timeline: Timeline,
}

/// Looks through the names of a directory.
pub fn cover(names: &[String], wanted: &Wanted, size: u64) -> Cover {
    let first = wanted.from.0 / size;
    let mut there: BTreeMap<u64, Timeline> = BTreeMap::new();
    for (timeline, number) in names.iter().filter_map(|name| parse(name, size)) {
        if timeline <= wanted.timeline && number >= first {
            // What its own timeline has was copied from the one before where that ended.
            let newest = there.entry(number).or_insert(timeline);
            *newest = timeline.max(*newest);
        }
    }
    let last = match wanted.end {
        Some(end) => end.0.saturating_sub(1) / size,
        None => there.keys().next_back().copied().unwrap_or(first),
    };
    let mut cover = Cover::default();
    let mut next = first;
    for (number, timeline) in there.into_iter().take_while(|(number, _)| *number <= last) {
        if number > next {
            cover.missing.push(missing(wanted.timeline, next, number - 1, size));
        }
        next = number + 1;
        match cover.stretches.last_mut() {
            Some(stretch) if stretch.timeline == timeline && stretch.last + 1 == number => stretch.last = number,
            _ => cover.stretches.push(Stretch { timeline, first: number, last: number }),
        }
    }
    if next <= last {
        cover.missing.push(missing(wanted.timeline, next, last, size));
    }
    cover
}

/// The name of a segment by its number.
pub fn name(timeline: Timeline, number: u64, size: u64) -> String {
    segment_name(timeline, Lsn(number * size), size).display().to_string()
}

/// Whether this is the name of a segment, whatever its size.
pub fn is_segment(name: &str) -> bool {
    name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn missing(timeline: Timeline, first: u64, last: u64, size: u64) -> MissingWal {
    MissingWal { first: name(timeline, first, size), last: name(timeline, last, size), after: None, why: None }
}

fn parse(name: &str, size: u64) -> Option<(Timeline, u64)> {
    if !is_segment(name) {
        return None;
    }
    let (timeline, place) = name.split_at(8);
    // A name that PostgreSQL gives no segment, and with which nobody could count on.
    let is_none = place.starts_with("FFFFFFFF") || u64::from_str_radix(&place[8..], 16).ok()? >= (1 << 32) / size;
    let start = segment_start(place, size).filter(|_| !is_none)?;
    Some((Timeline(u32::from_str_radix(timeline, 16).ok()?), start.0 / size))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 16 << 20;

    fn covered(names: &[&str], end: Option<u64>) -> Cover {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let wanted = Wanted { from: Lsn(0x300_0148), end: end.map(Lsn), timeline: Timeline(2) };
        cover(&names, &wanted, SIZE)
    }

    fn gaps(cover: &Cover) -> Vec<String> {
        cover.missing.iter().map(|gap| format!("{}-{}", &gap.first[20..], &gap.last[20..])).collect()
    }

    #[test]
    fn all_of_it_is_one_stretch_and_what_came_before_is_not_wanted() {
        let names = [
            "000000020000000000000002",
            "000000020000000000000003",
            "000000020000000000000004",
            "README",
            "00000002.history",
        ];
        let cover = covered(&names, Some(0x400_0100));
        assert_eq!(cover.stretches, [Stretch { timeline: Timeline(2), first: 3, last: 4 }]);
        assert!(cover.missing.is_empty());
    }

    #[test]
    fn a_gap_is_named_wherever_it_is() {
        let all = ["000000020000000000000003", "000000020000000000000004", "000000020000000000000005"];
        let end = Some(0x500_0100);
        assert_eq!(gaps(&covered(&[all[0], all[2]], end)), ["0004-0004"]);
        assert_eq!(gaps(&covered(&[all[0], all[1]], end)), ["0005-0005"]);
        assert_eq!(gaps(&covered(&[all[1], all[2]], end)), ["0003-0003"]);
        assert_eq!(gaps(&covered(&[], end)), ["0003-0005"]);
        assert_eq!(gaps(&covered(&all[..2], Some(0x500_0000))), [""; 0], "it ends with the segment");
    }

    #[test]
    fn a_file_with_a_number_that_no_segment_has_is_none() {
        let cover =
            covered(&["0000000200000000FFFFFFFF", "00000002FFFFFFFF000000FF", "000000020000000000000003"], None);
        assert_eq!((gaps(&cover), cover.stretches.len()), (vec![], 1));
    }

    #[test]
    fn where_nobody_knows_the_end_it_goes_as_far_as_there_are_files() {
        assert_eq!(gaps(&covered(&[], None)), ["0003-0003"]);
        let cover = covered(&["000000020000000000000003", "000000020000000000000006"], None);
        assert_eq!((gaps(&cover), cover.stretches.len()), (vec!["0004-0005".to_owned()], 2));
    }

    #[test]
    fn of_two_timelines_the_later_one_is_read_and_never_one_that_came_after() {
        let names = [
            "000000010000000000000003",
            "000000010000000000000004",
            "000000020000000000000004",
            "000000030000000000000004",
            "000000030000000000000005",
        ];
        let cover = covered(&names, None);
        let stretch = |timeline, number| Stretch { timeline: Timeline(timeline), first: number, last: number };
        assert_eq!(cover.stretches, [stretch(1, 3), stretch(2, 4)]);
        assert!(cover.missing.is_empty(), "the last two are the new primary's");
    }
}
