use super::*;
use fieldgate_hub::{Pulses, Retry};
use fieldgate_model::config::Problem;
use fieldgate_model::status::{Activity, State};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Mutex;
use tokio::time::{Instant, sleep};

/// What a test child does, by the name of its key.
#[derive(Clone, Copy)]
enum Act {
    /// Ready at once, ends when cancelled.
    Work,
    /// Ready after this time.
    Slow(Duration),
    /// Fails at once.
    Fail(Retry),
    /// Ready, then fails after this time.
    FailAfter(Duration, Retry),
    Panic,
    /// Does not hear that it is cancelled.
    Deaf,
    /// Takes this long to end.
    Linger(Duration),
}

#[derive(Clone, Default)]
struct Stage(Arc<Mutex<Played>>);

#[derive(Default)]
struct Played {
    acts: BTreeMap<String, Act>,
    log: Vec<String>,
    starts: BTreeMap<String, Vec<Instant>>,
}

impl Stage {
    fn act(&self, key: &str, act: Act) {
        self.0.lock().unwrap().acts.insert(key.to_owned(), act);
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().log)
    }

    fn say(&self, text: String) {
        self.0.lock().unwrap().log.push(text);
    }

    fn starts(&self, key: &str) -> Vec<Instant> {
        self.0.lock().unwrap().starts.get(key).cloned().unwrap_or_default()
    }
}

impl Start for Stage {
    fn start(&self, key: &ChildKey, _: &ChildSettings, context: ChildContext) -> ChildFuture {
        let (stage, key) = (self.clone(), key.to_string());
        let act = {
            let mut played = self.0.lock().unwrap();
            played.log.push(format!("+{key}"));
            played.starts.entry(key.clone()).or_default().push(Instant::now());
            played.acts.get(&key).copied().unwrap_or(Act::Work)
        };
        Box::pin(async move {
            match act {
                Act::Work => context.ready.ready(),
                Act::Slow(time) => {
                    sleep(time).await;
                    context.ready.ready();
                }
                Act::Fail(retry) => return Err(ChildError::new(retry, "no luck")),
                Act::FailAfter(time, retry) => {
                    context.ready.ready();
                    sleep(time).await;
                    return Err(ChildError::new(retry, "broke"));
                }
                Act::Panic => panic!("of {key}"),
                Act::Deaf => {
                    context.ready.ready();
                    std::future::pending::<()>().await;
                }
                Act::Linger(_) => context.ready.ready(),
            }
            context.cancel.cancelled().await;
            if let Act::Linger(time) = act {
                sleep(time).await;
            }
            stage.say(format!("-{key}"));
            Ok(())
        })
    }
}

struct Bench {
    stage: Stage,
    handle: SupervisorHandle,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

#[allow(clippy::disallowed_methods, reason = "the test is the task's owner")]
fn bench() -> Bench {
    let stage = Stage::default();
    let supervisor = Supervisor {
        start: Arc::new(stage.clone()),
        clock: Clock::default(),
        pulse: Pulses::default().watch("supervisor", Duration::from_secs(10)),
        machine_memory_bytes: Some(1 << 30),
        jitter: Box::new(|| 0.5),
    };
    let cancel = CancellationToken::new();
    let (handle, task) = supervisor.run(cancel.clone());
    Bench { stage, handle, cancel, task: tokio::spawn(task) }
}

impl Bench {
    async fn reconcile(&self, mountpoints: Value) -> Result<(), Vec<Problem>> {
        self.handle.reconcile(Arc::new(config(mountpoints))).await
    }

    fn activity(&self, key: &str) -> Activity {
        let snapshot = self.handle.snapshot();
        let found = snapshot.children.iter().find(|(known, _)| known.to_string() == key);
        found
            .map(|(_, activity)| activity.clone())
            .unwrap_or_else(|| panic!("{key} is not there: {snapshot:?}"))
    }

