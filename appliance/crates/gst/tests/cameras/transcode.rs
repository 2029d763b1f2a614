//! Workers that decode and encode again: what comes out has the times of what went in, sound in step with pictures,
//! and no picture without its masks.

use crate::common::{Taken, run_fed, spec};
use bytes::Bytes;
use fieldgate_hub::link::Feeder;
use fieldgate_media::{AudioShape, Codec, Ticks, Track, TrackId, TrackKind, Tracks, UnitHead};
use fieldgate_model::job::{AudioEncode, EncoderWish, Sandbox, SoundCodec, Transcode, VideoEncode, Work};
use fieldgate_model::masks::{Mask, Masks, Point};
use gst::prelude::*;

const PICTURES: usize = 60;
/// Where the stream's time begins: anywhere but at zero.
const BEGIN: i64 = 123_456;

/// One unit of a stream that was made here.
struct Made {
    pts: Ticks,
    dts: Ticks,
    keyframe: bool,
    payload: Bytes,
}

/// What this pipeline makes, with the caps of its end; `None` (and says so) where an element is missing.
fn made(description: &str) -> Option<(gst::Caps, Vec<Made>)> {
    gst::init().unwrap();
    let pipeline = match gst::parse::launch(description) {
        Ok(pipeline) => pipeline.downcast::<gst::Pipeline>().unwrap(),
        Err(error) => {
            println!("skipped: {error}");
            return None;
        }
    };
    let sink = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    sink.set_property("sync", false);
    pipeline.set_state(gst::State::Playing).unwrap();
    let (mut units, mut caps) = (Vec::new(), None);
    // x265enc begins far from zero.
    let mut first = None;
    while let Ok(sample) = sink.pull_sample() {
        let buffer = sample.buffer().unwrap();
        let ticks = |time: gst::ClockTime| i64::try_from((time.nseconds() + 5_000) * 9 / 100_000).unwrap();
        let pts = ticks(buffer.pts().unwrap());
        let begin = *first.get_or_insert(pts);
        caps = sample.caps_owned();
        let dts = buffer.dts().map_or(pts, ticks);
        units.push(Made {
            pts: Ticks::new(BEGIN + pts - begin),
            dts: Ticks::new(BEGIN + dts - begin),
            keyframe: !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT),
            payload: Bytes::copy_from_slice(&buffer.map_readable().unwrap()),
        });
    }
    pipeline.set_state(gst::State::Null).unwrap();
    Some((caps?, units))
}

fn header(caps: &gst::Caps) -> Bytes {
    let buffer = caps.structure(0).unwrap().get::<gst::Buffer>("codec_data").unwrap();
    Bytes::copy_from_slice(&buffer.map_readable().unwrap())
}

fn hevc() -> Option<(Track, Vec<Made>)> {
    let (caps, units) = made(&format!(
        "videotestsrc num-buffers={PICTURES} pattern=smpte ! video/x-raw,width=640,height=480,framerate=25/1 \
         ! x265enc speed-preset=ultrafast option-string=bframes=2:keyint=25 ! h265parse \
         ! video/x-h265,stream-format=hvc1,alignment=au ! appsink name=out"
    ))?;
    Some((Track::new(TrackId::VIDEO, Codec::Hevc, header(&caps)).with_header_shape(), units))
}

/// G.711 with a click every second.
fn clicks(seconds: usize) -> Option<(Track, Vec<Made>)> {
    let (_, units) = made(&format!(
        "audiotestsrc wave=ticks tick-interval=1000000000 sine-periods-per-tick=3 samplesperbuffer=160 \
         num-buffers={} ! audio/x-raw,rate=8000,channels=1 ! alawenc ! appsink name=out",
        seconds * 50
    ))?;
    let mut track = Track::new(TrackId::AUDIO, Codec::PcmA, Bytes::new());
    track.audio = AudioShape { sample_rate: 8_000, channels: 1 };
    Some((track, units))
}

