//! The whole plane over real sockets, against peers that mean no good (rows T1 to T6 of the traps of tiny_http).

use super::api::{ConfigView, Health, Outcome, Put, PutError};
use super::*;
use crate::access::tests::for_tests;
use crate::steward::{Applied, ChangeError};
use fieldgate_model::{Config, Status};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

mod people;

#[derive(Default)]
pub(super) struct Fake {
    log: Option<crate::logging::Tail>,
    /// While true, `/api/v1/status` hangs.
    hangs: Mutex<bool>,
    freed: Condvar,
    asked: AtomicUsize,
    panics: AtomicBool,
    puts: Mutex<Vec<Vec<u8>>>,
    status_len: usize,
}

impl Fake {
    pub(super) fn with_log(log: crate::logging::Tail) -> Self {
        Fake { log: Some(log), ..Fake::default() }
    }

    fn hang(&self, hangs: bool) {
        *self.hangs.lock().unwrap() = hangs;
        self.freed.notify_all();
    }
}

impl AdminApi for Fake {
    fn confirmed(&self) -> Arc<crate::store::Confirmed> {
        let meta = crate::store::Meta { schema: 1, revision: 7, by: String::new(), at: Default::default() };
        Arc::new(crate::store::Confirmed { config: Config::default(), meta })
    }
    fn history(&self) -> crate::store::History {
        Default::default()
    }
    fn config(&self) -> ConfigView {
        ConfigView { revision: 1, json: b"{}".to_vec() }
    }
    fn running(&self) -> Arc<Config> {
        Arc::default()
    }
    fn put_config(&self, put: Put<'_>) -> Result<Outcome, PutError> {
        self.puts.lock().unwrap().push(match put.wanted {
            api::Wanted::Whole(json) => json.to_vec(),
            other => panic!("{other:?}"),
        });
        Ok(Outcome::Settled(Applied::Confirmed { revision: 2 }))
    }
    fn confirm(&self, _: Instant) -> Result<Outcome, PutError> {
        Err(ChangeError::NothingPending.into())
    }
    fn status(&self) -> Status {
        self.asked.fetch_add(1, Ordering::Relaxed);
        assert!(!self.panics.load(Ordering::Relaxed), "a handler that panics");
        let hangs = self.hangs.lock().unwrap();
        drop(self.freed.wait_while(hangs, |hangs| *hangs).unwrap());
        let mut status = Status { version: " ".repeat(self.status_len), ..Status::default() };
        for name in ["gate", "yard"] {
            let mut mountpoint = fieldgate_model::status::MountpointStatus::default();
            mountpoint.source.from = Some("rtsp://10.9.8.7/main".to_owned());
            status.mountpoints.insert(name.to_owned(), mountpoint);
        }
        status
    }
    fn log(&self) -> Option<&crate::logging::Tail> {
        self.log.as_ref()
    }
    fn health(&self) -> Health {
        Health::default()
    }
    fn plan(&self, candidate: Option<&[u8]>) -> Result<crate::plan::Answer, PutError> {
        let config = candidate
            .map_or(Ok(Config::default()), |json| api::read_config(json).map_err(PutError::Unreadable))?;
        let plan =
            crate::plan::Plan::of(&config, None, fieldgate_model::plan::plan(&config, &Default::default()));
        Ok(crate::plan::Answer { plan, problems: Vec::new() })
    }
    fn ledger(&self, _: &fieldgate_spool::Query) -> fieldgate_spool::Answer {
        fieldgate_spool::Answer::default()
    }

    fn devices(&self) -> Vec<crate::wiring::Listed> {
        Vec::new()
    }
}

type LoadWatch = Box<dyn Fn() -> Load + Send + Sync>;

