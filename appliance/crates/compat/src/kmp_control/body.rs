//! The bodies of callbacks, byte for byte as the connector writes them.

use super::json::Writer;
use super::session::Reason;
use bytes::Bytes;
use std::fmt;
use std::net::SocketAddr;

/// Bytes that are kept of names, arguments and URLs.
pub const TEXT_BYTES: usize = 255;
/// Bytes that are kept of a peer's name for itself.
pub const FLASHVER_BYTES: usize = 127;

/// An RTMP connection, as its peer described it at `connect`. Longer texts than callbacks hold are cut when written.
#[derive(Clone, PartialEq, Eq)]
pub struct Client {
    /// The application, without query.
    pub app: String,
    /// The peer's name for itself.
    pub flashver: String,
    /// Where its player came from.
    pub swf_url: String,
    /// The address that it connected to. May hold secrets.
    pub tc_url: String,
    /// The page around its player.
    pub page_url: String,
    /// Its address.
    pub addr: SocketAddr,
    /// Serial number of the connection.
    pub connection: u64,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Client");
        shown.field("app", &self.app).field("addr", &self.addr).field("connection", &self.connection);
        shown.finish_non_exhaustive()
    }
}

/// One stream that a client publishes.
#[derive(Clone, PartialEq, Eq)]
pub struct Publication {
    /// Who publishes.
    pub client: Client,
    /// The stream name, up to the first `?`.
    pub name: String,
    /// The third argument of `publish`: `live`.
    pub kind: String,
    /// What followed the `?`. May hold secrets.
    pub args: String,
}

impl fmt::Debug for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Publication");
        shown.field("client", &self.client).field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a track carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MediaKind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
}

impl MediaKind {
    /// `video` or `audio`.
    pub const fn name(self) -> &'static str {
        match self {
            MediaKind::Video => "video",
            MediaKind::Audio => "audio",
        }
    }
}

/// How a track is coded, as in KMP's `minf` packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaInfo {
    /// Pictures.
    Video {
        /// Bits per second; 0: not known.
        bitrate: u32,
        /// KMP's number of the codec.
        codec_id: u32,
        /// The decoder's configuration record; may be empty.
        extra_data: Bytes,
        /// Pixels.
        width: u16,
        /// Pixels.
        height: u16,
        /// Frames per second: numerator and denominator; a denominator of 0 counts as no rate.
        frame_rate: (u32, u32),
        /// Whether captions were seen in it.
        cea_captions: bool,
    },
    /// Sound.
    Audio {
        /// Bits per second; 0: not known.
        bitrate: u32,
        /// KMP's number of the codec.
        codec_id: u32,
        /// The decoder's configuration record; may be empty.
        extra_data: Bytes,
        /// How many.
        channels: u16,
        /// Bits of the speakers.
        channel_layout: u64,
        /// Of one sample.
        bits_per_sample: u16,
        /// Hz.
        sample_rate: u32,
    },
}

impl MediaInfo {
    /// What the track carries.
    pub const fn kind(&self) -> MediaKind {
        match self {
            MediaInfo::Video { .. } => MediaKind::Video,
            MediaInfo::Audio { .. } => MediaKind::Audio,
        }
    }

    pub(super) fn write(&self, w: &mut Writer) {
        w.text("media_type", self.kind().name());
        let (MediaInfo::Video { bitrate, codec_id, extra_data, .. }
        | MediaInfo::Audio { bitrate, codec_id, extra_data, .. }) = self;
        w.plain("bitrate", bitrate);
        w.plain("codec_id", codec_id);
        w.text("extra_data", &format!("{extra_data:x}"));
        match self {
            MediaInfo::Video { width, height, frame_rate: (num, denom), cea_captions, .. } => {
                w.plain("width", width);
                w.plain("height", height);
                let hundredths = u64::from(*num).saturating_mul(100).checked_div(u64::from(*denom));
                w.hundredths("frame_rate", hundredths.unwrap_or(0));
                w.plain("cea_captions", cea_captions);
            }
            MediaInfo::Audio { channels, channel_layout, bits_per_sample, sample_rate, .. } => {
                w.plain("channels", channels);
                w.text("channel_layout", &format!("{channel_layout:x}"));
                w.plain("bits_per_sample", bits_per_sample);
                w.plain("sample_rate", sample_rate);
            }
        }
    }
}

/// At most `bytes` bytes of `text`. Never half a character, which would make a reader refuse the whole.
fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

impl Client {
    fn write(&self, w: &mut Writer, addr: &str) {
        w.text("app", cut(&self.app, TEXT_BYTES));
        w.text("flashver", cut(&self.flashver, FLASHVER_BYTES));
        w.text("swf_url", cut(&self.swf_url, TEXT_BYTES));
        w.text("tc_url", cut(&self.tc_url, TEXT_BYTES));
        w.text("page_url", cut(&self.page_url, TEXT_BYTES));
        w.text("addr", addr);
        w.plain("connection", self.connection);
    }
}

impl Publication {
    /// How callbacks name one of its tracks.
    pub fn input_id(&self, kind: MediaKind) -> String {
        let (url, name) = (cut(&self.client.tc_url, TEXT_BYTES), cut(&self.name, TEXT_BYTES));
        format!("{url}/{name}/{}", kind.name())
    }

    pub(super) fn write(&self, w: &mut Writer) {
        w.text("input_type", "rtmp");
        w.object("rtmp", |w| {
            self.client.write(w, &self.client.addr.ip().to_canonical().to_string());
            w.text("name", cut(&self.name, TEXT_BYTES));
            w.text("type", cut(&self.kind, TEXT_BYTES));
            w.text("args", cut(&self.args, TEXT_BYTES));
        });
    }
}

/// Asks whether a client may connect.
pub fn connect(client: &Client) -> String {
    let addr = SocketAddr::new(client.addr.ip().to_canonical(), client.addr.port());
    Writer::document(|w| {
        w.text("event_type", "connect");
        w.text("input_type", "rtmp");
        w.object("rtmp", |w| client.write(w, &addr.to_string()));
    })
}

/// Asks where a track goes.
pub fn publish(publication: &Publication, info: &MediaInfo) -> String {
    Writer::document(|w| {
        w.text("event_type", "publish");
        w.text("input_id", &publication.input_id(info.kind()));
        publication.write(w);
        w.object("media_info", |w| info.write(w));
    })
}

/// Tells that a track has ended.
pub fn unpublish(publication: &Publication, kind: MediaKind, reason: Reason) -> String {
    Writer::document(|w| {
        w.text("event_type", "unpublish");
        w.text("input_id", &publication.input_id(kind));
        w.text("reason", reason.name());
        publication.write(w);
    })
}

/// Asks where an upstream goes on that was lost. `upstream_id`, `channel_id` and `track_id` are as the controller gave
/// them.
pub fn republish(
    publication: &Publication,
    info: &MediaInfo,
    upstream_id: &str,
    channel_id: &str,
    track_id: &str,
) -> String {
    Writer::document(|w| {
        w.text("event_type", "republish");
        w.text("id", upstream_id);
        w.text("input_id", &publication.input_id(info.kind()));
        w.text("channel_id", channel_id);
        w.text("track_id", track_id);
        publication.write(w);
        w.object("media_info", |w| info.write(w));
    })
}

#[cfg(test)]
mod tests;
