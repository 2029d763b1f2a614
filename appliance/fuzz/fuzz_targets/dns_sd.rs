//! Multicast DNS of strangers.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fieldgate_proto::dns_sd::fuzz(bytes));
