//! Which children a config has, with which settings.

use super::Backoff;
use fieldgate_hub::origin_of;
use fieldgate_model::Config;
use fieldgate_model::config::{
    Admin, AggregatorCms, Audio, Control, Coordinator, Encoder, MeshNode, Mountpoint, Part, Path, Push,
    Record, Ring, SecretUrl, Source, Span, Video,
};
use fieldgate_model::job::{PictureCodec, SoundCodec};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Names a child.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChildKey {
    /// The admin plane's HTTP server.
    Admin,
    /// Accepts RTMP on one address; `nth` tells several with a port that the kernel chooses apart.
    RtmpListener {
        /// As in the config.
        address: SocketAddr,
        /// 0 for the first of that address.
        nth: usize,
    },
    /// Accepts RTMP over TLS on one address.
    RtmpsListener {
        /// As in the config.
        address: SocketAddr,
        /// 0 for the first of that address.
        nth: usize,
    },
    /// The API of KMP controllers' operators on one address.
    KmpApi {
        /// As in the config.
        address: SocketAddr,
        /// 0 for the first of that address.
        nth: usize,
    },
    /// The API of content managers on one address.
    AggregatorApi {
        /// As in the config.
        address: SocketAddr,
        /// 0 for the first of that address.
        nth: usize,
    },
    /// The statistics of content managers on one address.
    AggregatorStat {
        /// As in the config.
        address: SocketAddr,
        /// 0 for the first of that address.
        nth: usize,
    },
    /// Tells a content manager of this gateway.
    AggregatorCms,
    /// Keeps a mountpoint's stream on disk.
    Recorder(String),
    /// The node of a mesh, with its API.
    MeshNode,
    /// The coordinator of streaming servers and encoders, with its sockets and commands.
    Coordinator,
    /// Belongs to a coordinator elsewhere.
    Control,
    /// A coordinator elsewhere, which we are an encoder of.
    Encoder,
    /// Accepts KMP on one address.
    KmpListener {
        /// As in the config.
        address: SocketAddr,
        /// 0 for the first of that address.
        nth: usize,
    },
    /// Accepts KMP over TLS on one address.
    KmpsListener {
        /// As in the config.
        address: SocketAddr,
        /// 0 for the first of that address.
        nth: usize,
    },
    /// Serves viewers by HTTP on one address.
    HttpListener {
        /// As in the config.
        address: SocketAddr,
        /// 0 for the first of that address.
        nth: usize,
    },
    /// Serves viewers by HTTPS on one address.
    HttpsListener {
        /// As in the config.
        address: SocketAddr,
        /// 0 for the first of that address.
        nth: usize,
    },
    /// A stream's place in the hub.
    Mountpoint(String),
    /// What feeds a mountpoint: a camera or a pull. A `publish` source has none: it waits for others.
    Source(String),
    /// What makes one rendition of a mountpoint's stream; the rendition's own place in the hub is a
    /// [`ChildKey::Mountpoint`] of the name that [`RenditionKey::mountpoint`] gives.
    Rendition(RenditionKey),
    /// One push.
    Push {
        /// The mountpoint or stream under a template.
        mountpoint: String,
        /// The push's effective id in the config.
        id: String,
    },
}

/// Names a rendition. Renditions are in the plan, not in the config: they come and go with the pushes that need them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RenditionKey {
    /// The mountpoint or stream under a template whose stream it is made of.
    pub of: String,
    /// Its name within that: `h264`, `aac`.
    pub name: String,
}

impl RenditionKey {
    /// The mountpoint that carries it. No stream from outside can have a name with `~`.
    pub fn mountpoint(&self) -> String {
        format!("{}~{}", self.of, self.name)
    }
}

/// What a rendition is made into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// What pictures are encoded into; none: they pass.
    pub video: Option<PictureCodec>,
    /// What becomes of sound.
    pub audio: MadeSound,
}

/// What becomes of a rendition's sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MadeSound {
    /// It passes, if there is any.
    Pass,
    /// It is left out.
    Off,
    /// It is encoded.
    Encode(SoundCodec),
    /// There is none: silence is put in its place.
    Silence(SoundCodec),
}

/// When a child is stopped; each stage begins when the one before has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Listeners and sources.
    Inputs,
    /// Pushes.
    Outputs,
    /// Mountpoints.
    Streams,
    /// The admin plane.
    Admin,
}

impl Stage {
    /// All, in the order of stopping.
    pub const ALL: [Stage; 4] = [Stage::Inputs, Stage::Outputs, Stage::Streams, Stage::Admin];
}

