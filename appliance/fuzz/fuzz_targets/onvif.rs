//! What cameras and strangers send: announcements, SOAP answers, addresses of services.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fieldgate_proto::onvif::fuzz::announcement(bytes);
    fieldgate_proto::onvif::fuzz::document(bytes);
    fieldgate_proto::onvif::fuzz::service_url(bytes);
    fieldgate_proto::onvif::fuzz::answers(bytes);
});
