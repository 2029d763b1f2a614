//! The gateway under a controller, against what was recorded of the sender whose place it takes.
//!
//! Each case publishes the recorded input to a strict gateway, with a controller and receivers that do what the recorded
//! ones did, and compares every packet and every callback. Left out of the comparison are what differs in each run by its
//! nature: `created` (wall clock), frame ids (compared from the first of the track), the connection's number and port.

mod controller;
mod golden;
mod packets;
mod sink;

use crate::common::address::own_address;
use crate::common::amf;
use crate::common::flv::{DATA, Tag, VIDEO};
use crate::common::gateway::Gateway;
use crate::common::http;
use crate::common::rtmp::{Client, Refusal};
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use controller::{Asked, Controller, Script};
use golden::Case;
use serde_json::{Value, json};
use sink::{Sinks, Taken};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// Cases that run at the same time: most of one is waiting.
const AT_ONCE: usize = 6;

/// How a case's publisher ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// `deleteStream`, as most do.
    Delete,
    /// TCP only.
    Drop,
    /// It says nothing more.
    Silence,
    /// The session is dropped through the API.
    Api,
    /// A video message of one byte.
    ShortMessage,
    /// `deleteStream` after a silence.
    Late(Duration),
    /// The gateway ends it.
    Theirs,
}

/// How much of a cut connection must be as recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    /// Every packet.
    All,
    /// Every packet of connections that end by `eost`; of others the packets that both have.
    Whole,
    /// As `Whole`, but how many connections there are and where they begin depends on the sockets: every frame of theirs
    /// must be the recorded one of that id, and without an end nothing may be left out but what was recorded as left out.
    Overlap,
}

/// One recorded case and what is special about it.
#[derive(Clone, Copy)]
struct Run {
    name: &'static str,
    /// Settings beside the usual ones.
    settings: &'static str,
    ending: Ending,
    compare: Compare,
    /// Of real time.
    speed: u32,
    /// Milliseconds of input.
    until: u32,
}

const RUN: Run = Run {
    name: "",
    settings: "{}",
    ending: Ending::Delete,
    compare: Compare::Whole,
    speed: 1,
    until: u32::MAX,
};