impl ChildKey {
    /// When it is stopped.
    pub fn stage(&self) -> Stage {
        match self {
            ChildKey::RtmpListener { .. }
            | ChildKey::RtmpsListener { .. }
            | ChildKey::MeshNode
            | ChildKey::Coordinator
            | ChildKey::Control
            | ChildKey::Encoder
            | ChildKey::KmpApi { .. }
            | ChildKey::AggregatorApi { .. }
            | ChildKey::AggregatorStat { .. }
            | ChildKey::AggregatorCms
            | ChildKey::KmpListener { .. }
            | ChildKey::KmpsListener { .. }
            | ChildKey::Rendition(_)
            | ChildKey::Source(_) => Stage::Inputs,
            ChildKey::HttpListener { .. }
            | ChildKey::HttpsListener { .. }
            | ChildKey::Recorder(_)
            | ChildKey::Push { .. } => Stage::Outputs,
            ChildKey::Mountpoint(_) => Stage::Streams,
            ChildKey::Admin => Stage::Admin,
        }
    }

    /// Whether a change fails when it does not get ready. Sources, renditions, pushes and recorders depend on cameras, encoders,
    /// servers and disks that may be down, slow or of a kind that this build lacks: that is no fault of a config, and their status
    /// says it.
    pub fn must_be_ready(&self) -> bool {
        !matches!(
            self,
            ChildKey::Source(_) | ChildKey::Rendition(_) | ChildKey::Push { .. } | ChildKey::Recorder(_)
        )
    }

    /// The mountpoint or stream that it belongs to.
    pub fn mountpoint(&self) -> Option<&str> {
        match self {
            ChildKey::Mountpoint(name) => Some(origin_of(name)),
            ChildKey::Source(name)
            | ChildKey::Recorder(name)
            | ChildKey::Rendition(RenditionKey { of: name, .. })
            | ChildKey::Push { mountpoint: name, .. } => Some(name),
            ChildKey::Admin
            | ChildKey::RtmpListener { .. }
            | ChildKey::RtmpsListener { .. }
            | ChildKey::KmpListener { .. }
            | ChildKey::KmpsListener { .. }
            | ChildKey::HttpListener { .. }
            | ChildKey::HttpsListener { .. }
            | ChildKey::MeshNode
            | ChildKey::Coordinator
            | ChildKey::Control
            | ChildKey::Encoder
            | ChildKey::KmpApi { .. }
            | ChildKey::AggregatorApi { .. }
            | ChildKey::AggregatorStat { .. }
            | ChildKey::AggregatorCms => None,
        }
    }

    /// The part of the config that it comes from.
    pub fn part(&self) -> Part {
        match self {
            ChildKey::Admin => Part::AdminListen,
            ChildKey::RtmpListener { .. } => Part::RtmpListen,
            ChildKey::RtmpsListener { .. } => Part::RtmpTls,
            ChildKey::KmpListener { .. } => Part::KmpListen,
            ChildKey::KmpsListener { .. } => Part::KmpTls,
            ChildKey::HttpListener { .. } => Part::HttpListen,
            ChildKey::HttpsListener { .. } => Part::HttpTls,
            ChildKey::KmpApi { .. } => Part::KmpApi,
            ChildKey::AggregatorApi { .. } | ChildKey::AggregatorStat { .. } | ChildKey::AggregatorCms => {
                Part::Aggregator
            }
            ChildKey::MeshNode => Part::MeshNode,
            ChildKey::Coordinator => Part::Coordinator,
            ChildKey::Control => Part::Control,
            ChildKey::Encoder => Part::Encoder,
            ChildKey::Mountpoint(name) => Part::Mountpoint { name: name.clone() },
            ChildKey::Source(name) => Part::Source { name: name.clone() },
            ChildKey::Recorder(name) => Part::Mountpoint { name: name.clone() },
            ChildKey::Rendition(rendition) => Part::Mountpoint { name: rendition.mountpoint() },
            ChildKey::Push { mountpoint, id } => Part::Push { name: mountpoint.clone(), id: id.clone() },
        }
    }

