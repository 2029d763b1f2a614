use super::*;

fn parse(text: &str) -> Result<RequestHead, HeadError> {
    let len = head_len(text.as_bytes()).unwrap_or(text.len());
    RequestHead::parse(&text.as_bytes()[..len])
}

const PUT: &str = "PUT /api/v1/config?dry_run HTTP/1.1\r\nHost: localhost:8080\r\nIf-Match: \"7\"\r\n\
    Content-Type: application/json\r\nContent-Length: 2\r\nX-Fieldgate-Peer: 1.2.3.4:5\r\nUser-Agent: a\r\nCookie: a=b\r\n\r\n";

#[test]
fn a_request_is_read_and_only_what_was_understood_is_written() {
    let head = parse(PUT).unwrap();
    assert_eq!((head.method, head.path(), head.content_len), (Method::Put, "/api/v1/config", 2));
    let written = String::from_utf8(head.write(&[("x-fieldgate-peer", "127.0.0.1:9")])).unwrap();
    assert_eq!(
        written,
        "PUT /api/v1/config?dry_run HTTP/1.1\r\nhost: localhost:8080\r\nconnection: close\r\n\
         content-length: 2\r\nif-match: \"7\"\r\ncontent-type: application/json\r\n\
         cookie: a=b\r\nx-fieldgate-peer: 127.0.0.1:9\r\n\r\n"
    );
}

#[test]
fn what_two_readers_could_understand_differently_is_refused() {
    let malformed = |text: &str| {
        let error = parse(text).expect_err(text);
        assert!(matches!(error.status(), 400 | 411), "{text:?}: {error}");
    };
    for headers in [
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: 3\r\nContent-Length: 3\r\n",
        "Content-Length: 3, 4\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: -3\r\n",
        "Content-Length: 0x3\r\n",
        "Content-Length:\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Content-Length : 3\r\n",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer_Encoding: a\r\n\tb\r\n",
        "A: b\r\n Content-Length: 3\r\n",
        "Host: other\r\n",
        "Bad\nName: x\r\n",
        "X: a\rb\r\n",
        "X: a\0b\r\n",
        "X: caf\u{e9}\r\n",
        ": empty\r\n",
        "no colon\r\n",
    ] {
        malformed(&format!("GET / HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"));
    }
    malformed("GET / HTTP/1.1\nHost: localhost\n\n");
    malformed("GET / HTTP/1.1\r\nHost: localhost\r\nX: y\n\r\n");
    malformed("GET / HTTP/1.1\r\nHost: localhost\r\n\n");
    malformed("GET / HTTP/1.1\r\n\r\n");
    malformed("GET / HTTP/1.1\r\nHost:\r\n\r\n");
    malformed("GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n");
    malformed("GET * HTTP/1.1\r\nHost: localhost\r\n\r\n");
    malformed("GET  / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    malformed("GET / HTTP/1.1 \r\nHost: localhost\r\n\r\n");
    malformed("GET /a#b HTTP/1.1\r\nHost: localhost\r\n\r\n");
}

#[test]
fn each_refusal_has_its_own_status() {
    let status = |text: &str| parse(text).expect_err(text).status();
    assert_eq!(status("BREW / HTTP/1.1\r\nHost: h\r\n\r\n"), 501);
    assert_eq!(status("get / HTTP/1.1\r\nHost: h\r\n\r\n"), 501);
    assert_eq!(status("GET / HTTP/2.0\r\nHost: h\r\n\r\n"), 505);
    assert_eq!(status("PUT / HTTP/1.1\r\nHost: h\r\nExpect: gold\r\n\r\n"), 417);
    assert_eq!(status(&format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(MAX_TARGET_LEN))), 414);
    let at_limit = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(MAX_TARGET_LEN - 1));
    assert!(parse(&at_limit).is_ok());
    let many = |count: usize| format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "A: b\r\n".repeat(count));
    assert_eq!(status(&many(MAX_HEADERS)), 431);
    assert!(parse(&many(MAX_HEADERS - 1)).is_ok());
    let long = |len: usize| format!("GET / HTTP/1.1\r\nHost: h\r\nA: {}\r\n\r\n", "b".repeat(len));
    assert_eq!(status(&long(MAX_HEAD_LEN)), 431);
    assert!(parse(&long(MAX_HEAD_LEN - 40)).is_ok());
}

#[test]
fn a_go_ahead_is_expected_only_for_a_body() {
    let head =
        parse("PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n").unwrap();
    assert!(head.expects_continue);
    let head = parse("PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n").unwrap();
    assert!(!head.expects_continue);
}

#[test]
fn the_end_is_found_wherever_the_bytes_were_cut() {
    for cut in 0..PUT.len() {
        assert_eq!(head_len(&PUT.as_bytes()[..cut]), None, "cut at {cut}");
    }
    assert_eq!(head_len(PUT.as_bytes()), Some(PUT.len()));
    assert_eq!(head_len(format!("{PUT}GET / HTTP/1.1\r\n\r\n").as_bytes()), Some(PUT.len()));
}

/// A bounded run of the fuzz target: mutations of good and bad requests from a fixed seed.
#[test]
fn any_bytes_are_survived() {
    let seeds: [&[u8]; 6] = [
        PUT.as_bytes(),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /api/v1/config/confirm HTTP/1.0\r\nhost: [::1]:80\r\norigin: http://[::1]:80\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 18446744073709551615\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
        b"\r\n\r\nGET / HTTP/1.1\n\n",
    ];
    let alphabet = b"\r\n\t :,\0\x7f\xff0aZ/*#?\"-";
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let mut understood = 0;
    for round in 0..60_000 {
        let mut bytes = seeds[round % seeds.len()].to_vec();
        for _ in 0..next(6) {
            let at = next(bytes.len());
            match next(4) {
                0 => bytes[at] = alphabet[next(alphabet.len())],
                1 => bytes.insert(at, alphabet[next(alphabet.len())]),
                2 => drop(bytes.remove(at)),
                _ => {
                    let to = at + next(bytes.len() - at).min(20);
                    let copy = bytes[at..to].to_vec();
                    let into = next(bytes.len());
                    bytes.splice(into..into, copy);
                }
            }
        }
        fuzz(&bytes);
        understood +=
            usize::from(head_len(&bytes).is_some_and(|len| RequestHead::parse(&bytes[..len]).is_ok()));
    }
    assert!(understood > 5_000, "mutations must not all be refused at once: {understood}");
}
