//! A coordinator elsewhere.

use super::coordinator::check_text;
use super::listeners::check_file;
use crate::config::{Config, Path, Problem, SecretUrl};

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    let (own, at) = (&config.compat.control, Path::root().field("compat").field("control"));
    let is_tls = match &own.url {
        Some(url) => match check_address(&at.field("url"), url) {
            Ok(is_tls) => is_tls,
            Err(problem) => {
                problems.push(problem);
                true
            }
        },
        None => {
            if own.enabled {
                let problem =
                    Problem::new(&at.field("url"), "is missing: there is no coordinator to come to");
                problems.push(problem.remedy("such as \"wss://coordinator.example/\""));
            }
            true
        }
    };
    problems.extend(check_text(&at.field("secret"), own.secret.as_ref()));
    if let Some(ca) = &own.ca {
        problems.extend(check_file(&at.field("ca"), ca));
    }
    let unused = [("verify", !own.verify), ("ca", own.ca.is_some())];
    for (name, _) in unused.into_iter().filter(|(_, is_set)| *is_set && !is_tls) {
        problems.push(Problem::new(&at.field(name), "has a meaning only for wss://"));
    }
    let max = usize::try_from(own.id_max_length).unwrap_or(usize::MAX);
    for (index, channel) in own.channels.iter().enumerate() {
        problems.extend(check_channel(&at.field("channels").item(index), channel, max));
    }
    for (channel, camera) in &own.cameras {
        let at = at.field("cameras").field(channel);
        problems.extend(check_channel(&at, channel, max));
        if !camera.key.is_kept() && !is_id(camera.key.reveal(), max) {
            let problem = format!("must be 1 to {max} of A-Z a-z 0-9 _ -");
            problems.push(Problem::new(&at.field("key"), problem));
        }
        let name = camera.mountpoint.as_str();
        if name.ends_with('*') || !config.mountpoints.contains_key(name) {
            let problem = "is no mountpoint of this config, or a template";
            problems.push(Problem::new(&at.field("mountpoint"), problem).got(name));
        }
    }
    if own.enabled && config.compat.node.enabled {
        let problem = "a gateway belongs to a coordinator or is a node of a mesh";
        problems.push(Problem::new(&at.field("enabled"), problem).remedy("turn off one of the two"));
    }
}

/// Whether it is over TLS, or what is wrong with it.
pub(super) fn check_address(path: &Path, url: &str) -> Result<bool, Problem> {
    let url = SecretUrl::new(url);
    let parts = url.parts().map_err(|error| Problem::new(path, error.to_string()).got(url.redacted()))?;
    let is_tls = parts.scheme.eq_ignore_ascii_case("wss");
    if !is_tls && !parts.scheme.eq_ignore_ascii_case("ws") {
        return Err(Problem::new(path, "scheme must be ws or wss").got(parts.scheme));
    }
    if parts.user.is_some() || parts.query.is_some() || url.reveal().contains('#') {
        let problem = "must have no user, no password, no query and no part after #";
        return Err(Problem::new(path, problem).got(url.redacted()).remedy("use secret"));
    }
    Ok(is_tls)
}

fn check_channel(path: &Path, channel: &str, max: usize) -> Option<Problem> {
    if matches!(channel, "live" | "relay") {
        return Some(Problem::new(path, "live and relay are never channels").got(channel));
    }
    let problem = || Problem::new(path, format!("a channel is 1 to {max} of A-Z a-z 0-9 _ -")).got(channel);
    (!is_id(channel, max)).then(problem)
}

fn is_id(text: &str, max: usize) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=max).contains(&text.len()) && text.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use crate::Config;
    use crate::config::validate;
    use serde_json::json;

    fn problems(control: serde_json::Value) -> Vec<String> {
        let config = json!({"mountpoints": {"gate": {"source": {"kind": "test"}}, "s*": {"source": {"kind": "publish"}}},
                            "compat": {"control": control}});
        let config: Config = serde_json::from_value(config).unwrap();
        validate(&config).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_whole_client_is_fine() {
        let whole = json!({
            "enabled": true, "url": "wss://c.example/base/", "secret": "s3cret", "ca": "/ca.pem",
            "external_ip": "192.0.2.1", "external_port": 1936, "external_tls": true, "play_allow": ["10.0.0.0/8"],
            "channels": ["c1"], "cameras": {"gate-1": {"mountpoint": "gate", "key": "k1"}}, "grace": "30s",
        });
        assert_eq!(problems(whole), [""; 0]);
        assert_eq!(problems(json!({})), [""; 0]);
    }

    #[test]
    fn what_cannot_work_is_told_with_its_place() {
        let long = "k".repeat(129);
        let found = problems(json!({
            "enabled": true, "url": "https://u:p@c/", "secret": " s", "channels": ["a b", "live"],
            "cameras": {"relay": {"mountpoint": "s*", "key": "a b"}, "c2": {"mountpoint": "nowhere", "key": long}},
        }));
        for (place, part) in [
            ("url", "scheme must be ws"),
            ("secret", "printable"),
            ("channels[0]", "a channel is 1 to 128"),
            ("channels[1]", "never channels"),
            ("cameras.relay", "never channels"),
            ("cameras.relay.mountpoint", "template"),
            ("cameras.relay.key", "1 to 128"),
            ("cameras.c2.mountpoint", "no mountpoint"),
            ("cameras.c2.key", "1 to 128"),
        ] {
            let begin = format!("compat.control.{place}: ");
            assert!(
                found.iter().any(|text| text.starts_with(&begin) && text.contains(part)),
                "{place} {part}: {found:#?}"
            );
        }
        for (control, part) in [
            (json!({"enabled": true}), "no coordinator to come to"),
            (json!({"url": "ws://u:p@c/"}), "no user"),
            (json!({"url": "ws://c/?a=b"}), "no query"),
            (json!({"url": "ws://c/", "verify": false}), "only for wss"),
            (json!({"url": "ws://c/", "ca": "/ca.pem"}), "only for wss"),
        ] {
            let found = problems(control);
            assert!(found.len() == 1 && found[0].contains(part), "{part}: {found:?}");
        }
    }
}
