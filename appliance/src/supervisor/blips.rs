//! What a change of config interrupts, told before it is made.
//!
//! From the same settings that the supervisor compares, so that it cannot name anything else than what is restarted.

use super::children::{ChildKey, children_of};
use fieldgate_model::Config;
use fieldgate_model::config::Span;
use schemars::JsonSchema;
use serde::Serialize;

/// One thing that a change interrupts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Blip {
    /// The stream; absent for what is no stream's own, such as a listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mountpoint: Option<String>,
    /// What is interrupted, as in logs: `push yard/main`, `rtmp 0.0.0.0:1935`.
    pub what: String,
    /// For about how long, an estimate; absent for what ends for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<Span>,
}

/// All that `to` interrupts of what `from` runs. Streams under a template stand under the template's name.
pub fn blips(from: &Config, to: &Config) -> Vec<Blip> {
    let wanted = children_of(to);
    let running = children_of(from);
    let restarts = |key: &ChildKey| running.get(key) != wanted.get(key);
    let network = (from.network != to.network).then(|| Blip {
        mountpoint: None,
        what: "network".to_owned(),
        about: Some(Span::from_secs(5)),
    });
    let interrupted = running.keys().filter(|key| restarts(key));
    interrupted
        // What hangs on a mountpoint goes with it, and is not told again.
        .filter(|key| match key {
            ChildKey::Mountpoint(_) => true,
            _ => key.mountpoint().is_none_or(|name| !restarts(&ChildKey::Mountpoint(name.to_owned()))),
        })
        .map(|key| Blip {
            mountpoint: key.mountpoint().map(str::to_owned),
            what: key.to_string(),
            about: wanted.contains_key(key).then(|| about(key)),
        })
        .chain(network)
        .collect()
}

/// How long it takes until media flows again, as a rule: stopping, starting, and the next keyframe.
fn about(key: &ChildKey) -> Span {
    Span::from_secs(match key {
        ChildKey::Admin
        | ChildKey::KmpApi { .. }
        | ChildKey::AggregatorApi { .. }
        | ChildKey::AggregatorStat { .. }
        | ChildKey::AggregatorCms => 1,
        // Whoever was connected dials anew.
        ChildKey::RtmpListener { .. }
        | ChildKey::RtmpsListener { .. }
        | ChildKey::HttpListener { .. }
        | ChildKey::HttpsListener { .. }
        | ChildKey::KmpListener { .. }
        | ChildKey::KmpsListener { .. } => 5,
        ChildKey::Push { .. } | ChildKey::Recorder(_) => 3,
        ChildKey::MeshNode | ChildKey::Coordinator | ChildKey::Control | ChildKey::Encoder => 5,
        ChildKey::Mountpoint(_) | ChildKey::Source(_) | ChildKey::Rendition(_) => 5,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(mountpoints: serde_json::Value) -> Config {
        serde_json::from_value(json!({"mountpoints": mountpoints})).unwrap()
    }

    fn told(from: &Config, to: &Config) -> Vec<String> {
        let tell = |blip: Blip| match blip.about {
            Some(about) => format!("{} for {about}", blip.what),
            None => format!("{} ends", blip.what),
        };
        blips(from, to).into_iter().map(tell).collect()
    }

    #[test]
    fn only_what_is_started_anew_blips_and_what_hangs_on_it_is_told_once() {
        let from = config(json!({
            "gate": {"source": {"kind": "test"}, "push": [{"id": "a", "url": "rtmp://up/live/a"}, {"id": "b", "url": "rtmp://up/live/b"}]},
            "yard": {"source": {"kind": "test"}, "push": [{"id": "a", "url": "rtmp://up/live/c"}]},
        }));
        assert_eq!(told(&from, &from), [""; 0]);
        let mut to = from.clone();
        to.mountpoints.get_mut("gate").unwrap().push[0].url =
            fieldgate_model::config::SecretUrl::new("rtmp://up/live/z");
        to.mountpoints.get_mut("gate").unwrap().push.pop();
        assert_eq!(told(&from, &to), ["push gate/a for 3s", "push gate/b ends"]);
        let mut to = from.clone();
        to.mountpoints.get_mut("yard").unwrap().max_lag = Span::from_secs(1);
        assert_eq!(told(&from, &to), ["mountpoint yard for 5s"]);
        let mut to = from.clone();
        to.mountpoints.remove("yard");
        assert_eq!(told(&from, &to), ["mountpoint yard ends"]);
        to.mountpoints.get_mut("gate").unwrap().play.key = Some(fieldgate_model::config::Secret::new("k"));
        to.rtmp.listen.clear();
        assert_eq!(told(&from, &to), ["rtmp 0.0.0.0:1935 ends", "mountpoint yard ends"]);
        let mut to = from.clone();
        to.network.hostname = Some("gate".to_owned());
        assert_eq!(told(&from, &to), ["network for 5s"]);
    }
}
