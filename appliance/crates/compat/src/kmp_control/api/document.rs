//! What the APIs show, field by field in the connector's order.

use crate::kmp_control::body::{MediaInfo, MediaKind, Publication};
use crate::kmp_control::json::Writer;
use crate::kmp_control::upstream::ResumeFrom;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// What the program says of itself. The keys are the connector's: it was built into a web server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Build {
    /// Of the API.
    pub version: String,
    /// Of the web server.
    pub nginx_version: String,
    /// Of the RTMP server.
    pub rtmp_version: String,
    /// The compiler that built it.
    pub compiler: String,
    /// When it was built.
    pub built: String,
    /// Process id.
    pub pid: u32,
}

/// Bytes and bits of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bits per second, over the last 10 s.
    pub bits_per_second: u64,
    /// Bytes in all.
    pub bytes: u64,
}

/// All that the APIs show, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The program.
    pub build: Build,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// RTMP connections accepted so far.
    pub accepted: u64,
    /// From all RTMP peers.
    pub traffic_in: Traffic,
    /// To all RTMP peers.
    pub traffic_out: Traffic,
    /// The applications of one RTMP server each; ours is one.
    pub servers: Vec<Vec<Application>>,
    /// All tracks by number, also those that have ended and wait for their receivers.
    pub tracks: BTreeMap<u64, TrackView>,
}

/// An RTMP application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// Its name.
    pub name: String,
    /// Its connections.
    pub sessions: Vec<SessionView>,
}

/// An RTMP connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// The peer's name for itself.
    pub flashver: String,
    /// Where its player came from.
    pub swf_url: String,
    /// The address that it connected to.
    pub tc_url: String,
    /// The page around its player.
    pub page_url: String,
    /// Whether its chunks repeat extended timestamps; not known before one came.
    pub repeats_extended_timestamps: Option<bool>,
    /// Its address.
    pub remote_addr: SocketAddr,
    /// Seconds since it came.
    pub uptime_seconds: u64,
    /// Its serial number.
    pub connection: u64,
    /// What it publishes.
    pub streams: Vec<StreamView>,
}

/// A published stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamView {
    /// Its name.
    pub name: String,
    /// Its arguments.
    pub args: String,
    /// The word at `publish`: `live`.
    pub kind: String,
    /// From its peer, all of it.
    pub traffic_in: Traffic,
    /// From its peer, audio.
    pub audio_in: Traffic,
    /// From its peer, video.
    pub video_in: Traffic,
    /// To its peer.
    pub traffic_out: Traffic,
    /// Seconds since it began.
    pub uptime_seconds: u64,
    /// The number of its video track among all tracks of the snapshot.
    pub video: Option<u64>,
    /// The number of its audio track among all tracks of the snapshot.
    pub audio: Option<u64>,
}

/// A track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackView {
    /// Whose it is.
    pub publication: Arc<Publication>,
    /// The channel's name; empty before the controller gave it.
    pub channel_id: String,
    /// The track's name; empty before the controller gave it.
    pub track_id: String,
    /// Bytes that its frames may still take.
    pub mem_left: u64,
    /// Bytes that its frames may take.
    pub mem_limit: u64,
    /// RTMP time of its newest frame, unwrapped, in milliseconds.
    pub last_timestamp: i64,
    /// When its newest frame came, in ticks of its timescale since 1970.
    pub last_created: i64,
    /// Frames put into its queue.
    pub sent_frames: u64,
    /// Those that are keyframes.
    pub sent_key_frames: u64,
    /// Bytes put into its queue.
    pub written: u64,
    /// Bits per second over 10 s; 0 before that.
    pub bitrate: u64,
    /// Frames in 100 seconds, over 10 s; 0 before that.
    pub frame_rate_hundredths: u64,
    /// How it is coded.
    pub media_info: MediaInfo,
    /// Where it goes.
    pub upstreams: Vec<UpstreamView>,
    /// Not shown: whether its upstreams are limited to what the connector takes.
    pub strict: bool,
}

/// An upstream of a track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamView {
    /// The controller's name for it.
    pub id: String,
    /// Where it is; none while disconnected.
    pub remote_addr: Option<SocketAddr>,
    /// Our end; none while disconnected.
    pub local_addr: Option<SocketAddr>,
    /// Serial number of the connection; 0 while disconnected.
    pub connection: u64,
    /// Whether the track fails when it does.
    pub required: bool,
    /// From where a lost connection goes on.
    pub resume_from: ResumeFrom,
    /// Bytes sent on this connection, the connect packet included.
    pub sent_bytes: u64,
    /// Place in the track's queue.
    pub position: u64,
    /// Frames acknowledged.
    pub acked_frames: u64,
    /// Bytes acknowledged.
    pub acked_bytes: u64,
    /// Frames that the sender let go by itself.
    pub auto_acked_frames: u64,
}

