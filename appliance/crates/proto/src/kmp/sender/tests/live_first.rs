//! What is live first, and what was left behind on a second channel: seeded runs with outages, slow and rude receivers and
//! restarts, held against an independent count of what was handed over, taken and acknowledged.

use super::super::*;
use super::harness::{cut, first_id, kind};
use super::random::{Dice, frame, info, packet_len};
use std::ops::Range;

const FIRST_ID: u64 = 5_000;
const GOP: u64 = 10;
const PATIENCE: usize = 100_000;
const WITHIN: Duration = Duration::from_millis(500);

/// A connection on its way to the receiver and back.
#[derive(Default)]
struct Pipe {
    to_receiver: Vec<u8>,
    handed: Vec<u8>,
    handed_id: u64,
    unread: Vec<u8>,
    next_id: Option<u64>,
    header: Option<u32>,
    acks: Vec<u64>,
    ended: bool,
    room: usize,
}

/// A channel's receiver, over all connections.
#[derive(Default)]
struct Far {
    taken: Vec<u64>,
    wanted: u64,
    acked: u64,
}

/// A sender with its connection.
struct Lane {
    sender: Sender,
    key: Option<UpstreamKey>,
    dialling: bool,
    pipe: Option<Pipe>,
    fetch: Option<u64>,
    over: bool,
    /// Where the next connection has to begin, if that is certain.
    expected: Option<u64>,
}

