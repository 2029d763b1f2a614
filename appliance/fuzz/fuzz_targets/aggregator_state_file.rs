//! Old aggregators' state files.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fieldgate_compat::aggregator::fuzz::aggregator_state_file(bytes);
});
