//! What feeds a mountpoint from our side: workers with a camera, and pulls. What each kind of worker is told is in a
//! file of its own.

mod csi;
mod file;
mod microphone;
mod mjpeg;
mod rtp;
mod rtsp;
mod test_picture;
mod v4l2;

pub(super) use rtsp::{login_of, relayed};

use super::encoders::{EncoderError, Encoders, devices_of};
use super::pushes::{client_tls, dial_options};
use super::treatment::{self, Given, Treatments};
use super::{Board, Wiring};
use crate::supervisor::{ChildContext, ChildError, Handling, Ready};
use crate::unbuilt;
use fieldgate_hub::link::Limits as LinkLimits;
use fieldgate_hub::{LocalShard, Mountpoint, Pace, Publisher, PublisherInfo, Retry};
use fieldgate_media::{Draft, Silence, TrackKind, Tracks};
use fieldgate_model::config::{Pull, Source, V4l2Format};
use fieldgate_model::job::{AudioTreatment, EncoderWish, Job, Sandbox, SoundCodec, Work, WorkerCommand};
use fieldgate_model::masks::Masks;
use fieldgate_model::plan::Action;
use fieldgate_net::{RtmpEndpoint, RtmpPull};
use fieldgate_proto::rtmp::{ClientMode, Limits, RtmpUrl};
use fieldgate_worker::{Deliver, Program, Report, WorkerError, WorkerSource, WorkerSpec};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Commands that may wait for a worker.
const COMMANDS: usize = 8;

impl Wiring {
    pub(super) async fn source(
        &self,
        name: String,
        source: Source,
        handling: Handling,
        child: ChildContext,
    ) -> Result<(), ChildError> {
        if let Some(text) = unbuilt::source(&source) {
            return Err(ChildError::new(Retry::Never, text));
        }
        if let Source::Kmp(_) = &source {
            return self.kmp_source(name, child).await;
        }
        if let Source::Pull(pull) = &source {
            return self.pull(name, pull, child).await;
        }
        if let Source::V4l2(v4l2) = &source {
            return self.v4l2_source(name, v4l2, &handling, child).await;
        }
        if let Source::File(file) = &source {
            return self.file_source(name, file, &handling, child).await;
        }
        self.run_worker(&name, &source, &handling, mpsc::channel(COMMANDS), child).await
    }

