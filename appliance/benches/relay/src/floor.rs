//! The floor: one thread that reads a socket and writes the same bytes to the others of its stream at
//! once. No parsing, no buffering unless a socket would block. What a relay costs beyond this is its own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::error::{Attempt, BenchError};

const LISTENER: u64 = u64::MAX;
const STDIN: u64 = u64::MAX - 1;
/// A subscriber that falls further behind than this is closed.
pub(crate) const MAX_PENDING: usize = 4 << 20;

/// What a connection says first: its part and the stream's number.
pub(crate) fn hello(publishes: bool, stream: u16) -> [u8; 3] {
    let [high, low] = stream.to_be_bytes();
    [if publishes { b'P' } else { b'S' }, high, low]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Unknown,
    Publisher(u16),
    Subscriber(u16),
}

struct Peer {
    socket: TcpStream,
    part: Part,
    pending: Vec<u8>,
}

/// Serves, reading at most `read_len` bytes at once, until standard input ends; the first line of standard output is the port.
pub(crate) fn serve(read_len: usize) -> Result<(), BenchError> {
    let listener = TcpListener::bind("127.0.0.1:0").attempt("bind the floor")?;
    let port = listener.local_addr().attempt("ask for the floor's port")?.port();
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{port}").and_then(|()| stdout.flush()).attempt("tell the floor's port")?;

    let epoll = epoll::create(CreateFlags::CLOEXEC).attempt("create an epoll")?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)
        .attempt("watch the listener")?;
    epoll::add(&epoll, std::io::stdin(), EventData::new_u64(STDIN), EventFlags::IN).attempt("watch stdin")?;
    let mut peers: Vec<Option<Peer>> = Vec::new();
    let mut buffer = vec![0; read_len.max(3)];
    let mut events: Vec<Event> = Vec::with_capacity(256);
    loop {
        events.clear();
        match epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).attempt("wait for events"),
        }
        for event in &events {
            // The kernel's structure is packed: its fields can be copied, not borrowed.
            let flags = event.flags;
            match event.data.u64() {
                STDIN => return Ok(()),
                LISTENER => {
                    let (socket, _) = listener.accept().attempt("accept")?;
                    socket.set_nonblocking(true).attempt("make a socket non-blocking")?;
                    socket.set_nodelay(true).attempt("set TCP_NODELAY")?;
                    let data = EventData::new_u64(peers.len() as u64);
                    epoll::add(&epoll, &socket, data, EventFlags::IN).attempt("watch a socket")?;
                    peers.push(Some(Peer { socket, part: Part::Unknown, pending: Vec::new() }));
                }
                index => {
                    let index = index as usize;
                    if flags.contains(EventFlags::OUT) {
                        flush(&epoll, &mut peers, index);
                    }
                    if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                        read(&epoll, &mut peers, index, &mut buffer);
                    }
                }
            }
        }
    }
}

fn read(epoll: &impl std::os::fd::AsFd, peers: &mut [Option<Peer>], index: usize, buffer: &mut [u8]) {
    let Some(peer) = &mut peers[index] else { return };
    // The hello is read alone, so that what follows it is already media.
    let limit = if peer.part == Part::Unknown { 3 } else { buffer.len() };
    match (peer.socket.read(&mut buffer[..limit]), peer.part) {
        (Err(error), _) if error.kind() == std::io::ErrorKind::WouldBlock => {}
        (Ok(0) | Err(_), _) => peers[index] = None,
        (Ok(len), Part::Publisher(stream)) => {
            for (other, slot) in peers.iter_mut().enumerate() {
                let subscriber = slot.as_mut().filter(|peer| peer.part == Part::Subscriber(stream));
                if subscriber.is_some_and(|peer| !send(epoll, peer, other, &buffer[..len])) {
                    *slot = None;
                }
            }
        }
        (Ok(3), Part::Unknown) => {
            let stream = u16::from_be_bytes([buffer[1], buffer[2]]);
            peer.part = if buffer[0] == b'P' { Part::Publisher(stream) } else { Part::Subscriber(stream) };
        }
        (Ok(_), Part::Unknown) => peers[index] = None,
        (Ok(_), Part::Subscriber(_)) => {}
    }
}

/// Whether the subscriber may stay.
fn send(epoll: &impl std::os::fd::AsFd, peer: &mut Peer, index: usize, bytes: &[u8]) -> bool {
    if !peer.pending.is_empty() {
        peer.pending.extend_from_slice(bytes);
        return peer.pending.len() <= MAX_PENDING;
    }
    let sent = match peer.socket.write(bytes) {
        Ok(sent) => sent,
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
        Err(_) => return false,
    };
    if sent < bytes.len() {
        peer.pending.extend_from_slice(&bytes[sent..]);
        return watch(epoll, peer, index, EventFlags::IN | EventFlags::OUT);
    }
    true
}

fn flush(epoll: &impl std::os::fd::AsFd, peers: &mut [Option<Peer>], index: usize) {
    let Some(peer) = &mut peers[index] else { return };
    let stays = match peer.socket.write(&peer.pending) {
        Ok(sent) => {
            peer.pending.drain(..sent);
            !peer.pending.is_empty() || watch(epoll, peer, index, EventFlags::IN)
        }
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    };
    if !stays {
        peers[index] = None;
    }
}

fn watch(epoll: &impl std::os::fd::AsFd, peer: &Peer, index: usize, flags: EventFlags) -> bool {
    epoll::modify(epoll, &peer.socket, EventData::new_u64(index as u64), flags).is_ok()
}