/// Feeds the streams, each in its own order and together by time, and takes what comes back.
fn transcoded(
    settings: Transcode,
    streams: &[&(Track, Vec<Made>)],
    enough: impl Fn(&Taken) -> bool + 'static,
) -> Taken {
    let feeder = Feeder::default();
    feeder.tracks(&Tracks::new(streams.iter().map(|(track, _)| track.clone()).collect()));
    let mut all: Vec<(&Track, &Made)> =
        streams.iter().flat_map(|(track, units)| units.iter().map(move |unit| (track, unit))).collect();
    all.sort_by_key(|(_, unit)| unit.dts);
    for (track, unit) in all {
        let head = UnitHead {
            track: track.id,
            dts: unit.dts,
            pts: unit.pts,
            source_dts: unit.dts,
            source_pts: unit.pts,
            keyframe: unit.keyframe,
            captured: None,
        };
        assert!(feeder.unit(&head, unit.payload.clone()));
    }
    let work = Work::Transcode(Box::new(settings));
    let (taken, outcome) = run_fed(spec(work, Sandbox::default()), feeder, enough);
    outcome.unwrap();
    println!("  {}", taken.report.status.source);
    taken
}

fn video(masks: Masks) -> VideoEncode {
    VideoEncode::new(EncoderWish { bitrate: 1_000_000, ..EncoderWish::default() }, masks)
}

/// The raw pictures of H.264 units, I420 without padding.
fn pictures(track: &Track, units: &[&[u8]]) -> Vec<Vec<u8>> {
    let source = "appsrc name=in format=time ! h264parse ! avdec_h264 ! videoconvert ! video/x-raw,format=I420 \
                  ! appsink name=out sync=false";
    let caps = gst::Caps::builder("video/x-h264")
        .field("stream-format", "avc")
        .field("alignment", "au")
        .field("codec_data", gst::Buffer::from_slice(track.header.clone()))
        .build();
    decoded(source, caps, units.iter().enumerate().map(|(at, unit)| (at as u64 * 40_000_000, *unit)))
        .into_iter()
        .map(|(_, picture)| picture)
        .collect()
}

/// Everything that this pipeline makes of these buffers, with its time in nanoseconds.
fn decoded<'a>(
    description: &str,
    caps: gst::Caps,
    units: impl Iterator<Item = (u64, &'a [u8])>,
) -> Vec<(u64, Vec<u8>)> {
    let pipeline = gst::parse::launch(description).unwrap().downcast::<gst::Pipeline>().unwrap();
    let source = pipeline.by_name("in").unwrap().downcast::<gst_app::AppSrc>().unwrap();
    let sink = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    source.set_caps(Some(&caps));
    source.set_property("max-bytes", 0_u64);
    pipeline.set_state(gst::State::Playing).unwrap();
    for (nanos, unit) in units {
        let mut buffer = gst::Buffer::from_slice(unit.to_vec());
        buffer.get_mut().unwrap().set_pts(gst::ClockTime::from_nseconds(nanos));
        source.push_buffer(buffer).unwrap();
    }
    source.end_of_stream().unwrap();
    let mut out = Vec::new();
    while let Ok(sample) = sink.pull_sample() {
        let buffer = sample.buffer().unwrap();
        out.push((buffer.pts().unwrap().nseconds(), buffer.map_readable().unwrap().to_vec()));
    }
    pipeline.set_state(gst::State::Null).unwrap();
    out
}

pub(crate) fn hevc_becomes_h264_with_the_same_times() {
    let Some(stream) = hevc() else { return };
    let settings = Transcode { video: Some(video(Masks::none())), audio: None };
    // The decoder and the encoder may hold back the last ones.
    let enough = |taken: &Taken| taken.of(TrackId::VIDEO).count() >= PICTURES - 6;
    let taken = transcoded(settings, &[&stream], enough);
    let track = taken.tracks[0].first(TrackKind::Video).unwrap();
    assert_eq!((track.codec, track.video.width, track.video.height), (Codec::H264, 640, 480));
    let units: Vec<_> = taken.of(TrackId::VIDEO).collect();
    assert!(units[0].0.keyframe);
    let mut expected: Vec<Ticks> = stream.1.iter().map(|unit| unit.pts).collect();
    expected.sort();
    let seen: Vec<Ticks> = units.iter().map(|(head, _)| head.pts).collect();
    assert_eq!(seen, expected[..seen.len()]);
    assert!(units.iter().all(|(head, _)| head.dts == head.pts));
    let keyframes: Vec<usize> =
        units.iter().enumerate().filter(|(_, (head, _))| head.keyframe).map(|(at, _)| at).collect();
    assert_eq!(keyframes, [0, 50], "every two seconds");
    let payloads: Vec<&[u8]> = units.iter().map(|(_, payload)| &payload[..]).collect();
    assert_eq!(pictures(track, &payloads).len(), units.len());
}

