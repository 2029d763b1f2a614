//! FLV tag bodies and FourCC headers.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fieldgate_proto::rtmp::fuzz::flv(bytes);
});
