//! A KMP receiver that outlives the gateway's power cut: it notes when what came, and acknowledges all.

use super::block::Clock;
use fieldgate_proto::kmp::{Ack, Direction, Limits, Packet, PacketReader};
use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tokio_util::bytes::BytesMut;

/// One frame, as far as two can be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Unit {
    /// Capture time, microseconds since 1970.
    pub(super) micros: i64,
    /// Of its bytes.
    digest: u64,
}

/// A unit, when it came, and how often it came again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Came {
    pub(super) unit: Unit,
    pub(super) at: u64,
    pub(super) again: u64,
}

/// By track and id.
pub(super) type Got = BTreeMap<String, BTreeMap<u64, Came>>;

pub(super) struct FarEnd {
    address: SocketAddr,
    got: Arc<Mutex<Got>>,
    faults: Arc<Mutex<Vec<String>>>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    closed: Arc<AtomicBool>,
    door: Option<JoinHandle<()>>,
    /// None once it is over: nothing is written down any more.
    clock: Option<Clock>,
}

impl FarEnd {
    /// `got`: what it has already.
    pub(super) fn new(address: SocketAddr, clock: Option<Clock>, got: Got) -> FarEnd {
        let got = Arc::new(Mutex::new(got));
        let mut far = FarEnd {
            address,
            got,
            faults: Arc::default(),
            open: Arc::default(),
            closed: Arc::default(),
            door: None,
            clock,
        };
        far.come();
        far
    }

    /// It is there from now on.
    pub(super) fn come(&mut self) {
        let door = TcpListener::bind(self.address).unwrap();
        let (got, open, clock) = (self.got.clone(), self.open.clone(), self.clock.clone());
        let faults = self.faults.clone();
        self.closed = Arc::default();
        let closed = self.closed.clone();
        self.door = Some(std::thread::spawn(move || {
            for stream in door.incoming() {
                if closed.load(Ordering::Relaxed) {
                    return;
                }
                let stream = stream.unwrap();
                open.lock().unwrap().push(stream.try_clone().unwrap());
                let (got, clock, faults) = (got.clone(), clock.clone(), faults.clone());
                // Ends with its connection.
                std::thread::spawn(move || {
                    if let Err(fault) = take(&stream, &got, clock.as_ref()) {
                        faults.lock().unwrap().push(fault);
                    }
                    stream.shutdown(Shutdown::Both).ok();
                });
            }
        }));
    }

    /// It is gone until it comes again.
    pub(super) fn go(&mut self) {
        let Some(door) = self.door.take() else { return };
        self.closed.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
        door.join().unwrap();
        for stream in self.open.lock().unwrap().drain(..) {
            stream.shutdown(Shutdown::Both).ok();
        }
    }

    /// All that came, which was as it should be.
    pub(super) fn got(&self) -> Got {
        let faults = self.faults.lock().unwrap().clone();
        assert!(faults.is_empty(), "{faults:?}");
        self.got.lock().unwrap().clone()
    }

    pub(super) fn count(&self, track: &str) -> usize {
        self.got.lock().unwrap().get(track).map_or(0, BTreeMap::len)
    }
}

impl Drop for FarEnd {
    fn drop(&mut self) {
        self.go();
    }
}

/// One connection.
fn take(mut stream: &TcpStream, got: &Mutex<Got>, clock: Option<&Clock>) -> Result<(), String> {
    let mut reader = PacketReader::new(Direction::ToReceiver, Limits::default());
    let (mut track, mut next_id, mut timescale) = (String::new(), 0, 0);
    let mut bytes = vec![0; 64 << 10];
    while let Ok(len @ 1..) = stream.read(&mut bytes) {
        let (mut input, acked) = (&bytes[..len], next_id);
        let mut ended = false;
        while let Some(packet) = reader.read(&mut input).map_err(|error| error.to_string())? {
            match packet {
                Packet::Connect(connect) => {
                    (track, next_id) = (connect.track_id.to_string(), connect.initial_frame_id);
                }
                Packet::MediaInfo(info) => timescale = i64::from(info.timescale),
                Packet::Frame(frame) => {
                    let mut hasher = DefaultHasher::new();
                    frame.payload().hash(&mut hasher);
                    if timescale == 0 {
                        return Err(format!("{track}: {next_id} came without what it is decoded by"));
                    }
                    let micros = i128::from(frame.head.created) * 1_000_000 / i128::from(timescale);
                    let unit = Unit { micros: micros as i64, digest: hasher.finish() };
                    let at = clock.map_or(u64::MAX, Clock::now);
                    let mut got = got.lock().unwrap();
                    let track_got = got.entry(track.clone()).or_default();
                    let came = track_got.entry(next_id).and_modify(|came| came.again += 1);
                    let came = came.or_insert(Came { unit, at, again: 0 });
                    if came.unit != unit {
                        return Err(format!("{track}: {next_id} was {:?} and is {unit:?} now", came.unit));
                    }
                    next_id += 1;
                }
                Packet::EndOfStream => ended = true,
                _ => {}
            }
        }
        if next_id > acked || ended {
            let mut ack = BytesMut::new();
            Ack { frame_id: next_id, upstream_frame_id: 0, offset: 0 }.encode(&mut ack);
            if stream.write_all(&ack).is_err() || ended {
                return Ok(());
            }
        }
    }
    Ok(())
}