pub(crate) fn g711_becomes_aac_and_opus_in_step() {
    let Some(stream) = clicks(6) else { return };
    let caps = gst::Caps::builder("audio/x-alaw").field("rate", 8_000).field("channels", 1).build();
    let source = "appsrc name=in format=time ! alawdec ! audioconvert ! audioresample \
                  ! audio/x-raw,format=S16LE,rate=48000 ! appsink name=out sync=false";
    let units = stream.1.iter().enumerate().map(|(at, unit)| (at as u64 * 20_000_000, &unit.payload[..]));
    let clicked: Vec<f64> =
        clicks_in(&samples(decoded(source, caps, units))).into_iter().map(|at| at as f64 / 48.0).collect();
    println!("  clicks were made at {clicked:.1?} ms");
    for codec in [SoundCodec::Aac, SoundCodec::Opus] {
        let encode = AudioEncode { codec, ..AudioEncode::default() };
        let settings = Transcode { video: None, audio: Some(encode) };
        let last = stream.1.last().unwrap().pts - Ticks::from_millis(500);
        let enough = move |taken: &Taken| taken.of(TrackId::AUDIO).any(|(head, _)| head.pts >= last);
        let taken = transcoded(settings, &[&stream], enough);
        let track = taken.tracks[0].first(TrackKind::Audio).unwrap();
        let units: Vec<_> = taken.of(TrackId::AUDIO).collect();
        let frame_ms = if codec == SoundCodec::Aac { 21 } else { 20 };
        for pair in units.windows(2) {
            let step = (pair[1].0.pts - pair[0].0.pts).get();
            let expected = if codec == SoundCodec::Aac { 1920 } else { 1800 };
            assert!((expected - 1..=expected + 1).contains(&step), "{codec:?}: a frame is missing: {step}");
        }
        // Where a player hears the clicks that knows nothing of how encoders begin.
        let played = sound(track, units.iter().map(|(_, payload)| &payload[..]));
        let begin_ms = (units[0].0.pts - Ticks::new(BEGIN)).get() as f64 / 90.0;
        let heard: Vec<f64> = clicks_in(&played).into_iter().map(|at| begin_ms + at as f64 / 48.0).collect();
        println!("  {codec:?}: begins at {begin_ms:.2} ms, clicks at {heard:.1?} ms");
        assert!(heard.len() >= 4);
        for made in &clicked {
            let Some(off) = heard.iter().map(|heard| heard - made).find(|off| off.abs() < 500.0) else {
                continue;
            };
            assert!(
                off.abs() < f64::from(frame_ms) / 2.0,
                "{codec:?}: click at {made:.1} ms is {off:.1} ms off"
            );
        }
    }
}

/// 48 kHz mono samples, as they come out one frame after the other.
fn sound<'a>(track: &Track, units: impl Iterator<Item = &'a [u8]>) -> Vec<i16> {
    let (caps, decoder) = match track.codec {
        Codec::Aac => {
            let caps = gst::Caps::builder("audio/mpeg")
                .field("mpegversion", 4)
                .field("stream-format", "raw")
                .field("framed", true)
                .field("rate", 48_000)
                .field("channels", i32::from(track.audio.channels))
                .field("codec_data", gst::Buffer::from_slice(track.header.clone()));
            (caps.build(), "avdec_aac")
        }
        _ => {
            let caps = gst::Caps::builder("audio/x-opus").field("channel-mapping-family", 0);
            (caps.field("channels", i32::from(track.audio.channels)).field("rate", 48_000).build(), "opusdec")
        }
    };
    let source = format!(
        "appsrc name=in format=time ! {decoder} ! audioconvert ! audio/x-raw,format=S16LE,channels=1,rate=48000 \
         ! appsink name=out sync=false"
    );
    let frames = units.enumerate().map(|(at, unit)| (at as u64 * 20_000_000, unit));
    samples(decoded(&source, caps, frames))
}

