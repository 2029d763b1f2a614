use super::*;
use std::future::Future;
use tokio::net::{TcpListener, TcpStream};

fn call(port: u16) -> HttpCall {
    HttpCall {
        method: "POST",
        host: "127.0.0.1".into(),
        port,
        tls: None,
        target: "/connect?x=1".into(),
        headers: vec![("X-Fieldgate-Test".into(), "abc".into())],
        body: br#"{"event_type":"connect"}"#.to_vec(),
        send_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_secs(5),
        reply_max_bytes: 4095,
        until_close: false,
    }
}

/// Lets `serve` have the connection while `adapt`'s call is made; what the call came to and what `serve` returned.
async fn against<T, Fut: Future<Output = T>>(
    adapt: impl FnOnce(&mut HttpCall),
    serve: impl FnOnce(TcpStream) -> Fut,
) -> (Result<HttpReply, HttpCallError>, T) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut call = call(listener.local_addr().unwrap().port());
    adapt(&mut call);
    let serving = async { serve(listener.accept().await.unwrap().0).await };
    tokio::join!(call.send(), serving)
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if text.ends_with('}') {
            return text;
        }
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0);
    }
}

/// Reads the request, answers with these bytes and closes.
async fn answer(mut stream: TcpStream, reply: Vec<u8>) -> String {
    let request = read_request(&mut stream).await;
    // A client that has heard enough may have closed.
    stream.write_all(&reply).await.ok();
    request
}

/// As [`answer`], and holds the connection open until the peer closes.
async fn answer_and_hold(mut stream: TcpStream, reply: &[u8]) {
    read_request(&mut stream).await;
    stream.write_all(reply).await.unwrap();
    // Nothing, or its end.
    let _ = stream.read(&mut [0; 16]).await;
}

const OK: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"code\":\"ok\"}";

