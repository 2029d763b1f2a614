//! Which encoders work on this machine, and what they take of it: found once, when the first camera needs one, and kept,
//! also over restarts of the same program on the same machine.
//!
//! ```text
//!  unknown --first camera that encodes--> found --a worker dies by it--> unknown, with one more left out
//! ```
//!
//! Cameras whose pictures pass as they are never ask.

mod memo;

use crate::steward::chain;
use crate::store::StoreError;
use fieldgate_media::Codec;
use fieldgate_model::job::{EncoderTrial, EncoderWish, PictureCodec};
use fieldgate_model::plan::{Known as Facts, KnownDecoder, KnownEncoder};
use fieldgate_model::status::{EncoderStatus, Notice};
use fieldgate_worker::{Deadlines, Exit, Probed, Program, Spawner, WorkerError, probe_encoders};
use memo::{Machine, Memo, Memory};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Signals that say nothing about the encoder: somebody, or the kernel short of memory, ended the worker.
const ENDED_FROM_OUTSIDE: [Signal; 4] = [Signal::KILL, Signal::TERM, Signal::INT, Signal::HUP];

/// The encoder that works, and what was seen on the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its element's name.
    pub name: String,
    /// Every candidate that was looked at, best first; this one among them.
    pub trials: Vec<EncoderTrial>,
}

impl Found {
    /// The one among these trials that was chosen after it had worked.
    fn among(trials: &[EncoderTrial]) -> Option<Found> {
        let chosen = trials.iter().find(|trial| trial.chosen && trial.works)?;
        Some(Found { name: chosen.name.clone(), trials: trials.to_vec() })
    }

    /// As it is shown.
    pub fn status(&self) -> EncoderStatus {
        status_of(&self.trials).unwrap_or_default()
    }
}

/// The chosen one of some trials, as it is shown.
pub fn status_of(trials: &[EncoderTrial]) -> Option<EncoderStatus> {
    let chosen = trials.iter().find(|trial| trial.chosen)?;
    let others = trials.iter().filter(|trial| !trial.chosen);
    Some(EncoderStatus {
        name: chosen.name.clone(),
        hardware: chosen.hardware,
        reason: chosen.reason.clone(),
        tried: others.map(|trial| (trial.name.clone(), trial.reason.clone())).collect(),
    })
}

/// Why there is no encoder.
#[derive(Debug, thiserror::Error)]
pub enum EncoderError {
    /// None of the candidates works.
    #[error("no encoder works here: {}", told(.0))]
    NoneWorks(Vec<EncoderTrial>),
    /// The worker that should try them did not get that far.
    #[error("encoders could not be tried")]
    Worker(#[source] WorkerError),
}

type Prover =
    Box<dyn Fn(EncoderWish, CancellationToken) -> Pin<Box<dyn Future<Output = Probed> + Send>> + Send + Sync>;

/// What is known about the machine's encoders.
pub struct Encoders {
    prover: Prover,
    /// Held while they are tried, so that all who need one wait for the same trial.
    trying: tokio::sync::Mutex<()>,
    known: Mutex<Known>,
    memory: Option<Memory>,
}

#[derive(Default)]
struct Known {
    found: Option<Found>,
    fallen: BTreeMap<String, Fallen>,
    /// What the trials in a worker of their own measured, encoders and decoders; none before those.
    measured: Option<(Vec<EncoderTrial>, Vec<EncoderTrial>)>,
}

/// An encoder that took a camera's worker down.
struct Fallen {
    cause: String,
    /// False when nothing else works: then it has to do.
    is_left_out: bool,
}

impl Encoders {
    /// As [`Encoders::new`], with what an earlier start found on this machine, if it is the same still. Blocks on the disk.
    pub fn remembering(spawner: Spawner, folder: &Path) -> Result<Self, StoreError> {
        Self::new(spawner).with_memory(folder, &Machine::here())
    }

