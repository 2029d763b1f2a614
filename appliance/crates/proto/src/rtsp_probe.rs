//! Is there a stream at this RTSP address, and what is in it? `OPTIONS` and `DESCRIBE`, never `SETUP`.
//!
//! Like [`crate::onvif::Client`] it finds out without a login how to log in, sends a login once, and ends at its first
//! refusal. Of several addresses it takes the first that has a stream. Redirects are not followed.
//!
//! Not for playing: cameras are played by the GStreamer worker.

mod reader;
mod sdp;
#[cfg(test)]
mod tests;

pub use reader::{MAX_BODY_LEN, MAX_HEAD_LEN, ReadError, Reader, Response};
pub use sdp::{SdpStream, parse as parse_sdp};

use crate::http_auth::{self, Challenge, Credentials, Proof};
use crate::onvif::{Login, ServiceUrl};
use std::collections::VecDeque;

/// Most addresses that are tried.
pub const MAX_URLS: usize = 24;

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this, then [`Probe::handle_response`] or [`Probe::handle_failure`].
    Send(Request),
    /// Nothing more: [`Probe::finish`].
    Done,
}

/// One request; to be sent over a connection to its URL's host and port, a new one wherever the last was closed.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// Where to.
    pub url: ServiceUrl,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether it carries the login.
    pub with_login: bool,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("url", &self.url)
            .field("with_login", &self.with_login)
            .finish_non_exhaustive()
    }
}

/// A stream that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where.
    pub url: ServiceUrl,
    /// What its description promises.
    pub streams: Vec<SdpStream>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The first address with a stream.
    pub found: Option<Found>,
    /// What became of the login.
    pub login: Login,
    /// Why nothing was found, in words; or nothing, if something was.
    pub cause: Option<Cause>,
}

/// Why no stream was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// It wants a login and none was given.
    #[error("credentials wanted")]
    CredentialsWanted,
    /// The login is wrong.
    #[error("the camera refused the credentials")]
    LoginRefused,
    /// The password would go out in clear text.
    #[error("the camera takes only the password in clear text (Basic); it is sent only with allow_basic")]
    BasicNeedsConsent,
    /// None of the addresses is one of its.
    #[error("none of {0} addresses has a stream")]
    NotFound(usize),
    /// No answer, or none that is RTSP.
    #[error("the camera does not answer as an RTSP server")]
    NoAnswer,
}

#[derive(Clone, Debug)]
enum Way {
    Feeling,
    Digest(http_auth::DigestChallenge, u32),
    Basic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Options,
    Describe,
}

/// One camera, some addresses.
pub struct Probe {
    urls: VecDeque<ServiceUrl>,
    tried: usize,
    current: Option<ServiceUrl>,
    greeted: bool,
    credentials: Option<Credentials>,
    allow_basic: bool,
    way: Way,
    login: Login,
    sequence: u32,
    in_flight: Option<(Method, bool)>,
    renewed: bool,
    answered: bool,
    found: Option<Found>,
    cause: Option<Cause>,
}

impl Probe {
    /// Tries `urls` in their order, at most [`MAX_URLS`]. All should be of one camera: it is one login.
    /// `allow_basic`: the password may be sent in clear text.
    pub fn new(urls: Vec<ServiceUrl>, credentials: Option<Credentials>, allow_basic: bool) -> Self {
        Probe {
            urls: urls.into_iter().take(MAX_URLS).collect(),
            tried: 0,
            current: None,
            greeted: false,
            credentials,
            allow_basic,
            way: Way::Feeling,
            login: Login::Unused,
            sequence: 0,
            in_flight: None,
            renewed: false,
            answered: false,
            found: None,
            cause: None,
        }
    }

    /// What became of the login so far.
    pub fn login(&self) -> Login {
        self.login
    }

    /// What to do now; `random` was never used before.
    pub fn poll_action(&mut self, random: [u8; 16]) -> Action {
        if self.found.is_some() || self.cause.is_some() {
            return Action::Done;
        }
        if self.current.is_none() {
            self.current = self.urls.pop_front();
            self.tried = self.tried.saturating_add(usize::from(self.current.is_some()));
        }
        let Some(url) = self.current.clone() else { return Action::Done };
        let method = if self.greeted { Method::Describe } else { Method::Options };
        let authorization = self.authorization(&url, method, random);
        let with_login = authorization.is_some();
        if with_login && self.login == Login::Unused {
            self.login = Login::Undecided;
        }
        self.sequence = self.sequence.saturating_add(1);
        let mut head = format!(
            "{} {url} RTSP/1.0\r\nCSeq: {}\r\nUser-Agent: fieldgate\r\n",
            method.name(),
            self.sequence
        );
        if method == Method::Describe {
            head.push_str("Accept: application/sdp\r\n");
        }
        if let Some(authorization) = authorization {
            head.push_str(&format!("Authorization: {authorization}\r\n"));
        }
        head.push_str("\r\n");
        self.in_flight = Some((method, with_login));
        Action::Send(Request { url, bytes: head.into_bytes(), with_login })
    }

