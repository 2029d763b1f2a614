//! RTSP answers and session descriptions of cameras.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fieldgate_proto::rtsp_probe::fuzz(bytes));
