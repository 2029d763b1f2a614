//! Addresses as they stand in a config or in `connect`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fieldgate_proto::rtmp::fuzz::url(bytes);
});
