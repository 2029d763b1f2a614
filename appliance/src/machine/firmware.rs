//! The machine's firmware, as RAUC on it says: asked by root over D-Bus, with nothing of a stranger's in the call.

use super::helper::{HelperError, Places, Tool};
use fieldgate_model::config::is_version;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs;
use std::path::Path;

const SERVICE: &str = "de.pengutronix.rauc";
const INTERFACE: &str = "de.pengutronix.rauc.Installer";
/// RAUC's word for its operation while it installs.
const INSTALLING: &str = "installing";
/// Slots that are told at most.
const MAX_SLOTS: usize = 8;
/// Longest text of RAUC's that is told, in bytes.
const MAX_TEXT: usize = 500;

/// What RAUC says of itself and its slots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Firmware {
    /// The kind of machine that bundles must be for.
    pub compatible: String,
    /// The version that runs, as the image says; absent if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The slot that runs, by its boot loader's name.
    pub booted: String,
    /// The slot that the boot loader takes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// What RAUC does: `idle` or `installing`.
    pub operation: String,
    /// How far the last installation has come, in percent.
    pub percent: u8,
    /// What it does, or did last.
    pub step: String,
    /// Why the last installation since RAUC's start failed; empty if it did not.
    pub last_error: String,
    /// The slots that can be booted, by name. At most 8.
    pub slots: Vec<Slot>,
}

impl Firmware {
    /// Whether it installs a bundle now: it tells nothing of its slots then.
    pub fn is_installing(&self) -> bool {
        self.operation == INSTALLING
    }

    /// With the slots from before, if it tells none as it installs.
    #[must_use]
    pub fn or_slots_of(self, before: Option<&Firmware>) -> Firmware {
        match before.filter(|_| self.is_installing()) {
            Some(before) => Firmware { primary: before.primary.clone(), slots: before.slots.clone(), ..self },
            None => self,
        }
    }
}

/// One place for firmware.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "FirmwareSlot")]
pub struct Slot {
    /// Its boot loader's name, such as `A`.
    pub name: String,
    /// Whether it runs.
    pub booted: bool,
    /// Whether the boot loader would take it: `good` or `bad`.
    pub state: String,
    /// The version that was installed; absent on a medium that was flashed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// When it was installed, as RAUC wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed: Option<String>,
}

/// What a bundle says of itself, after RAUC has found its signature good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleFacts {
    /// The kind of machine that it is for.
    pub compatible: String,
    /// Its version.
    pub version: String,
}

/// One call over D-Bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Properties,
    Slots,
    Primary,
    Info(String),
    Install(String),
    Mark(&'static str),
}

impl Call {
    /// What follows `busctl`.
    pub(super) fn arguments(&self) -> Vec<&str> {
        let mut all = vec!["--system", "--json=short", "--timeout=12"];
        let of = if *self == Call::Properties { "get-property" } else { "call" };
        all.extend([of, SERVICE, "/", INTERFACE]);
        match self {
            Call::Properties => all.extend(["Compatible", "BootSlot", "Operation", "LastError", "Progress"]),
            Call::Slots => all.push("GetSlotStatus"),
            Call::Primary => all.push("GetPrimary"),
            Call::Info(bundle) => all.extend(["Info", "s", bundle]),
            Call::Install(bundle) => all.extend(["InstallBundle", "sa{sv}", bundle, "0"]),
            Call::Mark(state) => all.extend(["Mark", "ss", state, "booted"]),
        }
        all
    }
}

type Run<'a> = &'a mut dyn FnMut(&Tool) -> Result<String, HelperError>;

fn ask(call: Call, run: Run<'_>) -> Result<String, HelperError> {
    run(&Tool::Rauc(call)).map_err(|error| match error {
        // Where there is no RAUC, the bus knows nobody of that name; where there is no bus, it cannot be reached.
        HelperError::Tool { said, .. }
            if said.contains("not provided by any .service")
                || said.contains("ServiceUnknown")
                || said.contains("Failed to connect to bus")
                || said.contains("Failed to set bus address") =>
        {
            HelperError::NoRauc
        }
        HelperError::Tool { said, .. } => HelperError::Tool { tool: "RAUC", said },
        other => other,
    })
}

