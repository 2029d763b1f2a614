//! One RTMP connection without its socket: the client that publishes or plays, and the small server
//! that other servers push to.
//! Source: "Adobe's Real Time Messaging Protocol", sections 5.2 (handshake), 5.4 and 7 (commands).
//!
//! ```text
//! client  Handshake -> Connecting -> Creating -> Starting -> Running
//! sink    Handshake -> Serving (connect, createStream) -> Running, from its `publish` on
//! floor   Running: no handshake and no commands, both sides know the chunk size
//! ```

use crate::amf::{self, Value, text};
use crate::chunk::{ChunkReader, Head, write_message};
use crate::error::BenchError;
use crate::media::{AUDIO_HEADER, Track, video_header};

const HANDSHAKE: usize = 1536;
const APP: &str = "live";
const WINDOW: u32 = 5_000_000;

/// What a client connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Sends a stream.
    Publish,
    /// Receives a stream.
    Play,
    /// Shakes hands and stays.
    Idle,
    /// Is pushed to.
    Sink,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Handshake,
    Connecting,
    Creating,
    Starting,
    Serving,
    Running,
}

/// One connection's state.
#[derive(Debug)]
pub(crate) struct Session {
    reader: ChunkReader,
    core: Core,
}

#[derive(Debug)]
struct Core {
    goal: Goal,
    phase: Phase,
    address: String,
    name: String,
    handshake: Vec<u8>,
    out_chunk: usize,
    stream_id: u32,
    window: u32,
    received: u32,
    acknowledged: u32,
}

impl Session {
    /// A client of the server at `address`; its first bytes go to `out`.
    pub(crate) fn client(goal: Goal, address: &str, name: &str, out: &mut Vec<u8>) -> Self {
        out.push(3);
        write_challenge(out);
        Self::new(goal, Phase::Handshake, address, name, ChunkReader::new(), 128)
    }

    /// The server side of a connection that was accepted.
    pub(crate) fn sink() -> Self {
        Self::new(Goal::Sink, Phase::Handshake, "", "", ChunkReader::new(), 128)
    }

    /// A connection to the floor, which carries nothing but media in chunks of `chunk_size`.
    pub(crate) fn bare(goal: Goal, name: &str, chunk_size: usize) -> Self {
        let reader = ChunkReader::with_chunk_size(chunk_size);
        let mut session = Self::new(goal, Phase::Running, "", name, reader, chunk_size);
        session.core.stream_id = 1;
        session
    }

    fn new(goal: Goal, phase: Phase, address: &str, name: &str, reader: ChunkReader, chunk: usize) -> Self {
        let core = Core {
            goal,
            phase,
            address: address.to_owned(),
            name: name.to_owned(),
            handshake: Vec::new(),
            out_chunk: chunk,
            stream_id: 0,
            window: u32::MAX,
            received: 0,
            acknowledged: 0,
        };
        Self { reader, core }
    }

    /// Whether the goal is reached: media may flow, or for [`Goal::Idle`] hands are shaken.
    pub(crate) fn is_running(&self) -> bool {
        self.core.phase == Phase::Running
    }

    /// The stream's name; for a sink the one that the peer publishes.
    pub(crate) fn name(&self) -> &str {
        &self.core.name
    }

    /// Takes received bytes; answers go to `out`, media to `on_media`.
    pub(crate) fn receive(
        &mut self,
        mut input: &[u8],
        out: &mut Vec<u8>,
        on_media: &mut dyn FnMut(Track, &[u8]),
    ) -> Result<(), BenchError> {
        let core = &mut self.core;
        core.count(input.len(), out);
        if core.phase == Phase::Handshake {
            input = core.shake_hands(input, out)?;
        }
        self.reader.feed(input, |head, payload| match head.kind {
            8 => {
                on_media(Track::Audio, payload);
                Ok(())
            }
            9 => {
                on_media(Track::Video, payload);
                Ok(())
            }
            _ => core.control(head, payload, out),
        })
    }

