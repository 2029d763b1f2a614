//! What one RTMP subscriber still has to be sent, and the writing of it.
//!
//! The publisher's turn writes through [`Sink::flush`]; a socket that would block is flagged and left to the connection's
//! own task, which waits in [`Outbox::poll_progress`]. Nothing is queued per subscriber but protocol answers and the
//! units of one batch, which are shared with the ring.

use crate::socket::Socket;
use bytes::{Bytes, BytesMut};
use fieldgate_hub::{Beat, Entry, Item, LocalShard, Sink, Subscriber};
use fieldgate_proto::rtmp::RtmpWire;
use fieldgate_proto::rtmp::wire::{Chunked, MetadataStyle, STREAM_ID};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::time::Instant;

/// Entries taken from the ring at once.
const BATCH_ENTRIES: usize = 64;
/// Bytes taken from the ring at once (one unit may be longer).
const BATCH_BYTES: usize = 256 << 10;
/// Units of one turn that go the short way.
const TURN_SLICES: usize = 8;
/// Slices per vectored write.
const SLICES: usize = 64;
/// Protocol answers that may wait for a peer that does not read them.
const MAX_ANSWER_BYTES: usize = 256 << 10;

/// How media is cut for one peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Framing {
    /// Chunk size that the peer was told.
    pub(crate) chunk_len: u32,
    /// Its message stream.
    pub(crate) stream_id: u32,
    /// How metadata is announced to it.
    pub(crate) style: MetadataStyle,
}

enum Piece {
    /// Protocol answers and codec headers, already chunked.
    Raw(Bytes),
    /// An access unit in the shared wire form.
    Unit(Arc<Entry>, Framing),
}

impl Piece {
    /// The bytes, if they can be sent in one slice.
    fn whole(&self) -> Option<&Bytes> {
        match self {
            Piece::Raw(bytes) => Some(bytes),
            Piece::Unit(entry, framing) => match &entry.item {
                Item::Unit { wire, .. } if is_one_chunk(wire, *framing) => Some(wire),
                _ => None,
            },
        }
    }

    /// A unit that has to be cut for this peer.
    fn cut(&self) -> Option<Chunked<'_>> {
        match self {
            Piece::Unit(entry, framing) => match &entry.item {
                Item::Unit { wire, .. } => Some(Chunked::new(wire, framing.chunk_len, framing.stream_id)),
                Item::Tracks { .. } => None,
            },
            Piece::Raw(_) => None,
        }
    }

    /// Bytes on the wire.
    fn wire_len(&self) -> usize {
        match self.whole() {
            Some(bytes) => bytes.len(),
            None => self.cut().map_or(0, |cut| cut.total_len()),
        }
    }
}

struct Reading {
    subscriber: Subscriber,
    framing: Framing,
    gather: Beat,
    /// Set while gathering: when to write next.
    due: Option<Instant>,
    /// The task has not yet seen `due`.
    due_is_news: bool,
    last_write: Instant,
    paused: bool,
    /// The ring's epoch when units were last taken from it.
    epoch: u64,
}

struct State {
    socket: Socket,
    answers: BytesMut,
    queue: VecDeque<Piece>,
    /// Bytes of the first piece that are written.
    gone: usize,
    reading: Option<Reading>,
    blocked_since: Option<Instant>,
    failed: Option<io::Error>,
    waker: Option<Waker>,
    written_bytes: u64,
    written_units: u64,
    jumps: u64,
}

/// One connection's sending side. Lives on one shard.
pub(crate) struct Outbox {
    state: RefCell<State>,
}

impl Outbox {
    pub(crate) fn new(socket: Socket) -> Self {
        Outbox {
            state: RefCell::new(State {
                socket,
                answers: BytesMut::new(),
                queue: VecDeque::new(),
                gone: 0,
                reading: None,
                blocked_since: None,
                failed: None,
                waker: None,
                written_bytes: 0,
                written_units: 0,
                jumps: 0,
            }),
        }
    }

    /// Gives the socket back. What was not written is lost.
    pub(crate) fn into_socket(self) -> Socket {
        self.state.into_inner().socket
    }

