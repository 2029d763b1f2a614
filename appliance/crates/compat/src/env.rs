//! Environment variables of the systems whose place the gateway takes, as settings of ours.
//!
//! Each module takes the variables that it knows out of [`Variables`]; what is left at the end nobody knows.

use fieldgate_model::Config;
use std::collections::BTreeMap;

/// Longest file, in bytes.
const BYTES_MAX: usize = 1 << 20;
/// Most variables in a file.
const VARIABLES_MAX: usize = 4_096;

/// Why a text is no file of variables.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// Far longer than any real one.
    #[error("the file is longer than {} bytes", BYTES_MAX)]
    TooLong,
    /// Far more than any real one.
    #[error("the file has more than {} variables", VARIABLES_MAX)]
    TooMany,
    /// Neither a variable nor a comment.
    #[error("line {0} is no NAME=VALUE")]
    Line(usize),
}

/// Variables that no module has taken yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables(BTreeMap<String, String>);

impl Variables {
    /// Reads lines of `NAME=VALUE`, as Docker and systemd take them and as `env` prints them: `#` and `;` begin comments,
    /// `export` is skipped, quotes around a whole value go. Of two with one name the later counts.
    pub fn parse(text: &str) -> Result<Self, EnvError> {
        if text.len() > BYTES_MAX {
            return Err(EnvError::TooLong);
        }
        let mut variables = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            let line = line.strip_prefix("export ").map_or(line, str::trim_start);
            let (name, value) = line.split_once('=').ok_or(EnvError::Line(index.saturating_add(1)))?;
            let name = name.trim_end();
            if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
                return Err(EnvError::Line(index.saturating_add(1)));
            }
            variables.insert(name.to_owned(), unquoted(value.trim()).to_owned());
            if variables.len() > VARIABLES_MAX {
                return Err(EnvError::TooMany);
            }
        }
        Ok(Variables(variables))
    }

    /// Takes one out. An empty one counts as not there, as with those who read it before.
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).filter(|value| !value.is_empty())
    }

    /// Looks at one that others may want, too.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// What is left.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

fn unquoted(value: &str) -> &str {
    let within = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    within('"').or_else(|| within('\'')).unwrap_or(value)
}

/// What came of a file of variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The config that says the same.
    pub config: Config,
    /// What somebody should know: settings that have no variable, variables that have no meaning here.
    pub notes: Vec<String>,
}

/// Lays the variables of all known systems over a config.
pub fn import(mut variables: Variables, mut config: Config) -> Imported {
    let mut notes = Vec::new();
    crate::aggregator::take_variables(&mut variables, &mut config, &mut notes);
    crate::node::take_variables(&mut variables, &mut config, &mut notes);
    crate::control::take_variables(&mut variables, &mut config, &mut notes);
    crate::encoder::take_variables(&mut variables, &mut config, &mut notes);
    crate::coordinator::take_variables(&mut variables, &mut config, &mut notes);
    notes.extend(variables.names().map(|name| format!("{name}: no setting is known for it; left out")));
    Imported { config, notes }
}

/// A fuzz target: any file.
pub fn env_file(data: &[u8]) {
    let Ok(variables) = Variables::parse(&String::from_utf8_lossy(data)) else { return };
    let imported = import(variables, Config::default());
    assert_eq!(fieldgate_model::config::validate(&imported.config), []);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_others_read_them() {
        let text = "# x\n; y\n\nA=1\nexport B = two words \nC=\"q = 'x'\"\nD='d'\nA=2\nE=\nF=\"\n";
        let mut variables = Variables::parse(text).unwrap();
        for (name, value) in [("A", "2"), ("B", "two words"), ("C", "q = 'x'"), ("D", "d"), ("F", "\"")] {
            assert_eq!(variables.take(name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(variables.take("E"), None);
        assert_eq!(variables.names().count(), 0);
    }

    #[test]
    fn what_is_no_such_file_is_refused_with_its_line() {
        assert_eq!(Variables::parse("A=1\nnothing\n"), Err(EnvError::Line(2)));
        assert_eq!(Variables::parse("=1"), Err(EnvError::Line(1)));
        assert_eq!(Variables::parse("A B=1"), Err(EnvError::Line(1)));
        assert_eq!(Variables::parse(&" ".repeat(BYTES_MAX + 1)), Err(EnvError::TooLong));
        let many = |count: usize| (0..count).map(|n| format!("V{n}=1\n")).collect::<String>();
        assert!(Variables::parse(&many(VARIABLES_MAX)).is_ok());
        assert_eq!(Variables::parse(&many(VARIABLES_MAX + 1)), Err(EnvError::TooMany));
    }

    #[test]
    fn unknown_variables_are_named() {
        let imported = import(Variables::parse("PATH=/bin\nCMS_IP=10.0.0.1\n").unwrap(), Config::default());
        assert!(
            imported.notes.iter().any(|note| note.starts_with("PATH: no setting")),
            "{:?}",
            imported.notes
        );
        assert!(!imported.notes.iter().any(|note| note.contains("CMS_IP: no setting")));
        let nothing = import(Variables::default(), Config::default());
        assert_eq!(nothing, Imported { config: Config::default(), notes: Vec::new() });
    }
}
