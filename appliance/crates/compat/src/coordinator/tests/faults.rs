//! Applications, encoders and servers that are killed, hang, talk nonsense or are slow, with time handed in.

use super::*;
use std::collections::BTreeMap;

/// What is wrong with an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Nobody listens.
    Killed,
    /// It takes calls and never answers.
    Hung,
    /// What it answers is no HTTP, or says nothing that is known.
    Garbage,
    /// It says that it has failed.
    Failing,
    /// All is right, after nine seconds.
    Slow,
}

const TROUBLES: [Trouble; 5] =
    [Trouble::Killed, Trouble::Hung, Trouble::Garbage, Trouble::Failing, Trouble::Slow];

/// A server and an encoder with a stream `c0` that all goes on with.
struct Site {
    bench: Bench,
    server: SocketId,
    encoder: SocketId,
    stream_id: String,
}

impl Site {
    fn new() -> Site {
        let mut bench = Bench::new();
        let (server, encoder) = (bench.open("rtmp"), bench.encoder(-1));
        let stream_id = bench.publish(server, "c0");
        bench.available(encoder, "c0", &stream_id, "");
        bench.answer(200);
        bench.sent.clear();
        Site { bench, server, encoder, stream_id }
    }

    /// Time passes; both live.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.bench.pass(1);
            for socket in [self.server, self.encoder] {
                self.bench.say(socket, "HEARTBEAT");
            }
        }
    }

    fn channels(&mut self) -> Vec<String> {
        let report = self.bench.json("/commands/report");
        let streams = report["activeStreams"].as_array().unwrap().iter();
        streams.map(|stream| stream["channel"].as_str().unwrap().to_owned()).collect()
    }

    /// The first stream has heard of nothing.
    fn assert_untouched(&mut self, what: &str) {
        let about = format!("Stream-ID:{}", self.stream_id);
        let heard = self.bench.sent.iter().find(|(_, text)| text.contains(&about));
        assert_eq!(heard, None, "{what}");
        assert!(self.channels().contains(&"c0".to_owned()), "{what}");
    }

    /// Answers all calls as an application in this trouble does.
    fn answer_all(&mut self, trouble: Option<Trouble>) {
        assert!(self.bench.calls.len() <= 64, "calls are bounded: {}", self.bench.calls.len());
        let calls = std::mem::take(&mut self.bench.calls);
        if trouble == Some(Trouble::Slow) {
            self.pass(9);
        }
        for (exchange, _) in calls {
            let failed = |why: &str| CallOutcome::Failed(why.into());
            let outcome = match trouble {
                Some(Trouble::Killed) => failed("connection refused"),
                Some(Trouble::Hung) => continue,
                Some(Trouble::Garbage) => failed("that is no HTTP"),
                Some(Trouble::Failing) => {
                    CallOutcome::Replied(Reply { status: 503, headers: vec![], body: vec![] })
                }
                Some(Trouble::Slow) | None => {
                    CallOutcome::Replied(Reply { status: 200, headers: vec![], body: vec![] })
                }
            };
            self.bench.coordinator.handle_reply(exchange, outcome, self.bench.now);
            self.bench.pump();
        }
    }
}

#[test]
fn a_verification_in_trouble_lets_nobody_in_and_leaves_the_rest_alone() {
    for trouble in TROUBLES {
        let mut site = Site::new();
        let what = format!("{trouble:?}");
        site.bench.request(site.server, "c1", "k1");
        site.answer_all(Some(trouble));
        site.pass(10);
        let answer = site.bench.take_sent(site.server).into_iter().find(|text| text.starts_with("PUBLISH-"));
        let is_let_in = answer.expect("always an answer").starts_with("PUBLISH-ACCEPT\nRequest-ID:7\n");
        assert_eq!(is_let_in, trouble == Trouble::Slow, "{what}");
        site.assert_untouched(&what);
        if !is_let_in {
            assert_eq!(
                site.bench.take_sent(site.encoder).iter().filter(|text| *text != "HEARTBEAT").count(),
                0,
                "{what}"
            );
            assert_eq!(
                site.bench.publish(site.server, "c1").len(),
                32,
                "{what}: it is free when all is well"
            );
        }
        assert_eq!(site.channels(), ["c0", "c1"], "{what}");
    }
}

