//! The load generator: all publishers, players and sinks of a run on one thread over one epoll, so that
//! it takes as little as possible of the machine that it shares with the server.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::{ClockId, Timespec, clock_gettime};
use socket2::{Domain, Socket, Type};

use crate::connection::{Connection, Role, Tally, Target, Wire};
use crate::error::{Attempt, BenchError};
use crate::floor;
use crate::kmp::{Acks, Receiver};
use crate::media::Track;
use crate::session::{Goal, Session};
use crate::verify::Verifier;

const READ_LEN: usize = 256 << 10;
const SLOW_TURN_NS: u64 = 100_000_000;
const SLOW_RECEIVE_BUFFER: usize = 32 << 10;
/// Listeners count down from here in the events' data, connections up from 0.
const LISTENERS: u64 = 1 << 32;

/// Nanoseconds of the monotonic clock.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Frame(bool),
    SlowRead,
}

/// All connections of a run.
pub(crate) struct Engine {
    epoll: OwnedFd,
    /// With when their receivers acknowledge, if they take KMP in.
    listeners: Vec<(TcpListener, Option<Acks>)>,
    /// By number; `None` once closed.
    pub connections: Vec<Option<Connection>>,
    timers: BinaryHeap<Reverse<(u64, usize, Timer)>>,
    events: Vec<Event>,
    scratch: Vec<u8>,
    body: Vec<u8>,
    interrupted: Arc<AtomicBool>,
    window: (u64, u64),
    publishing: bool,
    target: Target,
    /// KMP tracks that their peer has ended.
    pub ended: usize,
    /// What is measured.
    pub tally: Tally,
}

