//! What is taken in by KMP: channels and the mountpoints that they feed.

use super::listeners::check_file;
use crate::config::{Config, Path, Problem, Source};
use std::collections::BTreeMap;

/// The longest channel or track id, in bytes: what a packet holds.
const ID_MAX: usize = 32;

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    let at = Path::root().field("kmp");
    let kmp = &config.kmp;
    if kmp.max_connections_per_address > kmp.max_connections {
        let problem = "must be at most kmp.max_connections";
        let path = at.field("max_connections_per_address");
        problems.push(Problem::new(&path, problem).got(kmp.max_connections_per_address));
    }
    if let Some(tls) = &kmp.tls {
        for (name, file) in [("cert", &tls.cert), ("key", &tls.key)] {
            problems.extend(check_file(&at.field("tls").field(name), file));
        }
    }
    let mut fed: BTreeMap<&str, &str> = BTreeMap::new();
    for (id, channel) in &kmp.channels {
        let path = at.field("channels").field(id);
        check_id(&path, id, problems);
        for (name, track) in [("video", &channel.tracks.video), ("audio", &channel.tracks.audio)] {
            check_id(&path.field("tracks").field(name), track, problems);
        }
        if channel.tracks.video == channel.tracks.audio {
            let problem =
                Problem::new(&path.field("tracks").field("audio"), "must differ from the video track's");
            problems.push(problem.got(channel.tracks.audio.as_str()));
        }
        let problem = match config.mountpoints.get(&channel.mountpoint).map(|mountpoint| &mountpoint.source) {
            None => Some("there is no such mountpoint".to_owned()),
            Some(Source::Kmp(_)) => fed
                .insert(&channel.mountpoint, id)
                .map(|other| format!("is already fed by channel {other}; a mountpoint has one channel")),
            Some(other) => Some(format!("has a source of kind {}, not kmp", other.kind())),
        };
        problems.extend(problem.map(|problem| {
            Problem::new(&path.field("mountpoint"), problem).got(channel.mountpoint.as_str())
        }));
    }
    for (name, mountpoint) in &config.mountpoints {
        if matches!(mountpoint.source, Source::Kmp(_))
            && !fed.contains_key(name.as_str())
            && !name.ends_with('*')
        {
            let path = Path::mountpoint(name).field("source").field("kind");
            let remedy = "add a channel with this mountpoint to kmp.channels";
            problems.push(Problem::new(&path, "no KMP channel feeds this mountpoint").remedy(remedy));
        }
    }
}

fn check_id(path: &Path, id: &str, problems: &mut Vec<Problem>) {
    let fits = !id.is_empty() && id.len() <= ID_MAX && id.chars().all(|c| c.is_ascii_graphic());
    if !fits {
        let problem = format!("an id is 1 to {ID_MAX} printable ASCII characters without blanks");
        problems.push(Problem::new(path, problem).got(id));
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, validate};
    use serde_json::{Value, json};

    fn problems(kmp: Value, mountpoints: Value) -> Vec<String> {
        let config = json!({"rtmp": {"listen": ["127.0.0.1:1935"]}, "kmp": kmp, "mountpoints": mountpoints});
        let config = Config::from_value(config).expect("has the shape of a config");
        validate(&config).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_channel_feeds_one_mountpoint_of_its_kind() {
        let mountpoints = json!({
            "in": {"source": {"kind": "kmp"}}, "alone": {"source": {"kind": "kmp"}},
            "cam": {"source": {"kind": "publish"}},
        });
        let found = problems(
            json!({"listen": ["127.0.0.1:6543"], "channels": {
                "a": {"mountpoint": "in"},
                "b": {"mountpoint": "in", "tracks": {"video": "t", "audio": "t"}},
                "c": {"mountpoint": "cam"},
                "d": {"mountpoint": "nowhere"},
                "not an id": {"mountpoint": "nowhere", "tracks": {"video": "x".repeat(32), "audio": "ä"}},
            }}),
            mountpoints,
        );
        assert_eq!(
            found,
            [
                "kmp.channels.b.tracks.audio: must differ from the video track's, got \"t\"",
                "kmp.channels.b.mountpoint: is already fed by channel a; a mountpoint has one channel, got \"in\"",
                "kmp.channels.c.mountpoint: has a source of kind publish, not kmp, got \"cam\"",
                "kmp.channels.d.mountpoint: there is no such mountpoint, got \"nowhere\"",
                "kmp.channels[\"not an id\"]: an id is 1 to 32 printable ASCII characters without blanks, got \"not an id\"",
                "kmp.channels[\"not an id\"].tracks.audio: an id is 1 to 32 printable ASCII characters without blanks, \
                 got \"ä\"",
                "kmp.channels[\"not an id\"].mountpoint: there is no such mountpoint, got \"nowhere\"",
                "mountpoints.alone.source.kind: no KMP channel feeds this mountpoint (add a channel with this mountpoint \
                 to kmp.channels)",
            ]
        );
    }

    #[test]
    fn addresses_limits_and_certificates_are_checked() {
        let kmp = json!({"listen": ["127.0.0.1:1935"], "max_connections": 4, "max_connections_per_address": 5,
            "tls": {"listen": ["127.0.0.1:0"], "cert": "cert.pem", "key": "/key.pem"}});
        assert_eq!(
            problems(kmp, json!({})),
            [
                "kmp.listen[0]: is already taken by rtmp.listen[0], got \"127.0.0.1:1935\"",
                "kmp.max_connections_per_address: must be at most kmp.max_connections, got 5",
                "kmp.tls.cert: must be an absolute path, got \"cert.pem\"",
            ]
        );
    }

    #[test]
    fn a_stream_cannot_feed_itself_by_kmp() {
        let push = |port: u16, channel: &str| json!([{"url": format!("kmp://127.0.0.1:{port}"), "channel_id": channel}]);
        let kmp = json!({"listen": ["0.0.0.0:6543"], "channels": {"a": {"mountpoint": "a"}, "b": {"mountpoint": "b"}}});
        let two = |push_of_a: Value, push_of_b: Value| {
            problems(
                kmp.clone(),
                json!({
                    "a": {"source": {"kind": "kmp"}, "push": push_of_a},
                    "b": {"source": {"kind": "kmp"}, "push": push_of_b},
                }),
            )
        };
        assert_eq!(two(push(6543, "b"), push(6544, "a")), [""; 0]);
        assert_eq!(
            two(push(6543, "b"), push(6543, "a")),
            [
                "mountpoints.a.push[0].url: would feed mountpoint a with itself, got \"kmp://127.0.0.1:6543\"",
                "mountpoints.b.push[0].url: would feed mountpoint b with itself, got \"kmp://127.0.0.1:6543\"",
            ]
        );
    }
}
