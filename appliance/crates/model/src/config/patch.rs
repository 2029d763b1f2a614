//! Changes that name only what they change, and what differs between two configs setting by setting.

use super::{Config, Path, Problem, json::Strict};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

/// One setting that differs. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Difference {
    /// Where: `mountpoints.gate-2.push[0].url`.
    pub path: String,
    /// What stood there; absent if nothing did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What stands there now; absent if nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

impl Config {
    /// This config with a JSON merge patch (RFC 7396) laid over the form in which it is read, or all that is wrong with
    /// the outcome's shape. Secrets that the patch does not name are "as it was": see [`Config::keep_secrets`].
    pub fn patched(&self, patch: &str) -> Result<Config, Vec<Problem>> {
        let root = |text: String| vec![Problem::new(&Path::root(), text)];
        let Strict(patch) =
            serde_json::from_str(patch).map_err(|error| root(format!("is no JSON: {error}")))?;
        let Value::Object(patch) = patch else {
            return Err(root("must be an object with the settings that change".to_owned()));
        };
        let mut value = serde_json::to_value(self)
            .map_err(|error| root(format!("the config has no JSON form: {error}")))?;
        merge(&mut value, patch);
        Config::from_value(value)
    }
}

/// RFC 7396, "MergePatch".
fn merge(target: &mut Value, patch: Map<String, Value>) {
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(fields) = target.as_object_mut() else { return };
    for (name, value) in patch {
        match value {
            Value::Null => {
                fields.remove(&name);
            }
            Value::Object(inner) => merge(fields.entry(name).or_insert(Value::Null), inner),
            plain => {
                fields.insert(name, plain);
            }
        }
    }
}

/// Every setting that differs between two configs, in the order of their names, as far as their JSON fits in
/// `max_bytes`; and how many more there are.
pub fn differences(from: &Config, to: &Config, max_bytes: usize) -> (Vec<Difference>, usize) {
    // Secrets are told apart in the stored form and shown in the public one. What cannot be stored was never confirmed.
    let stored = |config: &Config| config.stored().unwrap_or_default();
    let public = |config: &Config| serde_json::to_value(config).unwrap_or_default();
    let (from_public, to_public) = (public(from), public(to));
    let mut found = Found { room: max_bytes, differences: Vec::new(), left_out: 0 };
    let (before, after) = (stored(from), stored(to));
    found.walk(&Path::root(), [Some(&before), Some(&after)], [Some(&from_public), Some(&to_public)]);
    (found.differences, found.left_out)
}

struct Found {
    room: usize,
    differences: Vec<Difference>,
    left_out: usize,
}

impl Found {
    fn walk(&mut self, path: &Path, stored: [Option<&Value>; 2], public: [Option<&Value>; 2]) {
        if stored[0] == stored[1] {
            return;
        }
        match stored {
            [Some(Value::Object(before)), Some(Value::Object(after))] => {
                let added = after.keys().filter(|name| !before.contains_key(*name));
                for name in before.keys().chain(added) {
                    let below = public.map(|value| value.and_then(|value| value.get(name)));
                    self.walk(&path.field(name), [before.get(name), after.get(name)], below);
                }
            }
            [Some(Value::Array(before)), Some(Value::Array(after))] => {
                for index in 0..before.len().max(after.len()) {
                    let below = public.map(|value| value.and_then(|value| value.get(index)));
                    self.walk(&path.item(index), [before.get(index), after.get(index)], below);
                }
            }
            _ => {
                let [before, after] = public.map(|value| value.cloned());
                let difference = Difference { path: path.to_string(), before, after };
                let len = serde_json::to_string(&difference).map_or(usize::MAX, |text| text.len());
                match self.room.checked_sub(len) {
                    Some(room) => {
                        self.room = room;
                        self.differences.push(difference);
                    }
                    None => self.left_out += 1,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn base() -> Config {
        serde_json::from_value(json!({"mountpoints": {
            "gate": {"source": {"kind": "publish", "key": "KEY-1"}, "max_lag": "3s",
                     "push": [{"id": "main", "url": "rtmp://u:PASS@up/live/a"}]},
            "yard": {"source": {"kind": "publish"}},
        }}))
        .unwrap()
    }

    #[test]
    fn a_patch_changes_what_it_names_and_keeps_the_rest_with_its_secrets() {
        let patch = r#"{"mountpoints": {"yard": null, "gate": {"max_lag": "5s"}, "new": {"source": {"kind": "test"}}}}"#;
        let mut patched = base().patched(patch).unwrap();
        assert!(patched.keep_secrets(&base()).is_empty());
        let mut expected = base();
        expected.mountpoints.remove("yard");
        expected.mountpoints.get_mut("gate").unwrap().max_lag = crate::config::Span::from_secs(5);
        let new = serde_json::from_value(json!({"source": {"kind": "test"}})).unwrap();
        expected.mountpoints.insert("new".to_owned(), new);
        assert_eq!(patched, expected);
    }

    #[test]
    fn null_takes_a_setting_back_to_its_default_and_lists_are_replaced() {
        let patch = r#"{"mountpoints": {"gate": {"max_lag": null, "push": []}}}"#;
        let patched = base().patched(patch).unwrap();
        let fresh: Config =
            serde_json::from_value(json!({"mountpoints": {"a": {"source": {"kind": "test"}}}})).unwrap();
        assert_eq!(patched.mountpoints["gate"].max_lag, fresh.mountpoints["a"].max_lag);
        assert!(patched.mountpoints["gate"].push.is_empty());
    }

    #[test]
    fn what_a_patch_makes_is_checked_as_a_whole_with_hints() {
        let problems =
            base().patched(r#"{"mountpoints": {"gate": {"max_lagg": "5s", "source": null}}}"#).unwrap_err();
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "mountpoints.gate.max_lagg: there is no such setting (did you mean max_lag?)",
                "mountpoints.gate.source: is missing",
            ]
        );
        for odd in ["[]", "7", "null", "{", r#"{"a": 1, "a": 2}"#] {
            assert!(base().patched(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn differences_name_settings_and_show_no_secret() {
        let mut to = base();
        to.mountpoints.remove("yard");
        let gate = to.mountpoints.get_mut("gate").unwrap();
        gate.max_lag = crate::config::Span::from_secs(5);
        gate.push[0].url = crate::config::SecretUrl::new("rtmp://u:OTHER@up/live/a");
        let (found, left_out) = differences(&base(), &to, 64 << 10);
        let paths: Vec<&str> = found.iter().map(|difference| difference.path.as_str()).collect();
        assert_eq!(paths, ["mountpoints.gate.max_lag", "mountpoints.gate.push[0].url", "mountpoints.yard"]);
        assert_eq!((found[0].before.clone(), found[0].after.clone()), (Some(json!("3s")), Some(json!("5s"))));
        assert_eq!(found[1].before, found[1].after, "only the secret in it differs");
        assert_eq!((found[2].after.clone(), left_out), (None, 0));
        let text = serde_json::to_string(&found).unwrap();
        assert!(!["PASS", "OTHER", "KEY-1"].iter().any(|secret| text.contains(secret)), "{text}");
    }

    #[test]
    fn differences_are_bounded_and_the_rest_is_counted() {
        let mut to = base();
        to.rtmp.max_connections = 7;
        to.rtmp.max_message_bytes = 65_536;
        to.mountpoints.remove("gate");
        let (found, left_out) = differences(&base(), &to, 100);
        assert_eq!((found.len(), left_out), (1, 2), "{found:?}");
        assert_eq!(differences(&to, &to, 150), (Vec::new(), 0));
    }
}
