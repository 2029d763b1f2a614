//! The numbered checks of the contract for a client of a coordinator, with time handed in.

use super::*;
use crate::control_socket::socket_token;
use crate::coordinator::token;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A streaming server that is connected, and all that it has asked for.
struct Bench {
    server: StreamServer,
    now: Instant,
    sent: Vec<String>,
    verdicts: Vec<(u64, Result<PublishId, Refused>)>,
    kills: Vec<(String, PublishId)>,
    connects: usize,
    closes: usize,
    notes: Vec<Note>,
}

fn settings() -> Settings {
    Settings {
        id_max: 128,
        max_streams: 4,
        silence: secs(60),
        grace: Duration::ZERO,
        cameras: BTreeMap::new(),
        own_address: IpAddr::from([10, 0, 0, 1]),
        seed: 1,
    }
}

fn with_camera() -> Settings {
    Settings { cameras: BTreeMap::from([("cam".to_owned(), Key::new("ck"))]), ..settings() }
}

impl Bench {
    #[allow(clippy::disallowed_methods, reason = "only differences matter")]
    fn with(settings: Settings) -> Bench {
        let now = Instant::now();
        let mut bench = Bench {
            server: StreamServer::new(settings, now),
            now,
            sent: vec![],
            verdicts: vec![],
            kills: vec![],
            connects: 0,
            closes: 0,
            notes: vec![],
        };
        bench.pass(Duration::ZERO);
        assert_eq!(bench.connects, 1);
        bench.connect();
        bench
    }

    fn new() -> Bench {
        Bench::with(settings())
    }

    fn pump(&mut self) {
        while let Some(action) = self.server.poll_action() {
            match action {
                Action::Connect => self.connects += 1,
                Action::Send(message) => self.sent.push(message.text()),
                Action::Close => self.closes += 1,
                Action::Verdict(ExchangeId(exchange), verdict) => self.verdicts.push((exchange, verdict)),
                Action::Kill(channel, id) => self.kills.push((channel, id)),
                Action::Note(note) => self.notes.push(note),
            }
        }
    }

    fn connect(&mut self) {
        self.server.handle_connected(self.now);
        self.pump();
    }

    fn lose(&mut self) {
        self.server.handle_lost("cut", self.now);
        self.pump();
    }

    fn pass(&mut self, span: Duration) {
        self.now += span;
        self.server.handle_timeout(self.now);
        self.pump();
    }

    fn hear(&mut self, text: &str) {
        self.server.handle_text(text, self.now);
        self.pump();
    }

    fn publish(&mut self, exchange: u64, channel: &str) {
        let peer = IpAddr::from([192, 0, 2, 7]);
        self.server.handle_publish(ExchangeId(exchange), channel, "k1", peer, self.now);
        self.pump();
    }

    fn play(&mut self, exchange: u64, channel: &str, key: &str) {
        self.server.handle_play(ExchangeId(exchange), channel, key, self.now);
        self.pump();
    }

    fn accept(&mut self, request: u64, channel: &str, stream_id: &str) {
        self.hear(&format!(
            "PUBLISH-ACCEPT\nRequest-ID:{request}\nStream-Channel:{channel}\nStream-ID:{stream_id}"
        ));
    }

    /// A channel that is published, by this exchange; the coordinator's request has the same number.
    fn live(&mut self, exchange: u64, channel: &str) -> PublishId {
        self.publish(exchange, channel);
        self.accept(exchange, channel, &format!("id-{exchange}"));
        let (_, verdict) = self.verdicts.pop().unwrap();
        self.sent.clear();
        verdict.unwrap()
    }

    fn end(&mut self, channel: &str, id: PublishId) {
        self.server.handle_publish_end(channel, id, self.now);
        self.pump();
    }
}

fn end_of(channel: &str, stream_id: &str) -> String {
    format!("PUBLISH-END\nStream-Channel:{channel}\nStream-ID:{stream_id}")
}

#[test]
fn check_21_nobody_publishes_before_the_coordinator_says_yes() {
    let mut bench = Bench::new();
    bench.publish(1, "c1");
    assert_eq!(
        bench.sent,
        ["PUBLISH-REQUEST\nRequest-ID:1\nStream-Channel:c1\nStream-Key:k1\nUser-IP:192.0.2.7"]
    );
    assert_eq!(bench.verdicts, []);
    // Another one on the same channel is not even asked for.
    bench.publish(2, "c1");
    assert_eq!(bench.verdicts, [(2, Err(Refused::Busy))]);
    // Another channel's yes, and one for nobody's request.
    bench.accept(1, "c2", "x");
    bench.accept(7, "c1", "y");
    assert_eq!(bench.sent.split_off(1), [end_of("c2", "x"), end_of("c1", "y")]);
    bench.accept(1, "c1", "id");
    assert_eq!(bench.verdicts.pop(), Some((1, Ok(PublishId(1)))));
    // The same yes once more is one too many.
    bench.accept(1, "c1", "id");
    assert_eq!(bench.sent.pop(), Some(end_of("c1", "id")));
}

