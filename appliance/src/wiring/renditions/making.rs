//! One run of a rendition on its media thread: reads the mountpoint's ring, hands over what passes, feeds a worker with
//! the rest, publishes what comes of both.

use super::in_step::InStep;
use crate::supervisor::{Made, MadeSound};
use crate::wiring::Board;
use fieldgate_hub::link::Feeder;
use fieldgate_hub::{Item, LocalShard, Mountpoint, Publisher, PublisherInfo, Subscriber};
use fieldgate_media::{Draft, Silence, Ticks, Track, TrackId, TrackKind, Tracks, Unit, UnitHead};
use fieldgate_model::job::{SoundCodec, Transcode, Work, WorkerCommand};
use fieldgate_worker::{Deliver, Report, Spawner, WorkerError, WorkerSource, WorkerSpec};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Entries taken from the ring at once, and their bytes.
const BATCH: (usize, usize) = (64, 256 << 10);
/// How long a worker may be fed without that anything comes of it. Decoders hold some pictures, which take long of a
/// camera that sends few.
const SILENT: Duration = Duration::from_secs(30);
/// How often that is looked for.
const LOOK: Duration = Duration::from_secs(1);

/// How a run ended that nothing went wrong with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wiring) enum Ended {
    /// It was told to.
    Stopped,
    /// Tracks came, went or changed their codec.
    Changed,
    /// The stream was cut.
    Cut,
}

/// All that a run needs.
pub(in crate::wiring) struct Making {
    pub(in crate::wiring) from: Arc<Mountpoint>,
    pub(in crate::wiring) to: Arc<Mountpoint>,
    /// Of `to`, before anything was read.
    pub(in crate::wiring) epoch: u64,
    pub(in crate::wiring) made: Made,
    pub(in crate::wiring) spec: WorkerSpec,
    pub(in crate::wiring) spawner: Spawner,
    pub(in crate::wiring) inbox: mpsc::Receiver<WorkerCommand>,
    pub(in crate::wiring) feeder: Feeder,
    pub(in crate::wiring) board: Arc<Board>,
    pub(in crate::wiring) info: PublisherInfo,
    pub(in crate::wiring) stop: CancellationToken,
}

impl Making {
    pub(in crate::wiring) async fn run(self, local: Rc<LocalShard>) -> Result<Ended, WorkerError> {
        let mut reader = Reader::new(&self.from, &self.to);
        let first = tokio::select! {
            tracks = reader.first_tracks() => tracks,
            () = self.stop.cancelled() => return Ok(Ended::Stopped),
        };
        let split = Split::of(&first, self.made);
        let job = self.spec.job.clone();
        let out = Rc::new(RefCell::new(Out {
            to: self.to.clone(),
            epoch: self.epoch,
            info: self.info,
            local,
            publisher: None,
            is_refused: false,
            passed: split.passed(&first),
            made: None,
            needs_made: split.needs_worker(),
            in_step: InStep::default(),
            silence: split.silence(),
            fed_since: None,
            board: self.board,
        }));
        let stop = self.stop.child_token();
        let worker = async {
            if !split.needs_worker() {
                out.borrow_mut().announce();
                stop.cancelled().await;
                return Ok(());
            }
            let mut spec = self.spec;
            spec.job.work = Work::Transcode(Box::new(split.narrow(&job.work)));
            let worker = WorkerSource::new(spec, self.spawner, self.inbox, stop.clone());
            worker.fed_by(self.feeder.clone()).run(&mut Delivery(out.clone())).await
        };
        let reading = read(&mut reader, &split, &first, &self.feeder, &out);
        tokio::pin!(worker);
        let ended = tokio::select! {
            ended = &mut worker => return ended.map(|()| Ended::Stopped),
            ended = reading => ended,
        };
        stop.cancel();
        // It has its deadline for that.
        let last = worker.await;
        match ended {
            Ok(ended) => {
                if let Err(error) = last {
                    tracing::debug!(rendition = self.to.name(), %error, "ended while it was stopped");
                }
                Ok(ended)
            }
            Err(error) => Err(error),
        }
    }
}

/// Reads on until what comes is not what the run was started for.
async fn read(
    reader: &mut Reader,
    split: &Split,
    first: &Tracks,
    feeder: &Feeder,
    out: &RefCell<Out>,
) -> Result<Ended, WorkerError> {
    feeder.tracks(&split.fed(first));
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            items = reader.next() => for item in items {
                match item {
                    Read::Tracks(tracks) if !split.fits(&tracks) => return Ok(Ended::Changed),
                    Read::Tracks(tracks) => {
                        feeder.tracks(&split.fed(&tracks));
                        out.borrow_mut().pass_tracks(split.passed(&tracks));
                    }
                    Read::Unit(unit) if split.feeds(unit.head.track) => {
                        if feeder.unit(&unit.head, unit.payload) {
                            out.borrow_mut().fed_since.get_or_insert_with(Instant::now);
                        }
                    }
                    Read::Unit(unit) => out.borrow_mut().pass(unit),
                }
            },
            _ = look.tick() => {
                let out = out.borrow();
                if out.is_refused {
                    return Ok(Ended::Cut);
                }
                if out.fed_since.is_some_and(|since| since.elapsed() >= SILENT) {
                    return Err(WorkerError::Silent { limit: SILENT });
                }
            }
        }
        out.borrow_mut().flush();
    }
}

