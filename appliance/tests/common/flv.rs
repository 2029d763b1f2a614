//! FLV files, read and written without the gateway's own code.

use std::path::Path;

/// An RTMP message type that is also an FLV tag type.
pub(crate) const AUDIO: u8 = 8;
/// As [`AUDIO`].
pub(crate) const VIDEO: u8 = 9;
/// As [`AUDIO`].
pub(crate) const DATA: u8 = 18;

/// One FLV tag, which is also one RTMP media message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    /// [`AUDIO`], [`VIDEO`] or [`DATA`].
    pub(crate) kind: u8,
    /// Milliseconds.
    pub(crate) ts: u32,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Tag {
    /// Whether it holds codec parameters, not media.
    pub(crate) fn is_header(&self) -> bool {
        match (self.kind, self.body.as_slice()) {
            (VIDEO, [first, ..]) if first & 0x80 != 0 => first & 0x0f == 0,
            (VIDEO, [first, 0, ..]) => first & 0x0f == 7,
            (AUDIO, [first, 0, ..]) => first >> 4 == 10,
            _ => false,
        }
    }
}

/// All whole tags of a file; a last one cut short is left out.
pub(crate) fn read(path: &Path) -> Vec<Tag> {
    let file = std::fs::read(path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
    parse(&file)
}

/// As [`read`], of a file in memory.
pub(crate) fn parse(file: &[u8]) -> Vec<Tag> {
    let mut tags = Vec::new();
    let Some(rest) = file.strip_prefix(b"FLV") else {
        assert!(file.is_empty(), "not an FLV file");
        return tags;
    };
    let Some(mut rest) = rest.get(10..) else { return tags };
    while let Some((head, after)) = rest.split_at_checked(11) {
        let len = be24(&head[1..]);
        let Some((body, after)) = after.split_at_checked(len) else { break };
        let ts = be24(&head[4..]) as u32 | u32::from(head[7]) << 24;
        tags.push(Tag { kind: head[0], ts, body: body.to_vec() });
        rest = after.get(4..).unwrap_or_default();
    }
    tags
}

/// Reads three bytes, most significant first.
pub(crate) fn be24(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2])
}

/// A file of these tags.
#[cfg(feature = "gst")]
pub(crate) fn write(path: &Path, tags: &[Tag]) {
    let mut file = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
    for tag in tags {
        let len = tag.body.len() as u32;
        file.push(tag.kind);
        file.extend(&len.to_be_bytes()[1..]);
        file.extend(&tag.ts.to_be_bytes()[1..]);
        file.push((tag.ts >> 24) as u8);
        file.extend([0; 3]);
        file.extend(&tag.body);
        file.extend((11 + len).to_be_bytes());
    }
    std::fs::write(path, file).unwrap();
}
