//! The source of one mountpoint: both tracks' connections, put in one order, become one publisher.
//!
//! ```text
//!  no connection --a track's first unit--> publishing --last connection gone, nothing waits--> no connection
//! ```
//! Runs on the mountpoint's shard. What stands in the ring is safe and is acknowledged; what waits for its turn is not,
//! and comes again if the gateway stops before. A track's memory goes back to the directory at the end.

use super::merge::{Merge, Next, Waiting, index};
use super::{
    Arrival, KmpConnectionError as Error, KmpListenCounters, KmpPlace, KmpReceiverSettings, KmpSourceTrack,
};
use crate::limits::Permit;
use crate::socket::Socket;
use bytes::{Buf, BytesMut};
use fieldgate_hub::{
    Clock, LocalShard, Mountpoint, MountpointError, Publisher, PublisherInfo, Retry, SCRATCH_BYTES,
};
use fieldgate_media::{Captured, ClockSource, TrackKind, Tracks};
use fieldgate_proto::kmp::Name;
use fieldgate_proto::kmp::receiver::{Event, Join, Receiver, TrackMemory};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::{info, warn};

const KINDS: [TrackKind; 2] = [TrackKind::Video, TrackKind::Audio];

/// Feeds one mountpoint with what its channel's sender brings.
pub struct KmpSource {
    /// What to feed.
    pub mountpoint: Arc<Mountpoint>,
    /// Where listeners find it, and what is known of its tracks.
    pub place: KmpPlace,
    /// Followed as they change: who is not allowed any more is sent away.
    pub settings: watch::Receiver<Arc<KmpReceiverSettings>>,
    /// Totals of all KMP listeners.
    pub counters: Arc<KmpListenCounters>,
    /// For capture times where the sender tells none.
    pub clock: Clock,
    /// Ends when the source shall stop.
    pub cancel: CancellationToken,
}

/// Why a source ended.
#[derive(Debug, thiserror::Error)]
pub enum KmpSourceError {
    /// The mountpoint cannot be fed.
    #[error(transparent)]
    Mountpoint(#[from] MountpointError),
}

impl KmpSourceError {
    /// Whoever has the mountpoint may leave it.
    pub fn retry(&self) -> Retry {
        Retry::Backoff
    }
}

/// How a connection ended.
enum End {
    /// The sender said that this is all, and all of it is safe.
    Finished,
    /// The sender closed it.
    Closed,
    /// We closed it, or the network did.
    Failed(Error),
}

impl<E: Into<Error>> From<E> for End {
    fn from(error: E) -> Self {
        End::Failed(error.into())
    }
}

/// One track's connection.
struct Link {
    socket: Socket,
    receiver: Receiver,
    peer: SocketAddr,
    channel: Name,
    track: Name,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    /// When bytes came last, or nothing was asked for.
    heard: Instant,
    /// An ack that is not written yet; newer ones wait and merge.
    ack: BytesMut,
    /// Gives its place back.
    _permit: Permit,
}

struct Channel {
    source: KmpSource,
    views: [KmpSourceTrack; 2],
    links: [Option<Link>; 2],
    merge: Merge,
    publisher: Option<Publisher>,
    /// The sender's session that was published last.
    epoch: Option<u64>,
    /// As they were announced last.
    tracks: Tracks,
    late: [u64; 2],
    read_timeout: Duration,
    /// Read or published since other tasks had their turn.
    since_yield: usize,
}

impl KmpSource {
    /// Takes connections until cancelled (`Ok`). Runs on the mountpoint's shard.
    pub async fn run(self, local: Rc<LocalShard>) -> Result<(), KmpSourceError> {
        let mut settings = self.settings.clone();
        let cancel = self.cancel.clone();
        let mut channel = Channel::open(self);
        channel.reconsider(&settings.borrow_and_update().clone());
        loop {
            let due = channel.publish_due(&local).await?;
            channel.settle();
            let kicked = channel.publisher.as_ref().map(Publisher::kicked).unwrap_or_default();
            let wake = channel.wake(due);
            tokio::select! {
                biased;
                () = poll_fn(|cx| channel.poll_io(cx, &local)) => {}
                () = cancel.cancelled() => return Ok(()),
                () = kicked.cancelled() => {
                    channel.end_all(|| Error::Kicked);
                    channel.discard();
                }
                changed = settings.changed() => if changed.is_ok() {
                    channel.reconsider(&settings.borrow_and_update().clone());
                } else {
                    return Ok(());
                },
                () = sleep_until(wake) => channel.end_silent(),
            }
        }
    }
}

async fn sleep_until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

impl Channel {
    fn open(source: KmpSource) -> Channel {
        Channel {
            views: source.place.views(),
            links: [None, None],
            merge: Merge::new(Duration::ZERO, 1, Instant::now()),
            publisher: None,
            epoch: None,
            tracks: Tracks::default(),
            late: [0; 2],
            read_timeout: Duration::MAX,
            since_yield: 0,
            source,
        }
    }

