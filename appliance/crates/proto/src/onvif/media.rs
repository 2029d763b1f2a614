//! The media services, versions 1 and 2: profiles, their encoders, their addresses.
//!
//! Sources: ONVIF Media and Media 2 Service Specifications, `ver10/media/wsdl`, `ver20/media/wsdl`.

use super::encoder::VideoEncoder;
use super::service_url::ServiceUrl;
use super::ws_discovery::cut;
use super::xml::{Element, escape};

/// Most profiles of a camera that are looked at.
pub const MAX_PROFILES: usize = 12;
/// Longest text that is kept, in characters.
const MAX_TEXT: usize = 128;

/// Which media service a call goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaVersion {
    /// `ver10/media`.
    One,
    /// `ver20/media`.
    Two,
}

/// One way in which a camera offers its picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// The camera's name for it in calls.
    pub token: String,
    /// Its name for people.
    pub name: String,
    /// Its video encoder, if it has video.
    pub video: Option<VideoEncoder>,
    /// Its audio codec in the camera's word, such as `AAC` or `G711`, if it has audio.
    pub audio: Option<String>,
    /// Where the stream is, once asked.
    pub stream: Option<ServiceUrl>,
    /// Where a JPEG is, once asked.
    pub snapshot: Option<ServiceUrl>,
    /// The service that told of it.
    pub version: MediaVersion,
}

impl Profile {
    /// Pixels of a picture; 0 without video.
    pub fn pixels(&self) -> u64 {
        let size = self.video.as_ref().and_then(|video| video.width.zip(video.height));
        size.map_or(0, |(width, height)| u64::from(width).saturating_mul(u64::from(height)))
    }
}

/// The profile with the most pixels, and the one with the fewest if that is another one; of those with a stream.
pub fn main_and_sub(profiles: &[Profile]) -> (Option<&Profile>, Option<&Profile>) {
    let with_stream = || profiles.iter().filter(|profile| profile.stream.is_some());
    // The first of equals is what the maker means by "main".
    let main = with_stream().rev().max_by_key(|profile| profile.pixels());
    let sub = with_stream().filter(|profile| main.is_some_and(|main| profile.pixels() < main.pixels()));
    (main, sub.min_by_key(|profile| profile.pixels()))
}

pub(super) fn get_profiles(version: MediaVersion) -> String {
    match version {
        MediaVersion::One => "<trt:GetProfiles/>".to_owned(),
        MediaVersion::Two => "<tr2:GetProfiles><tr2:Type>All</tr2:Type></tr2:GetProfiles>".to_owned(),
    }
}

pub(super) fn get_stream_uri(version: MediaVersion, profile: &str) -> String {
    let profile = escape(profile);
    match version {
        MediaVersion::One => format!(
            "<trt:GetStreamUri><trt:StreamSetup><tt:Stream>RTP-Unicast</tt:Stream><tt:Transport>\
             <tt:Protocol>RTSP</tt:Protocol></tt:Transport></trt:StreamSetup>\
             <trt:ProfileToken>{profile}</trt:ProfileToken></trt:GetStreamUri>"
        ),
        MediaVersion::Two => format!(
            "<tr2:GetStreamUri><tr2:Protocol>RTSP</tr2:Protocol>\
             <tr2:ProfileToken>{profile}</tr2:ProfileToken></tr2:GetStreamUri>"
        ),
    }
}

pub(super) fn get_snapshot_uri(version: MediaVersion, profile: &str) -> String {
    let (profile, prefix) = (escape(profile), prefix(version));
    format!(
        "<{prefix}:GetSnapshotUri><{prefix}:ProfileToken>{profile}</{prefix}:ProfileToken></{prefix}:GetSnapshotUri>"
    )
}

pub(super) fn get_options(version: MediaVersion, encoder: &str, profile: &str) -> String {
    let (encoder, profile, prefix) = (escape(encoder), escape(profile), prefix(version));
    format!(
        "<{prefix}:GetVideoEncoderConfigurationOptions>\
         <{prefix}:ConfigurationToken>{encoder}</{prefix}:ConfigurationToken>\
         <{prefix}:ProfileToken>{profile}</{prefix}:ProfileToken></{prefix}:GetVideoEncoderConfigurationOptions>"
    )
}

