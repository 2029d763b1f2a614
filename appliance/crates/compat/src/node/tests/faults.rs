//! A master that is killed, hangs, talks nonsense, fails or is slow, at each step, with time handed in.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

/// What is wrong with the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Nobody listens.
    Killed,
    /// It takes calls and never answers: the caller gives up after ten seconds.
    Hung,
    /// Its answers are no sense.
    Garbage,
    /// They are of the right form, and empty.
    Empty,
    /// It says that it has failed.
    Failing,
    /// All is right, after nine seconds.
    Slow,
}

const FAULTS: [Fault; 6] =
    [Fault::Killed, Fault::Hung, Fault::Garbage, Fault::Empty, Fault::Failing, Fault::Slow];
const STEPS: [&str; 7] =
    ["/announce", "GET /heartbeat", "/heartbeat", "/streams", "GET /streams", "/auth", "/cert"];

/// A master that does what it should but at one step.
struct Master {
    bench: Bench,
    broken: Option<(&'static str, Fault)>,
    /// The secret of the last announcement; nothing: it knows no node.
    secret: Option<String>,
    announcements: u64,
    beats: u64,
    version: u64,
    live: BTreeSet<String>,
    /// Answers on their way.
    coming: BTreeMap<(Instant, ExchangeId), CallOutcome>,
    verdicts: BTreeMap<ExchangeId, (Instant, Verdict)>,
    /// All else that the node wanted, but notes.
    deeds: Vec<Action>,
}

impl Master {
    fn start() -> Master {
        let mut own = settings(Role::Ingest);
        own.endpoints.cert = Some("/cert".into());
        let mut master = Master {
            bench: Bench::with(own),
            broken: None,
            secret: None,
            announcements: 0,
            beats: 0,
            version: 2,
            live: BTreeSet::new(),
            coming: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            deeds: Vec::new(),
        };
        master.run(10);
        master.begin("s1");
        master.run(10);
        assert!(master.bench.node.has_contact());
        assert_eq!(starts(&std::mem::take(&mut master.deeds)), ["rtmp://n2/relay K1"]);
        master
    }

    fn begin(&mut self, stream_id: &str) {
        self.bench.node.stream_began(stream_id, PeerKind::Broadcaster, "192.0.2.9", self.bench.now);
    }

    fn run(&mut self, seconds: u64) {
        let until = self.bench.now + Duration::from_secs(seconds);
        loop {
            self.serve();
            let first = self.coming.first_key_value().map(|((at, _), _)| *at);
            let due = [first, self.bench.node.next_timeout()].into_iter().flatten().min();
            let Some(due) = due.filter(|due| *due <= until) else { break };
            self.bench.now = due.max(self.bench.now);
            match self.coming.first_entry().filter(|entry| entry.key().0 <= due) {
                Some(entry) => {
                    let ((_, exchange), outcome) = entry.remove_entry();
                    self.bench.node.handle_reply(exchange, outcome, self.bench.now);
                }
                None => self.bench.node.handle_timeout(self.bench.now),
            }
        }
        self.bench.now = until;
    }

    fn serve(&mut self) {
        for action in self.bench.actions() {
            match action {
                Action::Call(exchange, call) => {
                    let (wait, outcome) = self.outcome(&call);
                    self.coming.insert((self.bench.now + Duration::from_secs(wait), exchange), outcome);
                }
                Action::Verdict(exchange, verdict) => {
                    self.verdicts.insert(exchange, (self.bench.now, verdict));
                }
                Action::Note(_) => {}
                other => self.deeds.push(other),
            }
        }
        assert!(self.coming.len() <= 8, "calls are bounded: {}", self.coming.len());
    }

    fn outcome(&mut self, call: &Call) -> (u64, CallOutcome) {
        let replied = |status: u16, body: String| {
            CallOutcome::Replied(Reply { status, headers: Vec::new(), body: body.into_bytes() })
        };
        let step = format!("{} {}", call.method, call.path);
        let fault = self.broken.filter(|(at, _)| *at == call.path && call.method == "POST" || *at == step);
        match fault.map(|(_, fault)| fault) {
            Some(Fault::Killed) => (0, CallOutcome::Failed("connection refused".into())),
            Some(Fault::Hung) => (10, CallOutcome::Failed("no answer".into())),
            Some(Fault::Garbage) => (0, replied(200, "<html>\0 \u{feff}{]".into())),
            // What has been told is taken by any object.
            Some(Fault::Empty) => (
                0,
                replied(
                    200,
                    if call.path == "/auth" || step == "POST /streams" { "[]" } else { "{}" }.into(),
                ),
            ),
            Some(Fault::Failing) => (0, replied(503, String::new())),
            Some(Fault::Slow) => {
                let (status, body) = self.answer(call);
                (9, replied(status, body))
            }
            None => {
                let (status, body) = self.answer(call);
                (0, replied(status, body))
            }
        }
    }

