//! A bundle on a medium that was plugged in. Root's `fieldgate hand-over` passes its open file over a socket in the folder
//! `update`; it is read in pieces and goes the way of any other. Who hands it over is told how it goes, for the console.
//!
//! ```text
//!  udev -> unit of root: mounts -> fieldgate hand-over --open file--> here --> update/bundle.raucb --> RAUC
//!                                                      <--lines of what becomes of it--
//! ```
//!
//! A medium that stays in is handed over again with each start of the machine: what was tried is known by its mark and is
//! not tried again.

use super::book::{Last, Phase, TriedStick, Upload};
use super::keeper::is_lasting;
use super::{BUNDLE_MAX, Origin, PIECE_MAX, UpdateError, Updates};
use crate::machine::Firmware;
use crate::steward::chain;
use fieldgate_model::Status;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering as Atomic};
use std::time::Duration;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// In the folder `update`.
pub(super) const SOCKET: &str = "stick.sock";
pub(super) const BY: &str = "a USB stick";
const LABEL: &str = "fieldgate.raucb on a USB stick";
/// Longest wish, in bytes.
const WISH_MAX: usize = 256;
/// Longest line that is told, in bytes.
pub(super) const TOLD_MAX: u64 = 4096;
const WISH_WITHIN: Duration = Duration::from_secs(5);
/// How often whoever hands over hears that somebody is there.
const BEAT: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long firmware that came back has to be judged before what is known so far is told.
const JUDGED_WITHIN: Duration = Duration::from_secs(60);
/// What a bundle is known by, beside its size: its end, where the signature is.
const MARKED_BYTES: u64 = 64 << 10;

/// What root says with the open file.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StickWish {
    /// A file `downgrade` is beside the bundle: it is taken also if it is not newer than what runs.
    pub(super) downgrade: bool,
}

/// What root is told, a line each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum StickTold {
    /// Somebody is there.
    Beat,
    /// It goes on.
    Says(String),
    /// It is over, and nothing is left to do.
    Done(String),
    /// It is over: this bundle is not installed.
    Refused(String),
    /// It is over: this gateway can install nothing.
    Unable(String),
}

/// A bundle that was handed over.
#[derive(Clone, Debug)]
pub(super) struct Stick {
    file: Arc<File>,
    size: u64,
    mark: String,
    downgrade: bool,
}

impl Stick {
    /// Blocks on the medium.
    pub(super) fn of(file: File, downgrade: bool) -> Result<Stick, UpdateError> {
        let there = file.metadata()?;
        let size = there.len();
        if !there.is_file() || !(1..=BUNDLE_MAX).contains(&size) {
            return Err(UpdateError::Wrong);
        }
        let mut end = vec![0; size.min(MARKED_BYTES) as usize];
        let at = size - end.len() as u64;
        file.read_exact_at(&mut end, at)?;
        let mut hash = Sha256::new();
        hash.update(size.to_le_bytes());
        hash.update(&end);
        let mark = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Stick { file: Arc::new(file), size, mark, downgrade })
    }

    pub(super) fn upload(&self) -> Upload {
        Upload {
            size: Some(self.size),
            label: LABEL.to_owned(),
            by: BY.to_owned(),
            tag: Some(self.mark.clone()),
        }
    }

    pub(super) fn tried(&self, version: &str, refused: Option<String>) -> TriedStick {
        TriedStick {
            mark: self.mark.clone(),
            downgrade: self.downgrade,
            version: version.to_owned(),
            refused,
        }
    }
}

/// How it went so far.
enum Outcome {
    Over(StickTold),
    /// RAUC writes this version.
    Begun(String),
}

/// While one is taken, nothing else is fetched.
struct Taking<'a>(&'a AtomicBool);

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        self.0.store(false, Atomic::SeqCst);
    }
}

impl Updates {
    /// Takes what root hands over, one after the other, until cancelled.
    pub(super) async fn take_sticks(
        &self,
        status: &(impl Fn() -> Status + Send + Sync),
        cancel: CancellationToken,
    ) {
        let socket = self.shared.folder.join(SOCKET);
        fs::remove_file(&socket).ok();
        let listener = match UnixListener::bind(&socket) {
            Ok(listener) => listener,
            Err(error) => {
                warn!(%error, socket = %socket.display(), "no bundle can be taken from a USB stick");
                return cancel.cancelled().await;
            }
        };
        loop {
            let work = async {
                match listener.accept().await {
                    Ok((stream, _)) => self.attend(stream, status).await,
                    Err(error) => {
                        warn!(%error, "a USB stick is not taken");
                        sleep(BEAT).await;
                    }
                }
            };
            tokio::select! {
                () = cancel.cancelled() => break,
                () = work => {}
            }
        }
        fs::remove_file(&socket).ok();
    }

