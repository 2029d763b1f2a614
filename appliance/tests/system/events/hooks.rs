//! Webhooks, told to a small real server that misbehaves on order.

use crate::common::gateway::Gateway;
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, mpsc};
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

const SECRET: &str = "CANARY-webhook-secret";

/// What the server does with its next call.
#[derive(Clone, Debug)]
enum Do {
    Answer(&'static str),
    Redirect(SocketAddr),
    Silence,
}

/// One call: head and body.
type Call = (String, String);

struct Server {
    address: SocketAddr,
    todo: Arc<Mutex<Vec<Do>>>,
    calls: mpsc::Receiver<Call>,
}

impl Server {
    /// Does what is in `todo`, first to last, and then answers 200.
    fn start(todo: Vec<Do>, tls: Option<Arc<ServerConfig>>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let todo = Arc::new(Mutex::new(todo));
        let (tell, calls) = mpsc::channel();
        let next = todo.clone();
        // Ends with the test's process.
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                stream.set_read_timeout(Some(secs(20))).unwrap();
                let todo = {
                    let mut todo = next.lock().unwrap();
                    if todo.is_empty() { Do::Answer("200 OK") } else { todo.remove(0) }
                };
                let kept = stream.try_clone().unwrap();
                let call = match &tls {
                    None => serve(stream, &todo),
                    Some(config) => {
                        let session = ServerConnection::new(config.clone()).unwrap();
                        serve(StreamOwned::new(session, stream), &todo)
                    }
                };
                if matches!(todo, Do::Silence) {
                    silent.push(kept);
                }
                // A client that does not trust us has said nothing.
                if let Some(call) = call {
                    tell.send(call).ok();
                }
            }
        });
        Server { address, todo, calls }
    }

    fn next(&self) -> Call {
        self.calls.recv_timeout(secs(30)).expect("a call comes")
    }
}

fn serve(mut stream: impl Read + Write, todo: &Do) -> Option<Call> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    let (head, body) = loop {
        let len = stream.read(&mut piece).ok().filter(|len| *len > 0)?;
        bytes.extend_from_slice(&piece[..len]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let len = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        if body.len() >= len.parse::<usize>().unwrap() {
            break (head.to_owned(), body.to_owned());
        }
    };
    let answer = match todo {
        Do::Answer(status) => format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"),
        Do::Redirect(to) => {
            format!("HTTP/1.1 302 Found\r\nLocation: http://{to}/stolen\r\nContent-Length: 0\r\n\r\n")
        }
        Do::Silence => String::new(),
    };
    stream.write_all(answer.as_bytes()).ok()?;
    stream.flush().ok()?;
    Some((head, body))
}

fn ids(call: &Call) -> Vec<u64> {
    let body: Value = serde_json::from_str(&call.1).unwrap();
    body["events"].as_array().unwrap().iter().map(|event| event["id"].as_u64().unwrap()).collect()
}

fn change(gateway: &Gateway, mdns: bool) {
    let body = json!({"discovery": {"mdns": mdns}}).to_string();
    let headers = [("Content-Type", "application/merge-patch+json"), ("If-Match", "*")];
    assert_eq!(gateway.request("PATCH", "/api/v1/config", &headers, body.as_bytes()).status, 200);
}

#[test]
fn a_webhook_is_told_until_it_takes_it_also_over_a_restart() {
    let thief = TcpListener::bind("127.0.0.1:0").unwrap();
    thief.set_nonblocking(true).unwrap();
    let todo = vec![Do::Answer("500 Oops"), Do::Redirect(thief.local_addr().unwrap()), Do::Silence];
    let server = Server::start(todo, None);
    let url = format!("http://{}/hook?key=CANARY-in-url", server.address);
    let hook = json!({"url": url, "secret": SECRET, "events": ["config_confirmed"], "timeout": "1s"});
    let config = json!({"events": {"webhooks": {"fleet": hook}}});
    let scratch = Arc::new(Scratch::new());
    let mut gateway = Gateway::start_in(scratch.clone(), config.clone(), |_| {});
    change(&gateway, false);
    let tries: Vec<Call> = (0..4).map(|_| server.next()).collect();
    for call in &tries {
        assert_eq!(ids(call), ids(&tries[0]), "the same again until it is taken");
        assert!(call.0.starts_with("POST /hook?key=CANARY-in-url HTTP/1"), "{}", call.0);
        check_signature(call);
    }
    let body: Value = serde_json::from_str(&tries[0].1).unwrap();
    assert_eq!(body["events"][0]["event"], "config_confirmed", "{body}");
    assert!(thief.accept().is_err(), "a redirect is not followed");
    wait::until_true("the trouble is told, and its end", secs(20), || {
        let events = gateway.get("/api/v1/events?since=0").json();
        let kinds: Vec<&Value> = events["events"].as_array().unwrap().iter().map(|it| &it["event"]).collect();
        events["webhooks"]["fleet"]["failures"] == 0
            && kinds.contains(&&json!("webhook_trouble"))
            && kinds.contains(&&json!("webhook_back"))
    });
    // While it is down for long the gateway is restarted: nothing is lost, nothing that was taken comes again.
    *server.todo.lock().unwrap() = vec![Do::Answer("503 Down"); 2];
    change(&gateway, true);
    let missed = server.next();
    assert!(ids(&missed)[0] > ids(&tries[0])[0]);
    assert!(gateway.stop().success());
    let said = gateway.process().log();
    let mut gateway = Gateway::start_in(scratch, config, |_| {});
    let again = loop {
        let call = server.next();
        if server.todo.lock().unwrap().is_empty() {
            break call;
        }
    };
    assert_eq!(ids(&again)[0], ids(&missed)[0]);
    let told = gateway.get("/api/v1/events?since=0").text() + &gateway.get("/api/v1/support-bundle").text();
    let said = said + &gateway.process().log() + &told + &gateway.get("/api/v1/logs?limit=1000").text();
    assert!(!said.contains("CANARY"), "{}", said.lines().find(|line| line.contains("CANARY")).unwrap());
}

/// As a receiver does it: over the time and the body as it came.
fn check_signature((head, body): &Call) {
    let line = head.lines().find_map(|line| line.strip_prefix("X-Fieldgate-Signature: t=")).unwrap();
    let (seconds, hex) = line.split_once(",v1=").unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    ring::hmac::verify(&key, format!("{seconds}.{body}").as_bytes(), &tag).expect("the signature fits");
}

#[test]
fn a_webhook_over_https_trusts_its_authority_and_no_other() {
    let scratch = Scratch::new();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(scratch.join("ca.pem"), made.cert.pem()).unwrap();
    std::fs::write(scratch.join("other.pem"), other.cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let tls =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key);
    let server = Server::start(Vec::new(), Some(Arc::new(tls.unwrap())));
    let hook = |ca: &str| {
        let url = format!("https://localhost:{}/", server.address.port());
        json!({"url": url, "ca": scratch.join(ca), "timeout": "5s"})
    };
    let gateway =
        Gateway::start(json!({"events": {"webhooks": {"good": hook("ca.pem"), "bad": hook("other.pem")}}}));
    change(&gateway, false);
    assert!(!ids(&server.next()).is_empty());
    wait::until_true("why the other is not told", secs(20), || {
        let error = gateway.get("/api/v1/events").json()["webhooks"]["bad"]["error"].clone();
        error.as_str().is_some_and(|error| error.contains("certificate"))
    });
}
