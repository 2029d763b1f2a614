//! A local camera: its worker while it is plugged in, and the wait for it while it is not.
//!
//! ```text
//!  missing --inotify--> there: worker runs --gone--> missing
//!                         \--- fails, but the device is there ---> the supervisor tries again
//! ```

use super::{COMMANDS, job_for, microphone};
use crate::supervisor::{ChildContext, ChildError, Handling};
use crate::wiring::Wiring;
use crate::wiring::treatment::Treatments;
use fieldgate_hub::Retry;
use fieldgate_model::Config;
use fieldgate_model::config::{Source, V4l2, V4l2Format};
use fieldgate_model::job::{self, Job, Sandbox, V4l2Camera, Work, WorkerCommand};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

type Controls = BTreeMap<String, i64>;

impl Wiring {
    /// A camera for as long as it is in the config, plugged in or not.
    pub(super) async fn v4l2_source(
        &self,
        name: String,
        v4l2: &V4l2,
        handling: &Handling,
        child: ChildContext,
    ) -> Result<(), ChildError> {
        let mut changes = self.devices.changes();
        loop {
            if let Some(changes) = &mut changes {
                changes.borrow_and_update();
            }
            let Some(file) = self.await_device(&name, v4l2, &mut changes, &child).await? else {
                return Ok(());
            };
            let ended = self.run_camera(&name, (v4l2, handling), &file, changes.clone(), &child).await;
            if child.cancel.is_cancelled() {
                return ended;
            }
            // What ended because the device went, or came again meanwhile, is no fault of the camera's.
            let has_changed = changes.as_ref().is_some_and(|changes| changes.has_changed().unwrap_or(false));
            if !has_changed && self.devices.find(&v4l2.device).is_ok_and(|now| now == file) {
                return ended;
            }
            info!(mountpoint = name, device = %v4l2.device.display(), "camera unplugged");
        }
    }

    /// The device file, once it is there; `None` when told to end.
    async fn await_device(
        &self,
        name: &str,
        v4l2: &V4l2,
        changes: &mut Option<watch::Receiver<u64>>,
        child: &ChildContext,
    ) -> Result<Option<PathBuf>, ChildError> {
        let mut last = None;
        let found = loop {
            let missing = match self.devices.find(&v4l2.device) {
                Ok(file) => break Ok(Some(file)),
                Err(missing) => missing.to_string(),
            };
            let Some(changes) = changes else { break Err(ChildError::new(Retry::Backoff, missing)) };
            if last.as_ref() != Some(&missing) {
                warn!(mountpoint = name, cause = missing, "waiting for a camera");
                self.board.set_missing(name, Some(missing.clone()));
                last = Some(missing);
            }
            // There is nothing more that it could do.
            child.ready.ready();
            tokio::select! {
                changed = changes.changed() => if changed.is_err() {
                    break Err(ChildError::new(Retry::Backoff, "devices are not watched any more"));
                },
                () = child.cancel.cancelled() => break Ok(None),
            }
        };
        self.board.set_missing(name, None);
        found
    }

    /// One worker's life, cut short when the device goes.
    async fn run_camera(
        &self,
        name: &str,
        (v4l2, handling): (&V4l2, &Handling),
        file: &Path,
        changes: Option<watch::Receiver<u64>>,
        child: &ChildContext,
    ) -> Result<(), ChildError> {
        let present = child.cancel.child_token();
        let config = self.devices.config();
        let controls = config
            .as_ref()
            .map_or_else(|| v4l2.controls.clone(), |config| controls_of(&config.borrow(), name));
        let source = V4l2 { device: file.to_owned(), controls: controls.clone(), ..v4l2.clone() };
        let source = Source::V4l2(source);
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let both = (commands.clone(), inbox);
        let context = ChildContext { cancel: present.clone(), ready: child.ready.clone() };
        tokio::select! {
            ended = self.run_worker(name, &source, handling, both, context) => ended,
            never = self.watch_device(v4l2, file, changes, &present) => match never {},
            never = forward_controls(name, controls, config, commands) => match never {},
        }
    }

