//! All tracks of a stream as one frame's body.

use bytes::Bytes;
use fieldgate_media::{AudioShape, Codec, Track, TrackId, Tracks, VideoShape};

/// A tracks frame that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TracksError {
    /// The body ends inside a field.
    #[error("tracks frame ends early")]
    Short,
    /// Bytes after the last track.
    #[error("tracks frame has {0} bytes too many")]
    Trailing(usize),
    /// More tracks than a stream may have.
    #[error("{0} tracks exceed {max}", max = Tracks::MAX)]
    TooMany(usize),
    /// Two tracks with one id.
    #[error("track {0} is there twice")]
    Twice(u8),
    /// A codec that the gateway does not carry.
    #[error("unknown codec on track {0}")]
    Codec(u8),
}

/// The body of a tracks frame.
pub fn encode_tracks(tracks: &Tracks) -> Bytes {
    let mut out = Vec::with_capacity(128);
    out.push(u8::try_from(tracks.iter().count()).unwrap_or(u8::MAX));
    for track in tracks.iter() {
        let name = track.codec.name().as_bytes();
        out.extend_from_slice(&[track.id.0, u8::try_from(name.len()).unwrap_or(0)]);
        out.extend_from_slice(name);
        out.extend_from_slice(&track.video.width.to_le_bytes());
        out.extend_from_slice(&track.video.height.to_le_bytes());
        out.extend_from_slice(&track.video.frame_rate.to_le_bytes());
        out.extend_from_slice(&track.audio.sample_rate.to_le_bytes());
        out.push(track.audio.channels);
        out.extend_from_slice(&u32::try_from(track.header.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&track.header);
    }
    out.into()
}

/// Reads the body of a tracks frame; codec headers are slices of it.
pub fn decode_tracks(body: &Bytes) -> Result<Tracks, TracksError> {
    let mut rest = body.clone();
    let count = usize::from(take::<1>(&mut rest)?[0]);
    if count > Tracks::MAX {
        return Err(TracksError::TooMany(count));
    }
    let mut tracks: Vec<Track> = Vec::with_capacity(count);
    for _ in 0..count {
        let [id, name_len] = take(&mut rest)?;
        let name = take_bytes(&mut rest, usize::from(name_len))?;
        let codec =
            std::str::from_utf8(&name).ok().and_then(Codec::from_name).ok_or(TracksError::Codec(id))?;
        let video = VideoShape {
            width: u32::from_le_bytes(take(&mut rest)?),
            height: u32::from_le_bytes(take(&mut rest)?),
            frame_rate: finite(f64::from_le_bytes(take(&mut rest)?)),
        };
        let audio = AudioShape {
            sample_rate: u32::from_le_bytes(take(&mut rest)?),
            channels: u8::from_le_bytes(take(&mut rest)?),
        };
        let header_len = u32::from_le_bytes(take(&mut rest)?);
        let header = take_bytes(&mut rest, usize::try_from(header_len).unwrap_or(usize::MAX))?;
        if tracks.iter().any(|track| track.id.0 == id) {
            return Err(TracksError::Twice(id));
        }
        tracks.push(Track { video, audio, ..Track::new(TrackId(id), codec, header) });
    }
    if !rest.is_empty() {
        return Err(TracksError::Trailing(rest.len()));
    }
    Ok(Tracks::new(tracks))
}

fn take<const N: usize>(rest: &mut Bytes) -> Result<[u8; N], TracksError> {
    let taken = take_bytes(rest, N)?;
    taken.first_chunk().copied().ok_or(TracksError::Short)
}

fn take_bytes(rest: &mut Bytes, len: usize) -> Result<Bytes, TracksError> {
    if len > rest.len() {
        return Err(TracksError::Short);
    }
    Ok(rest.split_to(len))
}

fn finite(rate: f64) -> f64 {
    if rate.is_finite() && (0.0..=1000.0).contains(&rate) { rate } else { 0.0 }
}
