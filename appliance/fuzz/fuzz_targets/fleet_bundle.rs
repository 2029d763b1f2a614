//! The bundles that strangers send.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fieldgate_fleet::fuzz::bundle(bytes));
