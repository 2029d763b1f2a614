//! The one place where pictures are decoded to be looked at: a worker of its own, asked one keyframe at a time.
//!
//! ```text
//!  truth, snapshots --Request (bounded)--> Inspector::run --ask--> worker (sandboxed, no network, no camera)
//!                   <------ Seen ----------               <-answer-
//! ```
//! One worker serves all cameras and ends when it has been idle for a while. A keyframe that takes it down is counted,
//! and its mountpoint is not looked at for a time that doubles.

use bytes::Bytes;
use fieldgate_hub::link::Limits;
use fieldgate_hub::truth::{Keyframe, Look};
use fieldgate_media::{Draft, Tracks};
use fieldgate_model::job::{EncoderTrial, Figures, InspectAnswer, InspectAsk, Job, Sandbox, Work};
use fieldgate_worker::{Deadlines, Deliver, Program, Report, Spawner, WorkerError, WorkerSource, WorkerSpec};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Keyframes that may wait, over all cameras.
const WAITING: usize = 32;
/// Longer than the worker's own patience with one picture and its JPEG, and with decoders that are tried first.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Trials of decoders do not beat, and loading them takes seconds on a busy machine.
const PULSE_WITHIN: Duration = Duration::from_secs(10);
/// A worker that is not asked for so long is ended; its memory is worth more.
const IDLE: Duration = Duration::from_secs(60);
/// Rest of a mountpoint whose keyframe took a worker down; doubled each time, up to an hour.
const REST: Duration = Duration::from_secs(60);
const REST_DOUBLINGS: u32 = 6;
/// Decoded pictures of 4K, their references and a JPEG's stages.
const MEMORY_BYTES: u64 = 512 << 20;

/// A keyframe that was looked at.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its figures.
    pub look: Look,
    /// Pixels of the camera's picture.
    pub width: u32,
    /// Pixels of the camera's picture.
    pub height: u32,
    /// The JPEG, if one was wanted; empty otherwise.
    pub jpeg: Bytes,
}

/// Why a keyframe was not looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// Too many wait.
    #[error("{WAITING} keyframes wait to be decoded already")]
    Busy,
    /// A keyframe of this mountpoint has taken a worker down.
    #[error("its keyframes took a decoder down {crashes} times, last: {cause}; tried again in {} s", again_in.as_secs())]
    Resting {
        /// How often.
        crashes: u32,
        /// The last time's cause.
        cause: String,
        /// When it is tried again.
        again_in: Duration,
    },
    /// The worker ended over it.
    #[error("the decoder's worker ended: {0}")]
    Crashed(String),
    /// The worker says so.
    #[error("{0}")]
    Undecodable(String),
    /// The gateway ends.
    #[error("the gateway is stopping")]
    Stopping,
}

struct Request {
    mountpoint: String,
    keyframe: Keyframe,
    jpeg_width: Option<u32>,
    reply: oneshot::Sender<Result<Seen, InspectError>>,
}

/// Reaches the inspector; cheap to clone.
#[derive(Clone)]
pub struct Inspector {
    requests: mpsc::Sender<Request>,
    crashes: Arc<AtomicU64>,
}

/// The inspector's own side, to be run.
pub struct Inspecting {
    requests: mpsc::Receiver<Request>,
    crashes: Arc<AtomicU64>,
    spawner: Spawner,
    /// Decoders that were being tried when a worker went down, and how often that was.
    fallen: BTreeMap<String, u32>,
    /// Those of them that are left out.
    skip: Vec<String>,
    /// Mountpoints whose keyframes took a worker down: how often, why, and until when they rest.
    resting: BTreeMap<String, (u32, String, Instant)>,
    next_id: u64,
}

/// A worker that runs.
struct Running {
    asks: mpsc::Sender<Bytes>,
    answers: mpsc::Receiver<Bytes>,
    report: Arc<Mutex<Report>>,
    ended: JoinSet<Result<(), WorkerError>>,
}

impl Inspector {
    /// The inspector and its handle.
    pub fn new(spawner: Spawner) -> (Inspector, Inspecting) {
        let (sender, requests) = mpsc::channel(WAITING);
        let crashes = Arc::new(AtomicU64::new(0));
        let inspecting = Inspecting {
            requests,
            crashes: crashes.clone(),
            spawner,
            fallen: BTreeMap::new(),
            skip: Vec::new(),
            resting: BTreeMap::new(),
            next_id: 0,
        };
        (Inspector { requests: sender, crashes }, inspecting)
    }

