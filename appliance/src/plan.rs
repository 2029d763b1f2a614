//! What a config would run, told without running it.

use crate::unbuilt;
use fieldgate_model::Config;
use fieldgate_model::config::{Mountpoint, Source, V4l2Format};
use serde::Serialize;
use std::fmt;

/// What would run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Addresses by kind.
    pub listen: Vec<(String, String)>,
    /// In the order of their names.
    pub mountpoints: Vec<MountpointPlan>,
    /// Bytes of all rings, each template counted with as many streams as it permits.
    pub ring_bytes: u64,
    /// Bytes that all rings may take together, where known.
    pub memory_budget: Option<u64>,
}

/// One mountpoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MountpointPlan {
    /// Its name.
    pub name: String,
    /// Where its stream comes from, secrets masked.
    pub source: String,
    /// Why that would not work, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hindrance: Option<&'static str>,
    /// What happens to its pictures.
    pub video: Handling,
    /// Who may publish; only for `publish`.
    pub publish: Option<String>,
    /// Who may play.
    pub play: String,
    /// The upstreams.
    pub pushes: Vec<PushPlan>,
    /// Streams that may exist at once: more than one only for templates.
    pub streams: u32,
}

/// One push.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PushPlan {
    /// Its effective id.
    pub id: String,
    /// Its URL, secrets masked.
    pub url: String,
    /// Whether it would run.
    pub enabled: bool,
}

/// Passed on or encoded, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Handling {
    /// `pass`, `encode`, or `device decides`.
    pub action: &'static str,
    /// Why.
    pub reason: &'static str,
}

impl Plan {
    /// Of a config that is valid.
    pub fn of(config: &Config, machine_memory_bytes: Option<u64>) -> Plan {
        let tls = config.rtmp.tls.iter().flat_map(|tls| tls.listen.iter().map(|address| ("rtmps", address)));
        let listen = config.rtmp.listen.iter().map(|address| ("rtmp", address)).chain(tls);
        let kmps = config.kmp.tls.iter().flat_map(|tls| tls.listen.iter().map(|address| ("kmps", address)));
        let listen = listen.chain(config.kmp.listen.iter().map(|address| ("kmp", address))).chain(kmps);
        let listen = listen.chain(config.compat.kmp.api.listen.iter().map(|address| ("kmp_api", address)));
        let listen = listen.chain(config.admin.listen.iter().map(|address| ("admin", address)));
        let ring_bytes = config.mountpoints.iter().fold(0_u64, |sum, (name, mountpoint)| {
            sum.saturating_add(mountpoint.ring.bytes.saturating_mul(u64::from(streams(name, mountpoint))))
        });
        Plan {
            listen: listen.map(|(kind, address)| (kind.to_owned(), address.to_string())).collect(),
            mountpoints: config
                .mountpoints
                .iter()
                .map(|(name, mountpoint)| plan_mountpoint(name, mountpoint))
                .collect(),
            ring_bytes,
            memory_budget: config.memory_budget(machine_memory_bytes),
        }
    }
}

fn streams(name: &str, mountpoint: &Mountpoint) -> u32 {
    if name.ends_with('*') { mountpoint.max.unwrap_or(Mountpoint::DEFAULT_MAX) } else { 1 }
}

fn plan_mountpoint(name: &str, mountpoint: &Mountpoint) -> MountpointPlan {
    let source = match &mountpoint.source {
        Source::Publish(_) => format!("published to rtmp://HOST/live/{name}"),
        Source::Rtsp(rtsp) => format!("camera {}", rtsp.url),
        Source::V4l2(v4l2) => format!("device {}", v4l2.device.display()),
        Source::Test(test) => format!("test picture {}x{}, {}/s", test.width, test.height, test.frame_rate),
        Source::Pull(pull) => format!("fetched from {}", pull.url),
        Source::Kmp(_) => "sent by KMP".to_owned(),
    };
    let publish = match &mountpoint.source {
        Source::Publish(publish) => Some(who(publish.key.is_some(), &publish.allow)),
        _ => None,
    };
    let push = |push: &fieldgate_model::config::Push| PushPlan {
        id: push.effective_id(),
        url: push.url.redacted(),
        enabled: push.enabled,
    };
    MountpointPlan {
        name: name.to_owned(),
        source,
        hindrance: unbuilt::source(&mountpoint.source),
        video: handling(&mountpoint.source),
        publish,
        play: who(mountpoint.play.key.is_some(), &mountpoint.play.allow),
        pushes: mountpoint.push.iter().map(push).collect(),
        streams: streams(name, mountpoint),
    }
}

