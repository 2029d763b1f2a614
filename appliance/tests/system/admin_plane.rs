//! The admin plane as strangers, programs and browsers meet it.

use crate::common::gateway::Gateway;
use crate::common::http;
use crate::common::process::Process;
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

fn gateway() -> Gateway {
    Gateway::start(json!({
        "admin": {"listen": ["127.0.0.1:0"], "tls": {"listen": ["127.0.0.1:0"], "reload_interval": "1s"}},
        "mountpoints": {"yard": {
            "source": {"kind": "publish", "key": "CANARY-publish"},
            "play": {"key": "CANARY-play"},
            // Nobody listens there.
            "push": [{"id": "up", "url": "rtmp://user:CANARY-url@127.0.0.1:9/live/yard"}],
        }},
    }))
}

/// What an answer should look like at this place of the document.
fn check(document: &Value, method: &str, path: &str, answer: &http::Response) {
    let responses = &document["paths"][path][method.to_ascii_lowercase()]["responses"];
    assert!(responses.is_object(), "{method} {path} is not in the document");
    let told = responses.get(answer.status.to_string()).unwrap_or(&responses["default"]);
    let told = match told["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => told,
    };
    let Some(content) = told.get("content") else {
        assert!(answer.body.is_empty(), "{method} {path} {}: a body", answer.status);
        return;
    };
    let kind = answer.header("content-type").unwrap().split(';').next().unwrap().to_owned();
    let schema =
        content[&kind].get("schema").unwrap_or_else(|| panic!("{method} {path}: {kind} is not told"));
    if !kind.ends_with("json") {
        return;
    }
    let whole = json!({"allOf": [schema], "components": document["components"]});
    let validator = jsonschema::validator_for(&whole).unwrap();
    let value = answer.json();
    let problems: Vec<String> =
        validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(problems.is_empty(), "{method} {path} {}: {problems:#?}\n{}", answer.status, answer.text());
}

#[test]
fn what_is_answered_has_the_shape_that_the_document_says() {
    let gateway = gateway();
    let document = gateway.get("/api/v1/openapi.json").json();
    let mut asked = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        if path.ends_with("/stream") {
            // They do not end.
            continue;
        }
        let real = path.replace("{name}", "yard").replace("{revision}", "1").replace("{id}", "none");
        if operations.get("get").is_some() {
            check(&document, "GET", path, &gateway.get(&real));
            asked += 1;
        }
        for method in ["put", "post", "patch", "delete"] {
            // Nothing here is what it should be: each answer is a refusal, and has the shape of one.
            let has_body = !path.ends_with("/certificate") && !path.ends_with("/restart");
            if operations.get(method).is_some() && has_body {
                let method = method.to_ascii_uppercase();
                let answer =
                    gateway.request(&method, &real, &[("Content-Type", "text/odd")], b"{\"odd\": 1}");
                // What is not there is gone.
                let is_gone = ["/api/v1/session", "/api/v1/update/upload"].contains(&path.as_str());
                if !(method == "DELETE" && is_gone) {
                    assert!((400..500).contains(&answer.status), "{method} {path}: {}", answer.status);
                }
                check(&document, &method, path, &answer);
                asked += 1;
            }
        }
    }
    assert!(asked >= 40, "{asked}");

    let (mut config, tag) = gateway.config();
    config["mountpoints"]["gate"] = json!({"source": {"kind": "publish"}});
    let headers = [("Content-Type", "application/json"), ("If-Match", tag.as_str())];
    let body = serde_json::to_vec(&config).unwrap();
    let would = gateway.request("PUT", "/api/v1/config?dry_run", &headers, &body);
    assert_eq!(would.status, 200, "{}", would.text());
    check(&document, "PUT", "/api/v1/config", &would);
    check(&document, "PUT", "/api/v1/config", &gateway.put_config(&config, Some(&tag)));
    let patch = |body: &str| {
        let headers = [("Content-Type", "application/merge-patch+json"), ("If-Match", "*")];
        gateway.request("PATCH", "/api/v1/config", &headers, body.as_bytes())
    };
    check(
        &document,
        "PATCH",
        "/api/v1/config",
        &patch(r#"{"mountpoints": {"gate": {"source": {"key": "k"}}}}"#),
    );
    check(
        &document,
        "POST",
        "/api/v1/config/confirm",
        &gateway.request("POST", "/api/v1/config/confirm", &[], b""),
    );
    check(&document, "PATCH", "/api/v1/config", &patch(r#"{"mountpoints": {"gate": {"sorce": 1}}}"#));
    for path in ["/api/v1/config/history", "/api/v1/status", "/api/v1/plan", "/api/v1/audit"] {
        let answer = gateway.get(path);
        assert_eq!(answer.status, 200, "{path}");
        check(&document, "GET", path, &answer);
    }
    let revision = gateway.get("/api/v1/config/history/2");
    assert_eq!(revision.status, 200);
    check(&document, "GET", "/api/v1/config/history/{revision}", &revision);
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Connects and trusts this certificate alone.
fn connect(address: SocketAddr, chain: &str) -> Result<Tls, std::io::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(secs(20)))?;
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket);
    stream.conn.complete_io(&mut stream.sock)?;
    Ok(stream)
}

