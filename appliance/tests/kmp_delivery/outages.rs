//! Outages of simulated length with spools on disk: media of an hour are published as fast as the disk takes them, with
//! the capture times of that hour.

use crate::camera::{
    Camera, STEP_MICROS, TRACKS, UPSTREAM, captured, local, mountpoint, push, settings, shared,
};
use crate::far_end::{FarEnd, Manners, PATIENCE};
use crate::record::Watched;
use fieldgate_hub::Backlog;
use fieldgate_hub::backlog::{Budget, LossCause};
use fieldgate_hub::ledger::{Fate, LedgerKeeper, Why};
use fieldgate_media::TrackKind;
use fieldgate_net::KmpPushReport;
use fieldgate_spool::{Line, Query, Settings, Spool, SpoolKey, State};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Pictures before and after the outage.
const AROUND: u32 = 100;
/// Bytes of a picture; a sound has a quarter of that.
const PICTURE: usize = 160;
/// The times in the ledger are noted every 100 ms.
const TIME_SLACK: i64 = 100_000 + 2 * STEP_MICROS;
/// Media published in one go.
const BURST: u32 = 250;
/// Bytes of a packet before its payload.
const FRAME_HEAD: usize = 40;
/// Bytes that are written at once.
const BATCH: u64 = 256 << 10;
/// Bytes that may wait for the disk before more is published.
const BEHIND: u64 = 4 << 20;

const AMPLE: Budget = Budget { bytes: 256 << 20, age: Duration::from_secs(24 * 3600) };

/// What became of one track.
struct Outcome {
    /// Numbers that arrived.
    numbers: Vec<u32>,
    /// Of the ledger's page.
    lines: Vec<Line>,
}

impl Outcome {
    fn frames(&self, wanted: impl Fn(Fate) -> bool) -> u64 {
        let settled =
            self.lines.iter().filter(|line| matches!(line.state, State::Settled(fate) if wanted(fate)));
        settled.map(|line| line.stretch.frames).sum()
    }
}

pub(crate) fn folder(name: &str) -> PathBuf {
    let folder =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("kmp-{name}-{}", std::process::id()));
    std::fs::remove_dir_all(&folder).ok();
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

pub(crate) fn an_outage_of_a_second_loses_nothing() {
    nothing_lost("second", 25);
}

pub(crate) fn an_outage_of_a_minute_loses_nothing() {
    nothing_lost("minute", 25 * 60);
}

pub(crate) fn an_outage_of_an_hour_loses_nothing() {
    nothing_lost("hour", 25 * 3600);
}

fn nothing_lost(name: &str, pictures: u32) {
    let total = pictures + 2 * AROUND;
    for (track, outcome) in TRACKS.into_iter().zip(outage(name, pictures, AMPLE)) {
        assert!(outcome.numbers.iter().copied().eq(0..total), "{track}: {} arrived", outcome.numbers.len());
        assert_eq!(outcome.frames(|fate| fate == Fate::Delivered), u64::from(total), "{:?}", outcome.lines);
        assert_eq!(outcome.frames(|_| true), u64::from(total), "{:?}", outcome.lines);
    }
}

pub(crate) fn beyond_the_byte_budget_the_oldest_are_lost_and_named() {
    let budget = Budget { bytes: 1 << 20, ..AMPLE };
    let outcomes = outage("bytes", 25 * 1200, budget);
    for (track, outcome) in TRACKS.into_iter().zip(&outcomes) {
        let kept = oldest_lost(track, outcome, LossCause::Bytes);
        // What is kept fills the budget but for a file or two of a 32nd each; a batch waits in memory.
        let bytes = kept * (if track == "v1" { PICTURE } else { PICTURE / 4 } + FRAME_HEAD) as u64;
        let most = budget.bytes + BATCH;
        assert!(bytes > budget.bytes * 3 / 4 && bytes <= most, "{track}: {bytes} bytes were kept");
    }
}

pub(crate) fn beyond_the_age_budget_the_oldest_are_lost_and_named() {
    let age = Duration::from_secs(600);
    // Files hold a 32nd of the bytes.
    let budget = Budget { bytes: 16 << 20, age };
    for (track, outcome) in TRACKS.into_iter().zip(&outage("age", 25 * 1200, budget)) {
        let kept = oldest_lost(track, outcome, LossCause::Age);
        let seconds = kept / 25;
        // Whole files go, when all in them is too old.
        assert!((600..2 * 600).contains(&seconds), "{track}: {seconds} s were kept");
    }
}

/// Checks that exactly the oldest of the outage are missing, up to a keyframe, and that the ledger names them; how many
/// frames of the outage came after all.
fn oldest_lost(track: &str, outcome: &Outcome, cause: LossCause) -> u64 {
    let pictures = 25 * 1200;
    let total = AROUND + pictures + AROUND;
    let first = AROUND as usize;
    assert!(outcome.numbers[..first].iter().copied().eq(0..AROUND), "{track}");
    let resumed = outcome.numbers[first];
    let gaps: Vec<_> = outcome.numbers.windows(2).filter(|pair| pair[0] + 1 != pair[1]).collect();
    assert_eq!(gaps.len(), 1, "{track}: {gaps:?}, {:?}", outcome.lines);
    assert_eq!(outcome.numbers.last(), Some(&(total - 1)));
    assert!(track != "v1" || resumed.is_multiple_of(crate::camera::GOP), "{track} goes on at {resumed}");
    assert!(resumed > AROUND, "{track}: nothing was lost");
    let lost = Fate::Lost(Why::Backlog(cause));
    assert_eq!(outcome.frames(|fate| fate == lost), u64::from(resumed - AROUND), "{:?}", outcome.lines);
    assert_eq!(outcome.frames(|fate| fate == Fate::Delivered), outcome.numbers.len() as u64);
    assert_eq!(outcome.frames(|_| true), u64::from(total), "{:?}", outcome.lines);
    let lines: Vec<&Line> = outcome.lines.iter().filter(|line| line.state == State::Settled(lost)).collect();
    let from = lines.iter().map(|line| line.stretch.from_unix_micros).min().unwrap();
    let to = lines.iter().map(|line| line.stretch.to_unix_micros).max().unwrap();
    let off = [from - captured(AROUND), to - captured(resumed - 1)];
    assert!(off.iter().all(|off| off.abs() <= TIME_SLACK), "{track}: off by {off:?} us, {lines:?}");
    u64::from(total - AROUND - resumed)
}

