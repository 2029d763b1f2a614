//! Segment files of the spool as a dying disk may give them back.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fieldgate_spool::fuzz::segments(bytes));
