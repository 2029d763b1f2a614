//! Reading kept frames beside what is live, no faster than they may be sent.

use super::lane::now;
use fieldgate_hub::Backlog;
use fieldgate_hub::backlog::{Batch, Reading, Stored};
use fieldgate_proto::kmp::sender::{Kept, Sender};
use fieldgate_proto::kmp::{PacketKind, Wire};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes read from a backlog at once.
const READ_BYTES: usize = 512 << 10;
/// Pause before a read that failed is tried again.
const READ_AGAIN: Duration = Duration::from_millis(500);

/// How fast a backlog may be read.
#[derive(Debug)]
struct Pace {
    /// Of the live rate.
    percent: u64,
    /// When the present count of live bytes began, and how many they are.
    since: Instant,
    live_bytes: u64,
    /// Live bytes per second, 0 before the first count.
    live_rate: u64,
    /// When the next read may begin.
    next: Instant,
}

impl Pace {
    /// Counts for so long.
    const COUNT: Duration = Duration::from_secs(2);

    fn new(percent: u64) -> Self {
        Pace { percent, since: now(), live_bytes: 0, live_rate: 0, next: now() }
    }

    fn count(&mut self, bytes: usize) {
        let elapsed = now().saturating_duration_since(self.since);
        if elapsed >= Self::COUNT {
            let millis = elapsed.as_millis().max(1) as u64;
            self.live_rate = self.live_bytes.saturating_mul(1000) / millis;
            (self.since, self.live_bytes) = (now(), 0);
        }
        self.live_bytes += bytes as u64;
    }

    /// So much was read: puts the next read off.
    fn read(&mut self, bytes: usize) {
        let idle = now().saturating_duration_since(self.since) >= Self::COUNT;
        if self.live_rate == 0 || idle {
            return;
        }
        let rate = self.live_rate.saturating_mul(self.percent) / 100;
        self.next = self.next.max(now()) + Duration::from_millis(bytes as u64 * 1000 / rate.max(1));
    }
}

/// Reads for one sender.
pub(super) struct Reader {
    backlog: Arc<dyn Backlog>,
    pace: Option<Pace>,
    reading: Option<(u64, Reading)>,
}

impl Reader {
    /// `percent` of the live rate; `None`: as fast as it goes.
    pub(super) fn new(backlog: Arc<dyn Backlog>, percent: Option<u64>) -> Self {
        Reader { backlog, pace: percent.map(Pace::new), reading: None }
    }

    /// So much is live.
    pub(super) fn count_live(&mut self, bytes: usize) {
        if let Some(pace) = &mut self.pace {
            pace.count(bytes);
        }
    }

    /// Begins to read; what was being read is not wanted any more.
    pub(super) fn fetch(&mut self, from_id: u64) {
        let backlog = self.backlog.clone();
        let reading = match &self.pace {
            Some(pace) if pace.next > now() => {
                let next = pace.next.into();
                Box::pin(async move {
                    tokio::time::sleep_until(next).await;
                    backlog.read(from_id, READ_BYTES).await
                })
            }
            _ => backlog.read(from_id, READ_BYTES),
        };
        self.reading = Some((from_id, reading));
    }

    /// Hands in what was read, and from which id it was asked for.
    pub(super) async fn fetched(&mut self) -> (u64, Batch) {
        loop {
            let Some((from_id, reading)) = &mut self.reading else {
                std::future::pending::<()>().await;
                continue;
            };
            let from_id = *from_id;
            match reading.await {
                Ok(batch) => {
                    self.reading = None;
                    if let Some(pace) = &mut self.pace {
                        pace.read(batch.packets.iter().map(Stored::bytes).sum());
                    }
                    return (from_id, batch);
                }
                Err(error) => {
                    tracing::warn!(from_id, %error, "backlog not read");
                    let backlog = self.backlog.clone();
                    let again = async move {
                        tokio::time::sleep(READ_AGAIN).await;
                        backlog.read(from_id, READ_BYTES).await
                    };
                    self.reading = Some((from_id, Box::pin(again)));
                }
            }
        }
    }
}

/// The next that was read, and by which of them.
pub(super) async fn fetched(readers: &mut [Option<Reader>; 2]) -> (usize, u64, Batch) {
    async fn of(reader: &mut Option<Reader>) -> (u64, Batch) {
        match reader {
            Some(reader) => reader.fetched().await,
            None => std::future::pending().await,
        }
    }
    let [first, second] = readers;
    tokio::select! {
        (from_id, batch) = of(first) => (0, from_id, batch),
        (from_id, batch) = of(second) => (1, from_id, batch),
    }
}

/// Gives a sender what was read for it: a run of packets whose ids follow each other.
pub(super) fn hand_in(sender: &mut Sender, from_id: u64, batch: Batch, now: Instant) {
    let first_frame = batch.packets.iter().find(|packet| packet.is_frame());
    let start_id = first_frame.map_or(from_id, |packet| packet.id);
    let mut next_id = start_id;
    let mut header = batch.header.map(|header| Wire { head: header.head, body: header.body });
    let mut run = Vec::new();
    for packet in batch.packets {
        if packet.id < start_id {
            // Its frame is lost; what comes after needs it all the same.
            header = Some(Wire { head: packet.head, body: packet.body });
            continue;
        }
        // Behind a gap comes the next read.
        if packet.id != next_id {
            break;
        }
        next_id = next_id.saturating_add(u64::from(packet.is_frame()));
        run.push(Kept {
            kind: if packet.is_frame() { PacketKind::Frame } else { PacketKind::MediaInfo },
            keyframe: packet.keyframe,
            wire: Wire { head: packet.head, body: packet.body },
        });
    }
    // A header stays with its frame.
    let frames = run.iter().rposition(|kept| kept.kind == PacketKind::Frame).map_or(0, |last| last + 1);
    run.truncate(frames);
    sender.loaded(from_id, start_id, header, run, now);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_backlog_is_read_at_its_share_beside_what_is_live() {
        let mut pace = Pace::new(400);
        let mut read = 0;
        let mut begun = None;
        // 100 kB of live frames a second; reads of 50 kB whenever they are allowed.
        for tick in 0..1_400 {
            tokio::time::advance(Duration::from_millis(10)).await;
            if tick % 10 == 0 {
                pace.count(10_000);
            }
            // The first counts take four seconds.
            if tick >= 400 && pace.next <= now() {
                begun.get_or_insert_with(now);
                pace.read(50_000);
                read += 50_000;
            }
        }
        let seconds = now().saturating_duration_since(begun.unwrap()).as_secs_f64();
        let share = f64::from(read) / seconds / 100_000.0;
        // What is live, and three times as much of what is not.
        assert!((3.8..=4.4).contains(&share), "{share}");
    }
}
