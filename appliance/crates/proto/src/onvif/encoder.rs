//! Video encoders of cameras: what they do, what they could do, and a change of it.
//!
//! Setting one means sending the whole configuration back, so all of it is kept.

use super::ws_discovery::cut;
use super::xml::{Element, escape};
use std::fmt;

/// Longest text that is kept, in characters.
const MAX_TEXT: usize = 128;
/// Most entries of a list of options.
const MAX_OPTIONS: usize = 64;

/// A codec as cameras name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VideoCodec {
    /// Motion JPEG.
    Mjpeg,
    /// MPEG-4 part 2, which nothing here takes.
    Mpeg4,
    /// H.264.
    H264,
    /// HEVC.
    Hevc,
}

impl VideoCodec {
    /// As the gateway's API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            VideoCodec::Mjpeg => "mjpeg",
            VideoCodec::Mpeg4 => "mpeg4",
            VideoCodec::H264 => "h264",
            VideoCodec::Hevc => "hevc",
        }
    }

    /// From what [`VideoCodec::as_str`] writes.
    pub fn from_name(name: &str) -> Option<Self> {
        [VideoCodec::Mjpeg, VideoCodec::Mpeg4, VideoCodec::H264, VideoCodec::Hevc]
            .into_iter()
            .find(|codec| codec.as_str() == name)
    }

    fn read(text: &str) -> Option<Self> {
        match text.trim().to_ascii_uppercase().as_str() {
            "JPEG" | "MJPEG" => Some(VideoCodec::Mjpeg),
            "MPEG4" | "MPV4-ES" => Some(VideoCodec::Mpeg4),
            "H264" | "H.264" => Some(VideoCodec::H264),
            "H265" | "H.265" | "HEVC" => Some(VideoCodec::Hevc),
            _ => None,
        }
    }

    fn onvif(self) -> &'static str {
        match self {
            VideoCodec::Mjpeg => "JPEG",
            VideoCodec::Mpeg4 => "MPEG4",
            VideoCodec::H264 => "H264",
            VideoCodec::Hevc => "H265",
        }
    }
}

impl fmt::Display for VideoCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an encoder does now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VideoEncoder {
    /// The camera's name for this configuration.
    pub token: String,
    /// Its codec, if it is one that is known.
    pub codec: Option<VideoCodec>,
    /// Width in pixels.
    pub width: Option<u32>,
    /// Height in pixels.
    pub height: Option<u32>,
    /// Pictures per second that it aims at.
    pub fps: Option<f32>,
    /// Bits per second it aims at, in thousands.
    pub bitrate_kbps: Option<u32>,
    /// Pictures from one keyframe to the next.
    pub gop: Option<u32>,
    rest: Rest,
}

/// What only travels back.
#[derive(Clone, Debug, Default, PartialEq)]
struct Rest {
    name: String,
    use_count: u32,
    quality: Option<f32>,
    encoding_interval: Option<u32>,
    constant_bitrate: Option<bool>,
    profile: Option<String>,
    session_timeout: Option<String>,
    multicast: Option<Multicast>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Multicast {
    address: Option<String>,
    port: u32,
    ttl: u32,
    auto_start: bool,
}

/// What an encoder could do with one codec.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EncoderOptions {
    /// The codec, if it is one that is known.
    pub codec: Option<VideoCodec>,
    /// Smallest and largest distance of keyframes, in pictures.
    pub gop: Option<(u32, u32)>,
    /// Smallest and largest bits per second, in thousands.
    pub bitrate_kbps: Option<(u32, u32)>,
    /// Slowest and fastest, in pictures per second.
    pub fps: Option<(f32, f32)>,
}

/// How an encoder shall be set; what is not named stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EncoderWish {
    /// The profile whose encoder it is.
    pub profile: String,
    /// Another codec.
    pub codec: Option<VideoCodec>,
    /// Bits per second, in thousands.
    pub bitrate_kbps: Option<u32>,
    /// Pictures from one keyframe to the next.
    pub gop: Option<u32>,
    /// Pictures per second.
    pub fps: Option<f32>,
}