/// All cases that can be driven like this. Not here:
/// - 27 (no media; see [`refusals_are_as_recorded`]) and 28 (see [`an_upstream_is_added_while_it_runs`]);
/// - R and S: other senders.
const RUNS: &[Run] = &[
    Run { name: "01_h264_aac_ffmpeg_defaults", settings: PLAIN, ..RUN },
    Run { name: "02_h264_bframes_mono_aac", ..RUN },
    Run { name: "03_reconnect_partial_ack", ..RUN },
    Run { name: "04_reconnect_no_ack", ..RUN },
    Run { name: "05_hevc_enhanced_rtmp", ..RUN },
    Run { name: "06_header_change_eos_tag", ..RUN },
    Run { name: "07_two_upstreams_last_sent_connect_data", compare: Compare::Overlap, ..RUN },
    Run { name: "08_timestamp_rollover", ..RUN },
    Run { name: "09_mp3_audio_only", ..RUN },
    Run { name: "10_captions_sei", ..RUN },
    Run { name: "11_edge_no_metadata", ..RUN },
    Run { name: "12_delete_session", ending: Ending::Api, ..RUN },
    Run { name: "13_rtmp_socket_drop", ending: Ending::Drop, ..RUN },
    Run { name: "14_idle_timeout", settings: IDLE, ending: Ending::Silence, ..RUN },
    Run { name: "15_eost_then_close_after_3s", ..RUN },
    Run { name: "16_publish_retries_then_ok", ..RUN },
    Run { name: "17_publish_refused", ending: Ending::Theirs, ..RUN },
    Run { name: "18_publish_no_upstreams", ..RUN },
    Run { name: "19_republish_refused", ending: Ending::Theirs, ..RUN },
    Run { name: "20_upstream_connect_refused_then_republish", ..RUN },
    Run { name: "21_republish_no_limit_when_idle", until: 600, compare: Compare::Overlap, ..RUN },
    Run { name: "22_bad_ack_beyond_sent", ending: Ending::Theirs, ..RUN },
    Run { name: "23_resume_last_written", compare: Compare::Overlap, ..RUN },
    Run { name: "24_mem_watermark_auto_ack", settings: TINY, compare: Compare::Overlap, speed: 4, ..RUN },
    Run { name: "25_timescale_1000", settings: r#"{"timescale": 1000, "add_header": []}"#, ..RUN },
    Run { name: "26_json_escaping", ..RUN },
    Run { name: "29_long_for_receiver", speed: 4, ..RUN },
    Run { name: "30_republish_limit", ending: Ending::Theirs, ..RUN },
    Run { name: "31_reconnect_at_header_change", ..RUN },
    Run { name: "32_ack_same_id_offset_only", ..RUN },
    Run { name: "33_ack_with_long_header", ..RUN },
    Run { name: "34_controller_down", settings: r#"{"add_header": []}"#, ending: Ending::Theirs, ..RUN },
    Run { name: "35_hevc_aac48_reference_defect", ..RUN },
    // Up to the picture that the long answer is about: how much more sound comes before it depends on the machine.
    Run { name: "36_big_publish_reply", ending: Ending::Theirs, until: 440, ..RUN },
    Run { name: "37_controller_keeps_connection_open", ..RUN },
    Run { name: "38_short_video_message", ending: Ending::ShortMessage, ..RUN },
    Run { name: "39_bad_upstream_url", ending: Ending::Theirs, ..RUN },
    Run {
        name: "40_close_after_last_frame_then_end",
        ending: Ending::Late(Duration::from_millis(1_500)),
        ..RUN
    },
    Run { name: "41_reply_wrong_json_types", ..RUN },
];

const PLAIN: &str = r#"{"flush_timeout": "1s", "retries": 5, "retry_interval": "2s", "republish_interval": "1s",
    "max_republishes": 15, "add_header": []}"#;
const IDLE: &str = r#"{"idle_timeout": "2s", "connect_url": null, "republish_url": null, "add_header": []}"#;
const TINY: &str = r#"{"video_buffer_bytes": 4096, "video_mem_limit": 65536, "add_header": []}"#;

/// The settings of most cases.
fn usual(controller: SocketAddr) -> Value {
    let url = |name: &str| format!("http://{controller}/{name}");
    json!({
        "strict": true,
        "connect_url": url("connect"),
        "publish_url": url("publish"),
        "unpublish_url": url("unpublish"),
        "republish_url": url("republish"),
        "flush_timeout": "20ms",
        "retries": 2,
        "retry_interval": "200ms",
        "republish_interval": "300ms",
        "max_republishes": 3,
        "add_header": [{"name": "X-Fieldgate-Test", "value": "abc"}],
    })
}

fn gateway(app: &str, name: &str, settings: &Value, more: &Value) -> Gateway {
    let mut settings = settings.clone();
    for (key, value) in more.as_object().unwrap() {
        match value {
            Value::Null => drop(settings.as_object_mut().unwrap().remove(key)),
            value => settings[key] = value.clone(),
        }
    }
    let mut config = json!({"compat": {"kmp": {
        "applications": {app: settings},
        "api": {"listen": ["127.0.0.1:0"], "write": true},
    }}});
    if app == "live" {
        config["mountpoints"] = json!({name: {"source": {"kind": "publish"}}});
    }
    Gateway::start(config)
}

/// Connects as the recorded publisher did.
fn connect(client: &mut Client, case: &Case) -> Result<(), Refusal> {
    let names = [
        ("app", "app"),
        ("flashVer", "flashver"),
        ("swfUrl", "swf_url"),
        ("tcUrl", "tc_url"),
        ("pageUrl", "page_url"),
    ];
    let said: Vec<(&str, String)> = names.iter().map(|(name, json)| (*name, case.said(json))).collect();
    let said: Vec<(&str, &str)> = said.iter().map(|(name, text)| (*name, text.as_str())).collect();
    client.connect_as(&said).map(drop)
}

/// Connects and publishes as the recorded publisher did.
fn publish(gateway: &Gateway, case: &Case) -> Option<(Client, u32)> {
    let (name, args) = (case.said("name"), case.said("args"));
    let mut client = Client::open(gateway.rtmp);
    connect(&mut client, case).ok()?;
    let stream = client.create_stream();
    let name = if args.is_empty() { name } else { format!("{name}?{args}") };
    client.publish(stream, &name).unwrap();
    Some((client, stream))
}

/// The recorded input; of case 02 with the frame rate that ffmpeg, which published it, had written into it anew.
fn input(run: &Run) -> Vec<Tag> {
    let mut tags = golden::input(run.name);
    if run.name.starts_with("02") {
        for tag in tags.iter_mut().filter(|tag| tag.kind == DATA) {
            let name = b"framerate\0";
            if let Some(at) = tag.body.windows(name.len()).position(|window| window == name) {
                let at = at + name.len();
                tag.body[at..at + 8].copy_from_slice(&(989.0_f64 / 33.0).to_be_bytes());
            }
        }
    }
    tags
}

/// Sends the input at its pace; false if the gateway closed.
fn feed(client: &mut Client, stream: u32, tags: &[Tag], run: &Run) -> bool {
    let (start, first) = (Instant::now(), tags.first().map_or(0, |tag| tag.ts));
    // The times of tags may wrap, and onMetaData has none.
    let first = tags.iter().find(|tag| tag.kind != DATA).map_or(first, |tag| tag.ts);
    for tag in tags {
        let at = if tag.kind == DATA { 0 } else { tag.ts.wrapping_sub(first) };
        let at = if at > u32::MAX / 2 { 0 } else { at };
        if at > run.until {
            break;
        }
        let due = start + Duration::from_millis(u64::from(at)) / run.speed;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if client.media(stream, tag).is_err() {
            return false;
        }
    }
    true
}

/// Drives one case and says what is not as recorded.
fn drive(run: &Run) -> Vec<String> {
    let case = Case::read(run.name);
    let mut ports: Vec<u16> = case.connections.iter().map(|connection| connection.port).collect();
    ports.push(27_001);
    ports.sort_unstable();
    ports.dedup();
    let (sinks, mut real) = Sinks::start(&case.connections, &ports);
    real.push((27_009, own_address().port()));
    let mut script = Script::recorded(&case.callbacks, real.clone());
    if run.name.starts_with("37") {
        script.hold = Duration::from_millis(1_500);
    }
    let controller = Controller::start(script);
    let mut settings = usual(controller.address);
    if run.name.starts_with("34") {
        settings["publish_url"] = json!(format!("http://127.0.0.1:{}/publish", own_address().port()));
    }
    let more: Value = serde_json::from_str(run.settings).unwrap();
    let gateway = gateway(&case.said("app"), &case.said("name"), &settings, &more);
    let Some((mut client, stream)) = publish(&gateway, &case) else {
        return vec!["the gateway refused the publisher".to_owned()];
    };
    let tags = input(run);
    feed(&mut client, stream, &tags, run);
    match run.ending {
        Ending::Delete => client.unpublish(stream, &case.said("name")).unwrap_or_default(),
        Ending::Late(silence) => {
            std::thread::sleep(silence);
            client.unpublish(stream, &case.said("name")).unwrap();
        }
        Ending::Api => {
            let api = gateway.kmp_api.expect("it listens");
            let sessions = http::get(api, "/").json();
            let session = &sessions["servers"][0]["applications"][0]["sessions"][0];
            let delete = |id: &str| http::request(api, "DELETE", &format!("/sessions/{id}"), &[], &[]).status;
            assert_eq!((delete("x1"), delete("999999")), (400, 404));
            assert_eq!(http::get(api, "/sessions").status, 405);
            let folders = http::get(api, "/?list=1");
            assert_eq!((folders.status, folders.text().as_str()), (200, r#"["multi","sessions"]"#));
            assert_eq!(delete(&session["connection"].to_string()), 204);
        }
        Ending::ShortMessage => {
            let tag = Tag { kind: VIDEO, ts: tags.last().unwrap().ts, body: vec![0x17] };
            client.media(stream, &tag).unwrap_or_default();
        }
        Ending::Drop => {}
        Ending::Silence | Ending::Theirs => {
            if !client.is_closed_within(secs(20)) {
                return vec!["the gateway did not close the connection".to_owned()];
            }
        }
    }
    if run.ending == Ending::Drop {
        drop(client);
    }
    let is_done = || {
        let asked = controller.asked();
        asked.len() >= case.callbacks.len() && sinks.taken().iter().all(|taken| taken.over)
    };
    let end = Instant::now() + secs(20);
    while !is_done() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    // What comes too often comes now.
    std::thread::sleep(Duration::from_millis(300));
    let mut faults = callback_faults(&case, &controller.asked(), run);
    faults.extend(packet_faults(&case, &sinks, run));
    faults
}

/// Callbacks that are not as recorded, of each kind in order.
fn callback_faults(case: &Case, asked: &[Asked], run: &Run) -> Vec<String> {
    let mut faults = Vec::new();
    let mut by_key: BTreeMap<String, (Vec<String>, Vec<String>)> = BTreeMap::new();
    for callback in &case.callbacks {
        let shown = format!("{} {:?} {}", callback.request_line, callback.headers, callback.body);
        by_key.entry(callback.key.clone()).or_default().0.push(shown);
    }
    for asked in asked {
        let length = format!("Content-Length: {}", asked.body.len());
        if asked.headers.get(3) != Some(&length) {
            faults.push(format!("fourth of the headers is not {length}: {:?}", asked.headers));
        }
        let mut headers = asked.headers.clone();
        headers.retain(|header| !header.starts_with("Content-Length"));
        let body = golden::masked(&asked.body);
        let shown = format!("{} {headers:?} {body}", asked.request_line);
        by_key.entry(golden::key_of(&asked.body)).or_default().1.push(shown);
    }
    for (key, (recorded, came)) in by_key {
        // How often a receiver that closes again and again is asked for depends on the sockets.
        let may_differ = run.compare == Compare::Overlap && key.starts_with("republish");
        if recorded.len() != came.len() && !may_differ {
            faults.push(format!("{key}: {} callbacks, recorded {}", came.len(), recorded.len()));
        }
        for (recorded, came) in recorded.iter().zip(&came).filter(|(recorded, came)| recorded != came) {
            faults.push(format!("{key}:\n    recorded {recorded}\n    came     {came}"));
        }
    }
    faults
}

/// Packets that are not as recorded, connection by connection of each track and receiver.
fn packet_faults(case: &Case, sinks: &Sinks, run: &Run) -> Vec<String> {
    let mut faults = Vec::new();
    let taken = sinks.taken();
    let mut tracks: Vec<(u16, &str)> =
        case.connections.iter().map(|connection| (connection.port, connection.track.as_str())).collect();
    tracks.extend(taken.iter().map(|taken| (taken.port, taken.track.as_str())));
    tracks.sort_unstable();
    tracks.dedup();
    for (port, track) in tracks {
        let recorded: Vec<_> = case
            .connections
            .iter()
            .filter(|connection| connection.port == port && connection.track == track)
            .collect();
        let came: Vec<&Taken> =
            taken.iter().filter(|taken| taken.port == port && taken.track == track).collect();
        let (recorded_first, real_first) = sinks.first_ids(track);
        if run.compare == Compare::Overlap {
            let recorded = recorded.iter().map(|connection| connection.packets.as_slice());
            let came = came.iter().map(|taken| taken.packets.as_slice());
            faults.extend(overlap_faults(
                track,
                recorded.collect(),
                came.collect(),
                recorded_first,
                real_first,
            ));
        } else if recorded.len() != came.len() {
            faults.push(format!("{track}: {} connections, recorded {}", came.len(), recorded.len()));
        }
        for (nth, (recorded, came)) in recorded.iter().zip(&came).enumerate() {
            if run.compare == Compare::Overlap && nth > 0 {
                break;
            }
            let shown = |packets: &[packets::Packet], first| -> Vec<String> {
                packets.iter().map(|packet| packet.shown(first)).collect()
            };
            let old = shown(&recorded.packets, recorded_first);
            let new = shown(&came.packets, real_first);
            let is_cut = recorded.closed_after.is_some() || recorded.closed_by_sender;
            if old.len() != new.len() && (!is_cut || run.compare == Compare::All) {
                faults.push(format!("{track}.{}: {} packets, recorded {}", nth + 1, new.len(), old.len()));
            }
            let differs = old.iter().zip(&new).enumerate().find(|(_, (old, new))| old != new);
            if let Some((at, (old, new))) = differs {
                faults.push(format!(
                    "{track}.{} packet {at}:\n    recorded {old}\n    came     {new}",
                    nth + 1
                ));
            }
        }
    }
    faults
}

/// Frames by id, of all connections of a track.
fn frames_by_id(connections: &[&[packets::Packet]], first_id: u64) -> BTreeMap<u64, String> {
    let mut frames = BTreeMap::new();
    for connection in connections {
        let ids = connection[0].initial_frame_id().wrapping_sub(first_id)..;
        let came = connection.iter().filter(|packet| packet.kind == "fram");
        frames.extend(ids.zip(came).map(|(id, packet)| (id, packet.shown(first_id))));
    }
    frames
}

/// What differs between connections that began and ended elsewhere.
fn overlap_faults(
    track: &str,
    recorded: Vec<&[packets::Packet]>,
    came: Vec<&[packets::Packet]>,
    recorded_first: u64,
    real_first: u64,
) -> Vec<String> {
    let (old, new) = (frames_by_id(&recorded, recorded_first), frames_by_id(&came, real_first));
    let mut faults = Vec::new();
    for (id, frame) in &new {
        // What the recorded connections skipped cannot be compared.
        if old.get(id).is_some_and(|recorded| recorded != frame) {
            faults.push(format!("{track} frame {id}:\n    recorded {}\n    came     {frame}", old[id]));
        }
    }
    for connection in &came {
        let kinds: Vec<&str> = connection.iter().take(3).map(|packet| packet.kind.as_str()).collect();
        if !["cnct", "minf", "fram"].starts_with(&kinds) && kinds != ["cnct", "minf", "eost"] {
            faults.push(format!("{track}: a connection begins with {kinds:?}"));
        }
    }
    let end = |connections: &[&[packets::Packet]]| {
        connections.iter().any(|packets| packets.last().is_some_and(|packet| packet.kind == "eost"))
    };
    if end(&recorded) && (!end(&came) || old.keys().last() != new.keys().last()) {
        faults.push(format!("{track}: ends at {:?}, recorded {:?}", new.keys().last(), old.keys().last()));
    }
    faults
}

#[test]
fn recorded_cases_come_out_the_same() {
    let wanted = std::env::var("FIELDGATE_KMP_CASE").unwrap_or_default();
    let runs: Vec<&Run> = RUNS.iter().filter(|run| run.name.starts_with(&wanted)).collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(runs.len()) {
            scope.spawn(|| {
                while let Some(run) = runs.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let faults = drive(run);
                    if !faults.is_empty() {
                        failed.lock().unwrap().push(*run);
                    }
                }
            });
        }
    });
    // The recorded exchange has a pace, which a busy machine may break; by itself a case shows what really differs.
    let again = failed.into_inner().unwrap();
    let faults = again.iter().filter_map(|run| {
        let faults = drive(run);
        println!("{}: not as recorded beside others, {} faults by itself", run.name, faults.len());
        (!faults.is_empty()).then(|| format!("{}\n  {}", run.name, faults.join("\n  ")))
    });
    let faults: Vec<String> = faults.collect();
    assert!(faults.is_empty(), "{} of {} cases differ:\n{}", faults.len(), runs.len(), faults.join("\n"));
}

