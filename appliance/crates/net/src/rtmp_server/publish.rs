//! A peer that feeds a mountpoint.

use super::RtmpConnectionError as Error;
use super::connection::Connection;
use super::registry::StreamMeter;
use crate::outbox::Outbox;
use bytes::BytesMut;
use fieldgate_hub::{
    Beats, Clock, LocalShard, Mountpoint, MountpointError, Publisher, PublisherInfo, RtmpEnd, RtmpSession,
    SCRATCH_BYTES,
};
use fieldgate_media::{Captured, ClockSource};
use fieldgate_proto::rtmp::{Event, PublishRefusal, ServerSession, SessionError};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::time::Instant;
use tracing::info;

/// How often stalls are looked for.
const LOOK: Duration = Duration::from_secs(1);

/// How a turn of reading ended.
enum Turn {
    /// That many bytes were read.
    Read(usize),
    /// The publisher ended its stream; the connection goes on.
    Unpublished,
    /// The peer closed the connection.
    Closed,
}

/// Feeds `mountpoint` until the peer ends. True: it may begin another stream.
pub(super) async fn run(
    connection: &mut Connection,
    outbox: &Rc<Outbox>,
    local: &Rc<LocalShard>,
    session: Arc<RtmpSession>,
    mountpoint: Arc<Mountpoint>,
) -> Result<bool, Error> {
    let clock = connection.server.context.clock.clone();
    let stream_id = session.stream_id;
    let info = PublisherInfo {
        kind: "rtmp",
        from: connection.peer.to_string(),
        since_unix_micros: clock.unix_micros(),
        rtmp: Some(session.clone()),
    };
    let publisher = match mountpoint.claim(local, info) {
        Ok(publisher) => publisher,
        Err(error) => {
            let refusal = match &error {
                MountpointError::Busy { .. } => PublishRefusal::BadName,
                MountpointError::Closed { .. }
                | MountpointError::Masked { .. }
                | MountpointError::Cut { .. } => PublishRefusal::Denied,
            };
            info!(peer = %connection.peer, mountpoint = mountpoint.name(), %error, "publish refused");
            // Who has it is not the stranger's business.
            let text = match &error {
                MountpointError::Busy { .. } | MountpointError::Closed { .. } => {
                    format!("{} is already being published", mountpoint.name())
                }
                MountpointError::Masked { .. } | MountpointError::Cut { .. } => error.to_string(),
            };
            connection.session.reject_publish(stream_id, refusal, &text);
            connection.send_answers(outbox)?;
            return Ok(true);
        }
    };
    connection.session.accept_publish(stream_id);
    connection.send_answers(outbox)?;
    info!(peer = %connection.peer, mountpoint = mountpoint.name(), "publishing");
    let outcome = feed(connection, outbox, local, publisher, session).await;
    let session = &connection.session;
    mountpoint.count_malformed(session.skipped(stream_id) + session.unparsable(stream_id));
    match &outcome {
        Ok(_) => info!(peer = %connection.peer, mountpoint = mountpoint.name(), "publisher left"),
        Err(error) => {
            info!(peer = %connection.peer, mountpoint = mountpoint.name(), %error, "publisher closed");
            connection.session.close(&error.to_string());
            connection.say_last_words(outbox).await;
        }
    }
    outcome
}

async fn feed(
    connection: &mut Connection,
    outbox: &Rc<Outbox>,
    local: &Rc<LocalShard>,
    mut publisher: Publisher,
    session: Arc<RtmpSession>,
) -> Result<bool, Error> {
    let clock = connection.server.context.clock.clone();
    let stream_id = session.stream_id;
    // What came in for the connection's earlier streams is not this one's.
    let before = connection.session.received();
    let meter = connection.meter.begin_stream(session.clone());
    // Dropped before the publisher, also when this future is: whoever sees the stream end knows why.
    let ending = Ending { session, meter };
    let note = |connection: &mut Connection| {
        connection.note_traffic(outbox);
        let now = connection.session.received();
        ending.meter.set(now.audio_bytes - before.audio_bytes, now.video_bytes - before.video_bytes);
    };
    let media_turns = Cell::new(0_u64);
    let interrupt = interrupted(connection, &publisher, &media_turns);
    // Asked only when it was woken: a turn of media shall not pay for timers and tokens.
    let mut interrupts = FuturesUnordered::from_iter([interrupt]);
    let mut since_yield = 0;
    let mut rest: Option<Rest> = None;
    let mut batch = Vec::new();

    let early = connection.unread.split();
    let (turn, _) = ending.judge(take_in(connection, &mut publisher, stream_id, &early, &clock))?;
    publisher.flush();
    note(connection);
    if let Turn::Unpublished = turn {
        ending.session.end(RtmpEnd::Closed);
        return Ok(true);
    }
    loop {
        let turn = poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = outbox.poll_progress(cx, &mut batch) {
                return Poll::Ready(Err(error.into()));
            }
            let mut scratch = local.scratch();
            let len = match outbox.poll_read(cx, &mut scratch) {
                Poll::Pending if rest.is_some() => return Poll::Ready(Ok((Turn::Read(0), false))),
                read => ready!(read)?,
            };
            if len == 0 {
                return Poll::Ready(Ok((Turn::Closed, false)));
            }
            let bytes = scratch.get(..len).unwrap_or_default();
            Poll::Ready(take_in(connection, &mut publisher, stream_id, bytes, &clock))
        });
        let (turn, media) = tokio::select! {
            biased;
            turn = turn => ending.judge(turn)?,
            Some(error) = interrupts.next() => return Err(error),
        };
        publisher.flush();
        connection.send_answers(outbox)?;
        note(connection);
        media_turns.set(media_turns.get() + u64::from(media));
        match turn {
            Turn::Closed => return Ok(false),
            Turn::Unpublished => {
                ending.session.end(RtmpEnd::Closed);
                outbox.watch()?;
                return Ok(true);
            }
            Turn::Read(len) => since_yield += len,
        }
        if media || rest.is_some() {
            rest = Rest::choose(rest, &publisher, local, outbox)?;
        }
        if since_yield >= SCRATCH_BYTES {
            // A flood is read at most this far at a time, so that it cannot starve its shard.
            since_yield = 0;
            tokio::task::yield_now().await;
        } else if let Some(rest) = &rest {
            since_yield = 0;
            tokio::select! {
                () = rest.beats.next() => {}
                Some(error) = interrupts.next() => return Err(error),
            }
        }
    }
}

