//! Motion JPEG of cameras over HTTP: parts, their heads, what stands between them; and the heads of JPEG pictures.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fieldgate_proto::multipart::fuzz_multipart(bytes);
    fieldgate_media::jpeg::fuzz_jpeg_shape(bytes);
});
