use super::*;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// The head of a picture of 352 x 288.
const JPEG: &[u8] =
    b"\xff\xd8\xff\xe0\x00\x04JF\xff\xc0\x00\x0b\x08\x01\x20\x01\x60\x01\x01\x11\x00\xff\xda\xff\xd9";

/// A camera that answers each request, whatever it is, with the next of these; `None` hangs.
struct Fake {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    async fn new(answers: Vec<Option<Vec<u8>>>) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        tokio::task::spawn_local(async move {
            let mut answers = answers.into_iter();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                loop {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_) => break,
                        }
                    }
                    if head.is_empty() {
                        break;
                    }
                    seen.lock().unwrap().push(String::from_utf8(head).unwrap());
                    let Some(Some(answer)) = answers.next() else { return std::future::pending().await };
                    stream.write_all(&answer).await.unwrap();
                    if answer.windows(17).any(|text| text == b"Connection: close") {
                        break;
                    }
                }
            }
        });
        Fake { address, requests }
    }

    fn camera(&self) -> JpegCamera {
        let target = Target { host: self.address.ip().to_string(), port: self.address.port(), tls: None };
        JpegCamera {
            target,
            path: "/video.mjpg?q=1".into(),
            credentials: Some(Credentials { user: "u".into(), password: "hush".into() }),
            allow_basic: false,
            fetch: JpegFetch::Stream,
            stall_timeout: Duration::from_secs(20),
        }
    }

    async fn run(&self, change: impl FnOnce(&mut JpegCamera)) -> (Vec<Bytes>, String) {
        let mut camera = self.camera();
        change(&mut camera);
        let mut pictures = Vec::new();
        let error = camera
            .run(|picture| {
                assert_eq!((picture.width, picture.height), (352, 288));
                pictures.push(picture.bytes);
            })
            .await;
        (pictures, error.to_string())
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn answer(head: &str, body: &[u8]) -> Option<Vec<u8>> {
    Some([format!("HTTP/1.1 {head}\r\n\r\n").as_bytes(), body].concat())
}

fn stream(pictures: usize) -> Option<Vec<u8>> {
    let part = [b"--b\r\nContent-Type: image/jpeg\r\n\r\n", JPEG, b"\r\n"].concat();
    let mut body = part.repeat(pictures);
    body.extend_from_slice(b"--b--\r\n");
    answer("200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=b\r\nConnection: close", &body)
}

fn local<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        timeout(Duration::from_secs(60), test).await.expect("it ends");
    });
}

#[test]
fn a_stream_gives_its_pictures_and_its_end() {
    local(async {
        let fake = Fake::new(vec![stream(3)]).await;
        let (pictures, error) = fake.run(|_| ()).await;
        assert_eq!(pictures, [JPEG, JPEG, JPEG]);
        assert!(error.contains("ended the stream"), "{error}");
        let request = &fake.requests()[0];
        assert!(request.starts_with("GET /video.mjpg?q=1 HTTP/1.1\r\n"), "{request}");
        assert!(!request.to_ascii_lowercase().contains("authorization"), "only when asked: {request}");
    });
}

#[test]
fn a_login_is_proven_once_and_a_wrong_one_is_not_repeated() {
    local(async {
        let demand = || {
            answer(
                "401 No\r\nWWW-Authenticate: Digest realm=\"c\", nonce=\"n\", qop=\"auth\"\r\nContent-Length: 2\r\nConnection: close",
                b"no",
            )
        };
        let fake = Fake::new(vec![demand(), stream(1)]).await;
        let (pictures, _) = fake.run(|_| ()).await;
        assert_eq!((pictures.len(), fake.requests().len()), (1, 2));
        assert!(fake.requests()[1].contains("nc=00000001"), "{:?}", fake.requests());

        let fake = Fake::new(vec![demand(), demand(), stream(1)]).await;
        let (pictures, error) = fake.run(|_| ()).await;
        assert_eq!((pictures.len(), fake.requests().len()), (0, 2));
        assert!(error.contains("user name or password refused") && !error.contains("hush"), "{error}");
    });
}

