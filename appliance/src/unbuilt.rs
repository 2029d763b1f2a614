//! What a valid config may ask for and this build does not do, or asks for in vain: said by `check` and `plan`, and by the status of what asks
//! for it. The rest of such a config works.

use fieldgate_model::Config;
use fieldgate_model::config::{Path, Problem, Source};

/// Why this source does not run, if so.
pub fn source(source: &Source) -> Option<&'static str> {
    let needs_worker = matches!(
        source,
        Source::Rtsp(_)
            | Source::V4l2(_)
            | Source::Csi(_)
            | Source::Rtp(_)
            | Source::Mjpeg(_)
            | Source::File(_)
            | Source::Test(_)
    );
    if needs_worker && cfg!(not(feature = "gst")) {
        return Some("this build has no cameras of its own");
    }
    #[cfg(feature = "gst")]
    if matches!(source, Source::Csi(_)) {
        return fieldgate_gst::without_libcamera();
    }
    None
}

/// Registered cameras that nobody may publish.
fn unpublished(config: &Config) -> Option<Problem> {
    let aggregator = &config.compat.aggregator;
    let is_used = !aggregator.listen.is_empty() || !aggregator.cameras.is_empty();
    (is_used && aggregator.publish_allow.is_empty()).then(|| {
        let path = Path::root().field("compat").field("aggregator").field("publish_allow");
        Problem::new(&path, "is empty, so no registered camera can be published")
            .remedy("name the networks that the cameras are in")
    })
}

/// All that a config asks for in vain.
pub fn all(config: &Config) -> Vec<Problem> {
    let of_mountpoints = config.mountpoints.iter().filter_map(|(name, mountpoint)| {
        let path = Path::mountpoint(name);
        source(&mountpoint.source).map(|text| Problem::new(&path.field("source"), text))
    });
    of_mountpoints.chain(unpublished(config)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aggregator_without_publishers_is_named() {
        let notices = |aggregator: &str| {
            let text = format!(r#"{{"compat": {{"aggregator": {aggregator}}}}}"#);
            all(&Config::parse(&text).unwrap()).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            notices(r#"{"listen": ["127.0.0.1:5000"]}"#),
            [
                "compat.aggregator.publish_allow: is empty, so no registered camera can be published (name the networks \
                 that the cameras are in)"
            ]
        );
        assert_eq!(notices("{}"), [""; 0]);
        assert_eq!(notices(r#"{"listen": ["127.0.0.1:5000"], "publish_allow": ["10.0.0.0/8"]}"#), [""; 0]);
    }

    #[test]
    fn cameras_are_named_where_there_are_none() {
        let text = r#"{"mountpoints": {
            "gate": {"source": {"kind": "rtsp", "url": "rtsps://cam/main"}},
            "board": {"source": {"kind": "csi"}},
            "yard": {"source": {"kind": "publish"}}}}"#;
        let found = all(&Config::parse(text).unwrap());
        let paths: Vec<&str> = found.iter().map(|problem| problem.path.as_str()).collect();
        #[cfg(feature = "gst")]
        let lacks_libcamera = fieldgate_gst::without_libcamera().is_some();
        #[cfg(not(feature = "gst"))]
        let lacks_libcamera = true;
        let board = lacks_libcamera.then_some("mountpoints.board.source");
        let gate = cfg!(not(feature = "gst")).then_some("mountpoints.gate.source");
        assert_eq!(paths, board.into_iter().chain(gate).collect::<Vec<_>>());
    }
}
