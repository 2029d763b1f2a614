//! What the files of a package are called, and what a name asks for.

use fieldgate_media::TrackKind;

/// What a file name asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// HLS: the list of renditions.
    Master,
    /// HLS: the segments of one track.
    Media(TrackKind),
    /// An initialisation segment.
    Init(TrackKind, u32),
    /// A segment by its number.
    Segment(TrackKind, u64),
    /// A part of a segment.
    Part(TrackKind, u64, u16),
    /// A segment by the time that it is shown from, ticks.
    SegmentAt(TrackKind, i64),
    /// HLS for old players: the list of renditions.
    OldMaster,
    /// HLS for old players: the segments of all tracks together.
    Together,
    /// A segment of all tracks together, as MPEG-TS.
    Ts(u64),
    /// DASH: the manifest.
    Manifest(Addressing),
}

impl Name {
    /// Whether a viewer may begin with it.
    pub fn opens(self) -> bool {
        matches!(self, Name::Master | Name::OldMaster | Name::Manifest(_))
    }
}

/// How DASH players find segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// By the time that they are shown from.
    Time,
    /// By number.
    Number,
}

fn letter(kind: TrackKind) -> char {
    match kind {
        TrackKind::Video => 'v',
        TrackKind::Audio => 'a',
    }
}

/// The media playlist of a lane.
pub fn media(kind: TrackKind) -> &'static str {
    match kind {
        TrackKind::Video => "video.m3u8",
        TrackKind::Audio => "audio.m3u8",
    }
}

/// An initialisation segment.
pub fn init(kind: TrackKind, number: u32) -> String {
    format!("{}-init-{number}.mp4", letter(kind))
}

/// A segment.
pub fn segment(kind: TrackKind, number: u64) -> String {
    format!("{}{number}.m4s", letter(kind))
}

/// A part of a segment.
pub fn part(kind: TrackKind, number: u64, part: usize) -> String {
    format!("{}{number}.{part}.m4s", letter(kind))
}

/// Stands before the name of a size that is made of a stream; no stream has a name with it.
pub const SIZE: char = '~';

/// All tracks together.
pub const TOGETHER: &str = "ts.m3u8";

/// A segment of all tracks together.
pub fn ts(number: u64) -> String {
    format!("{number}.ts")
}

/// What DASH players make names of segments from.
pub fn template(kind: TrackKind, addressing: Addressing) -> String {
    match addressing {
        Addressing::Time => format!("{}t$Time$.m4s", letter(kind)),
        Addressing::Number => format!("{}$Number$.m4s", letter(kind)),
    }
}

/// The manifest of DASH.
pub fn manifest(addressing: Addressing) -> &'static str {
    match addressing {
        Addressing::Time => "manifest.mpd",
        Addressing::Number => "number.mpd",
    }
}

/// Reads a file name; `None` for what was never given out.
pub fn parse(name: &str) -> Option<Name> {
    // `index.m3u8` is what older systems call it.
    match name {
        "master.m3u8" | "index.m3u8" => return Some(Name::Master),
        "video.m3u8" => return Some(Name::Media(TrackKind::Video)),
        "audio.m3u8" => return Some(Name::Media(TrackKind::Audio)),
        "mpegts.m3u8" => return Some(Name::OldMaster),
        TOGETHER => return Some(Name::Together),
        "manifest.mpd" => return Some(Name::Manifest(Addressing::Time)),
        "number.mpd" => return Some(Name::Manifest(Addressing::Number)),
        _ => {}
    }
    if let Some(rest) = name.strip_suffix(".ts") {
        return Some(Name::Ts(number(rest)?));
    }
    let (kind, rest) = match name.strip_prefix('v') {
        Some(rest) => (TrackKind::Video, rest),
        None => (TrackKind::Audio, name.strip_prefix('a')?),
    };
    if let Some(rest) = rest.strip_prefix("-init-") {
        return Some(Name::Init(kind, number(rest.strip_suffix(".mp4")?)?));
    }
    let rest = rest.strip_suffix(".m4s")?;
    if let Some(time) = rest.strip_prefix('t') {
        return Some(Name::SegmentAt(kind, number(time)?));
    }
    match rest.split_once('.') {
        Some((segment, part)) => Some(Name::Part(kind, number(segment)?, number(part)?)),
        None => Some(Name::Segment(kind, number(rest)?)),
    }
}

/// Decimal digits without leading zeros: each file has one name.
pub(super) fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// A fuzz target: any name is read or refused, and one that is read is the name that was given out.
pub fn fuzz(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let again = match parse(text) {
        Some(Name::Init(kind, number)) => init(kind, number),
        Some(Name::Segment(kind, number)) => segment(kind, number),
        Some(Name::Part(kind, number, index)) => part(kind, number, usize::from(index)),
        Some(Name::Media(kind)) => media(kind).to_owned(),
        Some(Name::SegmentAt(kind, time)) => {
            template(kind, Addressing::Time).replace("$Time$", &time.to_string())
        }
        Some(Name::Ts(number)) => ts(number),
        Some(Name::Manifest(addressing)) => manifest(addressing).to_owned(),
        Some(Name::Together) => TOGETHER.to_owned(),
        Some(Name::Master | Name::OldMaster) | None => return,
    };
    debug_assert_eq!(again, text, "each file has one name");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_were_given_out() {
        for kind in [TrackKind::Video, TrackKind::Audio] {
            assert_eq!(parse(&init(kind, 7)), Some(Name::Init(kind, 7)));
            assert_eq!(parse(&segment(kind, u64::MAX)), Some(Name::Segment(kind, u64::MAX)));
            assert_eq!(parse(&part(kind, 0, 12)), Some(Name::Part(kind, 0, 12)));
            assert_eq!(parse(media(kind)), Some(Name::Media(kind)));
            let at = template(kind, Addressing::Time).replace("$Time$", "900");
            assert_eq!(parse(&at), Some(Name::SegmentAt(kind, 900)));
            let numbered = template(kind, Addressing::Number).replace("$Number$", "9");
            assert_eq!(parse(&numbered), Some(Name::Segment(kind, 9)));
        }
        assert_eq!(parse(&ts(7)), Some(Name::Ts(7)));
        for wrong in [
            "",
            "v",
            "v.m4s",
            "v01.m4s",
            "v+1.m4s",
            "v1.m4",
            "v1..m4s",
            "v1.2.3.m4s",
            "w1.m4s",
            "v99999999999999999999.m4s",
            "v-init-.mp4",
            ".ts",
            "01.ts",
            "vt.m4s",
            "vt-5.m4s",
            "vt05.m4s",
            "../v1.m4s",
            "v1.70000.m4s",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn mutated_names_are_read_or_refused() {
        let seeds = ["v12.m4s", "at900.m4s", "7.ts", "a3.4.m4s", "v-init-1.mp4", "video.m3u8"]
            .map(|name| name.as_bytes().to_vec());
        crate::mutation::run(fuzz, &seeds, 3_000, 0x51ED_270B_9F3A_11C7);
    }
}
