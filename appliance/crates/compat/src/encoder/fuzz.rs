//! A fuzz target: a plain function that takes any bytes and must return. `cargo test` runs it over seeds and their
//! mutations; a fuzzer may call it, too.

use super::{Action, Encoder, Files, Resolutions, Settings, Shape, TaskId};
use crate::coordinator::{MESSAGE_MAX, Message, is_id};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Messages of a coordinator, a form feed between two. Whatever it says: each task that is begun is closed once, no file
/// is named outside of its folder, and what we send can be read.
pub fn encoder_messages(data: &[u8], now: Instant) {
    let text = String::from_utf8_lossy(data);
    let many = data.first().is_some_and(|byte| byte & 1 == 1);
    let settings = Settings {
        capacity: many.then_some(3),
        reregister: true,
        id_max: 128,
        silence: Duration::from_secs(60),
        seed: 1,
    };
    let mut encoder = Encoder::new(settings, now);
    encoder.handle_timeout(now);
    encoder.handle_connected(now);
    let (mut running, mut closed) = (BTreeSet::new(), 0_usize);
    for words in text.split('\u{c}').take(64) {
        encoder.handle_text(words, now);
        closed = closed.saturating_add(take_all(&mut encoder, &mut running));
    }
    encoder.handle_timeout(now.checked_add(Duration::from_secs(11)).unwrap_or(now));
    closed = closed.saturating_add(take_all(&mut encoder, &mut running));
    let left = running.len();
    for id in running.clone() {
        encoder.handle_ended(id, None);
        encoder.handle_ended(id, None);
    }
    running.clear();
    let told = take_all(&mut encoder, &mut running);
    assert!(told == left || !encoder.link.is_up(), "{left} were left, {told} closed after {closed}");
}

/// How many ends were told.
fn take_all(encoder: &mut Encoder, running: &mut BTreeSet<TaskId>) -> usize {
    let mut closed = 0_usize;
    while let Some(action) = encoder.poll_action() {
        match action {
            Action::Send(message) => {
                let text = message.text();
                assert!(text.len() <= 2 * MESSAGE_MAX && !text.contains("\n\n"));
                assert_eq!(Message::parse(&text).as_ref(), Ok(&message));
                closed = closed.saturating_add(usize::from(message.kind() == "STREAM-CLOSED"));
            }
            Action::Start(id, assignment) => {
                assert!(running.insert(id), "begun twice");
                assert!(is_id(&assignment.channel, 128) && is_id(&assignment.stream_id, 128));
                for rendition in assignment.resolutions.of(Shape { width: 640, height: 360, frame_rate: 25 })
                {
                    assert!(rendition.width.is_multiple_of(2) && rendition.height.is_multiple_of(2));
                    assert_eq!(Files::of(&assignment, &rendition).live().split('/').count(), 5);
                }
            }
            Action::Stop(id) => assert!(running.contains(&id), "it never began"),
            Action::Connect | Action::Close | Action::Note(_) => {}
        }
    }
    closed
}

/// A list of resolutions and a source of any shape: bounded, even, never twice, never nothing.
pub fn resolutions(data: &[u8]) {
    let (shape, text) = data.split_at_checked(6).unwrap_or((&[], data));
    let side = |at: usize| {
        let bytes = [shape.get(at), shape.get(at.saturating_add(1))].map(|byte| byte.copied().unwrap_or(0));
        u32::from(u16::from_be_bytes(bytes))
    };
    let source = Shape { width: side(0), height: side(2), frame_rate: side(4) };
    let made = Resolutions::parse(&String::from_utf8_lossy(text)).of(source);
    let names: BTreeSet<String> = made.iter().map(ToString::to_string).collect();
    assert!((1..=33).contains(&made.len()) && names.len() == made.len());
    assert!(made.iter().all(|it| it.width % 2 == 0 && it.height % 2 == 0 && it.bitrate() > 0));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation::run_with;

    #[test]
    fn check_25_mutated_messages_close_each_task_once() {
        fn target(data: &[u8]) {
            #[allow(clippy::disallowed_methods, reason = "only differences matter")]
            encoder_messages(data, Instant::now());
        }
        let start = "ENCODE-START\nStream-Channel:c1\nStream-ID:a1\nStream-Source-Type:RTMP\n\
                     Stream-Source-URI:rtmp://h:1935/c1/k\nResolutions:ORIGINAL,640x360-30~500\nRecord:True\nPreviews:256x144,3";
        let seeds = [
            format!("HEARTBEAT\u{c}{start}\u{c}ENCODE-STOP\nStream-Channel:c1\nStream-ID:a1"),
            format!(
                "{start}\u{c}{}\u{c}ENCODE-STOP\nStream-Channel:c1\nStream-ID:",
                start.replace("a1", "a2")
            ),
            "encode-start\n\nStream-Channel: ../c\u{c}ERROR\nError-Code:X".to_owned(),
        ];
        run_with(b":\n\x0c -*c1x~,/", target, &seeds.map(String::into_bytes), 3_000, 0x9E37_79B9);
    }

    #[test]
    fn check_25_mutated_resolutions_are_bounded() {
        let seeds = [
            b"\x07\x80\x04\x38\0\x1eORIGINAL,1280x720-30~2000".to_vec(),
            b"\0\0\0\0\0\x00640x360, 8192x1".to_vec(),
        ];
        run_with(b"x-~, 0", resolutions, &seeds, 4_000, 0x9E37_79B9);
    }
}
