//! Where a listener speaks TLS, and with which certificate.

use super::listen;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Addresses of the same server over TLS, and its certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenTls {
    /// Addresses with port to listen on; port 0 lets the kernel choose. 1 to 16.
    #[schemars(with = "Vec<listen::Address>", length(min = 1, max = 16))]
    pub listen: Vec<SocketAddr>,
    /// File with the certificate chain, PEM. Read anew when it changes.
    #[schemars(length(min = 1, max = 4096))]
    pub cert: PathBuf,
    /// File with the private key, PEM.
    #[schemars(length(min = 1, max = 4096))]
    pub key: PathBuf,
}
