//! What applications are told of streams: again and again until they have it.
//!
//! ```text
//!  available --queued--> called --200--> next --> ... --> closed --200--> forgotten
//!                 ^--10 s-- else       (a stream that closes drops what was queued)
//! ```
//! Of one stream one call at a time, in order, its end last. A stream is listed on disk from its first message until its
//! end was delivered.

use super::ident::is_id;
use crate::key::Key;
use crate::{CallOutcome, ExchangeId};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::time::{Duration, Instant};

/// Wait after a failed call.
pub(super) const AGAIN: Duration = Duration::from_secs(10);
/// Calls at once.
const CALLS_MAX: usize = 16;
/// Messages that are kept at once, with the ends that are still to come.
pub(super) const EVENTS_MAX: usize = 10_000;
/// Messages of one stream, over all its life.
const PER_STREAM_MAX: usize = 256;
/// Longest list of streams that is read, in bytes.
const LIST_MAX: usize = 4 << 20;
/// Longest name of a channel or stream in a list.
const ID_LIMIT: usize = 1_024;
/// Longest name of a file or rendition.
const TEXT_MAX: usize = 1_024;

/// One set of files that an encoder has made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Available {
    /// `HLS-LIVE`, `HLS-VOD` or `IMG-PREVIEW`.
    pub stream_type: String,
    /// As the encoder names it.
    pub resolution: String,
    /// Relative to the storage, without a leading slash.
    pub index_file: String,
    /// Decimal seconds, where the set does not begin with the stream.
    pub start_time: Option<String>,
}

impl Available {
    /// From an encoder's words; `None` where they name no set.
    pub fn read(kind: &str, resolution: &str, index_file: &str, start_time: &str) -> Option<Available> {
        let kind = ["HLS-LIVE", "HLS-VOD", "IMG-PREVIEW"]
            .into_iter()
            .find(|known| known.eq_ignore_ascii_case(kind))?;
        let index_file = index_file.trim_start_matches('/');
        let is_plain = |text: &str| {
            text.len() <= TEXT_MAX && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
        };
        if index_file.is_empty() || !is_plain(index_file) || !is_plain(resolution) {
            return None;
        }
        let is_time = |text: &str| {
            text.len() <= 20
                && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
                && text.parse::<f64>().is_ok_and(|seconds| seconds > 0.0)
        };
        Some(Available {
            stream_type: kind.to_owned(),
            resolution: resolution.to_owned(),
            index_file: index_file.to_owned(),
            start_time: Some(start_time.to_owned()).filter(|text| is_time(text)),
        })
    }

    fn same_set(&self, other: &Available) -> bool {
        (&self.stream_type, &self.resolution, &self.start_time)
            == (&other.stream_type, &other.resolution, &other.start_time)
    }
}

/// Why a set is not told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotTold {
    /// It was told of before.
    Known,
    /// Too many wait already.
    Full,
}

/// Names and values.
pub(super) type Headers = Vec<(&'static str, Key)>;

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The application has it.
    Delivered,
    /// It has not; the cause is there the first time in a row, for the log.
    Failed(Option<String>),
}

/// All streams that an application knows of, or is to be told of.
#[derive(Debug, Default)]
pub(super) struct Events {
    streams: BTreeMap<String, Story>,
    calls: BTreeMap<ExchangeId, Call>,
    /// Grows with each change of the list.
    version: u64,
    /// The newest that is on disk.
    kept: u64,
}

/// A call that is being made.
#[derive(Debug)]
struct Call {
    stream_id: String,
    is_end: bool,
    until: Instant,
}

/// One stream's.
#[derive(Debug)]
struct Story {
    channel: String,
    waiting: VecDeque<Available>,
    seen: Vec<Available>,
    is_closed: bool,
    is_called: bool,
    is_failing: bool,
    due: Instant,
    /// Nothing is told before this version of the list is on disk.
    listed: u64,
}

impl Story {
    fn new(channel: &str, listed: u64, now: Instant) -> Story {
        Story {
            channel: channel.to_owned(),
            waiting: VecDeque::new(),
            seen: Vec::new(),
            is_closed: false,
            is_called: false,
            is_failing: false,
            due: now,
            listed,
        }
    }

    fn wants_call(&self, kept: u64) -> bool {
        !self.is_called && self.listed <= kept && (self.is_closed || !self.waiting.is_empty())
    }
}

impl Events {
    /// Streams that were listed when the gateway ended: each has ended, too.
    pub(super) fn of_list(list: &str, now: Instant) -> Events {
        let mut events = Events::default();
        for (channel, stream_id) in read_list(list) {
            let story = Story { is_closed: true, ..Story::new(channel, 0, now) };
            events.streams.insert(stream_id.to_owned(), story);
        }
        events
    }

