//! One track of a mountpoint on its way to its receivers: one task, one place in the ring.
//!
//! ```text
//!  ring -> mapper -> sender (queue) -> connections        frames of the next stream wait in a second sender until the
//!             \-> backlog, ledger       |                 first has delivered its own
//!                     controller <- asks, commands
//! ```
//!
//! With a second channel what is live goes first; what that leaves behind is sent there, one stretch after the other.

use super::asks::{KmpTrackHandle, TrackAsk, TrackCommand};
use super::books::Books;
use super::lane::{KmpDialer, now};
use super::reader::{Reader, fetched, hand_in};
use super::report::KmpTrackReport;
use super::stream::Stream;
use fieldgate_hub::backlog::{Batch, LossCause};
use fieldgate_hub::ledger::Why;
use fieldgate_hub::{
    Backlog, Clock, Entry, Item, LedgerKeeper, LocalShard, Mountpoint, Start, StreamState, Subscriber,
    origin_of,
};
use fieldgate_media::{TrackKind, Unit};
use fieldgate_proto::kmp::sender::{Arrears, Reason, Sender, Settings, State, UpstreamSpec};
use fieldgate_proto::kmp::{FrameHead, MapSettings, Name, TrackMapper};
use std::collections::VecDeque;
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

pub(super) enum Control {
    /// One receiver, known from the start; perhaps with a second channel for what is not live.
    Fixed { channel_id: Name, late_channel_id: Option<Name>, track_id: Name, upstream: UpstreamSpec },
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
    /// How packets are sent; with `live_within` only for a track with a second channel.
    pub sender: Settings,
}

/// What keeps a track's frames. The sender's settings must say so too.
#[derive(Clone)]
pub struct KmpBacklog {
    /// Where they are.
    pub frames: Arc<dyn Backlog>,
    /// How fast they are read beside what is live, in percent of the live rate; `None`: as fast as it goes.
    pub percent: Option<u32>,
    /// They are there when the track comes again: what is not delivered when it stops may wait.
    pub outlives: bool,
}

/// One track on its way to its receivers; see the module.
pub struct KmpTrack {
    pub(super) shared: KmpShared,
    pub(super) settings: KmpTrackSettings,
    pub(super) control: Control,
    pub(super) report: KmpTrackReport,
    pub(super) books: Books,
    pub(super) streams: VecDeque<Stream>,
    /// What was left behind and waits for its turn on the second channel.
    pub(super) arrears: Arrears,
    /// What is being sent there.
    pub(super) late: Option<Stream>,
    /// For the first stream, and for what is late.
    pub(super) readers: [Option<Reader>; 2],
    /// What is kept is there when the track comes again.
    pub(super) outlives: bool,
    /// All frames before this one are settled if no stream has any.
    pub(super) settled_to: u64,
    /// The receiver has acknowledged something.
    pub(super) acknowledges: bool,
    pub(super) quiet_until: Option<Instant>,
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
    Fetched(usize, u64, Batch),
}