#[test]
fn refusals_are_as_recorded() {
    let case = Case::read("27_connect_rejected");
    let controller = Controller::start(Script::recorded(&case.callbacks, Vec::new()));
    let gateway = gateway("fast", "", &usual(controller.address), &json!({"idle_timeout": "2s"}));
    for (nth, name) in
        ["reject_with_message", "reject_without_message", "missing_code"].into_iter().enumerate()
    {
        let mut client = Client::open(gateway.rtmp);
        let refusal = connect(&mut client, &case).unwrap_err();
        assert_eq!(refusal.code, "NetConnection.Connect.Rejected", "{nth}");
        assert_eq!(refusal.description, "Connection failed: Application rejected connection.");
        // What came before the answer was kept.
        let begin = client.message(secs(1)).unwrap();
        assert_eq!((begin.kind, begin.body), (4, vec![0; 6]), "{nth}");
        let status = amf::decode(&client.message(secs(1)).unwrap().body);
        let recorded = &case.json("extra.json")[name]["events"][1][3];
        for field in ["level", "code", "description"] {
            let text = status[3].get(field).and_then(amf::Amf::as_text);
            assert_eq!(text, recorded[field].as_str(), "{name} {field}");
        }
        assert!(!client.is_closed_within(secs(1)), "the idle timeout closes it, not the refusal");
        assert!(client.is_closed_within(secs(10)), "the idle timeout closes it");
    }
    let mut client = Client::open(gateway.rtmp);
    connect(&mut client, &case).unwrap();
    let asked: Vec<String> = controller.asked().iter().map(|asked| golden::masked(&asked.body)).collect();
    let recorded: Vec<String> = case.callbacks.iter().map(|callback| callback.body.clone()).collect();
    assert_eq!(asked, recorded);
}