/// What RAUC says now.
pub(super) fn show(places: &Places, run: Run<'_>) -> Result<Firmware, HelperError> {
    let told = ask(Call::Properties, run)?;
    let mut values = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_default());
    let mut next = || values.next().map(|mut value| value["data"].take()).unwrap_or_default();
    let (compatible, booted, operation) = (text(&next()), text(&next()), text(&next()));
    let (last_error, progress) = (text(&next()), next());
    // RAUC answers nothing but its properties while it installs.
    let (all, primary) = if operation == INSTALLING { Default::default() } else { slots(run)? };
    let of = |slot: &Value, key: &str| slot[1][key]["data"].as_str().map(cut);
    let first = all.iter().find(|slot| slot[0].as_str().is_some_and(|name| Some(name) == primary.as_deref()));
    let mut told: Vec<Slot> = all
        .iter()
        .filter_map(|slot| {
            Some(Slot {
                name: of(slot, "bootname")?,
                booted: of(slot, "state").as_deref() == Some("booted"),
                state: of(slot, "boot-status").unwrap_or_default(),
                version: of(slot, "bundle.version"),
                installed: of(slot, "installed.timestamp"),
            })
        })
        .collect();
    told.sort_by(|one, other| one.name.cmp(&other.name));
    told.truncate(MAX_SLOTS);
    Ok(Firmware {
        compatible,
        version: version_of(&places.os_release),
        booted,
        primary: first.and_then(|slot| of(slot, "bootname")),
        operation,
        percent: progress[0].as_u64().and_then(|percent| u8::try_from(percent).ok()).unwrap_or_default(),
        step: text(&progress[1]),
        last_error,
        slots: told,
    })
}

/// All slots as RAUC tells them, and the name of the one that the boot loader takes first.
fn slots(run: Run<'_>) -> Result<(Vec<Value>, Option<String>), HelperError> {
    let slots: Value = serde_json::from_str(&ask(Call::Slots, run)?)?;
    let all = slots["data"][0].as_array().cloned().unwrap_or_default();
    // Not known on a medium whose boot loader has not been asked yet: then none is told.
    let primary = ask(Call::Primary, run).ok();
    let primary = primary.and_then(|told| serde_json::from_str::<Value>(&told).ok());
    Ok((all, primary.map(|told| text(&told["data"][0]))))
}

/// What the bundle says of itself; an error if RAUC does not believe its signature.
pub(super) fn inspect(places: &Places, run: Run<'_>) -> Result<BundleFacts, HelperError> {
    let told = ask(Call::Info(path_of(places)?), run).map_err(|error| match error {
        HelperError::Tool { .. } => HelperError::NoBundle,
        other => other,
    })?;
    let told: Value = serde_json::from_str(&told)?;
    Ok(BundleFacts { compatible: text(&told["data"][0]), version: text(&told["data"][1]) })
}

/// Has RAUC begin with the bundle; how it goes shows in [`show`].
pub(super) fn install(places: &Places, run: Run<'_>) -> Result<(), HelperError> {
    ask(Call::Install(path_of(places)?), run).map(drop)
}

/// Says of the slot that runs that it is to be kept, or not to be started again.
pub(super) fn mark(good: bool, run: Run<'_>) -> Result<(), HelperError> {
    ask(Call::Mark(if good { "good" } else { "bad" }), run).map(drop)
}

fn path_of(places: &Places) -> Result<String, HelperError> {
    let path = places.bundle.to_str().map(str::to_owned);
    path.ok_or(HelperError::NoBundle)
}

fn version_of(os_release: &Path) -> Option<String> {
    let all = fs::read_to_string(os_release).ok()?;
    let version = all.lines().find_map(|line| line.strip_prefix("IMAGE_VERSION="))?.trim_matches('"');
    is_version(version).then(|| version.to_owned())
}

fn text(value: &Value) -> String {
    cut(value.as_str().unwrap_or_default())
}