    /// Stops the worker when its device is not the one meant any more.
    async fn watch_device(
        &self,
        v4l2: &V4l2,
        file: &Path,
        changes: Option<watch::Receiver<u64>>,
        present: &CancellationToken,
    ) -> Infallible {
        if let Some(mut changes) = changes {
            while changes.changed().await.is_ok() {
                if self.devices.find(&v4l2.device).map_or(true, |now| now != file) {
                    present.cancel();
                    break;
                }
            }
        }
        std::future::pending().await
    }
}

fn controls_of(config: &Config, name: &str) -> Controls {
    match config.mountpoints.get(name).map(|mountpoint| &mountpoint.source) {
        Some(Source::V4l2(v4l2)) => v4l2.controls.clone(),
        _ => Controls::new(),
    }
}

/// Hands controls that change in the config to the running worker.
async fn forward_controls(
    name: &str,
    mut last: Controls,
    config: Option<watch::Receiver<Arc<Config>>>,
    commands: mpsc::Sender<WorkerCommand>,
) -> Infallible {
    if let Some(mut config) = config {
        while config.changed().await.is_ok() {
            let now = controls_of(&config.borrow_and_update(), name);
            if now != last && commands.send(WorkerCommand::Controls(now.clone())).await.is_ok() {
                last = now;
            }
        }
    }
    // The channel stays open: its end is not the worker's concern.
    let _open = commands;
    std::future::pending().await
}

pub(super) fn v4l2_job(name: &str, v4l2: &V4l2, treat: Treatments, mut devices: Vec<PathBuf>) -> Job {
    let camera = V4l2Camera {
        device: v4l2.device.clone(),
        width: v4l2.width.unwrap_or(0),
        height: v4l2.height.unwrap_or(0),
        frame_rate: v4l2.frame_rate.unwrap_or(0),
        format: match v4l2.format {
            V4l2Format::Auto => job::V4l2Format::Auto,
            V4l2Format::H264 => job::V4l2Format::H264,
            V4l2Format::Hevc => job::V4l2Format::Hevc,
            V4l2Format::Mjpeg => job::V4l2Format::Mjpeg,
            V4l2Format::Raw => job::V4l2Format::Raw,
        },
        controls: v4l2.controls.clone(),
        microphone: v4l2.microphone.clone().unwrap_or_default(),
        video: treat.video,
        audio: treat.audio,
    };
    devices.retain(|device| *device != v4l2.device);
    devices.insert(0, v4l2.device.clone());
    let mut sandbox = Sandbox { devices, ..Sandbox::default() };
    microphone::allow(&mut sandbox, &camera.microphone);
    job_for(name, sandbox, Work::V4l2(camera))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldgate_model::job::EncoderWish;
    use std::path::Path;

    #[test]
    fn the_settings_of_a_device_reach_its_worker_with_its_own_file_once() {
        let v4l2: V4l2 = serde_json::from_value(serde_json::json!({
            "device": "/dev/video2", "width": 800, "height": 600, "frame_rate": 15, "format": "mjpeg",
            "bitrate": 700_000, "keyframe_interval": "4s", "controls": {"gain": 7},
            "microphone": "hw:CARD=C920",
        }))
        .unwrap();
        let treat = Treatments::plain(EncoderWish::default(), false);
        let devices = vec!["/dev/video2".into(), "/dev/video11".into()];
        let job = v4l2_job("bay", &v4l2, treat.clone(), devices);
        let snd = Path::new("/dev/snd");
        assert_eq!(job.sandbox.devices, [Path::new("/dev/video2"), Path::new("/dev/video11"), snd]);
        let Work::V4l2(camera) = job.work else { panic!() };
        assert_eq!((camera.width, camera.height, camera.frame_rate), (800, 600, 15));
        assert_eq!(camera.format, job::V4l2Format::Mjpeg);
        assert_eq!((camera.controls, camera.microphone.as_str()), (v4l2.controls, "hw:CARD=C920"));
        assert_eq!((camera.video, camera.audio), (treat.video, treat.audio));
    }
}
