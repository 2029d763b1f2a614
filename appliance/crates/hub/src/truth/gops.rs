//! From sizes and digests: does the same come again?

use super::Verdict;
use fieldgate_media::Ticks;
use std::collections::VecDeque;
use tokio::time::Instant;

/// Keyframes that are remembered; a loop of more than these is not noticed.
const REMEMBERED: usize = 512;
/// Keyframes in a row that must have been there before.
const SEEN_MIN: u32 = 2;
/// The longest standstill that counts as a camera's own habit.
const HABIT_MAX: Ticks = Ticks::from_millis(60_000);

/// The same again and again.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Repeat {
    pub(super) since: Instant,
    pub(super) verdict: Verdict,
    pub(super) cause: String,
}

/// The groups of pictures of one publication.
#[derive(Debug, Default)]
pub(super) struct Gops {
    /// A picture between keyframes of up to this size may be one that says "as before".
    small: usize,
    known: VecDeque<Known>,
    open: Pictures,
    run: Option<Run>,
    /// The longest run that ended by itself: a camera may rightly show one picture for seconds.
    habit: Ticks,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    digest: u64,
    dts: Ticks,
    at: Instant,
}

/// What has come after the newest keyframe.
#[derive(Clone, Copy, Debug, Default)]
struct Pictures {
    all: u32,
    small: u32,
    /// As large as the last but one, to 2 %: encoders that have settled alternate.
    alike: u32,
    last: [usize; 2],
}

impl Pictures {
    fn add(&mut self, len: usize, small: usize) {
        let [before, last] = self.last;
        self.all = self.all.saturating_add(1);
        self.small += u32::from(len <= small);
        self.alike += u32::from(self.all > 2 && len.abs_diff(before) <= 4 + before / 50);
        self.last = [last, len];
    }

    /// Whether nothing seems to move in it.
    fn is_still(&self) -> bool {
        self.small * 2 >= self.all || self.alike * 5 >= self.all.saturating_sub(2) * 4
    }
}

/// Keyframes in a row, each of which was there before.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// When the first of them was there for the first time.
    since: Instant,
    from: Ticks,
    to: Ticks,
    seen: u32,
    sizes: (usize, usize),
    /// Groups within it in which something moves.
    moving: u32,
}

impl Gops {
    pub(super) fn set_shape(&mut self, width: u32, height: u32) {
        let blocks = u64::from(width.div_ceil(16)) * u64::from(height.div_ceil(16));
        self.small = 100 + usize::try_from(blocks / 32).unwrap_or(0);
    }

    /// A picture that is no keyframe.
    pub(super) fn picture(&mut self, len: usize) {
        self.open.add(len, self.small.max(100));
    }

    /// A keyframe; it closes the group before it.
    pub(super) fn keyframe(&mut self, dts: Ticks, len: usize, digest: u64, now: Instant) {
        let closed = std::mem::take(&mut self.open);
        let mut newest_first = self.known.iter().rev();
        let before = newest_first.position(|known| known.digest == digest);
        match (before, &mut self.run) {
            (Some(_), Some(run)) => {
                run.seen = run.seen.saturating_add(1);
                run.to = dts;
                run.sizes = (run.sizes.0.min(len), run.sizes.1.max(len));
                run.moving += u32::from(!closed.is_still());
            }
            (Some(ago), none) => {
                // The last or the last but one (see `digest`): the same picture has been there since. One from further
                // back: a loop begins anew.
                let first = self.known.iter().rev().nth(ago).filter(|_| ago < 2);
                let (from, since) = first.map_or((dts, now), |known| (known.dts, known.at));
                *none = Some(Run { since, from, to: dts, seen: 1, sizes: (len, len), moving: 0 });
            }
            (None, _) => {
                if let Some(run) = self.run.take() {
                    self.habit = self.habit.max(run.to - run.from).min(HABIT_MAX);
                }
            }
        }
        if self.known.len() == REMEMBERED {
            self.known.pop_front();
        }
        self.known.push_back(Known { digest, dts, at: now });
    }

    /// The repetition that is going on, if it has lasted.
    pub(super) fn repeat(&self, still_after: Ticks) -> Option<Repeat> {
        let run = self.run.as_ref()?;
        let lasted = run.to - run.from;
        if run.seen < SEEN_MIN || lasted < still_after.max(self.habit + self.habit) {
            return None;
        }
        let (smallest, largest) = run.sizes;
        let is_one_picture = run.moving * 4 <= run.seen && largest - smallest <= 4 + largest / 500;
        let verdict = if is_one_picture { Verdict::Frozen } else { Verdict::Repeating };
        let cause = match verdict {
            Verdict::Frozen => {
                format!("{} keyframes in a row are equal to the byte: no sensor makes such", run.seen + 1)
            }
            _ => format!("the last {} groups of pictures were all sent before", run.seen),
        };
        Some(Repeat { since: run.since, verdict, cause })
    }
}
