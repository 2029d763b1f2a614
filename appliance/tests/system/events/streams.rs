//! Events and log lines as they come.

use crate::common::gateway::Gateway;
use crate::common::http;
use crate::common::wait::secs;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

/// One reader.
struct Reader {
    lines: BufReader<TcpStream>,
}

impl Reader {
    fn open(gateway: &Gateway, path: &str, header: &str) -> Reader {
        let secret = std::fs::read_to_string(gateway.state().join("access/local.token")).unwrap();
        let mut stream = TcpStream::connect(gateway.admin).unwrap();
        stream.set_read_timeout(Some(secs(30))).unwrap();
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {secret}\r\n{header}\r\n",
            gateway.admin
        );
        stream.write_all(head.as_bytes()).unwrap();
        Reader { lines: BufReader::new(stream) }
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let len = self.lines.read_line(&mut line).expect("something comes");
        (len > 0).then(|| line.trim_end().to_owned())
    }

    /// The head's first line.
    fn status(&mut self) -> String {
        let status = self.line().unwrap();
        while self.line().is_some_and(|line| !line.is_empty()) {}
        status
    }

    /// The next message's id and data.
    fn next(&mut self) -> Option<(u64, Value)> {
        let mut id = None;
        loop {
            let line = self.line()?;
            if let Some(number) = line.strip_prefix("id: ") {
                id = Some(number.parse().unwrap());
            }
            if let (Some(id), Some(data)) = (id, line.strip_prefix("data: ")) {
                return Some((id, serde_json::from_str(data).unwrap()));
            }
        }
    }

    fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> (u64, Value) {
        loop {
            let (id, data) = self.next().expect("the stream goes on");
            if wanted(&data) {
                return (id, data);
            }
        }
    }
}

fn change(gateway: &Gateway, mdns: bool) {
    let body = json!({"discovery": {"mdns": mdns}}).to_string();
    let headers = [("Content-Type", "application/merge-patch+json"), ("If-Match", "*")];
    assert_eq!(gateway.request("PATCH", "/api/v1/config", &headers, body.as_bytes()).status, 200);
}

#[test]
fn events_come_as_they_happen_and_go_on_after_a_break() {
    let mut gateway = Gateway::start(json!({}));
    let path = "/api/v1/events/stream";
    assert_eq!(http::get(gateway.admin, path).status, 403, "not for strangers");
    let mut reader = Reader::open(&gateway, path, "");
    assert_eq!(reader.status(), "HTTP/1.1 200 OK");
    change(&gateway, false);
    let (id, event) = reader.until(|event| event["event"] == "config_confirmed");
    assert_eq!(event["id"], id);
    drop(reader);
    change(&gateway, true);
    let mut reader = Reader::open(&gateway, path, &format!("Last-Event-ID: {id}\r\n"));
    let (next, _) = reader.until(|event| event["event"] == "config_confirmed");
    assert!(next > id, "what happened in the break is told after it");
    // From the begin, and no number is left out.
    let mut whole = Reader::open(&gateway, "/api/v1/events/stream?since=0", "");
    let ids: Vec<u64> = (1..=next).map(|_| whole.next().unwrap().0).collect();
    assert_eq!(ids, (1..=next).collect::<Vec<_>>());
    assert_eq!(
        Reader::open(&gateway, "/api/v1/events/stream?since=x", "").status(),
        "HTTP/1.1 400 Bad Request"
    );
    let mut more: Vec<Reader> = (0..5).map(|_| Reader::open(&gateway, path, "")).collect();
    let refused = more.iter_mut().map(Reader::status).filter(|status| status.contains("503")).count();
    assert_eq!(refused, 1, "six for each who asks");
    assert!(gateway.stop().success(), "open streams do not hold the end");
    assert!(reader.next().is_none_or(|(_, event)| event["event"] == "stopped"));
}

#[test]
fn the_log_is_read_by_admins_and_holds_no_secret() {
    let gateway = Gateway::start(json!({"mountpoints": {"yard": {
        "source": {"kind": "pull", "url": "rtmp://user:CANARY-pull@127.0.0.1:9/live/x"},
    }}}));
    let mut reader = Reader::open(&gateway, "/api/v1/logs/stream?since=0", "");
    assert_eq!(reader.status(), "HTTP/1.1 200 OK");
    reader.until(|line| line["text"].as_str().unwrap().contains("ready"));
    change(&gateway, false);
    let (_, line) = reader.until(|line| line["text"].as_str().unwrap().starts_with("admin request"));
    assert_eq!(
        (line["level"].as_str(), line["target"].as_str()),
        (Some("info"), Some("fieldgate::admin::backend"))
    );
    let log = gateway.get("/api/v1/logs?limit=1000");
    assert!(log.text().contains("failed child=pull yard") || log.text().contains("yard"), "{}", log.text());
    assert!(!log.text().contains("CANARY"), "{}", log.text());
    let wish = json!({"name": "reader", "role": "installer"}).to_string();
    let made =
        gateway.request("POST", "/api/v1/tokens", &[("Content-Type", "application/json")], wish.as_bytes());
    let token = format!("Bearer {}", made.json()["token"].as_str().unwrap());
    let asked =
        |path: &str| http::request(gateway.admin, "GET", path, &[("Authorization", &token)], b"").status;
    assert_eq!(
        (asked("/api/v1/logs"), asked("/api/v1/logs/stream"), asked("/api/v1/events")),
        (403, 403, 200)
    );
}
