//! A file that is played: found, looked at before anybody opens it, and told to its worker.

use super::{COMMANDS, job_for};
use crate::supervisor::{ChildContext, ChildError, Handling};
use crate::wiring::Wiring;
use crate::wiring::treatment::Treatments;
use fieldgate_hub::Retry;
use fieldgate_model::config::{FileSource, Source};
use fieldgate_model::job::{FileCamera, Job, Sandbox, Work};
use std::io;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

impl Wiring {
    /// A file from its beginning, again and again or to its end.
    pub(super) async fn file_source(
        &self,
        name: String,
        file: &FileSource,
        handling: &Handling,
        child: ChildContext,
    ) -> Result<(), ChildError> {
        let asked = file.path.clone();
        // A share that does not answer must hold up nothing else.
        let found = tokio::task::spawn_blocking(move || find(&asked)).await;
        let found = found.map_err(|error| ChildError::of(Retry::Backoff, &error))?;
        let path = found.map_err(|error| error.child(&file.path))?;
        let (repeat, cancel) = (file.repeat, child.cancel.clone());
        let source = Source::File(FileSource { path, ..file.clone() });
        self.run_worker(&name, &source, handling, mpsc::channel(COMMANDS), child).await?;
        if repeat || cancel.is_cancelled() {
            return Ok(());
        }
        let text = "the file was played to its end; set loop to true to play it again and again";
        Err(ChildError::new(Retry::Never, text))
    }
}

/// Why a file cannot be played.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("it cannot be opened: {0}")]
    Open(#[source] io::Error),
    #[error("it is no regular file")]
    Kind,
    #[error("it leads to {0}, which is no file of recordings")]
    Elsewhere(PathBuf),
}

impl FileError {
    fn child(&self, path: &Path) -> ChildError {
        // A disk may be mounted late, a file may be copied still.
        ChildError::new(Retry::Backoff, format!("file {}: {self}", path.display()))
    }
}

/// The file itself. What is looked at here is what the worker is let into: a link is followed once, here, so that it
/// cannot lead elsewhere later.
fn find(path: &Path) -> Result<PathBuf, FileError> {
    let real = path.canonicalize().map_err(FileError::Open)?;
    if !(FileSource { path: real.clone(), repeat: false }).has_file_name() {
        return Err(FileError::Elsewhere(real));
    }
    let is_file = real.metadata().map_err(FileError::Open)?.is_file();
    if is_file { Ok(real) } else { Err(FileError::Kind) }
}

/// The worker can read this file, and no other beside the system's libraries.
pub(super) fn file_job(name: &str, file: &FileSource, treat: Treatments, devices: Vec<PathBuf>) -> Job {
    let camera =
        FileCamera { path: file.path.clone(), repeat: file.repeat, video: treat.video, audio: treat.audio };
    let sandbox = Sandbox { read: vec![file.path.clone()], devices, ..Sandbox::default() };
    job_for(name, sandbox, Work::File(camera))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldgate_model::job::EncoderWish;

    #[test]
    fn a_worker_may_read_its_file_alone() {
        let file = FileSource { path: "/srv/gate.mp4".into(), repeat: true };
        let treat = Treatments::plain(EncoderWish::default(), false);
        let job = file_job("demo", &file, treat.clone(), Vec::new());
        assert_eq!(job.sandbox, Sandbox { read: vec!["/srv/gate.mp4".into()], ..Sandbox::default() });
        let Work::File(camera) = job.work else { panic!() };
        assert_eq!((camera.path, camera.repeat), (file.path, true));
        assert_eq!((camera.video, camera.audio), (treat.video, treat.audio));
    }

    #[test]
    fn links_lead_to_recordings_alone() {
        let folder = std::env::temp_dir().join(format!("fieldgate-file-source-{}", std::process::id()));
        let folder = {
            std::fs::create_dir_all(&folder).unwrap();
            folder.canonicalize().unwrap()
        };
        let link = |name: &str, to: &Path| {
            let link = folder.join(name);
            let _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink(to, &link).unwrap();
            link
        };
        std::fs::write(folder.join("film"), "x").unwrap();
        assert_eq!(find(&link("good", &folder.join("film"))).unwrap(), folder.join("film"));
        let errors = [
            (folder.join("none"), "cannot be opened"),
            (folder.clone(), "no regular file"),
            (link("zero", Path::new("/dev/zero")), "leads to /dev/zero"),
            (link("mem", Path::new("/proc/self/mem")), "which is no file of recordings"),
            (link("round", &folder.join("round")), "cannot be opened"),
        ];
        for (path, expected) in errors {
            let error = find(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{}: {error}", path.display());
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
