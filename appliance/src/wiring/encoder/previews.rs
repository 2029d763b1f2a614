//! Pictures of a stream at an interval.

use super::store::Store;
use crate::wiring::Snapshots;
use bytes::Bytes;
use fieldgate_compat::encoder::{
    Assignment, Available, Files, FilesKind, Previews, Shape, TaskId, preview_index,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Previews of one stream.
pub(super) struct Showing {
    pub(super) id: TaskId,
    pub(super) store: Store,
    pub(super) snapshots: Arc<Snapshots>,
    pub(super) mountpoint: String,
    pub(super) files: Files,
    pub(super) previews: Previews,
    pub(super) shape: Shape,
    pub(super) tell: mpsc::Sender<(TaskId, Available)>,
}

impl Showing {
    pub(super) fn files(assignment: &Assignment, previews: &Previews) -> Files {
        Files::of_previews(assignment, previews)
    }

    /// Until `over`. What cannot be decoded or stored is left out: the next one has its number.
    pub(super) async fn run(self, over: CancellationToken) {
        let every = Duration::from_secs(self.previews.seconds.into());
        let width = self.previews.width_for(self.shape.width, self.shape.height);
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut count, mut is_told) = (0_u64, false);
        loop {
            tokio::select! {
                () = over.cancelled() => return,
                _ = ticks.tick() => {}
            }
            match self.show(count, width).await {
                Ok(()) => count += 1,
                Err(why) => {
                    warn!(mountpoint = self.mountpoint, why, "there is no preview");
                    continue;
                }
            }
            if !is_told {
                is_told = true;
                let available = Available {
                    kind: FilesKind::Previews,
                    resolution: self.previews.name(),
                    index_file: self.files.preview_index(),
                    start: Duration::ZERO,
                };
                self.tell.send((self.id, available)).await.ok();
            }
        }
    }

    async fn show(&self, number: u64, width: u32) -> Result<(), String> {
        let snapshot =
            self.snapshots.get(&self.mountpoint, width).await.map_err(|error| error.to_string())?;
        let path = self.files.preview(number);
        let put = self.store.put(&path, "image/jpeg", snapshot.jpeg);
        put.await.map_err(|error| error.to_string())?;
        let index = Bytes::from(preview_index(number + 1));
        let path = self.files.preview_index();
        let put = self.store.put(&path, "application/json", index);
        put.await.map_err(|error| error.to_string())
    }
}