    /// Takes what has come. Ready if anything has changed.
    fn poll_io(&mut self, cx: &mut Context<'_>, local: &LocalShard) -> Poll<()> {
        let mut progress = false;
        while let Poll::Ready(Some(arrival)) = self.source.place.inbox.poll_recv(cx) {
            self.welcome(arrival);
            progress = true;
        }
        for kind in KINDS {
            match self.poll_link(kind, cx, local) {
                Poll::Pending => continue,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(end)) => self.end(kind, end),
            }
            progress = true;
        }
        if progress { Poll::Ready(()) } else { Poll::Pending }
    }

    fn poll_link(
        &mut self,
        kind: TrackKind,
        cx: &mut Context<'_>,
        local: &LocalShard,
    ) -> Poll<Result<(), End>> {
        let Some(link) = &mut self.links[index(kind)] else { return Poll::Pending };
        if link.stop.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(Error::Stopping.into()));
        }
        let written = link.poll_write(cx)?;
        if link.receiver.ended() {
            // The sender waits for the close; what is safe is acknowledged before.
            let is_done = written.is_ready() && self.merge.is_empty(kind);
            return if is_done { Poll::Ready(Err(End::Finished)) } else { Poll::Pending };
        }
        if !self.merge.has_room(kind) {
            link.heard = Instant::now();
            return Poll::Pending;
        }
        let mut scratch = local.scratch();
        let len = ready!(link.socket.poll_read(cx, &mut scratch))?;
        if len == 0 {
            return Poll::Ready(Err(End::Closed));
        }
        link.heard = Instant::now();
        self.since_yield += len;
        Poll::Ready(self.take_in(kind, scratch.get(..len).unwrap_or_default()))
    }

    /// A connection has come for one of the tracks; it takes the place of the one before.
    fn welcome(&mut self, arrival: Arrival) {
        let Arrival { kind, connect, opening, unread, socket, peer, permit, stop } = arrival;
        if self.links[index(kind)].is_some() {
            self.end(kind, Error::Replaced.into());
        }
        let (receiver, join) = opening.accept(&connect, kind, &mut self.source.place.memories[index(kind)]);
        self.merge.begin(kind, matches!(join, Join::Resumed { .. }));
        let (channel, track) = (connect.channel_id, connect.track_id);
        info!(mountpoint = self.name(), %channel, %track, %peer, ?join, "KMP track comes");
        let socket = match socket.attach() {
            Ok(socket) => socket,
            Err(error) => return warn!(%peer, %error, "KMP connection lost on its way to its mountpoint"),
        };
        self.links[index(kind)] = Some(Link {
            socket,
            receiver,
            peer,
            channel,
            track,
            stop: Box::pin(stop.cancelled_owned()),
            heard: Instant::now(),
            ack: BytesMut::new(),
            _permit: permit,
        });
        if let Err(end) = self.take_in(kind, &unread) {
            self.end(kind, end);
        }
    }

    fn take_in(&mut self, kind: TrackKind, mut input: &[u8]) -> Result<(), End> {
        let Some(link) = &mut self.links[index(kind)] else { return Ok(()) };
        let memory = &mut self.source.place.memories[index(kind)];
        let now = Instant::now();
        while let Some(event) = link.receiver.read(memory, &mut input)? {
            match event {
                Event::Track { track, resent, .. } => self.merge.track(kind, track, resent),
                Event::Unit { frame, draft } => self.merge.push(kind, frame, draft, now),
                Event::End => self.merge.end(kind),
            }
        }
        Ok(())
    }

    /// Publishes all whose turn it is; when more may be, if that is known.
    async fn publish_due(&mut self, local: &LocalShard) -> Result<Option<Instant>, KmpSourceError> {
        let due = loop {
            if self.since_yield >= SCRATCH_BYTES {
                // Sinks write, and slow ones catch up, before the ring turns over.
                self.since_yield = 0;
                if let Some(publisher) = &mut self.publisher {
                    publisher.flush();
                }
                tokio::task::yield_now().await;
            }
            match self.merge.next(Instant::now()) {
                Next::Publish(kind, waiting) => {
                    self.since_yield += waiting.draft.payload().len();
                    self.publish(kind, *waiting, local)?;
                }
                Next::Late(kind, waiting) => {
                    self.source.place.memories[index(kind)].safe_until(waiting.frame);
                    self.late[index(kind)] += 1;
                    if self.late[index(kind)].is_power_of_two() {
                        let late = self.late[index(kind)];
                        warn!(
                            mountpoint = self.name(),
                            ?kind,
                            late,
                            "KMP units left out: they came too far behind the other track; a longer kmp.join_wait helps"
                        );
                    }
                }
                Next::WaitUntil(when) => break Some(when),
                Next::Empty => break None,
            }
        };
        if let Some(publisher) = &mut self.publisher {
            publisher.flush();
        }
        if self.links.iter().all(Option::is_none) && due.is_none() && self.publisher.take().is_some() {
            info!(mountpoint = self.name(), "KMP publisher left");
        }
        Ok(due)
    }

    fn publish(
        &mut self,
        kind: TrackKind,
        waiting: Waiting,
        local: &LocalShard,
    ) -> Result<(), KmpSourceError> {
        let Waiting { track, frame, mut draft, epoch, .. } = waiting;
        let goes_on = self.epoch == Some(epoch);
        if !goes_on {
            // Another session of the sender is another stream, with times of its own.
            self.publisher = None;
            self.tracks = Tracks::default();
            self.epoch = Some(epoch);
        }
        let publisher = match &mut self.publisher {
            Some(publisher) => publisher,
            None => {
                let mut publisher = self.source.mountpoint.claim(local, self.source.info(&self.links))?;
                if goes_on {
                    publisher.resume();
                }
                if !self.tracks.is_empty() {
                    publisher.announce(self.tracks.clone());
                }
                self.publisher.insert(publisher)
            }
        };
        if let Some((track, resent)) = track
            && !(resent && self.tracks.get(track.id) == Some(&track))
        {
            let id = track.id;
            self.tracks = self.tracks.with(track);
            publisher.announce_header(self.tracks.clone(), Some(id));
        }
        let unix_micros = self.source.clock.unix_micros();
        draft.head.captured.get_or_insert(Captured { unix_micros, by: ClockSource::Arrival });
        if !publisher.publish(draft) {
            self.source.mountpoint.count_malformed(1);
        }
        self.source.place.memories[index(kind)].safe_until(frame);
        Ok(())
    }

    /// Makes acks of what has become safe, and shows how things stand.
    fn settle(&mut self) {
        for kind in KINDS {
            let at = index(kind);
            let memory = &self.source.place.memories[at];
            if let Some(link) = &mut self.links[at]
                && link.ack.is_empty()
                && let Some(ack) = link.receiver.poll_ack(memory)
            {
                ack.encode(&mut link.ack);
            }
            let link = self.links[at].as_ref();
            let view = KmpSourceTrack {
                peer: link.map(|link| link.peer),
                next_id: memory.next_id(),
                acked_id: link.map_or(self.views[at].acked_id, |link| link.receiver.ids().0),
                counters: memory.counters(),
                late: self.late[at],
            };
            if view != self.views[at] {
                self.views[at] = view;
                self.source.place.show(kind, view);
            }
        }
    }

    /// When to look again if nothing comes.
    fn wake(&self, due: Option<Instant>) -> Option<Instant> {
        let silent = self.links.iter().flatten().filter_map(|link| link.heard.checked_add(self.read_timeout));
        silent.chain(due).min()
    }

    /// Closes connections that brought nothing for too long.
    fn end_silent(&mut self) {
        let now = Instant::now();
        for kind in KINDS {
            let Some(link) = &mut self.links[index(kind)] else { continue };
            if !self.merge.has_room(kind) && !link.receiver.ended() {
                link.heard = now;
            } else if now.saturating_duration_since(link.heard) >= self.read_timeout {
                self.end(kind, Error::Silent(self.read_timeout).into());
            }
        }
    }

    /// Goes by other settings, and sends away who may not send any more.
    fn reconsider(&mut self, settings: &KmpReceiverSettings) {
        self.read_timeout = settings.read_timeout;
        self.merge.set(settings.join_wait, settings.catch_up);
        self.source.place.retain(|name| settings.channels.values().any(|channel| channel.mountpoint == name));
        for kind in KINDS {
            let Some(link) = &self.links[index(kind)] else { continue };
            let refusal = match settings.place_of(link.peer.ip(), link.channel, link.track) {
                Ok(place) if place == (self.name(), kind) => continue,
                Ok((elsewhere, _)) => super::KmpRefusal::NotReady(elsewhere.to_owned()),
                Err(refusal) => refusal,
            };
            self.end(kind, Error::from(refusal).into());
        }
    }

    fn end_all(&mut self, why: impl Fn() -> Error) {
        for kind in KINDS {
            if self.links[index(kind)].is_some() {
                self.end(kind, why().into());
            }
        }
    }

    fn end(&mut self, kind: TrackKind, end: End) {
        let Some(link) = self.links[index(kind)].take() else { return };
        let (mountpoint, peer, track) = (self.name(), link.peer, link.track);
        match end {
            End::Finished => info!(mountpoint, %track, %peer, "KMP track has ended"),
            End::Closed => info!(mountpoint, %track, %peer, "KMP connection closed by the sender"),
            End::Failed(error) => {
                self.source.counters.failed.fetch_add(1, Ordering::Relaxed);
                info!(mountpoint, %track, %peer, %error, "KMP connection ended");
            }
        }
    }

    /// Throws away what waits; it is not safe and comes again.
    fn discard(&mut self) {
        self.merge.clear();
        self.source.place.memories.iter_mut().for_each(TrackMemory::forget_unsafe);
        self.publisher = None;
    }

    fn name(&self) -> &str {
        self.source.mountpoint.name()
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // The place, with the memory in it, goes back to the directory.
        self.discard();
    }
}

impl KmpSource {
    fn info(&self, links: &[Option<Link>; 2]) -> PublisherInfo {
        let link = links.iter().flatten().next();
        let from = link.map_or_else(|| "kmp".to_owned(), |link| link.peer.to_string());
        PublisherInfo { kind: "kmp", from, since_unix_micros: self.clock.unix_micros(), rtmp: None }
    }
}

impl Link {
    /// Writes the ack that waits. Ready when there is none.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        while !self.ack.is_empty() {
            match self.socket.poll_write(cx, &[IoSlice::new(&self.ack)])? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(len) => self.ack.advance(len),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        Ok(match self.socket.poll_flush(cx)? {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        })
    }
}
