//! Dialling real sockets on loopback, plain and TLS.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod certificates;

use certificates::{Authority, NOW, folder, write_pair};
use fieldgate_hub::Retry;
use fieldgate_net::{
    ClientTls, DialError, DialOptions, HttpCall, HttpCallError, ServerCertificates, Stream, Target, TlsError,
    dial,
};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn target(host: &str, address: SocketAddr, tls: Option<ClientTls>) -> Target {
    Target { host: host.to_owned(), port: address.port(), tls }
}

fn acceptor(folder: &Path, pair: &(String, String)) -> TlsAcceptor {
    let (cert, key) = write_pair(folder, pair);
    ServerCertificates::load(cert, key).unwrap().acceptor()
}

/// Dials a TLS server with `pair` as its certificate; the server sends back what it gets.
async fn dial_tls(
    folder: &Path,
    pair: &(String, String),
    host: &str,
    tls: ClientTls,
) -> Result<Stream, DialError> {
    let acceptor = acceptor(folder, pair);
    let (listener, address) = listener().await;
    let mut server = JoinSet::new();
    server.spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(tcp).await else { continue };
            let (mut reader, mut writer) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        }
    });
    let mut stream = dial(&target(host, address, Some(tls)), &DialOptions::default()).await?;
    assert!(matches!(stream, Stream::Tls(_)));
    assert_eq!(stream.peer_addr().unwrap(), address);
    let parts = [io::IoSlice::new(b"pi"), io::IoSlice::new(b"ng")];
    assert_eq!(stream.write_vectored(&parts).await.unwrap(), 4);
    stream.flush().await.unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"ping");
    Ok(stream)
}

#[tokio::test]
async fn a_plain_connection_carries_bytes_and_its_options() {
    let (listener, address) = listener().await;
    let options = DialOptions {
        user_timeout: Duration::from_secs(7),
        keepalive: Duration::from_secs(9),
        send_buffer: Some(32 << 10),
        ..DialOptions::default()
    };
    let mut stream = dial(&target("127.0.0.1", address, None), &options).await.unwrap();
    let (mut peer, peer_address) = listener.accept().await.unwrap();
    assert_eq!(stream.local_addr().unwrap(), peer_address);
    stream.write_all(b"ping").await.unwrap();
    let mut got = [0; 4];
    peer.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"ping");

    let socket = socket2::SockRef::from(stream.tcp());
    assert!(socket.tcp_nodelay().unwrap());
    assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(7)));
    assert!(socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(9));
    assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(3));
    assert_eq!(socket.send_buffer_size().unwrap(), 64 << 10, "the kernel doubles it");
}

#[tokio::test]
async fn keepalive_times_under_a_second_become_one() {
    let (listener, address) = listener().await;
    let options = DialOptions { keepalive: Duration::from_millis(900), ..DialOptions::default() };
    let stream = dial(&target("127.0.0.1", address, None), &options).await.unwrap();
    let socket = socket2::SockRef::from(stream.tcp());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(1));
    assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(1));
    drop(listener);
}

#[tokio::test]
async fn a_name_with_two_families_reaches_a_server_on_one_of_them() {
    let (listener, address) = listener().await;
    let stream = dial(&target("localhost", address, None), &DialOptions::default()).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), address);
    drop(listener);
}

#[tokio::test]
async fn a_closed_port_is_refused_in_plain_words() {
    // Bound, so that nobody else takes the port meanwhile, but not listening.
    let bound = TcpSocket::new_v4().unwrap();
    bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = bound.local_addr().unwrap();
    let error = dial(&target("127.0.0.1", address, None), &DialOptions::default()).await.unwrap_err();
    assert!(matches!(error, DialError::Unreachable { .. }), "{error:?}");
    assert!(
        error.to_string().ends_with("127.0.0.1 refused (is the server running on this port?)"),
        "{error}"
    );
    assert_eq!(error.retry(), Retry::Backoff);
}

#[tokio::test]
async fn a_server_that_never_answers_the_handshake_meets_the_deadline() {
    let (listener, address) = listener().await;
    let options = DialOptions { timeout: Duration::from_millis(200), ..DialOptions::default() };
    let target = target("127.0.0.1", address, Some(ClientTls::public()));
    let error = dial(&target, &options).await.unwrap_err();
    assert!(error.to_string().contains("the TLS handshake"), "{error}");
    assert!(matches!(error, DialError::TimedOut { .. }), "{error:?}");
    drop(listener);
}

