//! What a site survey found, judged: each check with what was found and, where it failed, what to do.

use super::gauge::Measured;
use fieldgate_model::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Of the rate that the camera announces, in per cent.
const LEAST_RATE_PERCENT: f64 = 90.0;
/// Who joins a stream waits for a keyframe; the default ring holds as much.
const LONGEST_GOP: Duration = Duration::from_secs(10);
/// More than this shows as stutter.
const MOST_JITTER: Duration = Duration::from_millis(100);
/// A silence that everybody sees.
const LONGEST_SILENCE: Duration = Duration::from_secs(2);
/// A clock that is further off makes recordings hard to find.
const MOST_CLOCK_OFFSET_MICROS: u64 = 2_000_000;
/// TCP segments that had to be sent again, in per cent.
const MOST_LOSS_PERCENT: f64 = 2.0;
/// What the line takes, in per cent of what all cameras send.
const LEAST_ROOM_PERCENT: u64 = 150;

/// How a check, or all of them, went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Passed,
    /// Not as it should be; the text says what to do.
    Failed,
    /// It could not be measured; the text says why.
    NotMeasured,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// `delivers`, `frame_rate`, `gop`, `jitter`, `silence`, `clock`, `codec`, `picture`, `loss`, `bandwidth`.
    pub check: String,
    /// How it went.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it; empty where it passed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

/// One mountpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CameraReport {
    /// The mountpoint.
    pub mountpoint: String,
    /// `rtsp`, `v4l2`, ...
    pub kind: String,
    /// What it is, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub described: Option<String>,
    /// All of its checks.
    pub checks: Vec<Check>,
}

/// One upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UpstreamReport {
    /// The mountpoint that it gets.
    pub mountpoint: String,
    /// The push's id.
    pub upstream: String,
    /// Its address, secrets masked.
    pub url: String,
    /// All of its checks.
    pub checks: Vec<Check>,
}

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Certificate {
    /// `fieldgate-acceptance-1`.
    pub format: String,
    /// The gateway's host name.
    pub gateway: String,
    /// The program's version.
    pub version: String,
    /// The config that ran.
    pub config_revision: u64,
    /// Who asked for it.
    pub by: String,
    /// When it began.
    pub begun: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// For how long pictures were watched, in seconds.
    pub soak_seconds: u64,
    /// Passed if no check failed and there was at least one camera.
    pub verdict: Verdict,
    /// Every mountpoint with a source.
    pub cameras: Vec<CameraReport>,
    /// Every push that is switched on.
    pub upstreams: Vec<UpstreamReport>,
    /// The line as a whole.
    pub uplink: Vec<Check>,
}

impl Certificate {
    /// The verdict over all checks.
    pub(super) fn judge(&self) -> Verdict {
        let of_cameras = self.cameras.iter().flat_map(|it| &it.checks);
        let mut all = of_cameras.chain(self.upstreams.iter().flat_map(|it| &it.checks)).chain(&self.uplink);
        let has_failed = all.any(|check| check.verdict == Verdict::Failed);
        if has_failed || self.cameras.is_empty() { Verdict::Failed } else { Verdict::Passed }
    }
}

/// What is known of a camera beside its pictures.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) codec: Option<String>,
    pub(super) size: Option<(u32, u32)>,
    pub(super) announced_rate: Option<f64>,
    pub(super) clock_offset_micros: Option<i64>,
    pub(super) picture: Option<(String, Option<String>)>,
    pub(super) trouble: Option<String>,
}

fn check(name: &str, is_good: bool, found: String, remedy: &str) -> Check {
    let verdict = if is_good { Verdict::Passed } else { Verdict::Failed };
    let remedy = if is_good { String::new() } else { remedy.to_owned() };
    Check { check: name.to_owned(), verdict, found, remedy }
}

pub(super) fn not_measured(name: &str, why: &str) -> Check {
    let (check, found) = (name.to_owned(), why.to_owned());
    Check { check, verdict: Verdict::NotMeasured, found, remedy: String::new() }
}

