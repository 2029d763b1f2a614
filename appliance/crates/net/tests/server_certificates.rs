//! The server's certificate: bad files are refused, replaced ones are taken over without a restart.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod certificates;

use certificates::{Authority, NOW, folder, write_pair};
use fieldgate_net::{
    CertificateState, ClientTls, DialOptions, ServerCertificates, Stream, Target, TlsError, dial,
};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Longer than any machine needs.
const PATIENCE: Duration = Duration::from_secs(20);

/// An echo server over TLS that follows its files.
struct Echo {
    folder: PathBuf,
    authority: Authority,
    address: SocketAddr,
    tls: ClientTls,
    state: watch::Receiver<CertificateState>,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
    first: (String, String),
}

impl Echo {
    async fn start(test: &str) -> Echo {
        let folder = folder(test);
        let ca = folder.join("ca.pem");
        let authority = Authority::new("lab", &ca);
        let first = authority.sign("localhost", NOW);
        let (cert, key) = write_pair(&folder, &first);
        let certificates = ServerCertificates::load(cert, key).unwrap();
        let acceptor = certificates.acceptor();
        let state = certificates.state();
        let cancel = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(certificates.watch(Duration::from_millis(20), cancel.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = cancel.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Some(Ok((tcp, _))) = stop.run_until_cancelled(listener.accept()).await {
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    let (mut reader, mut writer) = tokio::io::split(acceptor.accept(tcp).await.unwrap());
                    let _ = tokio::io::copy(&mut reader, &mut writer).await;
                });
            }
        });
        let tls = ClientTls::with_ca_file(&ca).unwrap();
        Echo { folder, authority, address, tls, state, cancel, tasks, first }
    }

    async fn connect(&self) -> Stream {
        let tls = Some(self.tls.clone());
        let target = Target { host: "localhost".to_owned(), port: self.address.port(), tls };
        dial(&target, &DialOptions::default()).await.unwrap()
    }

    /// Waits until the state is as wanted.
    async fn until(&mut self, wanted: impl FnMut(&CertificateState) -> bool) -> CertificateState {
        timeout(PATIENCE, self.state.wait_for(wanted)).await.expect("in time").unwrap().clone()
    }

    async fn stop(mut self) {
        self.cancel.cancel();
        while let Some(ended) = timeout(PATIENCE, self.tasks.join_next()).await.expect("in time") {
            ended.unwrap();
        }
    }
}

async fn echoes(stream: &mut Stream) {
    stream.write_all(b"ping").await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = [0; 4];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await.expect("in time").unwrap();
    assert_eq!(&answer, b"ping");
}