/// Why a wish cannot be fulfilled.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WishError {
    /// The camera has no such profile, or one without video.
    #[error("the camera has no profile {0:?} with a video encoder")]
    NoProfile(String),
    /// The encoder does not know the codec.
    #[error("this encoder of the camera knows no {wanted}; it knows {known}")]
    Codec {
        /// What was asked for.
        wanted: VideoCodec,
        /// What it could do.
        known: String,
    },
    /// A value outside the camera's range.
    #[error("{what} must be {min} to {max} for this camera, not {wanted}")]
    Range {
        /// Which value.
        what: &'static str,
        /// What was asked for.
        wanted: f64,
        /// The smallest.
        min: f64,
        /// The largest.
        max: f64,
    },
}

impl VideoEncoder {
    /// From a `VideoEncoderConfiguration` (media 1) or a `VideoEncoder2Configuration` (media 2).
    pub(super) fn read(element: &Element) -> Self {
        let number = |path: &[&str]| element.text_at(path).and_then(read_whole);
        let codec = element.text_at(&["Encoding"]).and_then(VideoCodec::read);
        let gop = element
            .attribute("GovLength")
            .and_then(read_whole)
            .or_else(|| number(&["H264", "GovLength"]))
            .or_else(|| number(&["MPEG4", "GovLength"]));
        let profile = element
            .attribute("Profile")
            .or(element.text_at(&["H264", "H264Profile"]))
            .or(element.text_at(&["MPEG4", "Mpeg4Profile"]));
        let rate = element.child("RateControl");
        VideoEncoder {
            token: element.attribute("token").map(|token| cut(token, MAX_TEXT)).unwrap_or_default(),
            codec,
            width: number(&["Resolution", "Width"]),
            height: number(&["Resolution", "Height"]),
            fps: element.text_at(&["RateControl", "FrameRateLimit"]).and_then(read_real),
            bitrate_kbps: number(&["RateControl", "BitrateLimit"]),
            gop,
            rest: Rest {
                name: element.text_at(&["Name"]).map(|name| cut(name, MAX_TEXT)).unwrap_or_default(),
                use_count: number(&["UseCount"]).unwrap_or(0),
                quality: element.text_at(&["Quality"]).and_then(read_real),
                encoding_interval: number(&["RateControl", "EncodingInterval"]),
                constant_bitrate: rate.and_then(|rate| rate.attribute("ConstantBitRate")).map(is_true),
                profile: profile.map(|profile| cut(profile, MAX_TEXT)),
                session_timeout: element.text_at(&["SessionTimeout"]).map(|text| cut(text, MAX_TEXT)),
                multicast: element.child("Multicast").map(Multicast::read),
            },
        }
    }

    /// The encoder as `wish` wants it, if `options` (where the camera tells any) allow it.
    pub(super) fn changed(&self, wish: &EncoderWish, options: &[EncoderOptions]) -> Result<Self, WishError> {
        let mut changed = self.clone();
        if let Some(codec) = wish.codec.filter(|codec| Some(*codec) != self.codec) {
            changed.codec = Some(codec);
            // A profile of one codec means nothing to another.
            changed.rest.profile = None;
        }
        let known: Vec<&str> = options.iter().filter_map(|one| one.codec).map(VideoCodec::as_str).collect();
        let mine = options.iter().find(|one| one.codec == changed.codec);
        if let (Some(wanted), None, false) = (wish.codec, mine, known.is_empty()) {
            return Err(WishError::Codec { wanted, known: known.join(", ") });
        }
        let check = |what, wanted: Option<f64>, range: Option<(f64, f64)>| match (wanted, range) {
            (Some(wanted), Some((min, max))) if !(min..=max).contains(&wanted) => {
                Err(WishError::Range { what, wanted, min, max })
            }
            _ => Ok(()),
        };
        let wide = |(min, max): (u32, u32)| (f64::from(min), f64::from(max));
        check("gop", wish.gop.map(f64::from), mine.and_then(|one| one.gop).map(wide))?;
        check(
            "bitrate_kbps",
            wish.bitrate_kbps.map(f64::from),
            mine.and_then(|one| one.bitrate_kbps).map(wide),
        )?;
        let rates = mine.and_then(|one| one.fps).map(|(min, max)| (f64::from(min), f64::from(max)));
        check("fps", wish.fps.map(f64::from), rates)?;
        changed.gop = wish.gop.or(changed.gop);
        changed.bitrate_kbps = wish.bitrate_kbps.or(changed.bitrate_kbps);
        changed.fps = wish.fps.or(changed.fps);
        Ok(changed)
    }

