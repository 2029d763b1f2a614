//! What one receiver got: frames lost, out of order or changed, and how late they came.

use crate::media::{Frame, Label, Track, read_frame};

/// Frames that did not come as they were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Faults {
    /// Never came.
    pub lost: u64,
    /// Came after a later one, or twice.
    pub reordered: u64,
    /// Came with other bytes, or belong to another stream.
    pub changed: u64,
}

impl Faults {
    /// Adds `other`.
    pub(crate) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.reordered += other.reordered;
        self.changed += other.changed;
    }

    /// All of them.
    pub(crate) fn total(self) -> u64 {
        self.lost + self.reordered + self.changed
    }
}

/// Follows one receiver of one stream.
#[derive(Debug)]
pub(crate) struct Verifier {
    stream: u16,
    /// Only this track is received.
    only: Option<Track>,
    next: [Option<u32>; 2],
    faults: Faults,
    keyframe_seen: bool,
}

impl Verifier {
    /// A receiver of stream number `stream`; its first frame of each track says where it starts.
    pub(crate) fn new(stream: u16) -> Self {
        Self { stream, only: None, next: [None; 2], faults: Faults::default(), keyframe_seen: false }
    }

    /// A receiver of one track of stream number `stream`.
    pub(crate) fn of_track(stream: u16, track: Track) -> Self {
        Self { only: Some(track), ..Self::new(stream) }
    }

    /// Takes one received message; returns the label of a frame that came whole.
    pub(crate) fn take(&mut self, track: Track, body: &[u8]) -> Option<Label> {
        let (label, keyframe) = match read_frame(track, body) {
            Frame::Good(label, keyframe) if label.stream == self.stream => (label, keyframe),
            Frame::Good(..) | Frame::Changed => {
                self.faults.changed += 1;
                return None;
            }
            Frame::Header | Frame::End => return None,
        };
        self.keyframe_seen |= keyframe;
        let next = &mut self.next[track as usize];
        let expected = next.unwrap_or(label.sequence);
        if label.sequence < expected {
            self.faults.reordered += 1;
        } else {
            self.faults.lost += u64::from(label.sequence - expected);
            *next = Some(label.sequence + 1);
        }
        Some(label)
    }

    /// The stream's number.
    pub(crate) fn stream(&self) -> u16 {
        self.stream
    }

    /// Whether a picture that can be decoded alone has come.
    pub(crate) fn keyframe_seen(&self) -> bool {
        self.keyframe_seen
    }

    /// Whether its tracks have come up to, not with, `end`.
    pub(crate) fn is_complete(&self, end: [u32; 2]) -> bool {
        self.tracks(end).all(|(next, end)| next == end)
    }

    /// For each track that is received what comes next, and what would with nothing lost.
    fn tracks(&self, end: [u32; 2]) -> impl Iterator<Item = (u32, u32)> {
        let pairs = [Track::Video, Track::Audio].into_iter().zip(self.next.into_iter().zip(end));
        let wanted = pairs.filter(|(track, _)| self.only.is_none_or(|only| only == *track));
        wanted.map(|(_, (next, end))| (next.unwrap_or(0), end))
    }

    /// The sum, when the publisher's next frames would have had the sequence numbers `end`.
    pub(crate) fn faults_at_end(&self, end: [u32; 2]) -> Faults {
        let mut faults = self.faults;
        for (next, end) in self.tracks(end) {
            // A changed frame also leaves its gap: it is counted once, as changed.
            faults.lost += u64::from(end.saturating_sub(next));
        }
        faults.lost = faults.lost.saturating_sub(faults.changed);
        faults
    }
}

/// The value at `share` (0 to 1) of the sorted `values`; 0 if there are none.
pub(crate) fn percentile(values: &mut [u64], share: f64) -> u64 {
    values.sort_unstable();
    let index = (values.len() as f64 * share) as usize;
    values.get(index.min(values.len().saturating_sub(1))).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Source;

    fn frames(count: usize) -> Vec<Vec<u8>> {
        let mut source = Source::new(1, 500_000, 0.0);
        (0..count)
            .map(|_| {
                let mut body = Vec::new();
                source.write_frame(Track::Video, 9, &mut body);
                body
            })
            .collect()
    }

    fn verdict(bodies: &[Vec<u8>], end: u32) -> Faults {
        let mut verifier = Verifier::new(1);
        verifier.next[Track::Audio as usize] = Some(0);
        for body in bodies {
            verifier.take(Track::Video, body);
        }
        verifier.faults_at_end([end, 0])
    }

    #[test]
    fn a_whole_stream_has_no_faults() {
        assert_eq!(verdict(&frames(50), 50), Faults::default());
        assert_eq!(verdict(&frames(50)[20..], 50), Faults::default(), "a late joiner starts where it starts");
    }

    #[test]
    fn a_lost_frame_is_seen_in_the_middle_and_at_the_end() {
        let mut bodies = frames(50);
        bodies.remove(25);
        assert_eq!(verdict(&bodies, 50), Faults { lost: 1, ..Faults::default() });
        assert_eq!(verdict(&frames(50)[..47], 50), Faults { lost: 3, ..Faults::default() });
        assert_eq!(verdict(&[], 50).lost, 50, "nothing at all came");
    }

    #[test]
    fn swapped_and_doubled_frames_are_seen() {
        let mut bodies = frames(50);
        bodies.swap(10, 11);
        assert!(verdict(&bodies, 50).reordered > 0);
        let mut bodies = frames(50);
        bodies.insert(5, bodies[5].clone());
        assert_eq!(verdict(&bodies, 50), Faults { reordered: 1, ..Faults::default() });
    }

    #[test]
    fn changed_and_foreign_frames_are_seen() {
        let mut bodies = frames(50);
        let middle = bodies[30].len() / 2;
        bodies[30][middle] ^= 0x20;
        assert_eq!(verdict(&bodies, 50), Faults { changed: 1, ..Faults::default() });
        let mut other = Verifier::new(2);
        other.take(Track::Video, &frames(1)[0]);
        assert_eq!(other.faults_at_end([0, 0]).changed, 1);
    }

    #[test]
    fn percentiles_of_a_hundred_values() {
        let mut values: Vec<u64> = (0..100).rev().collect();
        assert_eq!(percentile(&mut values, 0.5), 50);
        assert_eq!(percentile(&mut values, 0.99), 99);
        assert_eq!(percentile(&mut [], 0.5), 0);
    }
}
