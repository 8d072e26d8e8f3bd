//! See `gatepost_fuzz::classify`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gatepost_fuzz::classify(data));
