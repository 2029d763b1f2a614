//! What DASH's standard says of a manifest: its XML schema, as far as our manifests and those of others near them go, and the
//! rules in words that can be seen in one alone. Source: ISO/IEC 23009-1:2022, the sections that are named.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use std::collections::{BTreeMap, BTreeSet};

/// One element.
#[derive(Clone, Debug, Default)]
pub(crate) struct Element {
    pub(crate) name: String,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) children: Vec<Element>,
    pub(crate) text: String,
}

impl Element {
    /// An attribute that must be there.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.attributes.get(name).unwrap_or_else(|| panic!("{} has {name}", self.name))
    }

    /// A number that must be there.
    pub(crate) fn number(&self, name: &str) -> i64 {
        self.get(name).parse().unwrap()
    }

    /// Children of this name.
    pub(crate) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Element> + use<'a> {
        let name = name.to_owned();
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The one child of this name.
    pub(crate) fn one(&self, name: &str) -> &Element {
        self.all(name).next().unwrap_or_else(|| panic!("{} has a {name}", self.name))
    }
}

/// A manifest that keeps the rules.
pub(crate) fn read(text: &str) -> Element {
    let mut reader = Reader::from_str(text);
    let mut open = vec![Element::default()];
    loop {
        match reader.read_event().expect("well-formed XML") {
            Event::Start(start) => open.push(element(&start)),
            Event::Empty(start) => open.last_mut().unwrap().children.push(element(&start)),
            Event::End(_) => {
                let closed = open.pop().unwrap();
                open.last_mut().unwrap().children.push(closed);
            }
            Event::Text(text) => open.last_mut().unwrap().text += text.trim(),
            Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!(open.len(), 1, "all elements are closed");
    let mpd = open.remove(0).children.remove(0);
    assert_eq!(mpd.name, "MPD");
    check(&mpd, &mpd.name);
    check_rules(&mpd);
    mpd
}

fn element(start: &BytesStart<'_>) -> Element {
    let name = start.name().as_ref().to_owned();
    let attributes = start.attributes().map(|attribute| {
        let attribute = attribute.expect("an attribute once, and quoted");
        (attribute.key.as_ref().to_owned(), attribute.value.into_owned())
    });
    Element { name, attributes: attributes.collect(), ..Element::default() }
}

/// Types of the schema.
#[derive(Clone, Copy, Debug)]
enum Type {
    Text,
    NoBlanks,
    Uri,
    Date,
    Duration,
    Unsigned,
    Bool,
    /// A list of these.
    OneOf(&'static [&'static str]),
    Sap,
}

/// Name, type, and whether it must be there.
type Attribute = (&'static str, Type, bool);
/// Name, how many at least, and whether there may be more than one.
type Child = (&'static str, usize, bool);

const BASE: [Attribute; 12] = [
    ("profiles", Type::Text, false),
    ("width", Type::Unsigned, false),
    ("height", Type::Unsigned, false),
    ("sar", Type::Text, false),
    ("frameRate", Type::Text, false),
    ("audioSamplingRate", Type::Text, false),
    ("mimeType", Type::Text, false),
    ("codecs", Type::Text, false),
    ("startWithSAP", Type::Sap, false),
    ("maxPlayoutRate", Type::Text, false),
    ("codingDependency", Type::Bool, false),
    ("scanType", Type::OneOf(&["progressive", "interlaced", "unknown"]), false),
];
const SEGMENT_BASE: [Attribute; 2] =
    [("timescale", Type::Unsigned, false), ("presentationTimeOffset", Type::Unsigned, false)];
const BASE_CHILDREN: [Child; 6] = [
    ("FramePacking", 0, true),
    ("AudioChannelConfiguration", 0, true),
    ("ContentProtection", 0, true),
    ("EssentialProperty", 0, true),
    ("SupplementalProperty", 0, true),
    ("InbandEventStream", 0, true),
];

/// What the schema has of an element: attributes, and children in their order.
fn schema(name: &str) -> (Vec<Attribute>, Vec<Child>) {
    use Type::{Bool, Date, Duration, NoBlanks, OneOf, Text, Unsigned, Uri};
    let own = |attributes: &[Attribute], children: &[Child]| (attributes.to_vec(), children.to_vec());
    let based = |attributes: &[Attribute], children: &[Child]| {
        ([&BASE[..], attributes].concat(), [&BASE_CHILDREN[..], children].concat())
    };
    match name {
        "MPD" => own(
            &[
                ("xmlns", Uri, true),
                ("id", Text, false),
                ("profiles", Text, true),
                ("type", OneOf(&["static", "dynamic"]), false),
                ("availabilityStartTime", Date, false),
                ("availabilityEndTime", Date, false),
                ("publishTime", Date, false),
                ("mediaPresentationDuration", Duration, false),
                ("minimumUpdatePeriod", Duration, false),
                ("minBufferTime", Duration, true),
                ("timeShiftBufferDepth", Duration, false),
                ("suggestedPresentationDelay", Duration, false),
                ("maxSegmentDuration", Duration, false),
                ("maxSubsegmentDuration", Duration, false),
            ],
            &[
                ("ProgramInformation", 0, true),
                ("BaseURL", 0, true),
                ("Location", 0, true),
                ("ServiceDescription", 0, true),
                ("Period", 1, true),
                ("Metrics", 0, true),
                ("EssentialProperty", 0, true),
                ("SupplementalProperty", 0, true),
                ("UTCTiming", 0, true),
            ],
        ),
        "Period" => own(
            &[
                ("id", Text, false),
                ("start", Duration, false),
                ("duration", Duration, false),
                ("bitstreamSwitching", Bool, false),
            ],
            &[
                ("BaseURL", 0, true),
                ("SegmentTemplate", 0, false),
                ("AssetIdentifier", 0, false),
                ("EventStream", 0, true),
                ("AdaptationSet", 0, true),
                ("Subset", 0, true),
            ],
        ),
        "AdaptationSet" => based(
            &[
                ("id", Unsigned, false),
                ("group", Unsigned, false),
                ("lang", Text, false),
                ("contentType", OneOf(&["video", "audio", "text"]), false),
                ("segmentAlignment", Bool, false),
                ("bitstreamSwitching", Bool, false),
                ("subsegmentAlignment", Bool, false),
                ("subsegmentStartsWithSAP", Type::Sap, false),
            ],
            &[
                ("Accessibility", 0, true),
                ("Role", 0, true),
                ("BaseURL", 0, true),
                ("SegmentTemplate", 0, false),
                ("Representation", 0, true),
            ],
        ),
        "Representation" => based(
            &[
                ("id", NoBlanks, true),
                ("bandwidth", Unsigned, true),
                ("qualityRanking", Unsigned, false),
                ("dependencyId", Text, false),
            ],
            &[("BaseURL", 0, true), ("SubRepresentation", 0, true), ("SegmentTemplate", 0, false)],
        ),
        "SegmentTemplate" => own(
            &[
                &SEGMENT_BASE[..],
                &[
                    ("duration", Unsigned, false),
                    ("startNumber", Unsigned, false),
                    ("endNumber", Unsigned, false),
                    ("media", Text, false),
                    ("index", Text, false),
                    ("initialization", Text, false),
                    ("bitstreamSwitching", Text, false),
                ],
            ]
            .concat(),
            &[("SegmentTimeline", 0, false)],
        ),
        "SegmentTimeline" => own(&[], &[("S", 1, true)]),
        "S" => own(
            &[
                ("t", Unsigned, false),
                ("n", Unsigned, false),
                ("d", Unsigned, true),
                ("r", Text, false),
                ("k", Unsigned, false),
            ],
            &[],
        ),
        "AudioChannelConfiguration" | "UTCTiming" => {
            own(&[("schemeIdUri", Uri, true), ("value", Text, false), ("id", Text, false)], &[])
        }
        "BaseURL" | "Location" => own(&[], &[]),
        unknown => panic!("an element that no manifest of ours has: {unknown}"),
    }
}

fn check(element: &Element, at: &str) {
    let (attributes, children) = schema(&element.name);
    for (name, value) in &element.attributes {
        let found = attributes.iter().find(|(known, ..)| known == name);
        let (_, kind, _) = found.unwrap_or_else(|| panic!("{at}: the schema has no attribute {name}"));
        assert!(fits(*kind, value), "{at}: {name} is {kind:?}, got {value:?}");
    }
    for (name, ..) in attributes.iter().filter(|(.., needed)| *needed) {
        assert!(element.attributes.contains_key(*name), "{at}: {name} must be there");
    }
    let mut place = 0;
    for child in &element.children {
        let found = children.iter().position(|(known, ..)| *known == child.name);
        let now = found.unwrap_or_else(|| panic!("{at}: the schema has no {} here", child.name));
        assert!(now >= place, "{at}: {} stands too late", child.name);
        place = now;
        check(child, &format!("{at}/{}", child.name));
    }
    for (name, least, many) in children {
        let count = element.all(name).count();
        assert!(count >= least && (many || count <= 1), "{at}: {count} of {name}");
    }
    assert!(matches!(element.name.as_str(), "BaseURL" | "Location") || element.text.is_empty(), "{at}");
}

fn fits(kind: Type, value: &str) -> bool {
    let unsigned = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match kind {
        Type::Text => !value.is_empty(),
        Type::NoBlanks => !value.is_empty() && !value.contains(char::is_whitespace),
        Type::Uri => !value.is_empty() && value.is_ascii() && !value.contains([' ', '"', '<', '>']),
        // As we write them: to the millisecond, in UTC.
        Type::Date => {
            let shape: String = value.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
            shape == "0000-00-00T00:00:00.000Z"
        }
        Type::Duration => {
            let seconds = value.strip_prefix("PT").and_then(|rest| rest.strip_suffix('S'));
            let (whole, part) = seconds.map_or(("", "0"), |text| text.split_once('.').unwrap_or((text, "0")));
            unsigned(whole) && unsigned(part)
        }
        Type::Unsigned => unsigned(value) && value.parse::<u64>().is_ok(),
        Type::Bool => matches!(value, "true" | "false"),
        Type::OneOf(words) => words.contains(&value),
        Type::Sap => unsigned(value) && value.parse::<u8>().is_ok_and(|sap| sap <= 6),
    }
}

/// Seconds of a duration as we write it.
pub(crate) fn seconds(text: &str) -> f64 {
    text.trim_start_matches("PT").trim_end_matches('S').parse().unwrap()
}

fn check_rules(mpd: &Element) {
    assert_eq!(mpd.get("xmlns"), "urn:mpeg:dash:schema:mpd:2011", "5.2.1");
    assert!(mpd.get("profiles").contains("isoff-live"), "8.4");
    if mpd.get("type") == "dynamic" {
        mpd.get("availabilityStartTime");
        mpd.get("publishTime");
        let ends = mpd.attributes.contains_key("mediaPresentationDuration");
        assert!(
            ends != mpd.attributes.contains_key("minimumUpdatePeriod"),
            "5.3.1.2: told anew, or with an end"
        );
    }
    let (mut ids, mut end) = (BTreeSet::new(), 0.0);
    for period in mpd.all("Period") {
        assert!(ids.insert(period.get("id")), "5.3.2.2: an id for each, once, where the manifest is dynamic");
        let start = seconds(period.get("start"));
        assert!(start + 0.001 >= end, "5.3.2.1: periods do not overlap");
        end = start + period.attributes.get("duration").map_or(0.0, |span| seconds(span));
        let mut names = BTreeSet::new();
        for set in period.all("AdaptationSet") {
            assert!(set.all("Representation").count() >= 1, "5.3.3.1: one at least");
            for of in set.all("Representation") {
                assert!(names.insert(of.get("id")), "5.3.5.2: an id once in its period");
                assert!(of.number("bandwidth") > 0, "5.3.5.2");
                assert!(!of.get("codecs").is_empty() && set.get("mimeType").ends_with("/mp4"), "5.3.7.2");
                check_template(of.one("SegmentTemplate"));
            }
        }
    }
}

fn check_template(template: &Element) {
    let media = template.get("media");
    assert!(media.contains("$Number$") != media.contains("$Time$"), "5.3.9.4.4: {media}");
    let has_duration = template.attributes.contains_key("duration");
    let timeline = template.all("SegmentTimeline").next();
    assert!(has_duration != timeline.is_some(), "5.3.9.2.2: a duration or a timeline");
    assert!(timeline.is_some() || media.contains("$Number$"), "5.3.9.4.4: times need a timeline");
    let mut end = 0;
    for segment in timeline.iter().flat_map(|timeline| timeline.all("S")) {
        let start = segment.number("t");
        assert!(start >= end && segment.number("d") > 0, "5.3.9.6: in order, and none into the next");
        assert!(start >= template.number("presentationTimeOffset"), "within the period");
        end = start + segment.number("d");
    }
}

/// Files of a representation that are there now.
pub(crate) fn files(of: &Element) -> Vec<String> {
    let template = of.one("SegmentTemplate");
    let media = template.get("media");
    let timeline = template.one("SegmentTimeline");
    let first = template.attributes.get("startNumber").map_or(0, |number| number.parse().unwrap());
    let numbered = timeline.all("S").zip(first..);
    let names = numbered.map(|(segment, number): (&Element, i64)| {
        media.replace("$Time$", segment.get("t")).replace("$Number$", &number.to_string())
    });
    std::iter::once(template.get("initialization").to_owned()).chain(names).collect()
}

#[test]
fn a_manifest_that_breaks_the_schema_is_found() {
    let good = "<MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" profiles=\"urn:mpeg:dash:profile:isoff-live:2011\" \
                type=\"dynamic\" availabilityStartTime=\"2026-01-01T00:00:00.000Z\" publishTime=\"2026-01-01T00:00:00.000Z\" \
                minimumUpdatePeriod=\"PT2S\" minBufferTime=\"PT2S\"><Period id=\"1\" start=\"PT0.000S\"><AdaptationSet \
                mimeType=\"video/mp4\"><Representation id=\"v\" bandwidth=\"1\" codecs=\"avc1.4D401E\"><SegmentTemplate \
                presentationTimeOffset=\"0\" media=\"$Number$.m4s\" duration=\"1\"/></Representation></AdaptationSet></Period></MPD>";
    read(good);
    for (from, to) in [
        ("type=\"dynamic\"", "type=\"live\""),
        (" minBufferTime=\"PT2S\"", ""),
        ("2026-01-01T00:00:00.000Z\" publish", "yesterday\" publish"),
        ("PT0.000S", "0 s"),
        ("bandwidth=\"1\"", "bandwidth=\"-1\""),
        ("bandwidth=\"1\"", ""),
        ("id=\"v\"", "id=\"v 1\""),
        ("<Period id=\"1\"", "<Period colour=\"1\""),
        ("<Period id=\"1\"", "<UTCTiming schemeIdUri=\"a\"/><Period id=\"1\""),
        ("$Number$.m4s", "1.m4s"),
        ("duration=\"1\"/>", "duration=\"1\"><SegmentTimeline/></SegmentTemplate>"),
    ] {
        let broken = good.replace(from, to);
        assert_ne!(broken, good);
        let silent = std::panic::catch_unwind(|| read(&broken));
        assert!(silent.is_err(), "{to}");
    }
}