    fn answer(&mut self, call: &Call) -> (u16, String) {
        if call.path == "/announce" {
            self.announcements += 1;
            let secret = format!("secret-{}", self.announcements);
            self.secret = Some(secret.clone());
            return (200, announced("ingest", &secret));
        }
        if self.secret.is_none() || header(call, "Authorization") != self.secret.as_deref() {
            return (401, String::new());
        }
        match (call.method, call.path.as_str()) {
            ("GET", "/heartbeat") => (200, CREATED.into()),
            (_, "/heartbeat") => {
                self.beats += 1;
                (200, beaten(&format!("k{}", self.beats), "ingest", self.version))
            }
            ("GET", "/streams") => (200, table(self.version, INGEST_TABLE)),
            (_, "/streams") => {
                let told = json(call);
                let stream_id = told["stream_id"].as_str().unwrap().to_owned();
                match told["event"].as_str().unwrap() {
                    "start" => drop(self.live.insert(stream_id)),
                    _ => drop(self.live.remove(&stream_id)),
                }
                (200, format!(r#"{{"accepted":true,"table_version":{}}}"#, self.version))
            }
            (_, "/auth") => {
                let item = &json(call)[0];
                let status = if item["token"] == TOKEN { "ok" } else { "denied" };
                (200, format!(r#"[{{"token":{},"status":"{status}","stream_id":"s2"}}]"#, item["token"]))
            }
            _ => (200, certificate("1970-09-09T09:09:09Z")),
        }
    }
}

#[test]
fn whatever_the_master_does_streams_go_on_nobody_slips_in_and_all_is_right_afterwards() {
    for step in STEPS {
        for fault in FAULTS {
            let mut master = Master::start();
            // Steps that are not done each time are brought about: it has forgotten the node, or its heartbeat.
            if matches!(step, "/announce" | "GET /heartbeat" | "/cert") {
                master.secret = None;
            }
            if step == "/cert" {
                master.bench.node.certificate_refused("it is torn", master.bench.now);
            }
            master.broken = Some((step, fault));
            master.version = 3;
            master.run(20);
            let began = master.bench.now;
            let [bad, good] = [format!("{TOKEN}X"), TOKEN.to_owned()]
                .map(|token| master.bench.ask(Wish::Broadcast, &token, None));
            // One stream ends and another begins meanwhile.
            master.bench.node.stream_ended("s1", began);
            master.begin("s1");
            master.begin("s3");
            master.run(100);
            let what = format!("{step} {fault:?}");
            let (_, verdict) = &master.verdicts[&bad];
            assert!(matches!(verdict, Verdict::Refuse(_)), "{what}: {verdict:?}");
            let (answered, verdict) = &master.verdicts[&good];
            assert!(*answered <= began + Duration::from_secs(10), "{what}");
            if step == "/auth" && fault != Fault::Slow {
                assert_eq!(*verdict, Verdict::Refuse(Refused::Unreachable), "{what}");
            }
            let ends = master
                .deeds
                .iter()
                .filter(|deed| matches!(deed, Action::Drop { .. } | Action::RoleChanged(_)));
            assert_eq!(ends.count(), 0, "{what}: {:?}", master.deeds);
            // It is well again.
            master.broken = None;
            master.run(70);
            assert!(master.bench.node.has_contact(), "{what}");
            assert_eq!(master.live, ["s1", "s3"].map(str::to_owned).into(), "{what}");
            assert_eq!(master.bench.node.table_version(), 3, "{what}");
            let good = master.bench.ask(Wish::Broadcast, TOKEN, None);
            master.run(1);
            assert_eq!(master.verdicts[&good].1, allow("s2", PeerKind::Broadcaster), "{what}");
            master.run(3_601);
            let certificates =
                master.deeds.iter().filter(|deed| matches!(deed, Action::UseCertificate { .. }));
            assert!(certificates.count() >= usize::from(step == "/cert"), "{what}");
            let pushes = starts(&master.deeds).len() - stops(&master.deeds).len();
            assert_eq!(pushes, 0, "{what}: what was begun again is pushed once");
        }
    }
}
