//! A receiver that does anything, thousands of times: what it got must be complete and in order, and what the sender
//! says of it must be what an independent count says.

use super::super::*;
use super::harness::{cut, kind};
use crate::kmp::packet::FrameHead;

/// Small, seeded, ours.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit.max(1)
    }

    pub(super) fn one_in(&mut self, limit: u64) -> bool {
        self.below(limit) == 0
    }
}

const FIRST_ID: u64 = 1_000_000;
const PATIENCE: usize = 60_000;
const GOP: u64 = 10;

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    /// All fits.
    Roomy,
    /// The sender's memory is short.
    Short,
    /// The owner keeps all.
    Kept,
    /// The owner keeps what fits.
    KeptShort,
}

/// One connection's way to the receiver and back.
struct Pipe {
    to_receiver: Vec<u8>,
    /// All that the socket took, for the count of what it took whole.
    handed: Vec<u8>,
    handed_id: Option<u64>,
    room: usize,
    acks: Vec<Ack>,
    /// The receiver's view.
    unread: Vec<u8>,
    next_id: Option<u64>,
    header: Option<u32>,
    hangs: bool,
    closed: bool,
}

struct World {
    dice: Dice,
    sender: Sender,
    now: Instant,
    key: Option<UpstreamKey>,
    pipe: Option<Pipe>,
    /// A connection is being opened.
    dialling: Option<UpstreamKey>,
    asked: Option<UpstreamKey>,
    fetch: Option<u64>,
    /// What was read for it, on its way.
    answer: Option<Answer>,
    /// What the owner keeps: (id, packets).
    kept: VecDeque<(u64, Kept)>,
    kept_limit: usize,
    /// The owner has dropped the head of a GOP: its rest is not kept either.
    waits: bool,
    /// The owner has dropped something that the sender was not told of.
    has_news: bool,
    header_in_force: Option<Wire>,
    // The truth.
    pushed: u64,
    header_of: Vec<u32>,
    /// Frames that the receiver took, in order, without those it had.
    taken: Vec<u64>,
    wanted: u64,
    has_end: bool,
    highest_ack_read: u64,
    /// Frames that some socket took whole.
    handed: Vec<bool>,
    /// Frames that the owner does not keep although they were not acknowledged...
    dropped: Vec<bool>,
    /// ... some of them because they cannot be read any more.
    damaged: Vec<bool>,
    told: Vec<Option<Fate>>,
    over: bool,
    mild: bool,
}

/// Packets that were read: from the frame asked for, what comes first, the header before it.
struct Answer {
    from_id: u64,
    start_id: u64,
    header: Option<Wire>,
    packets: Vec<Kept>,
}

pub(super) fn info(version: u32) -> Wire {
    let mut head = vec![0; 48];
    head[..4].copy_from_slice(b"minf");
    head[4] = 48;
    head[16..20].copy_from_slice(&version.to_le_bytes());
    Wire { head: head.into(), body: Bytes::new() }
}

pub(super) fn frame(id: u64, keyframe: bool, filler: usize) -> Wire {
    let mut body = id.to_le_bytes().to_vec();
    body.resize(8 + filler, 7);
    FrameHead { created: 0, dts: 0, keyframe, pts_delay: 0 }.encode(body.into())
}

