//! What the config says of segments.

/// How a stream is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a segment shall be, ticks; it ends at the next keyframe.
    pub segment: i64,
    /// How long a part may be, ticks; none: no parts.
    pub part: Option<i64>,
    /// What playlists name, ticks; as much again is kept for players that are late.
    pub window: i64,
    /// Bytes that may be kept in all; the oldest segments go.
    pub max_bytes: u64,
    /// Number of the first segment.
    pub first_number: u64,
}
