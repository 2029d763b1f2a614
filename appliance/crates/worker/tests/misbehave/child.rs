//! The worker's side: behaves as its job's name says.

use bytes::Bytes;
use fieldgate_hub::link::{Outbox, OutboxBound};
use fieldgate_media::{Codec, Ticks, Track, TrackId, Tracks, UnitHead};
use fieldgate_model::job::{EncoderTrial, Failure, Guard, Phase, Work, WorkerCommand, WorkerStatus};
use fieldgate_worker::child::{Entered, enter, next_command};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::io::{IoSlice, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

/// Between two units, 10 ms.
pub(crate) const STEP_TICKS: i64 = 900;

#[allow(clippy::disallowed_methods, reason = "a main knows the time")]
fn now() -> Instant {
    Instant::now()
}

pub(crate) fn main() -> ExitCode {
    // With less stack than Rust's fault handler believes, a stack overflow is an ordinary segmentation fault to it.
    let small = Rlimit { current: Some(1 << 20), maximum: Some(1 << 20) };
    setrlimit(Resource::Stack, small).unwrap();
    let Entered { link, commands, job, guards } = match enter(now()) {
        Ok(entered) => entered,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let mut worker = Worker { link, outbox: Outbox::new(OutboxBound::default()), next: 0, guards };
    if let Work::ProbeEncoders(wish) = &job.work {
        worker.prove(&wish.skip);
        return ExitCode::SUCCESS;
    }
    match job.name.as_str() {
        "no-pulse-at-all" => sleep_for_ever(),
        "healthy" | "ignores-stop" => {
            worker.begin();
            worker.serve(commands, job.name == "ignores-stop");
            return ExitCode::SUCCESS;
        }
        "no-units" => worker.pulses_only(),
        how => {
            worker.begin();
            worker.units(20);
            if let Some(probe) = how.strip_prefix("probe ") {
                let cause = probe::all(probe);
                worker.status(&WorkerStatus {
                    phase: Phase::Failed,
                    sandbox: worker.guards.clone(),
                    failure: Some(Failure { cause, ..Failure::default() }),
                    ..WorkerStatus::default()
                });
                return ExitCode::from(2);
            }
            worker.misbehave(how);
        }
    }
    ExitCode::SUCCESS
}

struct Worker {
    link: UnixStream,
    outbox: Outbox<Bytes>,
    next: i64,
    guards: Vec<Guard>,
}

impl Worker {
    fn begin(&mut self) {
        self.outbox.push_pulse();
        self.outbox.push_tracks(&Tracks::new(vec![Track::new(TrackId::VIDEO, Codec::H264, Bytes::new())]));
        self.send();
    }

    fn send(&mut self) {
        while let Some(sending) = self.outbox.sending() {
            let pieces = [IoSlice::new(sending.head), IoSlice::new(sending.body)];
            match self.link.write_vectored(&pieces) {
                Ok(sent) => self.outbox.advance(sent),
                Err(_) => std::process::exit(0),
            }
        }
    }

    fn unit_of(&mut self, payload: Bytes) {
        let dts = Ticks::new(self.next * STEP_TICKS);
        let head = UnitHead {
            track: TrackId::VIDEO,
            dts,
            pts: dts,
            source_dts: dts,
            source_pts: dts,
            keyframe: self.next % 10 == 0,
            captured: None,
        };
        self.next += 1;
        assert!(self.outbox.push_unit(&head, payload));
        self.send();
    }

    fn units(&mut self, count: usize) {
        for _ in 0..count {
            self.unit_of(Bytes::from(vec![7; 5000]));
        }
    }

    fn pulse(&mut self) {
        self.outbox.push_pulse();
        self.send();
    }

    fn status(&mut self, status: &WorkerStatus) {
        self.outbox.push_status(serde_json::to_vec(status).unwrap().into());
        self.send();
    }

    /// A unit every 10 ms, a pulse every 100, commands as they come.
    fn serve(&mut self, mut commands: fieldgate_hub::link::Inbound, ignores_stop: bool) {
        let (to_main, inbox) = sync_channel(4);
        let link = self.link.try_clone().unwrap();
        let at = now();
        std::thread::spawn(move || {
            while let Ok(command) = next_command(&link, &mut commands, at) {
                to_main.send(command).unwrap();
            }
        });
        loop {
            self.units(1);
            if self.next % 10 == 0 {
                self.pulse();
            }
            match inbox.recv_timeout(Duration::from_millis(10)) {
                Ok(WorkerCommand::Stop) if !ignores_stop => return,
                Ok(WorkerCommand::Bitrate(bits)) => {
                    self.status(&WorkerStatus {
                        source: format!("bitrate {bits}"),
                        ..WorkerStatus::default()
                    });
                }
                _ => {}
            }
        }
    }

    fn pulses_only(&mut self) -> ! {
        loop {
            self.pulse();
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Three encoders: one whose driver hangs, one that crashes, one that works.
    fn prove(&mut self, skip: &[String]) {
        self.pulse();
        let trial = |name: &str, reason: &str| EncoderTrial {
            name: name.into(),
            hardware: true,
            chosen: reason == "works",
            works: reason == "works",
            reason: reason.into(),
            measured: None,
        };
        let mut trials = Vec::new();
        for name in ["first", "second", "third"] {
            let skipped = skip.iter().any(|skip| skip == name);
            let reason = match name {
                "third" => "works",
                _ if skipped => "left out",
                _ => EncoderTrial::UNDER_WAY,
            };
            trials.push(trial(name, reason));
            let phase = if name == "third" { Phase::Done } else { Phase::Starting };
            self.status(&WorkerStatus { encoders: trials.clone(), phase, ..WorkerStatus::default() });
            match name {
                "first" if !skipped => sleep_for_ever(),
                "second" if !skipped => _ = overflow(0),
                _ => {}
            }
        }
    }

    fn raw(&mut self, bytes: &[u8]) {
        let _ = self.link.write_all(bytes);
    }

    fn misbehave(&mut self, how: &str) {
        match how {
            "segfault" => {
                overflow(0);
            }
            "abort" => {
                eprintln!("last words");
                std::process::abort();
            }
            "exit" => std::process::exit(7),
            "hang" => sleep_for_ever(),
            "leak" => {
                let mut hoard: Vec<Vec<u8>> = Vec::new();
                loop {
                    hoard.push(vec![1; 1 << 20]);
                    self.pulse_sometimes(hoard.len());
                }
            }
            "flood-small" => loop {
                self.unit_of(Bytes::from_static(b"x"));
            },
            "flood-large" => {
                let large = Bytes::from(vec![1; 1 << 20]);
                loop {
                    self.unit_of(large.clone());
                }
            }
            "flood-status" => loop {
                self.status(&WorkerStatus::default());
            },
            "flood-stderr" => loop {
                eprintln!("{}", "noise ".repeat(100));
            },
            "four-gigabytes" => {
                let mut head = [0; 40];
                head[0] = 1;
                head[3] = 1;
                head[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
                self.raw(&head);
                sleep_for_ever();
            }
            "bad-frame" => {
                self.raw(&[0xaa; 4096]);
                sleep_for_ever();
            }
            "bad-status" => {
                self.outbox.push_status(Bytes::from_static(b"{\"phase\": 5}"));
                self.send();
                sleep_for_ever();
            }
            "backwards" => {
                self.next = 0;
                self.units(1);
                sleep_for_ever();
            }
            "falls-silent" => self.pulses_only(),
            other => panic!("unknown misbehaviour {other}"),
        }
    }

    fn pulse_sometimes(&mut self, turn: usize) {
        if turn.is_multiple_of(16) {
            self.pulse();
        }
    }
}

/// Uses up the stack: a real fault, without unsafe code.
#[allow(unconditional_recursion, reason = "it shall crash")]
fn overflow(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 512]);
    frame[usize::try_from(depth % 512).unwrap()] + overflow(depth + 1)
}

fn sleep_for_ever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

pub(crate) mod probe {
    //! Tries what a worker must not do and says what happened.

    use std::io;
    use std::net::{SocketAddr, TcpStream, UdpSocket};
    use std::time::Duration;

    fn verdict<T>(result: io::Result<T>) -> String {
        match result {
            Ok(_) => "allowed".into(),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => "denied".into(),
            Err(error) => format!("failed({error})"),
        }
    }

    fn connect(port: &str) -> io::Result<TcpStream> {
        let port: u16 = port.parse().unwrap();
        TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), Duration::from_secs(2))
    }

    pub(crate) fn all(args: &str) -> String {
        let args: Vec<&str> = args.split(' ').collect();
        let [camera, other, parent, file] = args[..] else { panic!("four arguments") };
        let parent = rustix::process::Pid::from_raw(parent.parse().unwrap()).unwrap();
        let socket = |family, kind| rustix::net::socket(family, kind, None).map_err(io::Error::from);
        let written = std::path::Path::new(file).with_extension("new");
        let library = || -> io::Result<()> {
            let maps = std::fs::read_dir("/usr/lib")?;
            maps.take(1).try_for_each(|entry| entry.map(|_| ()))
        };
        use rustix::net::{AddressFamily, SocketType};
        let checks: Vec<(&str, String)> = vec![
            ("read-elsewhere", verdict(std::fs::read(file))),
            ("write", verdict(std::fs::write(written, "x"))),
            ("list-root", verdict(std::fs::read_dir("/"))),
            (
                "read-parent-environment",
                verdict(std::fs::read(format!("/proc/{}/environ", parent.as_raw_nonzero()))),
            ),
            ("read-library", verdict(library())),
            ("exec", verdict(std::process::Command::new("/bin/true").spawn())),
            ("fork", verdict(std::process::Command::new("/proc/self/exe").arg("--list").spawn())),
            ("tcp-camera-port", verdict(connect(camera))),
            ("tcp-other-port", verdict(connect(other))),
            ("udp", verdict(UdpSocket::bind("127.0.0.1:0"))),
            ("unix", verdict(socket(AddressFamily::UNIX, SocketType::STREAM))),
            ("netlink", verdict(socket(AddressFamily::NETLINK, SocketType::RAW))),
            ("packet", verdict(socket(AddressFamily::PACKET, SocketType::RAW))),
            ("kill-parent", verdict(rustix::process::test_kill_process(parent).map_err(io::Error::from))),
            ("parent-memory", verdict(std::fs::read(format!("/proc/{}/mem", parent.as_raw_nonzero())))),
            (
                "handle-of-parent",
                verdict(
                    rustix::process::pidfd_open(parent, rustix::process::PidfdFlags::empty())
                        .map_err(io::Error::from),
                ),
            ),
            (
                "raise-limits",
                verdict(
                    rustix::process::setrlimit(
                        rustix::process::Resource::Nofile,
                        rustix::process::Rlimit { current: Some(64), maximum: Some(64) },
                    )
                    .map_err(io::Error::from),
                ),
            ),
            (
                "thread",
                verdict(std::thread::Builder::new().spawn(|| ()).map(|thread| thread.join().unwrap())),
            ),
        ];
        checks.iter().map(|(what, verdict)| format!("{what}={verdict}")).collect::<Vec<_>>().join(" ")
    }
}
