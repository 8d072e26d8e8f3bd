//! See `gatepost_fuzz::command`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gatepost_fuzz::command(data));