#[test]
fn a_password_goes_in_plain_text_only_where_it_may() {
    local(async {
        let demand = || answer("401 No\r\nWWW-Authenticate: Basic realm=\"c\"\r\nContent-Length: 0", b"");
        let fake = Fake::new(vec![demand()]).await;
        let (_, error) = fake.run(|_| ()).await;
        assert!(error.contains("plain text"), "{error}");
        assert_eq!(fake.requests().len(), 1);

        let fake = Fake::new(vec![demand(), stream(1)]).await;
        let (pictures, _) = fake.run(|camera| camera.allow_basic = true).await;
        assert_eq!(pictures.len(), 1);
        assert!(fake.requests()[1].contains("Basic dTpodXNo"), "{:?}", fake.requests());
    });
}

#[test]
fn single_pictures_are_fetched_over_one_connection_or_many() {
    local(async {
        let picture = |extra: &str| {
            answer(
                &format!("200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {}{extra}", JPEG.len()),
                JPEG,
            )
        };
        let answers = vec![
            picture(""),
            picture("\r\nConnection: close"),
            picture(""),
            answer("404 Gone\r\nContent-Length: 0", b""),
        ];
        let fake = Fake::new(answers).await;
        let every = |camera: &mut JpegCamera| camera.fetch = JpegFetch::Every(Duration::from_millis(1));
        let (pictures, error) = fake.run(every).await;
        assert_eq!(pictures.len(), 3);
        assert!(error.contains("404"), "{error}");
    });
}

#[test]
fn what_is_no_camera_is_told_apart() {
    local(async {
        let every = |camera: &mut JpegCamera| camera.fetch = JpegFetch::Every(Duration::from_millis(1));
        for (answers, single, expected) in [
            (answer("200 OK\r\nContent-Type: text/html\r\nContent-Length: 2", b"hi"), false, "text/html"),
            (answer("200 OK\r\nContent-Type: text/html\r\nContent-Length: 2", b"hi"), true, "no JPEG"),
            (answer("200 OK\r\nContent-Length: 9999999999", b"hi"), true, "no picture within"),
            (
                answer("200 OK\r\nConnection: close", &vec![0xff; PICTURE_MAX + 1]),
                true,
                "longer than 4194304",
            ),
            (Some(b"hello\r\n\r\n".to_vec()), false, "HTTP server"),
            (Some([b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'x'; 1 << 17]].concat()), false, "HTTP server"),
            (None, false, "no picture within"),
        ] {
            let fake = Fake::new(vec![answers]).await;
            let (pictures, error) = fake
                .run(|camera| {
                    camera.stall_timeout = Duration::from_millis(300);
                    if single {
                        every(camera);
                    }
                })
                .await;
            assert!(pictures.is_empty() && error.contains(expected), "{expected}: {error}");
        }
    });
}

#[test]
fn a_picture_that_claims_to_be_huge_ends_the_stream() {
    local(async {
        let mut huge = JPEG.to_vec();
        let at = huge.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        huge[at + 5..at + 9].copy_from_slice(&[0xea, 0x60, 0xea, 0x60]);
        let head = format!("200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {}", huge.len());
        let fake = Fake::new(vec![answer(&head, &huge)]).await;
        let every = |camera: &mut JpegCamera| camera.fetch = JpegFetch::Every(Duration::from_millis(1));
        let (pictures, error) = fake.run(every).await;
        assert!(pictures.is_empty() && error.contains("60000x60000 is larger"), "{error}");
    });
}

#[test]
fn a_stream_without_pictures_is_given_up() {
    local(async {
        let body = b"--b\r\nContent-Length: 2\r\n\r\nhi\r\n".repeat(20);
        let head = "200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=b";
        let fake = Fake::new(vec![answer(head, &body)]).await;
        assert!(fake.run(|_| ()).await.1.contains("no JPEG"));
    });
}