/// Which tracks go where.
#[derive(Debug)]
struct Split {
    made: Made,
    /// That is fed to the worker.
    video: Option<Track>,
    /// That is fed to the worker.
    audio: Option<Track>,
    has_sound: bool,
}

impl Split {
    fn of(tracks: &Tracks, made: Made) -> Split {
        let video = made.video.and_then(|_| tracks.first(TrackKind::Video)).cloned();
        let audio = matches!(made.audio, MadeSound::Encode(_)).then(|| tracks.first(TrackKind::Audio));
        let has_sound = tracks.first(TrackKind::Audio).is_some();
        Split { made, video, audio: audio.flatten().cloned(), has_sound }
    }

    fn needs_worker(&self) -> bool {
        self.video.is_some() || self.audio.is_some()
    }

    fn feeds(&self, track: TrackId) -> bool {
        self.video.iter().chain(&self.audio).any(|fed| fed.id == track)
    }

    fn fed(&self, tracks: &Tracks) -> Tracks {
        Tracks::new(tracks.iter().filter(|track| self.feeds(track.id)).cloned().collect())
    }

    fn passed(&self, tracks: &Tracks) -> Tracks {
        let drops_audio = self.made.audio == MadeSound::Off;
        let passes =
            |track: &&Track| !self.feeds(track.id) && (track.kind() != TrackKind::Audio || !drops_audio);
        Tracks::new(tracks.iter().filter(passes).cloned().collect())
    }

    /// Whether these go the same ways: tracks that pass may come, go and change.
    fn fits(&self, tracks: &Tracks) -> bool {
        let now = Split::of(tracks, self.made);
        let shape = |track: &Option<Track>| track.as_ref().map(|track| (track.id, track.codec));
        let ways = |split: &Split| (shape(&split.video), shape(&split.audio), split.has_sound);
        ways(&now) == ways(self)
            || (self.made.audio == MadeSound::Pass && shape(&now.video) == shape(&self.video))
    }

    /// The work without what there is no track for.
    fn narrow(&self, work: &Work) -> Transcode {
        let (video, audio) = match work {
            Work::Transcode(transcode) => (transcode.video.clone(), transcode.audio.clone()),
            _ => (None, None),
        };
        Transcode {
            video: video.filter(|_| self.video.is_some()),
            audio: audio.filter(|_| self.audio.is_some()),
        }
    }

    fn silence(&self) -> Option<Silence> {
        match self.made.audio {
            _ if self.has_sound => None,
            MadeSound::Silence(SoundCodec::Opus) => Some(Silence::opus()),
            MadeSound::Silence(SoundCodec::Aac) => Some(Silence::aac()),
            _ => None,
        }
    }
}

enum Read {
    Tracks(Tracks),
    Unit(Unit),
}

/// Reads a ring, from where the rendition has not been yet.
struct Reader {
    subscriber: Subscriber,
    /// What was made before: units up to there are left out, and then up to a keyframe.
    after: Option<Ticks>,
    batch: Vec<Arc<fieldgate_hub::Entry>>,
    tracks: Tracks,
}

impl Reader {
    fn new(from: &Mountpoint, to: &Mountpoint) -> Reader {
        let made_to = to.ring().newest_dts();
        // Times that are less than what was made are those of another stream.
        let after = made_to.filter(|to| from.ring().newest_dts().is_some_and(|newest| newest >= *to));
        Reader { subscriber: from.subscribe(None), after, batch: Vec::new(), tracks: Tracks::default() }
    }

    async fn first_tracks(&mut self) -> Tracks {
        loop {
            self.subscriber.changed().await;
            // The first entry is the tracks.
            self.subscriber.take(&mut self.batch, 1, 1);
            if let Some(Item::Tracks { tracks, .. }) = self.batch.pop().map(|entry| entry.item.clone()) {
                self.tracks = tracks.clone();
                return tracks;
            }
        }
    }

    async fn next(&mut self) -> Vec<Read> {
        if self.batch.is_empty() {
            self.subscriber.changed().await;
            self.subscriber.take(&mut self.batch, BATCH.0, BATCH.1);
        }
        let batch = std::mem::take(&mut self.batch);
        batch.iter().filter_map(|entry| self.read(&entry.item)).collect()
    }

