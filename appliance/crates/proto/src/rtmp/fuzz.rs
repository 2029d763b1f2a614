//! Fuzz targets: plain functions that take any bytes and must return.
//!
//! Each holds one promise: no bytes panic the parser, and, where it says so, the same bytes give the same result
//! whatever pieces they come in, or what was written reads back. A broken promise is an assertion failure. `cargo
//! test` runs them over recorded bytes and a fixed seed of mutations; a fuzzer may call them too.

use super::amf::{self, Field};
use super::chunk_reader::{ChunkReader, Limits, Message, kind};
use super::events::{ClientMode, Event};
use super::flv::{Demuxer, demux_audio, demux_video};
use super::{
    ChunkWriter, ClientHandshake, ClientSession, ClientSettings, RtmpUrl, ServerHandshake, ServerSession,
    ServerSettings,
};
use bytes::BytesMut;
use fieldgate_media::{aac, av1, h264, hevc, sound};

fn messages(mut pieces: impl Iterator<Item = impl AsRef<[u8]>>) -> (Vec<Message>, bool) {
    let mut reader = ChunkReader::new(Limits::default());
    reader.allow_media(true);
    let mut messages = Vec::new();
    let ok = pieces.all(|piece| {
        let mut input = piece.as_ref();
        loop {
            match reader.read(&mut input) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => return input.is_empty(),
                Err(_) => return false,
            }
        }
    });
    (messages, ok)
}

/// Chunk data: the same messages come whether it arrives at once or in pieces; the first byte says how long.
pub fn chunk_reader(data: &[u8]) {
    let Some((&step, wire)) = data.split_first() else { return };
    let (whole, whole_ok) = messages(std::iter::once(wire));
    let (pieces, pieces_ok) = messages(wire.chunks(usize::from(step).max(1)));
    assert_eq!(whole_ok, pieces_ok);
    assert_eq!(whole.len(), pieces.len());
    for (a, b) in whole.iter().zip(&pieces) {
        assert_eq!(
            (a.kind, a.timestamp, a.stream_id, a.csid, a.body()),
            (b.kind, b.timestamp, b.stream_id, b.csid, b.body())
        );
    }
}

/// What the writer writes, the reader reads: chunk size, time and lengths are taken from the bytes.
pub fn chunk_round_trip(data: &[u8]) {
    let Some((&[c0, c1, t0, t1, t2, t3], rest)) = data.split_first_chunk() else { return };
    let timestamp = u32::from_be_bytes([t0, t1, t2, t3]);
    let mut wire = BytesMut::new();
    let mut writer = ChunkWriter::new();
    writer.set_chunk_len(&mut wire, u32::from(u16::from_be_bytes([c0, c1])));
    let bodies: Vec<&[u8]> = rest.split(|byte| *byte == 0x55).collect();
    for (body, csid) in bodies.iter().zip((3..=8).cycle()) {
        writer.write(&mut wire, csid, timestamp, kind::VIDEO, 1, body);
    }
    let (read, ok) = messages(std::iter::once(&wire));
    assert!(ok);
    assert!(read.iter().map(Message::body).eq(bodies.iter().copied()));
    assert!(read.iter().all(|message| message.timestamp == timestamp));
}

/// A command or data body: what the screen lets pass, `rml_amf0` reads.
pub fn amf0(data: &[u8]) {
    for kind in [kind::COMMAND, kind::COMMAND_AMF3, kind::DATA, kind::DATA_AMF3] {
        let screened = amf::screen(data, kind);
        match amf::decode(data, kind) {
            Ok(_) => assert_eq!(screened, Ok(())),
            Err(error) => assert!(screened == Err(error.clone()) || screened.is_ok(), "{error}"),
        }
    }
}

/// Text from anywhere, written as AMF0, reads back.
pub fn amf0_round_trip(data: &[u8]) {
    let text = String::from_utf8_lossy(data.get(..1000).unwrap_or(data));
    let inner = [("text", Field::Text(&text)), ("truth", Field::Bool(true)), ("null", Field::Null)];
    let list = [Field::Map(&inner), Field::Number(1.0)];
    let fields = [Field::Text("name"), Field::Object(&inner), Field::Array(&list)];
    let mut body = BytesMut::new();
    fields.iter().for_each(|&field| amf::put(&mut body, field));
    let values = amf::decode(&body, kind::COMMAND);
    assert!(matches!(values.as_deref(), Ok([_, amf::Amf0Value::Object(object), _])
        if object.get("text") == Some(&amf::Amf0Value::Utf8String(text.into_owned()))));
}

