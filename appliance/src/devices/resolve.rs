//! From the name of a device in the config to the device file that it is now.
//!
//! ```text
//!  /dev/video0                    this file, whatever camera it is today
//!  /dev/v4l/by-id/..., by-path    links that udev keeps
//!  serial:SERIAL                  the camera with this serial number, in whatever socket
//!  usb:BUS-PORT[:FUNCTION]        whatever camera is in this USB socket
//! ```

use super::{Device, list_under, port};
use std::path::{Path, PathBuf};

/// Links that may be followed: udev makes one.
const LINKS_MAX: usize = 4;

/// Why a name stands for no device now.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    /// Not plugged in.
    #[error("{0} is unplugged")]
    Unplugged(String),
    /// Not clear which is meant.
    #[error("{name} fits {} of them ({}): use the name of a USB socket", fits.len(), fits.join(", "))]
    Ambiguous {
        /// As in the config.
        name: String,
        /// Those that it fits.
        fits: Vec<String>,
    },
    /// There, but the gateway may not use it (yet: udev hands a new one over a moment after it has come).
    #[error("{} may not be opened ({error}): the gateway's user must be in its group, usually video", file.display())]
    Closed {
        /// The device file.
        file: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// sysfs cannot be read.
    #[error("devices cannot be listed: {0}")]
    Unreadable(#[from] std::io::Error),
}

/// The device file that this name stands for now.
pub fn resolve(name: &Path) -> Result<PathBuf, Missing> {
    resolve_under(Path::new("/"), name)
}

/// As [`resolve`], on another root.
pub fn resolve_under(root: &Path, name: &Path) -> Result<PathBuf, Missing> {
    let text = name.to_string_lossy();
    if text.starts_with("serial:") || text.starts_with("usb:") {
        return among(&list_under(root)?, &text);
    }
    let unplugged = || Missing::Unplugged(text.to_string());
    let mut file = name.to_owned();
    for _ in 0..LINKS_MAX {
        let there = root.join(file.strip_prefix("/").unwrap_or(&file));
        let kind = std::fs::symlink_metadata(&there).map_err(|_| unplugged())?;
        if !kind.is_symlink() {
            return Ok(file);
        }
        let target = std::fs::read_link(&there).map_err(|_| unplugged())?;
        file = plain(&file.parent().unwrap_or(Path::new("/")).join(target));
    }
    Err(unplugged())
}

/// Which of these devices is meant by `serial:` or `usb:`.
pub(super) fn among(all: &[Device], name: &str) -> Result<PathBuf, Missing> {
    let fits = |device: &&Device| match name.split_once(':') {
        Some(("serial", serial)) => device.serial.as_deref() == Some(serial),
        Some(("usb", place)) => device.usb.as_deref().is_some_and(|usb| usb == place || port(usb) == place),
        _ => false,
    };
    // The others of a camera's files carry no pictures.
    let found: Vec<&Device> = all.iter().filter(|device| device.index == 0).filter(fits).collect();
    match found.as_slice() {
        [] => Err(Missing::Unplugged(name.to_owned())),
        [one] => Ok(one.device.clone()),
        several => Err(Missing::Ambiguous {
            name: name.to_owned(),
            fits: several
                .iter()
                .map(|device| {
                    device
                        .usb
                        .as_ref()
                        .map_or_else(|| device.device.display().to_string(), |usb| format!("usb:{usb}"))
                })
                .collect(),
        }),
    }
}

/// A path without its `..` parts; links among the folders of `/dev` there are none.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                plain.pop();
            }
            std::path::Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}