    /// Where in the config the fault is, if it does not start.
    pub fn path(&self) -> Path {
        let aggregator = || Path::root().field("compat").field("aggregator");
        match self {
            ChildKey::Admin => Path::root().field("admin").field("listen"),
            ChildKey::RtmpListener { .. } => Path::root().field("rtmp").field("listen"),
            ChildKey::RtmpsListener { .. } => Path::root().field("rtmp").field("tls"),
            ChildKey::KmpListener { .. } => Path::root().field("kmp").field("listen"),
            ChildKey::KmpsListener { .. } => Path::root().field("kmp").field("tls"),
            ChildKey::HttpListener { .. } => Path::root().field("http").field("listen"),
            ChildKey::HttpsListener { .. } => Path::root().field("http").field("tls"),
            ChildKey::MeshNode => Path::root().field("compat").field("node"),
            ChildKey::Coordinator => Path::root().field("compat").field("coordinator"),
            ChildKey::Control => Path::root().field("compat").field("control"),
            ChildKey::Encoder => Path::root().field("compat").field("encoder"),
            ChildKey::KmpApi { .. } => Path::root().field("compat").field("kmp").field("api").field("listen"),
            ChildKey::AggregatorApi { .. } => aggregator().field("listen"),
            ChildKey::AggregatorStat { .. } => aggregator().field("stat_listen"),
            ChildKey::AggregatorCms => aggregator().field("cms"),
            ChildKey::Mountpoint(name) => Path::mountpoint(origin_of(name)),
            ChildKey::Source(name) => Path::mountpoint(name).field("source"),
            ChildKey::Recorder(name) => Path::mountpoint(name).field("record"),
            ChildKey::Rendition(rendition) => Path::mountpoint(&rendition.of),
            ChildKey::Push { mountpoint, .. } => Path::mountpoint(mountpoint).field("push"),
        }
    }
}

impl fmt::Display for ChildKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChildKey::Admin => f.write_str("admin"),
            ChildKey::RtmpListener { address, .. } => write!(f, "rtmp {address}"),
            ChildKey::RtmpsListener { address, .. } => write!(f, "rtmps {address}"),
            ChildKey::KmpListener { address, .. } => write!(f, "kmp {address}"),
            ChildKey::KmpsListener { address, .. } => write!(f, "kmps {address}"),
            ChildKey::HttpListener { address, .. } => write!(f, "http {address}"),
            ChildKey::HttpsListener { address, .. } => write!(f, "https {address}"),
            ChildKey::MeshNode => f.write_str("mesh node"),
            ChildKey::Coordinator => f.write_str("coordinator"),
            ChildKey::Control => f.write_str("streaming server of a coordinator"),
            ChildKey::Encoder => f.write_str("encoder of a coordinator"),
            ChildKey::KmpApi { address, .. } => write!(f, "kmp api {address}"),
            ChildKey::AggregatorApi { address, .. } => write!(f, "aggregator {address}"),
            ChildKey::AggregatorStat { address, .. } => write!(f, "aggregator statistics {address}"),
            ChildKey::AggregatorCms => f.write_str("registration at the content manager"),
            ChildKey::Mountpoint(name) => write!(f, "mountpoint {name}"),
            ChildKey::Source(name) => write!(f, "source {name}"),
            ChildKey::Recorder(name) => write!(f, "recorder {name}"),
            ChildKey::Rendition(rendition) => write!(f, "rendition {}", rendition.mountpoint()),
            ChildKey::Push { mountpoint, id } => write!(f, "push {mountpoint}/{id}"),
        }
    }
}

/// A mountpoint's bounds. Part of the settings of all that hangs on it, so that these start anew with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountpointSettings {
    /// The ring's bound.
    pub ring: Ring,
    /// Lag after which a subscriber jumps.
    pub max_lag: Span,
    /// How long a stream outlives its publisher.
    pub grace: Span,
    /// Whether others publish to it, or a source of ours does.
    pub takes_publishers: bool,
}

impl MountpointSettings {
    fn of(mountpoint: &Mountpoint) -> Self {
        MountpointSettings {
            ring: mountpoint.ring.clone(),
            max_lag: mountpoint.max_lag,
            grace: mountpoint.grace,
            takes_publishers: matches!(mountpoint.source, Source::Publish(_)),
        }
    }
}

/// What a source's pictures and sound are made into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handling {
    /// Without the bitrate, which a running encoder is told.
    pub video: Video,
    /// As in the config.
    pub audio: Audio,
    /// Whether an upstream insists on sound.
    pub needs_audio: bool,
}

impl Handling {
    fn of(mountpoint: &Mountpoint) -> Self {
        Handling {
            video: Video { bitrate: None, ..mountpoint.video.clone() },
            audio: mountpoint.audio.clone(),
            needs_audio: mountpoint.push.iter().any(|push| push.enabled && push.accepts.needs_audio),
        }
    }
}

