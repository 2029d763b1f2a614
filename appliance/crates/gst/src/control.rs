//! The main thread of a worker: sets up, then turns between the bus, the gateway's commands and the pulse.

use crate::builtin;
use crate::cameras::rtsp::{Notice, Session};
use crate::cameras::{self, Camera, Controls};
use crate::decoders;
use crate::encoders;
use crate::error::WorkError;
use crate::inspect::Keyframes;
use crate::intake::Intake;
use crate::outlet::Outlet;
use crate::pipeline::element_error;
use crate::stream::ask_for_keyframe;
use bytes::{BufMut, Bytes};
use fieldgate_hub::link::{Frame, Inbound, LogLevel};
use fieldgate_model::job::{Failure, Guard, Inspector, Job, Phase, Work, WorkerCommand, WorkerStatus};
use gst::prelude::*;
use rustix::event::{PollFd, PollFlags, poll};
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Instant;

/// What the gateway wants waits so long at most. Each turn wakes a processor that may be asleep.
const TURN: gst::ClockTime = gst::ClockTime::from_mseconds(250);
const TURNS_PER_PULSE: u32 = 2;
/// How often a microphone that is not heard is tried: ten seconds or, with much on the bus, a little less.
const TURNS_PER_LISTEN: u32 = 40;
const COMMANDS: usize = 16;
/// One read from the link.
const PIECE_BYTES: usize = 32 << 10;
/// Warnings passed on between two pulses; elements may repeat them for every buffer.
const WARNINGS_PER_PULSE: u32 = 3;

/// Does `job` until it is done, cannot go on, or the gateway asks to stop or goes away.
///
/// `link` is the socket to the gateway and `commands` its reading half, which may already hold a part of the next
/// command. `guards` is what holds this process in; `now` is any time, the gateway's commands have no rate limit.
pub fn main(link: UnixStream, commands: Inbound, job: &Job, guards: Vec<Guard>, now: Instant) -> ExitCode {
    let reader = link.try_clone();
    let (Ok(reader), Ok(outlet)) = (reader, Outlet::start(link)) else { return ExitCode::FAILURE };
    let (sender, inbox) = sync_channel(COMMANDS);
    // Who asks waits for the answer before asking again.
    let (asking, asks) = sync_channel(1);
    let intake = Intake::default();
    let takers = Takers { commands: sender, asking, intake: intake.clone() };
    let thread = std::thread::Builder::new().name("link-in".into()).stack_size(128 << 10);
    if thread.spawn(move || read_link(reader, commands, &takers, now)).is_err() {
        return ExitCode::FAILURE;
    }
    outlet.pulse();
    let mut worker = Worker {
        outlet,
        inbox,
        asks: Some(asks),
        intake,
        dropped: 0,
        status: WorkerStatus { sandbox: guards, ..WorkerStatus::default() },
        warnings: 0,
        controls: None,
    };
    worker.outlet.status(&worker.status);
    let outcome = worker.work(job);
    let code = match outcome {
        Ok(phase) => {
            worker.status.phase = phase;
            ExitCode::SUCCESS
        }
        Err(error) => {
            worker.status.phase = Phase::Failed;
            let failure = Failure {
                cause: error.to_string(),
                permanent: error.is_permanent(),
                login_refused: error.is_login_refused(),
                needs_encoder: error.needs_encoder(),
            };
            worker.status.failure = Some(failure);
            ExitCode::from(2)
        }
    };
    worker.outlet.status(&worker.status);
    worker.outlet.drain();
    code
}

struct Worker {
    outlet: Outlet,
    inbox: Receiver<WorkerCommand>,
    /// Nothing: they go to the pipeline.
    asks: Option<Receiver<Bytes>>,
    intake: Intake,
    /// Units of the intake that were counted as dropped.
    dropped: u64,
    status: WorkerStatus,
    warnings: u32,
    /// What was set on a capture device.
    controls: Option<Controls>,
}

