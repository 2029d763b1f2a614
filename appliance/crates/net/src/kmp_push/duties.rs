//! What a track does for its senders, and tells of them: connections, questions, ledger, status.

use super::asks::TrackAsk;
use super::books::Books;
use super::lane::{KmpDialer, now};
use super::reader::Reader;
use super::report::KmpTrackReport;
use super::stream::Stream;
use super::track::{Control, KmpShared, KmpTrack};
use fieldgate_proto::kmp::sender::{Arrears, Cause, Fate, Output, Owed, Reason, Settings, State};
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;
use tokio::time::Instant;

/// Least time between two lines in the log about the same trouble.
const QUIET: Duration = Duration::from_secs(60);

/// What one sender's wishes are fulfilled with.
struct Desk<'a> {
    dialer: &'a KmpDialer,
    shared: &'a KmpShared,
    control: &'a Control,
    report: &'a KmpTrackReport,
    books: &'a mut Books,
    arrears: &'a mut Arrears,
    reader: &'a mut Option<Reader>,
    settled_to: &'a mut u64,
    acknowledges: &'a mut bool,
}

impl KmpTrack {
    /// Does what the senders want.
    pub(super) fn obey(&mut self) {
        loop {
            for index in 0..self.streams.len() {
                self.obey_stream(Some(index));
            }
            self.obey_stream(None);
            let is_fixed = matches!(self.control, Control::Fixed { .. });
            while is_fixed && self.streams.front().is_some_and(Stream::is_over) {
                self.streams.pop_front();
            }
            if self.late.as_ref().is_some_and(Stream::is_over) {
                self.late = None;
            }
            if !self.begin_next() {
                break;
            }
        }
        self.tell_troubles();
        self.books.release(self.needed_from());
    }

    fn obey_stream(&mut self, index: Option<usize>) {
        let KmpTrack {
            shared,
            control,
            report,
            books,
            arrears,
            readers,
            settled_to,
            acknowledges,
            streams,
            late,
            ..
        } = self;
        let [first, second] = readers;
        let (stream, reader) = match index {
            Some(index) => (streams.get_mut(index), first),
            None => (late.as_mut(), second),
        };
        let Some(stream) = stream else { return };
        let dialer = &shared.dialer;
        let mut desk =
            Desk { dialer, shared, control, report, books, arrears, reader, settled_to, acknowledges };
        while let Some(output) = stream.lane.sender.poll_output() {
            desk.obey(stream, output);
        }
    }

    /// Gives their receiver to streams whose turn it is; whether there was one.
    fn begin_next(&mut self) -> bool {
        let Control::Fixed { channel_id, late_channel_id, track_id, upstream } = &self.control else {
            return false;
        };
        let acknowledges = self.acknowledges;
        let begin = |stream: &mut Stream, channel_id| {
            stream.asks = false;
            if acknowledges {
                stream.lane.sender.expect_acks();
            }
            stream.ids = (channel_id, *track_id);
            stream.lane.sender.published(channel_id, *track_id, vec![upstream.clone()], now());
            if stream.ends || stream.has_ended {
                stream.lane.sender.end(Reason::Disconnect, now());
            }
        };
        let mut any = false;
        if let Some(first) = self.streams.front_mut().filter(|first| first.asks) {
            begin(first, *channel_id);
            any = true;
        }
        let Some(late_channel_id) = late_channel_id else { return any };
        if self.late.is_none()
            && let Some(owed) = self.arrears.take()
        {
            let sender = Settings { live_within: None, ..self.settings.sender };
            let settings = super::KmpTrackSettings { sender, ..self.settings };
            self.late = Some(Stream::owing(owed, &settings));
            any = true;
        }
        if let Some(late) = self.late.as_mut().filter(|late| late.asks) {
            begin(late, *late_channel_id);
            any = true;
        }
        any
    }

    /// The first frame that is not settled.
    fn needed_from(&self) -> u64 {
        let owed = self.streams.iter().chain(&self.late).filter_map(|stream| stream.lane.sender.still_owed());
        let owed = owed.map(|owed| owed.from_id).chain(self.arrears.waiting().map(|ids| ids.start));
        owed.min().unwrap_or(self.settled_to)
    }

