//! Pictures that are made for somebody whom the config does not know: a guest of the plan, with a worker of its own.

use super::MEMORY_BYTES;
use super::making::{Ended, Making};
use crate::supervisor::{Made, MadeSound};
use crate::wiring::Wiring;
use crate::wiring::capacity::GuestPass;
use crate::wiring::encoders::devices_of;
use crate::wiring::inspector::decoder_devices;
use fieldgate_hub::link::{Feeder, Limits};
use fieldgate_hub::{Mountpoint, PublisherInfo};
use fieldgate_model::job::{AudioEncode, EncoderWish, Job, Sandbox, Transcode, VideoEncode, Work};
use fieldgate_model::masks::Masks;
use fieldgate_worker::{Deadlines, Program, WorkerSpec};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What a worker makes for a guest.
pub(in crate::wiring) struct GuestWork {
    pub(in crate::wiring) made: Made,
    /// As it is called in the status.
    pub(in crate::wiring) title: String,
    /// Pixels across and down.
    pub(in crate::wiring) size: (u32, u32),
    /// Bits per second.
    pub(in crate::wiring) bitrate: u32,
    /// From keyframe to keyframe.
    pub(in crate::wiring) gop_ms: u32,
    /// In pictures a second, where the source has more.
    pub(in crate::wiring) max_frame_rate: Option<u32>,
    /// The place in the plan; none: pictures pass.
    pub(in crate::wiring) pass: Option<GuestPass>,
}

impl GuestWork {
    /// One worker's life.
    pub(in crate::wiring) async fn run(
        &self,
        wiring: &Wiring,
        from: &Arc<Mountpoint>,
        to: &Arc<Mountpoint>,
        stop: &CancellationToken,
    ) -> Result<Ended, String> {
        // Before anything of the stream is read: who changes its masks after this cuts both.
        let epoch = to.epoch();
        let spec = self.spec(wiring, to, stop).await?;
        let feeder = Feeder::default();
        // Nobody tells it anything: rates stay as they were asked for.
        let (_commands, inbox) = mpsc::channel(1);
        let making = Making {
            from: from.clone(),
            to: to.clone(),
            epoch,
            made: self.made,
            spec,
            spawner: wiring.spawner.clone(),
            inbox,
            feeder: feeder.clone(),
            board: wiring.board.clone(),
            info: PublisherInfo {
                kind: "rendition",
                from: format!("{} of {}", self.title, from.name()),
                since_unix_micros: wiring.context.clock.unix_micros(),
                rtmp: None,
            },
            stop: stop.clone(),
        };
        wiring.board.set_feeder(to.name(), feeder);
        let shard = wiring.shard_of(to).map_err(|error| error.to_string())?;
        let ended = shard.run(move |local| making.run(local)).await;
        let last = wiring.board.remove_worker(to.name()).map(|worker| worker.report).unwrap_or_default();
        match ended {
            Ok(Ok(ended)) => Ok(ended),
            Ok(Err(error)) => {
                wiring.encoders.note_end(&last.status.encoders, &error);
                Err(crate::steward::chain(&error))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// What its worker is told.
    async fn spec(
        &self,
        wiring: &Wiring,
        to: &Mountpoint,
        stop: &CancellationToken,
    ) -> Result<WorkerSpec, String> {
        let mut devices = Vec::new();
        let video = match &self.pass {
            None => None,
            Some(pass) => {
                let name = match wiring.encoders.is_usable(&pass.encoder) {
                    true => pass.encoder.clone(),
                    false => wiring.encoders.find(stop).await.map_err(|error| error.to_string())?.name,
                };
                devices = devices_of(&name, Path::new("/"));
                devices.extend(decoder_devices(Path::new("/")));
                devices.sort();
                devices.dedup();
                let encoder = EncoderWish {
                    name,
                    bitrate: self.bitrate,
                    gop_ms: self.gop_ms,
                    ..EncoderWish::default()
                };
                Some(VideoEncode {
                    max_width: Some(self.size.0),
                    max_height: Some(self.size.1),
                    max_frame_rate: self.max_frame_rate,
                    is_exact: true,
                    ..VideoEncode::new(encoder, Masks::none())
                })
            }
        };
        let audio = matches!(self.made.audio, MadeSound::Encode(_)).then(AudioEncode::default);
        let job = Job {
            name: to.name().to_owned(),
            sandbox: Sandbox { devices, memory_bytes: MEMORY_BYTES, ..Sandbox::default() },
            work: Work::Transcode(Box::new(Transcode { video, audio })),
        };
        // Whether it is silent is judged by what it is fed with.
        let deadlines = Deadlines { first_unit: None, ..Deadlines::default() };
        Ok(WorkerSpec { program: Program::this_binary(), job, limits: Limits::CAMERA, deadlines })
    }
}