impl Snapshot {
    /// The `rtmp_kmp_api` document.
    pub(super) fn rtmp(&self) -> String {
        Writer::document(|w| {
            w.text("version", &self.build.version);
            w.text("nginx_version", &self.build.nginx_version);
            w.text("rtmp_version", &self.build.rtmp_version);
            self.process(w);
            w.plain("naccepted", self.accepted);
            traffic(w, "in", self.traffic_in);
            traffic(w, "out", self.traffic_out);
            w.list("servers", &self.servers, |w, applications| {
                w.braces(|w| {
                    w.list("applications", applications, |w, application| {
                        w.braces(|w| {
                            w.text("name", &application.name);
                            w.list("sessions", &application.sessions, |w, session| {
                                w.braces(|w| self.session(w, session));
                            });
                        });
                    });
                });
            });
        })
    }

    /// The `kmp_out_api` document.
    pub(super) fn out(&self) -> String {
        Writer::document(|w| {
            w.text("version", &self.build.version);
            w.text("nginx_version", &self.build.nginx_version);
            self.process(w);
            w.object("tracks", |w| self.tracks_by_number(w));
        })
    }

    /// All tracks by number.
    pub(super) fn tracks_alone(&self) -> String {
        Writer::document(|w| self.tracks_by_number(w))
    }

    fn process(&self, w: &mut Writer) {
        w.text("compiler", &self.build.compiler);
        w.text("built", &self.build.built);
        w.plain("pid", self.build.pid);
        w.plain("uptime", self.uptime_seconds);
    }

    fn tracks_by_number(&self, w: &mut Writer) {
        for (number, track) in &self.tracks {
            w.object(&number.to_string(), |w| track.write(w));
        }
    }

    fn session(&self, w: &mut Writer, session: &SessionView) {
        w.text("flashver", &session.flashver);
        w.text("swf_url", &session.swf_url);
        w.text("tc_url", &session.tc_url);
        w.text("page_url", &session.page_url);
        let repeats = match session.repeats_extended_timestamps {
            Some(true) => "on",
            Some(false) => "off",
            None => "unknown",
        };
        w.text("type3_ext_ts", repeats);
        w.text("remote_addr", &canonical(session.remote_addr));
        w.plain("uptime", session.uptime_seconds);
        w.plain("connection", session.connection);
        w.list("streams", &session.streams, |w, stream| w.braces(|w| self.stream(w, stream)));
    }

    fn stream(&self, w: &mut Writer, stream: &StreamView) {
        w.text("name", &stream.name);
        w.text("args", &stream.args);
        w.text("type", &stream.kind);
        traffic(w, "in", stream.traffic_in);
        traffic(w, "in_audio", stream.audio_in);
        traffic(w, "in_video", stream.video_in);
        traffic(w, "out", stream.traffic_out);
        w.plain("uptime", stream.uptime_seconds);
        w.object("tracks", |w| {
            for (kind, number) in [(MediaKind::Video, stream.video), (MediaKind::Audio, stream.audio)] {
                let track = number.and_then(|number| Some((number, self.tracks.get(&number)?)));
                if let Some((number, track)) = track {
                    w.object(kind.name(), |w| {
                        w.text("kmp_out_id", &number.to_string());
                        track.write(w);
                    });
                }
            }
        });
    }
}

impl TrackView {
    /// The track alone.
    pub(super) fn document(&self) -> String {
        Writer::document(|w| self.write(w))
    }

    /// Its upstreams alone.
    pub(super) fn upstreams(&self) -> String {
        Writer::list_document(&self.upstreams, |w, upstream| w.braces(|w| upstream.write(w)))
    }

    fn write(&self, w: &mut Writer) {
        w.text("input_id", &self.publication.input_id(self.media_info.kind()));
        w.text("channel_id", &self.channel_id);
        w.text("track_id", &self.track_id);
        w.plain("mem_left", self.mem_left);
        w.plain("mem_limit", self.mem_limit);
        w.plain("last_timestamp", self.last_timestamp);
        w.plain("last_created", self.last_created);
        w.plain("sent_frames", self.sent_frames);
        w.plain("sent_key_frames", self.sent_key_frames);
        w.plain("written", self.written);
        w.plain("bitrate", self.bitrate);
        w.hundredths("frame_rate", self.frame_rate_hundredths);
        self.publication.write(w);
        w.object("media_info", |w| self.media_info.write(w));
        w.list("upstreams", &self.upstreams, |w, upstream| w.braces(|w| upstream.write(w)));
    }
}

impl UpstreamView {
    fn write(&self, w: &mut Writer) {
        w.text("id", &self.id);
        w.text("remote_addr", &self.remote_addr.map(canonical).unwrap_or_default());
        w.text("local_addr", &self.local_addr.map(canonical).unwrap_or_default());
        w.plain("connection", self.connection);
        w.plain("required", self.required);
        w.text("resume_from", self.resume_from.name());
        w.plain("sent_bytes", self.sent_bytes);
        w.plain("position", self.position);
        w.plain("acked_frames", self.acked_frames);
        w.plain("acked_bytes", self.acked_bytes);
        w.plain("auto_acked_frames", self.auto_acked_frames);
    }
}

fn traffic(w: &mut Writer, direction: &str, traffic: Traffic) {
    w.plain(&format!("bw_{direction}"), traffic.bits_per_second);
    w.plain(&format!("bytes_{direction}"), traffic.bytes);
}

fn canonical(address: SocketAddr) -> String {
    SocketAddr::new(address.ip().to_canonical(), address.port()).to_string()
}
