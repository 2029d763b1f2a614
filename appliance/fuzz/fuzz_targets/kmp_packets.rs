//! KMP packets, both directions, and what we write of them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for (_, target) in fieldgate_proto::kmp::fuzz::TARGETS {
        target(bytes);
    }
});
