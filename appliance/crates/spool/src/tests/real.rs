//! On real files.

use super::*;
use crate::backlog::SpoolKey;
use crate::disk::{Spool, SpoolError};
use crate::ledger::{Query, State};
use fieldgate_hub::Clock;
use fieldgate_hub::backlog::Backlog;
use fieldgate_hub::ledger::{Fate, Stretch, Why};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fieldgate-spool-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::set_permissions(&self.0, std::fs::Permissions::from_mode(0o700)).ok();
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn key(track: &str) -> SpoolKey {
    SpoolKey { mountpoint: "yard".into(), upstream: "main".into(), track: track.into() }
}

fn quick() -> Settings {
    Settings { batch_interval: Duration::from_millis(20), memory_bytes: 16 << 20, ..settings(64 << 20) }
}

fn start(scratch: &Scratch) -> Spool {
    Spool::start(scratch.0.clone(), Clock::default()).unwrap()
}

async fn read_all(backlog: &dyn Backlog, from: u64) -> Vec<u64> {
    let (mut next, mut ids) = (from, Vec::new());
    loop {
        let batch = backlog.read(next, 100_000).await.unwrap();
        let Some(last) = batch.packets.last() else { return ids };
        next = last.id + 1;
        ids.extend(batch.packets.iter().filter(|packet| packet.is_frame()).map(|packet| packet.id));
    }
}

