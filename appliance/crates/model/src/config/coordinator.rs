//! A coordinator of streaming servers and encoders.

use super::source::yes;
use super::{Network, Secret, SecretUrl, Span, listen};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Makes the gateway the coordinator of streaming servers and encoders: it verifies who may publish, gives each stream to
/// an encoder and tells an application of it. Its own RTMP server takes part: channels are published to
/// `rtmp://HOST/CHANNEL/KEY`. See `docs/coordinator.md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Coordinator {
    /// Whether the gateway is a coordinator. Default false.
    pub enabled: bool,
    /// Addresses with port to listen on for control sockets and commands; port 0 lets the kernel choose. At most 16.
    /// Default: none.
    #[schemars(with = "Vec<listen::Address>", length(max = 16))]
    pub listen: Vec<SocketAddr>,
    /// The same over TLS. Default: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<CoordinatorTls>,
    /// The secret that tokens of control sockets are signed with, 1 to 256 printable characters. Default: none; then only
    /// servers and encoders on this machine are let in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_secret: Option<Secret>,
    /// The application that says whether a key is good. Default: none; then every key is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_verification: Option<CoordinatorCall>,
    /// The application that is told of streams. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<CoordinatorCall>,
    /// HTTPS applications: whether their certificates are checked. Default true.
    pub verify: bool,
    /// HTTPS applications: file with the certificate authority to trust instead of the well-known ones, PEM. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub ca: Option<PathBuf>,
    /// Who may give commands. Default: nobody.
    pub commands: CoordinatorCommands,
    /// Whether nobody may publish while no encoder is free. Default false.
    pub require_encoder: bool,
    /// Longest channel or key, in bytes. 1 to 1,024. Default 128.
    #[schemars(range(min = 1, max = 1024))]
    pub id_max_length: u32,
    /// Whether each request is logged. Default true.
    pub log_requests: bool,
    /// The gateway's address as encoders reach its RTMP server. Default: the first one that it has in a network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_ip: Option<IpAddr>,
    /// Port of its RTMP server as encoders reach it. 1 to 65,535. Default: that of the first `rtmp.listen`, or 1935.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub rtmp_port: Option<u16>,
    /// How many streams of its own RTMP server the gateway shows by itself, as an encoder of the cluster: at `http.listen`,
    /// as `hls/STREAM-ID/index.m3u8`, live, in the original size. -1 (any number) to 10,000. Default: none, it is no
    /// encoder.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1, max = 10000))]
    pub own_encoder: Option<i32>,
    /// Networks from which channels of the gateway's own RTMP server may be played, with the key that they are published
    /// with. Encoders with a control socket may always. At most 64. Default: none.
    #[schemars(length(max = 64))]
    pub play_allow: Vec<Network>,
    /// Control sockets at once; more get 503. 1 to 4,096. Default 256.
    #[schemars(range(min = 1, max = 4096))]
    pub max_sockets: u32,
    /// Streams at once, in the whole cluster. 1 to 10,000. Default 1,000.
    #[schemars(range(min = 1, max = 10000))]
    pub max_streams: u32,
}

impl Default for Coordinator {
    fn default() -> Self {
        Coordinator {
            enabled: false,
            listen: Vec::new(),
            tls: None,
            control_secret: None,
            key_verification: None,
            events: None,
            verify: yes(),
            ca: None,
            commands: CoordinatorCommands::default(),
            require_encoder: false,
            id_max_length: 128,
            log_requests: yes(),
            external_ip: None,
            rtmp_port: None,
            own_encoder: None,
            play_allow: Vec::new(),
            max_sockets: 256,
            max_streams: 1_000,
        }
    }
}

/// Control sockets and commands over TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CoordinatorTls {
    /// Addresses with port to listen on; port 0 lets the kernel choose. 1 to 16.
    #[schemars(with = "Vec<listen::Address>", length(min = 1, max = 16))]
    pub listen: Vec<SocketAddr>,
    /// File with the certificate chain, PEM.
    #[schemars(length(min = 1, max = 4096))]
    pub cert: PathBuf,
    /// File with the private key, PEM.
    #[schemars(length(min = 1, max = 4096))]
    pub key: PathBuf,
    /// How often both files are looked at for a change; sockets that are open stay. `"1s"` to `"1d"`. Default `"60s"`.
    #[serde(default = "a_minute")]
    #[schemars(extend("minSpan" = "1s", "maxSpan" = "1d"))]
    pub reload_interval: Span,
}

fn a_minute() -> Span {
    Span::from_secs(60)
}

/// An application that is called, and how we show it who we are: by `user` and `password` (Basic), by `token` (Bearer), by
/// a whole `header`, or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CoordinatorCall {
    /// Its `http://` or `https://` address.
    pub url: SecretUrl,
    /// Basic authentication: the user, 1 to 255 characters without a colon. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub user: Option<String>,
    /// Basic authentication: the password, up to 256 printable characters. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Bearer authentication: the token, 1 to 256 printable characters. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// The whole value of `Authorization`, 1 to 256 printable characters. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<Secret>,
}

/// Who may give commands: whoever shows `user` and `password` (Basic), or `token` (Bearer). Without either nobody may.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CoordinatorCommands {
    /// The user, 1 to 255 characters without a colon. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub user: Option<String>,
    /// The password, 1 to 256 printable characters. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// The token, 1 to 256 printable characters. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
}

impl Coordinator {
    /// The applications, each with its setting's name.
    pub fn calls(&self) -> impl Iterator<Item = (&'static str, &CoordinatorCall)> {
        let both = [("key_verification", &self.key_verification), ("events", &self.events)];
        both.into_iter().filter_map(|(name, call)| Some((name, call.as_ref()?)))
    }
}