    /// Reads from the socket.
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.state.borrow_mut().socket.poll_read(cx, buf)
    }

    /// From now on input does not wake the connection's task, which reads when it is time. False: this kind of
    /// socket cannot do that.
    pub(crate) fn unwatch(&self) -> io::Result<bool> {
        self.state.borrow_mut().socket.unwatch()
    }

    /// From now on input wakes the connection's task again.
    pub(crate) fn watch(&self) -> io::Result<()> {
        self.state.borrow_mut().socket.watch()
    }

    /// Reads once, appending to `unread`, and goes on writing meanwhile; the bytes read, zero at the peer's end.
    pub(crate) async fn read_more(&self, local: &LocalShard, unread: &mut BytesMut) -> io::Result<usize> {
        let mut batch = Vec::new();
        poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = self.poll_progress(cx, &mut batch) {
                return Poll::Ready(Err(error));
            }
            let mut scratch = local.scratch();
            self.poll_read(cx, &mut scratch).map_ok(|len| {
                unread.extend_from_slice(scratch.get(..len).unwrap_or_default());
                len
            })
        })
        .await
    }

    /// Appends protocol bytes; false if the peer reads none of them and too many wait.
    pub(crate) fn answer(&self, write: impl FnOnce(&mut BytesMut)) -> bool {
        let mut state = self.state.borrow_mut();
        write(&mut state.answers);
        state.answers.len() <= MAX_ANSWER_BYTES
    }

    /// Begins to send a stream, after the answers that are already there.
    pub(crate) fn start(&self, subscriber: Subscriber, framing: Framing, gather: Beat, now: Instant) {
        let epoch = subscriber.ring().epoch();
        self.state.borrow_mut().reading = Some(Reading {
            subscriber,
            epoch,
            framing,
            gather,
            due: None,
            due_is_news: false,
            last_write: now,
            paused: false,
        });
    }

    /// Stops sending the stream; a unit that is partly sent is finished.
    pub(crate) fn stop(&self) {
        let mut state = self.state.borrow_mut();
        state.reading = None;
        let keep = usize::from(state.gone > 0);
        let mut index = 0;
        state.queue.retain(|piece| {
            index += 1;
            index <= keep || matches!(piece, Piece::Raw(_))
        });
    }

    /// Holds the stream back, or goes on at the newest keyframe.
    pub(crate) fn pause(&self, paused: bool) {
        if let Some(reading) = &mut self.state.borrow_mut().reading {
            reading.paused = paused;
        }
    }

    /// Writes what there is without waiting.
    pub(crate) fn write_now(&self) {
        let mut batch = Vec::new();
        self.write_with(&mut batch, true);
    }

    /// When the connection's task must call [`Outbox::poll_progress`] again, if media is being gathered.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.state.borrow().reading.as_ref().and_then(|reading| reading.due)
    }

    /// Since when the peer has taken nothing although there was something to send.
    pub(crate) fn blocked_since(&self) -> Option<Instant> {
        self.state.borrow().blocked_since
    }

    /// Bytes written so far.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.state.borrow().written_bytes
    }

    /// Units written whole so far.
    pub(crate) fn written_units(&self) -> u64 {
        self.state.borrow().written_units
    }

    /// Times that units were left out because this peer was too slow.
    pub(crate) fn jumps(&self) -> u64 {
        self.state.borrow().jumps
    }

    /// Units that this peer missed because it was too slow.
    pub(crate) fn dropped_units(&self) -> u64 {
        self.state.borrow().reading.as_ref().map_or(0, |reading| reading.subscriber.dropped_units())
    }

    /// For the connection's task: goes on writing where the direct way blocked. Ready only when the connection failed,
    /// or when gathering has to be timed anew.
    pub(crate) fn poll_progress(
        &self,
        cx: &mut Context<'_>,
        batch: &mut Vec<Arc<Entry>>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.state.borrow_mut();
        if state.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        if let Some(error) = state.failed.take() {
            return Poll::Ready(Err(error));
        }
        if state.blocked_since.is_some() {
            let polled = state.poll_drain(cx, batch);
            batch.clear();
            ready!(polled)?;
            state.blocked_since = None;
        }
        if let Some(reading) = state.reading.as_mut().filter(|reading| reading.due_is_news) {
            reading.due_is_news = false;
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    /// Stops the stream, sends what is left to say, ends our side and waits until the peer has ended its own, each for
    /// `patience` at most. Closing a socket with unread input would make the peer lose our last words.
    pub(crate) async fn close(&self, patience: Duration) {
        self.stop();
        let said = async {
            self.drained().await?;
            poll_fn(|cx| self.state.borrow_mut().socket.poll_shutdown(cx)).await?;
            let mut unheard = [0; 1024];
            while poll_fn(|cx| self.poll_read(cx, &mut unheard)).await? > 0 {}
            io::Result::Ok(())
        };
        // The peer may be gone, read nothing or talk on: all are fine, it was told as far as it listened.
        let _ = tokio::time::timeout(patience, said).await;
    }

    /// Sends all that there is, gathered media and the rest of a stream included, within `patience` at most.
    pub(crate) async fn drain(&self, patience: Duration) {
        // Who takes it too slowly loses the rest, as it would by any other delay.
        let _ = tokio::time::timeout(patience, self.drained()).await;
    }

    /// Waits until all that there is was written.
    pub(crate) async fn drained(&self) -> io::Result<()> {
        poll_fn(|cx| self.state.borrow_mut().poll_drain(cx, &mut Vec::new())).await
    }

    fn write_with(&self, batch: &mut Vec<Arc<Entry>>, now_at_any_rate: bool) {
        // The task that holds the state is writing itself.
        let Ok(mut state) = self.state.try_borrow_mut() else { return };
        if state.blocked_since.is_some() || state.failed.is_some() {
            return;
        }
        if !now_at_any_rate && state.gathers() {
            return;
        }
        let result = state.drain_now(batch);
        state.settle(result);
    }

    /// Writes what was gathered, if it is time.
    pub(crate) fn write_gathered(&self, now: Instant) {
        if self.due().is_some_and(|due| due <= now) {
            self.write_now();
        }
    }
}

impl Sink for Outbox {
    fn flush(&self, turn: &[Arc<Entry>], batch: &mut Vec<Arc<Entry>>) {
        // The task that holds the state is writing itself.
        let Ok(mut state) = self.state.try_borrow_mut() else { return };
        if state.is_idle()
            && let Some(result) = state.write_turn(turn)
        {
            return state.settle(result);
        }
        drop(state);
        self.write_with(batch, false);
    }

    fn gathers_for(&self) -> Duration {
        let state = self.state.try_borrow();
        let reading = state.as_ref().ok().and_then(|state| state.reading.as_ref());
        reading.map_or(Duration::ZERO, |reading| reading.gather.period())
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Nothing waits, nothing hinders: what comes can go straight to the socket.
    fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && self.answers.is_empty()
            && self.blocked_since.is_none()
            && self.failed.is_none()
    }

    /// The way of nearly every unit: from the publisher's turn to the socket. `None`: this turn needs the long way, and
    /// nothing was done.
    fn write_turn(&mut self, turn: &[Arc<Entry>]) -> Option<io::Result<()>> {
        let reading = self.reading.as_mut()?;
        if reading.paused || !reading.gather.period().is_zero() || turn.len() > TURN_SLICES {
            return None;
        }
        let framing = reading.framing;
        let mut slices = [IoSlice::new(&[]); TURN_SLICES];
        let mut total = 0;
        for (slot, entry) in slices.iter_mut().zip(turn) {
            match &entry.item {
                Item::Unit { wire, .. } if is_one_chunk(wire, framing) => {
                    *slot = IoSlice::new(wire);
                    total += wire.len();
                }
                _ => return None,
            }
        }
        if !reading.subscriber.follow(turn) {
            return None;
        }
        let (written, result) = match self.socket.write_now(slices.get(..turn.len()).unwrap_or_default()) {
            Ok(written) => (written, Ok(())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (0, Ok(())),
            Err(error) => (0, Err(error)),
        };
        self.written_bytes += written as u64;
        if written == total {
            self.written_units += turn.len() as u64;
            return Some(self.flush_now());
        }
        self.queue.extend(turn.iter().map(|entry| Piece::Unit(entry.clone(), framing)));
        self.advance(written);
        // A short write means that the socket is full: its task goes on.
        Some(result.and(Err(io::ErrorKind::WouldBlock.into())))
    }

    /// Notes how a direct write ended.
    fn settle(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.blocked_since = Some(Instant::now());
                self.wake();
            }
            Err(error) => {
                self.failed = Some(error);
                self.wake();
            }
        }
    }

    fn flush_now(&mut self) -> io::Result<()> {
        match self.socket.poll_flush(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Whether media shall wait for its time; arms the timer at the first unit that does.
    fn gathers(&mut self) -> bool {
        let Some(reading) = self.reading.as_mut().filter(|reading| !reading.gather.period().is_zero()) else {
            return false;
        };
        let now = Instant::now();
        let moment = reading.gather.before(now);
        // What comes just after the moment belongs to it: publishers that are read by the same beat come then.
        if reading.last_write < moment || now < moment + reading.gather.period() / 8 {
            return false;
        }
        if reading.due.is_none() {
            reading.due = Some(reading.gather.after(now));
            reading.due_is_news = true;
            self.wake();
        }
        true
    }

    /// What was taken from a ring that was cut since is not sent any more. A peer that has a part of such a unit can only
    /// be sent away: the rest of it must not follow, and nothing else can.
    fn heed_cut(&mut self) -> io::Result<()> {
        let Some(reading) = self.reading.as_ref().filter(|_| !self.queue.is_empty()) else { return Ok(()) };
        if reading.subscriber.ring().epoch() == reading.epoch {
            return Ok(());
        }
        if self.gone > 0 && matches!(self.queue.front(), Some(Piece::Unit(..))) {
            return Err(io::Error::other("the stream was cut in the middle of a unit"));
        }
        self.queue.retain(|piece| matches!(piece, Piece::Raw(_)));
        Ok(())
    }

    fn drain_now(&mut self, batch: &mut Vec<Arc<Entry>>) -> io::Result<()> {
        self.heed_cut()?;
        if let Some(reading) = &mut self.reading
            && !reading.gather.period().is_zero()
        {
            reading.due = None;
            reading.last_write = Instant::now();
        }
        while self.refill(batch) {
            self.write_once(None)?;
        }
        self.flush_now()
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>, batch: &mut Vec<Arc<Entry>>) -> Poll<io::Result<()>> {
        self.heed_cut()?;
        while self.refill(batch) {
            match self.write_once(Some(&mut *cx)) {
                Ok(()) => self.blocked_since = self.blocked_since.map(|_| Instant::now()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.socket.poll_flush(cx)
    }

    /// Makes sure that there is something to write; false if there is nothing.
    fn refill(&mut self, batch: &mut Vec<Arc<Entry>>) -> bool {
        if !self.answers.is_empty() && self.gone == 0 {
            // Between two messages answers go first: the peer may wait for them.
            let answers = self.answers.split().freeze();
            self.queue.push_front(Piece::Raw(answers));
        }
        if !self.queue.is_empty() {
            return true;
        }
        let Some(reading) = self.reading.as_mut().filter(|reading| !reading.paused) else { return false };
        batch.clear();
        // Before the units are: then a cut in between is noticed.
        reading.epoch = reading.subscriber.ring().epoch();
        let taken = reading.subscriber.take(batch, BATCH_ENTRIES, BATCH_BYTES);
        self.jumps += u64::from(taken.dropped_units > 0);
        for entry in batch.drain(..) {
            match &entry.item {
                Item::Unit { .. } => self.queue.push_back(Piece::Unit(entry, reading.framing)),
                Item::Tracks { same: true, .. } => {}
                Item::Tracks { tracks, at, .. } => {
                    let mut raw = BytesMut::new();
                    let Framing { chunk_len, stream_id, style } = reading.framing;
                    RtmpWire::tracks(&mut raw, tracks, *at, chunk_len, stream_id, style);
                    self.queue.push_back(Piece::Raw(raw.freeze()));
                }
            }
        }
        !self.queue.is_empty()
    }

    /// One system call's worth. With a context the task is registered when the socket is full.
    fn write_once(&mut self, cx: Option<&mut Context<'_>>) -> io::Result<()> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut used = 0;
        let mut gone = self.gone;
        let whole = self.queue.iter().map_while(Piece::whole);
        for (slot, bytes) in slices.iter_mut().zip(whole) {
            *slot = IoSlice::new(bytes.get(gone..).unwrap_or_default());
            gone = 0;
            used += 1;
        }
        // A unit that has to be cut goes alone.
        let cut = self.queue.front().filter(|_| used == 0).and_then(Piece::cut);
        if let Some(cut) = &cut {
            for (slot, slice) in slices.iter_mut().zip(cut.slices(self.gone)) {
                *slot = IoSlice::new(slice);
                used += 1;
            }
        }
        let slices = slices.get(..used).unwrap_or_default();
        let written = match cx {
            None => self.socket.write_now(slices),
            Some(cx) => match self.socket.poll_write(cx, slices) {
                Poll::Ready(result) => result,
                Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
            },
        };
        let written = match written {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        };
        if written == 0 && slices.iter().any(|slice| !slice.is_empty()) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.written_bytes += written as u64;
        self.advance(written);
        Ok(())
    }

    /// Forgets what was written.
    fn advance(&mut self, written: usize) {
        self.gone += written;
        while let Some(len) = self.queue.front().map(Piece::wire_len).filter(|len| self.gone >= *len) {
            self.gone -= len;
            let done = self.queue.pop_front();
            self.written_units += u64::from(matches!(done, Some(Piece::Unit(..))));
        }
    }
}

/// Whether the shared form can be sent as it stands.
fn is_one_chunk(wire: &Bytes, framing: Framing) -> bool {
    // The form's own chunk header is not part of the chunk's length: a little stricter than needed.
    framing.stream_id == STREAM_ID && wire.len() <= framing.chunk_len as usize
}

#[cfg(test)]
mod allocations;
#[cfg(test)]
mod tests;