#[test]
fn an_upstream_is_added_while_it_runs() {
    let case = Case::read("28_api_add_upstream");
    let (sinks, real) = Sinks::start(&case.connections, &[27_001, 27_002]);
    let controller = Controller::start(Script::recorded(&case.callbacks, real.clone()));
    let gateway = gateway("fast", "", &usual(controller.address), &json!({}));
    let api = gateway.kmp_api.expect("it listens");
    let (mut client, stream) = publish(&gateway, &case).unwrap();
    let tags = golden::input("28_api_add_upstream");
    let late = real.iter().find(|(recorded, _)| *recorded == 27_002).unwrap().1;
    let added = std::thread::scope(|scope| {
        let acting = scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(1_200));
            let tracks = http::get(api, "/kmp_out_api/tracks").json();
            let (id, _) = tracks
                .as_object()
                .unwrap()
                .iter()
                .find(|(_, track)| track["media_info"]["media_type"] == "video")
                .expect("there is a video track");
            let path = format!("/kmp_out_api/tracks/{id}/upstreams");
            let body = json!({"id": "late", "url": format!("kmp://127.0.0.1:{late}")}).to_string();
            let headers = [("Content-Type", "application/json")];
            let added = http::request(api, "POST", &path, &headers, body.as_bytes()).status;
            std::thread::sleep(Duration::from_millis(900));
            let upstreams = http::get(api, &path).json();
            let removed = http::request(api, "DELETE", &format!("{path}/late"), &[], &[]).status;
            let again = http::request(api, "DELETE", &format!("{path}/late"), &[], &[]).status;
            (added, upstreams, removed, again)
        });
        feed(&mut client, stream, &tags, &RUN);
        acting.join().unwrap()
    });
    let (status, upstreams, removed, again) = added;
    assert_eq!((status, removed, again), (201, 204, 404));
    let recorded = case.json("extra.json");
    assert_eq!(shape(&upstreams), shape(&recorded["upstreams"]), "the same fields");
    client.unpublish(stream, &case.said("name")).unwrap();
    wait::until_true("both tracks to be told of", secs(20), || {
        controller.count("unpublish video") == 1 && controller.count("unpublish audio") == 1
    });
    let run = Run { compare: Compare::Overlap, ..RUN };
    let late: Vec<Taken> = sinks.taken().into_iter().filter(|taken| taken.port == 27_002).collect();
    let kinds: Vec<&str> = late[0].packets.iter().take(3).map(|packet| packet.kind.as_str()).collect();
    assert_eq!((late.len(), kinds.as_slice()), (1, ["cnct", "minf", "fram"].as_slice()));
    let faults = callback_faults(&case, &controller.asked(), &run);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_api_shows_all_fields_that_the_recorded_one_showed() {
    let case = Case::read("01_h264_aac_ffmpeg_defaults");
    let (_sinks, real) = Sinks::start(&case.connections, &[27_001]);
    let controller = Controller::start(Script::recorded(&case.callbacks, real));
    let more: Value = serde_json::from_str(PLAIN).unwrap();
    let gateway = gateway("live", &case.said("name"), &usual(controller.address), &more);
    let api = gateway.kmp_api.expect("it listens");
    let (mut client, stream) = publish(&gateway, &case).unwrap();
    let tags = golden::input("01_h264_aac_ffmpeg_defaults");
    let (rtmp, out) = std::thread::scope(|scope| {
        let feeding = scope.spawn(|| feed(&mut client, stream, &tags, &RUN));
        std::thread::sleep(Duration::from_millis(2_500));
        let shown = (http::get(api, "/").text(), http::get(api, "/kmp_out_api/").text());
        feeding.join().unwrap();
        shown
    });
    let (rtmp, out): (Value, Value) =
        (serde_json::from_str(&rtmp).unwrap(), serde_json::from_str(&out).unwrap());
    let recorded_rtmp = case.json("api_rtmp_kmp.json");
    let recorded_out = case.json("api_kmp_out.json");
    let session = |value: &Value| -> Value {
        let applications = value["servers"][0]["applications"].as_array().unwrap();
        applications.iter().find(|application| application["name"] == "live").unwrap().clone()
    };
    assert_eq!(shape(&session(&rtmp)), shape(&session(&recorded_rtmp)));
    let top = |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!((top(&rtmp), top(&out)), (top(&recorded_rtmp), top(&recorded_out)));
    let track = |value: &Value, kind: &str| -> Value {
        let tracks = value["tracks"].as_object().unwrap();
        tracks.values().find(|track| track["media_info"]["media_type"] == kind).unwrap().clone()
    };
    for kind in ["video", "audio"] {
        let (new, old) = (track(&out, kind), track(&recorded_out, kind));
        assert_eq!(shape(&new), shape(&old), "{kind}");
        assert_eq!(new["media_info"], old["media_info"]);
        for field in ["channel_id", "track_id", "mem_limit", "input_id"] {
            assert_eq!(new[field], old[field], "{kind} {field}");
        }
        assert!(new["sent_frames"].as_u64().unwrap() > 10, "{new}");
    }
    let live = &session(&rtmp)["sessions"][0];
    assert!(live["streams"][0]["bytes_in_video"].as_u64().unwrap() > 5_000, "{live}");
    assert_eq!(live["tc_url"], case.said("tc_url"));
}

