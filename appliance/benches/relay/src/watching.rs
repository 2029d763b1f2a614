//! Viewers of one stream by HLS: what they cost the gateway, beside nginx with the same files on a file system in memory.
//!
//! Each viewer asks for the playlist and for the newest segment of pictures and of sound once a segment, at a moment of his
//! own, on a connection that stays open, as players do.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::Timespec;
use serde_json::json;

use crate::connection::{Role, Target};
use crate::engine::{Engine, now_ns};
use crate::error::{Attempt, BenchError};
use crate::media::{GOP_MS, Source};
use crate::meter;
use crate::peers::{Peer, Programs, Server, Settings, free_address};
use crate::session::Goal;

const SECOND: u64 = 1_000_000_000;
const SEGMENT: u64 = GOP_MS * 1_000_000;
/// Files of so many segments are kept for nginx.
const KEPT: usize = 5;
/// Viewers whose memory is the base.
const FEW: usize = 50;
const READY_SECONDS: u64 = 60;
const READ_LEN: usize = 256 << 10;
/// A file system in memory.
const MEMORY: &str = "/dev/shm";

/// What is asked of a run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Viewers.
    pub viewers: usize,
    /// Bits per second of the pictures.
    pub bitrate: u64,
    /// Measured seconds.
    pub seconds: u64,
    /// Seconds before.
    pub warm_up: u64,
    /// Where the programs are.
    pub programs: Programs,
    /// Ends the run.
    pub interrupted: Arc<AtomicBool>,
}

/// What one server needed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Seconds of processor time per 10^9 bytes of bodies.
    pub cpu_per_gb: f64,
    /// Bytes of bodies per second, in 10^6 bits.
    pub mbit: f64,
    /// Of one core.
    pub share: f64,
    /// Answers per second.
    pub answers: f64,
    /// Memory with a few viewers, and with all, in kB.
    pub pss_kb: (u64, u64),
    /// Cycles that began late because the one before was not over.
    pub late: u64,
}

/// Measures the gateway, then nginx.
pub(crate) fn run(plan: &Plan) -> Result<(Cost, Cost), BenchError> {
    let kept = Folder(PathBuf::from(MEMORY).join(format!("fieldgate-bench-{}", std::process::id())));
    fs::create_dir(&kept.0).attempt("create a folder in /dev/shm")?;
    let gateway = gateway(plan, &kept.0)?;
    let nginx = nginx(plan, &kept.0)?;
    Ok((gateway, nginx))
}