    /// How many wait, with the ends that are still to come.
    fn count(&self) -> usize {
        self.streams
            .values()
            .fold(0, |sum: usize, story| sum.saturating_add(story.waiting.len()).saturating_add(1))
    }

    /// A stream has a new set of files. True: the list is longer.
    pub(super) fn available(
        &mut self,
        channel: &str,
        stream_id: &str,
        set: Available,
        now: Instant,
    ) -> Result<bool, NotTold> {
        let known = self.streams.get(stream_id);
        if known.is_some_and(|story| story.is_closed || story.seen.iter().any(|seen| seen.same_set(&set))) {
            return Err(NotTold::Known);
        }
        let has_too_many = known.is_some_and(|story| story.seen.len() >= PER_STREAM_MAX);
        if has_too_many || self.count() >= EVENTS_MAX {
            return Err(NotTold::Full);
        }
        let is_new = known.is_none();
        if is_new {
            self.version = self.version.saturating_add(1);
        }
        let version = self.version;
        let story =
            self.streams.entry(stream_id.to_owned()).or_insert_with(|| Story::new(channel, version, now));
        if story.waiting.is_empty() {
            story.due = now;
        }
        story.seen.push(set.clone());
        story.waiting.push_back(set);
        Ok(is_new)
    }

    /// A stream has ended. The application hears of it if it was to hear of the stream.
    pub(super) fn closed(&mut self, stream_id: &str, now: Instant) {
        if let Some(story) = self.streams.get_mut(stream_id).filter(|story| !story.is_closed) {
            story.waiting.clear();
            story.is_closed = true;
            story.due = now;
        }
    }

    /// The list, with its version.
    pub(super) fn list(&self) -> (u64, String) {
        let mut list = String::new();
        for (stream_id, story) in &self.streams {
            let _ = writeln!(list, "{}:{stream_id}", story.channel);
        }
        (self.version, list)
    }

    /// This version of the list is on disk, or cannot be: nothing waits for it any more.
    pub(super) fn handle_kept(&mut self, version: u64) {
        self.kept = self.kept.max(version);
    }

    /// The next call, which is made under this id.
    pub(super) fn poll(&mut self, exchange: ExchangeId, auth: Option<&Key>, now: Instant) -> Option<Headers> {
        if self.calls.len() >= CALLS_MAX {
            return None;
        }
        let kept = self.kept;
        let ready = self.streams.iter_mut().filter(|(_, story)| story.wants_call(kept) && story.due <= now);
        let (stream_id, story) = ready.min_by_key(|(_, story)| story.due)?;
        story.is_called = true;
        let stream_id = stream_id.clone();
        let mut headers = vec![
            ("x-streaming-channel", Key::new(story.channel.as_str())),
            ("x-streaming-id", Key::new(stream_id.as_str())),
        ];
        match story.waiting.front().filter(|_| !story.is_closed) {
            Some(set) => {
                headers.push(("x-event-type", Key::new("stream-available")));
                headers.push(("x-stream-type", Key::new(set.stream_type.as_str())));
                headers.push(("x-resolution", Key::new(set.resolution.as_str())));
                headers.push(("x-index-file", Key::new(set.index_file.as_str())));
                if let Some(seconds) = &set.start_time {
                    headers.push(("x-start-time", Key::new(seconds.as_str())));
                }
            }
            None => headers.push(("x-event-type", Key::new("stream-closed"))),
        }
        if let Some(auth) = auth {
            headers.push(("authorization", auth.clone()));
        }
        let until = super::after(now, super::CALL_WITHIN);
        self.calls.insert(exchange, Call { stream_id, is_end: story.is_closed, until });
        Some(headers)
    }

    /// A call has ended: of which stream, and what came of it; `None`: it was none of these. True: the list is shorter.
    pub(super) fn handle_reply(
        &mut self,
        exchange: ExchangeId,
        outcome: &CallOutcome,
        now: Instant,
    ) -> Option<(String, Told, bool)> {
        let Call { stream_id, is_end, .. } = self.calls.remove(&exchange)?;
        let story = self.streams.get_mut(&stream_id)?;
        story.is_called = false;
        let cause = match outcome {
            CallOutcome::Replied(reply) if reply.status == 200 => None,
            CallOutcome::Replied(reply) => Some(format!("it answered {}", reply.status)),
            CallOutcome::Failed(cause) => Some(cause.clone()),
        };
        let Some(cause) = cause else {
            story.is_failing = false;
            story.due = now;
            if is_end {
                self.streams.remove(&stream_id);
                self.version = self.version.saturating_add(1);
                return Some((stream_id, Told::Delivered, true));
            }
            story.waiting.pop_front();
            return Some((stream_id, Told::Delivered, false));
        };
        // What was told is the stream's beginning, but it has ended: there is something new to tell.
        let is_news = story.is_closed && !is_end;
        story.due = if is_news { now } else { super::after(now, AGAIN) };
        let first = !std::mem::replace(&mut story.is_failing, true);
        Some((stream_id, Told::Failed(first.then_some(cause)), false))
    }

