//! What is known about local capture devices: which there are, what each offers, who uses it.
//!
//! ```text
//!  inotify --> list (sysfs) --> new ones asked, one worker after the other --> kept until they change
//! ```
//!
//! Nothing here opens a device: a driver that hangs holds up one worker, which is ended.

use crate::devices::{self, Device, DeviceWatch, Missing};
use crate::steward::chain;
use fieldgate_model::Config;
use fieldgate_model::config::Source;
use fieldgate_model::device::DeviceAbilities;
use fieldgate_worker::{Program, Spawner, probe_device};
use rustix::fs::Access;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// A camera's files come one after the other; so much later it is looked at.
const SETTLE: Duration = Duration::from_millis(500);

/// A device as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Listed {
    /// Which it is.
    #[serde(flatten)]
    pub device: Device,
    /// Names for `source.device` that stay the same, best first.
    pub names: Vec<String>,
    /// The mountpoints whose source it is now.
    pub used_by: Vec<String>,
    /// What it offers; absent until it has been asked.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub abilities: Option<DeviceAbilities>,
    /// Why that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What asking a device has given.
type Asked = Result<DeviceAbilities, String>;

/// What is known about the machine's capture devices.
#[derive(Default)]
pub struct Devices {
    watch: Mutex<Option<DeviceWatch>>,
    changes: Option<watch::Receiver<u64>>,
    config: OnceLock<watch::Receiver<Arc<Config>>>,
    asked: Mutex<BTreeMap<PathBuf, (Device, Asked)>>,
}

impl Devices {
    /// Begins to notice devices that come and go, where that can be noticed. To be called inside a runtime.
    pub fn start() -> Devices {
        match DeviceWatch::start() {
            Ok(watch) => {
                let changes = Some(watch.changes());
                Devices { watch: Mutex::new(Some(watch)), changes, ..Devices::default() }
            }
            Err(error) => {
                warn!(%error, "a camera that is plugged in again is found by trying");
                Devices::default()
            }
        }
    }

    /// The device file that a name of the config stands for now, if it may be opened.
    pub fn find(&self, name: &Path) -> Result<PathBuf, Missing> {
        let file = devices::resolve(name)?;
        match rustix::fs::access(&file, Access::READ_OK | Access::WRITE_OK) {
            Ok(()) => Ok(file),
            Err(error) => Err(Missing::Closed { file, error: error.into() }),
        }
    }

    /// Tells when devices may have come or gone; `None` where that cannot be noticed.
    pub fn changes(&self) -> Option<watch::Receiver<u64>> {
        self.changes.clone()
    }

    /// The config that runs, from where cameras read what may change as they go.
    pub fn config(&self) -> Option<watch::Receiver<Arc<Config>>> {
        self.config.get().cloned()
    }

    /// Follows the config that runs. Only the first call counts.
    pub fn follow(&self, config: watch::Receiver<Arc<Config>>) {
        self.config.set(config).ok();
    }

    /// All devices with what is known of them. Does not wait.
    pub fn list(&self) -> Vec<Listed> {
        let all = devices::list().unwrap_or_default();
        let uses = self.config.get().map(|config| uses(&config.borrow())).unwrap_or_default();
        let asked = self.asked();
        let listed = all.iter().map(|device| {
            let known = asked.get(&device.device).filter(|(known, _)| known == device);
            listed(device, &all, &uses, known.map(|(_, asked)| asked))
        });
        listed.collect()
    }

    /// Looks at devices as they come, until cancelled. Only the first call does.
    pub async fn run(&self, spawner: Spawner, cancel: CancellationToken) {
        let watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((watch, changes)) = watch.zip(self.changes()) else {
            return cancel.cancelled().await;
        };
        let watching = watch.run(cancel.clone());
        tokio::select! {
            ended = watching => if let Err(error) = ended {
                warn!(%error, "cameras that come and go are not noticed any more");
            },
            () = self.keep_asked(&spawner, changes, &cancel) => {}
        }
        cancel.cancelled().await;
    }

