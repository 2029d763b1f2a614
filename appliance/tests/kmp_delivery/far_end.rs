//! The receiving side: a door that opens and closes, connections with bad manners, and books of what arrived.

use crate::camera::{CHANNEL, Dice, GOP};
use bytes::BytesMut;
use fieldgate_proto::kmp::{Ack, Connect, Direction, Limits, Packet, PacketReader};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// No step of a test takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What arrived of one track, over all its connections.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// The frame that comes next, by its id; lower ones are known already.
    next_id: Option<u64>,
    /// Ids and numbers of the frames, in the order in which they were taken.
    pub(crate) frames: Vec<(u64, u32)>,
    /// The highest frame id that was acknowledged, not counting acks of what was not received.
    pub(crate) acked_id: u64,
    /// Connections that said which track they bring.
    pub(crate) connections: u32,
    /// Frames that came again.
    pub(crate) again: u64,
}

impl Heard {
    /// Takes a frame by the rule of ids; what is wrong with it.
    fn take(&mut self, id: u64, number: u32, starts_well: bool) -> Result<(), String> {
        let next = *self.next_id.get_or_insert(id);
        if id < next {
            self.again += 1;
            let known = self.frames.binary_search_by_key(&id, |(id, _)| *id);
            return match known.map(|at| self.frames[at].1) {
                Ok(known) if known != number => {
                    Err(format!("frame {id} came as {known} before and as {number} now"))
                }
                _ => Ok(()),
            };
        }
        if !starts_well && (id > next || self.frames.is_empty()) {
            return Err(format!(
                "frame {id} (number {number}) follows a gap without a keyframe and its header"
            ));
        }
        if self.frames.last().is_some_and(|(_, last)| *last >= number) {
            return Err(format!("number {number} comes after {:?}", self.frames.last()));
        }
        self.frames.push((id, number));
        self.next_id = Some(id + 1);
        Ok(())
    }

    /// The numbers that arrived.
    pub(crate) fn numbers(&self) -> Vec<u32> {
        self.frames.iter().map(|(_, number)| *number).collect()
    }

    /// How many frames it has acknowledged.
    pub(crate) fn acked(&self) -> u64 {
        self.frames.partition_point(|(id, _)| *id < self.acked_id) as u64
    }
}

/// How a connection behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manners {
    /// Takes everything and says so at once.
    Good,
    /// Whatever comes to mind; see [`FarEnd::misbehave`].
    Random,
    /// Like `Random`, but nothing that takes a whole connection's work away from the sender's books: no acks beyond, no
    /// closing before an ack is heard.
    Fair,
}

/// Both tracks' far end.
pub(crate) struct FarEnd {
    /// Holds the port, so that nobody else gets it while the door is shut.
    _keeper: TcpSocket,
    addr: SocketAddr,
    tracks: RefCell<BTreeMap<String, Heard>>,
    manners: Cell<Manners>,
    /// Nobody is let in.
    shut: Cell<bool>,
    /// Gaps begin at keyframes, with their header before them.
    borders: bool,
    faults: RefCell<Vec<String>>,
    dice: RefCell<Dice>,
    /// How many frames of a track are known to be delivered on the other side; for [`Manners::Fair`].
    heard: Box<dyn Fn(&str) -> u64>,
}