#[test]
fn events_in_trouble_wait_and_are_told_once_all_is_well_whatever_is_killed_meanwhile() {
    for trouble in TROUBLES {
        for is_killed in [false, true] {
            let mut site = Site::new();
            let what = format!("{trouble:?}, killed: {is_killed}");
            let mut ids = Vec::new();
            for channel in ["c1", "c2", "c3"] {
                let stream_id = site.bench.publish(site.server, channel);
                site.bench.available(site.encoder, channel, &stream_id, "");
                ids.push(stream_id);
            }
            for _ in 0..6 {
                site.answer_all(Some(trouble));
                site.pass(if trouble == Trouble::Slow { 0 } else { 20 });
            }
            // Two of them end meanwhile.
            for (channel, stream_id) in ["c1", "c2"].into_iter().zip(&ids) {
                site.bench.say(
                    site.server,
                    &format!("PUBLISH-END\nStream-Channel:{channel}\nStream-ID:{stream_id}"),
                );
                site.bench.say(
                    site.encoder,
                    &format!("STREAM-CLOSED\nStream-Channel:{channel}\nStream-ID:{stream_id}"),
                );
            }
            for _ in 0..3 {
                site.answer_all(Some(trouble));
                site.pass(if trouble == Trouble::Slow { 0 } else { 20 });
            }
            site.assert_untouched(&what);
            assert_eq!(site.channels(), ["c0", "c3"], "{what}");
            let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
            if is_killed {
                // What the disk has is all that is left.
                let (list, now) = (site.bench.list.clone(), site.bench.now);
                site.bench = Bench::with(settings(), &list);
                site.bench.now = now.max(site.bench.now);
            } else {
                // These are never answered.
                site.bench.calls.clear();
                site.pass(5);
            }
            for _ in 0..12 {
                for (_, call) in &site.bench.calls {
                    told.entry(header(call, "x-streaming-id").unwrap()).or_default().push(event(call));
                }
                site.answer_all(None);
                match is_killed {
                    true => site.bench.pass(5),
                    false => site.pass(5),
                }
            }
            let ends = |stream_id: &String| told.get(stream_id).map_or(&[][..], Vec::as_slice);
            let is_told_before = trouble == Trouble::Slow;
            for stream_id in &ids[..2] {
                let expected: &[&str] = if is_told_before { &[] } else { &["stream-closed"] };
                assert_eq!(ends(stream_id), expected, "{what}");
            }
            let expected: &[&str] = match (is_killed, is_told_before) {
                (true, _) => &["stream-closed"],
                (false, true) => &[],
                (false, false) => &["stream-available"],
            };
            assert_eq!(ends(&ids[2]), expected, "{what}: it lives, unless all died");
            let expected: &[&str] = if is_killed { &["stream-closed"] } else { &[] };
            assert_eq!(ends(&site.stream_id), expected, "{what}");
        }
    }
}

/// How a peer's socket ends, or is as good as none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It is killed.
    Killed,
    /// It hangs: nothing comes.
    Hung,
    /// What it says is none of the messages, or one without end.
    Garbage,
    /// It takes nothing.
    Deaf,
}

impl Site {
    /// It happens to this peer; the others live.
    fn end(&mut self, peer: SocketId, end: End) {
        match end {
            End::Killed | End::Deaf => self.bench.gone(peer),
            End::Hung => self.pass(61),
            End::Garbage => {
                for text in
                    ["\0\u{feff}", ":\n:\n\n", "PUBLISH-END", "STREAM-CLOSED\nStream-Channel:c0\nStream-ID:x"]
                {
                    self.bench.say(peer, text);
                }
                self.bench.say(peer, &"a".repeat(MESSAGE_MAX + 1));
            }
        }
    }
}

