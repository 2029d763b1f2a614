//! The spool on a disk that fails on order.

mod cuts;
mod lives;
mod model;
mod real;

use crate::core::{Core, Settings};
use crate::fs::SpoolFs;
use crate::sim::{Fail, SimFs, Unsynced};
use bytes::Bytes;
use fieldgate_hub::backlog::{Batch, Budget, Keeping, LossCause, Lost, Stored, StoredKind};
use std::time::Duration;
use tokio::time::Instant;

const SECOND: i64 = 1_000_000;

/// A frame whose bytes tell its id.
fn frame(id: u64, keyframe: bool, len: usize) -> Stored {
    let mut body = id.to_le_bytes().to_vec();
    body.resize(len.max(8), id as u8);
    Stored {
        id,
        kind: StoredKind::Frame,
        keyframe,
        captured_unix_micros: 1_795_226_400 * SECOND + id as i64 * 40_000,
        head: Bytes::from(vec![0xfa; 40]),
        body: Bytes::from(body),
    }
}

fn header(id: u64, content: u8) -> Stored {
    Stored {
        id,
        kind: StoredKind::Header,
        keyframe: false,
        captured_unix_micros: 1_795_226_400 * SECOND + id as i64 * 40_000,
        head: Bytes::from(vec![content; 48]),
        body: Bytes::from_static(b"avcC"),
    }
}

fn settings(bytes: u64) -> Settings {
    Settings {
        budget: Budget { bytes, age: Duration::from_secs(100_000) },
        memory_bytes: 256 << 10,
        batch_bytes: 16 << 10,
        ..Settings::default()
    }
}

/// One backlog with time and disk in the test's hand.
struct Bench {
    core: Core,
    fs: SimFs,
    now: Instant,
}

impl Bench {
    fn open(fs: &SimFs, settings: Settings) -> Bench {
        let now = Instant::now();
        let disk = fs.clone();
        let folder = Box::new(move || Ok(Box::new(disk.clone()) as Box<dyn SpoolFs>));
        Bench { core: Core::open(settings, folder, now), fs: fs.clone(), now }
    }

    fn close(self) -> Vec<Lost> {
        self.core.close(self.now, 0)
    }

    fn append(&self, packet: Stored) {
        self.core.shared().lock().append(packet).unwrap();
    }

    /// Frames of about a kilobyte, a keyframe every tenth.
    fn fill(&mut self, ids: std::ops::Range<u64>) {
        for id in ids {
            self.append(frame(id, id % 10 == 0, 1_000));
            if id % 10 == 9 {
                self.pass(1);
            }
        }
    }

    fn release(&self, before: u64) {
        self.core.shared().lock().release(before);
    }

    /// Lets so many seconds pass.
    fn pass(&mut self, seconds: u64) {
        self.core.turn(self.now, 0);
        self.now += Duration::from_secs(seconds);
        self.core.turn(self.now, 0);
    }

    fn read(&mut self, from: u64) -> Batch {
        self.core.read(from, usize::MAX).unwrap()
    }

    /// All that can be read, in pieces.
    fn read_all(&mut self, from: u64) -> Vec<Stored> {
        let (mut next, mut all) = (from, Vec::new());
        loop {
            let batch = self.core.read(next, 7_000).unwrap();
            let Some(last) = batch.packets.last() else { return all };
            next = last.id + 1;
            all.extend(batch.packets);
        }
    }

    fn ids(&mut self, from: u64) -> Vec<u64> {
        self.read_all(from).into_iter().filter(Stored::is_frame).map(|packet| packet.id).collect()
    }

    fn losses(&mut self) -> Vec<Lost> {
        self.core.turn(self.now, 0);
        self.core.shared().lock().queue.losses().take()
    }

    fn keeping(&self) -> Keeping {
        self.core.shared().lock().keeping
    }
}

fn range(ids: std::ops::Range<u64>) -> Vec<u64> {
    ids.collect()
}

