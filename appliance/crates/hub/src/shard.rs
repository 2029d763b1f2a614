//! The media plane's threads: each a single-threaded runtime on which a mountpoint, its publisher's connection and its
//! subscribers' sockets live together, so that no unit crosses a thread.

use crate::{Pulses, SinkList};
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// One read takes at most this much; a publisher yields after it, so that it cannot starve its shard.
pub const SCRATCH_BYTES: usize = 256 << 10;
/// Jobs that may wait for a shard; whoever hands in more waits.
const INBOX_JOBS: usize = 64;
/// A shard that finishes no round for this long is stuck.
const MAX_SILENCE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce(Rc<LocalShard>) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// Why a job on a shard has no result.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The thread could not be started.
    #[error("media thread {index} could not be started: {source}")]
    Start {
        /// Which one.
        index: usize,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The shard has ended.
    #[error("media thread {index} has stopped")]
    Stopped {
        /// Which one.
        index: usize,
    },
    /// The job panicked.
    #[error("a task on media thread {index} panicked; see the log for where")]
    Panicked {
        /// Which one.
        index: usize,
    },
}

/// What the tasks on one shard share. Never leaves its thread.
pub struct LocalShard {
    index: usize,
    scratch: RefCell<Box<[u8]>>,
    sinks: RefCell<HashMap<String, Rc<SinkList>>>,
    epoch: Instant,
    beats: RefCell<HashMap<Duration, Weak<Notify>>>,
}

/// When outputs that gather may write: at the same moments on the whole shard, so that one wake-up serves all of them.
#[derive(Clone, Copy, Debug)]
pub struct Beat {
    epoch: Instant,
    period: Duration,
}

impl Beat {
    /// The time between two moments; zero: any moment will do.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// The last such moment that is not after `now`.
    pub fn before(&self, now: Instant) -> Instant {
        let since = now.saturating_duration_since(self.epoch).as_nanos();
        let into = since.checked_rem(self.period.as_nanos()).unwrap_or_default();
        // A period is an hour at most, and so is what it leaves over.
        now - Duration::from_nanos(u64::try_from(into).unwrap_or_default())
    }

    /// The first such moment that is after `now`.
    pub fn after(&self, now: Instant) -> Instant {
        self.before(now) + self.period
    }
}

/// Waits for the moments of a [`Beat`].
#[derive(Clone, Debug)]
pub struct Beats {
    moment: Rc<Notify>,
}

impl Beats {
    /// Waits for the next one.
    pub async fn next(&self) {
        self.moment.notified().await;
    }
}

impl LocalShard {
    /// A shard's local part, for tests that bring their own runtime.
    pub fn new(index: usize) -> Rc<Self> {
        Rc::new(LocalShard {
            index,
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()),
            sinks: RefCell::default(),
            epoch: Instant::now(),
            beats: RefCell::default(),
        })
    }

    /// To wait for the moments of [`LocalShard::beat`]: one timer serves all who do so on this shard. To be called on a
    /// shard's thread.
    pub fn beats(&self, period: Duration) -> Beats {
        let known = self.beats.borrow().get(&period).and_then(Weak::upgrade);
        let moment = known.unwrap_or_else(|| {
            let moment = Rc::new(Notify::new());
            let mut beats = self.beats.borrow_mut();
            beats.retain(|_, moment| moment.strong_count() > 0);
            beats.insert(period, Rc::downgrade(&moment));
            let (waiting, beat) = (Rc::downgrade(&moment), self.beat(period));
            // Ends when nobody follows the beat any more.
            drop(tokio::task::spawn_local(async move {
                while waiting.strong_count() > 0 {
                    tokio::time::sleep_until(beat.after(Instant::now())).await;
                    waiting.upgrade().inspect(|moment| moment.notify_waiters());
                }
            }));
            moment
        });
        Beats { moment }
    }

    /// The shard's moments of writing for outputs that gather for `period`.
    pub fn beat(&self, period: Duration) -> Beat {
        Beat { epoch: self.epoch, period }
    }

    /// Its number.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The buffer that all connections of the shard read into. Borrow it only inside one poll.
    pub fn scratch(&self) -> std::cell::RefMut<'_, Box<[u8]>> {
        self.scratch.borrow_mut()
    }

    /// The sinks of a mountpoint on this shard.
    pub fn sinks(&self, mountpoint: &str) -> Rc<SinkList> {
        let mut sinks = self.sinks.borrow_mut();
        if let Some(known) = sinks.get(mountpoint) {
            return known.clone();
        }
        // Instances of template mountpoints come and go under ever new names.
        sinks.retain(|_, list| Rc::strong_count(list) > 1 || !list.is_empty());
        let list = Rc::new(SinkList::default());
        sinks.insert(mountpoint.to_owned(), list.clone());
        list
    }
}

