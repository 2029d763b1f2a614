//! An RTMP peer made by hand: publishes and plays as it should, or sends whatever a test wants.

use super::amf::{self, Amf};
use super::chunks::{self, ChunkReader, Message};
use super::flv::{AUDIO, DATA, Tag, VIDEO};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What a test waits for at most where a peer should answer at once.
pub(crate) const ANSWER: Duration = Duration::from_secs(15);

/// Why nothing came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// The peer sent nothing in time.
    TimedOut,
    /// The peer closed the connection.
    Closed,
}

/// A refusal, as its `code` and `description` say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: String,
    pub(crate) description: String,
}

/// A stream of bytes whose reads can end in time.
pub(crate) trait Wire: Read + Write + Send {
    /// How long a read waits.
    fn read_within(&self, time: Duration);
}

impl Wire for TcpStream {
    fn read_within(&self, time: Duration) {
        self.set_read_timeout(Some(time.max(Duration::from_millis(1)))).unwrap();
    }
}

/// One connection.
pub(crate) struct Client {
    wire: Box<dyn Wire>,
    reader: ChunkReader,
    waiting: VecDeque<Message>,
    chunk_len: usize,
    transaction: f64,
    address: String,
    taken: u64,
    acknowledged: u64,
}

impl Client {
    /// Connects and shakes hands.
    pub(crate) fn open(address: SocketAddr) -> Client {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_write_timeout(Some(ANSWER)).unwrap();
        Client::over(Box::new(socket), address)
    }

    /// Shakes hands over a connection made elsewhere.
    pub(crate) fn over(mut wire: Box<dyn Wire>, address: SocketAddr) -> Client {
        shake_hands(&mut *wire).unwrap();
        Client {
            wire,
            reader: ChunkReader::new(),
            waiting: VecDeque::new(),
            chunk_len: 128,
            transaction: 0.0,
            address: address.to_string(),
            taken: 0,
            acknowledged: 0,
        }
    }

    /// Connected to `app`, ready for streams.
    pub(crate) fn connected(address: SocketAddr, app: &str) -> Client {
        let mut client = Client::open(address);
        client.connect(app).unwrap();
        client
    }

    /// Publishing `name` under `live`; the message stream's id with it.
    pub(crate) fn publishing(address: SocketAddr, name: &str) -> Result<(Client, u32), Refusal> {
        let mut client = Client::connected(address, "live");
        let stream = client.create_stream();
        client.publish(stream, name)?;
        Ok((client, stream))
    }

    /// Playing `name` under `live`.
    pub(crate) fn playing(address: SocketAddr, name: &str) -> Result<Client, Refusal> {
        let mut client = Client::connected(address, "live");
        let stream = client.create_stream();
        client.play(stream, name)?;
        Ok(client)
    }

