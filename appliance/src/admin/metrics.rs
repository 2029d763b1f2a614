//! The status as Prometheus text (exposition format 0.0.4).

use fieldgate_model::Status;
use fieldgate_model::status::{Activity, ConfigPhase, Counters, KmpTrackStatus, State};
use std::fmt::{Display, Write as _};

/// All that is counted.
pub(super) fn render(status: &Status) -> String {
    let mut page = Page(String::with_capacity(4 << 10));
    gateway(&mut page, status);
    listeners(&mut page, status);
    mountpoints(&mut page, status);
    pushes(&mut page, status);
    workers(&mut page, status);
    capacity(&mut page, status);
    page.0
}

struct Page(String);

impl Page {
    /// One metric with a sample per label set. Left out where there is none.
    fn family<'a, V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl Iterator<Item = (Vec<(&'static str, &'a str)>, V)>,
    ) {
        let mut samples = samples.peekable();
        if samples.peek().is_none() {
            return;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP fieldgate_{name} {help}\n# TYPE fieldgate_{name} {kind}");
        for (labels, value) in samples {
            let _ = write!(self.0, "fieldgate_{name}");
            for (at, (label, text)) in labels.iter().enumerate() {
                let _ = write!(self.0, "{}{label}=\"{}\"", if at == 0 { '{' } else { ',' }, escaped(text));
            }
            let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
        }
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help, std::iter::once((Vec::new(), value)));
    }

    fn counters<'a>(
        &mut self,
        prefix: &str,
        verb: &str,
        all: impl Iterator<Item = (Vec<(&'static str, &'a str)>, Counters)> + Clone,
    ) {
        type Pick = fn(&Counters) -> u64;
        let picks: [(&str, &str, Pick); 7] = [
            ("units", "Access units", |counters| counters.units),
            ("bytes", "Bytes of access units", |counters| counters.bytes),
            ("dropped_units", "Access units that a slow subscriber missed", |counters| {
                counters.dropped_units
            }),
            ("jumps", "Jumps of slow subscribers to the newest keyframe", |counters| counters.jumps),
            ("malformed_units", "Access units that did not parse", |counters| counters.malformed_units),
            ("clock_jumps", "Jumps of the source's clock that no output shows", |counters| {
                counters.clock_jumps
            }),
            ("stalled_subscribers", "Subscribers closed as they took nothing", |counters| {
                counters.stalled_subscribers
            }),
        ];
        for (name, help, pick) in picks {
            let help = if matches!(name, "units" | "bytes") {
                format!("{help} {verb}.")
            } else {
                format!("{help}.")
            };
            let samples = all.clone().map(|(labels, counters)| (labels, pick(&counters)));
            self.family(&format!("{prefix}_{name}_total"), "counter", &help, samples);
        }
    }
}

/// Label values: backslash, quote and line end.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn up(activity: &Activity) -> u8 {
    u8::from(activity.state == State::Running)
}

fn gateway(page: &mut Page, status: &Status) {
    let info = std::iter::once((vec![("version", status.version.as_str())], 1));
    page.family("info", "gauge", "The program's version.", info);
    let started = status.started.unix_millis() / 1_000;
    page.one("start_time_seconds", "gauge", "When the program started, Unix time.", started);
    page.one("config_revision", "gauge", "Revision of the confirmed config.", status.config.revision);
    let waits = u8::from(status.config.phase == ConfigPhase::AwaitingConfirm);
    page.one("config_awaiting_confirm", "gauge", "Whether a change waits for its confirmation.", waits);
    page.one("notices", "gauge", "Things that somebody should know and do.", status.notices.len());
}

fn capacity(page: &mut Page, status: &Status) {
    let capacity = &status.capacity;
    let optional = |value: Option<i64>| value.into_iter().map(|value| (Vec::new(), value));
    page.one(
        "load_shed",
        "gauge",
        "What is not encoded for want of capacity, heat or load.",
        capacity.shed.len(),
    );
    page.one(
        "plan_cpu_percent",
        "gauge",
        "Processor time that encoding is planned to take, per cent of a core.",
        capacity.planned_cpu_percent,
    );
    page.one(
        "plan_cpu_limit_percent",
        "gauge",
        "Processor time that encoding may take, per cent of a core.",
        capacity.cpu_limit_percent,
    );
    page.one(
        "encoder_sessions",
        "gauge",
        "Sessions of hardware encoders in the plan.",
        capacity.encoder_sessions,
    );
    page.one(
        "encoder_sessions_limit",
        "gauge",
        "Sessions of hardware encoders that may be used.",
        capacity.encoder_sessions_limit,
    );
    let used = optional(capacity.cpu_percent.map(i64::from));
    page.family(
        "cpu_percent",
        "gauge",
        "Processor time of the gateway and its workers, per cent of a core.",
        used,
    );
    let temperature = optional(capacity.temperature_c.map(i64::from));
    page.family(
        "temperature_celsius",
        "gauge",
        "The thermal zone that is nearest to its limit.",
        temperature,
    );
    let limit = optional(capacity.temperature_limit_c.map(i64::from));
    page.family("temperature_limit_celsius", "gauge", "From where on encoding is left out.", limit);
    let pressure = optional(capacity.pressure_percent.map(i64::from));
    page.family("cpu_pressure_percent", "gauge", "Time in which some task waited for a processor.", pressure);
}

