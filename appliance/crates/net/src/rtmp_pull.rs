//! Takes a stream from an RTMP server and feeds a mountpoint with it.

use crate::rtmp_client::{Accepted, RtmpClientError, RtmpEndpoint};
use fieldgate_hub::{Clock, LocalShard, Mountpoint, Publisher, PublisherInfo, SCRATCH_BYTES};
use fieldgate_media::{Captured, ClockSource};
use fieldgate_proto::rtmp::{ClientEvent, ClientMode, ClientSession, Limits};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often stalls are looked for.
const LOOK: Duration = Duration::from_millis(500);

/// One pull: one server, one mountpoint.
pub struct RtmpPull {
    /// Where from.
    pub endpoint: RtmpEndpoint,
    /// The server's name in the status; holds no secret.
    pub from: String,
    /// What to feed.
    pub mountpoint: Arc<Mountpoint>,
    /// A server that sends no media for so long is given up.
    pub stall_timeout: Duration,
    /// What the server may make us hold.
    pub limits: Limits,
    /// For capture times.
    pub clock: Clock,
    /// Ends when the pull shall stop.
    pub cancel: CancellationToken,
}

impl RtmpPull {
    /// Pulls until cancelled (`Ok`) or something fails. Runs on the mountpoint's shard.
    pub async fn run(self, local: Rc<LocalShard>) -> Result<(), RtmpClientError> {
        let mut accepted = tokio::select! {
            () = self.cancel.cancelled() => return Ok(()),
            accepted = Accepted::connect(&self.endpoint, ClientMode::Play, true, self.limits.clone(), &local) => accepted?,
        };
        let (from, since_unix_micros) = (self.from.clone(), self.clock.unix_micros());
        let info = PublisherInfo { kind: "pull", from, since_unix_micros, rtmp: None };
        let mut publisher = self.mountpoint.claim(&local, info)?;
        let outcome = self.feed(&mut accepted, &mut publisher, &local).await;
        drop(publisher);
        self.mountpoint.count_malformed(accepted.session.skipped() + accepted.session.unparsable());
        if outcome.is_ok() {
            accepted.finish().await;
        }
        outcome
    }

    async fn feed(
        &self,
        accepted: &mut Accepted,
        publisher: &mut Publisher,
        local: &Rc<LocalShard>,
    ) -> Result<(), RtmpClientError> {
        let outbox = accepted.outbox.clone();
        let kicked = publisher.kicked();
        let mut look = tokio::time::interval(LOOK);
        let mut last_media = Instant::now();
        let mut since_yield = 0;
        let mut batch = Vec::new();
        let early = accepted.unread.split();
        take_in(&mut accepted.session, publisher, &early, &self.clock)?;
        publisher.flush();
        loop {
            let session = &mut accepted.session;
            let turn = poll_fn(|cx| {
                if let Poll::Ready(Err(error)) = outbox.poll_progress(cx, &mut batch) {
                    return Poll::Ready(Err(RtmpClientError::Io(error)));
                }
                let mut scratch = local.scratch();
                let len = ready!(outbox.poll_read(cx, &mut scratch))?;
                if len == 0 {
                    return Poll::Ready(Err(RtmpClientError::Closed));
                }
                let media = take_in(session, publisher, scratch.get(..len).unwrap_or_default(), &self.clock)?;
                Poll::Ready(Ok((len, media)))
            });
            let (len, media) = tokio::select! {
                biased;
                turn = turn => turn?,
                () = self.cancel.cancelled() => return Ok(()),
                () = kicked.cancelled() => {
                    return Err(RtmpClientError::Removed(self.mountpoint.name().to_owned()));
                }
                _ = look.tick() => {
                    if last_media.elapsed() > self.stall_timeout {
                        return Err(RtmpClientError::Stalled(self.stall_timeout));
                    }
                    continue;
                }
            };
            publisher.flush();
            accepted.send_answers()?;
            if media {
                last_media = Instant::now();
            }
            since_yield += len;
            if since_yield >= SCRATCH_BYTES {
                since_yield = 0;
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Publishes all that stands in `bytes`; true if any of it was media.
fn take_in(
    session: &mut ClientSession,
    publisher: &mut Publisher,
    bytes: &[u8],
    clock: &Clock,
) -> Result<bool, RtmpClientError> {
    let mut input = bytes;
    let mut media = false;
    while let Some(event) = session.read(&mut input)? {
        match event {
            ClientEvent::Tracks { tracks, header_of, .. } => publisher.announce_header(tracks, header_of),
            ClientEvent::Unit { mut draft } => {
                media = true;
                draft.head.captured =
                    Some(Captured { unix_micros: clock.unix_micros(), by: ClockSource::Arrival });
                publisher.publish(draft);
            }
            ClientEvent::Rejected { code, description } => {
                return Err(RtmpClientError::Rejected { code, description });
            }
            ClientEvent::Ended { code } => return Err(RtmpClientError::Ended(code)),
            _ => {}
        }
    }
    Ok(media)
}