    /// The answer to the request under way.
    pub fn handle_response(&mut self, response: &Response) {
        let Some((method, with_login)) = self.in_flight.take() else { return };
        self.answered = true;
        if response.status == 401 {
            return self.refused(with_login, response);
        }
        if method == Method::Options {
            // Whatever it says: it speaks RTSP. Some refuse OPTIONS and describe all the same.
            self.greeted = true;
            return;
        }
        if (200..300).contains(&response.status) {
            if with_login {
                self.login = Login::Accepted;
            }
            let streams = sdp::parse(&response.body);
            if let (Some(url), false) = (self.current.take(), streams.is_empty()) {
                self.found = Some(Found { url, streams });
            }
            return;
        }
        if with_login && matches!(response.status, 404 | 451 | 454 | 462) {
            // Not there, so the login was looked at and taken.
            self.login = Login::Accepted;
        }
        if response.status == 403 && with_login && self.login != Login::Accepted {
            self.login = Login::Refused;
            self.cause = Some(Cause::LoginRefused);
        }
        self.current = None;
    }

    /// No answer to the request under way.
    pub fn handle_failure(&mut self) {
        let Some((_, with_login)) = self.in_flight.take() else { return };
        if !self.answered || (with_login && self.login == Login::Undecided) {
            // Either nobody is there, or a login whose fate is not known must not be sent again.
            self.cause = Some(Cause::NoAnswer);
        }
        self.current = None;
    }

    /// What came of it, after [`Action::Done`].
    pub fn finish(self) -> Outcome {
        let nothing = if self.answered { Cause::NotFound(self.tried) } else { Cause::NoAnswer };
        let cause = if self.found.is_some() { None } else { Some(self.cause.unwrap_or(nothing)) };
        Outcome { found: self.found, login: self.login, cause }
    }

    fn authorization(&mut self, url: &ServiceUrl, method: Method, random: [u8; 16]) -> Option<String> {
        let credentials = self.credentials.as_ref()?;
        match &mut self.way {
            Way::Feeling => None,
            Way::Basic => Some(http_auth::basic(credentials)),
            Way::Digest(challenge, count) => {
                *count = count.saturating_add(1);
                let (uri, cnonce) = (url.to_string(), http_auth::hex(&random));
                let proof = Proof { method: method.name(), uri: &uri, count: *count, cnonce: &cnonce };
                Some(challenge.authorization(credentials, proof))
            }
        }
    }

    fn refused(&mut self, with_login: bool, response: &Response) {
        let challenges = http_auth::challenges(response.challenges.iter().map(String::as_str));
        let best = challenges.into_iter().next();
        if with_login {
            let accepted = self.login == Login::Accepted;
            if let (Way::Digest(used, _), Some(Challenge::Digest(fresh)), false) =
                (&self.way, &best, self.renewed)
                && (fresh.stale || (accepted && fresh.nonce != used.nonce))
            {
                self.way = Way::Digest(fresh.clone(), 0);
                self.renewed = true;
                return;
            }
            self.renewed = false;
            if accepted {
                // Some guard addresses that do not exist by a 401.
                self.current = None;
                return;
            }
            self.login = Login::Refused;
            self.cause = Some(Cause::LoginRefused);
            return;
        }
        let is_tls = self.current.as_ref().is_some_and(|url| url.scheme.is_tls());
        match (best, self.credentials.is_some()) {
            (_, false) => self.cause = Some(Cause::CredentialsWanted),
            (Some(Challenge::Digest(challenge)), true) => self.way = Way::Digest(challenge, 0),
            (Some(Challenge::Basic), true) if is_tls || self.allow_basic => self.way = Way::Basic,
            (Some(Challenge::Basic), true) => self.cause = Some(Cause::BasicNeedsConsent),
            (None, true) => self.cause = Some(Cause::NoAnswer),
        }
    }
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Method::Options => "OPTIONS",
            Method::Describe => "DESCRIBE",
        }
    }
}

/// Paths under which makers have their main stream, the frequent ones first. For cameras without ONVIF.
pub const COMMON_PATHS: [&str; 20] = [
    "/Streaming/Channels/101",
    "/cam/realmonitor?channel=1&subtype=0",
    "/axis-media/media.amp",
    "/h264Preview_01_main",
    "/stream1",
    "/live/ch00_0",
    "/profile1/media.smp",
    "/onvif1",
    "/videoMain",
    "/media/video1",
    "/live.sdp",
    "/live",
    "/main",
    "/h264",
    "/h264.sdp",
    "/ch0_0.h264",
    "/11",
    "/1",
    "/stream",
    "/",
];

/// A fuzz target: bytes of a server, answer after answer; the first byte says in what pieces they come.
pub fn fuzz(data: &[u8]) {
    let Some((&step, wire)) = data.split_first() else { return };
    let camera = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    let urls: Vec<ServiceUrl> = ["rtsp://127.0.0.1/a", "rtsp://127.0.0.1/b"]
        .into_iter()
        .filter_map(|url| ServiceUrl::stream(url, camera).ok())
        .map(|anchored| anchored.url)
        .collect();
    let credentials = Credentials { user: "u".to_owned(), password: "p".to_owned() };
    let mut probe = Probe::new(urls, Some(credentials), false);
    let mut reader = Reader::default();
    let mut pieces = wire.chunks(usize::from(step).max(1));
    let mut requests = 0_u32;
    'requests: while let Action::Send(_) = probe.poll_action([9; 16]) {
        requests = requests.saturating_add(1);
        assert!(requests < 64, "it ends");
        loop {
            match reader.take() {
                Ok(Some(response)) => {
                    probe.handle_response(&response);
                    continue 'requests;
                }
                Ok(None) => match pieces.next() {
                    Some(piece) => reader.push(piece),
                    None => break,
                },
                Err(_) => break,
            }
        }
        reader = Reader::default();
        probe.handle_failure();
    }
    drop(probe.finish());
    drop(sdp::parse(wire));
}
