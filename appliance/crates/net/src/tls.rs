//! TLS on both sides: whom the gateway trusts as a client, which certificate it shows as a server.
//!
//! TLS 1.2 and 1.3, with *ring*. No session is ever resumed: connections live for hours, so a full handshake costs
//! nothing, and a resumed session would skip the check of a certificate that has since been replaced or has expired.

mod client;
mod clients;
mod files;
mod server;

pub use client::ClientTls;
pub use files::TlsError;
pub use server::{CertificateState, ServerCertificates};

use rustls::crypto::CryptoProvider;
use std::sync::Arc;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
