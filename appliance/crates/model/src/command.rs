//! What others may ask of the gateway: our own API and the compat APIs send the same commands.

use crate::Config;
use crate::config::{
    AggregatorCamera, CameraType, Mountpoint, Publish, Push, RESERVED_APPLICATIONS, SecretUrl, Source,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A wish. Those that [`Command::apply`] to the config are durable: they survive a reboot once answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Adds a mountpoint; the same again changes nothing.
    AddMountpoint {
        /// Its name.
        name: String,
        /// Its settings.
        mountpoint: Box<Mountpoint>,
    },
    /// Removes a mountpoint with all its pushes; none of that name is fine.
    RemoveMountpoint {
        /// Its name.
        name: String,
    },
    /// Adds a push; the same again changes nothing.
    AddPush {
        /// The mountpoint.
        mountpoint: String,
        /// The push.
        push: Box<Push>,
    },
    /// Removes a push; none of that id is fine.
    RemovePush {
        /// The mountpoint.
        mountpoint: String,
        /// The push's effective id.
        id: String,
    },
    /// Switches a push on or off.
    EnablePush {
        /// The mountpoint.
        mountpoint: String,
        /// The push's effective id.
        id: String,
        /// Whether it shall run.
        enabled: bool,
    },
    /// Registers a camera of the aggregator API with a mountpoint of its own; one that is there keeps its pushes.
    RegisterCamera {
        /// Its name.
        name: String,
        /// What it films. None: as it was, else nobody said. Another than before moves the pushes to streaming engines to
        /// that application there.
        kind: Option<CameraType>,
    },
    /// Adds a push to a registered camera; one to the same URL changes nothing.
    AddCameraPush {
        /// The camera.
        camera: String,
        /// The push.
        push: Box<Push>,
        /// Whether a camera of that name is registered if there is none.
        register: bool,
    },
    /// Removes a registered camera with its mountpoint and pushes; none of that name is fine.
    RemoveCamera {
        /// Its name.
        name: String,
    },
    /// Closes the publisher's connection; it may come again.
    DisconnectPublisher {
        /// The mountpoint or stream under a template.
        mountpoint: String,
    },
    /// Tries a waiting push or source at once.
    RetryNow {
        /// The mountpoint or stream under a template.
        mountpoint: String,
        /// The push's effective id; none means the source.
        push: Option<String>,
    },
}

/// Why a command cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// There is none of that name.
    #[error("there is no mountpoint {name}")]
    NoMountpoint {
        /// The name.
        name: String,
    },
    /// There is none of that id.
    #[error("mountpoint {mountpoint} has no push {id}")]
    NoPush {
        /// The mountpoint.
        mountpoint: String,
        /// The id.
        id: String,
    },
    /// The name or id is taken by something else.
    #[error("{what} exists with other settings")]
    Exists {
        /// What.
        what: String,
    },
    /// No camera of that name is registered.
    #[error("no camera {name} is registered")]
    NoCamera {
        /// The name.
        name: String,
    },
    /// The name is an application of something else.
    #[error("{name} is taken on the RTMP port by something else than a registered camera")]
    Taken {
        /// The name.
        name: String,
    },
    /// No more fit.
    #[error("there are {max} {what} already; {setting} permits no more")]
    Full {
        /// What.
        what: &'static str,
        /// How many may be.
        max: u32,
        /// Where that is set.
        setting: &'static str,
    },
    /// It concerns the running side alone.
    #[error("the command does not change the config")]
    NotDurable,
}

impl Command {
    /// Whether it changes the config; the others go to the running side.
    pub fn is_durable(&self) -> bool {
        !matches!(self, Command::DisconnectPublisher { .. } | Command::RetryNow { .. })
    }

    /// The config with the wish in it. Carrying out a command twice gives the same config.
    pub fn apply(&self, config: &Config) -> Result<Config, CommandError> {
        let mut config = config.clone();
        match self {
            Command::AddMountpoint { name, mountpoint } => match config.mountpoints.get(name) {
                Some(known) if known == mountpoint.as_ref() => {}
                Some(_) => return Err(CommandError::Exists { what: format!("mountpoint {name}") }),
                None => {
                    config.mountpoints.insert(name.clone(), mountpoint.as_ref().clone());
                }
            },
            Command::RemoveMountpoint { name } => {
                config.mountpoints.remove(name);
                config.compat.aggregator.cameras.remove(name);
            }
            Command::RegisterCamera { name, kind } => register_camera(&mut config, name, *kind)?,
            Command::AddCameraPush { camera, push, register } => {
                if *register {
                    register_camera(&mut config, camera, None)?;
                }
                add_camera_push(&mut config, camera, push)?;
            }
            Command::RemoveCamera { name } => {
                if config.compat.aggregator.cameras.remove(name).is_some() {
                    config.mountpoints.remove(name);
                }
            }
            Command::AddPush { mountpoint, push } => {
                let id = push.effective_id();
                let pushes = &mut find(&mut config, mountpoint)?.push;
                match pushes.iter().find(|known| known.effective_id() == id) {
                    Some(known) if known == push.as_ref() => {}
                    Some(_) => {
                        return Err(CommandError::Exists { what: format!("push {id} of {mountpoint}") });
                    }
                    None => pushes.push(push.as_ref().clone()),
                }
            }
            Command::RemovePush { mountpoint, id } => {
                find(&mut config, mountpoint)?.push.retain(|push| push.effective_id() != *id);
            }
            Command::EnablePush { mountpoint, id, enabled } => {
                let pushes = &mut find(&mut config, mountpoint)?.push;
                match pushes.iter_mut().find(|push| push.effective_id() == *id) {
                    Some(push) => push.enabled = *enabled,
                    None => {
                        return Err(CommandError::NoPush { mountpoint: mountpoint.clone(), id: id.clone() });
                    }
                }
            }
            Command::DisconnectPublisher { .. } | Command::RetryNow { .. } => {
                return Err(CommandError::NotDurable);
            }
        }
        Ok(config)
    }
}

