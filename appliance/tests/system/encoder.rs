//! The running program as an encoder of a coordinator elsewhere: the contract's check 25, and the files that come of it.
//! The rules of renditions, lists and ends are held by the core (`fieldgate-compat`, `encoder`); `docs/coordinator.md`
//! lists all.

use crate::common::address::own_address;
use crate::common::fixture::Fixture;
use crate::common::fixture::hevc_stream;
use crate::common::gateway::Gateway;
use crate::common::healthy::{End, Publisher};
use crate::common::hevc;
use crate::common::process::Process;
use crate::common::rtmp::Client;
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use crate::coordinator::peers::{Fake, Peer, SECRET, field};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// What ffprobe says of a list and of its pictures.
fn probed(list: &Path) -> (u64, u64, u64) {
    let told = Process::run(
        "ffprobe",
        &[
            "-v",
            "error",
            "-count_packets",
            "-select_streams",
            "v:0",
            "-show_entries",
            "stream=width,height,nb_read_packets",
            "-of",
            "json",
            list.to_str().unwrap(),
        ],
        secs(60),
    );
    let told: Value = serde_json::from_str(&told).unwrap();
    let stream = &told["streams"][0];
    let packets = stream["nb_read_packets"].as_str().unwrap().parse().unwrap();
    (stream["width"].as_u64().unwrap(), stream["height"].as_u64().unwrap(), packets)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn check_25_a_good_source_becomes_files_and_a_dead_one_an_end() {
    let (fake, scratch) = (Fake::start(), Scratch::new());
    let mut gateway = Gateway::start(json!({
        "mountpoints": {"gate": {"source": {"kind": "publish"}, "grace": "0s"}},
        "compat": {"encoder": {
            "enabled": true, "url": format!("ws://{}/", fake.address), "secret": SECRET, "capacity": 2, "segment": "1s",
            "folder": scratch.path(),
        }},
    }));
    let mut coordinator = fake.peer(0);
    assert_eq!(fake.upgrades()[0].line, "/ws/control/hls");
    assert_eq!(coordinator.expect(""), "REGISTER\nCapacity:2", "before any other message");
    // Nobody listens there.
    let dead = own_address();
    coordinator.say(&format!(
        "ENCODE-START\nStream-Channel:c0\nStream-ID:id-0\nStream-Source-Type:RTMP\n\
         Stream-Source-URI:rtmp://{dead}/c0/channel-key-0000\nResolutions:ORIGINAL\nRecord:False\nPreviews:False"
    ));
    coordinator.expect("STREAM-CLOSED\nStream-Channel:c0\nStream-ID:id-0\nError-Code:ENCODE_FAILED");
    coordinator.expect("REGISTER\nCapacity:2");
    assert_eq!(coordinator.count("STREAM-AVAILABLE"), 0, "there is nothing to be watched");
    let publisher = Publisher::start(gateway.rtmp, "gate", &Fixture::h264_aac(6), 0, End::Polite);
    coordinator.say(&format!(
        "ENCODE-START\nStream-Channel:c1\nStream-ID:id-1\nStream-Source-Type:RTMP\n\
         Stream-Source-URI:rtmp://{}/live/gate?key=channel-key-0001\nResolutions:ORIGINAL,161x91-15~300\nRecord:True\n\
         Previews:64x64,1",
        gateway.rtmp
    ));
    let mut told = BTreeMap::new();
    for _ in 0..5 {
        let message = coordinator.expect("STREAM-AVAILABLE\nStream-Channel:c1\nStream-ID:id-1\n");
        let index = field(&message, "Index-file");
        assert!(scratch.join(&index).exists(), "{index} is told of before it is there");
        assert!(!message.contains("Start-Time"), "{message}");
        told.insert(index, (field(&message, "Stream-Type"), field(&message, "Resolution")));
    }
    let some = |kind: &str, resolution: &str| (kind.to_owned(), resolution.to_owned());
    let (original, made) = ("hls/c1/id-1/320x180-30", "hls/c1/id-1/162x92-15~300");
    for (index, what) in [
        (format!("{original}/live.m3u8"), some("HLS-LIVE", "320x180-30")),
        (format!("{original}/vod-0.m3u8"), some("HLS-VOD", "320x180-30")),
        (format!("{made}/live.m3u8"), some("HLS-LIVE", "162x92-15~300")),
        (format!("{made}/vod-0.m3u8"), some("HLS-VOD", "162x92-15~300")),
        ("img-preview/c1/id-1/64x64-1/index.json".to_owned(), some("IMG-PREVIEW", "64x64-1")),
    ] {
        assert_eq!(told.get(&index), Some(&what), "{told:#?}");
    }
    // A duplicate is none, and what is there is live.
    assert!(!read(&scratch.join(&format!("{made}/live.m3u8"))).contains("ENDLIST"));
    // A keyframe comes every two seconds; what is made has more.
    let third = scratch.join(&format!("{original}/2.ts"));
    wait::until_true("three segments", secs(60), || third.exists());
    coordinator.say("ENCODE-STOP\nStream-Channel:c1\nStream-ID:another");
    publisher.wait_for_more(20);
    publisher.finish();
    coordinator.expect("STREAM-CLOSED\nStream-Channel:c1\nStream-ID:id-1");
    coordinator.expect("REGISTER\nCapacity:2");
    assert_eq!((coordinator.count("STREAM-CLOSED"), coordinator.count("STREAM-AVAILABLE")), (0, 0), "once");
    // All of it is there, and players take it.
    for (folder, width, height, rate) in [(original, 320, 180, 30.0), (made, 162, 92, 15.0)] {
        let live = read(&scratch.join(&format!("{folder}/live.m3u8")));
        assert!(live.ends_with("#EXT-X-ENDLIST\n"), "{live}");
        let list = scratch.join(&format!("{folder}/vod-0.m3u8"));
        let vod = read(&list);
        assert!(vod.contains("#EXT-X-PLAYLIST-TYPE:VOD\n") && vod.contains("\n2.ts\n"), "{vod}");
        let (is_width, is_height, pictures) = probed(&list);
        assert_eq!((is_width, is_height), (width, height), "{folder}");
        let seconds: f64 = vod
            .lines()
            .filter_map(|line| line.strip_prefix("#EXTINF:")?.strip_suffix(',')?.parse::<f64>().ok())
            .sum();
        assert!(
            (pictures as f64 - seconds * rate).abs() <= 6.0,
            "{pictures} pictures in {seconds} s of {folder}"
        );
        let mut ffmpeg = Process::start(
            "ffmpeg",
            &["-nostdin", "-v", "error", "-i", list.to_str().unwrap(), "-f", "null", "-"],
        );
        assert!(ffmpeg.end_within(secs(60)).success() && ffmpeg.log().is_empty(), "{}", ffmpeg.log());
    }
    let previews = scratch.join("img-preview/c1/id-1/64x64-1");
    let index: Value = serde_json::from_str(&read(&previews.join("index.json"))).unwrap();
    let count = index["count"].as_u64().unwrap();
    assert_eq!(index, json!({"index_start": 0, "count": count, "pattern": "%d.jpg"}));
    let first = std::fs::read(previews.join("0.jpg")).unwrap();
    assert!(first.starts_with(&[0xff, 0xd8]) && previews.join(format!("{}.jpg", count - 1)).exists());
    let log = gateway.process().log();
    for secret in ["channel-key-0000", "channel-key-0001", SECRET] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

/// What is wrong with a server of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Trouble {
    #[default]
    None,
    /// It says that it cannot.
    Refuses,
    /// What it says is no answer.
    Garbage,
    /// It never answers.
    Hangs,
}

#[derive(Default)]
struct Shelf {
    files: BTreeMap<String, Vec<u8>>,
    deleted: BTreeSet<String>,
    /// Requests that the contract does not know.
    odd: Vec<String>,
    trouble: Trouble,
    /// Requests that met the trouble.
    met: usize,
}

/// A server that takes files by `PUT` and `DELETE` below `/base/`, from those who know its token.
#[derive(Clone)]
struct FileServer {
    address: SocketAddr,
    shelf: Arc<Mutex<Shelf>>,
}

impl FileServer {
    fn start() -> FileServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = FileServer { address: listener.local_addr().unwrap(), shelf: Arc::default() };
        let serving = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = serving.clone();
                std::thread::spawn(move || server.serve(stream));
            }
        });
        server
    }

    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        stream.set_read_timeout(Some(secs(20))).ok()?;
        let (mut bytes, mut piece) = (Vec::new(), [0; 16 << 10]);
        let (head, body) = loop {
            let read = stream.read(&mut piece).ok().filter(|read| *read > 0)?;
            bytes.extend_from_slice(&piece[..read]);
            let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let len = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
            if bytes.len() >= end + 4 + len.unwrap_or(0) {
                break (head, bytes.split_off(end + 4));
            }
        };
        let mut words = head.split_whitespace();
        let (method, target) = (words.next()?, words.next()?);
        let path = target.strip_prefix("/base/");
        let trouble = {
            let mut shelf = self.shelf.lock().unwrap();
            let trouble = shelf.trouble;
            shelf.met += usize::from(trouble != Trouble::None);
            match (method, path) {
                _ if !head.contains("\r\nAuthorization: Bearer files-token-0001") => {
                    shelf.odd.push(head.clone())
                }
                _ if trouble != Trouble::None => {}
                ("PUT", Some(path)) => drop(shelf.files.insert(path.to_owned(), body)),
                ("DELETE", Some(path)) => {
                    shelf.files.remove(path);
                    shelf.deleted.insert(path.to_owned());
                }
                _ => shelf.odd.push(head.clone()),
            }
            trouble
        };
        let answer = match trouble {
            Trouble::None => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            Trouble::Refuses => "HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n",
            Trouble::Garbage => "\0garbage\r\n\r\n",
            Trouble::Hangs => {
                std::thread::sleep(secs(30));
                ""
            }
        };
        stream.write_all(answer.as_bytes()).ok()
    }

    fn set(&self, trouble: Trouble) {
        let mut shelf = self.shelf.lock().unwrap();
        (shelf.trouble, shelf.met) = (trouble, 0);
    }

    fn met(&self) -> usize {
        self.shelf.lock().unwrap().met
    }

    fn file(&self, path: &str) -> Option<Vec<u8>> {
        self.shelf.lock().unwrap().files.get(path).cloned()
    }

    fn text(&self, path: &str) -> String {
        String::from_utf8(self.file(path).unwrap_or_else(|| panic!("{path} was never stored"))).unwrap()
    }

    fn is_deleted(&self, path: &str) -> bool {
        self.shelf.lock().unwrap().deleted.contains(path)
    }

    /// Puts all of it into a folder.
    fn empty_into(&self, folder: &Path) {
        for (path, file) in &self.shelf.lock().unwrap().files {
            let at = folder.join(path);
            std::fs::create_dir_all(at.parent().unwrap()).unwrap();
            std::fs::write(at, file).unwrap();
        }
    }
}

