//! What a worker that looks at single pictures is asked, and what it answers: the bytes inside the link's ask and answer
//! frames.
//!
//! ```text
//!  ask     head_len u32 | head JSON | codec header | keyframe
//!  answer  head_len u32 | head JSON | JPEG (none if none was wanted, or nothing could be decoded)
//! ```

use serde::{Deserialize, Serialize};

/// A worker that decodes single keyframes of any camera.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Inspector {
    /// Decoders that must not be tried: they hung or crashed a worker before.
    pub skip: Vec<String>,
    /// The largest picture that is decoded, pixels.
    pub max_pixels: u64,
    /// The longest that one picture may take, milliseconds.
    pub patience_ms: u32,
}

impl Default for Inspector {
    fn default() -> Self {
        // 8192 x 4608: more than any camera sends.
        Inspector { skip: Vec::new(), max_pixels: 38 << 20, patience_ms: 3_000 }
    }
}

/// The head of an ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InspectAsk {
    /// Comes back in the answer.
    pub id: u64,
    /// The codec's name.
    pub codec: String,
    /// Bytes of the codec header that follow; the rest is the keyframe.
    pub header_len: u32,
    /// The width of the JPEG that is wanted, pixels; none: no JPEG.
    pub jpeg_width: Option<u32>,
}

/// The head of an answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InspectAnswer {
    /// As in the ask.
    pub id: u64,
    /// The decoder that was used.
    pub decoder: String,
    /// Width of the picture, pixels.
    pub width: u32,
    /// Height of the picture, pixels.
    pub height: u32,
    /// What it looks like.
    pub figures: Option<Figures>,
    /// Why there is nothing, in words.
    pub error: Option<String>,
}

/// Figures of a decoded picture, as `fieldgate_hub::truth::Look` explains them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each is explained where it is made")]
pub struct Figures {
    pub mean: f32,
    pub deviation: f32,
    pub structure: f32,
    pub black: f32,
    pub edges: f32,
    pub sharpness: f32,
    pub fingerprint: u64,
}

/// Why an ask or answer cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// Shorter than its own head says.
    #[error("an ask or answer of {0} bytes is cut short")]
    Short(usize),
    /// The head is no JSON of this version.
    #[error("the head of an ask or answer cannot be read")]
    Head,
}

impl InspectAsk {
    /// The whole ask; `header_len` is set from `header`.
    pub fn encode(mut self, header: &[u8], keyframe: &[u8]) -> Vec<u8> {
        self.header_len = u32::try_from(header.len()).unwrap_or(u32::MAX);
        encode(&self, &[header, keyframe])
    }

    /// The head, the codec header and the keyframe.
    pub fn decode(ask: &[u8]) -> Result<(InspectAsk, &[u8], &[u8]), InspectError> {
        let (head, rest): (InspectAsk, _) = decode(ask)?;
        let header_len = usize::try_from(head.header_len).unwrap_or(usize::MAX);
        let (header, keyframe) = rest.split_at_checked(header_len).ok_or(InspectError::Short(ask.len()))?;
        Ok((head, header, keyframe))
    }
}

impl InspectAnswer {
    /// The whole answer.
    pub fn encode(&self, jpeg: &[u8]) -> Vec<u8> {
        encode(self, &[jpeg])
    }

    /// The head and the JPEG.
    pub fn decode(answer: &[u8]) -> Result<(InspectAnswer, &[u8]), InspectError> {
        decode(answer)
    }
}

fn encode(head: &impl Serialize, rest: &[&[u8]]) -> Vec<u8> {
    let head = serde_json::to_vec(head).expect("plain data without maps serialises");
    let len = u32::try_from(head.len()).expect("a head is short");
    [&[&len.to_be_bytes()[..], &head], rest].concat().concat()
}

fn decode<'b, H: Deserialize<'b>>(bytes: &'b [u8]) -> Result<(H, &'b [u8]), InspectError> {
    let short = InspectError::Short(bytes.len());
    let (len, rest) = bytes.split_first_chunk::<4>().ok_or(short)?;
    let len = usize::try_from(u32::from_be_bytes(*len)).unwrap_or(usize::MAX);
    let (head, rest) = rest.split_at_checked(len).ok_or(short)?;
    Ok((serde_json::from_slice(head).map_err(|_| InspectError::Head)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_and_answered_arrives() {
        let ask = InspectAsk { id: 7, codec: "h264".into(), header_len: 0, jpeg_width: Some(640) };
        let bytes = ask.clone().encode(b"avcC", b"keyframe");
        let (head, header, keyframe) = InspectAsk::decode(&bytes).unwrap();
        assert_eq!(
            (head, header, keyframe),
            (InspectAsk { header_len: 4, ..ask }, &b"avcC"[..], &b"keyframe"[..])
        );

        let figures = Figures { mean: 12.25, fingerprint: u64::MAX, ..Figures::default() };
        let answer = InspectAnswer { id: 7, figures: Some(figures), ..InspectAnswer::default() };
        let bytes = answer.encode(b"jpeg");
        assert_eq!(InspectAnswer::decode(&bytes), Ok((answer, &b"jpeg"[..])));
    }

    #[test]
    fn what_is_cut_short_or_foreign_is_refused() {
        let ask = InspectAsk { id: 7, ..InspectAsk::default() }.encode(b"avcC", b"");
        for len in 0..ask.len() {
            assert!(InspectAsk::decode(&ask[..len]).is_err());
        }
        assert_eq!(InspectAnswer::decode(&ask).map(|_| ()), Err(InspectError::Head));
        assert_eq!(InspectAnswer::decode(&[255; 64]).map(|_| ()), Err(InspectError::Short(64)));
    }
}
