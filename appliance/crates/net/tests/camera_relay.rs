//! A camera behind TLS, reached through its relay.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod certificates;

use certificates::{Authority, NOW, folder, write_pair};
use fieldgate_net::{CameraRelay, CameraRelayError, ClientTls, DialOptions, ServerCertificates, Target};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A TLS server that sends back what it gets, and where it is.
async fn echo(pair: &(String, String), folder: &std::path::Path) -> (SocketAddr, JoinSet<()>) {
    let (cert, key) = write_pair(folder, pair);
    let acceptor = ServerCertificates::load(cert, key).unwrap().acceptor();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = JoinSet::new();
    server.spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(tcp).await else { continue };
            let (mut reader, mut writer) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        }
    });
    (address, server)
}

fn target(address: SocketAddr, tls: ClientTls) -> Target {
    Target { host: "localhost".to_owned(), port: address.port(), tls: Some(tls) }
}

async fn ping(address: SocketAddr) {
    let mut worker = TcpStream::connect(address).await.unwrap();
    worker.write_all(b"OPTIONS").await.unwrap();
    let mut answer = [0; 7];
    worker.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"OPTIONS");
}

#[tokio::test]
async fn bytes_pass_both_ways_and_after_two_connections_it_is_closed() {
    let folder = folder("relay");
    let ca = folder.join("ca.pem");
    let authority = Authority::new("relay test", &ca);
    let (address, _server) = echo(&authority.sign("localhost", NOW), &folder).await;
    let tls = ClientTls::with_ca_file(&ca).unwrap();
    let relay = CameraRelay::open(target(address, tls), DialOptions::default()).await.unwrap();
    let at = relay.address();
    assert!(at.ip().is_loopback());
    let mut running = JoinSet::new();
    running.spawn(relay.run());
    ping(at).await;
    ping(at).await;
    running.join_next().await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(at).await.is_err());
}

#[tokio::test]
async fn a_camera_whose_certificate_is_not_trusted_is_not_spoken_to() {
    let folder = folder("relay-untrusted");
    let authority = Authority::new("relay test", &folder.join("ca.pem"));
    let pair = authority.sign("localhost", NOW);
    let (address, _server) = echo(&pair, &folder).await;
    let refused = CameraRelay::open(target(address, ClientTls::public()), DialOptions::default()).await;
    let error = refused.unwrap_err();
    assert!(matches!(error, CameraRelayError::Dial(_)), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
    let relay = CameraRelay::open(target(address, ClientTls::unverified()), DialOptions::default()).await;
    relay.unwrap();
}