impl World {
    fn new(seed: u64, mode: Mode) -> World {
        let mut dice = Dice(seed);
        let keep = match mode {
            Mode::Roomy => Keep::Memory(Memory::of(1 << 30)),
            Mode::Short => Keep::Memory(Memory::of(4_000 + dice.below(4_000))),
            Mode::Kept | Mode::KeptShort => Keep::Backlog { window_bytes: 500 + dice.below(3_000) },
        };
        let reconnect = match dice.one_in(2) && matches!(mode, Mode::Roomy | Mode::Short) {
            true => Reconnect::Ask { interval: Duration::from_millis(100), max: u32::MAX },
            false => Reconnect::Backoff { first: Duration::from_millis(50), longest: Duration::from_secs(3) },
        };
        let flush_timeout = Duration::from_millis(if dice.one_in(2) { 0 } else { dice.below(50) });
        let settings = Settings {
            keep,
            reconnect,
            flush_timeout,
            block_bytes: 200 + dice.below(1000),
            timeout: Duration::from_secs(2),
            end_attempts: u32::MAX,
            end_patience: None,
            end_grace: Some(Duration::from_secs(2)),
            ack_silence: Some(Duration::from_secs(3)),
            ..Settings::new()
        };
        // From less than a GOP to several.
        let kept_limit = if mode == Mode::KeptShort { 2 + dice.below(50) as usize } else { usize::MAX };
        World {
            dice,
            sender: Sender::new(settings, FIRST_ID),
            now: super::now(),
            key: None,
            pipe: None,
            dialling: None,
            asked: None,
            fetch: None,
            answer: None,
            kept: VecDeque::new(),
            kept_limit,
            waits: false,
            has_news: false,
            header_in_force: None,
            pushed: 0,
            header_of: Vec::new(),
            taken: Vec::new(),
            wanted: FIRST_ID,
            has_end: false,
            highest_ack_read: FIRST_ID,
            handed: Vec::new(),
            dropped: Vec::new(),
            damaged: Vec::new(),
            told: Vec::new(),
            over: false,
            mild: false,
        }
    }

    fn push(&mut self) {
        let id = FIRST_ID + self.pushed;
        let keyframe = self.pushed.is_multiple_of(GOP);
        let version = self.header_of.last().copied().unwrap_or(0);
        let changes = self.pushed == 0 || (keyframe && self.dice.one_in(4));
        let version = version + u32::from(changes);
        let filler = self.dice.below(120) as usize;
        let (header, frame) = (changes.then(|| info(version)), frame(id, keyframe, filler));
        self.pushed += 1;
        self.header_of.push(version);
        self.told.push(None);
        self.handed.push(false);
        self.dropped.push(false);
        self.damaged.push(false);
        assert_eq!(self.sender.push(header.clone(), frame.clone(), keyframe, self.now), Some(id));
        self.keep(id, header, frame, keyframe);
    }

    /// The owner keeps a frame, and what it can of those before; up to a keyframe goes at once.
    fn keep(&mut self, id: u64, header: Option<Wire>, frame: Wire, keyframe: bool) {
        self.waits &= !keyframe;
        if let Some(header) = header {
            let kept = Kept { kind: PacketKind::MediaInfo, keyframe: false, wire: header };
            self.kept.push_back((id, kept));
        }
        self.kept.push_back((id, Kept { kind: PacketKind::Frame, keyframe, wire: frame }));
        if self.waits {
            self.drop_kept(1);
        }
        while self.kept.len() > self.kept_limit {
            let border = |(_, (id, kept)): &(usize, &(u64, Kept))| {
                let first = self.kept.front().map_or(0, |(id, _)| *id);
                kept.keyframe && *id > first
            };
            let next = self.kept.iter().enumerate().find(border).map(|(at, (id, _))| (at, *id));
            self.waits |= next.is_none();
            let headers = next
                .map_or(0, |(at, id)| self.kept.iter().take(at).filter(|(before, _)| *before == id).count());
            self.drop_kept(next.map_or(self.kept.len(), |(at, _)| at - headers));
        }
        if self.kept_limit < usize::MAX && self.dice.one_in(150) && self.kept.len() > 4 {
            // Some of what is kept cannot be read any more.
            let at = self.dice.below(self.kept.len() as u64 - 2) as usize;
            let len = 1 + self.dice.below(3) as usize;
            let damaged: Vec<_> = self.kept.iter().skip(at).take(len).cloned().collect();
            if damaged.iter().all(|(_, kept)| kept.kind == PacketKind::Frame) {
                for (id, _) in &damaged {
                    self.dropped[(id - FIRST_ID) as usize] = true;
                    self.damaged[(id - FIRST_ID) as usize] = true;
                }
                let is_damaged = |id: &u64| damaged.iter().any(|(gone, _)| gone == id);
                self.kept.retain(|(id, kept)| kept.kind == PacketKind::MediaInfo || !is_damaged(id));
            }
        }
    }

