//! The old aggregator's state file, `conf.json`, as commands that make the same state here.

use super::target::{Engine, Target};
use fieldgate_model::Command;
use fieldgate_model::config::{CameraType, RESERVED_APPLICATIONS, is_stream_name};
use serde_json::Value;

/// Longest file, in bytes.
const BYTES_MAX: usize = 1 << 20;
/// Most cameras in a file.
const CAMERAS_MAX: usize = 1_024;
/// Most engines of one camera.
const ENGINES_MAX: usize = 32;

/// What such a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateFile {
    /// To be carried out in this order.
    pub commands: Vec<Command>,
    /// What was left out, each with its reason.
    pub skipped: Vec<String>,
}

/// Why a text is no such file.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// Far longer than any real one.
    #[error("the file is longer than {} bytes", BYTES_MAX)]
    TooLong,
    /// No JSON.
    #[error("the file is no JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Another kind of JSON.
    #[error("the file has no list \"cameras\"")]
    NoCameras,
    /// Far more than any real one.
    #[error("the file lists more than {} cameras", CAMERAS_MAX)]
    TooMany,
}

impl StateFile {
    /// Reads `{"cameras": [{"name", "type", "streamingEngines": []}]}`.
    pub fn parse(text: &str) -> Result<Self, StateFileError> {
        if text.len() > BYTES_MAX {
            return Err(StateFileError::TooLong);
        }
        let whole: Value = serde_json::from_str(text)?;
        let cameras = whole.get("cameras").and_then(Value::as_array).ok_or(StateFileError::NoCameras)?;
        if cameras.len() > CAMERAS_MAX {
            return Err(StateFileError::TooMany);
        }
        let mut file = StateFile::default();
        for (index, camera) in cameras.iter().enumerate() {
            file.camera(index, camera);
        }
        Ok(file)
    }

    fn camera(&mut self, index: usize, camera: &Value) {
        let text = |field: &str| camera.get(field).and_then(Value::as_str);
        let is_usable = |name: &&str| is_stream_name(name) && !RESERVED_APPLICATIONS.contains(name);
        let Some(name) = text("name").filter(is_usable) else {
            return self.skipped.push(format!("cameras[{index}]: its name cannot be an application's here"));
        };
        let kind = match camera.get("type") {
            None | Some(Value::Null) => CameraType::Live,
            Some(kind) => match kind.as_str().and_then(CameraType::parse) {
                Some(kind) => kind,
                None => {
                    self.skipped.push(format!("cameras[{index}].type: {kind} is not known; taken as live"));
                    CameraType::Live
                }
            },
        };
        self.commands.push(Command::RegisterCamera { name: name.to_owned(), kind: Some(kind) });
        let engines = camera.get("streamingEngines").and_then(Value::as_array);
        for (nth, engine) in engines.into_iter().flatten().enumerate() {
            let known = engine.as_str().and_then(Engine::parse).filter(|_| nth < ENGINES_MAX);
            let Some(engine) = known else {
                let what = format!("cameras[{index}].streamingEngines[{nth}]");
                self.skipped.push(format!("{what}: {engine} is no address of an engine, or one too many"));
                if nth >= ENGINES_MAX {
                    break;
                }
                continue;
            };
            let push = Target::camera(&engine.without_api_port(), kind, name).push();
            let (camera, push) = (name.to_owned(), Box::new(push));
            self.commands.push(Command::AddCameraPush { camera, push, register: false });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldgate_model::Config;

    fn imported(text: &str) -> (Config, Vec<String>) {
        let file = StateFile::parse(text).unwrap();
        let mut config = Config::default();
        for command in &file.commands {
            config = command.apply(&config).unwrap();
        }
        (config, file.skipped)
    }

    #[test]
    fn the_old_state_becomes_the_same_state() {
        let (config, skipped) = imported(
            r#"{"cameras": [
                {"name": "c", "type": "plane", "streamingEngines": ["10.0.0.5", "10.0.0.6:5000", "10.0.0.5"]},
                {"name": "d", "type": "360", "streamingEngines": []},
                {"name": "e"}, {"name": "e"}
            ]}"#,
        );
        assert_eq!(skipped, [""; 0]);
        let kinds =
            config.compat.aggregator.cameras.iter().map(|(name, camera)| (name.as_str(), camera.kind));
        let expected = [("c", CameraType::Plane), ("d", CameraType::Round), ("e", CameraType::Live)];
        assert_eq!(kinds.collect::<Vec<_>>(), expected);
        let urls: Vec<&str> = config.mountpoints["c"].push.iter().map(|push| push.url.reveal()).collect();
        assert_eq!(urls, ["rtmp://10.0.0.5/plane/c", "rtmp://10.0.0.6/plane/c"]);
        assert_eq!(fieldgate_model::config::validate(&config), []);
    }

    #[test]
    fn what_cannot_be_taken_is_named() {
        let (config, skipped) = imported(
            r#"{"cameras": [
                {"name": "../x"}, {"name": 7}, {"name": "live"}, 5,
                {"name": "c", "type": "round", "streamingEngines": ["a b", 3, "ok"]}
            ]}"#,
        );
        assert_eq!(skipped.len(), 7, "{skipped:#?}");
        assert_eq!(config.compat.aggregator.cameras.len(), 1);
        assert_eq!(config.mountpoints["c"].push.len(), 1);
    }

    #[test]
    fn files_are_bounded() {
        let cameras = |count: usize| format!(r#"{{"cameras": [{}]}}"#, vec!["{}"; count].join(","));
        assert!(StateFile::parse(&cameras(CAMERAS_MAX)).is_ok());
        assert!(matches!(StateFile::parse(&cameras(CAMERAS_MAX + 1)), Err(StateFileError::TooMany)));
        assert!(matches!(StateFile::parse(&" ".repeat(BYTES_MAX + 1)), Err(StateFileError::TooLong)));
        assert!(matches!(StateFile::parse("[]"), Err(StateFileError::NoCameras)));
        let engines = vec!["\"e\""; ENGINES_MAX + 9].join(",");
        let file = StateFile::parse(&format!(
            r#"{{"cameras": [{{"name": "c", "streamingEngines": [{engines}]}}]}}"#
        ));
        assert_eq!(file.unwrap().skipped.len(), 1);
    }
}
