//! Whether a mountpoint's picture is the truth: what flows is looked at as it passes, and now and then a keyframe that
//! somebody else has decoded ([`Look`]).
//!
//! ```text
//!  every unit:  size, keyframe?, digest of a keyframe's slices --+
//!  every `interval` at most: a decoded keyframe (Look) ----------+--> assess(now) --> Finding { verdict, since, cause }
//! ```
//!
//! Pure: time is handed in, nothing is decoded here. Memory is bounded, whatever a camera sends.
//!
//! Why the cheap signals suffice for a frozen picture: a sensor has noise, so no two of its keyframes are coded to the
//! same bytes, however still the scene and however small the pictures between them. A picture that stands still in
//! front of an encoder, or a GOP that is sent again and again, is coded to the same bytes as soon as the encoder's
//! rate control has settled. Small sizes alone say nothing: a quiet night gives pictures of 30 bytes for hours.

mod digest;
mod gops;
mod look;
mod looks;
mod tap;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod within;

pub use look::Look;
pub use tap::{Keyframe, Tap};

use digest::digest;
use fieldgate_media::{Codec, Ticks, TrackKind, Tracks, UnitHead};
use gops::{Gops, Repeat};
use looks::Looks;
use std::time::Duration;
use tokio::time::Instant;

/// What is said of a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Nothing speaks against it.
    #[default]
    Ok,
    /// Nothing comes.
    Dead,
    /// Pictures come, but show the same.
    Frozen,
    /// Without light and without the noise that a sensor has in the dark.
    Black,
    /// Light, but nothing to be seen in it.
    Covered,
    /// Something to be seen, but without a sharp edge.
    OutOfFocus,
    /// Sound without pictures.
    AudioOnly,
    /// The same moving pictures again and again.
    Repeating,
    /// Pictures of which none can be decoded alone.
    NoKeyframe,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Verdict; 9] = [
        Verdict::Ok,
        Verdict::Dead,
        Verdict::Frozen,
        Verdict::Black,
        Verdict::Covered,
        Verdict::OutOfFocus,
        Verdict::AudioOnly,
        Verdict::Repeating,
        Verdict::NoKeyframe,
    ];

    /// The name used in config, status, metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Dead => "dead",
            Verdict::Frozen => "frozen",
            Verdict::Black => "black",
            Verdict::Covered => "covered",
            Verdict::OutOfFocus => "out_of_focus",
            Verdict::AudioOnly => "audio_only",
            Verdict::Repeating => "repeating",
            Verdict::NoKeyframe => "no_keyframe",
        }
    }
}

/// How a picture is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether anything is said at all.
    pub enabled: bool,
    /// The least time between two decoded keyframes.
    pub interval: Duration,
    /// Silence after which a stream is dead; three times a slow camera's own rhythm if that is longer.
    pub dead_after: Duration,
    /// Stream time over which the same picture counts as frozen or repeating; twice the camera's own longest
    /// standstill if that is longer.
    pub still_after: Duration,
    /// Time without a keyframe; three times the camera's own rhythm if that is longer.
    pub keyframe_after: Duration,
    /// What is never said.
    pub ignore: Vec<Verdict>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            enabled: true,
            interval: Duration::from_secs(8),
            dead_after: Duration::from_secs(15),
            still_after: Duration::from_secs(8),
            keyframe_after: Duration::from_secs(20),
            ignore: Vec::new(),
        }
    }
}

/// What is said of a picture, since when, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The verdict.
    pub verdict: Verdict,
    /// Since when it holds, as far as can be told.
    pub since: Instant,
    /// Why, in plain words.
    pub cause: String,
}

/// The longest silence that a slow camera's rhythm may earn it.
const DEAD_AT_LAST: Duration = Duration::from_secs(600);
/// A camera of which one keyframe is known may have its next as late as this.
const KEYFRAME_UNKNOWN: Duration = Duration::from_secs(150);
/// Tracks that are announced late (sound first) are no fault.
const TRACKS_SETTLE: Duration = Duration::from_secs(10);
/// How long a decoded picture is waited for before the cheap signals decide alone.
const LOOK_PATIENCE: Duration = Duration::from_secs(12);

/// The watch over one mountpoint's picture.
#[derive(Debug)]
pub struct Truth {
    settings: Settings,
    /// Somebody shall feed it, whether or not somebody does.
    is_expected: bool,
    /// When something last came, in this publication or one before; at first when it began to be expected. Sessions
    /// that bring nothing do not make a silence begin anew.
    quiet_since: Instant,
    /// The rhythm of the last publication's pictures: a slow camera is slow after a reconnect too.
    video_gap: Option<Duration>,
    live: Option<Live>,
    looks: Looks,
    finding: Option<Finding>,
}

/// What is known of the present publication.
#[derive(Debug)]
struct Live {
    begun: Instant,
    has_video: bool,
    has_audio: bool,
    video: Rhythm,
    audio: Rhythm,
    keyframes: Rhythm,
    gops: Gops,
}