/// The codecs of a list, pictures first.
fn codecs(list: &Path) -> Vec<String> {
    let list = list.to_str().unwrap();
    let args = ["-v", "error", "-show_entries", "stream=codec_name", "-of", "default=nk=1:nw=1", list];
    let mut told: Vec<String> =
        Process::run("ffprobe", &args, secs(60)).lines().map(|line| line.trim().to_owned()).collect();
    told.sort_by_key(|codec| codec != "h264");
    told.dedup();
    told
}

#[test]
fn check_25_files_go_to_a_server_and_a_coordinator_that_drops_the_line_is_found_again() {
    let (fake, server, scratch) = (Fake::start(), FileServer::start(), Scratch::new());
    super::tls::make_certificate(scratch.path(), "gateway");
    let mut gateway = Gateway::start(json!({
        "rtmp": {"listen": ["127.0.0.1:0"], "tls": {"listen": ["127.0.0.1:0"], "cert": scratch.join("cert.pem"),
            "key": scratch.join("key.pem")}},
        "mountpoints": {
            "mp3": {"source": {"kind": "publish"}, "grace": "0s"},
            "alaw": {"source": {"kind": "publish"}, "grace": "0s"},
            "hevc": {"source": {"kind": "publish"}, "grace": "0s"},
        },
        "compat": {"encoder": {
            "enabled": true, "url": format!("ws://{}/", fake.address), "secret": SECRET, "capacity": 2, "segment": "1s",
            "live_segments": 3, "ca": scratch.join("ca.pem"),
            "http": {"url": format!("http://{}/base", server.address), "token": "files-token-0001"},
        }},
    }));
    let mut coordinator = fake.peer(0);
    coordinator.expect("REGISTER\nCapacity:2");
    let mp3 = Publisher::start(gateway.rtmp, "mp3", &Fixture::h264_mp3(6), 0, End::Polite);
    let alaw = Publisher::start(gateway.rtmp, "alaw", &Fixture::h264_alaw(6), 0, End::Polite);
    let (client, stream) = Client::publishing(gateway.rtmp, "hevc").unwrap();
    let tags = hevc::tags(&hevc_stream(4), 1000.0 / 30.0);
    let hevc = Publisher::with(client, stream, "hevc", tags, 0, End::Polite);
    let plain = format!("rtmp://{}", gateway.rtmp);
    let secure = format!("rtmps://localhost:{}", gateway.rtmps.unwrap().port());
    let start = |coordinator: &mut Peer, channel: &str, stream_id: &str, source: &str, record: &str| {
        coordinator.say(&format!(
            "ENCODE-START\nStream-Channel:{channel}\nStream-ID:{stream_id}\nStream-Source-Type:RTMP\n\
             Stream-Source-URI:{source}/live/{channel}\nResolutions:ORIGINAL\nRecord:{record}\nPreviews:False"
        ));
    };
    start(&mut coordinator, "mp3", "id-1", &secure, "False");
    let live =
        field(&coordinator.expect("STREAM-AVAILABLE\nStream-Channel:mp3\nStream-ID:id-1\n"), "Index-file");
    assert_eq!(live, "hls/mp3/id-1/320x180-30/live.m3u8");
    mp3.wait_for_more(20);
    assert!(server.text(&live).contains("\n0.ts\n"));
    // The line is cut: what was made for it ends, and the next coordinator begins from nothing.
    drop(coordinator);
    let mut coordinator = fake.peer(1);
    assert_eq!(fake.upgrades()[1].line, "/ws/control/hls");
    assert_eq!(coordinator.expect(""), "REGISTER\nCapacity:2");
    wait::until_true("the list to be ended", secs(60), || server.text(&live).ends_with("#EXT-X-ENDLIST\n"));
    assert_eq!(gateway.status()["elsewhere"]["encoder"]["state"], "up");
    start(&mut coordinator, "alaw", "id-2", &secure, "False");
    start(&mut coordinator, "hevc", "id-3", &plain, "True");
    for (channel, stream_id) in [("alaw", "id-2"), ("hevc", "id-3")] {
        coordinator.expect(&format!("STREAM-AVAILABLE\nStream-Channel:{channel}\nStream-ID:{stream_id}\n"));
    }
    assert_eq!(
        coordinator.count("STREAM-CLOSED"),
        0,
        "the coordinator that is back knows nothing of the first"
    );
    // A server in trouble costs segments at most.
    let folder = "hls/alaw/id-2/320x180-30";
    for trouble in [Trouble::Refuses, Trouble::Garbage, Trouble::Hangs] {
        server.set(trouble);
        wait::until_true("it to be met", secs(60), || server.met() >= 2);
        alaw.wait_for_more(20);
    }
    server.set(Trouble::None);
    // Three are listed and six are kept.
    let first = format!("{folder}/0.ts");
    wait::until_true("the first segment to go", secs(90), || server.is_deleted(&first));
    for publisher in [mp3, alaw, hevc] {
        publisher.finish();
    }
    for (channel, stream_id) in [("alaw", "id-2"), ("hevc", "id-3")] {
        coordinator.expect(&format!("STREAM-CLOSED\nStream-Channel:{channel}\nStream-ID:{stream_id}"));
    }
    let out = scratch.join("out");
    server.empty_into(&out);
    // Neither G.711 nor HEVC is for old players of HLS; MP3 cannot be decoded here.
    assert_eq!(codecs(&out.join(folder).join("live.m3u8")), ["h264", "aac"]);
    assert_eq!(codecs(&out.join(&live)), ["h264"]);
    let vod = out.join("hls/hevc/id-3/320x180-30/vod-0.m3u8");
    assert_eq!(codecs(&vod), ["h264"]);
    let (width, height, pictures) = probed(&vod);
    assert!((width, height) == (320, 180) && pictures > 30, "{width}x{height}, {pictures} pictures");
    assert_eq!(server.shelf.lock().unwrap().odd, [""; 0]);
    let log = gateway.process().log();
    assert!(!log.contains("files-token-0001") && !log.contains(SECRET));
}

