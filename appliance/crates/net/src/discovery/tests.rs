//! Strangers that flood, claim and lie, on paper and over loopback.

use super::interfaces::Interface;
use super::table::{MAX_CAMERAS, MAX_PER_ADDRESS, MAX_RATE, RATE_WINDOW, Table};
use super::*;
use fieldgate_hub::{Clock, Logins};
use fieldgate_proto::dns_sd::Service;
use fieldgate_proto::http_auth::Credentials;
use fieldgate_proto::onvif::ServiceUrl;
use fieldgate_proto::onvif::ws_discovery::{self, Announcement, Kind};
use socket2::{Domain, Socket, Type};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn lan() -> Vec<Interface> {
    vec![Interface {
        name: "eth0".to_owned(),
        address: Ipv4Addr::new(10, 0, 0, 1),
        netmask: Ipv4Addr::new(255, 255, 0, 0),
    }]
}

fn announcement(endpoint: &str, xaddr: &str) -> Announcement {
    Announcement {
        kind: Kind::ProbeMatch,
        endpoint: endpoint.to_owned(),
        xaddrs: vec![xaddr.to_owned()],
        names: vec!["Gate".to_owned()],
        hardware: Some("FC-200".to_owned()),
        locations: Vec::new(),
        mac: None,
        is_onvif: true,
        relates_to: None,
    }
}

fn service(port: u16) -> Service {
    Service {
        instance: "Gate".to_owned(),
        kind: "_rtsp._tcp".to_owned(),
        port,
        addresses: Vec::new(),
        path: Some("/main".to_owned()),
        mac: None,
    }
}

#[test]
fn an_id_stays_where_it_was_until_it_is_forgotten_there() {
    let (mut table, now, lan) = (Table::default(), Instant::now(), lan());
    let (home, thief) = (ip("10.0.0.7"), ip("10.0.0.66"));
    table.announced(&announcement("abc", "http://10.0.0.7/x"), home, &lan, now);
    table.announced(&announcement("abc", "http://10.0.0.66/steal"), thief, &lan, now);
    let camera = table.get("onvif-abc").unwrap().clone();
    assert_eq!((camera.address, camera.other_addresses.as_slice()), (home, &[thief][..]));
    assert_eq!(camera.device.unwrap().to_string(), "http://10.0.0.7/x");
    let bye = Announcement { kind: Kind::Bye, ..announcement("abc", "") };
    table.announced(&bye, thief, &lan, now);
    assert!(!table.get("onvif-abc").unwrap().gone, "others cannot send it away");
    table.announced(&bye, home, &lan, now);
    assert!(table.get("onvif-abc").unwrap().gone);
    let later = now + Duration::from_secs(600);
    table.age(Duration::from_secs(600), later);
    table.announced(&announcement("abc", "http://10.0.0.66/x"), thief, &lan, later);
    assert_eq!(table.get("onvif-abc").unwrap().address, thief);
}

#[test]
fn a_service_address_of_another_machine_is_not_believed() {
    let (mut table, now) = (Table::default(), Instant::now());
    for (told, taken) in [
        ("http://127.0.0.1:8080/api/v1/config", "http://10.0.0.7/api/v1/config"),
        ("http://169.254.169.254/latest", "http://10.0.0.7/latest"),
        ("http://rebind.example/onvif", "http://10.0.0.7/onvif"),
        ("http://10.0.0.7:8899/onvif", "http://10.0.0.7:8899/onvif"),
    ] {
        table.announced(&announcement("abc", told), ip("10.0.0.7"), &lan(), now);
        assert_eq!(table.get("onvif-abc").unwrap().device.as_ref().unwrap().to_string(), taken);
    }
}

