//! Seeded runs against receivers without manners, many at once on one shard.

use crate::camera::{
    Camera, Dice, GOP, STEP_MICROS, TRACKS, captured, local, mountpoint, push, settings, shared,
};
use crate::far_end::{FarEnd, Manners, PATIENCE};
use crate::record::{Told, Watched};
use fieldgate_hub::backlog::{Budget, LossCause};
use fieldgate_hub::ledger::{Fate, Stretch, Why};
use fieldgate_hub::{Backlog, LocalShard, RamBacklog};
use fieldgate_media::TrackKind;
use futures_util::StreamExt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// How far the capture times in the ledger may be off: they are noted every 100 ms.
const TIME_SLACK: i64 = 100_000 + 2 * STEP_MICROS;
/// Runs at the same time.
const TOGETHER: usize = 40;

/// How much a run's backlogs may hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    Ample,
    Tight,
}

#[derive(Debug, Default)]
struct Sum {
    runs: u64,
    published: u64,
    /// Neither a socket nor the receiver had them.
    lost: u64,
    /// A socket had them, and they were given up before they were heard to be acknowledged.
    unconfirmed: u64,
    /// As many of those are here.
    arrived: u64,
    again: u64,
    connections: u64,
    faults: Vec<String>,
}

pub(crate) fn random_receivers_lose_nothing() {
    let sum = all(Room::Ample, 0..150);
    assert_eq!((sum.lost, sum.unconfirmed), (0, 0));
    assert!(sum.again > sum.published / 20, "receivers were too kind: {sum:?}");
}

pub(crate) fn what_random_receivers_miss_is_named() {
    let sum = all(Room::Tight, 150..300);
    assert!(sum.lost + sum.unconfirmed > sum.published / 50, "budgets were too ample: {sum:?}");
}

fn all(room: Room, seeds: std::ops::Range<u64>) -> Sum {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let sum = runtime.block_on(async {
        let local = local();
        let runs = futures_util::stream::iter(seeds).map(|seed| Box::pin(run(seed, room, local.clone())));
        let add = |mut sum: Sum, one: Sum| async move {
            sum.runs += 1;
            sum.published += one.published;
            sum.lost += one.lost;
            sum.unconfirmed += one.unconfirmed;
            sum.arrived += one.arrived;
            sum.again += one.again;
            sum.connections += one.connections;
            sum.faults.extend(one.faults);
            sum
        };
        runs.buffer_unordered(TOGETHER).fold(Sum::default(), add).await
    });
    println!(
        "{} runs, {} frames, {} connections, {} frames again, {} lost, {} unconfirmed, {} of these arrived",
        sum.runs, sum.published, sum.connections, sum.again, sum.lost, sum.unconfirmed, sum.arrived
    );
    assert!(sum.faults.is_empty(), "\n{}", sum.faults.join("\n"));
    sum
}

async fn run(seed: u64, room: Room, local: Rc<LocalShard>) -> Sum {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mountpoint = mountpoint(format!("yard-{seed}"));
    let told = Arc::new(Told::default());
    let heard = {
        let told = told.clone();
        move |track: &str| told.delivered(track)
    };
    let manners = if room == Room::Tight && seed.is_multiple_of(2) { Manners::Fair } else { Manners::Random };
    let far = FarEnd::new(Dice(seed + 77), manners, true, heard);
    let budgets = match room {
        Room::Ample => [64 << 20; 2],
        // From less than a GOP, of some 8,000 bytes, to a dozen, and up to some seconds of sound.
        Room::Tight => [1_000 + dice.below(100_000), 500 + dice.below(40_000)],
    };
    let backlogs =
        budgets.map(|bytes| Watched::new(RamBacklog::new(Budget { bytes, age: Duration::from_secs(3600) })));
    let track = |kind, index: usize, dice: &mut Dice| {
        let mut settings = settings(kind, 500 + dice.below(20_000));
        settings.sender.ack_silence = Some(Duration::from_millis(200));
        settings.sender.flush_timeout = Duration::from_millis(dice.below(3) * 3);
        settings.sender.block_bytes = 200 + dice.below(4_000);
        (settings, backlogs[index].clone() as Arc<dyn Backlog>)
    };
    let tracks = [track(TrackKind::Video, 0, &mut dice), track(TrackKind::Audio, 1, &mut dice)];
    let (push, report) = push(shared(&mountpoint, told.clone()), far.addr(), tracks);
    let count = 60 + dice.below(240) as u32;
    let ends = seed.is_multiple_of(3);
    let script = async {
        let mut camera = Camera::new(&mountpoint, &local, 0, true);
        while camera.next < count {
            let burst = (1 + dice.below(30) as u32).min(count - camera.next);
            camera.shoot(burst, || 20 + dice.below(1500) as usize);
            sleep(Duration::from_millis(dice.below(30))).await;
        }
        // Half of those who stay have bad manners to the end of the stream and beyond.
        if ends {
            drop(camera);
            sleep(Duration::from_millis(dice.below(300))).await;
            far.set_manners(Manners::Good);
            settle(&told, count).await
        } else {
            sleep(Duration::from_millis(dice.below(300))).await;
            far.set_manners(Manners::Good);
            let settled = settle(&told, count).await;
            drop(camera);
            settled
        }
    };
    let settled = tokio::select! {
        biased;
        () = async { push.run(local.clone()).await; std::future::pending().await } => false,
        settled = script => settled,
        () = far.run() => false,
        () = mountpoint.keep() => false,
    };
    let mut sum = Sum::default();
    let mut faults = far.faults();
    if !settled {
        faults.push(format!("not all settled; {:?}", report.totals()));
    }
    let totals = report.totals();
    let delivered: u64 = TRACKS.iter().map(|track| told.delivered(track)).sum();
    if totals.acked_frames != delivered || totals.frames != 2 * u64::from(count) || totals.left_out_units > 0
    {
        faults.push(format!("{totals:?} for {count} units of each track, {delivered} told as delivered"));
    }
    for (index, track) in TRACKS.into_iter().enumerate() {
        if let Err(fault) = check(track, count, room, &far, &told, &backlogs[index], &mut sum) {
            faults.push(format!("{track}: {fault}"));
        }
    }
    sum.faults = faults.into_iter().map(|fault| format!("seed {seed}: {fault}")).collect();
    sum
}

