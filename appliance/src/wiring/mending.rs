//! How a running source is made to start anew, on order of the ladder.

use super::Wiring;
use super::ladder::Step;
use super::sources::login_of;
use super::transports::other;
use crate::supervisor::{ChildContext, ChildError, Handling};
use fieldgate_hub::Retry;
use fieldgate_model::config::{RtspTransport, Source};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Cameras keep a session that was not ended for up to this long, and some allow only one.
const PAUSE: Duration = Duration::from_secs(10);

/// The sources that run, by mountpoint.
#[derive(Debug, Default)]
pub struct Mending {
    running: Mutex<BTreeMap<String, Arc<Running>>>,
}

#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    order: Mutex<Option<Order>>,
}

/// Why a source is to begin anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Its picture was not the truth.
    Ladder(Step),
    /// Somebody wants it.
    Wish,
}

impl Mending {
    /// Ends a source that runs, so that it starts anew in the way of this step. False: none runs.
    pub(super) fn order(&self, mountpoint: &str, step: Step) -> bool {
        self.end(mountpoint, Order::Ladder(step))
    }

    /// Ends a source that runs, as somebody wants it to begin anew. False: none runs.
    pub fn restart(&self, mountpoint: &str) -> bool {
        self.end(mountpoint, Order::Wish)
    }

    fn end(&self, mountpoint: &str, order: Order) -> bool {
        let Some(running) = self.lock().get(mountpoint).cloned() else { return false };
        *running.order.lock().unwrap_or_else(PoisonError::into_inner) = Some(order);
        running.stop.cancel();
        true
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wiring {
    /// A source's life, which also ends when the ladder orders it to start anew.
    pub(super) async fn mended_source(
        &self,
        name: String,
        source: Source,
        handling: Handling,
        child: ChildContext,
    ) -> Result<(), ChildError> {
        let running = Arc::new(Running { stop: child.cancel.child_token(), order: Mutex::default() });
        self.sight.mending.lock().insert(name.clone(), running.clone());
        let context = ChildContext { cancel: running.stop.clone(), ready: child.ready.clone() };
        let used = match &source {
            Source::Rtsp(rtsp) if rtsp.transport == RtspTransport::Auto => {
                Some(self.transports.next(&name, RtspTransport::Auto))
            }
            _ => None,
        };
        let ended = Box::pin(self.admitted_source(name.clone(), source, handling, context)).await;
        // Only one source runs per mountpoint, and the next has not begun.
        self.sight.mending.lock().remove(&name);
        let order = running.order.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(order) = order.filter(|_| !child.cancel.is_cancelled()) else { return ended };
        let Order::Ladder(step) = order else {
            return Err(ChildError::new(Retry::Now, "started anew: somebody asked for it"));
        };
        if step == Step::Worker {
            self.transports.forget(&name);
        } else if let Some(used) = used {
            self.transports.set(&name, if step == Step::Transport { other(used) } else { used });
        }
        if step == Step::Reconnect {
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = child.cancel.cancelled() => return Ok(()),
            }
        }
        let text = format!("started anew ({}): its picture was not the truth", step.name());
        Err(ChildError::new(Retry::Now, text))
    }
}

/// The steps that make sense for a source.
pub(super) fn steps_of(source: &Source, may_reboot: bool) -> Vec<Step> {
    match source {
        Source::Rtsp(rtsp) => {
            let mut steps = vec![Step::Setup, Step::Reconnect];
            if rtsp.transport == RtspTransport::Auto {
                steps.push(Step::Transport);
            }
            if may_reboot && login_of(rtsp).is_some() {
                steps.push(Step::Reboot);
            }
            steps.push(Step::Worker);
            steps
        }
        Source::Publish(_) | Source::Kmp(_) => Vec::new(),
        // Nothing is remembered of them.
        _ => vec![Step::Setup, Step::Reconnect],
    }
}
