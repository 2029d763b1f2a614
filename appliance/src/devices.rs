//! The local cameras, as the kernel and udev name them. Opens no device.

use serde::Serialize;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// One Video4Linux device file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Device {
    /// The device file.
    pub device: PathBuf,
    /// What the driver calls it.
    pub name: String,
    /// Which of its camera's files it is; pictures come from 0, the others carry metadata or other streams.
    pub index: u32,
    /// The camera's serial number, where it has one.
    pub serial: Option<String>,
    /// Name that stays with the camera, under `/dev/v4l/by-id`.
    pub by_id: Option<PathBuf>,
    /// Name that stays with the socket, under `/dev/v4l/by-path`.
    pub by_path: Option<PathBuf>,
}

/// All devices, by number. An empty list on a machine without any.
pub fn list() -> io::Result<Vec<Device>> {
    list_under(Path::new("/"))
}

fn list_under(root: &Path) -> io::Result<Vec<Device>> {
    let class = root.join("sys/class/video4linux");
    let entries = match std::fs::read_dir(&class) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let by_id = links(&root.join("dev/v4l/by-id"));
    let by_path = links(&root.join("dev/v4l/by-path"));
    let mut devices = Vec::new();
    for entry in entries {
        let node = entry?.file_name();
        let Some(node) = node.to_str().filter(|node| node.starts_with("video")) else { continue };
        let folder = class.join(node);
        let named = |links: &[(String, PathBuf)]| {
            links.iter().find(|(target, _)| target == node).map(|(_, link)| strip(root, link))
        };
        devices.push(Device {
            device: Path::new("/dev").join(node),
            name: line(&folder.join("name")).unwrap_or_default(),
            index: line(&folder.join("index")).and_then(|index| index.parse().ok()).unwrap_or(0),
            // A USB camera's interface hangs under the device that has the serial number.
            serial: line(&folder.join("device/../serial")),
            by_id: named(&by_id),
            by_path: named(&by_path),
        });
    }
    let number = |device: &Device| {
        device.device.to_string_lossy().trim_start_matches("/dev/video").parse::<u32>().ok()
    };
    devices.sort_by_key(number);
    Ok(devices)
}

fn strip(root: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(root).map_or_else(|_| path.to_owned(), |path| Path::new("/").join(path))
}

/// What each link of a folder points at, by file name.
fn links(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let target = std::fs::read_link(entry.path()).ok()?;
            Some((target.file_name()?.to_str()?.to_owned(), entry.path()))
        })
        .collect()
}

fn line(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}", self.device.display(), self.name)?;
        if self.index > 0 {
            write!(f, " (file {} of its camera, no pictures)", self.index)?;
        }
        if let Some(serial) = &self.serial {
            write!(f, "\n  serial   {serial}")?;
        }
        for (what, link) in [("by id  ", &self.by_id), ("by path", &self.by_path)] {
            if let Some(link) = link {
                write!(f, "\n  {what}  {}", link.display())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn cameras_have_their_lasting_names() {
        let root = std::env::temp_dir().join(format!("fieldgate-devices-{}", std::process::id()));
        fs::remove_dir_all(&root).ok();
        assert_eq!(list_under(&root).unwrap(), []);
        let usb = root.join("sys/devices/usb1");
        fs::create_dir_all(usb.join("interface")).unwrap();
        fs::write(usb.join("serial"), "SN42\n").unwrap();
        for (node, index) in [("video10", "1\n"), ("video2", "0\n")] {
            let folder = root.join("sys/class/video4linux").join(node);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("name"), "Field Cam\n").unwrap();
            fs::write(folder.join("index"), index).unwrap();
            symlink(usb.join("interface"), folder.join("device")).unwrap();
        }
        fs::create_dir_all(root.join("sys/class/video4linux/v4l-subdev0")).unwrap();
        let by_id = root.join("dev/v4l/by-id");
        fs::create_dir_all(&by_id).unwrap();
        symlink("../../video2", by_id.join("usb-Field_Cam-video-index0")).unwrap();
        let devices = list_under(&root).unwrap();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(devices.len(), 2);
        assert_eq!(
            devices[0].to_string(),
            "/dev/video2  Field Cam\n  serial   SN42\n  by id    /dev/v4l/by-id/usb-Field_Cam-video-index0"
        );
        assert_eq!((devices[1].device.to_str(), devices[1].index), (Some("/dev/video10"), 1));
    }
}
