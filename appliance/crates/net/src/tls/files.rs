//! Reading certificates and keys from PEM files.

use fieldgate_hub::Retry;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The largest file that is read; a bundle of all public authorities has about 250 KB.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What is wrong with a certificate or key file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It cannot be read.
    #[error("cannot read {path}: check that it exists and that the gateway's user may read it")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no certificate's size.
    #[error("{path} is larger than {MAX_FILE_BYTES} bytes: name a PEM file")]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// Its PEM is broken.
    #[error("{path} is not whole PEM: copy the file again, as text")]
    Pem {
        /// The file.
        path: PathBuf,
        /// Where.
        #[source]
        source: pem::Error,
    },
    /// It holds no certificate.
    #[error("{path} holds no certificate: it needs a part that begins with -----BEGIN CERTIFICATE-----")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// It holds no private key.
    #[error("{path} holds no private key: it needs a part that begins with -----BEGIN PRIVATE KEY-----")]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// Its private key is encrypted; nobody is there to type a passphrase.
    #[error("the private key in {path} has a passphrase: remove it, for example with `openssl pkey`")]
    KeyEncrypted {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key are not a pair.
    #[error(
        "the certificate in {cert} and the private key in {key} do not belong together: name a pair; the server's own certificate must be the first in its file"
    )]
    NoPair {
        /// The certificate file.
        cert: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// A certificate, or a key of a kind, that cannot be used.
    #[error(
        "{path} cannot be used: it needs X.509 certificates, and keys of RSA (2048 bits or more), ECDSA P-256 or P-384, or Ed25519"
    )]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

impl TlsError {
    /// Files can be repaired without a change of settings.
    pub fn retry(&self) -> Retry {
        Retry::Backoff
    }
}

/// The bytes of `path`, at most [`MAX_FILE_BYTES`]. Blocks.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let read_error = |source| TlsError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(read_error)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(read_error)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(TlsError::TooLong { path: path.to_owned() });
    }
    Ok(bytes)
}

/// All certificates of `bytes`, at least one; `path` is for the error.
pub(super) fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| TlsError::Pem { path: path.to_owned(), source })?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_owned() });
    }
    Ok(certificates)
}

/// The first private key of `bytes`; `path` is for the error.
pub(super) fn private_key(path: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    let path = path.to_owned();
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| match error {
        // PKCS #8 says so in the label, the older OpenSSL form in a header.
        pem::Error::NoItemsFound if contains(bytes, b"BEGIN ENCRYPTED PRIVATE KEY") => {
            TlsError::KeyEncrypted { path }
        }
        _ if contains(bytes, b"Proc-Type: 4,ENCRYPTED") => TlsError::KeyEncrypted { path },
        pem::Error::NoItemsFound => TlsError::NoKey { path },
        source => TlsError::Pem { path, source },
    })
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