#[test]
fn check_21_a_no_and_silence_and_no_coordinator_are_a_no() {
    let mut bench = Bench::new();
    bench.publish(1, "c1");
    bench.hear("PUBLISH-DENY\nRequest-ID:1\nStream-Channel:c1");
    assert_eq!(bench.verdicts, [(1, Err(Refused::Denied))]);
    bench.publish(2, "c1");
    bench.pass(secs(20) - Duration::from_millis(1));
    assert_eq!(bench.verdicts.len(), 1);
    assert_eq!(bench.server.next_timeout(), Some(bench.now + Duration::from_millis(1)));
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.verdicts[1..], [(2, Err(Refused::Unanswered))]);
    // A yes that comes too late is answered by its end.
    bench.accept(2, "c1", "late");
    assert_eq!(bench.sent.pop(), Some(end_of("c1", "late")));
    // So is one that somebody waited for who has left.
    bench.publish(3, "c1");
    bench.server.withdraw(ExchangeId(3));
    bench.accept(3, "c1", "left");
    assert_eq!(bench.sent.pop(), Some(end_of("c1", "left")));
    assert_eq!(bench.verdicts.len(), 2);
    // A stream that could not be named later cannot begin.
    for bad in ["", "a b", &"x".repeat(129)] {
        bench.verdicts.clear();
        bench.publish(9, "c1");
        let request = bench.sent.last().unwrap().lines().nth(1).unwrap()["Request-ID:".len()..].to_owned();
        bench.accept(request.parse().unwrap(), "c1", bad);
        assert_eq!(bench.verdicts, [(9, Err(Refused::Denied))], "{bad:?}");
    }
    bench.verdicts.clear();
    bench.publish(4, "c1");
    bench.lose();
    bench.publish(5, "c2");
    assert_eq!(bench.verdicts, [(4, Err(Refused::NoCoordinator)), (5, Err(Refused::NoCoordinator))]);
}

#[test]
fn check_21_what_cannot_be_a_channel_and_too_many_are_not_asked_about() {
    let mut bench = Bench::new();
    for (channel, key) in [("a b", "k"), ("c1", ""), (&"a".repeat(129), "k")] {
        bench.server.handle_publish(ExchangeId(1), channel, key, IpAddr::from([1, 2, 3, 4]), bench.now);
        bench.pump();
        assert_eq!(bench.verdicts.pop(), Some((1, Err(Refused::Syntax))), "{channel} {key}");
    }
    for exchange in 1..=4 {
        bench.live(exchange, &format!("c{exchange}"));
    }
    bench.publish(5, "c5");
    assert_eq!((bench.verdicts.pop(), bench.sent.len()), (Some((5, Err(Refused::Full))), 0));
    let mut bench = Bench::with(Settings { max_streams: 1_000, ..settings() });
    (0..257).for_each(|number| bench.publish(number, &format!("c{number}")));
    assert_eq!((bench.verdicts, bench.sent.len()), (vec![(256, Err(Refused::Full))], 256));
}

#[test]
fn check_22_a_kill_ends_what_it_means_and_its_end_is_told_once() {
    for id in ["id-1", "*", ""] {
        let mut bench = Bench::new();
        let publish = bench.live(1, "c1");
        bench.hear("STREAM-KILL\nStream-Channel:c1\nStream-ID:another");
        bench.hear("STREAM-KILL\nStream-Channel:c2\nStream-ID:*");
        assert_eq!(bench.kills, []);
        bench.hear(&format!("STREAM-KILL\nStream-Channel:c1\nStream-ID:{id}"));
        assert_eq!(bench.kills, [("c1".to_owned(), publish)], "{id:?}");
        assert_eq!(bench.sent, [""; 0], "it has not gone yet");
        bench.end("c1", PublishId(99));
        bench.end("c1", publish);
        bench.end("c1", publish);
        assert_eq!(bench.sent, [end_of("c1", "id-1")]);
    }
    // One that only asks is not published yet.
    let mut bench = Bench::new();
    bench.publish(1, "c1");
    bench.hear("STREAM-KILL\nStream-Channel:c1\nStream-ID:*");
    assert_eq!((bench.kills.len(), bench.verdicts.len()), (0, 0));
}

