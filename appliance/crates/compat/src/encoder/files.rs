//! Names and lists of the files that an encoder leaves: segments, playlists, previews.

use super::{Assignment, Previews, Rendition};
use std::collections::VecDeque;
use std::fmt::Write;
use std::time::Duration;

/// A long list is written again when it has grown by one part in so many: its bytes add up to a few times its length.
const VOD_GROWTH: usize = 200;

/// The files of one rendition, relative to where all are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files(String);

impl Files {
    /// Of one rendition of a stream.
    pub fn of(assignment: &Assignment, rendition: &Rendition) -> Files {
        Files(format!("hls/{}/{}/{rendition}", assignment.channel, assignment.stream_id))
    }

    /// Of its previews.
    pub fn of_previews(assignment: &Assignment, previews: &Previews) -> Files {
        Files(format!("img-preview/{}/{}/{}", assignment.channel, assignment.stream_id, previews.name()))
    }

    /// One segment.
    pub fn segment(&self, number: u64) -> String {
        format!("{}/{number}.ts", self.0)
    }

    /// What is live.
    pub fn live(&self) -> String {
        format!("{}/live.m3u8", self.0)
    }

    /// One list of what was recorded.
    pub fn vod(&self, part: u64) -> String {
        format!("{}/vod-{part}.m3u8", self.0)
    }

    /// One preview.
    pub fn preview(&self, number: u64) -> String {
        format!("{}/{number}.jpg", self.0)
    }

    /// The list of previews.
    pub fn preview_index(&self) -> String {
        format!("{}/index.json", self.0)
    }
}

/// The list of so many previews.
pub fn preview_index(count: u64) -> String {
    format!(r#"{{"index_start":0,"count":{count},"pattern":"%d.jpg"}}"#)
}

/// How long lists may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListSettings {
    /// Segments that the live list names.
    pub live: usize,
    /// Segments in one list of what was recorded; none: nothing is kept.
    pub vod: Option<usize>,
    /// Segments of a stream in all.
    pub most: u64,
}

/// A list of what was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vod {
    /// Its number.
    pub part: u64,
    /// When its first segment begins.
    pub start: Duration,
    /// Its text.
    pub text: String,
}

/// What one more segment, or the end, makes of the lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The live list's text.
    pub live: String,
    /// Lists of what was recorded that are to be written again.
    pub vods: Vec<Vod>,
    /// A segment that is kept no longer.
    pub remove: Option<u64>,
    /// The stream may have no more segments.
    pub is_full: bool,
}

#[derive(Clone, Copy, Debug)]
struct Named {
    number: u64,
    duration: Duration,
    is_discontinuity: bool,
}

impl Named {
    fn write(&self, text: &mut String) {
        if self.is_discontinuity {
            text.push_str("#EXT-X-DISCONTINUITY\n");
        }
        let _ = writeln!(text, "#EXTINF:{:.6},\n{}.ts", self.duration.as_secs_f64(), self.number);
    }
}

/// The lists of one rendition.
#[derive(Debug)]
pub struct Lists {
    settings: ListSettings,
    target_secs: u32,
    /// Segments so far.
    count: u64,
    live: VecDeque<Named>,
    /// Discontinuities that the live list names no longer.
    past_discontinuities: u64,
    vod: Part,
    /// How long all segments before that part last.
    at: Duration,
}

/// The list that grows.
#[derive(Debug, Default)]
struct Part {
    number: u64,
    start: Duration,
    lines: String,
    count: usize,
    written: usize,
}

impl Lists {
    /// Empty ones. No segment is longer than `target_secs`, rounded.
    pub fn new(settings: ListSettings, target_secs: u32) -> Lists {
        Lists {
            settings,
            target_secs,
            count: 0,
            live: VecDeque::new(),
            past_discontinuities: 0,
            vod: Part::default(),
            at: Duration::ZERO,
        }
    }

    /// The number that the next segment has.
    pub fn next_number(&self) -> u64 {
        self.count
    }

