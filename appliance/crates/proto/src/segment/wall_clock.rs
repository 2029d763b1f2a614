//! What time it is where the stream is: one known pair of times, and the stream's own from there on.

/// The wall clock along a stream, as long as nothing breaks it.
#[derive(Debug, Default)]
pub(super) struct WallClock {
    /// A time of the stream, ticks, and of the wall clock, microseconds since 1970 UTC.
    anchor: Option<(i64, i64)>,
}

impl WallClock {
    /// A unit of this time was captured then; believed where it strays from what is known by more than `slack`
    /// microseconds.
    pub(super) fn tell(&mut self, dts: i64, captured: i64, slack: u64) {
        let strays = self.anchor.is_none() || self.at(dts).abs_diff(captured) > slack;
        if strays {
            self.anchor = Some((dts, captured));
        }
    }

    /// Microseconds since 1970 UTC at this time of the stream; 0 while nothing was told.
    pub(super) fn at(&self, dts: i64) -> i64 {
        let (at, unix_micros) = self.anchor.unwrap_or((dts, 0));
        unix_micros.saturating_add(dts.saturating_sub(at).saturating_mul(100).saturating_div(9))
    }
}
