//! What is kept of what happened, and who is told.

use super::validate::{check_file, is_stream_name};
use super::{Config, Path, Problem, Secret, SecretUrl, Span};
use crate::EventKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Shortest secret that a signature can rest on, in bytes.
const SECRET_LEN: usize = 16;

/// The flight recorder: what happened, in plain words, kept over restarts; and who is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Events {
    /// Bytes that the flight recorder may write to flash in 24 hours, in whole pages; beyond it events are kept in memory
    /// alone until there is room again. 0 (memory alone) to 1 GiB. Default 4,194,304 (4 MiB).
    #[schemars(range(min = 0, max = 1073741824))]
    pub flash_bytes_per_day: u64,
    /// Servers that are told of events, by a name of your own: 1 to 64 of the characters `A-Z a-z 0-9 . _ -`. At most 16.
    /// Default: none.
    #[schemars(extend("maxProperties" = 16))]
    pub webhooks: BTreeMap<String, Webhook>,
}

impl Default for Events {
    fn default() -> Self {
        Events { flash_bytes_per_day: 4 << 20, webhooks: BTreeMap::new() }
    }
}

/// A server that is told of events by `POST`, again and again until it answers with a status of 200 to 299. It may be told
/// of one twice: ids say so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// `https://` address, or `http://` where the way is trusted. Redirects are not followed.
    pub url: SecretUrl,
    /// Kinds of events that it is told of. At most 64. Default: all.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub events: Vec<EventKind>,
    /// Signs each body: `X-Fieldgate-Signature: t=SECONDS,v1=HEX`, HMAC-SHA256 of `SECONDS.BODY`. 16 to 256 bytes. Default:
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// Whether the server's certificate is checked. Default true.
    #[serde(default = "super::source::yes")]
    pub verify: bool,
    /// File with the certificate authority to trust instead of the well-known ones, PEM. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub ca: Option<PathBuf>,
    /// Time for sending, and again for the answer. `"1s"` to `"60s"`. Default `"10s"`.
    #[serde(default = "default_timeout")]
    #[schemars(extend("minSpan" = "1s", "maxSpan" = "60s"))]
    pub timeout: Span,
}

fn default_timeout() -> Span {
    Span::from_secs(10)
}

/// Names, addresses and secrets of webhooks that cannot work.
pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    for (name, hook) in &config.events.webhooks {
        let path = Path::root().field("events").field("webhooks").field(name);
        if !is_stream_name(name) {
            let problem = "a name is 1 to 64 of A-Z a-z 0-9 . _ - and starts with a letter or digit";
            problems.push(Problem::new(&path, problem).got(name.as_str()));
        }
        let at = path.field("url");
        match hook.url.parts() {
            Err(error) => problems.push(Problem::new(&at, error.to_string()).got(hook.url.redacted())),
            Ok(parts) => {
                let scheme = parts.scheme.to_ascii_lowercase();
                if scheme != "http" && scheme != "https" {
                    problems.push(Problem::new(&at, "scheme must be https or http").got(parts.scheme));
                }
                if parts.user.is_some() || hook.url.reveal().contains('#') {
                    let problem = Problem::new(&at, "must have no user, and no part after #");
                    problems
                        .push(problem.got(hook.url.redacted()).remedy("set secret, and check the signature"));
                }
                if scheme == "http" && (hook.ca.is_some() || !hook.verify) {
                    problems.push(Problem::new(&at, "ca and verify have a meaning only for https"));
                }
            }
        }
        if let Some(ca) = &hook.ca {
            problems.extend(check_file(&path.field("ca"), ca));
        }
        if let Some(secret) = hook.secret.as_ref().filter(|secret| !secret.is_kept())
            && secret.reveal().len() < SECRET_LEN
        {
            problems.push(Problem::new(&path.field("secret"), "must have at least 16 bytes"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{diff, validate};
    use super::*;
    use serde_json::json;

    fn config(events: serde_json::Value) -> Config {
        Config::from_value(json!({"events": events})).unwrap()
    }

    #[test]
    fn a_webhook_that_cannot_work_is_refused_with_its_place() {
        let config = config(json!({"webhooks": {
            "good": {"url": "https://hooks.example/a?key=k", "events": ["stream_lost"], "secret": "0123456789abcdef"},
            "bad name": {"url": "https://h/"},
            "scheme": {"url": "ftp://h/"},
            "user": {"url": "https://u:p@h/"},
            "plain": {"url": "http://h/", "verify": false},
            "short": {"url": "https://h/", "secret": "short"},
        }}));
        let problems = validate(&config);
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        let at = |rest: &str| format!("events.webhooks{rest}");
        assert_eq!(
            paths,
            [at("[\"bad name\"]"), at(".plain.url"), at(".scheme.url"), at(".short.secret"), at(".user.url")]
        );
        assert!(problems.iter().all(|problem| !problem.to_string().contains("u:p@")));
        let unknown = Config::from_value(
            json!({"events": {"webhooks": {"a": {"url": "https://h/", "events": ["x"]}}}}),
        );
        assert!(unknown.unwrap_err()[0].path.starts_with("events.webhooks.a.events"));
    }

    #[test]
    fn its_secrets_are_masked_kept_and_never_go_to_another_host() {
        let before = config(json!({"webhooks": {
            "a": {"url": "https://h/a?key=CANARY", "secret": "CANARY-0123456789"},
        }}));
        let shown = serde_json::to_string(&before).unwrap();
        assert!(!shown.contains("CANARY"), "{shown}");
        assert_eq!(serde_json::from_value::<Config>(before.stored().unwrap()).unwrap(), before);
        let mut same: Config = serde_json::from_str(&shown).unwrap();
        assert!(same.keep_secrets(&before).is_empty());
        assert_eq!(same, before);
        let mut other =
            config(json!({"webhooks": {"a": {"url": "https://evil/a", "secret": {"set": true}}}}));
        assert_eq!(other.keep_secrets(&before).len(), 1);
    }

    #[test]
    fn a_change_stands_at_once() {
        let changes = diff(&config(json!({})), &config(json!({"flash_bytes_per_day": 0})));
        assert_eq!((changes.0.len(), changes.is_provisional()), (1, false));
    }
}