#[derive(Debug)]
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed goes with the machine's next start.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn gateway(plan: &Plan, keep: &Path) -> Result<Cost, BenchError> {
    let http = free_address()?;
    let mut programs = plan.programs.clone();
    programs.fieldgate_config = Some(json!({
        "http": { "listen": [http.to_string()], "max_connections": 8192, "max_connections_per_address": 8192,
                  "max_viewers": 8192, "max_viewers_per_address": 8192 },
        "mountpoints": { "s*": { "hls": { "segment": "2s", "part": "0ms" } } },
    }));
    let mut server = Server::start(Peer::Fieldgate, &programs, &Settings::default())?;
    let target = Target { address: server.address, bare: false, chunk_size: 4096, audio: true };
    let publisher = Publisher::start(target, plan.bitrate);
    let folder = || -> Result<String, BenchError> {
        let master = fetch(http, "/hls/s0/master.m3u8")?;
        let text = String::from_utf8_lossy(&master).into_owned();
        let media = text.lines().last().and_then(|line| line.split_once('/'));
        let (token, _) = media.ok_or(BenchError::Protocol("a list of renditions without a token"))?;
        Ok(format!("/hls/s0/{token}/"))
    };
    let mut first = folder()?;
    let end = now_ns() + READY_SECONDS * SECOND;
    while newest(&fetch(http, &format!("{first}video.m3u8"))?).len() < KEPT {
        server.check()?;
        publisher.check()?;
        if now_ns() > end {
            return Err(BenchError::Timeout { what: "the first segments".into(), seconds: READY_SECONDS });
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let list = fetch(http, &format!("{first}video.m3u8"))?;
    fs::write(keep.join("video.m3u8"), &list).attempt("keep a playlist")?;
    for number in newest(&list) {
        for lane in ["v", "a"] {
            let name = format!("{lane}{number}.m4s");
            fs::write(keep.join(&name), fetch(http, &format!("{first}{name}"))?).attempt("keep a segment")?;
        }
    }
    let folders = (0..plan.viewers).map(|at| match at {
        0 => Ok(std::mem::take(&mut first)),
        _ => folder(),
    });
    let folders = folders.collect::<Result<Vec<_>, _>>()?;
    let cost = measure(plan, &server, http, &folders, Names::Told(0));
    publisher.check()?;
    if cost.is_err() {
        server.check()?;
    }
    cost
}

fn nginx(plan: &Plan, kept: &Path) -> Result<Cost, BenchError> {
    let list = fs::read(kept.join("video.m3u8")).attempt("read a playlist")?;
    let settings =
        Settings { files: Some(kept.to_owned()), connections: plan.viewers + 64, ..Settings::default() };
    let server = Server::start(Peer::Nginx, &plan.programs, &settings)?;
    let folders = vec!["/".to_owned(); plan.viewers];
    measure(plan, &server, server.address, &folders, Names::Kept(newest(&list)))
}

/// The numbers of the segments that a playlist names.
fn newest(list: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(list);
    let names = text.lines().filter_map(|line| line.strip_prefix('v')?.strip_suffix(".m4s")?.parse().ok());
    names.collect()
}

/// Which segment is the newest.
enum Names {
    /// The playlist of the first viewer told this.
    Told(u64),
    /// These in turn.
    Kept(Vec<u64>),
}

impl Names {
    fn now(&self, since_ns: u64) -> u64 {
        match self {
            Names::Told(number) => *number,
            Names::Kept(numbers) => {
                let turn = (since_ns / SEGMENT) as usize % numbers.len().max(1);
                numbers.get(turn).copied().unwrap_or(0)
            }
        }
    }
}

fn measure(
    plan: &Plan,
    server: &Server,
    address: SocketAddr,
    folders: &[String],
    names: Names,
) -> Result<Cost, BenchError> {
    let mut crowd = Crowd::new(address, names, Arc::clone(&plan.interrupted))?;
    let few = folders.len().min(FEW);
    crowd.join(&folders[..few])?;
    crowd.run(now_ns() + plan.warm_up.max(2) * SECOND)?;
    let base = meter::memory(server.pid()).pss_kb;
    crowd.join(&folders[few..])?;
    crowd.run(now_ns() + plan.warm_up.max(2) * SECOND)?;
    (crowd.bytes, crowd.answers, crowd.late) = (0, 0, 0);
    let (cpu, began) = (meter::cpu_ns(server.pid()), now_ns());
    crowd.run(began + plan.seconds * SECOND)?;
    let (cpu, took) = (meter::cpu_ns(server.pid()) - cpu, now_ns() - began);
    let (cpu, took, bytes) = (cpu as f64, took as f64, crowd.bytes as f64);
    Ok(Cost {
        cpu_per_gb: cpu / bytes.max(1.0),
        mbit: bytes * 8e3 / took,
        share: cpu / took,
        answers: crowd.answers as f64 * 1e9 / took,
        pss_kb: (base, meter::memory(server.pid()).pss_kb),
        late: crowd.late,
    })
}

/// Publishes the stream from a thread of its own, which ends with it.
struct Publisher {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), BenchError>>>,
}

impl Publisher {
    fn start(target: Target, bitrate: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut engine = Engine::new(&target, told)?;
            let role = Role::Publisher { source: Source::new(0, bitrate, 0.0), start_ns: None };
            engine.connect(&target, Goal::Publish, 0, role)?;
            engine.run(u64::MAX, Engine::may_publish)?;
            engine.publish()?;
            engine.run(u64::MAX, |_| false).map(|_| ())
        });
        // The gateway knows the stream once its first frames are there.
        std::thread::sleep(Duration::from_secs(1));
        Publisher { stop, thread: Some(thread) }
    }

    fn check(&self) -> Result<(), BenchError> {
        match &self.thread {
            Some(thread) if !thread.is_finished() => Ok(()),
            _ => Err(BenchError::Closed("publishing")),
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has said so itself.
            let _ = thread.join();
        }
    }
}

/// One file, waited for.
fn fetch(address: SocketAddr, path: &str) -> Result<Vec<u8>, BenchError> {
    let mut socket = TcpStream::connect(address).attempt("connect to the server")?;
    socket.set_read_timeout(Some(Duration::from_secs(READY_SECONDS))).attempt("set a timeout")?;
    socket.write_all(request(path, "Connection: close\r\n").as_bytes()).attempt("ask for a file")?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).attempt("read a file")?;
    let (head, len) = head_of(&answer)?.ok_or(BenchError::Protocol("an answer without a head"))?;
    let body = answer.split_off(head);
    if body.len() as u64 != len {
        return Err(BenchError::Protocol("an answer of another length than it says"));
    }
    Ok(body)
}

fn request(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: bench\r\n{more}\r\n")
}

/// Bytes of an answer's head, and of its body; `None`: it is not whole yet.
fn head_of(answer: &[u8]) -> Result<Option<(usize, u64)>, BenchError> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    if !head.starts_with("http/1.1 200") {
        let line = head.lines().next().unwrap_or_default().to_owned();
        return Err(BenchError::Refused { what: "a file", code: line });
    }
    let len = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let len = len.ok_or(BenchError::Protocol("an answer that does not say its length"))?;
    Ok(Some((end + 4, len)))
}