/// When something came, and how far apart.
#[derive(Debug, Default)]
struct Rhythm {
    last: Option<Instant>,
    /// The longest of the recent gaps; forgets by an eighth with each that is shorter.
    gap: Option<Duration>,
}

impl Rhythm {
    fn beat(&mut self, now: Instant) {
        if let Some(last) = self.last.replace(now) {
            let gap = now.saturating_duration_since(last);
            self.gap = Some(gap.max(self.gap.map_or(gap, |known| known - known.saturating_sub(gap) / 8)));
        }
    }

    /// Since when nothing has come, if that is longer than `limit` and three of its own gaps.
    fn missing(&self, begun: Instant, now: Instant, limit: Duration) -> Option<Instant> {
        let since = self.last.unwrap_or(begun);
        let own = self.gap.map_or(Duration::ZERO, |gap| gap.saturating_mul(3).min(DEAD_AT_LAST));
        (now.saturating_duration_since(since) >= limit.max(own)).then_some(since)
    }
}

impl Truth {
    /// A watch over a mountpoint that nobody feeds yet.
    pub fn new(settings: Settings, now: Instant) -> Self {
        Truth {
            settings,
            is_expected: false,
            quiet_since: now,
            video_gap: None,
            live: None,
            looks: Looks::default(),
            finding: None,
        }
    }

    /// Takes other settings. `is_expected`: a source of ours shall feed it, so that silence is a fault even when
    /// nobody publishes.
    pub fn set(&mut self, settings: Settings, is_expected: bool, now: Instant) {
        if is_expected && !self.is_expected && self.live.is_none() {
            self.quiet_since = now;
        }
        self.settings = settings;
        self.is_expected = is_expected;
    }

    /// The settings now.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A publication begins.
    pub fn begin(&mut self, now: Instant) {
        self.looks.forget();
        if !self.is_expected {
            self.quiet_since = now;
        }
        self.live = Some(Live {
            begun: now,
            has_video: false,
            has_audio: false,
            video: Rhythm { last: None, gap: self.video_gap },
            audio: Rhythm::default(),
            keyframes: Rhythm::default(),
            gops: Gops::default(),
        });
    }

    /// The publication has ended.
    pub fn end(&mut self) {
        if let Some(live) = self.live.take() {
            self.video_gap = live.video.gap;
        }
        self.looks.forget();
    }

    /// The tracks from here on.
    pub fn on_tracks(&mut self, tracks: &Tracks) {
        let Some(live) = &mut self.live else { return };
        live.has_video = tracks.first(TrackKind::Video).is_some();
        live.has_audio = tracks.first(TrackKind::Audio).is_some();
        let shape = tracks.first(TrackKind::Video).map(|track| track.video).unwrap_or_default();
        live.gops.set_shape(shape.width, shape.height);
    }

    /// One unit passes. A keyframe's payload is read once; of all else only the size is used.
    pub fn on_unit(&mut self, head: &UnitHead, codec: Codec, payload: &[u8], now: Instant) {
        let Some(live) = &mut self.live else { return };
        self.quiet_since = now;
        if !self.settings.enabled {
            return;
        }
        if codec.kind() == TrackKind::Audio {
            live.audio.beat(now);
            return;
        }
        live.video.beat(now);
        if head.keyframe {
            live.keyframes.beat(now);
            live.gops.keyframe(head.dts, payload.len(), digest(codec, payload), now);
        } else {
            live.gops.picture(payload.len());
        }
    }

    /// Whether a decoded keyframe is due. Once it is under way, [`Truth::look_begins`] is to be called.
    pub fn wants_look(&self, now: Instant) -> bool {
        let newest = self.live.as_ref().and_then(|live| live.keyframes.last);
        let is_due = |newest| self.looks.is_due(newest, self.settings.interval, now);
        self.settings.enabled && newest.is_some_and(is_due)
    }

    /// A keyframe is being decoded.
    pub fn look_begins(&mut self, now: Instant) {
        self.looks.begins(now);
    }

    /// A keyframe of the present publication was decoded.
    pub fn on_look(&mut self, look: &Look, now: Instant) {
        if self.live.is_some() {
            self.looks.take(look, now);
        }
    }

    /// The newest decoded picture's figures, and when it was looked at.
    pub fn newest_look(&self) -> Option<(Look, Instant)> {
        self.looks.newest()
    }

    /// What is to be said now; nothing where no picture is expected. True with it: it differs from the last time.
    pub fn assess(&mut self, now: Instant) -> (Option<&Finding>, bool) {
        let found = if self.settings.enabled { self.find(now) } else { None };
        let changed = match (&found, &self.finding) {
            (Some(new), Some(old)) => new.verdict != old.verdict,
            (None, None) => false,
            _ => true,
        };
        self.finding = match (found, self.finding.take()) {
            // The first moment of a fault stays, its words follow what is seen.
            (Some(new), Some(old)) if !changed => Some(Finding { since: old.since.min(new.since), ..new }),
            (new, _) => new,
        };
        (self.finding.as_ref(), changed)
    }