/// A child's settings; it is started anew when they differ. What children read as they go (keys, allow-lists, limits on
/// connections) is not here but in [`super::SupervisorHandle::config`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChildSettings {
    /// The admin plane.
    Admin(Admin),
    /// An RTMP listener; its address is in the key.
    RtmpListener,
    /// An RTMPS listener; its address is in the key.
    RtmpsListener {
        /// Certificate chain, PEM.
        cert: PathBuf,
        /// Private key, PEM.
        key: PathBuf,
    },
    /// The API of KMP controllers' operators; its address is in the key, the rest is read as it goes.
    KmpApi,
    /// The API of content managers; its address is in the key, the rest is read as it goes.
    AggregatorApi,
    /// The statistics of content managers; its address is in the key.
    AggregatorStat,
    /// The content manager that is told of this gateway.
    AggregatorCms(Box<AggregatorCms>),
    /// The node of a mesh, and the port of the first RTMP listener.
    MeshNode(Box<MeshNode>, Option<u16>),
    /// The coordinator, and the port of the first RTMP listener.
    Coordinator(Box<Coordinator>, Option<u16>),
    /// A coordinator elsewhere, the port of the first RTMP listener, and whether the gateway is a coordinator, too.
    Control(Box<Control>, Option<u16>, bool),
    /// All of `compat.encoder`.
    Encoder(Box<Encoder>),
    /// A KMP listener; its address is in the key.
    KmpListener,
    /// A KMPS listener; its address is in the key.
    KmpsListener {
        /// Certificate chain, PEM.
        cert: PathBuf,
        /// Private key, PEM.
        key: PathBuf,
    },
    /// A viewers' listener; its address is in the key.
    HttpListener,
    /// A viewers' listener with TLS; its address is in the key.
    HttpsListener {
        /// Certificate chain, PEM.
        cert: PathBuf,
        /// Private key, PEM.
        key: PathBuf,
    },
    /// A mountpoint.
    Mountpoint(MountpointSettings),
    /// A source of ours.
    Source(Box<Source>, MountpointSettings, Box<Handling>),
    /// A rendition.
    Rendition(Made, MountpointSettings, Box<Handling>),
    /// A recorder.
    Recorder(Record, MountpointSettings),
    /// A push; `{name}` is replaced.
    Push(Box<Push>, MountpointSettings),
}

impl ChildSettings {
    /// The longest wait between two attempts.
    pub fn backoff_cap(&self) -> Duration {
        match self {
            ChildSettings::Push(push, _) => push.backoff_cap.get(),
            ChildSettings::Source(source, ..) => match source.as_ref() {
                Source::Pull(pull) => pull.backoff_cap.get(),
                Source::Rtsp(rtsp) => rtsp.backoff_cap.get(),
                Source::Mjpeg(mjpeg) => mjpeg.backoff_cap.get(),
                // Nobody is asked: while it waits the sender is only not heard.
                Source::Rtp(_) => Backoff::FLOOR,
                _ => Backoff::CAP,
            },
            _ => Backoff::CAP,
        }
    }
}

