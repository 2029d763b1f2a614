//! The supervisor's task: one loop that owns all children.

use super::children::{children_of, rendition_children_of, stream_children_of};
use super::handle::{InstantiateError, Snapshot};
use super::{
    ABORT_WITHIN, Backoff, ChildContext, ChildError, ChildKey, ChildSettings, IDLE_BEAT, Made, Ready,
    RenditionKey, SETTLE_WITHIN, START_WITHIN, STOP_WITHIN, Stage, Supervisor,
};
use crate::clock::timestamp;
use crate::logging::RateLimit;
use fieldgate_hub::{Retry, origin_of};
use fieldgate_model::Config;
use fieldgate_model::config::{Mountpoint, Path, Problem};
use fieldgate_model::status::{Activity, State};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

/// How often a fault that lasts is logged again.
const REPEAT_AFTER: Duration = Duration::from_secs(300);

pub(super) enum Ask {
    Reconcile(Arc<Config>, oneshot::Sender<Result<(), Vec<Problem>>>),
    Instantiate(String, oneshot::Sender<Result<(), InstantiateError>>),
    Retire(String),
    Renditions(BTreeMap<RenditionKey, Made>),
    RetryNow(ChildKey),
}

/// A run of a child that shall go on.
struct Run {
    task: Id,
    abort: AbortHandle,
    cancel: CancellationToken,
    is_ready: Arc<AtomicBool>,
    ready_at: Option<Instant>,
    started_at: Instant,
}

enum Phase {
    /// Starts when these tasks have ended, and its mountpoint is ready if it hangs on one.
    Held(BTreeSet<TaskId>),
    Running(Run),
    Waiting(Instant),
    Failed,
}

struct Child {
    settings: ChildSettings,
    phase: Phase,
    backoff: Backoff,
    activity: Activity,
    /// The fault that was logged last, and how often it may be said again.
    complaint: (String, RateLimit),
}

impl Child {
    /// Logs a failure: each new fault at once, one that lasts now and then.
    fn complain(&mut self, key: &ChildKey, error: &ChildError, attempt: u32, wait: Duration, now: Instant) {
        let text = error.to_string();
        let (last, limit) = &mut self.complaint;
        if *last != text {
            *limit = RateLimit::new(REPEAT_AFTER);
            *last = text;
        }
        if let Some(unsaid) = limit.pass(now) {
            warn!(child = %key, attempt, unsaid, retry_in = ?wait, error = %error, "failed");
        }
    }
}

/// A task that was told to end.
struct Leaving {
    key: ChildKey,
    abort: AbortHandle,
    deadline: Instant,
    is_aborted: bool,
}

/// Tokio's ids have no order of their own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct TaskId(u64);

/// A reconcile that has begun.
struct Reconciling {
    /// Children that have not come up yet.
    waiting: BTreeSet<ChildKey>,
    problems: Vec<Problem>,
    /// When the last of what had to stop had stopped.
    since: Option<Instant>,
    reply: oneshot::Sender<Result<(), Vec<Problem>>>,
}

impl Reconciling {
    /// When it is over for what still waits: those that must be ready have failed then, others go on by themselves.
    fn deadline(&self) -> Option<Instant> {
        let must = self.waiting.iter().any(ChildKey::must_be_ready);
        self.since.map(|since| since + if must { START_WITHIN } else { SETTLE_WITHIN })
    }
}

pub(super) struct Desk {
    with: Supervisor,
    shown: watch::Sender<Arc<Snapshot>>,
    config: watch::Sender<Arc<Config>>,
    children: BTreeMap<ChildKey, Child>,
    tasks: JoinSet<Result<(), ChildError>>,
    /// Of every task in `tasks`: its number, and its child while it shall go on.
    ids: HashMap<Id, (TaskId, ChildKey)>,
    next_id: u64,
    leaving: BTreeMap<TaskId, Leaving>,
    stuck: Vec<String>,
    instances: BTreeMap<String, String>,
    renditions: BTreeMap<RenditionKey, Made>,
    instantiating: Vec<(String, oneshot::Sender<Result<(), InstantiateError>>)>,
    reconciling: Option<Reconciling>,
    wake: Arc<Notify>,
    stages: BTreeMap<Stage, CancellationToken>,
}

