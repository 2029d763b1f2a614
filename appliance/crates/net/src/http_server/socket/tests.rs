use super::*;
use crate::ServerCertificates;
use crate::http_server::{HttpListener, HttpServerSettings};
use crate::limits::ConnectionLimits;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::client_async;
use tokio_util::sync::CancellationToken;

struct Bench {
    address: SocketAddr,
    cancel: CancellationToken,
    serving: JoinSet<std::io::Result<()>>,
    limits: ConnectionLimits,
}

/// Says everything back, and what was too long; `/no` opens nothing.
fn echo() -> SocketHandler {
    Arc::new(|request: HttpRequest| {
        Box::pin(async move {
            if request.target == "/no" {
                return Err(HttpAnswer { body: b"not you".to_vec(), ..HttpAnswer::empty(403) });
            }
            let task: SocketTask = Box::new(|mut socket: WebSocket| {
                Box::pin(async move {
                    while let Ok(Some(message)) = socket.next().await {
                        let is_last = message == SocketMessage::TooLong;
                        if socket.send(format!("{message:?}")).await.is_err() || is_last {
                            break;
                        }
                    }
                    socket.close().await;
                })
            });
            Ok(task)
        })
    })
}

fn start(tls: Option<tokio_rustls::TlsAcceptor>) -> Bench {
    let settings =
        HttpServerSettings { head_timeout: Duration::from_millis(500), ..HttpServerSettings::default() };
    let limits = ConnectionLimits::new(2, 2);
    let handler: crate::HttpHandler = Arc::new(|_| Box::pin(async { HttpAnswer::empty(404) }));
    let listener =
        HttpListener::bind("127.0.0.1:0".parse().unwrap(), settings, limits.clone(), handler).unwrap();
    let listener = listener.with_tls(tls).with_sockets(echo());
    let (address, cancel) = (listener.local_addr().unwrap(), CancellationToken::new());
    let mut serving = JoinSet::new();
    serving.spawn(listener.run(cancel.clone()));
    Bench { address, cancel, serving, limits }
}

impl Bench {
    async fn say(&self, text: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        hear(&mut stream).await
    }

    async fn stop(mut self) {
        self.cancel.cancel();
        self.serving.join_next().await.unwrap().unwrap().unwrap();
    }
}

async fn hear(stream: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    let reading = stream.read_to_end(&mut heard);
    tokio::time::timeout(Duration::from_secs(20), reading).await.expect("the server closes").ok();
    String::from_utf8_lossy(&heard).into_owned()
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>) -> Message {
    let next = tokio::time::timeout(Duration::from_secs(20), socket.next());
    next.await.expect("an answer").expect("not the end").unwrap()
}

#[tokio::test]
async fn messages_come_and_go_and_pings_are_answered() {
    let bench = start(None);
    let stream = TcpStream::connect(bench.address).await.unwrap();
    let (mut socket, response) = client_async(format!("ws://{}/yes", bench.address), stream).await.unwrap();
    assert_eq!(response.status(), 101);
    // One task answers for as long as the socket is there: longer than a request's head may take.
    tokio::time::sleep(Duration::from_millis(800)).await;
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(answer(&mut socket).await, Message::text("Text(\"hello\")"));
    socket.send(Message::binary(vec![1])).await.unwrap();
    assert_eq!(answer(&mut socket).await, Message::text("Binary(b\"\\x01\")"));
    socket.send(Message::Ping(Bytes::from_static(b"p"))).await.unwrap();
    assert_eq!(answer(&mut socket).await, Message::Pong(Bytes::from_static(b"p")));
    assert_eq!(bench.limits.counts().open, 1, "it counts as a connection");
    socket.send(Message::text("a".repeat(MESSAGE_BYTES))).await.unwrap();
    assert!(answer(&mut socket).await.len() > MESSAGE_BYTES);
    socket.send(Message::text("a".repeat(MESSAGE_BYTES + 1))).await.unwrap();
    assert_eq!(answer(&mut socket).await, Message::text("TooLong"));
    bench.stop().await;
}