    /// The call that sets it, of media 2 or media 1.
    pub(super) fn set(&self, media2: bool) -> String {
        let rest = &self.rest;
        let codec = self.codec.map(VideoCodec::onvif).unwrap_or_default();
        let common = format!(
            "<tt:Name>{}</tt:Name><tt:UseCount>{}</tt:UseCount><tt:Encoding>{codec}</tt:Encoding>\
             <tt:Resolution><tt:Width>{}</tt:Width><tt:Height>{}</tt:Height></tt:Resolution>",
            escape(&rest.name),
            rest.use_count,
            self.width.unwrap_or(0),
            self.height.unwrap_or(0)
        );
        let quality = format!("<tt:Quality>{}</tt:Quality>", rest.quality.unwrap_or(1.0));
        let multicast = rest.multicast.clone().unwrap_or_default().write();
        let token = escape(&self.token);
        let profile = rest.profile.as_deref().map(escape);
        let (fps, kbps) = (self.fps.unwrap_or(0.0), self.bitrate_kbps.unwrap_or(0));
        if media2 {
            let constant =
                rest.constant_bitrate.map(|on| format!(" ConstantBitRate=\"{on}\"")).unwrap_or_default();
            let gop = self.gop.map(|gop| format!(" GovLength=\"{gop}\"")).unwrap_or_default();
            let profile = profile.map(|profile| format!(" Profile=\"{profile}\"")).unwrap_or_default();
            return format!(
                "<tr2:SetVideoEncoderConfiguration><tr2:Configuration token=\"{token}\"{gop}{profile}>{common}\
                 <tt:RateControl{constant}><tt:FrameRateLimit>{fps}</tt:FrameRateLimit>\
                 <tt:BitrateLimit>{kbps}</tt:BitrateLimit></tt:RateControl>{multicast}{quality}\
                 </tr2:Configuration></tr2:SetVideoEncoderConfiguration>"
            );
        }
        let gop = self.gop.unwrap_or(0);
        let codec_part = match self.codec {
            Some(VideoCodec::H264) => format!(
                "<tt:H264><tt:GovLength>{gop}</tt:GovLength><tt:H264Profile>{}</tt:H264Profile></tt:H264>",
                profile.as_deref().unwrap_or("Main")
            ),
            Some(VideoCodec::Mpeg4) => format!(
                "<tt:MPEG4><tt:GovLength>{gop}</tt:GovLength><tt:Mpeg4Profile>{}</tt:Mpeg4Profile></tt:MPEG4>",
                profile.as_deref().unwrap_or("SP")
            ),
            _ => String::new(),
        };
        format!(
            "<trt:SetVideoEncoderConfiguration><trt:Configuration token=\"{token}\">{common}{quality}\
             <tt:RateControl><tt:FrameRateLimit>{}</tt:FrameRateLimit><tt:EncodingInterval>{}</tt:EncodingInterval>\
             <tt:BitrateLimit>{kbps}</tt:BitrateLimit></tt:RateControl>{codec_part}{multicast}\
             <tt:SessionTimeout>{}</tt:SessionTimeout></trt:Configuration>\
             <trt:ForcePersistence>true</trt:ForcePersistence></trt:SetVideoEncoderConfiguration>",
            fps.round(),
            rest.encoding_interval.unwrap_or(1),
            escape(rest.session_timeout.as_deref().unwrap_or("PT60S"))
        )
    }
}

impl Multicast {
    fn read(element: &Element) -> Self {
        let number = |path: &[&str]| element.text_at(path).and_then(read_whole).unwrap_or(0);
        Multicast {
            address: element.text_at(&["Address", "IPv4Address"]).map(|text| cut(text, MAX_TEXT)),
            port: number(&["Port"]),
            ttl: number(&["TTL"]),
            auto_start: element.text_at(&["AutoStart"]).is_some_and(is_true),
        }
    }

