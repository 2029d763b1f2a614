//! The config: what the gateway shall do, as the installer wrote it.
//!
//! Plain data. `serde_json::to_*` gives the **public** form, in which every secret is masked; the only way to the
//! form with secrets is [`Config::stored`], for the store alone.

mod accepts;
mod aggregator;
mod control;
mod coordinator;
mod diff;
mod discovery;
mod encoder;
mod events;
mod fleet;
mod http;
mod json;
mod kmp_control;
mod kmp_listen;
mod limits;
mod listen;
mod listen_tls;
mod machine;
mod mesh_node;
mod mountpoint;
mod network;
mod output;
mod patch;
mod problem;
mod record;
mod secret;
mod secrets;
mod shape;
mod source;
mod span;
mod spool;
mod treatment;
mod truth;
mod update;
mod url;
mod validate;

pub use accepts::{Accepts, AudioCodec, VideoCodec};
pub use aggregator::{
    Aggregator, AggregatorCamera, AggregatorCms, CameraType, RESERVED_APPLICATIONS, host_port,
};
pub use control::{Control, ControlCamera};
pub use coordinator::{Coordinator, CoordinatorCall, CoordinatorCommands, CoordinatorTls};
pub use diff::{Action, Change, Changes, Part, Scope, diff};
pub use discovery::Discovery;
pub use encoder::Encoder;
pub use events::{Events, Webhook};
pub use fleet::{Fleet, FleetMqtt, FleetPull};
pub use http::{Hls, Http, Size};
pub use json::parse_strict;
pub use kmp_control::{Compat, KmpApplication, KmpControl, KmpControlApi, KmpHeader};
pub use kmp_listen::{Kmp, KmpChannel};
pub use limits::Limits;
pub use listen_tls::ListenTls;
pub use machine::{Link, LinkAddress, LinkAddressError, MachineNetwork, MachineTime, Wifi, is_key};
pub use mesh_node::{MeshNode, MeshNodeTls, NodeRole};
pub use mountpoint::{Mountpoint, Ring};
pub use network::{Network, NetworkError};
pub use output::{Play, Push, PushMemory, PushOrder, TrackIds, WhenAbsent};
pub use patch::{Difference, differences};
pub use problem::{Path, Problem};
pub use record::Record;
pub use secret::Secret;
pub use secrets::StoredError;
pub use shape::{join_lines, schema};
pub use source::{
    Csi, FileSource, KmpSource, Mjpeg, Publish, Pull, Rtp, RtpError, RtpMedia, RtpSession, RtpStream, Rtsp,
    RtspStream, RtspTransport, Source, TestPicture, V4l2, V4l2Format, is_microphone,
};
pub use span::{Span, SpanError};
pub use spool::Spool;
pub use treatment::{Audio, AudioMode, Overlay, Video, VideoMode};
pub use truth::{Mend, PictureFault, Truth};
pub use update::{Update, WantedFirmware, is_version};
pub use url::{SecretUrl, UrlError, UrlParts};
pub use validate::{is_stream_name, validate, validate_on};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The schema number that this build writes and reads.
pub const SCHEMA: u32 = 1;

/// All that a gateway is told to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Version of this file's shape. Only 1 exists. Default 1.
    #[schemars(range(min = 1, max = 1))]
    pub schema: u32,
    /// The RTMP server that encoders publish to and players play from.
    pub rtmp: Rtmp,
    /// The KMP receiver that other gateways and Kaltura's connectors send to. Default: off.
    pub kmp: Kmp,
    /// The HTTP server that viewers watch from. Default: off.
    pub http: Http,
    /// The local HTTP API and installers' page.
    pub admin: Admin,
    /// How the media plane uses the machine.
    pub media: Media,
    /// How much of the machine may be used, and how hot it may get.
    pub limits: Limits,
    /// Where cameras are looked for, and whether the gateway can be found.
    pub discovery: Discovery,
    /// What is kept of what happened, and who is told.
    pub events: Events,
    /// How a fleet manager reaches this gateway. Default: not at all.
    pub fleet: Fleet,
    /// The machine's own network. Default: as the image has it.
    pub network: MachineNetwork,
    /// The machine's time. Default: as the image has it.
    pub time: MachineTime,
    /// The machine's firmware: how a new one is judged, and which one is wanted. Default: the one that it has.
    pub update: Update,
    /// The streams by name. A name is 1 to 64 of the characters `A-Z a-z 0-9 . _ -`; one that ends in `*` is a
    /// template for whatever is published under a name that starts like it. Default: none.
    #[schemars(extend("maxProperties" = 1024))]
    pub mountpoints: BTreeMap<String, Mountpoint>,
    /// Other systems that may control this gateway. Default: none.
    pub compat: Compat,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            schema: SCHEMA,
            rtmp: Rtmp::default(),
            kmp: Kmp::default(),
            http: Http::default(),
            admin: Admin::default(),
            media: Media::default(),
            limits: Limits::default(),
            discovery: Discovery::default(),
            events: Events::default(),
            fleet: Fleet::default(),
            network: MachineNetwork::default(),
            time: MachineTime::default(),
            update: Update::default(),
            mountpoints: BTreeMap::new(),
            compat: Compat::default(),
        }
    }
}

