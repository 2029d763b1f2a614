//! The first steps of a worker process: take the link, read the job, lock the door. Then the inside may begin.

use crate::sandbox::{self, TooManyThreads};
use bytes::BufMut;
use fieldgate_hub::link::{Frame, HEAD_LEN, Inbound, LinkError};
use fieldgate_model::job::{Guard, Job, WorkerCommand};
use rustix::net::SocketType;
use rustix::process::Signal;
use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const JOB_DEADLINE: Duration = Duration::from_secs(10);

/// A worker that knows its job and can do nothing else.
#[derive(Debug)]
pub struct Entered {
    /// To the gateway; its end is the worker's end.
    pub link: UnixStream,
    /// Reads commands from `link`; may already hold a part of the next one.
    pub commands: Inbound,
    /// What to do.
    pub job: Job,
    /// What holds the process in.
    pub guards: Vec<Guard>,
}

/// Why a worker did not begin.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// Standard input is not the link: started by hand.
    #[error("a worker is started by the gateway: standard input is not its link")]
    NoLink,
    /// The link failed before the job came.
    #[error("no job: {0}")]
    Link(#[from] LinkError),
    /// The first command was not a job.
    #[error("the first command is not a job: {0}")]
    NotAJob(String),
    /// Could not be locked in.
    #[error(transparent)]
    Threads(#[from] TooManyThreads),
}

impl From<io::Error> for EnterError {
    fn from(error: io::Error) -> Self {
        EnterError::Link(LinkError::Io(error))
    }
}

/// Takes the link from standard input, waits for the job and applies its sandbox.
///
/// The first thing that a worker process does, while it has one thread. `now` stands for every time asked: the
/// gateway's commands have no rate limit.
pub fn enter(now: Instant) -> Result<Entered, EnterError> {
    // With the gateway's spawning thread goes the worker, even when it hangs.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)?;
    let stdin = io::stdin();
    if rustix::net::sockopt::socket_type(stdin.as_fd()) != Ok(SocketType::STREAM) {
        return Err(EnterError::NoLink);
    }
    let link = UnixStream::from(stdin.as_fd().try_clone_to_owned()?);
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null).map_err(io::Error::from)?;
    let mut commands = Inbound::from_gateway();
    link.set_read_timeout(Some(JOB_DEADLINE))?;
    let job = match next_command(&link, &mut commands, now)? {
        WorkerCommand::Start(job) => *job,
        _ => return Err(EnterError::NotAJob("another command".into())),
    };
    link.set_read_timeout(None)?;
    let name: Vec<u8> =
        format!("fg-{}", job.name).bytes().filter(|b| b.is_ascii_graphic()).take(15).collect();
    if let Ok(name) = CString::new(name) {
        let _ = rustix::thread::set_name(&name);
    }
    let guards = sandbox::apply(&job.sandbox)?;
    Ok(Entered { link, commands, job, guards })
}

/// Waits for the gateway's next command (as long as the socket's timeout says).
pub fn next_command(
    link: &UnixStream,
    commands: &mut Inbound,
    now: Instant,
) -> Result<WorkerCommand, EnterError> {
    loop {
        if let Some(Frame::Command(json)) = commands.poll_frame(now)? {
            // The text of a JSON error never quotes values, so no secret gets into it.
            return serde_json::from_slice(&json).map_err(|error| EnterError::NotAJob(error.to_string()));
        }
        let mut piece = [0; HEAD_LEN + 4096];
        let mut room = commands.room();
        let len = room.remaining_mut().min(piece.len());
        let (piece, _) = piece.split_at_mut(len);
        match (&mut &*link).read(piece) {
            Ok(0) => return Err(LinkError::Closed { in_frame: commands.is_inside_frame() }.into()),
            Ok(n) => room.put_slice(piece.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}
