use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

struct Bench {
    address: SocketAddr,
    cancel: CancellationToken,
    serving: JoinSet<io::Result<()>>,
}

fn quick() -> HttpServerSettings {
    HttpServerSettings {
        body_bytes: 1000,
        head_timeout: Duration::from_millis(300),
        body_timeout: Duration::from_millis(300),
        ..HttpServerSettings::default()
    }
}

/// Answers with what it was asked; `/slow` takes a while.
fn echo() -> HttpHandler {
    Arc::new(|request: HttpRequest| {
        Box::pin(async move {
            if request.target == "/slow" {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            let body = format!("{} {} {}", request.method, request.target, request.body.len());
            let headers = vec![
                ("content-type".to_owned(), "text/plain".to_owned()),
                ("bad name".to_owned(), "x".to_owned()),
                ("x-bad".to_owned(), "a\r\nb: c".to_owned()),
            ];
            HttpAnswer { status: 201, headers, body: body.into_bytes() }
        })
    })
}

fn start(settings: HttpServerSettings, limits: ConnectionLimits) -> Bench {
    let listener = HttpListener::bind("127.0.0.1:0".parse().unwrap(), settings, limits, echo()).unwrap();
    let (address, cancel) = (listener.local_addr().unwrap(), CancellationToken::new());
    let token = cancel.clone();
    let mut serving = JoinSet::new();
    serving.spawn(listener.run(token));
    Bench { address, cancel, serving }
}

impl Bench {
    async fn open(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes on a connection of its own; all that comes until the server closes.
    async fn say(&self, bytes: &[u8]) -> String {
        let mut stream = self.open().await;
        stream.write_all(bytes).await.ok();
        hear(&mut stream).await
    }
}

/// All that comes until the peer closes, which it must do within a generous time.
async fn hear(stream: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    let reading = stream.read_to_end(&mut heard);
    // A reset after the last bytes is a close, too.
    tokio::time::timeout(Duration::from_secs(20), reading).await.expect("the server closes").ok();
    String::from_utf8_lossy(&heard).into_owned()
}

fn many() -> ConnectionLimits {
    ConnectionLimits::new(64, 64)
}

#[tokio::test]
async fn a_request_is_handed_on_whole_and_its_answer_sent() {
    let bench = start(HttpServerSettings::default(), many());
    let heard = bench
        .say(b"POST /a/b?c=%20d HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        .await;
    assert!(heard.starts_with("HTTP/1.1 201 "), "{heard}");
    assert!(heard.ends_with("\r\n\r\nPOST /a/b?c=%20d 5"), "{heard}");
    assert!(heard.contains("content-length: 18") && !heard.contains("bad"), "{heard}");
    let chunked = b"DELETE /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    assert!(bench.say(chunked).await.ends_with("DELETE /x 3"));
    let old = bench.say(b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 201 ") && old.ends_with("GET / 0"), "{old}");
}

#[tokio::test]
async fn one_connection_serves_several_requests_and_is_closed_when_idle() {
    let bench = start(quick(), many());
    let mut stream = bench.open().await;
    for _ in 0..3 {
        stream.write_all(b"GET /one HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    }
    let heard = hear(&mut stream).await;
    assert_eq!(heard.matches("GET /one 0").count(), 3, "{heard}");
}

#[tokio::test]
async fn a_slow_or_silent_head_is_given_up() {
    let bench = start(quick(), many());
    assert!(!bench.say(b"").await.contains(" 201 "));
    assert!(!bench.say(b"GET / HT").await.contains(" 201 "));
    let mut stream = bench.open().await;
    let dripping = async {
        for byte in b"GET / HTTP/1.1\r\nHost: x\r\n".iter().cycle() {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), dripping).await.expect("the server closes");
}

#[tokio::test]
async fn a_slow_body_is_given_up() {
    let bench = start(quick(), many());
    let heard = bench.say(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc").await;
    assert!(heard.starts_with("HTTP/1.1 408 "), "{heard}");
}

#[tokio::test]
async fn a_body_at_the_limit_is_taken_and_one_byte_more_is_not() {
    let bench = start(quick(), many());
    let post = |len: usize| {
        let head =
            format!("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n");
        [head.into_bytes(), vec![b'x'; len]].concat()
    };
    assert!(bench.say(&post(1000)).await.ends_with("POST / 1000"));
    assert!(bench.say(&post(1001)).await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test]
async fn a_head_that_is_too_long_or_no_http_is_refused() {
    let bench = start(quick(), many());
    let long = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &vec![b'x'; 20 << 10], b"\r\n\r\n"].concat();
    let heard = bench.say(&long).await;
    assert!(!heard.contains(" 201 "), "{heard}");
    let many_headers = [b"GET / HTTP/1.1\r\n".to_vec(), b"A: b\r\n".repeat(65), b"\r\n".to_vec()].concat();
    assert!(!bench.say(&many_headers).await.contains(" 201 "));
    for bad in
        [&b"\x16\x03\x01\x00\x05hello"[..], b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0\0\0\0\r\n\r\n"]
    {
        assert!(!bench.say(bad).await.contains(" 201 "), "{bad:?}");
    }
    let twice = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde";
    assert!(!bench.say(twice).await.contains(" 201 "));
    assert!(bench.say(b"GET / HTTP/1.0\r\n\r\n").await.contains(" 201 "), "it serves others still");
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_at_once() {
    let limits = ConnectionLimits::new(64, 2);
    let bench = start(HttpServerSettings::default(), limits.clone());
    let (mut one, _two) = (bench.open().await, bench.open().await);
    while limits.counts().open < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.say(b"").await, "");
    assert_eq!(limits.counts().refused_per_address, 1);
    one.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(hear(&mut one).await.ends_with("GET / 0"));
}

#[tokio::test]
async fn a_stop_lets_a_request_under_way_be_answered() {
    let mut bench = start(HttpServerSettings::default(), many());
    let (mut busy, mut idle) = (bench.open().await, bench.open().await);
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    bench.cancel.cancel();
    assert!(hear(&mut busy).await.ends_with("GET /slow 0"));
    assert_eq!(hear(&mut idle).await, "");
    bench.serving.join_next().await.unwrap().unwrap().unwrap();
}
