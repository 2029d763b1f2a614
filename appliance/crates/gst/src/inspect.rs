//! Looks at single keyframes, or pictures that a camera has as JPEG: decodes one, tells its figures, and makes a JPEG of
//! it if one is wanted.
//!
//! Each keyframe gets a pipeline of its own: what a hostile one does to a decoder's state ends with it.

use crate::decoders::{self, Picture};
use crate::elements;
use crate::error::WorkError;
use crate::pipeline::{appsink, chain, element_error, filter, make};
use fieldgate_hub::truth::Look;
use fieldgate_media::{Codec, Track, TrackId, jpeg};
use fieldgate_model::job::{EncoderTrial, Figures, InspectAnswer, InspectAsk, Inspector};
use gst::prelude::*;

const TURN: gst::ClockTime = gst::ClockTime::from_mseconds(100);
const QUALITY: &str = "80";
const JPEG_WIDTH_MAX: u32 = 4_096;
const JPEG_DECODER: &str = "jpegdec";

/// Decodes keyframes, one after another.
pub(crate) struct Keyframes<'a> {
    settings: &'a Inspector,
    /// The decoder of each codec, once it was looked for.
    proven: Vec<(Picture, Result<&'static str, String>)>,
}

/// A decoded picture.
struct Decoded {
    sample: gst::Sample,
    width: u32,
    height: u32,
}

impl<'a> Keyframes<'a> {
    pub(crate) fn new(settings: &'a Inspector) -> Self {
        Keyframes { settings, proven: Vec::new() }
    }

    /// The answer to one ask. `beat` is called every moment while it takes; `tell` gets the trials of decoders.
    pub(crate) fn answer(
        &mut self,
        ask: &[u8],
        beat: &mut dyn FnMut(),
        tell: impl FnMut(&[EncoderTrial]),
    ) -> Vec<u8> {
        let (head, header, keyframe) = match InspectAsk::decode(ask) {
            Ok(parts) => parts,
            Err(error) => {
                let error = Some(error.to_string());
                return InspectAnswer { error, ..InspectAnswer::default() }.encode(&[]);
            }
        };
        let mut answer = InspectAnswer { id: head.id, ..InspectAnswer::default() };
        match self.look(&head, header, keyframe, &mut answer, beat, tell) {
            Ok(jpeg) => answer.encode(&jpeg),
            Err(error) => {
                answer.error = Some(error.to_string());
                answer.encode(&[])
            }
        }
    }

    fn look(
        &mut self,
        head: &InspectAsk,
        header: &[u8],
        keyframe: &[u8],
        answer: &mut InspectAnswer,
        beat: &mut dyn FnMut(),
        tell: impl FnMut(&[EncoderTrial]),
    ) -> Result<Vec<u8>, WorkError> {
        let (codec, picture) = match Codec::from_name(&head.codec) {
            Some(Codec::H264) => (Codec::H264, Picture::H264),
            Some(Codec::Hevc) => (Codec::Hevc, Picture::Hevc),
            Some(Codec::Jpeg) => {
                let decoded = self.decode_jpeg(keyframe, beat)?;
                JPEG_DECODER.clone_into(&mut answer.decoder);
                return self.seen(&decoded, head.jpeg_width, answer, beat);
            }
            _ => return Err(WorkError::NoDecoder(format!("{} pictures are not looked at", head.codec))),
        };
        let header = bytes::Bytes::copy_from_slice(header);
        let told = Track::new(TrackId::VIDEO, codec, header.clone()).with_header_shape().video;
        self.check_size(told.width, told.height)?;
        let decoder = self.decoder(picture, tell)?;
        decoder.clone_into(&mut answer.decoder);
        let decoded = self.decode(picture, decoder, &header, keyframe, beat)?;
        self.seen(&decoded, head.jpeg_width, answer, beat)
    }

    /// What there is to say of a decoded picture, and the JPEG of it that is wanted.
    fn seen(
        &self,
        decoded: &Decoded,
        jpeg_width: Option<u32>,
        answer: &mut InspectAnswer,
        beat: &mut dyn FnMut(),
    ) -> Result<Vec<u8>, WorkError> {
        (answer.width, answer.height) = (decoded.width, decoded.height);
        answer.figures = Some(figures(decoded)?);
        match jpeg_width {
            Some(width) => self.jpeg(decoded, width, beat),
            None => Ok(Vec::new()),
        }
    }

    fn check_size(&self, width: u32, height: u32) -> Result<(), WorkError> {
        let pixels = u64::from(width) * u64::from(height);
        if pixels <= self.settings.max_pixels {
            return Ok(());
        }
        let got = format!("{width}x{height}");
        Err(WorkError::Setting { setting: "picture", got, remedy: "too large to be decoded here" })
    }

