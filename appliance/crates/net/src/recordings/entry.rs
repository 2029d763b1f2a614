//! One recorded segment, and the names of files: all that is known of a recording stands in them, so there is no index
//! that a power cut could tear.
//!
//! ```text
//!  000119482342v-1795372382000000-540000-0f3c...-c.m4s      number, track, captured, ticks, init, follows (c) or not (d)
//!  0f3c...v_avc1.64001f_1280x720.mp4                        hash, track, codecs, pixels
//! ```

use fieldgate_media::TrackKind;

/// What temporary files begin with.
pub(super) const TEMPORARY: &str = ".tmp-";

/// One recorded segment of one track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The number that it shares with the other track's.
    pub number: u64,
    /// Pictures or sound.
    pub kind: TrackKind,
    /// When its beginning was captured, microseconds since 1970 UTC.
    pub unix_micros: i64,
    /// Ticks.
    pub duration: i64,
    /// Hash of the initialisation segment that it needs.
    pub init: u64,
    /// It does not follow the one before it.
    pub is_discontinuity: bool,
    /// Bytes of the file.
    pub bytes: u64,
}

/// An initialisation segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitFile {
    /// Of its bytes.
    pub hash: u64,
    /// Pictures or sound.
    pub kind: TrackKind,
    /// The codec string of RFC 6381.
    pub codecs: String,
    /// Pixels; 0 where there are none.
    pub size: (u32, u32),
}

impl Entry {
    /// The file's name.
    pub fn name(&self) -> String {
        let follows = if self.is_discontinuity { 'd' } else { 'c' };
        let Entry { number, unix_micros, duration, init, .. } = self;
        format!("{number:012}{}-{unix_micros}-{duration}-{init:016x}-{follows}.m4s", letter(self.kind))
    }

    /// Reads a file's name; the bytes stay 0.
    pub fn parse(name: &str) -> Option<Entry> {
        let mut fields = name.strip_suffix(".m4s")?.split('-');
        let (head, unix_micros, duration) = (fields.next()?, fields.next()?, fields.next()?);
        let (init, follows) = (fields.next()?, fields.next()?);
        let (number, kind) = split_kind(head)?;
        let entry = Entry {
            number: number.parse().ok()?,
            kind,
            unix_micros: unix_micros.parse().ok()?,
            duration: duration.parse().ok()?,
            init: u64::from_str_radix(init, 16).ok()?,
            is_discontinuity: follows == "d",
            bytes: 0,
        };
        // Each has one name.
        (fields.next().is_none() && entry.duration > 0 && entry.name() == name).then_some(entry)
    }

    /// When its end was captured.
    pub fn ends(&self) -> i64 {
        self.unix_micros.saturating_add(self.duration.saturating_mul(100) / 9)
    }
}

impl InitFile {
    /// The file's name.
    pub fn name(&self) -> String {
        let InitFile { hash, kind, codecs, size: (width, height) } = self;
        format!("{hash:016x}{}_{codecs}_{width}x{height}.mp4", letter(*kind))
    }

    /// Reads a file's name.
    pub fn parse(name: &str) -> Option<InitFile> {
        let mut fields = name.strip_suffix(".mp4")?.split('_');
        let (head, codecs, size) = (fields.next()?, fields.next()?, fields.next()?);
        let (hash, kind) = split_kind(head)?;
        let (width, height) = size.split_once('x')?;
        let is_plain = codecs.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
        let init = InitFile {
            hash: u64::from_str_radix(hash, 16).ok()?,
            kind,
            codecs: codecs.to_owned(),
            size: (width.parse().ok()?, height.parse().ok()?),
        };
        (fields.next().is_none() && is_plain && init.name() == name).then_some(init)
    }
}

fn letter(kind: TrackKind) -> char {
    match kind {
        TrackKind::Video => 'v',
        TrackKind::Audio => 'a',
    }
}

fn split_kind(head: &str) -> Option<(&str, TrackKind)> {
    match head.strip_suffix('v') {
        Some(rest) => Some((rest, TrackKind::Video)),
        None => Some((head.strip_suffix('a')?, TrackKind::Audio)),
    }
}

/// FNV-1a, 64 bits: stable for ever.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_were_written_and_nothing_else() {
        let entry = Entry {
            number: 119_482_342,
            kind: TrackKind::Video,
            unix_micros: 1_795_372_382_000_123,
            duration: 540_000,
            init: 0x0f3c,
            is_discontinuity: true,
            bytes: 0,
        };
        assert_eq!(Entry::parse(&entry.name()).as_ref(), Some(&entry));
        assert_eq!(entry.ends() - entry.unix_micros, 6_000_000);
        let init = InitFile { hash: 7, kind: TrackKind::Audio, codecs: "mp4a.40.2".to_owned(), size: (0, 0) };
        assert_eq!(InitFile::parse(&init.name()).as_ref(), Some(&init));
        let name = entry.name();
        for wrong in [
            "",
            ".m4s",
            "x.m4s",
            &name.replace(".m4s", ".mp4"),
            &name.replace("-d", "-x"),
            &name.replace("-d", "-d-d"),
            &name.replace("000119", "119"),
            &name.replace("540000", "0"),
            &name.replace("540000", "-5"),
            &format!("../{name}"),
            &format!("{TEMPORARY}{name}"),
            &init.name(),
        ] {
            assert_eq!(Entry::parse(wrong), None, "{wrong}");
            assert!(InitFile::parse(wrong).is_none() || *wrong == init.name());
        }
        assert_eq!(InitFile::parse("0000000000000007a_../x_0x0.mp4"), None);
    }
}