fn cut(text: &str) -> String {
    let end = (0..=text.len().min(MAX_TEXT)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What RAUC 1.8 of Debian 12 answered, after it had installed a bundle.
    const PROPERTIES: &str = include_str!("testdata/rauc-properties.txt");
    const SLOTS: &str = include_str!("testdata/rauc-slots.json");

    fn places(name: &str) -> Places {
        let folder = std::env::temp_dir().join(format!("fg-firmware-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let os_release = folder.join("os-release");
        fs::write(&os_release, "NAME=x\nIMAGE_ID=fieldgate-test\nIMAGE_VERSION=\"1.0\"\n").unwrap();
        Places { os_release, bundle: "/var/lib/b.raucb".into(), ..Places::default() }
    }

    #[test]
    fn what_rauc_says_is_read_whole() {
        let places = places("reads");
        let mut asked = Vec::new();
        let firmware = show(&places, &mut |tool| {
            asked.push(tool.clone());
            Ok(match tool {
                Tool::Rauc(Call::Properties) => PROPERTIES.to_owned(),
                Tool::Rauc(Call::Slots) => SLOTS.to_owned(),
                _ => r#"{"type":"s","data":["rootfs.1"]}"#.to_owned(),
            })
        });
        let firmware = firmware.unwrap();
        assert_eq!(
            (firmware.compatible.as_str(), firmware.version.as_deref()),
            ("fieldgate-test", Some("1.0"))
        );
        assert_eq!((firmware.booted.as_str(), firmware.primary.as_deref()), ("A", Some("B")));
        assert_eq!((firmware.percent, firmware.step.as_str()), (100, "Installing done."));
        let slots: Vec<_> =
            firmware.slots.iter().map(|it| (it.name.as_str(), it.booted, it.version.as_deref())).collect();
        assert_eq!(slots, [("A", true, None), ("B", false, Some("2.0"))]);
        assert_eq!(asked.len(), 3);
        fs::remove_dir_all(places.os_release.parent().unwrap()).ok();
    }

    #[test]
    fn while_it_installs_its_slots_are_not_asked_for_and_those_from_before_hold() {
        let places = places("installs");
        let mut asked = Vec::new();
        let installing = PROPERTIES.replacen("\"idle\"", "\"installing\"", 1);
        let firmware = show(&places, &mut |tool| {
            asked.push(tool.clone());
            Ok(installing.clone())
        });
        let firmware = firmware.unwrap();
        assert_eq!(asked, [Tool::Rauc(Call::Properties)]);
        assert!(firmware.is_installing() && firmware.slots.is_empty() && firmware.primary.is_none());
        let slots = vec![Slot { name: "A".to_owned(), ..Slot::default() }];
        let before = Firmware { primary: Some("A".to_owned()), slots: slots.clone(), ..Firmware::default() };
        let firmware = firmware.or_slots_of(Some(&before));
        assert_eq!((firmware.primary.as_deref(), &firmware.slots), (Some("A"), &slots));
        assert!(firmware.is_installing());
        let idle = Firmware::default().or_slots_of(Some(&before));
        assert_eq!(idle, Firmware::default());
        fs::remove_dir_all(places.os_release.parent().unwrap()).ok();
    }

    #[test]
    fn a_machine_without_rauc_says_so_and_odd_answers_are_nothing() {
        let places = places("none");
        let fails = |said: &str| {
            let said = said.to_owned();
            show(&places, &mut |_| Err(HelperError::Tool { tool: "busctl", said: said.clone() }))
                .unwrap_err()
                .to_string()
        };
        let none = fails(
            "Failed to get property: The name de.pengutronix.rauc was not provided by any .service files",
        );
        assert!(none.contains("no RAUC"), "{none}");
        assert_eq!(fails("odd"), "RAUC: odd");
        assert!(show(&places, &mut |_| Ok("odd".to_owned())).is_err());
        let odd = show(&places, &mut |_| Ok("{}".to_owned())).unwrap();
        assert_eq!(odd.slots, []);
        assert_eq!(cut(&"ä".repeat(MAX_TEXT)).len(), MAX_TEXT);
        fs::remove_dir_all(places.os_release.parent().unwrap()).ok();
    }

    #[test]
    fn a_bundle_is_named_by_root_alone() {
        let places = places("bundle");
        let mut asked = Vec::new();
        let facts = inspect(&places, &mut |tool| {
            asked.push(tool.clone());
            Ok(r#"{"type":"ss","data":["fieldgate-test","2.0"]}"#.to_owned())
        });
        assert_eq!(facts.unwrap().version, "2.0");
        assert_eq!(asked, [Tool::Rauc(Call::Info("/var/lib/b.raucb".to_owned()))]);
        let bad =
            inspect(&places, &mut |_| Err(HelperError::Tool { tool: "busctl", said: "Call failed".into() }));
        assert!(bad.unwrap_err().to_string().contains("signed"));
        fs::remove_dir_all(places.os_release.parent().unwrap()).ok();
    }
}
