//! The numbered checks of a node's contract, with time handed in. What needs sockets is in the program's own tests.

mod faults;

use super::*;
use crate::Reply;

const KEY: &str = "the-shared-announce-key";
const TOKEN: &str = "abcdefghijklmnopqrstuvwxyz0123456";

struct Bench {
    node: Node,
    now: Instant,
    next: u64,
}

fn settings(role: Role) -> Settings {
    Settings {
        has_master: true,
        master_key: Key::new(KEY),
        endpoints: Endpoints {
            announce: "/announce".into(),
            heartbeat: "/heartbeat".into(),
            streams: "/streams".into(),
            auth: "/auth".into(),
            route: "/route".into(),
            cert: None,
        },
        announce_retry: Duration::from_secs(5),
        heartbeat_retry: Duration::from_secs(5),
        offline_grace: Duration::from_secs(300),
        role,
        standalone: Vec::new(),
        external_ip: Some(Ipv4Addr::new(203, 0, 113, 7)),
        rtmp_port: 1935,
        http_port: 7511,
        server_uuid: "uuid-1".into(),
        max_streams: 64,
        seed: 7,
    }
}

fn start() -> Instant {
    #[allow(clippy::disallowed_methods, reason = "only differences matter")]
    Instant::now()
}

fn announced(mode: &str, secret: &str) -> String {
    format!(
        r#"{{"id":"n1","name":"n","mode":"{mode}","slug":"0.IE.EU","secret":"{secret}","rtmp_ip":"203.0.113.7","rtmp_port":1935}}"#
    )
}

fn table(version: u64, rest: &str) -> String {
    format!(r#"{{"version":{version},{rest}}}"#)
}

const CREATED: &str = r#"{"heartbeat_id":"h1","server_id":"n1","key":"k0","interval":5,"frame_of_error":2}"#;

fn beaten(key: &str, mode: &str, version: u64) -> String {
    format!(r#"{{"status":0,"key":"{key}","mode":"{mode}","table_version":{version},"commands":[]}}"#)
}

impl Bench {
    fn with(settings: Settings) -> Bench {
        let now = start();
        let mut node = Node::new(settings, None, now);
        node.handle_timeout(now);
        Bench { node, now, next: 1000 }
    }

    /// A node that was announced with this role, whose heartbeat has begun and whose tables are empty.
    fn announced(mode: &str) -> Bench {
        let mut bench = Bench::with(settings(Role::Ingest));
        bench.answer("/announce", 200, &announced(mode, "secret-1"));
        bench.answer("/heartbeat", 200, CREATED);
        bench.answer("/streams", 200, r#"{"version":1}"#);
        bench.actions();
        bench
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.node.poll_action()).collect()
    }

    /// What there is to do but notes.
    fn deeds(&mut self) -> Vec<Action> {
        self.actions().into_iter().filter(|action| !matches!(action, Action::Note(_))).collect()
    }

    /// The calls among what there is to do; the rest is put aside.
    fn calls(&mut self) -> Vec<(ExchangeId, Call)> {
        let mut rest = Vec::new();
        let mut calls = Vec::new();
        for action in self.actions() {
            match action {
                Action::Call(exchange, call) => calls.push((exchange, call)),
                other => rest.push(other),
            }
        }
        self.node.actions.extend(rest);
        calls
    }

    /// Takes the first call to a path, which must be there, and answers it; other actions stay.
    fn answer(&mut self, path: &str, status: u16, body: &str) -> Call {
        let (exchange, call) = self.take(path);
        let reply = Reply { status, headers: Vec::new(), body: body.as_bytes().to_vec() };
        self.node.handle_reply(exchange, CallOutcome::Replied(reply), self.now);
        call
    }

    fn fail(&mut self, path: &str) {
        let (exchange, _) = self.take(path);
        self.node.handle_reply(exchange, CallOutcome::Failed("refused".into()), self.now);
    }

    fn take(&mut self, path: &str) -> (ExchangeId, Call) {
        let at = self
            .node
            .actions
            .iter()
            .position(|action| matches!(action, Action::Call(_, call) if call.path == path));
        let at = at.unwrap_or_else(|| panic!("no call to {path} in {:?}", self.node.actions));
        let Some(Action::Call(exchange, call)) = self.node.actions.remove(at) else { panic!() };
        (exchange, call)
    }

    /// Lets time pass up to the next thing that is due.
    fn step(&mut self) {
        self.now = self.node.next_timeout().expect("something is due").max(self.now);
        self.node.handle_timeout(self.now);
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.node.handle_timeout(self.now);
    }

    fn ask(&mut self, wish: Wish, name: &str, key: Option<&str>) -> ExchangeId {
        self.next += 1;
        let exchange = ExchangeId(self.next);
        let question = Question {
            wish,
            name: Key::new(name),
            key: key.map(Key::new),
            app: "live".into(),
            addr: "192.0.2.9".into(),
            client_id: "7".into(),
        };
        self.node.handle_question(exchange, question, self.now);
        exchange
    }

    /// The verdict on a question, which must be there.
    fn verdict(&mut self, exchange: ExchangeId) -> Verdict {
        let found = self.actions().into_iter().find_map(|action| match action {
            Action::Verdict(of, verdict) if of == exchange => Some(verdict),
            _ => None,
        });
        found.expect("there is a verdict")
    }

    fn is_asked(&self) -> bool {
        self.has_call("/auth")
    }

    fn has_call(&self, path: &str) -> bool {
        self.node.actions.iter().any(|action| matches!(action, Action::Call(_, call) if call.path == path))
    }
}

/// A node, known to its master as of `secret-1` or not yet.
pub(super) fn announced_node(is_announced: bool) -> Node {
    match is_announced {
        true => Bench::announced("relay").node,
        false => Bench::with(settings(Role::Ingest)).node,
    }
}

fn header<'a>(call: &'a Call, name: &str) -> Option<&'a str> {
    call.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.reveal())
}

