//! Senders with a spool that are killed, again and again, at any moment.
//!
//! What holds: a frame that was on disk when its process was killed arrives. The disk's thread writes what has come after
//! `batch_interval`, or sooner when it is `batch_bytes`; younger frames arrive if they were sent before, else they are
//! lost, and the ledger says so. Thus what is missing of a life is its end, and nothing arrives twice by the rule of ids.
//! That holds for every life, also for one that was killed while it started, and however soon its successors die.

use crate::camera::{
    Camera, Dice, EPOCH, GOP, STEP_MICROS, TRACKS, UPSTREAM, captured, local, mountpoint, settings, shared,
    upstream,
};
use crate::far_end::{FarEnd, Manners, PATIENCE};
use crate::outages::folder;
use crate::record::Watched;
use fieldgate_hub::backlog::Budget;
use fieldgate_hub::ledger::{Fate, LedgerKeeper};
use fieldgate_hub::{Backlog, Clock};
use fieldgate_media::TrackKind;
use fieldgate_net::{KmpBacklog, KmpTrack};
use fieldgate_proto::kmp::Name;
use fieldgate_spool::{Query, Settings, Spool, SpoolKey, State};
use futures_util::StreamExt;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

/// Pictures of a life that is not killed.
const LAST_PICTURES: u32 = 40;
/// Runs at the same time.
const TOGETHER: usize = 4;
/// The times in the ledger are noted every 100 ms.
const TIME_SLACK: i64 = 100_000 + 2 * STEP_MICROS;

/// One life of a sender.
#[derive(Clone, Copy, Debug)]
struct Life {
    /// The number of its first picture.
    first: u32,
    /// One past the last that it may have published.
    made: u32,
    /// One past the last that it saw on disk.
    promised: u32,
}

pub(crate) fn a_killed_process_resumes() {
    lives_are_killed(0..20);
}

pub(crate) fn hundreds_of_killed_processes_resume() {
    lives_are_killed(1_000..1_150);
}

fn lives_are_killed(seeds: Range<u64>) {
    println!("seeds {seeds:?}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcomes = runtime.block_on(async {
        let runs = futures_util::stream::iter(seeds).map(|seed| Box::pin(run(seed)));
        runs.buffer_unordered(TOGETHER).collect::<Vec<_>>().await
    });
    let (mut made, mut promised, mut missing, mut doubted, mut lives) = (0, 0, 0, 0, 0);
    let mut faults = Vec::new();
    for (seed, outcome) in outcomes {
        match outcome {
            Ok((of_run, Gone { missing: gone, doubted: unsure })) => {
                doubted += unsure;
                made += of_run.iter().map(|life| life.made - life.first).sum::<u32>();
                promised += of_run.iter().map(|life| life.promised - life.first).sum::<u32>();
                missing += gone;
                lives += of_run.len();
            }
            Err(fault) => faults.push(format!("seed {seed}: {fault}")),
        }
    }
    println!(
        "{lives} lives, {made} frames, {promised} promised, {missing} missing, all named; {doubted} that arrived \
         are in doubt"
    );
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(promised > made / 4, "most frames were gone before they were on disk");
}

/// What is not known to have arrived.
struct Gone {
    missing: u32,
    /// These arrived all the same.
    doubted: u32,
}

async fn run(seed: u64) -> (u64, Result<(Vec<Life>, Gone), String>) {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    // Ahead of the clock, as some cameras are.
    let epoch = Clock::default().unix_micros() + 10_000_000;
    let folder = folder(&format!("killed-{seed}"));
    let far = FarEnd::new(Dice(seed + 7), Manners::Random, true, |_| 0);
    let script = async {
        let mut lives: Vec<Life> = Vec::new();
        for _ in 0..2 + dice.below(5) {
            far.shut(dice.below(3) == 0);
            // Some die while they start.
            let millis = if dice.below(3) == 0 { dice.below(40) } else { dice.below(400) };
            let first = lives.last().map_or(0, |life| life.made.next_multiple_of(GOP));
            let start = Start { first, epoch, seed: dice.below(1 << 32) };
            lives.push(live(&folder, &far, start, Some(millis)).await?);
        }
        far.shut(false);
        let first = lives.last().map_or(0, |life| life.made.next_multiple_of(GOP));
        lives.push(live(&folder, &far, Start { first, epoch, seed: dice.below(1 << 32) }, None).await?);
        Ok(lives)
    };
    let lives = tokio::select! {
        lives = script => lives,
        () = far.run() => Err("the far end went away".to_owned()),
    };
    let outcome = lives.and_then(|lives| check(&lives, epoch, &far, &folder).map(|gone| (lives, gone)));
    if outcome.is_ok() {
        std::fs::remove_dir_all(&folder).ok();
    }
    (seed, outcome)
}