fn listeners(page: &mut Page, status: &Status) {
    let all =
        || status.listeners.iter().map(|(name, listener)| (vec![("listener", name.as_str())], listener));
    page.family("listener_up", "gauge", "Whether it listens.", all().map(|(l, it)| (l, up(&it.activity))));
    page.family(
        "listener_connections",
        "gauge",
        "Open connections.",
        all().map(|(l, it)| (l, it.connections)),
    );
    page.family(
        "listener_refused_total",
        "counter",
        "Connections refused by a limit.",
        all().map(|(l, it)| (l, it.refused)),
    );
}

fn mountpoints(page: &mut Page, status: &Status) {
    let all = || status.mountpoints.iter().map(|(name, it)| (vec![("mountpoint", name.as_str())], it));
    let live = all().map(|(labels, it)| (labels, u8::from(it.stream.is_some())));
    page.family("mountpoint_live", "gauge", "Whether a stream is there.", live);
    page.family("mountpoint_players", "gauge", "Players now.", all().map(|(l, it)| (l, it.players)));
    let good =
        all().filter_map(|(labels, it)| Some((labels, u8::from(it.picture.as_ref()?.verdict == "ok"))));
    page.family("picture_ok", "gauge", "Whether nothing speaks against the picture.", good);
    let faults = all().filter_map(|(mut labels, it)| {
        let picture = it.picture.as_ref().filter(|picture| picture.verdict != "ok")?;
        labels.push(("verdict", picture.verdict.as_str()));
        Some((labels, 1))
    });
    page.family("picture_fault", "gauge", "What is wrong with the picture.", faults);
    let checks = all().filter_map(|(labels, it)| Some((labels, it.picture.as_ref()?.checks)));
    page.family("picture_checks_total", "counter", "Keyframes decoded to be looked at.", checks);
    let failed = all().filter_map(|(labels, it)| Some((labels, it.picture.as_ref()?.failed_checks)));
    page.family("picture_failed_checks_total", "counter", "Keyframes that could not be decoded.", failed);
    let sources = all().filter_map(|(labels, it)| Some((labels, up(it.source.activity.as_ref()?))));
    page.family("source_up", "gauge", "Whether the gateway's own source works.", sources);
    let starts = all().filter_map(|(labels, it)| Some((labels, it.source.activity.as_ref()?.starts)));
    page.family("source_starts_total", "counter", "Starts of the gateway's own source.", starts);
    let bitrate = all().filter_map(|(labels, it)| Some((labels, it.stream.as_ref()?.bitrate)));
    page.family("stream_bits_per_second", "gauge", "Bitrate over the last seconds.", bitrate);
    page.counters("mountpoint", "taken in", all().map(|(labels, it)| (labels, it.counters)));
    watching(page, status);
    kmp_in(page, status);
}

/// Viewers by HTTP.
fn watching(page: &mut Page, status: &Status) {
    let all = status.mountpoints.iter();
    let each = || {
        all.clone()
            .filter_map(|(name, it)| Some((vec![("mountpoint", name.as_str())], it.watching.as_ref()?)))
    };
    page.family("viewers", "gauge", "Viewers by HTTP now.", each().map(|(l, it)| (l, it.viewers)));
    page.family("segments", "gauge", "Segments kept for viewers.", each().map(|(l, it)| (l, it.segments)));
    let held = each().map(|(l, it)| (l, it.held_bytes));
    page.family("segment_bytes", "gauge", "Bytes of segments kept for viewers.", held);
    let answers = each().map(|(l, it)| (l, it.answers));
    page.family("viewer_answers_total", "counter", "Playlists and files sent to viewers.", answers);
    let sent = each().map(|(l, it)| (l, it.sent_bytes));
    page.family("viewer_bytes_total", "counter", "Bytes sent to viewers by HTTP.", sent);
    let lost = each().map(|(l, it)| (l, it.lost_units));
    page.family("segmenter_lost_units_total", "counter", "Units that the segmenter missed.", lost);
}