/// Publishes, shuts the door for the time of so many pictures, opens it, and waits until all is settled.
fn outage(name: &str, pictures: u32, budget: Budget) -> [Outcome; 2] {
    let folder = folder(name);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let numbers = runtime.block_on(deliver(&folder, pictures, budget));
    // The ledger as the next start finds it.
    let spool = Spool::start(folder.clone(), fieldgate_hub::Clock::default()).unwrap();
    let answer = spool.ledger().query(&Query { limit: 10_000, ..Query::default() });
    assert!(answer.lines.iter().all(|line| line.state != State::Pending), "{:?}", answer.lines);
    assert!(answer.next.is_none() && answer.forgotten_before_unix_micros.is_none());
    spool.stop();
    std::fs::remove_dir_all(&folder).ok();
    let mut numbers = numbers.into_iter();
    TRACKS.map(|track| {
        let lines = answer.lines.iter().filter(|line| line.key.track == track).cloned().collect();
        Outcome { numbers: numbers.next().unwrap(), lines }
    })
}

async fn deliver(folder: &std::path::Path, pictures: u32, budget: Budget) -> [Vec<u32>; 2] {
    let local = local();
    let mountpoint = mountpoint("yard".to_owned());
    let spool = Spool::start(folder.to_owned(), fieldgate_hub::Clock::default()).unwrap();
    let ledger: Arc<dyn LedgerKeeper> = spool.ledger().clone();
    let far = FarEnd::new(crate::camera::Dice(1), Manners::Good, true, |_| 0);
    let mut backlogs = Vec::new();
    for track in TRACKS {
        let key = SpoolKey { mountpoint: "yard".into(), upstream: UPSTREAM.into(), track: track.to_owned() };
        let settings = Settings { budget, batch_interval: Duration::from_millis(100), ..Settings::default() };
        backlogs.push(Watched::new(spool.open(key, settings).await.unwrap()));
    }
    let track = |kind, index: usize| {
        let backlog: Arc<dyn Backlog> = backlogs[index].clone();
        (settings(kind, 64 << 10), backlog)
    };
    let tracks = [track(TrackKind::Video, 0), track(TrackKind::Audio, 1)];
    let shared = shared(&mountpoint, ledger);
    let cancel = shared.cancel.clone();
    let (push, report) = push(shared, far.addr(), tracks);
    let script = async {
        let mut camera = Camera::new(&mountpoint, &local, 0, true);
        camera.shoot(AROUND, || PICTURE);
        until(&report, &spool, || report.totals().acked_frames == 2 * u64::from(AROUND)).await;
        far.shut(true);
        until(&report, &spool, || report.error().is_some()).await;
        while camera.next < AROUND + pictures {
            camera.shoot(BURST.min(AROUND + pictures - camera.next), || PICTURE);
            let next = u64::from(camera.next);
            until(&report, &spool, || report.totals().frames == 2 * next && behind(&spool) < BEHIND).await;
        }
        if pictures < 100 {
            // A second is short enough to be waited for.
            sleep(Duration::from_secs(1)).await;
        }
        // Twice a second the sender hears what its backlog has dropped; an hour of it came faster.
        until(&report, &spool, || {
            let (totals, held) = (report.totals(), backlogs.iter().map(|backlog| backlog.held().frames));
            totals.acked_frames + totals.lost_frames + held.sum::<u64>() == totals.frames
        })
        .await;
        far.shut(false);
        camera.shoot(AROUND, || PICTURE);
        let all = 2 * u64::from(pictures + 2 * AROUND);
        until(&report, &spool, || {
            let totals = report.totals();
            totals.acked_frames + totals.lost_frames == all
        })
        .await;
    };
    tokio::select! {
        biased;
        () = push.run(local.clone()) => {}
        () = async { script.await; cancel.cancel(); std::future::pending().await } => {}
        () = far.run() => {}
    }
    assert_eq!(far.faults(), Vec::<String>::new());
    drop(backlogs);
    spool.stop();
    TRACKS.map(|track| far.with(track, |heard| heard.numbers()))
}

/// Bytes that wait for the disk.
fn behind(spool: &Spool) -> u64 {
    let behind =
        |report: &fieldgate_spool::SpoolReport| report.appended_bytes.saturating_sub(report.written_bytes);
    spool.reports().iter().map(behind).max().unwrap_or(0)
}

async fn until(report: &KmpPushReport, spool: &Spool, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(PATIENCE * 2, wait).await.is_err() {
        panic!("{:?} {:?} {:?}", report.totals(), report.error(), spool.reports());
    }
}