    fn write(&self) -> String {
        format!(
            "<tt:Multicast><tt:Address><tt:Type>IPv4</tt:Type><tt:IPv4Address>{}</tt:IPv4Address></tt:Address>\
             <tt:Port>{}</tt:Port><tt:TTL>{}</tt:TTL><tt:AutoStart>{}</tt:AutoStart></tt:Multicast>",
            escape(self.address.as_deref().unwrap_or("0.0.0.0")),
            self.port,
            self.ttl,
            self.auto_start
        )
    }
}

/// What a `GetVideoEncoderConfigurationOptionsResponse` offers, of either media service.
pub(super) fn read_options(answer: &Element) -> Vec<EncoderOptions> {
    let mut found = Vec::new();
    for options in answer.all("Options").take(MAX_OPTIONS) {
        if let Some(encoding) = options.text_at(&["Encoding"]) {
            let rates = options.attribute("FrameRatesSupported").map(numbers).unwrap_or_default();
            let gop = options.attribute("GovLengthRange").map(numbers).unwrap_or_default();
            found.push(EncoderOptions {
                codec: VideoCodec::read(encoding),
                gop: span(&gop).map(|(min, max)| (whole(min), whole(max))),
                bitrate_kbps: range(options.child("BitrateRange")),
                fps: span(&rates),
            });
            continue;
        }
        for (name, codec) in
            [("JPEG", VideoCodec::Mjpeg), ("MPEG4", VideoCodec::Mpeg4), ("H264", VideoCodec::H264)]
        {
            let Some(one) = options.child(name) else { continue };
            let more = options.at(&["Extension", name]);
            let rate = range(one.child("FrameRateRange"));
            found.push(EncoderOptions {
                codec: Some(codec),
                gop: range(one.child("GovLengthRange")),
                bitrate_kbps: range(more.and_then(|more| more.child("BitrateRange"))),
                #[allow(clippy::cast_precision_loss, reason = "pictures per second")]
                fps: rate.map(|(min, max): (u32, u32)| (min as f32, max as f32)),
            });
        }
    }
    found
}

fn range(element: Option<&Element>) -> Option<(u32, u32)> {
    let number = |name: &str| element?.text_at(&[name]).and_then(read_whole);
    number("Min").zip(number("Max"))
}

/// The numbers in a list such as `"1 100"`; ranges come as `"1-100"` from some.
fn numbers(text: &str) -> Vec<f32> {
    text.split([' ', ',', '-']).filter_map(read_real).take(MAX_OPTIONS).collect()
}

fn span(numbers: &[f32]) -> Option<(f32, f32)> {
    let (first, rest) = numbers.split_first()?;
    Some(rest.iter().fold((*first, *first), |(min, max), number| (min.min(*number), max.max(*number))))
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped by the cast, as is meant"
)]
fn whole(number: f32) -> u32 {
    number as u32
}

/// A whole number; some cameras write `25.0`.
fn read_whole(text: &str) -> Option<u32> {
    text.trim().parse().ok().or_else(|| read_real(text).map(whole))
}

fn read_real(text: &str) -> Option<f32> {
    text.trim().parse::<f32>().ok().filter(|number| number.is_finite() && (0.0..1.0e9).contains(number))
}

fn is_true(text: &str) -> bool {
    matches!(text, "true" | "1")
}

#[cfg(test)]
mod tests {
    use super::super::xml;
    use super::*;

    const MEDIA1: &str = "<c token='v&amp;1'><Name>main</Name><UseCount>2</UseCount><Encoding>H264</Encoding>\
        <Resolution><Width>1920</Width><Height>1080</Height></Resolution><Quality>4</Quality>\
        <RateControl><FrameRateLimit>25</FrameRateLimit><EncodingInterval>1</EncodingInterval><BitrateLimit>4096</BitrateLimit></RateControl>\
        <H264><GovLength>50</GovLength><H264Profile>High</H264Profile></H264>\
        <Multicast><Address><Type>IPv4</Type><IPv4Address>239.1.2.3</IPv4Address></Address><Port>32000</Port><TTL>5</TTL><AutoStart>false</AutoStart></Multicast>\
        <SessionTimeout>PT10S</SessionTimeout></c>";

    const MEDIA2: &str = "<c token='v1' GovLength='50' Profile='Main'><Name>main</Name><UseCount>1</UseCount><Encoding>H265</Encoding>\
        <Resolution><Width>3840</Width><Height>2160</Height></Resolution><RateControl ConstantBitRate='true'>\
        <FrameRateLimit>12.5</FrameRateLimit><BitrateLimit>8000</BitrateLimit></RateControl><Quality>3.5</Quality></c>";