    fn drop_kept(&mut self, count: usize) {
        self.has_news = true;
        for (id, gone) in self.kept.drain(..count) {
            match gone.kind {
                PacketKind::MediaInfo => self.header_in_force = Some(gone.wire),
                _ => self.dropped[(id - FIRST_ID) as usize] = true,
            }
        }
    }

    fn tell_news(&mut self) {
        if std::mem::take(&mut self.has_news) {
            let from = self.kept.front().map_or(FIRST_ID + self.pushed, |(id, _)| *id);
            self.sender.dropped(from, None, self.now);
        }
    }

    fn obey(&mut self) {
        while let Some(output) = self.sender.poll_output() {
            match output {
                Output::AskPublish => {
                    let name = Name::new("x").unwrap();
                    self.sender.published(name, name, vec![UpstreamSpec::new("u")], self.now);
                }
                Output::AskRepublish(key) => self.asked = Some(key),
                Output::Connect(key) => {
                    assert!(self.pipe.is_none() && self.dialling.is_none());
                    (self.dialling, self.key) = (Some(key), Some(key));
                }
                Output::Close(_) => (self.pipe, self.dialling) = (None, None),
                Output::Fetch { from_id } => assert!(self.fetch.replace(from_id).is_none()),
                Output::Settled { from_id, to_id, fate, .. } => {
                    for id in from_id..to_id {
                        let told = &mut self.told[(id - FIRST_ID) as usize];
                        assert_eq!(*told, None, "the fate of {id} was told twice");
                        *told = Some(fate);
                    }
                    while self.kept.front().is_some_and(|(id, _)| *id < to_id) {
                        let (_, gone) = self.kept.pop_front().unwrap();
                        if gone.kind == PacketKind::MediaInfo {
                            self.header_in_force = Some(gone.wire);
                        }
                    }
                }
                Output::AskUnpublish(_) => self.over = true,
                other @ (Output::DropSession(_) | Output::Left(_)) => panic!("{other:?}"),
            }
        }
    }

    /// Something happens.
    fn turn(&mut self) {
        self.obey();
        if let Some(key) = self.dialling.filter(|_| self.dice.one_in(2)) {
            self.dialling = None;
            if !self.mild && self.dice.one_in(3) {
                self.sender.disconnected(key, self.now);
            } else {
                let room = if self.mild { 1 << 16 } else { 50 + self.dice.below(3_000) as usize };
                self.sender.connected(key, self.now);
                self.pipe = Some(Pipe {
                    to_receiver: Vec::new(),
                    handed: Vec::new(),
                    handed_id: None,
                    room,
                    acks: Vec::new(),
                    unread: Vec::new(),
                    next_id: None,
                    header: None,
                    hangs: false,
                    closed: false,
                });
            }
            self.obey();
        }
        if let Some(key) = self.asked.filter(|_| self.dice.one_in(3)) {
            self.asked = None;
            self.sender.republished(key, "again".into(), None, self.now);
            self.obey();
        }
        if let Some(answer) = self.answer.take_if(|_| self.dice.one_in(2)) {
            let Answer { from_id, start_id, header, packets } = answer;
            self.sender.loaded(from_id, start_id, header, packets, self.now);
            self.obey();
        }
        if let Some(from_id) = self.fetch.filter(|_| self.dice.one_in(2)) {
            self.fetch = None;
            self.load(from_id);
        }
        if self.dice.one_in(4) {
            self.tell_news();
            self.obey();
        }
        self.write();
        self.obey();
        self.receive();
        self.hear();
        self.obey();
        if self.dice.one_in(3) {
            self.now += Duration::from_millis(self.dice.below(40));
            if !self.mild && self.dice.one_in(200) {
                self.now += Duration::from_secs(self.dice.below(8));
            }
        }
        if self.sender.next_timeout().is_some_and(|due| due <= self.now) {
            self.sender.handle_timeout(self.now);
            self.obey();
        }
    }

