//! Renditions: forms of a mountpoint's stream that some push needs, made once however many need them.
//!
//! ```text
//!  mountpoint gate --subscriber--> what passes ------------ in step -----+
//!                        \--> Feeder --> transcode worker --> what is made +--> mountpoint gate~h264 --> pushes
//! ```
//! All that a rendition ever sees is what the mountpoint's ring gives to any subscriber: a masked camera's pictures are
//! in no ring unmasked, so no rendition can show them. Times stay those of the mountpoint.

pub(super) mod guest;
mod in_step;
mod making;

use super::Wiring;
use super::capacity::Capacity;
use super::encoders::devices_of;
use super::inspector::decoder_devices;
use crate::supervisor::{ChildContext, ChildError, Handling, Made, MadeSound, RenditionKey};
use fieldgate_hub::link::{Feeder, Limits};
use fieldgate_hub::{Mountpoint, PublisherInfo, Retry, StreamState};
use fieldgate_media::Codec;
use fieldgate_model::config::Source;
use fieldgate_model::job::{
    AudioEncode, EncoderWish, Job, PictureCodec, Sandbox, Transcode, VideoEncode, Work,
};
use fieldgate_model::masks::Masks;
use fieldgate_worker::{Deadlines, Program, WorkerError, WorkerSpec};
use making::{Ended, Making};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Commands that may wait for a worker.
const COMMANDS: usize = 8;
/// Decoded pictures of 4K, their references, and what an encoder holds.
const MEMORY_BYTES: u64 = 512 << 20;
/// Pause before a stream that changed is made anew: a source that changes all the time must not spin.
const PAUSE: Duration = Duration::from_millis(500);

