use super::*;
use fieldgate_media::{Codec, TrackId};
use fieldgate_proto::segment::{Origin, Part, Sample};
use std::sync::Arc;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("fieldgate-shelf-{}-{name}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        Folder(path)
    }

    fn open(&self) -> Shelf {
        Shelf::open(&self.0).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

const ROOM: Budget = Budget { bytes: u64::MAX, age_micros: i64::MAX };

fn init(kind: TrackKind, file: &'static [u8]) -> Arc<Init> {
    let codec = if kind == TrackKind::Video { Codec::H264 } else { Codec::Aac };
    let track = Track::new(TrackId(1), codec, Bytes::new());
    let codecs = if kind == TrackKind::Video { "avc1.64001f" } else { "mp4a.40.2" };
    Arc::new(Init { number: 1, track, codecs: codecs.to_owned(), file: Bytes::from_static(file) })
}

fn segment(number: u64, kind: TrackKind, payload: usize) -> Option<Arc<Segment>> {
    let sample = Sample {
        payload: vec![number as u8; payload].into(),
        dts: 0,
        offset: 0,
        duration: 1,
        keyframe: true,
    };
    let part = Part {
        head: Bytes::from_static(b"head"),
        samples: vec![sample],
        duration: 180_000,
        bytes: payload as u64 + 4,
        independent: true,
    };
    let unix_micros = 1_000_000_000 + number as i64 * 2_000_000;
    Some(Arc::new(Segment {
        number,
        period: 0,
        is_discontinuity: false,
        origin: Origin { number: 1, start: 0, unix_micros },
        unix_micros,
        start: 0,
        shown: 0,
        duration: 180_000,
        parts: vec![Arc::new(part)],
        bytes: payload as u64 + 4,
        independent: true,
        init: init(kind, if kind == TrackKind::Video { b"video" } else { b"audio" }),
    }))
}

fn both(number: u64) -> [Option<Arc<Segment>>; 2] {
    [segment(number, TrackKind::Video, 1_000), segment(number, TrackKind::Audio, 100)]
}

fn numbers(excerpt: &Excerpt) -> Vec<u64> {
    let mut numbers: Vec<u64> = excerpt.entries.iter().map(|entry| entry.number).collect();
    numbers.dedup();
    numbers
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let folder = Folder::new("restart");
    let shelf = folder.open();
    (1..=3).for_each(|number| shelf.write(&both(number), ROOM).unwrap());
    let written = shelf.report();
    assert_eq!((written.segments, written.bytes, written.lost), (6, 3 * 1_108, 0));
    assert_eq!(written.written_bytes, 3 * 1_108 + 10, "and two initialisation segments");
    let again = folder.open();
    assert_eq!(again.excerpt(i64::MIN, i64::MAX), shelf.excerpt(i64::MIN, i64::MAX));
    assert_eq!(again.next_number(), 4);
    let excerpt = again.excerpt(i64::MIN, i64::MAX);
    assert!(excerpt.reaches_end && excerpt.inits.len() == 2 && excerpt.entries[0].is_discontinuity);
    let file = again.read(&excerpt.entries[2].name()).unwrap().unwrap();
    assert_eq!(file, [b"head".as_slice(), &[2; 1_000]].concat());
    assert_eq!(again.read(&excerpt.inits[0].name()).unwrap().unwrap().len(), 5);
    for wrong in ["../secret", "masks", "", ".tmp-x", &segment_name(99)] {
        assert_eq!(again.read(wrong).unwrap(), None, "{wrong}");
    }
}

fn segment_name(number: u64) -> String {
    let (kind, init) = (TrackKind::Video, 1);
    Entry { number, kind, unix_micros: 1, duration: 1, init, is_discontinuity: false, bytes: 0 }.name()
}

#[test]
fn parts_of_a_recording_are_found_by_their_time() {
    let folder = Folder::new("time");
    let shelf = folder.open();
    (1..=5).for_each(|number| shelf.write(&both(number), ROOM).unwrap());
    let at = |number: i64| 1_000_000_000 + number * 2_000_000;
    assert_eq!(numbers(&shelf.excerpt(at(2), at(4))), [2, 3]);
    assert_eq!(numbers(&shelf.excerpt(at(2) + 1, at(4) + 1)), [2, 3, 4]);
    assert!(!shelf.excerpt(at(2), at(4)).reaches_end);
    assert_eq!(numbers(&shelf.numbered(4, 9)), [4, 5]);
    assert_eq!(numbers(&shelf.excerpt(0, 1)), [0; 0]);
}

#[test]
fn the_oldest_whole_segments_go_first() {
    let folder = Folder::new("budget");
    let shelf = folder.open();
    let budget = Budget { bytes: 2 * 1_104 + 200, age_micros: i64::MAX };
    (1..=5).for_each(|number| shelf.write(&both(number), budget).unwrap());
    assert_eq!(numbers(&shelf.excerpt(i64::MIN, i64::MAX)), [4, 5]);
    assert!(shelf.report().bytes <= budget.bytes);
    let files = folder.names().into_iter().filter(|name| name.ends_with(".m4s")).count();
    assert_eq!(files, 4, "both tracks of two segments");
    // By age: of what is written next only what ends within five seconds stays.
    shelf.write(&both(6), Budget { bytes: u64::MAX, age_micros: 3_000_000 }).unwrap();
    assert_eq!(numbers(&shelf.excerpt(i64::MIN, i64::MAX)), [4, 5, 6]);
    shelf.write(&both(9), Budget { bytes: u64::MAX, age_micros: 3_000_000 }).unwrap();
    assert_eq!(numbers(&shelf.excerpt(i64::MIN, i64::MAX)), [9]);
}

#[test]
fn what_a_cut_left_is_removed_and_counted() {
    let folder = Folder::new("cut");
    let shelf = folder.open();
    (1..=2).for_each(|number| shelf.write(&both(number), ROOM).unwrap());
    let kept = shelf.excerpt(i64::MIN, i64::MAX);
    // A segment in the middle of being written, and one whose head is lost.
    fs::write(folder.0.join(format!("{TEMPORARY}{}", segment_name(3))), b"half").unwrap();
    fs::write(folder.0.join(segment_name(4)), b"no init").unwrap();
    fs::write(folder.0.join("somebody's notes.txt"), b"x").unwrap();
    let again = folder.open();
    assert_eq!(again.report().mended, 2);
    assert_eq!(again.excerpt(i64::MIN, i64::MAX), kept);
    assert!(folder.names().contains(&"somebody's notes.txt".to_owned()), "what is not ours stays");
    assert_eq!(folder.open().report().mended, 0, "it is mended");
}

#[test]
fn a_disk_that_refuses_costs_a_segment_and_is_told() {
    let folder = Folder::new("refuses");
    let shelf = folder.open();
    shelf.write(&both(1), ROOM).unwrap();
    // The folder is gone: as a disk that was pulled.
    let aside = folder.0.with_extension("aside");
    drop(fs::remove_dir_all(&aside));
    fs::rename(&folder.0, &aside).unwrap();
    assert!(shelf.write(&both(2), ROOM).is_err());
    let report = shelf.report();
    assert!(report.lost == 1 && report.trouble.is_some() && report.segments == 2, "{report:?}");
    fs::rename(&aside, &folder.0).unwrap();
    shelf.write(&both(3), ROOM).unwrap();
    assert_eq!(shelf.report().trouble, None);
    assert_eq!(numbers(&shelf.excerpt(i64::MIN, i64::MAX)), [1, 3]);
}

#[test]
fn an_added_mask_takes_what_was_recorded_before() {
    let folder = Folder::new("masks");
    let shelf = folder.open();
    shelf.keep_only_under(None).unwrap();
    shelf.write(&both(1), ROOM).unwrap();
    shelf.keep_only_under(None).unwrap();
    assert_eq!(shelf.report().segments, 2);
    shelf.keep_only_under(Some(7)).unwrap();
    assert_eq!(shelf.report().segments, 0);
    assert_eq!(folder.names(), [MASKS], "nothing is left on the disk");
    shelf.write(&both(2), ROOM).unwrap();
    // Also where the program ended between the mask and this.
    let again = folder.open();
    again.keep_only_under(Some(7)).unwrap();
    assert_eq!(again.report().segments, 2);
    again.keep_only_under(Some(8)).unwrap();
    assert_eq!(again.report().segments, 0);
}
