//! What a valid config may ask for and this version does not do yet: said by `check` and `plan`, and by the status of
//! what asks for it. The rest of such a config works.

use fieldgate_model::Config;
use fieldgate_model::config::{Path, Problem, Push, Source};

/// Why this push does not run, if so.
pub fn push(push: &Push) -> Option<&'static str> {
    let is_kmp = push.url.reveal().starts_with("kmp");
    is_kmp.then_some("KMP pushes are not in this version yet; use an rtmp:// or rtmps:// address")
}

/// Why this source does not run, if so.
pub fn source(source: &Source) -> Option<&'static str> {
    if matches!(source, Source::Kmp(_)) {
        return Some("KMP sources are not in this version yet");
    }
    let is_rtsps = matches!(source, Source::Rtsp(rtsp) if rtsp.url.reveal().starts_with("rtsps:"));
    // Never without TLS instead: the password would go in the clear.
    is_rtsps.then_some("rtsps:// cameras are not in this version yet; use an rtsp:// address")
}

/// All that a config asks for in vain.
pub fn all(config: &Config) -> Vec<Problem> {
    let of_mountpoints = config.mountpoints.iter().flat_map(|(name, mountpoint)| {
        let path = Path::mountpoint(name);
        let source = source(&mountpoint.source).map(|text| Problem::new(&path.field("source"), text));
        let pushes = mountpoint.push.iter().enumerate().filter_map(move |(index, of)| {
            push(of).map(|text| Problem::new(&Path::mountpoint(name).field("push").item(index), text))
        });
        source.into_iter().chain(pushes)
    });
    of_mountpoints.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_built_yet_is_named_with_its_path() {
        let text = r#"{"mountpoints": {
            "yard": {"source": {"kind": "publish"},
                     "push": [{"url": "rtmp://up/live/yard"}, {"url": "kmp://up:6543", "channel_id": "yard"}]},
            "gate": {"source": {"kind": "rtsp", "url": "rtsps://cam/main"}},
            "bay": {"source": {"kind": "rtsp", "url": "rtsp://cam/main"}}}}"#;
        let found = all(&Config::parse(text).unwrap());
        let paths: Vec<&str> = found.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["mountpoints.gate.source", "mountpoints.yard.push[1]"]);
    }
}
