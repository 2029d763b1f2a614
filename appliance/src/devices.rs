//! Local capture devices: which there are, by which names they stay the same, and when they come and go.
//!
//! Read from sysfs alone: no device is opened here, so no driver can hold the gateway up. What a device offers is
//! asked by a worker.

mod resolve;
mod watch;

pub use resolve::{Missing, resolve, resolve_under};
pub use watch::{DeviceWatch, WatchError};

use schemars::JsonSchema;
use serde::Serialize;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Device files that are looked at; more are not listed.
const DEVICES_MAX: usize = 256;
/// Longest text that is taken from sysfs.
const TEXT_MAX: usize = 128;

/// One Video4Linux device file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Device {
    /// The device file.
    pub device: PathBuf,
    /// What the driver calls it.
    pub name: String,
    /// Which of its camera's files it is; pictures come from 0, the others carry metadata or other streams.
    pub index: u32,
    /// The camera's serial number, where it has one.
    pub serial: Option<String>,
    /// The USB socket that it is plugged into and its function there, such as `1-1.4:1.0`.
    pub usb: Option<String>,
    /// Name that stays with the camera, under `/dev/v4l/by-id`.
    pub by_id: Option<PathBuf>,
    /// Name that stays with the socket, under `/dev/v4l/by-path`.
    pub by_path: Option<PathBuf>,
}

impl Device {
    /// The names that `source.device` takes and that stay the same, best first. One that others of `all` have too is
    /// left out.
    pub fn lasting_names(&self, all: &[Device]) -> Vec<String> {
        let is_mine = |name: &String| resolve::among(all, name).is_ok_and(|found| found == self.device);
        let serial = self.serial.as_ref().map(|serial| format!("serial:{serial}")).filter(is_mine);
        // The function only where a camera shares its socket with another.
        let socket = self.usb.as_ref().and_then(|usb| {
            let names = [format!("usb:{}", port(usb)), format!("usb:{usb}")];
            names.into_iter().find(is_mine)
        });
        let links = [&self.by_id, &self.by_path].into_iter().flatten().map(|link| link.display().to_string());
        serial.into_iter().chain(socket).chain(links).collect()
    }
}

/// The socket of a USB function: `1-1.4` of `1-1.4:1.0`.
fn port(usb: &str) -> &str {
    usb.split(':').next().unwrap_or(usb)
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
    for entry in entries.take(4 * DEVICES_MAX) {
        let node = entry?.file_name();
        let Some(node) = node.to_str().filter(|node| number(node).is_some()) else { continue };
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
            usb: usb_function(&folder.join("device")),
            by_id: named(&by_id),
            by_path: named(&by_path),
        });
    }
    devices.sort_by_key(|device| device.device.file_name().and_then(|name| number(name.to_str()?)));
    devices.truncate(DEVICES_MAX);
    Ok(devices)
}

/// The number of a device file's name.
fn number(node: &str) -> Option<u32> {
    node.strip_prefix("video")?.parse().ok()
}

/// The name of the USB interface that a device hangs on, if it does: `BUS-PORT[.PORT]:CONFIGURATION.INTERFACE`.
fn usb_function(device: &Path) -> Option<String> {
    let folder = std::fs::canonicalize(device).ok()?;
    let name = folder.file_name()?.to_str()?;
    let (port, function) = name.split_once(':')?;
    let (bus, ports) = port.split_once('-')?;
    let are_digits = |text: &str, between: char| {
        text.split(between).all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let fits = are_digits(bus, '.') && are_digits(ports, '.') && are_digits(function, '.');
    (fits && name.len() <= TEXT_MAX).then(|| name.to_owned())
}

fn strip(root: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(root).map_or_else(|_| path.to_owned(), |path| Path::new("/").join(path))
}

/// What each link of a folder points at, by file name.
fn links(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().take(4 * DEVICES_MAX);
    entries
        .filter_map(|entry| {
            let target = std::fs::read_link(entry.path()).ok()?;
            Some((target.file_name()?.to_str()?.to_owned(), entry.path()))
        })
        .collect()
}

/// The text of a file of sysfs. What a camera says of itself may be anything.
fn line(file: &Path) -> Option<String> {
    let bytes = std::fs::read(file).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let text: String = text.trim().chars().filter(|c| !c.is_control()).take(TEXT_MAX).collect();
    (!text.is_empty()).then_some(text)
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}", self.device.display(), self.name)?;
        if self.index > 0 {
            write!(f, " (file {} of its camera, no pictures)", self.index)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
