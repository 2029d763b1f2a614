use super::*;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A machine's `/sys` and `/dev`, as far as cameras are concerned.
struct Machine(PathBuf);

impl Machine {
    fn new(name: &str) -> Machine {
        let root = std::env::temp_dir().join(format!("fieldgate-devices-{name}-{}", std::process::id()));
        fs::remove_dir_all(&root).ok();
        fs::create_dir_all(root.join("dev")).unwrap();
        Machine(root)
    }

    /// Plugs a USB camera in: one device file for each of `indexes`.
    fn plug(&self, first: u32, indexes: &[u32], function: &str, serial: Option<&str>) {
        let port = function.split(':').next().unwrap();
        let usb = self.0.join("sys/devices/pci0/usb1").join(port);
        fs::create_dir_all(usb.join(function)).unwrap();
        if let Some(serial) = serial {
            fs::write(usb.join("serial"), format!("{serial}\n")).unwrap();
        }
        for (number, index) in (first..).zip(indexes) {
            let node = format!("video{number}");
            let folder = self.0.join("sys/class/video4linux").join(&node);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("name"), "Field Cam\n").unwrap();
            fs::write(folder.join("index"), format!("{index}\n")).unwrap();
            symlink(usb.join(function), folder.join("device")).unwrap();
            fs::write(self.0.join("dev").join(&node), "").unwrap();
        }
    }

    fn link(&self, folder: &str, name: &str, node: &str) {
        let folder = self.0.join("dev/v4l").join(folder);
        fs::create_dir_all(&folder).unwrap();
        symlink(Path::new("../..").join(node), folder.join(name)).unwrap();
    }

    fn resolve(&self, name: &str) -> Result<PathBuf, String> {
        resolve_under(&self.0, Path::new(name)).map_err(|missing| missing.to_string())
    }

    fn names(&self) -> Vec<Vec<String>> {
        let all = list_under(&self.0).unwrap();
        all.iter().map(|device| device.lasting_names(&all)).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn node(number: u32) -> Result<PathBuf, String> {
    Ok(format!("/dev/video{number}").into())
}

#[test]
fn cameras_have_their_lasting_names() {
    let machine = Machine::new("names");
    assert_eq!(list_under(&machine.0).unwrap(), []);
    machine.plug(2, &[0], "1-1.4:1.0", Some("SN42"));
    machine.plug(10, &[1], "1-2:1.0", None);
    fs::create_dir_all(machine.0.join("sys/class/video4linux/v4l-subdev0")).unwrap();
    machine.link("by-id", "usb-Field_Cam_SN42-video-index0", "video2");
    let devices = list_under(&machine.0).unwrap();
    assert_eq!(devices.len(), 2);
    assert_eq!(devices[0].to_string(), "/dev/video2  Field Cam");
    assert_eq!(devices[1].to_string(), "/dev/video10  Field Cam (file 1 of its camera, no pictures)");
    assert_eq!(
        machine.names(),
        [vec!["serial:SN42", "usb:1-1.4", "/dev/v4l/by-id/usb-Field_Cam_SN42-video-index0"], vec![]]
    );
}

#[test]
fn every_kind_of_name_finds_its_device() {
    let machine = Machine::new("resolve");
    machine.plug(0, &[0, 1], "1-1.4:1.0", Some("SN42"));
    machine.plug(2, &[0], "3-2:1.0", None);
    machine.link("by-id", "usb-Cam-video-index0", "video0");
    machine.link("by-path", "pci-usb-video-index0", "video2");
    for (name, number) in [
        ("/dev/video2", 2),
        ("/dev/v4l/by-id/usb-Cam-video-index0", 0),
        ("/dev/v4l/by-path/pci-usb-video-index0", 2),
        ("serial:SN42", 0),
        ("usb:1-1.4", 0),
        ("usb:3-2", 2),
        ("usb:3-2:1.0", 2),
    ] {
        assert_eq!(machine.resolve(name), node(number), "{name}");
    }
    for name in ["/dev/video7", "/dev/v4l/by-id/other", "serial:SN4", "usb:1-1", "usb:3-2:1.1", "serial:"] {
        assert_eq!(machine.resolve(name), Err(format!("{name} is unplugged")), "{name}");
    }
}

#[test]
fn equal_cameras_without_serial_are_told_apart_by_socket() {
    let machine = Machine::new("equal");
    machine.plug(0, &[0], "1-1.1:1.0", None);
    machine.plug(1, &[0], "1-1.2:1.0", None);
    assert_eq!(machine.names(), [["usb:1-1.1"], ["usb:1-1.2"]]);
    assert_eq!(machine.resolve("usb:1-1.2"), node(1));
}

#[test]
fn a_serial_number_that_two_cameras_have_is_no_name() {
    let machine = Machine::new("clones");
    machine.plug(0, &[0], "1-1.1:1.0", Some("0001"));
    machine.plug(1, &[0], "1-1.2:1.0", Some("0001"));
    assert_eq!(machine.names(), [["usb:1-1.1"], ["usb:1-1.2"]]);
    assert_eq!(
        machine.resolve("serial:0001"),
        Err("serial:0001 fits 2 of them (usb:1-1.1:1.0, usb:1-1.2:1.0): use the name of a USB socket"
            .to_owned())
    );
}

#[test]
fn two_cameras_in_one_device_are_told_apart_by_function() {
    let machine = Machine::new("functions");
    machine.plug(0, &[0], "1-1:1.0", Some("SN"));
    machine.plug(1, &[0], "1-1:1.2", None);
    assert_eq!(machine.names(), [["usb:1-1:1.0"], ["usb:1-1:1.2"]]);
    assert_eq!(machine.resolve("usb:1-1:1.2"), node(1));
    assert!(machine.resolve("usb:1-1").unwrap_err().contains("fits 2"));
}

#[test]
fn what_a_camera_says_of_itself_is_bounded_and_harmless() {
    let machine = Machine::new("odd");
    machine.plug(0, &[0], "1-1:1.0", None);
    fs::write(machine.0.join("sys/devices/pci0/usb1/1-1/serial"), b"\x1b[31m\xff\n\x07").unwrap();
    fs::write(machine.0.join("sys/class/video4linux/video0/name"), "x".repeat(5000)).unwrap();
    fs::write(machine.0.join("sys/class/video4linux/video0/index"), "-1").unwrap();
    let devices = list_under(&machine.0).unwrap();
    assert_eq!(devices[0].serial.as_deref(), Some("[31m\u{fffd}"));
    assert_eq!((devices[0].name.len(), devices[0].index), (TEXT_MAX, 0));
    symlink("loop", machine.0.join("dev/loop")).unwrap();
    symlink("/dev/../../etc/passwd", machine.0.join("dev/out")).unwrap();
    assert!(machine.resolve("/dev/loop").is_err());
    assert!(machine.resolve("/dev/out").is_err(), "a link leads nowhere outside of /dev's root");
}

#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "a test's own task, which it ends")]
async fn a_device_that_comes_or_goes_is_noticed() {
    let machine = Machine::new("watch");
    let watch = DeviceWatch::start_under(&machine.0).unwrap();
    let mut changes = watch.changes();
    let cancel = CancellationToken::new();
    let running = tokio::spawn(watch.run(cancel.clone()));
    let patience = Duration::from_secs(10);
    machine.plug(0, &[0], "1-1:1.0", None);
    timeout(patience, changes.changed()).await.expect("plugged in").unwrap();
    // The folders of links are watched as soon as they are there.
    machine.link("by-id", "usb-Cam-video-index0", "video0");
    let until_linked = async {
        while machine.resolve("/dev/v4l/by-id/usb-Cam-video-index0").is_err() {
            changes.changed().await.unwrap();
        }
    };
    timeout(patience, until_linked).await.expect("linked");
    let until_gone = async {
        fs::remove_file(machine.0.join("dev/video0")).unwrap();
        while machine.resolve("/dev/video0").is_ok() {
            changes.changed().await.unwrap();
        }
    };
    timeout(patience, until_gone).await.expect("unplugged");
    fs::write(machine.0.join("dev/tty7"), "").unwrap();
    tokio::task::yield_now().await;
    cancel.cancel();
    running.await.unwrap().unwrap();
}
