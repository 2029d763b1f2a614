//! Building blocks that all pipelines share.

use crate::error::WorkError;
use gst::prelude::*;

/// Starts linked elements of a pipeline that runs, the last one first, and has this pad of a source lead into them.
pub(crate) fn begin_behind(pad: &gst::Pad, all: &[gst::Element]) -> Result<(), WorkError> {
    for element in all.iter().rev() {
        element.sync_state_with_parent()?;
    }
    let entry = all.first().and_then(|first| first.static_pad("sink")).ok_or(WorkError::Ended)?;
    pad.link(&entry)
        .map_err(|error| WorkError::Element { element: "camera".into(), text: error.to_string() })?;
    Ok(())
}

/// A new element of the fixed list with properties given as text.
pub(crate) fn make(name: &str, properties: &[(&str, &str)]) -> Result<gst::Element, WorkError> {
    let mut builder = gst::ElementFactory::make(name);
    for (property, value) in properties {
        builder = builder.property_from_str(property, value);
    }
    Ok(builder.build()?)
}

/// A filter that lets only these caps through.
pub(crate) fn filter(caps: gst::Caps) -> Result<gst::Element, WorkError> {
    Ok(gst::ElementFactory::make("capsfilter").property("caps", caps).build()?)
}

/// A sink that hands over every buffer as soon as it comes.
pub(crate) fn appsink(name: &str) -> gst_app::AppSink {
    gst_app::AppSink::builder()
        .name(name)
        .sync(false)
        .async_(false)
        .enable_last_sample(false)
        .wait_on_eos(false)
        .max_buffers(4)
        .build()
}

/// Adds the elements to the pipeline and links them in this order.
pub(crate) fn chain(pipeline: &gst::Pipeline, elements: &[&gst::Element]) -> Result<(), WorkError> {
    pipeline.add_many(elements)?;
    gst::Element::link_many(elements)?;
    Ok(())
}

/// The caps of H.264 in the form that outputs carry: 4-byte lengths, parameter sets apart.
pub(crate) fn h264_caps() -> gst::Caps {
    gst::Caps::builder("video/x-h264").field("stream-format", "avc").field("alignment", "au").build()
}

/// What an error message on the bus means; the text is GStreamer's, without its debug part (it may hold URLs).
pub(crate) fn element_error(message: &gst::message::Error) -> WorkError {
    let element = message.src().map(|source| source.name().to_string()).unwrap_or_default();
    let error = message.error();
    let source = message.src().and_then(|source| source.downcast_ref::<gst::Element>());
    let made_by =
        |name: &str| source.and_then(ElementExt::factory).is_some_and(|factory| factory.name() == name);
    let is_network = made_by("rtspsrc");
    let text = match error.kind::<gst::ResourceError>() {
        Some(gst::ResourceError::NotAuthorized) => return WorkError::LoginRefused { had_login: true },
        Some(gst::ResourceError::OpenReadWrite | gst::ResourceError::OpenRead) if is_network => {
            "cannot connect"
        }
        Some(gst::ResourceError::Settings) if is_network => {
            "the camera's description (SDP) names no stream that could be read"
        }
        _ if is_network && error.matches(gst::StreamError::CodecNotFound) => {
            "the camera's description (SDP) names no stream that is carried here"
        }
        // With no media device at all it has nothing to list.
        _ if made_by("libcamerasrc") && error.message().starts_with("Failed listing") => {
            "Could not find any supported camera: is it connected, and its driver loaded?"
        }
        _ => error.message(),
    };
    let text = text.to_owned();
    WorkError::Element { element, text }
}
