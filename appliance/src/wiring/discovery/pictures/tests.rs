//! What is kept and for how long, and who has a camera already.

use super::*;
use serde_json::json;

fn album() -> Album {
    let spawner = Spawner::start().unwrap();
    let (inspector, _inspecting) = Inspector::new(spawner.clone());
    Album::new(Eyes { inspector, encoders: Arc::new(Encoders::new(spawner.clone())), spawner })
}

fn wanted(id: &str) -> Wanted {
    Wanted { id: id.to_owned(), login: None, address: None }
}

fn with_login(id: &str) -> Wanted {
    let credentials = Credentials { user: "u".to_owned(), password: "p".to_owned() };
    Wanted { login: Some(CameraLogin { credentials, allow_basic: false }), ..wanted(id) }
}

#[tokio::test]
async fn a_camera_is_asked_once_for_all_who_look_and_again_after_a_while() {
    let (album, now) = (album(), Instant::now());
    let waiting = || album.inbox.try_lock().unwrap().len();
    assert_eq!(album.ask(wanted("a"), now), Ok(FoundPicture::Looking));
    assert_eq!(album.ask(wanted("a"), now), Ok(FoundPicture::Looking));
    assert_eq!(waiting(), 1, "asked for twice, taken once");
    let busy = album.ask(with_login("a"), now);
    assert_eq!(busy, Err(CameraError::Looking("a".to_owned())));

    let jpeg = Bytes::from_static(b"jpeg");
    album.keep("a".to_owned(), Ok(jpeg.clone()), now);
    let later = now + Duration::from_secs(5);
    let ready = FoundPicture::Ready { jpeg, age: Duration::from_secs(5) };
    assert_eq!(album.ask(wanted("a"), later), Ok(ready));
    assert_eq!(
        album.ask(with_login("a"), later),
        Ok(FoundPicture::Looking),
        "a login is a question of its own"
    );
    assert_eq!(waiting(), 2);
    album.keep("a".to_owned(), Err(CameraError::LoginWanted), later);
    assert_eq!(album.ask(wanted("a"), later), Err(CameraError::LoginWanted), "the answer is kept, too");
    assert_eq!(
        album.ask(wanted("a"), later + KEPT_FOR),
        Err(CameraError::LoginWanted),
        "for longer than others"
    );
    assert_eq!(album.ask(wanted("a"), later + CLOSED_FOR), Ok(FoundPicture::Looking));
    album.keep("a".to_owned(), Ok(Bytes::new()), later);
    assert_eq!(album.ask(wanted("a"), later + KEPT_FOR), Ok(FoundPicture::Looking));
    assert_eq!(waiting(), 4);
}

#[tokio::test]
async fn neither_those_that_wait_nor_those_that_are_kept_grow_without_end() {
    let (album, now) = (album(), Instant::now());
    for number in 0..WAITING {
        assert_eq!(album.ask(wanted(&number.to_string()), now), Ok(FoundPicture::Looking));
    }
    assert_eq!(album.ask(wanted("more"), now), Err(CameraError::ManyPictures(WAITING)));
    let mut inbox = album.inbox.lock().await;
    for number in 0..3 * KEPT {
        let id = format!("camera-{number}");
        if album.ask(wanted(&id), now).is_ok() {
            let at = now + Duration::from_millis(u64::try_from(number).unwrap());
            album.keep(id, Ok(Bytes::new()), at);
        }
        inbox.try_recv().ok();
    }
    assert_eq!(album.lock().len(), KEPT);
    assert!(album.lock().contains_key(&format!("camera-{}", 3 * KEPT - 1)), "the oldest go");
}

#[test]
fn a_camera_that_a_mountpoint_has_is_known_by_its_address_however_it_is_written() {
    let config: Config = serde_json::from_value(json!({"mountpoints": {
        "four": {"source": {"kind": "rtsp", "url": "rtsp://admin:c4n4ry@10.0.0.7:8554/main"}},
        "six": {"source": {"kind": "rtsp", "url": "rtsp://[fe80::7]/main"}},
        "pictures": {"source": {"kind": "mjpeg", "url": "http://10.0.0.8/video"}},
        "named": {"source": {"kind": "rtsp", "url": "rtsp://camera.example/main"}},
        "other": {"source": {"kind": "publish"}},
    }}))
    .unwrap();
    assert_eq!(names_of(&config), BTreeSet::from(["camera.example".to_owned()]));
    let named = BTreeMap::from([("camera.example".to_owned(), vec!["10.0.0.11".parse().unwrap()])]);
    let user = |address: &str| user_of_address(&config, &named, address.parse().unwrap());
    assert_eq!(user("10.0.0.11").as_deref(), Some("named"));
    assert_eq!(user("10.0.0.7").as_deref(), Some("four"));
    assert_eq!(user("fe80::7").as_deref(), Some("six"));
    assert_eq!(user("10.0.0.8").as_deref(), Some("pictures"));
    assert_eq!(user("10.0.0.9"), None);
}

#[tokio::test]
async fn a_name_that_the_machine_knows_leads_to_its_addresses() {
    let found = addresses_of(BTreeSet::from(["localhost".to_owned(), "nowhere.invalid".to_owned()])).await;
    assert!(
        found["localhost"].iter().all(IpAddr::is_loopback) && !found["localhost"].is_empty(),
        "{found:?}"
    );
    assert!(found["nowhere.invalid"].is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_camera_that_is_added_meanwhile_is_let_go() {
    let empty = Arc::new(Config::default());
    let (feed, config) = watch::channel(empty);
    let address = "10.0.0.7".parse().unwrap();
    let taking = within(
        used(config, |config| user_of_address(config, &BTreeMap::new(), address)),
        std::future::pending(),
    );
    let adding = async {
        tokio::task::yield_now().await;
        let config =
            json!({"mountpoints": {"gate": {"source": {"kind": "rtsp", "url": "rtsp://10.0.0.7/a"}}}});
        feed.send_replace(Arc::new(serde_json::from_value(config).unwrap()));
    };
    let (taken, ()) = tokio::join!(taking, adding);
    assert_eq!(taken, Err(CameraError::InUse("gate".to_owned())));
}