    /// Sends bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.write_all(bytes)?;
        self.wire.flush()
    }

    /// Sends a message on a chunk stream.
    pub(crate) fn send(&mut self, csid: u32, message: &Message) -> io::Result<()> {
        let bytes = chunks::cut(csid, message, self.chunk_len);
        self.raw(&bytes)
    }

    /// Tells the peer our chunk size, and keeps to it.
    pub(crate) fn set_chunk_len(&mut self, len: u32) -> io::Result<()> {
        self.control(1, &len.to_be_bytes())?;
        self.chunk_len = len as usize;
        Ok(())
    }

    /// Sends a protocol control message.
    pub(crate) fn control(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        self.send(2, &Message { kind, ts: 0, stream: 0, body: body.to_vec() })
    }

    /// Sends a command.
    pub(crate) fn command(&mut self, stream: u32, values: &[Amf]) -> io::Result<()> {
        self.send(3, &Message { kind: 20, ts: 0, stream, body: amf::encode(values) })
    }

    /// Sends one media tag.
    pub(crate) fn media(&mut self, stream: u32, tag: &Tag) -> io::Result<()> {
        let csid = match tag.kind {
            AUDIO => 4,
            VIDEO => 6,
            _ => 5,
        };
        self.send(csid, &Message { kind: tag.kind, ts: tag.ts, stream, body: tag.body.clone() })
    }

    /// `connect`, with the codecs of Enhanced RTMP.
    pub(crate) fn connect(&mut self, app: &str) -> Result<(), Refusal> {
        self.connect_answer(app).map(|_| ())
    }

    /// As [`Client::connect`], with all that the peer answers.
    pub(crate) fn connect_answer(&mut self, app: &str) -> Result<Vec<Amf>, Refusal> {
        let url = format!("rtmp://{}/{app}", self.address);
        self.connect_as(&[("app", app), ("flashVer", "FMLE/3.0 (compatible; test)"), ("tcUrl", &url)])
    }

    /// As [`Client::connect_answer`], with these words of its own.
    pub(crate) fn connect_as(&mut self, said: &[(&str, &str)]) -> Result<Vec<Amf>, Refusal> {
        let said = said.iter().map(|(name, text)| ((*name).to_owned(), Amf::text(text)));
        let offers = [
            ("type", Amf::text("nonprivate")),
            (
                "fourCcList",
                Amf::List(["hvc1", "av01", "vp09", "Opus", "ac-3", "fLaC"].map(Amf::text).to_vec()),
            ),
            ("capsEx", Amf::Number(0.0)),
        ];
        let offers = offers.into_iter().map(|(name, value)| (name.to_owned(), value));
        let properties = Amf::Object(said.chain(offers).collect());
        self.transaction += 1.0;
        let transaction = self.transaction;
        self.command(0, &[Amf::text("connect"), Amf::Number(transaction), properties]).unwrap();
        self.result(transaction)
    }

    /// `createStream`.
    pub(crate) fn create_stream(&mut self) -> u32 {
        self.transaction += 1.0;
        let transaction = self.transaction;
        self.command(0, &[Amf::text("createStream"), Amf::Number(transaction), Amf::Null]).unwrap();
        let values = self.result(transaction).unwrap();
        values.get(3).and_then(Amf::as_number).expect("createStream gives a number") as u32
    }

    /// `publish`, until the peer has answered.
    pub(crate) fn publish(&mut self, stream: u32, name: &str) -> Result<(), Refusal> {
        let values = [Amf::text("publish"), Amf::Number(0.0), Amf::Null, Amf::text(name), Amf::text("live")];
        self.command(stream, &values).unwrap();
        self.status("NetStream.Publish.Start")?;
        self.set_chunk_len(4096).unwrap();
        Ok(())
    }

    /// `play`, until the peer has answered.
    pub(crate) fn play(&mut self, stream: u32, name: &str) -> Result<(), Refusal> {
        let values = [Amf::text("play"), Amf::Number(0.0), Amf::Null, Amf::text(name), Amf::Number(-2000.0)];
        self.command(stream, &values).unwrap();
        // Set Buffer Length, as players do.
        let buffer = [&[0, 3][..], &stream.to_be_bytes(), &3_000_u32.to_be_bytes()].concat();
        self.control(4, &buffer).unwrap();
        self.status("NetStream.Play.Start")
    }

    /// Ends a publication in the polite way.
    pub(crate) fn unpublish(&mut self, stream: u32, name: &str) -> io::Result<()> {
        self.command(0, &[Amf::text("FCUnpublish"), Amf::Number(0.0), Amf::Null, Amf::text(name)])?;
        self.command(
            0,
            &[Amf::text("deleteStream"), Amf::Number(0.0), Amf::Null, Amf::Number(f64::from(stream))],
        )
    }

    /// Waits for `_result` or `_error` of a transaction.
    fn result(&mut self, transaction: f64) -> Result<Vec<Amf>, Refusal> {
        self.find_command(|values| {
            let number = values.get(1).and_then(Amf::as_number);
            match values.first().and_then(Amf::as_text) {
                Some("_result") if number == Some(transaction) => Some(Ok(values.to_vec())),
                Some("_error") if number == Some(transaction) => Some(Err(refusal(values))),
                _ => None,
            }
        })
    }

    /// Waits for an `onStatus` with this code; one of level `error` is a refusal.
    pub(crate) fn status(&mut self, code: &str) -> Result<(), Refusal> {
        self.find_command(|values| {
            if values.first().and_then(Amf::as_text) != Some("onStatus") {
                return None;
            }
            let about = values.get(3)?;
            if about.get("code").and_then(Amf::as_text) == Some(code) {
                return Some(Ok(()));
            }
            (about.get("level").and_then(Amf::as_text) == Some("error")).then(|| Err(refusal(values)))
        })
    }

    /// Media that comes while a command is awaited is kept for later.
    fn find_command<T>(
        &mut self,
        mut wanted: impl FnMut(&[Amf]) -> Option<Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let end = Instant::now() + ANSWER;
        let mut kept = std::mem::take(&mut self.waiting);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let message = match self.message(left) {
                Ok(message) => message,
                Err(silence) => panic!("no answer to a command: {silence:?}"),
            };
            let commands = if message.kind == 20 { amf::decode(&message.body) } else { Vec::new() };
            if let Some(answer) = wanted(&commands) {
                self.waiting = kept;
                return answer;
            }
            kept.push_back(message);
        }
    }

    /// The next message of any kind.
    pub(crate) fn message(&mut self, within: Duration) -> Result<Message, Silence> {
        if let Some(message) = self.waiting.pop_front() {
            return Ok(message);
        }
        let end = Instant::now() + within;
        let mut bytes = vec![0; 65_536];
        loop {
            if let Some(message) = self.reader.next() {
                self.react(&message);
                return Ok(message);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Silence::TimedOut);
            }
            self.wire.read_within(left);
            match self.wire.read(&mut bytes) {
                Ok(0) => return Err(Silence::Closed),
                Ok(n) => {
                    self.taken += n as u64;
                    self.reader.feed(&bytes[..n]);
                    self.acknowledge();
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return Err(Silence::Closed),
            }
        }
    }

    /// The next media message as a tag.
    pub(crate) fn tag(&mut self, within: Duration) -> Result<Tag, Silence> {
        let end = Instant::now() + within;
        loop {
            let message = self.message(end.saturating_duration_since(Instant::now()))?;
            if matches!(message.kind, AUDIO | VIDEO | DATA) {
                return Ok(Tag { kind: message.kind, ts: message.ts, body: message.body });
            }
        }
    }

    /// Reads until the peer closes; `false` where it has not within `within`.
    pub(crate) fn is_closed_within(&mut self, within: Duration) -> bool {
        let end = Instant::now() + within;
        loop {
            match self.message(end.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(Silence::Closed) => return true,
                Err(Silence::TimedOut) => return false,
            }
        }
    }

    fn react(&mut self, message: &Message) {
        // A ping is answered as any peer would; failures show at the next read.
        if message.kind == 4 && message.body.starts_with(&[0, 6]) {
            let pong = [&[0, 7], &message.body[2..]].concat();
            drop(self.control(4, &pong));
        }
    }

    fn acknowledge(&mut self) {
        if self.taken - self.acknowledged >= 500_000 {
            self.acknowledged = self.taken;
            let total = (self.taken as u32).to_be_bytes();
            drop(self.control(3, &total));
        }
    }
}

fn refusal(values: &[Amf]) -> Refusal {
    let about = values.get(3).unwrap_or(&Amf::Null);
    let text = |name| about.get(name).and_then(Amf::as_text).unwrap_or_default().to_owned();
    Refusal { code: text("code"), description: text("description") }
}

/// The simple handshake.
fn shake_hands(wire: &mut dyn Wire) -> io::Result<()> {
    wire.read_within(ANSWER);
    let mut hello = vec![3];
    hello.extend([0; 8]);
    hello.extend((0..1528_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8));
    wire.write_all(&hello)?;
    let mut answer = vec![0; 1 + 1536];
    wire.read_exact(&mut answer)?;
    assert_eq!(answer[0], 3, "the peer speaks another version");
    wire.write_all(&answer[1..])?;
    let mut echo = vec![0; 1536];
    wire.read_exact(&mut echo)
}
