//! A sender with scripted receivers and a scripted controller, in made-up time.

use super::super::*;
use crate::kmp::golden;
use std::collections::BTreeMap;

/// A frame of a recorded track, and the header before it if there is one.
pub(super) type Step = (Option<Wire>, Wire);

/// A track as it was recorded.
pub(super) struct Recorded {
    /// Bytes of each connection, in order of their numbers, by upstream.
    pub(super) connections: BTreeMap<String, Vec<Vec<u8>>>,
    pub(super) first_id: u64,
    pub(super) steps: Vec<Step>,
    pub(super) is_video: bool,
}

/// Cuts a recording into packets by their sizes alone, up to the last whole one.
pub(super) fn cut(mut bytes: &[u8]) -> Vec<Wire> {
    let mut packets = Vec::new();
    while !bytes.is_empty() {
        let size = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        if bytes.len() < 16 || bytes.len() < size(4) + size(8) {
            break;
        }
        let (head, body) = (size(4), size(8));
        packets.push(Wire {
            head: Bytes::copy_from_slice(&bytes[..head]),
            body: Bytes::copy_from_slice(&bytes[head..head + body]),
        });
        bytes = &bytes[head + body..];
    }
    packets
}

pub(super) fn kind(packet: &Wire) -> PacketKind {
    PacketKind::from_tag(packet.head[..4].try_into().unwrap()).unwrap()
}

pub(super) fn first_id(connect: &Wire) -> u64 {
    u64::from_le_bytes(connect.head[80..88].try_into().unwrap())
}

impl Recorded {
    /// All that is recorded of a track; its queue is put together from all its connections.
    pub(super) fn load(case: &str, track: &str) -> Recorded {
        let mut connections: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        let mut by_id: BTreeMap<u64, Step> = BTreeMap::new();
        for number in 1..100 {
            for upstream in ["main", "opt"] {
                let name = format!("{case}/{track}.{upstream}.{number}.kmp");
                if !golden::folder().join(&name).exists() {
                    continue;
                }
                let bytes = golden::file(&name);
                let packets = cut(&bytes);
                let mut id = first_id(&packets[0]);
                let starts_track = connections.is_empty();
                for (index, packet) in packets.iter().enumerate() {
                    if kind(packet) != PacketKind::Frame {
                        continue;
                    }
                    let before = &packets[index - 1];
                    // Directly behind `cnct` stands what was in force, unless the track begins there.
                    let is_due = kind(before) == PacketKind::MediaInfo && (index > 2 || starts_track);
                    let entry = by_id.entry(id).or_insert((None, packet.clone()));
                    assert_eq!(entry.1, *packet, "frame {id} twice, not the same");
                    if is_due {
                        entry.0 = Some(before.clone());
                    }
                    id += 1;
                }
                connections.entry(upstream.into()).or_default().push(bytes);
            }
        }
        let first_id = *by_id.keys().next().unwrap();
        let is_video = track.starts_with('v');
        let steps: Vec<Step> = by_id.into_values().collect();
        Recorded { connections, first_id, steps, is_video }
    }
}

/// What a receiver does after it has read.
pub(super) enum Act {
    Ack(Ack),
    /// Something that is no ack.
    Garbage,
    /// What is written from now on is lost.
    StopReading,
    Close,
}

/// One connection as its receiver saw it.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) upstream: u32,
    pub(super) bytes: Vec<u8>,
    pub(super) first_id: u64,
    pub(super) frames: u64,
    pub(super) end: bool,
    pub(super) is_open: bool,
    is_deaf: bool,
}

impl Heard {
    fn read(&mut self) {
        let packets = cut(&self.bytes);
        self.first_id = first_id(&packets[0]);
        self.frames = packets.iter().filter(|packet| kind(packet) == PacketKind::Frame).count() as u64;
        self.end = packets.iter().any(|packet| kind(packet) == PacketKind::EndOfStream);
    }
}

type Peer = Box<dyn FnMut(&Heard, usize) -> Vec<Act>>;
type Answer = Box<dyn FnMut(usize) -> Option<Option<Bytes>>>;

pub(super) struct Run {
    pub(super) sender: Sender,
    start: Instant,
    pub(super) now: Instant,
    pub(super) specs: Vec<UpstreamSpec>,
    pub(super) heard: Vec<Heard>,
    /// When the controller was asked where to go on.
    pub(super) asks: Vec<Duration>,
    pub(super) unpublished: Option<(Duration, Reason)>,
    pub(super) session_dropped: Option<Reason>,
    pub(super) settled: Vec<(u64, u64, Fate)>,
    /// What receivers do: the connection, and how many there were before it of the same upstream.
    pub(super) peer: Peer,
    /// Whether the n-th connection is refused.
    pub(super) refuses: Box<dyn FnMut(usize) -> bool>,
    /// The answer to the n-th question, with other connect data perhaps; `None` keeps it waiting.
    pub(super) answer: Answer,
    pub(super) dials: usize,
    waiting: Vec<UpstreamKey>,
}

