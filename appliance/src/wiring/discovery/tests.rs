//! Configured cameras by name, and who may be asked.

use super::*;

fn credentials() -> Credentials {
    Credentials { user: "admin".to_owned(), password: "c4n4ry-pass".to_owned() }
}

#[tokio::test]
async fn a_name_that_leads_back_to_the_gateway_is_not_asked() {
    let cameras = Cameras::new(Clock::default());
    let error = cameras.reboot("localhost", &credentials()).await.unwrap_err();
    assert!(matches!(error, CameraHostError::Forbidden { .. }), "{error}");
    let error = cameras.profiles("no-such-name.invalid", &credentials()).await.unwrap_err();
    assert!(matches!(error, CameraHostError::Unknown(_)), "{error}");
    assert!(!format!("{error:?} {error}").contains("c4n4ry"));
}

#[tokio::test]
async fn cameras_that_are_not_there_are_told_from_those_that_have_no_login() {
    let cameras = Cameras::new(Clock::default());
    assert_eq!(
        cameras.reboot_found("onvif-x").await.unwrap_err(),
        CameraError::Unknown("onvif-x".to_owned())
    );
    assert!(matches!(
        cameras.scan(&["127.0.0.1".parse().unwrap()]),
        Err(CameraError::Address(text)) if text == "127.0.0.1 can be no camera's address"
    ));
}

#[test]
fn without_onvif_the_announced_path_comes_first_and_then_the_makers_habits() {
    let now = tokio::time::Instant::now();
    let found = Found {
        id: "address-10.0.0.7".to_owned(),
        found_by: fieldgate_net::FoundBy::default(),
        address: "10.0.0.7".parse().unwrap(),
        other_addresses: Vec::new(),
        interface: "eth0".to_owned(),
        reachable: true,
        names: Vec::new(),
        hardware: None,
        locations: Vec::new(),
        mac: None,
        device: None,
        hints: vec![
            fieldgate_net::StreamHint { port: 8_554, path: Some("live/main".to_owned()) },
            fieldgate_net::StreamHint { port: 8_554, path: Some("a\r\nb".to_owned()) },
        ],
        first_seen: now,
        last_seen: now,
        gone: false,
    };
    let urls: Vec<String> = candidates(&found).iter().map(ToString::to_string).collect();
    assert_eq!(urls[0], "rtsp://10.0.0.7:8554/live/main");
    assert_eq!(urls[1], "rtsp://10.0.0.7:8554/Streaming/Channels/101");
    assert!(urls.len() <= rtsp_probe::MAX_URLS);
}
