//! What a valid config may ask for and this build does not do: said by `check` and `plan`, and by the status of what asks
//! for it. The rest of such a config works.

use fieldgate_model::Config;
use fieldgate_model::config::{Path, Problem, Source};

/// Why this source does not run, if so.
pub fn source(source: &Source) -> Option<&'static str> {
    let needs_worker = matches!(
        source,
        Source::Rtsp(_)
            | Source::V4l2(_)
            | Source::Rtp(_)
            | Source::Mjpeg(_)
            | Source::File(_)
            | Source::Test(_)
    );
    (needs_worker && cfg!(not(feature = "gst"))).then_some("this build has no cameras of its own")
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
    fn cameras_are_named_where_there_are_none() {
        let text = r#"{"mountpoints": {
            "gate": {"source": {"kind": "rtsp", "url": "rtsps://cam/main"}},
            "yard": {"source": {"kind": "publish"}}}}"#;
        let found = all(&Config::parse(text).unwrap());
        let paths: Vec<&str> = found.iter().map(|problem| problem.path.as_str()).collect();
        let expected: &[&str] = if cfg!(feature = "gst") { &[] } else { &["mountpoints.gate.source"] };
        assert_eq!(paths, expected);
    }
}
