//! Recordings as HLS: a list of what was captured in a time, open at its end while more may come.

use super::answer::{self, Asked};
use super::body::{File, FileBody, Owner, Source};
use super::plane::{PLAYLIST, Refused, Viewers, changing, fixed};
use crate::recordings::{Excerpt, RecordedSegment, Shelf};
use fieldgate_hub::{Action, Request};
use fieldgate_media::TrackKind;
use fieldgate_model::Timestamp;
use fieldgate_proto::segment::recorded::{AUDIO, MASTER, RecordedTarget, VIDEO};
use fieldgate_proto::segment::vod;
use hyper::{Response, StatusCode, header};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a viewer waits for its turn at the disk.
const TURN: Duration = Duration::from_secs(10);
/// Segments that one list names at most: a day of six seconds each.
const LISTED_MAX: usize = 14_400;

impl Viewers {
    /// Answers a request for a recording.
    pub(super) async fn recorded(
        &self,
        asked: &Asked<'_>,
        target: RecordedTarget,
        peer: IpAddr,
    ) -> Result<Response<FileBody>, Refused> {
        let nothing = || Refused::missing("nothing of this name is recorded here");
        let shelf = self.recordings().of(&target.stream).ok_or_else(nothing)?;
        let timeout = self.config().http.viewer_timeout.get();
        let Some(token) = target.token else {
            if target.file != MASTER {
                return Err(Refused::missing("begin with /rec/NAME/master.m3u8"));
            }
            return self.open_recorded(asked, &target, &shelf, peer).await;
        };
        let gone = || {
            Refused(StatusCode::FORBIDDEN, "this viewer is not known any more: begin with master.m3u8".into())
        };
        let session = self.sessions().get(token, &target.stream, timeout, Instant::now()).ok_or_else(gone)?;
        if session.request.peer != peer {
            let again = Request { peer, revoked: Arc::default(), ..session.request.clone() };
            self.admit(again).await?;
        }
        let owner = Owner { session, source: Source::Recorded(shelf.valid()) };
        let kind = match target.file.as_str() {
            VIDEO => Some(TrackKind::Video),
            AUDIO => Some(TrackKind::Audio),
            _ => None,
        };
        let content = match kind {
            Some(kind) => {
                let first = target.first.unwrap_or(0);
                let excerpt = shelf.numbered(first, target.last.unwrap_or(u64::MAX));
                // The beginning of a list must stay what it was.
                if !excerpt.entries.iter().any(|entry| entry.number == first) {
                    return Err(Refused::missing(
                        "its beginning is not kept any more: begin with master.m3u8",
                    ));
                }
                let text = vod::media(&pieces(&excerpt, kind), target.last.is_some());
                let count = excerpt.entries.len();
                changing(PLAYLIST, format!("\"{first}-{count}-{}\"", target.last.is_some()), text)
            }
            None => {
                let turn = tokio::time::timeout(TURN, self.disk_turns().clone().acquire_owned()).await;
                let Ok(Ok(turn)) = turn else {
                    return Err(Refused::later("too many viewers read recordings at once; try again"));
                };
                let (name, from) = (target.file.clone(), shelf.clone());
                let read = tokio::task::spawn_blocking(move || from.read(&name)).await;
                let bytes = match read {
                    Ok(Ok(Some(bytes))) => bytes,
                    Ok(Ok(None)) => {
                        return Err(Refused::missing("this file is not kept any more, or never was"));
                    }
                    _ => return Err(Refused::later("the disk does not give this file; try again")),
                };
                let media_type = match RecordedSegment::parse(&target.file).map(|entry| entry.kind) {
                    Some(TrackKind::Audio) => "audio/mp4",
                    _ => "video/mp4",
                };
                fixed(File::Read { bytes, _turn: Arc::new(turn) }, media_type, format!("\"{}\"", target.file))
            }
        };
        Ok(answer::content(asked, content, Some(owner)))
    }