    /// Looks at a keyframe; makes a JPEG of that width if one is wanted.
    pub async fn look(
        &self,
        mountpoint: &str,
        keyframe: Keyframe,
        jpeg_width: Option<u32>,
    ) -> Result<Seen, InspectError> {
        let (reply, answer) = oneshot::channel();
        let request = Request { mountpoint: mountpoint.to_owned(), keyframe, jpeg_width, reply };
        self.requests.try_send(request).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => InspectError::Busy,
            mpsc::error::TrySendError::Closed(_) => InspectError::Stopping,
        })?;
        answer.await.unwrap_or(Err(InspectError::Stopping))
    }

    /// Workers that keyframes took down.
    pub fn crashes(&self) -> u64 {
        self.crashes.load(Ordering::Relaxed)
    }
}

impl Inspecting {
    /// Looks at what is asked for until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut worker: Option<Running> = None;
        loop {
            let request = tokio::select! {
                () = cancel.cancelled() => break,
                request = timeout(IDLE, self.requests.recv()) => request,
            };
            let request = match request {
                Ok(Some(request)) => request,
                Ok(None) => break,
                Err(_) => {
                    end(worker.take()).await;
                    continue;
                }
            };
            if request.reply.is_closed() {
                continue;
            }
            let outcome = tokio::select! {
                outcome = self.look(&mut worker, &request) => outcome,
                () = cancel.cancelled() => break,
            };
            request.reply.send(outcome).ok();
        }
        end(worker).await;
    }

    async fn look(&mut self, worker: &mut Option<Running>, request: &Request) -> Result<Seen, InspectError> {
        let now = Instant::now();
        if let Some((crashes, cause, until)) = self.resting.get(&request.mountpoint)
            && *until > now
        {
            let again_in = *until - now;
            return Err(InspectError::Resting { crashes: *crashes, cause: cause.clone(), again_in });
        }
        self.next_id += 1;
        let track = &request.keyframe.track;
        let head = InspectAsk {
            id: self.next_id,
            codec: track.codec.name().to_owned(),
            jpeg_width: request.jpeg_width,
            ..InspectAsk::default()
        };
        let ask = head.encode(&track.header, &request.keyframe.unit.payload);
        if ask.len() > fieldgate_hub::link::ASK_MAX {
            return Err(InspectError::Undecodable(format!("a keyframe of {} bytes is too long", ask.len())));
        }
        let running = worker.get_or_insert_with(|| self.start());
        let answer = match running.ask(ask.into()).await {
            Ok(answer) => answer,
            Err(cause) => {
                let fallen = worker.take();
                self.note_crash(&request.mountpoint, fallen.as_ref(), &cause, now);
                return Err(InspectError::Crashed(cause));
            }
        };
        let read = InspectAnswer::decode(&answer).map_err(|error| error.to_string());
        let (head, jpeg) = match read {
            Ok((head, jpeg)) if head.id == self.next_id => {
                let jpeg_at = answer.len() - jpeg.len();
                (head, answer.slice(jpeg_at..))
            }
            other => {
                let cause = other.err().unwrap_or_else(|| "it answers what was not asked".to_owned());
                let fallen = worker.take();
                self.note_crash(&request.mountpoint, fallen.as_ref(), &cause, now);
                return Err(InspectError::Crashed(cause));
            }
        };
        self.resting.remove(&request.mountpoint);
        match (head.figures, head.error) {
            (Some(figures), None) => {
                Ok(Seen { look: look(&figures), width: head.width, height: head.height, jpeg })
            }
            (_, error) => {
                Err(InspectError::Undecodable(error.unwrap_or_else(|| "nothing comes of it".to_owned())))
            }
        }
    }

    fn start(&self) -> Running {
        let work = fieldgate_model::job::Inspector { skip: self.skip.clone(), ..Default::default() };
        let sandbox = Sandbox {
            devices: decoder_devices(Path::new("/")),
            memory_bytes: MEMORY_BYTES,
            ..Sandbox::default()
        };
        let job = Job { name: "pictures".into(), sandbox, work: Work::Inspect(work) };
        let deadlines = Deadlines { first_unit: None, pulse: PULSE_WITHIN, ..Deadlines::default() };
        let spec = WorkerSpec { program: Program::this_binary(), job, limits: Limits::CAMERA, deadlines };
        let (asks, inbox) = mpsc::channel(1);
        let (answered, answers) = mpsc::channel(1);
        let report = Arc::new(Mutex::new(Report::default()));
        let mut told = Told { answered, report: report.clone() };
        let spawner = self.spawner.clone();
        let mut ended = JoinSet::new();
        ended.spawn(async move {
            // A closed command channel is not the worker's concern; its life ends with the asks.
            let (_commands, commands) = mpsc::channel(1);
            let worker = WorkerSource::new(spec, spawner, commands, CancellationToken::new());
            worker.with_asks(inbox).run(&mut told).await
        });
        Running { asks, answers, report, ended }
    }

    fn note_crash(&mut self, mountpoint: &str, fallen: Option<&Running>, cause: &str, now: Instant) {
        self.crashes.fetch_add(1, Ordering::Relaxed);
        let report =
            fallen.map(|running| running.report.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let trials = report.map(|report| report.status.decoders).unwrap_or_default();
        let tried = trials.iter().find(|trial| trial.reason == EncoderTrial::UNDER_WAY);
        if let Some(tried) = tried {
            // Not the keyframe's fault: the decoder goes down before it has seen it. A software decoder may only have
            // been short of processor time.
            let times = self.fallen.entry(tried.name.clone()).or_default();
            *times += 1;
            warn!(
                decoder = tried.name,
                cause,
                times = *times,
                "a decoder took its worker down when it was tried"
            );
            if tried.hardware || *times > 1 {
                self.skip.push(tried.name.clone());
            }
            return;
        }
        let crashes = self.resting.get(mountpoint).map_or(0, |(crashes, ..)| *crashes) + 1;
        let rest = REST * 2_u32.pow((crashes - 1).min(REST_DOUBLINGS));
        warn!(mountpoint, cause, crashes, rest = ?rest, "a keyframe took its decoder's worker down");
        self.resting.insert(mountpoint.to_owned(), (crashes, cause.to_owned(), now + rest));
        // Mountpoints under templates come and go under ever new names.
        self.resting.retain(|_, (.., until)| *until + rest * 2 > now);
    }
}