#[test]
fn floods_fill_their_share_and_are_counted() {
    let (mut table, now, lan) = (Table::default(), Instant::now(), lan());
    for number in 0..100 {
        table.announced(&announcement(&number.to_string(), ""), ip("10.0.0.7"), &lan, now);
    }
    assert_eq!(table.cameras().count(), MAX_PER_ADDRESS);
    for number in 0..1_000_u32 {
        let from = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0100 + number));
        table.announced(&announcement(&format!("n{number}"), ""), from, &lan, now);
    }
    assert_eq!(table.cameras().count(), MAX_CAMERAS);
    assert_eq!(table.refusals.no_room, 96 + 1_000 - (MAX_CAMERAS - MAX_PER_ADDRESS) as u64);
    let heard = (0..100).filter(|_| table.hears(ip("10.0.0.9"), &lan, now)).count();
    assert_eq!((heard, table.refusals.too_many), (MAX_RATE as usize, 100 - u64::from(MAX_RATE)));
    assert!(table.hears(ip("10.0.0.9"), &lan, now + RATE_WINDOW));
    assert!(!table.hears(ip("127.0.0.1"), &lan, now));
    assert!(!table.hears(ip("169.254.169.254"), &lan, now));
    assert_eq!(table.refusals.not_a_camera, 2);
}

#[test]
fn what_both_protocols_tell_is_one_camera() {
    let (mut table, now, lan, home) = (Table::default(), Instant::now(), lan(), ip("10.0.0.7"));
    table.offered(&service(8_554), home, &lan, now);
    assert!(table.get("address-10.0.0.7").is_some());
    table.announced(&announcement("abc", "http://10.0.0.7/x"), home, &lan, now);
    table.offered(&service(8_554), home, &lan, now);
    let all: Vec<_> = table.cameras().collect();
    assert_eq!((all.len(), all[0].id.as_str()), (1, "onvif-abc"));
    assert!(all[0].found_by.onvif && all[0].found_by.mdns && all[0].reachable);
    assert_eq!(all[0].hints, [StreamHint { port: 8_554, path: Some("/main".to_owned()) }]);
    let liar = Service { addresses: vec![ip("10.0.0.99")], ..service(1) };
    table.offered(&liar, home, &lan, now);
    assert_eq!((table.refusals.unasked, table.cameras().count()), (1, 1));
    table.announced(&announcement("far", ""), ip("192.168.1.64"), &lan, now);
    assert!(!table.get("onvif-far").unwrap().reachable, "another network than ours");
}

/// A socket that hears what is sent to the group on loopback, and its port.
fn group_member() -> (UdpSocket, u16) {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into()).unwrap();
    socket.join_multicast_v4(&ws_discovery::GROUP, &Ipv4Addr::LOCALHOST).unwrap();
    socket.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
    let socket = UdpSocket::from_std(socket.into()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

fn matches(endpoint: &str, relates_to: &str) -> String {
    format!(
        "<Envelope><Header><RelatesTo>urn:uuid:{relates_to}</RelatesTo></Header><Body><ProbeMatches><ProbeMatch>\
         <EndpointReference><Address>urn:uuid:{endpoint}</Address></EndpointReference>\
         <Types>dn:NetworkVideoTransmitter</Types><XAddrs>http://127.0.0.1:9/onvif</XAddrs>\
         </ProbeMatch></ProbeMatches></Body></Envelope>"
    )
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(Duration::from_secs(30), waiting).await.is_ok(), "{what}");
}