impl Desk {
    pub(super) fn new(
        with: Supervisor,
        shown: watch::Sender<Arc<Snapshot>>,
        config: watch::Sender<Arc<Config>>,
    ) -> Self {
        Desk {
            with,
            shown,
            config,
            children: BTreeMap::new(),
            tasks: JoinSet::new(),
            ids: HashMap::new(),
            next_id: 0,
            leaving: BTreeMap::new(),
            stuck: Vec::new(),
            instances: BTreeMap::new(),
            renditions: BTreeMap::new(),
            instantiating: Vec::new(),
            reconciling: None,
            wake: Arc::new(Notify::new()),
            stages: Stage::ALL.into_iter().map(|stage| (stage, CancellationToken::new())).collect(),
        }
    }

    pub(super) async fn run(mut self, mut asks: mpsc::Receiver<Ask>, cancel: CancellationToken) {
        let wake = self.wake.clone();
        loop {
            self.with.pulse.beat();
            let due = self.next_due().min(Instant::now() + IDLE_BEAT);
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Some(ended) = self.tasks.join_next_with_id() => self.on_ended(ended),
                () = wake.notified() => {}
                () = tokio::time::sleep_until(due) => {}
                Some(ask) = asks.recv() => self.answer(ask),
            }
            self.advance();
        }
        // What is asked now is answered by the closed inbox.
        drop(asks);
        self.stop_all().await;
    }

    /// Everything that follows from what happened and from the time that has passed.
    fn advance(&mut self) {
        let now = Instant::now();
        self.note_ready(now);
        self.hasten_leaving(now);
        self.start_due(now);
        self.settle_reconcile(now);
        self.settle_instances();
        self.show();
    }

    fn next_due(&self) -> Instant {
        let far = Instant::now() + IDLE_BEAT;
        // What waits for its mountpoint is woken by that, not by time.
        let children = self.children.iter().filter_map(|(key, child)| match child.phase {
            Phase::Waiting(until) if self.has_ground(key) => Some(until),
            _ => None,
        });
        let leaving = self.leaving.values().map(|leaving| leaving.deadline);
        let reconcile = self.reconciling.as_ref().and_then(Reconciling::deadline);
        children.chain(leaving).chain(reconcile).min().unwrap_or(far)
    }

    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Reconcile(config, reply) => self.reconcile(config, reply),
            Ask::Instantiate(name, reply) => match self.instantiate(&name) {
                Ok(()) => self.instantiating.push((name, reply)),
                Err(error) => {
                    reply.send(Err(error)).ok();
                }
            },
            Ask::Retire(name) => {
                if self.instances.remove(&name).is_some() {
                    let of_stream: Vec<ChildKey> =
                        self.children.keys().filter(|key| key.mountpoint() == Some(&name)).cloned().collect();
                    of_stream.iter().for_each(|key| self.dismiss(key));
                }
            }
            Ask::Renditions(wanted) => self.make_renditions(wanted),
            Ask::RetryNow(key) => {
                if let Some(child) = self.children.get_mut(&key)
                    && let Phase::Waiting(until) = &mut child.phase
                {
                    *until = Instant::now();
                }
            }
        }
    }

    fn reconcile(&mut self, config: Arc<Config>, reply: oneshot::Sender<Result<(), Vec<Problem>>>) {
        if let Some(overtaken) = self.reconciling.take() {
            let problem = Problem::new(&Path::root(), "another change came before this one had started");
            overtaken.reply.send(Err(vec![problem])).ok();
        }
        self.instances.retain(|name, template| {
            config.mountpoint_for(name).is_some_and(|(known, _)| known == template.as_str())
        });
        let mut wanted = children_of(&config);
        for (name, template) in &self.instances {
            if let Some(mountpoint) = config.mountpoints.get(template) {
                wanted.extend(stream_children_of(name, mountpoint));
            }
        }
        self.config.send_replace(config);
        wanted.extend(self.rendition_children());
        let differs = |key: &ChildKey, child: &Child| wanted.get(key) != Some(&child.settings);
        let gone: Vec<ChildKey> = self
            .children
            .iter()
            .filter(|(key, child)| differs(key, child))
            .map(|(key, _)| key.clone())
            .collect();
        gone.iter().for_each(|key| self.dismiss(key));
        let mut waiting = BTreeSet::new();
        for (key, settings) in wanted {
            if !self.children.contains_key(&key) {
                waiting.insert(key.clone());
                // Held until all that leaves has left: a port or device may pass from one child to another.
                self.add(key, settings, self.leaving.keys().copied().collect());
            }
        }
        info!(
            stopped = gone.len(),
            started = waiting.len(),
            kept = self.children.len() - waiting.len(),
            "reconcile"
        );
        self.reconciling = Some(Reconciling { waiting, problems: Vec::new(), since: None, reply });
    }

    /// The children of all renditions whose mountpoint there is.
    fn rendition_children(&self) -> BTreeMap<ChildKey, ChildSettings> {
        let config = self.config.borrow();
        let settings_of = |of: &String| config.mountpoints.get(self.instances.get(of).unwrap_or(of));
        let known =
            self.renditions.iter().filter_map(|(key, made)| Some((key, *made, settings_of(&key.of)?)));
        known.flat_map(|(key, made, mountpoint)| rendition_children_of(key, made, mountpoint)).collect()
    }

    fn make_renditions(&mut self, renditions: BTreeMap<RenditionKey, Made>) {
        self.renditions = renditions;
        let wanted = self.rendition_children();
        let is_of_rendition = |key: &ChildKey| match key {
            ChildKey::Rendition(_) => true,
            ChildKey::Mountpoint(name) => origin_of(name) != name,
            _ => false,
        };
        let differs = |key: &ChildKey, child: &Child| wanted.get(key) != Some(&child.settings);
        let gone = self.children.iter().filter(|(key, child)| is_of_rendition(key) && differs(key, child));
        let gone: Vec<ChildKey> = gone.map(|(key, _)| key.clone()).collect();
        gone.iter().for_each(|key| self.dismiss(key));
        for (key, settings) in wanted {
            if !self.children.contains_key(&key) {
                let same = self
                    .leaving
                    .iter()
                    .filter(|(_, leaving)| leaving.key == key)
                    .map(|(id, _)| *id)
                    .collect();
                self.add(key, settings, same);
            }
        }
    }

    fn instantiate(&mut self, name: &str) -> Result<(), InstantiateError> {
        if self.instances.contains_key(name) {
            return Ok(());
        }
        let config = self.config.borrow().clone();
        let found = config.mountpoint_for(name).filter(|(template, _)| template.ends_with('*'));
        let (template, mountpoint) =
            found.ok_or_else(|| InstantiateError::NoTemplate { name: name.to_owned() })?;
        let max = mountpoint.max.unwrap_or(Mountpoint::DEFAULT_MAX);
        let exist = self.instances.values().filter(|of| *of == template).count();
        if exist >= usize::try_from(max).unwrap_or(usize::MAX) {
            return Err(InstantiateError::Full { template: template.to_owned(), max });
        }
        if let Some(budget) = config.memory_budget(self.with.machine_memory_bytes) {
            let used = self.children.values().fold(0_u64, |sum, child| match &child.settings {
                ChildSettings::Mountpoint(settings) => sum.saturating_add(settings.ring.bytes),
                _ => sum,
            });
            if used.saturating_add(mountpoint.ring.bytes) > budget {
                return Err(InstantiateError::NoMemory { needed: mountpoint.ring.bytes, budget });
            }
        }
        self.instances.insert(name.to_owned(), template.to_owned());
        for (key, settings) in stream_children_of(name, mountpoint) {
            // The stream of that name may have been retired just now.
            let same =
                self.leaving.iter().filter(|(_, leaving)| leaving.key == key).map(|(id, _)| *id).collect();
            self.add(key, settings, same);
        }
        Ok(())
    }

    fn add(&mut self, key: ChildKey, settings: ChildSettings, after: BTreeSet<TaskId>) {
        let backoff = Backoff::new(settings.backoff_cap());
        let activity = Activity { since: timestamp(&self.with.clock), ..Activity::default() };
        let complaint = (String::new(), RateLimit::new(REPEAT_AFTER));
        self.children
            .insert(key, Child { settings, phase: Phase::Held(after), backoff, activity, complaint });
    }

    /// Takes a child out and tells its task to end.
    fn dismiss(&mut self, key: &ChildKey) {
        let Some(Child { phase: Phase::Running(run), .. }) = self.children.remove(key) else { return };
        run.cancel.cancel();
        let Some((id, _)) = self.ids.get(&run.task) else { return };
        let deadline = Instant::now() + STOP_WITHIN;
        self.leaving.insert(*id, Leaving { key: key.clone(), abort: run.abort, deadline, is_aborted: false });
    }

    /// Starts what is due and held back by nothing.
    fn start_due(&mut self, now: Instant) {
        let due: Vec<ChildKey> = self
            .children
            .iter()
            .filter(|(key, child)| match &child.phase {
                Phase::Held(after) => !self.is_leaving(after) && self.has_ground(key),
                Phase::Waiting(until) => *until <= now && self.has_ground(key),
                Phase::Running(_) | Phase::Failed => false,
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in starting_order(due) {
            self.start_child(&key, now);
        }
    }

    fn is_leaving(&self, tasks: &BTreeSet<TaskId>) -> bool {
        tasks.iter().any(|id| self.leaving.contains_key(id))
    }

    /// A source, push or rendition needs its mountpoint; what makes a rendition, also the one that it feeds.
    fn has_ground(&self, key: &ChildKey) -> bool {
        let Some(name) = key.mountpoint().filter(|_| key.stage() != Stage::Streams) else { return true };
        let is_there = |name: String| {
            let mountpoint = self.children.get(&ChildKey::Mountpoint(name));
            mountpoint
                .is_some_and(|child| matches!(&child.phase, Phase::Running(run) if run.ready_at.is_some()))
        };
        let feeds = match key {
            ChildKey::Rendition(rendition) => is_there(rendition.mountpoint()),
            _ => true,
        };
        feeds && is_there(name.to_owned())
    }

    fn start_child(&mut self, key: &ChildKey, now: Instant) {
        let Some(child) = self.children.get_mut(key) else { return };
        let cancel = self.stages.get(&key.stage()).map(CancellationToken::child_token).unwrap_or_default();
        let is_ready = Arc::new(AtomicBool::new(false));
        let ready = Ready { is_ready: is_ready.clone(), wake: self.wake.clone() };
        let context = ChildContext { cancel: cancel.clone(), ready };
        let abort = self.tasks.spawn(self.with.start.start(key, &child.settings, context));
        let task = abort.id();
        self.next_id += 1;
        self.ids.insert(task, (TaskId(self.next_id), key.clone()));
        child.phase = Phase::Running(Run { task, abort, cancel, is_ready, ready_at: None, started_at: now });
        child.activity.state = State::Starting;
        child.activity.since = timestamp(&self.with.clock);
        child.activity.starts += 1;
        child.activity.next_attempt = None;
    }

    fn note_ready(&mut self, now: Instant) {
        for (key, child) in &mut self.children {
            if let Phase::Running(run) = &mut child.phase
                && run.ready_at.is_none()
                && run.is_ready.load(Ordering::Acquire)
            {
                run.ready_at = Some(now);
                debug!(child = %key, attempts = child.backoff.attempts(), "ready");
                child.activity.state = State::Running;
                child.activity.since = timestamp(&self.with.clock);
            }
        }
    }

    fn on_ended(&mut self, ended: Result<(Id, Result<(), ChildError>), JoinError>) {
        // A child may say that it is ready and fail before anybody looked.
        self.note_ready(Instant::now());
        let (task, error) = match ended {
            Ok((task, Ok(()))) => (task, ChildError::new(Retry::Backoff, "ended by itself")),
            Ok((task, Err(error))) => (task, error),
            Err(error) => {
                let task = error.id();
                (task, ChildError::new(Retry::Backoff, panic_text(error)))
            }
        };
        let Some((id, key)) = self.ids.remove(&task) else { return };
        if self.leaving.remove(&id).is_some() {
            return;
        }
        self.stuck.retain(|stuck| *stuck != key.to_string());
        let is_current = |child: &&mut Child| matches!(&child.phase, Phase::Running(run) if run.task == task);
        if self.children.get_mut(&key).filter(is_current).is_some() {
            self.on_failed(&key, &error);
        }
    }

    fn on_failed(&mut self, key: &ChildKey, error: &ChildError) {
        let (now, at) = (Instant::now(), timestamp(&self.with.clock));
        let jitter = (self.with.jitter)();
        let Some(child) = self.children.get_mut(key) else { return };
        let Phase::Running(run) = &child.phase else { return };
        let ran = run.ready_at.map_or(Duration::ZERO, |ready_at| now - ready_at);
        // A peer that asks to come again at once, each time, must not make us spin.
        let at_once = error.retry() == Retry::Now && now - run.started_at >= Backoff::FLOOR;
        child.activity.since = at;
        child.activity.cause = Some(error.to_string());
        if error.retry() == Retry::Never {
            warn!(child = %key, error = %error, "failed; only other settings can help");
            child.phase = Phase::Failed;
            child.activity.state = State::Failed;
            child.activity.attempts = child.backoff.attempts() + 1;
        } else {
            let wait = if at_once { Duration::ZERO } else { child.backoff.next(ran, jitter) };
            let wait = wait.max(error.not_before);
            let attempt = child.backoff.attempts();
            child.complain(key, error, attempt, wait, now);
            child.phase = Phase::Waiting(now + wait);
            child.activity.state = State::Retrying;
            child.activity.attempts = attempt;
            child.activity.next_attempt = Some(at.plus(wait));
        }
        if let Some(reconciling) = &mut self.reconciling
            && reconciling.waiting.contains(key)
            && key.must_be_ready()
        {
            reconciling.waiting.remove(key);
            reconciling.problems.push(Problem::new(&key.path(), format!("{key} does not start: {error}")));
        }
    }

    /// Aborts what does not end in time, and leaves behind what not even then ends.
    fn hasten_leaving(&mut self, now: Instant) {
        let mut left_behind = Vec::new();
        for (id, leaving) in self.leaving.iter_mut().filter(|(_, leaving)| leaving.deadline <= now) {
            if leaving.is_aborted {
                error!(child = %leaving.key, "does not stop, not even when aborted; left behind");
                left_behind.push(*id);
            } else {
                warn!(child = %leaving.key, waited = ?STOP_WITHIN, "does not stop; aborted");
                leaving.abort.abort();
                leaving.is_aborted = true;
                leaving.deadline = now + ABORT_WITHIN;
            }
        }
        for id in left_behind {
            if let Some(leaving) = self.leaving.remove(&id) {
                self.stuck.push(leaving.key.to_string());
            }
        }
    }

    fn settle_reconcile(&mut self, now: Instant) {
        let is_held = |child: &Child| matches!(&child.phase, Phase::Held(after) if self.is_leaving(after));
        let any_held = self.children.values().any(is_held);
        let Some(reconciling) = &mut self.reconciling else { return };
        let children = &self.children;
        reconciling.waiting.retain(|key| match children.get(key).map(|child| &child.phase) {
            Some(Phase::Running(run)) => run.ready_at.is_none(),
            Some(Phase::Held(_)) => true,
            // A source or push that failed counts as started; the others were taken out when they failed.
            Some(Phase::Waiting(_) | Phase::Failed) | None => false,
        });
        if reconciling.since.is_none() && !any_held {
            reconciling.since = Some(now);
        }
        if reconciling.deadline().is_some_and(|deadline| deadline <= now) {
            let late = std::mem::take(&mut reconciling.waiting);
            for key in late.into_iter().filter(ChildKey::must_be_ready) {
                let text = format!("{key} is not ready after {} s", START_WITHIN.as_secs());
                reconciling.problems.push(Problem::new(&key.path(), text));
            }
        }
        if reconciling.waiting.is_empty()
            && let Some(Reconciling { problems, reply, .. }) = self.reconciling.take()
        {
            reply.send(if problems.is_empty() { Ok(()) } else { Err(problems) }).ok();
        }
    }

    /// Answers those who wait for a stream's mountpoint.
    fn settle_instances(&mut self) {
        for (name, reply) in std::mem::take(&mut self.instantiating) {
            let child = self.children.get(&ChildKey::Mountpoint(name.clone()));
            let outcome = match child.map(|child| (&child.phase, &child.activity)) {
                Some((Phase::Running(run), _)) if run.ready_at.is_some() => Ok(()),
                Some((Phase::Running(_) | Phase::Held(_), _)) => {
                    self.instantiating.push((name, reply));
                    continue;
                }
                Some((Phase::Waiting(_) | Phase::Failed, activity)) => {
                    Err(InstantiateError::Start { name, cause: activity.cause.clone().unwrap_or_default() })
                }
                None => Err(InstantiateError::NoTemplate { name }),
            };
            reply.send(outcome).ok();
        }
    }

    fn show(&mut self) {
        let children = self.children.iter().map(|(key, child)| (key.clone(), child.activity.clone()));
        let mut snapshot = Snapshot {
            children: children.collect(),
            instances: self.instances.clone(),
            stuck: self.stuck.clone(),
        };
        for leaving in self.leaving.values() {
            let activity = Activity { state: State::Stopping, ..Activity::default() };
            snapshot.children.entry(leaving.key.clone()).or_insert(activity);
        }
        self.shown.send_if_modified(|shown| {
            let differs = **shown != snapshot;
            if differs {
                *shown = Arc::new(snapshot);
            }
            differs
        });
    }

    /// Stops everything, stage by stage.
    async fn stop_all(mut self) {
        for stage in Stage::ALL {
            let of_stage: Vec<ChildKey> =
                self.children.keys().filter(|key| key.stage() == stage).cloned().collect();
            of_stage.iter().for_each(|key| self.dismiss(key));
            if let Some(token) = self.stages.get(&stage) {
                token.cancel();
            }
            let is_of_stage = |leaving: &Leaving| leaving.key.stage() == stage;
            while self.leaving.values().any(is_of_stage) {
                self.with.pulse.beat();
                let due = self.next_due();
                tokio::select! {
                    Some(ended) = self.tasks.join_next_with_id() => self.on_ended(ended),
                    () = tokio::time::sleep_until(due) => {}
                }
                self.hasten_leaving(Instant::now());
                self.show();
            }
            self.show();
        }
        // Dropping the set would wait for none of them, but aborts again; a stuck thread must not hold the exit.
        self.tasks.detach_all();
    }
}

/// Mountpoints before what hangs on them, outputs before inputs, so that nothing is missed; the admin plane first.
fn starting_order(mut keys: Vec<ChildKey>) -> Vec<ChildKey> {
    keys.sort_by_key(|key| std::cmp::Reverse(key.stage()));
    keys
}

fn panic_text(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            format!("panicked: {}", text.unwrap_or_else(|| "without a text".to_owned()))
        }
        Err(error) => error.to_string(),
    }
}
