//! One backlog: what waits in memory for its batch, and what is on disk.
//!
//! ```text
//!  append --> tail (memory) --batch is due--> segments (disk)
//!                |  released before: never written
//!                +- the disk can't: stays here within its own bound, and the next try comes later
//! ```

use crate::fs::SpoolFs;
use crate::meta::{Meta, STEP};
use crate::note;
use crate::segments::Segments;
use crate::wear::Wear;
use bytes::Bytes;
use fieldgate_hub::backlog::{
    BacklogError, Batch, Budget, Held, Keeping, LossCause, Lost, PacketQueue, Stored,
};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The most that is written in one go.
const MAX_WRITE: usize = 1 << 20;
/// Waits between tries of a disk that fails.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// How long a note waits, as it may change often.
const NOTE_AFTER: Duration = Duration::from_secs(3);
/// How long nothing must have been written until what is released is written down alone.
const REST_AFTER: Duration = Duration::from_secs(10);

/// How one backlog is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How much is kept on disk at most.
    pub budget: Budget,
    /// How much is kept in memory at most, before it is written or while the disk can't be.
    pub memory_bytes: u64,
    /// What has come is written after this time ...
    pub batch_interval: Duration,
    /// ... or when it is so much.
    pub batch_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            budget: Budget { bytes: 256 << 20, age: Duration::from_secs(24 * 3_600) },
            memory_bytes: 16 << 20,
            batch_interval: Duration::from_secs(1),
            batch_bytes: 256 << 10,
        }
    }
}

/// The first frame after a stop without warning: nothing is written before the ledger has heard of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum First {
    /// Nobody asks.
    #[default]
    Untold,
    Awaited,
    /// It is there, captured at this time.
    Came(i64),
}

/// What the writer of packets and the disk thread share.
pub(crate) struct Tail {
    pub queue: PacketQueue,
    /// On disk, as it was when the disk thread looked last.
    pub disk: Held,
    pub keeping: Keeping,
    pub closed: bool,
    /// After a stop without warning: one past the last frame that is known, and its time if it is held.
    restarted: Option<(u64, Option<i64>)>,
    first: First,
    floor: u64,
    /// What the owner wants to find again, whether it is not on disk yet, and whether the last stop was in order.
    pub note: Bytes,
    pub note_waits: bool,
    pub noted_in_order: bool,
    pub appended_bytes: u64,
    pub written_bytes: u64,
    pub flash_bytes_per_day: u64,
    pub flash_bytes: u64,
}

impl Tail {
    /// See [`fieldgate_hub::Backlog::append`].
    pub(crate) fn append(&mut self, packet: Stored) -> Result<(), BacklogError> {
        if self.closed {
            return Err(BacklogError::Closed);
        }
        if packet.is_frame() && self.first == First::Awaited {
            self.first = First::Came(packet.captured_unix_micros);
        }
        if packet.is_frame()
            && let Some((end, micros)) = self.restarted.take()
            && packet.id > end
        {
            let micros = micros.unwrap_or(packet.captured_unix_micros);
            self.queue.losses().add(Lost {
                ids: end..packet.id,
                frames: None,
                from_unix_micros: micros,
                to_unix_micros: packet.captured_unix_micros.max(micros),
                cause: LossCause::Restart,
            });
        }
        self.appended_bytes += packet.bytes() as u64;
        let cause = match self.keeping {
            Keeping::MemoryInstead(cause) => cause,
            _ => LossCause::DiskSlow,
        };
        self.queue.push(packet, cause)
    }

    /// See [`fieldgate_hub::Backlog::release`].
    pub(crate) fn release(&mut self, before_id: u64) {
        self.floor = self.floor.max(before_id);
        self.queue.release(before_id);
    }

    /// Packets from memory; `None` if the disk has some that come first.
    pub(crate) fn read(&self, from_id: u64, max_bytes: usize) -> Option<Batch> {
        let on_disk = self.disk.frames > 0 && from_id.max(self.floor) < self.disk.ids.end;
        (!on_disk).then(|| self.queue.read(from_id, max_bytes))
    }