    /// One run of a worker that feeds this mountpoint, cut short when its masks change; commands reach it while it runs.
    async fn run_worker(
        &self,
        name: &str,
        source: &Source,
        handling: &Handling,
        (commands, inbox): (mpsc::Sender<WorkerCommand>, mpsc::Receiver<WorkerCommand>),
        child: ChildContext,
    ) -> Result<(), ChildError> {
        let mountpoint = self.existing(name)?;
        // Before the masks are read: who changes them after this cuts, and the claim is refused.
        let epoch = mountpoint.epoch();
        let stop = child.cancel.child_token();
        let (mut rtsp, mut fetch) = (None, None);
        let prepare = async {
            Ok(match source {
                Source::Rtsp(_) => {
                    let attempt = self.rtsp(name, source, handling, &child.cancel).await?;
                    let job = attempt.job.clone();
                    rtsp = Some(attempt);
                    job
                }
                Source::Mjpeg(_) => {
                    let fetched = self.mjpeg(name, source, handling, &child.cancel).await?;
                    let job = fetched.job.clone();
                    fetch = Some(fetched);
                    job
                }
                _ => self.job(name, source, handling, &child.cancel).await?,
            })
        };
        let job = tokio::select! {
            job = prepare => job?,
            () = child.cancel.cancelled() => return Ok(()),
        };
        let from = match source {
            Source::Test(_) => "test picture".to_owned(),
            Source::V4l2(v4l2) => v4l2.device.display().to_string(),
            Source::Csi(csi) => csi.camera.clone().unwrap_or_else(|| "libcamera".to_owned()),
            Source::Rtsp(rtsp) => rtsp.taken_url().redacted(),
            Source::Rtp(rtp) => rtp::described(rtp)?,
            Source::Mjpeg(mjpeg) => mjpeg.url.redacted(),
            Source::File(file) => file.path.display().to_string(),
            Source::Publish(_) | Source::Pull(_) | Source::Kmp(_) => {
                return Err(ChildError::new(Retry::Never, "publishers feed it, no source of ours"));
            }
        };
        let shard = self.shard_of(&mountpoint)?;
        let deadlines = rtsp.as_ref().map(|rtsp| rtsp.deadlines);
        let deadlines = deadlines.or(fetch.as_ref().map(|fetch| fetch.deadlines));
        let deadlines = deadlines.unwrap_or_else(|| rtp::deadlines(source));
        let audio = fetch.as_ref().map(|fetch| &fetch.audio);
        let silent = audio.or(job.work.treatments().map(|(_, audio)| audio)).and_then(silence_of);
        let learning = tries_encoders(&job.work).then(|| self.encoders.clone());
        let spec = WorkerSpec { program: Program::this_binary(), job, limits: LinkLimits::CAMERA, deadlines };
        let feeder = fetch.as_ref().map(|fetch| fetch.feeder.clone()).unwrap_or_default();
        let worker = WorkerSource::new(spec, self.spawner.clone(), inbox, stop.clone()).fed_by(feeder);
        let info = PublisherInfo {
            kind: source.kind(),
            from,
            since_unix_micros: self.context.clock.unix_micros(),
            rtmp: None,
        };
        let login = rtsp.as_ref().map(|rtsp| rtsp.login.clone()).unwrap_or_default();
        let (board, ready) = (self.board.clone(), child.ready.clone());
        let notes = Notes { board, ready, learning, login, epoch, silent };
        let (fed, relay) = (mountpoint.clone(), rtsp.as_mut().and_then(|rtsp| rtsp.relay.take()));
        let run = shard.run(move |local| feed_from_worker(worker, fed, info, notes, local));
        let mut feeding = pin!(async {
            match (relay, &mut fetch) {
                (Some(relay), _) => (relayed(relay, run).await, None),
                (None, Some(fetch)) => {
                    let (ended, error) = fetch.beside(run, &stop).await;
                    (ended, error.map(|error| self.note_mjpeg_end(fetch, &error)))
                }
                (None, None) => (run.await, None),
            }
        });
        let (ended, no_more) = tokio::select! {
            ended = &mut feeding => ended,
            never = self.follow_bitrate(name, source, commands) => match never {},
            () = self.masks.cut_since(&mountpoint, epoch) => {
                stop.cancel();
                drop(feeding.await);
                self.board.remove_worker(name);
                return Err(ChildError::new(Retry::Now, "its masks changed"));
            }
        };
        let last = self.board.remove_worker(name).map(|worker| worker.report).unwrap_or_default();
        if child.cancel.is_cancelled() {
            self.transports.forget(name);
        }
        if let Some(error) = no_more {
            return Err(error);
        }
        match ended {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                if let Some(refused) = rtsp.and_then(|rtsp| self.note_rtsp_end(name, &rtsp, &last, &error)) {
                    return Err(refused);
                }
                let is_next_encoder = self.encoders.note_end(&last.status.encoders, &error);
                // What was wrong with the one that is left out says nothing about the next.
                let retry = if is_next_encoder { Retry::Backoff } else { error.retry() };
                Err(ChildError::of(retry, &error))
            }
            Err(error) => Err(ChildError::of(Retry::Backoff, &error)),
        }
    }

    /// What this source's worker shall do. Waits for the encoder or the camera's name only where it needs one.
    async fn job(
        &self,
        name: &str,
        source: &Source,
        handling: &Handling,
        cancel: &CancellationToken,
    ) -> Result<Job, ChildError> {
        let asked = self.asked(name, handling)?;
        let must_encode = asked.must_encode;
        match source {
            Source::Test(test) => {
                let (encoder, devices) = self.proven(name, cancel).await?;
                let treat = self.treated(name, source, handling, asked, (encoder, true));
                Ok(test_picture::test_job(name, test, treat, devices))
            }
            Source::Csi(csi) => {
                let (encoder, devices) = self.proven(name, cancel).await?;
                let treat = self.treated(name, source, handling, asked, (encoder, true));
                Ok(csi::csi_job(name, csi, treat, devices, Path::new("/")))
            }
            Source::V4l2(v4l2) => {
                let (encoder, devices) = match v4l2.format {
                    _ if must_encode => self.proven(name, cancel).await?,
                    V4l2Format::H264 | V4l2Format::Hevc => (EncoderWish::default(), Vec::new()),
                    // The device may encode by itself, so it does not wait for what it may not need.
                    V4l2Format::Auto => self.encoders.known_or_untried(),
                    V4l2Format::Mjpeg | V4l2Format::Raw => self.proven(name, cancel).await?,
                };
                let treat = self.treated(name, source, handling, asked, (encoder, false));
                Ok(v4l2::v4l2_job(name, v4l2, treat, devices))
            }
            Source::Rtp(rtp) => {
                let session = rtp::session(rtp)?;
                let (encoder, devices) = match must_encode || session.has_jpeg() {
                    true => self.proven(name, cancel).await?,
                    false => (EncoderWish::default(), Vec::new()),
                };
                let treat = self.treated(name, source, handling, asked, (encoder, false));
                rtp::rtp_job(name, rtp, session, treat, devices)
            }
            Source::File(file) => {
                // What is in it shows when it is played.
                let (encoder, devices) = match must_encode {
                    true => self.proven(name, cancel).await?,
                    false => self.encoders.known_or_untried(),
                };
                let treat = self.treated(name, source, handling, asked, (encoder, false));
                Ok(file::file_job(name, file, treat, devices))
            }
            Source::Rtsp(_) | Source::Mjpeg(_) | Source::Publish(_) | Source::Pull(_) | Source::Kmp(_) => {
                Err(ChildError::new(Retry::Never, "this source needs no worker"))
            }
        }
    }

    /// What must be burnt in, and whether that or anything else forces encoding.
    fn asked(&self, name: &str, handling: &Handling) -> Result<Asked, ChildError> {
        let masks = self.masks.of(name).map_err(|error| ChildError::of(Retry::Backoff, &error))?;
        let exceeds = self.exceeds(name);
        let must_encode = treatment::must_encode(handling, &masks, exceeds);
        Ok(Asked { masks, exceeds, must_encode })
    }

    /// What the worker is told, with this encoder, of a source that is raw or not.
    fn treated(
        &self,
        name: &str,
        source: &Source,
        handling: &Handling,
        asked: Asked,
        (encoder, is_raw): (EncoderWish, bool),
    ) -> Treatments {
        let (bitrate, gop_ms) = (self.bitrate(name, source), treatment::gop_ms(handling, source));
        let encoder = EncoderWish { bitrate, gop_ms, ..encoder };
        let Asked { masks, exceeds, .. } = asked;
        let has_raw_sound = is_raw || source.microphone().is_some();
        Treatments::of(handling, Given { masks, encoder, exceeds, is_raw, has_raw_sound })
    }

    /// Whether the plan knows pictures that exceed what the settings let through.
    fn exceeds(&self, name: &str) -> bool {
        let standing = self.capacity.standing().borrow().clone();
        let planned = standing.plan.mountpoints.get(name);
        planned.is_some_and(|planned| planned.source.video.action == Action::Transcode)
    }

    pub(super) fn bitrate(&self, name: &str, source: &Source) -> u32 {
        let config = self.admission.supervisor().map(|supervisor| supervisor.config().borrow().clone());
        treatment::bitrate(&config.unwrap_or_default(), name, source)
    }

    /// Tells a running encoder each new rate.
    pub(super) async fn follow_bitrate(
        &self,
        name: &str,
        source: &Source,
        commands: mpsc::Sender<WorkerCommand>,
    ) -> std::convert::Infallible {
        let mut told = self.bitrate(name, source);
        let config = self.admission.supervisor().map(|supervisor| supervisor.config());
        let Some(mut config) = config else { return std::future::pending().await };
        loop {
            if config.changed().await.is_err() {
                return std::future::pending().await;
            }
            let wanted = self.bitrate(name, source);
            // A full queue is that of a worker that is about to be stopped.
            if wanted != told && commands.try_send(WorkerCommand::Bitrate(wanted)).is_ok() {
                info!(mountpoint = name, bitrate = wanted, "encoder's rate changed");
                told = wanted;
            }
        }
    }

    /// The encoder that works, or that the plan has for this mountpoint, and its device files.
    async fn proven(
        &self,
        name: &str,
        cancel: &CancellationToken,
    ) -> Result<(EncoderWish, Vec<PathBuf>), ChildError> {
        let found = self.encoders.find(cancel).await.map_err(|error| {
            let retry = match &error {
                EncoderError::Worker(error) => error.retry(),
                // One may be plugged in or installed.
                EncoderError::NoneWorks(_) => Retry::Backoff,
            };
            ChildError::of(retry, &error)
        })?;
        let planned = self.capacity.encoder_for(name).filter(|planned| self.encoders.is_usable(planned));
        let name = planned.unwrap_or(found.name);
        let devices = devices_of(&name, Path::new("/"));
        Ok((EncoderWish { name, ..EncoderWish::default() }, devices))
    }

    async fn pull(&self, name: String, pull: &Pull, child: ChildContext) -> Result<(), ChildError> {
        let url = RtmpUrl::parse(pull.url.reveal()).map_err(|error| ChildError::of(Retry::Never, &error))?;
        let tls = client_tls(url.tls, pull.verify, pull.ca.as_deref())?;
        let mountpoint = self.existing(&name)?;
        let shard = self.shard_of(&mountpoint)?;
        let stall_timeout = pull.stall_timeout.get();
        let from = url.redacted(ClientMode::Play).to_string();
        let run = RtmpPull {
            from,
            endpoint: RtmpEndpoint { url, tls, chunk_len: 4096, dial: dial_options(stall_timeout) },
            mountpoint,
            stall_timeout,
            limits: Limits {
                media_bytes: self.rtmp_settings.borrow().limits.media_bytes,
                ..Limits::default()
            },
            clock: self.context.clock.clone(),
            cancel: child.cancel.clone(),
        };
        child.ready.ready();
        match shard.run(move |local| run.run(local)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(ChildError::of(error.retry(), &error)),
            Err(error) => Err(ChildError::of(Retry::Backoff, &error)),
        }
    }
}

