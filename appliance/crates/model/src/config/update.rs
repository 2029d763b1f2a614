//! The firmware of the machine.

use super::{Config, Path, Problem, SecretUrl, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The machine's firmware: how a new one is judged, and where the fleet manager wants one taken from. Works on images
/// with RAUC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Update {
    /// Time for which all that delivered before an update must deliver at once, before the new firmware is kept. `"5s"`
    /// to `"1h"`. Default `"30s"`.
    #[schemars(extend("minSpan" = "5s", "maxSpan" = "1h"))]
    pub hold: Span,
    /// Time that new firmware has for that, from the gateway's start in it; then the firmware before it runs again.
    /// `"1m"` to `"1d"`, longer than `hold`. Default `"10m"`.
    #[schemars(extend("minSpan" = "1m", "maxSpan" = "1d"))]
    pub within: Span,
    /// The firmware that the machine shall run. Default: the one that it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<WantedFirmware>,
}

impl Default for Update {
    fn default() -> Self {
        Update { hold: Span::from_secs(30), within: Span::from_secs(600), wanted: None }
    }
}

/// Firmware to be fetched and started. It is tried once; when it was not kept, it is tried again only after a change
/// here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WantedFirmware {
    /// Its version, as its bundle says. When it runs already, nothing is fetched.
    #[schemars(length(min = 1, max = 64))]
    pub version: String,
    /// `https://HOST/PATH` or `http://HOST/PATH` of its bundle (`.raucb`), on a server that answers ranges. No secret:
    /// the bundle's own signature decides whether it is taken.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// File with the authorities that sign the server's certificate, PEM. Default: the well-known public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub ca: Option<PathBuf>,
    /// Takes it also if it is older than what runs. Default false.
    #[serde(default)]
    pub downgrade: bool,
}

/// What only shows in context.
pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    let Update { hold, within, wanted } = &config.update;
    let at = Path::root().field("update");
    if hold.get() >= within.get() {
        problems.push(Problem::new(&at.field("within"), "must be longer than hold").got(within.to_string()));
    }
    let Some(wanted) = wanted else { return };
    let at = at.field("wanted");
    if !is_version(&wanted.version) {
        let text = "must be 1 to 64 of the characters A-Z a-z 0-9 . + ~ _ -";
        problems.push(Problem::new(&at.field("version"), text).got(wanted.version.as_str()));
    }
    let url = SecretUrl::new(&wanted.url);
    let path = at.field("url");
    match url.parts() {
        Err(error) => problems.push(Problem::new(&path, error.to_string()).got(url.redacted())),
        Ok(parts) if !matches!(parts.scheme, "https" | "http") => {
            problems.push(Problem::new(&path, "must be https:// or http://").got(url.redacted()));
        }
        Ok(parts) if parts.user.is_some() => {
            problems.push(Problem::new(&path, "takes no user and password").got(url.redacted()));
        }
        Ok(parts) if parts.scheme == "http" && wanted.ca.is_some() => {
            problems.push(Problem::new(&path, "must be https:// for ca to count").got(url.redacted()));
        }
        Ok(_) => {}
    }
}

/// Whether this can be the version of firmware: what file names and messages hold as it is.
pub fn is_version(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".+~_-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::super::{diff, validate};
    use super::*;
    use serde_json::{Value, json};

    fn problems(update: Value) -> Vec<String> {
        let config = Config::from_value(json!({"update": update})).unwrap();
        validate(&config).iter().map(|it| format!("{}: {}", it.path, it.problem)).collect()
    }

    #[test]
    fn firmware_is_wanted_by_version_and_url() {
        let good = json!({"wanted": {"version": "2026.11-3", "url": "https://fleet.example/a.raucb?x=1", "ca": "/ca"}});
        assert_eq!(problems(good), [] as [&str; 0]);
        for (wrong, told) in [
            (json!({"version": "a b", "url": "https://h/x"}), "update.wanted.version"),
            (json!({"version": "1", "url": "ftp://h/x"}), "update.wanted.url: must be https"),
            (json!({"version": "1", "url": "https://u:p@h/x"}), "update.wanted.url: takes no user"),
            (json!({"version": "1", "url": "http://h/x", "ca": "/ca"}), "update.wanted.url: must be https"),
        ] {
            let found = problems(json!({"wanted": wrong}));
            assert!(found.len() == 1 && found[0].starts_with(told), "{found:?}");
        }
        assert_eq!(
            problems(json!({"hold": "60s", "within": "1m"})),
            ["update.within: must be longer than hold"]
        );
    }

    #[test]
    fn a_wish_for_firmware_stands_at_once_as_the_trial_judges_it() {
        let none = Config::default();
        let mut one = Config::default();
        one.update.wanted = Some(WantedFirmware {
            version: "2".to_owned(),
            url: "https://h/x".to_owned(),
            ca: None,
            downgrade: false,
        });
        assert!(!diff(&none, &one).is_provisional() && !diff(&one, &none).is_provisional());
        assert_eq!(diff(&none, &one).0[0].part.to_string(), "update");
    }
}