fn finish(mut stream: Tls, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // The end of the connection is told by TLS, or the socket is just closed after a whole answer.
    stream.read_to_end(&mut answer).ok();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn tls_has_a_certificate_of_its_own_and_another_one_drops_no_connection() {
    let gateway = gateway();
    let tls = gateway.admin_tls.expect("listens with TLS");
    let shown = |answer: http::Response| -> (bool, String) {
        assert_eq!(answer.status, 200, "{}", answer.text());
        let shown = answer.json();
        assert!(!answer.text().contains("PRIVATE"));
        (shown["self_made"].as_bool().unwrap(), shown["chain"].as_str().unwrap().to_owned())
    };
    let (self_made, first) = shown(gateway.get("/api/v1/certificate"));
    assert!(self_made);
    let scratch = Scratch::new();
    let file = scratch.join("first.pem");
    std::fs::write(&file, &first).unwrap();
    let url = format!("https://127.0.0.1:{}/healthz", tls.port());
    let said = Process::run("curl", &["-sS", "--cacert", file.to_str().unwrap(), &url], secs(30));
    assert_eq!(said, r#"{"status":"ok"}"#);

    let mut open = connect(tls, &first).unwrap();
    open.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let put = |chain: &str, key: &str| {
        let body = json!({"chain": chain, "key": key}).to_string();
        gateway.request(
            "PUT",
            "/api/v1/certificate",
            &[("Content-Type", "application/json")],
            body.as_bytes(),
        )
    };
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let refused = put(&chain, &other);
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(!refused.text().contains("PRIVATE"));
    assert_eq!(shown(gateway.get("/api/v1/certificate")), (true, first.clone()), "nothing was changed");
    assert!(!shown(put(&chain, &key)).0);
    wait::until_true("the new certificate", secs(20), || connect(tls, &chain).is_ok());
    assert!(connect(tls, &first).is_err(), "the old one is shown no more");
    let answer = finish(open, "Host: localhost\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "the open connection goes on: {answer}");

    let request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let page = finish(connect(tls, &chain).unwrap(), request);
    for header in ["content-security-policy: default-src 'none'", "x-frame-options: DENY", "nosniff"] {
        assert!(page.contains(header), "{header}: {page}");
    }
    let foreign = finish(connect(tls, &chain).unwrap(), "GET / HTTP/1.1\r\nHost: 10.9.8.7\r\n\r\n");
    assert!(foreign.starts_with("HTTP/1.1 421 "), "an address that was not reached: {foreign}");
}

/// From an address of its own.
fn connect_from(host: u8, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, host], 0)).into())?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

fn threads(gateway: &Gateway) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap().count()
}

#[test]
fn two_thousand_idle_connections_leave_the_page_to_its_owner() {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum.map_or(Some(4_096), |most| Some(most.min(4_096)));
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let mut gateway = gateway();
    gateway.get("/");
    let (threads_before, bytes_before) = (threads(&gateway), gateway.held_bytes());
    let mut idle = Vec::new();
    let mut slowest = Duration::ZERO;
    for round in 0..10_u8 {
        for number in 0..200_u8 {
            // Half of them on the TLS side, each a little into what it never ends.
            let (to, begun): (SocketAddr, &[u8]) = match number % 2 {
                0 => (gateway.admin, b"GET / HTTP/1.1\r\nHost: "),
                _ => (gateway.admin_tls.unwrap(), b"\x16\x03\x01\x02\x00\x01"),
            };
            let mut stream = connect_from(2 + number % 100, to).unwrap();
            stream.write_all(begun).ok();
            idle.push(stream);
        }
        let begun = Instant::now();
        let answer = http::try_get(gateway.admin, "/").expect("the owner is answered");
        assert_eq!(answer.status, 200, "round {round}: {}", answer.text());
        slowest = slowest.max(begun.elapsed());
    }
    println!("{} idle connections, slowest page {slowest:?}", idle.len());
    let (threads_now, bytes_now) = (threads(&gateway), gateway.held_bytes());
    assert!(threads_now <= threads_before + 4, "{threads_before} threads, then {threads_now}");
    assert!(bytes_now <= bytes_before + (16 << 20), "{bytes_before} bytes, then {bytes_now}");
    gateway.assert_running();
}