async fn feed_from_worker(
    worker: WorkerSource,
    mountpoint: Arc<Mountpoint>,
    info: PublisherInfo,
    notes: Notes,
    local: Rc<LocalShard>,
) -> Result<(), WorkerError> {
    let kicked = CancellationToken::new();
    let clock_jumps = mountpoint.clock_jumps();
    let silence = notes.silent.clone();
    let mut feed = Feed {
        mountpoint,
        info,
        notes,
        local,
        publisher: None,
        kicked,
        clock_jumps,
        silence,
        is_silent: false,
    };
    let refused = feed.kicked.clone();
    tokio::select! {
        ended = worker.run(&mut feed) => ended,
        () = refused.cancelled() => Err(WorkerError::Failed {
            cause: "its mountpoint is being fed by somebody else".into(),
            permanent: false,
        }),
    }
}

/// What a mountpoint asks of its pictures.
struct Asked {
    masks: Masks,
    /// They are larger or more than the settings let through.
    exceeds: bool,
    must_encode: bool,
}

/// Where is told how a worker does.
struct Notes {
    board: Arc<Board>,
    ready: Ready,
    /// Given when the worker tries encoders by itself.
    learning: Option<Arc<Encoders>>,
    /// Settled by the first tracks.
    login: rtsp::Login,
    /// The mountpoint's when the worker's masks were read.
    epoch: u64,
    /// Takes the place of sound that is not there.
    silent: Option<Silence>,
}