fn prefix(version: MediaVersion) -> &'static str {
    match version {
        MediaVersion::One => "trt",
        MediaVersion::Two => "tr2",
    }
}

/// The profiles in a `GetProfilesResponse` of either version.
pub(super) fn profiles(answer: &Element, version: MediaVersion) -> Vec<Profile> {
    answer.all("Profiles").take(MAX_PROFILES).filter_map(|profile| read(profile, version)).collect()
}

fn read(element: &Element, version: MediaVersion) -> Option<Profile> {
    let token = cut(element.attribute("token")?, MAX_TEXT);
    let (video, audio) = match version {
        MediaVersion::One => {
            (element.child("VideoEncoderConfiguration"), element.at(&["AudioEncoderConfiguration"]))
        }
        MediaVersion::Two => {
            (element.at(&["Configurations", "VideoEncoder"]), element.at(&["Configurations", "AudioEncoder"]))
        }
    };
    let audio = audio.and_then(|audio| audio.text_at(&["Encoding"])).map(|codec| cut(codec, MAX_TEXT));
    (!token.is_empty()).then(|| Profile {
        token,
        name: element.text_at(&["Name"]).map(|name| cut(name, MAX_TEXT)).unwrap_or_default(),
        video: video.map(VideoEncoder::read),
        audio: audio.filter(|codec| !codec.is_empty()),
        stream: None,
        snapshot: None,
        version,
    })
}

/// The address in a `GetStreamUriResponse` or `GetSnapshotUriResponse` of either version.
pub(super) fn uri(answer: &Element) -> Option<&str> {
    answer.text_at(&["MediaUri", "Uri"]).or(answer.text_at(&["Uri"]))
}

#[cfg(test)]
mod tests {
    use super::super::encoder::VideoCodec;
    use super::super::soap;
    use super::*;

    macro_rules! fixture {
        ($name:literal) => {
            include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/onvif/", $name))
        };
    }

    #[test]
    fn profiles_of_both_versions_read_alike() {
        let one = profiles(&soap::answer(fixture!("media1-profiles.xml")).unwrap(), MediaVersion::One);
        let two = profiles(&soap::answer(fixture!("media2-profiles.xml")).unwrap(), MediaVersion::Two);
        for (profiles, codec) in [(&one, VideoCodec::H264), (&two, VideoCodec::Hevc)] {
            assert_eq!(profiles.len(), 2);
            let video = profiles[0].video.as_ref().unwrap();
            assert_eq!((video.codec, video.width, video.height), (Some(codec), Some(1920), Some(1080)));
            assert_eq!((video.fps, video.bitrate_kbps, video.gop), (Some(25.0), Some(4096), Some(50)));
            assert_eq!(profiles[1].video.as_ref().unwrap().width, Some(640));
            assert_eq!((profiles[0].token.as_str(), profiles[0].name.as_str()), ("main", "mainStream"));
            assert_eq!(profiles[0].audio.as_deref(), Some("G711"));
        }
    }

    #[test]
    fn main_is_the_largest_and_sub_the_smallest_with_a_stream() {
        let mut profiles =
            profiles(&soap::answer(fixture!("media1-profiles.xml")).unwrap(), MediaVersion::One);
        assert_eq!(main_and_sub(&profiles), (None, None));
        let camera = "10.0.0.7".parse().unwrap();
        for profile in &mut profiles {
            profile.stream = Some(ServiceUrl::stream("rtsp://10.0.0.7/x", camera).unwrap().url);
        }
        let (main, sub) = main_and_sub(&profiles);
        assert_eq!((main.unwrap().token.as_str(), sub.unwrap().token.as_str()), ("main", "sub"));
        profiles.truncate(1);
        assert!(main_and_sub(&profiles).1.is_none(), "one profile is no second");
    }

    #[test]
    fn a_thousand_profiles_are_cut_and_nameless_ones_left_out() {
        let many: String = (0..1_000).map(|n| format!("<Profiles token='{n}'/>")).collect();
        let wire = format!("<Envelope><Body><R><Profiles token=''/>{many}</R></Body></Envelope>");
        let found = profiles(&soap::answer(wire.as_bytes()).unwrap(), MediaVersion::Two);
        assert_eq!(found.len(), MAX_PROFILES - 1);
        assert!(found.iter().all(|profile| profile.video.is_none() && profile.pixels() == 0));
    }
}
