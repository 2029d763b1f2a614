//! Fuzz targets: plain functions that take any bytes and must return. `cargo test` runs them over seeds and their
//! mutations; a fuzzer may call them too.

use super::message::Message;
use super::{Action, CallAuth, CommandAuth, Coordinator, MESSAGE_MAX, Settings, Wanted, token};
use crate::key::Key;
use crate::{CallOutcome, Reply, Request};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A token: only one that we could have signed opens anything, and any that we sign does.
pub fn control_token(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let secret = Key::new("of the seeds");
    if token::check(&text, &secret, "rtmp-control", 1_000).is_ok() {
        assert!(token::check(&text, &Key::new("another"), "rtmp-control", 1_000).is_err());
        assert!(token::check(&text, &secret, "hls-control", 1_000).is_err());
    }
    let signed = token::sign(&Key::new(text.as_ref()), &text, None);
    assert_eq!(token::check(&signed, &Key::new(text.as_ref()), &text, 0).is_ok(), signed.len() <= 4_096);
}

/// Messages of a server and of an encoder, taking turns, a form feed between two; after each the outside answers what
/// is asked of it. Whatever they say: what we send is read back as it was meant, and all of it is forgotten with them.
pub fn control_messages(data: &[u8], now: Instant) {
    let text = String::from_utf8_lossy(data);
    if let Ok(message) = Message::parse(&text) {
        let again = Message::parse(&message.text());
        assert_eq!(again.as_ref().map(Message::kind), Ok(message.kind()));
    }
    let mut coordinator = Coordinator::new(settings(), "", now);
    let open = |coordinator: &mut Coordinator, target: &str| {
        coordinator.handle_upgrade(&request(target), now).expect("this machine may")
    };
    let sockets = [open(&mut coordinator, "/ws/control/rtmp"), open(&mut coordinator, "/ws/control/hls")];
    for (words, socket) in text.split('\u{c}').take(64).zip(sockets.iter().cycle()) {
        coordinator.handle_text(*socket, words, now);
        answer_all(&mut coordinator, now);
    }
    sockets.into_iter().for_each(|socket| coordinator.handle_gone(socket, now));
    answer_all(&mut coordinator, now);
    let reply = coordinator.handle_request(&request("/commands/report"));
    let report = String::from_utf8_lossy(&reply.body).into_owned();
    assert!(report.contains(r#""encoders":[],"activeStreams":[]"#), "{report}");
}

/// What an application answers to a key.
pub fn verification_reply(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let names = ["x-resolutions", "x-record", "x-previews"];
    let headers = names.map(|name| (name.to_owned(), text.clone().into_owned()));
    let wanted = Wanted::read(&headers);
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    assert!(is_plain(&wanted.resolutions) && wanted.previews.as_deref().is_none_or(is_plain));
    let again = Wanted::read(&[("x-resolutions".to_owned(), wanted.resolutions.clone())]);
    assert!(wanted.resolutions.is_empty() || again.resolutions == wanted.resolutions);
}

fn answer_all(coordinator: &mut Coordinator, now: Instant) {
    for _ in 0..1_000 {
        let Some(action) = coordinator.poll_action() else { return };
        match action {
            Action::Send(_, message) => sent(&message),
            Action::Start(exchange, _, message) => {
                sent(&message);
                coordinator.handle_started(exchange, true, now);
            }
            Action::Call(exchange, _) => coordinator.handle_reply(exchange, good(), now),
            Action::Keep { version, .. } => coordinator.handle_kept(version, now),
            Action::Close(_) | Action::Verdict(..) | Action::Kill { .. } | Action::Note(_) => {}
        }
    }
    panic!("it does not come to rest");
}

fn sent(message: &Message) {
    let text = message.text();
    assert!(text.len() <= MESSAGE_MAX && !text.contains("\n\n"));
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    assert!(lines.all(|(_, value)| !value.starts_with(' ')), "some peers cannot read that");
    assert_eq!(Message::parse(&text).as_ref(), Ok(message));
}

fn good() -> CallOutcome {
    CallOutcome::Replied(Reply { status: 200, headers: Vec::new(), body: Vec::new() })
}

fn request(target: &str) -> Request {
    let headers = vec![("authorization".to_owned(), "Bearer commands".to_owned())];
    Request { method: "GET".to_owned(), target: target.to_owned(), headers, body: Vec::new(), peer: HERE }
}

fn settings() -> Settings {
    Settings {
        control_secret: None,
        id_max: 128,
        verification: Some(CallAuth::None),
        events: Some(CallAuth::None),
        commands: CommandAuth::Bearer(Key::new("commands")),
        require_encoder: false,
        own_address: HERE,
        own_port: 1935,
        own_capacity: None,
        max_sockets: 8,
        max_streams: 64,
        seed: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation::{run, run_with};

    const SEED: u64 = 0x9E37_79B9_7F4A_7C15;

    #[test]
    fn check_01_mutated_tokens_open_nothing_that_they_should_not() {
        let good = token::sign(&Key::new("of the seeds"), "rtmp-control", Some((0, 2_000)));
        let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJydG1wLWNvbnRyb2wifQ.";
        run(control_token, &[good.into(), none.into(), "..".into(), b"rtmp-control".to_vec()], 4_000, SEED);
    }

    #[test]
    fn mutated_messages_leave_nothing_behind() {
        fn target(data: &[u8]) {
            #[allow(clippy::disallowed_methods, reason = "only differences matter")]
            control_messages(data, Instant::now());
        }
        let seeds = [
            "PUBLISH-REQUEST\nRequest-ID:0\nStream-Channel:c1\nStream-Key:k1\nUser-IP:10.0.0.1\u{c}REGISTER\nCapacity:-1\
             \u{c}PUBLISH-END\nStream-Channel:c1\nStream-ID:\u{c}STREAM-CLOSED\nStream-Channel:c1",
            "HEARTBEAT\u{c}REGISTER\n\nCapacity: 2\u{c}publish-request\nRequest-ID: 7\nStream-Channel: c\nStream-Key: k\n\
             \u{c}STREAM-AVAILABLE\nStream-Channel:c\nStream-Type:HLS-VOD\nResolution:1x1-30\nIndex-file:/a/b.m3u8\nStart-Time:30\
             \u{c}ERROR\nError-Code:X\nError-Message:y\u{c}STREAM-CLOSED\nStream-Channel:c\nStream-ID:",
        ];
        run_with(b":\n\x0c -*c1", target, &seeds.map(|seed| seed.as_bytes().to_vec()), 2_000, SEED);
    }

    #[test]
    fn mutated_replies_become_plain_words() {
        let seeds = ["1280x720-30~2000, ORIGINAL", "true", "256x144, 3"];
        run_with(b"x-~, 0", verification_reply, &seeds.map(|seed| seed.as_bytes().to_vec()), 4_000, SEED);
    }
}
