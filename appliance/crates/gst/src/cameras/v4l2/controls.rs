//! What can be set on a capture device, and setting it.
//!
//! GStreamer sets controls but tells neither which there are nor that one was refused, so the device is asked
//! directly, on a file of its own: V4L2 lets several be open.

use crate::error::WorkError;
use fieldgate_model::device::{DeviceAbilities, DeviceChoice, DeviceControl};
use rscam::{Control, CtrlData, FLAG_DISABLED, FLAG_GRABBED, FLAG_INACTIVE, FLAG_READ_ONLY};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

/// Asks for the control after the named one.
const NEXT: u32 = 0x8000_0000;
/// Numbers tried one by one behind a control that cannot be read, until the next one shows.
const SKIP_MAX: u32 = 8192;
/// All questions to one driver: it may never end its list.
const QUESTIONS_MAX: u32 = 20_000;

/// A driver's controls, for this file's needs.
trait Driver {
    /// One control, with its value.
    fn get(&self, id: u32) -> io::Result<Control>;
    fn set(&self, id: u32, value: i64) -> io::Result<()>;
}

impl Driver for rscam::Camera {
    fn get(&self, id: u32) -> io::Result<Control> {
        self.get_control(id)
    }

    fn set(&self, id: u32, value: i64) -> io::Result<()> {
        self.set_control(id, &value)
    }
}

/// One control and how the driver calls it.
struct Found {
    id: u32,
    control: DeviceControl,
    /// Others may depend on it: it is set before them.
    is_switch: bool,
}

/// The device's controls, and what was left out of the list.
pub(super) fn list(device: &Path) -> io::Result<(Vec<DeviceControl>, Vec<String>)> {
    let (found, left_out) = all(&open(device)?);
    Ok((found.into_iter().map(|found| found.control).collect(), left_out))
}

/// Sets these. Nothing is set if one of them cannot be. `before` are the names that were set till now: those that are
/// wished for no more go back to what the driver begins with.
pub(super) fn apply(
    device: &Path,
    wishes: &BTreeMap<String, i64>,
    before: &BTreeSet<String>,
) -> Result<(), WorkError> {
    if wishes.is_empty() && before.is_empty() {
        return Ok(());
    }
    let driver = open(device).map_err(|error| WorkError::Element {
        element: "camera".into(),
        text: format!("cannot open the device for its controls: {error}"),
    })?;
    apply_to(&driver, wishes, before)
}

fn open(device: &Path) -> io::Result<rscam::Camera> {
    rscam::Camera::new(&device.to_string_lossy())
}

fn apply_to(
    driver: &impl Driver,
    wishes: &BTreeMap<String, i64>,
    before: &BTreeSet<String>,
) -> Result<(), WorkError> {
    let (found, _) = all(driver);
    let mut todo = Vec::new();
    for (name, value) in wishes {
        let known = found.iter().find(|found| found.control.name == *name);
        let known = known.filter(|found| found.control.takes(*value));
        todo.push((known.ok_or_else(|| refusal(name, *value, &found))?, *value));
    }
    let is_dropped = |name: &String| before.contains(name) && !wishes.contains_key(name);
    let dropped = found.iter().filter(|found| is_dropped(&found.control.name));
    // First, so that they undo nothing that is wished for.
    todo.splice(..0, dropped.map(|found| (found, found.control.default)));
    // A switch such as "exposure by hand" makes others settable.
    todo.sort_by_key(|(found, _)| !found.is_switch);
    for (found, value) in todo {
        driver.set(found.id, value).map_err(|error| WorkError::Control {
            name: found.control.name.clone(),
            got: value,
            problem: format!("the device refuses it: {error}"),
        })?;
    }
    Ok(())
}

fn refusal(name: &str, got: i64, found: &[Found]) -> WorkError {
    let problem = match found.iter().find(|found| found.control.name == name) {
        Some(known) => format!("the device takes {}", known.control),
        None if found.is_empty() => "the device has no controls".to_owned(),
        None => {
            let all: Vec<String> = found.iter().map(|found| found.control.to_string()).collect();
            format!("the device has no such control; it has {}", all.join(", "))
        }
    };
    WorkError::Control { name: name.to_owned(), got, problem }
}