    /// One more segment is kept.
    pub fn add(&mut self, duration: Duration, is_discontinuity: bool) -> Listed {
        let named =
            Named { number: self.count, duration, is_discontinuity: is_discontinuity && self.count > 0 };
        self.count = self.count.saturating_add(1);
        self.live.push_back(named);
        while self.live.len() > self.settings.live.max(1) {
            let gone = self.live.pop_front();
            let counts = u64::from(gone.is_some_and(|gone| gone.is_discontinuity));
            self.past_discontinuities = self.past_discontinuities.saturating_add(counts);
        }
        let mut vods = Vec::new();
        if let Some(most) = self.settings.vod {
            if self.vod.count >= most.max(1) {
                vods.extend(self.written(false));
                let number = self.vod.number.saturating_add(1);
                self.vod = Part { number, start: self.at, ..Part::default() };
            }
            named.write(&mut self.vod.lines);
            self.vod.count = self.vod.count.saturating_add(1);
            let grown = self.vod.count.saturating_sub(self.vod.written);
            if grown > self.vod.count / VOD_GROWTH {
                vods.extend(self.written(true));
            }
        }
        self.at = self.at.saturating_add(duration);
        let kept = u64::try_from(self.settings.live).unwrap_or(u64::MAX).saturating_mul(2);
        let remove = self.count.checked_sub(kept).and_then(|past| past.checked_sub(1));
        Listed {
            live: self.live_text(false),
            vods,
            remove: remove.filter(|_| self.settings.vod.is_none()),
            is_full: self.count >= self.settings.most,
        }
    }

    /// No more segments come; `None`: there were none.
    pub fn end(&mut self) -> Option<Listed> {
        let vods = if self.settings.vod.is_some() { self.written(false) } else { None };
        (self.count > 0).then(|| Listed {
            live: self.live_text(true),
            vods: vods.into_iter().collect(),
            remove: None,
            is_full: false,
        })
    }

    fn written(&mut self, anyway: bool) -> Option<Vod> {
        let is_new = self.vod.written < self.vod.count;
        self.vod.written = self.vod.count;
        (anyway || is_new).then(|| {
            let mut text = self.head(true, 0);
            text.push_str(&self.vod.lines);
            text.push_str("#EXT-X-ENDLIST\n");
            Vod { part: self.vod.number, start: self.vod.start, text }
        })
    }

    fn live_text(&self, has_ended: bool) -> String {
        let mut text = self.head(false, self.live.front().map_or(0, |first| first.number));
        if self.past_discontinuities > 0 {
            let _ = writeln!(text, "#EXT-X-DISCONTINUITY-SEQUENCE:{}", self.past_discontinuities);
        }
        self.live.iter().for_each(|named| named.write(&mut text));
        if has_ended {
            text.push_str("#EXT-X-ENDLIST\n");
        }
        text
    }