impl FarEnd {
    pub(crate) fn new(
        dice: Dice,
        manners: Manners,
        borders: bool,
        heard: impl Fn(&str) -> u64 + 'static,
    ) -> FarEnd {
        let keeper = TcpSocket::new_v4().unwrap();
        keeper.set_reuseport(true).unwrap();
        keeper.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = keeper.local_addr().unwrap();
        FarEnd {
            _keeper: keeper,
            addr,
            tracks: RefCell::default(),
            manners: Cell::new(manners),
            shut: Cell::new(false),
            borders,
            faults: RefCell::default(),
            dice: RefCell::new(dice),
            heard: Box::new(heard),
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How it behaves.
    pub(crate) fn manners(&self) -> Manners {
        self.manners.get()
    }

    /// From now on it behaves so, also on connections that are there.
    pub(crate) fn set_manners(&self, manners: Manners) {
        self.manners.set(manners);
    }

    /// Closes or opens the door; connections that are there are closed with it.
    pub(crate) fn shut(&self, shut: bool) {
        self.shut.set(shut);
    }

    /// Looks at a track's books.
    pub(crate) fn with<T>(&self, track: &str, look: impl FnOnce(&mut Heard) -> T) -> T {
        look(self.tracks.borrow_mut().entry(track.to_owned()).or_default())
    }

    /// What arrived that should not have.
    pub(crate) fn faults(&self) -> Vec<String> {
        self.faults.borrow().clone()
    }

    fn roll(&self, limit: u64) -> u64 {
        self.dice.borrow_mut().below(limit)
    }

    fn listen(&self) -> TcpListener {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseport(true).unwrap();
        socket.bind(self.addr).unwrap();
        socket.listen(64).unwrap()
    }

    /// Takes connections in for ever.
    pub(crate) async fn run(&self) {
        loop {
            let refuses = if self.shut.get() {
                Duration::from_millis(5)
            } else if self.manners.get() != Manners::Good && self.roll(4) == 0 {
                Duration::from_millis(self.roll(60))
            } else {
                Duration::ZERO
            };
            if !refuses.is_zero() {
                // Nobody listens: connections are refused.
                sleep(refuses).await;
                continue;
            }
            let door = self.listen();
            let mut connections = FuturesUnordered::new();
            let mut welcome = self.roll(6) + 1;
            loop {
                let good = self.manners.get() == Manners::Good;
                tokio::select! {
                    accepted = door.accept(), if good || welcome > 0 => {
                        connections.push(self.serve(accepted.unwrap().0));
                        welcome -= u64::from(!good);
                    }
                    Some(()) = connections.next() => {}
                    () = sleep(Duration::from_millis(5)) => {}
                }
                if self.shut.get() || (!good && welcome == 0 && connections.is_empty()) {
                    break;
                }
            }
        }
    }

    async fn serve(&self, stream: TcpStream) {
        let mut visit = Visit {
            stream,
            reader: PacketReader::new(Direction::ToReceiver, Limits::default()),
            unread: BytesMut::with_capacity(64 << 10),
            connect: None,
            next_id: 0,
            first_id: 0,
            header: false,
            ended: false,
        };
        let mut quota = self.roll(80) as i64;
        loop {
            let good = self.manners.get() == Manners::Good;
            let wait =
                if good { Duration::from_secs(3600) } else { Duration::from_millis(20 + self.roll(40)) };
            let mut woken = std::pin::pin!(async {
                // A change of manners counts at once.
                while good || self.manners.get() != Manners::Good {
                    sleep(Duration::from_millis(5)).await;
                }
            });
            let read = tokio::select! {
                read = timeout(wait, visit.read()) => read,
                () = &mut woken => continue,
            };
            match read {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) => return self.misbehave(&mut visit).await,
            }
            let before = visit.next_id;
            let outcome = visit.take(self);
            if let Err(fault) = outcome {
                // One is enough to read.
                if self.faults.borrow().len() < 3 {
                    self.faults.borrow_mut().push(fault);
                }
                return;
            }
            if visit.connect.is_none() {
                continue;
            }
            quota -= (visit.next_id - before.max(visit.first_id)) as i64;
            if self.manners.get() == Manners::Good {
                visit.ack(self, visit.next_id).await;
                if visit.ended {
                    return;
                }
                continue;
            }
            let span = visit.next_id - visit.first_id;
            match self.roll(6) {
                0 | 1 => {}
                2 => visit.ack(self, visit.next_id).await,
                3 => visit.ack(self, visit.first_id + self.roll(span + 1)).await,
                4 => {
                    visit.ack(self, visit.next_id).await;
                    visit.ack(self, visit.next_id).await;
                }
                _ => visit.ack(self, visit.first_id).await,
            }
            if quota <= 0 {
                return self.misbehave(&mut visit).await;
            }
        }
    }

    /// How a connection ends.
    async fn misbehave(&self, visit: &mut Visit) {
        let fair = self.manners.get() == Manners::Fair;
        let Some(track) = visit.track() else { return };
        match self.roll(8) {
            _ if fair => {
                let wanted = self.with(&track, |heard| heard.acked());
                let waiting = async {
                    while (self.heard)(&track) < wanted && visit.read().await {
                        // What comes meanwhile is not taken: it comes again.
                        visit.unread.clear();
                    }
                };
                timeout(Duration::from_millis(100), waiting).await.ok();
            }
            // Closes, in the middle of a packet as often as not.
            0..=2 => {}
            3 => {
                let mut bytes = [0; 50];
                timeout(Duration::from_millis(5), visit.stream.read(&mut bytes)).await.ok();
            }
            // Hangs, then closes.
            4 => sleep(Duration::from_millis(30 + self.roll(80))).await,
            // Hangs for longer than a sender waits for acks.
            5 => sleep(Duration::from_millis(400)).await,
            // Sends what is no ack, or acknowledges what it was not sent: the sender has to close.
            6 => {
                visit.stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok();
                self.closed_by_peer(visit, "no ack").await;
            }
            _ => {
                let mut out = BytesMut::new();
                let frame_id = visit.next_id + 100_000 + self.roll(1 << 40);
                Ack { frame_id, upstream_frame_id: 0, offset: 0 }.encode(&mut out);
                visit.stream.write_all(&out).await.ok();
                self.closed_by_peer(visit, "an ack beyond what was sent").await;
            }
        }
    }

    async fn closed_by_peer(&self, visit: &mut Visit, after: &str) {
        let mut bytes = vec![0; 64 << 10];
        let closed = async { while visit.stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {} };
        if timeout(PATIENCE, closed).await.is_err() {
            self.faults.borrow_mut().push(format!("the sender did not close after {after}"));
        }
    }
}

/// A track's name here: with its channel, if that is not the usual one.
fn name_of(connect: &Connect) -> String {
    match (connect.channel_id.to_string(), connect.track_id) {
        (channel, track) if channel == CHANNEL => track.to_string(),
        (channel, track) => format!("{channel}/{track}"),
    }
}

/// One connection.
struct Visit {
    stream: TcpStream,
    reader: PacketReader,
    unread: BytesMut,
    connect: Option<Connect>,
    first_id: u64,
    next_id: u64,
    /// A header came since the last frame.
    header: bool,
    /// `eost` came.
    ended: bool,
}

impl Visit {
    fn track(&self) -> Option<String> {
        self.connect.as_ref().map(name_of)
    }

