//! One track of a mountpoint on its way to its receivers: one task, one place in the ring.
//!
//! ```text
//!  ring -> mapper -> sender (queue) -> connections        frames of the next stream wait in a second sender until the
//!             \-> backlog, ledger       |                 first has delivered its own
//!                     controller <- asks, commands
//! ```

use super::asks::{KmpTrackHandle, TrackAsk, TrackCommand};
use super::books::{Books, hand_in};
use super::lane::{KmpDialer, now};
use super::report::KmpTrackReport;
use super::stream::Stream;
use fieldgate_hub::{
    Backlog, Clock, Entry, Item, LedgerKeeper, LocalShard, Mountpoint, Start, StreamState, Subscriber,
};
use fieldgate_media::{TrackKind, Unit};
use fieldgate_proto::kmp::sender::{Fate, Output, Reason, Sender, Settings, State, UpstreamSpec};
use fieldgate_proto::kmp::{FrameHead, MapSettings, Name, TrackMapper};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often what the status shows is brought up to date and losses are looked for.
const LOOK: Duration = Duration::from_millis(500);
/// How long a track that is stopped may take to deliver what it has.
const LAST_FRAMES: Duration = Duration::from_secs(2);
/// Entries taken from the ring at once, and their bytes.
const BATCH: (usize, usize) = (64, 256 << 10);
/// Asks or commands that may wait.
const CHANNEL: usize = 32;
/// Least time between two lines in the log about the same trouble.
const QUIET: Duration = Duration::from_secs(60);

enum Control {
    /// One receiver, known from the start.
    Fixed { channel_id: Name, track_id: Name, upstream: UpstreamSpec },
    /// Somebody knows.
    Asked { asks: mpsc::Sender<TrackAsk>, commands: mpsc::Receiver<TrackCommand> },
}

/// What all tracks of one push or session share. Cheap to clone.
#[derive(Clone)]
pub struct KmpShared {
    /// What to send.
    pub mountpoint: Arc<Mountpoint>,
    /// How connections are made.
    pub dialer: KmpDialer,
    /// The time of day, for frame ids.
    pub clock: Clock,
    /// Who keeps the ledger.
    pub ledger: Arc<dyn LedgerKeeper>,
    /// Ends when the tracks shall stop.
    pub cancel: CancellationToken,
}

/// How one track is sent.
#[derive(Clone, Copy, Debug)]
pub struct KmpTrackSettings {
    /// The first track of this kind is sent.
    pub kind: TrackKind,
    /// How units become packets.
    pub map: MapSettings,
    /// How packets are sent.
    pub sender: Settings,
}

/// What keeps a track's frames. The sender's settings must say so too.
#[derive(Clone)]
pub struct KmpBacklog {
    /// Where they are.
    pub frames: Arc<dyn Backlog>,
    /// How fast they are read beside what is live, in percent of the live rate; `None`: as fast as it goes.
    pub percent: Option<u32>,
}

/// One track on its way to its receivers; see the module.
pub struct KmpTrack {
    shared: KmpShared,
    settings: KmpTrackSettings,
    control: Control,
    report: KmpTrackReport,
    books: Books,
    streams: VecDeque<Stream>,
    quiet_until: Option<Instant>,
    log_frames: bool,
}

enum Event {
    Cancelled,
    Io,
    Units,
    State,
    Command(Option<TrackCommand>),
    Due,
    Look,
    Fetched(u64, fieldgate_hub::backlog::Batch),
}

impl KmpTrack {
    /// A track with one receiver that needs no controller; `backlog` keeps its frames.
    pub fn fixed(
        shared: KmpShared,
        settings: KmpTrackSettings,
        (channel_id, track_id): (Name, Name),
        upstream: UpstreamSpec,
        backlog: Option<KmpBacklog>,
    ) -> KmpTrack {
        let control = Control::Fixed { channel_id, track_id, upstream };
        KmpTrack::new(shared, settings, control, track_id.to_string(), backlog)
    }