/// A handle to one shard, from any thread.
#[derive(Clone, Debug)]
pub struct Shard {
    index: usize,
    jobs: mpsc::Sender<Job>,
}

impl Shard {
    /// Starts a shard's thread; it ends when `cancel` does and its tasks are dropped.
    pub fn start(index: usize, pulses: &Pulses, cancel: CancellationToken) -> Result<Shard, ShardError> {
        let (jobs, mut inbox) = mpsc::channel::<Job>(INBOX_JOBS);
        let failed = |source| ShardError::Start { index, source };
        let pulses = pulses.clone();
        let work = move || async move {
            let pulse = pulses.watch(format!("media-{index}"), MAX_SILENCE);
            let shared = LocalShard::new(index);
            let mut beat = tokio::time::interval(MAX_SILENCE / 8);
            loop {
                tokio::select! {
                    () = cancel.cancelled() => return,
                    _ = beat.tick() => pulse.beat(),
                    job = inbox.recv() => match job {
                        Some(job) => drop(tokio::task::spawn_local(job(shared.clone()))),
                        None => return,
                    },
                }
            }
        };
        // The runtime is bound to the thread that it was made on.
        let (told, started) = std::sync::mpsc::sync_channel(1);
        let body = move || {
            let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => {
                    // Whoever started us waits for this.
                    told.send(Ok(())).ok();
                    runtime.block_on(work());
                }
                Err(error) => drop(told.send(Err(error))),
            }
        };
        std::thread::Builder::new().name(format!("media-{index}")).spawn(body).map_err(failed)?;
        started.recv().map_err(|_| ShardError::Stopped { index })?.map_err(failed)?;
        Ok(Shard { index, jobs })
    }

    /// Its number.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Runs a future on the shard and returns its result. Dropping the returned future ends the job.
    pub async fn run<T, F, Fut>(&self, make: F) -> Result<T, ShardError>
    where
        T: Send + 'static,
        F: FnOnce(Rc<LocalShard>) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        let index = self.index;
        let (result, outcome) = oneshot::channel();
        let job: Job = Box::new(move |shard| {
            let work = make(shard);
            Box::pin(async move {
                let mut result = result;
                // The work first: who gave up on it is asked for only when the work waits.
                tokio::select! {
                    biased;
                    value = work => drop(result.send(value)),
                    () = result.closed() => {}
                }
            })
        });
        self.jobs.send(job).await.map_err(|_| ShardError::Stopped { index })?;
        outcome.await.map_err(|_| match self.jobs.is_closed() {
            true => ShardError::Stopped { index },
            false => ShardError::Panicked { index },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[tokio::test(start_paused = true)]
    async fn outputs_that_gather_write_at_the_same_moments() {
        let local = LocalShard::new(0);
        let beat = local.beat(Duration::from_millis(50));
        let start = beat.after(Instant::now());
        for millis in [0, 1, 49] {
            let now = start + Duration::from_millis(millis);
            assert_eq!(beat.before(now), start);
            assert_eq!(local.beat(Duration::from_millis(50)).after(now), start + Duration::from_millis(50));
        }
        let none = local.beat(Duration::ZERO);
        assert_eq!((none.before(start), none.after(start)), (start, start));
    }

    struct Flag(Arc<AtomicBool>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn a_job_runs_on_the_shard_and_ends_with_its_caller() {
        let cancel = CancellationToken::new();
        let shard = Shard::start(3, &Pulses::default(), cancel.clone()).unwrap();
        assert_eq!(shard.run(|local| async move { local.index() }).await.unwrap(), 3);

        let ended = Arc::new(AtomicBool::new(false));
        let flag = Flag(ended.clone());
        let endless = shard.run(move |_| async move {
            let _flag = flag;
            std::future::pending::<()>().await;
        });
        assert!(tokio::time::timeout(Duration::from_millis(20), endless).await.is_err());
        // The next job runs after the shard has seen that the caller is gone.
        while !ended.load(Ordering::SeqCst) {
            shard.run(|_| async { tokio::task::yield_now().await }).await.unwrap();
        }

        let panicked = shard.run(|_| async { panic!("on purpose") }).await;
        assert!(matches!(panicked, Err::<(), _>(ShardError::Panicked { index: 3 })));
        cancel.cancel();
    }
}