    /// Reads some bytes; false when there are no more.
    async fn read(&mut self) -> bool {
        self.unread.reserve(16 << 10);
        self.stream.read_buf(&mut self.unread).await.is_ok_and(|read| read > 0)
    }

    /// Takes the packets that are there whole.
    fn take(&mut self, far: &FarEnd) -> Result<(), String> {
        let mut input = &self.unread[..];
        while let Some(packet) = self.reader.read(&mut input).map_err(|error| error.to_string())? {
            match packet {
                Packet::Connect(connect) => {
                    self.next_id = connect.initial_frame_id;
                    self.first_id = self.next_id;
                    far.with(&name_of(&connect), |heard| heard.connections += 1);
                    self.connect = Some(connect);
                }
                Packet::MediaInfo(_) => self.header = true,
                Packet::Frame(frame) => {
                    let track = self.track().ok_or("a frame came before cnct")?;
                    let number = frame.payload().first_chunk().copied().map(u32::from_be_bytes);
                    let number = number.ok_or("a frame without a number")?;
                    let pictures = track.starts_with('v') || track.contains("/v");
                    if pictures && frame.head.keyframe != number.is_multiple_of(GOP) {
                        return Err(format!("number {number}: keyframe {}", frame.head.keyframe));
                    }
                    let starts_well =
                        !far.borders || (self.header && (!pictures || number.is_multiple_of(GOP)));
                    far.with(&track, |heard| heard.take(self.next_id, number, starts_well))
                        .map_err(|fault| format!("{track}: {fault}"))?;
                    self.next_id += 1;
                    self.header = false;
                }
                Packet::EndOfStream => {
                    self.connect.as_ref().ok_or("eost came before cnct")?;
                    self.ended = true;
                }
                Packet::Null => {}
                Packet::Ack(_) => return Err("a sender sent an ack".into()),
            }
        }
        let used = self.unread.len() - input.len();
        drop(self.unread.split_to(used));
        Ok(())
    }

    /// Acknowledges the frames before this id.
    async fn ack(&mut self, far: &FarEnd, frame_id: u64) {
        let Some(track) = self.track() else { return };
        far.with(&track, |heard| heard.acked_id = heard.acked_id.max(frame_id));
        let mut out = BytesMut::new();
        Ack { frame_id, upstream_frame_id: 1, offset: 2 }.encode(&mut out);
        // The sender may have gone.
        self.stream.write_all(&out).await.ok();
    }
}
