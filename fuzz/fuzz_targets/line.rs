//! See `gatepost_fuzz::line`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gatepost_fuzz::line(data));