impl Engine {
    /// An engine without connections; `interrupted` ends its waiting.
    pub(crate) fn new(target: &Target, interrupted: Arc<AtomicBool>) -> Result<Self, BenchError> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC).attempt("create an epoll")?,
            listeners: Vec::new(),
            connections: Vec::new(),
            timers: BinaryHeap::new(),
            events: Vec::with_capacity(256),
            scratch: vec![0; READ_LEN],
            body: Vec::new(),
            interrupted,
            window: (u64::MAX, u64::MAX),
            publishing: true,
            target: *target,
            ended: 0,
            tally: Tally::default(),
        })
    }

    /// Accepts pushes on `listener`: KMP that is acknowledged as `kmp` says, else RTMP.
    pub(crate) fn listen(&mut self, listener: TcpListener, kmp: Option<Acks>) -> Result<(), BenchError> {
        let data = EventData::new_u64(LISTENERS + self.listeners.len() as u64);
        epoll::add(&self.epoll, &listener, data, EventFlags::IN).attempt("watch a sink")?;
        self.listeners.push((listener, kmp));
        Ok(())
    }

    /// Connects one client of stream number `stream`.
    pub(crate) fn connect(
        &mut self,
        target: &Target,
        goal: Goal,
        stream: u16,
        role: Role,
    ) -> Result<usize, BenchError> {
        let socket = Socket::new(Domain::for_address(target.address), Type::STREAM, None)
            .attempt("create a socket")?;
        let slow = matches!(role, Role::Receiver { slow: Some(_), .. });
        if slow {
            // Else this machine's buffers would hide the slowness from the server.
            socket.set_recv_buffer_size(SLOW_RECEIVE_BUFFER).attempt("set a receive buffer")?;
        }
        socket.connect(&target.address.into()).attempt("connect to the server")?;
        let mut out = Vec::new();
        let name = format!("s{stream}");
        let session = if target.bare {
            out.extend_from_slice(&floor::hello(goal == Goal::Publish, stream));
            Session::bare(goal, &name, target.chunk_size)
        } else {
            Session::client(goal, &target.address.to_string(), &name, &mut out)
        };
        let index = self.add(socket.into(), Wire::Rtmp(session), role, out)?;
        self.flush(index)?;
        self.after_input(index);
        Ok(index)
    }

    fn add(
        &mut self,
        socket: TcpStream,
        session: Wire,
        role: Role,
        out: Vec<u8>,
    ) -> Result<usize, BenchError> {
        socket.set_nonblocking(true).attempt("make a socket non-blocking")?;
        socket.set_nodelay(true).attempt("set TCP_NODELAY")?;
        let index = self.connections.len();
        epoll::add(&self.epoll, &socket, EventData::new_u64(index as u64), EventFlags::IN)
            .attempt("watch a socket")?;
        self.connections.push(Some(Connection { socket, session, role, out, blocked: false }));
        Ok(index)
    }

    /// Closes a connection.
    pub(crate) fn close(&mut self, index: usize) {
        self.connections[index] = None;
    }

    /// Counts anew: bytes from now on, latencies of frames sent until `end_ns`.
    pub(crate) fn open_window(&mut self, end_ns: u64) {
        self.tally = Tally::default();
        self.window = (now_ns(), end_ns);
    }

    /// Whether all publishers were admitted.
    pub(crate) fn may_publish(&self) -> bool {
        let mut waiting = self.connections.iter().flatten().filter(|waiting| !waiting.session.is_running());
        !waiting.any(|connection| matches!(connection.role, Role::Publisher { .. }))
    }

    /// Lets all publishers begin, each stream at a part of a frame's time of its own: how their frames fall together
    /// decides how often a server is woken, and so has to be the same for each.
    pub(crate) fn publish(&mut self) -> Result<(), BenchError> {
        let now = now_ns();
        for index in 0..self.connections.len() {
            let Some(connection) = &mut self.connections[index] else { continue };
            let Connection { session: Wire::Rtmp(session), role, out, .. } = connection else { continue };
            let Role::Publisher { source, start_ns: start @ None } = role else { continue };
            session.begin_media(self.target.chunk_size, self.target.bare, out);
            let begin = now + source.frame_phase_ns();
            *start = Some(begin);
            self.timers.push(Reverse((begin, index, Timer::Frame(false))));
            if self.target.audio {
                self.timers.push(Reverse((begin, index, Timer::Frame(true))));
            }
            self.flush(index)?;
        }
        Ok(())
    }

    /// No more frames are sent.
    pub(crate) fn stop_publishing(&mut self) {
        self.publishing = false;
    }

    /// Runs until `done` holds, or `end_ns` passed; says whether `done` held.
    pub(crate) fn run(&mut self, end_ns: u64, done: impl Fn(&Self) -> bool) -> Result<bool, BenchError> {
        loop {
            if done(self) {
                return Ok(true);
            }
            let mut now = now_ns();
            if now >= end_ns {
                return Ok(false);
            }
            while let Some(&Reverse((due, index, timer))) = self.timers.peek() {
                if due > now {
                    break;
                }
                self.timers.pop();
                self.fire(index, timer, due)?;
                now = now_ns();
            }
            let next = self.timers.peek().map_or(end_ns, |Reverse((due, ..))| (*due).min(end_ns));
            self.poll(next.saturating_sub(now))?;
        }
    }

    fn poll(&mut self, wait_ns: u64) -> Result<(), BenchError> {
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let wait_ns = wait_ns.min(200_000_000) as i64;
        let timeout = Timespec { tv_sec: 0, tv_nsec: wait_ns };
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).attempt("wait for events"),
        }
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(BenchError::Interrupted);
        }
        for event in &events {
            // The kernel's structure is packed: its fields can be copied, not borrowed.
            let (flags, data) = (event.flags, event.data.u64());
            if data >= LISTENERS {
                let (listener, kmp) = &self.listeners[(data - LISTENERS) as usize];
                let (socket, _) = listener.accept().attempt("accept")?;
                let role = Role::Receiver { verifier: None, slow: None };
                let session =
                    kmp.map_or_else(|| Wire::Rtmp(Session::sink()), |acks| Wire::Kmp(Receiver::new(acks)));
                self.add(socket, session, role, Vec::new())?;
                continue;
            }
            if flags.contains(EventFlags::OUT) {
                self.flush(data as usize)?;
            }
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                self.read(data as usize, READ_LEN)?;
            }
        }
        self.events = events;
        Ok(())
    }

    fn fire(&mut self, index: usize, timer: Timer, due: u64) -> Result<(), BenchError> {
        match timer {
            Timer::Frame(_) if !self.publishing => Ok(()),
            Timer::Frame(audio) => self.send_frame(index, if audio { Track::Audio } else { Track::Video }),
            Timer::SlowRead => {
                let Some(connection) = &self.connections[index] else { return Ok(()) };
                let Role::Receiver { slow: Some(rate), .. } = connection.role else { return Ok(()) };
                self.timers.push(Reverse((due + SLOW_TURN_NS, index, timer)));
                self.read(index, ((rate * SLOW_TURN_NS / 1_000_000_000) as usize).clamp(1, READ_LEN))
            }
        }
    }

    fn send_frame(&mut self, index: usize, track: Track) -> Result<(), BenchError> {
        let Some(connection) = &mut self.connections[index] else { return Ok(()) };
        let Role::Publisher { source, start_ns: Some(start_ns) } = &mut connection.role else {
            return Ok(());
        };
        let due = source.due_ns(track);
        let now = now_ns();
        self.tally.pacing_late_ns = self.tally.pacing_late_ns.max(now.saturating_sub(*start_ns + due));
        source.write_frame(track, now, &mut self.body);
        let timestamp = (due / 1_000_000) as u32;
        if let Wire::Rtmp(session) = &connection.session {
            session.write_media(track, timestamp, &self.body, &mut connection.out);
        }
        let next = *start_ns + source.due_ns(track);
        self.timers.push(Reverse((next, index, Timer::Frame(track == Track::Audio))));
        self.flush(index)
    }

    fn read(&mut self, index: usize, limit: usize) -> Result<(), BenchError> {
        let Some(connection) = &mut self.connections[index] else { return Ok(()) };
        let len = match connection.socket.read(&mut self.scratch[..limit]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(());
            }
            Ok(0) | Err(_) => return self.closed_by_peer(index),
            Ok(len) => len,
        };
        let now = now_ns();
        let Connection { session, role, out, .. } = connection;
        let tally = &mut self.tally;
        if matches!(role, Role::Receiver { .. } | Role::Joiner { .. }) {
            tally.delivered += len as u64;
        }
        let mut input = &self.scratch[..len];
        if let (Wire::Kmp(receiver), Role::Receiver { verifier: verifier @ None, .. }) =
            (&mut *session, &mut *role)
        {
            // The first frame may come with the packet that names the track.
            input = receiver.open(input)?;
            *verifier = receiver.track().map(|(stream, track)| Verifier::of_track(stream, track));
        }
        let window = self.window;
        let mut take = |track: Track, body: &[u8]| match role {
            Role::Receiver { verifier: Some(verifier), slow } => {
                let label = verifier.take(track, body);
                if let Some(label) = label.filter(|l| slow.is_none() && l.sent_ns >= window.0)
                    && label.sent_ns < window.1
                {
                    tally.latencies.push(now.saturating_sub(label.sent_ns));
                }
            }
            Role::Joiner { verifier, .. } => {
                verifier.take(track, body);
            }
            _ => {}
        };
        session.receive(input, out, &mut take)?;
        if !out.is_empty() {
            self.flush(index)?;
        }
        self.after_input(index);
        Ok(())
    }

    /// What a connection does when its session has moved on.
    fn after_input(&mut self, index: usize) {
        let Some(connection) = &mut self.connections[index] else { return };
        let Connection { session, role, socket, .. } = connection;
        if session.is_over() {
            self.ended += 1;
            return self.close(index);
        }
        match role {
            Role::Receiver { verifier: verifier @ None, .. } if session.is_running() => {
                let name = if let Wire::Rtmp(session) = session { session.name() } else { "" };
                let stream = name.strip_prefix('s').and_then(|number| number.parse().ok());
                *verifier = Some(Verifier::new(stream.unwrap_or(u16::MAX)));
            }
            Role::Receiver { slow: Some(_), verifier: Some(verifier) } if verifier.keyframe_seen() => {
                // From here on it is read by the clock alone.
                let quiet = EventFlags::empty();
                let armed = self.timers.iter().any(|Reverse((_, at, _))| *at == index);
                if !armed
                    && epoll::modify(&self.epoll, socket, EventData::new_u64(index as u64), quiet).is_ok()
                {
                    self.timers.push(Reverse((now_ns() + SLOW_TURN_NS, index, Timer::SlowRead)));
                }
            }
            Role::Joiner { began_ns, verifier } if verifier.keyframe_seen() => {
                self.tally.joins.push(now_ns() - *began_ns);
                self.close(index);
            }
            _ => {}
        }
    }

    fn closed_by_peer(&mut self, index: usize) -> Result<(), BenchError> {
        let role = self.connections[index].take().map(|connection| connection.role);
        match role {
            Some(Role::Publisher { .. }) => Err(BenchError::Closed("publishing")),
            Some(Role::Receiver { slow: None, .. }) => Err(BenchError::Closed("receiving")),
            _ => Ok(()),
        }
    }

    fn flush(&mut self, index: usize) -> Result<(), BenchError> {
        let Some(connection) = &mut self.connections[index] else { return Ok(()) };
        let Connection { socket, out, blocked, .. } = connection;
        let mut sent = 0;
        let mut blocks = false;
        while sent < out.len() && !blocks {
            match socket.write(&out[sent..]) {
                Ok(len) => sent += len,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => blocks = true,
                Err(_) => return self.closed_by_peer(index),
            }
        }
        out.drain(..sent);
        if blocks != *blocked {
            *blocked = blocks;
            let flags = if blocks { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            let data = EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, &*socket, data, flags).attempt("watch a socket")?;
        }
        Ok(())
    }
}