    fn read(&mut self, item: &Item) -> Option<Read> {
        match item {
            Item::Tracks { tracks, .. } => {
                self.tracks = tracks.clone();
                Some(Read::Tracks(tracks.clone()))
            }
            Item::Unit { unit, .. } => {
                if let Some(after) = self.after {
                    let begins = match self.tracks.first(TrackKind::Video) {
                        Some(video) => unit.head.track == video.id && unit.head.keyframe,
                        None => true,
                    };
                    if !begins || unit.head.dts <= after {
                        return None;
                    }
                    self.after = None;
                }
                Some(Read::Unit(unit.clone()))
            }
        }
    }
}

/// What the rendition's mountpoint is fed with.
struct Out {
    to: Arc<Mountpoint>,
    epoch: u64,
    info: PublisherInfo,
    local: Rc<LocalShard>,
    publisher: Option<Publisher>,
    /// Its mountpoint takes nothing of it any more.
    is_refused: bool,
    passed: Tracks,
    made: Option<Tracks>,
    needs_made: bool,
    in_step: InStep,
    silence: Option<Silence>,
    /// When the worker was first fed after it gave something.
    fed_since: Option<Instant>,
    board: Arc<Board>,
}

impl Out {
    /// Announces all tracks, once those that are made are known.
    fn announce(&mut self) {
        if self.needs_made && self.made.is_none() {
            return;
        }
        let mut tracks = self.passed.clone();
        for track in self.made.iter().flat_map(Tracks::iter) {
            tracks = tracks.with(track.clone());
        }
        if let Some(silence) = &self.silence {
            tracks = tracks.with(silence.track().clone());
        }
        if self.publisher.is_none() && !self.is_refused {
            match self.to.claim_in(self.epoch, &self.local, self.info.clone()) {
                Ok(mut publisher) => {
                    // Times stay those of the mountpoint, so what is made anew goes on where it was.
                    publisher.resume();
                    self.publisher = Some(publisher);
                }
                Err(error) => {
                    tracing::debug!(rendition = self.to.name(), %error, "its mountpoint refuses it");
                    self.is_refused = true;
                }
            }
        }
        if let Some(publisher) = &mut self.publisher {
            publisher.announce(tracks);
        }
    }

    fn pass_tracks(&mut self, passed: Tracks) {
        if self.passed != passed {
            self.passed = passed;
            self.announce();
        }
    }

    fn pass(&mut self, unit: Unit) {
        if self.passed.get(unit.head.track).is_none() {
            return;
        }
        if self.needs_made {
            self.in_step.pass(unit);
            self.release();
        } else {
            self.publish(Draft::copied(unit.head, &unit.payload));
        }
    }

    fn made(&mut self, unit: Draft) {
        self.fed_since = None;
        self.in_step.made(unit.head.dts);
        self.publish(unit);
        self.release();
    }

    fn release(&mut self) {
        if self.publisher.is_none() {
            return;
        }
        while let Some(unit) = self.in_step.due() {
            self.publish(Draft::copied(unit.head, &unit.payload));
        }
    }

    fn publish(&mut self, mut unit: Draft) {
        let Some(publisher) = &mut self.publisher else { return };
        let is_video = publisher
            .mountpoint()
            .ring()
            .tracks()
            .get(unit.head.track)
            .is_some_and(|track| track.kind() == TrackKind::Video);
        unit.head = on_the_clean_line(unit.head);
        let head = unit.head;
        publisher.publish(unit);
        if let Some(silence) = self.silence.as_mut().filter(|_| is_video) {
            while let Some(unit) = silence.due(&head) {
                publisher.publish(unit);
            }
        }
    }

    fn flush(&mut self) {
        if let Some(publisher) = &mut self.publisher {
            publisher.flush();
        }
    }
}

/// A rendition's times are those of the stream that it is made of, which are clean already; what the source said is not
/// its own any more.
fn on_the_clean_line(head: UnitHead) -> UnitHead {
    UnitHead { source_dts: head.dts, source_pts: head.pts, ..head }
}

struct Delivery(Rc<RefCell<Out>>);

impl Deliver for Delivery {
    fn tracks(&mut self, tracks: Tracks, _same: bool) {
        let mut out = self.0.borrow_mut();
        out.made = Some(tracks);
        out.announce();
    }

    fn unit(&mut self, unit: Draft) {
        self.0.borrow_mut().made(unit);
    }

    fn flush(&mut self) {
        self.0.borrow_mut().flush();
    }

    fn report(&mut self, report: &Report) {
        let out = self.0.borrow();
        out.board.set_worker(out.to.name(), report.clone(), Instant::now());
    }
}