    /// Writes what comes before a publisher's first frame: chunk size, metadata, sequence headers.
    pub(crate) fn begin_media(&mut self, chunk_size: usize, bare: bool, out: &mut Vec<u8>) {
        let core = &mut self.core;
        if !bare {
            core.protocol(out, 1, &(chunk_size as u32).to_be_bytes());
            core.out_chunk = chunk_size;
            let properties = [
                ("width", Value::Number(1280.0)),
                ("height", Value::Number(720.0)),
                ("framerate", Value::Number(30.0)),
                ("videocodecid", Value::Number(7.0)),
                ("audiocodecid", Value::Number(10.0)),
                ("audiosamplerate", Value::Number(48_000.0)),
                ("stereo", Value::Bool(true)),
            ];
            let properties = properties.map(|(key, value)| (key.to_owned(), value)).to_vec();
            let values = [text("@setDataFrame"), text("onMetaData"), Value::Object(properties)];
            let head = Head { timestamp: 0, kind: 18, stream_id: core.stream_id };
            write_message(out, core.out_chunk, 4, head, &amf::encode(&values));
        }
        self.write_media(Track::Video, 0, &video_header(), out);
        self.write_media(Track::Audio, 0, &AUDIO_HEADER, out);
    }

    /// Writes one audio or video message.
    pub(crate) fn write_media(&self, track: Track, timestamp: u32, body: &[u8], out: &mut Vec<u8>) {
        let (csid, kind) = if track == Track::Video { (6, 9) } else { (4, 8) };
        let head = Head { timestamp, kind, stream_id: self.core.stream_id };
        write_message(out, self.core.out_chunk, csid, head, body);
    }
}

fn write_challenge(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; 8]);
    // Any bytes do; a version of zero above says that they hold no digest.
    out.extend((8..HANDSHAKE).map(|i| (i * 31 % 251) as u8));
}

impl Core {
    fn count(&mut self, len: usize, out: &mut Vec<u8>) {
        self.received = self.received.wrapping_add(len as u32);
        if self.received.wrapping_sub(self.acknowledged) >= self.window {
            self.acknowledged = self.received;
            self.protocol(out, 3, &self.received.to_be_bytes());
        }
    }