impl Lane {
    fn new(sender: Sender) -> Lane {
        Lane { sender, key: None, dialling: false, pipe: None, fetch: None, over: false, expected: None }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Room {
    Ample,
    Tight,
}

struct World {
    dice: Dice,
    room: Room,
    settings: Settings,
    now: Instant,
    up: bool,
    down_since: Option<Instant>,
    live: Lane,
    late: Option<Lane>,
    arrears: Arrears,
    far: [Far; 2],
    kept: VecDeque<(u64, Kept)>,
    kept_limit: usize,
    header_in_force: Option<Wire>,
    waits: bool,
    news: bool,
    // The truth.
    versions: Vec<u32>,
    handed: Vec<bool>,
    dropped: Vec<bool>,
    told: Vec<Option<Fate>>,
    left: u64,
    headless: u64,
    restarts: u64,
    mild: bool,
}

impl World {
    fn new(seed: u64, room: Room) -> World {
        let mut dice = Dice(seed);
        let kept_limit = if room == Room::Tight { 5 + dice.below(80) as usize } else { usize::MAX };
        let settings = Settings {
            keep: Keep::Backlog { window_bytes: 2_500 + dice.below(4_000) },
            live_within: Some(WITHIN),
            reconnect: Reconnect::Backoff {
                first: Duration::from_millis(20),
                longest: Duration::from_millis(200),
            },
            timeout: Duration::from_secs(2),
            end_attempts: u32::MAX,
            end_patience: None,
            end_grace: Some(Duration::from_secs(2)),
            ack_silence: Some(Duration::from_secs(3)),
            ..Settings::new()
        };
        World {
            dice,
            room,
            settings,
            now: super::now(),
            up: true,
            down_since: None,
            live: Lane::new(Sender::new(settings, FIRST_ID)),
            late: None,
            arrears: Arrears::default(),
            far: Default::default(),
            kept: VecDeque::new(),
            kept_limit,
            header_in_force: None,
            waits: false,
            news: false,
            versions: Vec::new(),
            handed: Vec::new(),
            dropped: Vec::new(),
            told: Vec::new(),
            left: 0,
            headless: 0,
            restarts: 0,
            mild: false,
        }
    }

    fn next_id(&self) -> u64 {
        FIRST_ID + self.told.len() as u64
    }

    fn newest_keyframe(&self) -> u64 {
        FIRST_ID + (self.told.len() as u64 - 1) / GOP * GOP
    }

    /// `begins`: a stream begins with it.
    fn push(&mut self, begins: bool) {
        let id = self.next_id();
        let number = self.told.len() as u64;
        let keyframe = number.is_multiple_of(GOP);
        let version = self.versions.last().copied().unwrap_or(0);
        let changes = begins || (keyframe && self.dice.one_in(5));
        let version = version + u32::from(changes);
        let (header, wire) =
            (changes.then(|| info(version)), frame(id, keyframe, self.dice.below(100) as usize));
        self.versions.push(version);
        self.handed.push(false);
        self.dropped.push(false);
        self.told.push(None);
        let pushed = self.live.sender.push(header.clone(), wire.clone(), keyframe, self.now);
        assert_eq!(pushed, Some(id));
        self.waits &= !keyframe;
        if let Some(wire) = header {
            self.kept.push_back((id, Kept { kind: PacketKind::MediaInfo, keyframe: false, wire }));
        }
        self.kept.push_back((id, Kept { kind: PacketKind::Frame, keyframe, wire }));
        if self.waits {
            self.drop_before(id + 1);
        }
        while self.kept.len() > self.kept_limit {
            let first = self.kept.front().map_or(0, |(id, _)| *id);
            let border = self.kept.iter().find(|(id, kept)| *id > first && kept.keyframe).map(|(id, _)| *id);
            self.waits |= border.is_none();
            self.drop_before(border.unwrap_or(id + 1));
        }
    }

    fn drop_before(&mut self, before_id: u64) {
        self.news = true;
        while self.kept.front().is_some_and(|(id, _)| *id < before_id) {
            let (id, gone) = self.kept.pop_front().unwrap();
            match gone.kind {
                PacketKind::MediaInfo => self.header_in_force = Some(gone.wire),
                _ => self.dropped[(id - FIRST_ID) as usize] = true,
            }
        }
    }

    /// The owner forgets what nobody needs.
    fn release(&mut self) {
        let senders = [Some(&self.live), self.late.as_ref()];
        let owed = senders.into_iter().flatten().filter_map(|lane| lane.sender.still_owed());
        let owed = owed.map(|owed| owed.from_id).chain(self.arrears.waiting().map(|ids| ids.start));
        let floor = owed.min().unwrap_or(self.next_id());
        while self.kept.front().is_some_and(|(id, _)| *id < floor) {
            let (_, gone) = self.kept.pop_front().unwrap();
            if gone.kind == PacketKind::MediaInfo {
                self.header_in_force = Some(gone.wire);
            }
        }
    }

    fn settle(&mut self, ids: Range<u64>, fate: Fate) {
        for id in ids {
            let told = &mut self.told[(id - FIRST_ID) as usize];
            assert_eq!(*told, None, "the fate of {id} was told twice, now as {fate:?}");
            *told = Some(fate);
        }
    }

    fn obey(&mut self) {
        loop {
            self.obey_lane(0);
            self.obey_lane(1);
            if self.late.as_ref().is_some_and(|late| late.over) {
                self.late = None;
            }
            if self.late.is_some() {
                return;
            }
            let Some(owed) = self.arrears.take() else { return };
            let settings = Settings { live_within: None, ..self.settings };
            self.late = Some(Lane::new(Sender::owing(settings, owed)));
        }
    }

    fn lane(&mut self, channel: usize) -> Option<&mut Lane> {
        if channel == 0 { Some(&mut self.live) } else { self.late.as_mut() }
    }

    fn obey_lane(&mut self, channel: usize) {
        let now = self.now;
        while let Some(output) = self.lane(channel).and_then(|lane| lane.sender.poll_output()) {
            let lane = self.lane(channel).unwrap();
            match output {
                Output::AskPublish => {
                    let name = Name::new("x").unwrap();
                    lane.sender.published(name, name, vec![UpstreamSpec::new("u")], now);
                    if channel == 1 {
                        lane.sender.end(Reason::Disconnect, now);
                    }
                }
                Output::Connect(key) => {
                    assert!(lane.pipe.is_none() && !lane.dialling);
                    (lane.dialling, lane.key) = (true, Some(key));
                }
                Output::Close(_) => (lane.pipe, lane.dialling) = (None, false),
                Output::Fetch { from_id } => lane.fetch = Some(from_id),
                Output::Left(owed) => {
                    self.left += 1;
                    self.headless +=
                        u64::from(owed.head.is_empty() && !(owed.from_id - FIRST_ID).is_multiple_of(GOP));
                    self.arrears.add(owed);
                }
                Output::Settled { from_id, to_id, fate, .. } => self.settle(from_id..to_id, fate),
                Output::AskUnpublish(_) => lane.over = true,
                other => panic!("{other:?}"),
            }
        }
    }

    fn turn(&mut self) {
        self.obey();
        if !self.mild && self.dice.one_in(if self.up { 150 } else { 60 }) {
            self.up = !self.up;
        }
        for channel in 0..2 {
            self.turn_lane(channel);
            self.obey();
        }
        if self.news && self.dice.one_in(4) {
            self.news = false;
            let from = self.kept.front().map_or(self.next_id(), |(id, _)| *id);
            let now = self.now;
            for (ids, fate) in self.arrears.dropped(from) {
                self.settle(ids, fate);
            }
            for channel in 0..2 {
                if let Some(lane) = self.lane(channel) {
                    lane.sender.dropped(from, None, now);
                }
            }
            self.obey();
        }
        self.release();
        if self.dice.one_in(3) {
            self.now += Duration::from_millis(self.dice.below(40));
        }
        let now = self.now;
        for channel in 0..2 {
            if let Some(lane) = self.lane(channel)
                && lane.sender.next_timeout().is_some_and(|due| due <= now)
            {
                lane.sender.handle_timeout(now);
                self.obey();
            }
        }
    }

    fn disconnect(&mut self, channel: usize) {
        let now = self.now;
        let Some(lane) = self.lane(channel) else { return };
        lane.pipe = None;
        if let Some(key) = lane.key {
            lane.sender.disconnected(key, now);
        }
    }

    fn turn_lane(&mut self, channel: usize) {
        let (now, up, mild) = (self.now, self.up, self.mild);
        let goes = self.dice.one_in(2);
        let room = if mild { 1 << 16 } else { 50 + self.dice.below(3_000) as usize };
        let Some(lane) = self.lane(channel) else { return };
        let Some(key) = lane.key else { return };
        if lane.dialling && goes {
            lane.dialling = false;
            if !up {
                lane.sender.disconnected(key, now);
            } else {
                lane.sender.connected(key, now);
                lane.pipe = Some(Pipe { room, ..Pipe::default() });
            }
            if channel == 0 && up {
                self.check_begin();
            }
            return;
        }
        if let Some(from_id) = lane.fetch.take_if(|_| goes) {
            self.load(channel, from_id);
            return;
        }
        if lane.pipe.is_none() {
            if channel == 0 {
                self.down_since.get_or_insert(now);
            }
            return;
        }
        if !up || (!mild && self.dice.one_in(120)) {
            return self.disconnect(channel);
        }
        self.write(channel, key);
        self.receive(channel, key);
    }

    /// After a long outage what is live begins with the newest keyframe.
    fn check_begin(&mut self) {
        let down_since = self.down_since.take();
        let was_long = down_since.is_some_and(|since| self.now > since + WITHIN + Duration::from_millis(100));
        let view = self.live.sender.upstreams().next().map(|view| view.told_id);
        self.live.expected = None;
        if let Some(told_id) = view.filter(|_| was_long && self.room == Room::Ample) {
            assert!(told_id >= self.newest_keyframe().min(self.next_id()), "live is at {told_id}");
            self.live.expected = Some(told_id);
        }
    }

    fn load(&mut self, channel: usize, from_id: u64) {
        let first = self.kept.iter().find(|(id, kept)| *id >= from_id && kept.kind == PacketKind::Frame);
        let first = first.map_or(u64::MAX, |(id, _)| *id);
        let mut header = self.header_in_force.clone();
        let mut packets = Vec::new();
        let mut next_id = first;
        let count = 2 + self.dice.below(20) as usize;
        for (id, kept) in &self.kept {
            match *id < first {
                true if kept.kind == PacketKind::MediaInfo => header = Some(kept.wire.clone()),
                false if *id == next_id && packets.len() < count => {
                    next_id += u64::from(kept.kind == PacketKind::Frame);
                    packets.push(kept.clone());
                }
                _ => {}
            }
        }
        let frames = packets.iter().rposition(|kept| kept.kind == PacketKind::Frame);
        packets.truncate(frames.map_or(0, |last| last + 1));
        let start_id = if packets.is_empty() { from_id } else { first };
        let now = self.now;
        if let Some(lane) = self.lane(channel) {
            lane.sender.loaded(from_id, start_id, header, packets, now);
        }
    }

    fn write(&mut self, channel: usize, key: UpstreamKey) {
        let most = 1 + self.dice.below(3_000) as usize;
        let now = self.now;
        let lane = if channel == 0 { &mut self.live } else { self.late.as_mut().unwrap() };
        let Some(pipe) = &mut lane.pipe else { return };
        let room = pipe.room.saturating_sub(pipe.to_receiver.len());
        if room == 0 || !lane.sender.has_pending(key) {
            return;
        }
        let mut slices = [IoSlice::new(&[]); 6];
        let used = lane.sender.slices(key, &mut slices);
        let bytes = slices[..used].iter().flat_map(|slice| slice.to_vec()).collect::<Vec<u8>>();
        let len = bytes.len().min(most).min(room);
        pipe.to_receiver.extend_from_slice(&bytes[..len]);
        pipe.handed.extend_from_slice(&bytes[..len]);
        while let Some(size) = packet_len(&pipe.handed) {
            let bytes: Vec<u8> = pipe.handed.drain(..size).collect();
            let packet = cut(&bytes).remove(0);
            match kind(&packet) {
                PacketKind::Connect => pipe.handed_id = first_id(&packet),
                PacketKind::Frame => {
                    self.handed[(pipe.handed_id - FIRST_ID) as usize] = true;
                    pipe.handed_id += 1;
                }
                _ => {}
            }
        }
        lane.sender.written(key, len, now);
    }

    fn receive(&mut self, channel: usize, key: UpstreamKey) {
        let (mild, now) = (self.mild, self.now);
        let lane = if channel == 0 { &mut self.live } else { self.late.as_mut().unwrap() };
        let expected = lane.expected;
        let Some(pipe) = &mut lane.pipe else { return };
        let far = &mut self.far[channel];
        let len = self.dice.below(pipe.to_receiver.len() as u64 + 1) as usize;
        pipe.unread.extend(pipe.to_receiver.drain(..len));
        while let Some(size) = packet_len(&pipe.unread) {
            let bytes: Vec<u8> = pipe.unread.drain(..size).collect();
            let packet = cut(&bytes).remove(0);
            match kind(&packet) {
                PacketKind::Connect => {
                    let id = first_id(&packet);
                    assert!(expected.is_none_or(|expected| expected == id), "{id}, not {expected:?}");
                    pipe.next_id = Some(id);
                    far.wanted = far.wanted.max(id);
                }
                PacketKind::MediaInfo => {
                    pipe.header = Some(u32::from_le_bytes(packet.head[16..20].try_into().unwrap()));
                }
                PacketKind::Frame => {
                    let id = pipe.next_id.unwrap();
                    pipe.next_id = Some(id + 1);
                    assert_eq!(u64::from_le_bytes(packet.body[..8].try_into().unwrap()), id);
                    let version = self.versions[(id - FIRST_ID) as usize];
                    assert_eq!(pipe.header, Some(version), "the header of {id}");
                    if id >= far.wanted {
                        far.taken.push(id);
                        far.wanted = id + 1;
                    }
                }
                PacketKind::EndOfStream => pipe.ended = true,
                _ => {}
            }
        }
        if let Some(next_id) = pipe.next_id
            && (mild || self.dice.one_in(5))
        {
            let least = next_id.saturating_sub(self.dice.below(15));
            let acked = pipe.acks.last().copied().unwrap_or(0);
            pipe.acks.push(if mild { next_id } else { least.max(acked) });
        }
        let count = self.dice.below(pipe.acks.len() as u64 + 1) as usize;
        let ends = pipe.ended && mild && pipe.to_receiver.is_empty();
        let count = if ends { pipe.acks.len() } else { count };
        for frame_id in pipe.acks.drain(..count).collect::<Vec<_>>() {
            far.acked = far.acked.max(frame_id);
            lane.sender.acked(key, &Ack { frame_id, upstream_frame_id: 0, offset: 0 }, now);
        }
        if ends {
            self.disconnect(channel);
        }
    }

    /// The gateway stops in order and starts again, with what it has kept and noted.
    fn restart(&mut self) {
        self.obey();
        self.restarts += 1;
        let sending: Vec<Owed> =
            self.late.take().and_then(|late| late.sender.still_owed()).into_iter().collect();
        let live = self.live.sender.still_owed();
        let live = live.map_or((self.next_id(), self.next_id()), |live| (live.from_id, live.handed_id));
        let note = self.arrears.note(&sending, &[], live, true);
        let first = self.kept.front().map_or(self.next_id(), |(id, _)| *id);
        if self.room == Room::Tight {
            // What it was not told of yet.
            self.news = false;
            let mut arrears = std::mem::take(&mut self.arrears);
            let sending = sending.into_iter().chain(std::iter::from_fn(|| arrears.take()));
            let all = sending.chain([Owed::new(live.0..self.next_id(), live.1)]);
            for owed in all.collect::<Vec<_>>() {
                let end = first.clamp(owed.from_id, owed.end_id);
                let handed = owed.handed_id.clamp(owed.from_id, end);
                self.settle(owed.from_id..handed, Fate::Unconfirmed(Cause::Backlog));
                self.settle(handed..end, Fate::Lost(Cause::Backlog));
            }
        }
        self.arrears = Arrears::default();
        for owed in Arrears::noted(&note, true, first..self.next_id()) {
            self.arrears.add(owed);
        }
        self.down_since = None;
        // The stream begins anew, with a keyframe; ids are set aside.
        let version = self.versions.last().copied().unwrap_or(0);
        while !self.told.len().is_multiple_of(GOP as usize) {
            self.versions.push(version);
            self.handed.push(false);
            self.dropped.push(true);
            self.told.push(Some(Fate::Lost(Cause::Skipped)));
        }
        self.live = Lane::new(Sender::new(self.settings, self.next_id()));
    }

    fn run(&mut self) {
        let frames = 100 + self.dice.below(300) as usize;
        let restarts = self.dice.one_in(3);
        self.push(true);
        while self.told.len() < frames {
            self.turn();
            if self.dice.one_in(3) {
                self.push(false);
            }
            if restarts && self.dice.one_in(400) && self.told.len() > 20 {
                self.restart();
                self.push(true);
            }
        }
        self.obey();
        self.live.sender.end(Reason::Close, self.now);
        (self.mild, self.up) = (true, true);
        let mut turns = 0;
        while !self.live.over || self.late.is_some() || self.arrears.waiting().next().is_some() {
            self.now += Duration::from_millis(20);
            self.turn();
            turns += 1;
            assert!(turns < PATIENCE, "it does not end: {:?} {:?}", self.live.sender, self.arrears);
        }
        self.check();
    }

    fn check(&self) {
        let [live, late] = &self.far;
        for far in &self.far {
            assert!(far.taken.windows(2).all(|pair| pair[0] < pair[1]), "each channel in order");
        }
        let is_keyframe = |id: u64| (id - FIRST_ID).is_multiple_of(GOP);
        let has = |far: &Far, id: u64| far.taken.binary_search(&id).is_ok();
        for pair in live.taken.windows(2).filter(|pair| pair[0] + 1 != pair[1]) {
            assert!(is_keyframe(pair[1]), "live goes on at {}, in a GOP", pair[1]);
        }
        for pair in late.taken.windows(2).filter(|pair| pair[0] + 1 != pair[1]) {
            // Where memory did not have the head of the GOP, the live channel has it, or an earlier life had.
            assert!(
                is_keyframe(pair[1]) || has(live, pair[1] - 1) || has(late, pair[1] - 1) || self.restarts > 0,
                "what was left behind goes on at {}, in a GOP",
                pair[1]
            );
        }
        for (index, told) in self.told.iter().enumerate() {
            let id = FIRST_ID + index as u64;
            let taken = has(live, id) || has(late, id);
            match told.unwrap_or_else(|| panic!("the fate of {id} was never told")) {
                Fate::Acknowledged => {
                    let acked = |far: &Far| has(far, id) && id < far.acked;
                    assert!(acked(live) || acked(late), "{id} was never acknowledged");
                }
                Fate::Unconfirmed(_) => assert!(self.handed[index], "{id} is unconfirmed"),
                Fate::Lost(Cause::Skipped) => {}
                Fate::Lost(_) => assert!(!self.handed[index] && !taken, "{id} is called lost"),
                Fate::Sent => panic!("{id}"),
            }
            if self.room == Room::Ample {
                let unused = self.dropped[index];
                assert!(unused || told == &Some(Fate::Acknowledged), "{id}: {told:?}");
            }
        }
    }
}

/// Runs all seeds: stretches left behind, those without their head, frames that were not delivered.
fn runs(room: Room, seeds: Range<u64>) -> (u64, u64, u64) {
    let mut sum = (0, 0, 0);
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed, room);
            world.run();
            let missing = world.told.iter().filter(|told| **told != Some(Fate::Acknowledged)).count();
            (world.left, world.headless, missing as u64)
        });
        let (left, headless, missing) = outcome.unwrap_or_else(|_| panic!("seed {seed}"));
        sum = (sum.0 + left, sum.1 + headless, sum.2 + missing);
    }
    sum
}