/// An admin plane on a runtime of its own, ended when dropped.
struct Running {
    address: SocketAddr,
    api: Arc<Fake>,
    access: Arc<Access>,
    /// Shown by the requests of tests that are about something else.
    local: String,
    socket_folder: PathBuf,
    load: Arc<Mutex<Option<LoadWatch>>>,
    cancel: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn start(api: Fake, limits: Limits, rhythm: Rhythm) -> Self {
        let api = Arc::new(api);
        let (access, local) = for_tests();
        let socket_folder = std::env::temp_dir().join(format!("fg-admin-{}", random_name().unwrap()));
        let cancel = CancellationToken::new();
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let settings = Settings {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            secure: None,
            host_names: Vec::new(),
            local_name: LocalName::new("fg-7f3a"),
            socket_folder: socket_folder.clone(),
        };
        let load: Arc<Mutex<Option<LoadWatch>>> = Arc::default();
        let thread = {
            let (api, cancel, watch) = (api.clone(), cancel.clone(), load.clone());
            let access = access.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let admin = Admin::bind_with(&settings, api, access, limits, rhythm).unwrap();
                    watch.lock().unwrap().replace(Box::new(admin.watch_load()));
                    tell.send(admin.addresses()[0]).unwrap();
                    let (ended, under_way) = admin.serve(cancel).await;
                    under_way.await;
                    ended.unwrap();
                });
            })
        };
        let (address, thread) = (told.recv().unwrap(), Some(thread));
        Running { address, api, access, local, socket_folder, load, cancel, thread }
    }

    fn with_defaults() -> Self {
        Self::start(Fake::default(), Limits::default(), Rhythm::default())
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        // Nothing here takes as long; without it a broken promise would hang the suite.
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Sends raw bytes with the machine's own secret, returns all that comes back.
    fn exchange(&self, bytes: &[u8]) -> String {
        let Some(at) = bytes.windows(6).position(|window| window == b"\r\nHost") else {
            return self.bare(bytes);
        };
        let shown = format!("\r\nAuthorization: Bearer {}", self.local);
        let (before, after) = bytes.split_at(at);
        self.bare(&[before, shown.as_bytes(), after].concat())
    }

    /// Sends raw bytes, returns all that comes back.
    fn bare(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // The front may refuse, and close, before it has read all.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn get(&self, path: &str) -> String {
        self.exchange(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address).as_bytes())
    }

    fn put(&self, body: &[u8]) -> String {
        let mut bytes = format!(
            "PUT /api/v1/config HTTP/1.1\r\nHost: {}\r\nIf-Match: \"1\"\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            self.address,
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        self.exchange(&bytes)
    }

    fn load(&self) -> Load {
        self.load.lock().unwrap().as_ref().unwrap()()
    }

    fn is_well(&self) -> bool {
        self.get("/healthz").starts_with("HTTP/1.1 200 OK\r\n")
    }

    fn becomes_well(&self) -> bool {
        // Real time: a rebuild is driven by real sockets and threads.
        (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            self.is_well()
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.api.hang(false);
        self.cancel.cancel();
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
            assert_eq!(
                std::fs::read_dir(&self.socket_folder).unwrap().count(),
                0,
                "the private socket is gone"
            );
        }
        let _ = std::fs::remove_dir_all(&self.socket_folder);
    }
}

