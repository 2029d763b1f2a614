//! The loads, and one run of one load on one server.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::connection::{Connection, Role, Target};
use crate::engine::{Engine, now_ns};
use crate::error::{Attempt, BenchError};
use crate::media::{Source, Track};
use crate::meter::{self, PeakWatch};
use crate::peers::{Peer, Programs, Server, Settings};
use crate::session::Goal;
use crate::verify::{Faults, Verifier, percentile};

mod uplink;

pub(crate) use uplink::Uplink;

const SECOND: u64 = 1_000_000_000;
const READY_SECONDS: u64 = 20;
/// After which a server has given back what only its start needed.
const START_IS_OVER: Duration = Duration::from_secs(8);
const IDLE_CONNECTIONS: usize = 500;
const SLOW_SHARE: u64 = 10;

/// What is special about a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Publishers and players.
    Relay,
    /// The server pushes each stream to as many sinks as there would be players.
    Push,
    /// The same by KMP.
    Kmp {
        /// Whether the receivers acknowledge.
        acks: bool,
        /// Whether the server spools to disk.
        spool: bool,
    },
    /// Half the players read at a tenth of the rate.
    Slow,
    /// Players that come while the streams run.
    Join,
    /// Memory: empty, with idle connections, with streams.
    Idle,
}

/// One load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Its name in tables and options.
    pub name: &'static str,
    /// What is special about it.
    pub kind: Kind,
    /// Streams.
    pub publishers: u16,
    /// Video bits a second of each.
    pub bitrate: u64,
    /// Players (or sinks) of each.
    pub players: u16,
    /// fieldgate gathers its writes for 50 ms.
    pub gather: bool,
}

const fn load(name: &'static str, kind: Kind, publishers: u16, mbit: u64, players: u16) -> Load {
    Load { name, kind, publishers, bitrate: mbit * 1_000_000, players, gather: false }
}

/// Every load of `relay`, then the two of `fanout`, then those that `kmp` sets beside `push`.
pub(crate) const LOADS: [Load; 15] = [
    load("a", Kind::Relay, 8, 4, 4),
    load("b", Kind::Relay, 32, 1, 4),
    load("h", Kind::Relay, 8, 16, 8),
    load("push", Kind::Push, 8, 4, 2),
    load("slow", Kind::Slow, 8, 4, 4),
    load("join", Kind::Join, 8, 4, 1),
    load("idle", Kind::Idle, 8, 4, 1),
    Load { gather: true, ..load("gather-a", Kind::Relay, 8, 4, 4) },
    Load { gather: true, ..load("gather-b", Kind::Relay, 32, 1, 4) },
    Load { gather: true, ..load("gather-h", Kind::Relay, 8, 16, 8) },
    load("x1", Kind::Relay, 1, 2, 1),
    load("x100", Kind::Relay, 1, 2, 100),
    load("kmp", Kind::Kmp { acks: true, spool: false }, 8, 4, 2),
    load("spool", Kind::Kmp { acks: true, spool: true }, 8, 4, 2),
    load("unacked", Kind::Kmp { acks: false, spool: true }, 8, 4, 2),
];

impl Load {
    /// Whether the load says something about `peer`.
    pub(crate) fn suits(&self, peer: Peer) -> bool {
        match (self.kind, peer) {
            // The floor has no beginning of a stream to give to a late joiner.
            (Kind::Join, _) if peer.is_floor() => false,
            (Kind::Kmp { .. }, _) => peer == Peer::Fieldgate,
            (_, Peer::Nginx) => !self.gather,
            _ => true,
        }
    }

    /// Whether the server brings the streams to the receivers.
    fn is_pushed(&self) -> bool {
        matches!(self.kind, Kind::Push | Kind::Kmp { .. })
    }
}

/// How long and with what.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Measured seconds of each run.
    pub seconds: u64,
    /// Seconds before them.
    pub warm_up: u64,
    /// Chunk size of publishers.
    pub chunk_size: usize,
    /// Whether streams have sound.
    pub audio: bool,
    /// Frames per acknowledgement of a KMP receiver that acknowledges.
    pub ack_every: u32,
    /// fieldgate's spool settings, where a load has it spool.
    pub spool: serde_json::Value,
    /// The servers' programs.
    pub programs: Programs,
    /// Ends all waiting.
    pub interrupted: Arc<AtomicBool>,
}

