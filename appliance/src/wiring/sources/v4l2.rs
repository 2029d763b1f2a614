//! What a local camera's worker is told.

use super::job_for;
use crate::wiring::treatment::Treatments;
use fieldgate_model::config::{V4l2, V4l2Format};
use fieldgate_model::job::{self, Job, Sandbox, V4l2Camera, Work};
use std::path::PathBuf;

pub(super) fn v4l2_job(name: &str, v4l2: &V4l2, treat: Treatments, mut devices: Vec<PathBuf>) -> Job {
    let camera = V4l2Camera {
        device: v4l2.device.clone(),
        width: v4l2.width.unwrap_or(0),
        height: v4l2.height.unwrap_or(0),
        frame_rate: v4l2.frame_rate.unwrap_or(0),
        format: match v4l2.format {
            V4l2Format::Auto => job::V4l2Format::Auto,
            V4l2Format::H264 => job::V4l2Format::H264,
            V4l2Format::Mjpeg => job::V4l2Format::Mjpeg,
            V4l2Format::Raw => job::V4l2Format::Raw,
        },
        video: treat.video,
        audio: treat.audio,
    };
    devices.retain(|device| *device != v4l2.device);
    devices.insert(0, v4l2.device.clone());
    job_for(name, Sandbox { devices, ..Sandbox::default() }, Work::V4l2(camera))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldgate_model::job::EncoderWish;
    use fieldgate_model::masks::Masks;
    use std::path::Path;

    #[test]
    fn the_settings_of_a_device_reach_its_worker_with_its_own_file_once() {
        let v4l2: V4l2 = serde_json::from_value(serde_json::json!({
            "device": "/dev/video2", "width": 800, "height": 600, "frame_rate": 15, "format": "mjpeg",
            "bitrate": 700_000, "keyframe_interval": "4s",
        }))
        .unwrap();
        let treat = Treatments::pass_or(EncoderWish::default(), Masks::none());
        let devices = vec!["/dev/video2".into(), "/dev/video11".into()];
        let job = v4l2_job("bay", &v4l2, treat.clone(), devices);
        assert_eq!(job.sandbox.devices, [Path::new("/dev/video2"), Path::new("/dev/video11")]);
        let Work::V4l2(camera) = job.work else { panic!() };
        assert_eq!((camera.width, camera.height, camera.frame_rate), (800, 600, 15));
        assert_eq!(camera.format, job::V4l2Format::Mjpeg);
        assert_eq!((camera.video, camera.audio), (treat.video, treat.audio));
    }
}
