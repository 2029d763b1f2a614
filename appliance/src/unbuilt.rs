//! What a valid config may ask for and this version does not do yet: said by `check` and `plan`, and by the status of
//! what asks for it. The rest of such a config works.

use fieldgate_model::Config;
use fieldgate_model::config::{Path, Problem, Source};

/// Why this source does not run, if so.
pub fn source(source: &Source) -> Option<&'static str> {
    let is_rtsps = matches!(source, Source::Rtsp(rtsp) if rtsp.url.reveal().starts_with("rtsps:"));
    // Never without TLS instead: the password would go in the clear.
    is_rtsps.then_some("rtsps:// cameras are not in this version yet; use an rtsp:// address")
}

/// All that a config asks for in vain.
pub fn all(config: &Config) -> Vec<Problem> {
    let of_mountpoints = config.mountpoints.iter().filter_map(|(name, mountpoint)| {
        let path = Path::mountpoint(name);
        source(&mountpoint.source).map(|text| Problem::new(&path.field("source"), text))
    });
    of_mountpoints.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_built_yet_is_named_with_its_path() {
        let text = r#"{"mountpoints": {
            "gate": {"source": {"kind": "rtsp", "url": "rtsps://cam/main"}},
            "bay": {"source": {"kind": "rtsp", "url": "rtsp://cam/main"}}}}"#;
        let found = all(&Config::parse(text).unwrap());
        let paths: Vec<&str> = found.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["mountpoints.gate.source"]);
    }
}
