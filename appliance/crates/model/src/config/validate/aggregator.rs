//! What content managers may control, and the cameras that they registered.

use super::mountpoints::{check_key, is_stream_name};
use crate::config::{Config, Path, Problem, RESERVED_APPLICATIONS, Source, host_port};

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    let aggregator = &config.compat.aggregator;
    let at = Path::root().field("compat").field("aggregator");
    problems.extend(check_key(&at.field("token"), aggregator.token.as_ref()));
    let mut address = |path: Path, text: Option<&str>| {
        if let Some(text) = text.filter(|text| host_port(text).is_none()) {
            let problem = Problem::new(&path, "must be an address or host name, with or without port");
            problems.push(
                problem.got(text).remedy("such as \"10.0.0.2\", \"[2001:db8::2]:1935\" or \"mse:1935\""),
            );
        }
    };
    address(at.field("address"), aggregator.address.as_deref());
    address(at.field("transcoder"), aggregator.transcoder.as_deref());
    address(at.field("engine"), aggregator.engine.as_deref());
    if let Some(cms) = &aggregator.cms {
        address(at.field("cms").field("address"), Some(&cms.address));
        address(at.field("cms").field("own_address"), Some(&cms.own_address));
    }
    for (name, camera) in &aggregator.cameras {
        let path = at.field("cameras").field(name);
        problems.extend(check_key(&path.field("key"), camera.key.as_ref()));
        if !is_stream_name(name) {
            let problem = "a name is 1 to 64 of A-Z a-z 0-9 . _ - and starts with a letter or digit";
            problems.push(Problem::new(&path, problem).got(name.as_str()));
        } else if RESERVED_APPLICATIONS.contains(&name.as_str()) {
            problems.push(Problem::new(&path, format!("{name} is reserved on the RTMP port")));
        } else if config.compat.kmp.applications.contains_key(name) {
            problems.push(Problem::new(&path, "is an application of compat.kmp already"));
        } else {
            match config.mountpoints.get(name).map(|mountpoint| &mountpoint.source) {
                Some(Source::Publish(_)) => {}
                Some(other) => problems.push(
                    Problem::new(&path, "its mountpoint must have a source of kind publish")
                        .got(other.kind()),
                ),
                None => problems.push(
                    Problem::new(&path, "has no mountpoint of that name")
                        .remedy("remove the camera here, too, or add the mountpoint"),
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::Config;
    use crate::config::validate;
    use serde_json::json;

    fn problems(aggregator: serde_json::Value) -> Vec<String> {
        let config: Config = serde_json::from_value(json!({
            "compat": {"aggregator": aggregator, "kmp": {"applications": {"k": {"publish_url": "http://c/"}}}},
            "mountpoints": {"cam": {"source": {"kind": "publish"}}, "test": {"source": {"kind": "test"}}},
        }))
        .unwrap();
        validate(&config).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_cannot_work_is_told_with_its_place() {
        assert_eq!(
            problems(json!({
                "listen": ["127.0.0.1:5000"], "stat_listen": ["127.0.0.1:5000"],
                "token": "a b", "engine": "h:0", "transcoder": "mse:1936",
                "cms": {"address": "http://cms", "own_address": "10.0.0.2"},
                "cameras": {"cam": {"type": "360", "key": ""}, "gone": {}, "live": {}, "k": {}, "test": {}, "a/b": {}},
            })),
            [
                "compat.aggregator.stat_listen[0]: is already taken by compat.aggregator.listen[0], got \
                 \"127.0.0.1:5000\"",
                "compat.aggregator.token: a key is 1 to 256 printable ASCII characters without blanks",
                "compat.aggregator.engine: must be an address or host name, with or without port, got \"h:0\" (such as \
                 \"10.0.0.2\", \"[2001:db8::2]:1935\" or \"mse:1935\")",
                "compat.aggregator.cms.address: must be an address or host name, with or without port, got \
                 \"http://cms\" (such as \"10.0.0.2\", \"[2001:db8::2]:1935\" or \"mse:1935\")",
                "compat.aggregator.cameras[\"a/b\"]: a name is 1 to 64 of A-Z a-z 0-9 . _ - and starts with a letter or \
                 digit, got \"a/b\"",
                "compat.aggregator.cameras.cam.key: a key is 1 to 256 printable ASCII characters without blanks",
                "compat.aggregator.cameras.gone: has no mountpoint of that name (remove the camera here, too, or add \
                 the mountpoint)",
                "compat.aggregator.cameras.k: is an application of compat.kmp already",
                "compat.aggregator.cameras.live: live is reserved on the RTMP port",
                "compat.aggregator.cameras.test: its mountpoint must have a source of kind publish, got \"test\"",
            ]
        );
        assert_eq!(
            problems(json!({"listen": ["127.0.0.1:5000"], "cameras": {"cam": {"type": "plane"}}})),
            [""; 0]
        );
    }
}