fn handling(source: &Source) -> Handling {
    let (action, reason) = match source {
        Source::Publish(_) => ("pass", "the encoder's pictures are handed on as they are"),
        Source::Rtsp(_) => ("pass", "the camera's H.264 or HEVC is handed on as it is"),
        Source::Pull(_) => ("pass", "the server's pictures are handed on as they are"),
        Source::Kmp(_) => ("pass", "the sender's pictures are handed on as they are"),
        Source::Test(_) => ("encode", "the test picture is drawn here"),
        Source::V4l2(v4l2) => match v4l2.format {
            V4l2Format::H264 => ("pass", "the device gives H.264"),
            V4l2Format::Mjpeg => ("encode", "Motion JPEG is no format for an upstream"),
            V4l2Format::Raw => ("encode", "raw pictures are too large to send"),
            V4l2Format::Auto => ("device decides", "passed on if the device gives H.264, else encoded"),
        },
    };
    Handling { action, reason }
}

fn who(has_key: bool, allow: &[fieldgate_model::config::Network]) -> String {
    let networks: Vec<String> = allow.iter().map(ToString::to_string).collect();
    match (has_key, networks.is_empty()) {
        (true, true) => "anybody with the key".to_owned(),
        (true, false) => format!("{} with the key", networks.join(", ")),
        (false, true) => "this machine alone".to_owned(),
        (false, false) => format!("this machine and {}", networks.join(", ")),
    }
}

fn tell_hindrance(f: &mut fmt::Formatter<'_>, hindrance: Option<&str>) -> fmt::Result {
    hindrance.map_or(Ok(()), |text| writeln!(f, "           would fail: {text}"))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, address) in &self.listen {
            writeln!(f, "listen {kind} on {address}")?;
        }
        for mountpoint in &self.mountpoints {
            writeln!(f, "\n{}", mountpoint.name)?;
            if mountpoint.streams > 1 {
                writeln!(f, "  template for up to {} streams", mountpoint.streams)?;
            }
            writeln!(f, "  source   {}", mountpoint.source)?;
            tell_hindrance(f, mountpoint.hindrance)?;
            writeln!(f, "  video    {}: {}", mountpoint.video.action, mountpoint.video.reason)?;
            if let Some(publish) = &mountpoint.publish {
                writeln!(f, "  publish  {publish}")?;
            }
            writeln!(f, "  play     {}", mountpoint.play)?;
            for push in &mountpoint.pushes {
                writeln!(
                    f,
                    "  push     {} ({}{})",
                    push.url,
                    push.id,
                    if push.enabled { "" } else { ", off" }
                )?;
            }
        }
        let mib = |bytes: u64| bytes / (1 << 20);
        write!(f, "\nmemory   rings take up to {} MiB", mib(self.ring_bytes))?;
        match self.memory_budget {
            Some(budget) if self.ring_bytes > budget => {
                writeln!(
                    f,
                    "; the budget is {} MiB, so not all streams of the templates fit at once",
                    mib(budget)
                )
            }
            Some(budget) => writeln!(f, " of {} MiB", mib(budget)),
            None => writeln!(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_tells_sources_handling_outputs_and_memory_without_secrets() {
        let text = r#"{
            "rtmp": {"listen": ["127.0.0.1:1935"]}, "admin": {"listen": []},
            "mountpoints": {
                "gate": {"source": {"kind": "rtsp", "url": "rtsp://user:SECRET@cam/main"}, "play": {"key": "SECRET"},
                         "push": [{"url": "kmp://up:6543", "channel_id": "gate", "id": "k"}]},
                "bay": {"source": {"kind": "v4l2", "device": "/dev/video0", "format": "raw"}},
                "s*": {"source": {"kind": "publish", "allow": ["10.0.0.0/8"]}, "max": 64,
                       "push": [{"url": "rtmp://up/live/{name}", "id": "p", "enabled": false}]}
            }}"#;
        let plan = Plan::of(&Config::parse(text).unwrap(), Some(1 << 30)).to_string();
        let expected = "listen rtmp on 127.0.0.1:1935\n\
            \nbay\n  source   device /dev/video0\n  video    encode: raw pictures are too large to send\n  \
            play     this machine alone\n\
            \ngate\n  source   camera rtsp://user:***@cam/main\n  video    pass: the camera's H.264 or HEVC is handed on \
            as it is\n  play     anybody with the key\n  push     kmp://up:6543 (k)\n\
            \ns*\n  template for up to 64 streams\n  source   published to rtmp://HOST/live/s*\n  video    pass: the \
            encoder's pictures are handed on as they are\n  publish  this machine and 10.0.0.0/8\n  play     this \
            machine alone\n  push     rtmp://up/live/{name} (p, off)\n\
            \nmemory   rings take up to 528 MiB; the budget is 256 MiB, so not all streams of the templates fit at once\n";
        assert_eq!(plan, expected);
    }
}