/// Six seconds of picture and sound in a container that can be sent as it grows.
fn container(folder: &Scratch, channel: &str) -> Vec<u8> {
    let (form, sound, more): (_, _, &[&str]) = match channel {
        // As browsers make it.
        "webm" => ("matroska", "libopus", &["-live", "1"]),
        "mp4" => ("mp4", "aac", &["-movflags", "frag_keyframe+empty_moov+default_base_moof"]),
        "flv" => ("flv", "aac", &[]),
        _ => ("mpegts", "aac", &[]),
    };
    let path = folder.join(channel);
    let mut args = vec!["-nostdin", "-v", "error", "-f", "lavfi"];
    args.extend(["-i", "testsrc2=size=160x120:rate=25:duration=6", "-f", "lavfi"]);
    args.extend([
        "-i",
        "sine=duration=6:sample_rate=48000",
        "-c:v",
        "libx264",
        "-bf",
        "2",
        "-g",
        "25",
        "-c:a",
        sound,
    ]);
    args.extend(more);
    args.extend(["-f", form, path.to_str().unwrap()]);
    let mut ffmpeg = Process::start("ffmpeg", &args);
    assert!(ffmpeg.end_within(secs(60)).success(), "{channel}: {}", ffmpeg.log());
    std::fs::read(path).unwrap()
}

