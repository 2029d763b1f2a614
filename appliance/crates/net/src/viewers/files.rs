//! The files of a stream that is watched: found, waited for, made into answers.

use super::answer::{self, Asked, Content};
use super::body::{File, FileBody, Owner, Source};
use super::plane::{MANIFEST, PLAYLIST, Refused, Viewers, changing, fixed};
use super::sessions::Session;
use super::watched::Watched;
use bytes::Bytes;
use fieldgate_media::{Ticks, TrackKind};
use fieldgate_model::config::Hls;
use fieldgate_proto::segment::names::Name;
use fieldgate_proto::segment::target::Target;
use fieldgate_proto::segment::{Found, Lane, Package, hls};
use hyper::{Response, StatusCode};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long viewers wait for the first segment, where nothing else is said.
pub(super) const READY_WITHIN: Duration = Duration::from_secs(20);
/// Playlist requests wait for at most so many target durations (bis 6.2.5.2).
const RELOAD_TARGETS: u32 = 3;
/// Players that know no parts begin so many target durations behind the end (RFC 8216 6.3.3), and those that find less do not
/// fall back to it before they have stalled.
const START_TARGETS: i64 = 3;
/// A viewer waits no longer for that many, from his request on.
const START_WITHIN: Duration = Duration::from_secs(10);

impl Viewers {
    /// Waits until players can begin.
    pub(super) async fn ready(&self, watched: &Watched, within: Duration) -> Result<(), Refused> {
        let look = |package: &Package| match (package.lead(), package.unsupported()) {
            (None, Some(codec)) => Some(Err(codec)),
            _ => (package.is_ready() || package.has_ended()).then_some(Ok(())),
        };
        match watched.wait(within, look).await {
            Some(Ok(())) => Ok(()),
            Some(Err(codec)) => Err(Refused::missing(format!("{codec} cannot be watched by HTTP"))),
            None => Err(Refused::later("the stream has no whole segment yet; try again")),
        }
    }

    /// Waits until players that know no parts can begin where they want to; what there is after a while must do.
    pub(super) async fn well_begun(&self, watched: &Watched, since: Instant) {
        let look = |package: &Package| {
            let wanted = i64::from(package.target_secs()) * START_TARGETS * Ticks::PER_SECOND;
            (package.has_ended() || package.has_evicted() || package.listed_span() >= wanted).then_some(())
        };
        watched.wait(START_WITHIN.saturating_sub(since.elapsed()), look).await;
    }

    pub(super) async fn serve(
        &self,
        asked: &Asked<'_>,
        target: &Target,
        session: Arc<Session>,
        watched: Arc<Watched>,
        hls: &Hls,
    ) -> Result<Response<FileBody>, Refused> {
        let no_track = || Refused::missing("the stream has no such track");
        let id = watched.id;
        let content = match target.name {
            Name::Master | Name::OldMaster => {
                return Err(Refused::missing("lists of renditions stand above"));
            }
            Name::Manifest(addressing) => {
                self.ready(&watched, READY_WITHIN).await?;
                // What is listed with another has no others of its own.
                let alone = Hls::default();
                let hls = if target.rendition.is_some() { &alone } else { hls };
                let (text, version) = self.manifest_text(&watched, (&target.stream, hls), addressing, "");
                changing(MANIFEST, format!("\"{id:x}-{version}-{addressing:?}\""), text)
            }
            Name::Together => {
                self.ready(&watched, READY_WITHIN).await?;
                let (text, version) = watched.read(|package| (hls::together(package), package.version()));
                changing(PLAYLIST, format!("\"{id:x}-{version}-ts\""), text)
            }
            Name::Ts(number) => {
                let file = self.ts(&watched, number).await?;
                fixed(File::Whole(file), "video/mp2t", format!("\"{id:x}-ts-{number}\""))
            }
            Name::SegmentAt(kind, time) => {
                let found = self.await_file(&watched, kind, |lane| lane.segment_at(time)).await?;
                let tag = format!("\"{id:x}-{kind:?}-{}\"", found.number);
                fixed(File::Segment(found), media_type(kind), tag)
            }
            Name::Media(kind) => {
                self.ready(&watched, READY_WITHIN).await?;
                self.reload(&watched, kind, target).await?;
                self.media(asked, &watched, kind, target.skip).ok_or_else(no_track)?
            }
            Name::Init(kind, number) => {
                let init = watched.read(|package| package.lane(kind)?.init_numbered(number));
                let init = init.ok_or_else(|| Refused::missing("this file is not there any more"))?;
                fixed(
                    File::Whole(init.file.clone()),
                    media_type(kind),
                    format!("\"{id:x}-{kind:?}-i{number}\""),
                )
            }
            Name::Segment(kind, number) => {
                let found = self.await_file(&watched, kind, |lane| lane.segment(number)).await?;
                fixed(File::Segment(found), media_type(kind), format!("\"{id:x}-{kind:?}-{number}\""))
            }
            Name::Part(kind, number, index) => {
                let found = self.await_file(&watched, kind, |lane| lane.part(number, index.into())).await?;
                fixed(File::Part(found), media_type(kind), format!("\"{id:x}-{kind:?}-{number}.{index}\""))
            }
        };
        Ok(answer::content(asked, content, Some(Owner { session, source: Source::Watched(watched) })))
    }

