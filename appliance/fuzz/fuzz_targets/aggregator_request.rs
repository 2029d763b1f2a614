//! Requests to the API of content managers.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fieldgate_compat::aggregator::fuzz::aggregator_request(bytes);
});