/// A streaming server by WebSocket that serves these; the paths that were asked for.
fn socket_server(streams: BTreeMap<&'static str, Vec<u8>>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let (streams, paths) = (Arc::new(streams), asked.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (streams, paths) = (streams.clone(), paths.clone());
            std::thread::spawn(move || serve_socket(stream, &streams, &paths));
        }
    });
    (address, asked)
}

fn serve_socket(
    stream: TcpStream,
    streams: &BTreeMap<&str, Vec<u8>>,
    paths: &Mutex<Vec<String>>,
) -> Option<()> {
    use tokio_tungstenite::tungstenite::{self, Message};
    let mut path = String::new();
    #[allow(clippy::result_large_err, reason = "the library's own type")]
    let note = |request: &tungstenite::handshake::server::Request, answer| {
        path = request.uri().path().to_owned();
        Ok(answer)
    };
    let mut socket = tungstenite::accept_hdr(stream, note).ok()?;
    let channel = path.split('/').nth(1)?.to_owned();
    paths.lock().unwrap().push(path);
    socket.send(Message::text("h")).ok()?;
    if channel == "bad" {
        socket.send(Message::text("ERROR: Invalid streaming key channel-key-0001")).ok()?;
    } else {
        // What was kept comes at once, the rest as it is made.
        let bytes = streams.get(channel.as_str())?;
        for piece in bytes.chunks(bytes.len().div_ceil(60)) {
            socket.send(Message::binary(piece.to_vec())).ok()?;
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
    socket.close(None).ok()?;
    while socket.read().is_ok() {}
    Some(())
}

#[test]
fn check_25_sources_by_websocket_are_taken_apart() {
    let (fake, scratch, folder) = (Fake::start(), Scratch::new(), Scratch::new());
    let known = ["webm", "mp4", "flv", "ts"];
    let mut streams: BTreeMap<_, _> = known.map(|name| (name, container(&scratch, name))).into();
    streams.insert("junk", b"no container at all ".repeat(100));
    let (server, asked) = socket_server(streams);
    let mut gateway = Gateway::start(json!({"compat": {"encoder": {
        "enabled": true, "url": format!("ws://{}/", fake.address), "secret": SECRET, "segment": "1s", "capacity": 8,
        "folder": folder.path(),
    }}}));
    let mut coordinator = fake.peer(0);
    coordinator.expect("REGISTER");
    for channel in known.into_iter().chain(["bad", "junk"]) {
        coordinator.say(&format!(
            "ENCODE-START\nStream-Channel:{channel}\nStream-ID:id\nStream-Source-Type:WS\n\
             Stream-Source-URI:ws://{server}/{channel}/channel-key-0001\nResolutions:ORIGINAL\nRecord:True\nPreviews:False"
        ));
    }
    for (channel, why) in [("bad", "Invalid streaming key ***"), ("junk", "no container that is known here")]
    {
        let closed = coordinator.expect(&format!("STREAM-CLOSED\nStream-Channel:{channel}\n"));
        assert!(closed.contains(why), "{closed}");
        assert!(asked.lock().unwrap().contains(&format!("/{channel}/channel-key-0001/receive-clear-cache")));
    }
    for channel in known {
        coordinator.expect(&format!("STREAM-AVAILABLE\nStream-Channel:{channel}\n"));
    }
    for channel in known {
        let closed = coordinator.expect(&format!("STREAM-CLOSED\nStream-Channel:{channel}\n"));
        assert!(!closed.contains("Error-Code"), "{closed}");
        let list = folder.join(&format!("hls/{channel}/id/160x120-25/vod-0.m3u8"));
        let (width, height, pictures) = probed(&list);
        assert!(
            (width, height) == (160, 120) && (125..=150).contains(&pictures),
            "{channel}: {pictures} pictures"
        );
        assert_eq!(codecs(&list), ["h264", "aac"], "{channel}");
    }
    let log = gateway.process().log();
    assert!(!log.contains("channel-key-0001"), "{log}");
}
