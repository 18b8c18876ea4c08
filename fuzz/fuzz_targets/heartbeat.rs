//! A heartbeat as it arrives, fuzzed. What is checked is not here but in tests/fuzz/targets.rs.
#![no_main]

#[path = "../../tests/fuzz/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::heartbeat(data));