    async fn attend(&self, stream: UnixStream, status: &(impl Fn() -> Status + Send + Sync)) {
        // The folder keeps everybody else out; of the gateway's own user are the workers.
        if !stream.peer_cred().is_ok_and(|peer| peer.uid() == 0) {
            warn!("somebody who is not root wants to hand a bundle over");
            return;
        }
        let (wish, file) = match timeout(WISH_WITHIN, receive(&stream)).await {
            Ok(Ok(received)) => received,
            Ok(Err(error)) => return warn!(%error, "a bundle is not taken from root"),
            Err(_) => return warn!("root began to hand a bundle over and said no more"),
        };
        let mut listener = Listener { stream, is_there: true };
        listener.hear(&StickTold::Beat).await;
        let (say, mut said) = mpsc::channel(8);
        let mut work = Box::pin(self.take(file, wish.downgrade, status, say));
        let outcome = loop {
            tokio::select! {
                biased;
                Some(text) = said.recv() => listener.hear(&StickTold::Says(text)).await,
                outcome = &mut work => break outcome,
                () = sleep(BEAT) => listener.hear(&StickTold::Beat).await,
            }
        };
        while let Ok(text) = said.try_recv() {
            listener.hear(&StickTold::Says(text)).await;
        }
        let told = match outcome {
            Outcome::Over(told) => told,
            Outcome::Begun(version) => self.follow_to_its_end(&version, &mut listener).await,
        };
        match &told {
            StickTold::Refused(why) | StickTold::Unable(why) => {
                warn!(why, "a bundle from a USB stick is not taken")
            }
            told => info!(?told, "a bundle from a USB stick"),
        }
        listener.hear(&told).await;
    }

    async fn take(
        &self,
        file: File,
        downgrade: bool,
        status: &(impl Fn() -> Status + Send + Sync),
        say: mpsc::Sender<String>,
    ) -> Outcome {
        let firmware = match self.shared.machine.firmware().await {
            Ok(firmware) => firmware,
            Err(error) => return Outcome::Over(StickTold::Unable(chain(&error))),
        };
        let stick = tokio::task::spawn_blocking(move || Stick::of(file, downgrade)).await;
        let stick = match stick.map_err(|error| UpdateError::Io(io::Error::other(error))).and_then(|it| it) {
            Ok(stick) => stick,
            Err(error) => return Outcome::Over(self.refuse_stick(None, &firmware, &error)),
        };
        let tried = self.book().stick.clone();
        if let Some(tried) = tried.filter(|it| it.mark == stick.mark && it.downgrade == downgrade) {
            return Outcome::Over(self.tell_again(&tried, &firmware).await);
        }
        if let Err(error) = self.is_free_for_another() {
            return Outcome::Over(StickTold::Refused(format!("{error}; plug it in again then")));
        }
        self.shared.is_taking.store(true, Atomic::SeqCst);
        let _taking = Taking(&self.shared.is_taking);
        match self.copy_and_install(&stick, status, &say).await {
            Ok(version) => Outcome::Begun(version),
            Err(error) => Outcome::Over(self.refuse_stick(Some(&stick), &firmware, &error)),
        }
    }

