//! A viewer by hand.

use crate::common::gateway::Gateway;
use crate::common::http::{self, Response};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// A gateway on which `yard` can be watched.
pub(crate) fn gateway(hls: Value) -> Gateway {
    Gateway::start(json!({
        "http": { "listen": ["127.0.0.1:0"] },
        "mountpoints": { "yard": { "source": { "kind": "publish" }, "hls": hls } },
    }))
}

/// Where a viewer of `yard` begins with that list.
pub(crate) fn url_of(gateway: &Gateway, file: &str) -> String {
    format!("http://{}/hls/yard/{file}", listens(gateway, "http"))
}

/// Where a gateway listens by this protocol.
pub(crate) fn listens(gateway: &Gateway, protocol: &str) -> SocketAddr {
    let status = gateway.status();
    status["listeners"][protocol]["addresses"][0].as_str().unwrap().parse().unwrap()
}

/// One viewer who was let in.
pub(crate) struct Viewer {
    address: SocketAddr,
    folder: String,
    /// The list of renditions as it was given to him.
    pub(crate) master: String,
}

impl Viewer {
    /// Opens `yard`.
    pub(crate) fn open(gateway: &Gateway) -> Viewer {
        let address = listens(gateway, "http");
        let answer = http::get(address, "/hls/yard/master.m3u8");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/vnd.apple.mpegurl"));
        let master = answer.text();
        let media = master.lines().last().unwrap();
        let (token, _) = media.split_once('/').expect("a media playlist below a token");
        Viewer { address, folder: format!("/hls/yard/{token}/"), master }
    }

    /// Where a file of his is.
    pub(crate) fn path(&self, file: &str) -> String {
        format!("{}{file}", self.folder)
    }

    /// `GET` of a file.
    pub(crate) fn get(&self, file: &str) -> Response {
        http::get(self.address, &self.path(file))
    }

    /// `GET` with headers.
    pub(crate) fn get_with(&self, file: &str, headers: &[(&str, &str)]) -> Response {
        http::request(self.address, "GET", &self.path(file), headers, b"")
    }

    /// A file that must be there.
    pub(crate) fn text(&self, file: &str) -> String {
        let answer = self.get(file);
        assert_eq!(answer.status, 200, "{file}: {}", answer.text());
        answer.text()
    }
}