#[test]
fn what_is_acknowledged_before_its_batch_is_due_is_never_written() {
    let fs = SimFs::default();
    let mut bench = Bench::open(&fs, settings(1 << 20));
    bench.append(header(0, 1));
    bench.append(frame(0, true, 1_000));
    bench.pass(1);
    let (files, steps) = (fs.files(), fs.steps());
    for id in 1..2_000 {
        bench.append(frame(id, id % 10 == 0, 1_000));
        bench.release(id + 1);
        bench.now += Duration::from_millis(40);
        bench.core.turn(bench.now, 0);
    }
    assert!(fs.steps() <= steps + 8, "{} steps were taken", fs.steps() - steps);
    assert!(fs.files().len() <= files.len() + 1);
    assert_eq!(bench.core.shared().lock().held().frames, 0);
}

/// Found by power cuts on a logged disk: what was sent after the restart came without the header that it is decoded by.
#[test]
fn a_header_that_was_acknowledged_before_it_was_written_is_written_with_the_frames_that_need_it() {
    let fs = SimFs::default();
    let mut bench = Bench::open(&fs, settings(1 << 20));
    for (stream, first) in [(1, 0), (2, 1_000)] {
        bench.append(header(first, stream));
        (first..first + 5).for_each(|id| bench.append(frame(id, id == first, 1_000)));
        bench.release(first + 3);
        bench.pass(1);
        (first + 5..first + 8).for_each(|id| bench.append(frame(id, false, 1_000)));
        bench.pass(1);
        bench.append(header(first + 8, stream + 10));
        (first + 8..first + 10).for_each(|id| bench.append(frame(id, id == first + 8, 1_000)));
        bench.pass(1);
        let mut found = Bench::open(&fs.after_cut(Unsynced::Gone, 0), settings(1 << 20));
        let batch = found.read(first + 3);
        let headers = batch.packets.iter().filter(|packet| !packet.is_frame());
        let headers: Vec<(u64, u8)> = headers.map(|header| (header.id, header.head[0])).collect();
        assert_eq!(headers, [(first + 3, stream), (first + 8, stream + 10)], "each once, with its frame");
        assert_eq!(found.ids(first + 3), range(first + 3..first + 10));
        assert_eq!(found.read(first + 7).header.map(|header| header.head[0]), Some(stream));
        assert_eq!(found.losses(), []);
        bench.release(first + 10);
    }
}

#[test]
fn order_bytes_headers_and_times_come_back_after_a_reopen_in_order() {
    let fs = SimFs::default();
    let mut bench = Bench::open(&fs, settings(10 << 20));
    let mut all = Vec::new();
    for id in 1_000..1_500 {
        if id % 100 == 0 {
            all.push(header(id, id as u8));
        }
        all.push(frame(id, id % 10 == 0, 700 + id as usize % 13));
    }
    for packet in &all {
        bench.append(packet.clone());
        bench.pass(0);
    }
    bench.close();
    let mut bench = Bench::open(&fs, settings(10 << 20));
    let read = bench.read_all(0);
    assert_eq!(read.len(), all.len());
    assert_eq!(read, all);
    let batch = bench.read(1_250);
    assert_eq!(batch.header.unwrap().head[0], 1_200_u64 as u8);
    assert_eq!(batch.packets[0].id, 1_250);
    assert_eq!(bench.losses(), []);
    bench.release(1_490);
    assert_eq!(bench.ids(0), range(1_490..1_500));
}

#[test]
fn released_files_are_removed_and_the_position_survives() {
    let fs = SimFs::default();
    let mut bench = Bench::open(&fs, settings(1 << 20));
    bench.fill(0..500);
    let full = fs.used();
    bench.release(400);
    bench.pass(1);
    assert!(fs.used() < full / 2);
    bench.pass(20);
    drop(bench);
    let mut bench = Bench::open(&fs.after_cut(Unsynced::Gone, 0), settings(1 << 20));
    assert_eq!(bench.ids(0), range(400..500));
    bench.release(500);
    bench.pass(20);
    bench.append(frame(1_500_000, true, 10));
    assert_eq!(bench.ids(0), [1_500_000]);
}

#[test]
fn over_the_budget_the_oldest_go_at_keyframe_borders_and_are_named() {
    let fs = SimFs::default();
    let mut bench = Bench::open(&fs, settings(2 << 20));
    bench.fill(0..5_000);
    assert!(fs.used() <= (2 << 20) + 8_192, "{} bytes are used", fs.used());
    let ids = bench.ids(0);
    let first = ids[0];
    assert_eq!(first % 10, 0);
    assert_eq!(ids, range(first..5_000));
    let losses = bench.losses();
    assert_eq!((losses[0].ids.start, losses.last().unwrap().ids.end), (0, first));
    assert!(losses.windows(2).all(|pair| pair[0].ids.end == pair[1].ids.start));
    assert_eq!(losses.iter().filter_map(|lost| lost.frames).sum::<u64>(), first);
    assert!(losses.iter().all(|lost| lost.cause == LossCause::Bytes));
    // About the budget is used, not half of it.
    assert!(ids.len() > 1_700, "{} frames are held", ids.len());
}

