//! What only KMP pushes show: whether each track is complete and ended, and what a spool writes.

use super::{Kind, Load, Outcome, Plan, Run, SECOND};
use crate::connection::{Role, Wire};
use crate::engine::now_ns;
use crate::error::{Attempt, BenchError};
use crate::kmp::{Acks, Receiver};
use crate::media::Track;
use crate::meter;

/// Longer than a spool holds frames back before it writes them, by its default.
const SETTLE_SECONDS: u64 = 6;
/// It is waited for so long where it has to write everything.
const SPOOL_SECONDS: u64 = 20;
const END_SECONDS: u64 = 15;
const PROBE_BYTES: usize = 1 << 20;

/// What only a KMP push shows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Uplink {
    /// Tracks that were received.
    pub tracks: usize,
    /// Those that the server did not end when their stream did.
    pub unended: usize,
    /// Bytes that the server had written to its disk per byte of frames, from its start on, with a spool only. The
    /// kernel counts whole pages, a half-full one again each time that it is written.
    pub written_per_byte: Option<f64>,
    /// Bytes of the files in its state folder when all was sent, per byte of frames; with a spool only.
    pub kept_per_byte: Option<f64>,
}

/// How the receivers of `load` acknowledge; `None` if they do not speak KMP.
pub(super) fn acks(load: &Load, plan: &Plan) -> Option<Acks> {
    match load.kind {
        Kind::Kmp { acks: true, .. } => Some(Acks::Every(plan.ack_every)),
        Kind::Kmp { acks: false, .. } => Some(Acks::Never),
        _ => None,
    }
}

/// Fails where the kernel does not count what is written: in memory nothing would be, and every goal would hold.
pub(super) fn require_disk() -> Result<(), BenchError> {
    let folder = std::env::temp_dir();
    let file = folder.join(format!("fieldgate-bench-probe-{}", std::process::id()));
    let before = meter::written_bytes(std::process::id());
    std::fs::write(&file, vec![1; PROBE_BYTES]).attempt("write a probe file")?;
    let counted = meter::written_bytes(std::process::id()) - before;
    std::fs::remove_file(&file).attempt("remove a probe file")?;
    if counted < PROBE_BYTES as u64 { Err(BenchError::NotOnDisk(folder)) } else { Ok(()) }
}

impl Run<'_> {
    /// Counts what the tracks carried and what was written for them, then ends the streams.
    pub(super) fn end_uplink(&mut self, spool: bool, outcome: &mut Outcome) -> Result<(), BenchError> {
        if self.engine.ended > 0 {
            return Err(BenchError::Protocol("a KMP track was ended while its stream ran"));
        }
        let (mut media, mut uplink) = (0, Uplink::default());
        for receiver in self.receivers() {
            uplink.tracks += 1;
            media += receiver.media_bytes();
            outcome.faults.changed += receiver.odd();
        }
        let per_stream = [Track::Video, Track::Audio].len() - usize::from(!self.plan.audio);
        let expected = usize::from(self.load.publishers) * usize::from(self.load.players) * per_stream;
        if uplink.tracks != expected {
            let what = format!("{expected} KMP tracks ({} came)", uplink.tracks);
            return Err(BenchError::Timeout { what, seconds: self.plan.seconds });
        }
        if spool {
            let (server, acks) = (self.server, matches!(self.load.kind, Kind::Kmp { acks: true, .. }));
            self.engine.run(now_ns() + SPOOL_SECONDS * SECOND, |_| acks || server.state_bytes() >= media)?;
            // The last frames of some tracks may still be held back.
            self.engine.run(now_ns() + SETTLE_SECONDS * SECOND, |_| false)?;
            let per_byte = |bytes: u64| Some(bytes as f64 / media.max(1) as f64);
            uplink.written_per_byte = per_byte(meter::written_bytes(self.server.pid()));
            uplink.kept_per_byte = per_byte(self.server.state_bytes());
        }
        self.close_publishers();
        self.engine.run(now_ns() + END_SECONDS * SECOND, |engine| engine.ended >= expected)?;
        uplink.unended = expected.saturating_sub(self.engine.ended);
        outcome.uplink = Some(uplink);
        Ok(())
    }

    fn receivers(&self) -> impl Iterator<Item = &Receiver> {
        self.engine.connections.iter().flatten().filter_map(|connection| match &connection.session {
            Wire::Kmp(receiver) if receiver.media_bytes() > 0 => Some(receiver),
            _ => None,
        })
    }

    fn close_publishers(&mut self) {
        for index in 0..self.engine.connections.len() {
            let role = self.engine.connections[index].as_ref().map(|connection| &connection.role);
            if matches!(role, Some(Role::Publisher { .. })) {
                self.engine.close(index);
            }
        }
    }
}
