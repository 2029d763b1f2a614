//! The time of a session's tracks: RTP timestamps of each, brought onto one line in nanoseconds.
//!
//! Where the camera's answer to PLAY says which timestamps are the beginning, that is the line's zero; else, and where
//! what it says cannot be, the first packet's arrival decides. The first sender reports that cover both tracks put
//! sound where the camera says that it belongs.

use fieldgate_media::{Captured, ClockSource, TrackId};
use retina::Timestamp;
use retina::client::Demuxed;
use retina::rtcp::ReceivedCompoundPacket;

const SECOND_NS: i64 = 1_000_000_000;
/// Further from the beginning no first packet can be: what PLAY said was wrong.
const FIRST_MAX_NS: i64 = 5 * SECOND_NS;
/// Reports that would move sound further lie.
const MOVE_MAX_NS: i64 = 10 * SECOND_NS;
/// 1900 to 1970.
const NTP_TO_UNIX_SECONDS: i64 = 2_208_988_800;

/// All tracks' times.
#[derive(Debug)]
pub(super) struct Clock {
    tracks: Vec<TrackClock>,
    /// When the first packet of any track came, on our clock.
    began_ns: Option<i64>,
    aligned: bool,
}

#[derive(Debug)]
struct TrackClock {
    stream: usize,
    id: TrackId,
    rate: u32,
    /// To be added to the time since its beginning.
    offset_ns: Option<i64>,
    report: Option<Report>,
}

/// A sender report: this moment of the track was at this time of day.
#[derive(Clone, Copy, Debug)]
struct Report {
    elapsed_ns: i64,
    unix_ns: i64,
}

impl Clock {
    /// `streams`: number of each stream in the session and its track.
    pub(super) fn new(session: &Demuxed, streams: impl Iterator<Item = (usize, TrackId)>) -> Self {
        let rate =
            |stream: usize| session.streams().get(stream).map_or(90_000, |stream| stream.clock_rate_hz());
        Clock::of(streams.map(|(stream, id)| (stream, id, rate(stream))))
    }

    fn of(streams: impl Iterator<Item = (usize, TrackId, u32)>) -> Self {
        let track = |(stream, id, rate)| TrackClock { stream, id, rate, offset_ns: None, report: None };
        Clock { tracks: streams.map(track).collect(), began_ns: None, aligned: false }
    }

    /// Where a unit stands, in nanoseconds, and when it was captured.
    pub(super) fn place(&mut self, stream: usize, time: Timestamp) -> (i64, Captured) {
        let elapsed = self.track(stream).map_or(0, |track| nanos(time.elapsed(), track.rate));
        self.place_at(stream, elapsed, gst::glib::monotonic_time() * 1_000, gst::glib::real_time())
    }

    fn place_at(&mut self, stream: usize, elapsed_ns: i64, now_ns: i64, now_micros: i64) -> (i64, Captured) {
        let arrival = Captured { unix_micros: now_micros, by: ClockSource::Arrival };
        let since_begin = now_ns - *self.began_ns.get_or_insert(now_ns);
        let Some(track) = self.track(stream) else { return (since_begin, arrival) };
        if track.offset_ns.is_none() {
            let is_told = elapsed_ns != 0 && (0..FIRST_MAX_NS).contains(&elapsed_ns);
            let offset_ns = if is_told { 0 } else { since_begin.min(FIRST_MAX_NS) - elapsed_ns };
            track.offset_ns = Some(offset_ns);
            self.align();
        }
        let Some(track) = self.track(stream) else { return (since_begin, arrival) };
        let offset_ns = track.offset_ns.unwrap_or(0);
        let captured = track.report.map_or(arrival, |report| {
            let unix_ns = report.unix_ns.saturating_add(elapsed_ns - report.elapsed_ns);
            Captured { unix_micros: unix_ns / 1_000, by: ClockSource::Camera }
        });
        (elapsed_ns.saturating_add(offset_ns), captured)
    }

    /// Takes in what the camera says about its clock.
    pub(super) fn report(&mut self, packet: &ReceivedCompoundPacket) {
        let Some(time) = packet.rtp_timestamp() else { return };
        let sender = packet.pkts().find_map(|packet| packet.as_sender_report().ok().flatten());
        let Some(ntp) = sender.map(|sender| sender.ntp_timestamp().0) else { return };
        let Some(rate) = self.track(packet.stream_id()).map(|track| track.rate) else { return };
        self.report_at(packet.stream_id(), nanos(time.elapsed(), rate), ntp);
    }

    fn report_at(&mut self, stream: usize, elapsed_ns: i64, ntp: u64) {
        // Zero: it has no clock (RFC 3550, 6.4.1).
        let Some(unix_ns) = (ntp != 0).then(|| unix_nanos(ntp)) else { return };
        if let Some(track) = self.track(stream) {
            track.report = Some(Report { elapsed_ns, unix_ns });
        }
        self.align();
    }

