//! Changes that would lock somebody out, with the power cut, or the disk failing, at every step of the store.

use super::*;
use crate::store::sim::{Fail, SimFs};

/// What somebody sends who is tired, wrong, or not somebody who should.
struct Hostile {
    name: &'static str,
    config: Config,
    /// The running side cannot start it.
    starts: bool,
    /// Whoever sent it gets through to confirm it.
    reaches: bool,
    /// What delivers while it runs, of that which delivered before.
    healthy: &'static [&'static str],
}

fn site() -> Config {
    serde_json::from_value(json!({
        "network": {"links": {"eth0": {"dhcp": false, "addresses": ["192.168.1.5/24"], "gateway": "192.168.1.1"}},
                    "uplinks": ["eth0"]},
        "mountpoints": {
            "gate": {"source": {"kind": "rtsp", "url": "rtsp://u:right@cam/main"},
                     "push": [{"id": "up", "url": "rtmp://up/live/gate"}]},
            "yard": {"source": {"kind": "publish", "key": "KEY"}},
        },
    }))
    .unwrap()
}

fn changed(pointer: &str, value: Value) -> Config {
    let mut config = site().stored().unwrap();
    *config.pointer_mut(pointer).expect("the config has this place") = value;
    serde_json::from_value(config).unwrap()
}

const ALL: &[&str] = &["gate", "up"];

fn hostile() -> Vec<Hostile> {
    let of = |name, config, starts, reaches, healthy| Hostile { name, config, starts, reaches, healthy };
    let link = "/network/links/eth0";
    vec![
        of(
            "wrong address",
            changed(&format!("{link}/addresses"), json!(["192.168.1.9/28"])),
            true,
            false,
            &["gate"],
        ),
        of("wrong router", changed(&format!("{link}/gateway"), json!("192.168.1.77")), true, true, &["gate"]),
        of(
            "dead upstream",
            changed("/mountpoints/gate/push/0/url", json!("rtmp://dead/live/gate")),
            true,
            true,
            &["gate"],
        ),
        of(
            "bad codec",
            changed("/mountpoints/gate/source/url", json!("rtsp://u:right@cam/h266")),
            true,
            true,
            &["up"],
        ),
        of(
            "lost password",
            changed("/mountpoints/gate/source/url", json!("rtsp://u:wrong@cam/main")),
            true,
            true,
            &[],
        ),
        of("port taken", changed("/rtmp/listen", json!(["0.0.0.0:22"])), false, true, ALL),
        of("admin plane moved away", changed("/admin/listen", json!(["127.0.0.1:1"])), true, false, ALL),
    ]
}

fn parts(names: &[&str]) -> BTreeSet<Part> {
    let part = |name: &&str| match *name {
        "up" => Part::Push { name: "gate".to_owned(), id: "up".to_owned() },
        name => Part::Source { name: name.to_owned() },
    };
    names.iter().map(part).collect()
}

