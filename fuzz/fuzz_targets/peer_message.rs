//! What a peer sends over gRPC, fuzzed. What is checked is not here but in tests/fuzz/targets.rs.
#![no_main]

#[path = "../../tests/fuzz/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::peer_message(data));
