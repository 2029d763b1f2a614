//! One rendition of a stream: what passes is cut as it came, anything else is made by a worker first.

use super::cutter::Cutter;
use super::keeper::{Keeper, Kept};
use super::task::{Place, Task};
use crate::supervisor::{Made as MadeOf, MadeSound};
use crate::wiring::renditions::guest::GuestWork;
use fieldgate_compat::encoder::{Files, ListSettings, Rendition, Shape};
use fieldgate_hub::Mountpoint;
use fieldgate_media::{Codec, Ticks, TrackKind, Tracks};
use fieldgate_model::job::{PictureCodec, SoundCodec};
use fieldgate_model::plan::Guest;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Segments that wait to be stored.
const CUTS: usize = 8;
/// Workers that may fail one after the other.
const FAILED_MAX: u32 = 5;
/// Before the next worker.
const PAUSE: Duration = Duration::from_secs(1);
/// What a worker holds when its stream is over has so long to come out.
const DRAIN: Duration = Duration::from_millis(1_500);

/// What became of a rendition.
pub(super) struct Made {
    /// Segments that are stored.
    pub(super) segments: u64,
    /// No stream may have more.
    pub(super) is_full: bool,
}

impl Task {
    /// Until the stream is `over` and all of the rendition is stored.
    pub(super) async fn make(
        &self,
        nth: usize,
        rendition: Rendition,
        source: &Arc<Mountpoint>,
        (tracks, shape): (&Tracks, Shape),
        over: CancellationToken,
    ) -> Result<Made, String> {
        let wiring = &self.shop.wiring;
        let wanted = self.wanted(rendition, tracks, shape).await?;
        let (place, to) = match &wanted {
            None => (None, source.clone()),
            Some(_) => {
                let place = Place::new(&wiring.context.registry, &format!("{}~{nth}", self.mountpoint()))?;
                let to = place.mountpoint.clone();
                (Some(place), to)
            }
        };
        let (out, cuts) = mpsc::channel(CUTS);
        let ended = CancellationToken::new();
        let settings = &self.shop.settings;
        let cutter = Cutter {
            mountpoint: to.clone(),
            segment: Ticks::from_duration(settings.segment.get()).get(),
            clock: wiring.context.clock.clone(),
            out,
            ended: ended.clone(),
        };
        let number = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let keeper = Keeper {
            id: self.id,
            store: self.shop.store.clone(),
            files: Files::of(&self.assignment, &rendition),
            resolution: rendition.to_string(),
            settings: ListSettings {
                live: number(settings.live_segments),
                vod: self.assignment.record.then(|| number(settings.vod_segments)),
                most: settings.max_segments.into(),
            },
            cuts,
            tell: self.tell.clone(),
        };
        let shard = wiring.shard_of(&to).map_err(|error| error.to_string())?;
        let cutting = shard.run(move |_| cutter.run());
        let feeding = async {
            let fed = match &wanted {
                None => {
                    over.cancelled().await;
                    Ok(())
                }
                Some(wanted) => self.feed(wanted, source, &to, &over).await,
            };
            // What is there is still cut and stored.
            ended.cancel();
            fed
        };
        let working = async {
            let (fed, cut) = tokio::join!(feeding, cutting);
            cut.map_err(|error| error.to_string())?;
            fed
        };
        tokio::pin!(working);
        let keeping = keeper.run();
        tokio::pin!(keeping);
        let keeping_grace = to.clone();
        let (kept, fed) = tokio::select! {
            kept = &mut keeping => (kept, Ok(())),
            fed = &mut working => (keeping.await, fed),
            () = async { if place.is_some() { keeping_grace.keep().await; } std::future::pending().await } => {
                (Ok(Kept::All(0)), Ok(()))
            }
        };
        match (kept.map_err(|error| error.to_string())?, fed) {
            (Kept::Full, _) => Ok(Made { segments: 1, is_full: true }),
            (Kept::All(0), Err(why)) => Err(why),
            (Kept::All(segments), fed) => {
                if let Err(why) = fed {
                    warn!(rendition = to.name(), why, "encoder: it ended before its stream");
                }
                Ok(Made { segments, is_full: false })
            }
        }
    }