impl Run {
    pub(super) fn new(settings: Settings, first_id: u64) -> Run {
        let start = super::now();
        Run {
            sender: Sender::new(settings, first_id),
            start,
            now: start,
            specs: vec![UpstreamSpec::new("main")],
            heard: Vec::new(),
            asks: Vec::new(),
            unpublished: None,
            session_dropped: None,
            settled: Vec::new(),
            peer: Box::new(|_, _| Vec::new()),
            refuses: Box::new(|_| false),
            answer: Box::new(|_| Some(None)),
            dials: 0,
            waiting: Vec::new(),
        }
    }

    pub(super) fn at(&self) -> Duration {
        self.now - self.start
    }

    /// Pushes a frame, then lets the time of one frame pass.
    pub(super) fn step(&mut self, step: &Step, is_video: bool, period: Duration) {
        let keyframe = !is_video || step.1.head[32] & 1 == 1;
        self.sender.push(step.0.clone(), step.1.clone(), keyframe, self.now);
        self.settle();
        self.pass(period);
    }

    /// Lets time pass, timers firing exactly when they are due.
    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.sender.next_timeout().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.sender.handle_timeout(self.now);
            self.settle();
        }
        self.now = until;
    }

    pub(super) fn end(&mut self, reason: Reason) {
        self.sender.end(reason, self.now);
        self.settle();
    }

    /// Answers the questions that were kept waiting.
    pub(super) fn answer_waiting(&mut self) {
        for key in std::mem::take(&mut self.waiting) {
            self.sender.republished(key, "again".into(), None, self.now);
        }
        self.settle();
    }

    /// The peer closes the newest connection.
    pub(super) fn close(&mut self, index: usize) {
        self.heard[index].is_open = false;
        self.sender.disconnected(UpstreamKey(self.heard[index].upstream), self.now);
        self.settle();
    }

    /// Does all that is asked for, and lets the peers read and answer, until nothing happens any more.
    pub(super) fn settle(&mut self) {
        loop {
            while let Some(output) = self.sender.poll_output() {
                self.obey(output);
            }
            let keys: Vec<UpstreamKey> = self.sender.upstreams().map(|view| view.key).collect();
            let Some(key) = keys.into_iter().find(|key| self.sender.has_pending(*key)) else { return };
            self.transfer(key);
        }
    }

    fn obey(&mut self, output: Output) {
        match output {
            Output::AskPublish => {
                let name = |text| Name::new(text).unwrap();
                self.sender.published(name("c"), name("t"), self.specs.clone(), self.now);
            }
            Output::AskRepublish(key) => {
                self.asks.push(self.now - self.start);
                match (self.answer)(self.asks.len() - 1) {
                    Some(data) => self.sender.republished(key, "again".into(), data, self.now),
                    None => self.waiting.push(key),
                }
            }
            Output::AskUnpublish(reason) => self.unpublished = Some((self.at(), reason)),
            Output::Connect(key) => {
                self.dials += 1;
                if (self.refuses)(self.dials - 1) {
                    self.sender.disconnected(key, self.now);
                } else {
                    self.sender.connected(key, self.now);
                    self.heard.push(Heard { upstream: key.0, is_open: true, ..Heard::default() });
                }
            }
            Output::Close(key) => {
                self.heard
                    .iter_mut()
                    .filter(|heard| heard.upstream == key.0)
                    .for_each(|it| it.is_open = false);
            }
            Output::DropSession(reason) => self.session_dropped = Some(reason),
            Output::Settled { from_id, to_id, fate, .. } => self.settled.push((from_id, to_id, fate)),
            Output::Fetch { .. } | Output::Left(_) => panic!("nothing is kept elsewhere"),
        }
    }

    fn transfer(&mut self, key: UpstreamKey) {
        let mut slices = [IoSlice::new(&[]); 64];
        let used = self.sender.slices(key, &mut slices);
        let bytes = slices[..used].iter().flat_map(|slice| slice.to_vec()).collect::<Vec<u8>>();
        let index = self.heard.iter().rposition(|heard| heard.upstream == key.0 && heard.is_open).unwrap();
        self.sender.written(key, bytes.len(), self.now);
        if !self.heard[index].is_deaf {
            self.heard[index].bytes.extend_from_slice(&bytes);
        }
        if self.sender.has_pending(key) || self.heard[index].is_deaf {
            return;
        }
        self.heard[index].read();
        let before = self.heard[..index].iter().filter(|heard| heard.upstream == key.0).count();
        for act in (self.peer)(&self.heard[index], before) {
            match act {
                Act::Ack(ack) => self.sender.acked(key, &ack, self.now),
                Act::StopReading => self.heard[index].is_deaf = true,
                Act::Garbage => self.sender.malformed(key, self.now),
                Act::Close => {
                    self.heard[index].is_open = false;
                    self.sender.disconnected(key, self.now);
                }
            }
        }
    }
}

/// An ack of the first `frames` of a connection.
pub(super) fn ack(heard: &Heard, frames: u64) -> Act {
    Act::Ack(Ack { frame_id: heard.first_id + frames, upstream_frame_id: 0, offset: 0 })
}
