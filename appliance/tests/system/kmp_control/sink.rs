//! A receiver that acknowledges and closes as the recorded one did.

use super::golden::Connection;
use super::packets::{self, Packet};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What came on one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Taken {
    /// The receiver's port in the recording.
    pub(super) port: u16,
    /// `v1` or `a1`.
    pub(super) track: String,
    /// All whole packets.
    pub(super) packets: Vec<Packet>,
    /// No more will come.
    pub(super) over: bool,
}

#[derive(Default)]
struct State {
    /// Not yet played parts of the script, by port and track.
    script: BTreeMap<(u16, String), Vec<Connection>>,
    /// Recorded and real id of each track's first frame.
    first_ids: BTreeMap<String, (u64, u64)>,
    taken: Vec<Taken>,
}

/// Receivers on ports of their own.
#[derive(Clone, Default)]
pub(super) struct Sinks {
    state: Arc<Mutex<State>>,
}

impl Sinks {
    /// Receivers for these recorded connections, and each recorded port with the real one. Their threads end with the
    /// test's process.
    pub(super) fn start(connections: &[Connection], ports: &[u16]) -> (Sinks, Vec<(u16, u16)>) {
        let sinks = Sinks::default();
        {
            let mut state = sinks.state.lock().unwrap();
            for connection in connections {
                let key = (connection.port, connection.track.clone());
                let first_id = connection.packets[0].initial_frame_id();
                state.first_ids.entry(connection.track.clone()).or_insert((first_id, 0));
                state.script.entry(key).or_default().push(connection.clone());
            }
        }
        let real = ports.iter().map(|port| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let (port, real) = (*port, listener.local_addr().unwrap().port());
            let sinks = sinks.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let sinks = sinks.clone();
                    std::thread::spawn(move || sinks.serve(stream, port));
                }
            });
            (port, real)
        });
        let real = real.collect();
        (sinks, real)
    }

    /// What came so far, in the order in which it began.
    pub(super) fn taken(&self) -> Vec<Taken> {
        self.state.lock().unwrap().taken.clone()
    }

    /// Recorded and real id of a track's first frame.
    pub(super) fn first_ids(&self, track: &str) -> (u64, u64) {
        self.state.lock().unwrap().first_ids.get(track).copied().unwrap_or_default()
    }

    fn serve(&self, mut stream: TcpStream, port: u16) {
        let (mut bytes, mut nth, mut plan) = (Vec::new(), None, None::<Connection>);
        let (mut frames, mut acked) = (0, 0);
        let mut piece = vec![0; 65_536];
        'reading: loop {
            let len = stream.read(&mut piece).unwrap_or(0);
            if len == 0 {
                break;
            }
            bytes.extend_from_slice(&piece[..len]);
            let (packets, used) = packets::parse(&bytes);
            bytes.drain(..used);
            for packet in packets {
                let (kind, nth) = (
                    packet.kind.clone(),
                    *nth.get_or_insert_with(|| {
                        let (nth, script) = self.begin(port, &packet);
                        plan = script;
                        nth
                    }),
                );
                self.state.lock().unwrap().taken[nth].packets.push(packet);
                frames += usize::from(matches!(kind.as_str(), "fram" | "eost"));
                let track = self.state.lock().unwrap().taken[nth].track.clone();
                if let Some(plan) = &plan {
                    while let Some((_, ack)) = plan.acks.get(acked).filter(|(after, _)| *after <= frames) {
                        let ack = self.shifted(&track, ack);
                        // A sender that refused an earlier one has closed.
                        drop(stream.write_all(&ack));
                        acked += 1;
                    }
                }
                let closes = plan.as_ref().and_then(|plan| plan.closed_after) == Some(frames);
                if closes || kind == "eost" {
                    break 'reading;
                }
            }
        }
        if let Some(nth) = nth {
            self.state.lock().unwrap().taken[nth].over = true;
        }
        std::thread::sleep(plan.map_or(Duration::ZERO, |plan| plan.linger));
        drop(stream.shutdown(Shutdown::Both));
    }

    /// Notes a connection; its number and what it shall do.
    fn begin(&self, port: u16, connect: &Packet) -> (usize, Option<Connection>) {
        let (_, track) = connect.names();
        let mut state = self.state.lock().unwrap();
        let first_id = state.first_ids.entry(track.clone()).or_default();
        if first_id.1 == 0 {
            first_id.1 = connect.initial_frame_id();
        }
        let plan = state.script.get_mut(&(port, track.clone())).filter(|plans| !plans.is_empty());
        let plan = plan.map(|plans| plans.remove(0));
        state.taken.push(Taken { port, track, ..Taken::default() });
        (state.taken.len() - 1, plan)
    }

    /// A recorded ack for the ids of this run.
    fn shifted(&self, track: &str, acks: &[u8]) -> Vec<u8> {
        let (recorded, real) = self.first_ids(track);
        let mut acks = acks.to_vec();
        let mut at = 0;
        while at + 40 <= acks.len() {
            let len = packets::u32_at(&acks, at + 4) as usize;
            let id = packets::u64_at(&acks, at + 16).wrapping_sub(recorded).wrapping_add(real);
            acks[at + 16..at + 24].copy_from_slice(&id.to_le_bytes());
            at += len;
        }
        acks
    }
}
