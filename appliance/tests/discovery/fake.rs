//! One camera: announces itself, answers ONVIF and RTSP, counts logins and locks its account.

mod announce;
mod auth;
mod http;
mod onvif;
mod rtsp;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

/// Wrong passwords in a row after which the account is locked for good.
const LOCK_AFTER: u32 = 3;

/// How the camera wants to be logged in to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Auth {
    Token,
    Digest,
    DigestSha256,
    Basic,
}

/// What is odd about it; by default nothing.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) auth: Auth,
    pub(crate) user: &'static str,
    pub(crate) password: &'static str,
    /// Speaks ONVIF and WS-Discovery; else only RTSP and multicast DNS.
    pub(crate) onvif: bool,
    pub(crate) media1: bool,
    pub(crate) media2: bool,
    /// Seconds by which its clock is ahead.
    pub(crate) clock_offset: i64,
    /// The host that it names for its services and streams.
    pub(crate) names_host: Option<String>,
    /// The host that it names in WS-Discovery.
    pub(crate) announces_host: Option<String>,
    /// Answers calls without a login by HTTP 400 and nothing.
    pub(crate) plain_400: bool,
    pub(crate) no_get_services: bool,
    pub(crate) no_namespaces: bool,
    pub(crate) chunked: bool,
    pub(crate) one_time_nonces: bool,
    /// Every answer is a redirect to there.
    pub(crate) redirects_to: Option<String>,
    /// Every answer goes on for ever.
    pub(crate) endless: bool,
    /// The one path that its RTSP server has, beside those of its profiles.
    pub(crate) rtsp_path: &'static str,
    /// What it calls itself, percent-encoded.
    pub(crate) name: &'static str,
    /// Its address; by default one that no other camera has.
    pub(crate) address: Option<Ipv4Addr>,
    /// Shows its profiles and its picture to whoever asks; else the picture wants the login, too.
    pub(crate) open: bool,
    /// Its newest picture, a JPEG, if it has one ready.
    pub(crate) picture: Option<Arc<Vec<u8>>>,
    /// The port at its address where its streams really are; by default its own RTSP server, which only describes.
    pub(crate) streams_port: Option<u16>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            auth: Auth::Token,
            user: "admin",
            password: super::PASSWORD,
            onvif: true,
            media1: true,
            media2: true,
            clock_offset: 0,
            names_host: None,
            announces_host: None,
            plain_400: false,
            no_get_services: false,
            no_namespaces: false,
            chunked: false,
            one_time_nonces: false,
            redirects_to: None,
            endless: false,
            rtsp_path: "/main",
            name: "Gate%20cam",
            address: None,
            open: false,
            picture: None,
            streams_port: None,
        }
    }
}

/// What has happened to it.
#[derive(Default)]
pub(crate) struct State {
    bad_in_a_row: u32,
    bad_logins: u32,
    locked: bool,
    nonce: u32,
    requests: Vec<String>,
    saw_password: bool,
    reboots: u32,
    clock_was_set: bool,
    gop: u32,
}

impl State {
    /// Judges a login; a locked account takes none.
    fn judge(&mut self, right: bool) -> bool {
        if right && !self.locked {
            self.bad_in_a_row = 0;
            return true;
        }
        self.bad_logins += 1;
        self.bad_in_a_row += 1;
        self.locked |= self.bad_in_a_row >= LOCK_AFTER;
        false
    }
}

/// What its threads share.
pub(crate) struct Shared {
    settings: Settings,
    http: SocketAddr,
    rtsp: SocketAddr,
    uuid: String,
    state: Mutex<State>,
    stop: AtomicBool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// A running camera; ends when dropped.
pub(crate) struct FakeCamera {
    pub(crate) address: Ipv4Addr,
    pub(crate) http: SocketAddr,
    pub(crate) rtsp: SocketAddr,
    pub(crate) uuid: String,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// A loopback address that no other test uses.
pub(crate) fn next_address() -> Ipv4Addr {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    let byte = |number: u32| u8::try_from(number).unwrap();
    Ipv4Addr::new(127, byte(16 + process % 200), byte(process / 200 % 250), byte(number))
}

impl FakeCamera {
    pub(crate) fn start(settings: Settings) -> FakeCamera {
        let address = settings.address.unwrap_or_else(next_address);
        let bind = || TcpListener::bind((address, 0)).unwrap();
        let (http, rtsp) = (bind(), bind());
        let [_, a, b, c] = address.octets();
        let shared = Arc::new(Shared {
            http: http.local_addr().unwrap(),
            rtsp: rtsp.local_addr().unwrap(),
            uuid: format!("4d454930-0000-1000-8000-001122{a:02x}{b:02x}{c:02x}"),
            state: Mutex::new(State { gop: 50, ..State::default() }),
            stop: AtomicBool::new(false),
            settings,
        });
        let announcer = announce::Announcer::open(address, shared.settings.onvif);
        let [web, stream, voice] = [(); 3].map(|()| shared.clone());
        let threads = vec![
            std::thread::spawn(move || accept(&http, &web, http::serve)),
            std::thread::spawn(move || accept(&rtsp, &stream, rtsp::serve)),
            std::thread::spawn(move || announcer.run(&voice)),
        ];
        let (http, rtsp, uuid) = (shared.http, shared.rtsp, shared.uuid.clone());
        FakeCamera { address, http, rtsp, uuid, shared, threads }
    }

    /// Requests over HTTP and RTSP so far, by name.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.shared.state().requests.clone()
    }

    pub(crate) fn bad_logins(&self) -> u32 {
        self.shared.state().bad_logins
    }

    pub(crate) fn is_locked(&self) -> bool {
        self.shared.state().locked
    }

    /// Whether the password itself came over the network.
    pub(crate) fn saw_password(&self) -> bool {
        self.shared.state().saw_password
    }

    pub(crate) fn reboots(&self) -> u32 {
        self.shared.state().reboots
    }

    pub(crate) fn clock_was_set(&self) -> bool {
        self.shared.state().clock_was_set
    }
}

impl Drop for FakeCamera {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a thread of the fake camera failed");
        }
    }
}

/// Serves connections until the end, each on a thread of its own.
fn accept(listener: &TcpListener, shared: &Arc<Shared>, serve: fn(TcpStream, &Shared)) {
    listener.set_nonblocking(true).unwrap();
    let mut connections = Vec::new();
    while !shared.is_over() {
        let Ok((stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        let shared = shared.clone();
        connections.push(std::thread::spawn(move || serve(stream, &shared)));
    }
    for connection in connections {
        assert!(
            connection.join().is_ok() || std::thread::panicking(),
            "a connection of the fake camera failed"
        );
    }
}

/// Reads until `end` comes, the peer closes, or the camera ends.
fn read_until(
    stream: &mut TcpStream,
    bytes: &mut Vec<u8>,
    shared: &Shared,
    is_whole: impl Fn(&[u8]) -> bool,
) -> bool {
    use std::io::{ErrorKind, Read as _};
    let mut piece = [0; 4_096];
    while !is_whole(bytes) {
        match stream.read(&mut piece) {
            Ok(0) => return false,
            Ok(len) => bytes.extend_from_slice(&piece[..len]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if shared.is_over() {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
    true
}
