//! What else a camera offers, asked where that could save encoding.

use super::Capacity;
use crate::wiring::discovery::Cameras;
use crate::wiring::sources::login_of;
use fieldgate_media::Codec;
use fieldgate_model::Config;
use fieldgate_model::config::{Rtsp, Source};
use fieldgate_model::plan::{Form, Plan, Profile};
use fieldgate_proto::onvif::{self, VideoCodec};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// Time from one question to the next to the same camera.
const AGAIN: Duration = Duration::from_secs(30 * 60);

impl Capacity {
    /// Asks cameras whose pictures are encoded for another codec what profiles they have, so that the plan can name
    /// the one that would save it. Until cancelled.
    pub async fn ask_profiles(
        &self,
        cameras: &Cameras,
        config: watch::Receiver<Arc<Config>>,
        cancel: CancellationToken,
    ) {
        let mut standing = self.standing();
        let mut asked: BTreeMap<String, (Rtsp, Instant)> = BTreeMap::new();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                changed = standing.changed() => if changed.is_err() {
                    return;
                },
            }
            let plan = standing.borrow_and_update().clone();
            let config = config.borrow().clone();
            for (name, rtsp) in that_could_save(&plan.plan, &config) {
                let is_known = asked.get(name).is_some_and(|(then, at)| then == rtsp && at.elapsed() < AGAIN);
                let Some((host, login)) = login_of(rtsp).filter(|_| !is_known) else { continue };
                asked.insert(name.to_owned(), (rtsp.clone(), Instant::now()));
                let answer = tokio::select! {
                    () = cancel.cancelled() => return,
                    answer = cameras.profiles(&host, &login) => answer,
                };
                match answer {
                    Ok(profiles) => self.note_profiles(name, profiles.iter().map(profile).collect()),
                    // It need not speak ONVIF at all; the plan then says what to look for.
                    Err(error) => debug!(mountpoint = name, %error, "a camera does not tell its profiles"),
                }
            }
        }
    }
}

/// Cameras of which pictures are encoded that were coded already.
fn that_could_save<'c>(plan: &Plan, config: &'c Config) -> Vec<(&'c str, &'c Rtsp)> {
    let cameras = config.mountpoints.iter().filter_map(|(name, mountpoint)| match &mountpoint.source {
        Source::Rtsp(rtsp) => Some((name.as_str(), rtsp)),
        _ => None,
    });
    let encodes = |name: &str| {
        plan.mountpoints.get(name).is_some_and(|mountpoint| {
            let renditions = mountpoint.renditions.iter().map(|rendition| &rendition.video);
            let mut steps = std::iter::once(&mountpoint.source.video).chain(renditions);
            steps.any(|step| step.encodes() && step.from != step.to && step.from != Form::Raw)
        })
    };
    cameras.filter(|(name, _)| encodes(name)).collect()
}

fn profile(told: &onvif::Profile) -> Profile {
    let video = told.video.as_ref();
    Profile {
        name: told.name.clone(),
        codec: video.and_then(|video| match video.codec? {
            VideoCodec::H264 => Some(Codec::H264),
            VideoCodec::Hevc => Some(Codec::Hevc),
            VideoCodec::Mjpeg | VideoCodec::Mpeg4 => None,
        }),
        width: video.and_then(|video| video.width).unwrap_or(0),
        height: video.and_then(|video| video.height).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldgate_model::plan::{Known, Seen, SeenVideo, plan};

    #[test]
    fn only_cameras_that_another_profile_could_help_are_asked() {
        let text = r#"{"mountpoints": {
            "hevc": {"source": {"kind": "rtsp", "url": "rtsp://u:p@cam/1"},
                     "push": [{"url": "rtmp://up/a/b", "accepts": {"video": ["h264"]}}]},
            "fine": {"source": {"kind": "rtsp", "url": "rtsp://u:p@cam/2"}},
            "demo": {"source": {"kind": "test"}}}}"#;
        let config = Config::parse(text).unwrap();
        let video =
            |codec| SeenVideo { codec, encoded_here: false, width: 1280, height: 720, frame_rate: 25 };
        let seen = |codec| Seen { video: Some(video(codec)), is_whole: true, ..Seen::default() };
        let streams = [("hevc".to_owned(), seen(Codec::Hevc)), ("fine".to_owned(), seen(Codec::H264))];
        let plan = plan(&config, &Known { streams: streams.into(), ..Known::default() });
        let names: Vec<&str> = that_could_save(&plan, &config).iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["hevc"]);
    }
}
