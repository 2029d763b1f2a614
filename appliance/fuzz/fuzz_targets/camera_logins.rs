//! Challenges of cameras, and what is answered to them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fieldgate_proto::onvif::fuzz::challenge(bytes));
