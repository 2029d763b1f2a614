//! What viewers ask for: paths, queries, names of files.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fieldgate_proto::segment::target::fuzz(bytes);
    fieldgate_proto::segment::names::fuzz(bytes);
});