    /// What is to be made, if the stream cannot pass as it is; or why it cannot be.
    async fn wanted(
        &self,
        rendition: Rendition,
        tracks: &Tracks,
        shape: Shape,
    ) -> Result<Option<GuestWork>, String> {
        let codec = |kind| tracks.first(kind).map(|track| track.codec);
        let from = codec(TrackKind::Video).ok_or("there are no pictures")?;
        let passes = rendition.is_original && from == Codec::H264;
        if !passes && !matches!(from, Codec::H264 | Codec::Hevc | Codec::Jpeg) {
            return Err(format!(
                "pictures in {from:?} cannot be decoded here: have the source send H.264 or HEVC"
            ));
        }
        let sound = match codec(TrackKind::Audio) {
            None | Some(Codec::Aac) => MadeSound::Pass,
            Some(Codec::PcmA | Codec::PcmU | Codec::Opus) => MadeSound::Encode(SoundCodec::Aac),
            Some(other) => {
                warn!(task = self.id.0, codec = ?other, "encoder: the sound cannot be decoded here and is left out");
                MadeSound::Off
            }
        };
        // What MPEG-TS does not carry the cutter leaves out.
        if passes && !matches!(sound, MadeSound::Encode(_)) {
            return Ok(None);
        }
        let made = MadeOf { video: (!passes).then_some(PictureCodec::H264), audio: sound };
        let millis = self.shop.settings.segment.get().as_millis();
        let work = GuestWork {
            made,
            title: rendition.to_string(),
            size: (rendition.width, rendition.height),
            bitrate: rendition.bitrate(),
            // Segments begin with keyframes.
            gop_ms: u32::try_from(millis).unwrap_or(u32::MAX),
            max_frame_rate: None,
            pass: None,
        };
        if passes {
            return Ok(Some(work));
        }
        let is_thinned = rendition.frame_rate < shape.frame_rate;
        let max_frame_rate = is_thinned.then_some(rendition.frame_rate);
        let wiring = &self.shop.wiring;
        let config = wiring.admission.supervisor().map(|supervisor| supervisor.config().borrow().clone());
        let config = config.ok_or("the gateway is starting")?;
        let guest = Guest {
            from,
            width: rendition.width,
            height: rendition.height,
            frame_rate: rendition.frame_rate,
        };
        let entered = wiring.capacity.let_in(guest, &config, &self.stop).await;
        let pass = entered.map_err(|why| format!("there is no room for it on this machine: {why}"))?;
        Ok(Some(GuestWork { max_frame_rate, pass: Some(pass), ..work }))
    }

    /// Workers, one after the other as far as need be, until the stream is over.
    async fn feed(
        &self,
        wanted: &GuestWork,
        source: &Arc<Mountpoint>,
        to: &Arc<Mountpoint>,
        over: &CancellationToken,
    ) -> Result<(), String> {
        let (wiring, mut failed) = (&self.shop.wiring, 0);
        loop {
            let stop = CancellationToken::new();
            let _stops = stop.clone().drop_guard();
            let run = wanted.run(wiring, source, to, &stop);
            tokio::pin!(run);
            let turned_out = async {
                match &wanted.pass {
                    Some(pass) => pass.turned_out().await,
                    None => std::future::pending().await,
                }
            };
            let why = tokio::select! {
                ended = &mut run => ended.err(),
                why = turned_out => {
                    stop.cancel();
                    run.await.ok();
                    return Err(format!("there is no room for it on this machine any more: {why}"));
                }
                () = over.cancelled() => {
                    timeout(DRAIN, &mut run).await.ok();
                    stop.cancel();
                    return Ok(());
                }
            };
            if let Some(why) = why {
                failed += 1;
                warn!(rendition = to.name(), why, failed, "encoder: a worker ended");
                if failed >= FAILED_MAX {
                    return Err(why);
                }
            }
            tokio::select! {
                () = sleep(PAUSE) => {}
                () = over.cancelled() => return Ok(()),
            }
        }
    }
}
