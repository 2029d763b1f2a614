//! Chunk streams of a hostile peer, and what our writer writes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fieldgate_proto::rtmp::fuzz::chunk_reader(bytes);
    fieldgate_proto::rtmp::fuzz::chunk_round_trip(bytes);
});
