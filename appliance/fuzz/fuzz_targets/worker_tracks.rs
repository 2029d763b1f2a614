//! Track lists as a broken worker may send them.
#![no_main]

use bytes::Bytes;
use fieldgate_hub::link::{decode_tracks, encode_tracks};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(tracks) = decode_tracks(&Bytes::copy_from_slice(bytes)) {
        let again = decode_tracks(&encode_tracks(&tracks)).expect("what was encoded decodes");
        assert_eq!(again, tracks);
    }
});