/// Tracks that come by KMP, over all their connections.
fn kmp_in(page: &mut Page, status: &Status) {
    let all = || {
        status.mountpoints.iter().flat_map(|(name, mountpoint)| {
            let tracks = mountpoint.source.kmp.iter();
            tracks
                .map(move |(track, it)| (vec![("mountpoint", name.as_str()), ("track", track.as_str())], it))
        })
    };
    type Pick = fn(&KmpTrackStatus) -> u64;
    let picks: [(&str, &str, Pick); 5] = [
        ("connections", "Connections that brought the track by KMP", |it| it.connections),
        ("resumed", "Connections among them that went on where the last ended", |it| it.resumed),
        ("frames", "KMP frames taken in, each counted once", |it| it.received_frames),
        ("keyframes", "Keyframes among them", |it| it.received_keyframes),
        ("bytes", "Bytes of KMP frames taken in", |it| it.received_bytes),
    ];
    for (name, help, pick) in picks {
        let samples = all().map(|(labels, it)| (labels, pick(it)));
        page.family(&format!("kmp_in_{name}_total"), "counter", &format!("{help}."), samples);
    }
    let connected = all().map(|(labels, it)| (labels, u8::from(it.peer.is_some())));
    page.family("kmp_in_connected", "gauge", "Whether somebody brings the track by KMP now.", connected);
    let unacked = all().map(|(labels, it)| (labels, it.next_frame_id.saturating_sub(it.acked_frame_id)));
    page.family("kmp_in_unacked_frames", "gauge", "KMP frames taken in and not acknowledged yet.", unacked);
    let reasons: [(&str, Pick); 5] = [
        ("duplicate", |it| it.duplicate_frames),
        ("no_media_info", |it| it.no_media_info_frames),
        ("empty", |it| it.empty_frames),
        ("no_keyframe", |it| it.no_key_frames),
        ("late", |it| it.late_frames),
    ];
    let left_out = all().flat_map(|(labels, it)| {
        reasons.into_iter().map(move |(reason, pick)| {
            let labels = labels.iter().copied().chain([("reason", reason)]).collect::<Vec<_>>();
            (labels, pick(it))
        })
    });
    page.family("kmp_in_left_out_frames_total", "counter", "KMP frames left out, by reason.", left_out);
}

fn pushes(page: &mut Page, status: &Status) {
    let all = || {
        status.mountpoints.iter().flat_map(|(name, mountpoint)| {
            mountpoint
                .pushes
                .iter()
                .map(move |(id, push)| (vec![("mountpoint", name.as_str()), ("push", id.as_str())], push))
        })
    };
    page.family(
        "push_up",
        "gauge",
        "Whether the upstream is connected.",
        all().map(|(l, it)| (l, up(&it.activity))),
    );
    let starts = all().map(|(labels, it)| (labels, it.activity.starts));
    page.family("push_starts_total", "counter", "Attempts to connect to the upstream.", starts);
    page.counters("push", "sent", all().map(|(labels, it)| (labels, it.counters)));
    let kmp = || all().filter_map(|(labels, it)| Some((labels, it.kmp.as_ref()?)));
    let acked = kmp().map(|(labels, it)| (labels, it.acked_frames));
    page.family("push_acked_frames_total", "counter", "KMP frames that the receiver acknowledged.", acked);
    let unacked = kmp().map(|(labels, it)| (labels, it.unacked_frames));
    page.family("push_unacked_frames", "gauge", "KMP frames that wait to be acknowledged.", unacked);
    let lost = kmp().map(|(labels, it)| (labels, it.lost_frames));
    page.family("push_lost_frames_total", "counter", "KMP frames that will not be delivered.", lost);
    let spools = || {
        all().flat_map(|(labels, it)| {
            it.spool.iter().map(move |(track, spool)| {
                (labels.iter().copied().chain([("track", track.as_str())]).collect::<Vec<_>>(), spool)
            })
        })
    };
    let held = spools().map(|(labels, it)| (labels, it.bytes));
    page.family("spool_bytes", "gauge", "Bytes on disk that the receiver has not acknowledged.", held);
    let trouble = spools().map(|(labels, it)| (labels, u8::from(it.trouble.is_some())));
    page.family("spool_trouble", "gauge", "Whether the disk can't take frames now.", trouble);
    let worn = spools().map(|(labels, it)| (labels, it.flash_bytes_per_day));
    page.family("spool_flash_bytes_per_day", "gauge", "Bytes written to flash in the last 24 hours.", worn);
    let written = spools().map(|(labels, it)| (labels, it.written_bytes));
    page.family("spool_written_bytes_total", "counter", "Bytes written to the spool's files.", written);
    let appended = spools().map(|(labels, it)| (labels, it.appended_bytes));
    page.family("spool_appended_bytes_total", "counter", "Bytes of frames handed to the spool.", appended);
}