#[test]
fn over_the_age_budget_the_oldest_go() {
    let fs = SimFs::default();
    let mut settings = settings(10 << 20);
    settings.budget.age = Duration::from_secs(40);
    let mut bench = Bench::open(&fs, settings);
    bench.fill(0..3_000);
    let ids = bench.ids(0);
    // 25 frames a second: 1,000 are 40 seconds.
    assert!(ids.len() >= 1_000 && ids.len() < 1_600, "{} frames are held", ids.len());
    let losses = bench.losses();
    assert_eq!((losses[0].ids.start, losses.last().unwrap().ids.end), (0, ids[0]));
    assert!(losses.iter().all(|lost| lost.cause == LossCause::Age));
}

#[test]
fn a_full_disk_degrades_to_memory_says_so_and_recovers() {
    let fs = SimFs::default();
    let mut bench = Bench::open(&fs, settings(10 << 20));
    bench.fill(0..200);
    assert_eq!(bench.keeping(), Keeping::Disk);
    fs.set_capacity(fs.used() + 3_000);
    bench.fill(200..300);
    assert_eq!(bench.keeping(), Keeping::MemoryInstead(LossCause::DiskFull));
    assert_eq!(bench.losses(), []);
    fs.set_capacity(0);
    bench.pass(60);
    bench.fill(300..400);
    assert_eq!(bench.keeping(), Keeping::Disk);
    assert_eq!(bench.ids(0), range(0..400));
    bench.close();
    let mut bench = Bench::open(&fs, settings(10 << 20));
    assert_eq!(bench.ids(0), range(0..400));
    assert_eq!(bench.losses(), []);
}

#[test]
fn a_disk_that_stays_full_costs_the_oldest_only() {
    let fs = SimFs::default();
    let mut bench = Bench::open(&fs, settings(10 << 20));
    bench.fill(0..500);
    fs.set_capacity(fs.used() + 3_000);
    for from in (500..2_000).step_by(10) {
        bench.fill(from..from + 10);
        bench.pass(30);
    }
    let ids = bench.ids(0);
    assert_eq!(ids, range(ids[0]..2_000));
    assert_eq!(ids[0] % 10, 0);
    let losses = bench.losses();
    assert_eq!((losses[0].ids.start, losses.last().unwrap().ids.end), (0, ids[0]));
    assert!(losses.iter().all(|lost| lost.cause == LossCause::DiskFull), "{losses:?}");
}

#[test]
fn a_disk_that_cannot_be_written_degrades_to_the_memory_bound_and_names_what_that_costs() {
    let fs = SimFs::default();
    let mut bench = Bench::open(&fs, settings(10 << 20));
    bench.fill(0..100);
    fs.failing(Fail::Always(std::io::ErrorKind::ReadOnlyFilesystem));
    bench.fill(100..1_000);
    assert_eq!(bench.keeping(), Keeping::MemoryInstead(LossCause::DiskFailed));
    let ids = bench.ids(0);
    assert_eq!(ids[..100], range(0..100));
    let losses = bench.losses();
    assert!(losses.iter().all(|lost| lost.cause == LossCause::DiskFailed));
    let (from, to) = (losses[0].ids.start, losses.last().unwrap().ids.end);
    assert_eq!((from, to % 10), (100, 0));
    assert_eq!(ids[100..], range(to..1_000));
    fs.failing(Fail::Never);
    bench.pass(60);
    assert_eq!(bench.keeping(), Keeping::Disk);
}