impl Config {
    /// The mountpoint that a stream of this name belongs to, with the name that it has in the config: the exact one,
    /// else the template with the longest fitting beginning. `None` also for what can be no stream's name.
    pub fn mountpoint_for(&self, name: &str) -> Option<(&str, &Mountpoint)> {
        if let Some((known, mountpoint)) =
            self.mountpoints.get_key_value(name).filter(|_| !name.ends_with('*'))
        {
            return Some((known, mountpoint));
        }
        let fits = |template: &str| template.strip_suffix('*').is_some_and(|stem| name.starts_with(stem));
        // `{name}` is a stream's name still to come: it fits wherever one can.
        let is_name = is_stream_name(&name.replace("{name}", "name"));
        let templates = self.mountpoints.iter().filter(|(template, _)| is_name && fits(template));
        templates
            .max_by_key(|(template, _)| template.len())
            .map(|(template, mountpoint)| (template.as_str(), mountpoint))
    }
}

/// The RTMP server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rtmp {
    /// Addresses with port to listen on; port 0 lets the kernel choose. At most 16; an empty list turns plain RTMP
    /// off. Default `["0.0.0.0:1935"]`.
    #[schemars(with = "Vec<listen::Address>", length(max = 16))]
    pub listen: Vec<SocketAddr>,
    /// RTMP over TLS (`rtmps://`). Default: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenTls>,
    /// Connections on all RTMP listeners together; more are refused. 1 to 65,536. Default 1,024.
    #[schemars(range(min = 1, max = 65536))]
    pub max_connections: u32,
    /// Connections from one address; more are refused. 1 to 65,536. Default 256.
    #[schemars(range(min = 1, max = 65536))]
    pub max_connections_per_address: u32,
    /// Time in which a new connection must have finished handshake and `connect`. `"100ms"` to `"60s"`.
    /// Default `"10s"`.
    #[schemars(extend("minSpan" = "100ms", "maxSpan" = "60s"))]
    pub handshake_timeout: Span,
    /// A publisher that sends nothing, or a connection that neither publishes nor plays, is closed after this time.
    /// `"1s"` to `"1h"`. Default `"30s"`.
    #[schemars(extend("minSpan" = "1s", "maxSpan" = "1h"))]
    pub idle_timeout: Span,
    /// A player that takes nothing is closed after this time. `"1s"` to `"10m"`. Default `"20s"`.
    #[schemars(extend("minSpan" = "1s", "maxSpan" = "10m"))]
    pub write_timeout: Span,
    /// Longest media message taken from a publisher, in bytes. 65,536 to 16,777,215. Default 4,194,304.
    #[schemars(range(min = 65536, max = 16777215))]
    pub max_message_bytes: u32,
}

impl Default for Rtmp {
    fn default() -> Self {
        Rtmp {
            listen: vec![SocketAddr::from(([0, 0, 0, 0], 1935))],
            tls: None,
            max_connections: 1_024,
            max_connections_per_address: 256,
            handshake_timeout: Span::from_secs(10),
            idle_timeout: Span::from_secs(30),
            write_timeout: Span::from_secs(20),
            max_message_bytes: 4 << 20,
        }
    }
}

/// The HTTP API and installers' page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Addresses with port to listen on without TLS; port 0 lets the kernel choose. Loopback only. At most 16; empty
    /// together with no `tls` turns the API off. Default `["127.0.0.1:8080"]`.
    #[schemars(with = "Vec<listen::Address>", length(max = 16))]
    pub listen: Vec<SocketAddr>,
    /// The same over TLS, also for the network. Default: off; a gateway that starts without any config has it on
    /// `0.0.0.0:8443`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<AdminTls>,
}

impl Default for Admin {
    fn default() -> Self {
        Admin { listen: vec![SocketAddr::from(([127, 0, 0, 1], 8080))], tls: None }
    }
}

/// The HTTP API and installers' page over TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminTls {
    /// Addresses with port to listen on; port 0 lets the kernel choose. 1 to 16.
    #[schemars(with = "Vec<listen::Address>", length(min = 1, max = 16))]
    pub listen: Vec<SocketAddr>,
    /// File with an own certificate chain, PEM. Default: the certificate of `/api/v1/certificate`, which the gateway makes
    /// by itself at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub cert: Option<PathBuf>,
    /// File with its private key, PEM. Default: as `cert`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub key: Option<PathBuf>,
    /// File with the authorities whose clients may connect over TLS at all, PEM: a connection without a certificate that one
    /// of them has signed ends in its handshake. Who gets through still logs in. Followed like the certificate. Default:
    /// everybody may connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub client_ca: Option<PathBuf>,
    /// Further names under which the gateway may be asked, beside its addresses, host name and that with `.local`. At
    /// most 16. Default: none.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub names: Vec<String>,
    /// How often the certificate's files are looked at; a changed one is shown from the next connection on, those that
    /// are open stay. `"1s"` to `"1d"`. Default `"10s"`.
    #[serde(default = "default_reload_interval")]
    #[schemars(extend("minSpan" = "1s", "maxSpan" = "1d"))]
    pub reload_interval: Span,
}

impl AdminTls {
    /// On one address, with the gateway's own certificate.
    pub fn on(listen: SocketAddr) -> Self {
        AdminTls {
            listen: vec![listen],
            cert: None,
            key: None,
            client_ca: None,
            names: Vec::new(),
            reload_interval: default_reload_interval(),
        }
    }
}

fn default_reload_interval() -> Span {
    Span::from_secs(10)
}

/// How the media plane uses the machine. A change here takes effect at the next start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Media {
    /// Threads that carry streams, 1 to 64. Default: one per processor core.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub shards: Option<u16>,
    /// Bytes that the rings of all mountpoints may take together; a config over it is refused. At least 1 MiB.
    /// Default: a quarter of the machine's memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1048576, max = 1_125_899_906_842_624_i64))]
    pub memory_bytes: Option<u64>,
}
