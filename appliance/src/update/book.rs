//! What is kept of an update over power cuts: who wanted it, what delivered before, how often it was started.

use crate::store::{StoreFs, write_whole};
use fieldgate_model::Timestamp;
use fieldgate_model::config::WantedFirmware;
use fieldgate_model::status::{UpdatePhase, UpdateStatus};
use serde::{Deserialize, Serialize};
use std::io;

const NAME: &str = "book.json";
/// There while an update is under way: then the image leaves it to the gateway which slot is good.
const MARKER: &str = "trial";
/// Starts that are remembered.
const MAX_STARTS: usize = 64;

/// One start of the gateway in new firmware.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Start {
    /// Which start of the machine it was in.
    pub(super) boot: String,
    /// It ended as it should.
    pub(super) orderly: bool,
}

/// A bundle that is sent in pieces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Upload {
    /// Bytes that it has; none while a server has not told.
    pub(super) size: Option<u64>,
    /// What its sender calls it.
    pub(super) label: String,
    /// By whom.
    pub(super) by: String,
    /// What a server calls the bytes that it sends.
    #[serde(default)]
    pub(super) tag: Option<String>,
}

/// The last update.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Last {
    pub(super) version: String,
    pub(super) from: String,
    pub(super) from_slot: String,
    pub(super) phase: Phase,
    pub(super) reason: Option<String>,
    pub(super) by: String,
    pub(super) at: Timestamp,
    /// The start of the machine in which it was installed.
    pub(super) boot: String,
    /// The machine is to be started anew when it is installed.
    pub(super) restart: bool,
    /// What delivered before.
    pub(super) before: Vec<String>,
    /// Starts of the gateway in the new firmware.
    pub(super) starts: Vec<Start>,
    /// What did not deliver when it was last looked at.
    pub(super) missing: Vec<String>,
    /// Why it is not to be kept, as soon as that is known.
    pub(super) verdict: Option<String>,
}

/// As [`UpdatePhase`], which has no first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    Installing,
    Installed,
    Trial,
    Good,
    Failed,
    #[default]
    Refused,
}

impl Last {
    /// Whether it is not known yet how it ends.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Installing | Phase::Installed | Phase::Trial)
    }

    pub(super) fn started(&mut self, boot: &str) {
        if self.starts.len() < MAX_STARTS {
            self.starts.push(Start { boot: boot.to_owned(), orderly: false });
        }
    }

    /// How often the gateway has ended by itself in this start of the machine.
    pub(super) fn crashes(&self, boot: &str) -> usize {
        let here = self.starts.iter().filter(|start| start.boot == boot && !start.orderly).count();
        here.saturating_sub(1)
    }

    pub(super) fn status(&self) -> UpdateStatus {
        UpdateStatus {
            version: self.version.clone(),
            from: self.from.clone(),
            phase: match self.phase {
                Phase::Installing => UpdatePhase::Installing,
                Phase::Installed => UpdatePhase::Installed,
                Phase::Trial => UpdatePhase::Trial,
                Phase::Good => UpdatePhase::Good,
                Phase::Failed => UpdatePhase::Failed,
                Phase::Refused => UpdatePhase::Refused,
            },
            reason: self.reason.clone(),
            by: self.by.clone(),
            at: self.at,
        }
    }
}

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Book {
    #[serde(default)]
    pub(super) upload: Option<Upload>,
    #[serde(default)]
    pub(super) last: Option<Last>,
    /// The wish of the config that was tried last, whatever came of it, and whatever else was installed since.
    #[serde(default)]
    pub(super) tried: Option<WantedFirmware>,
    /// The same of the bundle that a USB stick brought.
    #[serde(default)]
    pub(super) stick: Option<TriedStick>,
}

/// A bundle of a USB stick that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TriedStick {
    /// What the bundle is known by.
    pub(super) mark: String,
    /// Whether it was asked for also if it is not newer.
    pub(super) downgrade: bool,
    /// Its version; empty if it was not believed.
    pub(super) version: String,
    /// Why it was not even begun.
    pub(super) refused: Option<String>,
}

impl Book {
    /// What was kept; one that cannot be read counts as empty, as the slots are in RAUC's own files.
    pub(super) fn open(fs: &dyn StoreFs) -> io::Result<Book> {
        let bytes = fs.read(NAME)?.unwrap_or_default();
        Ok(serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// Kept over a power cut. The marker comes before what it stands for, and goes after it.
    pub(super) fn write(&self, fs: &mut dyn StoreFs) -> io::Result<()> {
        let is_open = self.last.as_ref().is_some_and(Last::is_open);
        if is_open {
            write_whole(fs, MARKER, b"")?;
        }
        write_whole(fs, NAME, &serde_json::to_vec_pretty(self)?)?;
        if !is_open {
            fs.remove(MARKER)?;
            fs.sync_dir()?;
        }
        Ok(())
    }
}
