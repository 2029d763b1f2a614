//! The gateway's own certificate, replaced while it runs.

use super::clients::{Clients, verifier};
use super::{TlsError, files, provider};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// A server certificate with its key, from two PEM files (which may be one and the same).
///
/// ```text
///  load --> serving --watch: files changed and good--> serving the new one
///              \-----watch: files changed and bad-----> still serving the old one, fault reported
/// ```
pub struct ServerCertificates {
    files: Files,
    served: Arc<Served>,
    served_digest: FileDigest,
    /// Whose clients may shake hands; none: everybody.
    clients: Option<Arc<Clients>>,
    state: watch::Sender<CertificateState>,
}

/// What the files are at present.
#[derive(Clone, Debug, Default)]
pub struct CertificateState {
    /// How often a new certificate has been taken over since the first.
    pub reloads: u64,
    /// Why the files' present content is not in use; the certificate before it goes on.
    pub fault: Option<Arc<TlsError>>,
}

impl ServerCertificates {
    /// Reads both files: blocks.
    pub fn load(cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Self, TlsError> {
        Self::load_all(Files { cert: cert.into(), key: key.into(), clients: None })
    }

    /// Like [`ServerCertificates::load`]; and only clients shake hands whose certificate is signed by one of the authorities
    /// in the PEM file `clients`, which is followed like the others. Blocks.
    pub fn load_with_clients(
        cert: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
        clients: impl Into<PathBuf>,
    ) -> Result<Self, TlsError> {
        Self::load_all(Files { cert: cert.into(), key: key.into(), clients: Some(clients.into()) })
    }

    fn load_all(files: Files) -> Result<Self, TlsError> {
        let content = files.read()?;
        let certified = content.parse(&files)?;
        Ok(ServerCertificates {
            clients: content.clients(&files)?.map(|verifier| Arc::new(Clients::new(verifier))),
            served: Arc::new(Served(RwLock::new(Arc::new(certified)))),
            served_digest: content.digest(),
            state: watch::Sender::default(),
            files,
        })
    }

    /// Whether these two PEM texts are a certificate chain and the key that belongs to it.
    pub fn check(chain: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let files = Files { cert: "the certificate chain".into(), key: "the key".into(), clients: None };
        Content { cert: chain.to_vec(), key: key.to_vec(), clients: None }.parse(&files).map(|_| ())
    }

    /// Accepts TLS connections with the certificate that is current at each handshake, now and after reloads.
    pub fn acceptor(&self) -> TlsAcceptor {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring has suites for TLS 1.2 and 1.3");
        let builder = match &self.clients {
            Some(clients) => builder.with_client_cert_verifier(clients.clone()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(self.served.clone());
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        TlsAcceptor::from(Arc::new(config))
    }

    /// Changes with each reload and each new fault.
    pub fn state(&self) -> watch::Receiver<CertificateState> {
        self.state.subscribe()
    }

    /// Looks at the files every `poll_interval` and serves their new content; ends when `cancel` is cancelled.
    ///
    /// Content is compared, not times alone: a restored backup or a copy with its times kept is seen too, and two
    /// files of a few KB cost nothing to read. Connections that are open stay as they are.
    pub async fn watch(mut self, poll_interval: Duration, cancel: CancellationToken) {
        let mut refused = None;
        let mut ticks = interval(poll_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let follow = async {
            loop {
                ticks.tick().await;
                self.look(&mut refused).await;
            }
        };
        tokio::select! {
            () = follow => {}
            () = cancel.cancelled() => {}
        }
    }

    /// One look; `refused` is the content that failed last, which need not be parsed again.
    async fn look(&mut self, refused: &mut Option<FileDigest>) {
        let files = self.files.clone();
        let content = match tokio::task::spawn_blocking(move || files.read()).await {
            Ok(Ok(content)) => content,
            Ok(Err(error)) => {
                *refused = None;
                return self.report(Some(error));
            }
            // The runtime is going down.
            Err(_) => return,
        };
        let digest = content.digest();
        if *refused == Some(digest) {
            return;
        }
        *refused = None;
        if digest == self.served_digest {
            return self.report(None);
        }
        let parsed = content.parse(&self.files).and_then(|it| Ok((it, content.clients(&self.files)?)));
        match parsed {
            Ok((certified, verifier)) => {
                self.served.replace(certified);
                if let (Some(clients), Some(verifier)) = (&self.clients, verifier) {
                    clients.replace(verifier);
                }
                self.served_digest = digest;
                self.state.send_modify(|state| {
                    state.reloads += 1;
                    state.fault = None;
                });
            }
            Err(error) => {
                *refused = Some(digest);
                self.report(Some(error));
            }
        }
    }

    /// Wakes those who watch the state only if it is news to them.
    fn report(&self, fault: Option<TlsError>) {
        self.state.send_if_modified(|state| {
            let text = |fault: Option<&TlsError>| fault.map(TlsError::to_string);
            let news = text(state.fault.as_deref()) != text(fault.as_ref());
            if news {
                state.fault = fault.map(Arc::new);
            }
            news
        });
    }
}

impl fmt::Debug for ServerCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificates").field("files", &self.files).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
    clients: Option<PathBuf>,
}

impl Files {
    fn read(&self) -> Result<Content, TlsError> {
        let clients = self.clients.as_deref().map(files::read).transpose()?;
        Ok(Content { cert: files::read(&self.cert)?, key: files::read(&self.key)?, clients })
    }
}

/// Tells contents apart without keeping a key's bytes.
type FileDigest = [u8; 32];

/// All files' bytes; no `Debug`, for there is a private key among them.
struct Content {
    cert: Vec<u8>,
    key: Vec<u8>,
    clients: Option<Vec<u8>>,
}

impl Content {
    fn digest(&self) -> FileDigest {
        let mut hash = Sha256::new();
        hash.update((self.cert.len() as u64).to_be_bytes());
        hash.update(&self.cert);
        hash.update((self.key.len() as u64).to_be_bytes());
        hash.update(&self.key);
        hash.update(self.clients.as_deref().unwrap_or_default());
        hash.finalize().into()
    }

    fn clients(&self, files: &Files) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
        let both = files.clients.as_deref().zip(self.clients.as_deref());
        both.map(|(path, ca)| verifier(path, ca)).transpose()
    }

    fn parse(&self, files: &Files) -> Result<CertifiedKey, TlsError> {
        let chain = files::certificates(&files.cert, &self.cert)?;
        let key = files::private_key(&files.key, &self.key)?;
        let provider = provider();
        let unusable = |path: &Path, source| TlsError::Unusable { path: path.to_owned(), source };
        let key =
            provider.key_provider.load_private_key(key).map_err(|source| unusable(&files.key, source))?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
            Err(rustls::Error::InconsistentKeys(_)) => {
                Err(TlsError::NoPair { cert: files.cert.clone(), key: files.key.clone() })
            }
            Err(source) => Err(unusable(&files.cert, source)),
        }
    }
}

/// What handshakes get; the lock is held for one clone.
struct Served(RwLock<Arc<CertifiedKey>>);

impl Served {
    fn replace(&self, certified: CertifiedKey) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certified);
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Served")
    }
}
