//! A streaming server, an encoder and an application, written from the contract that `docs/coordinator.md` describes.

use crate::common::gateway::Gateway;
use crate::common::wait::{self, secs};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderName;
use tokio_tungstenite::tungstenite::{self, HandshakeError, Message, WebSocket};

pub(crate) const SECRET: &str = "control-secret-0001";
/// Often enough for a gateway that gives a silent coordinator up after seconds.
const BEAT: Duration = Duration::from_millis(500);

/// What an application was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) line: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    pub(crate) at: Instant,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What it answers; by path and, for keys, by channel.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) hangs: bool,
    /// How often; then the default again.
    pub(crate) times: usize,
}

#[derive(Default)]
struct State {
    asked: Vec<Asked>,
    answers: BTreeMap<String, Answer>,
}

/// An application that verifies keys (`/key`) and hears of events (`/events`).
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl App {
    pub(crate) fn start() -> App {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let app = App { address: listener.local_addr().unwrap(), state: Arc::default() };
        let serving = app.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let app = serving.clone();
                std::thread::spawn(move || app.serve(stream));
            }
        });
        app
    }

    fn serve(&self, mut stream: TcpStream) {
        let Some(asked) = hear(&mut stream) else { return };
        let place = format!(
            "{} {}",
            asked.line.split(' ').nth(1).unwrap_or_default(),
            asked.header("x-streaming-channel")
        );
        let answer = {
            let mut state = self.state.lock().unwrap();
            state.asked.push(asked);
            match state.answers.get_mut(&place).filter(|answer| answer.times > 0) {
                Some(answer) => {
                    answer.times -= 1;
                    answer.clone()
                }
                None => Answer { head: "200 OK\r\n".to_owned(), hangs: false, times: 0 },
            }
        };
        if answer.hangs {
            std::thread::sleep(secs(30));
        }
        // What is in a body means nothing.
        write!(stream, "HTTP/1.1 {}Content-Length: 4\r\n\r\nbody", answer.head).ok();
    }

    /// From now on: `place` is a path and a channel, `head` a status with headers.
    pub(crate) fn answer(&self, place: &str, head: &str, times: usize) {
        let answer = Answer { head: format!("{head}\r\n"), hangs: head == "hang", times };
        self.state.lock().unwrap().answers.insert(place.to_owned(), answer);
    }

    pub(crate) fn asked(&self, path: &str, channel: &str) -> Vec<Asked> {
        let all = self.state.lock().unwrap().asked.clone();
        let is_its =
            |asked: &Asked| asked.line.contains(path) && asked.header("x-streaming-channel") == channel;
        all.into_iter().filter(is_its).collect()
    }

    /// Events of a channel, as `stream-available HLS-LIVE`.
    pub(crate) fn events(&self, channel: &str) -> Vec<String> {
        let all = self.asked("/events", channel).into_iter();
        all.map(|asked| {
            format!("{} {}", asked.header("x-event-type"), asked.header("x-stream-type")).trim().to_owned()
        })
        .collect()
    }

    pub(crate) fn wait_for_events(&self, channel: &str, count: usize) -> Vec<Asked> {
        wait::until(&format!("{count} events of {channel}"), secs(60), || {
            let asked = self.asked("/events", channel);
            (asked.len() >= count).then_some(asked)
        })
    }
}

fn hear(stream: &mut TcpStream) -> Option<Asked> {
    stream.set_read_timeout(Some(secs(20))).ok()?;
    let mut bytes = Vec::new();
    let mut piece = [0; 1024];
    let end = loop {
        let read = stream.read(&mut piece).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&piece[..read]);
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let line = lines.next()?.to_owned();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    Some(Asked { line, headers, body: bytes[end + 4..].to_vec(), at: Instant::now() })
}

/// A coordinator with this application; `more` is laid over its settings.
pub(crate) fn settings(app: &App, more: &Value) -> Value {
    let mut coordinator = json!({
        "enabled": true,
        "listen": ["127.0.0.1:0"],
        "control_secret": SECRET,
        "key_verification": {"url": format!("http://{}/key", app.address), "user": "app", "password": "pass"},
        "events": {"url": format!("http://{}/events", app.address), "token": "event-token"},
        "commands": {"user": "u", "password": "p"},
        "require_encoder": true,
        "external_ip": "127.0.0.1",
    });
    coordinator.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"compat": {"coordinator": coordinator}})
}

/// A token with these claims.
pub(crate) fn token(secret: &str, claims: &Value) -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    signed(secret, &format!("{}.{}", encode(r#"{"typ":"JWT","alg":"HS256"}"#), encode(&claims.to_string())))
}

/// What is signed, with its signature.
pub(crate) fn signed(secret: &str, signed: &str) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, signed.as_bytes())))
}