/// All children of a config but those of streams under templates, which come and go.
pub fn children_of(config: &Config) -> BTreeMap<ChildKey, ChildSettings> {
    let mut children = BTreeMap::new();
    if !config.admin.listen.is_empty() || config.admin.tls.is_some() {
        children.insert(ChildKey::Admin, ChildSettings::Admin(config.admin.clone()));
    }
    for (nth, address) in numbered(&config.rtmp.listen) {
        children.insert(ChildKey::RtmpListener { address, nth }, ChildSettings::RtmpListener);
    }
    if let Some(tls) = &config.rtmp.tls {
        for (nth, address) in numbered(&tls.listen) {
            let settings = ChildSettings::RtmpsListener { cert: tls.cert.clone(), key: tls.key.clone() };
            children.insert(ChildKey::RtmpsListener { address, nth }, settings);
        }
    }
    for (nth, address) in numbered(&config.kmp.listen) {
        children.insert(ChildKey::KmpListener { address, nth }, ChildSettings::KmpListener);
    }
    if let Some(tls) = &config.kmp.tls {
        for (nth, address) in numbered(&tls.listen) {
            let settings = ChildSettings::KmpsListener { cert: tls.cert.clone(), key: tls.key.clone() };
            children.insert(ChildKey::KmpsListener { address, nth }, settings);
        }
    }
    for (nth, address) in numbered(&config.http.listen) {
        children.insert(ChildKey::HttpListener { address, nth }, ChildSettings::HttpListener);
    }
    if let Some(tls) = &config.http.tls {
        for (nth, address) in numbered(&tls.listen) {
            let settings = ChildSettings::HttpsListener { cert: tls.cert.clone(), key: tls.key.clone() };
            children.insert(ChildKey::HttpsListener { address, nth }, settings);
        }
    }
    for (nth, address) in numbered(&config.compat.kmp.api.listen) {
        children.insert(ChildKey::KmpApi { address, nth }, ChildSettings::KmpApi);
    }
    let aggregator = &config.compat.aggregator;
    for (nth, address) in numbered(&aggregator.listen) {
        children.insert(ChildKey::AggregatorApi { address, nth }, ChildSettings::AggregatorApi);
    }
    for (nth, address) in numbered(&aggregator.stat_listen) {
        children.insert(ChildKey::AggregatorStat { address, nth }, ChildSettings::AggregatorStat);
    }
    if let Some(cms) = &aggregator.cms {
        children.insert(ChildKey::AggregatorCms, ChildSettings::AggregatorCms(Box::new(cms.clone())));
    }
    let node = &config.compat.node;
    if node.enabled {
        let port = config.rtmp.listen.first().map(|address| address.port());
        children.insert(ChildKey::MeshNode, ChildSettings::MeshNode(Box::new(node.clone()), port));
    }
    let coordinator = &config.compat.coordinator;
    if coordinator.enabled {
        let port = config.rtmp.listen.first().map(|address| address.port());
        let settings = ChildSettings::Coordinator(Box::new(coordinator.clone()), port);
        children.insert(ChildKey::Coordinator, settings);
    }
    let control = &config.compat.control;
    if control.enabled {
        let port = config.rtmp.listen.first().map(|address| address.port());
        let settings = ChildSettings::Control(Box::new(control.clone()), port, coordinator.enabled);
        children.insert(ChildKey::Control, settings);
    }
    let encoder = &config.compat.encoder;
    if encoder.enabled {
        children.insert(ChildKey::Encoder, ChildSettings::Encoder(Box::new(encoder.clone())));
    }
    for (name, mountpoint) in config.mountpoints.iter().filter(|(name, _)| !name.ends_with('*')) {
        children.extend(stream_children_of(name, mountpoint));
    }
    children
}

/// The children of one stream, of a mountpoint or under a template.
pub fn stream_children_of(name: &str, mountpoint: &Mountpoint) -> BTreeMap<ChildKey, ChildSettings> {
    let settings = MountpointSettings::of(mountpoint);
    let mut children = BTreeMap::new();
    children.insert(ChildKey::Mountpoint(name.to_owned()), ChildSettings::Mountpoint(settings.clone()));
    if !settings.takes_publishers {
        let source = Box::new(without_controls(&mountpoint.source));
        let handling = Box::new(Handling::of(mountpoint));
        let settings = ChildSettings::Source(source, settings.clone(), handling);
        children.insert(ChildKey::Source(name.to_owned()), settings);
    }
    if let Some(record) = &mountpoint.record {
        let settings = ChildSettings::Recorder(record.clone(), settings.clone());
        children.insert(ChildKey::Recorder(name.to_owned()), settings);
    }
    for push in mountpoint.push.iter().filter(|push| push.enabled) {
        let key = ChildKey::Push { mountpoint: name.to_owned(), id: push.effective_id() };
        children.insert(key, ChildSettings::Push(Box::new(named(push, name)), settings.clone()));
    }
    children
}

/// The children of a rendition of this mountpoint: its place in the hub, and what makes it.
pub(super) fn rendition_children_of(
    key: &RenditionKey,
    made: Made,
    mountpoint: &Mountpoint,
) -> [(ChildKey, ChildSettings); 2] {
    let settings = MountpointSettings { takes_publishers: false, ..MountpointSettings::of(mountpoint) };
    let handling = Box::new(Handling { needs_audio: false, ..Handling::of(mountpoint) });
    [
        (ChildKey::Mountpoint(key.mountpoint()), ChildSettings::Mountpoint(settings.clone())),
        (ChildKey::Rendition(key.clone()), ChildSettings::Rendition(made, settings, handling)),
    ]
}

/// The source without what its task reads as it goes: a camera's controls are set while it runs.
fn without_controls(source: &Source) -> Source {
    let mut source = source.clone();
    if let Source::V4l2(v4l2) = &mut source {
        v4l2.controls.clear();
    }
    source
}