fn samples(pieces: Vec<(u64, Vec<u8>)>) -> Vec<i16> {
    pieces
        .into_iter()
        .flat_map(|(_, bytes)| {
            bytes.chunks_exact(2).map(|two| i16::from_le_bytes([two[0], two[1]])).collect::<Vec<_>>()
        })
        .collect()
}

/// Where a click begins: louder than a tenth of the loudest, after half a second of quiet.
fn clicks_in(samples: &[i16]) -> Vec<usize> {
    let loudest = samples.iter().map(|sample| i32::from(*sample).abs()).max().unwrap_or(0);
    let mut found: Vec<usize> = Vec::new();
    for (at, sample) in samples.iter().enumerate() {
        let is_loud = i32::from(*sample).abs() > loudest / 5;
        if is_loud && found.last().is_none_or(|last| at - last > 24_000) {
            found.push(at);
        }
    }
    found
}

pub(crate) fn no_picture_leaves_without_its_masks() {
    let Some(stream) = hevc() else { return };
    let (from, to) = (Point { x: 0.25, y: 0.25 }, Point { x: 0.5, y: 0.75 });
    let corner = [(0.8, 0.0), (1.0, 0.0), (1.0, 0.3)].map(|(x, y)| Point { x, y });
    let masks = Masks::new(vec![Mask::Rectangle { from, to }, Mask::Polygon(corner.to_vec())]).unwrap();
    for max_width in [None, Some(320)] {
        let encode = VideoEncode { max_width, max_frame_rate: Some(10), ..video(masks.clone()) };
        let settings = Transcode { video: Some(encode), audio: None };
        let taken = transcoded(settings, &[&stream], |taken| taken.of(TrackId::VIDEO).count() >= 20);
        let track = taken.tracks[0].first(TrackKind::Video).unwrap();
        let (width, height) = (track.video.width as usize, track.video.height as usize);
        assert_eq!((width, height), if max_width.is_some() { (320, 240) } else { (640, 480) });
        let payloads: Vec<&[u8]> = taken.of(TrackId::VIDEO).map(|(_, payload)| &payload[..]).collect();
        let pictures = pictures(track, &payloads);
        assert_eq!(pictures.len(), payloads.len());
        for picture in pictures {
            for y in 0..height {
                for x in 0..width {
                    let (fx, fy) = ((x as f32 + 0.5) / width as f32, (y as f32 + 0.5) / height as f32);
                    let luma = picture[y * width + x];
                    let in_rectangle = (from.x..to.x).contains(&fx) && (from.y..to.y).contains(&fy);
                    // Below the line from the top left corner to the bottom right one it is not covered.
                    let in_corner = fx > 0.8 && fy < 0.3 && fy / 0.3 < (fx - 0.8) / 0.2;
                    if in_rectangle || in_corner {
                        // Black, but for what coding does to its edge.
                        assert!(luma < 40, "{x},{y} of {width}x{height} shows {luma}");
                    }
                }
            }
            let open = picture[height / 8 * width + width / 10];
            assert!(open > 60, "what is not masked is seen: {open}");
        }
        // Each has its own time, and may be early by a quarter of what is between two.
        let times: Vec<i64> = taken.of(TrackId::VIDEO).map(|(head, _)| head.pts.get()).collect();
        let span = times[times.len() - 1] - times[0];
        let least = i64::try_from(times.len() - 1).unwrap() * 9_000 - 9_000 / 4;
        assert!(span >= least - 10, "10 pictures a second: {times:?}");
        assert!(span <= least + 2 * 9_000, "and no fewer: {times:?}");
    }
}
