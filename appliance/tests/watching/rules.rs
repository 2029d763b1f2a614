//! The rules of media playlists, each named by its section: RFC 8216, and `bis` for its second edition
//! (draft-pantos-hls-rfc8216bis).

use std::collections::BTreeMap;

/// A media playlist as a player reads it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Playlist {
    pub(crate) version: u32,
    pub(crate) target: f64,
    pub(crate) first: u64,
    pub(crate) discontinuities: u64,
    pub(crate) segments: Vec<Entry>,
    /// Parts behind the last whole segment.
    pub(crate) growing: Vec<Piece>,
    pub(crate) hint: Option<String>,
    pub(crate) part_target: Option<f64>,
    pub(crate) start: Option<f64>,
    pub(crate) control: BTreeMap<String, String>,
    pub(crate) skipped: usize,
    pub(crate) has_ended: bool,
    pub(crate) reports: Vec<BTreeMap<String, String>>,
}

/// One segment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) uri: String,
    pub(crate) duration: f64,
    pub(crate) discontinuity: bool,
    pub(crate) map: String,
    pub(crate) date: String,
    pub(crate) gap: bool,
    pub(crate) parts: Vec<Piece>,
}

/// One part.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Piece {
    pub(crate) uri: String,
    pub(crate) duration: f64,
    pub(crate) independent: bool,
}

/// Reads a playlist and holds it against the rules that can be seen in one alone.
pub(crate) fn read(text: &str) -> Playlist {
    let mut list = Playlist::default();
    let mut entry = Entry::default();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    assert!(text.starts_with("#EXTM3U\n"), "RFC 8216 4.3.1.1: EXTM3U is the first line");
    assert!(!text.contains('\u{feff}') && text.is_ascii(), "RFC 8216 4.1: no byte order mark");
    assert!(text.ends_with('\n'), "RFC 8216 4.1: lines end");
    for line in text.lines() {
        let (tag, value) = line.split_once(':').unwrap_or((line, ""));
        *seen.entry(tag.to_owned()).or_default() += 1;
        match tag {
            "#EXTM3U" | "#EXT-X-INDEPENDENT-SEGMENTS" => {}
            "#EXT-X-VERSION" => list.version = value.parse().unwrap(),
            "#EXT-X-TARGETDURATION" => {
                let whole: u32 = value.parse().expect("RFC 8216 4.3.3.1: a decimal integer");
                list.target = whole.into();
            }
            "#EXT-X-MEDIA-SEQUENCE" => {
                assert!(list.segments.is_empty(), "RFC 8216 4.3.3.2: before the first segment");
                list.first = value.parse().unwrap();
            }
            "#EXT-X-DISCONTINUITY-SEQUENCE" => {
                assert!(
                    list.segments.is_empty() && !entry.discontinuity,
                    "RFC 8216 4.3.3.3: before the first"
                );
                list.discontinuities = value.parse().unwrap();
            }
            "#EXT-X-SERVER-CONTROL" => list.control = attributes(value),
            "#EXT-X-PART-INF" => {
                list.part_target = Some(attributes(value)["PART-TARGET"].parse().unwrap());
            }
            "#EXT-X-START" => {
                let offset = attributes(value)["TIME-OFFSET"].parse().unwrap();
                list.start = Some(offset);
                assert!(offset < 0.0, "RFC 8216 4.3.5.2: from the end of a list that goes on");
            }
            "#EXT-X-SKIP" => {
                assert!(list.segments.is_empty(), "bis 4.4.5.2: instead of the first segments");
                list.skipped = attributes(value)["SKIPPED-SEGMENTS"].parse().unwrap();
            }
            "#EXT-X-DISCONTINUITY" => entry.discontinuity = true,
            "#EXT-X-GAP" => entry.gap = true,
            "#EXT-X-MAP" => entry.map = attributes(value)["URI"].clone(),
            "#EXT-X-PROGRAM-DATE-TIME" => entry.date = value.to_owned(),
            "#EXT-X-PART" => {
                let of = attributes(value);
                entry.parts.push(Piece {
                    uri: of["URI"].clone(),
                    duration: of["DURATION"].parse().unwrap(),
                    independent: of.get("INDEPENDENT").is_some_and(|yes| yes == "YES"),
                });
            }
            "#EXTINF" => entry.duration = value.trim_end_matches(',').parse().unwrap(),
            "#EXT-X-PRELOAD-HINT" => {
                let of = attributes(value);
                assert_eq!(of["TYPE"], "PART");
                list.hint = Some(of["URI"].clone());
            }
            "#EXT-X-RENDITION-REPORT" => list.reports.push(attributes(value)),
            "#EXT-X-ENDLIST" => list.has_ended = true,
            uri if !uri.starts_with('#') => {
                assert!(!uri.is_empty(), "no empty line");
                entry.uri = uri.to_owned();
                let map = entry.map.clone();
                list.segments.push(std::mem::take(&mut entry));
                // RFC 8216 4.3.2.5: in force until the next.
                entry.map = map;
            }
            unknown => panic!("a tag that nobody asked for: {unknown}"),
        }
    }
    list.growing = entry.parts;
    for tag in ["#EXT-X-VERSION", "#EXT-X-TARGETDURATION", "#EXT-X-MEDIA-SEQUENCE"] {
        assert_eq!(seen.get(tag), Some(&1), "RFC 8216 4.3.3: {tag} once");
    }
    check(&list, seen.contains_key("#EXT-X-INDEPENDENT-SEGMENTS"));
    list
}