/// What one run showed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    /// CPU seconds per GB (10^9 bytes) delivered.
    pub cpu_per_gb: f64,
    /// Megabits a second delivered.
    pub delivered_mbit: f64,
    /// Share of one core that the server took.
    pub cpu_share: f64,
    /// Share of one core that this generator took.
    pub generator_share: f64,
    /// Added latency, median, in microseconds.
    pub p50_us: f64,
    /// Added latency, 99th percentile, in microseconds.
    pub p99_us: f64,
    /// The longest that the generator itself was late, in milliseconds.
    pub pacing_late_ms: f64,
    /// Faults of all receivers that are not slow.
    pub faults: Faults,
    /// Changed or reordered frames of the slow ones; what they lost is the server's right.
    pub slow_faults: u64,
    /// Proportional set size before any connection, in MB; of load idle a while after the start.
    pub base_mb: f64,
    /// Its peak, in MB.
    pub peak_mb: f64,
    /// The resident set's peak, in MB.
    pub peak_rss_mb: f64,
    /// From connecting to the first whole keyframe, median, in milliseconds.
    pub join_p50_ms: f64,
    /// The same, 99th percentile.
    pub join_p99_ms: f64,
    /// Joiners that got there.
    pub joined: usize,
    /// Memory of an idle connection, in KB.
    pub idle_kb: f64,
    /// Memory that a stream added, in MB.
    pub stream_mb: f64,
    /// What only a KMP push shows.
    pub uplink: Option<Uplink>,
}

/// Runs `load` on a fresh server.
pub(crate) fn run(load: &Load, peer: Peer, plan: &Plan) -> Result<Outcome, BenchError> {
    if matches!(load.kind, Kind::Kmp { spool: true, .. }) {
        uplink::require_disk()?;
    }
    let mut sinks = Vec::new();
    if load.is_pushed() && !peer.is_floor() {
        for _ in 0..load.players {
            sinks.push(TcpListener::bind("127.0.0.1:0").attempt("bind a sink")?);
        }
    }
    let addresses = sinks.iter().map(|sink| sink.local_addr().attempt("ask for a sink's port"));
    let settings = Settings {
        sinks: addresses.collect::<Result<_, _>>()?,
        kmp: uplink::acks(load, plan).is_some(),
        spool: matches!(load.kind, Kind::Kmp { spool: true, .. }).then(|| plan.spool.clone()),
        files: None,
        gather: load.gather && peer == Peer::Fieldgate,
        connections: usize::from(load.publishers) * usize::from(load.players + 2) + IDLE_CONNECTIONS,
    };
    let mut server = Server::start(peer, &plan.programs, &settings)?;
    let target = Target {
        address: server.address,
        bare: peer.is_floor(),
        chunk_size: plan.chunk_size,
        audio: plan.audio,
    };
    let mut engine = Engine::new(&target, Arc::clone(&plan.interrupted))?;
    for sink in sinks {
        sink.set_nonblocking(true).attempt("make a sink non-blocking")?;
        engine.listen(sink, uplink::acks(load, plan))?;
    }
    let result = Run { load, plan, target, engine: &mut engine, server: &server }.go();
    // A server that died explains the error better than the closed connections do.
    if result.is_err() {
        server.check()?;
    }
    result
}

struct Run<'a> {
    load: &'a Load,
    plan: &'a Plan,
    target: Target,
    engine: &'a mut Engine,
    server: &'a Server,
}