/// The certificate that the server showed, DER.
fn shown(stream: &Stream) -> Vec<u8> {
    let Stream::Tls(tls) = stream else { panic!("not TLS") };
    tls.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn a_new_certificate_serves_new_connections_and_leaves_old_ones_alone() {
    let mut echo = Echo::start("reload").await;
    let mut old = echo.connect().await;
    echoes(&mut old).await;

    write_pair(&echo.folder, &echo.authority.sign("localhost", NOW));
    // Between the two writes the watcher may meet a pair that does not match; what counts is the end.
    echo.until(|state| state.reloads == 1 && state.fault.is_none()).await;
    let mut new = echo.connect().await;
    assert_ne!(shown(&new), shown(&old));
    echoes(&mut new).await;
    echoes(&mut old).await;
    echo.stop().await;
}

#[tokio::test]
async fn broken_files_keep_the_old_certificate_until_they_are_whole_again() {
    let mut echo = Echo::start("broken").await;
    let before = shown(&echo.connect().await);
    let cert = echo.folder.join("cert.pem");

    fs::write(&cert, "-----BEGIN CERTIFICATE-----\nhalf a fi").unwrap();
    let state = echo.until(|state| state.fault.is_some()).await;
    let fault = state.fault.unwrap();
    assert!(fault.to_string().contains("cert.pem"), "{fault}");
    assert_eq!(shown(&echo.connect().await), before);

    fs::remove_file(&cert).unwrap();
    let missing = |state: &CertificateState| matches!(state.fault.as_deref(), Some(TlsError::Read { .. }));
    echo.until(missing).await;
    assert_eq!(shown(&echo.connect().await), before);

    let first = echo.first.clone();
    write_pair(&echo.folder, &first);
    let state = echo.until(|state| state.fault.is_none()).await;
    assert_eq!(state.reloads, 0, "the same content is no news");

    write_pair(&echo.folder, &echo.authority.sign("localhost", NOW));
    echo.until(|state| state.reloads == 1 && state.fault.is_none()).await;
    assert_ne!(shown(&echo.connect().await), before);
    echo.stop().await;
}

#[tokio::test]
async fn a_file_whose_time_and_length_stay_the_same_is_still_seen() {
    let mut echo = Echo::start("same_time").await;
    // One letter differs, which makes another certificate or none at all.
    let cert = echo.folder.join("cert.pem");
    let time = fs::metadata(&cert).unwrap().modified().unwrap();
    let mut text = echo.first.0.clone().into_bytes();
    let middle = text.len() / 2;
    text[middle] = if text[middle] == b'A' { b'B' } else { b'A' };
    let next = echo.folder.join("next.pem");
    fs::write(&next, &text).unwrap();
    fs::File::open(&next).unwrap().set_modified(time).unwrap();
    fs::rename(&next, &cert).unwrap();
    echo.until(|state| state.fault.is_some() || state.reloads == 1).await;
    echo.stop().await;
}

#[test]
fn each_kind_of_bad_file_is_named_with_its_remedy() {
    let folder = folder("bad_files");
    let authority = Authority::new("lab", &folder.join("ca.pem"));
    let (cert, key) = authority.sign("localhost", NOW);
    let (_, other_key) = authority.sign("localhost", NOW);
    let load = |cert: &str, key: &str| {
        let (cert, key) = write_pair(&folder, &(cert.to_owned(), key.to_owned()));
        ServerCertificates::load(cert, key)
    };
    assert!(load(&cert, &key).is_ok());

    let error = load(&cert, &other_key).unwrap_err();
    assert!(matches!(error, TlsError::NoPair { .. }), "{error:?}");
    assert!(error.to_string().contains("cert.pem") && error.to_string().contains("key.pem"), "{error}");

    let error = load(&cert, &cert).unwrap_err();
    assert!(matches!(error, TlsError::NoKey { .. }), "{error:?}");
    let error = load(&key, &key).unwrap_err();
    assert!(matches!(error, TlsError::NoCertificate { .. }), "{error:?}");

    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let error = load(&cert, encrypted).unwrap_err();
    assert!(matches!(error, TlsError::KeyEncrypted { .. }), "{error:?}");
    let encrypted = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n\
                     -----END RSA PRIVATE KEY-----\n";
    let error = load(&cert, encrypted).unwrap_err();
    assert!(matches!(error, TlsError::KeyEncrypted { .. }), "{error:?}");

    let broken = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let error = load(&cert, broken).unwrap_err();
    assert!(matches!(error, TlsError::Unusable { .. }), "{error:?}");
    assert!(error.to_string().contains("key.pem"), "{error}");
}

#[test]
fn no_private_key_shows_in_debug() {
    let folder = folder("no_key_in_debug");
    let pair = Authority::new("lab", &folder.join("ca.pem")).sign("localhost", NOW);
    let (cert, key) = write_pair(&folder, &pair);
    let certificates = ServerCertificates::load(cert, key).unwrap();
    let shown = format!("{certificates:?}");
    assert!(shown.contains("cert.pem") && !shown.contains("PRIVATE"), "{shown}");
    let secret = pair.1.lines().nth(1).unwrap();
    assert!(!shown.contains(secret));
}

#[test]
fn certificate_and_key_may_share_one_file() {
    let folder = folder("one_file");
    let (cert, key) = Authority::new("lab", &folder.join("ca.pem")).sign("localhost", NOW);
    let both = folder.join("both.pem");
    fs::write(&both, key + &cert).unwrap();
    assert!(ServerCertificates::load(&both, &both).is_ok());
}