impl KmpTrack {
    /// A track with one receiver that needs no controller; `backlog` keeps its frames. `late_channel_id` is the channel for
    /// what is not live, if that is to go first.
    pub fn fixed(
        shared: KmpShared,
        settings: KmpTrackSettings,
        (channel_id, late_channel_id): (Name, Option<Name>),
        track_id: Name,
        upstream: UpstreamSpec,
        backlog: Option<KmpBacklog>,
    ) -> KmpTrack {
        let control = Control::Fixed { channel_id, late_channel_id, track_id, upstream };
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
        // Whatever form of it is sent.
        let mountpoint = origin_of(shared.mountpoint.name()).to_owned();
        let frames = backlog.as_ref().map(|backlog| backlog.frames.clone());
        let abandoned = match &control {
            Control::Fixed { .. } => Why::Removed,
            Control::Asked { .. } => Why::Backlog(LossCause::Abandoned),
        };
        let has_late = matches!(&control, Control::Fixed { late_channel_id: Some(_), .. });
        let reader = |is_late: bool| {
            let backlog = backlog.as_ref().filter(|_| has_late || !is_late)?;
            let percent = backlog.percent.map(u64::from).filter(|_| is_late == has_late);
            // What is read for the only connection holds what is live, too.
            Some(Reader::new(
                backlog.frames.clone(),
                percent.map(|percent| percent + if is_late { 0 } else { 100 }),
            ))
        };
        let mut track = KmpTrack {
            books: Books::new(frames, shared.ledger.clone(), mountpoint, name, abandoned),
            shared,
            settings,
            report: KmpTrackReport::default(),
            streams: VecDeque::new(),
            arrears: Arrears::default(),
            late: None,
            readers: [reader(false), reader(true)],
            outlives: backlog.is_some_and(|backlog| backlog.outlives),
            settled_to: 0,
            acknowledges: false,
            quiet_until: None,
            log_frames: false,
            control,
        };
        if let Control::Fixed { upstream, .. } = &track.control {
            // What was kept of streams that have ended with their gateway, or with the last run of this push.
            for owed in track.books.resume(&upstream.id) {
                match has_late {
                    true => track.arrears.add(owed),
                    false => track.streams.push_back(Stream::owing(owed, &settings)),
                }
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
            let streams = self.streams.iter().chain(&self.late);
            let timeouts = streams.filter_map(|stream| stream.lane.sender.next_timeout());
            let due = timeouts.map(Instant::from_std).chain(closing).min();
            let KmpTrack { streams, late, readers, control, shared, .. } = &mut self;
            let event = tokio::select! {
                biased;
                () = cancel.cancelled(), if closing.is_none() => Event::Cancelled,
                () = removed.cancelled(), if closing.is_none() => Event::Cancelled,
                command = next_command(control) => Event::Command(command),
                _ = look.tick() => Event::Look,
                () = async { tokio::time::sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => Event::Due,
                () = subscriber.changed() => Event::Units,
                _ = state.changed() => Event::State,
                (reader, from_id, batch) = fetched(readers) => Event::Fetched(reader, from_id, batch),
                () = poll_fn(|cx| {
                    let mut ready = Poll::Pending;
                    for stream in streams.iter_mut().chain(late.iter_mut()) {
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
                        // A stream that was so short that nobody was asked for it yet.
                        self.obey();
                        self.end_stream();
                    }
                }
                Event::Command(command) => self.command(command, &mut subscriber),
                Event::Due => {
                    let now = now();
                    let streams = self.streams.iter_mut().chain(&mut self.late);
                    streams.for_each(|stream| stream.lane.sender.handle_timeout(now));
                }
                Event::Look => self.look(),
                Event::Fetched(reader, from_id, batch) => {
                    self.books.learn(&batch);
                    let stream = if reader == 0 { self.streams.front_mut() } else { self.late.as_mut() };
                    if let Some(stream) = stream {
                        hand_in(&mut stream.lane.sender, from_id, batch, now());
                    }
                }
            }
        }
        self.leave();
    }

    fn is_done(&self, closing: Option<Instant>) -> bool {
        let is_empty =
            || self.streams.is_empty() && self.late.is_none() && self.arrears.waiting().next().is_none();
        match &self.control {
            Control::Asked { .. } if self.streams.front().is_some_and(|first| first.is_over()) => true,
            _ => closing.is_some_and(|until| until <= Instant::now() || is_empty()),
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
        stream.has_ended = false;
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
        self.readers.iter_mut().flatten().for_each(|reader| reader.count_live(frame.len()));
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
    pub(super) fn tell_missed(&mut self, until: i64) {
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
            stream.lane.sender.end(Reason::Close, now());
        }
        // While the first is not done its successor gathers all that comes, however many streams that is.
        stream.has_ended = !only;
        stream.mapper = TrackMapper::new(settings.kind, settings.map);
    }

    /// Ends everything; how long that may take.
    fn stop(&mut self, subscriber: &mut Subscriber) -> Instant {
        self.take(subscriber);
        self.obey();
        if self.outlives {
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
}

async fn next_command(control: &mut Control) -> Option<TrackCommand> {
    match control {
        Control::Asked { commands, .. } if !commands.is_closed() || !commands.is_empty() => {
            commands.recv().await
        }
        _ => std::future::pending().await,
    }
}