/// What a viewer does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Rests,
    List,
    Pictures(u64),
    Sound,
}

struct Viewer {
    socket: TcpStream,
    folder: String,
    step: Step,
    /// The beginning of an answer; all of the playlist that tells the names.
    head: Vec<u8>,
    /// Bytes of the body that are still to come.
    missing: Option<u64>,
}

/// All viewers, on one thread.
struct Crowd {
    address: SocketAddr,
    epoll: std::os::fd::OwnedFd,
    viewers: Vec<Viewer>,
    names: Names,
    began_ns: u64,
    /// Whose turn it is next, and when.
    next: (usize, u64),
    scratch: Vec<u8>,
    interrupted: Arc<AtomicBool>,
    bytes: u64,
    answers: u64,
    late: u64,
}

impl Crowd {
    fn new(address: SocketAddr, names: Names, interrupted: Arc<AtomicBool>) -> Result<Self, BenchError> {
        Ok(Crowd {
            address,
            epoll: epoll::create(CreateFlags::CLOEXEC).attempt("create an epoll")?,
            viewers: Vec::new(),
            names,
            began_ns: now_ns(),
            next: (0, now_ns()),
            scratch: vec![0; READ_LEN],
            interrupted,
            bytes: 0,
            answers: 0,
            late: 0,
        })
    }

    fn join(&mut self, folders: &[String]) -> Result<(), BenchError> {
        for folder in folders {
            let socket = TcpStream::connect(self.address).attempt("connect to the server")?;
            socket.set_nonblocking(true).attempt("make a socket non-blocking")?;
            socket.set_nodelay(true).attempt("set TCP_NODELAY")?;
            let data = EventData::new_u64(self.viewers.len() as u64);
            epoll::add(&self.epoll, &socket, data, EventFlags::IN).attempt("watch a socket")?;
            let folder = folder.clone();
            self.viewers.push(Viewer { socket, folder, step: Step::Rests, head: Vec::new(), missing: None });
        }
        Ok(())
    }

    fn run(&mut self, end_ns: u64) -> Result<(), BenchError> {
        let mut events: Vec<Event> = Vec::with_capacity(256);
        loop {
            let now = now_ns();
            if now >= end_ns {
                return Ok(());
            }
            while self.next.1 <= now {
                let at = self.next.0 % self.viewers.len().max(1);
                self.begin(at)?;
                self.next = (at + 1, self.next.1 + SEGMENT / self.viewers.len().max(1) as u64);
            }
            events.clear();
            let wait = self.next.1.min(end_ns).saturating_sub(now).min(SECOND / 10);
            let timeout = Timespec { tv_sec: 0, tv_nsec: wait as i64 };
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).attempt("wait for events"),
            }
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(BenchError::Interrupted);
            }
            for event in &events {
                // The kernel's structure is packed: its fields can be copied, not borrowed.
                let data = event.data.u64();
                self.read(data as usize)?;
            }
        }
    }

    fn begin(&mut self, at: usize) -> Result<(), BenchError> {
        if self.viewers[at].step != Step::Rests {
            self.late += 1;
            return Ok(());
        }
        self.ask(at, Step::List)
    }

    fn ask(&mut self, at: usize, step: Step) -> Result<(), BenchError> {
        let viewer = &mut self.viewers[at];
        let number = match viewer.step {
            Step::Pictures(number) => number,
            _ => self.names.now(now_ns() - self.began_ns),
        };
        // Who tells the others must be able to read it.
        let gzip = if at == 0 { "" } else { "Accept-Encoding: gzip\r\n" };
        let text = match step {
            Step::Rests => return Ok(()),
            Step::List => request(&format!("{}video.m3u8", viewer.folder), gzip),
            Step::Pictures(_) => request(&format!("{}v{number}.m4s", viewer.folder), ""),
            Step::Sound => request(&format!("{}a{number}.m4s", viewer.folder), ""),
        };
        viewer.step = if let Step::Pictures(_) = step { Step::Pictures(number) } else { step };
        // So little always fits into the socket's buffer.
        viewer.socket.write_all(text.as_bytes()).attempt("ask for a file")
    }

    fn read(&mut self, at: usize) -> Result<(), BenchError> {
        loop {
            let viewer = &mut self.viewers[at];
            let got = match viewer.socket.read(&mut self.scratch) {
                Ok(0) => return Err(BenchError::Closed("viewer's")),
                Ok(got) => got,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).attempt("read an answer"),
            };
            let piece = &self.scratch[..got];
            let (missing, body) = match viewer.missing {
                Some(missing) => {
                    if at == 0 && viewer.step == Step::List {
                        viewer.head.extend_from_slice(piece);
                    }
                    (missing, got as u64)
                }
                None => {
                    viewer.head.extend_from_slice(piece);
                    let Some((head, len)) = head_of(&viewer.head)? else { continue };
                    (len, (viewer.head.len() - head) as u64)
                }
            };
            self.bytes += body;
            let left = missing.checked_sub(body).ok_or(BenchError::Protocol("a body that is too long"))?;
            viewer.missing = Some(left);
            if left > 0 {
                continue;
            }
            self.answered(at)?;
        }
    }

    fn answered(&mut self, at: usize) -> Result<(), BenchError> {
        self.answers += 1;
        let viewer = &mut self.viewers[at];
        viewer.missing = None;
        let head = std::mem::take(&mut viewer.head);
        match viewer.step {
            Step::Rests => Err(BenchError::Protocol("an answer that nobody asked for")),
            Step::List => {
                if let (0, Names::Told(newest_told)) = (at, &mut self.names) {
                    *newest_told = newest(&head).last().copied().unwrap_or(*newest_told);
                }
                // Before the first list was read nobody knows a name.
                let number = self.names.now(now_ns() - self.began_ns);
                if number == 0 {
                    self.viewers[at].step = Step::Rests;
                    return Ok(());
                }
                self.ask(at, Step::Pictures(number))
            }
            Step::Pictures(_) => self.ask(at, Step::Sound),
            Step::Sound => {
                self.viewers[at].step = Step::Rests;
                Ok(())
            }
        }
    }
}

