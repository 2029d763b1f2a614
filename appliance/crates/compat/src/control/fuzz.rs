//! A fuzz target: a plain function that takes any bytes and must return. `cargo test` runs it over seeds and their
//! mutations; a fuzzer may call it, too.

use super::{Action, Settings, StreamServer};
use crate::ExchangeId;
use crate::coordinator::{MESSAGE_MAX, Message};
use crate::key::Key;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Messages of a coordinator, a form feed between two, while two publish and a camera has a stream. Whatever it says: nobody
/// is let in twice or after a no, and what we send can be read.
pub fn server_messages(data: &[u8], now: Instant) {
    let text = String::from_utf8_lossy(data);
    let settings = Settings {
        id_max: 128,
        max_streams: 8,
        silence: Duration::from_secs(60),
        grace: Duration::from_secs(u64::from(data.first().copied().unwrap_or_default() & 1)),
        cameras: BTreeMap::from([("cam".to_owned(), Key::new("k"))]),
        own_address: HERE,
        seed: 1,
    };
    let mut server = StreamServer::new(settings, now);
    server.handle_timeout(now);
    server.handle_connected(now);
    server.handle_camera("cam", true, now);
    let asked = [ExchangeId(1), ExchangeId(2)];
    for (exchange, channel) in asked.into_iter().zip(["c1", "c2"]) {
        server.handle_publish(exchange, channel, "k", HERE, now);
    }
    let mut answered = BTreeSet::new();
    for words in text.split('\u{c}').take(64) {
        server.handle_text(words, now);
        take_all(&mut server, &mut answered);
    }
    server.handle_lost("it is gone", now);
    take_all(&mut server, &mut answered);
    assert_eq!(answered.len(), asked.len(), "everybody has an answer now");
}

fn take_all(server: &mut StreamServer, answered: &mut BTreeSet<ExchangeId>) {
    while let Some(action) = server.poll_action() {
        match action {
            Action::Send(message) => {
                let text = message.text();
                assert!(text.len() <= MESSAGE_MAX && !text.contains("\n\n"));
                assert_eq!(Message::parse(&text).as_ref(), Ok(&message));
            }
            Action::Verdict(exchange, _) => assert!(answered.insert(exchange), "it was answered before"),
            Action::Connect | Action::Close | Action::Kill(..) | Action::Note(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation::run_with;

    #[test]
    fn mutated_messages_let_nobody_in_twice() {
        fn target(data: &[u8]) {
            #[allow(clippy::disallowed_methods, reason = "only differences matter")]
            server_messages(data, Instant::now());
        }
        let seeds = [
            "HEARTBEAT\u{c}PUBLISH-ACCEPT\nRequest-ID:1\nStream-Channel:cam\nStream-ID:a1\u{c}PUBLISH-ACCEPT\nRequest-ID:2\n\
             Stream-Channel:c1\nStream-ID:b2\u{c}PUBLISH-DENY\nRequest-ID:3\nStream-Channel:c2\u{c}STREAM-KILL\n\
             Stream-Channel:c1\nStream-ID:*",
            "publish-accept\n\nRequest-ID: 2\nStream-Channel: c1\nStream-ID: 0\u{c}ERROR\nError-Code:X\u{c}STREAM-KILL\n\
             Stream-Channel:cam\nStream-ID:",
        ];
        run_with(b":\n\x0c -*c123", target, &seeds.map(|seed| seed.as_bytes().to_vec()), 3_000, 0x9E37_79B9);
    }
}