/// Every control that has one number as its value and can be set.
fn all(driver: &impl Driver) -> (Vec<Found>, Vec<String>) {
    let (mut found, mut left_out) = (Vec::<Found>::new(), Vec::new());
    let (mut last, mut skipped, mut questions) = (0_u32, 0, 0);
    while found.len() < DeviceAbilities::CONTROLS_MAX {
        questions += 1;
        if questions > QUESTIONS_MAX {
            left_out.push("the driver's list of controls does not end".to_owned());
            break;
        }
        match driver.get(last.saturating_add(skipped) | NEXT) {
            Ok(control) if control.id <= last => {
                left_out.push("the driver's list of controls goes in circles".to_owned());
                break;
            }
            Ok(control) => {
                if skipped > 0 {
                    left_out.push(format!("a control after {last:#x} that cannot be read"));
                }
                (last, skipped) = (control.id, 0);
                if let Some(one) = usable(&control)
                    && !found.iter().any(|other| other.control.name == one.control.name)
                {
                    found.push(one);
                }
            }
            Err(error) if is_end(&error) => break,
            // Not a word which one it is: it is passed by number.
            Err(_) if skipped < SKIP_MAX => skipped += 1,
            Err(error) => {
                left_out.push(format!("controls after {last:#x}: {error}"));
                break;
            }
        }
    }
    if found.len() >= DeviceAbilities::CONTROLS_MAX {
        left_out.push(format!("controls beyond the first {}", DeviceAbilities::CONTROLS_MAX));
    }
    left_out.truncate(8);
    (found, left_out)
}

/// The end of the list, or no list at all.
fn is_end(error: &io::Error) -> bool {
    let ends = [Errno::INVAL, Errno::NOTTY, Errno::NODEV].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| ends.contains(&code))
}

fn usable(control: &Control) -> Option<Found> {
    if control.flags & (FLAG_DISABLED | FLAG_READ_ONLY) != 0 {
        return None;
    }
    let name = DeviceControl::name_of(&control.name);
    if name.is_empty() {
        return None;
    }
    let choice = |value: u32, name: String| DeviceChoice { value: i64::from(value), name };
    let (min, max, step, default, value, choices) = match &control.data {
        CtrlData::Integer { value, default, minimum, maximum, step } => (
            i64::from(*minimum),
            i64::from(*maximum),
            i64::from(*step),
            i64::from(*default),
            i64::from(*value),
            Vec::new(),
        ),
        CtrlData::Boolean { value, default } => (0, 1, 1, i64::from(*default), i64::from(*value), Vec::new()),
        CtrlData::Bitmask { value, default, maximum } => {
            (0, i64::from(*maximum), 1, i64::from(*default), i64::from(*value), Vec::new())
        }
        CtrlData::Menu { value, default, items } => {
            let items = items.iter().map(|item| choice(item.index, short(&item.name)));
            menu(*value, *default, items)?
        }
        CtrlData::IntegerMenu { value, default, items } => {
            let items = items.iter().map(|item| choice(item.index, item.value.to_string()));
            menu(*value, *default, items)?
        }
        // One number says nothing of these, or what they do is no setting.
        CtrlData::Button
        | CtrlData::Integer64 { .. }
        | CtrlData::CtrlClass
        | CtrlData::String { .. }
        | CtrlData::Unknown => return None,
    };
    if min > max {
        return None;
    }
    let inactive = control.flags & (FLAG_INACTIVE | FLAG_GRABBED) != 0;
    let is_switch = matches!(control.data, CtrlData::Boolean { .. } | CtrlData::Menu { .. });
    let id = control.id;
    let control = DeviceControl { name, min, max, step: step.max(1), default, value, choices, inactive };
    Some(Found { id, control, is_switch })
}

type Menu = (i64, i64, i64, i64, i64, Vec<DeviceChoice>);