/// Waits until the fate of every frame is known.
async fn settle(told: &Told, count: u32) -> bool {
    let all = async {
        while TRACKS.iter().any(|track| told.settled(track) < u64::from(count)) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.is_ok()
}

/// Holds what the ledger was told of a track against what arrived.
fn check(
    track: &str,
    count: u32,
    room: Room,
    far: &FarEnd,
    told: &Told,
    backlog: &Watched<RamBacklog>,
    sum: &mut Sum,
) -> Result<(), String> {
    let ids = backlog.ids();
    let (numbers, acked_id) = far.with(track, |heard| {
        sum.again += heard.again;
        sum.connections += u64::from(heard.connections);
        (heard.numbers(), heard.acked_id)
    });
    sum.published += u64::from(count);
    let fates = fates(&told.of(track))?;
    if fates.len() != count as usize || ids.len() != count as usize {
        return Err(format!("{count} published, {} told, {} kept", fates.len(), ids.len()));
    }
    let mut arrived = vec![false; count as usize];
    numbers.iter().for_each(|number| arrived[*number as usize] = true);
    // The last ones may not have been asked for yet.
    backlog.take_losses();
    let losses = backlog.losses();
    for (number, (fate, id)) in fates.iter().zip(&ids).enumerate() {
        let acked = arrived[number] && *id < acked_id;
        match fate {
            Fate::Delivered if !acked => return Err(format!("{number} was never acknowledged")),
            Fate::Delivered => {}
            Fate::Lost(_) if arrived[number] => {
                return Err(format!("{number} is called lost, but it arrived"));
            }
            Fate::Lost(Why::Backlog(LossCause::Bytes))
            | Fate::Unconfirmed(Why::Backlog(LossCause::Bytes))
                if room == Room::Tight =>
            {
                match fate {
                    Fate::Lost(_) => sum.lost += 1,
                    _ => sum.unconfirmed += 1,
                }
                sum.arrived += u64::from(arrived[number]);
                if !losses.iter().any(|lost| lost.ids.contains(id)) {
                    return Err(format!("{number} is lost, but the backlog had it"));
                }
                // The oldest go, up to a keyframe.
                let next = number + 1;
                let pictures = track.starts_with('v');
                let border = next == count as usize || !pictures || next.is_multiple_of(GOP as usize);
                if !border && fates[next] == Fate::Delivered {
                    return Err(format!("what is lost ends with {number}, in the middle of a GOP"));
                }
            }
            other => return Err(format!("{number} is told as {other:?}")),
        }
        if !arrived[number] && *fate == Fate::Delivered {
            return Err(format!("{number} never arrived"));
        }
    }
    if room == Room::Ample && !numbers.iter().copied().eq(0..count) {
        return Err(format!("what arrived is {numbers:?}"));
    }
    Ok(())
}

/// The fate of each frame; checks that the times told belong to them.
fn fates(told: &[(Fate, Stretch)]) -> Result<Vec<Fate>, String> {
    let mut fates = Vec::new();
    for (fate, stretch) in told {
        let first = fates.len() as u32;
        let last = first + (stretch.frames as u32).max(1) - 1;
        let off = [
            stretch.from_unix_micros.abs_diff(captured(first)),
            stretch.to_unix_micros.abs_diff(captured(last)),
        ];
        if stretch.frames == 0 || off.iter().any(|off| *off > TIME_SLACK as u64) {
            return Err(format!("frames {first} to {last} are told as {stretch:?}"));
        }
        fates.extend(std::iter::repeat_n(*fate, stretch.frames as usize));
    }
    Ok(fates)
}