    fn load(&mut self, from_id: u64) {
        let first = self.kept.iter().find(|(id, kept)| *id >= from_id && kept.kind == PacketKind::Frame);
        let first = first.map_or(u64::MAX, |(id, _)| *id);
        let mut header = self.header_in_force.clone();
        let mut skipped = 0;
        for (_, kept) in self.kept.iter().take_while(|(id, _)| *id < first) {
            skipped += 1;
            if kept.kind == PacketKind::MediaInfo {
                header = Some(kept.wire.clone());
            }
        }
        let count = 2 + self.dice.below(20) as usize;
        let mut next_id = None;
        let mut packets: Vec<(u64, Kept)> = Vec::new();
        for (id, kept) in self.kept.iter().skip(skipped).take(count) {
            // Behind a gap comes the next read.
            if *id != *next_id.get_or_insert(*id) {
                break;
            }
            next_id = Some(id + u64::from(kept.kind == PacketKind::Frame));
            packets.push((*id, kept.clone()));
        }
        let frames = packets.iter().rposition(|(_, kept)| kept.kind == PacketKind::Frame);
        packets.truncate(frames.map_or(0, |last| last + 1));
        let start_id = packets.first().map_or(from_id, |(id, _)| *id);
        let packets = packets.into_iter().map(|(_, kept)| kept).collect();
        self.answer = Some(Answer { from_id, start_id, header, packets });
    }

    fn write(&mut self) {
        let (Some(key), Some(pipe)) = (self.key, &mut self.pipe) else { return };
        let room = pipe.room.saturating_sub(pipe.to_receiver.len());
        if room == 0 || pipe.closed || !self.sender.has_pending(key) {
            return;
        }
        let mut slices = [IoSlice::new(&[]); 5];
        let used = self.sender.slices(key, &mut slices);
        assert!(used > 0, "pending but nothing to write");
        let bytes = slices[..used].iter().flat_map(|slice| slice.to_vec()).collect::<Vec<u8>>();
        let len = bytes.len().min(1 + self.dice.below(room as u64) as usize);
        pipe.to_receiver.extend_from_slice(&bytes[..len]);
        pipe.handed.extend_from_slice(&bytes[..len]);
        while let Some(size) = packet_len(&pipe.handed) {
            let bytes: Vec<u8> = pipe.handed.drain(..size).collect();
            let packet = cut(&bytes).remove(0);
            match kind(&packet) {
                PacketKind::Connect => pipe.handed_id = Some(super::harness::first_id(&packet)),
                PacketKind::Frame => {
                    let id = pipe.handed_id.unwrap();
                    self.handed[(id - FIRST_ID) as usize] = true;
                    pipe.handed_id = Some(id + 1);
                }
                _ => {}
            }
        }
        self.sender.written(key, len, self.now);
    }