/// What a sender is told.
struct Start {
    first: u32,
    epoch: i64,
    seed: u64,
}

/// Starts a sender, and kills it after so many milliseconds, or ends it when it has delivered everything.
async fn live(
    folder: &Path,
    far: &FarEnd,
    Start { first, epoch, seed }: Start,
    killed_after: Option<u64>,
) -> Result<Life, String> {
    let mode = if killed_after.is_some() { "endless" } else { "last" };
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("sender")
        .args([&far.addr().to_string(), &first.to_string(), &epoch.to_string(), &seed.to_string(), mode])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut life = Life { first, made: first, promised: first };
    let deadline = killed_after.map(|millis| Instant::now() + Duration::from_millis(millis));
    let until = deadline.unwrap_or_else(|| Instant::now() + PATIENCE);
    let mut killed = false;
    let mut manners = far.manners();
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line.unwrap(),
            () = tokio::time::sleep_until(until), if !killed => {
                if deadline.is_none() {
                    return Err(format!("not all was delivered: {life:?}, {:?}", far.faults()));
                }
                child.start_kill().unwrap();
                killed = true;
                continue;
            }
        };
        // What it wrote before it was killed is still read.
        let Some(line) = line else { break };
        match line.split_once(' ') {
            Some(("made", number)) => life.made = number.parse().unwrap(),
            Some(("promised", number)) => life.promised = number.parse().unwrap(),
            _ if line == "published" => {
                manners = far.manners();
                far.set_manners(Manners::Good);
            }
            // All is delivered: it shall stop in order.
            _ if line == "empty" => drop(child.stdin.take()),
            _ => return Err(format!("the sender says {line:?}")),
        }
    }
    far.set_manners(manners);
    let status = timeout(PATIENCE, child.wait()).await.map_err(|_| "it does not end")?.unwrap();
    if !killed && !status.success() {
        return Err(format!("the sender ended with {status}"));
    }
    Ok(life)
}

/// Holds what arrived against what was made and promised; how much is missing.
fn check(lives: &[Life], epoch: i64, far: &FarEnd, folder: &Path) -> Result<Gone, String> {
    if let Some(fault) = far.faults().first() {
        return Err(fault.clone());
    }
    let numbers = far.with(TRACKS[0], |heard| heard.numbers());
    let spool = Spool::start(folder.to_owned(), Clock::default()).unwrap();
    let lines = spool.ledger().query(&Query { limit: 10_000, ..Query::default() }).lines;
    let named = |number, slack: i64| {
        let at = epoch - EPOCH + captured(number);
        let gone = |state| !matches!(state, State::Settled(Fate::Delivered) | State::Pending);
        lines.iter().filter(|line| gone(line.state)).any(|line| {
            (line.stretch.from_unix_micros - slack..=line.stretch.to_unix_micros + slack).contains(&at)
        })
    };
    let (mut missing, mut doubted) = (0, 0);
    for (index, life) in lives.iter().enumerate() {
        let of_life: Vec<u32> =
            numbers.iter().copied().filter(|number| (life.first..life.made).contains(number)).collect();
        let end = life.first + of_life.len() as u32;
        if !of_life.iter().copied().eq(life.first..end) {
            return Err(format!("{life:?}: what is missing is not the end, {of_life:?}"));
        }
        if end < life.promised || (index + 1 == lives.len() && end < life.made) {
            return Err(format!("{life:?}: only what is below {end} arrived"));
        }
        missing += life.made - end;
        doubted += (life.first..end).filter(|number| named(*number, -1)).count() as u32;
        if let Some(number) = (end..life.made).find(|number| !named(*number, TIME_SLACK)) {
            return Err(format!("{number} of {life:?} is missing, and the ledger says {lines:?}"));
        }
        // Of a life that ends in order everything is known.
        let in_doubt = (life.first..end).find(|number| named(*number, -TIME_SLACK));
        if let Some(number) = in_doubt.filter(|_| index + 1 == lives.len()) {
            return Err(format!("{number} of {life:?} arrived, and the ledger says {lines:?}"));
        }
    }
    let made: u64 = lives.iter().map(|life| u64::from(life.made - life.first)).sum();
    let told: u64 = lines.iter().map(|line| line.stretch.frames).sum();
    if told > made {
        return Err(format!("{made} frames were made, {told} are in the ledger: {lines:?}"));
    }
    Ok(Gone { missing, doubted })
}

