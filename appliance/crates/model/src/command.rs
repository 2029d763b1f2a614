//! What others may ask of the gateway: our own API and the compat APIs send the same commands.

use crate::Config;
use crate::config::{Mountpoint, Push};
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
