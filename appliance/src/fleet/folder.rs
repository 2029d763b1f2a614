//! A folder that is watched for a bundle, such as where a USB stick is mounted.
//!
//! `fieldgate.fgb` is taken once, as the number in it says; what became of it is written beside it, if the stick can be
//! written, to `fieldgate-DEVICE.txt`. The folder is looked at in an interval: mounts send no events.

use super::{Fleet, Outcome, Pushed, TakeError, Way};
use fieldgate_fleet::{Digest, TEXT_MAX};
use fieldgate_model::Config;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

const FILE: &str = "fieldgate.fgb";
/// How often the folder is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Watches the folder of the config that runs, until cancelled.
pub async fn watch_folder(fleet: Fleet, config: watch::Receiver<Arc<Config>>, cancel: CancellationToken) {
    // A file that was dealt with is left alone until another is there.
    let mut done = None;
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = sleep(LOOK) => {}
        }
        let folder = config.borrow().fleet.folder.clone();
        let Some(folder) = folder else {
            done = None;
            continue;
        };
        let file = folder.join(FILE);
        let read = tokio::task::spawn_blocking(move || read(&file)).await;
        let text = match read.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(Some(text)) => text,
            // The stick was pulled: the same one may come back with what it had.
            Ok(None) => {
                done = None;
                continue;
            }
            Err(error) => {
                warn!(folder = %folder.display(), %error, "the bundle in the folder cannot be read");
                continue;
            }
        };
        let digest = Digest::of(&text);
        if done.as_ref() == Some(&digest) {
            continue;
        }
        if text.len() > TEXT_MAX {
            fleet.refuse_long(text.len(), Way::Folder);
            tell(&folder, &fleet, "refused: it is too long").await;
            done = Some(digest);
            continue;
        }
        let result = match fleet.take(text, Way::Folder, "folder").await {
            Err(TakeError::Busy | TakeError::Pending | TakeError::Stopping) => continue,
            Err(error) => format!("refused: {error}"),
            Ok(Pushed::Known(last)) => words(&last.outcome),
            Ok(Pushed::Applied { number, .. }) => {
                let ended = |view: &super::FleetView| {
                    view.bundle
                        .as_ref()
                        .is_some_and(|it| it.number != number || it.outcome != Outcome::UnderWay)
                };
                tokio::select! {
                    () = cancel.cancelled() => return,
                    view = async { fleet.watch().wait_for(ended).await.map(|view| view.bundle.clone()) } => {
                        view.ok().flatten().map(|bundle| words(&bundle.outcome)).unwrap_or_default()
                    }
                }
            }
        };
        info!(folder = %folder.display(), result, "the bundle in the folder was dealt with");
        tell(&folder, &fleet, &result).await;
        done = Some(digest);
    }
}

fn words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::UnderWay => "under way".to_owned(),
        Outcome::Applied { revision } => format!("applied: revision {revision}"),
        Outcome::Refused { reasons } => format!("refused: {}", reasons.join("; ")),
        Outcome::RolledBack { reasons } => format!("undone: {}", reasons.join("; ")),
    }
}

/// The file's text; one that is too long is cut one byte behind the limit. Pipes and links are no files.
fn read(file: &Path) -> io::Result<Option<String>> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let opened = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(file);
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    if !opened.metadata()?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    opened.take(TEXT_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Writes the result beside it; a stick that cannot be written is fine.
async fn tell(folder: &Path, fleet: &Fleet, result: &str) {
    let device = fleet.view().device;
    let (file, text): (PathBuf, _) =
        (folder.join(format!("fieldgate-{device}.txt")), format!("{device}: {result}\n"));
    let written = tokio::task::spawn_blocking(move || {
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let mut options = File::options();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(flags.bits().cast_signed())
            .open(file)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    if let Ok(Err(error)) = written.await {
        info!(%error, "the result cannot be written beside the bundle");
    }
}
