//! Streams of events and of log lines, as they come: server-sent events.
//!
//! The front serves them itself: they last, and the threads behind it must not. Nothing is queued for a reader: each has a
//! number up to which it was told, and reads on from the ring. Who takes nothing is closed; who was too slow for the ring is
//! told how much he missed.

use super::api::AdminApi;
use super::events::may_see;
use super::gate::{self, Asking};
use super::reply::{Reply, stream_head};
use crate::access::{Access, Principal};
use crate::recorder::Wanted;
use serde::Serialize;
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// Streams at once, of all readers and of one.
const STREAMS: usize = 16;
const STREAMS_OF_ONE: usize = 6;
/// Told at once; more come with the next write.
const BATCH: usize = 64;
/// How often a silent stream shows that it lives, and its reader is judged anew.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Time that a reader has to take what is written.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// Bytes that a reader may send although nothing is expected of him.
const STRAY_MAX: usize = 4 << 10;

/// What can be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Feed {
    /// `/api/v1/events/stream`.
    Events,
    /// `/api/v1/logs/stream`.
    Log,
}

impl Feed {
    /// The feed at a path.
    pub(super) fn at(path: &str) -> Option<Feed> {
        match path {
            "/api/v1/events/stream" => Some(Feed::Events),
            "/api/v1/logs/stream" => Some(Feed::Log),
            _ => None,
        }
    }
}

/// All streams that are open.
#[derive(Default)]
pub(super) struct Feeds {
    open: Mutex<HashMap<String, usize>>,
    /// Cancelled when the admin plane ends.
    pub(super) closing: CancellationToken,
}

/// One open stream; counted out when it goes.
struct Seat<'a> {
    feeds: &'a Feeds,
    who: String,
}

impl Feeds {
    fn seat(&self, who: &str) -> Option<Seat<'_>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let his = open.get(who).copied().unwrap_or(0);
        if his >= STREAMS_OF_ONE || open.values().sum::<usize>() >= STREAMS {
            return None;
        }
        open.insert(who.to_owned(), his + 1);
        Some(Seat { feeds: self, who: who.to_owned() })
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut open = self.feeds.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.who);
            }
        }
    }
}

/// Where a stream's entries come from.
pub(super) struct Source<'a> {
    feed: Feed,
    api: &'a Arc<dyn AdminApi>,
}

/// Entries as they are written, the number to go on from, and how many were forgotten before.
struct Batch {
    text: String,
    next: u64,
    missed: u64,
    is_last: bool,
}

impl<'a> Source<'a> {
    pub(super) fn new(feed: Feed, api: &'a Arc<dyn AdminApi>) -> Self {
        Source { feed, api }
    }

    fn follow(&self) -> Option<watch::Receiver<u64>> {
        match self.feed {
            Feed::Events => self.api.recorder().map(|recorder| recorder.follow()),
            Feed::Log => self.api.log().map(|log| log.follow()),
        }
    }

    fn batch(&self, since: u64, principal: &Principal) -> Option<Batch> {
        fn written<'i, T: Serialize + 'i>(entries: impl Iterator<Item = (u64, &'i T)>) -> String {
            let mut text = String::new();
            for (id, entry) in entries {
                text.push_str(&format!("id: {id}\ndata: {}\n\n", json!(entry)));
            }
            text
        }
        let missed = |oldest: u64| oldest.saturating_sub(since.saturating_add(1));
        match self.feed {
            Feed::Events => {
                let wanted = Wanted { since: Some(since), limit: BATCH };
                let page = self.api.recorder()?.page(wanted, |event| may_see(Some(principal), event));
                Some(Batch {
                    text: written(page.events.iter().map(|event| (event.id, event))),
                    next: page.next_cursor.unwrap_or(since),
                    missed: page.oldest.map_or(0, missed),
                    is_last: page.events.len() < BATCH,
                })
            }
            Feed::Log => {
                let page = self.api.log()?.page(Some(since), BATCH);
                Some(Batch {
                    text: written(page.lines.iter().map(|line| (line.id, line))),
                    next: page.next_cursor,
                    missed: missed(page.oldest),
                    is_last: page.lines.len() < BATCH,
                })
            }
        }
    }
}

/// Serves one reader until he goes, takes nothing, may not any more, or the admin plane ends. Fails with what is answered
/// instead of a stream.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    source: &Source<'_>,
    asking: &Asking<'_>,
    principal: &Principal,
    feeds: &Feeds,
    access: &Access,
) -> Result<(), Reply> {
    let since = resumed_from(asking).map_err(|detail| Reply::problem(400, detail, &[]))?;
    let Some(mut news) = source.follow() else {
        return Err(Reply::problem(503, "the gateway is starting; try again", &[]));
    };
    let Some(_seat) = feeds.seat(&principal.identity.to_string()) else {
        let detail = "too many streams are open; close some, or ask for the list now and then";
        return Err(Reply::problem(503, detail, &[]).with("retry-after", "10"));
    };
    let mut principal = principal.clone();
    let newest = *news.borrow_and_update();
    // Who has a number of an earlier run of the log, or of another gateway, is told all there is.
    let mut cursor = since.map_or(newest, |since| if since > newest { 0 } else { since });
    let mut judged = Instant::now();
    if write(stream, &stream_head("text/event-stream")).await.is_none() {
        return Ok(());
    }
    if write(stream, b"retry: 3000\n\n").await.is_none() {
        return Ok(());
    }
    let mut stray = 0;
    loop {
        let Some(batch) = source.batch(cursor, &principal) else { return Ok(()) };
        let mut text = batch.text;
        if batch.missed > 0 {
            let gap = format!("event: gap\ndata: {}\n\n", json!({"missed": batch.missed}));
            text.insert_str(0, &gap);
        }
        cursor = batch.next;
        if !text.is_empty() && write(stream, text.as_bytes()).await.is_none() {
            return Ok(());
        }
        let is_due = judged.elapsed() >= HEARTBEAT;
        if is_due {
            judged = Instant::now();
            match gate::judge(access, asking, judged) {
                Ok(Some(known)) => principal = known,
                // Logged out, removed, or with another role by now.
                _ => {
                    write(stream, b"event: end\ndata: {}\n\n").await;
                    return Ok(());
                }
            }
            if write(stream, b":\n\n").await.is_none() {
                return Ok(());
            }
        }
        if !batch.is_last {
            continue;
        }
        let mut sink = [0_u8; 256];
        tokio::select! {
            () = feeds.closing.cancelled() => return Ok(()),
            changed = news.changed() => if changed.is_err() {
                return Ok(());
            },
            () = sleep_until(judged + HEARTBEAT) => {}
            read = stream.read(&mut sink) => match read {
                Ok(0) | Err(_) => return Ok(()),
                Ok(len) => {
                    stray += len;
                    if stray > STRAY_MAX {
                        return Ok(());
                    }
                }
            },
        }
    }
}