fn status_of(answer: &str) -> u16 {
    answer.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Kernel-counted threads and resident KiB of this process.
fn threads_and_kib() -> (usize, usize) {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    (field("Threads:"), field("VmRSS:"))
}

#[test]
fn requests_are_answered_with_security_headers_and_the_connection_closed() {
    let admin = Running::with_defaults();
    let answer = admin.get("/api/v1/config");
    assert_eq!(status_of(&answer), 200, "{answer}");
    for expected in
        ["etag: \"1\"", "x-content-type-options: nosniff", "connection: close", "content-length: 2"]
    {
        assert!(answer.to_ascii_lowercase().contains(expected), "{expected} in {answer}");
    }
    assert!(!answer.to_ascii_lowercase().contains("tiny-http"));
    assert!(answer.ends_with("\r\n\r\n{}"));
    let page = admin.get("/");
    assert!(page.contains("<title>fieldgate"), "{page}");
    let get = |method| {
        admin.exchange(format!("{method} /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", admin.address).as_bytes())
    };
    let (whole, head) = (get("GET"), get("HEAD"));
    assert!(head.contains("content-length: 15\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    assert_eq!(whole.split("\r\n\r\n").nth(1), Some("{\"status\":\"ok\"}"));
    let answer = admin.put(b"{\"schema\":1}");
    assert_eq!(status_of(&answer), 200, "{answer}");
    assert_eq!(*admin.api.puts.lock().unwrap(), [b"{\"schema\":1}".to_vec()]);
}

#[test]
fn a_go_ahead_is_given_and_a_body_in_pieces_is_put_together() {
    let admin = Running::with_defaults();
    let mut stream = admin.connect();
    let head = format!(
        "PUT /api/v1/config HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nIf-Match: \"1\"\r\n\
         Content-Type: application/json\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n",
        admin.address, admin.local
    );
    for byte in head.as_bytes() {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut go_ahead = [0_u8; 25];
    stream.read_exact(&mut go_ahead).unwrap();
    assert_eq!(&go_ahead, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"[1").unwrap();
    stream.write_all(b"2]").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(status_of(&answer), 200, "{answer}");
    assert_eq!(*admin.api.puts.lock().unwrap(), [b"[12]".to_vec()]);
}

#[test]
fn foreign_names_and_pages_are_refused_before_a_handler_sees_them() {
    let admin = Running::with_defaults();
    let send =
        |headers: &str| admin.exchange(format!("GET /api/v1/status HTTP/1.1\r\n{headers}\r\n").as_bytes());
    assert_eq!(status_of(&send("Host: evil.example\r\n")), 421);
    let foreign = format!("Host: {}\r\nOrigin: http://evil.example\r\n", admin.address);
    assert_eq!(status_of(&send(&foreign)), 403);
    assert_eq!(admin.api.asked.load(Ordering::Relaxed), 0);
}

/// T3: a thread per connection, no cap, no deadline.
#[test]
fn half_sent_requests_take_neither_threads_nor_the_plane() {
    let limits = Limits { head: Duration::from_millis(1500), ..Limits::default() };
    let admin = Running::start(Fake::default(), limits, Rhythm::default());
    assert!(admin.is_well());
    let (threads_before, kib_before) = threads_and_kib();
    let mut open = Vec::new();
    for _ in 0..500 {
        let mut stream = admin.connect();
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: local");
        open.push(stream);
    }
    let (threads, kib) = threads_and_kib();
    // Other tests run in this process; five hundred threads would stand out.
    assert!(threads < threads_before + 150, "{threads_before} -> {threads} threads");
    assert!(kib < kib_before + (64 << 10), "{kib_before} -> {kib} KiB");
    // The ones over the cap were refused at once; the others by the deadline. Then there is room again.
    assert!(admin.becomes_well());
    drop(open);
}

/// T4: a header line without a limit.
#[test]
fn a_header_line_of_200_mb_is_cut_off() {
    let admin = Running::with_defaults();
    let mut stream = admin.connect();
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {}\r\nX: ", admin.address).as_bytes()).unwrap();
    let chunk = vec![b'a'; 1 << 20];
    let taken = (0..200).take_while(|_| stream.write_all(&chunk).is_ok()).count();
    // What the front reads on to let its answer arrive, and what the kernel's buffers hold.
    assert!(taken < 40, "{taken} MB were taken");
    assert!(admin.is_well());
    let long = format!("GET / HTTP/1.1\r\nHost: {}\r\nX: {}\r\n\r\n", admin.address, "a".repeat(20_000));
    assert_eq!(status_of(&admin.exchange(long.as_bytes())), 431);
}

/// T5: a length that is never sent wedges a handler, one near 2^64 makes it panic.
#[test]
fn lengths_that_lie_are_refused() {
    let admin = Running::with_defaults();
    let put = |length: &str| {
        let text = format!(
            "PUT /api/v1/config HTTP/1.1\r\nHost: {}\r\nIf-Match: \"1\"\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{{}}\n",
            admin.address
        );
        status_of(&admin.exchange(text.as_bytes()))
    };
    assert_eq!(put("1000000000"), 413);
    assert_eq!(put("18446744073709551615"), 413);
    assert_eq!(put("18446744073709551616"), 400);
    assert_eq!(put("99999999999999999999999999"), 400);
    assert_eq!(put("-1"), 400);
    assert_eq!(put("2\r\nContent-Length: 3"), 400);
    assert_eq!(put("2\r\nTransfer-Encoding: chunked"), 411);
    assert!(admin.api.puts.lock().unwrap().is_empty());
    assert!(admin.is_well());
}

#[test]
fn a_config_at_the_limit_is_taken_and_one_past_it_is_not() {
    let admin = Running::with_defaults();
    assert_eq!(status_of(&admin.put(&vec![b' '; 4 << 20])), 200);
    assert_eq!(admin.api.puts.lock().unwrap()[0].len(), 4 << 20);
    assert_eq!(status_of(&admin.put(&vec![b' '; (4 << 20) + 1])), 413, "and the client gets to read it");
}

#[test]
fn a_body_that_never_comes_is_waited_for_no_longer_than_the_deadline() {
    let limits =
        Limits { body: Duration::from_millis(300), head: Duration::from_millis(300), ..Limits::default() };
    let admin = Running::start(Fake::default(), limits, Rhythm::default());
    let text = format!(
        "PUT /api/v1/config HTTP/1.1\r\nHost: {}\r\nIf-Match: \"1\"\r\nContent-Type: application/json\r\n\
         Content-Length: 100\r\n\r\n{{",
        admin.address
    );
    assert_eq!(status_of(&admin.exchange(text.as_bytes())), 408);
    assert_eq!(status_of(&admin.exchange(b"GET / HT")), 408);
    assert_eq!(admin.exchange(b"").get(9..12), Some("408"), "an idle connection too");
}

/// What two readers of HTTP would take for two requests is one here, or none.
#[test]
fn nothing_hides_behind_a_first_request() {
    let admin = Running::with_defaults();
    let hidden = "PUT /api/v1/config HTTP/1.1\r\nHost: localhost\r\nIf-Match: \"1\"\r\n\
        Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    for first in [
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: y\nContent-Length: 200\r\n\r\n",
        "GET /healthz HTTP/1.1\nHost: localhost\n\n",
        "GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n",
        "\r\n\r\n",
    ] {
        let answer = admin.exchange(format!("{first}{hidden}").as_bytes());
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{first:?}: {answer}");
        assert!(matches!(status_of(&answer), 200 | 400 | 411), "{first:?}: {answer}");
    }
    assert!(admin.api.puts.lock().unwrap().is_empty());
}

#[test]
fn headers_that_only_the_front_may_set_are_not_taken_from_clients() {
    let admin = Running::with_defaults();
    let answer = admin.exchange(
        format!(
            "GET /healthz HTTP/1.1\r\nHost: {}\r\nX-Fieldgate-Front: x\r\nX-Fieldgate-Opened: 99\r\n\
             X-Fieldgate-Peer: 10.0.0.1:1\r\n\r\n",
            admin.address
        )
        .as_bytes(),
    );
    assert_eq!(status_of(&answer), 200, "they are dropped, ours are used: {answer}");
}

#[test]
fn the_private_socket_is_closed_to_other_users_and_to_what_did_not_pass_the_front() {
    use std::os::unix::fs::PermissionsExt as _;
    let admin = Running::with_defaults();
    let folder = std::fs::read_dir(&admin.socket_folder).unwrap().next().unwrap().unwrap().path();
    assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    let mut stream = UnixStream::connect(folder.join("1")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(status_of(&answer), 400, "{answer}");
    assert_eq!(admin.api.asked.load(Ordering::Relaxed), 0);
}

#[test]
fn a_slow_reader_holds_no_handler() {
    let api = Fake { status_len: 6 << 20, ..Fake::default() };
    let limits = Limits { write: Duration::from_secs(2), ..Limits::default() };
    let admin = Running::start(api, limits, Rhythm::default());
    let slow: Vec<_> = (0..2 * backend::HANDLER_THREADS)
        .map(|_| {
            let mut stream = admin.connect();
            let (address, local) = (admin.address, &admin.local);
            let request = format!(
                "GET /api/v1/status HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {local}\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).unwrap();
            stream
        })
        .collect();
    assert!(admin.becomes_well(), "more readers that read nothing than there are threads");
    drop(slow);
}

#[test]
fn a_handler_that_panics_answers_and_lives_on() {
    let admin = Running::with_defaults();
    admin.api.panics.store(true, Ordering::Relaxed);
    for _ in 0..2 * backend::HANDLER_THREADS {
        assert_eq!(status_of(&admin.get("/api/v1/status")), 500);
    }
    admin.api.panics.store(false, Ordering::Relaxed);
    assert_eq!(status_of(&admin.get("/api/v1/status")), 200);
}

#[test]
fn a_stuck_server_is_built_anew_while_its_threads_still_hang() {
    let limits = Limits { answer: Duration::from_millis(500), ..Limits::default() };
    let rhythm = Rhythm { every: Duration::from_millis(200), deadline: Duration::from_millis(600) };
    let admin = Running::start(Fake::default(), limits, rhythm);
    admin.api.hang(true);
    for _ in 0..backend::HANDLER_THREADS {
        assert_eq!(status_of(&admin.get("/api/v1/status")), 504);
    }
    assert!(admin.becomes_well(), "a new generation answers what does not hang");
    admin.api.hang(false);
    assert_eq!(status_of(&admin.get("/api/v1/status")), 200);
}

#[test]
fn a_server_that_is_gone_is_built_anew_at_once() {
    let admin = Running::with_defaults();
    let folder = std::fs::read_dir(&admin.socket_folder).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(folder.join("1")).unwrap();
    assert_eq!(status_of(&admin.get("/healthz")), 502);
    assert!(admin.becomes_well());
}

#[test]
fn the_probe_gets_in_when_nobody_else_does() {
    let limits =
        Limits { connections: 4, per_address: 4, answer: Duration::from_millis(400), ..Limits::default() };
    let rhythm = Rhythm { every: Duration::from_millis(200), deadline: Duration::from_millis(500) };
    let admin = Running::start(Fake::default(), limits, rhythm);
    let idle: Vec<_> = (0..4).map(|_| admin.connect()).collect();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(status_of(&admin.get("/healthz")), 503, "full");
    let folder = std::fs::read_dir(&admin.socket_folder).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(folder.join("1")).unwrap();
    // Real time: only the probe can find out now, and a new generation shows as a new socket.
    let rebuilt = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        folder.join("2").exists()
    });
    assert!(rebuilt);
    drop(idle);
}

#[test]
fn open_and_refused_connections_are_counted() {
    let limits = Limits { connections: 2, per_address: 2, ..Limits::default() };
    let admin = Running::start(Fake::default(), limits, Rhythm::default());
    let is_reached = |wanted: Load| {
        // Real time: connections are taken by another thread.
        (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            admin.load() == wanted
        })
    };
    assert_eq!(admin.load(), Load::default());
    let held = [admin.connect(), admin.connect()];
    assert!(is_reached(Load { connections: 2, refused: 0 }));
    assert_eq!(status_of(&admin.get("/healthz")), 503);
    assert_eq!(admin.load(), Load { connections: 2, refused: 1 });
    drop(held);
    assert!(is_reached(Load { connections: 0, refused: 1 }), "{:?}", admin.load());
}

#[tokio::test]
async fn every_address_is_probed_and_one_that_is_deaf_ends_the_plane() {
    let settings = Settings {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        secure: None,
        host_names: Vec::new(),
        local_name: LocalName::new("fg-7f3a"),
        socket_folder: std::env::temp_dir().join(format!("fg-admin-{}", random_name().unwrap())),
    };
    let rhythm = Rhythm { every: Duration::from_millis(20), deadline: Duration::from_millis(200) };
    let mut admin =
        Admin::bind_with(&settings, Arc::new(Fake::default()), for_tests().0, Limits::default(), rhythm)
            .unwrap();
    // The kernel completes connections to it, and nobody takes them.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = deaf.local_addr().unwrap();
    admin.plain.push(address);
    let serving = admin.serve(CancellationToken::new());
    let (ended, under_way) = tokio::time::timeout(Duration::from_secs(20), serving).await.unwrap();
    assert!(matches!(ended, Err(AdminError::Deaf(of)) if of == address));
    under_way.await;
    assert_eq!(std::fs::read_dir(&settings.socket_folder).unwrap().count(), 0, "it cleaned up");
    std::fs::remove_dir_all(&settings.socket_folder).unwrap();
}

#[test]
fn a_request_outlives_the_listener_that_it_came_by() {
    let admin = Running::start(Fake::default(), Limits::default(), Rhythm::default());
    admin.api.hang(true);
    let request = format!(
        "GET /api/v1/status HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\r\n",
        admin.address, admin.local
    );
    let mut stream = TcpStream::connect(admin.address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    // Real time: threads and sockets of the system.
    let pause = || std::thread::sleep(Duration::from_millis(10));
    assert!((0..3_000).any(|_| {
        pause();
        admin.api.asked.load(Ordering::Relaxed) > 0
    }));
    admin.cancel.cancel();
    // Another takes its address: the one that the request has asked for.
    let next = (0..3_000).find_map(|_| {
        pause();
        std::net::TcpListener::bind(admin.address).ok()
    });
    assert!(next.is_some(), "the address is not free");
    admin.api.hang(false);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with('}'), "{answer}");
    drop(next);
}

#[test]
fn what_a_killed_gateway_left_is_removed_and_nothing_else() {
    let state = std::env::temp_dir().join(format!("fg-state-{}", random_name().unwrap()));
    let folder = |name: &str| {
        let folder = state.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    };
    let killed = folder("admin-0123456789abcdef");
    drop(std::os::unix::net::UnixListener::bind(killed.join("1")).unwrap());
    let empty = folder("admin-fedcba9876543210");
    let alive = folder("admin-00000000000000aa");
    let _listener = std::os::unix::net::UnixListener::bind(alive.join("3")).unwrap();
    let others = [folder("admin-notes"), folder("config")];
    let own = private_folder(&state).unwrap();
    assert!(!killed.exists() && !empty.exists());
    assert!(alive.exists() && own.exists() && others.iter().all(|folder| folder.exists()));
    std::fs::remove_dir_all(&state).unwrap();
}

#[tokio::test]
async fn an_address_that_others_can_reach_is_refused() {
    for address in ["0.0.0.0:0", "192.0.2.1:80", "[::]:0"] {
        let settings = Settings {
            listen: vec![address.parse().unwrap()],
            secure: None,
            host_names: Vec::new(),
            local_name: LocalName::new("fg-7f3a"),
            socket_folder: std::env::temp_dir(),
        };
        let refused = Admin::bind(&settings, Arc::new(Fake::default()), for_tests().0).err();
        assert!(matches!(refused, Some(AdminError::NotLoopback(_))), "{address}: {refused:?}");
    }
}

const CHILD: &str = "FIELDGATE_TEST_ADMIN_CHILD";

/// Runs in a process of its own, which may have few descriptors.
#[test]
#[ignore = "run by the test below, in a process of its own"]
fn child_that_runs_out_of_descriptors() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let rhythm = Rhythm { every: Duration::from_millis(200), deadline: Duration::from_secs(2) };
    let admin =
        Running::start(Fake::default(), Limits { head: Duration::from_secs(1), ..Limits::default() }, rhythm);
    assert!(admin.is_well());
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect(admin.address) {
        held.push(stream);
    }
    std::thread::sleep(Duration::from_millis(300));
    drop(held);
    assert!(admin.becomes_well(), "the front takes connections again once there are descriptors");

    // The same to the server behind, whose accept thread does not survive it. That thread holds a descriptor while it
    // waits; filling the table by connecting would hit it or us, by whether the number of free ones is even. So the
    // table is filled up to one, which our connection takes: the next `accept` finds none.
    let folder = std::fs::read_dir(&admin.socket_folder).unwrap().next().unwrap().unwrap().path();
    let is_replaced = (0..100).any(|_| {
        let mut held: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
        held.pop();
        // Fails when a probe of the keeper was faster, or the server is gone.
        let stream = UnixStream::connect(folder.join("1"));
        // Real time: the accept thread shall come to it, and the keeper find out what happened.
        std::thread::sleep(Duration::from_millis(100));
        drop((held, stream));
        std::thread::sleep(Duration::from_millis(200));
        // Which number the new one has is left open: a probe may have met a full table too.
        !folder.join("1").exists()
    });
    assert!(is_replaced, "a new server was built, and the first one is no more");
    assert!(admin.becomes_well());
}

/// T1: any error of `accept` ends tiny_http's thread for ever.
#[test]
fn running_out_of_descriptors_passes() {
    let program = std::env::current_exe().unwrap();
    let child = Command::new("sh")
        .args([
            "-c",
            "ulimit -n 48; exec \"$0\" --exact admin::tests::child_that_runs_out_of_descriptors --ignored",
        ])
        .arg(&program)
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
}
