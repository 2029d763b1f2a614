mod cuts;

use super::*;
use crate::store::{Meta, StoreFs};
use fieldgate_hub::Pulses;
use fieldgate_model::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

/// Files in memory, on a disk that may be full.
#[derive(Clone, Default)]
struct Files(Arc<Mutex<Disk>>);

#[derive(Clone, Default)]
struct Disk {
    files: BTreeMap<String, Vec<u8>>,
    full: bool,
}

impl Files {
    fn has(&self, name: &str) -> bool {
        self.0.lock().unwrap().files.contains_key(name)
    }

    fn fill_disk(&self, full: bool) {
        self.0.lock().unwrap().full = full;
    }
}

impl StoreFs for Files {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().unwrap().files.keys().cloned().collect())
    }
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap().files.get(name).cloned())
    }
    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        if disk.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.files.insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }
    fn sync_file(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        let bytes = disk.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        disk.files.insert(to.to_owned(), bytes);
        Ok(())
    }
    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.0.lock().unwrap().files.remove(name);
        Ok(())
    }
    fn sync_dir(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A running side that remembers what runs, and starts or delivers as it is told.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<FakeState>>);

#[derive(Default)]
struct FakeState {
    runs: Config,
    reconciled: usize,
    refuse: Vec<Problem>,
    healthy: BTreeSet<Part>,
    takes: Duration,
}

impl Fake {
    fn with<T>(&self, look: impl FnOnce(&mut FakeState) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }
}

impl Reconcile for Fake {
    async fn reconcile(&mut self, from: &Config, to: &Config) -> Result<(), Vec<Problem>> {
        let takes = self.with(|state| {
            assert_eq!(state.runs, *from, "told what runs");
            state.runs = to.clone();
            state.reconciled += 1;
            state.takes
        });
        tokio::time::sleep(takes).await;
        let refuse = self.with(|state| std::mem::take(&mut state.refuse));
        if refuse.is_empty() { Ok(()) } else { Err(refuse) }
    }

    fn healthy(&self) -> BTreeSet<Part> {
        self.with(|state| state.healthy.clone())
    }
}

struct Bench {
    steward: StewardHandle,
    running: Fake,
    files: Files,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn base() -> Config {
    config(json!({"yard": {"source": {"kind": "publish", "key": "KEY"}}}))
}

fn config(mountpoints: Value) -> Config {
    serde_json::from_value(json!({"mountpoints": mountpoints})).unwrap()
}

fn with_source(kind: Value) -> Config {
    config(json!({"yard": {"source": kind}}))
}

#[allow(clippy::disallowed_methods, reason = "the test is the task's owner")]
fn bench() -> Bench {
    let files = Files::default();
    let (mut store, _) = Store::open(Box::new(files.clone())).unwrap();
    store.write_candidate(&base(), "first", Timestamp::default()).unwrap();
    let meta = store.promote().unwrap();
    let running = Fake::default();
    running.with(|state| state.runs = base());
    let steward = Steward {
        store,
        confirmed: Confirmed { config: base(), meta },
        running: running.clone(),
        clock: Clock::default(),
        pulse: Pulses::default().watch("steward", Duration::from_secs(30)),
        confirm_within: Duration::from_secs(90),
        machine_memory_bytes: None,
    };
    let cancel = CancellationToken::new();
    let (steward, task) = steward.start(cancel.clone());
    Bench { steward, running, files, cancel, task: tokio::spawn(task) }
}

impl Bench {
    async fn put(&self, config: &Config, over: u64) -> Result<Applied, ChangeError> {
        self.steward.change(put(config, Some(over))).unwrap().wait().await
    }

    async fn confirm(&self) -> Result<Applied, ChangeError> {
        self.steward.confirm(Proof::Opened(Instant::now())).unwrap().wait().await
    }

    /// What a restart would find.
    fn stored(&self) -> (Config, Meta) {
        let files = Files(Arc::new(Mutex::new(self.files.0.lock().unwrap().clone())));
        let confirmed = Store::open(Box::new(files)).unwrap().1.confirmed.unwrap();
        (confirmed.config, confirmed.meta)
    }