/// A gateway on this disk, with what runs.
struct Gateway {
    steward: StewardHandle,
    running: Fake,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Gateway {
    #[allow(clippy::disallowed_methods, reason = "the test is the task's owner")]
    fn boot(fs: &SimFs) -> Gateway {
        let (store, boot) =
            Store::open(Box::new(fs.clone())).expect("a gateway starts from whatever a cut leaves");
        let confirmed = boot.confirmed.expect("a config that was confirmed is never lost");
        let running = Fake::default();
        running.with(|state| {
            state.runs = confirmed.config.clone();
            state.healthy = parts(ALL);
        });
        let cancel = CancellationToken::new();
        let steward = Steward {
            store,
            confirmed,
            running: running.clone(),
            clock: Clock::default(),
            pulse: Pulses::default().watch("steward", Duration::from_secs(300)),
            confirm_within: Duration::from_secs(90),
            machine_memory_bytes: None,
        };
        let (steward, task) = steward.start(cancel.clone());
        Gateway { steward, running, cancel, task: tokio::spawn(task) }
    }

    async fn put(&self, config: &Config) -> Result<Applied, ChangeError> {
        let over = self.steward.view().confirmed.meta.revision;
        self.steward.change(put(config, Some(over))).unwrap().wait().await
    }

    /// Somebody sends it, confirms it if he can, and leaves. Whether he was told that it is kept.
    async fn suffer(&self, hostile: &Hostile) -> bool {
        let mut kept = false;
        if !hostile.starts {
            let problem = Problem::new(&fieldgate_model::config::Path::root().field("rtmp"), "taken");
            self.running.with(|state| state.refuse = vec![problem]);
        }
        let sent = self.put(&hostile.config).await;
        if matches!(sent, Ok(Applied::AwaitingConfirm { .. })) {
            self.running.with(|state| state.healthy = parts(hostile.healthy));
            millis(1_000).await;
            if hostile.reaches {
                let said = self.steward.confirm(Proof::Opened(Instant::now())).unwrap().wait().await;
                kept = matches!(said, Ok(Applied::Confirmed { .. }));
            }
            millis(95_000).await;
        }
        self.running.with(|state| {
            state.refuse.clear();
            state.healthy = parts(ALL);
        });
        kept
    }

    /// The installer is there, and what he sends now is taken and kept.
    async fn lets_the_installer_in(&self, case: &str) {
        let mut repaired = self.steward.view().confirmed.config.clone();
        repaired.mountpoints.extend(config(json!({"new": {"source": {"kind": "test"}}})).mountpoints);
        let taken = self.put(&repaired).await;
        assert!(matches!(taken, Ok(Applied::Confirmed { .. })), "{case}: {taken:?}");
        assert_eq!(self.running.with(|state| state.runs.clone()), repaired, "{case}");
    }

    async fn end(self) {
        self.cancel.cancel();
        self.task.await.unwrap();
    }
}

fn disk() -> SimFs {
    let fs = SimFs::default();
    let (mut store, _) = Store::open(Box::new(fs.clone())).unwrap();
    store.write_candidate(&site(), "first", Timestamp::default()).unwrap();
    store.promote().unwrap();
    fs
}

/// Steps that the store takes while somebody sends this.
async fn steps_of(hostile: &Hostile) -> usize {
    let fs = disk();
    let gateway = Gateway::boot(&fs);
    fs.failing(Fail::Never);
    gateway.suffer(hostile).await;
    assert_eq!(
        gateway.running.with(|state| state.runs.clone()),
        site(),
        "{}: what ran runs again",
        hostile.name
    );
    gateway.end().await;
    fs.steps()
}

#[tokio::test(start_paused = true)]
async fn a_cut_at_any_step_of_a_hostile_change_leaves_what_ran_and_lets_the_installer_in() {
    for hostile in hostile() {
        let steps = steps_of(&hostile).await;
        assert!(steps >= 6, "{}: written, and taken back: {steps}", hostile.name);
        for cut in 0..=steps {
            let fs = disk();
            let gateway = Gateway::boot(&fs);
            fs.failing(Fail::CutBefore(cut));
            gateway.suffer(&hostile).await;
            gateway.end().await;
            for after in fs.after_cut() {
                let case = format!("{}, cut before step {cut}", hostile.name);
                let gateway = Gateway::boot(&after);
                assert_eq!(gateway.steward.view().confirmed.config, site(), "{case}");
                gateway.lets_the_installer_in(&case).await;
                gateway.end().await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_full_at_any_step_of_a_hostile_change_leaves_what_ran_and_lets_the_installer_in() {
    for hostile in hostile() {
        for step in 0..steps_of(&hostile).await {
            let case = format!("{}, disk full at step {step}", hostile.name);
            let fs = disk();
            let gateway = Gateway::boot(&fs);
            fs.failing(Fail::Once(step, io::ErrorKind::StorageFull));
            gateway.suffer(&hostile).await;
            assert_eq!(gateway.running.with(|state| state.runs.clone()), site(), "{case}");
            fs.failing(Fail::Never);
            gateway.lets_the_installer_in(&case).await;
            gateway.end().await;
        }
    }
}

/// What the tests above must not forbid: a change that is well, and confirmed, is there after a cut, whole or not at all.
#[tokio::test(start_paused = true)]
async fn a_cut_at_any_step_of_a_good_change_leaves_the_old_or_the_new() {
    let good = changed("/mountpoints/gate/push/0/url", json!("rtmp://other/live/gate"));
    let good = Hostile { name: "good", config: good, starts: true, reaches: true, healthy: ALL };
    let mut kept = 0;
    for cut in 0..30 {
        let fs = disk();
        let gateway = Gateway::boot(&fs);
        fs.failing(Fail::CutBefore(cut));
        let is_kept = gateway.suffer(&good).await;
        gateway.end().await;
        for after in fs.after_cut() {
            let gateway = Gateway::boot(&after);
            let found = gateway.steward.view().confirmed.config.clone();
            assert!(found == good.config || (found == site() && !is_kept), "cut before step {cut}");
            gateway.lets_the_installer_in("a good change").await;
            gateway.end().await;
        }
        kept += usize::from(is_kept);
    }
    assert!(kept > 0, "without a cut it is kept");
}