/// A video or audio message body, plain FLV or FourCC; then as a stream of messages of all kinds.
pub fn flv(data: &[u8]) {
    let tags = [demux_video(data), demux_audio(data)];
    for tag in tags.into_iter().flatten() {
        if let super::flv::Tag::Unit { at, .. } | super::flv::Tag::Header { at, .. } = tag {
            assert!(at <= data.len());
        }
    }
    let mut demuxer = Demuxer::new();
    let kinds = [kind::VIDEO, kind::AUDIO, kind::AGGREGATE, kind::DATA];
    for (index, body) in std::iter::once(data).chain(data.chunks(24)).enumerate() {
        for kind in kinds {
            demuxer.push(Message::copied(kind, index as u32, 1, 6, body));
            while let Ok(Some(_)) = demuxer.poll() {}
        }
    }
}

/// Codec headers of every codec.
pub fn codec_headers(data: &[u8]) {
    let _ = h264::AvcConfig::parse(data).and_then(|config| config.shape());
    let _ = hevc::HevcConfig::parse(data).and_then(|config| config.shape());
    let _ = (h264::sps_shape(data), hevc::sps_shape(data), av1::shape(data), aac::AacConfig::parse(data));
    let _ =
        (sound::opus_shape(data), sound::flac_shape(data), sound::mp3_shape(data), sound::ac3_shape(data));
}

/// Handshake bytes, both sides.
pub fn handshake(data: &[u8]) {
    let mut out = BytesMut::new();
    let _ = ServerHandshake::new().handle_input(&mut { data }, &mut out);
    let _ = ClientHandshake::new().handle_input(&mut { data }, &mut out);
    assert!(out.len() <= 4 * 1537);
}

/// Chunk data to a server that says yes to everything.
pub fn server_session(data: &[u8]) {
    let mut session = ServerSession::new(ServerSettings::default());
    let mut out = BytesMut::new();
    for mut piece in data.chunks(1000) {
        while let Ok(Some(event)) = session.read(&mut piece) {
            match event {
                Event::ConnectRequested(_) => session.accept_connect(),
                Event::PublishRequested(request) => session.accept_publish(request.stream_id),
                Event::PlayRequested(request) => session.accept_play(request.stream_id),
                _ => {}
            }
        }
        session.poll_output(&mut out);
        out.clear();
    }
    session.close("end");
}

/// Chunk data to both kinds of client.
pub fn client_session(data: &[u8]) {
    for mode in [ClientMode::Publish, ClientMode::Play] {
        let mut session = ClientSession::new(ClientSettings {
            app: "live".to_owned(),
            tc_url: "rtmp://h/live".to_owned(),
            stream_key: "yard".to_owned(),
            mode,
            flash_ver: "fuzz".to_owned(),
            chunk_len: 4096,
            limits: Limits::default(),
            enhanced: false,
        });
        let mut out = BytesMut::new();
        for mut piece in data.chunks(1000) {
            while let Ok(Some(_)) = session.read(&mut piece) {}
            session.poll_output(&mut out);
            out.clear();
        }
        session.finish();
    }
}

/// An address: what parses shows no key.
pub fn url(data: &[u8]) {
    if let Ok(url) = RtmpUrl::parse(&String::from_utf8_lossy(data)) {
        assert!(url.port > 0 && !url.app.is_empty() && !url.stream_key.is_empty());
        assert!(url.to_string().contains("/***"));
    }
}

/// A function that takes any bytes and must return.
pub type Target = fn(&[u8]);

