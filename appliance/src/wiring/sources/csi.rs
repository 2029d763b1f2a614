//! What the worker of a camera on the board's own connector is told.

use super::{job_for, microphone};
use crate::wiring::encoders::numbered;
use crate::wiring::treatment::Treatments;
use fieldgate_model::config::Csi;
use fieldgate_model::job::{CsiCamera, Job, Sandbox, Work};
use std::path::{Path, PathBuf};

/// What libcamera is set up by, beside what lies with the system's libraries.
const SETTINGS: [&str; 3] = ["/usr/share/libcamera", "/etc/libcamera", "/run/udev"];

/// `devices` are the encoder's; `root` is the system's.
pub(super) fn csi_job(
    name: &str,
    csi: &Csi,
    treat: Treatments,
    mut devices: Vec<PathBuf>,
    root: &Path,
) -> Job {
    let camera = CsiCamera {
        camera: csi.camera.clone().unwrap_or_default(),
        width: csi.width,
        height: csi.height,
        frame_rate: csi.frame_rate,
        microphone: csi.microphone.clone().unwrap_or_default(),
        video: treat.video,
        audio: treat.audio,
    };
    for device in camera_devices(root) {
        if !devices.contains(&device) {
            devices.push(device);
        }
    }
    let read = SETTINGS.map(PathBuf::from).to_vec();
    let mut sandbox = Sandbox { devices, read, ..Sandbox::default() };
    microphone::allow(&mut sandbox, &camera.microphone);
    job_for(name, sandbox, Work::Csi(camera))
}

/// The device files of sensors and of the processors behind them. libcamera asks all of them which belong together.
fn camera_devices(root: &Path) -> Vec<PathBuf> {
    let (dev, heaps) = (root.join("dev"), root.join("dev/dma_heap"));
    let mut devices: Vec<PathBuf> =
        ["media", "video", "v4l-subdev"].iter().flat_map(|prefix| numbered(&dev, prefix)).collect();
    // Memory for pictures, where the kernel hands it out by a file.
    let memory = ["system", "linux,cma", "vidbuf_cached"].map(|heap| heaps.join(heap));
    devices.extend(memory.into_iter().chain([dev.join("udmabuf")]).filter(|file| file.exists()));
    devices
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldgate_model::job::EncoderWish;

    #[test]
    fn its_worker_gets_the_settings_and_all_device_files_of_cameras_once() {
        let root = std::env::temp_dir().join(format!("fieldgate-csi-{}", std::process::id()));
        std::fs::create_dir_all(root.join("dev/dma_heap")).unwrap();
        for file in ["media0", "video0", "video13", "v4l-subdev2", "dma_heap/linux,cma", "null"] {
            std::fs::write(root.join("dev").join(file), "").unwrap();
        }
        let csi: Csi = serde_json::from_value(serde_json::json!({
            "camera": "imx708", "width": 1920, "height": 1080, "frame_rate": 25, "microphone": "hw:0",
        }))
        .unwrap();
        let treat = Treatments::plain(EncoderWish::default(), true);
        let encoder = vec![root.join("dev/video13")];
        let job = csi_job("bay", &csi, treat.clone(), encoder, &root);
        std::fs::remove_dir_all(&root).unwrap();
        let names: Vec<String> = job.sandbox.devices.iter().map(|file| file.display().to_string()).collect();
        let names: Vec<&str> = names.iter().map(|name| name.rsplit_once("dev/").unwrap().1).collect();
        assert_eq!(names, ["video13", "media0", "video0", "v4l-subdev2", "dma_heap/linux,cma", "snd"]);
        let Work::Csi(camera) = job.work else { panic!() };
        assert_eq!((camera.camera.as_str(), camera.width, camera.height), ("imx708", 1_920, 1_080));
        assert_eq!((camera.frame_rate, camera.microphone.as_str()), (25, "hw:0"));
        assert_eq!((camera.video, camera.audio), (treat.video, treat.audio));
    }
}
