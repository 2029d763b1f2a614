//! What the gateway sends to one worker: commands, and the units of a stream that the worker shall look into.

use super::outbox::{Outbox, OutboxBound};
use super::wire::Health;
use bytes::Bytes;
use fieldgate_media::{Tracks, UnitHead};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use tokio::io::AsyncWrite;
use tokio::sync::Notify;

/// Frames on their way to a worker. Cheap to clone; nothing waits but [`Feeder::send`].
///
/// Bounded like a worker's own outbox: when the worker takes them too slowly all waiting units go and video starts again
/// at its next keyframe. Commands are never dropped and overtake units.
#[derive(Clone, Debug)]
pub struct Feeder(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    waiting: Notify,
}

#[derive(Debug)]
struct Queue {
    outbox: Outbox<Bytes>,
    sent_bytes: u64,
}

impl Default for Feeder {
    fn default() -> Self {
        Feeder::new(OutboxBound::default())
    }
}

impl Feeder {
    /// An empty one.
    pub fn new(bound: OutboxBound) -> Self {
        let queue = Mutex::new(Queue { outbox: Outbox::new(bound), sent_bytes: 0 });
        Feeder(Arc::new(Shared { queue, waiting: Notify::new() }))
    }

    /// All tracks from here on; before the first unit and whenever they change.
    pub fn tracks(&self, tracks: &Tracks) {
        self.lock().outbox.push_tracks(tracks);
        self.0.waiting.notify_one();
    }

    /// One unit of an announced track; its bytes are shared, not copied. `false` when it was dropped.
    pub fn unit(&self, head: &UnitHead, payload: Bytes) -> bool {
        let taken = self.lock().outbox.push_unit(head, payload);
        self.0.waiting.notify_one();
        taken
    }

    /// One command; `false` when too many wait already, or when it is longer than a frame may be.
    pub fn command(&self, command: Bytes) -> bool {
        let taken = self.lock().outbox.push_command(command);
        self.0.waiting.notify_one();
        taken
    }

    /// One ask; as a command, but longer.
    pub fn ask(&self, ask: Bytes) -> bool {
        let taken = self.lock().outbox.push_ask(ask);
        self.0.waiting.notify_one();
        taken
    }

    /// Units sent, dropped, without use; bytes that wait.
    pub fn counters(&self) -> Health {
        self.lock().outbox.counters()
    }

    /// Bytes sent so far, and whether any wait.
    pub fn progress(&self) -> (u64, bool) {
        let queue = self.lock();
        (queue.sent_bytes, queue.outbox.sending().is_some())
    }

    /// Sends whatever comes, for ever; ends only with the socket's error. Cancelling it loses nothing.
    pub async fn send<W: AsyncWrite + Unpin>(&self, to: &mut W) -> io::Result<Infallible> {
        loop {
            poll_fn(|context| {
                let queue = &mut *self.lock();
                while let Some(sending) = queue.outbox.sending() {
                    let pieces = [IoSlice::new(sending.head), IoSlice::new(sending.body)];
                    match Pin::new(&mut *to).poll_write_vectored(context, &pieces) {
                        Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                        Poll::Ready(Ok(sent)) => {
                            queue.outbox.advance(sent);
                            queue.sent_bytes += sent as u64;
                        }
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => return Poll::Pending,
                    }
                }
                Poll::Ready(Ok(()))
            })
            .await?;
            // One who pushed since then has left a permit.
            self.0.waiting.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