#[test]
fn check_23_players_wait_for_the_publisher_and_need_its_key() {
    let mut bench = Bench::new();
    bench.play(10, "c1", "k1");
    bench.play(11, "c1", "wrong");
    bench.play(12, "c 1", "k1");
    assert_eq!(bench.verdicts, [(12, Err(Refused::Syntax))]);
    bench.publish(1, "c1");
    bench.play(13, "c1", "wrong");
    assert_eq!(bench.verdicts.split_off(1), [(13, Err(Refused::Unknown))], "the key is known by now");
    bench.accept(1, "c1", "id");
    let publish = PublishId(1);
    assert_eq!(
        bench.verdicts.split_off(1),
        [(1, Ok(publish)), (10, Ok(publish)), (11, Err(Refused::Unknown))]
    );
    bench.play(14, "c1", "k1");
    assert_eq!(bench.verdicts.pop(), Some((14, Ok(publish))));
    // Nobody comes.
    bench.play(15, "c2", "k");
    bench.pass(secs(20));
    assert_eq!(bench.verdicts.pop(), Some((15, Err(Refused::Unknown))));
}

#[test]
fn check_24_without_grace_publishers_go_with_the_socket_and_nothing_is_told_later() {
    let mut bench = Bench::new();
    let publish = bench.live(1, "c1");
    bench.lose();
    assert_eq!(bench.kills, [("c1".to_owned(), publish)]);
    bench.end("c1", publish);
    bench.pass(Duration::from_secs(10));
    assert_eq!(bench.connects, 2);
    bench.connect();
    assert_eq!(bench.sent, [""; 0], "the coordinator knows nothing of what was");
    bench.live(2, "c1");
}

#[test]
fn check_24_with_grace_publishers_stay_and_are_asked_for_again() {
    let graceful = || Bench::with(Settings { grace: secs(30), ..settings() });
    let mut bench = graceful();
    let publish = bench.live(1, "c1");
    let other = bench.live(2, "c2");
    bench.lose();
    assert_eq!(bench.kills, []);
    bench.publish(3, "c3");
    bench.play(4, "c1", "k1");
    assert_eq!(bench.verdicts, [(3, Err(Refused::NoCoordinator)), (4, Ok(publish))], "nothing fails open");
    // It is lost again before it has answered: the grace goes on.
    bench.pass(secs(10));
    bench.connect();
    bench.lose();
    bench.sent.clear();
    bench.pass(secs(10));
    bench.connect();
    let asked: Vec<&str> = bench.sent.iter().map(|text| text.lines().nth(2).unwrap()).collect();
    assert_eq!(asked, ["Stream-Channel:c1", "Stream-Channel:c2"]);
    assert!(
        bench.sent.iter().all(|text| text.ends_with("Stream-Key:k1\nUser-IP:192.0.2.7")),
        "{:?}",
        bench.sent
    );
    bench.sent.clear();
    bench.accept(5, "c1", "new");
    bench.hear("PUBLISH-DENY\nRequest-ID:6\nStream-Channel:c2");
    assert_eq!(bench.kills, [("c2".to_owned(), other)]);
    bench.end("c2", other);
    bench.end("c1", publish);
    assert_eq!(bench.sent, [end_of("c1", "new")]);
    // It does not come back in time, or does not answer.
    let mut bench = graceful();
    bench.live(1, "c1");
    bench.lose();
    bench.pass(secs(30));
    assert_eq!(bench.kills.len(), 1);
    let mut bench = graceful();
    let publish = bench.live(1, "c1");
    bench.lose();
    bench.connect();
    bench.pass(secs(20));
    assert_eq!(bench.kills, [("c1".to_owned(), publish)]);
    bench.accept(2, "c1", "late");
    assert_eq!(bench.sent.last(), Some(&end_of("c1", "late")));
    // It goes by itself meanwhile: there is nothing to be told.
    let mut bench = graceful();
    let publish = bench.live(1, "c1");
    bench.lose();
    bench.end("c1", publish);
    bench.connect();
    assert_eq!(bench.sent, [""; 0]);
}

