//! What is wrong with a config, and where.

use super::SecretUrl;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// One fault of a config. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// Where: `mountpoints.gate-2.push[0].url`; empty for the whole.
    pub path: String,
    /// What is wrong: "scheme must be rtmp, rtmps or kmp".
    pub problem: String,
    /// What stood there, shortened, secrets masked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub got: Option<Value>,
    /// What would help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Problem {
    /// The longest text that `got` repeats, in characters.
    const GOT_MAX: usize = 80;

    /// A problem at this path.
    pub fn new(path: &Path, problem: impl Into<String>) -> Self {
        Problem { path: path.to_string(), problem: problem.into(), got: None, remedy: None }
    }

    /// With what stood there. Long texts are cut, URLs masked; of lists and objects only the kind is said.
    #[must_use]
    pub fn got(mut self, got: impl Into<Value>) -> Self {
        self.got = Some(match got.into() {
            Value::String(text) => {
                let shown = if text.contains("://") || text.contains('@') {
                    SecretUrl::new(text).redacted()
                } else {
                    text
                };
                match shown.char_indices().nth(Self::GOT_MAX) {
                    Some((end, _)) => Value::String(format!("{}...", shown.get(..end).unwrap_or_default())),
                    None => Value::String(shown),
                }
            }
            Value::Array(_) => "a list".into(),
            Value::Object(_) => "an object".into(),
            plain => plain,
        });
        self
    }

    /// With what would help.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.problem)?;
        if let Some(got) = &self.got {
            write!(f, ", got {got}")?;
        }
        if let Some(remedy) = &self.remedy {
            write!(f, " ({remedy})")?;
        }
        Ok(())
    }
}

/// A place in a config.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Field(String),
    Item(usize),
}

impl Path {
    /// The config as a whole.
    pub fn root() -> Self {
        Path::default()
    }

    /// A mountpoint.
    pub fn mountpoint(name: &str) -> Self {
        Path::root().field("mountpoints").field(name)
    }

    /// A field of what is here.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Field(name.to_owned()));
        Path(steps)
    }

    /// An item of the list that is here.
    #[must_use]
    pub fn item(&self, index: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Item(index));
        Path(steps)
    }

    /// What stands at this place of `root`.
    pub(super) fn find_mut<'a>(&self, root: &'a mut Value) -> Option<&'a mut Value> {
        self.0.iter().try_fold(root, |value, step| match step {
            Step::Field(name) => value.get_mut(name.as_str()),
            Step::Item(index) => value.get_mut(*index),
        })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Item(item) => write!(f, "[{item}]")?,
                Step::Field(name) if !name.is_empty() && name.chars().all(is_plain) => {
                    write!(f, "{}{name}", if index == 0 { "" } else { "." })?;
                }
                Step::Field(name) => write!(f, "[{}]", Value::from(name.as_str()))?,
            }
        }
        Ok(())
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_like_the_config() {
        let url = Path::mountpoint("gate-2").field("push").item(0).field("url");
        assert_eq!(url.to_string(), "mountpoints.gate-2.push[0].url");
        assert_eq!(Path::mountpoint("a.b").field("max").to_string(), r#"mountpoints["a.b"].max"#);
        assert_eq!(Path::root().to_string(), "");
    }

    #[test]
    fn what_was_got_is_cut_and_masked() {
        let got = |value: Value| Problem::new(&Path::root(), "x").got(value).got;
        assert_eq!(got("rtsp://u:p@h/".into()), Some("rtsp://u:***@h/".into()));
        assert_eq!(got("x".repeat(99).into()), Some(format!("{}...", "x".repeat(80)).into()));
        assert_eq!(got(serde_json::json!({"key": "s3cret"})), Some("an object".into()));
        assert_eq!(got(7.into()), Some(7.into()));
    }
}