#[test]
fn what_is_on_a_disk_that_takes_nothing_from_the_start_is_read_and_stays() {
    let fs = SimFs::default();
    let mut bench = Bench::open(&fs, settings(10 << 20));
    bench.fill(0..100);
    // It is killed.
    drop(bench);
    fs.failing(Fail::Always(std::io::ErrorKind::ReadOnlyFilesystem));
    let mut bench = Bench::open(&fs, settings(10 << 20));
    assert_eq!(bench.keeping(), Keeping::MemoryInstead(LossCause::DiskFailed));
    let held = bench.core.shared().lock().held();
    assert_eq!((held.ids, held.frames), (0..100, 100));
    let next = held.next_id.next_multiple_of(10);
    bench.fill(next..next + 50);
    bench.release(20);
    let kept: Vec<u64> = (20..100).chain(next..next + 50).collect();
    assert_eq!(bench.ids(20), kept);
    fs.failing(Fail::Never);
    bench.pass(60);
    bench.pass(1);
    assert_eq!(bench.keeping(), Keeping::Disk);
    assert_eq!(bench.ids(20), kept);
    drop(bench);
    let mut bench = Bench::open(&fs, settings(10 << 20));
    assert_eq!(bench.ids(20), kept);
    assert!(
        bench.core.found() == Some(true),
        "the life that began on a disk that took nothing was killed too"
    );
}

#[test]
fn a_disk_that_can_not_be_read_at_the_start_is_tried_again() {
    let fs = SimFs::default();
    fs.failing(Fail::Always(std::io::ErrorKind::ReadOnlyFilesystem));
    let mut bench = Bench::open(&fs, settings(1 << 20));
    assert_eq!(bench.keeping(), Keeping::MemoryInstead(LossCause::DiskFailed));
    bench.fill(0..50);
    assert_eq!(bench.ids(0), range(0..50));
    fs.failing(Fail::Never);
    bench.pass(60);
    bench.pass(1);
    assert_eq!(bench.keeping(), Keeping::Disk);
    bench.fill(50..100);
    bench.close();
    assert_eq!(Bench::open(&fs, settings(1 << 20)).ids(0), range(0..100));
}

#[test]
fn after_a_stop_without_warning_what_was_in_memory_is_named_and_no_id_is_given_twice() {
    let fs = SimFs::default();
    let mut bench = Bench::open(&fs, settings(1 << 20));
    bench.fill(0..50);
    for id in 50..55 {
        bench.append(frame(id, id == 50, 100));
    }
    drop(bench);
    let mut bench = Bench::open(&fs, settings(1 << 20));
    let next_id = bench.core.shared().lock().held().next_id;
    assert!(next_id >= 55, "{next_id}");
    assert_eq!(bench.ids(0), range(0..50));
    bench.append(frame(9_000_000, true, 100));
    let losses = bench.losses();
    assert_eq!((losses.len(), losses[0].ids.clone()), (1, 50..9_000_000));
    assert_eq!((losses[0].cause, losses[0].frames), (LossCause::Restart, None));
    bench.pass(1);
    bench.close();
    let mut bench = Bench::open(&fs, settings(1 << 20));
    bench.append(frame(9_000_001, true, 100));
    assert_eq!(bench.losses(), []);
}

#[test]
fn a_flipped_bit_costs_its_packet_or_batch_which_is_named_and_the_rest_is_delivered() {
    let fs = SimFs::default();
    let mut bench = Bench::open(&fs, settings(4 << 20));
    bench.append(header(0, 1));
    bench.fill(0..400);
    bench.close();
    let files: Vec<(String, usize)> =
        fs.files().into_iter().filter(|(name, _)| name.ends_with(".seg")).collect();
    assert!(files.len() > 2);
    let mut worst = 0;
    for round in 0..400_usize {
        let copy = fs.after_cut(Unsynced::There, usize::MAX);
        let (name, len) = &files[round % files.len()];
        copy.flip(name, (round * 7_919) % len, (round % 8) as u8);
        let mut bench = Bench::open(&copy, settings(4 << 20));
        let ids = bench.ids(0);
        let losses = bench.losses();
        let mut accounted = ids.clone();
        for lost in &losses {
            assert!(matches!(lost.cause, LossCause::Damaged | LossCause::Torn), "{lost:?}");
            accounted.extend(lost.ids.clone());
        }
        accounted.sort_unstable();
        assert_eq!(accounted, range(0..400), "round {round}: {losses:?}");
        worst = worst.max(400 - ids.len());
        // Reading once more names nothing twice.
        bench.ids(0);
        assert_eq!(bench.losses(), []);
    }
    assert!(worst <= 10, "one bit cost {worst} frames");
}