    fn phase(&self) -> ConfigPhase {
        self.steward.view().status.phase
    }
}

fn put(config: &Config, over: Option<u64>) -> Request {
    Request { edit: Edit::Replace(Box::new(config.clone())), over, by: "api".to_owned(), dry_run: false }
}

fn add(name: &str) -> Command {
    let mountpoint = serde_json::from_value(json!({"source": {"kind": "publish"}})).unwrap();
    Command::AddMountpoint { name: name.to_owned(), mountpoint }
}

async fn millis(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

#[tokio::test(start_paused = true)]
async fn an_addition_is_confirmed_at_once_and_on_flash() {
    let bench = bench();
    let mut to = base();
    to.mountpoints.extend(config(json!({"demo": {"source": {"kind": "test"}}})).mountpoints);
    assert_eq!(bench.put(&to, 1).await, Ok(Applied::Confirmed { revision: 2 }));
    assert_eq!(bench.stored().0, to);
    assert_eq!(bench.stored().1.by, "api");
    assert_eq!(bench.running.with(|state| state.runs.clone()), to);
    let view = bench.steward.view();
    assert_eq!(
        (view.status.revision, view.confirmed.meta.revision, view.status.changed_by.as_str()),
        (2, 2, "api")
    );
}

#[tokio::test(start_paused = true)]
async fn the_same_config_again_changes_nothing() {
    let bench = bench();
    assert_eq!(bench.put(&base(), 1).await, Ok(Applied::Confirmed { revision: 1 }));
    assert_eq!(bench.running.with(|state| state.reconciled), 0);
}

#[tokio::test(start_paused = true)]
async fn a_change_says_which_revision_it_replaces() {
    let bench = bench();
    let to = with_source(json!({"kind": "test"}));
    assert_eq!(bench.put(&to, 7).await, Err(ChangeError::Stale { current: 1 }));
    let without = bench.steward.change(put(&to, None)).unwrap().wait().await;
    assert_eq!(without, Err(ChangeError::MissingRevision));
}

#[tokio::test(start_paused = true)]
async fn a_config_that_cannot_run_is_refused_with_all_problems_and_leaves_no_trace() {
    let bench = bench();
    let to = config(json!({"a b": {"source": {"kind": "test", "width": 17}}}));
    let Err(ChangeError::Invalid(problems)) = bench.put(&to, 1).await else { panic!("it must be refused") };
    assert_eq!(problems.len(), 2);
    assert!(!bench.files.has("candidate.json"));
    assert_eq!(bench.running.with(|state| state.reconciled), 0);
}

#[tokio::test(start_paused = true)]
async fn a_changed_source_waits_for_a_confirmation_over_a_new_connection() {
    let bench = bench();
    let old_connection = Instant::now();
    millis(1).await;
    let to = with_source(json!({"kind": "test"}));
    let within = Duration::from_secs(90);
    let applied = bench.put(&to, 1).await;
    assert_eq!(applied, Ok(Applied::AwaitingConfirm { revision: 2, within, unhealthy: vec![] }));
    assert_eq!(bench.phase(), ConfigPhase::AwaitingConfirm);
    assert_eq!(*bench.steward.view().running, to);
    assert_eq!(bench.steward.view().confirmed.config, base());
    assert_eq!(bench.stored().0, base(), "not confirmed yet");
    let too_old = bench.steward.confirm(Proof::Opened(old_connection)).unwrap().wait().await;
    assert_eq!(too_old, Err(ChangeError::OldConnection));
    millis(1).await;
    assert_eq!(bench.confirm().await, Ok(Applied::Confirmed { revision: 2 }));
    assert_eq!(bench.stored().0, to);
    assert_eq!(bench.confirm().await, Err(ChangeError::NothingPending));
}

#[tokio::test(start_paused = true)]
async fn an_unconfirmed_change_is_undone_at_its_deadline() {
    let bench = bench();
    bench.put(&with_source(json!({"kind": "test"})), 1).await.unwrap();
    millis(89_000).await;
    assert_eq!(bench.phase(), ConfigPhase::AwaitingConfirm);
    millis(2_000).await;
    assert_eq!(bench.phase(), ConfigPhase::Confirmed);
    assert_eq!(bench.running.with(|state| state.runs.clone()), base());
    assert!(!bench.files.has("candidate.json"));
    let undone = bench.steward.view().status.rolled_back.unwrap();
    assert_eq!(
        (undone.by.as_str(), undone.causes[0].problem.as_str()),
        ("api", "was not confirmed within 90 s")
    );
    assert_eq!(
        bench.put(&with_source(json!({"kind": "test"})), 1).await.map(|_| ()),
        Ok(()),
        "a new try may follow"
    );
}

#[tokio::test(start_paused = true)]
async fn a_confirmed_change_stands_only_when_what_was_healthy_delivers_again() {
    let bench = bench();
    let source = Part::Source { name: "yard".to_owned() };
    let elsewhere = Part::Source { name: "gate".to_owned() };
    bench.running.with(|state| state.healthy = BTreeSet::from([source.clone(), elsewhere]));
    bench.put(&with_source(json!({"kind": "test"})), 1).await.unwrap();
    bench.running.with(|state| state.healthy.clear());
    millis(1_000).await;
    let Ok(Applied::AwaitingConfirm { unhealthy, .. }) = bench.confirm().await else {
        panic!("it must wait")
    };
    assert_eq!(unhealthy, ["source of yard"], "a camera elsewhere that reboots by chance does not count");
    assert_eq!(bench.steward.view().status.pending.unwrap().unhealthy, ["source of yard"]);
    bench.running.with(|state| state.healthy.insert(source));
    millis(1_000).await;
    assert_eq!((bench.phase(), bench.steward.view().status.revision), (ConfigPhase::Confirmed, 2));
}

#[tokio::test(start_paused = true)]
async fn a_confirmed_change_that_never_delivers_is_undone_and_says_what() {
    let bench = bench();
    bench.running.with(|state| state.healthy.insert(Part::Source { name: "yard".to_owned() }));
    bench.put(&with_source(json!({"kind": "test"})), 1).await.unwrap();
    bench.running.with(|state| state.healthy.clear());
    millis(1_000).await;
    bench.confirm().await.unwrap();
    millis(90_000).await;
    let undone = bench.steward.view().status.rolled_back.unwrap();
    assert_eq!(undone.causes.len(), 1);
    assert!(undone.causes[0].problem.starts_with("source of yard delivered before"), "{:?}", undone.causes);
    assert_eq!(bench.stored().0, base());
}

#[tokio::test(start_paused = true)]
async fn a_change_that_does_not_start_is_undone_with_its_causes() {
    let bench = bench();
    let cause = Problem::new(&fieldgate_model::config::Path::mountpoint("demo"), "no such device");
    bench.running.with(|state| state.refuse = vec![cause.clone()]);
    let mut to = base();
    to.mountpoints.extend(config(json!({"demo": {"source": {"kind": "test"}}})).mountpoints);
    assert_eq!(bench.put(&to, 1).await, Err(ChangeError::Invalid(vec![cause])));
    assert_eq!(bench.running.with(|state| (state.runs.clone(), state.reconciled)), (base(), 2));
    assert_eq!(bench.stored().0, base());
    assert!(!bench.files.has("candidate.json"));
    assert!(bench.steward.view().status.rolled_back.is_some());
}

#[tokio::test(start_paused = true)]
async fn while_a_change_waits_another_is_refused_but_commands_wait_with_it() {
    let bench = bench();
    bench.put(&with_source(json!({"kind": "test"})), 1).await.unwrap();
    assert_eq!(bench.put(&base(), 1).await, Err(ChangeError::Pending));
    let steward = bench.steward.clone();
    let (wish, confirm) = tokio::join!(steward.command(add("late"), "aggregator"), async {
        millis(5_000).await;
        bench.confirm().await
    });
    assert_eq!(confirm, Ok(Applied::Confirmed { revision: 2 }));
    assert_eq!(wish, Ok(Applied::Confirmed { revision: 3 }));
    assert!(bench.stored().0.mountpoints.contains_key("late"));
    assert_eq!(bench.stored().0.mountpoints["yard"].source.kind(), "test");
}

#[tokio::test(start_paused = true)]
async fn twenty_commands_at_once_all_succeed() {
    let bench = bench();
    let wishes = (0..20).map(|n| {
        let steward = bench.steward.clone();
        async move { steward.command(add(&format!("cam{n}")), "aggregator").await }
    });
    for outcome in futures_util::future::join_all(wishes).await {
        outcome.unwrap();
    }
    assert_eq!(bench.stored().0.mountpoints.len(), 21);
    assert_eq!(bench.stored().1.revision, 21);
    let again = bench.steward.command(add("cam7"), "aggregator").await;
    assert_eq!(again, Ok(Applied::Confirmed { revision: 21 }), "the same wish again changes nothing");
}

#[tokio::test(start_paused = true)]
async fn a_full_inbox_is_said_at_once() {
    let bench = bench();
    bench.running.with(|state| state.takes = Duration::from_secs(10));
    let mut answers = Vec::new();
    let mut refused = 0;
    for _ in 0..INBOX + 5 {
        match bench.steward.change(put(&with_source(json!({"kind": "test"})), Some(1))) {
            Ok(answer) => answers.push(answer),
            Err(error) => {
                assert_eq!(error, ChangeError::Busy);
                refused += 1;
            }
        }
    }
    assert_eq!((answers.len(), refused), (INBOX, 5));
    let mut outcomes = Vec::new();
    for answer in answers {
        outcomes.push(answer.wait().await);
    }
    assert!(outcomes[0].is_ok());
    assert!(outcomes[1..].iter().all(|outcome| *outcome == Err(ChangeError::Pending)));
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_only_looks() {
    let bench = bench();
    let request = Request { dry_run: true, ..put(&with_source(json!({"kind": "test"})), Some(1)) };
    let outcome = bench.steward.change(request).unwrap().wait().await.unwrap();
    assert!(matches!(outcome, Applied::WouldApply { needs_confirm: true, .. }));
    assert_eq!(bench.running.with(|state| state.reconciled), 0);
    assert!(!bench.files.has("candidate.json"));
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_the_change_before_anything_runs() {
    let bench = bench();
    bench.files.fill_disk(true);
    let Err(ChangeError::Store(text)) = bench.put(&with_source(json!({"kind": "test"})), 1).await else {
        panic!("it must be refused")
    };
    assert!(text.contains("free some space"), "{text}");
    assert_eq!(bench.running.with(|state| state.reconciled), 0);
    bench.files.fill_disk(false);
    bench.put(&with_source(json!({"kind": "test"})), 1).await.unwrap();
    bench.files.fill_disk(true);
    millis(1).await;
    assert!(matches!(bench.confirm().await, Err(ChangeError::Store(_))));
    assert_eq!(bench.running.with(|state| state.runs.clone()), base(), "what cannot be kept does not run on");
    assert_eq!(bench.stored().0, base());
}

#[tokio::test(start_paused = true)]
async fn secrets_that_are_sent_back_as_shown_are_kept() {
    let bench = bench();
    let mut shown: Config = serde_json::from_value(serde_json::to_value(base()).unwrap()).unwrap();
    shown.mountpoints.extend(config(json!({"demo": {"source": {"kind": "test"}}})).mountpoints);
    bench.put(&shown, 1).await.unwrap();
    assert!(bench.stored().0.stored().unwrap().to_string().contains(r#""key":"KEY""#));
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_a_change_waits_leaves_the_old_config() {
    let bench = bench();
    bench.put(&with_source(json!({"kind": "test"})), 1).await.unwrap();
    bench.cancel.cancel();
    bench.task.await.unwrap();
    assert!(bench.files.has("candidate.json"));
    let (_, boot) = Store::open(Box::new(bench.files.clone())).unwrap();
    assert_eq!(boot.confirmed.unwrap().config, base());
    assert_eq!(boot.notices[0].code, "candidate_dropped");
    assert!(matches!(bench.steward.confirm(Proof::HealthAlone), Err(ChangeError::Stopping)));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_waits_can_be_undone_by_hand() {
    let bench = bench();
    bench.put(&with_source(json!({"kind": "test"})), 1).await.unwrap();
    let outcome = bench.steward.roll_back("installer").unwrap().wait().await;
    assert_eq!(outcome, Ok(Applied::Confirmed { revision: 1 }));
    assert_eq!(bench.running.with(|state| state.runs.clone()), base());
    assert_eq!(bench.steward.view().status.rolled_back.unwrap().causes[0].problem, "undone by installer");
}