/// How a publisher is read while all its outputs gather: when they write, so that no message wakes anybody.
struct Rest {
    period: Duration,
    beats: Beats,
}

impl Rest {
    /// Whether to rest after this turn; the socket is watched just when not.
    fn choose(
        rest: Option<Rest>,
        publisher: &Publisher,
        local: &LocalShard,
        outbox: &Outbox,
    ) -> std::io::Result<Option<Rest>> {
        let period = publisher.nobody_reads_for();
        match rest {
            Some(rest) if rest.period == period => Ok(Some(rest)),
            _ if !period.is_zero() && outbox.unwatch()? => {
                Ok(Some(Rest { period, beats: local.beats(period) }))
            }
            Some(_) => outbox.watch().map(|()| None),
            None => Ok(None),
        }
    }
}

/// Tells how the publication ended, and ends its counting.
struct Ending {
    session: Arc<RtmpSession>,
    meter: Arc<StreamMeter>,
}

impl Ending {
    /// Notes whether it was the media that ended it.
    fn judge<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        if let Err(Error::Session(SessionError::Flv(_)) | Error::BadMedia) = &outcome {
            self.session.end(RtmpEnd::BadData);
        }
        outcome
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        // Without effect if it ended in another way.
        self.session.end(RtmpEnd::Disconnected);
    }
}

/// Ends when the publisher has to go: the gateway stops, the mountpoint is taken from it, or no media comes any more.
fn interrupted<'a>(
    connection: &Connection,
    publisher: &Publisher,
    media_turns: &'a Cell<u64>,
) -> impl Future<Output = Error> + use<'a> {
    let stall = connection.idle_timeout;
    let stopping = connection.server.context.cancel.clone();
    let (kicked, name) = (publisher.kicked(), publisher.mountpoint().name().to_owned());
    let dismissed = connection.dismissed(&name);
    async move {
        tokio::pin!(dismissed);
        let mut look = tokio::time::interval(LOOK);
        let (mut seen, mut last_media) = (0, Instant::now());
        loop {
            tokio::select! {
                () = stopping.cancelled() => return Error::Stopping,
                () = kicked.cancelled() => return Error::Removed(name),
                error = &mut dismissed => return error,
                _ = look.tick() => {
                    if seen != media_turns.get() {
                        (seen, last_media) = (media_turns.get(), Instant::now());
                    } else if !stall.is_zero() && last_media.elapsed() > stall {
                        return Error::Stalled(stall);
                    }
                }
            }
        }
    }
}

/// Publishes all that stands in `bytes`. The second value tells whether any of it was media.
fn take_in(
    connection: &mut Connection,
    publisher: &mut Publisher,
    stream_id: u32,
    bytes: &[u8],
    clock: &Clock,
) -> Result<(Turn, bool), Error> {
    let mut input = bytes;
    let mut media = false;
    while let Some(event) = connection.session.read(&mut input)? {
        match event {
            Event::Tracks { tracks, header_of, .. } => publisher.announce_header(tracks, header_of),
            Event::Unit { mut draft, .. } => {
                media = true;
                let unix_micros = clock.unix_micros();
                draft.head.captured = Some(Captured { unix_micros, by: ClockSource::Arrival });
                publisher.publish(draft);
            }
            Event::Unpublished { stream_id: ended } if ended == stream_id => {
                connection.unread = BytesMut::from(input);
                return Ok((Turn::Unpublished, media));
            }
            other => refuse_more(&mut connection.session, other)?,
        }
    }
    if connection.end_on_bad_media && connection.session.unparsable(stream_id) > 0 {
        return Err(Error::BadMedia);
    }
    Ok((Turn::Read(bytes.len()), media))
}

/// One stream per connection at a time; what else a busy peer asks for is refused.
pub(super) fn refuse_more(session: &mut ServerSession, event: Event) -> Result<(), SessionError> {
    use fieldgate_proto::rtmp::PlayRefusal;
    let text = "this connection has a stream already; open another connection";
    match event {
        Event::PublishRequested(request) => {
            session.reject_publish(request.stream_id, PublishRefusal::Denied, text);
        }
        Event::PlayRequested(request) => session.reject_play(request.stream_id, PlayRefusal::Failed, text),
        _ => {}
    }
    Ok(())
}