fn register_camera(config: &mut Config, name: &str, kind: Option<CameraType>) -> Result<(), CommandError> {
    let aggregator = &mut config.compat.aggregator;
    if let Some(camera) = aggregator.cameras.get_mut(name) {
        let Some(kind) = kind.filter(|kind| *kind != camera.kind) else { return Ok(()) };
        camera.kind = kind;
        if let Some(mountpoint) = config.mountpoints.get_mut(name) {
            retarget(&mut mountpoint.push, kind);
            let mut kept: Vec<Push> = Vec::new();
            // One stream is not sent twice.
            mountpoint.push.retain(|push| {
                let is_new = !kept.iter().any(|known| is_same_target(known, push));
                kept.extend(is_new.then(|| push.clone()));
                is_new
            });
        }
        return Ok(());
    }
    let is_taken = RESERVED_APPLICATIONS.contains(&name)
        || config.compat.kmp.applications.contains_key(name)
        || config.mountpoints.contains_key(name);
    if is_taken {
        return Err(CommandError::Taken { name: name.to_owned() });
    }
    let max = aggregator.max_cameras;
    if aggregator.cameras.len() >= usize::try_from(max).unwrap_or(usize::MAX) {
        return Err(CommandError::Full { what: "cameras", max, setting: "compat.aggregator.max_cameras" });
    }
    let camera = AggregatorCamera { kind: kind.unwrap_or_default(), key: None };
    aggregator.cameras.insert(name.to_owned(), camera);
    config.mountpoints.insert(name.to_owned(), Mountpoint::new(Source::Publish(Publish::default())));
    Ok(())
}

fn add_camera_push(config: &mut Config, camera: &str, push: &Push) -> Result<(), CommandError> {
    let max = config.compat.aggregator.max_pushes;
    let known = config.compat.aggregator.cameras.get(camera);
    let known = known.ok_or_else(|| CommandError::NoCamera { name: camera.to_owned() })?;
    let kind = known.kind;
    let mut push = push.clone();
    // The camera may have got another type since the push was thought of.
    retarget(std::slice::from_mut(&mut push), kind);
    let pushes = &mut find(config, camera)?.push;
    if pushes.iter().any(|known| is_same_target(known, &push)) {
        return Ok(());
    }
    let id = push.effective_id();
    if pushes.iter().any(|known| known.effective_id() == id) {
        return Err(CommandError::Exists { what: format!("push {id} of {camera}") });
    }
    if pushes.len() >= usize::try_from(max).unwrap_or(usize::MAX) {
        return Err(CommandError::Full { what: "pushes", max, setting: "compat.aggregator.max_pushes" });
    }
    pushes.push(push);
    Ok(())
}

/// Whether two URLs lead to the same stream, RTMP's default port written out or not.
fn is_same_target(one: &Push, other: &Push) -> bool {
    match (one.url.parts(), other.url.parts()) {
        (Ok(a), Ok(b)) => {
            a.scheme == b.scheme
                && a.host.eq_ignore_ascii_case(b.host)
                && a.port.unwrap_or(1935) == b.port.unwrap_or(1935)
                && (a.path, a.query, a.user, a.password) == (b.path, b.query, b.user, b.password)
        }
        _ => one.url == other.url,
    }
}

/// Moves pushes to streaming engines (`/TYPE/NAME`) to the application of another type.
fn retarget(pushes: &mut [Push], kind: CameraType) {
    for push in pushes.iter_mut().filter(|push| push.is_to_engine()) {
        let url = push.url.reveal();
        let Some((start, name)) = url.rsplit_once('/') else { continue };
        let Some((start, _)) = start.rsplit_once('/') else { continue };
        push.url = SecretUrl::new(format!("{start}/{}/{name}", kind.as_str()));
    }
}