/// All targets by name, for runners.
pub const TARGETS: [(&str, Target); 10] = [
    ("chunk_reader", chunk_reader),
    ("chunk_round_trip", chunk_round_trip),
    ("amf0", amf0),
    ("amf0_round_trip", amf0_round_trip),
    ("flv", flv),
    ("codec_headers", codec_headers),
    ("handshake", handshake),
    ("server_session", server_session),
    ("client_session", client_session),
    ("url", url),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation::run;

    const HANDSHAKE: usize = 3073;

    macro_rules! recording {
        ($name:literal) => {
            &include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/", $name))[..]
        };
    }

    /// Chunk data of peers, and message bodies out of it.
    fn seeds() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let streams = [
            &recording!("ffmpeg-5.1-publish-h264-bframes-aac.bin")[HANDSHAKE..],
            &recording!("ffmpeg-5.1-publish-mp3.bin")[HANDSHAKE..],
            &recording!("gstreamer-1.22-rtmp2sink-publish.bin")[HANDSHAKE..],
            &recording!("librtmp-2.4-publish.bin")[HANDSHAKE..],
            &recording!("rtmpdump-2.4-play.bin")[HANDSHAKE..],
            &recording!("gstreamer-1.22-rtmp2src-play.bin")[HANDSHAKE..],
            recording!("nginx-rtmp-1.2.2-play.bin"),
        ];
        let mut bodies: Vec<Vec<u8>> = Vec::new();
        for stream in streams {
            let (messages, _) = messages(std::iter::once(stream));
            bodies.extend(messages.iter().take(12).map(|message| message.body().to_vec()));
        }
        for fourcc in super::super::flv::FOURCC_CODECS.into_iter().filter_map(super::super::flv::fourcc) {
            for first in [0x90, 0x91, 0x93, 0x95, 0x96, 0x97, 0xA1] {
                bodies.push([&[first, 2, 0, 1, 2, 1][..], &fourcc, &[0; 8]].concat());
                bodies.push([&[first][..], &fourcc, &[0; 8]].concat());
            }
        }
        let streams = streams.iter().map(|stream| stream[..stream.len().min(6000)].to_vec()).collect();
        (streams, bodies)
    }

    #[test]
    fn sessions_and_chunks_survive_mutated_peers() {
        let (streams, _) = seeds();
        for (index, target) in
            [server_session, client_session, chunk_reader, chunk_round_trip].into_iter().enumerate()
        {
            run(target, &streams, 60, 0x9E37_79B9_7F4A_7C15 + index as u64);
        }
    }

    #[test]
    fn bodies_survive_mutation() {
        let (_, bodies) = seeds();
        for (index, target) in [amf0, amf0_round_trip, flv, codec_headers].into_iter().enumerate() {
            run(target, &bodies, 60, 0xD1B5_4A32_D192_ED03 + index as u64);
        }
    }

    #[test]
    fn codec_headers_survive_mutation() {
        let seeds: Vec<Vec<u8>> = [
            &[1, 0x64, 0, 0x1f, 0xff, 0xe1, 0, 0x1c, 0x67, 0x64, 0, 0x1f, 0xac, 0xd9, 0x40, 0x50, 5, 0xbb, 1]
                [..],
            &[0x81, 0, 0xc, 0, 0xa, 0xb, 0, 0, 0, 4, 0x3c, 0xfe, 0xcc, 2, 0xf8, 0, 0x40],
            &[0x42, 1, 1, 4, 8, 0, 0, 3, 0, 0x9e, 8, 0, 0, 3, 0, 0, 0x3c, 0x95, 0x98, 9, 0xa1, 0, 1],
            &[0x67, 0x64, 0, 0x1f, 0xac, 0xd9, 0x40, 0x50, 5, 0xbb, 1, 0x6a, 2, 2, 2, 0x80, 0, 0, 3, 0, 0x80],
            &[0x2b, 0x11, 0x88, 0],
            b"OpusHead\x01\x02\0\0\x80\xbb\0\0\0\0\0",
            b"fLaC\x80\0\0\x22\x10\0\x10\0\0\0\0\0\0\0\x0a\xc4\x42\xf0",
        ]
        .into_iter()
        .map(<[u8]>::to_vec)
        .collect();
        run(codec_headers, &seeds, 2000, 0x2545_F491_4F6C_DD1D);
    }

    #[test]
    fn handshakes_and_addresses_survive_mutation() {
        let start = recording!("ffmpeg-5.1-publish-mp3.bin")[..HANDSHAKE].to_vec();
        run(handshake, &[start], 40, 0x1234_5678_9ABC_DEF1);
        let urls = [
            "rtmp://u:p@h:1936/app/inst/key?a=b&c",
            "rtmps://[::1]:443/live?x=y/key",
            "rtmp://h/vod/mp4:a/b",
        ];
        run(url, &urls.map(|url| url.as_bytes().to_vec()), 2000, 0x0F0F_1234_5678_9ABC);
    }
}
