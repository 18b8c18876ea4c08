//! The fuzz targets' checks on the stable compiler, bounded: arbitrary bytes, and valid inputs with a few changes.
//!
//! Not here: what is checked (`targets.rs`). `make fuzz` runs the same for as long as wanted, led by coverage.
//! `PROPTEST_CASES=10000 cargo test --test fuzz` tries more.

mod memory;
mod targets;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// No call may hold more than so much, plus so many times the length of its input.
const MEMORY_BASE: usize = 2 << 20;
const MEMORY_FACTOR: usize = 512;

fn bounded(target: fn(&[u8]), data: &[u8]) {
    let peak = memory::peak_of(|| target(data));
    assert!(peak <= MEMORY_BASE + MEMORY_FACTOR * data.len(), "{peak} bytes held for an input of {}", data.len());
}

/// One change to an input.
#[derive(Clone, Debug)]
enum Edit {
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize),
    Cut(Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (any::<Index>(), 0u8..8).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        2 => (any::<Index>(), vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        2 => (any::<Index>(), 1usize..40).prop_map(|(at, len)| Edit::Remove(at, len)),
        1 => (any::<Index>(), 1usize..200).prop_map(|(at, len)| Edit::Repeat(at, len)),
        1 => any::<Index>().prop_map(Edit::Cut),
    ]
}

fn change(data: &mut Vec<u8>, edit: &Edit) {
    let whole = data.len();
    if whole == 0 {
        return;
    }
    let from = |at: &Index, len: usize| (at.index(whole), (at.index(whole) + len).min(whole));
    match edit {
        Edit::Flip(at, bit) => data[at.index(whole)] ^= 1 << bit,
        Edit::Insert(at, bytes) => {
            let at = at.index(whole);
            data.splice(at..at, bytes.iter().copied());
        }
        Edit::Remove(at, len) => {
            let (start, end) = from(at, *len);
            data.drain(start..end);
        }
        Edit::Repeat(at, len) => {
            let (start, end) = from(at, *len);
            let part = data[start..end].to_vec();
            data.splice(end..end, part);
        }
        Edit::Cut(at) => data.truncate(at.index(whole)),
    }
}

fn try_all(target: fn(&[u8]), valid: &[Vec<u8>]) {
    for data in valid {
        bounded(target, data);
    }
    let runner = || TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let arbitrary = runner().run(&vec(any::<u8>(), 0..2000), |data| {
        bounded(target, &data);
        Ok(())
    });
    arbitrary.unwrap_or_else(|failed| panic!("{failed}"));
    let changed = runner().run(&(any::<Index>(), vec(edit(), 1..6)), |(which, edits)| {
        let mut data = valid[which.index(valid.len())].clone();
        edits.iter().for_each(|edit| change(&mut data, edit));
        bounded(target, &data);
        Ok(())
    });
    changed.unwrap_or_else(|failed| panic!("{failed}"));
}

#[test]
fn heartbeats() {
    try_all(targets::heartbeat, &targets::valid::heartbeats());
}

#[test]
fn blocks_of_the_shared_disk() {
    try_all(targets::disk_slot, &targets::valid::blocks());
}

#[test]
fn configuration_files() {
    try_all(targets::config, &targets::valid::configs());
}

#[test]
fn what_fence_agents_print() {
    try_all(targets::fence_agent, &targets::valid::metadata());
}

#[test]
fn messages_of_peers() {
    try_all(targets::peer_message, &targets::valid::messages());
}

#[test]
fn the_admin_socket() {
    try_all(targets::admin_request, &targets::valid::requests());
}

/// The meter itself: it sees what is held at a time, and not what is given back.
#[test]
fn memory_is_measured() {
    let kept = memory::peak_of(|| drop(vec![1u8; 100_000]));
    assert!((100_000..110_000).contains(&kept), "{kept}");
    let in_turn = memory::peak_of(|| (0..50).for_each(|_| drop(vec![1u8; 10_000])));
    assert!((10_000..20_000).contains(&in_turn), "{in_turn}");
}