    fn decoder(
        &mut self,
        picture: Picture,
        tell: impl FnMut(&[EncoderTrial]),
    ) -> Result<&'static str, WorkError> {
        let known = self.proven.iter().find(|(of, _)| *of == picture);
        let proven = match known {
            Some((_, proven)) => proven.clone(),
            None => {
                let proven = decoders::prove(picture, &self.settings.skip, tell);
                let proven = proven.map_err(|error| error.to_string());
                self.proven.push((picture, proven.clone()));
                proven
            }
        };
        proven.map_err(WorkError::NoDecoder)
    }

    fn decode(
        &self,
        picture: Picture,
        decoder: &'static str,
        header: &[u8],
        keyframe: &[u8],
        beat: &mut dyn FnMut(),
    ) -> Result<Decoded, WorkError> {
        elements::require(&["appsrc", "appsink", "videoconvert", "capsfilter"])?;
        let (media, form) = match picture {
            Picture::H264 => ("video/x-h264", "avc"),
            Picture::Hevc => ("video/x-h265", "hvc1"),
        };
        let caps = gst::Caps::builder(media)
            .field("stream-format", form)
            .field("alignment", "au")
            .field("codec_data", gst::Buffer::from_slice(header.to_vec()))
            .build();
        self.decode_by(&caps, decoders::decoder(picture, decoder)?, keyframe, beat)
    }

    /// A camera's own JPEG: only its sizes are believed before it is decoded.
    fn decode_jpeg(&self, picture: &[u8], beat: &mut dyn FnMut()) -> Result<Decoded, WorkError> {
        elements::require(&["appsrc", "appsink", "videoconvert", "capsfilter", JPEG_DECODER])?;
        let Some((width, height)) = jpeg::shape(picture) else {
            return Err(WorkError::NoDecoder("the picture is no JPEG that is decoded here".to_owned()));
        };
        self.check_size(width, height)?;
        let caps = gst::Caps::builder("image/jpeg").build();
        self.decode_by(&caps, vec![make(JPEG_DECODER, &[])?], picture, beat)
    }

    fn decode_by(
        &self,
        caps: &gst::Caps,
        mut all: Vec<gst::Element>,
        coded: &[u8],
        beat: &mut dyn FnMut(),
    ) -> Result<Decoded, WorkError> {
        all.push(make("videoconvert", &[])?);
        all.push(filter(gst::Caps::builder("video/x-raw").field("format", "I420").build())?);
        let sample = self.run(caps, gst::Buffer::from_slice(coded.to_vec()), &all, beat)?;
        let (width, height) = size_of(&sample);
        self.check_size(width, height)?;
        Ok(Decoded { sample, width, height })
    }

    fn jpeg(&self, decoded: &Decoded, width: u32, beat: &mut dyn FnMut()) -> Result<Vec<u8>, WorkError> {
        elements::require(&["videoscale", "jpegenc"])?;
        let (Some(caps), Some(buffer)) = (decoded.sample.caps_owned(), decoded.sample.buffer_owned()) else {
            return Err(WorkError::Ended);
        };
        let ratio =
            caps.structure(0).and_then(|fields| fields.get::<gst::Fraction>("pixel-aspect-ratio").ok());
        let ratio = ratio.filter(|ratio| ratio.numer() > 0 && ratio.denom() > 0);
        let ratio = ratio.map_or((1, 1), |ratio| (i64::from(ratio.numer()), i64::from(ratio.denom())));
        let (width, height) = shown_size(width, decoded.width, decoded.height, ratio);
        let wanted = gst::Caps::builder("video/x-raw")
            // Whole range and the coefficients of JPEG, whatever the camera's are: between two pictures of I420 the range
            // would stay as it is.
            .field("format", "RGB")
            .field("width", width)
            .field("height", height)
            .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
            .build();
        let all = [
            make("videoscale", &[])?,
            make("videoconvert", &[])?,
            filter(wanted)?,
            make("jpegenc", &[("quality", QUALITY)])?,
        ];
        let sample = self.run(&caps, buffer, &all, beat)?;
        let buffer = sample.buffer().ok_or(WorkError::Ended)?;
        let map = buffer.map_readable()?;
        Ok(map.to_vec())
    }

    /// Sends one buffer through the elements; what comes out first.
    fn run(
        &self,
        caps: &gst::Caps,
        mut buffer: gst::Buffer,
        elements: &[gst::Element],
        beat: &mut dyn FnMut(),
    ) -> Result<gst::Sample, WorkError> {
        let pipeline = gst::Pipeline::new();
        let source = gst_app::AppSrc::builder().caps(caps).format(gst::Format::Time).build();
        let sink = appsink("picture");
        let all: Vec<&gst::Element> =
            [source.upcast_ref()].into_iter().chain(elements).chain([sink.upcast_ref()]).collect();
        chain(&pipeline, &all)?;
        {
            let buffer = buffer.make_mut();
            buffer.set_pts(gst::ClockTime::ZERO);
            buffer.set_dts(gst::ClockTime::ZERO);
        }
        let outcome = self.first(&pipeline, &source, &sink, buffer, beat);
        // Not waited for: if a decoder hangs here, so does the pulse, and the gateway ends this process.
        let _ = pipeline.set_state(gst::State::Null);
        outcome
    }

    fn first(
        &self,
        pipeline: &gst::Pipeline,
        source: &gst_app::AppSrc,
        sink: &gst_app::AppSink,
        buffer: gst::Buffer,
        beat: &mut dyn FnMut(),
    ) -> Result<gst::Sample, WorkError> {
        let bus = pipeline.bus().ok_or(WorkError::Ended)?;
        pipeline.set_state(gst::State::Playing)?;
        let no_picture = |text: &str| WorkError::Element { element: "keyframe".into(), text: text.into() };
        source.push_buffer(buffer).map_err(|_| no_picture("is not taken"))?;
        let _ = source.end_of_stream();
        let turns = u64::from(self.settings.patience_ms).div_ceil(TURN.mseconds());
        for _ in 0..turns {
            if let Some(sample) = sink.try_pull_sample(TURN) {
                return Ok(sample);
            }
            beat();
            if let Some(message) = bus.pop_filtered(&[gst::MessageType::Error]) {
                return Err(match message.view() {
                    gst::MessageView::Error(error) => element_error(error),
                    _ => WorkError::Ended,
                });
            }
            if sink.is_eos() {
                return Err(no_picture("no picture comes of it"));
            }
        }
        Err(no_picture("takes too long to decode"))
    }
}