    /// See [`fieldgate_hub::Backlog::held`].
    pub(crate) fn held(&self) -> Held {
        let memory = self.queue.held();
        let mut disk = self.disk.clone();
        if disk.ids.end <= self.floor {
            disk.frames = 0;
            disk.bytes = 0;
        } else if disk.ids.start < self.floor {
            disk.ids.start = self.floor;
            disk.frames = disk.frames.min(disk.ids.end - disk.ids.start);
        }
        match (disk.frames, memory.frames) {
            (0, _) => memory,
            (_, 0) => Held { next_id: memory.next_id, ..disk },
            _ => Held {
                ids: disk.ids.start..memory.ids.end,
                frames: disk.frames + memory.frames,
                bytes: disk.bytes + memory.bytes,
                oldest_unix_micros: disk.oldest_unix_micros,
                newest_unix_micros: memory.newest_unix_micros,
                next_id: memory.next_id,
            },
        }
    }
}

/// The tail behind its lock, which is never held over a call to the disk.
pub(crate) struct Shared(Mutex<Tail>);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Tail> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the folder, now or once the disk lets it.
pub(crate) type Folder = Box<dyn FnMut() -> io::Result<Box<dyn SpoolFs>> + Send>;

/// The disk thread's side of one backlog.
pub(crate) struct Core {
    settings: Settings,
    folder: Folder,
    segments: Option<Segments>,
    /// It is on disk that this life has begun.
    begun: bool,
    meta: Meta,
    wear: Wear,
    shared: Arc<Shared>,
    /// When what has come is written.
    due: Option<Instant>,
    retry: Option<(Instant, Duration)>,
    rest_at: Option<Instant>,
    note_due: Option<Instant>,
    /// What the last stop without warning may have cost is written down.
    told: bool,
}

impl Core {
    /// Finds what is there. A folder that can't be opened is tried again; until then memory stands in.
    pub(crate) fn open(settings: Settings, folder: Folder, now: Instant) -> Core {
        let memory = Budget { bytes: settings.memory_bytes, age: settings.budget.age };
        let tail = Tail {
            queue: PacketQueue::new(memory, 0),
            disk: Held::default(),
            keeping: Keeping::Disk,
            closed: false,
            restarted: None,
            first: First::Untold,
            floor: 0,
            note: Bytes::new(),
            note_waits: false,
            noted_in_order: false,
            appended_bytes: 0,
            written_bytes: 0,
            flash_bytes_per_day: 0,
            flash_bytes: 0,
        };
        let mut core = Core {
            settings,
            folder,
            segments: None,
            begun: false,
            meta: Meta::default(),
            wear: Wear::default(),
            shared: Arc::new(Shared(Mutex::new(tail))),
            due: None,
            retry: None,
            rest_at: None,
            note_due: None,
            told: false,
        };
        if let Err(error) = core.open_segments() {
            core.failed(&error, now);
        }
        core
    }