/// A streaming server or an encoder. A thread of its own keeps its socket alive; it ends with it.
pub(crate) struct Peer {
    orders: Sender<Message>,
    line: Arc<Line>,
}

#[derive(Default)]
struct Line {
    /// Texts that nobody has asked for yet.
    heard: Mutex<Vec<String>>,
    is_closed: AtomicBool,
    is_silent: AtomicBool,
}

impl Line {
    fn run(&self, mut socket: WebSocket<TcpStream>, orders: &Receiver<Message>) {
        let mut beat = Instant::now();
        loop {
            match socket.read() {
                Ok(Message::Text(text)) => self.heard.lock().unwrap().push(text.as_str().to_owned()),
                Ok(Message::Close(_)) => break,
                Ok(_) => {}
                Err(tungstenite::Error::Io(error))
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
            if beat.elapsed() >= BEAT && !self.is_silent.load(Ordering::Relaxed) {
                beat = Instant::now();
                socket.send(Message::text("HEARTBEAT")).ok();
            }
            loop {
                match orders.try_recv() {
                    // What the other side does not take any more is seen when reading.
                    Ok(message) => drop(socket.send(message)),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
        }
        self.is_closed.store(true, Ordering::Relaxed);
    }
}

impl Peer {
    /// Opens `/ws/control/KIND`, as the contract wants it.
    pub(crate) fn open(gateway: &Gateway, kind: &str) -> Peer {
        let token = token(SECRET, &json!({"sub": format!("{kind}-control")}));
        Peer::try_open(gateway, kind, Some(&token), &[]).unwrap()
    }

    /// The same with this token; the refusal is status and body.
    pub(crate) fn try_open(
        gateway: &Gateway,
        kind: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
    ) -> Result<Peer, (u16, String)> {
        let address = gateway.coordinator.expect("it is a coordinator");
        let mut request = format!("ws://{address}/ws/control/{kind}").into_client_request().unwrap();
        let token = token.map(|token| ("x-control-auth-token", token));
        for (name, value) in token.into_iter().chain(headers.iter().copied()) {
            request.headers_mut().insert(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(secs(20))).unwrap();
        match tungstenite::client::client(request, stream) {
            Ok((socket, _)) => Ok(Peer::over(socket)),
            Err(HandshakeError::Failure(tungstenite::Error::Http(response))) => {
                let body = response.body().as_deref().unwrap_or_default();
                Err((response.status().as_u16(), String::from_utf8_lossy(body).into_owned()))
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn over(socket: WebSocket<TcpStream>) -> Peer {
        socket.get_ref().set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (orders, given) = channel();
        let line = Arc::new(Line::default());
        let running = line.clone();
        std::thread::spawn(move || running.run(socket, &given));
        Peer { orders, line }
    }

    /// An encoder that takes so many streams.
    pub(crate) fn encoder(gateway: &Gateway, capacity: i64) -> Peer {
        let mut peer = Peer::open(gateway, "hls");
        peer.say(&format!("REGISTER\nCapacity:{capacity}"));
        peer
    }

    pub(crate) fn say(&mut self, text: &str) {
        self.orders.send(Message::text(text)).ok();
    }

    /// From now on it says nothing by itself.
    pub(crate) fn be_silent(&self) {
        self.line.is_silent.store(true, Ordering::Relaxed);
    }

    pub(crate) fn ping(&mut self) {
        self.orders.send(Message::Ping(Vec::new().into())).ok();
    }

    /// Asks for a channel, under this number.
    pub(crate) fn request(&mut self, number: u32, channel: &str, key: &str) {
        self.say(&format!(
            "PUBLISH-REQUEST\nRequest-ID:{number}\nStream-Channel:{channel}\nStream-Key:{key}\nUser-IP:192.0.2.7"
        ));
    }

    /// The next message that begins so, whatever came before it.
    pub(crate) fn expect(&mut self, begin: &str) -> String {
        wait::until(begin, secs(60), || {
            let mut heard = self.line.heard.lock().unwrap();
            let at = heard.iter().position(|text| text.starts_with(begin))?;
            Some(heard.remove(at))
        })
    }

    /// The next message of this kind about a channel.
    pub(crate) fn expect_of(&mut self, kind: &str, channel: &str) -> String {
        let about = format!("\nStream-Channel:{channel}\n");
        wait::until(&format!("{kind} of {channel}"), secs(60), || {
            let mut heard = self.line.heard.lock().unwrap();
            let at = heard.iter().position(|text| text.starts_with(kind) && text.contains(&about))?;
            Some(heard.remove(at))
        })
    }

    /// Whether one has come that begins so, and was not taken.
    pub(crate) fn has(&self, begin: &str) -> bool {
        self.line.heard.lock().unwrap().iter().any(|text| text.starts_with(begin))
    }

    /// How many have come that begin so, and were not taken.
    pub(crate) fn count(&mut self, begin: &str) -> usize {
        // What is on its way shall count, too.
        std::thread::sleep(Duration::from_millis(100));
        self.line.heard.lock().unwrap().iter().filter(|text| text.starts_with(begin)).count()
    }

    /// Whether the coordinator has closed it.
    pub(crate) fn is_closed(&self) -> bool {
        self.line.is_closed.load(Ordering::Relaxed)
    }

    /// Publishes a channel by its key; the stream's id.
    pub(crate) fn publish(&mut self, number: u32, channel: &str, key: &str) -> String {
        self.request(number, channel, key);
        field(&self.expect(&format!("PUBLISH-ACCEPT\nRequest-ID:{number}\n")), "Stream-ID")
    }

    pub(crate) fn end(&mut self, channel: &str, stream_id: &str) {
        self.say(&format!("PUBLISH-END\nStream-Channel:{channel}\nStream-ID:{stream_id}"));
    }

    pub(crate) fn closed(&mut self, channel: &str, stream_id: &str) {
        self.say(&format!("STREAM-CLOSED\nStream-Channel:{channel}\nStream-ID:{stream_id}"));
    }

    pub(crate) fn available(&mut self, channel: &str, stream_id: &str, kind: &str, more: &str) {
        self.say(&format!(
            "STREAM-AVAILABLE\nStream-Channel:{channel}\nStream-ID:{stream_id}\nStream-Type:{kind}\nResolution:640x360-30\n\
             Index-file:hls/{channel}/{stream_id}/640x360-30/live.m3u8{more}"
        ));
    }
}

/// A parameter of a message, as strict peers read it: nothing is trimmed.
pub(crate) fn field(text: &str, name: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
}

/// What a coordinator does with those who come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// What it should.
    None,
    /// It closes before a word.
    Drops,
    /// It never answers.
    Hangs,
    /// Its answer is none.
    Garbage,
    /// It opens the socket and closes it.
    ClosesAtOnce,
}

/// A coordinator that says what its test tells it to.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    there: Arc<There>,
}

#[derive(Default)]
struct There {
    fault: Mutex<Option<Fault>>,
    attempts: AtomicUsize,
    upgrades: Mutex<Vec<Asked>>,
    peers: Mutex<Vec<Option<Peer>>>,
}

impl Fake {
    pub(crate) fn start() -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fake = Fake { address: listener.local_addr().unwrap(), there: Arc::default() };
        let there = fake.there.clone();
        std::thread::spawn(move || {
            let mut hanging = Vec::new();
            for mut stream in listener.incoming().flatten() {
                there.attempts.fetch_add(1, Ordering::Relaxed);
                let fault = there.fault.lock().unwrap().unwrap_or(Fault::None);
                match fault {
                    Fault::Drops => {}
                    Fault::Hangs => hanging.push(stream),
                    Fault::Garbage => drop(stream.write_all(b"HTTP/1.1 200 Hello\r\n\r\nhello")),
                    Fault::None | Fault::ClosesAtOnce => {
                        let there = there.clone();
                        std::thread::spawn(move || there.open(stream, fault));
                    }
                }
            }
        });
        fake
    }

    /// From now on.
    pub(crate) fn behave(&self, fault: Fault) {
        *self.there.fault.lock().unwrap() = Some(fault);
    }

    /// Connections that have come, of whatever fate.
    pub(crate) fn attempts(&self) -> usize {
        self.there.attempts.load(Ordering::Relaxed)
    }

    /// What those asked whose sockets are open, or were.
    pub(crate) fn upgrades(&self) -> Vec<Asked> {
        self.there.upgrades.lock().unwrap().clone()
    }

    /// The socket of that number, once it is open.
    pub(crate) fn peer(&self, number: usize) -> Peer {
        wait::until(&format!("socket {number}"), secs(60), || {
            self.there.peers.lock().unwrap().get_mut(number).and_then(Option::take)
        })
    }
}

impl There {
    fn open(&self, stream: TcpStream, fault: Fault) {
        let mut asked = None;
        #[allow(clippy::result_large_err, reason = "the library's own type")]
        let note = |request: &Request, answer: Response| {
            let headers = request.headers().iter();
            let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
            let (line, headers) = (request.uri().path().to_owned(), headers.collect());
            asked = Some(Asked { line, headers, body: Vec::new(), at: Instant::now() });
            Ok(answer)
        };
        let Ok(socket) = tungstenite::accept_hdr(stream, note) else { return };
        if fault == Fault::ClosesAtOnce {
            return;
        }
        let mut peers = self.peers.lock().unwrap();
        self.upgrades.lock().unwrap().extend(asked);
        peers.push(Some(Peer::over(socket)));
    }
}