#[test]
fn an_encoder_in_trouble_ends_its_own_streams_and_leaves_no_trace() {
    for end in [End::Killed, End::Hung, End::Garbage, End::Deaf] {
        for stage in ["idle", "starting", "untold", "told", "published no more"] {
            let what = format!("{end:?} when {stage}");
            let mut site = Site::new();
            let bad = site.bench.encoder(-1);
            let mut published = None;
            if stage == "starting" && end == End::Deaf {
                site.bench.deaf = Some(bad);
            } else if stage == "idle" || stage == "starting" {
                site.end(bad, end);
            }
            if stage == "starting" {
                // The least loaded one is that which cannot be told.
                site.bench.request(site.server, "c1", "k1");
                site.bench.answer(200);
                let answer =
                    site.bench.take_sent(site.server).into_iter().rfind(|text| text.starts_with("PUBLISH-"));
                let is_denied = answer.is_some_and(|text| text.starts_with("PUBLISH-DENY"));
                assert_eq!(is_denied, end == End::Deaf, "{what}");
                site.bench.deaf = None;
            } else if stage != "idle" {
                let stream_id = site.bench.publish(site.server, "c1");
                assert!(
                    site.bench.take_sent(bad).iter().any(|text| text.starts_with("ENCODE-START")),
                    "{what}"
                );
                if stage != "untold" {
                    site.bench.available(bad, "c1", &stream_id, "");
                    site.bench.answer(200);
                }
                if stage == "published no more" {
                    site.bench
                        .say(site.server, &format!("PUBLISH-END\nStream-Channel:c1\nStream-ID:{stream_id}"));
                }
                site.bench.sent.clear();
                site.end(bad, end);
                published = Some(stream_id);
            }
            if let Some(stream_id) = published {
                let kill = format!("STREAM-KILL\nStream-Channel:c1\nStream-ID:{stream_id}");
                let kills = site.bench.take_sent(site.server).iter().filter(|text| **text == kill).count();
                assert_eq!(kills, usize::from(stage != "published no more"), "{what}");
                let ends = site.bench.calls.iter().filter(|(_, call)| event(call) == "stream-closed").count();
                assert_eq!(ends, usize::from(stage != "untold"), "{what}");
                site.answer_all(None);
                site.bench
                    .say(site.server, &format!("PUBLISH-END\nStream-Channel:c1\nStream-ID:{stream_id}"));
            }
            site.assert_untouched(&what);
            if stage != "starting" || end == End::Deaf {
                assert_eq!(site.channels(), ["c0"], "{what}");
                if end == End::Deaf {
                    site.bench.gone(bad);
                }
                site.bench.publish(site.server, "c1");
            }
            let shown = site.bench.json("/commands/capacity");
            assert_eq!((&shown["encoderCount"], &shown["load"]), (&1.into(), &2.into()), "{what}");
        }
    }
}

#[test]
fn a_server_in_trouble_takes_its_own_streams_with_it() {
    for end in [End::Killed, End::Hung, End::Garbage, End::Deaf] {
        for stage in ["verifying", "live"] {
            let what = format!("{end:?} when {stage}");
            let mut site = Site::new();
            let bad = site.bench.open("rtmp");
            let (mut asked, mut live) = (None, None);
            match stage {
                "live" => live = Some(site.bench.publish(bad, "c1")),
                _ => {
                    site.bench.request(bad, "c1", "k1");
                    asked = Some(site.bench.take_call().0);
                }
            }
            site.bench.sent.clear();
            site.end(bad, end);
            let stops: Vec<String> = site
                .bench
                .take_sent(site.encoder)
                .into_iter()
                .filter(|text| text.starts_with("ENCODE-"))
                .collect();
            let stop = live.map(|stream_id| format!("ENCODE-STOP\nStream-Channel:c1\nStream-ID:{stream_id}"));
            assert_eq!(stops, Vec::from_iter(stop), "{what}");
            if let Some(exchange) = asked {
                site.bench.reply(exchange, 200, &[]);
            }
            site.assert_untouched(&what);
            assert_eq!(site.channels(), ["c0"], "{what}");
            site.bench.publish(site.server, "c1");
        }
    }
}
