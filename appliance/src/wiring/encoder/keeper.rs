//! Stores the segments of one rendition, with their lists, and says when they can be watched.

use super::cutter::Cut;
use super::store::{Store, StoreError};
use bytes::Bytes;
use fieldgate_compat::encoder::{Available, Files, FilesKind, ListSettings, Listed, Lists, TaskId};
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::warn;

/// Segments in a row that could not be stored, after which the rendition is given up.
const FAILED_MAX: u32 = 5;

/// What becomes of a rendition's files.
pub(super) struct Keeper {
    pub(super) id: TaskId,
    pub(super) store: Store,
    pub(super) files: Files,
    /// As messages name it.
    pub(super) resolution: String,
    pub(super) settings: ListSettings,
    pub(super) cuts: mpsc::Receiver<Cut>,
    pub(super) tell: mpsc::Sender<(TaskId, Available)>,
}

/// How keeping ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// Everything is stored; so many segments.
    All(u64),
    /// No stream may have more segments.
    Full,
}

impl Keeper {
    /// Until no more segments come.
    pub(super) async fn run(mut self) -> Result<Kept, StoreError> {
        let mut lists: Option<Lists> = None;
        let (mut is_live, mut parts, mut failed, mut is_interrupted) = (false, 0, 0, false);
        while let Some(cut) = self.cuts.recv().await {
            let lists = lists.get_or_insert_with(|| Lists::new(self.settings, cut.target_secs));
            let path = self.files.segment(lists.next_number());
            if let Err(error) = self.store.put(&path, "video/mp2t", cut.file).await {
                failed += 1;
                is_interrupted = true;
                warn!(path, %error, failed, "a segment is not stored");
                if failed >= FAILED_MAX {
                    return Err(error);
                }
                continue;
            }
            failed = 0;
            let listed = lists.add(cut.duration, cut.is_discontinuity || is_interrupted);
            is_interrupted = false;
            let is_full = listed.is_full;
            self.list(listed, &mut is_live, &mut parts).await;
            if is_full {
                self.end(lists, &mut is_live, &mut parts).await;
                return Ok(Kept::Full);
            }
        }
        if let Some(lists) = &mut lists {
            self.end(lists, &mut is_live, &mut parts).await;
        }
        Ok(Kept::All(lists.map_or(0, |lists| lists.next_number())))
    }

    async fn end(&self, lists: &mut Lists, is_live: &mut bool, parts: &mut u64) {
        if let Some(listed) = lists.end() {
            self.list(listed, is_live, parts).await;
        }
    }

    /// A list that cannot be stored is stored with the next segment.
    async fn list(&self, listed: Listed, is_live: &mut bool, parts: &mut u64) {
        let live = self.files.live();
        if self.keep(&live, listed.live).await && !*is_live {
            *is_live = true;
            self.available(FilesKind::Live, live, Duration::ZERO).await;
        }
        for vod in listed.vods {
            let path = self.files.vod(vod.part);
            if self.keep(&path, vod.text).await && vod.part >= *parts {
                *parts = vod.part + 1;
                self.available(FilesKind::Vod, path, vod.start).await;
            }
        }
        if let Some(number) = listed.remove {
            let path = self.files.segment(number);
            if let Err(error) = self.store.delete(&path).await {
                warn!(path, %error, "a segment that is over is not deleted");
            }
        }
    }

    async fn keep(&self, path: &str, text: String) -> bool {
        let stored = self.store.put(path, "application/vnd.apple.mpegurl", Bytes::from(text)).await;
        if let Err(error) = &stored {
            warn!(path, %error, "a list is not stored");
        }
        stored.is_ok()
    }

    async fn available(&self, kind: FilesKind, index_file: String, start: Duration) {
        let available = Available { kind, resolution: self.resolution.clone(), index_file, start };
        self.tell.send((self.id, available)).await.ok();
    }
}