    /// Waits for what the request says the playlist must hold (bis 6.2.5.2).
    async fn reload(&self, watched: &Watched, kind: TrackKind, target: &Target) -> Result<(), Refused> {
        let Some(msn) = target.msn else { return Ok(()) };
        // Without parts a playlist can only hold whole segments.
        let check = |package: &Package| {
            let lane = package.lane(kind)?;
            let newest = lane.segments().next_back().map_or(0, |segment| segment.number);
            let limit = package.part_target().map_or(3, |part| {
                usize::try_from(3 * Ticks::PER_SECOND / part.clamp(1, Ticks::PER_SECOND)).unwrap_or(3) + 1
            });
            let parts =
                lane.growing().filter(|(number, _)| *number == msn).map_or(0, |(_, parts)| parts.len());
            let is_far =
                msn > newest.saturating_add(2) || target.part.is_some_and(|part| part > parts + limit);
            Some((is_far, package.target_secs()))
        };
        let Some((is_far, target_secs)) = watched.read(check) else { return Ok(()) };
        if is_far
            && !watched.read(|package| package.lane(kind).is_some_and(|lane| lane.reaches(msn, target.part)))
        {
            return Err(Refused(StatusCode::BAD_REQUEST, "_HLS_msn or _HLS_part is too far ahead".into()));
        }
        let reached = |package: &Package| {
            let reached = package.lane(kind).is_none_or(|lane| lane.reaches(msn, target.part));
            (reached || package.has_ended()).then_some(())
        };
        let within = Duration::from_secs(target_secs.into()) * RELOAD_TARGETS;
        let stalled = || Refused::later("the stream does not go on; try again");
        watched.wait(within, reached).await.ok_or_else(stalled)
    }

    fn media(&self, asked: &Asked<'_>, watched: &Watched, kind: TrackKind, skip: bool) -> Option<Content> {
        let text = watched.playlist(kind, skip)?;
        let packed = if asked.takes_gzip() { text.packed() } else { None };
        let (id, version, is_gzip) = (watched.id, text.version, packed.is_some());
        Some(Content {
            tag: format!("\"{id:x}-{version}-{kind:?}{}{}\"", u8::from(skip), u8::from(is_gzip)),
            file: File::Whole(packed.unwrap_or_else(|| text.plain.clone())),
            media_type: PLAYLIST,
            is_fixed: false,
            is_gzip,
        })
    }

    /// A segment as MPEG-TS, made for the first who asks.
    async fn ts(&self, watched: &Watched, number: u64) -> Result<Bytes, Refused> {
        let missing = || Refused::missing("this file is not there any more, or never was");
        let target_secs = watched.read(|package| package.target_secs());
        let look = |package: &Package| match package.together(number) {
            Found::Here(found) => Some(Some(found)),
            Found::Soon if !package.has_ended() => None,
            _ => Some(None),
        };
        let within = Duration::from_secs(target_secs.into()) * RELOAD_TARGETS;
        let found = watched.wait(within, look).await;
        let found = found.ok_or_else(|| Refused::later("the stream does not go on; try again"))?;
        watched.ts(number, &found.ok_or_else(missing)?).ok_or_else(missing)
    }

    /// A file that is there, or that a playlist has announced.
    async fn await_file<T>(
        &self,
        watched: &Watched,
        kind: TrackKind,
        mut find: impl FnMut(&Lane) -> Found<T>,
    ) -> Result<T, Refused> {
        let missing = || Refused::missing("this file is not there any more, or never was");
        let target_secs = watched.read(|package| package.target_secs());
        let look = |package: &Package| match package.lane(kind).map(&mut find) {
            Some(Found::Here(file)) => Some(Some(file)),
            Some(Found::Soon) if !package.has_ended() => None,
            _ => Some(None),
        };
        let within = Duration::from_secs(target_secs.into()) * RELOAD_TARGETS;
        let found = watched.wait(within, look).await;
        found.ok_or_else(|| Refused::later("the stream does not go on; try again"))?.ok_or_else(missing)
    }
}

fn media_type(kind: TrackKind) -> &'static str {
    match kind {
        TrackKind::Video => "video/mp4",
        TrackKind::Audio => "audio/mp4",
    }
}
