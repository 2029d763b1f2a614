//! Notices at once when a device file comes, goes or may be opened at last.
//!
//! By inotify on `/dev` and the folders of udev's links. Kernel uevents would come earlier, but before udev has given
//! the file its group, when an unprivileged gateway cannot open it yet; and they need a socket of a family that
//! containers often lack.

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Folders below the root that are watched; all but the first may be missing.
const FOLDERS: [&str; 4] = ["dev", "dev/v4l", "dev/v4l/by-id", "dev/v4l/by-path"];

/// Devices cannot be watched; they are looked for only when a camera is started.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch /dev for cameras that come and go: {0}")]
pub struct WatchError(#[from] io::Error);

/// Watches over the device files below a root.
#[derive(Debug)]
pub struct DeviceWatch {
    /// Any file that gives bytes when something happens will do, and this one waits without a thread.
    inotify: pipe::Receiver,
    root: PathBuf,
    changes: watch::Sender<u64>,
}

impl DeviceWatch {
    /// Begins to watch; changes from here on are noticed. To be called inside a runtime.
    pub fn start() -> Result<DeviceWatch, WatchError> {
        Self::start_under(Path::new("/"))
    }

    pub(super) fn start_under(root: &Path) -> Result<DeviceWatch, WatchError> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(io::Error::from)?;
        let inotify = pipe::Receiver::from_owned_fd_unchecked(inotify)?;
        let watch = DeviceWatch { inotify, root: root.to_owned(), changes: watch::Sender::new(0) };
        watch.watch_folders()?;
        Ok(watch)
    }

    /// A number that changes whenever devices may have.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Notices changes until cancelled.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), WatchError> {
        // Longer than the longest event.
        let mut events = [0; 4096];
        loop {
            tokio::select! {
                ready = self.inotify.readable() => ready?,
                () = cancel.cancelled() => return Ok(()),
            }
            match self.inotify.try_read(&mut events) {
                // What it was does not matter: little happens in these folders, and a look at them is cheap.
                Ok(_) => {
                    // Folders of links come with the first device that has one.
                    self.watch_folders()?;
                    self.changes.send_modify(|changes| *changes += 1);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Watches what is there; again is fine.
    fn watch_folders(&self) -> io::Result<()> {
        let flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR;
        for folder in FOLDERS {
            match inotify::add_watch(&self.inotify, self.root.join(folder), flags) {
                Ok(_) | Err(Errno::NOENT) => {}
                Err(error) if folder == FOLDERS[0] => return Err(error.into()),
                Err(_) => {}
            }
        }
        Ok(())
    }
}
