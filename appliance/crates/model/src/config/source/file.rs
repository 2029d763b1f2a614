//! A recorded stream that is played as if it were a camera.

use super::yes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Component, PathBuf};

/// Plays a file at the speed of life, for demonstrations: MP4, Matroska, FLV or MPEG-TS with H.264 or HEVC, and AAC,
/// Opus or G.711.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSource {
    /// The file, an absolute path without `..`. What plays it can read this file and no other.
    #[schemars(length(min = 2, max = 4096))]
    pub path: PathBuf,
    /// Whether it begins anew when it ends; its stream goes on without a gap. Default true.
    #[serde(default = "yes", rename = "loop")]
    pub repeat: bool,
}

impl FileSource {
    /// Whether `path` has the form of a file that may be played: devices and the kernel's own files may not.
    pub fn has_file_name(&self) -> bool {
        let is_plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
        self.path.is_absolute()
            && self.path.file_name().is_some()
            && self.path.components().all(is_plain)
            && !self.path.to_string_lossy().chars().any(char::is_control)
            && !["/dev", "/proc", "/sys"].iter().any(|not| self.path.starts_with(not))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_by_its_whole_path() {
        let named = |path: &str| FileSource { path: path.into(), repeat: true }.has_file_name();
        assert!(named("/srv/films/gate.mp4") && named("/srv/a..b/ü.mkv"));
        for path in [
            "gate.mp4",
            "./gate.mp4",
            "/",
            "/srv/../etc/shadow",
            "/srv/..",
            "/dev/video0",
            "/proc/self/mem",
            "/sys/x",
            "/srv/a\nb",
            "",
        ] {
            assert!(!named(path), "{path}");
        }
    }
}
