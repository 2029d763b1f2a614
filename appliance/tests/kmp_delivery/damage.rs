//! Spools whose files are damaged between two runs, and how much of a large one is read at start.

use crate::camera::{Camera, Dice, TRACKS, UPSTREAM, local, mountpoint, settings, shared, upstream};
use crate::far_end::{FarEnd, Manners, PATIENCE};
use crate::outages::folder;
use bytes::Bytes;
use fieldgate_hub::backlog::{Budget, Keeping, LossCause, Stored, StoredKind};
use fieldgate_hub::ledger::{Fate, LedgerKeeper, Why};
use fieldgate_hub::{Backlog, Clock};
use fieldgate_media::TrackKind;
use fieldgate_net::{KmpBacklog, KmpTrack};
use fieldgate_proto::kmp::Name;
use fieldgate_spool::{Line, Query, Settings, Spool, SpoolKey, State};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

const PICTURES: u32 = 2_000;

fn key() -> SpoolKey {
    SpoolKey { mountpoint: "yard".into(), upstream: UPSTREAM.into(), track: TRACKS[0].into() }
}

fn spool_settings(bytes: u64) -> Settings {
    let budget = Budget { bytes, age: Duration::from_secs(24 * 3600) };
    Settings { budget, batch_interval: Duration::from_millis(20), ..Settings::default() }
}

/// A small disk of its own, as only root may have one; `None` for others.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mounted(name: &str, options: &str) -> Option<SmallDisk> {
        let folder = folder(name);
        std::fs::create_dir_all(&folder).unwrap();
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "none"])
            .arg(&folder)
            .stderr(Stdio::null())
            .status();
        mount.is_ok_and(|status| status.success()).then_some(SmallDisk(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        std::process::Command::new("umount").arg(&self.0).status().ok();
        std::fs::remove_dir(&self.0).ok();
    }
}

/// Fills a spool on a disk that can't take it while nobody listens; all is delivered from disk and memory.
fn from_a_disk_that_fails(disk: Option<SmallDisk>, cause: LossCause) {
    let Some(disk) = disk else {
        println!("skipped: only root may mount a disk");
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let far = FarEnd::new(Dice(1), Manners::Good, false, |_| 0);
        far.shut(true);
        let (local, mountpoint) = (local(), mountpoint("yard".to_owned()));
        let spool = Spool::start(disk.0.clone(), Clock::default()).unwrap();
        let backlog = Arc::new(spool.open(key(), spool_settings(8 << 20)).await.unwrap());
        let ledger: Arc<dyn LedgerKeeper> = spool.ledger().clone();
        let shared = shared(&mountpoint, ledger);
        let cancel = shared.cancel.clone();
        let (channel, track_id) = ((Name::new("yard").unwrap(), None), Name::new(TRACKS[0]).unwrap());
        let kept = KmpBacklog { frames: backlog.clone(), percent: None, outlives: true };
        let settings = settings(TrackKind::Video, 64 << 10);
        let track = KmpTrack::fixed(shared, settings, channel, track_id, upstream(far.addr()), Some(kept));
        let script = async {
            let mut camera = Camera::new(&mountpoint, &local, 0, false);
            while camera.next < PICTURES {
                camera.shoot(100, || 1000);
                sleep(Duration::from_millis(5)).await;
            }
            while backlog.keeping() != Keeping::MemoryInstead(cause) {
                sleep(Duration::from_millis(5)).await;
            }
            far.shut(false);
            while backlog.held().frames > 0 || far.with(TRACKS[0], |heard| heard.numbers().is_empty()) {
                sleep(Duration::from_millis(5)).await;
            }
            cancel.cancel();
            std::future::pending::<()>().await;
        };
        let all = async {
            tokio::select! {
                biased;
                () = track.run(local.clone()) => {}
                () = script => {}
                () = far.run() => {}
            }
        };
        timeout(PATIENCE * 2, all).await.unwrap_or_else(|_| panic!("{:?}", backlog.held()));
        assert_eq!(far.faults(), Vec::<String>::new());
        assert!(far.with(TRACKS[0], |heard| heard.numbers()).into_iter().eq(0..PICTURES));
        let lines = spool.ledger().query(&Query { limit: 1000, ..Query::default() }).lines;
        let delivered = lines.iter().filter(|line| line.state == State::Settled(Fate::Delivered));
        assert_eq!(delivered.map(|line| line.stretch.frames).sum::<u64>(), u64::from(PICTURES), "{lines:?}");
        drop(backlog);
        spool.stop();
    });
}

pub(crate) fn a_full_disk_costs_nothing_while_memory_has_room() {
    from_a_disk_that_fails(SmallDisk::mounted("full", "size=1m"), LossCause::DiskFull);
}