#[test]
fn a_publisher_that_comes_back_begins_a_stream_of_its_own() {
    let case = Case::read("01_h264_aac_ffmpeg_defaults");
    let (sinks, real) = Sinks::start(&[], &[27_001]);
    let controller = Controller::start(Script::recorded(&case.callbacks, real));
    let settings = json!({"strict": false, "flush_timeout": "0ms", "add_header": []});
    let gateway = gateway("live", &case.said("name"), &usual(controller.address), &settings);
    let tags = golden::input("01_h264_aac_ffmpeg_defaults");
    let run = Run { speed: 8, ..RUN };
    for nth in 1..=2 {
        // Within the grace of the mountpoint, whose ring still holds the first stream.
        let (mut client, stream) = publish(&gateway, &case).unwrap();
        feed(&mut client, stream, &tags, &run);
        client.unpublish(stream, &case.said("name")).unwrap();
        wait::until_true("both tracks to be told of", secs(20), || {
            controller.count("unpublish video") == nth && controller.count("unpublish audio") == nth
        });
    }
    let video: Vec<Taken> = sinks.taken().into_iter().filter(|taken| taken.track == "v1").collect();
    let frames = |taken: &Taken| {
        let frames = taken.packets.iter().filter(|packet| packet.kind == "fram");
        frames.map(|packet| packet.shown(0)).collect::<Vec<_>>()
    };
    assert_eq!(video.len(), 2);
    assert_eq!(frames(&video[0]).len(), 45, "every picture, once");
    assert_eq!(frames(&video[0]), frames(&video[1]), "nothing of the first in the second");
}