/// None when the reader is gone or takes nothing.
async fn write<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Option<()> {
    let writing = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    timeout(WRITE_WITHIN, writing).await.ok()?.ok()
}

/// The number after which the reader goes on: what a browser sends after a break, else what the address says.
fn resumed_from(asking: &Asking<'_>) -> Result<Option<u64>, &'static str> {
    let header = asking.headers.iter().find(|(name, _)| name == "last-event-id");
    if let Some((_, value)) = header {
        return value.parse().map(Some).map_err(|_| "Last-Event-ID must be the number of an event");
    }
    match asking.target.split_once('?').map_or("", |(_, query)| query) {
        "" => Ok(None),
        query => {
            let since = query.strip_prefix("since=").and_then(|value| value.parse().ok());
            since.map(Some).ok_or("the only parameter here is since, the number of an event")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::gate::Way;
    use crate::admin::head::Method;

    #[test]
    fn seats_are_bounded_in_all_and_for_one() {
        let feeds = Feeds::default();
        let of_ann: Vec<Seat<'_>> = (0..STREAMS_OF_ONE).map(|_| feeds.seat("ann").unwrap()).collect();
        assert!(feeds.seat("ann").is_none());
        let of_others: Vec<Option<Seat<'_>>> = (0..STREAMS).map(|who| feeds.seat(&who.to_string())).collect();
        assert_eq!(of_others.iter().flatten().count(), STREAMS - STREAMS_OF_ONE);
        drop((of_ann, of_others));
        assert!(feeds.seat("ann").is_some() && feeds.open.lock().unwrap().is_empty());
    }

    #[test]
    fn a_reader_says_where_he_goes_on() {
        let from = |target: &str, id: Option<&str>| {
            let headers: Vec<(String, String)> =
                id.map(|id| ("last-event-id".to_owned(), id.to_owned())).into_iter().collect();
            let (peer, way) = ("127.0.0.1:1".parse().unwrap(), Way::default());
            resumed_from(&Asking { method: Method::Get, target, headers: &headers, peer, way })
        };
        assert_eq!(from("/x", None), Ok(None));
        assert_eq!(from("/x?since=7", None), Ok(Some(7)));
        assert_eq!(from("/x?since=7", Some("9")), Ok(Some(9)), "a browser repeats the address it began with");
        assert!(from("/x?since=-1", None).is_err() && from("/x?limit=2", None).is_err());
        assert!(from("/x", Some("odd")).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_left() {
        let (access, _) = crate::access::tests::for_tests();
        let wish = crate::access::TokenWish {
            name: "reader".to_owned(),
            role: crate::access::Role::Admin,
            streams: crate::access::Streams::all(),
            areas: Vec::new(),
            expires: None,
        };
        let (id, token) = access.add_token(wish, "test").unwrap();
        let tail = crate::logging::Tail::default();
        let subscriber =
            tracing_subscriber::layer::SubscriberExt::with(tracing_subscriber::registry(), tail.clone());
        tracing::subscriber::with_default(subscriber, || {
            (0..500).for_each(|number| tracing::info!("line {number} of a log that nobody takes"));
        });
        let api: Arc<dyn AdminApi> = Arc::new(crate::admin::tests::Fake::with_log(tail));
        let (peer, way) = ("127.0.0.1:1".parse().unwrap(), Way::default());
        let headers = [("authorization".to_owned(), format!("Bearer {token}"))];
        let target = "/api/v1/logs/stream?since=0";
        let asking = Asking { method: Method::Get, target, headers: &headers, peer, way };
        let principal = gate::judge(&access, &asking, Instant::now()).ok().flatten().unwrap();
        let feeds = Feeds::default();
        let (mut ours, _theirs) = tokio::io::duplex(1 << 10);
        let began = Instant::now();
        let source = Source::new(Feed::Log, &api);
        assert!(serve(&mut ours, &source, &asking, &principal, &feeds, &access).await.is_ok());
        assert_eq!(began.elapsed(), WRITE_WITHIN);
        assert!(feeds.open.lock().unwrap().is_empty());
        // Who may not any more is told so at the next heartbeat.
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 20);
        access.remove_token(&id).unwrap();
        assert!(serve(&mut ours, &source, &asking, &principal, &feeds, &access).await.is_ok());
        drop(ours);
        let mut told = String::new();
        theirs.read_to_string(&mut told).await.unwrap();
        assert!(told.ends_with("event: end\ndata: {}\n\n"), "{}", &told[told.len() - 100..]);
        assert_eq!(told.matches("\ndata: {\"").count(), 500);
    }
}