/// The figures for people, and whether the goal holds.
pub(crate) fn table(plan: &Plan, gateway: &Cost, nginx: &Cost) -> (String, bool) {
    let line = |name: &str, cost: &Cost| {
        format!(
            "{name:<10} {:>8.3} {:>7.0} {:>6.1} {:>9.0} {:>11} {:>11} {:>6}\n",
            cost.cpu_per_gb,
            cost.mbit,
            cost.share * 100.0,
            cost.answers,
            cost.pss_kb.0,
            cost.pss_kb.1,
            cost.late
        )
    };
    let more = plan.viewers.saturating_sub(FEW).max(1) as f64;
    let per_viewer = gateway.pss_kb.1.saturating_sub(gateway.pss_kb.0) as f64 / more;
    let ratio = gateway.cpu_per_gb / nginx.cpu_per_gb.max(f64::EPSILON);
    let holds = ratio <= GOAL;
    let verdict = if holds { "holds" } else { "misses" };
    let text = format!(
        "{} viewers of one stream of {:.1} Mbit/s, segments of 2 s\n\n\
         server     CPU s/GB  Mbit/s   srv% answers/s  PSS kB few  PSS kB all   late\n{}{}\n\
         CPU per GB beside nginx: {ratio:.2} (goal {GOAL}): {verdict}\n\
         the gateway's memory per further viewer: {per_viewer:.1} kB\n",
        plan.viewers,
        plan.bitrate as f64 / 1e6,
        line("fieldgate", gateway),
        line("nginx", nginx),
    );
    (text, holds)
}

const GOAL: f64 = 1.5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_tells_where_the_body_begins() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(head_of(answer).unwrap(), Some((answer.len() - 3, 3)));
        assert_eq!(head_of(&answer[..20]).unwrap(), None);
        assert!(head_of(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").is_err());
        assert!(head_of(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn a_playlist_names_its_segments() {
        assert_eq!(newest(b"#EXTINF:2,\nv7.m4s\n#EXTINF:2,\nv8.m4s\nvideo.m3u8\n"), [7, 8]);
        assert_eq!(Names::Kept(vec![7, 8]).now(SEGMENT), 8);
        assert_eq!(Names::Kept(Vec::new()).now(SEGMENT), 0);
    }

    #[test]
    fn the_goal_is_a_ratio() {
        let plan = Plan {
            viewers: 150,
            bitrate: 2_000_000,
            seconds: 1,
            warm_up: 1,
            programs: Programs {
                fieldgate: PathBuf::new(),
                nginx: PathBuf::new(),
                floor_read: 0,
                nginx_chunk: 0,
                fieldgate_config: None,
            },
            interrupted: Arc::default(),
        };
        let cost = |cpu_per_gb| Cost { cpu_per_gb, pss_kb: (1000, 1500), ..Cost::default() };
        let (text, holds) = table(&plan, &cost(0.3), &cost(0.2));
        assert!(
            holds && text.contains("1.50 (goal 1.5): holds") && text.contains("viewer: 5.0 kB"),
            "{text}"
        );
        assert!(!table(&plan, &cost(0.31), &cost(0.2)).1);
    }
}
