//! What the test picture's worker is told.

use super::{job_for, microphone};
use crate::wiring::treatment::Treatments;
use fieldgate_model::config::TestPicture;
use fieldgate_model::job::{Job, Sandbox, TestCamera, Work};
use std::path::PathBuf;

pub(super) fn test_job(name: &str, test: &TestPicture, treat: Treatments, devices: Vec<PathBuf>) -> Job {
    let camera = TestCamera {
        width: test.width,
        height: test.height,
        frame_rate: test.frame_rate,
        sound: test.audio,
        microphone: test.microphone.clone().unwrap_or_default(),
        video: treat.video,
        audio: treat.audio,
    };
    let mut sandbox = Sandbox { devices, ..Sandbox::default() };
    microphone::allow(&mut sandbox, &camera.microphone);
    job_for(name, sandbox, Work::Test(camera))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldgate_model::config::Span;
    use fieldgate_model::job::EncoderWish;

    #[test]
    fn the_settings_of_a_test_picture_reach_its_worker() {
        let test = TestPicture {
            width: 320,
            height: 180,
            frame_rate: 12,
            bitrate: 300_000,
            audio: false,
            microphone: None,
            keyframe_interval: Span::from_millis(500),
        };
        let encoder = EncoderWish { name: "openh264enc".into(), ..EncoderWish::default() };
        let treat = Treatments::plain(encoder, true);
        let job = test_job("demo", &test, treat.clone(), vec!["/dev/dri/renderD128".into()]);
        assert_eq!((job.name.as_str(), job.sandbox.devices.len()), ("demo", 1));
        let Work::Test(camera) = job.work else { panic!() };
        assert_eq!((camera.width, camera.height, camera.frame_rate, camera.sound), (320, 180, 12, false));
        assert_eq!((camera.video, camera.audio), (treat.video, treat.audio));
    }
}