    /// The version that RAUC writes then.
    async fn copy_and_install(
        &self,
        stick: &Stick,
        status: &(impl Fn() -> Status + Send + Sync),
        say: &mpsc::Sender<String>,
    ) -> Result<String, UpdateError> {
        let upload = stick.upload();
        let mut offset = self.own(&upload)?;
        self.has_room(stick.size.saturating_sub(offset))?;
        say.send(format!("copying {} bytes; leave the medium in", stick.size)).await.ok();
        while offset < stick.size {
            let (updates, upload, file) = (self.clone(), upload.clone(), stick.file.clone());
            let copied = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; (upload.size.unwrap_or_default() - offset).min(PIECE_MAX) as usize];
                file.read_exact_at(&mut piece, offset)?;
                updates.append_own(&upload, offset, &piece)?;
                Ok::<u64, UpdateError>(offset + piece.len() as u64)
            });
            offset = copied.await.map_err(io::Error::other)??;
        }
        say.send("it is copied; its signature is checked".to_owned()).await.ok();
        self.install(stick.downgrade, Origin::Stick(stick), &status(), BY).await?;
        let version = self.book().last.as_ref().map(|last| last.version.clone()).unwrap_or_default();
        say.send(format!("installing version {version} over the slot that is not running")).await.ok();
        Ok(version)
    }

    /// What becomes of a bundle that RAUC writes, as long as somebody listens.
    async fn follow_to_its_end(&self, version: &str, listener: &mut Listener) -> StickTold {
        let mut beat = Instant::now();
        loop {
            let last = self.book().last.clone().filter(|last| last.version == version && last.by == BY);
            match last.map(|last| (last.phase, last.reason)) {
                Some((Phase::Installing, _)) if listener.is_there => {}
                Some((Phase::Installing, _)) => {
                    return StickTold::Says(format!("nobody waits for the end of version {version}"));
                }
                Some((Phase::Refused, reason)) => return StickTold::Refused(reason.unwrap_or_default()),
                _ => return StickTold::Done(format!("version {version} is installed; starting it")),
            }
            if beat.elapsed() >= BEAT {
                beat = Instant::now();
                listener.hear(&StickTold::Beat).await;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Keeps for everybody why it is not installed, and, where another try would end the same, that it was tried.
    fn refuse_stick(&self, stick: Option<&Stick>, firmware: &Firmware, error: &UpdateError) -> StickTold {
        let running = firmware.version.clone().unwrap_or_default();
        let (version, reason) = match error {
            UpdateError::NotNewer { version, .. } if *version == running => {
                self.keep_of_stick(None, stick.map(|stick| stick.tried(version, None)));
                return StickTold::Done(runs_already(version));
            }
            UpdateError::NotNewer { version, .. } => (
                version.as_str(),
                format!(
                    "version {version} is not newer than {running}, which runs; a file downgrade beside the bundle asks \
                     for it all the same"
                ),
            ),
            UpdateError::Wrong => ("", format!("fieldgate.raucb must be a file of 1 to {BUNDLE_MAX} bytes")),
            UpdateError::Io(cause) => ("", format!("it cannot be read or stored: {cause}")),
            other => ("", chain(other)),
        };
        let last = Last {
            version: version.to_owned(),
            from: running,
            from_slot: firmware.booted.clone(),
            reason: Some(reason.clone()),
            by: BY.to_owned(),
            at: self.now(),
            ..Last::default()
        };
        let lasting = stick.filter(|_| is_lasting(error));
        self.keep_of_stick(Some(last), lasting.map(|stick| stick.tried(version, Some(reason.clone()))));
        StickTold::Refused(reason)
    }

    fn keep_of_stick(&self, last: Option<Last>, tried: Option<TriedStick>) {
        let stored = self.edit(|book| {
            // Not over one that has begun in between.
            let is_open = book.last.as_ref().is_some_and(Last::is_open);
            book.last = last.filter(|_| !is_open).or(book.last.take());
            book.stick = tried.or(book.stick.take());
        });
        let is_own = self.book().upload.as_ref().is_some_and(|upload| upload.by == BY);
        let cleared = stored.and_then(|()| if is_own { self.clear() } else { Ok(()) });
        if let Err(error) = cleared {
            warn!(%error, "the state of the update cannot be stored");
        }
    }

    /// What is known of one that was tried.
    async fn tell_again(&self, tried: &TriedStick, firmware: &Firmware) -> StickTold {
        let version = &tried.version;
        if let Some(reason) = &tried.refused {
            return StickTold::Refused(reason.clone());
        }
        if firmware.version.as_ref() == Some(version) {
            return StickTold::Done(runs_already(version));
        }
        // The keeper finds out just now why the one from before runs again.
        let begun = Instant::now();
        let last = || self.book().last.clone().filter(|last| last.version == *version && last.by == BY);
        while begun.elapsed() < JUDGED_WITHIN && last().is_some_and(|last| last.is_open()) {
            sleep(LOOK_EVERY).await;
        }
        let reason = last().and_then(|last| last.reason);
        let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        StickTold::Refused(format!(
            "version {version} was tried already and did not become good{reason}; not tried again from this medium"
        ))
    }
}

fn runs_already(version: &str) -> String {
    format!("version {version} runs already; the medium can be taken out")
}

/// Whoever hands over, as long as he is there.
struct Listener {
    stream: UnixStream,
    is_there: bool,
}

impl Listener {
    async fn hear(&mut self, told: &StickTold) {
        let mut line = serde_json::to_vec(told).unwrap_or_default();
        line.push(b'\n');
        let written = timeout(WISH_WITHIN, self.stream.write_all(&line)).await;
        self.is_there &= matches!(written, Ok(Ok(())));
    }
}

/// The wish and the open file, which come as one.
async fn receive(stream: &UnixStream) -> io::Result<(StickWish, File)> {
    let mut bytes = [0; WISH_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let read = loop {
        stream.readable().await?;
        let tried = stream.try_io(Interest::READABLE, || {
            let mut pieces = [IoSliceMut::new(&mut bytes)];
            Ok(recvmsg(stream, &mut pieces, &mut control, RecvFlags::CMSG_CLOEXEC)?)
        });
        match tried {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => break read?,
        }
    };
    let file = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    let file = file.ok_or_else(|| io::Error::other("no file came with the wish"))?;
    let wish = bytes.get(..read.bytes).and_then(|line| line.strip_suffix(b"\n")).unwrap_or_default();
    Ok((serde_json::from_slice(wish)?, File::from(file)))
}
