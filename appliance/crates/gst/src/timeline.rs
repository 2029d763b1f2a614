//! From GStreamer's running times to the decode and presentation times of units.
//!
//! Network cameras give presentation times only. With B-frames these go up and down, and the decode time has to be
//! made: the smallest of the last `depth + 1` presentation times is one that a unit `depth` places later may be
//! decoded at, never goes back, and is never after its own presentation. `depth` is learnt from what is seen.

use fieldgate_media::Ticks;

const DEPTH_MAX: usize = 16;
const JUMP_NS: i64 = 1_000_000_000;

/// Where a track's decode times come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecodeTimes {
    /// The pipeline gives them (local encoders) where it has them.
    Given,
    /// They are made from presentation times (network cameras).
    Made,
}

/// One track's times.
#[derive(Debug)]
pub(crate) struct Timeline {
    from: DecodeTimes,
    window: Vec<i64>,
    depth: usize,
    last_dts: Option<Ticks>,
}

/// A unit's place in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) dts: Ticks,
    pub(crate) pts: Ticks,
    /// Before it was made to never go back.
    pub(crate) source_dts: Ticks,
}

impl Timeline {
    pub(crate) fn new(from: DecodeTimes) -> Self {
        Timeline { from, window: Vec::with_capacity(DEPTH_MAX + 2), depth: 0, last_dts: None }
    }

    /// Places the next unit in decode order; times are running times in nanoseconds. `None` without any time.
    pub(crate) fn place(&mut self, pts: Option<i64>, dts: Option<i64>) -> Option<Placed> {
        let pts_ns = pts.or(dts)?;
        let dts_ns = match (self.from, dts) {
            (DecodeTimes::Given, Some(dts)) => dts,
            _ => self.make(pts_ns),
        };
        let source_dts = ticks(dts_ns);
        let dts = self.last_dts.map_or(source_dts, |last| source_dts.max(last));
        self.last_dts = Some(dts);
        Some(Placed { dts, pts: ticks(pts_ns), source_dts })
    }

    /// Learns from the presentation times of a stream's first units, in decode order, before any is placed: with the
    /// depth known from the start no unit is placed after its presentation.
    pub(crate) fn learn(&mut self, first: &[i64]) {
        if self.from == DecodeTimes::Given || self.last_dts.is_some() {
            return;
        }
        let mut order = first.to_vec();
        order.sort_unstable();
        let depth = (0..first.len()).map(|at| {
            let (before, from) = first.split_at(at);
            from.first().map_or(0, |pts| before.iter().filter(|known| **known > *pts).count())
        });
        self.depth = depth.max().unwrap_or(0).min(DEPTH_MAX);
        let step = order.windows(2).map(|pair| pair[1] - pair[0]).filter(|step| *step > 0).min().unwrap_or(0);
        // As if as many units had come before the first.
        if let Some(first) = first.first() {
            let before = i64::try_from(self.depth).unwrap_or(0);
            self.window = (1..=before).rev().map(|n| first - n * step).collect();
        }
    }

    fn make(&mut self, pts: i64) -> i64 {
        // So far off is no B-frame: the camera's clock jumped, or it sends a picture every few seconds.
        if self.window.last().is_some_and(|newest| (newest - pts).abs() > JUMP_NS) {
            self.window.clear();
        }
        // How many known ones come after this one in presentation: that deep is the reordering.
        let later = self.window.iter().filter(|known| **known > pts).count();
        self.depth = self.depth.max(later).min(DEPTH_MAX);
        self.window.push(pts);
        self.window.sort_unstable();
        let surplus = self.window.len().saturating_sub(DEPTH_MAX + 1);
        self.window.drain(..surplus);
        let at = self.window.len().saturating_sub(self.depth + 1);
        self.window.get(at).copied().unwrap_or(pts).min(pts)
    }
}