    /// Calls without an outcome in time.
    pub(super) fn overdue(&self, now: Instant) -> Vec<ExchangeId> {
        let late = self.calls.iter().filter(|(_, call)| call.until <= now);
        late.map(|(exchange, _)| *exchange).collect()
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        let calls = self.calls.values().map(|call| call.until).min();
        let is_free = self.calls.len() < CALLS_MAX;
        let waiting = self.streams.values().filter(|story| is_free && story.wants_call(self.kept));
        let waiting = waiting.map(|story| story.due).min();
        [calls, waiting].into_iter().flatten().min()
    }
}

/// The lines `channel:id` of a list; what is none is left out.
fn read_list(list: &str) -> impl Iterator<Item = (&str, &str)> {
    let list = if list.len() <= LIST_MAX { list } else { "" };
    let lines = list.lines().filter_map(|line| line.trim().split_once(':'));
    let lines =
        lines.filter(|(channel, stream_id)| [channel, stream_id].iter().all(|text| is_id(text, ID_LIMIT)));
    lines.take(EVENTS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(resolution: &str) -> Available {
        Available::read("HLS-LIVE", resolution, "/hls/c1/x/live.m3u8", "").unwrap()
    }

    #[allow(clippy::disallowed_methods, reason = "only differences matter")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn check_08_a_start_time_is_told_where_there_is_one() {
        let read = |time: &str| Available::read("hls-vod", "1x1", "a", time).unwrap().start_time;
        assert_eq!(read("30").as_deref(), Some("30"));
        assert_eq!(read("2.5").as_deref(), Some("2.5"));
        for none in ["", "0", "0.0", "-1", "1e3", "x", "3.3.3"] {
            assert_eq!(read(none), None, "{none:?}");
        }
        assert_eq!(set("1x1").index_file, "hls/c1/x/live.m3u8");
        for (kind, file) in [("DASH", "a"), ("HLS-VOD", ""), ("HLS-VOD", "/"), ("HLS-VOD", "a\u{e9}")] {
            assert_eq!(Available::read(kind, "1x1", file, ""), None);
        }
        assert_eq!(Available::read("HLS-VOD", "1x1", &"a".repeat(TEXT_MAX + 1), ""), None);
    }

    #[test]
    fn check_11_one_message_for_each_set() {
        let (mut events, now) = (Events::default(), start());
        assert_eq!(events.available("c1", "s1", set("1x1"), now), Ok(true));
        assert_eq!(events.available("c1", "s1", set("2x2"), now), Ok(false));
        assert_eq!(events.available("c1", "s1", set("1x1"), now), Err(NotTold::Known));
        events.closed("s1", now);
        assert_eq!(events.available("c1", "s1", set("3x3"), now), Err(NotTold::Known), "it has ended");
    }

    #[test]
    fn what_waits_is_bounded_and_ends_always_have_a_place() {
        let (mut events, now) = (Events::default(), start());
        let mut told = 0;
        for stream in 0..EVENTS_MAX {
            if events.available("c", &format!("s{stream}"), set("1x1"), now).is_ok() {
                told += 1;
            }
        }
        assert_eq!(told, EVENTS_MAX / 2, "each with its end");
        assert_eq!(events.available("c", "one", set("1x1"), now), Err(NotTold::Full));
        (0..told).for_each(|stream| events.closed(&format!("s{stream}"), now));
        assert_eq!(events.list().1.lines().count(), told);
        let mut one = Events::default();
        for nth in 0..PER_STREAM_MAX {
            assert!(one.available("c", "s", set(&format!("{nth}")), now).is_ok());
        }
        assert_eq!(one.available("c", "s", set("more"), now), Err(NotTold::Full));
    }

    #[test]
    fn check_12_a_list_is_read_back_whatever_is_in_it() {
        let now = start();
        let list = "c1:0001\nnonsense\n:x\nc 2:1\n c3:ab-1 \n";
        assert_eq!(Events::of_list(list, now).list().1, "c1:0001\nc3:ab-1\n");
        let endless = "c:1\n".repeat(LIST_MAX);
        assert_eq!(Events::of_list(&endless, now).list().1, "");
    }
}
