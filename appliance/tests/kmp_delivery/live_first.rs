//! What is live first, the rest on a second channel: outages, rude receivers, a restart in the middle.

use crate::camera::{
    Camera, Dice, LATE_CHANNEL, TRACKS, UPSTREAM, local, mountpoint, push, settings, shared,
};
use crate::far_end::{FarEnd, Manners, PATIENCE};
use crate::outages::folder;
use crate::record::{Told, Watched};
use fieldgate_hub::backlog::Budget;
use fieldgate_hub::ledger::Fate;
use fieldgate_hub::{Backlog, Clock, LedgerKeeper, LocalShard, RamBacklog};
use fieldgate_media::TrackKind;
use fieldgate_net::KmpTrackSettings;
use fieldgate_spool::{Query, Settings, Spool, SpoolKey, State};
use futures_util::StreamExt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Runs at the same time.
const TOGETHER: usize = 20;
/// Bytes of a picture: an outage is more than what is read of a backlog at once.
const PICTURE: usize = 3_000;
/// A longer outage is not caught up with in order.
const WITHIN: Duration = Duration::from_millis(40);

fn live_first(kind: TrackKind) -> KmpTrackSettings {
    let mut settings = settings(kind, 256 << 10);
    settings.sender.live_within = Some(WITHIN);
    settings.sender.ack_silence = Some(Duration::from_millis(300));
    settings.sender.end_grace = Some(Duration::from_millis(500));
    settings
}

fn late(track: &str) -> String {
    format!("{LATE_CHANNEL}/{track}")
}

pub(crate) fn live_goes_first_and_nothing_is_missing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcomes = runtime.block_on(async {
        let local = local();
        let runs = futures_util::stream::iter(0..100).map(|seed| Box::pin(run(seed, local.clone())));
        runs.buffer_unordered(TOGETHER).collect::<Vec<_>>().await
    });
    let faults: Vec<&String> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!(faults.is_empty(), "\n{faults:#?}");
    let late: u64 = outcomes.iter().flatten().sum();
    println!("{} runs, {late} frames came on the second channel alone", outcomes.len());
    assert!(late > 1_000);
}

