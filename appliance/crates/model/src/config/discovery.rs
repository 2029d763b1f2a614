//! Where cameras are looked for.

use super::{Config, Path, Problem, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest name of a network interface, in bytes. Source: `IFNAMSIZ` of Linux, without its end.
const MAX_NAME_LEN: usize = 15;

/// How cameras on the local networks are found, and how the gateway is. Nothing is logged in to by itself: a camera is
/// listed with what it tells everybody, until somebody gives credentials for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Discovery {
    /// Network interfaces to look on, such as `"eth1"`. At most 16. Default: every interface with an IPv4 address but
    /// loopback.
    #[schemars(length(max = 16))]
    pub interfaces: Vec<String>,
    /// Look for cameras by ONVIF (WS-Discovery). Default true.
    pub onvif: bool,
    /// Look for cameras by multicast DNS. Default true.
    pub mdns: bool,
    /// Time from one search to the next. A camera that was silent for ten of them is forgotten. `"10s"` to `"1d"`.
    /// Default `"60s"`.
    #[schemars(extend("minSpan" = "10s", "maxSpan" = "1d"))]
    pub interval: Span,
    /// Tell the local networks where the gateway's page is, by multicast DNS: under the name `network.hostname`, or
    /// `fieldgate-XXXX` with the last four characters of its device id, each with `.local`. Only where `admin.tls` listens,
    /// never on loopback or towards a single far end (cellular, tunnels). Default true.
    pub announce: bool,
}

impl Default for Discovery {
    fn default() -> Self {
        Discovery {
            interfaces: Vec::new(),
            onvif: true,
            mdns: true,
            interval: Span::from_secs(60),
            announce: true,
        }
    }
}

/// Interfaces whose names no system has, or that stand there twice.
pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    let list = Path::root().field("discovery").field("interfaces");
    for (index, name) in config.discovery.interfaces.iter().enumerate() {
        let path = list.item(index);
        let is_plain = |c: char| c.is_ascii_graphic() && c != '/';
        if name.is_empty() || name.len() > MAX_NAME_LEN || !name.chars().all(is_plain) {
            let problem = format!("must be the name of a network interface: 1 to {MAX_NAME_LEN} characters");
            problems.push(Problem::new(&path, problem).got(name.as_str()).remedy("ip link lists them"));
        }
        if config.discovery.interfaces.iter().take(index).any(|earlier| earlier == name) {
            problems.push(Problem::new(&path, "stands there twice").got(name.as_str()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{diff, validate};
    use super::*;
    use serde_json::json;

    fn config(discovery: serde_json::Value) -> Config {
        Config::from_value(json!({"discovery": discovery})).unwrap()
    }

    #[test]
    fn interfaces_have_names_that_exist_and_stand_there_once() {
        let names = ["eth0", "wlan0.5", "", "a/b", "sixteen-letters-", "eth 0", "eth0"];
        let found: Vec<String> =
            validate(&config(json!({"interfaces": names}))).iter().map(|it| it.path.clone()).collect();
        let at = |index: usize| format!("discovery.interfaces[{index}]");
        assert_eq!(found, [at(2), at(3), at(4), at(5), at(6)]);
        let many: Vec<String> = (0..17).map(|number| format!("eth{number}")).collect();
        let refused = Config::from_value(json!({"discovery": {"interfaces": many}})).unwrap_err();
        assert_eq!(refused[0].to_string(), "discovery.interfaces: must have at most 16 entries, got 17");
        let fast = Config::from_value(json!({"discovery": {"interval": "9s"}})).unwrap_err();
        assert!(fast[0].to_string().starts_with("discovery.interval: must be 10s to"), "{fast:?}");
    }

    #[test]
    fn a_change_stands_at_once() {
        let changes = diff(&config(json!({})), &config(json!({"mdns": false})));
        assert_eq!((changes.0.len(), changes.is_provisional()), (1, false));
        assert_eq!(changes.0[0].part.to_string(), "discovery");
    }
}