impl Worker {
    fn work(&mut self, job: &Job) -> Result<Phase, WorkError> {
        builtin::init().map_err(WorkError::Init)?;
        if let Work::Inspect(settings) = &job.work {
            return self.inspect(settings);
        }
        if let Work::ProbeDevice(device) = &job.work {
            self.status.device = Some(cameras::probe_device(device)?);
            return Ok(Phase::Done);
        }
        self.controls = Controls::of(&job.work);
        let asks = if let Work::Received(_) = job.work { self.asks.take() } else { None };
        let (outlet, intake, status) = (&self.outlet, &self.intake, &mut self.status);
        let camera = cameras::build(&job.work, outlet, intake, asks, |trials| {
            // Each trial may take seconds; it is progress all the same.
            outlet.pulse();
            let of_decoders = trials.iter().any(|trial| decoders::is_decoder(&trial.name));
            let list = if of_decoders { &mut status.decoders } else { &mut status.encoders };
            *list = trials.to_vec();
            outlet.status(status);
        })?;
        let Some((camera, mut session)) = camera else { return Ok(Phase::Done) };
        self.status.source.clone_from(&camera.source);
        self.status.microphone = camera.microphone.as_ref().map(|absent| absent.cause.clone());
        let played = self.play(&camera, session.as_mut());
        drop(session);
        let _ = camera.pipeline.set_state(gst::State::Null);
        match played {
            // A file that is played once, or received, is done at its end; a camera never is.
            Err(WorkError::Ended) if matches!(job.work, Work::File(_) | Work::Received(_)) => Ok(Phase::Done),
            played => played,
        }
    }

    /// Answers what is asked until it is time to end.
    fn inspect(&mut self, settings: &Inspector) -> Result<Phase, WorkError> {
        self.status.phase = Phase::Playing;
        self.outlet.status(&self.status);
        let mut keyframes = Keyframes::new(settings);
        let mut turns = 0_u32;
        loop {
            if turns.is_multiple_of(TURNS_PER_PULSE) {
                self.outlet.pulse();
            }
            turns = turns.wrapping_add(1);
            if self.outlet.is_closed() || !self.obey(None) {
                return Ok(Phase::Done);
            }
            let ask = self.asks.as_ref().and_then(|asks| asks.recv_timeout(TURN.into()).ok());
            let Some(ask) = ask else { continue };
            let (outlet, status) = (&self.outlet, &mut self.status);
            let answer = keyframes.answer(&ask, &mut || outlet.pulse(), |trials| {
                outlet.pulse();
                status.decoders = trials.to_vec();
                outlet.status(status);
            });
            outlet.answer(answer);
        }
    }

    fn play(&mut self, camera: &Camera, mut session: Option<&mut Session>) -> Result<Phase, WorkError> {
        let bus = camera.pipeline.bus().ok_or(WorkError::Ended)?;
        if camera.pipeline.set_state(gst::State::Playing).is_err() {
            // The reason is on the bus.
            return Err(bus.pop_filtered(&[gst::MessageType::Error]).map_or(
                WorkError::Start(gst::StateChangeError),
                |message| match message.view() {
                    gst::MessageView::Error(error) => element_error(error),
                    _ => WorkError::Ended,
                },
            ));
        }
        self.status.phase = Phase::Playing;
        self.outlet.status(&self.status);
        let mut turns = 0_u32;
        loop {
            if turns.is_multiple_of(TURNS_PER_PULSE) {
                let dropped = self.intake.dropped_units();
                self.outlet.count_dropped(dropped - std::mem::replace(&mut self.dropped, dropped));
                if let Some(refused) = camera.news.take() {
                    self.status.refused_packets = Some(refused);
                    self.outlet.status(&self.status);
                }
                self.outlet.pulse();
                self.warnings = 0;
            }
            turns = turns.wrapping_add(1);
            if let Some(absent) =
                camera.microphone.as_ref().filter(|_| turns.is_multiple_of(TURNS_PER_LISTEN))
                && absent.is_back()
            {
                return Err(absent.ending());
            }
            if self.outlet.is_closed() || !self.obey(Some(&camera.pipeline)) {
                return Ok(Phase::Done);
            }
            if let Some(session) = session.as_deref_mut() {
                self.heed(session, &camera.pipeline)?;
            }
            if let Some(message) = bus.timed_pop(TURN) {
                self.listen(&message)?;
            }
        }
    }