fn attributes(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').expect("RFC 8216 4.2: NAME=VALUE");
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').expect("RFC 8216 4.2: a closed quote"),
            None => after.find(',').map_or((after, ""), |at| after.split_at(at)),
        };
        let before = found.insert(name.to_owned(), value.to_owned());
        assert!(before.is_none(), "RFC 8216 4.2: {name} once");
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    found
}

fn check(list: &Playlist, is_independent: bool) {
    for entry in &list.segments {
        assert!(
            entry.duration.round() <= list.target,
            "RFC 8216 4.3.3.1: {} lasts {} of {}",
            entry.uri,
            entry.duration,
            list.target
        );
        assert!(list.version >= 6 && !entry.map.is_empty(), "RFC 8216 4.3.2.5, 7: a map, from version 6 on");
        assert!(entry.date.ends_with('Z'), "RFC 8216 4.3.2.6");
        assert!(!entry.gap || list.version >= 8, "bis 8: gaps from version 8 on");
        if !entry.parts.is_empty() {
            let sum: f64 = entry.parts.iter().map(|part| part.duration).sum();
            assert!((sum - entry.duration).abs() < 0.001, "bis 4.4.4.9: parts are the segment: {entry:?}");
        }
    }
    if list.segments.windows(2).any(|pair| pair[0].map != pair[1].map && !pair[1].discontinuity) {
        panic!("a new map only after a discontinuity");
    }
    if let Some(target) = list.part_target {
        let number = |name: &str| list.control[name].parse::<f64>().unwrap();
        assert_eq!(list.control["CAN-BLOCK-RELOAD"], "YES", "bis 4.4.3.8");
        assert!(
            number("PART-HOLD-BACK") >= 2.0 * target,
            "bis 4.4.3.8: at least twice, should be three times"
        );
        assert!(number("CAN-SKIP-UNTIL") >= 6.0 * list.target, "bis 4.4.3.8: at least six times");
        assert!(number("HOLD-BACK") >= 3.0 * list.target, "bis 4.4.3.8: at least three times");
        assert!(list.version >= 9 || list.skipped == 0, "bis 8: skipping from version 9 on");
        let lists = list.segments.iter().map(|entry| (&entry.parts, true)).chain([(&list.growing, false)]);
        for (parts, is_whole) in lists {
            for (at, part) in parts.iter().enumerate() {
                let is_last = is_whole && at + 1 == parts.len();
                assert!(part.duration <= target + 0.000_001, "bis 4.4.4.9: {part:?} of {target}");
                assert!(
                    is_last || part.independent || part.duration >= 0.85 * target,
                    "bis 4.4.4.9: at least 85 %: {part:?} of {target}"
                );
                assert!(!is_independent || at > 0 || part.independent, "bis 4.4.2.1: begins independently");
            }
        }
        assert!(list.has_ended || list.hint.is_some(), "bis 4.4.5.3");
    }
}

/// Holds a later state of a playlist against an earlier one. RFC 8216 6.2.1.
pub(crate) fn check_update(before: &Playlist, after: &Playlist) {
    assert_eq!(before.target, after.target, "RFC 8216 6.2.1: the target duration does not change");
    assert_eq!(before.part_target, after.part_target);
    assert!(after.first >= before.first, "RFC 8216 6.2.2: the media sequence number does not decrease");
    assert!(after.discontinuities >= before.discontinuities, "RFC 8216 6.2.2");
    let dropped = usize::try_from(after.first - before.first).unwrap();
    assert!(dropped <= before.segments.len(), "a player that reloads in time misses nothing");
    let removed = before.segments.iter().take(dropped).filter(|entry| entry.discontinuity).count();
    assert_eq!(
        after.discontinuities - before.discontinuities,
        removed as u64,
        "RFC 8216 6.2.2: the discontinuity sequence counts removed tags"
    );
    for (old, new) in before.segments.iter().skip(dropped).zip(after.segments.iter().skip(after.skipped)) {
        assert_eq!(
            (&old.uri, old.duration, &old.date),
            (&new.uri, new.duration, &new.date),
            "RFC 8216 6.2.1"
        );
        assert_eq!(old.discontinuity, new.discontinuity);
    }
    assert!(!before.has_ended || after.has_ended);
}
