//! What a config would run, told without running it.

use crate::unbuilt;
use fieldgate_model::Config;
use fieldgate_model::config::{Mountpoint, Problem, Push, Source};
use fieldgate_model::plan::{self as model, Load, Overload, Summary};
use schemars::JsonSchema;
use serde::Serialize;
use std::fmt;

/// What would run.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Plan {
    /// Addresses by kind.
    pub listen: Vec<(String, String)>,
    /// In the order of their names; streams that exist under templates are among them.
    pub mountpoints: Vec<MountpointPlan>,
    /// What encoding takes, against what there is.
    pub load: Load,
    /// What does not fit, the least important first.
    pub over: Vec<Overload>,
    /// Bytes of all rings, each template counted with as many streams as it permits.
    pub ring_bytes: u64,
    /// Bytes that KMP pushes without a spool may keep, counted likewise.
    pub push_bytes: u64,
    /// Bytes that all of that may take together, where known.
    pub memory_budget: Option<u64>,
}

/// A plan, and why a change to its config would be refused.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Answer {
    /// The plan.
    #[serde(flatten)]
    pub plan: Plan,
    /// Empty when it would be admitted.
    pub problems: Vec<Problem>,
}

/// One mountpoint.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct MountpointPlan {
    /// Its name.
    pub name: String,
    /// Where its stream comes from, secrets masked.
    pub from: String,
    /// Why that would not work, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hindrance: Option<&'static str>,
    /// Who may publish; only for `publish`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish: Option<String>,
    /// Who may play.
    pub play: String,
    /// Streams that may exist at once: more than one only for templates.
    pub streams: u32,
    /// What happens to pictures and sound, on the way to each output.
    #[serde(flatten)]
    pub treatment: model::MountpointPlan,
}

impl Plan {
    /// Of a config that is valid, with the plan of what is encoded.
    pub fn of(config: &Config, machine_memory_bytes: Option<u64>, encoding: model::Plan) -> Plan {
        let tls = config.rtmp.tls.iter().flat_map(|tls| tls.listen.iter().map(|address| ("rtmps", address)));
        let listen = config.rtmp.listen.iter().map(|address| ("rtmp", address)).chain(tls);
        let kmps = config.kmp.tls.iter().flat_map(|tls| tls.listen.iter().map(|address| ("kmps", address)));
        let listen = listen.chain(config.kmp.listen.iter().map(|address| ("kmp", address))).chain(kmps);
        let listen = listen.chain(config.compat.kmp.api.listen.iter().map(|address| ("kmp_api", address)));
        let aggregator = &config.compat.aggregator;
        let listen = listen.chain(aggregator.listen.iter().map(|address| ("aggregator", address)));
        let listen = listen.chain(aggregator.stat_listen.iter().map(|address| ("aggregator_stat", address)));
        let listen = listen.chain(config.compat.node.listen.iter().map(|address| ("mesh_node", address)));
        let coordinator = &config.compat.coordinator;
        let coordinator_tls = coordinator.tls.iter().flat_map(|tls| &tls.listen);
        let coordinator =
            coordinator.listen.iter().chain(coordinator_tls).map(|address| ("coordinator", address));
        let listen = listen.chain(coordinator.filter(|_| config.compat.coordinator.enabled));
        let listen = listen.chain(config.admin.listen.iter().map(|address| ("admin", address)));
        let ring_bytes = config.mountpoints.iter().fold(0_u64, |sum, (name, mountpoint)| {
            sum.saturating_add(mountpoint.ring.bytes.saturating_mul(u64::from(streams(name, mountpoint))))
        });
        Plan {
            listen: listen.map(|(kind, address)| (kind.to_owned(), address.to_string())).collect(),
            mountpoints: encoding
                .mountpoints
                .into_iter()
                .filter_map(|(name, treatment)| {
                    let (_, settings) = config.mountpoints.get_key_value(&name).or_else(|| {
                        let (template, _) = config.mountpoint_for(&name)?;
                        config.mountpoints.get_key_value(template)
                    })?;
                    Some(plan_mountpoint(&name, settings, treatment))
                })
                .collect(),
            load: encoding.load,
            over: encoding.over,
            ring_bytes,
            push_bytes: config.mountpoints.iter().fold(0_u64, |sum, (name, mountpoint)| {
                let bytes: u64 = mountpoint.push.iter().map(Push::memory_bytes).sum();
                sum.saturating_add(bytes.saturating_mul(u64::from(streams(name, mountpoint))))
            }),
            memory_budget: config.memory_budget(machine_memory_bytes),
        }
    }
}