fn workers(page: &mut Page, status: &Status) {
    let all = || status.workers.iter().map(|(name, it)| (vec![("worker", name.as_str())], it));
    page.family("worker_up", "gauge", "Whether the worker runs.", all().map(|(l, it)| (l, up(&it.activity))));
    let starts = all().map(|(labels, it)| (labels, it.activity.starts));
    page.family("worker_starts_total", "counter", "Starts of the worker.", starts);
    let memory = all().filter(|(_, it)| it.memory_bytes > 0).map(|(labels, it)| (labels, it.memory_bytes));
    page.family("worker_memory_bytes", "gauge", "Proportional set size.", memory);
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldgate_model::status::{
        KmpPushStatus, ListenerStatus, MountpointStatus, PushStatus, SpoolStatus, StreamStatus, WorkerStatus,
    };

    fn sample() -> Status {
        let mut status = Status { version: "0.1.0".to_owned(), ..Status::default() };
        let mut yard = MountpointStatus { players: 3, ..MountpointStatus::default() };
        yard.stream = Some(StreamStatus { bitrate: 4_000_000, ..StreamStatus::default() });
        yard.counters = Counters { units: 10, bytes: 999, dropped_units: 2, ..Counters::default() };
        let running = Activity { state: State::Running, starts: 4, ..Activity::default() };
        let mut push = PushStatus { activity: running.clone(), ..PushStatus::default() };
        push.kmp = Some(KmpPushStatus { acked_frames: 70, lost_frames: 2, ..KmpPushStatus::default() });
        push.spool
            .insert("v1".to_owned(), SpoolStatus { flash_bytes_per_day: 4096, ..SpoolStatus::default() });
        yard.pushes.insert("a\"b\\c\nd".to_owned(), push);
        let video = KmpTrackStatus {
            peer: Some("10.0.0.2:4000".to_owned()),
            next_frame_id: 120,
            acked_frame_id: 100,
            connections: 3,
            received_frames: 110,
            received_bytes: 5_000,
            duplicate_frames: 7,
            ..KmpTrackStatus::default()
        };
        yard.source.kmp.insert("video".to_owned(), video);
        status.mountpoints.insert("yard".to_owned(), yard);
        status.mountpoints.insert("gate".to_owned(), MountpointStatus::default());
        status
            .listeners
            .insert("rtmp".to_owned(), ListenerStatus { connections: 5, ..ListenerStatus::default() });
        status
            .workers
            .insert("yard".to_owned(), WorkerStatus { activity: running, ..WorkerStatus::default() });
        status
    }

    #[test]
    fn mountpoints_and_pushes_are_counted_one_by_one() {
        let text = render(&sample());
        for line in [
            "fieldgate_info{version=\"0.1.0\"} 1",
            "fieldgate_mountpoint_live{mountpoint=\"gate\"} 0",
            "fieldgate_mountpoint_live{mountpoint=\"yard\"} 1",
            "fieldgate_mountpoint_players{mountpoint=\"yard\"} 3",
            "fieldgate_mountpoint_bytes_total{mountpoint=\"yard\"} 999",
            "fieldgate_mountpoint_dropped_units_total{mountpoint=\"yard\"} 2",
            "fieldgate_stream_bits_per_second{mountpoint=\"yard\"} 4000000",
            "fieldgate_push_up{mountpoint=\"yard\",push=\"a\\\"b\\\\c\\nd\"} 1",
            "fieldgate_push_starts_total{mountpoint=\"yard\",push=\"a\\\"b\\\\c\\nd\"} 4",
            "fieldgate_listener_connections{listener=\"rtmp\"} 5",
            "fieldgate_worker_up{worker=\"yard\"} 1",
            "fieldgate_kmp_in_connections_total{mountpoint=\"yard\",track=\"video\"} 3",
            "fieldgate_kmp_in_frames_total{mountpoint=\"yard\",track=\"video\"} 110",
            "fieldgate_kmp_in_bytes_total{mountpoint=\"yard\",track=\"video\"} 5000",
            "fieldgate_kmp_in_connected{mountpoint=\"yard\",track=\"video\"} 1",
            "fieldgate_kmp_in_unacked_frames{mountpoint=\"yard\",track=\"video\"} 20",
            "fieldgate_kmp_in_left_out_frames_total{mountpoint=\"yard\",track=\"video\",reason=\"duplicate\"} 7",
            "fieldgate_spool_flash_bytes_per_day{mountpoint=\"yard\",push=\"a\\\"b\\\\c\\nd\",track=\"v1\"} 4096",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn the_text_keeps_to_the_exposition_format() {
        let mut families = std::collections::BTreeSet::new();
        let text = render(&sample());
        let mut current = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(families.insert(name.to_owned()), "{name} once");
                assert!(matches!(kind, "gauge" | "counter"));
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
                current = name.to_owned();
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                assert_eq!(name, current, "samples stand under their type");
                assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
            }
        }
        assert!(text.ends_with('\n'));
    }
}
