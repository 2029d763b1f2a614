//! Plans held against readable texts in `testdata/plan`; `FIELDGATE_WRITE_GOLDEN=1 cargo test -p fieldgate-model plan`
//! writes their answers anew, to be read before they are kept.

use super::*;
use crate::Config;
use fieldgate_media::Codec;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/plan")
}

fn compare(file: &Path, expected: &str, got: &str) {
    if std::env::var_os("FIELDGATE_WRITE_GOLDEN").is_some() {
        std::fs::write(file, got).unwrap();
        return;
    }
    for (line, (want, is)) in expected.lines().zip(got.lines()).enumerate() {
        assert_eq!(is, want, "{}, line {}", file.display(), line + 1);
    }
    assert_eq!(expected.lines().count(), got.lines().count(), "{}", file.display());
}

/// `hevc 1920x1080@25, pcma`, either part may be `-`; `whole` is implied.
fn seen(text: &str) -> Seen {
    let (video, audio) = text.split_once(", ").expect("VIDEO, AUDIO");
    let video = (video != "-").then(|| {
        let (codec, shape) = video.split_once(' ').expect("CODEC WxH@RATE");
        let (size, rate) = shape.split_once('@').unwrap();
        let (width, height) = size.split_once('x').unwrap();
        let number = |text: &str| text.parse().unwrap();
        let encoded_here = codec == "encoded";
        let codec = if encoded_here { Codec::H264 } else { Codec::from_name(codec).unwrap() };
        SeenVideo {
            codec,
            encoded_here,
            width: number(width),
            height: number(height),
            frame_rate: number(rate),
        }
    });
    let audio = Codec::from_name(audio).map(|codec| SeenAudio { codec, encoded_here: false });
    Seen { video, audio, is_whole: true, ..Seen::default() }
}

/// One line of what is known: see the files.
fn learn(known: &mut Known, line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let setting = |name: &str| {
        words
            .iter()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
            .map(|text| text.parse::<u32>().unwrap())
    };
    match words.as_slice() {
        ["cores", count] => known.cores = count.parse().unwrap(),
        ["stream", name, ..] => {
            let masks = known.streams.get(*name).map_or(0, |seen| seen.masks);
            let text = line.split_once(": ").unwrap().1;
            known.streams.insert(name.trim_end_matches(':').to_owned(), Seen { masks, ..seen(text) });
        }
        ["masks", name, count] => {
            known.streams.entry((*name).to_owned()).or_default().masks = count.parse().unwrap();
        }
        ["instance", name, "of", template] => {
            known.instances.insert((*name).to_owned(), (*template).to_owned());
        }
        ["profile", mountpoint, name, codec, size] => {
            let (width, height) = size.split_once('x').unwrap();
            known.streams.entry((*mountpoint).to_owned()).or_default().profiles.push(Profile {
                name: (*name).to_owned(),
                codec: Codec::from_name(codec).filter(|codec| *codec != Codec::Jpeg),
                width: width.parse().unwrap(),
                height: height.parse().unwrap(),
            });
        }
        ["encoder", name, codec, kind, ..] => {
            known.is_measured = true;
            known.encoders.push(KnownEncoder {
                name: (*name).to_owned(),
                codec: Codec::from_name(codec).unwrap(),
                hardware: *kind == "hardware",
                sessions: setting("sessions"),
                cpu_us_per_megapixel: setting("us").unwrap(),
                kilopixels_per_second: setting("kilopixels").map(u64::from),
            });
        }
        ["decoder", name, codec, kind, ..] => known.decoders.push(KnownDecoder {
            name: (*name).to_owned(),
            codec: Codec::from_name(codec).filter(|codec| *codec != Codec::Jpeg),
            hardware: *kind == "hardware",
            cpu_us_per_megapixel: setting("us").unwrap_or(0),
        }),
        ["nothing", "works"] => known.is_measured = true,
        [] => {}
        _ => panic!("not understood: {line}"),
    }
}

