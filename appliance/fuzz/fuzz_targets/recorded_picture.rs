//! Recorded files, read back for their first picture.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fieldgate_proto::segment::fuzz_picture(bytes));