pub(crate) fn a_read_only_disk_costs_nothing_while_memory_has_room() {
    from_a_disk_that_fails(SmallDisk::mounted("read-only", "ro"), LossCause::DiskFailed);
}

/// The segment files, oldest first.
fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "seg") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Fills a spool while nobody listens, damages it, and delivers what is left; the numbers that arrive and the ledger.
fn after(name: &str, damage: impl FnOnce(&[PathBuf])) -> (Vec<u32>, Vec<Line>) {
    let folder = folder(name);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let numbers = runtime.block_on(async {
        let far = FarEnd::new(Dice(1), Manners::Good, false, |_| 0);
        far.shut(true);
        run(&folder, &far, PICTURES).await;
        damage(&segments(&folder));
        far.shut(false);
        run(&folder, &far, 0).await;
        assert_eq!(far.faults(), Vec::<String>::new());
        far.with(TRACKS[0], |heard| heard.numbers())
    });
    let spool = Spool::start(folder.clone(), Clock::default()).unwrap();
    let lines = spool.ledger().query(&Query { limit: 1000, ..Query::default() }).lines;
    drop(spool);
    std::fs::remove_dir_all(&folder).ok();
    (numbers, lines)
}

/// Publishes so many pictures, or delivers what is kept.
async fn run(folder: &Path, far: &FarEnd, pictures: u32) {
    let local = local();
    let mountpoint = mountpoint("yard".to_owned());
    let spool = Spool::start(folder.to_owned(), Clock::default()).unwrap();
    let backlog = Arc::new(spool.open(key(), spool_settings(8 << 20)).await.unwrap());
    let ledger: Arc<dyn LedgerKeeper> = spool.ledger().clone();
    let shared = shared(&mountpoint, ledger);
    let cancel = shared.cancel.clone();
    let (channel, track_id) = ((Name::new("yard").unwrap(), None), Name::new(TRACKS[0]).unwrap());
    let kept = KmpBacklog { frames: backlog.clone(), percent: None, outlives: true };
    let settings = settings(TrackKind::Video, 64 << 10);
    let track = KmpTrack::fixed(shared, settings, channel, track_id, upstream(far.addr()), Some(kept));
    let report = track.report();
    let script = async {
        if pictures > 0 {
            let mut camera = Camera::new(&mountpoint, &local, 0, false);
            while camera.next < pictures {
                camera.shoot(100, || 1000);
                sleep(Duration::from_millis(2)).await;
            }
            while report.totals().frames < u64::from(pictures) {
                sleep(Duration::from_millis(2)).await;
            }
        } else {
            while backlog.held().frames > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        }
        cancel.cancel();
        std::future::pending::<()>().await;
    };
    let all = async {
        tokio::select! {
            biased;
            () = track.run(local.clone()) => {}
            () = script => {}
            () = far.run() => {}
        }
    };
    timeout(PATIENCE * 2, all).await.unwrap_or_else(|_| panic!("{:?}", backlog.held()));
    drop(backlog);
    spool.stop();
}

/// Checks that what is missing is one row of frames within `at_most` frames, named by the ledger with this cause.
fn named(numbers: &[u32], lines: &[Line], cause: LossCause, at_most: u64) -> Vec<u32> {
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "in order, each once");
    let missing: Vec<u32> = (0..PICTURES).filter(|number| numbers.binary_search(number).is_err()).collect();
    let count = missing.len() as u64;
    assert!((1..=at_most).contains(&count), "{count} are missing: {lines:?}");
    assert_eq!(u64::from(missing[missing.len() - 1] - missing[0]) + 1, count, "one row: {missing:?}");
    let why = Why::Backlog(cause);
    let gone = [Fate::Lost(why), Fate::Unconfirmed(why)].map(State::Settled);
    let of_cause: u64 =
        lines.iter().filter(|line| gone.contains(&line.state)).map(|line| line.stretch.frames).sum();
    assert_eq!(of_cause, count, "{lines:?}");
    let delivered = lines.iter().filter(|line| line.state == State::Settled(Fate::Delivered));
    assert_eq!(delivered.map(|line| line.stretch.frames).sum::<u64>(), numbers.len() as u64, "{lines:?}");
    missing
}

pub(crate) fn a_flipped_bit_costs_what_it_hit() {
    let (numbers, lines) = after("flip", |files| {
        let file = &files[files.len() / 2];
        let mut bytes = std::fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        std::fs::write(file, bytes).unwrap();
    });
    let missing = named(&numbers, &lines, LossCause::Damaged, 1);
    assert!(missing[0] > 0 && missing[0] < PICTURES - 1);
}

