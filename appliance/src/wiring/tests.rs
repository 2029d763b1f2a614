//! The real wiring under the real supervisor, without workers.

use super::*;
use crate::supervisor::{Supervisor, SupervisorHandle};
use fieldgate_hub::{Action, Admit as _, Pulses, Registry, Request, Verdict};
use fieldgate_model::Config;
use fieldgate_model::status::State;
use fieldgate_net::RtmpForm;
use serde_json::{Value, json};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A folder that nobody else has; nothing is written there unless a test pushes.
fn spool_folder() -> PathBuf {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    std::env::temp_dir().join(format!("fieldgate-wiring-{}-{number}", std::process::id()))
}

struct Bench {
    wiring: Wiring,
    supervisor: SupervisorHandle,
    cancel: CancellationToken,
    running: tokio::task::JoinSet<()>,
}

impl Bench {
    fn start() -> Self {
        let cancel = CancellationToken::new();
        let pulses = Pulses::default();
        let shard = Shard::start(0, &pulses, cancel.clone()).unwrap();
        let admission = Arc::new(Admission::default());
        let clock = crate::clock::wall_clock(None);
        let spawner = Spawner::start().unwrap();
        let (_, rtmp_settings) = watch::channel(Arc::default());
        let context = Context {
            registry: Arc::new(Registry::new(1, Arc::new(RtmpForm))),
            shards: vec![shard].into(),
            admit: admission.clone(),
            clock: clock.clone(),
            pulses: pulses.clone(),
            cancel: CancellationToken::new(),
        };
        let (sight, _) = Sight::new(&context, &spawner);
        let (encoders, board) = (Arc::new(Encoders::new(spawner.clone())), Arc::new(Board::default()));
        let capacity = Arc::new(Capacity::new(
            encoders.clone(),
            context.registry.clone(),
            board.clone(),
            clock.clone(),
            capacity::Sensors::new("/"),
        ));
        let masks = MaskDesk::in_memory(context.registry.clone(), capacity.clone());
        let wiring = Wiring {
            access: crate::access::tests::for_tests().0,
            sight,
            capacity,
            masks: Arc::new(masks),
            devices: Arc::default(),
            kmp_control: Arc::new(KmpControl::new(&context, Default::default(), Arc::new(()))),
            encoders,
            transports: Arc::default(),
            cameras: Arc::new(Cameras::new(clock.clone())),
            coordinator: Arc::new(Coordinator::new(&context, spool_folder())),
            control: Arc::new(Control::new(&context)),
            mesh: Arc::new(Mesh::new(&context, Default::default(), spool_folder(), Default::default())),
            aggregator: Arc::new(Aggregator::new(&context, Default::default(), board.clone())),
            spawner,
            limits: ConnectionLimits::new(64, 64),
            rtmp_counters: Arc::default(),
            rtmp_settings,
            kmp_in: KmpIn::new(&Config::default()),
            viewers: Viewers::new(context.clone(), Arc::default()).0,
            sizes: Sizes::new().0,
            context,
            board,
            spool: Arc::new(Spool::start(spool_folder(), clock.clone()).unwrap()),
            admission,
            admin_api: Arc::default(),
            certificates: Arc::new(CertificateDesk::new(
                &std::env::temp_dir(),
                Box::new(crate::store::sim::SimFs::default()),
                crate::local_name::LocalName::new("fg-7f3a"),
            )),
            machine: Arc::new(machine::Desk::new("/none/such".into())),
            recordings_folder: std::env::temp_dir(),
            encoder_folder: std::env::temp_dir(),
            leaving: TaskTracker::new(),
            socket_folder: std::env::temp_dir(),
        };
        let supervisor = Supervisor {
            start: Arc::new(wiring.clone()),
            clock,
            pulse: pulses.watch("supervisor", Duration::from_secs(60)),
            machine_memory_bytes: None,
            jitter: Box::new(|| 0.5),
        };
        let (supervisor, running) = supervisor.run(cancel.clone());
        wiring.admission.decide_by(supervisor.clone(), wiring.context.registry.clone());
        let mut running: tokio::task::JoinSet<()> = [running].into_iter().collect();
        let (capacity, following, keeping) = (wiring.capacity.clone(), supervisor.clone(), cancel.clone());
        running.spawn(async move { capacity.run(following, keeping).await });
        Bench { wiring, supervisor, cancel, running }
    }

