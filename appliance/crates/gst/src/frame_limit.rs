//! Fewer pictures a second than the source has: those in between are dropped, and none is made up. (`videorate` with a
//! limit repeats pictures wherever the stream's times leave room, before its first picture for one.)

use crate::error::WorkError;
use gst::ClockTime;
use gst::prelude::*;
use std::sync::{Mutex, PoisonError};

/// Lets at most so many pictures a second through, by their times.
pub(crate) struct FrameLimit {
    period: ClockTime,
    /// When the next one is to come.
    due: Option<ClockTime>,
}

impl FrameLimit {
    /// `rate` in pictures a second.
    pub(crate) fn new(rate: u32) -> FrameLimit {
        FrameLimit { period: ClockTime::SECOND / u64::from(rate.max(1)), due: None }
    }

    /// Thins out what leaves this element.
    pub(crate) fn attach(self, element: &gst::Element) -> Result<(), WorkError> {
        let pad = element.static_pad("src").ok_or(WorkError::Ended)?;
        let limit = Mutex::new(self);
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let pts = info.buffer().and_then(|buffer| buffer.pts());
            let mut limit = limit.lock().unwrap_or_else(PoisonError::into_inner);
            if limit.lets_through(pts) { gst::PadProbeReturn::Ok } else { gst::PadProbeReturn::Drop }
        });
        Ok(())
    }

    fn lets_through(&mut self, pts: Option<ClockTime>) -> bool {
        let Some(pts) = pts else { return true };
        let period = self.period;
        // Cameras are not punctual: a little early is in time. So far back is a clock that jumped.
        let next = match self.due {
            Some(due) if pts + period / 4 < due && pts + period * 2 >= due => return false,
            Some(due) if pts + period / 4 >= due && pts <= due + period => due,
            _ => pts,
        };
        self.due = Some(next + period);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of ten seconds of pictures, `rate` a second from `start` on, pass a limit.
    fn passed(limit: &mut FrameLimit, rate: u64, start: ClockTime) -> usize {
        let times = (0..rate * 10).map(|at| start + ClockTime::SECOND * at / rate);
        times.filter(|pts| limit.lets_through(Some(*pts))).count()
    }

    #[test]
    fn a_second_has_no_more_pictures_than_the_limit_and_as_many_where_there_are() {
        for (rate, limit, expected) in [
            (30, 15, 150),
            (30, 20, 200),
            (25, 20, 200),
            (25, 24, 240),
            (60, 25, 250),
            (50, 1, 10),
            (30, 30, 300),
            (10, 15, 100),
            (14, 15, 140),
        ] {
            for start in [0, 40, 1_700_000_000_000] {
                let got = passed(&mut FrameLimit::new(limit), rate, ClockTime::from_mseconds(start));
                assert!(
                    got.abs_diff(expected) <= 1,
                    "{got} of {rate} a second within {limit}, from {start} ms"
                );
            }
        }
    }

    #[test]
    fn unpunctual_pictures_at_the_limit_all_pass() {
        let mut limit = FrameLimit::new(25);
        for at in 0..500_u64 {
            let pts = ClockTime::from_mseconds(1_000 + at * 40 + (at * 7 % 9));
            assert!(limit.lets_through(Some(pts)), "picture {at}");
        }
    }

    #[test]
    fn clocks_that_jump_and_pictures_without_a_time_hold_nothing_up() {
        let mut limit = FrameLimit::new(10);
        assert_eq!(passed(&mut limit, 20, ClockTime::from_seconds(500)), 100);
        assert!(passed(&mut limit, 20, ClockTime::ZERO).abs_diff(100) <= 1, "back");
        assert!(passed(&mut limit, 20, ClockTime::from_seconds(9_000)).abs_diff(100) <= 1, "forth");
        assert!(limit.lets_through(None) && limit.lets_through(None));
    }
}