#[tokio::test]
async fn probes_find_who_answers_them_and_announcements_are_heard() {
    let (camera, port) = group_member();
    let answering = async {
        let mut buffer = [0; 4_096];
        loop {
            let (len, from) = camera.recv_from(&mut buffer).await.unwrap();
            let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
            let Some((_, id)) = text.split_once("<a:MessageID>urn:uuid:") else { continue };
            camera.send_to(matches("right", &id[..36]).as_bytes(), from).await.unwrap();
            camera.send_to(matches("wrong", &"0".repeat(36)).as_bytes(), from).await.unwrap();
            camera.send_to(b"<!DOCTYPE x><x/>", from).await.unwrap();
        }
    };
    let finder = Finder::default();
    let settings = FinderSettings {
        interfaces: vec!["lo".to_owned(), "no-such".to_owned()],
        mdns: false,
        onvif_port: port,
        ..FinderSettings::default()
    };
    let (_feed, settings) = watch::channel(settings);
    let cancel = CancellationToken::new();
    let looking = async {
        until("the camera is found", || finder.get("onvif-right").is_some()).await;
        until("the round ends", || !finder.state().searching).await;
        let state = finder.state();
        assert!(state.problems.iter().any(|problem| problem.contains("no-such")), "{:?}", state.problems);
        assert!(finder.get("onvif-wrong").is_none(), "an answer to a probe that was never sent");
        assert!(state.refusals.unasked > 0 && state.refusals.malformed > 0);
        assert_eq!(finder.get("onvif-right").unwrap().interface, "lo");
        let bye = "<Envelope><Body><Bye><EndpointReference><Address>uuid:RIGHT</Address></EndpointReference></Bye></Body></Envelope>";
        // The socket that hears is opened at the end of a round.
        until("the bye is heard", || {
            camera.try_send_to(bye.as_bytes(), SocketAddr::from((ws_discovery::GROUP, port))).ok();
            finder.get("onvif-right").unwrap().gone
        })
        .await;
        cancel.cancel();
    };
    let running = finder.run(settings, cancel.clone());
    tokio::select! {
        _ = async { tokio::join!(looking, running) } => {}
        () = answering => {}
    }
}

#[tokio::test]
async fn only_addresses_of_cameras_can_be_named_and_not_endlessly_many() {
    let finder = Finder::default();
    for address in ["127.0.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0", "::1"] {
        assert_eq!(finder.scan(&[ip(address)]), Err(FinderError::NotACamera(ip(address))));
    }
    let many: Vec<IpAddr> =
        (0..=MAX_NAMED as u32).map(|n| Ipv4Addr::from_bits(0x0a00_0100 + n).into()).collect();
    assert_eq!(finder.scan(&many), Err(FinderError::TooMany));
}

fn client() -> CameraClient {
    CameraClient::new(Logins::default(), Clock::default())
}

fn login() -> CameraLogin {
    let credentials = Credentials { user: "admin".to_owned(), password: "s3cret".to_owned() };
    CameraLogin { credentials, allow_basic: false }
}

/// A server that gives every connection the same bytes, then more of the last ones without end.
async fn survey_of(
    head: &str,
    endless: bool,
) -> (Result<fieldgate_proto::onvif::Camera, CameraClientError>, u32) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let device = ServiceUrl::device_service(ip("127.0.0.1"), listener.local_addr().unwrap().port());
    let (login, client) = (login(), client());
    let mut asked = 0;
    let serving = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            asked += 1;
            let mut request = [0; 4_096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(head.as_bytes()).await;
            while endless && stream.write_all(&[b'x'; 65_536]).await.is_ok() {}
        }
    };
    let surveyed = tokio::select! {
        surveyed = client.survey(device, Some(&login)) => surveyed,
        () = serving => unreachable!("it serves for ever"),
    };
    (surveyed, asked)
}

#[tokio::test]
async fn answers_without_end_are_cut_off() {
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: ",
    ] {
        let (surveyed, asked) = survey_of(head, true).await;
        let error = surveyed.unwrap_err().to_string();
        assert!(error.contains("no usable answer"), "{error}");
        assert!(asked <= 8, "{asked}");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let head = format!(
        "HTTP/1.1 302 Found\r\nLocation: http://{}/\r\nContent-Length: 0\r\n\r\n",
        elsewhere.local_addr().unwrap()
    );
    let (surveyed, _) = survey_of(&head, false).await;
    let gaps = format!("{:?}", surveyed.unwrap().gaps);
    assert!(gaps.contains("not followed"), "{gaps}");
    assert!(timeout(Duration::from_millis(50), elsewhere.accept()).await.is_err(), "nobody came");
}

#[tokio::test]
async fn a_camera_that_is_not_there_costs_no_try() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let client = client();
    for _ in 0..2 {
        let device = ServiceUrl::device_service(ip("127.0.0.1"), port);
        let error = client.survey(device, Some(&login())).await.unwrap_err();
        assert!(matches!(error, CameraClientError::Client(_)), "{error}");
    }
}
