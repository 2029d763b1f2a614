//! What an RTSP camera's worker is told.

use super::job_for;
use crate::supervisor::ChildError;
use crate::wiring::treatment::Treatments;
use fieldgate_hub::Retry;
use fieldgate_model::config::{Rtsp, RtspTransport, Source};
use fieldgate_model::job::{self, Job, RtspCamera, Sandbox, Work};
use std::net::SocketAddr;
use std::time::Duration;

/// How long a camera's name may take to resolve.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);
/// RTSP's port where the address names none.
const RTSP_PORT: u16 = 554;

/// Names are resolved here: the worker may talk to the camera's port alone.
pub(super) async fn rtsp_job(
    name: &str,
    rtsp: &Rtsp,
    transport: job::RtspTransport,
    treat: Treatments,
) -> Result<Job, ChildError> {
    let parts = rtsp.url.parts().map_err(|error| ChildError::of(Retry::Never, &error))?;
    let (host, port) = (parts.host, parts.port.unwrap_or(RTSP_PORT));
    let unresolved = |cause: String| {
        let text =
            format!("camera name {host} does not resolve ({cause}): check the name or the gateway's DNS");
        ChildError::new(Retry::Backoff, text)
    };
    let found = tokio::time::timeout(RESOLVE_WITHIN, tokio::net::lookup_host((host, port))).await;
    let mut found =
        found.map_err(|_| unresolved("no answer".into()))?.map_err(|e| unresolved(e.to_string()))?;
    let address: SocketAddr = found.next().ok_or_else(|| unresolved("no address".into()))?;
    let path = if parts.path.is_empty() { "/" } else { parts.path };
    let query = parts.query.map(|query| format!("?{query}")).unwrap_or_default();
    let camera = RtspCamera {
        address,
        path: format!("{path}{query}"),
        transport,
        user: percent_decoded(parts.user.unwrap_or_default()),
        password: job::Secret(percent_decoded(parts.password.unwrap_or_default())),
        latency_ms: u32::try_from(rtsp.latency.get().as_millis()).unwrap_or(u32::MAX),
        video: treat.video,
        audio: treat.audio,
    };
    let udp = transport == job::RtspTransport::Udp;
    let sandbox = Sandbox { tcp_connect: vec![port], udp, ..Sandbox::default() };
    Ok(job_for(name, sandbox, Work::Rtsp(camera)))
}

pub(super) fn is_auto(source: &Source) -> bool {
    matches!(source, Source::Rtsp(rtsp) if rtsp.transport == RtspTransport::Auto)
}

/// A user name or password as it is meant. A `%` without two hexadecimal digits stands for itself, as cameras' own
/// pages tell passwords unencoded.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits
            .filter(|digits| *first == b'%' && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests;
