//! Cuts one rendition into MPEG-TS segments, on its mountpoint's media thread.

use bytes::Bytes;
use fieldgate_hub::{Clock, Item, Mountpoint, Subscriber};
use fieldgate_proto::segment::{Found, Package, Settings, ts};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Entries and bytes of one round.
const ROUND_ENTRIES: usize = 512;
const ROUND_BYTES: usize = 4 << 20;
/// Segments in memory, as long as they are not kept.
const MEMORY_BYTES: u64 = 32 << 20;
/// Segments that are listed in memory: there is no other list than the keeper's.
const SEGMENTS: i64 = 3;

/// One segment.
pub(super) struct Cut {
    /// The file.
    pub(super) file: Bytes,
    pub(super) duration: Duration,
    /// It does not follow the one before it.
    pub(super) is_discontinuity: bool,
    /// What no rounded duration of the stream exceeds.
    pub(super) target_secs: u32,
}

/// The cutter of one rendition.
pub(super) struct Cutter {
    pub(super) mountpoint: Arc<Mountpoint>,
    /// How long a segment shall be, ticks.
    pub(super) segment: i64,
    pub(super) clock: Clock,
    /// One that is full loses segments: whoever keeps them is too slow.
    pub(super) out: mpsc::Sender<Cut>,
    /// Nothing comes any more; what is there is still cut.
    pub(super) ended: CancellationToken,
}

impl Cutter {
    /// Until the stream has ended and all is cut, or nobody takes segments any more.
    pub(super) async fn run(self) {
        let mut cutting = Cutting {
            package: Package::new(Settings {
                segment: self.segment,
                part: None,
                window: self.segment.saturating_mul(SEGMENTS),
                max_bytes: MEMORY_BYTES,
                first_number: 0,
            }),
            next: 0,
            is_interrupted: false,
        };
        let mut subscriber = self.mountpoint.subscribe(Some(self.mountpoint.limits().bound.age));
        let closed = self.mountpoint.closed();
        let (mut entries, mut publication) = (Vec::new(), self.mountpoint.publication().0);
        loop {
            let has_ended = self.ended.is_cancelled() || closed.is_cancelled();
            let more = self.round(&mut subscriber, &mut entries, &mut publication, &mut cutting.package);
            self.hand_over(&mut cutting);
            if more {
                tokio::task::yield_now().await;
                continue;
            }
            if has_ended {
                break;
            }
            tokio::select! {
                () = self.ended.cancelled() => {}
                () = closed.cancelled() => {}
                () = self.out.closed() => return,
                () = subscriber.changed() => {}
            }
        }
        cutting.package.end();
        self.hand_over(&mut cutting);
    }

    fn round(
        &self,
        subscriber: &mut Subscriber,
        entries: &mut Vec<Arc<fieldgate_hub::Entry>>,
        publication: &mut u64,
        package: &mut Package,
    ) -> bool {
        let taken = subscriber.take(entries, ROUND_ENTRIES, ROUND_BYTES);
        let now = self.clock.unix_micros();
        let (present, began_at) = self.mountpoint.publication();
        if taken.dropped_units > 0 {
            warn!(
                mountpoint = self.mountpoint.name(),
                lost = taken.dropped_units,
                "the encoder was too slow"
            );
            package.interrupt();
        }
        for entry in entries.drain(..) {
            if present != *publication && entry.seq >= began_at {
                *publication = present;
                package.interrupt();
            }
            match &entry.item {
                Item::Tracks { tracks, .. } => package.on_tracks(tracks),
                Item::Unit { unit, .. } => package.on_unit(unit, now),
            }
        }
        taken.more
    }

    fn hand_over(&self, cutting: &mut Cutting) {
        while cutting.next < cutting.package.next_number() {
            match cutting.package.together(cutting.next) {
                Found::Here([video, audio]) => {
                    cutting.next += 1;
                    let Some(first) = video.as_deref().or(audio.as_deref()) else { continue };
                    let Some(file) = ts::write(video.as_deref(), audio.as_deref()) else { continue };
                    let micros = u64::try_from(first.duration).unwrap_or_default().saturating_mul(100) / 9;
                    let cut = Cut {
                        file,
                        duration: Duration::from_micros(micros),
                        is_discontinuity: first.is_discontinuity || cutting.is_interrupted,
                        target_secs: cutting.package.target_secs(),
                    };
                    cutting.is_interrupted = self.out.try_send(cut).is_err();
                    if cutting.is_interrupted && !self.out.is_closed() {
                        let mountpoint = self.mountpoint.name();
                        warn!(mountpoint, "a segment is lost: those before it are still being stored");
                    }
                }
                Found::Soon => break,
                // It was too much to be held.
                Found::Never => {
                    cutting.next += 1;
                    cutting.is_interrupted = true;
                }
            }
        }
    }
}

struct Cutting {
    package: Package,
    /// The segment that is handed over next.
    next: u64,
    /// One was lost before it.
    is_interrupted: bool,
}
