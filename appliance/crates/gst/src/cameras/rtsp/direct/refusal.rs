//! What the RTSP library's errors mean, in words for the installer.

use crate::error::WorkError;
use retina::Error;

/// Longest text that is passed on; the library's own goes on with addresses and hexadecimal.
const TEXT_MAX: usize = 200;

/// A request that failed.
pub(super) fn of(method: &str, error: &Error, has_login: bool) -> WorkError {
    match error.status_code() {
        Some(401) => WorkError::LoginRefused { had_login: has_login },
        Some(403) => WorkError::Camera("the camera forbids this stream to this user (403)".into()),
        Some(404) => WorkError::Camera("the camera has no stream at this path (404): check the URL".into()),
        Some(453) => WorkError::Camera("the camera has no bandwidth left for one more session (453)".into()),
        Some(461) => WorkError::Camera("the camera refuses this transport (461): try another".into()),
        Some(503) => WorkError::Camera("the camera serves as many as it can (503)".into()),
        Some(status) => WorkError::Camera(format!("the camera answers {method} with {status}")),
        None if text(error).starts_with("Unable to connect") => WorkError::Camera(format!(
            "cannot connect: {}",
            text(error).trim_start_matches("Unable to connect to RTSP server: ")
        )),
        None => WorkError::Camera(format!("{method}: {}", text(error))),
    }
}

/// A session that broke.
pub(super) fn of_stream(error: &Error) -> WorkError {
    WorkError::Camera(format!("the session broke: {}", text(error)))
}

/// Whether the description of the camera's streams came, but could not be read.
pub(super) fn is_of_description(error: &Error) -> bool {
    let text = error.to_string();
    text.contains("Unable to parse SDP") || text.contains("No parseable streams")
}

/// Whether only this packet or unit was at fault, and the next may be fine. The library's errors have no kinds for
/// this; those about a packet tell its place.
pub(super) fn is_of_one_packet(error: &Error) -> bool {
    error.to_string().contains("\npkt: ")
}

fn text(error: &Error) -> String {
    let whole = error.to_string();
    let line = whole.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(TEXT_MAX).collect()
}
