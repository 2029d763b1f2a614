//! The status page: what is live, where it goes, and under which addresses it can be watched.
//!
//! Plain HTML without scripts. The installers' page will replace it.

use fieldgate_model::status::{Activity, ConfigPhase, MountpointStatus, PushStatus, State, TrackStatus};
use fieldgate_model::{Config, Status};
use std::fmt::Write as _;

/// The page, for one who asked for this gateway as `host` (name or address, without port).
pub(super) fn render(status: &Status, config: &Config, host: &str) -> String {
    let mut html = String::with_capacity(4 << 10);
    html.push_str(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta http-equiv=\"refresh\" content=\"10\">\n\
         <title>fieldgate</title>\n<link rel=\"stylesheet\" href=\"/page.css\">\n",
    );
    let _ = writeln!(html, "<h1>fieldgate {}</h1>", escaped(&status.version));
    let _ = writeln!(html, "<p>{}</p>", escaped(&crate::health::status_line(status)));
    notices(&mut html, status);
    if status.mountpoints.is_empty() {
        html.push_str("<p>No mountpoint is set up. Send a config to <code>/api/v1/config</code>.</p>\n");
    } else {
        html.push_str("<table>\n<tr><th>Mountpoint<th>Stream<th>Goes to\n");
        for (name, mountpoint) in &status.mountpoints {
            row(&mut html, name, mountpoint, status, config, host);
        }
        html.push_str("</table>\n");
    }
    html.push_str(
        "<p><a href=\"/api/v1/status\">Status</a>, <a href=\"/api/v1/config\">config</a>, \
         <a href=\"/api/v1/config/schema\">its schema</a>, <a href=\"/metrics\">metrics</a></p>\n",
    );
    html
}

fn notices(html: &mut String, status: &Status) {
    for notice in &status.notices {
        let _ = writeln!(html, "<p>\u{25b2} {}</p>", escaped(&notice.text));
    }
    if status.config.phase == ConfigPhase::AwaitingConfirm {
        html.push_str(
            "<p>\u{25d0} A change of the config runs and goes back by itself unless it is confirmed: \
             <code>POST /api/v1/config/confirm</code>.</p>\n",
        );
    }
    if let Some(back) = &status.config.rolled_back {
        let causes: Vec<String> = back.causes.iter().map(ToString::to_string).collect();
        let causes = escaped(&causes.join("; "));
        let _ =
            writeln!(html, "<p>\u{25b2} The last change, by {}, was undone: {causes}</p>", escaped(&back.by));
    }
}

fn row(html: &mut String, name: &str, it: &MountpointStatus, status: &Status, config: &Config, host: &str) {
    let _ = write!(html, "<tr><td><b>{}</b>", escaped(name));
    if !name.ends_with('*') {
        let needs_key = config.mountpoint_for(name).is_some_and(|(_, settings)| settings.play.key.is_some());
        if let Some(address) = play_address(name, needs_key, status, host) {
            let _ = write!(html, "<br><code>{}</code>", escaped(&address));
        }
    }
    html.push_str("<td>");
    html.push_str(&stream(it));
    let players = it.players;
    let _ = write!(html, "<td>{players} {}", if players == 1 { "player" } else { "players" });
    for push in it.pushes.values() {
        let _ = write!(html, "<br><code>{}</code> {}", escaped(&push.url), push_state(push));
    }
    html.push('\n');
}

/// Where the mountpoint can be watched, as far as RTMP is listened for.
fn play_address(name: &str, needs_key: bool, status: &Status, host: &str) -> Option<String> {
    let bound = status.listeners.get("rtmp")?.addresses.first()?;
    // One that listens on loopback alone is of no use under another name.
    let host = if bound.ip().is_loopback() { bound.ip().to_string() } else { host.to_owned() };
    let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
    let port = if bound.port() == 1935 { String::new() } else { format!(":{}", bound.port()) };
    let key = if needs_key { "?key=KEY" } else { "" };
    Some(format!("rtmp://{host}{port}/live/{name}{key}"))
}

fn stream(it: &MountpointStatus) -> String {
    if let Some(stream) = &it.stream {
        let tracks: Vec<String> = stream.tracks.iter().map(track).collect();
        let rate = megabits(stream.bitrate);
        let from = escaped(&stream.publisher);
        return format!("\u{25cf} Live from {from}<br>{}, {rate}", escaped(&tracks.join(", ")));
    }
    match &it.source.activity {
        None => "\u{25cb} Nobody publishes".to_owned(),
        Some(activity) => activity_words(activity, "No picture yet"),
    }
}