    fn with_memory(self, folder: &Path, machine: &Machine) -> Result<Self, StoreError> {
        let (memory, memo) = Memory::open(folder, machine)?;
        let found = memo.as_ref().and_then(|memo| Found::among(&memo.encoders));
        let measured = memo.map(|memo| (memo.encoders, memo.decoders));
        let known = Mutex::new(Known { found, measured, ..Known::default() });
        Ok(Encoders { known, memory: Some(memory), ..self })
    }

    /// Nothing known yet; trials run in workers of their own.
    pub fn new(spawner: Spawner) -> Self {
        Self::with_prover(Box::new(move |wish, cancel| {
            let spawner = spawner.clone();
            Box::pin(async move {
                let devices = encoder_devices(Path::new("/"));
                let program = Program::this_binary();
                probe_encoders(&spawner, program, wish, devices, Deadlines::default(), cancel).await
            })
        }))
    }

    pub(super) fn with_prover(prover: Prover) -> Self {
        Encoders { prover, trying: tokio::sync::Mutex::default(), known: Mutex::default(), memory: None }
    }

    /// The encoder that works; tries them if that is not known. Dropping the future ends the trial.
    pub async fn find(&self, cancel: &CancellationToken) -> Result<Found, EncoderError> {
        let _turn = self.trying.lock().await;
        if let Some(found) = self.found() {
            return Ok(found);
        }
        self.probe(cancel).await
    }

    /// Makes sure that they were measured, as far as that can be.
    pub async fn measure(&self, cancel: &CancellationToken) {
        let _turn = self.trying.lock().await;
        let is_known = self.known().measured.is_some();
        if !is_known && let Err(error) = self.probe(cancel).await {
            warn!(error = chain(&error), "encoders were tried");
        }
    }

    async fn probe(&self, cancel: &CancellationToken) -> Result<Found, EncoderError> {
        loop {
            let left_out = self.left_out();
            let wish = EncoderWish { skip: left_out.clone(), ..EncoderWish::default() };
            let probed = (self.prover)(wish, cancel.child_token()).await;
            let found = Found::among(&probed.trials);
            // A machine that is too busy to try any has not lost the one that a camera encodes with.
            if !probed.trials.is_empty() && (found.is_some() || self.found().is_none()) {
                self.known().measured = Some((probed.trials.clone(), probed.decoders.clone()));
            }
            if let Some(found) = found {
                self.keep(&found);
                self.remember();
                return Ok(found);
            }
            let works = |error: &EncoderError| !matches!(error, EncoderError::Worker(_));
            let error = match probed.error {
                Some(error) if probed.trials.is_empty() => EncoderError::Worker(error),
                _ => EncoderError::NoneWorks(probed.trials),
            };
            if left_out.is_empty() || !works(&error) {
                return Err(error);
            }
            // A poor encoder is better than none.
            warn!(encoders = left_out.join(", "), "no other encoder works: those left out are tried again");
            self.known().fallen.values_mut().for_each(|fallen| fallen.is_left_out = false);
        }
    }

    /// The encoder that works, if that is known already.
    pub fn found(&self) -> Option<Found> {
        self.known().found.clone()
    }

    /// The encoder that works; if that is not known a worker tries them itself, with the device files of all.
    pub fn known_or_untried(&self) -> (EncoderWish, Vec<PathBuf>) {
        match self.found() {
            Some(found) => {
                let devices = devices_of(&found.name, Path::new("/"));
                (EncoderWish { name: found.name, ..EncoderWish::default() }, devices)
            }
            None => {
                let skip = self.left_out();
                (EncoderWish { skip, ..EncoderWish::default() }, encoder_devices(Path::new("/")))
            }
        }
    }

    /// What a plan can rest on; nothing before they were measured.
    pub fn facts(&self) -> Facts {
        let left_out = self.left_out();
        let known = self.known();
        let Some((encoders, decoders)) = &known.measured else { return Facts::default() };
        let usable = |trial: &&EncoderTrial| trial.works && !left_out.contains(&trial.name);
        Facts {
            is_measured: true,
            encoders: encoders.iter().filter(usable).filter_map(known_encoder).collect(),
            decoders: decoders.iter().filter(usable).map(known_decoder).chain([jpeg_decoder()]).collect(),
            ..Facts::default()
        }
    }

