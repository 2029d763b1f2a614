//! AMF0 behind its screen.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fieldgate_proto::rtmp::fuzz::amf0(bytes);
    fieldgate_proto::rtmp::fuzz::amf0_round_trip(bytes);
});
