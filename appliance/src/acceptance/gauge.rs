//! What a camera really sends, from its pictures as they come. Pure; one per mountpoint, of bounded size.

use fieldgate_media::{Ticks, UnitHead};
use std::time::Duration;
use tokio::time::Instant;

/// Weight of a new deviation in the jitter. Source: RFC 3550, section 6.4.1.
const NEW: f64 = 1.0 / 16.0;

/// The pictures of one mountpoint, while they are watched.
#[derive(Clone, Debug, Default)]
pub(super) struct Gauge {
    pictures: u64,
    bytes: u64,
    keyframes: u64,
    /// Stream time over which pictures were counted, in ticks; breaks are left out.
    span_ticks: i64,
    /// Pictures that ended a stretch of that.
    stretches: u64,
    last: Option<(Instant, i64)>,
    keyframe_at: Option<i64>,
    longest_gop_ticks: i64,
    gop_sum_ticks: i64,
    gops: u64,
    jitter: f64,
    worst_jitter: f64,
    longest_silence: Duration,
    first_at: Option<Instant>,
    clock_offset_micros: Option<i64>,
    breaks: u64,
}

/// What was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Measured {
    pub(super) pictures: u64,
    pub(super) frame_rate: f64,
    pub(super) bits_per_second: u64,
    pub(super) mean_gop: Option<Duration>,
    pub(super) longest_gop: Option<Duration>,
    pub(super) jitter: Duration,
    pub(super) longest_silence: Duration,
    /// How far the camera's clock is before ours, where its pictures tell.
    pub(super) clock_offset_micros: Option<i64>,
    pub(super) breaks: u64,
}

impl Gauge {
    /// A coded picture. `captured_offset_micros`: its wall clock less ours, where the camera tells it.
    pub(super) fn picture(&mut self, head: &UnitHead, len: usize, now: Instant, captured: Option<i64>) {
        let dts = head.dts.get();
        self.first_at.get_or_insert(now);
        self.pictures += 1;
        self.bytes += len as u64;
        if let Some(offset) = captured {
            self.clock_offset_micros = Some(offset);
        }
        match self.last {
            Some((at, before)) if dts > before => {
                let (came, due) = (now.saturating_duration_since(at), ticks(dts - before));
                self.span_ticks += dts - before;
                self.stretches += 1;
                let deviation = came.abs_diff(due).as_secs_f64();
                self.jitter += (deviation - self.jitter) * NEW;
                self.worst_jitter = self.worst_jitter.max(self.jitter);
                self.longest_silence = self.longest_silence.max(came);
            }
            _ => {}
        }
        self.last = Some((now, dts));
        if head.keyframe {
            self.keyframes += 1;
            if let Some(before) = self.keyframe_at.replace(dts) {
                let len = dts - before;
                self.gops += 1;
                self.gop_sum_ticks += len;
                self.longest_gop_ticks = self.longest_gop_ticks.max(len);
            }
        }
    }

    /// The stream ended, or pictures were missed: what is between is no measure of the camera.
    pub(super) fn broke(&mut self) {
        self.breaks += 1;
        (self.last, self.keyframe_at) = (None, None);
    }

    /// What came of it up to now.
    pub(super) fn measured(&self, now: Instant) -> Measured {
        let seconds = self.span_ticks as f64 / Ticks::PER_SECOND as f64;
        let watched = self.first_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let open_gop = self.keyframe_at.zip(self.last).map_or(0, |(from, (_, to))| to - from);
        let silence = self.last.map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(at));
        let longest_gop = self.longest_gop_ticks.max(open_gop);
        Measured {
            pictures: self.pictures,
            frame_rate: if seconds > 0.0 { self.stretches as f64 / seconds } else { 0.0 },
            bits_per_second: (self.bytes as f64 * 8.0 / watched.as_secs_f64().max(0.001)) as u64,
            mean_gop: self.gop_sum_ticks.checked_div(i64::try_from(self.gops).unwrap_or(0)).map(ticks),
            longest_gop: (longest_gop > 0).then(|| ticks(longest_gop)),
            jitter: Duration::from_secs_f64(self.worst_jitter),
            longest_silence: self.longest_silence.max(silence),
            clock_offset_micros: self.clock_offset_micros,
            breaks: self.breaks,
        }
    }
}

fn ticks(ticks: i64) -> Duration {
    Duration::from_micros(u64::try_from(ticks).unwrap_or(0).saturating_mul(100) / 9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldgate_media::TrackId;

    fn head(dts: i64, keyframe: bool) -> UnitHead {
        let at = Ticks::new(dts);
        let track = TrackId::VIDEO;
        UnitHead { track, dts: at, pts: at, source_dts: at, source_pts: at, keyframe, captured: None }
    }

    /// Ten seconds at 25 pictures a second, a keyframe every two seconds.
    fn steady(late: impl Fn(u64) -> u64) -> (Gauge, Instant) {
        #[allow(clippy::disallowed_methods, reason = "only differences matter")]
        let start = Instant::now();
        let mut gauge = Gauge::default();
        for number in 0..250_u64 {
            let at = start + Duration::from_millis(number * 40 + late(number));
            gauge.picture(&head(number as i64 * 3_600, number % 50 == 0), 5_000, at, None);
        }
        (gauge, start + Duration::from_millis(249 * 40))
    }

    #[test]
    fn a_steady_camera_is_measured_as_it_is() {
        let (gauge, end) = steady(|_| 0);
        let measured = gauge.measured(end);
        assert_eq!((measured.pictures, measured.breaks), (250, 0));
        assert!((measured.frame_rate - 25.0).abs() < 0.01, "{measured:?}");
        assert!((990_000..1_020_000).contains(&measured.bits_per_second), "{measured:?}");
        assert_eq!(measured.longest_gop, Some(Duration::from_secs(2)));
        assert_eq!(measured.mean_gop, Some(Duration::from_secs(2)));
        assert!(measured.jitter < Duration::from_millis(1), "{measured:?}");
        assert_eq!(measured.longest_silence, Duration::from_millis(40));
    }

    #[test]
    fn jitter_silence_and_breaks_are_told_apart() {
        let (gauge, end) = steady(|number| if number % 2 == 0 { 0 } else { 30 });
        let jitter = gauge.measured(end).jitter;
        assert!((Duration::from_millis(25)..Duration::from_millis(31)).contains(&jitter), "{jitter:?}");
        let (mut gauge, end) = steady(|_| 0);
        let later = end + Duration::from_secs(5);
        assert_eq!(gauge.measured(later).longest_silence, Duration::from_secs(5), "silent up to now");
        gauge.broke();
        gauge.picture(&head(0, true), 5_000, later, Some(-1_500_000));
        gauge.picture(&head(3_600, false), 5_000, later + Duration::from_millis(40), Some(-1_500_000));
        let measured = gauge.measured(later + Duration::from_millis(40));
        assert_eq!((measured.breaks, measured.clock_offset_micros), (1, Some(-1_500_000)));
        assert!((measured.frame_rate - 25.0).abs() < 0.01, "the break is no part of the rate: {measured:?}");
        assert_eq!(Gauge::default().measured(end), Measured::default());
    }
}
