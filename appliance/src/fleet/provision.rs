//! The provisioning file: what a gateway is told at its first start, before anybody can reach it.
//!
//! ```json
//! {"provision": 1, "keys": {"fleet-1": "..."}, "fleet": {"mqtt": {"url": "mqtts://..."}}, "claim": "code"}
//! ```
//!
//! It lies on the boot partition, where whoever flashes the card can put it. It is heeded by a gateway that has no config
//! yet and by no other: who holds the card of a running one must not become its master.

use fieldgate_fleet::KeyRing;
use fieldgate_model::Config;
use fieldgate_model::config::{Problem, parse_strict, validate};
use serde::Deserialize;
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Longest file, in bytes.
const FILE_MAX: u64 = 64 << 10;

/// Who may claim the gateway on the spot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// Whoever has the claim code, as without the file.
    #[default]
    Code,
    /// Nobody: the fleet has it. The reset file opens it again.
    Closed,
}

/// What the file says.
#[derive(Clone, Debug)]
pub struct Provision {
    /// The keys that the gateway believes.
    pub keys: KeyRing,
    /// The part `fleet` of its first config.
    pub fleet: fieldgate_model::config::Fleet,
    /// Who may claim it.
    pub claim: Claim,
}

/// Why the file is not heeded. Nothing of it is.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// The disk.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Longer than any.
    #[error("it is longer than {FILE_MAX} bytes")]
    TooLong,
    /// Not its shape; also a file that was not written to its end.
    #[error("it is no provisioning file: {0}")]
    Shape(#[from] serde_json::Error),
    /// Another version.
    #[error("provision must be 1")]
    Version,
    /// Nobody could change the gateway any more.
    #[error("keys must name at least one key")]
    NoKeys,
    /// Its settings cannot work.
    #[error("its settings cannot work: {}", .0.first().map(ToString::to_string).unwrap_or_default())]
    Config(Vec<Problem>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    provision: u32,
    keys: KeyRing,
    #[serde(default)]
    fleet: Option<Value>,
    #[serde(default)]
    claim: Claim,
}

/// Reads the file; none if there is none. Blocks on the disk.
pub fn read_provision(path: &Path) -> Result<Option<Provision>, ProvisionError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(ProvisionError::TooLong);
    }
    parse(&bytes).map(Some)
}

fn parse(bytes: &[u8]) -> Result<Provision, ProvisionError> {
    let text = std::str::from_utf8(bytes).map_err(io::Error::other)?;
    let Shape { provision, keys, fleet, claim } = serde_json::from_value(parse_strict(text)?)?;
    if provision != 1 {
        return Err(ProvisionError::Version);
    }
    if keys.is_empty() {
        return Err(ProvisionError::NoKeys);
    }
    let mut whole = serde_json::Map::new();
    whole.extend(fleet.map(|fleet| ("fleet".to_owned(), fleet)));
    let config = Config::from_value(Value::Object(whole)).map_err(ProvisionError::Config)?;
    let problems = validate(&config);
    if problems.is_empty() {
        Ok(Provision { keys, fleet: config.fleet, claim })
    } else {
        Err(ProvisionError::Config(problems))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn key() -> String {
        "A".repeat(43)
    }

    #[test]
    fn a_good_file_is_read() {
        let text = json!({
            "provision": 1,
            "keys": {"fleet-1": key()},
            "fleet": {"groups": ["north"], "mqtt": {"url": "mqtt://broker"}},
            "claim": "closed",
        });
        let read = parse(text.to_string().as_bytes()).unwrap();
        assert_eq!((read.keys.names().count(), read.claim), (1, Claim::Closed));
        assert_eq!(
            (read.fleet.groups, read.fleet.mqtt.unwrap().url.as_str()),
            (vec!["north".to_owned()], "mqtt://broker")
        );
        let least = json!({"provision": 1, "keys": {"fleet-1": key()}}).to_string();
        assert_eq!(parse(least.as_bytes()).unwrap().claim, Claim::Code);
        // Torn anywhere, it is no file.
        for end in 0..least.len() {
            assert!(parse(&least.as_bytes()[..end]).is_err(), "{end}");
        }
        assert!(read_provision(Path::new("/nowhere/at-all.json")).unwrap().is_none());
    }

    #[test]
    fn a_hostile_file_is_refused_with_its_cause() {
        let refused = |text: &[u8]| parse(text).unwrap_err().to_string();
        let of = |value: Value| refused(value.to_string().as_bytes());
        assert_eq!(of(json!({"provision": 2, "keys": {"k": key()}})), "provision must be 1");
        assert_eq!(of(json!({"provision": 1, "keys": {}})), "keys must name at least one key");
        assert!(of(json!({"provision": 1, "keys": {"k": "x"}})).contains("43 characters"));
        assert!(of(json!({"provision": 1, "keys": {"k": key()}, "shell": "rm"})).contains("unknown field"));
        assert!(
            of(json!({"provision": 1, "keys": {"k": key()}, "claim": "anybody"})).contains("unknown variant")
        );
        let fleet = |fleet: Value| of(json!({"provision": 1, "keys": {"k": key()}, "fleet": fleet}));
        assert!(fleet(json!({"mqtt": {"url": "http://h"}})).contains("fleet.mqtt.url: must be mqtt://"));
        assert!(fleet(json!({"mqqt": {}})).contains("mqqt"));
        assert!(refused(b"{\"provision\": 1, \"provision\": 1}").contains("stands twice"));
        assert!(refused(&[0xff, 0xfe]).contains("cannot be read"));
        assert!(refused("[".repeat(60_000).as_bytes()).contains("recursion"));
    }
}
