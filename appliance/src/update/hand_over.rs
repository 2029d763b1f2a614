//! Root's side of a bundle on a medium that was plugged in: `fieldgate hand-over` opens it and passes the open file to the
//! gateway, which need not see the medium.

use super::stick::{SOCKET, StickTold, StickWish, TOLD_MAX};
use rustix::fs::{Mode, OFlags, open};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, IoSlice, Read as _, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

/// How long the gateway may say nothing at all; it gives a sign every 5 s.
const SILENCE: Duration = Duration::from_secs(60);
const TRY_EVERY: Duration = Duration::from_secs(1);
/// How often it is handed over once more to a gateway that ended in the middle of it.
const TRIES: u32 = 3;
/// Asks for the bundle also if it is not newer. Some systems add an ending without showing it.
const DOWNGRADE: [&str; 2] = ["downgrade", "downgrade.txt"];

/// Why the gateway did not take it.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// The medium, or the console.
    #[error("cannot read the bundle or tell of it: {0}")]
    Io(#[from] io::Error),
    /// Not a file.
    #[error("the bundle is no file")]
    NoFile,
    /// Not running, or hung.
    #[error("the gateway does not answer: {0}")]
    NoAnswer(io::Error),
    /// It runs, and has no RAUC.
    #[error("the gateway cannot install anything: {0}")]
    Unable(String),
}

/// What the gateway made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandedOver {
    /// It is installed, or runs already.
    Done,
    /// It is not, and shall not be.
    Refused,
}

/// Hands the bundle to the gateway whose state is in that folder and tells, line by line, how it goes. A gateway that is not there
/// is waited for.
pub fn hand_over(
    state: &Path,
    bundle: &Path,
    within: Duration,
    out: &mut dyn Write,
) -> Result<HandedOver, HandOverError> {
    // Nothing that a stranger's file system says in its place: no link, no pipe, no device.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(open(bundle, flags, Mode::empty()).map_err(io::Error::from)?);
    if !file.metadata()?.is_file() {
        return Err(HandOverError::NoFile);
    }
    let is_there = |name: &&str| {
        bundle.with_file_name(name).symlink_metadata().is_ok_and(|there| there.file_type().is_file())
    };
    let wish = StickWish { downgrade: DOWNGRADE.iter().any(is_there) };
    let socket = state.join("update").join(SOCKET);
    let mut tries = 0;
    loop {
        tries += 1;
        let link = connect(&socket, within).map_err(HandOverError::NoAnswer)?;
        match talk(&link, &file, wish, out) {
            Err(HandOverError::NoAnswer(error))
                if tries < TRIES && error.kind() == io::ErrorKind::UnexpectedEof => {}
            outcome => return outcome,
        }
    }
}

fn connect(socket: &Path, within: Duration) -> io::Result<UnixStream> {
    let mut waited = Duration::ZERO;
    loop {
        match UnixStream::connect(socket) {
            Err(_) if waited < within => {
                sleep(TRY_EVERY);
                waited += TRY_EVERY;
            }
            outcome => return outcome,
        }
    }
}

fn talk(
    link: &UnixStream,
    file: &File,
    wish: StickWish,
    out: &mut dyn Write,
) -> Result<HandedOver, HandOverError> {
    link.set_read_timeout(Some(SILENCE))?;
    link.set_write_timeout(Some(SILENCE))?;
    let mut line = serde_json::to_vec(&wish).map_err(io::Error::from)?;
    line.push(b'\n');
    let files = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&files));
    sendmsg(link, &[IoSlice::new(&line)], &mut control, SendFlags::NOSIGNAL)
        .map_err(|error| HandOverError::NoAnswer(error.into()))?;
    let mut answers = BufReader::new(link);
    loop {
        match next(&mut answers).map_err(HandOverError::NoAnswer)? {
            StickTold::Beat => {}
            StickTold::Says(text) => tell(out, &text)?,
            StickTold::Done(text) => return tell(out, &text).map(|()| HandedOver::Done),
            StickTold::Refused(why) => {
                return tell(out, &format!("refused: {why}")).map(|()| HandedOver::Refused);
            }
            StickTold::Unable(why) => return Err(HandOverError::Unable(why)),
        }
    }
}

fn next(answers: &mut BufReader<&UnixStream>) -> io::Result<StickTold> {
    let mut line = Vec::new();
    answers.take(TOLD_MAX).read_until(b'\n', &mut line)?;
    if line.last() != Some(&b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&line)?)
}

/// On a console, where control characters would do something.
fn tell(out: &mut dyn Write, text: &str) -> Result<(), HandOverError> {
    let text: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}