#[test]
fn live_goes_first_and_both_channels_together_have_everything() {
    let (left, headless, _) = runs(Room::Ample, 0..400);
    assert!(left > 400, "only {left} stretches were left behind");
    assert!(headless * 3 < left, "{headless} of {left} begin without their head");
}

#[test]
fn live_first_over_the_budget_every_loss_is_told() {
    assert!(runs(Room::Tight, 50_000..50_400).2 > 1_000);
}

#[test]
fn a_receiver_that_only_lets_us_connect_is_still_away() {
    let settings = World::new(1, Room::Ample).settings;
    let settings = Settings { keep: Keep::Backlog { window_bytes: 1 << 20 }, ..settings };
    let mut sender = Sender::new(settings, FIRST_ID);
    let (name, mut now) = (Name::new("x").unwrap(), super::now());
    let push = |sender: &mut Sender, now: Instant| {
        let id = sender.next_id();
        let keyframe = (id - FIRST_ID).is_multiple_of(GOP);
        sender.push((id == FIRST_ID).then(|| info(0)), frame(id, keyframe, 50), keyframe, now);
    };
    push(&mut sender, now);
    sender.published(name, name, vec![UpstreamSpec::new("u")], now);
    let key = sender.upstreams().next().unwrap().key;
    sender.connected(key, now);
    let mut slices = [IoSlice::new(&[]); 8];
    let used = sender.slices(key, &mut slices);
    let len = slices[..used].iter().map(|slice| slice.len()).sum();
    sender.written(key, len, now);
    sender.acked(key, &Ack { frame_id: FIRST_ID + 1, upstream_frame_id: 0, offset: 0 }, now);
    sender.disconnected(key, now);
    // A router takes each connection and closes it, for longer than what is caught up with in order.
    let (lost, mut connections, mut left) = (now, 0, None);
    while left.is_none() && now < lost + 4 * WITHIN {
        now += Duration::from_millis(20);
        push(&mut sender, now);
        sender.handle_timeout(now);
        while let Some(output) = sender.poll_output() {
            match output {
                Output::Connect(_) => {
                    connections += 1;
                    sender.connected(key, now);
                    sender.disconnected(key, now);
                }
                Output::Left(owed) => left = Some(owed.from_id..owed.end_id),
                _ => {}
            }
        }
    }
    assert!(connections > 3 && now > lost + WITHIN, "{connections} after {:?}", now - lost);
    let newest = (sender.next_id() - 1 - FIRST_ID) / GOP * GOP + FIRST_ID;
    assert_eq!(left, Some(FIRST_ID + 1..newest), "{connections} connections");
}