    /// Moves sound once to where the reports of both tracks put it.
    fn align(&mut self) {
        let known = |id| {
            let track = self.tracks.iter().find(|track| track.id == id)?;
            let report = track.report?;
            Some((report.unix_ns - report.elapsed_ns, track.offset_ns?))
        };
        // The time of day at each track's beginning.
        let (Some((video_begins, video_offset)), Some((audio_begins, audio_offset))) =
            (known(TrackId::VIDEO), known(TrackId::AUDIO))
        else {
            return;
        };
        if std::mem::replace(&mut self.aligned, true) {
            return;
        }
        let wanted = video_offset.saturating_add(audio_begins.saturating_sub(video_begins));
        if wanted.saturating_sub(audio_offset).saturating_abs() > MOVE_MAX_NS {
            return;
        }
        if let Some(audio) = self.tracks.iter_mut().find(|track| track.id == TrackId::AUDIO) {
            audio.offset_ns = Some(wanted);
        }
    }

    fn track(&mut self, stream: usize) -> Option<&mut TrackClock> {
        self.tracks.iter_mut().find(|track| track.stream == stream)
    }
}

fn nanos(ticks: i64, rate: u32) -> i64 {
    let nanos = i128::from(ticks) * i128::from(SECOND_NS) / i128::from(rate.max(1));
    i64::try_from(nanos).unwrap_or(0)
}

/// From 32.32 bits of seconds since 1900.
fn unix_nanos(ntp: u64) -> i64 {
    let seconds = i64::try_from(ntp >> 32).unwrap_or(0) - NTP_TO_UNIX_SECONDS;
    let nanos = i64::try_from(((ntp & 0xffff_ffff) * 1_000_000_000) >> 32).unwrap_or(0);
    seconds * SECOND_NS + nanos
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn clock() -> Clock {
        Clock::of([(0, TrackId::VIDEO, 90_000), (1, TrackId::AUDIO, 8_000)].into_iter())
    }

    fn ntp(unix_ms: i64) -> u64 {
        let seconds = (unix_ms / 1_000 + NTP_TO_UNIX_SECONDS) as u64;
        (seconds << 32) | ((((unix_ms % 1_000) as u64) << 32) / 1_000)
    }

    #[test]
    fn what_play_said_is_the_beginning() {
        let mut clock = clock();
        assert_eq!(clock.place_at(0, 80 * MS, 7_000 * MS, 5).0, 80 * MS);
        assert_eq!(clock.place_at(1, 20 * MS, 7_200 * MS, 5).0, 20 * MS);
    }

    #[test]
    fn without_it_or_where_it_cannot_be_arrival_decides() {
        for lie in [0, -300 * MS, 30_000 * SECOND_NS] {
            let mut clock = clock();
            assert_eq!(clock.place_at(0, lie, 7_000 * MS, 5).0, 0);
            assert_eq!(clock.place_at(1, lie, 7_200 * MS, 5).0, 200 * MS, "{lie}");
            assert_eq!(clock.place_at(1, lie + 20 * MS, 9_000 * MS, 5).0, 220 * MS);
        }
    }

    #[test]
    fn sender_reports_put_sound_where_it_belongs_once() {
        let mut clock = clock();
        clock.place_at(0, 0, 1_000 * MS, 5);
        assert_eq!(
            clock.place_at(1, 0, 1_500 * MS, 5),
            (500 * MS, Captured { unix_micros: 5, by: ClockSource::Arrival })
        );
        clock.report_at(0, 0, ntp(1_700_000_000_000));
        clock.report_at(1, 100 * MS, ntp(1_700_000_000_140));
        let (at, captured) = clock.place_at(1, 200 * MS, 1_700 * MS, 5);
        assert!((at - 240 * MS).abs() < 1_000, "{at}");
        assert_eq!(captured.by, ClockSource::Camera);
        assert!((captured.unix_micros - 1_700_000_000_240_000).abs() <= 2, "{captured:?}");
        // Later reports tell the time of day, and move nothing.
        clock.report_at(1, 1_000 * MS, ntp(1_700_000_009_000));
        let (later, captured) = clock.place_at(1, 300 * MS, 1_800 * MS, 5);
        assert!((later - 340 * MS).abs() < 1_000);
        assert!(captured.unix_micros > 1_700_000_008_000_000);
    }

    #[test]
    fn reports_without_a_clock_or_far_off_change_nothing() {
        let mut clock = clock();
        clock.place_at(0, 0, 1_000 * MS, 5);
        clock.place_at(1, 0, 1_000 * MS, 5);
        clock.report_at(0, 0, 0);
        assert_eq!(
            clock.place_at(0, 40 * MS, 1_040 * MS, 9).1,
            Captured { unix_micros: 9, by: ClockSource::Arrival }
        );
        clock.report_at(0, 0, ntp(1_700_000_000_000));
        clock.report_at(1, 0, ntp(1_700_000_060_000));
        assert_eq!(clock.place_at(1, 40 * MS, 1_040 * MS, 9).0, 40 * MS);
    }
}
