//! A node of an RTMP mesh that a master runs.

use super::source::yes;
use super::{Secret, Span, listen};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// What a node is in its mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeRole {
    /// Takes broadcasters, sends to root relays.
    #[default]
    Ingest,
    /// Takes ingests and other root relays, sends to root relays and relays.
    RootRelay,
    /// Takes root relays and relays, sends to relays and viewers.
    Relay,
}

/// Makes the gateway a node of an RTMP mesh: a master says by tokens and tables who may publish, where streams go, and
/// who may watch. Its own cameras are no part of the mesh. Viewers watch on `http.listen`; nodes and broadcasters come to
/// `rtmp.listen`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MeshNode {
    /// Whether the gateway is a node. Default false.
    pub enabled: bool,
    /// `http://` or `https://` address of the master; the endpoints are put behind it as they are. Default: none; then
    /// nobody is called, and `mode` stays the role.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub master: Option<String>,
    /// The key that nodes announce themselves with, 1 to 256 printable characters; opens the node's own API, too.
    /// Required with `master`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master_key: Option<Secret>,
    /// HTTPS master: whether its certificate is checked. Default true.
    pub verify: bool,
    /// HTTPS master: file with the certificate authority to trust instead of the well-known ones, PEM. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub ca: Option<PathBuf>,
    /// Where nodes announce themselves. Default `"/announce"`.
    #[schemars(length(min = 1, max = 256))]
    pub announce_endpoint: String,
    /// Where they say that they live. Default `"/heartbeat"`.
    #[schemars(length(min = 1, max = 256))]
    pub heartbeat_endpoint: String,
    /// Where they tell of streams and get their tables. Default `"/streams"`.
    #[schemars(length(min = 1, max = 256))]
    pub streams_endpoint: String,
    /// Where tokens are checked; some masters call it `"/authenticate"`. Default `"/auth"`.
    #[schemars(length(min = 1, max = 256))]
    pub auth_endpoint: String,
    /// Where relays ask for streams that their viewers want. Default `"/route"`.
    #[schemars(length(min = 1, max = 256))]
    pub route_endpoint: String,
    /// Where the certificate for `tls` is fetched. Default `"/cert"`.
    #[schemars(length(min = 1, max = 256))]
    pub cert_endpoint: String,
    /// First wait after a failed announcement; it doubles up to a minute. `"1s"` to `"1h"`. Default `"5s"`.
    #[schemars(extend("minSpan" = "1s", "maxSpan" = "1h"))]
    pub announce_retry: Span,
    /// Wait after a failed heartbeat. `"1s"` to `"1h"`. Default `"5s"`.
    #[schemars(extend("minSpan" = "1s", "maxSpan" = "1h"))]
    pub heartbeat_retry: Span,
    /// How long a token that was good lets in while the master cannot be asked. `"0s"` to `"1d"`. Default `"300s"`.
    #[schemars(extend("minSpan" = "0s", "maxSpan" = "1d"))]
    pub offline_grace: Span,
    /// The role until the master gives another. Default `"ingest"`.
    pub mode: NodeRole,
    /// Roles joined to `mode`; only without `master`. At most 2. Default: none.
    #[schemars(length(max = 2))]
    pub standalone_roles: Vec<NodeRole>,
    /// The gateway's IPv4 address as other nodes reach it. Default: the one that it reaches the master from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_ip: Option<Ipv4Addr>,
    /// Port of RTMP as other nodes reach it. 1 to 65,535. Default: that of the first `rtmp.listen`, or 1935.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub rtmp_port: Option<u16>,
    /// Port of the node's HTTP as it is announced. 1 to 65,535. Default 7511.
    #[schemars(range(min = 1, max = 65535))]
    pub http_port: u16,
    /// Addresses with port on which the node's own API listens; port 0 lets the kernel choose. At most 16. Default:
    /// none, the API is off.
    #[schemars(with = "Vec<listen::Address>", length(max = 16))]
    pub listen: Vec<SocketAddr>,
    /// The same over TLS. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<MeshNodeTls>,
    /// Whether the certificate of `tls` is the one that the master gives: fetched after each start, and anew when fewer than
    /// 20 days of it remain. Default false.
    pub cert_from_master: bool,
    /// Whether `/statistics` and `/control` answer to this machine alone. Default true.
    pub local_only: bool,
    /// Streams of the mesh at once. 1 to 10,000. Default 64.
    #[schemars(range(min = 1, max = 10000))]
    pub max_streams: u32,
}

impl Default for MeshNode {
    fn default() -> Self {
        MeshNode {
            enabled: false,
            master: None,
            master_key: None,
            verify: yes(),
            ca: None,
            announce_endpoint: "/announce".to_owned(),
            heartbeat_endpoint: "/heartbeat".to_owned(),
            streams_endpoint: "/streams".to_owned(),
            auth_endpoint: "/auth".to_owned(),
            route_endpoint: "/route".to_owned(),
            cert_endpoint: "/cert".to_owned(),
            announce_retry: Span::from_secs(5),
            heartbeat_retry: Span::from_secs(5),
            offline_grace: Span::from_secs(300),
            mode: NodeRole::Ingest,
            standalone_roles: Vec::new(),
            external_ip: None,
            rtmp_port: None,
            http_port: 7511,
            listen: Vec::new(),
            tls: None,
            cert_from_master: false,
            local_only: true,
            max_streams: 64,
        }
    }
}

/// The node's own API over TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MeshNodeTls {
    /// Addresses with port to listen on; port 0 lets the kernel choose. 1 to 16.
    #[schemars(with = "Vec<listen::Address>", length(min = 1, max = 16))]
    pub listen: Vec<SocketAddr>,
    /// File with an own certificate chain, PEM. Default: the master's (`cert_from_master`), or one that the gateway makes by
    /// itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub cert: Option<PathBuf>,
    /// File with its private key, PEM. Default: as `cert`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub key: Option<PathBuf>,
    /// How often the certificate's files are looked at for a change; connections that are open stay. `"1s"` to `"1d"`.
    /// Default `"10s"`.
    #[serde(default = "default_reload_interval")]
    #[schemars(extend("minSpan" = "1s", "maxSpan" = "1d"))]
    pub reload_interval: Span,
}

fn default_reload_interval() -> Span {
    Span::from_secs(10)
}

impl MeshNodeTls {
    /// On one address, with a certificate that is not in the config.
    pub fn on(listen: SocketAddr) -> Self {
        MeshNodeTls {
            listen: vec![listen],
            cert: None,
            key: None,
            reload_interval: default_reload_interval(),
        }
    }
}

impl MeshNode {
    /// The endpoints, each with its setting's name.
    pub fn endpoints(&self) -> [(&'static str, &str); 6] {
        [
            ("announce_endpoint", &self.announce_endpoint),
            ("heartbeat_endpoint", &self.heartbeat_endpoint),
            ("streams_endpoint", &self.streams_endpoint),
            ("auth_endpoint", &self.auth_endpoint),
            ("route_endpoint", &self.route_endpoint),
            ("cert_endpoint", &self.cert_endpoint),
        ]
    }
}