    fn open_segments(&mut self) -> io::Result<()> {
        let fs = (self.folder)()?;
        let found = Meta::read(fs.as_ref())?;
        let meta = found.unwrap_or_default();
        let mut segments = Segments::open(fs, self.settings.budget, meta.floor)?;
        let noted = note::read(segments.fs())?;
        let mut tail = self.shared.lock();
        let next_id = segments.end_id().max(meta.reserved);
        if tail.queue.next_id() == 0 {
            let held = segments.held();
            let newest = (held.frames > 0).then_some(held.newest_unix_micros);
            let used = found.is_some() || segments.end_id() > 0;
            tail.restarted = (used && !meta.clean).then_some((segments.end_id(), newest));
            if !tail.note_waits {
                (tail.note, tail.noted_in_order) = (noted, meta.clean);
            }
            let memory = Budget { bytes: self.settings.memory_bytes, age: self.settings.budget.age };
            let mut queue = PacketQueue::new(memory, next_id);
            queue.set_header(segments.header().cloned());
            for lost in segments.losses().take() {
                queue.losses().add(lost);
            }
            tail.queue = queue;
        } else if tail.queue.held().ids.start < segments.end_id() {
            // Memory stood in from the start and its numbers are lower: what is on disk can't come first any more.
            let Held { ids, frames, oldest_unix_micros, newest_unix_micros, .. } = segments.held();
            segments.drop_all();
            let (from_unix_micros, to_unix_micros) = (oldest_unix_micros, newest_unix_micros);
            let cause = LossCause::Abandoned;
            let lost = Lost { ids, frames: Some(frames), from_unix_micros, to_unix_micros, cause };
            tail.queue.losses().add(lost);
            drop(tail);
            segments = Segments::open((self.folder)()?, self.settings.budget, 0)?;
            tail = self.shared.lock();
        }
        tail.disk = segments.held();
        drop(tail);
        self.wear = Wear::new(meta.flash_bytes);
        // From here on it is not closed in order until it says so.
        self.meta = Meta { reserved: next_id, clean: false, floor: 0, flash_bytes: meta.flash_bytes };
        let saved = self.save(&mut segments);
        // What is there can be read even if nothing can be written.
        self.segments = Some(segments);
        saved
    }

    fn save(&mut self, segments: &mut Segments) -> io::Result<()> {
        self.meta.floor = segments.floor();
        self.meta.flash_bytes = self.wear.total();
        self.meta.write(segments.fs())?;
        self.begun = true;
        segments.floor_saved();
        Ok(())
    }

    /// Writes packets; how many of them are done. What must be on disk before them comes first, with none done.
    fn write(&mut self, packets: &[Stored]) -> (usize, io::Result<()>) {
        let Some(mut segments) = self.segments.take() else { return (0, self.open_segments()) };
        let outcome = if self.begun { segments.write(packets) } else { (0, self.save(&mut segments)) };
        self.segments = Some(segments);
        outcome
    }

    /// The writer's side.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Whether the last stop was one without warning; `None` if the folder can't be opened.
    pub(crate) fn found(&self) -> Option<bool> {
        self.segments.as_ref().map(|_| self.shared.lock().restarted.is_some())
    }

    /// Nothing is to be written before [`Core::take_first`] was asked for the first frame. `told`: what may be missing
    /// before it is on disk already.
    pub(crate) fn announce_first(&mut self, told: bool) {
        self.told = told;
        self.shared.lock().first = First::Awaited;
    }

    /// When the first frame was captured, once.
    pub(crate) fn take_first(&self) -> Option<i64> {
        let mut tail = self.shared.lock();
        let First::Came(unix_micros) = tail.first else { return None };
        tail.first = First::Untold;
        Some(unix_micros)
    }

    /// Does what is due. `wall`: microseconds since 1970.
    pub(crate) fn turn(&mut self, now: Instant, wall: i64) {
        let (waiting, closed, floor, next_id) = {
            let tail = self.shared.lock();
            (tail.queue.bytes(), tail.closed, tail.floor, tail.queue.next_id())
        };
        if let Some(segments) = &mut self.segments {
            segments.release(floor);
        }
        if self.retry.is_some_and(|(at, _)| now < at) && !closed {
            return;
        }
        if waiting > 0 {
            let due = *self.due.get_or_insert(now + self.settings.batch_interval);
            if now >= due || closed || waiting >= self.settings.batch_bytes || self.retry.is_some() {
                self.flush(now);
            }
        } else {
            self.due = None;
            if self.retry.is_some() {
                self.probe(now);
            }
        }
        if next_id > self.meta.reserved && self.retry.is_none() {
            self.reserve(next_id, now);
        }
        if self.rest_at.is_some_and(|at| now >= at) {
            self.rest_at = None;
            self.rest(now);
        }
        self.save_note(now, wall, closed);
        self.tell(wall);
    }