    /// A track whose receivers somebody else knows. It carries one stream, then it is over.
    pub fn asked(shared: KmpShared, settings: KmpTrackSettings) -> (KmpTrack, KmpTrackHandle) {
        let (asks, asked) = mpsc::channel(CHANNEL);
        let (commands, commanded) = mpsc::channel(CHANNEL);
        let name = match settings.kind {
            TrackKind::Video => "video",
            TrackKind::Audio => "audio",
        };
        let control = Control::Asked { asks, commands: commanded };
        let track = KmpTrack::new(shared, settings, control, name.to_owned(), None);
        (track, KmpTrackHandle { asks: asked, commands })
    }

    fn new(
        shared: KmpShared,
        settings: KmpTrackSettings,
        control: Control,
        name: String,
        backlog: Option<KmpBacklog>,
    ) -> KmpTrack {
        let mountpoint = shared.mountpoint.name().to_owned();
        let mut track = KmpTrack {
            books: Books::new(backlog.clone(), shared.ledger.clone(), mountpoint, name),
            shared,
            settings,
            control,
            report: KmpTrackReport::default(),
            streams: VecDeque::new(),
            quiet_until: None,
            log_frames: false,
        };
        if let (Some(backlog), Control::Fixed { upstream, .. }) = (backlog, &track.control) {
            let ids = backlog.frames.held().ids;
            track.books.resume(&upstream.id, ids.clone());
            if !ids.is_empty() {
                // What was kept of a stream that has ended with its gateway, or with the last run of this push.
                let sender = Sender::resume(settings.sender, ids.start, ids.end);
                track.streams.push_back(Stream { ends: true, ..Stream::new(sender, &settings) });
            }
        }
        track
    }

    /// What the status shows of it.
    pub fn report(&self) -> KmpTrackReport {
        self.report.clone()
    }

    /// Shows what the status shows of it elsewhere, where an earlier run has left its totals.
    pub fn reporting_to(mut self, report: KmpTrackReport) -> Self {
        self.report = report;
        self
    }

    /// Whether each frame is logged, at level info.
    pub fn logging_frames(mut self, log_frames: bool) -> Self {
        self.log_frames = log_frames;
        self
    }