fn menu(value: u32, default: u32, items: impl Iterator<Item = DeviceChoice>) -> Option<Menu> {
    let choices: Vec<DeviceChoice> = items.take(DeviceAbilities::CHOICES_MAX).collect();
    let min = choices.iter().map(|choice| choice.value).min()?;
    let max = choices.iter().map(|choice| choice.value).max()?;
    Some((min, max, 1, i64::from(default), i64::from(value), choices))
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(DeviceAbilities::NAME_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rscam::CtrlMenuItem;
    use std::cell::RefCell;

    /// Controls by number; what is not readable answers as a driver does.
    #[derive(Default)]
    struct Fake {
        controls: Vec<(u32, &'static str, Kind)>,
        set: RefCell<Vec<(u32, i64)>>,
    }

    #[derive(Clone, Copy)]
    enum Kind {
        Number(i32, i32, i32),
        Switch,
        Menu(u32),
        WriteOnly,
        Class,
        Flags(u32),
        SameAgain,
    }

    impl Driver for Fake {
        fn get(&self, id: u32) -> io::Result<Control> {
            let after = id & !NEXT;
            let next = self.controls.iter().find(|(id, _, _)| *id > after);
            let (id, name, kind) = next.ok_or(io::Error::from(Errno::INVAL))?;
            let number =
                |minimum, maximum, step| CtrlData::Integer { value: 0, default: 7, minimum, maximum, step };
            let (data, flags) = match *kind {
                Kind::Number(minimum, maximum, step) => (number(minimum, maximum, step), 0),
                Kind::Switch => (CtrlData::Boolean { value: false, default: true }, 0),
                Kind::Menu(items) => {
                    let item = |index| CtrlMenuItem { index, name: format!("choice\n{index}") };
                    (CtrlData::Menu { value: 1, default: 1, items: (0..items).map(item).collect() }, 0)
                }
                Kind::WriteOnly => return Err(io::ErrorKind::PermissionDenied.into()),
                Kind::Class => (CtrlData::CtrlClass, FLAG_READ_ONLY),
                Kind::Flags(flags) => (number(0, 9, 1), flags),
                Kind::SameAgain => {
                    return Ok(Control { id: 1, name: "x".into(), data: number(0, 9, 1), flags: 0 });
                }
            };
            Ok(Control { id: *id, name: (*name).to_owned(), data, flags })
        }

        fn set(&self, id: u32, value: i64) -> io::Result<()> {
            if value == 13 {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            self.set.borrow_mut().push((id, value));
            Ok(())
        }
    }

    fn fake(controls: &[(u32, &'static str, Kind)]) -> Fake {
        Fake { controls: controls.to_vec(), ..Fake::default() }
    }

    fn webcam() -> Fake {
        fake(&[
            (0x98_0001, "User Controls", Kind::Class),
            (0x98_0900, "Brightness", Kind::Number(0, 255, 1)),
            (0x9a_0001, "Camera Controls", Kind::Class),
            (0x9a_0901, "Auto Exposure", Kind::Menu(4)),
            (0x9a_0902, "Exposure Time, Absolute", Kind::Number(10, 100, 10)),
            (0x9a_0904, "Pan, Relative", Kind::WriteOnly),
            (0x9a_090c, "Focus, Automatic Continuous", Kind::Switch),
            (0x9a_090d, "Privacy", Kind::Flags(FLAG_READ_ONLY)),
            (0x9a_090e, "Iris", Kind::Flags(FLAG_INACTIVE)),
        ])
    }

    fn wishes(all: &[(&str, i64)]) -> BTreeMap<String, i64> {
        all.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    fn text(driver: &Fake, all: &[(&str, i64)]) -> String {
        let error = apply_to(driver, &wishes(all), &BTreeSet::new()).unwrap_err();
        assert!(driver.set.borrow().is_empty(), "nothing is set when one is refused");
        error.to_string()
    }

    #[test]
    fn settable_controls_are_listed_also_behind_one_that_cannot_be_read() {
        let (found, left_out) = all(&webcam());
        let names: Vec<&str> = found.iter().map(|found| found.control.name.as_str()).collect();
        assert_eq!(
            names,
            ["brightness", "auto_exposure", "exposure_time_absolute", "focus_automatic_continuous", "iris"]
        );
        assert_eq!(left_out, ["a control after 0x9a0902 that cannot be read"]);
        assert!(found[4].control.inactive);
        assert_eq!(found[1].control.choices[0].name, "choice0", "without what would break a line");
    }

    #[test]
    fn switches_are_set_before_what_depends_on_them() {
        let driver = webcam();
        let all = wishes(&[("brightness", 3), ("exposure_time_absolute", 20), ("auto_exposure", 1)]);
        apply_to(&driver, &all, &BTreeSet::new()).unwrap();
        assert_eq!(*driver.set.borrow(), [(0x9a_0901, 1), (0x98_0900, 3), (0x9a_0902, 20)]);
    }

    #[test]
    fn what_is_no_longer_wished_for_goes_back_to_the_drivers_default() {
        let driver = webcam();
        let before = ["brightness", "iris"].map(str::to_owned).into();
        apply_to(&driver, &wishes(&[("iris", 2)]), &before).unwrap();
        assert_eq!(*driver.set.borrow(), [(0x98_0900, 7), (0x9a_090e, 2)]);
    }

    #[test]
    fn a_wrong_control_is_refused_with_what_there_is() {
        assert_eq!(
            text(&webcam(), &[("brightness", 1), ("zoom", 2)]),
            "controls.zoom is 2: the device has no such control; it has brightness (0 to 255), auto_exposure (0 to 3; \
             0: choice0, 1: choice1, 2: choice2, 3: choice3), exposure_time_absolute (10 to 100 in steps of 10), \
             focus_automatic_continuous (0 to 1), iris (0 to 9)"
        );
        assert_eq!(
            text(&webcam(), &[("exposure_time_absolute", 15)]),
            "controls.exposure_time_absolute is 15: the device takes exposure_time_absolute (10 to 100 in steps of 10)"
        );
        assert_eq!(text(&fake(&[]), &[("gain", 1)]), "controls.gain is 1: the device has no controls");
        let busy = text(&webcam(), &[("brightness", 13)]);
        assert!(busy.starts_with("controls.brightness is 13: the device refuses it: "), "{busy}");
    }

    #[test]
    fn lists_that_lie_are_bounded() {
        let many: Vec<_> = (1..500).map(|id| (id, "", Kind::Number(0, 1, 1))).collect();
        assert!(all(&fake(&many)).0.is_empty(), "controls without a name");
        let names: Vec<&'static str> =
            (0..500).map(|n| &*Box::leak(format!("c{n}").into_boxed_str())).collect();
        let many: Vec<_> = (1..500).map(|id| (id, names[id as usize], Kind::Menu(5000))).collect();
        let (found, left_out) = all(&fake(&many));
        assert_eq!((found.len(), left_out.len()), (DeviceAbilities::CONTROLS_MAX, 1));
        assert_eq!(found[0].control.choices.len(), DeviceAbilities::CHOICES_MAX);
        let (found, left_out) = all(&fake(&[(1, "a", Kind::Switch), (2, "b", Kind::SameAgain)]));
        assert_eq!(
            (found.len(), left_out),
            (1, vec!["the driver's list of controls goes in circles".to_owned()])
        );
        let (found, left_out) = all(&fake(&[(1, "a", Kind::Switch), (90_000, "b", Kind::WriteOnly)]));
        assert_eq!((found.len(), left_out.len()), (1, 1), "too far to be passed by number");
        let (found, _) = all(&fake(&[(1, "a", Kind::Number(5, 1, 1)), (2, "e", Kind::Menu(0))]));
        assert!(found.is_empty(), "ranges and menus without a value");
        let none = fake(&[(1, "Step", Kind::Number(0, 5, -3))]);
        assert_eq!(all(&none).0[0].control.step, 1);
    }
}