    fn save_note(&mut self, now: Instant, wall: i64, closed: bool) {
        let waiting = {
            let tail = self.shared.lock();
            tail.note_waits.then(|| tail.note.clone())
        };
        let (Some(note), Some(segments)) = (waiting, &mut self.segments) else { return };
        let due = *self.note_due.get_or_insert(now + NOTE_AFTER);
        if (now < due && !closed) || self.retry.is_some() || note.len() > note::MAX_LEN {
            return;
        }
        self.note_due = None;
        match note::write(segments.fs(), &note) {
            Ok(()) => {
                self.wear.add(note::FLASH_BYTES, wall);
                let mut tail = self.shared.lock();
                tail.note_waits = tail.note != note;
            }
            Err(error) => self.failed(&error, now),
        }
    }

    /// When it wants its next turn at the latest.
    pub(crate) fn next(&self) -> Option<Instant> {
        match self.retry {
            Some((at, _)) => Some(at),
            None => self.due.into_iter().chain(self.rest_at).chain(self.note_due).min(),
        }
    }

    fn flush(&mut self, now: Instant) {
        self.due = None;
        loop {
            let packets = {
                let mut tail = self.shared.lock();
                if let First::Came(_) = tail.first {
                    // The next turn comes at once.
                    self.due = Some(now);
                    break;
                }
                let mut packets = next_packets(&tail.queue);
                tail.queue.pin(packets.last().map_or(0, |last| last.id + 1));
                let written = self.segments.as_ref().and_then(Segments::header);
                if let Some(header) = unwritten_header(&tail.queue, written, packets.first()) {
                    packets.insert(0, header);
                }
                packets
            };
            if packets.is_empty() {
                break;
            }
            let (done, result) = self.write(&packets);
            let mut tail = self.shared.lock();
            tail.queue.pin(0);
            if let Some(last) = done.checked_sub(1).and_then(|last| packets.get(last)) {
                tail.queue.forget_through(last.id);
            }
            if let Some(segments) = &self.segments {
                tail.disk = segments.held();
            }
            drop(tail);
            match result {
                Ok(()) => self.succeeded(now),
                Err(error) => {
                    if !self.give_room(&error) {
                        self.failed(&error, now);
                        break;
                    }
                }
            }
        }
    }

    /// On a full disk, when memory is filling up too: gives up the oldest file for what is newer.
    fn give_room(&mut self, error: &io::Error) -> bool {
        let waiting = self.shared.lock().queue.bytes();
        let Some(segments) = &mut self.segments else { return false };
        cause_of(error) == LossCause::DiskFull
            && waiting > self.settings.memory_bytes / 2
            && segments.bytes() > 0
            && segments.drop_oldest(LossCause::DiskFull).is_ok()
    }

    /// Tries the disk again although nothing waits to be written.
    fn probe(&mut self, now: Instant) {
        let probed = match self.segments.take() {
            Some(mut segments) => {
                let saved = self.save(&mut segments);
                self.segments = Some(segments);
                saved
            }
            None => self.open_segments(),
        };
        match probed {
            Ok(()) => self.succeeded(now),
            Err(error) => self.failed(&error, now),
        }
    }

    /// Writes down what is released, when nothing was written for a while that says so.
    fn rest(&mut self, now: Instant) {
        if self.segments.as_ref().is_some_and(|segments| segments.unsaved_floor().is_some()) {
            self.probe(now);
            self.rest_at = None;
        }
    }

    fn reserve(&mut self, next_id: u64, now: Instant) {
        if self.segments.is_none() {
            return;
        }
        self.meta.reserved = next_id.saturating_add(STEP);
        self.probe(now);
        if self.retry.is_some() {
            self.meta.reserved = 0;
        }
    }

    fn succeeded(&mut self, now: Instant) {
        self.rest_at = Some(now + REST_AFTER);
        if self.retry.take().is_some() {
            self.shared.lock().keeping = Keeping::Disk;
            tracing::info!("the spool's disk takes packets again");
        }
    }