pub(crate) fn a_torn_end_costs_the_end() {
    let (numbers, lines) = after("torn", |files| {
        let file = std::fs::OpenOptions::new().write(true).open(&files[files.len() - 1]).unwrap();
        let len = file.metadata().unwrap().len();
        file.set_len(len - 10_000).unwrap();
    });
    let missing = named(&numbers, &lines, LossCause::Torn, 20);
    assert_eq!(missing.last(), Some(&(PICTURES - 1)));
}

pub(crate) fn a_spool_of_64_mb_opens_at_once() {
    opens_at_once(64 << 20);
}

pub(crate) fn a_spool_of_1_gb_opens_within_2_s() {
    opens_at_once(1 << 30);
}

/// What this process has done so far: `rchar`, bytes read from files and elsewhere; `read_bytes`, those from disks.
fn io_count(what: &str) -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(": ")).unwrap();
    line.parse().unwrap()
}

/// Bytes of a frame in a large spool.
const PICTURE: usize = 20_000;

fn large(bytes: u64) -> Settings {
    spool_settings(2 * bytes)
}

/// The process that fills a large spool, and goes on writing until it is killed.
pub(crate) fn filler(args: &[String]) -> ExitCode {
    let [folder, bytes] = args else { return ExitCode::from(2) };
    let (folder, bytes) = (PathBuf::from(folder), bytes.parse::<u64>().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let spool = Spool::start(folder, Clock::default()).unwrap();
        let backlog = spool.open(key(), large(bytes)).await.unwrap();
        let (head, body) = (Bytes::from(vec![1; 40]), Bytes::from(vec![2; PICTURE - 40]));
        for id in 0..(2 * bytes - (8 << 20)) / PICTURE as u64 {
            let (kind, keyframe) = (StoredKind::Frame, id.is_multiple_of(50));
            let captured_unix_micros = 1_700_000_000_000_000 + id as i64 * 40_000;
            let (head, body) = (head.clone(), body.clone());
            backlog.append(Stored { id, kind, keyframe, captured_unix_micros, head, body }).unwrap();
            while spool.reports()[0].written_bytes + (4 << 20) < id * PICTURE as u64 {
                sleep(Duration::from_millis(1)).await;
            }
            // Some are not on disk yet.
            if id == (bytes + (8 << 20)) / PICTURE as u64 {
                println!("full");
            }
        }
    });
    ExitCode::SUCCESS
}

/// Fills a spool and kills the one who does in the middle of his work.
async fn filled_by_one_who_is_killed(folder: &Path, bytes: u64) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("filler")
        .arg(folder)
        .arg(bytes.to_string())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let full = timeout(Duration::from_secs(300), lines.next_line()).await.expect("it fills up");
    assert_eq!(full.unwrap().as_deref(), Some("full"));
    sleep(Duration::from_millis(7)).await;
    child.start_kill().unwrap();
    assert!(!child.wait().await.unwrap().success(), "it was killed");
}

/// Takes a folder's files out of the page cache.
fn forget_pages(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            forget_pages(&path);
            continue;
        }
        let file = std::fs::File::open(path).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
}

fn opens_at_once(bytes: u64) {
    let folder = folder("large");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        filled_by_one_who_is_killed(&folder, bytes).await;
        // Before the first opening finishes what was left unfinished.
        let files = segments(&folder);
        let on_disk: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
        assert!(on_disk >= bytes, "{on_disk} bytes are on disk");
        let copy = folder.with_extension("copy");
        copied(&folder, &copy);
        for (folder, cold) in [(&folder, true), (&copy, false)] {
            if cold {
                forget_pages(folder);
            }
            let (began, before, from_disk) = (Instant::now(), io_count("rchar"), io_count("read_bytes"));
            let spool = Spool::start(folder.clone(), Clock::default()).unwrap();
            let backlog = spool.open(key(), large(bytes)).await.unwrap();
            let first = backlog.read(0, 1).await.unwrap();
            let (took, read) = (began.elapsed(), io_count("rchar") - before);
            let from_disk = io_count("read_bytes") - from_disk;
            println!(
                "{} MB, killed while it was written, pages {}: open and first frame in {took:?}, {} KB read, {} KB of \
                 them from the disk",
                on_disk >> 20,
                if cold { "not in memory" } else { "in memory" },
                read >> 10,
                from_disk >> 10
            );
            let held = backlog.held();
            assert_eq!(first.packets[0].id, 0);
            assert!(held.frames * (PICTURE as u64) + (1 << 20) > bytes, "{held:?}");
            assert!(took < Duration::from_secs(2), "{took:?}");
            assert!(read < (4 << 20) + bytes / 100, "{read} bytes read at start");
            drop(backlog);
            spool.stop();
        }
        std::fs::remove_dir_all(&copy).ok();
    });
    std::fs::remove_dir_all(&folder).ok();
}

fn copied(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copied(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}
