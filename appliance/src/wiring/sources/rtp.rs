//! RTP by UDP: what its receiver is told.

use super::job_for;
use crate::supervisor::ChildError;
use crate::wiring::treatment::Treatments;
use fieldgate_hub::Retry;
use fieldgate_model::config::{Rtp, RtpSession, Source};
use fieldgate_model::job::{Job, RtpCamera, Sandbox, Work};
use fieldgate_worker::Deadlines;
use std::path::{Path, PathBuf};

/// Ports, encodings and group.
pub(super) fn session(rtp: &Rtp) -> Result<RtpSession, ChildError> {
    rtp.session().map_err(|error| ChildError::of(Retry::Never, &error))
}

pub(super) fn described(rtp: &Rtp) -> Result<String, ChildError> {
    Ok(session(rtp)?.to_string())
}

/// A source that says for itself how long it may be silent.
pub(super) fn deadlines(source: &Source) -> Deadlines {
    let usual = Deadlines::default();
    match source {
        Source::Rtp(rtp) => {
            let stall = rtp.stall_timeout.get();
            // A sender may come late, but a group may need to be joined anew.
            Deadlines {
                between_units: stall,
                first_unit: usual.first_unit.map(|first| first.max(stall)),
                ..usual
            }
        }
        _ => usual,
    }
}

/// The worker may use UDP, and nothing else.
pub(super) fn rtp_job(
    name: &str,
    rtp: &Rtp,
    session: RtpSession,
    treat: Treatments,
    devices: Vec<PathBuf>,
) -> Result<Job, ChildError> {
    let interface = match &rtp.interface {
        Some(interface) => number_of(Path::new("/sys/class/net"), interface)?,
        None => 0,
    };
    let camera = RtpCamera {
        streams: session.streams,
        listen: rtp.listen,
        group: session.group,
        interface,
        allow: rtp.allow.clone(),
        latency_ms: u32::try_from(rtp.latency.get().as_millis()).unwrap_or(u32::MAX),
        video: treat.video,
        audio: treat.audio,
    };
    let sandbox = Sandbox { udp: true, devices, ..Sandbox::default() };
    Ok(job_for(name, sandbox, Work::Rtp(camera)))
}

/// The kernel's number of an interface; the worker cannot ask for it.
fn number_of(folder: &Path, interface: &str) -> Result<u32, ChildError> {
    let file = folder.join(interface).join("ifindex");
    let number = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
    number.ok_or_else(|| {
        let text = format!("there is no network interface {interface}: see `ip link`");
        ChildError::new(Retry::Backoff, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldgate_model::job::EncoderWish;

    #[test]
    fn a_receiver_is_told_ports_senders_and_interface() {
        let rtp: Rtp = serde_json::from_value(serde_json::json!({
            "streams": [{"media": "video", "port": 5004, "encoding": "H264"}],
            "group": "239.1.2.3", "interface": "lo", "allow": ["10.0.0.7"], "latency": "50ms", "stall_timeout": "4s",
        }))
        .unwrap();
        let treat = Treatments::plain(EncoderWish::default(), false);
        let job = rtp_job("yard", &rtp, session(&rtp).unwrap(), treat, Vec::new()).unwrap();
        assert_eq!(job.sandbox, Sandbox { udp: true, ..Sandbox::default() });
        let Work::Rtp(camera) = job.work else { panic!() };
        assert_eq!((camera.streams.len(), camera.interface, camera.latency_ms), (1, 1, 50));
        assert_eq!((camera.group, camera.allow), (rtp.group, rtp.allow.clone()));
        assert_eq!(described(&rtp).unwrap(), "RTP to 239.1.2.3, port 5004 (H264)");
        assert_eq!(deadlines(&Source::Rtp(rtp)).between_units.as_secs(), 4);
        assert!(number_of(Path::new("/sys/class/net"), "none").is_err());
    }
}
