//! See `gatepost_fuzz::log`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gatepost_fuzz::log(data));