impl Wiring {
    /// A rendition's life: made whenever its mountpoint has a stream and the machine has room.
    pub(super) async fn rendition(
        &self,
        key: RenditionKey,
        made: Made,
        handling: Handling,
        child: ChildContext,
    ) -> Result<(), ChildError> {
        let (from, to) = (self.existing(&key.of)?, self.existing(&key.mountpoint())?);
        child.ready.ready();
        let mut state = from.state();
        loop {
            let live = tokio::select! {
                live = state.wait_for(|state| matches!(state, StreamState::Live(_))) => live.map(|live| *live),
                () = child.cancel.cancelled() => return Ok(()),
            };
            // The sender lives in the mountpoint, which we hold.
            let Ok(live) = live else { return Ok(()) };
            tokio::select! {
                () = self.capacity.admitted(&key.of, Some(&key.name), || ()) => {}
                () = child.cancel.cancelled() => return Ok(()),
            }
            let stop = child.cancel.child_token();
            let mut run = pin!(self.make(&key, made, &handling, (&from, &to), stop.clone()));
            let mut state = from.state();
            let ended = tokio::select! {
                ended = &mut run => Some(ended),
                _ = state.wait_for(|now| *now != live) => None,
                () = self.capacity.shed(&key.of, Some(&key.name)) => None,
            };
            let ended = match ended {
                Some(ended) => ended,
                None => {
                    stop.cancel();
                    // Whatever it says: it was told to end.
                    run.await.ok();
                    continue;
                }
            };
            if child.cancel.is_cancelled() {
                return Ok(());
            }
            info!(rendition = to.name(), ended = ?ended.as_ref().ok(), "made anew");
            ended?;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Makes it until told to stop, until what comes is not what the worker was started for, or until something fails.
    async fn make(
        &self,
        key: &RenditionKey,
        made: Made,
        handling: &Handling,
        (from, to): (&Arc<Mountpoint>, &Arc<Mountpoint>),
        stop: CancellationToken,
    ) -> Result<Ended, ChildError> {
        // Before anything of the stream is read: who changes its masks after this cuts both.
        let epoch = to.epoch();
        let feeder = Feeder::default();
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let prepared = tokio::select! {
            prepared = self.transcode(key, made, handling, &stop) => prepared?,
            () = stop.cancelled() => return Ok(Ended::Stopped),
        };
        let name = to.name().to_owned();
        let making = Making {
            from: from.clone(),
            to: to.clone(),
            epoch,
            made,
            spec: prepared,
            spawner: self.spawner.clone(),
            inbox,
            feeder: feeder.clone(),
            board: self.board.clone(),
            info: PublisherInfo {
                kind: "rendition",
                from: format!("{} of {}", key.name, key.of),
                since_unix_micros: self.context.clock.unix_micros(),
                rtmp: None,
            },
            stop: stop.clone(),
        };
        self.board.set_feeder(&name, feeder);
        let source = self.source_of(&key.of)?;
        let shard = self.shard_of(to)?;
        let mut running = pin!(shard.run(move |local| making.run(local)));
        let ended = tokio::select! {
            ended = &mut running => ended,
            never = self.follow_bitrate(&key.of, &source, commands) => match never {},
            () = self.masks.cut_since(to, epoch) => {
                stop.cancel();
                drop(running.await);
                self.board.remove_worker(&name);
                return Ok(Ended::Cut);
            }
        };
        let last = self.board.remove_worker(&name).map(|worker| worker.report).unwrap_or_default();
        match ended {
            Ok(Ok(ended)) => Ok(ended),
            Ok(Err(error)) => {
                self.encoders.note_end(&last.status.encoders, &error);
                Err(ChildError::new(Retry::Backoff, cause(&error)))
            }
            Err(error) => Err(ChildError::of(Retry::Backoff, &error)),
        }
    }

    /// What its worker is told, if it has tracks for one.
    async fn transcode(
        &self,
        key: &RenditionKey,
        made: Made,
        handling: &Handling,
        stop: &CancellationToken,
    ) -> Result<WorkerSpec, ChildError> {
        let source = self.source_of(&key.of)?;
        // What a camera's own worker does is done already.
        let is_camera = !matches!(source, Source::Publish(_) | Source::Pull(_) | Source::Kmp(_));
        let mut devices = Vec::new();
        let video = match made.video {
            None => None,
            Some(codec) => {
                let name = self.encoder_of(key, codec, stop).await?;
                devices = devices_of(&name, Path::new("/"));
                devices.extend(decoder_devices(Path::new("/")));
                devices.sort();
                devices.dedup();
                let encoder = EncoderWish {
                    codec,
                    name,
                    bitrate: self.bitrate(&key.of, &source),
                    gop_ms: super::treatment::gop_ms(handling, &source),
                    ..EncoderWish::default()
                };
                let video = &handling.video;
                let (max_width, max_height) = (video.max_width, video.max_height);
                let max_frame_rate = video.max_frame_rate;
                // Burnt in where the camera's pictures enter, in front of the ring that this one reads.
                let plain = VideoEncode::new(encoder, Masks::none());
                Some(VideoEncode { max_width, max_height, max_frame_rate, ..plain })
            }
        };
        let audio = match made.audio {
            MadeSound::Encode(codec) => {
                let (gain_db, mute) =
                    if is_camera { (0, false) } else { (handling.audio.gain_db, handling.audio.mute) };
                let bitrate = handling.audio.bitrate;
                Some(AudioEncode { codec, bitrate, gain_db: f32::from(gain_db), mute })
            }
            MadeSound::Pass | MadeSound::Off | MadeSound::Silence(_) => None,
        };
        let job = Job {
            name: key.mountpoint(),
            sandbox: Sandbox { devices, memory_bytes: MEMORY_BYTES, ..Sandbox::default() },
            work: Work::Transcode(Box::new(Transcode { video, audio })),
        };
        // Whether it is silent is judged by what it is fed with.
        let deadlines = Deadlines { first_unit: None, ..Deadlines::default() };
        Ok(WorkerSpec { program: Program::this_binary(), job, limits: Limits::CAMERA, deadlines })
    }

    /// The encoder that the plan has for it, or the first that works.
    async fn encoder_of(
        &self,
        key: &RenditionKey,
        codec: PictureCodec,
        stop: &CancellationToken,
    ) -> Result<String, ChildError> {
        let made = match codec {
            PictureCodec::H264 => Codec::H264,
            PictureCodec::Hevc => Codec::Hevc,
        };
        if let Some(planned) = planned(&self.capacity, key).filter(|name| self.encoders.is_usable(name)) {
            return Ok(planned);
        }
        let found = self.encoders.find(stop).await.map_err(|error| ChildError::of(Retry::Backoff, &error))?;
        let facts = self.encoders.facts();
        let mut fitting = facts.encoders.into_iter().filter(|encoder| encoder.codec == made);
        match fitting.next() {
            Some(encoder) => Ok(encoder.name),
            None if codec == PictureCodec::H264 => Ok(found.name),
            None => {
                let text = format!("no encoder for {} works here", made.name());
                Err(ChildError::new(Retry::Backoff, text))
            }
        }
    }

    fn source_of(&self, name: &str) -> Result<Source, ChildError> {
        let config = self.admission.supervisor().map(|supervisor| supervisor.config().borrow().clone());
        let source = config.and_then(|config| Some(config.mountpoint_for(name)?.1.source.clone()));
        source.ok_or_else(|| ChildError::new(Retry::Backoff, format!("mountpoint {name} is not there")))
    }
}

fn planned(capacity: &Capacity, key: &RenditionKey) -> Option<String> {
    capacity.encoder_for_rendition(key)
}

/// Why it ended, for people who know renditions and no workers.
fn cause(error: &WorkerError) -> String {
    match error {
        WorkerError::Silent { limit } => {
            format!("nothing comes of what is fed to it for {} s", limit.as_secs())
        }
        error => crate::steward::chain(error),
    }
}
