//! See `gatepost_fuzz::path`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gatepost_fuzz::path(data));
