use super::*;

const CREATED: &str = r#"{"heartbeat_id":"h1","server_id":"n1","key":"heartbeat_00","interval":5,"timeout":10,
    "max_timeouts":3,"frame_of_error":2,"time_limit":60}"#;

struct Bench {
    beat: Beat,
    now: Instant,
    start: Instant,
}

impl Bench {
    fn new() -> Bench {
        #[allow(clippy::disallowed_methods, reason = "only differences matter")]
        let now = Instant::now();
        let mut beat = Beat::new(Duration::from_secs(5));
        beat.begin(now);
        Bench { beat, now, start: now }
    }

    fn seconds(&self) -> f64 {
        (self.now - self.start).as_secs_f64()
    }

    /// Waits until something is to be sent.
    fn wait(&mut self) -> Send {
        self.now = self.beat.due().expect("something is to be sent").max(self.now);
        self.beat.poll(self.now).unwrap()
    }

    fn reply(&mut self, status: u16, body: &str) -> Outcome {
        self.beat.handle_reply(status, body.as_bytes(), self.now)
    }

    fn begun() -> Bench {
        let mut bench = Bench::new();
        assert_eq!(bench.wait(), Send::Create);
        assert_eq!(bench.reply(200, CREATED), Outcome::Begun);
        bench
    }
}

fn next(key: &str) -> String {
    format!(r#"{{"status":0,"key":"{key}","mode":"relay","table_version":3,"commands":[]}}"#)
}

fn beat(key: &str) -> Send {
    Send::Beat { id: "h1".into(), key: Key::new(key) }
}

#[test]
fn check_05_beats_come_every_interval_with_the_last_key() {
    let mut bench = Bench::begun();
    let mut last = 0.0;
    for number in 0..20 {
        assert_eq!(bench.wait(), beat(&format!("heartbeat_{number:02}")));
        let gap = bench.seconds() - last;
        assert!((4.0..=6.0).contains(&gap), "{gap}");
        last = bench.seconds();
        assert!(bench.beat.due().is_none(), "one at a time");
        bench.now += Duration::from_millis(number * 20);
        let taken = bench.reply(200, &next(&format!("heartbeat_{:02}", number + 1)));
        assert!(matches!(taken, Outcome::Taken(said) if said.table_version == Some(3)));
    }
}

#[test]
fn check_05_a_stall_is_not_caught_up_and_no_beat_comes_too_soon() {
    let mut bench = Bench::begun();
    bench.wait();
    bench.reply(200, &next("k1"));
    // The program stood still for a minute.
    bench.now += Duration::from_secs(60);
    assert_eq!(bench.beat.poll(bench.now), Some(beat("k1")));
    bench.reply(200, &next("k2"));
    let late = bench.now;
    bench.wait();
    assert!(bench.now - late >= Duration::from_secs(4), "one beat, not twelve");
    // A master that takes four seconds may count from its end.
    bench.now += Duration::from_secs(4);
    let answered = bench.now;
    bench.reply(200, &next("k3"));
    bench.wait();
    assert!(bench.now - answered >= Duration::from_secs(3));
}

#[test]
fn check_06_a_dead_heartbeat_is_begun_anew_and_an_unknown_node_is_announced() {
    for status in [403, 404, 409, 410] {
        let mut bench = Bench::begun();
        bench.wait();
        assert_eq!(bench.reply(status, r#"{"status":3}"#), Outcome::Lost, "{status}");
        assert_eq!(bench.beat.poll(bench.now), Some(Send::Create), "at once");
        let beaten = bench.now;
        bench.reply(200, CREATED);
        bench.wait();
        assert!(bench.now - beaten >= Duration::from_secs(3), "not too soon after the last");
    }
    let mut bench = Bench::begun();
    bench.wait();
    assert_eq!(bench.reply(401, "{}"), Outcome::Unknown);
    assert!(bench.beat.due().is_none(), "until the next announcement");
    bench.beat.begin(bench.now);
    assert_eq!(bench.wait(), Send::Create);
    assert_eq!(bench.reply(401, ""), Outcome::Unknown);
}

#[test]
fn check_19_a_lost_beat_is_tried_again_with_the_same_key() {
    let mut bench = Bench::begun();
    bench.wait();
    bench.reply(200, &next("k1"));
    for _ in 0..24 {
        let sent = {
            bench.wait();
            bench.now
        };
        bench.now += Duration::from_millis(1);
        assert_eq!(bench.beat.handle_failure(bench.now), Outcome::Failed);
        let again = bench.beat.due().unwrap();
        assert!(again - sent >= Duration::from_secs(5), "the retry time");
    }
    assert_eq!(bench.wait(), beat("k1"));
    assert_eq!(bench.reply(500, ""), Outcome::Failed);
    assert_eq!(bench.wait(), beat("k1"));
    assert_eq!(bench.reply(200, "garbage"), Outcome::Failed);
    assert_eq!(bench.wait(), beat("k1"));
    // The reply was lost after the master had taken the beat.
    assert_eq!(bench.reply(403, "{}"), Outcome::Lost);
}

#[test]
fn a_short_retry_time_makes_no_beat_too_soon() {
    let mut bench = Bench::begun();
    bench.beat.retry = Duration::from_millis(100);
    bench.wait();
    let sent = bench.now;
    bench.beat.handle_failure(bench.now);
    bench.wait();
    assert!(bench.now - sent >= Duration::from_secs(3));
}

#[test]
fn a_reply_tells_role_tables_and_drops() {
    let mut bench = Bench::begun();
    bench.wait();
    let said = r#"{"status":1,"key":"k","mode":"RR","table_version":7,"commands":[{"cmd":"drop","stream_id":"s9"},
        {"cmd":"dance"},7,{"cmd":"drop"}]}"#;
    let expected =
        Said { mode: Some("RR".into()), table_version: Some(7), drop: vec!["s9".into()], strike: true };
    assert_eq!(bench.reply(200, said), Outcome::Taken(expected));
    // An answer that nobody waits for changes nothing.
    assert_eq!(bench.reply(410, ""), Outcome::Failed);
    assert!(bench.beat.due().is_some());
}

#[test]
fn a_report_has_the_masters_fields() {
    let stream = StreamReport { stream_id: "s1".into(), app: "relay".into(), clients: 3, bw_in: 7, since: 9 };
    let report = Report { streams: vec![stream], cpu: 12.54, uptime: 3600, ..Report::default() };
    let body: Value = serde_json::from_slice(&body("h1", &Key::new("k"), "relay", 12, &report)).unwrap();
    let expected = json!({"heartbeat_id": "h1", "key": "k", "mode": "relay", "table_version": 12,
        "streams": [{"stream_id": "s1", "app": "relay", "clients": 3, "bw_in": 7, "since": 9}],
        "stats": {"cpu": 12.5, "ram": 0.0, "rx_mbps": 0.0, "tx_mbps": 0.0, "uptime": 3600}});
    assert_eq!(body, expected);
}
