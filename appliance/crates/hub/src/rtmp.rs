//! Who is at the other end of an RTMP connection, as plain values: for whoever decides about it or shows it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// What an RTMP peer said of itself at `connect`. Texts are cut as control systems know them: the application at its
/// query, with a final `/` or `/_definst_` left out; the version after 127 bytes, the others after 255.
#[derive(Clone, PartialEq, Eq)]
pub struct RtmpClient {
    /// Serial number of the connection, from 1, never used twice while the program runs.
    pub connection: u64,
    /// The application.
    pub app: String,
    /// The peer's name for itself.
    pub flash_ver: String,
    /// Where its player came from.
    pub swf_url: String,
    /// The address that it connected to. May hold secrets.
    pub tc_url: String,
    /// The page around its player.
    pub page_url: String,
    /// Its address.
    pub peer: SocketAddr,
}

impl RtmpClient {
    /// With nothing known but the address, as before `connect`.
    pub fn new(connection: u64, peer: SocketAddr) -> Self {
        let none = String::new;
        RtmpClient {
            connection,
            app: none(),
            flash_ver: none(),
            swf_url: none(),
            tc_url: none(),
            page_url: none(),
            peer,
        }
    }
}

impl std::fmt::Debug for RtmpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("RtmpClient");
        shown.field("connection", &self.connection).field("app", &self.app).field("peer", &self.peer);
        shown.finish_non_exhaustive()
    }
}

/// How an RTMP publication ended. The first cause stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtmpEnd {
    /// The peer ended it: `deleteStream`, `closeStream`.
    Closed,
    /// The connection was lost, was idle for too long, or was ended by us.
    Disconnected,
    /// Its media was wrong.
    BadData,
}

/// One publication over RTMP. Two are equal when they are the same one.
#[derive(Debug)]
pub struct RtmpSession {
    /// Its connection.
    pub client: Arc<RtmpClient>,
    /// The stream name, up to the first `?`.
    pub name: String,
    /// What followed the `?`. May hold secrets.
    pub args: String,
    /// The third argument of `publish`, as sent: `live`, `record`, `append` or another word.
    pub kind: String,
    /// The message stream of the connection.
    pub stream_id: u32,
    /// 0: goes on.
    end: AtomicU8,
}

impl RtmpSession {
    /// One that begins. Texts are cut after 255 bytes.
    pub fn new(client: Arc<RtmpClient>, stream_id: u32, name: &str, args: &str, kind: &str) -> Self {
        RtmpSession {
            client,
            name: cut(name, TEXT_BYTES),
            args: cut(args, TEXT_BYTES),
            kind: cut(kind, TEXT_BYTES),
            stream_id,
            end: AtomicU8::new(0),
        }
    }

    /// Notes how it ended, unless that is known already.
    pub fn end(&self, how: RtmpEnd) {
        let code = match how {
            RtmpEnd::Closed => 1,
            RtmpEnd::Disconnected => 2,
            RtmpEnd::BadData => 3,
        };
        // Whoever came first knows best.
        let _ = self.end.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
    }

    /// How it ended; nothing while it goes on.
    pub fn ended(&self) -> Option<RtmpEnd> {
        match self.end.load(Ordering::Acquire) {
            0 => None,
            1 => Some(RtmpEnd::Closed),
            2 => Some(RtmpEnd::Disconnected),
            _ => Some(RtmpEnd::BadData),
        }
    }
}

impl PartialEq for RtmpSession {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for RtmpSession {}

/// Bytes that are kept of names, arguments and URLs.
pub const TEXT_BYTES: usize = 255;
/// Bytes that are kept of a peer's name for itself.
pub const FLASH_VER_BYTES: usize = 127;

/// At most `bytes` bytes of `text`, never half a character.
pub fn cut(text: &str, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

/// The application as control systems know it: without query, and without a final `/` or `/_definst_`.
pub fn application(app: &str) -> &str {
    let app = app.split_once('?').map_or(app, |(app, _)| app);
    app.strip_suffix("/_definst_").or_else(|| app.strip_suffix('/')).unwrap_or(app)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_ends_before_its_query_and_default_instance() {
        for (given, known) in [
            ("live", "live"),
            ("live?key=a/b", "live"),
            ("live/", "live"),
            ("live/_definst_", "live"),
            ("live/_definst_?k=v", "live"),
            ("a/b", "a/b"),
            ("", ""),
        ] {
            assert_eq!(application(given), known);
        }
    }

    #[test]
    fn texts_are_cut_at_their_limit_and_never_inside_a_character() {
        assert_eq!(cut(&"x".repeat(255), TEXT_BYTES).len(), 255);
        assert_eq!(cut(&"x".repeat(256), TEXT_BYTES).len(), 255);
        assert_eq!(cut(&"é".repeat(128), TEXT_BYTES).len(), 254);
        assert_eq!(cut("", TEXT_BYTES), "");
    }

    #[test]
    fn the_first_cause_of_an_end_stays() {
        let client = Arc::new(RtmpClient::new(7, "192.0.2.1:1935".parse().unwrap()));
        let session = RtmpSession::new(client, 1, "yard", "k=v", "live");
        assert_eq!(session.ended(), None);
        session.end(RtmpEnd::Closed);
        session.end(RtmpEnd::Disconnected);
        assert_eq!(session.ended(), Some(RtmpEnd::Closed));
    }

    #[test]
    fn a_client_shown_in_a_log_has_no_secrets() {
        let mut client = RtmpClient::new(7, "192.0.2.1:1935".parse().unwrap());
        client.tc_url = "rtmp://h/live?key=s3cret".into();
        assert!(!format!("{client:?}").contains("s3cret"));
    }
}
