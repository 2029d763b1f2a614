//! Taking connections of one address: the loop that all servers share.

use fieldgate_hub::Pulse;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Pause after an accept that failed for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);
/// A loop with a pulse wakes at least this often to beat.
const BEAT: Duration = Duration::from_secs(2);
/// A loop silent for this long is stuck.
pub(crate) const MAX_SILENCE: Duration = Duration::from_secs(15);

/// How one address takes connections.
pub(crate) struct Accepting {
    /// What is spoken there, for the log.
    pub(crate) protocol: &'static str,
    /// Ends the loop; connections have the same token.
    pub(crate) cancel: CancellationToken,
    /// Beaten while the loop goes round, where somebody watches it.
    pub(crate) pulse: Option<Pulse>,
    /// How long connections may take to end after that.
    pub(crate) farewell: Duration,
}

impl Accepting {
    /// Hands each connection to `take`, which refuses it by dropping it or spawns a task for it. Returns when all have
    /// ended or their time is over.
    pub(crate) async fn run(
        self,
        listener: std::net::TcpListener,
        mut take: impl FnMut(TcpStream, SocketAddr, &mut JoinSet<()>),
    ) -> io::Result<()> {
        let listener = TcpListener::from_std(listener)?;
        let mut connections = JoinSet::new();
        let mut beat = tokio::time::interval(BEAT);
        loop {
            let accepted = tokio::select! {
                () = self.cancel.cancelled() => break,
                _ = beat.tick(), if self.pulse.is_some() => {
                    self.pulse.iter().for_each(Pulse::beat);
                    continue;
                }
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => take(stream, peer, &mut connections),
                Err(error) => {
                    // Out of descriptors, or a peer that left while waiting: never a reason to stop listening.
                    warn!(%error, "{} accept failed; trying again", self.protocol);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        drop(listener);
        let ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.farewell, ended).await.is_err() {
            connections.shutdown().await;
        }
        Ok(())
    }
}