    async fn apply(&self, mountpoints: Value) {
        let config = json!({
            "rtmp": {"listen": ["127.0.0.1:0"]}, "admin": {"listen": []}, "mountpoints": mountpoints
        });
        self.supervisor.reconcile(Arc::new(Config::from_value(config).unwrap())).await.unwrap();
    }

    async fn end(self) {
        self.cancel.cancel();
        self.running.join_all().await;
    }
}

#[tokio::test]
async fn a_push_that_cannot_work_fails_by_itself_and_says_why() {
    let bench = Bench::start();
    bench
        .apply(json!({"yard": {"source": {"kind": "publish"}, "push": [
            {"url": "rtmp://127.0.0.1:1/live/yard", "id": "r"},
            {"url": "kmp://127.0.0.1:6543", "channel_id": "yard", "id": "k"},
            {"url": "kmp://127.0.0.1:6543/yard", "channel_id": "yard", "id": "path"},
        ]}}))
        .await;
    let snapshot = bench.supervisor.snapshot();
    let push = |id: &str| {
        let key = ChildKey::Push { mountpoint: "yard".into(), id: id.into() };
        snapshot.children[&key].clone()
    };
    assert_eq!(push("path").state, State::Failed);
    assert!(push("path").cause.unwrap().starts_with("a KMP address has nothing behind its port"));
    assert_eq!(push("k").state, State::Running);
    assert_eq!(push("r").state, State::Running);
    assert!(bench.wiring.admission.knows_application("live"));
    bench.end().await;
}

fn request(action: Action, name: &str, key: &str) -> Request {
    Request {
        action,
        peer: [127, 0, 0, 1].into(),
        app: "live".into(),
        name: name.into(),
        key: Some(key.into()),
        client: None,
        revoked: Arc::default(),
    }
}

#[tokio::test]
async fn who_would_not_be_admitted_any_more_is_sent_away() {
    let bench = Bench::start();
    let yard = |publish: &str, play: Value| {
        json!({"yard": {"source": {"kind": "publish", "key": publish}, "play": play},
               "s*": {"source": {"kind": "publish", "key": publish}}})
    };
    bench.apply(yard("old", json!({"key": "view"}))).await;
    let admission = &bench.wiring.admission;
    let publisher = request(Action::Publish, "yard", "old");
    let of_template = request(Action::Publish, "s1", "old");
    let player = request(Action::Play, "yard", "view");
    let left = request(Action::Play, "yard", "view");
    for request in [&publisher, &of_template, &player, &left] {
        assert!(matches!(admission.admit(request.clone()).await, Verdict::Allow { .. }));
    }
    drop(left);
    let is_gone = |request: &Request| request.revoked.is_cancelled();
    admission.enforce();
    assert!(![&publisher, &of_template, &player].into_iter().any(is_gone), "nothing has changed");

    bench.apply(yard("new", json!({"key": "view"}))).await;
    admission.enforce();
    assert!(is_gone(&publisher) && is_gone(&of_template), "another key");
    assert!(!is_gone(&player), "what concerns others is not its matter");
    assert!(matches!(admission.admit(publisher).await, Verdict::Deny { .. }));

    bench.apply(yard("new", json!({"key": "view", "allow": ["127.0.0.0/8"]}))).await;
    admission.enforce();
    assert!(!is_gone(&player), "it fits the tighter list");
    bench.apply(yard("new", json!({"key": "closed"}))).await;
    admission.enforce();
    assert!(is_gone(&player));
    bench.end().await;
}