    fn failed(&mut self, error: &io::Error, now: Instant) {
        let cause = cause_of(error);
        let wait = self.retry.map_or(FIRST_RETRY, |(_, wait)| (wait * 2).min(LAST_RETRY));
        if self.retry.is_none() {
            tracing::warn!(%error, %cause, "the spool's disk can't be written; memory stands in");
        }
        self.retry = Some((now + wait, wait));
        self.shared.lock().keeping = Keeping::MemoryInstead(cause);
    }

    /// Packets from this id on: from the disk, else from memory.
    pub(crate) fn read(&mut self, from_id: u64, max_bytes: usize) -> Result<Batch, BacklogError> {
        let mut batch = Batch::default();
        if let Some(segments) = &mut self.segments {
            let floor = self.shared.lock().floor;
            let read = segments.read(from_id.max(floor), max_bytes);
            batch = read.map_err(|error| BacklogError::Unreadable(error.to_string()))?;
        }
        let mut tail = self.shared.lock();
        if let Some(segments) = &mut self.segments {
            segments.losses().take().into_iter().for_each(|lost| tail.queue.losses().add(lost));
        }
        Ok(if batch.packets.is_empty() { tail.queue.read(from_id, max_bytes) } else { batch })
    }

    /// Tells the writer's side what has changed.
    fn tell(&mut self, wall: i64) {
        let mut tail = self.shared.lock();
        if let Some(segments) = &mut self.segments {
            let written = segments.take_written();
            self.wear.add(written.flash_bytes, wall);
            tail.written_bytes += written.bytes;
            tail.disk = segments.held();
            segments.losses().take().into_iter().for_each(|lost| tail.queue.losses().add(lost));
        }
        tail.flash_bytes = self.wear.total();
        tail.flash_bytes_per_day = self.wear.per_day(wall);
    }

    /// Writes what is left and says that nothing is missing, if so. Returns the losses that nobody took.
    pub(crate) fn close(mut self, now: Instant, wall: i64) -> Vec<Lost> {
        self.shared.lock().closed = true;
        self.turn(now, wall);
        let (in_order, next_id) = {
            let tail = self.shared.lock();
            // An earlier stop without warning that nobody was told of yet is told after the next start.
            let told = tail.restarted.is_none() || self.told;
            (tail.queue.held().frames == 0 && told, tail.queue.next_id())
        };
        let Some(mut segments) = self.segments.take() else { return self.take_losses() };
        segments.close();
        self.meta.clean = in_order;
        self.meta.reserved = if in_order { next_id } else { self.meta.reserved.max(next_id) };
        if let Err(error) = self.save(&mut segments) {
            tracing::warn!(%error, "the spool could not be closed in order");
        }
        self.segments = Some(segments);
        self.tell(wall);
        self.take_losses()
    }

    fn take_losses(&self) -> Vec<Lost> {
        self.shared.lock().queue.losses().take()
    }
}

/// The next packets to write: they end with a frame, a header waits for its own.
fn next_packets(queue: &PacketQueue) -> Vec<Stored> {
    let mut bytes = 0;
    let mut packets: Vec<Stored> = Vec::new();
    for packet in queue.packets() {
        bytes += packet.bytes();
        if bytes > MAX_WRITE && packets.iter().any(Stored::is_frame) {
            break;
        }
        packets.push(packet.clone());
    }
    let frames = packets.iter().rposition(Stored::is_frame).map_or(0, |last| last + 1);
    packets.truncate(frames);
    packets
}

/// The header of the next frame, where it was released before it was ever written, as the frames were that it came with:
/// after a restart nobody could decode what is written now.
fn unwritten_header(queue: &PacketQueue, written: Option<&Stored>, next: Option<&Stored>) -> Option<Stored> {
    let (header, frame) = (queue.header()?, next.filter(|next| next.is_frame())?);
    let is_written =
        written.is_some_and(|written| (&written.head, &written.body) == (&header.head, &header.body));
    let captured_unix_micros = frame.captured_unix_micros;
    (!is_written).then(|| Stored { id: frame.id, captured_unix_micros, ..header.clone() })
}

fn cause_of(error: &io::Error) -> LossCause {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            LossCause::DiskFull
        }
        _ => LossCause::DiskFailed,
    }
}