fn size_of(sample: &gst::Sample) -> (u32, u32) {
    let side =
        |fields: &gst::StructureRef, name| fields.get::<i32>(name).ok().and_then(|n| u32::try_from(n).ok());
    let fields = sample.caps().and_then(|caps| caps.structure(0));
    let sides = fields.and_then(|fields| Some((side(fields, "width")?, side(fields, "height")?)));
    sides.unwrap_or_default()
}

/// Rows of I420 brightness are padded to four bytes.
fn figures(decoded: &Decoded) -> Result<Figures, WorkError> {
    let side = |pixels: u32| usize::try_from(pixels).unwrap_or(0);
    let (width, height) = (side(decoded.width), side(decoded.height));
    let buffer = decoded.sample.buffer().ok_or(WorkError::Ended)?;
    let map = buffer.map_readable()?;
    let look = Look::of(&map, width, height, width.next_multiple_of(4)).ok_or(WorkError::Ended)?;
    let Look { mean, deviation, structure, black, edges, sharpness, fingerprint } = look;
    Ok(Figures { mean, deviation, structure, black, edges, sharpness, fingerprint })
}

/// The even sides of a picture as it is shown, no wider than wished and than it is.
fn shown_size(wished: u32, width: u32, height: u32, (numer, denom): (i64, i64)) -> (i32, i32) {
    let shown_width = (i64::from(width) * numer / denom).max(2);
    let out_width = i64::from(wished.clamp(16, JPEG_WIDTH_MAX)).min(shown_width);
    let out_height = (out_width * i64::from(height) / shown_width).clamp(2, 16_384);
    let even = |side: i64| i32::try_from(side & !1).unwrap_or(2).max(2);
    (even(out_width), even(out_height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_shown_in_their_proportions_and_never_enlarged() {
        assert_eq!(shown_size(640, 1280, 720, (1, 1)), (640, 360));
        assert_eq!(shown_size(640, 320, 240, (1, 1)), (320, 240));
        // PAL at 16:9.
        assert_eq!(shown_size(1024, 720, 576, (64, 45)), (1024, 576));
        assert_eq!(shown_size(0, 1920, 1080, (1, 1)), (16, 8));
        assert_eq!(shown_size(u32::MAX, 8192, 4608, (1, 1)), (4096, 2304));
        assert_eq!(shown_size(640, 1, 1, (1, 9)), (2, 2));
        assert_eq!(shown_size(640, 0, 0, (1, 1)), (2, 2));
    }
}