#[tokio::test]
async fn tls_is_trusted_by_its_ca_file_for_names_and_addresses() {
    let folder = folder("tls_is_trusted");
    let ca = folder.join("ca.pem");
    let authority = Authority::new("lab", &ca);
    for host in ["localhost", "127.0.0.1"] {
        let tls = ClientTls::with_ca_file(&ca).unwrap();
        assert!(tls.verifies());
        dial_tls(&folder, &authority.sign(host, NOW), host, tls).await.unwrap();
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_and_its_names_told() {
    let folder = folder("another_name");
    let ca = folder.join("ca.pem");
    let pair = Authority::new("lab", &ca).sign("other.example", NOW);
    let error =
        dial_tls(&folder, &pair, "localhost", ClientTls::with_ca_file(&ca).unwrap()).await.unwrap_err();
    assert!(matches!(error, DialError::CertificateName { .. }), "{error:?}");
    assert!(error.to_string().contains("other.example"), "{error}");
    assert_eq!(error.retry(), Retry::Backoff);
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused() {
    let folder = folder("unknown_authority");
    let pair = Authority::new("lab", &folder.join("ca.pem")).sign("localhost", NOW);
    let other = folder.join("other.pem");
    Authority::new("other", &other);
    for tls in [ClientTls::public(), ClientTls::with_ca_file(&other).unwrap()] {
        let error = dial_tls(&folder, &pair, "localhost", tls).await.unwrap_err();
        assert!(matches!(error, DialError::CertificateIssuer { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn certificates_out_of_their_time_point_at_the_clock() {
    let folder = folder("out_of_time");
    let ca = folder.join("ca.pem");
    let authority = Authority::new("lab", &ca);
    let tls = ClientTls::with_ca_file(&ca).unwrap();
    let over = dial_tls(&folder, &authority.sign("localhost", 2000..2001), "localhost", tls.clone()).await;
    let error = over.unwrap_err();
    assert!(matches!(error, DialError::CertificateExpired { days: Some(1..), .. }), "{error:?}");
    let early = dial_tls(&folder, &authority.sign("localhost", 2190..2200), "localhost", tls).await;
    let error = early.unwrap_err();
    assert!(matches!(error, DialError::CertificateNotYetValid { days: Some(1..), .. }), "{error:?}");
    assert!(error.to_string().contains("set the gateway's clock"), "{error}");
}

#[tokio::test]
async fn without_verification_any_certificate_will_do() {
    let folder = folder("without_verification");
    let pair = Authority::new("lab", &folder.join("ca.pem")).sign("other.example", 2000..2001);
    let tls = ClientTls::unverified();
    assert!(!tls.verifies());
    dial_tls(&folder, &pair, "localhost", tls).await.unwrap();
}

#[tokio::test]
async fn a_server_without_tls_is_recognised() {
    let (listener, address) = listener().await;
    let mut server = JoinSet::new();
    server.spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        tcp.read_to_end(&mut Vec::new()).await
    });
    let target = target("127.0.0.1", address, Some(ClientTls::unverified()));
    let error = dial(&target, &DialOptions::default()).await.unwrap_err();
    assert!(matches!(error, DialError::NotTls { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_hangs_up_in_the_handshake_is_told_so() {
    let (listener, address) = listener().await;
    let mut server = JoinSet::new();
    server.spawn(async move { drop(listener.accept().await.unwrap()) });
    let target = target("127.0.0.1", address, Some(ClientTls::unverified()));
    let error = dial(&target, &DialOptions::default()).await.unwrap_err();
    assert!(matches!(error, DialError::Handshake { .. }), "{error:?}");
}

#[test]
fn a_bad_ca_file_is_named_with_the_remedy() {
    let folder = folder("bad_ca");
    let missing = ClientTls::with_ca_file(&folder.join("none.pem")).unwrap_err();
    assert!(matches!(missing, TlsError::Read { .. }), "{missing:?}");
    assert!(missing.to_string().contains("none.pem"), "{missing}");
    let empty = folder.join("empty.pem");
    std::fs::write(&empty, "no PEM here\n").unwrap();
    let error = ClientTls::with_ca_file(&empty).unwrap_err();
    assert!(matches!(error, TlsError::NoCertificate { .. }), "{error:?}");
    std::fs::write(&empty, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let error = ClientTls::with_ca_file(&empty).unwrap_err();
    assert!(matches!(error, TlsError::Unusable { .. }), "{error:?}");
    std::fs::write(&empty, vec![b'\n'; (1 << 20) + 1]).unwrap();
    let error = ClientTls::with_ca_file(&empty).unwrap_err();
    assert!(matches!(error, TlsError::TooLong { .. }), "{error:?}");
}

/// Calls a controller over TLS that answers and closes, with or without saying goodbye.
async fn call_over_tls(ca: &Path, host: &str, acceptor: TlsAcceptor) -> Result<Vec<u8>, HttpCallError> {
    let (listener, address) = listener().await;
    let mut server = JoinSet::new();
    server.spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let Ok(mut stream) = acceptor.accept(tcp).await else { return };
        let mut request = [0; 4096];
        let len = stream.read(&mut request).await.unwrap();
        assert!(request[..len].starts_with(b"POST /publish HTTP/1.0\r\nHost: "));
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n{\"code\":\"ok\"}").await.unwrap();
        stream.flush().await.unwrap();
    });
    let call = HttpCall {
        method: "POST",
        host: host.to_owned(),
        port: address.port(),
        tls: Some(ClientTls::with_ca_file(ca).unwrap()),
        target: "/publish".to_owned(),
        headers: Vec::new(),
        body: b"{}".to_vec(),
        send_timeout: Duration::from_secs(10),
        read_timeout: Duration::from_secs(10),
        reply_max_bytes: 4095,
        until_close: false,
    };
    call.send().await.map(|reply| reply.body)
}

#[tokio::test]
async fn controllers_are_called_over_tls_and_must_be_who_they_say() {
    let folder = folder("controllers");
    let ca = folder.join("ca.pem");
    let authority = Authority::new("lab", &ca);
    for host in ["localhost", "127.0.0.1"] {
        let acceptor = acceptor(&folder, &authority.sign(host, NOW));
        assert_eq!(call_over_tls(&ca, host, acceptor).await.unwrap(), b"{\"code\":\"ok\"}");
    }
    let other = acceptor(&folder, &authority.sign("other.example", NOW));
    let refused = call_over_tls(&ca, "localhost", other).await;
    assert!(matches!(refused, Err(HttpCallError::Dial(DialError::CertificateName { .. }))), "{refused:?}");
}