/// Pictures published in one go at most.
const BURST: u64 = 8;

/// The process that is killed.
pub(crate) fn sender(args: &[String]) -> ExitCode {
    let [addr, first, epoch, seed, mode, folder] = args else { return ExitCode::from(2) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dice = Dice(seed.parse().unwrap());
    let last = mode == "last";
    let times = (first.parse().unwrap(), epoch.parse().unwrap());
    let work = send(addr.parse().unwrap(), times, dice, last, PathBuf::from(folder));
    // An endless one whose parent is gone must not stay.
    match runtime.block_on(async { timeout(PATIENCE * 2, work).await }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

async fn send(
    addr: std::net::SocketAddr,
    (first, epoch): (u32, i64),
    mut dice: Dice,
    last: bool,
    folder: PathBuf,
) {
    let local = local();
    let mountpoint = mountpoint("yard".to_owned());
    let spool = Spool::start(folder, Clock::default()).unwrap();
    let key = SpoolKey { mountpoint: "yard".into(), upstream: UPSTREAM.into(), track: TRACKS[0].into() };
    let spool_settings = Settings {
        budget: Budget { bytes: 64 << 20, age: Duration::from_secs(24 * 3600) },
        batch_interval: Duration::from_millis(1 + dice.below(60)),
        batch_bytes: 1_000 + dice.below(20_000),
        ..Settings::default()
    };
    let backlog = Watched::new(spool.open(key, spool_settings).await.unwrap());
    let ledger: Arc<dyn LedgerKeeper> = spool.ledger().clone();
    let shared = shared(&mountpoint, ledger);
    let cancel = shared.cancel.clone();
    let (channel, track_id) = ((Name::new("yard").unwrap(), None), Name::new(TRACKS[0]).unwrap());
    let kept = KmpBacklog { frames: backlog.clone(), percent: None, outlives: true };
    let mut settings = settings(TrackKind::Video, 1_000 + dice.below(20_000));
    settings.sender.ack_silence = Some(Duration::from_millis(200));
    let track = KmpTrack::fixed(shared, settings, channel, track_id, upstream(addr), Some(kept));
    let script = async {
        let mut camera = Camera::new(&mountpoint, &local, first, false).since(epoch);
        let mut promised = 0;
        while !last || camera.next < first + LAST_PICTURES {
            let burst = 1 + dice.below(BURST) as u32;
            println!("made {}", camera.next + burst);
            camera.shoot(burst, || 20 + dice.below(1500) as usize);
            sleep(Duration::from_millis(1 + dice.below(6))).await;
            let ids = backlog.ids();
            // What must be read from disk is there.
            let on_disk = ids.partition_point(|id| backlog.read_memory(*id, 1).is_none());
            if on_disk > promised {
                promised = on_disk;
                println!("promised {}", first + promised as u32);
            }
        }
        println!("published");
        while backlog.held().frames > 0 {
            sleep(Duration::from_millis(5)).await;
        }
        println!("empty");
        let told_to_stop = || std::io::stdin().read_to_end(&mut Vec::new());
        tokio::task::spawn_blocking(told_to_stop).await.unwrap().unwrap();
        cancel.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = track.run(local.clone()) => {}
        () = script => {}
    }
    drop(backlog);
    spool.stop();
}