    /// Logs what changed about the connections, seldom.
    fn tell_troubles(&mut self) {
        for stream in self.streams.iter_mut().chain(&mut self.late) {
            let lane = &mut stream.lane;
            let (written, came_up) = (std::mem::take(&mut lane.written), std::mem::take(&mut lane.came_up));
            if written > 0 || came_up > 0 {
                self.report.count(|totals| {
                    totals.sent_bytes += written;
                    totals.connections += came_up;
                });
            }
            if came_up > 0 {
                self.report.set_error(None);
            }
            let Some(error) = lane.error.take() else { continue };
            // After the end a receiver has to close.
            if matches!(lane.sender.state(), State::Over | State::Inactive) {
                continue;
            }
            self.report.set_error(Some(error.to_string()));
            let mountpoint = self.shared.mountpoint.name();
            let kind = self.settings.kind;
            if self.quiet_until.is_none_or(|until| until <= Instant::now()) {
                self.quiet_until = Some(Instant::now() + QUIET);
                tracing::warn!(mountpoint, track = ?kind, %error, "KMP connection lost; it is made anew");
            } else {
                tracing::debug!(mountpoint, track = ?kind, %error, "KMP connection lost");
            }
        }
    }

    /// Brings up to date what the status shows, and what the ledger says is under way.
    pub(super) fn look(&mut self) {
        if let Some(kept_from) = self.books.take_losses() {
            for (ids, fate) in self.arrears.dropped(kept_from) {
                self.settle_owed(ids, fate);
            }
            for stream in self.streams.iter_mut().chain(&mut self.late) {
                stream.lane.sender.dropped(kept_from, None, now());
            }
            self.obey();
        }
        self.tell_missed(self.shared.clock.unix_micros());
        self.keep_note(false);
        let may_leave = !self.arrears.is_full();
        if let Some(first) = self.streams.front_mut() {
            first.lane.sender.may_leave(may_leave);
        }
        let mut settled: Option<u64> = None;
        let mut pending: BTreeMap<String, Vec<Range<u64>>> = BTreeMap::new();
        for stream in self.streams.iter().chain(&self.late) {
            let next_id = stream.lane.sender.next_id();
            for view in stream.lane.sender.upstreams() {
                settled = Some(settled.unwrap_or(view.told_id).min(view.told_id));
                let name = stream.names.get(&view.key).cloned().unwrap_or_default();
                pending.entry(name).or_default().push(view.told_id..next_id);
            }
        }
        if let Control::Fixed { upstream, .. } = &self.control {
            let waiting = pending.entry(upstream.id.clone()).or_default();
            for ids in self.arrears.waiting() {
                settled = Some(settled.unwrap_or(ids.start).min(ids.start));
                waiting.push(ids);
            }
            // Streams whose turn has not come have no upstream yet.
            let later = self.streams.iter().filter(|stream| stream.lane.sender.upstreams().next().is_none());
            for owed in later.filter_map(|stream| stream.lane.sender.still_owed()) {
                settled = Some(settled.unwrap_or(owed.from_id).min(owed.from_id));
                waiting.push(owed.from_id..owed.end_id);
            }
        }
        self.books.pending(&pending);
        if let Some(id) = settled {
            self.books.marks.forget(id);
        }
        let late = self.late.as_ref();
        let owed: u64 = self.arrears.waiting().map(|ids| ids.end - ids.start).sum();
        let sending = late.and_then(|late| late.lane.sender.still_owed());
        let owed = owed + sending.map_or(0, |owed| owed.end_id - owed.from_id);
        let view = self.streams.front().or(late).map(Stream::view);
        self.report.set_view(view.map(|mut view| {
            view.owed_frames = owed;
            view
        }));
    }

    fn settle_owed(&mut self, ids: Range<u64>, fate: Fate) {
        let Control::Fixed { upstream, .. } = &self.control else { return };
        let frames = self.books.settle(&upstream.id, ids.clone(), fate);
        self.settled_to = self.settled_to.max(ids.end);
        count(&self.report, fate, frames);
    }