    async fn keep_asked(
        &self,
        spawner: &Spawner,
        mut changes: watch::Receiver<u64>,
        cancel: &CancellationToken,
    ) {
        loop {
            changes.borrow_and_update();
            let all = devices::list().unwrap_or_default();
            self.asked().retain(|_, (known, _)| all.contains(known));
            for device in all.into_iter().filter(|device| device.index == 0) {
                if cancel.is_cancelled() {
                    return;
                }
                if self.asked().contains_key(&device.device) {
                    continue;
                }
                let asked = ask(spawner, &device, cancel).await;
                info!(device = %device.device.display(), name = device.name, outcome = told(&asked), "capture device");
                self.asked().insert(device.device.clone(), (device, asked));
            }
            if changes.changed().await.is_err() {
                return;
            }
            tokio::time::sleep(SETTLE).await;
        }
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<PathBuf, (Device, Asked)>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All devices, each asked now if workers can be started, for the command line.
pub async fn list_now(spawner: Option<&Spawner>) -> std::io::Result<Vec<Listed>> {
    let all = devices::list()?;
    let mut found = Vec::new();
    for device in &all {
        let asked = match spawner.filter(|_| device.index == 0) {
            Some(spawner) => Some(ask(spawner, device, &CancellationToken::new()).await),
            None => None,
        };
        found.push(listed(device, &all, &BTreeMap::new(), asked.as_ref()));
    }
    Ok(found)
}

async fn ask(spawner: &Spawner, device: &Device, cancel: &CancellationToken) -> Asked {
    let program = Program::this_binary();
    let probed = probe_device(spawner, program, device.device.clone(), cancel.child_token()).await;
    probed.map_err(|error| chain(&error))
}

fn told(asked: &Asked) -> String {
    match asked {
        Ok(abilities) => format!("{} modes, {} controls", abilities.modes.len(), abilities.controls.len()),
        Err(problem) => problem.clone(),
    }
}

fn listed(
    device: &Device,
    all: &[Device],
    uses: &BTreeMap<PathBuf, Vec<String>>,
    asked: Option<&Asked>,
) -> Listed {
    Listed {
        device: device.clone(),
        names: device.lasting_names(all),
        used_by: uses.get(&device.device).cloned().unwrap_or_default(),
        abilities: asked.and_then(|asked| asked.as_ref().ok()).cloned(),
        problem: asked.and_then(|asked| asked.as_ref().err()).cloned(),
    }
}

/// The mountpoints of each device file, by what their names stand for now.
fn uses(config: &Config) -> BTreeMap<PathBuf, Vec<String>> {
    let mut uses: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for (name, mountpoint) in &config.mountpoints {
        if let Source::V4l2(v4l2) = &mountpoint.source
            && let Ok(file) = devices::resolve(&v4l2.device)
        {
            uses.entry(file).or_default().push(name.clone());
        }
    }
    uses
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.device)?;
        self.names.iter().try_for_each(|name| write!(f, "\n  name     {name}"))?;
        self.used_by.iter().try_for_each(|name| write!(f, "\n  used by  {name}"))?;
        if let Some(problem) = &self.problem {
            write!(f, "\n  problem  {problem}")?;
        }
        let Some(abilities) = &self.abilities else { return Ok(()) };
        abilities.modes.iter().try_for_each(|mode| write!(f, "\n  mode     {mode}"))?;
        for control in &abilities.controls {
            let inactive = if control.inactive { ", inactive" } else { "" };
            write!(f, "\n  control  {control}, now {}{inactive}", control.value)?;
        }
        abilities.left_out.iter().try_for_each(|what| write!(f, "\n  left out {what}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn device() -> Device {
        Device {
            device: "/dev/video0".into(),
            name: "Cam".into(),
            index: 0,
            serial: Some("SN".into()),
            usb: None,
            by_id: None,
            by_path: None,
        }
    }

    #[test]
    fn a_device_is_shown_with_its_names_abilities_and_users() {
        let abilities: DeviceAbilities = serde_json::from_value(json!({
            "modes": [{"format": "mjpeg", "width": 640, "height": 480, "frame_rates": ["30"]}],
            "controls": [{"name": "gain", "min": 0, "max": 9, "step": 1, "default": 1, "value": 2}],
        }))
        .unwrap();
        let uses = BTreeMap::from([(PathBuf::from("/dev/video0"), vec!["gate".to_owned()])]);
        let shown = listed(&device(), &[device()], &uses, Some(&Ok(abilities)));
        assert_eq!(
            shown.to_string(),
            "/dev/video0  Cam\n  name     serial:SN\n  used by  gate\n  mode     mjpeg 640x480 at 30/s\n  \
             control  gain (0 to 9), now 2"
        );
        let json = serde_json::to_value(&shown).unwrap();
        assert_eq!(json["modes"][0]["width"], 640);
        assert_eq!((&json["names"], &json["used_by"]), (&json!(["serial:SN"]), &json!(["gate"])));
        assert!(json.get("problem").is_none());
    }

    #[test]
    fn a_device_that_cannot_be_asked_says_why() {
        let shown = listed(&device(), &[device()], &BTreeMap::new(), Some(&Err("it hangs".to_owned())));
        assert_eq!(shown.to_string(), "/dev/video0  Cam\n  name     serial:SN\n  problem  it hangs");
        let unasked = listed(&device(), &[device()], &BTreeMap::new(), None);
        assert!(unasked.abilities.is_none() && unasked.problem.is_none());
    }
}