/// All checks of a camera.
pub(super) fn camera(measured: &Measured, known: &Known) -> Vec<Check> {
    if measured.pictures == 0 {
        let found = known.trouble.clone().unwrap_or_else(|| "not one picture came".to_owned());
        let remedy = "see the camera's own page for the cause; check power, cable, address and password";
        return vec![check("delivers", false, found, remedy)];
    }
    let mut checks = vec![check(
        "delivers",
        measured.breaks == 0,
        match measured.breaks {
            0 => format!("{} pictures without a break", measured.pictures),
            1 => "the stream broke once".to_owned(),
            breaks => format!("the stream broke {breaks} times"),
        },
        "look at what happened lately: it says why; check power and cable",
    )];
    let wanted = known.announced_rate.filter(|rate| *rate > 0.0);
    let is_enough = wanted.is_none_or(|rate| measured.frame_rate * 100.0 >= rate * LEAST_RATE_PERCENT);
    let of = wanted.map(|rate| format!(" of {rate:.1} announced")).unwrap_or_default();
    checks.push(check(
        "frame_rate",
        is_enough && measured.frame_rate > 0.0,
        format!("{:.1} pictures a second{of}", measured.frame_rate),
        "the camera is slower than it says: more light, a longer shutter limit or a smaller picture",
    ));
    checks.push(match measured.longest_gop {
        None => not_measured("gop", "less than two keyframes came; make the soak longer"),
        Some(longest) => check(
            "gop",
            longest <= LONGEST_GOP,
            format!("a keyframe every {:.1} s at the latest", longest.as_secs_f64()),
            "set the camera's keyframe interval to 2 s",
        ),
    });
    checks.push(check(
        "jitter",
        measured.jitter <= MOST_JITTER,
        format!("{} ms", measured.jitter.as_millis()),
        "the camera's network is busy or weak: use a cable, or another channel",
    ));
    checks.push(check(
        "silence",
        measured.longest_silence <= LONGEST_SILENCE,
        format!("{:.1} s between two pictures at most", measured.longest_silence.as_secs_f64()),
        "the camera or its network stops now and then: check power and cable",
    ));
    checks.push(match measured.clock_offset_micros.or(known.clock_offset_micros) {
        None => not_measured("clock", "the camera does not tell its time"),
        Some(offset) => check(
            "clock",
            offset.unsigned_abs() <= MOST_CLOCK_OFFSET_MICROS,
            format!("{:+.1} s from the gateway's", offset as f64 / 1e6),
            "set the camera's clock, or name it a time server",
        ),
    });
    let size = known.size.filter(|(width, _)| *width > 0);
    let size = size.map(|(width, height)| format!(" {width}x{height}")).unwrap_or_default();
    checks.push(match &known.codec {
        Some(codec) => check(
            "codec",
            true,
            format!("{codec}{size}, {:.2} Mbit/s", measured.bits_per_second as f64 / 1e6),
            "",
        ),
        None => not_measured("codec", "the stream had ended"),
    });
    checks.push(match &known.picture {
        None => not_measured("picture", "it is not watched here"),
        Some((verdict, cause)) => check(
            "picture",
            verdict == "ok",
            match cause {
                Some(cause) => format!("{}: {cause}", verdict.replace('_', " ")),
                None => "good".to_owned(),
            },
            "look at the lens, the light and what stands before the camera",
        ),
    });
    checks
}

/// What is known of an upstream.
#[derive(Clone, Debug, Default)]
pub(super) struct Sent {
    pub(super) delivers: bool,
    pub(super) starts: u64,
    pub(super) bytes: u64,
    pub(super) lost_frames: u64,
    pub(super) cause: Option<String>,
}

/// All checks of an upstream.
pub(super) fn upstream(sent: &Sent, soak: Duration) -> Vec<Check> {
    if !sent.delivers {
        let found = sent.cause.clone().unwrap_or_else(|| "it does not deliver".to_owned());
        let remedy = "press Test beside this upstream: it says at which step it fails and what helps";
        return vec![check("delivers", false, found, remedy)];
    }
    let rate = sent.bytes as f64 * 8.0 / soak.as_secs_f64().max(0.001) / 1e6;
    let found = match sent.starts {
        0 => format!("without a break, {rate:.2} Mbit/s"),
        starts => format!("it had to be connected anew {starts} times"),
    };
    let remedy = "the line or the server breaks off: look at what happened lately";
    vec![
        check("delivers", sent.starts == 0, found, remedy),
        check(
            "loss",
            sent.lost_frames == 0,
            format!("{} frames were not sent", sent.lost_frames),
            "the line takes less than the camera sends: lower its bitrate, or use a spool",
        ),
    ]
}

/// What is known of the line.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Line {
    /// TCP segments that the machine sent meanwhile, and those sent again.
    pub(super) segments: Option<(u64, u64)>,
    /// What it took in a test, bits per second.
    pub(super) bits_per_second: Option<u64>,
    /// What all upstreams get together, bits per second.
    pub(super) needed: u64,
}

