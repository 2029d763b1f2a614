//! From a source's pictures to the form that outputs carry: passed as they are, or decoded and encoded.
//!
//! ```text
//!  pass     parser ! caps
//!  encode   [parser ! decoder | jpegdec] ! queue (drops when the encoder is slow) ! [rate] ! [size] ! I420 ! masks,
//!           overlay and keyframes in a pad probe ! encoder ! parser ! caps
//! ```

use crate::burn::Burner;
use crate::decoders::{self, Picture};
use crate::elements;
use crate::encoders::{self, Pictures};
use crate::error::WorkError;
use crate::frame_limit::FrameLimit;
use crate::pipeline::{filter, h264_caps, make};
use fieldgate_model::job::{EncoderTrial, VideoEncode, VideoTreatment};

/// In what form pictures come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coded {
    H264,
    Hevc,
    Jpeg,
    Raw,
}

/// What an encoder is told where a source does not say it before it plays.
const ASSUMED: Pictures = Pictures { width: 1920, height: 1080, frame_rate: 30 };

/// Whether pictures of this form are encoded here.
pub(crate) fn encodes(from: Coded, treat: &VideoTreatment) -> bool {
    match treat {
        VideoTreatment::Encode(_) => true,
        VideoTreatment::Pass(_) | VideoTreatment::PassOr(..) => matches!(from, Coded::Jpeg | Coded::Raw),
    }
}

/// The elements between a source and the sink, to be linked in this order. `pictures` is the shape that the source was
/// asked for, zeros where that is not known. Proves decoder and encoder where that was not done before; `tell` gets the
/// trials.
pub(crate) fn elements(
    from: Coded,
    treat: &VideoTreatment,
    pictures: Pictures,
    tell: impl FnMut(&[EncoderTrial]),
) -> Result<Vec<gst::Element>, WorkError> {
    let encode = match treat {
        VideoTreatment::Encode(encode) => encode,
        VideoTreatment::Pass(_) | VideoTreatment::PassOr(..) if !encodes(from, treat) => return pass(from),
        VideoTreatment::PassOr(_, encode) => encode,
        VideoTreatment::Pass(_) => {
            return Err(WorkError::Setting {
                setting: "video",
                got: format!("pass, but the source sends {from:?} pictures").to_lowercase(),
                remedy: "let them be encoded, or have the source send H.264",
            });
        }
    };
    self::encode(from, encode, pictures, WhenSlow::DropOldest, tell)
}

/// The same for a stream that comes from the gateway: it waits, and what waits too long is dropped before it is decoded.
pub(crate) fn elements_that_wait(
    from: Coded,
    encode: &VideoEncode,
    pictures: Pictures,
    tell: impl FnMut(&[EncoderTrial]),
) -> Result<Vec<gst::Element>, WorkError> {
    self::encode(from, encode, pictures, WhenSlow::Wait, tell)
}

/// What happens to pictures that an encoder is too slow for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WhenSlow {
    DropOldest,
    Wait,
}

/// The same treatment with its encoder proven, for sources whose elements are built while they play.
pub(crate) fn prepared(
    treat: &VideoTreatment,
    tell: impl FnMut(&[EncoderTrial]),
) -> Result<VideoTreatment, WorkError> {
    let mut treat = treat.clone();
    if let VideoTreatment::Encode(encode) = &mut treat {
        let shape = expected(encode, Pictures { width: 0, height: 0, frame_rate: 0 });
        encode.encoder.name = encoders::prove(&encode.encoder, shape, tell)?.to_owned();
    }
    Ok(treat)
}

fn pass(from: Coded) -> Result<Vec<gst::Element>, WorkError> {
    let (parser, caps) = match from {
        Coded::Hevc => ("h265parse", "video/x-h265,stream-format=hvc1,alignment=au".parse()?),
        _ => ("h264parse", h264_caps()),
    };
    elements::require(&[parser, "capsfilter"])?;
    Ok(vec![make(parser, &[])?, filter(caps)?])
}