#[tokio::test]
async fn the_request_is_the_recorded_one_byte_for_byte() {
    let (reply, request) = against(|_| (), |stream| answer(stream, OK.to_vec())).await;
    assert_eq!(
        request,
        "POST /connect?x=1 HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
         Connection: Close\r\nContent-Length: 24\r\nX-Fieldgate-Test: abc\r\n\r\n{\"event_type\":\"connect\"}"
    );
    let reply = reply.unwrap();
    assert_eq!((reply.status, reply.content_type.as_deref()), (200, Some("application/json")));
    assert_eq!(reply.body, br#"{"code":"ok"}"#);
}

#[tokio::test]
async fn a_reply_is_complete_by_its_length_while_the_controller_keeps_the_connection() {
    let (reply, ()) = against(|_| (), |stream| answer_and_hold(stream, OK)).await;
    assert_eq!(reply.unwrap().body, br#"{"code":"ok"}"#);
}

#[tokio::test]
async fn in_the_old_way_a_reply_is_complete_only_at_the_close() {
    let old = |call: &mut HttpCall| {
        call.until_close = true;
        call.read_timeout = Duration::from_millis(200);
    };
    let (reply, ()) = against(old, |stream| answer_and_hold(stream, OK)).await;
    assert!(matches!(reply, Err(HttpCallError::ReadTimeout(_))), "{reply:?}");
    let (reply, _) = against(|call| call.until_close = true, |stream| answer(stream, OK.to_vec())).await;
    assert_eq!(reply.unwrap().body, br#"{"code":"ok"}"#);
}

#[tokio::test]
async fn without_a_length_the_close_ends_the_body() {
    let reply = b"HTTP/1.0 200 OK\r\ncontent-type: application/json; x\r\n\r\n{}".to_vec();
    let (reply, _) = against(|_| (), |stream| answer(stream, reply)).await;
    let reply = reply.unwrap();
    assert_eq!((reply.body, reply.content_type), (b"{}".to_vec(), Some("application/json; x".into())));
}

#[tokio::test]
async fn chunks_are_joined() {
    let reply =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n";
    let (reply, ()) = against(|_| (), |stream| answer_and_hold(stream, reply)).await;
    assert_eq!(reply.unwrap().body, br#"{"a":1}"#);
}

#[test]
fn bad_chunks_are_told_from_unfinished_ones() {
    assert_eq!(unchunk(b"3\r\nab").unwrap(), None);
    assert_eq!(unchunk(b"3\r\nabc").unwrap(), None);
    assert_eq!(unchunk(b"3\r\nabc\r\n").unwrap(), None);
    for bad in [&b"\r\n"[..], b"x\r\n", b"-1\r\nabc\r\n", b"3\r\nabcde\r\n", b"123456789\r\n"] {
        assert!(matches!(unchunk(bad), Err(HttpCallError::Framing(_))), "{bad:?}");
    }
    assert!(unchunk(&[b'0'; 300]).is_err());
}

#[tokio::test]
async fn a_reply_at_the_limit_is_taken_and_one_byte_more_is_not() {
    let of_len = |len: usize| {
        let head = "HTTP/1.1 200 OK\r\n\r\n";
        [head.as_bytes(), &vec![b'x'; len - head.len()]].concat()
    };
    let (reply, _) = against(|_| (), |stream| answer(stream, of_len(4095))).await;
    assert!(reply.is_ok());
    let (reply, _) = against(|_| (), |stream| answer(stream, of_len(4096))).await;
    assert!(matches!(reply, Err(HttpCallError::TooLong(4095))));
    let promise = b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n".to_vec();
    let (reply, _) = against(|_| (), |stream| answer(stream, promise)).await;
    assert!(matches!(reply, Err(HttpCallError::TooLong(_))), "told before it is read");
}

#[tokio::test]
async fn an_endless_reply_ends_at_the_limit() {
    let endless = |mut stream: TcpStream| async move {
        read_request(&mut stream).await;
        let head = b"HTTP/1.1 200 OK\r\n\r\n";
        stream.write_all(head).await.unwrap();
        while stream.write_all(&[b'x'; 1024]).await.is_ok() {}
    };
    let (reply, ()) = against(|_| (), endless).await;
    assert!(matches!(reply, Err(HttpCallError::TooLong(_))));
    let endless_head = |mut stream: TcpStream| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        while stream.write_all(b"A: b\r\n").await.is_ok() {}
    };
    let (reply, ()) = against(|_| (), endless_head).await;
    assert!(matches!(reply, Err(HttpCallError::TooLong(_) | HttpCallError::NotHttp(_))), "{reply:?}");
}

#[tokio::test]
async fn a_drop_at_a_time_does_not_stretch_the_deadline() {
    let slow = |mut stream: TcpStream| async move {
        read_request(&mut stream).await;
        for byte in OK.iter().cycle() {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let hasty = |call: &mut HttpCall| call.read_timeout = Duration::from_millis(200);
    let (reply, ()) = against(hasty, slow).await;
    assert!(matches!(reply, Err(HttpCallError::ReadTimeout(_))));
}

#[tokio::test]
async fn what_is_cut_short_or_no_http_is_no_reply() {
    for (bytes, truncated) in [
        (&b""[..], true),
        (b"HTTP/1.1 200", true),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", true),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", true),
        (b"SSH-2.0-OpenSSH_9\r\n", false),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nabc", false),
        (b"\x16\x03\x01\x02\x00", false),
    ] {
        let (reply, _) = against(|_| (), |stream| answer(stream, bytes.to_vec())).await;
        let error = reply.unwrap_err();
        assert_eq!(matches!(error, HttpCallError::Truncated), truncated, "{bytes:?}: {error}");
    }
}

#[tokio::test]
async fn a_peer_that_takes_nothing_ends_the_sending() {
    let big = |call: &mut HttpCall| {
        call.body = vec![b'x'; 32 << 20];
        call.send_timeout = Duration::from_millis(300);
    };
    let (reply, _stream) = against(big, |stream| async move { stream }).await;
    assert!(matches!(reply, Err(HttpCallError::SendTimeout(_))), "{reply:?}");
}

#[tokio::test]
async fn a_refused_connection_is_an_error_of_its_own() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    assert!(matches!(call(port).send().await, Err(HttpCallError::Dial(_))));
}

#[tokio::test]
async fn a_request_that_would_break_apart_is_not_sent() {
    let mut broken = Vec::new();
    for target in ["", "x", "/a b", "/a\r\nX: y"] {
        broken.push(HttpCall { target: target.into(), ..call(1) });
    }
    for (name, value) in [("", "v"), ("a b", "v"), ("a:b", "v"), ("a", "v\r\nb: c")] {
        broken.push(HttpCall { headers: vec![(name.into(), value.into())], ..call(1) });
    }
    for call in broken {
        assert!(matches!(call.send().await, Err(HttpCallError::Malformed(_))), "{call:?}");
    }
}
