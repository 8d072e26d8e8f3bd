//! See `gatepost_fuzz::stuffing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gatepost_fuzz::stuffing(data));