fn encode(
    from: Coded,
    encode: &VideoEncode,
    pictures: Pictures,
    when_slow: WhenSlow,
    mut tell: impl FnMut(&[EncoderTrial]),
) -> Result<Vec<gst::Element>, WorkError> {
    elements::require(&["queue", "videoconvert", "capsfilter"])?;
    let mut all = decode(from, encode, &mut tell)?;
    // A slow encoder must not hold a live source: the oldest go.
    let leaky = if when_slow == WhenSlow::DropOldest { "downstream" } else { "no" };
    let short =
        [("max-size-buffers", "4"), ("max-size-bytes", "0"), ("max-size-time", "0"), ("leaky", leaky)];
    let queue = make("queue", &short)?;
    if let Some(rate) = encode.max_frame_rate {
        FrameLimit::new(rate).attach(&queue)?;
    }
    all.push(queue);
    if encode.max_width.is_some() || encode.max_height.is_some() {
        elements::require(&["videoscale"])?;
        // Bars would stand where only a pixel was rounded.
        let borders = if encode.is_exact { "false" } else { "true" };
        all.push(make("videoscale", &[("add-borders", borders)])?);
        all.push(filter(size_caps(encode))?);
    }
    all.push(make("videoconvert", &[])?);
    let raw = filter("video/x-raw,format=I420".parse()?)?;
    let known = pictures.width > 0 && pictures.height > 0 && pictures.frame_rate > 0;
    Burner::new(encode, !known).attach(&raw)?;
    all.push(raw);
    let shape = expected(encode, pictures);
    let encoder = encoders::prove(&encode.encoder, shape, tell)?;
    all.extend(encoders::encoder(encoder, &encode.encoder, shape)?);
    Ok(all)
}

fn decode(
    from: Coded,
    encode: &VideoEncode,
    tell: impl FnMut(&[EncoderTrial]),
) -> Result<Vec<gst::Element>, WorkError> {
    let codec = match from {
        Coded::Raw => return Ok(Vec::new()),
        Coded::Jpeg => {
            elements::require(&["jpegdec"])?;
            return Ok(vec![make("jpegdec", &[])?]);
        }
        Coded::H264 => Picture::H264,
        Coded::Hevc => Picture::Hevc,
    };
    let name = decoders::prove(codec, &encode.encoder.skip, tell)?;
    decoders::decoder(codec, name)
}

/// Lets through what is small enough; `videoscale` keeps the shape of all else.
fn size_caps(encode: &VideoEncode) -> gst::Caps {
    if let (true, Some(width), Some(height)) = (encode.is_exact, encode.max_width, encode.max_height) {
        let even = |side: u32| i32::try_from(side.clamp(16, 8192) / 2 * 2).unwrap_or(8192);
        return gst::Caps::builder("video/x-raw")
            .field("width", even(width))
            .field("height", even(height))
            .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
            .build();
    }
    let even = |limit: Option<u32>| {
        let limit = limit.unwrap_or(8192).clamp(16, 8192) / 2 * 2;
        gst::IntRange::with_step(2, i32::try_from(limit).unwrap_or(8192), 2)
    };
    gst::Caps::builder("video/x-raw")
        .field("width", even(encode.max_width))
        .field("height", even(encode.max_height))
        .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
        .build()
}

/// What the encoder will get, as far as that is known before the first picture.
fn expected(encode: &VideoEncode, pictures: Pictures) -> Pictures {
    let known = |value: u32, assumed: u32| if value > 0 { value } else { assumed };
    let least = |value: u32, limit: Option<u32>| limit.map_or(value, |limit| value.min(limit));
    let side = |value: u32, limit: Option<u32>| match limit {
        Some(limit) if encode.is_exact => limit,
        limit => least(value, limit),
    };
    Pictures {
        width: side(known(pictures.width, ASSUMED.width), encode.max_width),
        height: side(known(pictures.height, ASSUMED.height), encode.max_height),
        frame_rate: least(known(pictures.frame_rate, ASSUMED.frame_rate), encode.max_frame_rate),
    }
}