#[test]
fn a_controller_is_obeyed_in_our_own_way_too() {
    let case = Case::read("37_controller_keeps_connection_open");
    let (sinks, real) = Sinks::start(&case.connections, &[27_001]);
    let mut script = Script::recorded(&case.callbacks, real);
    // Longer than the stream: by then the reply must have been acted on.
    script.hold = secs(30);
    let controller = Controller::start(script);
    let settings = json!({"strict": false, "max_streams": 1});
    let gateway = gateway("fast", "", &usual(controller.address), &settings);
    let (mut client, stream) = publish(&gateway, &case).unwrap();
    let tags = golden::input("37_controller_keeps_connection_open");
    // A name in use, and one stream too many.
    let refused = |name: &str| {
        let mut other = Client::open(gateway.rtmp);
        connect(&mut other, &case).unwrap();
        let stream = other.create_stream();
        other.publish(stream, name).unwrap_err().code
    };
    assert_eq!(refused(&case.said("name")), "NetStream.Publish.BadName");
    assert_eq!(refused("another"), "NetStream.Publish.Denied");
    feed(&mut client, stream, &tags, &Run { speed: 4, ..RUN });
    client.unpublish(stream, &case.said("name")).unwrap();
    wait::until_true("both tracks to be told of", secs(20), || {
        controller.count("unpublish video") == 1 && controller.count("unpublish audio") == 1
    });
    for taken in sinks.taken() {
        let kinds: Vec<&str> = taken.packets.iter().map(|packet| packet.kind.as_str()).collect();
        let frames = kinds.iter().filter(|kind| **kind == "fram").count();
        let expected = if taken.track == "v1" { 45 } else { 131 };
        assert_eq!((frames, kinds.last()), (expected, Some(&"eost")), "{}", taken.track);
    }
    assert_eq!(sinks.taken().len(), 2);
    let path = format!("/api/v1/ledger?mountpoint=fast/{}", case.said("name"));
    let entries = gateway.get(&path).json()["entries"].take();
    for (track, frames) in [("video", 45), ("audio", 131)] {
        let of_track = entries.as_array().unwrap().iter().filter(|entry| entry["track"] == track);
        let delivered = of_track.filter(|entry| entry["state"] == "delivered" && entry["upstream"] == "main");
        let sum: u64 = delivered.map(|entry| entry["frames"].as_u64().unwrap()).sum();
        assert_eq!(sum, frames, "{entries}");
    }
}

