//! What feeds a mountpoint from our side: workers with a camera, and pulls.

use super::pushes::{client_tls, dial_options};
use super::{Board, Wiring, retry_of};
use crate::supervisor::{ChildContext, ChildError, Ready, Retry};
use fieldgate_hub::link::Limits as LinkLimits;
use fieldgate_hub::{LocalShard, Mountpoint, Publisher, PublisherInfo};
use fieldgate_media::{Draft, Tracks};
use fieldgate_model::config::{self, Pull, Rtsp, RtspTransport, Source, TestPicture, V4l2, V4l2Format};
use fieldgate_model::job::{self, EncoderWish, Job, RtspCamera, Sandbox, TestCamera, V4l2Camera, Work};
use fieldgate_net::{RtmpEndpoint, RtmpPull};
use fieldgate_proto::rtmp::{Limits, RtmpUrl};
use fieldgate_worker::{Deadlines, Deliver, Program, Report, WorkerError, WorkerSource, WorkerSpec};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Commands that may wait for a worker.
const COMMANDS: usize = 8;
/// How long a camera's name may take to resolve.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);
/// RTSP's port where the address names none.
const RTSP_PORT: u16 = 554;

impl Wiring {
    pub(super) async fn source(
        &self,
        name: String,
        source: Source,
        child: ChildContext,
    ) -> Result<(), ChildError> {
        let (from, job, silence) = match &source {
            Source::Pull(pull) => return self.pull(name, pull, child).await,
            Source::Publish(_) => {
                return Err(ChildError::new(Retry::Never, "publishers feed it, no source of ours"));
            }
            Source::Test(test) => ("test picture".to_owned(), test_job(&name, test), None),
            Source::V4l2(v4l2) => (v4l2.device.display().to_string(), v4l2_job(&name, v4l2), None),
            Source::Rtsp(rtsp) => {
                let job = tokio::select! {
                    job = rtsp_job(&name, rtsp) => job?,
                    () = child.cancel.cancelled() => return Ok(()),
                };
                (rtsp.url.redacted(), job, Some(rtsp.stall_timeout.get()))
            }
        };
        let mountpoint = self.existing(&name)?;
        let shard = self.shard_of(&mountpoint)?;
        let mut deadlines = Deadlines::default();
        if let Some(silence) = silence {
            deadlines.between_units = silence;
        }
        let spec = WorkerSpec { program: Program::this_binary(), job, limits: LinkLimits::CAMERA, deadlines };
        // The sender stays here: a closed command channel is not the worker's concern.
        let (_commands, inbox) = mpsc::channel(COMMANDS);
        let worker = WorkerSource::new(spec, self.spawner.clone(), inbox, child.cancel.clone());
        let info =
            PublisherInfo { kind: source.kind(), from, since_unix_micros: self.context.clock.unix_micros() };
        let (board, ready) = (self.board.clone(), child.ready.clone());
        let ended =
            shard.run(move |local| feed_from_worker(worker, mountpoint, info, board, ready, local)).await;
        self.board.remove_worker(&name);
        match ended {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(ChildError::of(retry_of_worker(&error), &error)),
            Err(error) => Err(ChildError::of(Retry::Backoff, &error)),
        }
    }

    async fn pull(&self, name: String, pull: &Pull, child: ChildContext) -> Result<(), ChildError> {
        let url = RtmpUrl::parse(pull.url.reveal()).map_err(|error| ChildError::of(Retry::Never, &error))?;
        let tls = client_tls(&url, pull.verify, pull.ca.as_deref())?;
        let mountpoint = self.existing(&name)?;
        let shard = self.shard_of(&mountpoint)?;
        let stall_timeout = pull.stall_timeout.get();
        let run = RtmpPull {
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
            Ok(Err(error)) => Err(ChildError::of(retry_of(error.retry()), &error)),
            Err(error) => Err(ChildError::of(Retry::Backoff, &error)),
        }
    }
}

fn retry_of_worker(error: &WorkerError) -> Retry {
    match error.retry() {
        fieldgate_worker::Retry::Backoff => Retry::Backoff,
        fieldgate_worker::Retry::Never => Retry::Never,
        fieldgate_worker::Retry::Now => Retry::Now,
    }
}

async fn feed_from_worker(
    worker: WorkerSource,
    mountpoint: Arc<Mountpoint>,
    info: PublisherInfo,
    board: Arc<Board>,
    ready: Ready,
    local: Rc<LocalShard>,
) -> Result<(), WorkerError> {
    let kicked = CancellationToken::new();
    let mut feed =
        Feed { mountpoint, info, board, ready, local, publisher: None, told: String::new(), kicked };
    let refused = feed.kicked.clone();
    tokio::select! {
        ended = worker.run(&mut feed) => ended,
        () = refused.cancelled() => Err(WorkerError::Failed {
            cause: "its mountpoint is being fed by somebody else".into(),
            permanent: false,
        }),
    }
}