    fn state(&self, key: &str) -> State {
        self.activity(key).state
    }
}

/// With one RTMP listener and no admin plane.
fn config(mountpoints: Value) -> Config {
    let value =
        json!({"rtmp": {"listen": ["127.0.0.1:1935"]}, "admin": {"listen": []}, "mountpoints": mountpoints});
    serde_json::from_value(value).unwrap()
}

fn test_source(frame_rate: u32) -> Value {
    json!({"source": {"kind": "test", "frame_rate": frame_rate}})
}

fn first(problems: Result<(), Vec<Problem>>) -> String {
    problems.unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[tokio::test(start_paused = true)]
async fn unchanged_children_are_untouched_while_others_change() {
    let bench = bench();
    bench.reconcile(json!({"a": test_source(30), "b": test_source(30), "c": test_source(30)})).await.unwrap();
    assert_eq!(
        bench.stage.log(),
        [
            "+mountpoint a",
            "+mountpoint b",
            "+mountpoint c",
            "+rtmp 127.0.0.1:1935",
            "+source a",
            "+source b",
            "+source c"
        ]
    );
    bench.reconcile(json!({"a": test_source(30), "b": test_source(25), "d": test_source(30)})).await.unwrap();
    let mut log = bench.stage.log();
    let stopped = log.iter().take_while(|line| line.starts_with('-')).count();
    assert_eq!(stopped, 3, "all that leaves has left before anything starts: {log:?}");
    log.sort();
    assert_eq!(log, ["+mountpoint d", "+source b", "+source d", "-mountpoint c", "-source b", "-source c"]);
    assert_eq!(bench.activity("source a").starts, 1);
    assert_eq!(bench.handle.config().borrow().mountpoints.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_same_config_again_touches_nothing() {
    let bench = bench();
    bench.reconcile(json!({"a": test_source(30)})).await.unwrap();
    bench.stage.log();
    bench.reconcile(json!({"a": test_source(30)})).await.unwrap();
    assert_eq!(bench.stage.log(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_failing_child_is_tried_again_with_growing_waits() {
    let bench = bench();
    bench.stage.act("source a", Act::Fail(Retry::Backoff));
    bench
        .reconcile(json!({"a": test_source(30)}))
        .await
        .expect("a source that is tried again counts as started");
    let activity = bench.activity("source a");
    assert_eq!((activity.state, activity.attempts), (State::Retrying, 1));
    assert_eq!(activity.cause.as_deref(), Some("no luck"));
    assert!(activity.next_attempt.is_some());
    sleep(Duration::from_secs(200)).await;
    let starts = bench.stage.starts("source a");
    let waits: Vec<u64> = starts.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    bench.stage.act("source a", Act::Work);
    bench.handle.retry_now(ChildKey::Source("a".to_owned())).await;
    sleep(Duration::from_millis(10)).await;
    assert_eq!(bench.state("source a"), State::Running);
    assert_eq!(bench.activity("source a").next_attempt, None);
}

#[tokio::test(start_paused = true)]
async fn a_good_run_makes_the_waits_short_again() {
    let bench = bench();
    bench.stage.act("source a", Act::FailAfter(Duration::from_secs(61), Retry::Backoff));
    bench.reconcile(json!({"a": test_source(30)})).await.unwrap();
    sleep(Duration::from_secs(300)).await;
    let starts = bench.stage.starts("source a");
    assert!(starts.windows(2).all(|pair| (pair[1] - pair[0]).as_secs() == 62), "{starts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_push_has_its_own_longest_wait() {
    let bench = bench();
    bench.stage.act("push a/p", Act::Fail(Retry::Backoff));
    let push = json!([{"url": "rtmp://h/live/a", "id": "p", "backoff_cap": "3s"}]);
    bench.reconcile(json!({"a": {"source": {"kind": "publish"}, "push": push}})).await.unwrap();
    sleep(Duration::from_secs(20)).await;
    let starts = bench.stage.starts("push a/p");
    let waits: Vec<u64> = starts.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert_eq!(waits[..5], [1, 2, 3, 3, 3]);
}

#[tokio::test(start_paused = true)]
async fn what_only_other_settings_can_help_is_not_tried_again_and_fails_no_change() {
    let bench = bench();
    bench.stage.act("source a", Act::Fail(Retry::Never));
    bench.stage.act("push b/p", Act::Fail(Retry::Never));
    let push = json!([{"url": "kmp://127.0.0.1:6543", "channel_id": "b", "id": "p"}]);
    let mut b = test_source(30);
    b["push"] = push;
    bench.reconcile(json!({"a": test_source(30), "b": b})).await.expect("the status tells");
    sleep(Duration::from_secs(600)).await;
    for key in ["source a", "push b/p"] {
        assert_eq!(bench.stage.starts(key).len(), 1);
        assert_eq!(bench.state(key), State::Failed);
        assert_eq!(bench.activity(key).cause.as_deref(), Some("no luck"));
    }
    assert_eq!(bench.state("source b"), State::Running);
    bench.stage.act("source a", Act::Work);
    bench.reconcile(json!({"a": test_source(25), "b": test_source(30)})).await.unwrap();
    assert_eq!(bench.state("source a"), State::Running);
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_cannot_bind_fails_the_change_but_is_tried_again() {
    let bench = bench();
    bench.stage.act("rtmp 127.0.0.1:1935", Act::Fail(Retry::Backoff));
    let text = first(bench.reconcile(json!({})).await);
    assert_eq!(text, "rtmp.listen: rtmp 127.0.0.1:1935 does not start: no luck");
    bench.stage.act("rtmp 127.0.0.1:1935", Act::Work);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.state("rtmp 127.0.0.1:1935"), State::Running);
}

#[tokio::test(start_paused = true)]
async fn what_must_be_ready_and_is_not_in_time_is_named() {
    let bench = bench();
    bench.stage.act("mountpoint a", Act::Slow(Duration::from_secs(9)));
    bench.stage.act("mountpoint b", Act::Slow(Duration::from_secs(11)));
    let text = first(bench.reconcile(json!({"a": test_source(30), "b": test_source(30)})).await);
    assert_eq!(text, "mountpoints.b: mountpoint b is not ready after 10 s");
    assert_eq!(bench.state("mountpoint a"), State::Running);
}

#[tokio::test(start_paused = true)]
async fn a_slow_camera_neither_fails_nor_holds_up_a_change() {
    let bench = bench();
    bench.stage.act("source a", Act::Slow(Duration::from_secs(1)));
    bench.stage.act("source b", Act::Slow(Duration::from_secs(30)));
    let before = Instant::now();
    bench.reconcile(json!({"a": test_source(30), "b": test_source(30)})).await.unwrap();
    assert_eq!(before.elapsed(), SETTLE_WITHIN);
    assert_eq!((bench.state("source a"), bench.state("source b")), (State::Running, State::Starting));
    sleep(Duration::from_secs(30)).await;
    assert_eq!((bench.state("source b"), bench.activity("source b").starts), (State::Running, 1));
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_the_failure_of_its_child_alone() {
    let bench = bench();
    bench.stage.act("source a", Act::Panic);
    bench.reconcile(json!({"a": test_source(30), "b": test_source(30)})).await.unwrap();
    assert_eq!(bench.activity("source a").cause.as_deref(), Some("panicked: of source a"));
    assert_eq!(bench.state("source a"), State::Retrying);
    assert_eq!((bench.state("source b"), bench.activity("source b").starts), (State::Running, 1));
}

#[tokio::test(start_paused = true)]
async fn a_child_that_ends_by_itself_is_started_again() {
    let bench = bench();
    bench.stage.act("source a", Act::FailAfter(Duration::from_secs(5), Retry::Now));
    bench.reconcile(json!({"a": test_source(30)})).await.unwrap();
    sleep(Duration::from_secs(21)).await;
    let starts = bench.stage.starts("source a");
    let gaps: Vec<u64> = starts.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert_eq!(gaps, [5, 5, 5, 5], "at once, as the peer asked");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_keeps_asking_to_come_again_does_not_make_us_spin() {
    let bench = bench();
    bench.stage.act("source a", Act::Fail(Retry::Now));
    bench.reconcile(json!({"a": test_source(30)})).await.unwrap();
    sleep(Duration::from_secs(30)).await;
    assert!(bench.stage.starts("source a").len() < 8);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_does_not_hear_is_aborted_before_its_successor_starts() {
    let bench = bench();
    bench.stage.act("source a", Act::Deaf);
    bench.reconcile(json!({"a": test_source(30)})).await.unwrap();
    let before = Instant::now();
    bench.reconcile(json!({"a": test_source(25)})).await.unwrap();
    assert_eq!(before.elapsed(), STOP_WITHIN);
    assert_eq!(bench.handle.snapshot().stuck, [""; 0], "an abort was enough");
}

#[tokio::test(start_paused = true)]
async fn a_successor_waits_for_what_takes_its_time_to_end() {
    let bench = bench();
    bench.stage.act("source a", Act::Linger(Duration::from_secs(3)));
    bench.reconcile(json!({"a": test_source(30)})).await.unwrap();
    bench.stage.log();
    let before = Instant::now();
    bench.reconcile(json!({"b": test_source(30)})).await.unwrap();
    assert_eq!(before.elapsed(), Duration::from_secs(3));
    assert_eq!(bench.stage.log(), ["-mountpoint a", "-source a", "+mountpoint b", "+source b"]);
}

/// A thread that never comes back can only be left behind. Real time: an abort cannot be simulated on a blocked thread.
#[test]
#[allow(clippy::disallowed_methods, reason = "a thread must really hang")]
fn a_child_that_not_even_an_abort_ends_is_left_behind_and_named() {
    struct Hang(Arc<AtomicBool>);
    impl Start for Hang {
        fn start(&self, _: &ChildKey, settings: &ChildSettings, context: ChildContext) -> ChildFuture {
            let (go_on, hangs) = (self.0.clone(), matches!(settings, ChildSettings::Source(..)));
            Box::pin(async move {
                context.ready.ready();
                context.cancel.cancelled().await;
                while hangs && !go_on.load(Ordering::Acquire) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(())
            })
        }
    }
    let go_on = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    runtime.block_on(async {
        let supervisor = Supervisor {
            start: Arc::new(Hang(go_on.clone())),
            clock: Clock::default(),
            pulse: Pulses::default().watch("supervisor", Duration::from_secs(10)),
            machine_memory_bytes: None,
            jitter: Box::new(|| 0.5),
        };
        let cancel = CancellationToken::new();
        let (handle, task) = supervisor.run(cancel.clone());
        let task = tokio::spawn(task);
        handle.reconcile(Arc::new(config(json!({"a": test_source(30)})))).await.unwrap();
        handle.reconcile(Arc::new(config(json!({"b": test_source(30)})))).await.unwrap();
        assert_eq!(handle.snapshot().stuck, ["source a"]);
        assert_eq!(handle.snapshot().children[&ChildKey::Mountpoint("b".to_owned())].state, State::Running);
        go_on.store(true, Ordering::Release);
        cancel.cancel();
        task.await.unwrap();
    });
}

#[tokio::test(start_paused = true)]
async fn everything_stops_in_order_inputs_first_admin_last() {
    let bench = bench();
    let push = json!([{"url": "rtmp://h/live/a", "id": "p"}]);
    let mut config = config(json!({"a": {"source": {"kind": "test"}, "push": push}}));
    config.admin.listen = vec!["127.0.0.1:0".parse().unwrap()];
    bench.stage.act("source a", Act::Linger(Duration::from_secs(2)));
    bench.handle.reconcile(Arc::new(config)).await.unwrap();
    bench.stage.log();
    bench.cancel.cancel();
    bench.task.await.unwrap();
    let log = bench.stage.log();
    assert_eq!(log, ["-rtmp 127.0.0.1:1935", "-source a", "-push a/p", "-mountpoint a", "-admin"]);
    let after = bench.handle.reconcile(Arc::new(Config::default())).await;
    assert_eq!(first(after), "the gateway is stopping");
}

#[tokio::test(start_paused = true)]
async fn streams_under_a_template_come_and_go_up_to_its_max() {
    let bench = bench();
    let push = json!([{"url": "rtmp://h/live/{name}", "id": "p"}]);
    let template = json!({"source": {"kind": "publish"}, "max": 2, "push": push});
    bench.reconcile(json!({"s*": template, "stop": {"source": {"kind": "publish"}}})).await.unwrap();
    bench.stage.log();
    bench.handle.instantiate("s1").await.unwrap();
    bench.handle.instantiate("s1").await.expect("again is fine");
    bench.handle.instantiate("s2").await.unwrap();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(bench.stage.log(), ["+mountpoint s1", "+push s1/p", "+mountpoint s2", "+push s2/p"]);
    let full = InstantiateError::Full { template: "s*".to_owned(), max: 2 };
    assert_eq!(bench.handle.instantiate("s3").await, Err(full));
    for name in ["x", "stop", "s/..", "s*"] {
        let none = InstantiateError::NoTemplate { name: name.to_owned() };
        assert_eq!(bench.handle.instantiate(name).await, Err(none));
    }
    bench.handle.retire("s1").await;
    bench.handle.retire("stop").await;
    bench.handle.instantiate("s3").await.unwrap();
    sleep(Duration::from_millis(1)).await;
    let mut log = bench.stage.log();
    log.sort();
    assert_eq!(log, ["+mountpoint s3", "+push s3/p", "-mountpoint s1", "-push s1/p"]);
    assert_eq!(bench.handle.snapshot().instances.keys().collect::<Vec<_>>(), ["s2", "s3"]);
}

#[tokio::test(start_paused = true)]
async fn streams_under_a_template_live_through_changes_elsewhere() {
    let bench = bench();
    let template = |grace: &str| json!({"source": {"kind": "publish"}, "grace": grace});
    bench.reconcile(json!({"s*": template("5s")})).await.unwrap();
    bench.handle.instantiate("s1").await.unwrap();
    bench.stage.log();
    bench.reconcile(json!({"s*": template("5s"), "a": test_source(30)})).await.unwrap();
    assert_eq!(bench.stage.log(), ["+mountpoint a", "+source a"]);
    bench.reconcile(json!({"s*": template("9s"), "a": test_source(30)})).await.unwrap();
    assert_eq!(bench.stage.log(), ["-mountpoint s1", "+mountpoint s1"]);
    bench.reconcile(json!({"a": test_source(30)})).await.unwrap();
    assert_eq!(bench.stage.log(), ["-mountpoint s1"]);
    assert!(bench.handle.snapshot().instances.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_would_exceed_the_memory_is_refused() {
    let bench = bench();
    let ring = json!({"bytes": 100 << 20});
    bench.reconcile(json!({"s*": {"source": {"kind": "publish"}, "ring": ring}})).await.unwrap();
    bench.handle.instantiate("s1").await.unwrap();
    bench.handle.instantiate("s2").await.unwrap();
    let refused = InstantiateError::NoMemory { needed: 100 << 20, budget: 256 << 20 };
    assert_eq!(bench.handle.instantiate("s3").await, Err(refused));
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_mountpoint_fails_says_why() {
    let bench = bench();
    bench.stage.act("mountpoint s1", Act::Fail(Retry::Backoff));
    bench.reconcile(json!({"s*": {"source": {"kind": "publish"}}})).await.unwrap();
    let failed = InstantiateError::Start { name: "s1".to_owned(), cause: "no luck".to_owned() };
    assert_eq!(bench.handle.instantiate("s1").await, Err(failed));
}

#[tokio::test(start_paused = true)]
async fn a_source_waits_for_its_mountpoint() {
    let bench = bench();
    bench.stage.act("mountpoint a", Act::Slow(Duration::from_secs(3)));
    let before = Instant::now();
    bench.reconcile(json!({"a": test_source(30)})).await.unwrap();
    assert_eq!(before.elapsed(), Duration::from_secs(3));
    assert_eq!(bench.stage.log(), ["+mountpoint a", "+rtmp 127.0.0.1:1935", "+source a"]);
    bench.stage.act("mountpoint b", Act::Fail(Retry::Backoff));
    let text = first(bench.reconcile(json!({"b": test_source(30)})).await);
    assert!(text.starts_with("mountpoints.b: mountpoint b does not start: no luck"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn the_steward_sees_what_delivers() {
    use crate::steward::Reconcile;
    use fieldgate_model::config::Part;
    let bench = bench();
    bench.stage.act("source b", Act::Fail(Retry::Backoff));
    let mut running =
        Supervised::new(bench.handle.clone(), |key: &ChildKey| key.to_string() != "source silent");
    let to = config(json!({
        "a": test_source(30), "b": test_source(30), "silent": test_source(30), "pub": {"source": {"kind": "publish"}},
    }));
    running.reconcile(&Config::default(), &to).await.unwrap();
    let healthy: Vec<String> = running.healthy().iter().map(ToString::to_string).collect();
    assert_eq!(
        healthy,
        [
            "rtmp.listen",
            "mountpoint a",
            "mountpoint b",
            "mountpoint pub",
            "mountpoint silent",
            "source of a",
            "source of pub"
        ]
    );
    bench.stage.act("rtmp 127.0.0.1:1935", Act::Work);
    assert!(!running.healthy().contains(&Part::AdminListen));
}

#[tokio::test(start_paused = true)]
async fn renditions_come_and_go_without_touching_others_and_outlive_other_changes() {
    let bench = bench();
    let two = |bytes: u64| {
        let mut a = test_source(30);
        a["ring"] = json!({ "bytes": bytes });
        json!({"a": a, "b": test_source(30)})
    };
    let rendition = |of: &str| RenditionKey { of: of.to_owned(), name: "aac".to_owned() };
    let made = |video| Made { video, audio: MadeSound::Encode(fieldgate_model::job::SoundCodec::Aac) };
    let wanted = |video| [(rendition("a"), made(video)), (rendition("gone"), made(None))].into();
    bench.reconcile(two(1 << 20)).await.unwrap();
    bench.stage.log();
    bench.handle.set_renditions(wanted(None)).await;
    sleep(Duration::from_millis(10)).await;
    assert_eq!(
        bench.stage.log(),
        ["+mountpoint a~aac", "+rendition a~aac"],
        "of what there is, ground first"
    );
    bench.handle.set_renditions(wanted(None)).await;
    bench.reconcile(json!({"a": two(1 << 20)["a"]})).await.unwrap();
    assert_eq!(bench.stage.log(), ["-mountpoint b", "-source b"], "the same again, and a change elsewhere");
    // Made of a mountpoint with other bounds it is another.
    bench.reconcile(two(1 << 21)).await.unwrap();
    assert_eq!(bench.activity("rendition a~aac").starts, 1);
    assert_eq!(bench.stage.starts("rendition a~aac").len(), 2);
    bench.stage.log();
    bench.handle.set_renditions(wanted(Some(fieldgate_model::job::PictureCodec::H264))).await;
    sleep(Duration::from_millis(10)).await;
    assert_eq!(bench.stage.log(), ["-rendition a~aac", "+rendition a~aac"], "its place stays");
    bench.handle.set_renditions(BTreeMap::new()).await;
    sleep(Duration::from_millis(10)).await;
    let mut log = bench.stage.log();
    log.sort();
    assert_eq!(log, ["-mountpoint a~aac", "-rendition a~aac"]);
    bench.cancel.cancel();
    bench.task.await.unwrap();
}