impl Run<'_> {
    fn go(mut self) -> Result<Outcome, BenchError> {
        if self.load.kind == Kind::Idle {
            // The base is what a server has that came up a while ago.
            std::thread::sleep(START_IS_OVER);
        }
        let base = meter::memory(self.server.pid());
        let mut outcome = Outcome { base_mb: base.pss_kb as f64 / 1e3, ..Outcome::default() };
        if self.load.kind == Kind::Idle {
            outcome.idle_kb = self.idle()?;
        }
        let before_streams = meter::memory(self.server.pid());
        self.connect_streams()?;
        let peak = PeakWatch::start(self.server.pid());
        self.engine.run(now_ns() + self.plan.warm_up * SECOND, |_| false)?;
        self.measure(&mut outcome)?;
        let streams = f64::from(self.load.publishers);
        let last = meter::memory(self.server.pid());
        outcome.stream_mb = (last.pss_kb as f64 - before_streams.pss_kb as f64) / 1e3 / streams;
        outcome.peak_mb = peak.peak().pss_kb as f64 / 1e3;
        outcome.peak_rss_mb = peak.peak().rss_kb as f64 / 1e3;
        self.drain(&mut outcome)?;
        if let Kind::Kmp { spool, .. } = self.load.kind {
            self.end_uplink(spool, &mut outcome)?;
        }
        Ok(outcome)
    }

    fn connect_streams(&mut self) -> Result<(), BenchError> {
        // The floor hands on bytes, not messages: only who is there from the start can read them.
        if self.target.bare {
            self.connect_receivers()?;
            self.connect_publishers()?;
        } else {
            self.connect_publishers()?;
            self.connect_receivers()?;
        }
        let expected = usize::from(self.load.publishers) * usize::from(self.load.players);
        self.wait("the receivers' first keyframes", |engine| {
            receivers(engine).filter(|(verifier, _)| verifier.keyframe_seen()).count() == expected
        })
    }

    fn connect_publishers(&mut self) -> Result<(), BenchError> {
        let Load { publishers, bitrate, .. } = *self.load;
        for stream in 0..publishers {
            let phase = f64::from(stream) / f64::from(publishers);
            let role = Role::Publisher { source: Source::new(stream, bitrate, phase), start_ns: None };
            self.engine.connect(&self.target, Goal::Publish, stream, role)?;
        }
        self.wait("the publishers' start", Engine::may_publish)?;
        self.engine.publish()
    }

    fn connect_receivers(&mut self) -> Result<(), BenchError> {
        let Load { kind, publishers, bitrate, players, .. } = *self.load;
        if self.load.is_pushed() && !self.target.bare {
            return Ok(());
        }
        for player in 0..players {
            for stream in 0..publishers {
                let slow = (kind == Kind::Slow && player % 2 == 1).then_some(bitrate / 8 / SLOW_SHARE);
                let role = Role::Receiver { verifier: Some(Verifier::new(stream)), slow };
                self.engine.connect(&self.target, Goal::Play, stream, role)?;
            }
            self.engine.run(now_ns() + SECOND / 50, |_| false)?;
        }
        Ok(())
    }

    fn wait(&mut self, what: &str, done: impl Fn(&Engine) -> bool) -> Result<(), BenchError> {
        if self.engine.run(now_ns() + READY_SECONDS * SECOND, done)? {
            return Ok(());
        }
        Err(BenchError::Timeout { what: what.to_owned(), seconds: READY_SECONDS })
    }

    fn measure(&mut self, outcome: &mut Outcome) -> Result<(), BenchError> {
        // Slow readers take their time to fill the buffers between.
        let seconds = self.plan.seconds * if self.load.kind == Kind::Slow { 2 } else { 1 };
        let end = now_ns() + seconds * SECOND;
        self.engine.open_window(end);
        let (began, cpu, own) = (now_ns(), meter::cpu_ns(self.server.pid()), own_cpu_ns());
        if self.load.kind == Kind::Join {
            self.join(end)?;
        } else {
            self.engine.run(end, |_| false)?;
        }
        let cpu = (meter::cpu_ns(self.server.pid()) - cpu) as f64;
        let (wall, own) = ((now_ns() - began) as f64, (own_cpu_ns() - own) as f64);
        let tally = &mut self.engine.tally;
        let delivered = tally.delivered as f64;
        outcome.cpu_per_gb = cpu / delivered.max(1.0);
        outcome.delivered_mbit = delivered * 8e3 / wall;
        outcome.cpu_share = cpu / wall;
        outcome.generator_share = own / wall;
        outcome.p50_us = percentile(&mut tally.latencies, 0.5) as f64 / 1e3;
        outcome.p99_us = percentile(&mut tally.latencies, 0.99) as f64 / 1e3;
        outcome.pacing_late_ms = tally.pacing_late_ns as f64 / 1e6;
        outcome.join_p50_ms = percentile(&mut tally.joins, 0.5) as f64 / 1e6;
        outcome.join_p99_ms = percentile(&mut tally.joins, 0.99) as f64 / 1e6;
        outcome.joined = tally.joins.len();
        Ok(())
    }

    fn join(&mut self, end: u64) -> Result<(), BenchError> {
        let mut stream = 0;
        while now_ns() < end {
            let role = Role::Joiner { began_ns: now_ns(), verifier: Verifier::new(stream) };
            self.engine.connect(&self.target, Goal::Play, stream, role)?;
            stream = (stream + 1) % self.load.publishers;
            self.engine.run(now_ns() + SECOND / 20, |_| false)?;
        }
        // Servers without a GOP cache need the rest of a GOP for the last ones.
        self.engine.run(now_ns() + 3 * SECOND, |engine| {
            let joins = |role: &Role| matches!(role, Role::Joiner { .. });
            !engine.connections.iter().flatten().any(|connection| joins(&connection.role))
        })?;
        Ok(())
    }

    fn idle(&mut self) -> Result<f64, BenchError> {
        let before = meter::memory(self.server.pid());
        for count in 0..IDLE_CONNECTIONS {
            self.engine.connect(&self.target, Goal::Idle, 0, Role::Idle)?;
            if count % 50 == 49 {
                self.engine.run(now_ns() + SECOND / 50, |_| false)?;
            }
        }
        self.wait("500 handshakes", |engine| {
            engine.connections.iter().flatten().filter(|idle| idle.session.is_running()).count()
                == IDLE_CONNECTIONS
        })?;
        self.engine.run(now_ns() + SECOND, |_| false)?;
        let after = meter::memory(self.server.pid());
        for index in 0..IDLE_CONNECTIONS {
            self.engine.close(index);
        }
        self.engine.run(now_ns() + SECOND / 2, |_| false)?;
        Ok((after.pss_kb as f64 - before.pss_kb as f64) / IDLE_CONNECTIONS as f64)
    }

    fn drain(&mut self, outcome: &mut Outcome) -> Result<(), BenchError> {
        self.engine.stop_publishing();
        let ends: Vec<[u32; 2]> = self.engine.connections.iter().flatten().filter_map(sent_by).collect();
        let ends_of =
            |verifier: &Verifier| ends.get(usize::from(verifier.stream())).copied().unwrap_or([0; 2]);
        self.engine.run(now_ns() + 3 * SECOND, |engine| {
            receivers(engine).all(|(verifier, slow)| slow || verifier.is_complete(ends_of(verifier)))
        })?;
        for (verifier, slow) in receivers(self.engine) {
            let faults = verifier.faults_at_end(ends_of(verifier));
            if slow {
                outcome.slow_faults += faults.reordered + faults.changed;
            } else {
                outcome.faults.add(faults);
            }
        }
        Ok(())
    }
}

fn receivers(engine: &Engine) -> impl Iterator<Item = (&Verifier, bool)> {
    engine.connections.iter().flatten().filter_map(|connection| match &connection.role {
        Role::Receiver { verifier: Some(verifier), slow } => Some((verifier, slow.is_some())),
        _ => None,
    })
}

/// The numbers that a publisher's next frames would have; publishers stand in the order of their streams.
fn sent_by(connection: &Connection) -> Option<[u32; 2]> {
    match &connection.role {
        Role::Publisher { source, .. } => {
            Some([source.next_sequence(Track::Video), source.next_sequence(Track::Audio)])
        }
        _ => None,
    }
}

fn own_cpu_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as u64 * SECOND + now.tv_nsec as u64
}
