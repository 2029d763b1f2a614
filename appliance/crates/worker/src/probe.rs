//! Finds out which encoder works and what a device offers, in workers of their own: a driver that hangs or crashes there costs one worker, is
//! named, and left out of the next try.

use crate::source::{Deadlines, Deliver, Report, WorkerError, WorkerSource, WorkerSpec};
use crate::spawner::{Program, Spawner};
use fieldgate_hub::link::Limits;
use fieldgate_media::{Draft, Tracks};
use fieldgate_model::device::DeviceAbilities;
use fieldgate_model::job::{EncoderTrial, EncoderWish, Job, Sandbox, Work};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// More encoders than this cannot each take a worker down.
const WORKERS_MAX: usize = 8;
/// How long a device may take to answer all questions.
const DEVICE_PATIENCE: Duration = Duration::from_secs(20);

/// What was found.
#[derive(Debug)]
pub struct Probed {
    /// Every candidate with what was seen, best first.
    pub trials: Vec<EncoderTrial>,
    /// Every decoder that was tried.
    pub decoders: Vec<EncoderTrial>,
    /// The wish with the proven encoder's name, ready for cameras; `None` when none works.
    pub wish: Option<EncoderWish>,
    /// How the last worker ended, if not well.
    pub error: Option<WorkerError>,
}

/// Proves and measures encoders and decoders. `devices` are the encoders' device files (`/dev/video*`, `/dev/dri/*`) that exist.
pub async fn probe_encoders(
    spawner: &Spawner,
    program: Program,
    mut wish: EncoderWish,
    devices: Vec<PathBuf>,
    deadlines: Deadlines,
    cancel: CancellationToken,
) -> Probed {
    let mut fallen: Vec<EncoderTrial> = Vec::new();
    loop {
        let job = Job {
            name: "encoders".into(),
            sandbox: Sandbox { devices: devices.clone(), ..Sandbox::default() },
            work: Work::ProbeEncoders(wish.clone()),
        };
        let deadlines = Deadlines { first_unit: None, ..deadlines };
        let spec = WorkerSpec { program: program.clone(), job, limits: Limits::CAMERA, deadlines };
        let (_commands, inbox) = mpsc::channel(1);
        let mut seen = LastReport::default();
        let outcome = WorkerSource::new(spec, spawner.clone(), inbox, cancel.clone()).run(&mut seen).await;
        let decoders = seen.0.status.decoders;
        let mut trials = seen.0.status.encoders;
        let error = outcome.err();
        let culprit = trials.iter_mut().find(|trial| trial.reason == EncoderTrial::UNDER_WAY);
        if let (Some(culprit), Some(error)) = (culprit, &error)
            && fallen.len() < WORKERS_MAX
        {
            culprit.reason = error.to_string();
            wish.skip.push(culprit.name.clone());
            fallen.push(culprit.clone());
            continue;
        }
        for trial in &mut trials {
            if let Some(fallen) = fallen.iter().find(|fallen| fallen.name == trial.name) {
                trial.reason.clone_from(&fallen.reason);
            }
        }
        let chosen = trials.iter().find(|trial| trial.chosen).map(|trial| trial.name.clone());
        return Probed { wish: chosen.map(|name| EncoderWish { name, ..wish }), trials, decoders, error };
    }
}

/// Asks a capture device what it offers, in a worker of its own: a driver that hangs costs that worker alone.
pub async fn probe_device(
    spawner: &Spawner,
    program: Program,
    device: PathBuf,
    cancel: CancellationToken,
) -> Result<DeviceAbilities, WorkerError> {
    let job = Job {
        name: format!("ask {}", device.display()),
        sandbox: Sandbox { devices: vec![device.clone()], ..Sandbox::default() },
        work: Work::ProbeDevice(device),
    };
    // Trying out the formats of some cameras takes seconds, without a pulse between.
    let deadlines = Deadlines { first_unit: None, pulse: DEVICE_PATIENCE, ..Deadlines::default() };
    let spec = WorkerSpec { program, job, limits: Limits::CAMERA, deadlines };
    let (_commands, inbox) = mpsc::channel(1);
    let mut seen = LastReport::default();
    WorkerSource::new(spec, spawner.clone(), inbox, cancel).run(&mut seen).await?;
    Ok(seen.0.status.device.unwrap_or_default())
}

#[derive(Default)]
struct LastReport(Report);

impl Deliver for LastReport {
    fn tracks(&mut self, _tracks: Tracks, _same: bool) {}
    fn unit(&mut self, _unit: Draft) {}
    fn flush(&mut self) {}
    fn report(&mut self, report: &Report) {
        self.0 = report.clone();
    }
}