fn json(call: &Call) -> serde_json::Value {
    serde_json::from_slice(&call.body).unwrap()
}

fn allow(stream_id: &str, peer: PeerKind) -> Verdict {
    Verdict::Allow { stream_id: stream_id.into(), peer }
}

fn starts(deeds: &[Action]) -> Vec<String> {
    let starts = deeds.iter().filter_map(|deed| match deed {
        Action::StartPush(id, key) => Some(format!("{} {}", id.node_url, key.reveal())),
        _ => None,
    });
    starts.collect()
}

fn stops(deeds: &[Action]) -> Vec<String> {
    let stops = deeds.iter().filter_map(|deed| match deed {
        Action::StopPush(id) => Some(id.node_url.clone()),
        _ => None,
    });
    stops.collect()
}

#[test]
fn check_01_the_announcement_carries_the_raw_key() {
    let mut bench = Bench::with(settings(Role::Ingest));
    let calls = bench.calls();
    let [(_, call)] = calls.as_slice() else { panic!("{calls:?}") };
    assert_eq!((call.method, call.path.as_str()), ("POST", "/announce"));
    assert_eq!(call.headers, [("Authorization", Key::new(KEY))]);
    assert_eq!(json(call)["rtmp_port"], "1935");
    assert_eq!(json(call)["server_uuid"], "uuid-1");
}

#[test]
fn check_02_a_failed_announcement_is_tried_again_first_after_the_set_time_then_slower_for_ever() {
    let mut bench = Bench::with(settings(Role::Ingest));
    let mut waits = Vec::new();
    for status in [500, 500, 400, 200, 503, 401, 500, 500] {
        let sent = bench.now;
        bench.answer("/announce", status, "{}");
        bench.step();
        waits.push((bench.now - sent).as_secs_f64());
    }
    for (wait, least) in waits.iter().zip([5.0, 5.0, 10.0, 20.0, 40.0, 60.0, 60.0, 60.0]) {
        assert!((least..=least * 1.1).contains(wait), "{waits:?}");
    }
    bench.answer("/announce", 200, &announced("I", "s"));
    assert!(bench.node.has_contact());
}

#[test]
fn check_01_an_address_that_is_not_set_is_found_out_before_each_announcement() {
    let mut bench = Bench::with(Settings { external_ip: None, ..settings(Role::Ingest) });
    assert_eq!(bench.deeds(), [Action::FindAddress]);
    bench.node.handle_address(None, bench.now);
    bench.step();
    assert_eq!(bench.deeds(), [Action::FindAddress]);
    bench.node.handle_address(Some(Ipv4Addr::new(192, 0, 2, 1)), bench.now);
    let (_, call) = bench.take("/announce");
    assert_eq!(json(&call)["rtmp_ip"], "192.0.2.1");
}

#[test]
fn check_04_the_role_is_the_one_that_the_master_gives() {
    for (mode, role) in [("RR", "root_relay"), ("relay", "relay"), ("I", "ingest")] {
        let mut bench = Bench::announced(mode);
        bench.step();
        let (_, call) = bench.take("/heartbeat");
        assert_eq!(json(&call)["mode"], role);
    }
}

#[test]
fn check_05_beats_follow_the_announcement_with_id_and_secret() {
    let mut bench = Bench::announced("relay");
    let mut key = "k0".to_owned();
    for number in 1..10 {
        let before = bench.now;
        bench.step();
        assert!((4.0..=6.0).contains(&(bench.now - before).as_secs_f64()));
        let next = format!("k{number}");
        let call = bench.answer("/heartbeat", 200, &beaten(&next, "relay", 1));
        assert_eq!(call.method, "POST");
        assert_eq!(
            (header(&call, "Authorization"), header(&call, "Node-ID")),
            (Some("secret-1"), Some("n1"))
        );
        assert_eq!(json(&call)["key"], key);
        key = next;
    }
}