fn track(track: &TrackStatus) -> String {
    match (track.width, track.height) {
        (0, _) | (_, 0) => format!("{} {}", track.kind, track.codec),
        (width, height) if track.frame_rate > 0.0 => {
            format!("{} {} {width}x{height} at {:.0}/s", track.kind, track.codec, track.frame_rate)
        }
        (width, height) => format!("{} {} {width}x{height}", track.kind, track.codec),
    }
}

fn push_state(push: &PushStatus) -> String {
    if push.enabled { activity_words(&push.activity, "Delivering") } else { "\u{25cb} Off".to_owned() }
}

/// A shape and words, never a colour alone.
fn activity_words(activity: &Activity, running: &str) -> String {
    let cause = activity.cause.as_deref().map(escaped).unwrap_or_default();
    match activity.state {
        State::Running => format!("\u{25cf} {running}"),
        State::Starting => "\u{25d0} Starting".to_owned(),
        State::Waiting => "\u{25cb} Waiting for a stream".to_owned(),
        State::Retrying => match activity.next_attempt {
            Some(at) => format!("\u{25d0} Tries again at {at}: {cause}"),
            None => format!("\u{25d0} Tries again: {cause}"),
        },
        State::Failed => format!("\u{25b2} Needs you: {cause}"),
        State::Ended => "\u{25cb} Ended".to_owned(),
        State::Stopping => "\u{25cb} Stopping".to_owned(),
        State::Stuck => format!("\u{25b2} Stuck, restart the gateway: {cause}"),
    }
}

fn megabits(bits: u64) -> String {
    let tenths = bits.saturating_add(50_000) / 100_000;
    format!("{}.{} Mbit/s", tenths / 10, tenths % 10)
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldgate_model::config::{Mountpoint, Secret, Source};
    use fieldgate_model::status::{ListenerStatus, StreamStatus};

    fn status() -> Status {
        let mut status = Status { version: "0.1.0".to_owned(), ..Status::default() };
        let rtmp =
            ListenerStatus { addresses: vec!["0.0.0.0:1936".parse().unwrap()], ..ListenerStatus::default() };
        status.listeners.insert("rtmp".to_owned(), rtmp);
        let mut yard = MountpointStatus::default();
        let video = TrackStatus {
            kind: "video".to_owned(),
            codec: "h264".to_owned(),
            width: 1280,
            height: 720,
            frame_rate: 25.0,
            ..TrackStatus::default()
        };
        yard.stream = Some(StreamStatus {
            publisher: "<script>alert(1)</script>".to_owned(),
            tracks: vec![video],
            bitrate: 4_120_000,
            ..StreamStatus::default()
        });
        let activity = Activity {
            state: State::Retrying,
            cause: Some("connection refused".to_owned()),
            ..Activity::default()
        };
        let push = PushStatus {
            url: "rtmp://up/live/yard".to_owned(),
            enabled: true,
            activity,
            ..PushStatus::default()
        };
        yard.pushes.insert("p".to_owned(), push);
        status.mountpoints.insert("yard".to_owned(), yard);
        status
    }

    fn config(key: Option<&str>) -> Config {
        let source: Source = serde_json::from_str(r#"{"kind":"publish"}"#).unwrap();
        let mut mountpoint = Mountpoint::new(source);
        mountpoint.play.key = key.map(Secret::new);
        Config { mountpoints: [("yard".to_owned(), mountpoint)].into(), ..Config::default() }
    }

    #[test]
    fn a_mountpoint_is_shown_with_its_address_stream_and_pushes() {
        let html = render(&status(), &config(None), "gate-7");
        for text in [
            "rtmp://gate-7:1936/live/yard<",
            "\u{25cf} Live from",
            "video h264 1280x720 at 25/s, 4.1 Mbit/s",
            "rtmp://up/live/yard</code> \u{25d0} Tries again: connection refused",
        ] {
            assert!(html.contains(text), "{text} in {html}");
        }
        assert!(render(&status(), &config(Some("v1ew")), "gate-7").contains("live/yard?key=KEY<"));
    }

    #[test]
    fn what_came_from_outside_is_text() {
        let html = render(&status(), &config(None), "<img>");
        assert!(!html.contains("<script") && !html.contains("<img"), "{html}");
        assert!(
            !html.contains("style=") && !html.contains("onclick"),
            "the content policy allows no inline code"
        );
    }
}
