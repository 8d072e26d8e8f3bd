//! See `gatepost_fuzz::session`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gatepost_fuzz::session(data));
