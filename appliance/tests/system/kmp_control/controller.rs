//! A controller that answers as the recorded one did.

use super::golden::{self, Callback, Reply};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A callback that came.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// `POST /publish HTTP/1.0`.
    pub(super) request_line: String,
    /// As sent.
    pub(super) headers: Vec<String>,
    /// As sent.
    pub(super) body: String,
}

/// What the controller does.
#[derive(Clone, Default)]
pub(super) struct Script {
    /// Answers by what is asked for, in order; the last is given again.
    pub(super) replies: BTreeMap<String, Vec<Reply>>,
    /// Recorded port and real one.
    pub(super) ports: Vec<(u16, u16)>,
    /// After an answer with a length to `publish` the connection stays open for so long.
    pub(super) hold: Duration,
}

impl Script {
    /// As recorded.
    pub(super) fn recorded(callbacks: &[Callback], ports: Vec<(u16, u16)>) -> Script {
        let mut script = Script { ports, ..Script::default() };
        for callback in callbacks {
            script.replies.entry(callback.key.clone()).or_default().push(callback.reply.clone());
        }
        script
    }
}

/// A controller that listens.
pub(super) struct Controller {
    /// Where.
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Controller {
    /// Starts one; its threads end with the test's process.
    pub(super) fn start(script: Script) -> Controller {
        Controller::start_with(script, None)
    }

    /// Starts one that is asked over TLS.
    pub(super) fn start_with(script: Script, tls: Option<Arc<ServerConfig>>) -> Controller {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, script) = (asked.clone(), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, script, tls) = (seen.clone(), script.clone(), tls.clone());
                std::thread::spawn(move || match tls {
                    None => serve(stream, &script, &seen),
                    Some(tls) => {
                        let session = ServerConnection::new(tls).unwrap();
                        serve(StreamOwned::new(session, stream), &script, &seen);
                    }
                });
            }
        });
        Controller { address, asked }
    }

    /// All that came so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// How often this was asked.
    pub(super) fn count(&self, key: &str) -> usize {
        self.asked().iter().filter(|asked| golden::key_of(&asked.body) == key).count()
    }
}

fn serve(mut stream: impl Read + Write, script: &Script, seen: &Mutex<Vec<Asked>>) {
    let Some(asked) = read(&mut stream) else { return };
    let key = golden::key_of(&asked.body);
    let nth = {
        let mut seen = seen.lock().unwrap();
        let nth = seen.iter().filter(|before| golden::key_of(&before.body) == key).count();
        seen.push(asked);
        nth
    };
    let ok = Reply {
        status: "200 OK".into(),
        content_type: "application/json".into(),
        body: "{\"code\":\"ok\"}".into(),
    };
    let reply =
        script.replies.get(&key).and_then(|replies| replies.get(nth).or(replies.last())).unwrap_or(&ok);
    let mut body = reply.body.clone();
    for (recorded, real) in &script.ports {
        body = body.replace(&format!(":{recorded}\""), &format!(":{real}\""));
    }
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n",
        reply.status,
        reply.content_type,
        body.len()
    );
    // Who asked may have left.
    drop(stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()));
    if key.starts_with("publish") {
        std::thread::sleep(script.hold);
    }
}

fn read(stream: &mut impl Read) -> Option<Asked> {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let len = stream.read(&mut piece).ok().filter(|len| *len > 0)?;
        bytes.extend_from_slice(&piece[..len]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let mut lines = head.lines().map(str::to_owned);
        let (request_line, headers) = (lines.next()?, lines.collect::<Vec<_>>());
        let len = headers.iter().find_map(|header| header.strip_prefix("Content-Length: "))?;
        if body.len() >= len.parse::<usize>().ok()? {
            return Some(Asked { request_line, headers, body: body.to_owned() });
        }
    }
}