    /// Whether it was seen to work, and has not failed since.
    pub fn is_usable(&self, name: &str) -> bool {
        self.facts().encoders.iter().any(|encoder| encoder.name == name)
    }

    /// Encoders that a worker must not try.
    pub fn left_out(&self) -> Vec<String> {
        let known = self.known();
        let left_out = known.fallen.iter().filter(|(_, fallen)| fallen.is_left_out);
        left_out.map(|(name, _)| name.clone()).collect()
    }

    /// What a camera's worker found out by itself is kept if nothing was known.
    pub fn learn(&self, trials: &[EncoderTrial]) {
        if self.found().is_none()
            && let Some(found) = Found::among(trials)
        {
            self.keep(&found);
        }
    }

    /// Keeps for the next start what this one knows. While one is left out there is nothing to keep: the next start tries
    /// all of them.
    fn remember(&self) {
        let Some(memory) = &self.memory else { return };
        let known = self.known();
        let measured = known.measured.clone().filter(|_| known.fallen.is_empty() && known.found.is_some());
        memory.keep(measured.map(|(encoders, decoders)| Memo {
            machine: Machine::here(),
            encoders,
            decoders,
        }));
    }

    fn keep(&self, found: &Found) {
        self.known().found = Some(found.clone());
        let EncoderStatus { name, hardware, reason, .. } = found.status();
        info!(encoder = name, hardware, reason, tried = told(&found.trials), "encoder found");
    }

    /// A worker that had these trials ended with this error: if the encoder is to blame, the next is found without it.
    /// True then.
    pub fn note_end(&self, trials: &[EncoderTrial], error: &WorkerError) -> bool {
        let Some(suspect) = suspect(trials) else {
            if !trials.is_empty() {
                // What was found is not there any more.
                let mut known = self.known();
                (known.found, known.measured) = (None, None);
                drop(known);
                self.remember();
            }
            return false;
        };
        if !is_to_blame(suspect, error) {
            return false;
        }
        let cause = chain(error);
        let mut known = self.known();
        if known.fallen.contains_key(&suspect.name) {
            // Left out already, or the last that there is.
            return false;
        }
        warn!(encoder = suspect.name, cause, "an encoder took a camera's worker down; another is looked for");
        known.fallen.insert(suspect.name.clone(), Fallen { cause, is_left_out: true });
        known.found.take_if(|found| found.name == suspect.name);
        drop(known);
        self.remember();
        true
    }