/// Hands a worker's units to its mountpoint.
struct Feed {
    mountpoint: Arc<Mountpoint>,
    info: PublisherInfo,
    board: Arc<Board>,
    ready: Ready,
    local: Rc<LocalShard>,
    publisher: Option<Publisher>,
    /// The encoder that was last logged.
    told: String,
    kicked: CancellationToken,
}

impl Deliver for Feed {
    fn tracks(&mut self, tracks: Tracks, _same: bool) {
        if self.publisher.is_none() {
            match self.mountpoint.claim(&self.local, self.info.clone()) {
                Ok(publisher) => self.publisher = Some(publisher),
                Err(error) => {
                    warn!(mountpoint = self.mountpoint.name(), %error, "camera cannot feed its mountpoint");
                    self.kicked.cancel();
                    return;
                }
            }
            self.ready.ready();
        }
        if let Some(publisher) = &mut self.publisher {
            publisher.announce(tracks);
        }
    }

    fn unit(&mut self, unit: Draft) {
        if let Some(publisher) = &mut self.publisher {
            publisher.publish(unit);
        }
    }

    fn flush(&mut self) {
        if let Some(publisher) = &mut self.publisher {
            publisher.flush();
        }
    }

    fn report(&mut self, report: &Report) {
        let chosen = report.status.encoders.iter().find(|trial| trial.chosen);
        if let Some(chosen) = chosen.filter(|chosen| chosen.name != self.told) {
            let tried: Vec<String> = report
                .status
                .encoders
                .iter()
                .map(|trial| format!("{}: {}", trial.name, trial.reason))
                .collect();
            info!(
                mountpoint = self.mountpoint.name(),
                encoder = chosen.name,
                hardware = chosen.hardware,
                tried = tried.join("; "),
                "encoder chosen"
            );
            self.told.clone_from(&chosen.name);
        }
        self.board.set_worker(self.mountpoint.name(), report.clone(), Instant::now());
    }
}

fn job(name: &str, sandbox: Sandbox, work: Work) -> Job {
    Job { name: name.to_owned(), sandbox, work }
}

fn wish(bitrate: u32, keyframe_interval: config::Span) -> EncoderWish {
    let seconds = keyframe_interval.get().as_secs_f64().round().clamp(1.0, 60.0);
    EncoderWish { bitrate, gop_seconds: seconds as u32, ..EncoderWish::default() }
}

fn test_job(name: &str, test: &TestPicture) -> Job {
    let camera = TestCamera {
        width: test.width,
        height: test.height,
        frame_rate: test.frame_rate,
        sound: test.audio,
        encoder: wish(test.bitrate, test.keyframe_interval),
    };
    job(name, Sandbox::default(), Work::Test(camera))
}

fn v4l2_job(name: &str, v4l2: &V4l2) -> Job {
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
        encoder: wish(v4l2.bitrate, v4l2.keyframe_interval),
    };
    let sandbox = Sandbox { devices: vec![v4l2.device.clone()], ..Sandbox::default() };
    job(name, sandbox, Work::V4l2(camera))
}

/// Names are resolved here: the worker may talk to the camera's port alone.
async fn rtsp_job(name: &str, rtsp: &Rtsp) -> Result<Job, ChildError> {
    let parts = rtsp.url.parts().map_err(|error| ChildError::of(Retry::Never, &error))?;
    let (host, port) = (parts.host, parts.port.unwrap_or(RTSP_PORT));
    let unresolved = |cause: String| {
        let text =
            format!("camera name {host} does not resolve ({cause}): check the name or the gateway's DNS");
        ChildError::new(Retry::Backoff, text)
    };
    let found = tokio::time::timeout(RESOLVE_WITHIN, tokio::net::lookup_host((host, port))).await;
    let mut found =
        found.map_err(|_| unresolved("no answer".into()))?.map_err(|e| unresolved(e.to_string()))?;
    let address: SocketAddr = found.next().ok_or_else(|| unresolved("no address".into()))?;
    let query = parts.query.map(|query| format!("?{query}")).unwrap_or_default();
    let camera = RtspCamera {
        address,
        path: format!("{}{query}", parts.path),
        transport: match rtsp.transport {
            RtspTransport::Udp => job::RtspTransport::Udp,
            RtspTransport::Auto | RtspTransport::Tcp => job::RtspTransport::Tcp,
        },
        user: parts.user.unwrap_or_default().to_owned(),
        password: job::Secret(parts.password.unwrap_or_default().to_owned()),
        latency_ms: u32::try_from(rtsp.latency.get().as_millis()).unwrap_or(u32::MAX),
        sound: true,
    };
    let udp = rtsp.transport != RtspTransport::Tcp;
    let sandbox = Sandbox { tcp_connect: vec![port], udp, ..Sandbox::default() };
    Ok(job(name, sandbox, Work::Rtsp(camera)))
}
