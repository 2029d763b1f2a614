//! What a camera of the farm does, fault by fault.

use super::film::Film;
use std::sync::Arc;
use std::time::Duration;

/// How a camera wants its user to show who he is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    Basic,
    /// RFC 2069 as most cameras send it to this day: MD5, without `qop`.
    DigestMd5,
    /// RFC 7616 with SHA-256.
    DigestSha256,
}

/// What a camera does; the default is a good camera.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) film: Arc<Film>,
    /// From this picture on another film, in the same session and with the same payload type.
    pub(crate) then: Option<(u64, Arc<Film>)>,
    /// Whether there is G.711 sound.
    pub(crate) sound: bool,
    /// Pictures per second as they are sent.
    pub(crate) rate: u64,
    /// Pictures per second as the description says.
    pub(crate) said_rate: Option<u64>,
    /// Whether parameter sets stand in the description; in the stream they always do.
    pub(crate) sets_in_sdp: bool,
    /// What is made of the description before it is sent.
    pub(crate) description: fn(String) -> Vec<u8>,
    /// The user `installer` and the password are asked for in this way.
    pub(crate) login: Option<Login>,
    pub(crate) password: &'static str,
    /// Whether there are sender reports.
    pub(crate) reports: bool,
    /// A session without a request for so long is closed.
    pub(crate) session_timeout: Option<Duration>,
    /// Whether a second connection is refused while there is one.
    pub(crate) one_connection: bool,
    /// Added to the timestamp of picture `n`, in 90 kHz ticks (sound moves with it); `None`: all are equal.
    pub(crate) shift: fn(u64) -> Option<i64>,
    /// The first timestamp.
    pub(crate) first_timestamp: u32,
    /// Pictures go out so many at a time.
    pub(crate) burst: u64,
    /// After this picture nothing more is sent; the connection stays.
    pub(crate) silent_after: Option<u64>,
    /// After this picture the connection is closed without a word.
    pub(crate) close_after: Option<u64>,
    /// After this picture it says goodbye (RTCP BYE); the connection stays, and nothing more comes.
    pub(crate) goodbye_after: Option<u64>,
    /// Before this picture nothing is sent for so long; what was due then is left out, as live cameras do.
    pub(crate) stall: Option<(u64, Duration)>,
    /// Of every so many packets one is lost (UDP).
    pub(crate) lose_every: Option<u64>,
    /// Of every so many packets one comes after the next (UDP).
    pub(crate) swap_every: Option<u64>,
    /// Before every so many pictures something that is no picture.
    pub(crate) garbage_every: Option<u64>,
}

impl Script {
    pub(crate) fn of(film: Arc<Film>) -> Script {
        Script {
            film,
            then: None,
            sound: false,
            rate: 25,
            said_rate: Some(25),
            sets_in_sdp: true,
            description: String::into_bytes,
            login: None,
            password: "secret",
            reports: true,
            session_timeout: None,
            one_connection: false,
            shift: |_| Some(0),
            first_timestamp: 3_000_000_000,
            burst: 1,
            silent_after: None,
            close_after: None,
            goodbye_after: None,
            stall: None,
            lose_every: None,
            swap_every: None,
            garbage_every: None,
        }
    }

    pub(crate) fn good() -> Script {
        Script::of(Film::plain())
    }
}
