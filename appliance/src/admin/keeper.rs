//! Watches the server behind the front by asking it through the front, and builds it anew when it does not answer.
//!
//! A stuck admin plane is this module's business alone: it never keeps the watchdog's ping back, so that a stranger who
//! stalls it cannot restart the gateway.

use super::backend::{Backend, HANDLER_THREADS, Handlers};
use super::front::Shared;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Failed probes in a row after which the server counts as stuck.
const PATIENCE: u32 = 2;
/// Stuck generations whose threads may linger; beyond it, a rebuild would only leak more of them.
const MAX_STUCK_THREADS: usize = 8 * HANDLER_THREADS;
/// Shortest time between two rebuilds.
const PAUSE: Duration = Duration::from_millis(500);

/// How often, and how long, the keeper asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rhythm {
    pub(super) every: Duration,
    pub(super) deadline: Duration,
}

impl Default for Rhythm {
    fn default() -> Self {
        Rhythm { every: Duration::from_secs(5), deadline: Duration::from_secs(5) }
    }
}

pub(super) struct Keeper {
    folder: PathBuf,
    handlers: Arc<Handlers>,
    current: Backend,
    path: watch::Sender<PathBuf>,
    generation: u64,
    retired: Vec<Backend>,
    rebuilt: Option<Instant>,
}

/// Why a probe got no answer.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    /// Our own socket failed, which says nothing about the server.
    #[error("could not ask: {0}")]
    Local(#[from] io::Error),
    #[error("nobody takes connections")]
    Refused,
    #[error("no answer within {0:?}")]
    Silent(Duration),
    #[error("answered {0:?}")]
    Answer(String),
}

impl Keeper {
    /// Starts the first generation; its sockets will be in `folder`.
    pub(super) fn start(
        folder: PathBuf,
        handlers: Arc<Handlers>,
    ) -> io::Result<(Self, watch::Receiver<PathBuf>)> {
        let current = Backend::start(folder.join("1"), 1, &handlers)?;
        let (path, follow) = watch::channel(current.path().to_owned());
        let keeper =
            Keeper { folder, handlers, current, path, generation: 1, retired: Vec::new(), rebuilt: None };
        Ok((keeper, follow))
    }

    /// Watches until cancelled. Returns earlier, with the address, when the front does not answer on one address and does
    /// on another: no new server behind it could help.
    pub(super) async fn run(
        &mut self,
        listening: &[SocketAddr],
        shared: Arc<Shared>,
        rhythm: Rhythm,
        cancel: CancellationToken,
    ) -> Option<SocketAddr> {
        let mut failures: Vec<(SocketAddr, u32)> = listening.iter().map(|&address| (address, 0)).collect();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return None,
                () = self.handlers.broken.notified() => {
                    self.rebuild("it takes no more connections").await;
                    failures.iter_mut().for_each(|(_, failures)| *failures = 0);
                    continue;
                }
                () = sleep(rhythm.every) => {}
            }
            let heard = tokio::select! {
                () = cancel.cancelled() => return None,
                heard = probe_all(&mut failures, &shared, rhythm.deadline) => heard,
            };
            let failed = failures.iter().find(|(_, failures)| *failures >= PATIENCE);
            match failed.map(|(address, _)| *address) {
                Some(address) if heard => return Some(address),
                Some(_) => {
                    self.rebuild("it does not answer").await;
                    failures.iter_mut().for_each(|(_, failures)| *failures = 0);
                }
                None => {}
            }
        }
    }

    async fn rebuild(&mut self, cause: &str) {
        if let Some(last) = self.rebuilt {
            sleep_until(last + PAUSE).await;
        }
        self.rebuilt = Some(Instant::now());
        self.retired.retain(|backend| backend.threads() > 0);
        let stuck: usize = self.retired.iter().map(Backend::threads).sum();
        if stuck >= MAX_STUCK_THREADS {
            error!(
                stuck,
                cause, "the admin HTTP server is stuck and not rebuilt: too many of its threads are"
            );
            return;
        }
        self.generation += 1;
        let generation = self.generation;
        match Backend::start(self.folder.join(generation.to_string()), generation, &self.handlers) {
            Ok(backend) => {
                let old = std::mem::replace(&mut self.current, backend);
                old.retire();
                self.retired.push(old);
                self.path.send_replace(self.current.path().to_owned());
                info!(generation, cause, "the admin HTTP server was rebuilt");
            }
            Err(error) => {
                error!(%error, cause, "the admin HTTP server could not be rebuilt");
                // The front asks again at the next request, the probe after its pause.
            }
        }
    }

    /// Ends the threads, and lets them finish what they are at for a moment.
    pub(super) async fn end(self) {
        self.current.retire();
        let deadline = Instant::now() + Duration::from_secs(2);
        while self.current.threads() > 0 && Instant::now() < deadline {
            sleep(Duration::from_millis(20)).await;
        }
        let stuck: usize = self.retired.iter().map(Backend::threads).sum::<usize>() + self.current.threads();
        if stuck > 0 {
            warn!(stuck, "threads of the admin HTTP server did not end");
        }
        // Best effort: the folder is ours alone and in a place that is emptied at boot.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Asks on every address and counts failures in a row; whether any answered.
async fn probe_all(failures: &mut [(SocketAddr, u32)], shared: &Arc<Shared>, deadline: Duration) -> bool {
    let mut heard = false;
    for (address, failures) in failures {
        match probe(*address, shared, deadline).await {
            Ok(()) => {
                *failures = 0;
                heard = true;
            }
            Err(error @ ProbeError::Local(_)) => warn!(%error, %address, "the admin plane's self-probe"),
            Err(error) => {
                *failures += 1;
                warn!(%error, %address, failures, "the admin plane's self-probe");
            }
        }
    }
    heard
}

/// Asks for something small through the front, on the slot kept for this.
async fn probe(listening: SocketAddr, shared: &Arc<Shared>, deadline: Duration) -> Result<(), ProbeError> {
    let target = reachable(listening);
    let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(target.ip(), 0))?;
    let _slot = shared.reserve(socket.local_addr()?);
    let exchange = async {
        let mut stream = socket.connect(target).await?;
        let request = format!("HEAD /web/style.css HTTP/1.1\r\nHost: {target}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(4096).read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    match timeout(deadline, exchange).await {
        Err(_) => Err(ProbeError::Silent(deadline)),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Err(ProbeError::Refused),
        Ok(Err(error)) => Err(ProbeError::Local(error)),
        Ok(Ok(answer)) if answer.starts_with(b"HTTP/1.1 200 ") => Ok(()),
        Ok(Ok(answer)) => {
            let line = answer.split(|&byte| byte == b'\r').next().unwrap_or_default();
            Err(ProbeError::Answer(String::from_utf8_lossy(line).into_owned()))
        }
    }
}

/// An address under which a listener on any address can be reached.
fn reachable(listening: SocketAddr) -> SocketAddr {
    let mut target = listening;
    match listening {
        SocketAddr::V4(address) if address.ip().is_unspecified() => target.set_ip(Ipv4Addr::LOCALHOST.into()),
        SocketAddr::V6(address) if address.ip().is_unspecified() => target.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    target
}
