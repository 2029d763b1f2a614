//! Headers of codecs: parameter sets, AudioSpecificConfig and the like.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fieldgate_proto::rtmp::fuzz::codec_headers(bytes);
});
