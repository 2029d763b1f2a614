//! Recorders: what is kept on disk of a mountpoint, and what a mask takes of it.

use super::Wiring;
use crate::supervisor::{ChildContext, ChildError};
use fieldgate_hub::Retry;
use fieldgate_media::Ticks;
use fieldgate_model::config::Record;
use fieldgate_net::{RecordBudget, Recorder, Recordings, Shelf};
use std::io;
use std::sync::Arc;
use tracing::{info, warn};

impl Wiring {
    pub(super) async fn recorder(
        &self,
        name: String,
        record: Record,
        child: ChildContext,
    ) -> Result<(), ChildError> {
        let mountpoint = self.existing(&name)?;
        let shard = self.shard_of(&mountpoint)?;
        let folder = self.recordings_folder.join(&name);
        let cannot = |error: io::Error| {
            let text = format!("cannot record in {}: {error}", folder.display());
            ChildError::new(Retry::Backoff, text)
        };
        let opened = folder.clone();
        let shelf = Arc::new(on_disk(move || Shelf::open(&opened)).await.map_err(cannot)?);
        let mended = shelf.report().mended;
        if mended > 0 {
            warn!(mountpoint = name, files = mended, "a cut left unfinished recordings; they were removed");
        }
        let budget = RecordBudget {
            bytes: record.bytes,
            age_micros: i64::try_from(record.age.get().as_micros()).unwrap_or(i64::MAX),
        };
        child.ready.ready();
        loop {
            // Whoever adds a mask waits until this is let go.
            let (holding, tightened) = (self.masks.holding(&name), self.masks.tightened(&name));
            let tidied = shelf.clone();
            on_disk(move || tidied.keep_only_under(tightened)).await.map_err(cannot)?;
            let _shown = Shown::new(self.viewers.recordings(), &name, &shelf);
            let recorder = Recorder {
                mountpoint: mountpoint.clone(),
                shelf: shelf.clone(),
                budget,
                segment: Ticks::from_duration(record.segment.get()).get(),
                memory_bytes: Record::MEMORY_BYTES,
                clock: self.context.clock.clone(),
                cancel: child.cancel.child_token(),
            };
            let stop = recorder.cancel.clone();
            let recording = shard.run(move |_| recorder.run());
            tokio::pin!(recording);
            let ended = tokio::select! {
                ended = &mut recording => ended,
                () = self.masks.tightened_since(&name, tightened) => {
                    info!(mountpoint = name, "a mask was added: what was recorded before is deleted");
                    stop.cancel();
                    let ended = recording.await;
                    let (tidied, now) = (shelf.clone(), self.masks.tightened(&name));
                    on_disk(move || tidied.keep_only_under(now)).await.map_err(cannot)?;
                    if ended.is_ok() && !child.cancel.is_cancelled() {
                        drop(holding);
                        continue;
                    }
                    ended
                }
            };
            return ended.map_err(|error| ChildError::of(Retry::Backoff, &error));
        }
    }
}

/// Recordings can be watched while they are being made.
struct Shown<'a> {
    recordings: &'a Recordings,
    name: &'a str,
}

impl<'a> Shown<'a> {
    fn new(recordings: &'a Recordings, name: &'a str, shelf: &Arc<Shelf>) -> Self {
        recordings.show(name, shelf.clone());
        Shown { recordings, name }
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.recordings.hide(self.name);
    }
}

async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the disk's task panicked")))
}