#[test]
fn tls_garbage_and_crooked_paths_lead_nowhere() {
    let mut gateway = gateway();
    let tls = gateway.admin_tls.unwrap();
    let hello = [&b"\x16\x03\x01\x00\xf8\x01\x00\x00\xf4\x03\x03"[..], &[0x41; 60]].concat();
    let garbage: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\xff\xff",
        b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10",
        &[0; 4_096],
        &[0xff; 70_000],
        &hello,
    ];
    for bytes in garbage {
        let mut stream = TcpStream::connect(tls).unwrap();
        stream.set_read_timeout(Some(secs(20))).unwrap();
        stream.write_all(bytes).ok();
        stream.shutdown(std::net::Shutdown::Write).ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        assert!(!answer.starts_with(b"HTTP/"), "in clear text: {answer:?}");
    }
    for path in [
        "/../../../../etc/passwd",
        "/page.css/../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "//etc/passwd",
        "/api/v1/../../etc/passwd",
        "/api/v1/mountpoints/..%2f..%2fetc%2fpasswd/snapshot.jpg",
        "/api/v1/mountpoints/../snapshot.jpg",
        "/api/v1/users/../config",
        "/api/v1/config/history/../../status",
        "/\\..\\..\\etc\\passwd",
        "/page.css%00.html",
    ] {
        let answer = gateway.get(path);
        assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.status);
        assert!(!answer.text().contains("root:"), "{path}");
    }
    assert_eq!(gateway.get("/healthz").status, 200);
    gateway.assert_running();
}

#[test]
fn no_secret_is_in_any_answer_or_log() {
    let mut gateway = gateway();
    let json = [("Content-Type", "application/json")];
    let user = json!({"name": "bob", "role": "viewer", "password": "CANARY-password-1"}).to_string();
    assert_eq!(gateway.request("POST", "/api/v1/users", &json, user.as_bytes()).status, 201);
    let login = json!({"user": "bob", "password": "CANARY-password-2"}).to_string();
    assert_ne!(gateway.request("POST", "/api/v1/session", &json, login.as_bytes()).status, 201);
    let odd = json!({"chain": "CANARY-chain", "key": "CANARY-key"}).to_string();
    let (config, tag) = gateway.config();
    let mut wrong = config.clone();
    wrong["mountpoints"]["yard"]["source"]["key"] = json!(["CANARY-odd"]);
    wrong["mountpoints"]["yard"]["push"][0]["url"] = json!("http://user:CANARY-odd@h/x");
    let mut said = vec![
        gateway.put_config(&wrong, Some(&tag)).text(),
        gateway.request("PUT", "/api/v1/certificate", &json, odd.as_bytes()).text(),
    ];
    let patch = [("Content-Type", "application/merge-patch+json"), ("If-Match", "*")];
    let body = br#"{"mountpoints": {"yard": {"play": {"key": "CANARY-other"}}}}"#;
    said.push(gateway.request("PATCH", "/api/v1/config", &patch, body).text());
    let document = gateway.get("/api/v1/openapi.json").json();
    for (path, operations) in document["paths"].as_object().unwrap() {
        if path.ends_with("/stream") {
            // They do not end.
            continue;
        }
        if operations.get("get").is_some() {
            let path = path.replace("{name}", "yard").replace("{revision}", "2").replace("{id}", "none");
            said.push(gateway.get(&path).text());
        }
    }
    said.push(gateway.get("/").text());
    said.push(gateway.process().log());
    let said = said.join("\n");
    assert!(!said.contains("CANARY"), "{}", said.lines().find(|line| line.contains("CANARY")).unwrap());
    // They are where they belong: otherwise this test would look for nothing.
    let state = gateway.state();
    let stored = std::fs::read_to_string(state.join("confirmed.json")).unwrap();
    for secret in ["CANARY-publish", "CANARY-url", "CANARY-other"] {
        assert!(stored.contains(secret), "{secret}");
    }
}