impl Running {
    async fn ask(&mut self, ask: Bytes) -> Result<Bytes, String> {
        let answer = async {
            self.asks.send(ask).await.ok()?;
            self.answers.recv().await
        };
        match timeout(ANSWER_WITHIN, answer).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(match self.ended.join_next().await {
                Some(Ok(Err(error))) => error.to_string(),
                _ => "it ended by itself".to_owned(),
            }),
            Err(_) => Err(format!("no answer within {} s", ANSWER_WITHIN.as_secs())),
        }
    }
}

/// Lets a worker end by itself.
async fn end(worker: Option<Running>) {
    if let Some(Running { asks, answers, mut ended, .. }) = worker {
        drop((asks, answers));
        ended.join_next().await;
    }
}

/// The device files below `root` that decode: not a camera's, which hostile bytes must not reach.
pub(super) fn decoder_devices(root: &Path) -> Vec<PathBuf> {
    let names = |folder: &str| {
        let entries = std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<String>>()
    };
    let decodes = |video: &String| {
        let name = root.join("sys/class/video4linux").join(video).join("name");
        let name = std::fs::read_to_string(name).unwrap_or_default().to_lowercase();
        ["codec", "decode", "-dec", "vpu"].iter().any(|part| name.contains(part))
    };
    let renders = names("dev/dri").into_iter().filter(|name| name.starts_with("renderD"));
    let videos = names("sys/class/video4linux").into_iter().filter(decodes);
    let renders = renders.map(|name| root.join("dev/dri").join(name));
    renders.chain(videos.map(|name| root.join("dev").join(name))).collect()
}

fn look(figures: &Figures) -> Look {
    let Figures { mean, deviation, structure, black, edges, sharpness, fingerprint } = *figures;
    Look { mean, deviation, structure, black, edges, sharpness, fingerprint }
}

struct Told {
    answered: mpsc::Sender<Bytes>,
    report: Arc<Mutex<Report>>,
}

impl Deliver for Told {
    fn tracks(&mut self, _tracks: Tracks, _same: bool) {}
    fn unit(&mut self, _unit: Draft) {}
    fn flush(&mut self) {}
    fn report(&mut self, report: &Report) {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = report.clone();
    }
    fn answer(&mut self, answer: Bytes) {
        // More than was asked for is dropped.
        self.answered.try_send(answer).ok();
    }
}