    async fn open_recorded(
        &self,
        asked: &Asked<'_>,
        target: &RecordedTarget,
        shelf: &Shelf,
        peer: IpAddr,
    ) -> Result<Response<FileBody>, Refused> {
        let bearer = asked.text(header::AUTHORIZATION).and_then(|text| text.strip_prefix("Bearer "));
        let request = Request {
            action: Action::Play,
            peer,
            app: super::plane::APPLICATION.to_owned(),
            name: target.stream.clone(),
            key: target.key.clone().or(bearer.map(|key| key.trim().to_owned())),
            client: None,
            revoked: Arc::default(),
        };
        self.admit(request.clone()).await?;
        let from = time(target.from.as_deref(), "from")?.unwrap_or(i64::MIN);
        let to = time(target.to.as_deref(), "to")?;
        let excerpt = shelf.excerpt(from, to.unwrap_or(i64::MAX));
        let nothing = || Refused::missing("nothing was recorded in this time");
        let (Some(first), Some(last)) = (excerpt.entries.first(), excerpt.entries.last()) else {
            return Err(nothing());
        };
        if excerpt.entries.len() > LISTED_MAX * 2 {
            let text = format!(
                "this time has more than {LISTED_MAX} segments; name a shorter one with from= and to="
            );
            return Err(Refused(StatusCode::BAD_REQUEST, text));
        }
        // Open at its end as long as somebody asks for what is to come.
        let is_open = to.is_none() && excerpt.reaches_end && self.is_recording(&target.stream);
        let numbers = match is_open {
            true => format!("?first={}", first.number),
            false => format!("?first={}&last={}", first.number, last.number),
        };
        let lane = |kind, name: &str, prefix: &str| lane(&excerpt, kind, &format!("{prefix}{name}{numbers}"));
        let (token, _) = self.open_session(request)?;
        let prefix = format!("{}/", token.as_text());
        let video = lane(TrackKind::Video, VIDEO, &prefix);
        let audio = lane(TrackKind::Audio, AUDIO, &prefix);
        let text = vod::master(video.as_ref(), audio.as_ref()).ok_or_else(nothing)?;
        Ok(answer::content(asked, changing(PLAYLIST, format!("\"{prefix}\""), text), None))
    }

    /// Whether a stream comes that is recorded now.
    fn is_recording(&self, name: &str) -> bool {
        let mountpoint = self.context().registry.get(name);
        mountpoint.is_some_and(|mountpoint| *mountpoint.state().borrow() != fieldgate_hub::StreamState::Idle)
    }
}

/// Microseconds since 1970 of a time in a query.
fn time(text: Option<&str>, field: &str) -> Result<Option<i64>, Refused> {
    let Some(text) = text else { return Ok(None) };
    let wrong = || {
        let text = format!("{field} must be a time in UTC such as 2026-11-21T18:00:00Z");
        Refused(StatusCode::BAD_REQUEST, text)
    };
    let at: Timestamp = text.parse().map_err(|_| wrong())?;
    Ok(Some(at.unix_millis().saturating_mul(1_000)))
}

fn pieces(excerpt: &Excerpt, kind: TrackKind) -> Vec<vod::Piece> {
    let init_of = |entry: &RecordedSegment| {
        let init = excerpt.inits.iter().find(|init| init.hash == entry.init && init.kind == kind)?;
        Some(init.name())
    };
    let entries = excerpt.entries.iter().filter(|entry| entry.kind == kind);
    let mut before: Option<&RecordedSegment> = None;
    let piece = entries.filter_map(|entry| {
        // What is missing between them was not kept.
        let follows = before.is_some_and(|before| before.number.checked_add(1) == Some(entry.number));
        before = Some(entry);
        Some(vod::Piece {
            name: entry.name(),
            init: init_of(entry)?,
            duration: entry.duration,
            unix_micros: entry.unix_micros,
            is_discontinuity: entry.is_discontinuity || !follows,
        })
    });
    piece.collect()
}

fn lane(excerpt: &Excerpt, kind: TrackKind, name: &str) -> Option<vod::Lane> {
    let init = excerpt.inits.iter().find(|init| init.kind == kind)?;
    let of_kind = excerpt.entries.iter().filter(|entry| entry.kind == kind);
    // Ticks are 90,000 a second.
    let rate = |entry: &RecordedSegment| {
        let ticks = u64::try_from(entry.duration).unwrap_or(1).max(1);
        entry.bytes.saturating_mul(8 * 90_000) / ticks
    };
    let (width, height) = init.size;
    Some(vod::Lane {
        name: name.to_owned(),
        codecs: init.codecs.clone(),
        peak: of_kind.map(rate).max().unwrap_or(0),
        size: (width > 0 && height > 0).then_some((width, height)),
    })
}