    /// Sends until cancelled or, for a track that asks, until its stream is delivered. Runs on the mountpoint's shard.
    pub async fn run(mut self, local: Rc<LocalShard>) {
        let mountpoint = self.shared.mountpoint.clone();
        let max_lag = mountpoint.limits().bound.age;
        let mut subscriber = match &self.control {
            Control::Fixed { .. } => mountpoint.subscribe(Some(max_lag)),
            // What an earlier publisher has left in the ring is not of this stream.
            Control::Asked { .. } => mountpoint.ring().subscribe(Start::NextKeyframe, max_lag),
        };
        let mut state = mountpoint.state();
        state.mark_changed();
        let removed = mountpoint.closed();
        let cancel = self.shared.cancel.clone();
        let mut look = tokio::time::interval(LOOK);
        let mut closing: Option<Instant> = None;
        loop {
            self.take(&mut subscriber);
            self.obey();
            if self.is_done(closing) {
                break;
            }
            let timeouts = self.streams.iter().filter_map(|stream| stream.lane.sender.next_timeout());
            let due = timeouts.map(Instant::from_std).chain(closing).min();
            let KmpTrack { streams, books, control, shared, .. } = &mut self;
            let event = tokio::select! {
                biased;
                () = cancel.cancelled(), if closing.is_none() => Event::Cancelled,
                () = removed.cancelled(), if closing.is_none() => Event::Cancelled,
                command = next_command(control) => Event::Command(command),
                _ = look.tick() => Event::Look,
                () = async { tokio::time::sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => Event::Due,
                () = subscriber.changed() => Event::Units,
                _ = state.changed() => Event::State,
                (from_id, batch) = books.fetched() => Event::Fetched(from_id, batch),
                () = poll_fn(|cx| {
                    let mut ready = Poll::Pending;
                    for stream in streams.iter_mut() {
                        if stream.lane.poll_io(cx, &local, &shared.dialer).is_ready() {
                            ready = Poll::Ready(());
                        }
                    }
                    ready
                }) => Event::Io,
            };
            match event {
                Event::Io | Event::Units => {}
                Event::Cancelled => closing = Some(self.stop(&mut subscriber)),
                Event::State => {
                    if *state.borrow_and_update() == StreamState::Idle
                        && matches!(self.control, Control::Fixed { .. })
                    {
                        self.take(&mut subscriber);
                        self.end_stream();
                    }
                }
                Event::Command(command) => self.command(command, &mut subscriber),
                Event::Due => {
                    let now = now();
                    self.streams.iter_mut().for_each(|stream| stream.lane.sender.handle_timeout(now));
                }
                Event::Look => self.look(),
                Event::Fetched(from_id, batch) => {
                    if let Some(stream) = self.streams.front_mut() {
                        hand_in(&mut stream.lane.sender, from_id, batch, now());
                    }
                }
            }
        }
        self.look();
    }

    fn is_done(&self, closing: Option<Instant>) -> bool {
        match &self.control {
            Control::Asked { .. } if self.streams.front().is_some_and(|first| first.is_over()) => true,
            _ => closing.is_some_and(|until| until <= Instant::now() || self.streams.is_empty()),
        }
    }

    /// Takes what is new from the ring.
    fn take(&mut self, subscriber: &mut Subscriber) {
        let mut batch: Vec<Arc<Entry>> = Vec::new();
        while subscriber.has_more() {
            let taken = subscriber.take(&mut batch, BATCH.0, BATCH.1);
            let dropped = match self.settings.kind {
                TrackKind::Video => taken.dropped_units - taken.dropped_audio,
                TrackKind::Audio => taken.dropped_audio,
            };
            if dropped > 0 {
                self.report.count(|totals| totals.left_out_units += dropped);
                self.books.miss(dropped);
            }
            for entry in batch.drain(..) {
                match &entry.item {
                    Item::Tracks { tracks, header_of, .. } => self.open().mapper.tracks(tracks, *header_of),
                    Item::Unit { unit, .. } => self.unit(unit),
                }
            }
            if taken.entries == 0 {
                break;
            }
        }
    }

    fn unit(&mut self, unit: &Unit) {
        let unix_micros = self.shared.clock.unix_micros();
        let stream = self.open();
        let left_out = stream.mapper.left_out();
        let Some(mapped) = stream.mapper.unit(unit, unix_micros) else {
            let left_out = stream.mapper.left_out() - left_out;
            if left_out > 0 {
                self.report.count(|totals| totals.left_out_units += left_out);
            }
            return;
        };
        let keyframe = unit.head.keyframe;
        let (info, frame) = (mapped.media_info.clone(), mapped.frame.clone());
        let Some(id) = stream.lane.sender.push(mapped.media_info, mapped.frame, keyframe, now()) else {
            return;
        };
        stream.frames += 1;
        stream.keyframes += u64::from(mapped.head.keyframe);
        stream.newest = Some(mapped.head);
        let ids = stream.ids;
        if self.log_frames {
            self.log_frame(ids, id, &mapped.head, unit.payload.len());
        }
        let captured = unit.head.captured.map_or(unix_micros, |captured| captured.unix_micros);
        self.tell_missed(captured);
        self.books.append(id, info.as_ref(), &frame, keyframe, captured);
        self.report.count(|totals| totals.frames += 1);
    }

    /// Says which frame was put in the queue. The track has no names before its controller has given them.
    fn log_frame(&self, (channel, track): (Name, Name), id: u64, head: &FrameHead, size: usize) {
        tracing::info!(
            mountpoint = self.shared.mountpoint.name(),
            kind = ?self.settings.kind,
            %channel,
            %track,
            id,
            created = head.created,
            dts = head.dts,
            flags = u32::from(head.keyframe),
            pts_delay = head.pts_delay,
            size,
            "KMP frame"
        );
    }

    /// Names what the ring gave up before it was read here, as lost for whoever the stream goes to; waits if nobody is
    /// known yet. `until`: capture time of what follows it.
    fn tell_missed(&mut self, until: i64) {
        if !self.books.has_missed() {
            return;
        }
        let upstreams: Vec<String> = match &self.control {
            Control::Fixed { upstream, .. } => vec![upstream.id.clone()],
            Control::Asked { .. } => {
                let upstreams = self.streams.iter().flat_map(|stream| stream.lane.sender.upstreams());
                upstreams.map(|view| view.spec.id.clone()).collect()
            }
        };
        self.books.tell_missed(&upstreams, until);
    }

    /// The stream that frames go to now.
    fn open(&mut self) -> &mut Stream {
        let is_open = |stream: &Stream| {
            let open =
                matches!(stream.state(), State::Empty | State::Asking | State::Active | State::Inactive);
            open && !stream.ends
        };
        let needs_another = match &self.control {
            Control::Asked { .. } => self.streams.is_empty(),
            Control::Fixed { .. } => !self.streams.back().is_some_and(is_open),
        };
        if needs_another {
            let micros = i128::from(self.shared.clock.unix_micros());
            let ticks = micros * i128::from(self.settings.map.timescale) / 1_000_000;
            let clock_id = u64::try_from(ticks).unwrap_or(0);
            let after = self.streams.back().map_or(0, |stream| stream.lane.sender.next_id());
            let id = clock_id.max(after).max(self.books.next_id());
            let sender = Sender::new(self.settings.sender, id);
            self.streams.push_back(Stream::new(sender, &self.settings));
        }
        let last = self.streams.len() - 1;
        &mut self.streams[last]
    }

    /// The stream is over; what it still has is delivered.
    fn end_stream(&mut self) {
        let settings = self.settings;
        let only = self.streams.len() == 1;
        let Some(stream) = self.streams.back_mut() else { return };
        if only {
            // While the first is not done its successor gathers all that comes, however many streams that is.
            stream.lane.sender.end(Reason::Close, now());
        }
        stream.mapper = TrackMapper::new(settings.kind, settings.map);
    }

    /// Ends everything; how long that may take.
    fn stop(&mut self, subscriber: &mut Subscriber) -> Instant {
        self.take(subscriber);
        if self.books.keeps() {
            // What is not delivered is there when we come again.
            return Instant::now();
        }
        let reason = Reason::Disconnect;
        self.streams.iter_mut().for_each(|stream| stream.lane.sender.end(reason, now()));
        Instant::now() + LAST_FRAMES
    }

    fn command(&mut self, command: Option<TrackCommand>, subscriber: &mut Subscriber) {
        let end = |track: &mut KmpTrack, subscriber: &mut Subscriber, reason| {
            track.take(subscriber);
            track.open().lane.sender.end(reason, now());
        };
        let Some(command) = command else { return end(self, subscriber, Reason::Disconnect) };
        match command {
            TrackCommand::End(reason) => end(self, subscriber, reason),
            TrackCommand::Fail(reason) => {
                let sender = &mut self.open().lane.sender;
                sender.fail(reason);
                sender.end(reason, now());
            }
            TrackCommand::Published { channel_id, track_id, upstreams } => {
                let stream = self.open();
                stream.ids = (channel_id, track_id);
                stream.lane.sender.published(channel_id, track_id, upstreams, now());
            }
            TrackCommand::PublishFailed(reason) => self.open().lane.sender.publish_failed(reason),
            TrackCommand::Republished { upstream, url, connect_data } => {
                self.open().lane.sender.republished(upstream, url, connect_data, now());
            }
            TrackCommand::RepublishFailed(upstream) => self.open().lane.sender.republish_failed(upstream),
            TrackCommand::AddUpstream { spec, like, done } => {
                // Who asked may have gone: the upstream is there all the same.
                let _ = done.send(self.open().lane.sender.add_upstream(spec, like, now()));
            }
            TrackCommand::RemoveUpstream { upstream, done } => {
                let _ = done.send(self.open().lane.sender.remove_upstream(upstream));
            }
        }
        self.obey();
        self.look();
    }

    /// Does what the senders want.
    fn obey(&mut self) {
        loop {
            let mut index = 0;
            while let Some(stream) = self.streams.get_mut(index) {
                while let Some(output) = stream.lane.sender.poll_output() {
                    obey_one(&self.shared, &self.control, &self.report, &mut self.books, stream, output);
                }
                index += 1;
            }
            let is_fixed = matches!(self.control, Control::Fixed { .. });
            while is_fixed && self.streams.front().is_some_and(Stream::is_over) {
                self.streams.pop_front();
            }
            let Control::Fixed { channel_id, track_id, upstream } = &self.control else { break };
            let Some(first) = self.streams.front_mut().filter(|first| first.asks) else { break };
            first.asks = false;
            first.ids = (*channel_id, *track_id);
            first.lane.sender.published(*channel_id, *track_id, vec![upstream.clone()], now());
            if first.ends {
                first.lane.sender.end(Reason::Disconnect, now());
            }
        }
        self.tell_troubles();
    }

    /// Logs what changed about the connections, seldom.
    fn tell_troubles(&mut self) {
        for stream in &mut self.streams {
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
    fn look(&mut self) {
        if let Some(kept_from) = self.books.take_losses() {
            for stream in &mut self.streams {
                stream.lane.sender.dropped(kept_from, None, now());
            }
            self.obey();
        }
        self.tell_missed(self.shared.clock.unix_micros());
        let mut settled: Option<u64> = None;
        let mut pending: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for stream in &self.streams {
            let next_id = stream.lane.sender.next_id();
            for view in stream.lane.sender.upstreams() {
                settled = Some(settled.unwrap_or(view.acked_id).min(view.acked_id));
                let name = stream.names.get(&view.key).cloned().unwrap_or_default();
                pending.entry(name).or_insert((view.acked_id, next_id)).1 = next_id;
            }
        }
        for (upstream, (from_id, to_id)) in pending {
            self.books.pending(&upstream, from_id, to_id);
        }
        if let Some(id) = settled {
            self.books.forget(id);
        }
        self.report.set_view(self.streams.front().map(Stream::view));
    }
}

/// Does one thing that a sender wants.
fn obey_one(
    shared: &KmpShared,
    control: &Control,
    report: &KmpTrackReport,
    books: &mut Books,
    stream: &mut Stream,
    output: Output,
) {
    let ask = |ask: TrackAsk| {
        if let Control::Asked { asks, .. } = control
            && asks.try_send(ask).is_err()
        {
            // The other side is gone, and its commands with it: that ends the track.
            tracing::debug!(mountpoint = shared.mountpoint.name(), "nobody answers a KMP track");
        }
    };
    match output {
        Output::AskPublish => match stream.mapper.media_info() {
            Some(media_info) if matches!(control, Control::Asked { .. }) => {
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
            let id =
                stream.lane.sender.upstreams().find(|view| view.key == key).map(|view| view.spec.id.clone());
            stream.names.entry(key).or_insert(id.unwrap_or_default());
            stream.lane.connect(key, &shared.dialer);
        }
        Output::Close(key) => stream.lane.close(key),
        Output::Fetch { from_id } => books.fetch(from_id),
        Output::Settled { upstream, from_id, to_id, fate } => {
            let name = stream.names.get(&upstream).map_or("", String::as_str);
            let frames = books.settle(name, from_id, to_id, fate);
            report.count(|totals| match fate {
                Fate::Acknowledged => totals.acked_frames += frames,
                Fate::Sent | Fate::Unconfirmed => totals.sent_frames += frames,
                _ => totals.lost_frames += frames,
            });
        }
    }
}

async fn next_command(control: &mut Control) -> Option<TrackCommand> {
    match control {
        Control::Asked { commands, .. } if !commands.is_closed() || !commands.is_empty() => {
            commands.recv().await
        }
        _ => std::future::pending().await,
    }
}
