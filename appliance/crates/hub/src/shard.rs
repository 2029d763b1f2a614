//! The media plane's threads: each a single-threaded runtime on which a mountpoint, its publisher's connection and its
//! subscribers' sockets live together, so that no unit crosses a thread.

use crate::{Pulses, SinkList};
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
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
}

impl LocalShard {
    /// A shard's local part, for tests that bring their own runtime.
    pub fn new(index: usize) -> Rc<Self> {
        Rc::new(LocalShard {
            index,
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()),
            sinks: RefCell::default(),
        })
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
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let pulses = pulses.clone();
        let body = move || {
            let local = LocalSet::new();
            local.block_on(&runtime, async move {
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
            });
        };
        std::thread::Builder::new().name(format!("media-{index}")).spawn(body).map_err(failed)?;
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
                tokio::select! {
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
