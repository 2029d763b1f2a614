//! Keeps tracks that pass in step with those that a worker makes: making takes time, and who joins a stream shall find
//! picture and sound of the same moment beside each other.

use fieldgate_media::{Ticks, Unit};
use std::collections::VecDeque;

/// A track that is made is waited for so long, by the times of those that pass.
const PATIENCE: Ticks = Ticks::from_millis(5_000);
/// The most that may wait.
const UNITS_MAX: usize = 1_024;
const BYTES_MAX: usize = 8 << 20;

/// Units of tracks that pass, in order, until what is made has come as far. Bounded: the oldest go on when too many wait.
#[derive(Debug, Default)]
pub(super) struct InStep {
    waiting: VecDeque<Unit>,
    bytes: usize,
    made_to: Option<Ticks>,
}

impl InStep {
    /// One more that passes.
    pub(super) fn pass(&mut self, unit: Unit) {
        self.bytes += unit.payload.len();
        self.waiting.push_back(unit);
    }

    /// What is made has come to here.
    pub(super) fn made(&mut self, to: Ticks) {
        self.made_to = Some(self.made_to.map_or(to, |before| before.max(to)));
    }

    /// The next that may go on; to be asked until there is none.
    pub(super) fn due(&mut self) -> Option<Unit> {
        let (oldest, newest) = (self.waiting.front()?.head.dts, self.waiting.back()?.head.dts);
        let is_due = self.made_to.is_some_and(|made_to| oldest <= made_to)
            || newest - oldest > PATIENCE
            || self.waiting.len() > UNITS_MAX
            || self.bytes > BYTES_MAX;
        let unit = self.waiting.pop_front_if(|_| is_due)?;
        self.bytes -= unit.payload.len();
        Some(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use fieldgate_media::{TrackId, UnitHead};

    fn unit(at: i64, len: usize) -> Unit {
        let dts = Ticks::new(at);
        let head = UnitHead {
            track: TrackId::AUDIO,
            dts,
            pts: dts,
            source_dts: dts,
            source_pts: dts,
            keyframe: true,
            captured: None,
        };
        Unit { head, payload: Bytes::from(vec![0; len]) }
    }

    fn due(waiting: &mut InStep) -> Vec<i64> {
        std::iter::from_fn(|| waiting.due()).map(|unit| unit.head.dts.get()).collect()
    }

    #[test]
    fn sound_goes_on_when_the_picture_of_its_moment_is_made() {
        let mut waiting = InStep::default();
        (0..5).for_each(|n| waiting.pass(unit(n * 1_000, 10)));
        assert!(due(&mut waiting).is_empty());
        waiting.made(Ticks::new(2_500));
        assert_eq!(due(&mut waiting), [0, 1_000, 2_000]);
        waiting.made(Ticks::new(1_000));
        assert!(due(&mut waiting).is_empty(), "never back");
        waiting.made(Ticks::new(4_000));
        assert_eq!(due(&mut waiting), [3_000, 4_000]);
    }

    #[test]
    fn nothing_waits_without_a_bound() {
        let mut waiting = InStep::default();
        waiting.pass(unit(0, 1));
        waiting.pass(unit(PATIENCE.get(), 1));
        assert!(due(&mut waiting).is_empty());
        waiting.pass(unit(PATIENCE.get() + 1, 1));
        assert_eq!(due(&mut waiting), [0], "a picture that does not come is not waited for");
        let mut waiting = InStep::default();
        (0..=BYTES_MAX as i64 >> 20).for_each(|n| waiting.pass(unit(n, 1 << 20)));
        assert_eq!(due(&mut waiting), [0]);
        let mut waiting = InStep::default();
        (0..=UNITS_MAX as i64).for_each(|n| waiting.pass(unit(n, 1)));
        assert_eq!(due(&mut waiting), [0]);
    }
}
