//! What happens to a mountpoint that was made for one publisher.

use fieldgate_hub::{Mountpoint, StreamState};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// A publisher that was let in has so long to begin.
const BEGIN_WITHIN: Duration = Duration::from_secs(10);
/// A stream that is over can still be watched to its end.
const LINGER: Duration = Duration::from_secs(8);

/// What happens to a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// A publisher has begun, from there.
    Began(String),
    /// The stream is over.
    Ended,
    /// Nobody came, or nobody comes any more: the place can go.
    Over,
}

/// Tells what happens to a place, until it is over.
pub(super) async fn watch<K: Clone>(
    mountpoint: Arc<Mountpoint>,
    stream: K,
    moments: mpsc::Sender<(K, Moment)>,
) {
    let watching = async {
        let mut state = mountpoint.state();
        let closed = mountpoint.closed();
        let mut is_live = false;
        let mut patience = BEGIN_WITHIN;
        loop {
            let now = *state.borrow_and_update();
            match now {
                StreamState::Live(_) if !is_live => {
                    is_live = true;
                    let from = mountpoint.publisher().map(|publisher| publisher.from).unwrap_or_default();
                    moments.send((stream.clone(), Moment::Began(from))).await.ok();
                }
                StreamState::Idle if is_live => {
                    is_live = false;
                    patience = LINGER;
                    moments.send((stream.clone(), Moment::Ended)).await.ok();
                }
                _ => {}
            }
            tokio::select! {
                () = closed.cancelled() => break,
                () = tokio::time::sleep(patience), if !is_live => break,
                changed = state.changed() => if changed.is_err() {
                    break;
                },
            }
        }
        if is_live {
            moments.send((stream.clone(), Moment::Ended)).await.ok();
        }
        moments.send((stream.clone(), Moment::Over)).await.ok();
    };
    let keeping = mountpoint.keep();
    tokio::pin!(watching, keeping);
    tokio::select! {
        () = &mut watching => {}
        // It ends when the mountpoint is closed, which the other still tells.
        () = &mut keeping => watching.await,
    }
}