/// How many frames came on the second channel alone.
async fn run(seed: u64, local: Rc<LocalShard>) -> Result<u64, String> {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mountpoint = mountpoint(format!("live-{seed}"));
    let told = Arc::new(Told::default());
    let manners = if seed.is_multiple_of(3) { Manners::Good } else { Manners::Random };
    let far = FarEnd::new(Dice(seed + 77), manners, true, |_| 0);
    let budget = Budget { bytes: 64 << 20, age: Duration::from_secs(3600) };
    let backlogs = [0, 1].map(|_| Watched::new(RamBacklog::new(budget)));
    let tracks = [(TrackKind::Video, 0), (TrackKind::Audio, 1)]
        .map(|(kind, index)| (live_first(kind), backlogs[index].clone() as Arc<dyn Backlog>));
    let (push, report) = push(shared(&mountpoint, told.clone()), far.addr(), tracks);
    let count = 100 + dice.below(200) as u32;
    let ends = seed.is_multiple_of(2);
    let script = async {
        let mut camera = Camera::new(&mountpoint, &local, 0, true);
        while camera.next < count {
            let burst = (1 + dice.below(12) as u32).min(count - camera.next);
            camera.shoot(burst, || 20 + dice.below(1500) as usize);
            if dice.below(8) == 0 {
                far.shut(true);
                for _ in 0..4 {
                    let burst = (1 + dice.below(12) as u32).min(count - camera.next);
                    camera.shoot(burst, || 20 + dice.below(1500) as usize);
                    sleep(Duration::from_millis(dice.below(60))).await;
                }
                far.shut(false);
            }
            sleep(Duration::from_millis(dice.below(20))).await;
        }
        let camera = (!ends).then_some(camera);
        sleep(Duration::from_millis(dice.below(100))).await;
        far.set_manners(Manners::Good);
        let all = async {
            while TRACKS.iter().any(|track| told.settled(track) < u64::from(count)) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let settled = tokio::time::timeout(PATIENCE, all).await.is_ok();
        drop(camera);
        settled
    };
    let settled = tokio::select! {
        biased;
        () = async { push.run(local.clone()).await; std::future::pending().await } => false,
        settled = script => settled,
        () = far.run() => false,
        () = mountpoint.keep() => false,
    };
    let fault = |text: String| Err(format!("seed {seed}: {text}"));
    if !settled {
        return fault(format!("not all settled: {:?}", report.totals()));
    }
    if let Some(first) = far.faults().first() {
        return fault(first.clone());
    }
    let mut only_late = 0;
    for track in TRACKS {
        let told = told.of(track);
        let delivered: u64 = told.iter().map(|(_, stretch)| stretch.frames).sum();
        if delivered != u64::from(count) || told.iter().any(|(fate, _)| *fate != Fate::Delivered) {
            return fault(format!("{track}: {count} published, told {told:?}"));
        }
        let [live, late] =
            [track.to_owned(), late(track)].map(|name| far.with(&name, |heard| heard.numbers()));
        let missing = (0..count).find(|number| !live.contains(number) && !late.contains(number));
        if let Some(number) = missing {
            return fault(format!("{track}: {number} came on neither channel"));
        }
        only_late += late.iter().filter(|number| !live.contains(number)).count() as u64;
    }
    Ok(only_late)
}

pub(crate) fn what_is_owed_outlives_the_process_and_is_told_once() {
    let folder = folder("owed");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let far = FarEnd::new(Dice(5), Manners::Good, true, |_| 0);
    let total = runtime.block_on(async {
        let local = local();
        // Nobody is there; then there is somebody for what is live, and the gateway stops while much is still owed.
        Box::pin(live(&folder, &far, &local, 0, Some(400), 1)).await;
        Box::pin(live(&folder, &far, &local, 1_000, None, 100_000)).await
    });
    let spool = Spool::start(folder.clone(), Clock::default()).unwrap();
    let lines = spool.ledger().query(&Query { limit: 10_000, ..Query::default() }).lines;
    spool.stop();
    assert_eq!(far.faults(), Vec::<String>::new());
    for track in TRACKS {
        let of_track: Vec<_> = lines.iter().filter(|line| line.key.track == track).collect();
        let delivered = of_track.iter().filter(|line| line.state == State::Settled(Fate::Delivered));
        let delivered: u64 = delivered.map(|line| line.stretch.frames).sum();
        assert_eq!(delivered, u64::from(total), "{of_track:?}");
        assert_eq!(of_track.iter().map(|line| line.stretch.frames).sum::<u64>(), delivered, "{of_track:?}");
        let bytes: u64 = of_track.iter().map(|line| line.stretch.bytes).sum();
        let least = delivered * if track == "v1" { PICTURE } else { PICTURE / 4 } as u64;
        assert!((least..least + delivered * 60).contains(&bytes), "{bytes} bytes: {of_track:?}");
        let live = far.with(track, |heard| heard.numbers());
        let late = far.with(&late(track), |heard| heard.numbers());
        let numbers = (0..500).chain(1_000..1_100);
        let missing: Vec<_> =
            numbers.filter(|number| !live.contains(number) && !late.contains(number)).collect();
        assert!(missing.is_empty(), "{track}: {missing:?} are missing");
        assert!(late.len() > 300, "{track}: only {} came late", late.len());
    }
    std::fs::remove_dir_all(&folder).ok();
}

/// One life of the gateway: an outage while so many pictures are taken, then a hundred more; how many there were in all
/// lives. `percent`: how fast what is owed is sent.
async fn live(
    folder: &std::path::Path,
    far: &FarEnd,
    local: &Rc<LocalShard>,
    first: u32,
    outage: Option<u32>,
    percent: u32,
) -> u32 {
    let mountpoint = mountpoint("yard".to_owned());
    let spool = Spool::start(folder.to_owned(), Clock::default()).unwrap();
    let ledger: Arc<dyn LedgerKeeper> = spool.ledger().clone();
    let mut backlogs = Vec::new();
    for track in TRACKS {
        let key = SpoolKey { mountpoint: "yard".into(), upstream: UPSTREAM.into(), track: track.to_owned() };
        let settings = Settings { batch_interval: Duration::from_millis(20), ..Settings::default() };
        backlogs.push(Watched::new(spool.open(key, settings).await.unwrap()));
    }
    let tracks = [(TrackKind::Video, 0), (TrackKind::Audio, 1)]
        .map(|(kind, index)| (live_first(kind), backlogs[index].clone() as Arc<dyn Backlog>));
    let shared = shared(&mountpoint, ledger);
    let cancel = shared.cancel.clone();
    let (mut push, report) = push(shared, far.addr(), tracks);
    for track in [&mut push.video, &mut push.audio] {
        if let Some(backlog) = &mut track.backlog {
            backlog.percent = Some(percent);
        }
    }
    let until = async |what: &str, holds: &mut dyn FnMut() -> bool| {
        let wait = async {
            while !holds() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let done = tokio::time::timeout(PATIENCE, wait).await;
        assert!(done.is_ok(), "{what}: {:?} {:?}", report.totals(), far.faults());
    };
    let script = async {
        let mut camera = Camera::new(&mountpoint, local, first, true);
        // A pace is known only when there was some live media before.
        let acked = |number: u32| {
            move || TRACKS.iter().all(|track| far.with(track, |heard| heard.numbers().contains(&number)))
        };
        if let Some(outage) = outage {
            far.shut(true);
            while camera.next < first + outage {
                camera.shoot(10, || PICTURE);
                sleep(Duration::from_millis(100)).await;
            }
            far.shut(false);
        }
        let end = camera.next + 100;
        while camera.next < end {
            camera.shoot(2, || PICTURE);
            sleep(Duration::from_millis(20)).await;
        }
        until("the live pictures", &mut acked(end - 1)).await;
        if outage.is_none() {
            until("all", &mut || backlogs.iter().all(|backlog| backlog.held().frames == 0)).await;
        }
        drop(camera);
        cancel.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = push.run(local.clone()) => {}
        () = script => {}
        () = far.run() => {}
    }
    let owed = backlogs.iter().map(|backlog| backlog.held().frames).max().unwrap();
    assert!(outage.is_none() || owed > 100, "only {owed} were left to the next life");
    drop(backlogs);
    spool.stop();
    600
}
