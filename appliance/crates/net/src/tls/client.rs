//! TLS towards servers.

use super::{TlsError, files, provider};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsConnector;

/// Whom a client connection trusts. Cheap to clone.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    verify: bool,
}

impl ClientTls {
    /// Trusts the well-known public authorities.
    pub fn public() -> Self {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        ClientTls { config: finish(builder().with_root_certificates(roots)), verify: true }
    }

    /// Trusts the authorities in the PEM file `ca` and no others. Reads the file: blocks.
    pub fn with_ca_file(ca: &Path) -> Result<Self, TlsError> {
        Ok(ClientTls { config: finish(builder().with_root_certificates(roots_of(ca)?)), verify: true })
    }

    /// Like [`ClientTls::with_ca_file`] or, without `ca`, [`ClientTls::public`]; and shows the certificate chain in `cert`
    /// with the key in `key`. Reads the files: blocks.
    pub fn with_own_certificate(ca: Option<&Path>, cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let roots = match ca {
            None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
            Some(ca) => roots_of(ca)?,
        };
        let chain = files::certificates(cert, &files::read(cert)?)?;
        let private = files::private_key(key, &files::read(key)?)?;
        let config = builder().with_root_certificates(roots).with_client_auth_cert(chain, private);
        let mut config = config.map_err(|source| TlsError::Unusable { path: cert.to_owned(), source })?;
        config.resumption = Resumption::disabled();
        Ok(ClientTls { config: Arc::new(config), verify: true })
    }

    /// **Trusts whoever answers**: encrypted, but open to anyone on the way. For labs; the caller says so in the log.
    pub fn unverified() -> Self {
        let verifier = Arc::new(AnyCertificate(provider()));
        let config = builder().dangerous().with_custom_certificate_verifier(verifier);
        ClientTls { config: finish(config), verify: false }
    }

    /// Whether the server's certificate is checked.
    pub fn verifies(&self) -> bool {
        self.verify
    }

    /// What the server's certificate must be valid for, and what it is told (SNI, for names).
    pub(crate) fn server_name(&self, host: &str) -> Option<ServerName<'static>> {
        // The dot of a fully qualified name is DNS's, no certificate has it.
        ServerName::try_from(host.strip_suffix('.').unwrap_or(host)).ok().map(|name| name.to_owned())
    }

    pub(crate) fn connector(&self) -> TlsConnector {
        TlsConnector::from(self.config.clone())
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("verify", &self.verify).finish_non_exhaustive()
    }
}

fn roots_of(ca: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in files::certificates(ca, &files::read(ca)?)? {
        roots.add(certificate).map_err(|source| TlsError::Unusable { path: ca.to_owned(), source })?;
    }
    Ok(roots)
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has suites for TLS 1.2 and 1.3")
}

fn finish(
    builder: rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>,
) -> Arc<ClientConfig> {
    let mut config = builder.with_no_client_auth();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Accepts every certificate; the handshake's signatures are still checked, so that the peer does hold its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
