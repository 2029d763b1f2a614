//! Requests to the API that shows KMP sessions.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fieldgate_compat::kmp_control::fuzz::api_request(bytes);
});
