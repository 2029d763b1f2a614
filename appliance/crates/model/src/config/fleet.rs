//! The fleet manager's ways to the gateway.

use super::{Config, Path, Problem, Secret, SecretUrl, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How a fleet manager reaches this gateway, or is reached by it. Whatever comes must be signed by a key of the ring
/// (`/api/v1/fleet/keys`), which is none of the config.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Fleet {
    /// Groups that this gateway is in, beside `all`; each 1 to 64 of `A-Z a-z 0-9 _ -`. At most 16. Default: none.
    #[schemars(length(max = 16))]
    pub groups: Vec<String>,
    /// Calls an MQTT 5 broker. Default: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<FleetMqtt>,
    /// Asks a URL now and then. Default: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull: Option<FleetPull>,
    /// Folder that is watched for a file `fieldgate.fgb`, such as where a USB stick is mounted. Default: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub folder: Option<PathBuf>,
}

/// A session with an MQTT 5 broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FleetMqtt {
    /// `mqtt://HOST[:1883]`, or `mqtts://HOST[:8883]` over TLS.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// File with the authorities that sign the broker's certificate, PEM. Default: the well-known public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub ca: Option<PathBuf>,
    /// File with the gateway's own certificate chain for the broker, PEM. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub cert: Option<PathBuf>,
    /// File with its private key, PEM. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub key: Option<PathBuf>,
    /// The broker's user. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub username: Option<String>,
    /// Its password. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// What all topics begin with: levels of `A-Z a-z 0-9 _ -` with `/` between them. Default `"fieldgate"`.
    #[serde(default = "default_prefix")]
    #[schemars(length(min = 1, max = 256))]
    pub topic_prefix: String,
    /// Time over which a fleet that loses its broker spreads its first tries to come back; each gateway waits by chance
    /// up to that long, and twice as long after each try in vain, up to 10 minutes. `"0s"` to `"10m"`. Default `"30s"`.
    #[serde(default = "default_spread")]
    #[schemars(extend("minSpan" = "0s", "maxSpan" = "10m"))]
    pub spread: Span,
    /// Silence after which the broker is asked whether it lives. `"5s"` to `"1h"`. Default `"60s"`.
    #[serde(default = "default_minute")]
    #[schemars(extend("minSpan" = "5s", "maxSpan" = "1h"))]
    pub keep_alive: Span,
    /// Time from one message about the gateway's health to the next. `"1s"` to `"1d"`. Default `"60s"`.
    #[serde(default = "default_minute")]
    #[schemars(extend("minSpan" = "1s", "maxSpan" = "1d"))]
    pub status_interval: Span,
}

/// A URL that is asked for a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FleetPull {
    /// `https://HOST/PATH`, which answers with a bundle. `{device_id}` in it is the gateway's id. `http://` works for a
    /// server on the gateway's own site: the bundle is signed either way, but anybody there can read it.
    pub url: SecretUrl,
    /// File with the authorities that sign the server's certificate, PEM. Default: the well-known public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub ca: Option<PathBuf>,
    /// Sent as `Authorization: Bearer`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// Time from one question to the next, a fifth more or less by chance. `"10s"` to `"7d"`. Default `"15m"`.
    #[serde(default = "default_interval")]
    #[schemars(extend("minSpan" = "10s", "maxSpan" = "7d"))]
    pub interval: Span,
    /// Time for one question and its answer. `"1s"` to `"5m"`. Default `"30s"`.
    #[serde(default = "default_spread")]
    #[schemars(extend("minSpan" = "1s", "maxSpan" = "5m"))]
    pub timeout: Span,
}

fn default_prefix() -> String {
    "fieldgate".to_owned()
}

fn default_spread() -> Span {
    Span::from_secs(30)
}

fn default_minute() -> Span {
    Span::from_secs(60)
}

fn default_interval() -> Span {
    Span::from_secs(900)
}

impl FleetMqtt {
    /// Host, port and whether it is TLS; none if the URL is not of the right kind.
    pub fn broker(&self) -> Option<(String, u16, bool)> {
        let url = SecretUrl::new(&self.url);
        let parts = url.parts().ok()?;
        let (is_tls, port) = match parts.scheme {
            "mqtt" => (false, 1883),
            "mqtts" => (true, 8883),
            _ => return None,
        };
        let is_bare = parts.user.is_none()
            && matches!(self.url.rsplit_once("://"), Some((_, rest)) if !rest.contains(['/', '?', '#']));
        is_bare.then(|| (parts.host.to_owned(), parts.port.unwrap_or(port), is_tls))
    }
}

