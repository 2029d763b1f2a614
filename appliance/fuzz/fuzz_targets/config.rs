//! Configs as they are sent: shape, sense, storing, masking.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fieldgate::admin::api::fuzz_config(bytes));