    /// What somebody should know about them.
    pub fn notices(&self) -> Vec<Notice> {
        let known = self.known();
        let now = known.found.as_ref().map_or("none", |found| &found.name).to_owned();
        let notice = |(name, fallen): (&String, &Fallen)| {
            let Fallen { cause, is_left_out } = fallen;
            let then = if *is_left_out {
                format!("it is left out until the next start, {now} encodes instead")
            } else {
                "it is used all the same, as no other works".to_owned()
            };
            Notice {
                code: "encoder_failed".into(),
                text: format!("encoder {name} took a camera down ({cause}): {then}"),
            }
        };
        known.fallen.iter().map(notice).collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn known_encoder(trial: &EncoderTrial) -> Option<KnownEncoder> {
    let measured = trial.measured.as_ref()?;
    Some(KnownEncoder {
        name: trial.name.clone(),
        codec: match measured.codec {
            PictureCodec::H264 => Codec::H264,
            PictureCodec::Hevc => Codec::Hevc,
        },
        hardware: trial.hardware,
        sessions: trial.hardware.then_some(measured.sessions),
        cpu_us_per_megapixel: measured.cpu_us_per_megapixel,
        kilopixels_per_second: trial.hardware.then_some(measured.kilopixels_per_second),
    })
}

fn known_decoder(trial: &EncoderTrial) -> KnownDecoder {
    let codec = if trial.name.contains("265") { Codec::Hevc } else { Codec::H264 };
    let hardware = trial.hardware;
    KnownDecoder { name: trial.name.clone(), codec: Some(codec), hardware, cpu_us_per_megapixel: 0 }
}

/// Comes with every GStreamer that has cameras.
fn jpeg_decoder() -> KnownDecoder {
    KnownDecoder { name: "jpegdec".to_owned(), codec: None, hardware: false, cpu_us_per_megapixel: 0 }
}

fn told(trials: &[EncoderTrial]) -> String {
    let each: Vec<String> = trials.iter().map(|trial| format!("{}: {}", trial.name, trial.reason)).collect();
    each.join("; ")
}

/// The encoder that a worker was using or trying.
fn suspect(trials: &[EncoderTrial]) -> Option<&EncoderTrial> {
    trials.iter().find(|trial| trial.chosen || trial.reason == EncoderTrial::UNDER_WAY)
}

/// Whether a worker's end is this encoder's doing, as far as can be seen from outside.
///
/// A driver that stalls shows as silence or a missing pulse; a software encoder that does is only short of processor
/// time, and leaving it out would not help.
fn is_to_blame(encoder: &EncoderTrial, error: &WorkerError) -> bool {
    match error {
        // Encoders are called so in every pipeline.
        WorkerError::Failed { cause, .. } => cause.starts_with("encoder:"),
        WorkerError::Ended { exit: Exit::Signal(signal), .. } => {
            !ENDED_FROM_OUTSIDE.iter().any(|outside| outside.as_raw() == *signal)
        }
        WorkerError::NoPulse { .. } | WorkerError::NoFirstUnit { .. } | WorkerError::Silent { .. } => {
            encoder.hardware
        }
        WorkerError::Stuck { after, .. } => encoder.hardware || is_to_blame(encoder, after),
        _ => false,
    }
}

/// The device files below `root` that this encoder needs.
pub fn devices_of(encoder: &str, root: &Path) -> Vec<PathBuf> {
    match encoder {
        name if name.starts_with("v4l2") => numbered(&root.join("dev"), "video"),
        name if name.starts_with("va") => numbered(&root.join("dev/dri"), "renderD"),
        name if MAKERS.iter().any(|maker| name.starts_with(maker)) => makers_devices(root),
        _ => Vec::new(),
    }
}

/// The device files below `root` that some encoder may need.
pub fn encoder_devices(root: &Path) -> Vec<PathBuf> {
    let mut devices = numbered(&root.join("dev"), "video");
    devices.extend(numbered(&root.join("dev/dri"), "renderD"));
    // Decoders without state are asked for through these.
    devices.extend(numbered(&root.join("dev"), "media"));
    devices.extend(makers_devices(root));
    devices
}

/// How the names of makers' own encoders begin: Rockchip, Jetson, i.MX.
const MAKERS: [&str; 3] = ["mpp", "nvv4l2", "vpuenc"];

/// The device files below `root` that makers' own encoders open.
fn makers_devices(root: &Path) -> Vec<PathBuf> {
    const NAMES: [&str; 12] = [
        "mpp_service",
        "rga",
        "dma_heap/system",
        "dma_heap/linux,cma",
        "nvmap",
        "nvhost-ctrl",
        "nvhost-msenc",
        "v4l2-nvenc",
        "nvhost-vic",
        "mxc_hantro_vc8000e",
        "mxc_hantro",
        "ion",
    ];
    NAMES.iter().map(|name| root.join("dev").join(name)).filter(|file| file.exists()).collect()
}

/// Files of a folder named `PREFIX` and a number, in the order of their numbers.
pub(super) fn numbered(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let number = |name: &str| name.strip_prefix(prefix).and_then(|rest| rest.parse::<u32>().ok());
    let mut files: Vec<(u32, PathBuf)> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((number(entry.file_name().to_str()?)?, entry.path())))
        .collect();
    files.sort();
    files.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests;
