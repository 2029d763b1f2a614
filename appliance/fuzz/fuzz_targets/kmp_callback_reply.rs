//! Replies of KMP controllers: JSON that decides where tracks go.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fieldgate_compat::kmp_control::fuzz::callback_reply(bytes);
    fieldgate_compat::kmp_control::fuzz::json_round_trip(bytes);
});