    /// Handles what the session has told.
    fn heed(&mut self, session: &mut Session, pipeline: &gst::Pipeline) -> Result<(), WorkError> {
        while let Ok(notice) = session.notices.try_recv() {
            match notice {
                Notice::Source(source) => {
                    self.status.source = source;
                    self.outlet.status(&self.status);
                }
                Notice::UseElements => session.use_elements(pipeline)?,
                Notice::Failed(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn listen(&mut self, message: &gst::Message) -> Result<(), WorkError> {
        match message.view() {
            gst::MessageView::Error(error) => Err(element_error(error)),
            gst::MessageView::Eos(_) => Err(WorkError::Ended),
            gst::MessageView::Warning(warning) => {
                self.warnings = self.warnings.saturating_add(1);
                if self.warnings <= WARNINGS_PER_PULSE {
                    self.outlet.log(LogLevel::Warn, warning.error().message());
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Handles all commands that wait; `false` when it is time to end.
    fn obey(&mut self, pipeline: Option<&gst::Pipeline>) -> bool {
        let named = |name| pipeline.and_then(|pipeline| pipeline.by_name(name));
        loop {
            match self.inbox.try_recv() {
                Ok(WorkerCommand::Stop) | Err(TryRecvError::Disconnected) => return false,
                Ok(WorkerCommand::Keyframe) => {
                    let sink = named("video").and_downcast::<gst_app::AppSink>();
                    sink.iter().for_each(ask_for_keyframe);
                }
                Ok(WorkerCommand::Bitrate(bits)) => {
                    let set = named("encoder").is_some_and(|e| encoders::set_bitrate(&e, bits));
                    if !set {
                        self.outlet.log(LogLevel::Warn, "no encoder whose rate can be changed");
                    }
                }
                Ok(WorkerCommand::Controls(wishes)) => {
                    let changed = self.controls.as_mut().map(|controls| controls.change(&wishes));
                    self.status.refused = changed.and_then(Result::err).map(|error| error.to_string());
                    self.outlet.status(&self.status);
                }
                Ok(WorkerCommand::Start(_)) => {}
                Err(TryRecvError::Empty) => return true,
            }
        }
    }
}

/// Ends, and with it the channel, when the gateway goes away or sends nonsense.
fn read_link(link: UnixStream, frames: Inbound, to: &Takers, now: Instant) {
    read_frames(link, frames, to, now);
    to.intake.end();
}

/// Who gets what the gateway sends.
struct Takers {
    commands: SyncSender<WorkerCommand>,
    asking: SyncSender<Bytes>,
    intake: Intake,
}

fn read_frames(mut link: UnixStream, mut frames: Inbound, to: &Takers, now: Instant) {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match frames.poll_frame(now) {
            Ok(Some(Frame::Command(json))) => {
                let Ok(command) = serde_json::from_slice(&json) else { return };
                if to.commands.send(command).is_err() {
                    return;
                }
                continue;
            }
            Ok(Some(Frame::Ask(ask))) => {
                // Nothing is asked of work that does not answer, nor twice at once.
                if to.asking.try_send(ask).is_err() {
                    return;
                }
                continue;
            }
            Ok(Some(Frame::Tracks(tracks))) => {
                to.intake.tracks(tracks);
                continue;
            }
            Ok(Some(Frame::Unit(unit))) => {
                let head = unit.head;
                let (unit, _) = unit.finish(|_| 0);
                to.intake.unit(head, unit.payload);
                continue;
            }
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => return,
        }
        // A blocked read is woken each time the gateway takes a unit from the other direction of the socket; poll is not.
        let _ = poll(&mut [PollFd::new(&link, PollFlags::IN)], None);
        let mut room = frames.room();
        let len = room.remaining_mut().min(piece.len());
        match link.read(&mut piece[..len]) {
            Ok(0) => return,
            Ok(n) => room.put_slice(&piece[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