#[test]
fn check_06_after_410_a_new_heartbeat_after_401_a_new_announcement_and_secret() {
    let mut bench = Bench::announced("relay");
    bench.step();
    bench.answer("/heartbeat", 410, r#"{"status":3}"#);
    assert_eq!(bench.answer("/heartbeat", 200, CREATED).method, "GET");
    bench.step();
    bench.pass(3);
    bench.answer("/heartbeat", 401, "");
    assert!(!bench.node.is_secret("secret-1"), "dead at once");
    bench.answer("/announce", 200, &announced("relay", "secret-2"));
    let call = bench.answer("/heartbeat", 200, CREATED);
    assert_eq!(header(&call, "Authorization"), Some("secret-2"));
    assert!(bench.node.is_secret("secret-2") && !bench.node.is_secret("secret-1"));
}

#[test]
fn check_06_a_master_that_knows_nobody_is_not_asked_without_rest() {
    let mut bench = Bench::with(settings(Role::Ingest));
    let began = bench.now;
    for _ in 0..10 {
        bench.answer("/announce", 200, &announced("relay", "secret"));
        bench.answer("/heartbeat", 401, "");
        bench.step();
    }
    assert!(bench.now - began >= Duration::from_secs(50));
}

#[test]
fn check_07_a_broadcaster_whose_token_is_good_is_let_in_and_told_of() {
    let mut bench = Bench::announced("ingest");
    let asked = bench.ask(Wish::Broadcast, TOKEN, None);
    let call = bench.answer("/auth", 200, r#"[{"status":"ok","stream_id":"s1"}]"#);
    assert_eq!((&json(&call)[0]["type"], &json(&call)[0]["token"]), (&"BROADCASTER".into(), &TOKEN.into()));
    assert_eq!(bench.verdict(asked), allow("s1", PeerKind::Broadcaster));
    bench.node.stream_began("s1", PeerKind::Broadcaster, "192.0.2.9", bench.now);
    let call = bench.answer("/streams", 200, r#"{"accepted":true,"table_version":1}"#);
    assert_eq!((&json(&call)["event"], &json(&call)["stream_id"]), (&"start".into(), &"s1".into()));
    bench.node.stream_ended("s1", bench.now);
    let call = bench.answer("/streams", 200, r#"{"accepted":true}"#);
    assert_eq!((&json(&call)["event"], &json(&call)["reason"]), (&"stop".into(), &"eof".into()));
}

#[test]
fn check_07_a_stream_that_the_master_refuses_is_dropped() {
    for (status, body) in [(200, r#"{"accepted":false}"#), (403, ""), (409, "")] {
        let mut bench = Bench::announced("ingest");
        bench.node.stream_began("s1", PeerKind::Broadcaster, "192.0.2.9", bench.now);
        bench.answer("/streams", status, body);
        let drop = Action::Drop { stream_id: "s1".into(), reason: StopReason::Denied };
        assert!(bench.deeds().contains(&drop), "{status}");
        bench.node.stream_ended("s1", bench.now);
        assert_eq!(json(&bench.take("/streams").1)["reason"], "denied");
    }
}

#[test]
fn check_08_what_is_no_token_is_not_asked_about_and_a_no_is_a_no() {
    let mut bench = Bench::announced("ingest");
    for name in [&TOKEN[..32], &format!("{}-", &TOKEN[..32]), "s1", ""] {
        let asked = bench.ask(Wish::Broadcast, name, None);
        assert!(!bench.is_asked());
        assert_eq!(bench.verdict(asked), Verdict::NotMine, "{name}");
    }
    for body in [r#"[{"status":"denied"}]"#, r#"[{"status":"expired","stream_id":"s1"}]"#] {
        bench.pass(0);
        let asked = bench.ask(Wish::Broadcast, TOKEN, None);
        bench.answer("/auth", 200, body);
        assert_eq!(bench.verdict(asked), Verdict::Refuse(Refused::Denied));
        // For five seconds the answer is known.
        let asked = bench.ask(Wish::Broadcast, TOKEN, None);
        assert!(!bench.is_asked());
        assert_eq!(bench.verdict(asked), Verdict::Refuse(Refused::Denied));
        bench.now += Duration::from_secs(5);
    }
}

#[test]
fn check_08_without_the_master_only_who_was_let_in_before_still_is() {
    let mut bench = Bench::announced("ingest");
    let asked = bench.ask(Wish::Broadcast, TOKEN, None);
    bench.fail("/auth");
    assert_eq!(bench.verdict(asked), Verdict::Refuse(Refused::Unreachable));
    for body in ["garbage", "[]", r#"[{"token":"other","status":"ok","stream_id":"s1"}]"#] {
        let asked = bench.ask(Wish::Broadcast, TOKEN, None);
        bench.answer("/auth", 200, body);
        assert_eq!(bench.verdict(asked), Verdict::Refuse(Refused::Unreachable), "{body}");
    }
    let asked = bench.ask(Wish::Broadcast, TOKEN, None);
    bench.answer("/auth", 200, r#"[{"status":"ok","stream_id":"s1"}]"#);
    assert_eq!(bench.verdict(asked), allow("s1", PeerKind::Broadcaster));
    bench.now += Duration::from_secs(300);
    let asked = bench.ask(Wish::Broadcast, TOKEN, None);
    bench.fail("/auth");
    assert_eq!(bench.verdict(asked), allow("s1", PeerKind::Broadcaster), "within the grace");
    bench.now += Duration::from_secs(1);
    let asked = bench.ask(Wish::Broadcast, TOKEN, None);
    bench.answer("/auth", 500, "");
    assert_eq!(bench.verdict(asked), Verdict::Refuse(Refused::Unreachable), "after it");
    // A master that hangs is one that cannot be asked.
    let asked = bench.ask(Wish::Broadcast, TOKEN, None);
    let before = bench.now;
    while bench.now < before + Duration::from_secs(10) {
        assert!(!bench.node.actions.iter().any(|action| matches!(action, Action::Verdict(..))));
        bench.step();
    }
    assert!(bench.now < before + Duration::from_secs(11));
    assert_eq!(bench.verdict(asked), Verdict::Refuse(Refused::Unreachable));
}

#[test]
fn check_06_a_question_answered_401_is_asked_again_after_the_announcement_and_only_once() {
    let mut bench = Bench::announced("ingest");
    bench.now += Duration::from_secs(60);
    let asked = bench.ask(Wish::Broadcast, TOKEN, None);
    bench.answer("/auth", 401, "");
    bench.answer("/announce", 200, &announced("ingest", "secret-2"));
    let call = bench.answer("/auth", 401, "");
    assert_eq!(header(&call, "Authorization"), Some("secret-2"));
    assert_eq!(bench.verdict(asked), Verdict::Refuse(Refused::Unreachable));
}

const INGEST_TABLE: &str = r#""ingest":{"s1":[{"node_id":"n2","node_url":"rtmp://n2/relay","node_key":"K1"}]},
    "relay":{"s1":[{"node_id":"n3","node_url":"rtmp://n3/relay","node_key":"K2"}]}"#;

#[test]
fn check_09_an_ingest_pushes_by_its_own_table_as_soon_as_it_has_the_stream() {
    let mut bench = Bench::announced("ingest");
    bench.node.handle_tables(table(2, INGEST_TABLE).as_bytes(), bench.now).unwrap();
    assert!(starts(&bench.deeds()).is_empty(), "the stream is not here");
    bench.node.stream_began("s1", PeerKind::Broadcaster, "192.0.2.9", bench.now);
    assert_eq!(starts(&bench.deeds()), ["rtmp://n2/relay K1"]);
    bench.node.stream_ended("s1", bench.now);
    assert_eq!(stops(&bench.deeds()), ["rtmp://n2/relay"]);
}

#[test]
fn check_10_what_stays_in_the_table_is_not_touched() {
    let mut bench = Bench::announced("RR");
    bench.node.stream_began("s1", PeerKind::Ingest, "192.0.2.9", bench.now);
    let entry = |node: &str, key: &str| format!(r#"{{"node_url":"rtmp://{node}/relay","node_key":"{key}"}}"#);
    let mut version = 1;
    let mut put = |bench: &mut Bench, entries: &[String]| {
        version += 1;
        let relay = format!(r#""relay":{{"s1":[{}]}}"#, entries.join(","));
        bench.node.handle_tables(table(version, &relay).as_bytes(), bench.now).unwrap();
        let deeds = bench.deeds();
        (starts(&deeds), stops(&deeds))
    };
    let none = Vec::<String>::new;
    let to = |node: &str, key: &str| vec![format!("rtmp://{node}/relay {key}")];
    assert_eq!(put(&mut bench, &[entry("a", "K1")]), (to("a", "K1"), none()));
    assert_eq!(put(&mut bench, &[entry("a", "K1"), entry("b", "K2")]), (to("b", "K2"), none()));
    assert_eq!(
        put(&mut bench, &[entry("a", "K9"), entry("b", "K2")]),
        (to("a", "K9"), vec!["rtmp://a/relay".into()])
    );
    assert_eq!(put(&mut bench, &[entry("b", "K2")]), (none(), vec!["rtmp://a/relay".into()]));
}

#[test]
fn check_11_a_relay_lets_in_by_key_or_by_the_masters_word() {
    let mut bench = Bench::announced("relay");
    let accept = r#""accept":{"s1":[{"node_id":"n1","node_key":"K1","mode":"RR"}]}"#;
    bench.node.handle_tables(table(2, accept).as_bytes(), bench.now).unwrap();
    let asked = bench.ask(Wish::Relay, "s1", Some("K1"));
    assert_eq!(bench.verdict(asked), allow("s1", PeerKind::RootRelay));
    let asked = bench.ask(Wish::Relay, "K1", None);
    assert_eq!(bench.verdict(asked), allow("s1", PeerKind::RootRelay), "the bare key");
    for (name, key) in
        [("s1", Some("BAD")), ("s1", None), ("s1", Some("")), ("s2", Some("K1")), ("../x", Some("K1"))]
    {
        let asked = bench.ask(Wish::Relay, name, key);
        assert!(!bench.is_asked(), "{name} {key:?}");
        assert_eq!(bench.verdict(asked), Verdict::Refuse(Refused::Malformed), "{name} {key:?}");
    }
    let key = "key-that-the-table-lacks";
    let asked = bench.ask(Wish::Relay, "s1", Some(key));
    let call = bench.answer("/auth", 200, r#"[{"status":"denied"},{"status":"ok","stream_id":"s1"}]"#);
    let types: Vec<_> = (0..2).map(|at| json(&call)[at]["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(types, ["ROOT_RELAY", "RELAY"]);
    assert_eq!(bench.verdict(asked), allow("s1", PeerKind::Relay));
    let asked = bench.ask(Wish::Relay, "s7", Some(key));
    bench.answer("/auth", 200, r#"[{"status":"denied"},{"status":"ok","stream_id":"s1"}]"#);
    assert_eq!(bench.verdict(asked), Verdict::Refuse(Refused::Denied), "good for another stream");
}

#[test]
fn check_12_a_role_without_viewers_refuses_them_unasked() {
    for mode in ["ingest", "root_relay"] {
        let mut bench = Bench::announced(mode);
        for key in [Some("a-good-viewer-token"), None] {
            let asked = bench.ask(Wish::View, "s1", key);
            assert!(!bench.is_asked());
            assert_eq!(bench.verdict(asked), Verdict::Refuse(Refused::Role));
        }
        let want = ExchangeId(1);
        bench.node.handle_want(want, "s1", bench.now);
        assert_eq!(bench.deeds(), [Action::Routed(want, Routed::Role)]);
    }
    let mut relay = Bench::announced("relay");
    let asked = relay.ask(Wish::Broadcast, TOKEN, None);
    assert_eq!(relay.verdict(asked), Verdict::Refuse(Refused::Role));
}

#[test]
fn check_13_however_many_want_a_stream_the_master_is_asked_once() {
    let mut bench = Bench::announced("relay");
    for viewer in 1..=3 {
        bench.node.handle_want(ExchangeId(viewer), "s1", bench.now);
    }
    let (exchange, call) = bench.take("/route");
    assert_eq!(json(&call), serde_json::json!({"stream_id": "s1", "node_id": "n1"}));
    assert!(bench.calls().iter().all(|(_, call)| call.path != "/route"));
    let reply = Reply { status: 202, headers: vec![], body: br#"{"status":"routing"}"#.to_vec() };
    bench.node.handle_reply(exchange, CallOutcome::Replied(reply), bench.now);
    bench.pass(9);
    assert!(bench.calls().iter().all(|(_, call)| call.path != "/route"), "not before 10 s");
    bench.pass(1);
    bench.take("/route");
    bench.node.stream_began("s1", PeerKind::RootRelay, "192.0.2.9", bench.now);
    let here: Vec<Action> = (1..=3).map(|viewer| Action::Routed(ExchangeId(viewer), Routed::Here)).collect();
    let deeds = bench.deeds();
    assert!(here.iter().all(|routed| deeds.contains(routed)), "{deeds:?}");
}

#[test]
fn check_13_nobody_waits_for_a_stream_longer_than_15_seconds() {
    let mut bench = Bench::announced("relay");
    bench.node.handle_want(ExchangeId(1), "s1", bench.now);
    bench.answer("/route", 200, "{}");
    bench.pass(14);
    assert!(!bench.deeds().contains(&Action::Routed(ExchangeId(1), Routed::Later)));
    bench.pass(1);
    assert!(bench.deeds().contains(&Action::Routed(ExchangeId(1), Routed::Later)));
}

#[test]
fn check_15_what_the_master_does_not_know_there_is_not() {
    for (status, routed) in [(404, Routed::Unknown), (409, Routed::Role), (503, Routed::Later)] {
        let mut bench = Bench::announced("relay");
        bench.node.handle_want(ExchangeId(1), "s1", bench.now);
        bench.answer("/route", status, "");
        assert_eq!(bench.deeds(), [Action::Routed(ExchangeId(1), routed)]);
    }
}

#[test]
fn check_16_a_new_role_ends_what_it_forbids_and_nothing_else() {
    let mut bench = Bench::announced("relay");
    let relay = r#""relay":{"s2":[{"node_url":"rtmp://n3/relay","node_key":"K2"}]}"#;
    bench.node.handle_tables(table(2, relay).as_bytes(), bench.now).unwrap();
    for (stream, peer) in [("s1", PeerKind::Relay), ("s2", PeerKind::RootRelay), ("s3", PeerKind::Unknown)] {
        bench.node.stream_began(stream, peer, "192.0.2.9", bench.now);
        bench.answer("/streams", 200, r#"{"accepted":true}"#);
    }
    bench.actions();
    bench.step();
    bench.answer("/heartbeat", 200, &beaten("k1", "root_relay", 2));
    let deeds = bench.deeds();
    let drop = |stream: &str| Action::Drop { stream_id: stream.into(), reason: StopReason::Role };
    assert!(deeds.contains(&drop("s1")) && deeds.contains(&drop("s3")) && !deeds.contains(&drop("s2")));
    let changed =
        deeds.iter().position(|deed| matches!(deed, Action::RoleChanged(roles) if !roles.serves_viewers()));
    let dropped = deeds.iter().position(|deed| *deed == drop("s1"));
    assert!(changed.unwrap() < dropped.unwrap(), "viewers first");
    assert!(stops(&deeds).is_empty(), "a push that both roles permit goes on");
    bench.node.stream_ended("s1", bench.now);
    let (_, call) = bench.take("/streams");
    assert_eq!((&json(&call)["event"], &json(&call)["reason"]), (&"relay_stop".into(), &"role".into()));
    bench.step();
    assert_eq!(json(&bench.take("/heartbeat").1)["mode"], "root_relay");
}

#[test]
fn check_17_the_same_role_again_changes_nothing() {
    let mut bench = Bench::announced("relay");
    bench.node.stream_began("s1", PeerKind::Relay, "192.0.2.9", bench.now);
    bench.answer("/streams", 200, "{}");
    bench.step();
    bench.answer("/heartbeat", 200, &beaten("k1", "R", 1));
    assert_eq!(bench.deeds(), []);
    bench.node.set_role(Role::Relay, bench.now);
    assert_eq!(bench.deeds(), []);
}

#[test]
fn check_16_a_role_by_an_operator_is_told_before_the_master_decides() {
    for (answer, role) in [("RR", Role::RootRelay), ("R", Role::Relay), ("I", Role::Ingest)] {
        let mut bench = Bench::announced("relay");
        bench.step();
        // While a beat is on its way that tells the old role.
        bench.node.set_role(Role::RootRelay, bench.now);
        let call = bench.answer("/heartbeat", 200, &beaten("k1", "relay", 1));
        assert_eq!(json(&call)["mode"], "relay");
        assert_eq!(bench.node.roles().shown(), Role::RootRelay, "the master has not heard of it");
        bench.answer("/streams", 200, r#"{"version":1}"#);
        bench.step();
        let call = bench.answer("/heartbeat", 200, &beaten("k2", answer, 1));
        assert_eq!(json(&call)["mode"], "root_relay");
        assert_eq!(bench.node.roles().shown(), role, "its word holds");
    }
}

#[test]
fn check_18_a_bad_table_leaves_the_old_one_in_force() {
    let mut bench = Bench::announced("ingest");
    bench.node.stream_began("s1", PeerKind::Broadcaster, "192.0.2.9", bench.now);
    bench.answer("/streams", 200, "{}");
    bench.node.handle_tables(table(2, INGEST_TABLE).as_bytes(), bench.now).unwrap();
    let deeds = bench.deeds();
    assert!(matches!(deeds.first(), Some(Action::KeepTables(_))) && starts(&deeds).len() == 1);
    for bad in ["garbage", r#"{"version":1}"#, r#"{"version":3,"ingest":7}"#] {
        assert!(bench.node.handle_tables(bad.as_bytes(), bench.now).is_err());
        assert_eq!(bench.deeds(), [], "{bad}");
    }
    assert_eq!(bench.node.table_version(), 2);
    bench.step();
    bench.answer("/heartbeat", 200, &beaten("k1", "ingest", 9));
    bench.answer("/streams", 200, "<html>");
    assert_eq!(bench.node.table_version(), 2);
    bench.actions();
    bench.step();
    bench.answer("/heartbeat", 200, &beaten("k2", "ingest", 9));
    bench.answer("/streams", 200, &table(9, r#""ingest":{}"#));
    assert_eq!(stops(&bench.deeds()), ["rtmp://n2/relay"], "a lost table is fetched as its version is told");
}

#[test]
fn check_19_tables_are_kept_over_a_restart_without_a_master() {
    let kept = table(7, INGEST_TABLE);
    let mut node = Node::new(settings(Role::Ingest), Some(kept.as_bytes()), start());
    assert_eq!(node.table_version(), 7);
    node.stream_began("s1", PeerKind::Broadcaster, "192.0.2.9", start());
    let deeds: Vec<Action> = std::iter::from_fn(|| node.poll_action()).collect();
    assert_eq!(starts(&deeds), ["rtmp://n2/relay K1"]);
    assert_eq!(Node::new(settings(Role::Ingest), Some(b"\0torn"), start()).table_version(), 0);
}

#[test]
fn check_19_while_the_master_is_dead_streams_go_on_and_afterwards_it_is_told() {
    let mut bench = Bench::announced("ingest");
    bench.node.handle_tables(table(2, INGEST_TABLE).as_bytes(), bench.now).unwrap();
    bench.node.stream_began("s1", PeerKind::Broadcaster, "192.0.2.9", bench.now);
    bench.answer("/streams", 200, "{}");
    bench.actions();
    let dead = bench.now;
    while bench.now < dead + Duration::from_secs(120) {
        bench.step();
        for (exchange, call) in bench.calls() {
            assert_ne!(call.path, "/announce", "a dead master has not forgotten us");
            bench.node.handle_reply(exchange, CallOutcome::Failed("refused".into()), bench.now);
        }
        assert_eq!(bench.deeds(), [], "nothing ends");
    }
    assert!(!bench.node.has_contact());
    bench.step();
    bench.answer("/heartbeat", 403, "{}");
    bench.answer("/heartbeat", 200, CREATED);
    assert!(bench.node.has_contact());
    let calls = bench.calls();
    let said: Vec<(&str, &str)> = calls.iter().map(|(_, call)| (call.method, call.path.as_str())).collect();
    assert_eq!(said, [("POST", "/streams"), ("GET", "/streams")]);
    assert_eq!(
        (&json(&calls[0].1)["event"], &json(&calls[0].1)["stream_id"]),
        (&"start".into(), &"s1".into())
    );
}

#[test]
fn check_19_a_master_that_has_forgotten_the_node_gets_an_announcement_and_the_streams() {
    let mut bench = Bench::announced("ingest");
    bench.node.stream_began("s1", PeerKind::Broadcaster, "192.0.2.9", bench.now);
    bench.answer("/streams", 200, "{}");
    bench.now += Duration::from_secs(60);
    bench.node.handle_timeout(bench.now);
    bench.answer("/heartbeat", 401, "");
    bench.answer("/announce", 200, &announced("ingest", "secret-2"));
    let calls = bench.calls();
    let said: Vec<&str> = calls.iter().map(|(_, call)| call.path.as_str()).collect();
    assert_eq!(said, ["/heartbeat", "/streams", "/streams"]);
    assert!(calls.iter().all(|(_, call)| header(call, "Authorization") == Some("secret-2")));
}

#[test]
fn check_19_a_drop_command_ends_its_stream_alone() {
    let mut bench = Bench::announced("ingest");
    for stream in ["s1", "s2"] {
        bench.node.stream_began(stream, PeerKind::Broadcaster, "192.0.2.9", bench.now);
        bench.answer("/streams", 200, "{}");
    }
    bench.step();
    let said = r#"{"status":0,"key":"k1","mode":"I","table_version":1,"commands":[{"cmd":"drop","stream_id":"s1"},
        {"cmd":"drop","stream_id":"nope"},{"cmd":"dance"}]}"#;
    bench.answer("/heartbeat", 200, said);
    let drop = Action::Drop { stream_id: "s1".into(), reason: StopReason::Dropped };
    assert_eq!(bench.deeds(), [drop]);
}

/// A node whose certificate is the master's, at 1,000 seconds of 1970.
fn with_certificate() -> Bench {
    let mut own = settings(Role::Ingest);
    own.endpoints.cert = Some("/cert".into());
    let mut bench = Bench::with(own);
    bench.node.set_report(Report::default(), 1_000);
    bench.answer("/announce", 200, &announced("ingest", "secret-1"));
    bench
}

fn certificate(not_after: &str) -> String {
    format!(r#"{{"cert":"CHAIN","key":"-----a-secret-key-in-pem-----","not_after":"{not_after}"}}"#)
}

#[test]
fn the_masters_certificate_is_fetched_and_anew_when_few_days_remain() {
    let mut bench = with_certificate();
    let call = bench.answer("/cert", 200, &certificate("1970-01-22T00:00:00Z"));
    assert_eq!((call.method, header(&call, "Authorization")), ("GET", Some("secret-1")));
    let actions = bench.actions();
    let key = Key::new("-----a-secret-key-in-pem-----");
    assert!(actions.contains(&Action::UseCertificate { chain: "CHAIN".into(), key }), "{actions:?}");
    assert!(!format!("{actions:?}").contains("a-secret-key"), "{actions:?}");
    // Twenty days remain for most of the first day.
    bench.node.set_report(Report::default(), 86_400);
    bench.pass(3_601);
    assert!(!bench.has_call("/cert"), "enough of it remains");
    bench.node.set_report(Report::default(), 86_401);
    bench.pass(3_601);
    bench.answer("/cert", 404, "{}");
    bench.pass(3_599);
    assert!(!bench.has_call("/cert"));
    bench.pass(2);
    bench.answer("/cert", 200, &certificate("1970-03-22T00:00:00Z"));
    // What cannot be used is fetched again, not at once.
    bench.node.certificate_refused("the key is another one's", bench.now);
    bench.pass(3_601);
    bench.take("/cert");
}

#[test]
fn a_certificate_that_does_not_come_leaves_the_rest_alone() {
    for garbage in ["<html>", "{}", &certificate("soon")] {
        let mut bench = with_certificate();
        bench.answer("/cert", 200, garbage);
        assert!(!bench.deeds().iter().any(|deed| matches!(deed, Action::UseCertificate { .. })), "{garbage}");
        assert!(bench.node.has_contact());
    }
    // Once more after a 401, with the new secret; then only after an hour.
    let mut bench = with_certificate();
    bench.answer("/cert", 401, "{}");
    bench.pass(6);
    bench.answer("/announce", 200, &announced("ingest", "secret-2"));
    let again = bench.answer("/cert", 401, "{}");
    assert_eq!(header(&again, "Authorization"), Some("secret-2"));
    assert!(bench.node.has_contact(), "it is not announced once more");
    bench.fail("/heartbeat");
    bench.pass(3_601);
    bench.fail("/cert");
    bench.pass(61);
    bench.take("/cert");
}

#[test]
fn check_23_without_a_master_nobody_is_called_and_the_role_is_the_set_one() {
    let alone = Settings { has_master: false, standalone: vec![Role::Relay], ..settings(Role::RootRelay) };
    let mut bench = Bench::with(alone);
    assert_eq!(bench.actions(), []);
    assert!(bench.node.roles().shown() == Role::RootRelay && bench.node.roles().has(Role::Relay));
    let asked = bench.ask(Wish::View, "s1", Some("a-good-viewer-token"));
    assert_eq!(bench.verdict(asked), Verdict::Refuse(Refused::Unreachable));
    bench.node.stream_began("s1", PeerKind::RootRelay, "192.0.2.9", bench.now);
    bench.node.stream_ended("s1", bench.now);
    bench.node.handle_want(ExchangeId(1), "s1", bench.now);
    assert_eq!(bench.deeds(), [Action::Routed(ExchangeId(1), Routed::Unknown)]);
    bench.node.set_role(Role::RootRelay, bench.now);
    assert!(bench.node.roles().has(Role::Relay) && bench.deeds().is_empty());
}

#[test]
fn check_24_entries_with_the_masters_id_of_this_node_are_not_pushed_to() {
    let mut bench = Bench::announced("ingest");
    let own = r#""ingest":{"s1":[{"node_id":"n1","node_url":"rtmp://other/relay","node_key":"K"},
        {"node_id":"uuid-1","node_url":"rtmp://other2/relay","node_key":"K"},
        {"node_id":"x","node_url":"rtmp://203.0.113.7:1935/relay","node_key":"K"},
        {"node_id":"x","node_url":"rtmp://203.0.113.7/relay","node_key":"K"}]}"#;
    bench.node.handle_tables(table(2, own).as_bytes(), bench.now).unwrap();
    bench.node.stream_began("s1", PeerKind::Broadcaster, "192.0.2.9", bench.now);
    assert!(starts(&bench.deeds()).is_empty());
}

#[test]
fn check_25_what_is_logged_of_calls_and_actions_shows_no_secret() {
    let mut bench = Bench::announced("ingest");
    bench.node.handle_tables(table(2, INGEST_TABLE).as_bytes(), bench.now).unwrap();
    bench.node.stream_began("s1", PeerKind::Broadcaster, "192.0.2.9", bench.now);
    bench.ask(Wish::Broadcast, TOKEN, None);
    let actions = bench.actions();
    let shown = format!("{:?} {actions:?}", bench.node);
    for secret in [KEY, "secret-1", TOKEN, "K1"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

#[test]
fn questions_and_streams_are_bounded() {
    let mut bench = Bench::with(Settings { max_streams: 1, ..settings(Role::Ingest) });
    bench.answer("/announce", 200, &announced("ingest", "s"));
    for number in 0..256 {
        bench.ask(Wish::Broadcast, &format!("{TOKEN}{number}"), None);
    }
    let asked = bench.ask(Wish::Broadcast, TOKEN, None);
    assert_eq!(bench.verdict(asked), Verdict::Refuse(Refused::Full));
    let mut bench = Bench::with(Settings { max_streams: 1, ..settings(Role::Ingest) });
    bench.answer("/announce", 200, &announced("ingest", "s"));
    bench.node.stream_began("s1", PeerKind::Broadcaster, "192.0.2.9", bench.now);
    for (stream, verdict) in
        [("s2", Verdict::Refuse(Refused::Full)), ("s1", allow("s1", PeerKind::Broadcaster))]
    {
        let asked = bench.ask(Wish::Broadcast, TOKEN, None);
        bench.answer("/auth", 200, &format!(r#"{{"status":"ok","stream_id":"{stream}"}}"#));
        assert_eq!(bench.verdict(asked), verdict);
    }
}