    fn head(&self, is_vod: bool, first: u64) -> String {
        let kind = if is_vod { "#EXT-X-PLAYLIST-TYPE:VOD\n" } else { "" };
        format!(
            "#EXTM3U\n{kind}#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:{}\n#EXT-X-MEDIA-SEQUENCE:{first}\n",
            self.target_secs
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::Resolutions;
    use super::*;
    use crate::key::Key;

    const THREE: Duration = Duration::from_secs(3);

    fn lists(vod: Option<usize>) -> Lists {
        Lists::new(ListSettings { live: 10, vod, most: 100 }, 3)
    }

    #[test]
    fn check_25_files_have_their_names() {
        let assignment = Assignment {
            channel: "c1".to_owned(),
            stream_id: "ab".to_owned(),
            kind: super::super::SourceKind::Rtmp,
            source: Key::default(),
            resolutions: Resolutions::parse("640x360~500"),
            record: false,
            previews: Previews::parse("256x144,3"),
        };
        let source = super::super::Shape { width: 1280, height: 720, frame_rate: 25 };
        let rendition = assignment.resolutions.of(source)[0];
        let files = Files::of(&assignment, &rendition);
        assert_eq!(files.segment(0), "hls/c1/ab/640x360-25~500/0.ts");
        assert_eq!(files.live(), "hls/c1/ab/640x360-25~500/live.m3u8");
        assert_eq!(files.vod(2), "hls/c1/ab/640x360-25~500/vod-2.m3u8");
        let previews = Files::of_previews(&assignment, &assignment.previews.unwrap());
        assert_eq!(previews.preview(7), "img-preview/c1/ab/256x144-3/7.jpg");
        assert_eq!(previews.preview_index(), "img-preview/c1/ab/256x144-3/index.json");
        assert_eq!(preview_index(5), r#"{"index_start":0,"count":5,"pattern":"%d.jpg"}"#);
    }

    #[test]
    fn check_25_the_live_list_names_the_last_segments_and_ends_with_the_stream() {
        let mut lists = lists(None);
        assert_eq!(lists.end(), None, "nothing was ever there");
        assert_eq!(
            lists.add(THREE, true).live,
            "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:3\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:3.000000,\n0.ts\n"
        );
        (1..12).for_each(|_| drop(lists.add(THREE, false)));
        let live = lists.add(THREE, false).live;
        assert!(live.contains("MEDIA-SEQUENCE:3\n") && !live.contains("\n2.ts") && live.contains("\n12.ts"));
        assert_eq!((live.matches("#EXTINF").count(), live.contains("ENDLIST")), (10, false));
        let ended = lists.end().unwrap();
        assert!(ended.live.ends_with("12.ts\n#EXT-X-ENDLIST\n") && ended.vods.is_empty());
    }

    #[test]
    fn check_25_what_is_not_recorded_goes_after_twice_the_window() {
        let mut lists = lists(None);
        let removed: Vec<Option<u64>> = (0..23).map(|_| lists.add(THREE, false).remove).collect();
        assert!(removed[..20].iter().all(Option::is_none), "{removed:?}");
        assert_eq!(removed[20..], [Some(0), Some(1), Some(2)]);
        let mut recorded = tests::lists(Some(100));
        assert!((0..50).all(|_| recorded.add(THREE, false).remove.is_none()));
    }

    #[test]
    fn check_25_recordings_have_lists_that_always_end_and_parts_that_know_their_start() {
        let mut lists = lists(Some(2));
        let first = lists.add(THREE, false).vods;
        assert_eq!(first.len(), 1);
        assert_eq!(
            first[0].text,
            "#EXTM3U\n#EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:3\n#EXT-X-MEDIA-SEQUENCE:0\n\
             #EXTINF:3.000000,\n0.ts\n#EXT-X-ENDLIST\n"
        );
        assert_eq!((first[0].part, first[0].start), (0, Duration::ZERO));
        lists.add(Duration::from_millis(2_500), false);
        let third = lists.add(THREE, true).vods;
        assert_eq!((third[0].part, third[0].start), (1, Duration::from_millis(5_500)));
        assert!(third[0].text.contains("#EXT-X-DISCONTINUITY\n#EXTINF:3.000000,\n2.ts"), "{}", third[0].text);
    }

    #[test]
    fn long_recordings_are_written_ever_less_often_and_at_their_end() {
        let mut lists = Lists::new(ListSettings { live: 10, vod: Some(86_400), most: 16_777_216 }, 3);
        let bytes = |listed: &Listed| listed.vods.iter().map(|vod| vod.text.len()).sum::<usize>();
        let (mut written, mut length) = (0, 0);
        for _ in 0..20_000 {
            let listed = lists.add(THREE, false);
            written += bytes(&listed);
            length = length.max(bytes(&listed));
        }
        assert!(written < length * 1_000, "{written} of {length}");
        let end = lists.end().unwrap();
        assert!(end.vods.is_empty() || end.vods[0].text.contains("\n19999.ts"));
        lists.add(THREE, false);
        assert!(lists.end().unwrap().vods[0].text.contains("\n20000.ts"));
    }

    #[test]
    fn check_25_a_stream_has_so_many_segments_at_most() {
        let mut lists = Lists::new(ListSettings { live: 2, vod: None, most: 3 }, 3);
        let full: Vec<bool> = (0..3).map(|_| lists.add(THREE, false).is_full).collect();
        assert_eq!(full, [false, false, true]);
    }

    #[test]
    fn discontinuities_that_are_past_are_counted() {
        let mut lists = Lists::new(ListSettings { live: 2, vod: None, most: 30 }, 3);
        lists.add(THREE, false);
        lists.add(THREE, true);
        lists.add(THREE, false);
        let live = lists.add(THREE, false).live;
        assert!(live.contains("#EXT-X-DISCONTINUITY-SEQUENCE:1\n") && live.contains("2.ts"), "{live}");
    }
}