#[tokio::test]
async fn a_backlog_outlives_the_gateway_and_has_one_owner() {
    let scratch = Scratch::new();
    let spool = start(&scratch);
    let backlog = spool.open(key("v1"), quick()).await.unwrap();
    assert!(matches!(spool.open(key("v1"), quick()).await, Err(SpoolError::InUse(_))));
    for id in 0..3_000 {
        backlog.append(frame(id, id % 25 == 0, 2_000)).unwrap();
        if id % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert_eq!(read_all(&backlog, 0).await, range(0..3_000));
    backlog.release(1_000);
    let report = spool.reports().pop().unwrap();
    assert!(report.appended_bytes > 6_000_000 && report.keeping == Keeping::Disk, "{report:?}");
    drop(backlog);
    let backlog = spool.open(key("v1"), quick()).await.unwrap();
    assert_eq!(read_all(&backlog, 0).await, range(1_000..3_000));
    spool.stop();
    assert_eq!(backlog.append(frame(9_000, true, 10)), Err(fieldgate_hub::backlog::BacklogError::Closed));
    drop((backlog, spool));
    let spool = start(&scratch);
    let backlog = spool.open(key("v1"), quick()).await.unwrap();
    assert_eq!(read_all(&backlog, 0).await, range(1_000..3_000));
    assert_eq!(backlog.take_losses(), []);
    assert_eq!(backlog.held().ids, 1_000..3_000);
}

#[tokio::test]
async fn what_is_written_is_hardly_more_than_the_media() {
    let scratch = Scratch::new();
    let spool = start(&scratch);
    let backlog = spool.open(key("v1"), Settings { batch_bytes: 256 << 10, ..quick() }).await.unwrap();
    // A camera at 4 Mbit/s: 25 frames a second, 20 KB each.
    for id in 0..1_500 {
        backlog.append(frame(id, id % 50 == 0, 20_000)).unwrap();
        if id % 12 == 11 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    drop(backlog);
    let mut report = spool.reports();
    while report
        .first()
        .is_some_and(|report| report.held.frames > 0 && report.written_bytes < report.appended_bytes)
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
        report = spool.reports();
    }
    spool.stop();
    let written: u64 = std::fs::read_dir(scratch.0.join(key("v1").folder()))
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    let media = 1_500_u64 * (20_000 + 40);
    let ratio = written as f64 / media as f64;
    println!("{written} bytes written for {media} bytes of packets: {ratio:.4}");
    assert!(ratio <= 1.02, "{ratio}");
}

#[test]
fn a_gigabyte_is_opened_by_its_index_alone() {
    let scratch = Scratch::new();
    let fs = || Box::new(crate::fs::DirFs::open(&scratch.0).unwrap());
    // 128 files of 8 MiB: one is written, the others are sparse copies of its first and last bytes.
    let budget = Budget { bytes: 2 << 30, age: Duration::from_secs(100_000_000) };
    let mut segments = crate::segments::Segments::open(fs(), budget, 0).unwrap();
    let mut id = 0;
    for _ in 0..128 {
        // Batches as they are in life, but with little in them: the size is made below.
        for _ in 0..32 {
            let packets: Vec<Stored> = (id..id + 8).map(|id| frame(id, id % 8 == 0, 16)).collect();
            segments.write(&packets).1.unwrap();
            id += 8;
        }
        segments.close();
    }
    drop(segments);
    let mut total = 0;
    for file in std::fs::read_dir(&scratch.0).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        // The footer stands at the end, wherever that is.
        let footer = 12 + u32::from_le_bytes(*bytes[bytes.len() - 12..].first_chunk().unwrap()) as usize;
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(8 << 20).unwrap();
        file.write_all_at(&bytes[bytes.len() - footer..], (8 << 20) - footer as u64).unwrap();
        total += 8 << 20;
    }
    assert!(total >= 1 << 30, "{total}");
    let begin = Instant::now();
    let mut segments = crate::segments::Segments::open(fs(), budget, 0).unwrap();
    let took = begin.elapsed();
    println!("{total} bytes in 128 files opened in {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(segments.held().frames, id);
    assert_eq!(segments.read(id - 8, 1 << 20).unwrap().packets.len(), 8);
}

#[test]
fn the_index_alone_is_read_when_a_spool_is_opened() {
    let fs = SimFs::default();
    let mut bench = Bench::open(&fs, settings(64 << 20));
    bench.fill(0..20_000);
    bench.close();
    let before = fs.bytes_read();
    let bench = Bench::open(&fs, settings(64 << 20));
    let (read, used) = (fs.bytes_read() - before, fs.used() as u64);
    assert!(used > 20_000_000 && read < used / 20, "{read} of {used} bytes were read");
    assert_eq!(bench.core.shared().lock().held().frames, 20_000);
}

/// Frames that the ledger says an upstream's track has lost by being abandoned, and whether any are pending.
fn abandoned(spool: &Spool, track: &str) -> (u64, bool) {
    let answer = spool.ledger().query(&Query { limit: 100, ..Query::default() });
    let lines: Vec<_> = answer.lines.iter().filter(|line| line.key.track == track).collect();
    let lost = State::Settled(Fate::Lost(Why::Backlog(LossCause::Abandoned)));
    let frames = lines.iter().filter(|line| line.state == lost).map(|line| line.stretch.frames).sum();
    (frames, lines.iter().any(|line| line.state == State::Pending))
}

async fn until_gone(folder: &std::path::Path) {
    for _ in 0..4_000 {
        if !folder.exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{} is still there", folder.display());
}

#[tokio::test]
async fn what_nobody_has_any_more_is_named_as_lost_and_deleted() {
    let scratch = Scratch::new();
    let folder = |track: &str| scratch.0.join(key(track).folder());
    let spool = start(&scratch);
    for track in ["kept", "old", "away"] {
        let backlog = spool.open(key(track), quick()).await.unwrap();
        (0..100).for_each(|id| backlog.append(frame(id, id % 25 == 0, 500)).unwrap());
        backlog.release(30);
        let pending = Stretch { from_unix_micros: 1, to_unix_micros: 2, frames: 70, bytes: 0 };
        spool.ledger().handle("yard", "main", track).pending(Some(pending));
    }
    spool.stop();
    drop(spool);
    // Not ours: never touched.
    for other in ["lost+found", "a~b", "notes"] {
        std::fs::create_dir(scratch.0.join(other)).unwrap();
        std::fs::write(scratch.0.join(other).join("file"), b"content").unwrap();
    }
    std::os::unix::fs::symlink(scratch.0.join("notes"), scratch.0.join("yard~main~link")).unwrap();

    let spool = start(&scratch);
    let away = spool.open(key("away"), quick()).await.unwrap();
    assert_eq!(away.held().frames, 70);
    // As at a start: one is configured but not running, one is gone, and one goes just now.
    spool.keep_only(|key| key.track == "kept");
    until_gone(&folder("old")).await;
    assert_eq!((abandoned(&spool, "old"), abandoned(&spool, "away").0), ((70, false), 0));
    assert!(folder("away").exists(), "it is open");
    away.append(frame(100, true, 500)).unwrap();
    drop(away);
    until_gone(&folder("away")).await;
    assert_eq!((abandoned(&spool, "away"), abandoned(&spool, "kept")), ((71, false), (0, true)));

    // What is opened after all stays, also when its owner is away for a moment.
    let again = spool.open(key("old"), quick()).await.unwrap();
    assert_eq!(again.held().frames, 0);
    (500..510).for_each(|id| again.append(frame(id, true, 500)).unwrap());
    drop(again);
    let again = spool.open(key("old"), quick()).await.unwrap();
    assert_eq!(again.held().frames, 10);
    spool.stop();
    drop((again, spool));
    let spool = start(&scratch);
    assert_eq!((abandoned(&spool, "old").0, abandoned(&spool, "away").0), (70, 71), "it is on disk");
    assert_eq!(spool.open(key("kept"), quick()).await.unwrap().held().ids, 30..100);
    assert_eq!(spool.open(key("old"), quick()).await.unwrap().held().ids, 500..510);
    for other in ["lost+found", "a~b", "notes", "yard~main~link"] {
        assert!(scratch.0.join(other).join("file").exists(), "{other}");
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_costs_durability_not_media() {
    let scratch = Scratch::new();
    if rustix::process::geteuid().is_root() {
        // Root may write anywhere; a file in the way stops it too.
        std::fs::write(scratch.0.join(key("v1").folder()), b"in the way").unwrap();
    } else {
        std::fs::set_permissions(&scratch.0, std::fs::Permissions::from_mode(0o500)).unwrap();
    }
    let spool = start(&scratch);
    let backlog = spool.open(key("v1"), quick()).await.unwrap();
    for id in 0..100 {
        backlog.append(frame(id, id % 25 == 0, 100)).unwrap();
    }
    assert_eq!(read_all(&backlog, 0).await, range(0..100));
    assert_eq!(backlog.keeping(), Keeping::MemoryInstead(LossCause::DiskFailed));
}

#[tokio::test]
async fn a_note_is_there_again_and_says_whether_the_stop_was_in_order() {
    let scratch = Scratch::new();
    let spool = start(&scratch);
    let backlog = spool.open(key("v1"), quick()).await.unwrap();
    assert_eq!(backlog.note(), (Bytes::new(), false));
    backlog.append(frame(7, true, 1_000)).unwrap();
    backlog.keep_note(Bytes::from_static(b"one"));
    backlog.keep_note(Bytes::from_static(b"two"));
    drop(backlog);
    spool.stop();
    let spool = start(&scratch);
    let backlog = spool.open(key("v1"), quick()).await.unwrap();
    assert_eq!(backlog.note(), (Bytes::from_static(b"two"), true));
    drop(backlog);
    spool.stop();
    // What is not sound is none.
    let file = scratch.0.join(key("v1").folder()).join("note");
    std::fs::write(&file, b"some other bytes").unwrap();
    let spool = start(&scratch);
    let backlog = spool.open(key("v1"), quick()).await.unwrap();
    assert_eq!(backlog.note().0, Bytes::new());
    drop(backlog);
    spool.stop();
}
