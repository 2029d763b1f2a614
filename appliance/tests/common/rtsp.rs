//! A camera that speaks RTSP: gst-rtsp-server playing a recording.

use super::fixture::Fixture;
use super::process::Process;
use super::take::Frame;
use super::wait::{self, secs};
use std::process::Stdio;

/// The server; the recording starts from its beginning for each client, at `/main`.
pub(crate) struct RtspServer {
    /// Ends with it.
    _process: Process,
    port: u16,
}

impl RtspServer {
    /// Serves the pictures and the sound of a recording.
    pub(crate) fn start(fixture: &Fixture) -> RtspServer {
        let file = fixture.as_matroska();
        RtspServer::with(&["--file", file.to_str().unwrap(), "--audio"])
    }

    /// With these arguments; `tests/peers/rtsp_server.py` says which there are.
    pub(crate) fn with(args: &[&str]) -> RtspServer {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/rtsp_server.py");
        // Debian's own Python has the bindings; another one first in the path has not.
        let process = Process::start_with("/usr/bin/python3", &[&[script], args].concat(), |command| {
            command.stdin(Stdio::piped());
        });
        let mut server = RtspServer { _process: process, port: 0 };
        server.port = wait::until("gst-rtsp-server to listen (scripts/setup installs it)", secs(30), || {
            server._process.assert_running();
            server._process.output().lines().next()?.strip_prefix("port ")?.parse().ok()
        });
        server
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("rtsp://127.0.0.1:{}/main", self.port)
    }
}

/// A picture's NAL units without parameter sets and delimiters: these move into the header on the way.
pub(crate) fn nal_units(picture: &Frame) -> Vec<&[u8]> {
    let (mut units, mut rest) = (Vec::new(), picture.payload.as_slice());
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let (unit, after) = after.split_at(u32::from_be_bytes(*len) as usize);
        if !matches!(unit[0] & 0x1f, 7..=9) {
            units.push(unit);
        }
        rest = after;
    }
    units
}