/// Hands a worker's units to its mountpoint.
struct Feed {
    mountpoint: Arc<Mountpoint>,
    info: PublisherInfo,
    notes: Notes,
    local: Rc<LocalShard>,
    publisher: Option<Publisher>,
    kicked: CancellationToken,
    /// Told so far.
    clock_jumps: u64,
    silence: Option<Silence>,
    /// Silence is being sent: the worker has no sound.
    is_silent: bool,
}

impl Deliver for Feed {
    fn tracks(&mut self, mut tracks: Tracks, _same: bool) {
        self.is_silent = self.silence.is_some() && tracks.first(TrackKind::Audio).is_none();
        if let Some(silence) = self.silence.as_ref().filter(|_| self.is_silent) {
            tracks = tracks.with(silence.track().clone());
        }
        if self.publisher.is_none() {
            match self.mountpoint.claim_in(self.notes.epoch, &self.local, self.info.clone()) {
                Ok(mut publisher) => {
                    publisher.set_pace(Pace::Arrival);
                    self.publisher = Some(publisher);
                }
                Err(error) => {
                    warn!(mountpoint = self.mountpoint.name(), %error, "camera cannot feed its mountpoint");
                    self.kicked.cancel();
                    return;
                }
            }
            self.notes.ready.ready();
            self.notes.login.accepted();
        }
        if let Some(publisher) = &mut self.publisher {
            publisher.announce(tracks);
        }
    }

    fn unit(&mut self, unit: Draft) {
        if let Some(publisher) = &mut self.publisher {
            let head = unit.head;
            publisher.publish(unit);
            if let Some(silence) = self.silence.as_mut().filter(|_| self.is_silent) {
                while let Some(unit) = silence.due(&head) {
                    publisher.publish(unit);
                }
            }
        }
    }

    fn flush(&mut self) {
        if let Some(publisher) = &mut self.publisher {
            publisher.flush();
        }
    }

    fn report(&mut self, report: &Report) {
        if let Some(encoders) = &self.notes.learning {
            encoders.learn(&report.status.encoders);
        }
        let jumps = self.mountpoint.clock_jumps();
        if jumps > std::mem::replace(&mut self.clock_jumps, jumps) {
            warn!(
                mountpoint = self.mountpoint.name(),
                jumps, "the camera's clock jumped; its stream goes on evenly"
            );
        }
        self.notes.board.set_worker(self.mountpoint.name(), report.clone(), Instant::now());
    }
}

fn job_for(name: &str, sandbox: Sandbox, work: Work) -> Job {
    Job { name: name.to_owned(), sandbox, work }
}

/// Whether this worker may choose its encoder by itself.
fn tries_encoders(work: &Work) -> bool {
    let encode = work.treatments().and_then(|(video, _)| video.encode());
    encode.is_some_and(|encode| encode.encoder.name.is_empty())
}

/// Silence in the codec that the worker's sound would have, where a receiver insists on sound.
fn silence_of(audio: &AudioTreatment) -> Option<Silence> {
    match audio {
        AudioTreatment::Silence(encode) if encode.codec == SoundCodec::Opus => Some(Silence::opus()),
        AudioTreatment::Silence(_) => Some(Silence::aac()),
        _ => None,
    }
}