#[tokio::test]
async fn who_asks_in_the_wrong_way_gets_no_socket() {
    let bench = start(None);
    let ask = |target: &str, rest: &str| {
        format!(
            "GET {target} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: close, Upgrade\r\n{rest}\r\n"
        )
    };
    let whole = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let refused = bench.say(&ask("/no", whole)).await;
    assert!(refused.starts_with("HTTP/1.1 403") && refused.ends_with("not you"), "{refused}");
    let version = bench.say(&ask("/yes", &whole.replace("13", "8"))).await;
    assert!(
        version.starts_with("HTTP/1.1 426") && version.contains("sec-websocket-version: 13"),
        "{version}"
    );
    for bad in ["Sec-WebSocket-Version: 13\r\n", "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n"]
    {
        assert!(bench.say(&ask("/yes", bad)).await.starts_with("HTTP/1.1 400"), "{bad}");
    }
    // No socket is asked for.
    let plain = bench.say("GET /yes HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(plain.starts_with("HTTP/1.1 404"), "{plain}");
    // One that does not end its question is not waited for.
    assert_eq!(bench.say("GET /yes HTTP/1.1\r\nHost: a\r\nUpgrade: webso").await, "");
    bench.stop().await;
}

#[tokio::test]
async fn a_handshake_that_hangs_holds_no_place() {
    let folder = std::env::temp_dir().join(format!("fieldgate-net-socket-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (folder.join("c.pem"), folder.join("k.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let certificates = ServerCertificates::load(&cert, &key).unwrap();
    let bench = start(Some(certificates.acceptor()));
    let (mut one, mut two) =
        (TcpStream::connect(bench.address).await.unwrap(), TcpStream::connect(bench.address).await.unwrap());
    assert_eq!((hear(&mut one).await, hear(&mut two).await), (String::new(), String::new()));
    // Both places are free again.
    let plain = bench.say("GET / HTTP/1.1\r\n\r\n").await;
    assert!(!plain.contains("HTTP"), "it is TLS or nothing: {plain}");
    bench.stop().await;
    std::fs::remove_dir_all(folder).unwrap();
}

fn call(address: SocketAddr, target: &str) -> SocketCall {
    SocketCall {
        server: Target { host: address.ip().to_string(), port: address.port(), tls: None },
        target: target.to_owned(),
        headers: vec![("x-control-auth-token", "t".to_owned())],
        within: Duration::from_secs(20),
        message_bytes: MESSAGE_BYTES,
    }
}

async fn next(socket: &mut WebSocket) -> Option<SocketMessage> {
    tokio::time::timeout(Duration::from_secs(20), socket.next()).await.expect("an answer").unwrap()
}

#[tokio::test]
async fn a_client_talks_and_is_told_why_it_may_not() {
    let bench = start(None);
    let mut socket = call(bench.address, "/yes").open().await.unwrap();
    socket.send("hello".to_owned()).await.unwrap();
    assert_eq!(next(&mut socket).await, Some(SocketMessage::Text("Text(\"hello\")".to_owned())));
    socket.close().await;
    let refused = call(bench.address, "/no").open().await.err().unwrap();
    assert_eq!(refused.to_string(), "the server answers 403: not you");
    let mut bad = call(bench.address, "/yes");
    bad.headers = vec![("x-a", "a\r\nb: c".to_owned())];
    assert!(matches!(bad.open().await.err(), Some(SocketCallError::Malformed)));
    bench.stop().await;
}

#[tokio::test]
async fn a_client_gives_up_on_servers_that_hang_or_speak_something_else() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut within = call(address, "/");
    within.within = Duration::from_millis(500);
    let hung = within.open().await.err().unwrap();
    assert!(matches!(hung, SocketCallError::Timeout(_)), "{hung}");
    let garbage =
        ["SSH-2.0-x\r\n\r\n", "HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\n\r\n", &"x".repeat(1 << 20)];
    for said in garbage {
        let serving = async {
            // The one that hung is still in the queue.
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(said.as_bytes()).await.ok();
            }
        };
        let asking = call(address, "/");
        tokio::select! {
            never = serving => never,
            opened = asking.open() => assert!(opened.is_err(), "{:.20}", said),
        }
    }
}
