//! What is burnt into every picture before it is encoded: privacy masks, then the overlay. Also asks for keyframes
//! where the encoder cannot count the time between them.
//!
//! A picture that cannot be painted is dropped: none leaves without its masks.

mod cover;

use crate::error::WorkError;
use crate::glyphs;
use cover::Cover;
use fieldgate_model::job::{Overlay, VideoEncode};
use fieldgate_model::masks::Masks;
use gst::prelude::*;
use gst_video::prelude::*;
use std::sync::{Mutex, PoisonError};

const BLACK: [u8; 3] = [16, 128, 128];

/// Paints I420 pictures of any size.
pub(crate) struct Burner {
    masks: Masks,
    overlay: Option<Overlay>,
    /// Time between keyframes, where they are asked for from here.
    keyframes_every: Option<gst::ClockTime>,
    next_keyframe: Option<gst::ClockTime>,
    /// The shape of the last picture, with what its masks cover.
    shape: Option<(gst_video::VideoInfo, Cover)>,
}

impl Burner {
    /// `asks_for_keyframes` when the rate of pictures is not known.
    pub(crate) fn new(encode: &VideoEncode, asks_for_keyframes: bool) -> Burner {
        let every = gst::ClockTime::from_mseconds(u64::from(encode.encoder.gop_ms.max(100)));
        Burner {
            masks: encode.masks.clone(),
            overlay: encode.overlay.clone(),
            keyframes_every: asks_for_keyframes.then_some(every),
            next_keyframe: None,
            shape: None,
        }
    }

    /// Paints whatever leaves this element.
    pub(crate) fn attach(self, element: &gst::Element) -> Result<(), WorkError> {
        let pad = element.static_pad("src").ok_or(WorkError::Ended)?;
        if self.masks.is_empty() && self.overlay.is_none() && self.keyframes_every.is_none() {
            return Ok(());
        }
        let burner = Mutex::new(self);
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            let mut burner = burner.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data else {
                return gst::PadProbeReturn::Drop;
            };
            burner.ask_for_keyframe(pad, buffer.pts());
            match burner.paint(pad, buffer.make_mut()) {
                Some(()) => gst::PadProbeReturn::Ok,
                None => gst::PadProbeReturn::Drop,
            }
        });
        Ok(())
    }

    fn ask_for_keyframe(&mut self, pad: &gst::Pad, pts: Option<gst::ClockTime>) {
        let (Some(every), Some(pts)) = (self.keyframes_every, pts) else { return };
        // The first picture is a keyframe anyhow. So far back is a clock that jumped.
        let due = self.next_keyframe.is_some_and(|next| pts >= next);
        let jumped = self.next_keyframe.is_some_and(|next| pts + every + every < next);
        if self.next_keyframe.is_none() || due || jumped {
            self.next_keyframe = Some(pts + every);
        }
        if due || jumped {
            pad.push_event(gst_video::DownstreamForceKeyUnitEvent::builder().all_headers(true).build());
        }
    }

    /// `None` when the picture could not be painted.
    fn paint(&mut self, pad: &gst::Pad, buffer: &mut gst::BufferRef) -> Option<()> {
        if self.masks.is_empty() && self.overlay.is_none() {
            return Some(());
        }
        let caps = pad.current_caps()?;
        let info = gst_video::VideoInfo::from_caps(&caps).ok()?;
        if info.format() != gst_video::VideoFormat::I420 {
            return None;
        }
        if self.shape.as_ref().is_none_or(|(known, _)| *known != info) {
            let cover = Cover::new(&self.masks, info.width(), info.height());
            self.shape = Some((info, cover));
        }
        let (info, cover) = self.shape.as_ref()?;
        let mut frame = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, info).ok()?;
        let width = usize::try_from(info.width()).ok()?;
        for (plane, black) in (0_u32..).zip(BLACK) {
            let stride = usize::try_from(*frame.plane_stride().get(usize::try_from(plane).ok()?)?).ok()?;
            let bytes = frame.plane_data_mut(plane).ok()?;
            for span in cover.spans(plane == 0) {
                let start = span.row * stride;
                bytes.get_mut(start + span.from..start + span.to)?.fill(black);
            }
        }
        if let Some(overlay) = &self.overlay {
            let stride = usize::try_from(*frame.plane_stride().first()?).ok()?;
            let text = text(overlay, gst::glib::real_time());
            glyphs::draw(frame.plane_data_mut(0).ok()?, stride, width, &text);
        }
        Some(())
    }
}

fn text(overlay: &Overlay, unix_micros: i64) -> String {
    let mut text = String::new();
    if overlay.clock {
        text = glyphs::clock_text(unix_micros);
        text.truncate(19);
    }
    if !overlay.text.is_empty() {
        text.push_str(if text.is_empty() { "" } else { " " });
        text.push_str(&overlay.text);
    }
    text
}