/// The push of one stream under a template. Its id stays that of the config.
fn named(push: &Push, name: &str) -> Push {
    let mut push = push.clone();
    push.id = Some(push.effective_id());
    push.url = SecretUrl::new(push.url.reveal().replace("{name}", name));
    push.channel_id = push.channel_id.map(|id| id.replace("{name}", name));
    push.backlog_channel_id = push.backlog_channel_id.map(|id| id.replace("{name}", name));
    push
}

/// Each address with how many equal ones stand before it.
fn numbered(addresses: &[SocketAddr]) -> impl Iterator<Item = (usize, SocketAddr)> {
    addresses.iter().enumerate().map(|(index, address)| {
        (addresses.iter().take(index).filter(|before| *before == address).count(), *address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(value: serde_json::Value) -> Config {
        serde_json::from_value(value).unwrap()
    }

    fn keys(config: &Config) -> Vec<String> {
        children_of(config).keys().map(ToString::to_string).collect()
    }

    #[test]
    fn every_part_with_a_task_is_a_child() {
        let config = config(json!({
            "rtmp": {"listen": ["127.0.0.1:0", "127.0.0.1:0"], "tls": {"listen": ["[::1]:443"], "cert": "/c", "key": "/k"}},
            "admin": {"listen": ["127.0.0.1:8080"]},
            "mountpoints": {
                "a": {"source": {"kind": "publish"}, "push": [
                    {"url": "rtmp://h/live/a", "id": "on"}, {"url": "rtmp://h/live/b", "id": "off", "enabled": false},
                ]},
                "b": {"source": {"kind": "test"}},
                "s*": {"source": {"kind": "publish"}},
            },
        }));
        assert_eq!(
            keys(&config),
            [
                "admin",
                "rtmp 127.0.0.1:0",
                "rtmp 127.0.0.1:0",
                "rtmps [::1]:443",
                "mountpoint a",
                "mountpoint b",
                "source b",
                "push a/on",
            ]
        );
    }

    #[test]
    fn keys_and_limits_change_no_child_and_a_ring_changes_all_of_its_mountpoint() {
        let with = |extra: serde_json::Value, limit: u32| {
            let mut mountpoint =
                json!({"source": {"kind": "publish"}, "push": [{"url": "rtmp://h/live/a", "id": "p"}]});
            mountpoint.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            children_of(&config(
                json!({"rtmp": {"max_connections": limit}, "mountpoints": {"a": mountpoint}}),
            ))
        };
        let base = with(json!({}), 300);
        assert_eq!(base, with(json!({"source": {"kind": "publish", "key": "k"}, "play": {"key": "v"}}), 500));
        let ring = with(json!({"ring": {"bytes": 1 << 20}}), 300);
        let differ: Vec<String> = base
            .iter()
            .filter(|(key, settings)| ring.get(*key) != Some(settings))
            .map(|(key, _)| key.to_string())
            .collect();
        assert_eq!(differ, ["mountpoint a", "push a/p"]);
    }

    #[test]
    fn a_cameras_controls_change_no_child_its_size_does() {
        let with = |extra: serde_json::Value| {
            let mut source = json!({"kind": "v4l2", "device": "/dev/video0"});
            source.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            children_of(&config(json!({"mountpoints": {"a": {"source": source}}})))
        };
        assert_eq!(with(json!({})), with(json!({"controls": {"brightness": 3}})));
        assert_ne!(with(json!({})), with(json!({"width": 640})));
    }

    #[test]
    fn a_stream_under_a_template_has_its_name_in_its_pushes() {
        let config = config(json!({"mountpoints": {"s*": {"source": {"kind": "publish"}, "push": [
            {"url": "rtmp://h/live/{name}"}, {"url": "kmp://h:1", "channel_id": "ch-{name}"},
        ]}}}));
        let (_, template) = config.mountpoint_for("s7").unwrap();
        let ids: Vec<String> = template.push.iter().map(Push::effective_id).collect();
        let children = stream_children_of("s7", template);
        let push =
            |id: &str| match &children[&ChildKey::Push { mountpoint: "s7".to_owned(), id: id.to_owned() }] {
                ChildSettings::Push(push, _) => push.clone(),
                other => panic!("{other:?}"),
            };
        assert_eq!(push(&ids[0]).url.reveal(), "rtmp://h/live/s7");
        assert_eq!(push(&ids[1]).channel_id.as_deref(), Some("ch-s7"));
    }
}