#[test]
fn check_20_heartbeats_silence_and_broken_messages() {
    let mut bench = Bench::new();
    bench.pass(secs(20));
    assert_eq!(bench.sent, ["HEARTBEAT"]);
    bench.server.handle_binary(bench.now);
    bench.pass(secs(59));
    assert_eq!(bench.closes, 0);
    bench.pass(secs(1));
    assert_eq!((bench.closes, bench.connects), (1, 2), "it had lived for long: the next comes at once");
    bench.connect();
    bench.hear("HEARTBEAT");
    bench.hear("ERROR\nError-Code:X\nError-Message:y");
    assert_eq!(bench.notes.last(), Some(&Note::Socket(control_socket::Note::Reported("X y".to_owned()))));
    bench.hear(&"a".repeat(70_000));
    assert!(bench.sent.last().unwrap().starts_with("ERROR\nError-Code:MESSAGE_TOO_LONG\n"));
    assert_eq!(bench.closes, 2);
    bench.hear("STREAM-KILL\nStream-Channel:c1\nStream-ID:");
    assert_eq!(bench.closes, 2, "what still comes of a closed socket is nothing");
}

#[test]
fn a_camera_is_a_channel_for_as_long_as_it_has_a_stream() {
    let mut bench = Bench::with(with_camera());
    bench.publish(1, "cam");
    assert_eq!(bench.verdicts.pop(), Some((1, Err(Refused::Busy))), "its channel is taken");
    bench.server.handle_camera("cam", true, bench.now);
    bench.pump();
    assert_eq!(
        bench.sent.split_off(0),
        ["PUBLISH-REQUEST\nRequest-ID:1\nStream-Channel:cam\nStream-Key:ck\nUser-IP:10.0.0.1"]
    );
    bench.play(2, "cam", "ck");
    bench.accept(1, "cam", "id");
    let (_, first) = bench.verdicts.pop().unwrap();
    let first = first.unwrap();
    bench.server.handle_camera("cam", false, bench.now);
    bench.pump();
    assert_eq!(
        (bench.sent.split_off(0), bench.kills.split_off(0)),
        (vec![end_of("cam", "id")], vec![("cam".to_owned(), first)])
    );
    // It is back; the coordinator sends it away, and is asked again some time later, ever more rarely.
    bench.server.handle_camera("cam", true, bench.now);
    bench.pump();
    for (request, wait) in [(2, 10), (3, 20), (4, 40), (5, 60), (6, 60)] {
        assert!(bench.sent.pop().unwrap().starts_with(&format!("PUBLISH-REQUEST\nRequest-ID:{request}\n")));
        bench.accept(request, "cam", "id");
        bench.hear("STREAM-KILL\nStream-Channel:cam\nStream-ID:id");
        assert_eq!(bench.sent.split_off(0), [end_of("cam", "id")]);
        assert_eq!(bench.kills.split_off(0).len(), 1);
        // Not while it is silent: the coordinator speaks meanwhile.
        bench.hear("HEARTBEAT");
        bench.pass(secs(wait) - Duration::from_millis(1));
        bench.sent.retain(|text| text != "HEARTBEAT");
        assert_eq!(bench.sent, [""; 0]);
        bench.hear("HEARTBEAT");
        bench.pass(Duration::from_millis(1));
        bench.sent.retain(|text| text != "HEARTBEAT");
    }
}

#[test]
fn a_camera_is_asked_for_again_when_the_coordinator_is_back() {
    let mut bench = Bench::with(with_camera());
    bench.server.handle_camera("cam", true, bench.now);
    bench.pump();
    bench.accept(1, "cam", "id");
    bench.lose();
    assert_eq!(bench.kills.len(), 1, "who plays it is sent away");
    bench.sent.clear();
    bench.connect();
    assert!(
        bench.sent[0].starts_with("PUBLISH-REQUEST\nRequest-ID:2\nStream-Channel:cam\n"),
        "{:?}",
        bench.sent
    );
}

#[test]
fn check_24_tokens_are_for_this_kind_of_socket() {
    let secret = Key::new("s3cret");
    assert_eq!(socket_token(None, "rtmp-control", None), None);
    let made = socket_token(Some(&secret), "rtmp-control", None).unwrap();
    assert_eq!(token::check(made.reveal(), &secret, "rtmp-control", 9_000_000), Ok(()));
    assert!(token::check(made.reveal(), &secret, "hls-control", 0).is_err());
    let made = socket_token(Some(&secret), "rtmp-control", Some(1_000)).unwrap();
    assert_eq!(token::check(made.reveal(), &secret, "rtmp-control", 4_600), Ok(()));
    assert!(token::check(made.reveal(), &secret, "rtmp-control", 4_700).is_err());
}