fn streams(name: &str, mountpoint: &Mountpoint) -> u32 {
    if name.ends_with('*') { mountpoint.max.unwrap_or(Mountpoint::DEFAULT_MAX) } else { 1 }
}

fn plan_mountpoint(name: &str, mountpoint: &Mountpoint, treatment: model::MountpointPlan) -> MountpointPlan {
    let from = match &mountpoint.source {
        Source::Publish(_) => format!("published to rtmp://HOST/live/{name}"),
        Source::Rtsp(rtsp) => format!("camera {}", rtsp.url),
        Source::V4l2(v4l2) => format!("device {}", v4l2.device.display()),
        Source::Csi(csi) => format!("libcamera {}", csi.camera.as_deref().unwrap_or("(the first)")),
        Source::Rtp(rtp) => {
            rtp.session().map_or_else(|error| error.to_string(), |session| session.to_string())
        }
        Source::Mjpeg(mjpeg) => format!("camera {}", mjpeg.url),
        Source::File(file) => format!("file {}", file.path.display()),
        Source::Test(test) => format!("test picture {}x{}, {}/s", test.width, test.height, test.frame_rate),
        Source::Pull(pull) => format!("fetched from {}", pull.url),
        Source::Kmp(_) => "sent by KMP".to_owned(),
    };
    let publish = match &mountpoint.source {
        Source::Publish(publish) => Some(who(publish.key.is_some(), &publish.allow)),
        _ => None,
    };
    MountpointPlan {
        name: name.to_owned(),
        from,
        hindrance: unbuilt::source(&mountpoint.source),
        publish,
        play: who(mountpoint.play.key.is_some(), &mountpoint.play.allow),
        streams: streams(name, mountpoint),
        treatment,
    }
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
            writeln!(f, "  source   {}", mountpoint.from)?;
            tell_hindrance(f, mountpoint.hindrance)?;
            if let Some(publish) = &mountpoint.publish {
                writeln!(f, "  publish  {publish}")?;
            }
            writeln!(f, "  play     {}", mountpoint.play)?;
            write!(f, "{}", mountpoint.treatment)?;
        }
        write!(f, "\n{}", Summary { load: &self.load, over: &self.over })?;
        let mib = |bytes: u64| bytes / (1 << 20);
        write!(f, "memory   rings take up to {} MiB", mib(self.ring_bytes))?;
        if self.push_bytes > 0 {
            write!(f, ", KMP pushes up to {} MiB", mib(self.push_bytes))?;
        }
        match self.memory_budget {
            Some(budget) if self.ring_bytes.saturating_add(self.push_bytes) > budget => {
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
    use fieldgate_model::plan::Known;

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
        let config = Config::parse(text).unwrap();
        let plan = Plan::of(&config, Some(1 << 30), model::plan(&config, &Known::default())).to_string();
        assert!(!plan.contains("SECRET"), "{plan}");
        for part in [
            "listen rtmp on 127.0.0.1:1935\n\nbay\n  source   device /dev/video0\n  play     this machine alone\n",
            "  video    transcode raw -> h264: raw pictures are too large to send",
            "\n\ngate\n  source   camera rtsp://user:***@cam/main\n  play     anybody with the key\n",
            "  to kmp://up:6543 (k)\n",
            "\n\ns*\n  template for up to 64 streams\n  source   published to rtmp://HOST/live/s*\n  publish  this machine \
             and 10.0.0.0/8\n",
            "  to rtmp://up/live/{name} (p, off)\n",
            "\nencoding costs are not known here",
            "\nmemory   rings take up to 528 MiB, KMP pushes up to 17 MiB; the budget is 256 MiB, so not all streams of the \
             templates fit at once\n",
        ] {
            assert!(plan.contains(part), "{part:?} is missing in\n{plan}");
        }
    }
}