/// What only shows in context.
pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    let Fleet { groups, mqtt, pull, folder } = &config.fleet;
    let at = Path::root().field("fleet");
    for (index, group) in groups.iter().enumerate() {
        let path = at.field("groups").item(index);
        if !is_level(group) || group.len() > 64 {
            let text = "must be 1 to 64 of the characters A-Z a-z 0-9 _ -";
            problems.push(Problem::new(&path, text).got(group.as_str()));
        } else if group == "all" {
            problems.push(Problem::new(&path, "every gateway is in all; leave it out"));
        }
    }
    if let Some(mqtt) = mqtt {
        let at = at.field("mqtt");
        match mqtt.broker() {
            None => {
                let problem = Problem::new(&at.field("url"), "must be mqtt://HOST:PORT or mqtts://HOST:PORT");
                problems.push(
                    problem.got(mqtt.url.as_str()).remedy("user and password have settings of their own"),
                );
            }
            Some((_, _, false)) if mqtt.ca.is_some() || mqtt.cert.is_some() => {
                problems.push(Problem::new(&at.field("url"), "must be mqtts:// for certificates to count"));
            }
            Some(_) => {}
        }
        if mqtt.cert.is_some() != mqtt.key.is_some() {
            problems.push(Problem::new(&at.field("cert"), "cert and key come together"));
        }
        if mqtt.password.is_some() && mqtt.username.is_none() {
            problems.push(Problem::new(&at.field("username"), "is needed with a password"));
        }
        if !mqtt.topic_prefix.split('/').all(is_level) {
            let text = "must be levels of A-Z a-z 0-9 _ - with / between them";
            problems.push(Problem::new(&at.field("topic_prefix"), text).got(mqtt.topic_prefix.as_str()));
        }
    }
    if let Some(pull) = pull {
        let path = at.field("pull").field("url");
        match pull.url.parts() {
            Err(error) => problems.push(Problem::new(&path, error.to_string()).got(pull.url.redacted())),
            Ok(parts) if !matches!(parts.scheme, "https" | "http") => {
                problems.push(Problem::new(&path, "must be https:// or http://").got(pull.url.redacted()));
            }
            Ok(parts) if parts.user.is_some() => {
                let problem = Problem::new(&path, "takes no user; use token").got(pull.url.redacted());
                problems.push(problem);
            }
            Ok(_) => {}
        }
    }
    if let Some(folder) = folder.as_ref().filter(|folder| !folder.is_absolute()) {
        let problem = Problem::new(&at.field("folder"), "must be an absolute path");
        problems.push(problem.got(folder.display().to_string()));
    }
}

fn is_level(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::super::{diff, validate};
    use super::*;
    use serde_json::{Value, json};

    fn config(fleet: Value) -> Config {
        Config::from_value(json!({"fleet": fleet})).unwrap()
    }

    fn problems(fleet: Value) -> Vec<String> {
        validate(&config(fleet))
            .iter()
            .map(|problem| format!("{}: {}", problem.path, problem.problem))
            .collect()
    }

    #[test]
    fn a_good_fleet_has_no_problems_and_says_where_its_broker_is() {
        let good = json!({
            "groups": ["north", "wave-1"],
            "mqtt": {"url": "mqtts://broker.example", "ca": "/ca", "cert": "/c", "key": "/k",
                     "username": "u", "password": "p", "topic_prefix": "site/a"},
            "pull": {"url": "https://fleet.example/{device_id}?key=x", "token": "t"},
            "folder": "/media/stick",
        });
        assert_eq!(problems(good.clone()), [] as [&str; 0]);
        let mqtt = config(good).fleet.mqtt.unwrap();
        assert_eq!(mqtt.broker(), Some(("broker.example".to_owned(), 8883, true)));
        let plain = FleetMqtt { url: "mqtt://[::1]:1".to_owned(), ..mqtt };
        assert_eq!(plain.broker().map(|(_, port, tls)| (port, tls)), Some((1, false)));
    }

    #[test]
    fn what_cannot_work_is_told_with_its_place() {
        let url = |url: &str| problems(json!({"mqtt": {"url": url}}));
        for wrong in ["http://h", "mqtt://", "mqtt://h/path", "mqtt://u:p@h", "h:1883", "mqtt://h:0"] {
            assert_eq!(
                url(wrong),
                ["fleet.mqtt.url: must be mqtt://HOST:PORT or mqtts://HOST:PORT"],
                "{wrong}"
            );
        }
        let found = problems(json!({
            "groups": ["a/b", "all"],
            "mqtt": {"url": "mqtt://h", "cert": "/c", "password": "p", "topic_prefix": "a//#"},
            "pull": {"url": "ftp://h/x"},
            "folder": "stick",
        }));
        let places: Vec<&str> = found.iter().filter_map(|it| it.split(':').next()).collect();
        assert_eq!(
            places,
            [
                "fleet.groups[0]",
                "fleet.groups[1]",
                "fleet.mqtt.url",
                "fleet.mqtt.cert",
                "fleet.mqtt.username",
                "fleet.mqtt.topic_prefix",
                "fleet.pull.url",
                "fleet.folder",
            ]
        );
    }

    #[test]
    fn secrets_are_kept_for_the_same_server_alone() {
        let before = config(json!({
            "mqtt": {"url": "mqtt://h", "username": "u", "password": "CANARY-1"},
            "pull": {"url": "https://h/x?token=CANARY-2", "token": "CANARY-3"},
        }));
        let shown = serde_json::to_value(&before).unwrap();
        assert!(!shown.to_string().contains("CANARY"), "{shown}");
        let mut again = Config::from_value(shown.clone()).unwrap();
        assert!(again.keep_secrets(&before).is_empty());
        assert_eq!(again, before);
        assert_eq!(Config::from_value(before.stored().unwrap()).unwrap(), before);
        for (pointer, value) in [("/fleet/mqtt/url", "mqtt://evil"), ("/fleet/pull/url", "https://evil/")] {
            let mut moved = shown.clone();
            *moved.pointer_mut(pointer).unwrap() = json!(value);
            assert_eq!(Config::from_value(moved).unwrap().keep_secrets(&before).len(), 1, "{pointer}");
        }
    }

    #[test]
    fn a_changed_way_to_the_manager_must_be_confirmed_but_a_first_one_stands() {
        let (none, one) = (config(json!({})), config(json!({"mqtt": {"url": "mqtt://h"}})));
        let other = config(json!({"mqtt": {"url": "mqtt://other"}}));
        assert!(!diff(&none, &one).is_provisional());
        assert!(diff(&one, &other).is_provisional() && diff(&one, &none).is_provisional());
        let grouped = config(json!({"groups": ["a"], "mqtt": {"url": "mqtt://h"}}));
        assert_eq!(diff(&one, &grouped).0[0].part.to_string(), "fleet");
    }
}