    fn find(&self, now: Instant) -> Option<Finding> {
        let Some(live) = &self.live else { return self.of_nobody(now).filter(|_| self.is_expected) };
        let found = self.candidates(live, now).into_iter().flatten();
        let mut said = found.filter(|finding| !self.settings.ignore.contains(&finding.verdict));
        if live.video.last.or(live.audio.last).is_none() {
            // Nothing has come yet: what was said before holds.
            return said.next().or_else(|| self.finding.clone());
        }
        let fine = || {
            let was = self.finding.as_ref().filter(|finding| finding.verdict == Verdict::Ok);
            let since = was.map_or(now, |finding| finding.since);
            Finding { verdict: Verdict::Ok, since, cause: String::new() }
        };
        Some(said.next().unwrap_or_else(fine))
    }

    /// Nobody feeds it, but somebody should.
    fn of_nobody(&self, now: Instant) -> Option<Finding> {
        let rhythm = Rhythm { last: None, gap: self.video_gap };
        let silent = rhythm.missing(self.quiet_since, now, self.settings.dead_after);
        let dead = silent.filter(|_| !self.settings.ignore.contains(&Verdict::Dead));
        let cause = "its source delivers nothing".to_owned();
        let dead = dead.map(|_| Finding { verdict: Verdict::Dead, since: self.quiet_since, cause });
        // It may be back in a moment: what was said before holds.
        dead.or_else(|| self.finding.clone())
    }

    /// All that could be said, most telling first.
    fn candidates(&self, live: &Live, now: Instant) -> [Option<Finding>; 5] {
        let dead_after = self.settings.dead_after;
        let begun = live.begun.min(self.quiet_since);
        let no_video = live.video.missing(begun, now, dead_after);
        let no_audio = live.audio.missing(begun, now, dead_after);
        let finding = |verdict, since, cause: String| Some(Finding { verdict, since, cause });
        let ago = |since: Instant| now.saturating_duration_since(since).as_secs();

        let dead = match (no_video, no_audio) {
            (Some(video), Some(audio)) => {
                let since = if live.audio.last.is_some() { video.max(audio) } else { video };
                finding(Verdict::Dead, since, format!("nothing has come for {} s", ago(since)))
            }
            _ => None,
        };
        let settled = now.saturating_duration_since(live.begun) >= TRACKS_SETTLE;
        let audio_only = match no_video {
            _ if !live.has_video && live.has_audio && settled && live.audio.last.is_some() => finding(
                Verdict::AudioOnly,
                live.begun,
                "the stream has sound and no picture track".to_owned(),
            ),
            Some(since) if live.has_video => {
                let text = format!("sound goes on, but no picture has come for {} s", ago(since));
                finding(Verdict::AudioOnly, since, text)
            }
            _ => None,
        };
        let no_keyframe = self.no_keyframe(live, now);
        let repeat = self.repeat(live, now);
        let seen = self.looks.verdict(repeat.is_some());
        let seen = seen.map(|(verdict, since, cause)| Finding { verdict, since, cause });
        // Black is black, also when every picture of it is the same; all else that stands still is frozen first.
        let (first, second) = match seen {
            Some(seen) if seen.verdict == Verdict::Black => (Some(seen), repeat),
            seen => (repeat, seen),
        };
        let [no_keyframe, first] = match dead.is_some() || audio_only.is_some() {
            true => [None, None],
            false => [no_keyframe, first],
        };
        [dead, audio_only, no_keyframe, first, second]
    }

    fn no_keyframe(&self, live: &Live, now: Instant) -> Option<Finding> {
        live.video.last?;
        let limit = match (live.keyframes.last, live.keyframes.gap) {
            (Some(_), None) => self.settings.keyframe_after.max(KEYFRAME_UNKNOWN),
            _ => self.settings.keyframe_after,
        };
        let since = live.keyframes.missing(live.begun, now, limit)?;
        let cause = match live.keyframes.last {
            Some(_) => format!("no keyframe for {} s", now.saturating_duration_since(since).as_secs()),
            None => "pictures come, but no keyframe: nothing can be decoded".to_owned(),
        };
        Some(Finding { verdict: Verdict::NoKeyframe, since, cause })
    }

    fn repeat(&self, live: &Live, now: Instant) -> Option<Finding> {
        let still_after = Ticks::from_duration(self.settings.still_after);
        let Some(Repeat { since, verdict, cause }) = live.gops.repeat(still_after) else {
            let since = self.looks.equal_since()?;
            let cause = "decoded pictures are equal in every pixel: no sensor makes such".to_owned();
            return Some(Finding { verdict: Verdict::Frozen, since, cause });
        };
        // A picture without light repeats too: a decoded one is waited for, if there will be one.
        let is_seen = self.looks.newest().is_some_and(|(_, at)| at >= since);
        let waited = now.saturating_duration_since(since) >= self.settings.still_after + LOOK_PATIENCE;
        (is_seen || waited).then_some(Finding { verdict, since, cause })
    }
}