fn find<'c>(config: &'c mut Config, name: &str) -> Result<&'c mut Mountpoint, CommandError> {
    config.mountpoints.get_mut(name).ok_or_else(|| CommandError::NoMountpoint { name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn command(value: serde_json::Value) -> Command {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_command_carried_out_twice_changes_nothing_more() {
        let mut config = Config::default();
        for wish in [
            json!({"command": "add_mountpoint", "name": "a", "mountpoint": {"source": {"kind": "publish"}}}),
            json!({"command": "add_push", "mountpoint": "a", "push": {"url": "rtmp://up/live/a", "id": "p"}}),
            json!({"command": "enable_push", "mountpoint": "a", "id": "p", "enabled": false}),
            json!({"command": "remove_push", "mountpoint": "a", "id": "p"}),
            json!({"command": "remove_mountpoint", "name": "a"}),
        ] {
            let command = command(wish);
            let once = command.apply(&config).unwrap();
            assert_ne!(once, config, "{command:?}");
            assert_eq!(command.apply(&once).as_ref(), Ok(&once), "{command:?}");
            config = once;
        }
        assert_eq!(config, Config::default());
    }

    fn urls(config: &Config, camera: &str) -> Vec<String> {
        config.mountpoints[camera].push.iter().map(|push| push.url.reveal().to_owned()).collect()
    }

    fn add_push(camera: &str, url: &str, id: &str, register: bool) -> Command {
        command(json!({"command": "add_camera_push", "camera": camera, "push": {"url": url, "id": id},
            "register": register}))
    }

    fn register(name: &str, kind: Option<&str>) -> Command {
        command(json!({"command": "register_camera", "name": name, "kind": kind}))
    }

    #[test]
    fn a_camera_keeps_its_pushes_and_has_each_target_once() {
        let mut config = register("c", None).apply(&Config::default()).unwrap();
        for (url, id) in [
            ("rtmp://e:1935/live/c", "stream-1"),
            // The same target, as an engine.
            ("rtmp://e/live/c", "engine-1"),
            ("rtmp://f/live/c", "engine-2"),
        ] {
            config = add_push("c", url, id, false).apply(&config).unwrap();
        }
        assert_eq!(urls(&config, "c"), ["rtmp://e:1935/live/c", "rtmp://f/live/c"]);
        assert_eq!(register("c", None).apply(&config).as_ref(), Ok(&config), "as it was");
        let config = register("c", Some("360")).apply(&config).unwrap();
        assert_eq!(urls(&config, "c"), ["rtmp://e:1935/live/c", "rtmp://f/360/c"]);
        // Thought of before the type was another.
        let config = add_push("c", "rtmp://g/live/c", "engine-3", false).apply(&config).unwrap();
        assert_eq!(urls(&config, "c")[2], "rtmp://g/360/c");
        let config = add_push("c", "rtmp://f/live/c", "stream-2", false).apply(&config).unwrap();
        let config = register("c", Some("live")).apply(&config).unwrap();
        assert_eq!(urls(&config, "c"), ["rtmp://e:1935/live/c", "rtmp://f/live/c", "rtmp://g/live/c"]);
    }

    #[test]
    fn cameras_and_pushes_are_bounded_and_take_no_name_of_others() {
        let base: Config = serde_json::from_value(json!({
            "compat": {"aggregator": {"max_cameras": 1, "max_pushes": 1},
                "kmp": {"applications": {"k": {"publish_url": "http://c/"}}}},
            "mountpoints": {"yard": {"source": {"kind": "publish"}}},
        }))
        .unwrap();
        for name in ["live", "relay", "k", "yard"] {
            let taken = CommandError::Taken { name: name.to_owned() };
            assert_eq!(register(name, None).apply(&base), Err(taken));
        }
        let missing = CommandError::NoCamera { name: "c".to_owned() };
        assert_eq!(add_push("c", "rtmp://e/live/a", "stream-1", false).apply(&base), Err(missing));
        let config = add_push("c", "rtmp://e/live/a", "stream-1", true).apply(&base).unwrap();
        let full = |what, setting| Err(CommandError::Full { what, max: 1, setting });
        assert_eq!(
            add_push("c", "rtmp://e/live/b", "stream-2", true).apply(&config),
            full("pushes", "compat.aggregator.max_pushes")
        );
        assert_eq!(register("d", None).apply(&config), full("cameras", "compat.aggregator.max_cameras"));
        let remove = command(json!({"command": "remove_camera", "name": "c"}));
        assert_eq!(remove.apply(&config), Ok(base.clone()));
        assert_eq!(remove.apply(&base), Ok(base.clone()));
        let other = command(json!({"command": "remove_camera", "name": "yard"}));
        assert_eq!(other.apply(&base).as_ref(), Ok(&base), "not a registered camera");
    }

    #[test]
    fn a_taken_name_with_other_settings_is_refused() {
        let add = |kind: &str| {
            command(
                json!({"command": "add_mountpoint", "name": "a", "mountpoint": {"source": {"kind": kind}}}),
            )
        };
        let config = add("publish").apply(&Config::default()).unwrap();
        assert!(matches!(add("test").apply(&config), Err(CommandError::Exists { .. })));
        let push =
            command(json!({"command": "add_push", "mountpoint": "b", "push": {"url": "rtmp://up/live/a"}}));
        assert_eq!(push.apply(&config), Err(CommandError::NoMountpoint { name: "b".to_owned() }));
    }
}