    /// The receiver reads, takes frames, acknowledges, closes, hangs.
    fn receive(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        if pipe.closed || (pipe.hangs && !self.mild) {
            return;
        }
        let len = self.dice.below(pipe.to_receiver.len() as u64 + 1) as usize;
        pipe.unread.extend(pipe.to_receiver.drain(..len));
        while let Some(size) = packet_len(&pipe.unread) {
            let bytes: Vec<u8> = pipe.unread.drain(..size).collect();
            let packet = cut(&bytes).remove(0);
            match kind(&packet) {
                PacketKind::Connect => {
                    let first_id = super::harness::first_id(&packet);
                    pipe.next_id = Some(first_id);
                    if first_id > self.wanted {
                        self.wanted = first_id;
                    }
                }
                PacketKind::MediaInfo => {
                    pipe.header = Some(u32::from_le_bytes(packet.head[16..20].try_into().unwrap()));
                }
                PacketKind::Frame => {
                    let id = pipe.next_id.unwrap();
                    pipe.next_id = Some(id + 1);
                    let own_id = u64::from_le_bytes(packet.body[..8].try_into().unwrap());
                    assert_eq!(own_id, id, "ids by count");
                    let version = self.header_of[(id - FIRST_ID) as usize];
                    assert_eq!(pipe.header, Some(version), "the header of frame {id}");
                    if id >= self.wanted {
                        self.taken.push(id);
                        self.wanted = id + 1;
                    }
                }
                PacketKind::EndOfStream => self.has_end = true,
                _ => {}
            }
        }
        let Some(next_id) = pipe.next_id else { return };
        // Only what came over this connection, or was had before, may be acknowledged.
        let most = next_id.min(self.wanted);
        if self.mild || self.dice.one_in(4) {
            let least = pipe.acks.last().map_or(most.saturating_sub(30), |ack| ack.frame_id).min(most);
            let frame_id = if self.mild { most } else { least + self.dice.below(most - least + 1) };
            pipe.acks.push(Ack { frame_id, upstream_frame_id: frame_id, offset: 0 });
            if self.dice.one_in(5) {
                pipe.acks.push(Ack { frame_id, upstream_frame_id: frame_id, offset: 0 });
            }
        }
        if !self.mild {
            pipe.hangs |= self.dice.one_in(150);
            pipe.closed |= self.dice.one_in(60);
        }
        if self.has_end && self.mild && pipe.to_receiver.is_empty() {
            pipe.closed = true;
        }
    }

    /// The sender reads what came back.
    fn hear(&mut self) {
        let (Some(key), Some(pipe)) = (self.key, &mut self.pipe) else { return };
        let count = self.dice.below(pipe.acks.len() as u64 + 1) as usize;
        // Some acks are lost with the connection.
        let closes = pipe.closed && (self.mild || self.dice.one_in(2));
        let count = if closes && self.mild { pipe.acks.len() } else { count };
        let acks: Vec<Ack> = pipe.acks.drain(..count).collect();
        for ack in acks {
            if self.pipe.is_some() {
                self.sender.acked(key, &ack, self.now);
                self.highest_ack_read = self.highest_ack_read.max(ack.frame_id);
                self.obey();
            }
        }
        if self.pipe.is_none() {
            return;
        }
        let is_static = self.sender.settings.reconnect != Reconnect::Never
            && matches!(self.sender.settings.reconnect, Reconnect::Backoff { .. });
        if closes {
            self.pipe = None;
            self.sender.disconnected(key, self.now);
        } else if !self.mild && self.dice.one_in(300) {
            self.pipe = None;
            self.sender.malformed(key, self.now);
        } else if !self.mild && is_static && self.dice.one_in(300) {
            let beyond = Ack { frame_id: FIRST_ID + self.pushed + 5, upstream_frame_id: 0, offset: 0 };
            self.sender.acked(key, &beyond, self.now);
        }
    }

    fn run(&mut self, mode: Mode) {
        let frames = 50 + self.dice.below(200);
        while self.pushed < frames {
            self.turn();
            if self.dice.one_in(3) {
                self.push();
            }
        }
        self.sender.end(Reason::Close, self.now);
        let wild = self.dice.below(300);
        for _ in 0..wild {
            if !self.over {
                self.turn();
            }
        }
        self.mild = true;
        let mut turns = 0;
        while !self.over {
            self.now += Duration::from_millis(20);
            self.turn();
            turns += 1;
            assert!(turns < PATIENCE, "it does not end: {:?}", self.sender);
        }
        self.check(mode);
    }

