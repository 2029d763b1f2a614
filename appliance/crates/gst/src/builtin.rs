//! The plugins that a static build has inside, and their registration.
//!
//! `scripts/build-static` reads the names here to know what to link, and sets `cfg(fieldgate_static)`; with
//! `cfg(fieldgate_va)`, for a program that takes libc and libva from the system, VA-API too, whose drivers are shared
//! objects. No other build has anything inside.

/// Declares what each plugin's registration is called; `static` libraries of GStreamer export one function each.
macro_rules! plugins {
    ($($register:ident)* ; with libva: $($va:ident)*) => {
        #[cfg(fieldgate_static)]
        #[allow(unsafe_code, reason = "GStreamer's own way to link plugins in; each takes nothing and may be called twice")]
        mod linked {
            unsafe extern "C" {
                $(safe fn $register();)*
                $(#[cfg(fieldgate_va)] safe fn $va();)*
            }
            pub(super) fn register() {
                $($register();)*
                $(#[cfg(fieldgate_va)] $va();)*
            }
        }

        #[cfg(test)]
        const REGISTRATIONS: &[&str] = &[$(stringify!($register),)* $(stringify!($va)),*];
    };
}

plugins! {
    gst_plugin_alaw_register
    gst_plugin_app_register
    gst_plugin_audioconvert_register
    gst_plugin_audioparsers_register
    gst_plugin_audioresample_register
    gst_plugin_audiotestsrc_register
    gst_plugin_coreelements_register
    gst_plugin_flv_register
    gst_plugin_isomp4_register
    gst_plugin_jpeg_register
    gst_plugin_matroska_register
    gst_plugin_mpegtsdemux_register
    gst_plugin_mulaw_register
    gst_plugin_openh264_register
    gst_plugin_opus_register
    gst_plugin_opusparse_register
    gst_plugin_rtp_register
    gst_plugin_rtpmanager_register
    gst_plugin_rtsp_register
    gst_plugin_udp_register
    gst_plugin_video4linux2_register
    gst_plugin_videoconvertscale_register
    gst_plugin_videoparsersbad_register
    gst_plugin_videotestsrc_register
    gst_plugin_voaacenc_register
    gst_plugin_volume_register
    ; with libva:
    gst_plugin_va_register
}

/// Whether the plugins are part of this program; then there are no others.
pub(crate) const fn is_static() -> bool {
    cfg!(fieldgate_static)
}

/// Starts GStreamer, with the plugins inside where there are any.
pub(crate) fn init() -> Result<(), gst::glib::Error> {
    gst::init()?;
    #[cfg(fieldgate_static)]
    linked::register();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elements;

    /// Plugins of the list that a static build does without.
    const LEFT_OUT: &[(&str, &str)] = &[
        ("alsa", "libasound reads its configuration and opens its plugins as files of the system"),
        ("de265", "only the libraries that every gateway needs"),
        ("faad", "GPL"),
        ("fdkaac", "a licence that is not free"),
        ("libav", "FFmpeg: size, and licences that depend on how it is built"),
        ("libcamera", "it opens the code for each image processor as a file of the system"),
        ("v4l2codecs", "needs libgudev and libudev, which cannot be linked in"),
        ("vaapi", "its drivers are shared objects"),
        ("x264", "GPL"),
    ];

    #[test]
    fn a_static_build_has_every_plugin_of_the_list_that_it_may_have() {
        let has = |plugin: &str| REGISTRATIONS.contains(&format!("gst_plugin_{plugin}_register").as_str());
        for plugin in elements::plugins() {
            let left_out = LEFT_OUT.iter().any(|(name, _)| *name == plugin);
            assert_ne!(has(plugin), left_out, "{plugin}");
        }
        for register in REGISTRATIONS {
            let plugin = register.trim_start_matches("gst_plugin_").trim_end_matches("_register");
            assert!(elements::plugins().any(|listed| listed == plugin), "{plugin} is of no use");
        }
    }
}