    fn shake_hands<'a>(&mut self, input: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], BenchError> {
        let whole = 1 + 2 * HANDSHAKE;
        let before = self.handshake.len();
        let take = input.len().min(whole - before);
        self.handshake.extend_from_slice(&input[..take]);
        let got = self.handshake.len();
        if self.handshake.first().is_some_and(|&version| version != 3) {
            return Err(BenchError::Protocol("the handshake's version is not 3"));
        }
        if self.goal == Goal::Sink && before <= HANDSHAKE && got > HANDSHAKE {
            out.push(3);
            write_challenge(out);
            out.extend_from_slice(&self.handshake[1..=HANDSHAKE]);
        }
        if got == whole {
            if self.goal == Goal::Sink {
                self.phase = Phase::Serving;
            } else {
                out.extend_from_slice(&self.handshake[1..=HANDSHAKE]);
                self.phase = Phase::Running;
                if self.goal != Goal::Idle {
                    self.phase = Phase::Connecting;
                    self.connect(out);
                }
            }
            self.handshake = Vec::new();
        }
        Ok(&input[take..])
    }

    fn connect(&self, out: &mut Vec<u8>) {
        let properties = vec![
            ("app".to_owned(), text(APP)),
            ("type".to_owned(), text("nonprivate")),
            ("flashVer".to_owned(), text("FMLE/3.0 (compatible; bench)")),
            ("tcUrl".to_owned(), Value::Text(format!("rtmp://{}/{APP}", self.address))),
            ("fpad".to_owned(), Value::Bool(false)),
            ("capabilities".to_owned(), Value::Number(15.0)),
            ("audioCodecs".to_owned(), Value::Number(4071.0)),
            ("videoCodecs".to_owned(), Value::Number(252.0)),
            ("videoFunction".to_owned(), Value::Number(1.0)),
        ];
        self.command(out, 0, &[text("connect"), Value::Number(1.0), Value::Object(properties)]);
    }

    fn control(&mut self, head: Head, payload: &[u8], out: &mut Vec<u8>) -> Result<(), BenchError> {
        match (head.kind, payload) {
            (4, [0, 6, stamp @ ..]) => {
                let mut answer = vec![0, 7];
                answer.extend_from_slice(stamp);
                self.protocol(out, 4, &answer);
            }
            (5, [a, b, c, d]) => self.window = u32::from_be_bytes([*a, *b, *c, *d]).max(4096),
            (6, _) => self.protocol(out, 5, &WINDOW.to_be_bytes()),
            (20, _) | (17, [0, ..]) => {
                let values = amf::decode(&payload[usize::from(head.kind == 17)..]);
                if let [Value::Text(name), Value::Number(transaction), rest @ ..] = &values[..] {
                    return match self.goal {
                        Goal::Sink => self.serve(name, *transaction, rest, out),
                        _ => self.answered(name, *transaction, rest, out),
                    };
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn answered(
        &mut self,
        name: &str,
        transaction: f64,
        rest: &[Value],
        out: &mut Vec<u8>,
    ) -> Result<(), BenchError> {
        let code = rest.iter().rev().find_map(|value| value.property("code")).unwrap_or("no code");
        let refused = |what| Err(BenchError::Refused { what, code: code.to_owned() });
        match (self.phase, name, transaction as u32) {
            (Phase::Connecting, "_result", 1) => {
                let stream = text(&self.name);
                if self.goal == Goal::Publish {
                    self.command(
                        out,
                        0,
                        &[text("releaseStream"), Value::Number(2.0), Value::Null, stream.clone()],
                    );
                    self.command(out, 0, &[text("FCPublish"), Value::Number(3.0), Value::Null, stream]);
                }
                self.command(out, 0, &[text("createStream"), Value::Number(4.0), Value::Null]);
                self.phase = Phase::Creating;
                Ok(())
            }
            (Phase::Connecting, "_error", _) => refused("connect"),
            (Phase::Creating, "_result", 4) => {
                let Some(Value::Number(id)) = rest.last() else {
                    return Err(BenchError::Protocol("createStream was answered without a number"));
                };
                self.stream_id = *id as u32;
                let stream = text(&self.name);
                let (verb, kind) = match self.goal {
                    Goal::Publish => ("publish", text("live")),
                    _ => ("play", Value::Number(-2000.0)),
                };
                let values = [text(verb), Value::Number(5.0), Value::Null, stream, kind];
                self.command(out, self.stream_id, &values);
                self.phase = Phase::Starting;
                Ok(())
            }
            (Phase::Creating, "_error", 4) => refused("createStream"),
            (Phase::Starting | Phase::Running, "onStatus", _) => {
                if rest.iter().any(|value| value.property("level") == Some("error")) {
                    return refused(if self.goal == Goal::Publish { "publish" } else { "play" });
                }
                if matches!(code, "NetStream.Publish.Start" | "NetStream.Play.Start") {
                    self.phase = Phase::Running;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn serve(
        &mut self,
        name: &str,
        transaction: f64,
        rest: &[Value],
        out: &mut Vec<u8>,
    ) -> Result<(), BenchError> {
        let status = |code: &str| {
            let properties = [("level", "status"), ("code", code), ("description", "-")];
            Value::Object(properties.map(|(key, value)| (key.to_owned(), text(value))).to_vec())
        };
        let number = Value::Number(transaction);
        match name {
            "connect" => {
                self.protocol(out, 5, &WINDOW.to_be_bytes());
                let mut bandwidth = WINDOW.to_be_bytes().to_vec();
                bandwidth.push(2);
                self.protocol(out, 6, &bandwidth);
                let version = Value::Object(vec![
                    ("fmsVer".to_owned(), text("FMS/3,0,1,123")),
                    ("capabilities".to_owned(), Value::Number(31.0)),
                ]);
                let success = status("NetConnection.Connect.Success");
                self.command(out, 0, &[text("_result"), number, version, success]);
            }
            "createStream" => {
                self.stream_id = 1;
                let values = [text("_result"), number, Value::Null, Value::Number(1.0)];
                self.command(out, 0, &values);
            }
            "publish" => {
                let Some(stream) = rest.get(1).and_then(Value::text) else {
                    return Err(BenchError::Protocol("publish without a name"));
                };
                self.name = stream.split('?').next().unwrap_or_default().to_owned();
                let start = status("NetStream.Publish.Start");
                let values = [text("onStatus"), Value::Number(0.0), Value::Null, start];
                self.command(out, 1, &values);
                self.phase = Phase::Running;
            }
            _ => {}
        }
        Ok(())
    }

    fn command(&self, out: &mut Vec<u8>, stream_id: u32, values: &[Value]) {
        let head = Head { timestamp: 0, kind: 20, stream_id };
        write_message(out, self.out_chunk, 3, head, &amf::encode(values));
    }

    fn protocol(&self, out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
        write_message(out, self.out_chunk, 2, Head { timestamp: 0, kind, stream_id: 0 }, payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Source;
    use crate::verify::Verifier;

    #[test]
    fn a_client_publishes_to_the_sink_and_every_frame_arrives() {
        let (mut to_sink, mut to_client) = (Vec::new(), Vec::new());
        let mut client = Session::client(Goal::Publish, "127.0.0.1:1935", "s3", &mut to_sink);
        let mut sink = Session::sink();
        let mut none = |_: Track, _: &[u8]| panic!("no media yet");
        for _ in 0..10 {
            let bytes = std::mem::take(&mut to_sink);
            sink.receive(&bytes, &mut to_client, &mut none).unwrap();
            let bytes = std::mem::take(&mut to_client);
            client.receive(&bytes, &mut to_sink, &mut none).unwrap();
        }
        assert!(client.is_running() && sink.is_running());
        assert_eq!(sink.name(), "s3");

        let mut source = Source::new(3, 1_000_000, 0.0);
        let mut body = Vec::new();
        client.begin_media(4096, false, &mut to_sink);
        for frame in 0..100 {
            source.write_frame(Track::Video, frame, &mut body);
            client.write_media(Track::Video, frame as u32 * 33, &body, &mut to_sink);
            source.write_frame(Track::Audio, frame, &mut body);
            client.write_media(Track::Audio, frame as u32 * 21, &body, &mut to_sink);
        }
        let mut verifier = Verifier::new(3);
        let mut frames = 0;
        for part in to_sink.chunks(997) {
            sink.receive(part, &mut to_client, &mut |track, body| {
                frames += usize::from(verifier.take(track, body).is_some());
            })
            .unwrap();
        }
        assert_eq!(frames, 200);
        assert_eq!(verifier.faults_at_end([100, 100]).total(), 0);
    }

    #[test]
    fn acknowledgements_carry_the_running_total() {
        let mut out = Vec::new();
        let mut session = Session::bare(Goal::Play, "s0", 4096);
        session.core.window = 1000;
        let mut bytes = Vec::new();
        let head = Head { timestamp: 0, kind: 18, stream_id: 1 };
        write_message(&mut bytes, 4096, 4, head, &[5; 1200]);
        for _ in 0..2 {
            session.receive(&bytes, &mut out, &mut |_, _| {}).unwrap();
        }
        let total = 2 * bytes.len() as u32;
        assert_eq!(out.len(), 2 * 16);
        assert_eq!(out[28..32], total.to_be_bytes());
    }

    #[test]
    fn a_refusal_is_an_error_that_names_the_code() {
        let mut out = Vec::new();
        let mut session = Session::bare(Goal::Play, "s0", 4096);
        session.core.phase = Phase::Starting;
        let status = Value::Object(vec![
            ("level".to_owned(), text("error")),
            ("code".to_owned(), text("NetStream.Play.StreamNotFound")),
        ]);
        let values = [text("onStatus"), Value::Number(0.0), Value::Null, status];
        let mut bytes = Vec::new();
        let head = Head { timestamp: 0, kind: 20, stream_id: 1 };
        write_message(&mut bytes, 4096, 3, head, &amf::encode(&values));
        let error = session.receive(&bytes, &mut out, &mut |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("NetStream.Play.StreamNotFound"));
    }
}
