//! A peer that follows a mountpoint.

use super::RtmpConnectionError as Error;
use super::connection::Connection;
use super::publish::refuse_more;
use crate::outbox::{Framing, Outbox};
use fieldgate_hub::{LocalShard, Mountpoint, StreamState, Terms};
use fieldgate_proto::rtmp::Event;
use fieldgate_proto::rtmp::wire::MetadataStyle;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::info;

/// How often slow peers are looked for.
const LOOK: Duration = Duration::from_secs(1);

/// How long the rest of an ended stream may take.
const LAST_UNITS: Duration = Duration::from_secs(2);

/// Sends `mountpoint` until the peer ends. True: it may begin another stream.
pub(super) async fn run(
    connection: &mut Connection,
    outbox: &Rc<Outbox>,
    local: &Rc<LocalShard>,
    stream_id: u32,
    mountpoint: Arc<Mountpoint>,
    terms: Terms,
) -> Result<bool, Error> {
    connection.session.set_chunk_len(terms.chunk_len);
    connection.session.accept_play(stream_id);
    outbox.answer(|out| connection.session.poll_output(out));
    let framing =
        Framing { chunk_len: connection.session.chunk_len(), stream_id, style: MetadataStyle::Plain };
    outbox.start(mountpoint.subscribe(None), framing, local.beat(terms.gather), Instant::now());
    // Answers, headers and the newest GOP in one write.
    outbox.write_now();
    let listed = local.sinks(mountpoint.name()).add(outbox.clone());
    info!(peer = %connection.peer, mountpoint = mountpoint.name(), "playing");

    let outcome = follow(connection, outbox, local, stream_id, &mountpoint, &terms).await;
    let (sent, dropped) = (outbox.written_bytes(), outbox.dropped_units());
    connection.server.counters.sent_bytes.fetch_add(sent, Ordering::Relaxed);
    connection.server.counters.dropped_units.fetch_add(dropped, Ordering::Relaxed);
    drop(listed);
    match &outcome {
        Ok(_) => {
            outbox.stop();
            info!(peer = %connection.peer, mountpoint = mountpoint.name(), dropped, "player left");
        }
        Err(error) => {
            info!(peer = %connection.peer, mountpoint = mountpoint.name(), dropped, %error, "player closed");
            connection.session.close(&error.to_string());
            connection.say_last_words(outbox).await;
        }
    }
    outcome
}

async fn follow(
    connection: &mut Connection,
    outbox: &Rc<Outbox>,
    local: &Rc<LocalShard>,
    stream_id: u32,
    mountpoint: &Arc<Mountpoint>,
    terms: &Terms,
) -> Result<bool, Error> {
    let write_timeout = connection.server.settings.write_timeout;
    let stopping = connection.server.context.cancel.clone();
    let removed = mountpoint.closed();
    let dismissed = connection.dismissed(mountpoint.name());
    let (stopping, removed) = (stopping.cancelled(), removed.cancelled());
    tokio::pin!(stopping, removed, dismissed);
    let mut state = mountpoint.state();
    state.mark_unchanged();
    let mut look = tokio::time::interval(LOOK);
    let mut batch = Vec::new();
    loop {
        while let Some(event) = connection.next_event()? {
            match event {
                Event::PlayStopped { stream_id: ended } if ended == stream_id => return Ok(true),
                Event::PauseRequested { pause, .. } => outbox.pause(pause),
                other => refuse_more(&mut connection.session, other)?,
            }
        }
        connection.send_answers(outbox)?;
        let unread = &mut connection.unread;
        let turn = poll_fn(|cx| {
            // Ready(Ok) means that the time to write what is gathered has changed: the timer is made anew.
            if let Poll::Ready(progress) = outbox.poll_progress(cx, &mut batch) {
                return Poll::Ready(progress.map(|()| None));
            }
            let mut scratch = local.scratch();
            let len = ready!(outbox.poll_read(cx, &mut scratch))?;
            unread.extend_from_slice(scratch.get(..len).unwrap_or_default());
            Poll::Ready(Ok(Some(len)))
        });
        let due = outbox.due();
        tokio::select! {
            biased;
            turn = turn => if turn? == Some(0) {
                return Ok(false);
            },
            () = sleep_until(due) => outbox.write_gathered(Instant::now()),
            changed = state.changed() => if changed.is_err() || !tell_state(connection, outbox, &mut state, stream_id, terms).await? {
                connection.send_answers(outbox)?;
                return Ok(true);
            },
            _ = look.tick() => {
                connection.note_traffic(outbox);
                if outbox.blocked_since().is_some_and(|since| since.elapsed() > write_timeout) {
                    mountpoint.count_stalled();
                    return Err(Error::TooSlow(write_timeout));
                }
            }
            () = &mut stopping => return Err(Error::Stopping),
            () = &mut removed => return Err(Error::Removed(mountpoint.name().to_owned())),
            error = &mut dismissed => return Err(error),
        }
    }
}

/// Tells the player that its stream ended or came back. False: it shall not wait for another.
async fn tell_state(
    connection: &mut Connection,
    outbox: &Outbox,
    state: &mut watch::Receiver<StreamState>,
    stream_id: u32,
    terms: &Terms,
) -> Result<bool, Error> {
    let now = *state.borrow_and_update();
    match now {
        StreamState::Idle => {
            // Many players stop reading at the notice: the stream's end comes first.
            outbox.drain(LAST_UNITS).await;
            connection.session.notify_unpublish(stream_id);
            Ok(terms.wait_for_publisher)
        }
        StreamState::Live(_) => {
            connection.session.notify_publish(stream_id);
            Ok(true)
        }
        // It may come back within the grace; the player need not know.
        StreamState::Interrupted(_) => Ok(true),
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
