//! One lasting thread that starts worker processes and buries those that outlive their driver.
//!
//! A worker asks the kernel to be killed together with its parent *thread*, so that thread must last as long as the
//! gateway does.

use crate::exit::Exit;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

const REQUESTS: usize = 64;
const BURY_EVERY: Duration = Duration::from_millis(50);
const BURY_TRIES: u32 = 100;
const ABANDONED_MAX: usize = 64;

/// What is started as a worker.
#[derive(Clone, Debug)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
}

impl Program {
    /// The running binary itself, as `fieldgate worker`, with the environment that GStreamer needs in the sandbox.
    pub fn this_binary() -> Program {
        Program::new(PathBuf::from("/proc/self/exe"), vec!["worker".into()])
    }

    /// Another executable, with the environment that GStreamer needs in the sandbox.
    pub fn new(path: PathBuf, args: Vec<OsString>) -> Program {
        const ENV: [(&str, &str); 9] = [
            // Orc would write its code at run time, which the sandbox forbids; its C code is as fast here.
            ("ORC_CODE", "backup"),
            // Plugins come from a fixed list, loaded by file: no scan, no fork, no cache file.
            ("GST_REGISTRY_DISABLE", "yes"),
            ("GST_REGISTRY_FORK", "no"),
            ("GIO_MODULE_DIR", "/nonexistent"),
            ("GIO_USE_VFS", "local"),
            ("GIO_USE_PROXY_RESOLVER", "dummy"),
            ("GSETTINGS_BACKEND", "memory"),
            ("HOME", "/"),
            ("TZ", "UTC"),
        ];
        let env = ENV.map(|(name, value)| (name.into(), value.into())).into();
        Program { path, args, env }
    }
}

/// A process that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program could not be executed.
    #[error("cannot start a worker: {0}")]
    Exec(#[from] io::Error),
    /// Too many starts wait already.
    #[error("{REQUESTS} worker starts wait already")]
    Busy,
    /// The spawner's thread has ended: the gateway is stopping.
    #[error("the gateway is stopping")]
    Stopping,
}

/// A process that reacts to nothing and was left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abandoned {
    /// The worker's name.
    pub name: String,
    /// Its process id.
    pub pid: u32,
}

/// Starts workers. Cheap to clone; its thread ends with the last clone.
#[derive(Clone, Debug)]
pub struct Spawner {
    requests: SyncSender<Request>,
    abandoned: Arc<Mutex<Vec<Abandoned>>>,
}

#[derive(Debug)]
enum Request {
    Start { program: Program, reply: oneshot::Sender<io::Result<Started>> },
    Bury { name: String, child: Child },
}

/// A worker process and its ends.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) child: Child,
    pub(crate) link: UnixStream,
    pub(crate) stderr: OwnedFd,
}

impl Spawner {
    /// Starts the thread.
    pub fn start() -> io::Result<Spawner> {
        let (requests, inbox) = sync_channel(REQUESTS);
        let abandoned = Arc::default();
        let list = Arc::clone(&abandoned);
        std::thread::Builder::new()
            .name("spawner".into())
            .stack_size(256 << 10)
            .spawn(move || serve(&inbox, &list))?;
        Ok(Spawner { requests, abandoned })
    }

    /// Processes that could not be killed, stuck in a driver; a reboot is advised.
    pub fn abandoned(&self) -> Vec<Abandoned> {
        self.abandoned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) async fn spawn(&self, program: Program) -> Result<Started, SpawnError> {
        let (reply, answer) = oneshot::channel();
        self.requests.try_send(Request::Start { program, reply }).map_err(|error| match error {
            TrySendError::Full(_) => SpawnError::Busy,
            TrySendError::Disconnected(_) => SpawnError::Stopping,
        })?;
        Ok(answer.await.map_err(|_| SpawnError::Stopping)??)
    }

    /// Kills and reaps a process whose driver no longer waits for it.
    pub(crate) fn bury(&self, name: String, child: Child) {
        // With the queue full it stays a zombie until the gateway ends; it is dead all the same.
        let _ = self.requests.try_send(Request::Bury { name, child });
    }
}

fn serve(inbox: &Receiver<Request>, abandoned: &Mutex<Vec<Abandoned>>) {
    let mut dying: Vec<(String, Child, u32)> = Vec::new();
    loop {
        let next = if dying.is_empty() {
            inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            inbox.recv_timeout(BURY_EVERY)
        };
        match next {
            Ok(Request::Start { program, reply }) => {
                if let Err(Ok(unwanted)) = reply.send(start(&program)) {
                    dying.push(("unwanted".into(), kill(unwanted.child), 0));
                }
            }
            Ok(Request::Bury { name, child }) => dying.push((name, kill(child), 0)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) if dying.is_empty() => return,
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(BURY_EVERY),
        }
        dying.retain_mut(|(name, child, tries)| {
            *tries += 1;
            match child.try_wait() {
                Ok(None) if *tries < BURY_TRIES => true,
                Ok(None) => {
                    let mut list = abandoned.lock().unwrap_or_else(PoisonError::into_inner);
                    if list.len() < ABANDONED_MAX {
                        list.push(Abandoned { name: std::mem::take(name), pid: child.id() });
                    }
                    false
                }
                Ok(Some(_)) | Err(_) => false,
            }
        });
    }
}

fn kill(mut child: Child) -> Child {
    let _ = child.kill();
    child
}

fn start(program: &Program) -> io::Result<Started> {
    let (link, theirs) = UnixStream::pair()?;
    link.set_nonblocking(true)?;
    let mut child = Command::new(&program.path)
        .arg0("fieldgate-worker")
        .args(&program.args)
        .env_clear()
        .envs(program.env.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let stderr = child.stderr.take().map(OwnedFd::from);
    let stderr = stderr.ok_or_else(|| io::Error::other("the worker has no standard error"))?;
    Ok(Started { child, link, stderr })
}

/// Waits for a process that was told to end, or kills it; never longer than `patience` after the kill.
pub(crate) async fn reap(child: &mut Child, grace: Duration, patience: Duration) -> Exit {
    if let Some(exit) = wait(child, grace).await {
        return exit;
    }
    let _ = child.kill();
    wait(child, patience).await.unwrap_or(Exit::Stuck)
}

async fn wait(child: &mut Child, limit: Duration) -> Option<Exit> {
    // A process descriptor would wake at once, but needs a sandbox exception in containers; ends are rare.
    let deadline = tokio::time::Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.into()),
            Ok(None) => {}
            Err(_) => return Some(Exit::Code(-1)),
        }
        if tokio::time::Instant::now() >= deadline {
            return None;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