    fn check(&self, mode: Mode) {
        assert!(self.taken.windows(2).all(|pair| pair[0] < pair[1]), "in order, each once");
        let is_keyframe = |id: u64| (id - FIRST_ID).is_multiple_of(GOP);
        let gaps = self.taken.windows(2).filter(|pair| pair[0] + 1 != pair[1]);
        let begins_well = |id: u64| is_keyframe(id) || self.damaged[(id - FIRST_ID) as usize - 1];
        assert!(gaps.into_iter().all(|pair| begins_well(pair[1])), "it goes on at keyframes");
        let mut gone_before = false;
        for (index, told) in self.told.iter().enumerate() {
            let id = FIRST_ID + index as u64;
            let told = told.unwrap_or_else(|| panic!("the fate of {id} was never told"));
            let taken = self.taken.binary_search(&id).is_ok();
            let cause = match told {
                Fate::Acknowledged => {
                    assert!(taken, "{id} is called delivered");
                    assert!(id < self.highest_ack_read, "{id}: no ack was read for it");
                    assert!(!gone_before || begins_well(id), "what is lost ends before {id}, in a GOP");
                    gone_before = false;
                    continue;
                }
                Fate::Unconfirmed(cause) => {
                    assert!(self.handed[index], "{id} is called unconfirmed, but no socket had it");
                    cause
                }
                Fate::Lost(cause) => {
                    assert!(!self.handed[index] && !taken, "{id} is called lost, but a socket had it");
                    cause
                }
                Fate::Sent => panic!("{id}: acks count here"),
            };
            gone_before = true;
            match mode {
                Mode::Short => assert_eq!(cause, Cause::Memory, "{id}"),
                Mode::KeptShort => {
                    self.check_given_up(index, cause);
                }
                Mode::Roomy | Mode::Kept => panic!("{id} was given up within the budget"),
            }
        }
        let acknowledged = self.told.iter().filter(|told| **told == Some(Fate::Acknowledged)).count();
        if matches!(mode, Mode::Roomy | Mode::Kept) {
            assert_eq!(acknowledged as u64, self.pushed);
            assert_eq!(self.taken.len() as u64, self.pushed, "complete");
        }
    }
}

impl World {
    /// The rule for what is given up although the owner has a budget: the owner dropped it; or it is the rest of a GOP
    /// whose beginning is gone; or it stands right before something that is gone, was handed over, and its ack did not
    /// come while that was waited for.
    fn check_given_up(&self, index: usize, cause: Cause) {
        let of_gop = index - index % GOP as usize..index;
        let is_rest = cause == Cause::Headless && of_gop.into_iter().any(|before| self.dropped[before]);
        assert!(cause == Cause::Backlog || is_rest, "{index}: {cause:?}");
        let gone = |at: usize| !matches!(self.told[at], Some(Fate::Acknowledged));
        let before_gap = self.handed[index]
            && (index..self.told.len()).take_while(|at| gone(*at)).any(|at| self.dropped[at]);
        assert!(self.dropped[index] || is_rest || before_gap, "{index} was given up, but it was kept");
    }
}

pub(super) fn packet_len(bytes: &[u8]) -> Option<usize> {
    let size = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
    let len = size(4)? + size(8)?;
    (bytes.len() >= len).then_some(len)
}

/// Runs all seeds; how many frames were lost in them.
fn runs(mode: Mode, seeds: std::ops::Range<u64>) -> usize {
    let run = |seed| {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed, mode);
            world.run(mode);
            world.told.iter().filter(|told| **told != Some(Fate::Acknowledged)).count()
        });
        outcome.unwrap_or_else(|_| panic!("seed {seed}"))
    };
    seeds.map(run).sum()
}

#[test]
fn whatever_a_receiver_does_all_frames_arrive_in_order() {
    assert_eq!(runs(Mode::Roomy, 0..500), 0);
}

#[test]
fn short_of_memory_every_loss_is_told() {
    assert!(runs(Mode::Short, 10_000..10_500) > 1000);
}

#[test]
fn whatever_a_receiver_does_kept_frames_arrive_in_order() {
    assert_eq!(runs(Mode::Kept, 20_000..20_500), 0);
}

#[test]
fn over_the_budget_of_the_backlog_every_loss_is_told() {
    assert!(runs(Mode::KeptShort, 30_000..30_500) > 1000);
}