    /// What was set, as the camera would tell it.
    fn told_back(set: &str) -> VideoEncoder {
        let wire = format!("<b xmlns:tt='x' xmlns:trt='y' xmlns:tr2='z'>{set}</b>");
        let root = xml::parse(wire.as_bytes()).unwrap();
        VideoEncoder::read(root.at(&["SetVideoEncoderConfiguration", "Configuration"]).unwrap())
    }

    #[test]
    fn what_was_read_travels_back_whole() {
        let one = VideoEncoder::read(&xml::parse(MEDIA1.as_bytes()).unwrap());
        assert_eq!(
            (one.codec, one.width, one.gop, one.bitrate_kbps),
            (Some(VideoCodec::H264), Some(1920), Some(50), Some(4096))
        );
        assert_eq!(told_back(&one.set(false)), one);
        let two = VideoEncoder::read(&xml::parse(MEDIA2.as_bytes()).unwrap());
        assert_eq!((two.codec, two.fps), (Some(VideoCodec::Hevc), Some(12.5)));
        let mut again = told_back(&two.set(true));
        again.rest.multicast = None;
        assert_eq!(again, two);
    }

    #[test]
    fn a_wish_changes_what_it_names_within_what_the_camera_offers() {
        let encoder = VideoEncoder::read(&xml::parse(MEDIA1.as_bytes()).unwrap());
        let options = read_options(
            &xml::parse(
                b"<r><Options><QualityRange/><H264><GovLengthRange><Min>1</Min><Max>400</Max></GovLengthRange>\
                  <FrameRateRange><Min>1</Min><Max>25</Max></FrameRateRange></H264><Extension><H264><BitrateRange>\
                  <Min>32</Min><Max>8192</Max></BitrateRange></H264></Extension></Options></r>",
            )
            .unwrap(),
        );
        let wish = EncoderWish { gop: Some(25), bitrate_kbps: Some(2048), ..EncoderWish::default() };
        let changed = encoder.changed(&wish, &options).unwrap();
        assert_eq!((changed.gop, changed.bitrate_kbps, changed.fps), (Some(25), Some(2048), Some(25.0)));
        let error = |wish: EncoderWish| encoder.changed(&wish, &options).unwrap_err().to_string();
        assert_eq!(
            error(EncoderWish { gop: Some(500), ..EncoderWish::default() }),
            "gop must be 1 to 400 for this camera, not 500"
        );
        assert!(error(EncoderWish { fps: Some(60.0), ..EncoderWish::default() }).starts_with("fps"));
        assert!(
            error(EncoderWish { bitrate_kbps: Some(9), ..EncoderWish::default() })
                .starts_with("bitrate_kbps")
        );
        assert_eq!(
            error(EncoderWish { codec: Some(VideoCodec::Hevc), ..EncoderWish::default() }),
            "this encoder of the camera knows no hevc; it knows h264"
        );
        assert!(encoder.changed(&EncoderWish { gop: Some(9_999), ..EncoderWish::default() }, &[]).is_ok());
    }

    #[test]
    fn options_of_media_2_are_lists() {
        let options = read_options(
            &xml::parse(
                b"<r><Options GovLengthRange='1 250' FrameRatesSupported='30 25 12.5'><Encoding>H265</Encoding>\
                  <BitrateRange><Min>64</Min><Max>16384</Max></BitrateRange></Options>\
                  <Options><Encoding>JPEG</Encoding></Options></r>",
            )
            .unwrap(),
        );
        assert_eq!(
            options[0],
            EncoderOptions {
                codec: Some(VideoCodec::Hevc),
                gop: Some((1, 250)),
                bitrate_kbps: Some((64, 16384)),
                fps: Some((12.5, 30.0)),
            }
        );
        assert_eq!(options[1].codec, Some(VideoCodec::Mjpeg));
    }

    #[test]
    fn numbers_of_liars_are_none() {
        for text in ["NaN", "inf", "-1", "1e30", "", "x"] {
            assert_eq!((read_real(text), read_whole(text)), (None, None), "{text}");
        }
        assert_eq!(read_whole("25.0"), Some(25));
    }
}