fn ticks(nanos: i64) -> Ticks {
    let ticks = (i128::from(nanos) * 9).div_euclid(100_000);
    Ticks::new(i64::try_from(ticks).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    #[test]
    fn without_b_frames_decoding_and_presentation_are_one() {
        let mut line = Timeline::new(DecodeTimes::Made);
        for n in 0..100 {
            let placed = line.place(Some(n * 40 * MS), Some(7)).unwrap();
            assert_eq!((placed.dts.get(), placed.pts.get()), (n * 3600, n * 3600));
        }
    }

    #[test]
    fn b_frames_get_decode_times_that_never_go_back_nor_pass_presentation() {
        // I P B B P B B ... in decode order: presentation 0, 3, 1, 2, 6, 4, 5, ...
        let mut line = Timeline::new(DecodeTimes::Made);
        let mut order = vec![0];
        for gop in 0..50 {
            order.extend([gop * 3 + 3, gop * 3 + 1, gop * 3 + 2]);
        }
        let placed: Vec<Placed> =
            order.iter().map(|n| line.place(Some(n * 40 * MS), None).unwrap()).collect();
        assert!(placed.windows(2).all(|w| w[0].dts <= w[1].dts));
        // The first reordered picture shows how deep it goes; from then on all is in order.
        assert!(placed.iter().skip(4).all(|p| p.dts <= p.pts));
        let steps: Vec<i64> = placed.windows(2).skip(6).map(|w| (w[1].dts - w[0].dts).get()).collect();
        assert!(steps.iter().all(|step| *step == 3600), "{steps:?}");
    }

    #[test]
    fn with_the_first_units_known_even_they_are_placed_in_order() {
        // A pyramid of B-frames: two deep.
        let order = [0, 4, 2, 1, 3, 8, 6, 5, 7, 12, 10, 9, 11, 16, 14, 13, 15];
        let times: Vec<i64> = order.iter().map(|n| n * 40 * MS).collect();
        let mut line = Timeline::new(DecodeTimes::Made);
        line.learn(&times[..5]);
        let placed: Vec<Placed> = times.iter().map(|pts| line.place(Some(*pts), None).unwrap()).collect();
        assert!(placed.iter().all(|p| p.dts <= p.pts), "{placed:?}");
        assert!(placed.windows(2).all(|w| (w[1].dts - w[0].dts).get() == 3600), "{placed:?}");
        assert_eq!(placed[0].dts.get(), -7200);
    }

    #[test]
    fn given_decode_times_are_kept_and_never_go_back() {
        let mut line = Timeline::new(DecodeTimes::Given);
        assert_eq!(line.place(Some(80 * MS), Some(-40 * MS)).unwrap().dts.get(), -3600);
        assert_eq!(line.place(Some(40 * MS), Some(0)).unwrap().dts.get(), 0);
        let back = line.place(Some(40 * MS), Some(-10 * MS)).unwrap();
        assert_eq!((back.dts.get(), back.source_dts.get()), (0, -900));
        assert_eq!(line.place(None, None), None);
    }

    #[test]
    fn a_clock_that_jumps_leaves_no_trace_in_what_comes_after() {
        for jump in [37_600_000, -9_800_000] {
            let mut line = Timeline::new(DecodeTimes::Made);
            // Decode order I P B: one picture deep.
            let order = |n: i64| [0, 1, -1][usize::try_from(n % 3).unwrap()];
            let mut place =
                |n: i64, base: i64| line.place(Some((base + (n + order(n)) * 40) * MS), None).unwrap();
            for n in 0..60 {
                place(n, 10_000_000);
            }
            let after: Vec<Placed> = (60..120).map(|n| place(n, 10_000_000 + jump)).collect();
            // What the gateway's clean clock goes by.
            assert!(after.windows(2).skip(3).all(|w| (w[1].source_dts - w[0].source_dts).get() == 3_600));
            assert!(after.iter().skip(3).all(|p| (0..=200).contains(&(p.pts - p.source_dts).as_millis())));
            assert!(after.windows(2).all(|w| w[0].dts <= w[1].dts), "the link demands it");
        }
    }
}