/// All checks of the line.
pub(super) fn uplink(line: &Line, why_no_bandwidth: &str) -> Vec<Check> {
    let loss = match line.segments.filter(|(sent, _)| *sent > 0) {
        None => not_measured("loss", "the kernel does not tell"),
        Some((sent, again)) => {
            let percent = again as f64 * 100.0 / sent as f64;
            check(
                "loss",
                percent <= MOST_LOSS_PERCENT,
                format!("{percent:.1} % of {sent} TCP segments were sent again"),
                "the line loses much: check the antenna, the cable, or ask the provider",
            )
        }
    };
    let bandwidth = match line.bits_per_second {
        None => not_measured("bandwidth", why_no_bandwidth),
        Some(takes) => check(
            "bandwidth",
            takes.saturating_mul(100) >= line.needed.saturating_mul(LEAST_ROOM_PERCENT),
            format!("{:.1} Mbit/s, of which {:.1} are needed", takes as f64 / 1e6, line.needed as f64 / 1e6),
            "the line has no room to spare: lower bitrates, or get a faster one",
        ),
    };
    vec![loss, bandwidth]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Measured {
        Measured {
            pictures: 7_500,
            frame_rate: 24.98,
            bits_per_second: 2_000_000,
            longest_gop: Some(Duration::from_secs(2)),
            jitter: Duration::from_millis(4),
            longest_silence: Duration::from_millis(80),
            clock_offset_micros: Some(120_000),
            ..Measured::default()
        }
    }

    fn known() -> Known {
        Known {
            codec: Some("H.264".to_owned()),
            size: Some((1_920, 1_080)),
            announced_rate: Some(25.0),
            picture: Some(("ok".to_owned(), None)),
            ..Known::default()
        }
    }

    fn failed(checks: &[Check]) -> Vec<&str> {
        let failed = checks.iter().filter(|check| check.verdict == Verdict::Failed);
        failed.map(|check| check.check.as_str()).collect()
    }

    #[test]
    fn a_good_camera_passes_every_check_and_each_fault_fails_its_own() {
        let checks = camera(&good(), &known());
        assert_eq!(failed(&checks), Vec::<&str>::new(), "{checks:?}");
        assert_eq!(checks.len(), 8);
        let faults: [(&str, Measured, Known); 7] = [
            ("delivers", Measured { breaks: 1, ..good() }, known()),
            ("frame_rate", Measured { frame_rate: 20.0, ..good() }, known()),
            ("gop", Measured { longest_gop: Some(Duration::from_secs(30)), ..good() }, known()),
            ("jitter", Measured { jitter: Duration::from_millis(250), ..good() }, known()),
            ("silence", Measured { longest_silence: Duration::from_secs(3), ..good() }, known()),
            ("clock", Measured { clock_offset_micros: Some(-9_800_000_000), ..good() }, known()),
            (
                "picture",
                good(),
                Known { picture: Some(("black".to_owned(), Some("no light".to_owned()))), ..known() },
            ),
        ];
        for (name, measured, known) in faults {
            let checks = camera(&measured, &known);
            assert_eq!(failed(&checks), [name]);
            let failed = checks.iter().find(|check| check.check == name).unwrap();
            assert!(!failed.remedy.is_empty() && !failed.found.is_empty());
        }
    }

    #[test]
    fn what_cannot_be_measured_is_said_and_is_no_pass() {
        let checks = camera(&Measured { longest_gop: None, clock_offset_micros: None, ..good() }, &known());
        let open: Vec<&str> = checks
            .iter()
            .filter(|check| check.verdict == Verdict::NotMeasured)
            .map(|check| check.check.as_str())
            .collect();
        assert_eq!(open, ["gop", "clock"]);
        let none =
            camera(&Measured::default(), &Known { trouble: Some("401".to_owned()), ..Known::default() });
        assert_eq!((failed(&none), none[0].found.as_str()), (vec!["delivers"], "401"));
    }

    #[test]
    fn upstreams_and_the_line_are_judged_too() {
        let soak = Duration::from_secs(10);
        let sent = Sent { delivers: true, bytes: 2_500_000, ..Sent::default() };
        assert_eq!(upstream(&sent, soak)[0].found, "without a break, 2.00 Mbit/s");
        assert_eq!(
            failed(&upstream(&Sent { starts: 2, lost_frames: 3, ..sent }, soak)),
            ["delivers", "loss"]
        );
        assert_eq!(failed(&upstream(&Sent::default(), soak)), ["delivers"]);
        let line = Line { segments: Some((1_000, 5)), bits_per_second: Some(6_000_000), needed: 4_000_000 };
        assert_eq!(failed(&uplink(&line, "")), Vec::<&str>::new());
        let bad = Line { segments: Some((1_000, 50)), needed: 5_000_000, ..line };
        assert_eq!(failed(&uplink(&bad, "")), ["loss", "bandwidth"]);
        assert!(uplink(&Line::default(), "why").iter().all(|it| it.verdict == Verdict::NotMeasured));
    }
}
