//! See `gatepost_fuzz::header`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gatepost_fuzz::header(data));