#[test]
fn plans_are_as_written() {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.file_name().is_some_and(|name| name != "matrix.txt"));
    files.sort();
    assert!(files.len() >= 8, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let (head, _) = text.split_once("--- plan\n").expect("a plan");
        let (config, facts) = head.split_once("--- known\n").expect("what is known");
        let json: String = config.lines().filter(|line| !line.starts_with('#')).collect();
        let config =
            Config::parse(&json).unwrap_or_else(|problems| panic!("{}: {problems:?}", file.display()));
        let mut known = Known::default();
        facts.lines().for_each(|line| learn(&mut known, line));
        let plan = plan(&config, &known);
        compare(&file, &text, &format!("{head}--- plan\n{plan}"));
    }
}

const SOURCES: [(&str, &str, &str); 18] = [
    ("publish h264+aac", r#"{"kind": "publish"}"#, "h264 1280x720@25, aac"),
    ("publish hevc+opus", r#"{"kind": "publish"}"#, "hevc 1280x720@25, opus"),
    ("publish h264+pcma", r#"{"kind": "publish"}"#, "h264 1280x720@25, pcma"),
    ("kmp h264, no sound", r#"{"kind": "kmp"}"#, "h264 1280x720@25, -"),
    ("rtsp, not seen yet", r#"{"kind": "rtsp", "url": "rtsp://cam/1"}"#, ""),
    ("rtsp h264+aac", r#"{"kind": "rtsp", "url": "rtsp://cam/1"}"#, "h264 1920x1080@25, aac"),
    ("rtsp hevc+pcmu", r#"{"kind": "rtsp", "url": "rtsp://cam/1"}"#, "hevc 1920x1080@25, pcmu"),
    ("rtsp mjpeg, no sound", r#"{"kind": "rtsp", "url": "rtsp://cam/1"}"#, "encoded 1280x720@15, -"),
    ("v4l2 h264", r#"{"kind": "v4l2", "device": "/dev/video0", "format": "h264"}"#, "h264 1280x720@30, -"),
    ("v4l2 mjpeg", r#"{"kind": "v4l2", "device": "/dev/video0", "format": "mjpeg"}"#, ""),
    ("v4l2 raw", r#"{"kind": "v4l2", "device": "/dev/video0", "format": "raw"}"#, ""),
    ("csi", r#"{"kind": "csi", "width": 1920, "height": 1080}"#, ""),
    (
        "v4l2 h264+microphone",
        r#"{"kind": "v4l2", "device": "/dev/video0", "format": "h264", "microphone": "hw:0"}"#,
        "h264 1280x720@30, aac",
    ),
    (
        "rtp h264",
        r#"{"kind": "rtp", "streams": [{"media": "video", "port": 5004, "encoding": "H264"}]}"#,
        "h264 1280x720@25, -",
    ),
    (
        "rtp mjpeg+l16",
        r#"{"kind": "rtp", "streams": [{"media": "video", "port": 5004, "encoding": "JPEG"},
            {"media": "audio", "port": 5006, "encoding": "L16"}]}"#,
        "",
    ),
    ("mjpeg", r#"{"kind": "mjpeg", "url": "http://cam/"}"#, ""),
    ("file h264+aac", r#"{"kind": "file", "path": "/a.mp4"}"#, "h264 1280x720@25, aac"),
    ("test picture", r#"{"kind": "test"}"#, ""),
];

const OUTPUTS: [(&str, &str); 6] = [
    ("rtmp", r#"{"url": "rtmp://up/a/b", "id": "p"}"#),
    (
        "rtmp h264+aac",
        r#"{"url": "rtmp://up/a/b", "id": "p", "accepts": {"video": ["h264"], "audio": ["aac"]}}"#,
    ),
    ("rtmp hevc", r#"{"url": "rtmp://up/a/b", "id": "p", "accepts": {"video": ["hevc"]}}"#),
    ("rtmp silent", r#"{"url": "rtmp://up/a/b", "id": "p", "accepts": {"audio": []}}"#),
    ("kmp", r#"{"url": "kmp://up:6543", "id": "p", "channel_id": "c"}"#),
    (
        "kmp with sound",
        r#"{"url": "kmp://up:6543", "id": "p", "channel_id": "c", "accepts": {"needs_audio": true}}"#,
    ),
];

const MACHINES: [(&str, &str); 3] = [
    ("no encoder", "nothing works\ncores 4"),
    (
        "software",
        "cores 4\nencoder openh264enc h264 software us=6000\ndecoder avdec_h264 h264 software us=2000\n\
         decoder avdec_h265 hevc software us=3000\ndecoder jpegdec jpeg software us=4000",
    ),
    (
        "hardware",
        "cores 4\nencoder v4l2h264enc h264 hardware sessions=2 kilopixels=124416 us=300\n\
         encoder v4l2h265enc hevc hardware sessions=2 kilopixels=124416 us=300\n\
         decoder v4l2h264dec h264 hardware us=200\ndecoder v4l2slh265dec hevc hardware us=200\n\
         decoder jpegdec jpeg software us=4000",
    ),
];

#[test]
fn the_matrix_of_capabilities_is_as_written() {
    let mut text = String::from(
        "# Source, output, machine, masks: what happens to pictures | sound on the leg, and from which rendition.\n\
         # Made by plan/tests.rs.\n",
    );
    for (source_name, source, stream) in SOURCES {
        for (machine_name, machine) in MACHINES {
            for masks in [0, 1] {
                let _ = writeln!(text, "\n{source_name}; {machine_name}; {masks} masks");
                for (output_name, output) in OUTPUTS {
                    let json = format!(
                        r#"{{"mountpoints": {{"cam": {{"source": {source}, "push": [{output}]}}}}}}"#
                    );
                    let config = Config::parse(&json).unwrap();
                    let mut known = Known::default();
                    machine.lines().for_each(|line| learn(&mut known, line));
                    if !stream.is_empty() {
                        known.streams.insert("cam".to_owned(), seen(stream));
                    }
                    known.streams.entry("cam".to_owned()).or_default().masks = masks;
                    let plan = plan(&config, &known);
                    let leg = &plan.mountpoints["cam"].legs[1];
                    let brief = |step: &Step| {
                        let by = step.encoder.as_ref().map(|name| format!(" by {name}")).unwrap_or_default();
                        format!("{} {}->{}{by}", step.action.name(), step.from, step.to)
                    };
                    let from = leg.rendition.as_ref().map(|name| format!(" | ~{name}")).unwrap_or_default();
                    let _ = writeln!(
                        text,
                        "  {output_name:14} {} | {}{from}",
                        brief(&leg.video),
                        brief(&leg.audio)
                    );
                    holds_for_all(&plan, masks);
                }
            }
        }
    }
    let file = folder().join("matrix.txt");
    compare(&file, &std::fs::read_to_string(&file).unwrap_or_default(), &text);
}

/// What no plan may break.
fn holds_for_all(plan: &Plan, masks: usize) {
    for (name, mountpoint) in &plan.mountpoints {
        let source = &mountpoint.source.video;
        if masks > 0 && source.action != Action::Absent {
            assert!(
                matches!(source.action, Action::Transcode | Action::Unable),
                "{name} is masked: {source}"
            );
        }
        for leg in &mountpoint.legs {
            if leg.video.action == Action::Transcode {
                assert!(!leg.video.reason.is_empty());
                let made =
                    leg.rendition.is_some() || source.action == Action::Transcode || source.encoder.is_some();
                let off = matches!(&leg.output, Output::Push { enabled: false, .. });
                assert!(made || off, "{name}: nobody transcodes for {leg}");
            }
            if let Some(rendition) = &leg.rendition {
                assert!(mountpoint.renditions.iter().any(|it| it.name == *rendition));
            }
            if source.action == Action::Unable {
                assert!(leg.video.action == Action::Unable, "{name}: {leg}");
            }
        }
    }
}

#[test]
fn a_change_that_overloads_is_refused_naming_the_least_important() {
    let config = |cameras: &[(&str, u8)]| {
        let each: Vec<String> = cameras
            .iter()
            .map(|(name, priority)| {
                format!(
                    r#""{name}": {{"source": {{"kind": "test", "width": 1920, "height": 1080}}, "priority": {priority}}}"#
                )
            })
            .collect();
        Config::parse(&format!(r#"{{"mountpoints": {{{}}}}}"#, each.join(","))).unwrap()
    };
    let mut known = Known::default();
    "cores 1\nencoder openh264enc h264 software us=5000".lines().for_each(|line| learn(&mut known, line));
    // One takes 31 % and 2 % for its tone, of 80 %.
    let (two, three) = (config(&[("a", 10), ("b", 90)]), config(&[("a", 10), ("b", 90), ("c", 50)]));
    let (fits, over) = (plan(&two, &known), plan(&three, &known));
    assert!(fits.over.is_empty() && admit(&two, &Plan::default(), &fits).is_empty());
    let problems = admit(&three, &fits, &over);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].path, "mountpoints.a.source", "the least important, not the one that was added");
    assert!(problems[0].remedy.as_ref().is_some_and(|text| text.contains("limits.cpu_percent")));
    // What overloads already does not hold up other changes.
    assert!(admit(&three, &over, &over).is_empty());
    // Nothing is known of another machine, so nothing is refused.
    assert!(plan(&three, &Known::default()).over.is_empty());
}

#[test]
fn the_most_important_has_an_encoder_even_if_it_is_too_much() {
    let text = r#"{"limits": {"cpu_percent": 1}, "mountpoints": {
        "a": {"source": {"kind": "test"}, "priority": 10}, "b": {"source": {"kind": "test"}, "priority": 60}}}"#;
    let mut known = Known::default();
    "cores 1\nencoder openh264enc h264 software us=9000".lines().for_each(|line| learn(&mut known, line));
    let plan = plan(&Config::parse(text).unwrap(), &known);
    assert_eq!(plan.over.len(), 1);
    assert_eq!(plan.over[0].mountpoint, "a");
}

#[test]
fn guests_take_what_the_config_leaves_and_are_told_why_there_is_no_more() {
    let encoder = KnownEncoder {
        name: "soft".to_owned(),
        codec: Codec::H264,
        hardware: false,
        sessions: None,
        cpu_us_per_megapixel: 10_000,
        kilopixels_per_second: None,
    };
    let decoder = KnownDecoder {
        name: "dec".to_owned(),
        codec: Some(Codec::H264),
        hardware: false,
        cpu_us_per_megapixel: 1_000,
    };
    let guest = Guest { from: Codec::H264, width: 1280, height: 720, frame_rate: 30 };
    let known = Known {
        encoders: vec![encoder],
        decoders: vec![decoder],
        is_measured: true,
        cores: 1,
        guests: (1..=3).map(|id| (id, guest)).chain([(4, Guest { from: Codec::Hevc, ..guest })]).collect(),
        ..Known::default()
    };
    let guests = |config: &str, known: &Known| {
        let plan = plan(&Config::parse(config).unwrap(), known);
        assert!(plan.encodes(), "so that encoders are measured");
        let reasons = plan.guests.values().map(|found| found.clone().unwrap_or_else(|why| why));
        reasons.collect::<Vec<String>>()
    };
    // Each needs 35 % of a core.
    let alone = guests(r#"{"limits": {"cpu_percent": 75}}"#, &known);
    assert_eq!(alone[..2], ["soft", "soft"]);
    assert!(alone[2].contains("5 % of 75 % are left"), "{alone:?}");
    assert_eq!(alone[3], "nothing here decodes hevc");
    let camera = r#"{"limits": {"cpu_percent": 75}, "mountpoints": {"a": {"source": {"kind": "test", "frame_rate": 30,
        "width": 1280, "height": 720}}}}"#;
    let beside = guests(camera, &known);
    assert!(beside[0] == "soft" && beside[1].contains("are left"), "{beside:?}");
    let unmeasured = Known { is_measured: false, ..known };
    assert_eq!(guests("{}", &unmeasured), [""; 4]);
}
