//! Whose clients may shake hands at all.

use super::{TlsError, files, provider};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

/// Asks the verifier that is current at each handshake.
pub(super) struct Clients(RwLock<Arc<dyn ClientCertVerifier>>);

impl Clients {
    pub(super) fn new(verifier: Arc<dyn ClientCertVerifier>) -> Self {
        Clients(RwLock::new(verifier))
    }

    pub(super) fn replace(&self, verifier: Arc<dyn ClientCertVerifier>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = verifier;
    }

    fn current(&self) -> Arc<dyn ClientCertVerifier> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Takes those whose certificates these authorities have signed; `path` is for the error.
pub(super) fn verifier(path: &Path, ca: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    let unusable = |source| TlsError::Unusable { path: path.to_owned(), source };
    for certificate in files::certificates(path, ca)? {
        roots.add(certificate).map_err(unusable)?;
    }
    let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    let verifier = built.map_err(|error| unusable(Error::General(error.to_string())))?;
    Ok(verifier)
}

impl ClientCertVerifier for Clients {
    /// None: the list is not fixed, and clients that have one certificate show it anyway.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.current().verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current().verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current().verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.current().supported_verify_schemes()
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clients")
    }
}