    /// Remembers what is owed, for the next life.
    fn keep_note(&mut self, last: bool) {
        let sending: Vec<Owed> = match &self.late {
            Some(late) => late.lane.sender.still_owed().into_iter().collect(),
            None => Vec::new(),
        };
        // Streams that have ended come before the one that is live.
        let streams = self.streams.iter();
        let mut open: Vec<Owed> = streams.filter_map(|stream| stream.lane.sender.still_owed()).collect();
        let is_settled = self.arrears.waiting().next().is_none() && sending.is_empty() && open.len() < 2;
        if is_settled && !last {
            // Then all that is kept is owed, and that needs no note.
            return self.books.keep_note(bytes::Bytes::new());
        }
        let next_id = self.books.next_id();
        let live = open.pop().map_or((next_id, next_id), |live| (live.from_id, live.handed_id));
        self.books.keep_note(self.arrears.note(&sending, &open, live, last));
    }

    /// Ends for good: what is not kept for a next life is not sent any more.
    pub(super) fn leave(&mut self) {
        if self.outlives {
            self.look();
            return self.keep_note(true);
        }
        if matches!(self.control, Control::Fixed { .. }) {
            while let Some(owed) = self.arrears.take() {
                self.settle_owed(owed.from_id..owed.handed_id, Fate::Unconfirmed(Cause::Abandoned));
                self.settle_owed(owed.handed_id..owed.end_id, Fate::Lost(Cause::Abandoned));
            }
            while let Some(first) = self.streams.front_mut().or(self.late.as_mut()) {
                let keys: Vec<_> = first.lane.sender.upstreams().map(|view| view.key).collect();
                keys.into_iter().for_each(|key| {
                    first.lane.sender.remove_upstream(key);
                });
                first.lane.sender.end(Reason::Disconnect, now());
                self.obey();
            }
        }
        self.look();
    }
}

impl Desk<'_> {
    /// Does one thing that a sender wants.
    fn obey(&mut self, stream: &mut Stream, output: Output) {
        let ask = |ask: TrackAsk| {
            if let Control::Asked { asks, .. } = self.control
                && asks.try_send(ask).is_err()
            {
                // The other side is gone, and its commands with it: that ends the track.
                tracing::debug!(mountpoint = self.shared.mountpoint.name(), "nobody answers a KMP track");
            }
        };
        match output {
            Output::AskPublish => match stream.mapper.media_info() {
                Some(media_info) if matches!(self.control, Control::Asked { .. }) => {
                    ask(TrackAsk::Publish { media_info: media_info.clone() });
                }
                _ => stream.asks = true,
            },
            Output::AskRepublish(upstream) => ask(TrackAsk::Republish {
                upstream,
                id: stream.names.get(&upstream).cloned().unwrap_or_default(),
                channel_id: stream.ids.0,
                track_id: stream.ids.1,
                media_info: stream.mapper.media_info().cloned(),
            }),
            Output::AskUnpublish(reason) => ask(TrackAsk::Unpublish { reason }),
            Output::DropSession(reason) => ask(TrackAsk::DropSession { reason }),
            Output::Connect(key) => {
                let mut upstreams = stream.lane.sender.upstreams();
                let id = upstreams.find(|view| view.key == key).map(|view| view.spec.id.clone());
                drop(upstreams);
                stream.names.entry(key).or_insert(id.unwrap_or_default());
                stream.lane.connect(key, self.dialer);
            }
            Output::Close(key) => stream.lane.close(key),
            Output::Fetch { from_id } => {
                if let Some(reader) = self.reader {
                    reader.fetch(from_id);
                }
            }
            Output::Left(owed) => self.arrears.add(owed),
            Output::Settled { upstream, from_id, to_id, fate } => {
                let name = stream.names.get(&upstream).map_or("", String::as_str);
                let frames = self.books.settle(name, from_id..to_id, fate);
                *self.settled_to = (*self.settled_to).max(to_id);
                *self.acknowledges |= fate == Fate::Acknowledged;
                count(self.report, fate, frames);
            }
        }
    }
}

fn count(report: &KmpTrackReport, fate: Fate, frames: u64) {
    report.count(|totals| match fate {
        Fate::Acknowledged => totals.acked_frames += frames,
        Fate::Sent | Fate::Unconfirmed(_) => totals.sent_frames += frames,
        Fate::Lost(_) => totals.lost_frames += frames,
    });
}