#[test]
fn a_controller_over_https_is_asked_and_one_that_is_not_trusted_is_not_obeyed() {
    let case = Case::read("37_controller_keeps_connection_open");
    let (sinks, real) = Sinks::start(&case.connections, &[27_001]);
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let scratch = Scratch::new();
    std::fs::write(scratch.join("ca.pem"), made.cert.pem()).unwrap();
    std::fs::write(scratch.join("other.pem"), other.cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let tls = ServerConfig::builder().with_no_client_auth();
    let tls = tls.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let script = Script::recorded(&case.callbacks, real);
    let controller = Controller::start_with(script, Some(Arc::new(tls)));
    let url = |name: &str| format!("https://localhost:{}/{name}", controller.address.port());
    let settings = |ca: &str| {
        json!({
            "strict": false, "ca": scratch.join(ca), "retries": 0,
            "connect_url": url("connect"), "publish_url": url("publish"),
            "unpublish_url": url("unpublish"), "republish_url": url("republish"),
        })
    };
    let stranger = gateway("fast", "", &usual(controller.address), &settings("other.pem"));
    assert!(publish(&stranger, &case).is_none(), "nobody is let in on the word of a stranger");
    assert!(controller.asked().is_empty(), "and a stranger is told nothing");
    let gateway = gateway("fast", "", &usual(controller.address), &settings("ca.pem"));
    let (mut client, stream) = publish(&gateway, &case).unwrap();
    let tags = golden::input("37_controller_keeps_connection_open");
    feed(&mut client, stream, &tags, &Run { speed: 4, ..RUN });
    client.unpublish(stream, &case.said("name")).unwrap();
    wait::until_true("both tracks to be told of", secs(20), || {
        controller.count("unpublish video") == 1 && controller.count("unpublish audio") == 1
    });
    let frames: Vec<usize> = sinks
        .taken()
        .iter()
        .map(|taken| taken.packets.iter().filter(|packet| packet.kind == "fram").count())
        .collect();
    assert_eq!(frames.iter().sum::<usize>(), 45 + 131);
}

/// A session that goes on until something ends it; what then became of its tracks.
fn ended_by(end: impl FnOnce(&mut Gateway)) {
    let case = Case::read("13_rtmp_socket_drop");
    let (sinks, real) = Sinks::start(&case.connections, &[27_001]);
    let controller = Controller::start(Script::recorded(&case.callbacks, real));
    let settings = json!({"strict": false, "flush_timeout": "20ms"});
    let mut gateway = gateway("fast", "", &usual(controller.address), &settings);
    let (mut client, stream) = publish(&gateway, &case).unwrap();
    let tags = golden::input("13_rtmp_socket_drop");
    feed(&mut client, stream, &tags, &Run { speed: 8, ..RUN });
    wait::until_true("both tracks to be asked for", secs(20), || {
        controller.count("publish video") == 1 && controller.count("publish audio") == 1
    });
    end(&mut gateway);
    wait::until_true("both tracks to be told of", secs(20), || {
        controller.count("unpublish video") == 1 && controller.count("unpublish audio") == 1
    });
    for asked in controller.asked().iter().filter(|asked| asked.body.contains("\"unpublish\"")) {
        assert!(asked.body.contains("\"reason\":\"rtmp_disconnect\""), "{}", asked.body);
    }
    for taken in sinks.taken() {
        assert_eq!(taken.packets.last().map(|packet| packet.kind.as_str()), Some("eost"), "{}", taken.track);
    }
    assert!(client.is_closed_within(secs(20)));
}

#[test]
fn a_stop_ends_tracks_and_tells_the_controller() {
    ended_by(|gateway| assert!(gateway.stop().success()));
}

#[test]
fn an_application_that_is_taken_away_ends_its_sessions() {
    ended_by(|gateway| {
        let (mut config, tag) = gateway.config();
        config["compat"]["kmp"]["applications"] = json!({});
        let answer = gateway.put_config(&config, Some(&tag));
        assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
    });
}

/// The names of all fields and the kinds of their values.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(object) => object.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
        Value::Array(list) => list.iter().map(shape).collect(),
        Value::String(_) => json!("text"),
        Value::Number(_) => json!("number"),
        Value::Bool(_) => json!("truth"),
        Value::Null => Value::Null,
    }
}
