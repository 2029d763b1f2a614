//! What somebody may do: roles, and for machines areas beside them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Most patterns of mountpoints that one user or token may have.
pub(super) const STREAMS_MAX: usize = 256;

/// Each may do all that those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sees the pictures and the state of the mountpoints named to him.
    Viewer,
    /// Reads everything but secrets and people.
    Operator,
    /// Changes the config, masks, cameras, certificate.
    Installer,
    /// And people and tokens; reads the audit log.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Installer => "installer",
            Role::Admin => "admin",
        })
    }
}

/// A part of the API. A token may be bound to some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Area {
    /// Pictures.
    Watch,
    /// Status, ledger.
    Status,
    /// Counters.
    Metrics,
    /// Config, plan, masks.
    Config,
    /// Discovery and local devices.
    Cameras,
    /// Users, tokens, the audit log.
    People,
    /// The certificate that the gateway shows.
    Certificate,
}

/// The least that somebody must have to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing, also before the gateway is claimed.
    Nothing,
    /// Nothing yet: here one logs in. Answers only once the gateway is claimed.
    Login,
    /// To be known, with any role.
    Known,
    /// This role, and with a token this area.
    Role(Role, Area),
}

/// Mountpoints that somebody may see: names, or beginnings of names that end in `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Streams(pub Vec<String>);

impl Streams {
    /// Every one.
    pub fn all() -> Self {
        Streams(vec!["*".to_owned()])
    }

    /// Whether this one is among them.
    pub fn holds(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(stem) => name.starts_with(stem),
            None => pattern == name,
        })
    }

    /// Whether all of them can be names of mountpoints, and their number is within bounds.
    pub(super) fn is_sound(&self) -> bool {
        let is_name = |pattern: &String| {
            let stem = pattern.strip_suffix('*').unwrap_or(pattern);
            pattern.len() <= 64
                && !pattern.is_empty()
                && stem.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-~".contains(&byte))
        };
        self.0.len() <= STREAMS_MAX && self.0.iter().all(is_name)
    }
}

/// By what somebody is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Whoever can read the file that this process writes at its start: the machine's owner.
    Local,
    /// A person.
    User {
        /// The name.
        name: String,
    },
    /// A machine.
    Token {
        /// The token's id.
        id: String,
        /// What it was called.
        name: String,
    },
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Local => f.write_str("local"),
            Identity::User { name } => f.write_str(name),
            Identity::Token { id, name } => write!(f, "token {name} ({id})"),
        }
    }
}

/// Somebody who is known, and what he may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Who.
    pub identity: Identity,
    /// What at most.
    pub role: Role,
    /// Which mountpoints; only a viewer is bound to them.
    pub streams: Streams,
    /// Which parts of the API; none named means all.
    pub areas: Vec<Area>,
}

impl Principal {
    /// Whether this is allowed.
    pub fn may(&self, need: Need) -> bool {
        match need {
            Need::Nothing | Need::Login | Need::Known => true,
            Need::Role(role, area) => {
                self.role >= role && (self.areas.is_empty() || self.areas.contains(&area))
            }
        }
    }

    /// Whether this mountpoint may be seen.
    pub fn sees(&self, mountpoint: &str) -> bool {
        self.sees_all() || self.streams.holds(mountpoint)
    }

    /// Whether no mountpoint is hidden.
    pub fn sees_all(&self) -> bool {
        self.role > Role::Viewer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(role: Role, streams: &[&str], areas: &[Area]) -> Principal {
        let streams = Streams(streams.iter().map(|name| (*name).to_owned()).collect());
        let identity = Identity::User { name: "x".to_owned() };
        Principal { identity, role, streams, areas: areas.to_vec() }
    }

    #[test]
    fn a_role_may_what_those_before_it_may_and_no_more() {
        let roles = [Role::Viewer, Role::Operator, Role::Installer, Role::Admin];
        for (has, role) in roles.into_iter().enumerate() {
            for (needs, least) in roles.into_iter().enumerate() {
                let may = principal(role, &[], &[]).may(Need::Role(least, Area::Config));
                assert_eq!(may, has >= needs, "{role} on {least}");
            }
        }
    }

    #[test]
    fn a_token_with_areas_reaches_no_other() {
        let scraper = principal(Role::Operator, &[], &[Area::Metrics]);
        assert!(scraper.may(Need::Role(Role::Operator, Area::Metrics)));
        assert!(!scraper.may(Need::Role(Role::Operator, Area::Config)));
        assert!(!scraper.may(Need::Role(Role::Admin, Area::Metrics)));
    }

    #[test]
    fn a_viewer_sees_what_is_named_to_him() {
        let viewer = principal(Role::Viewer, &["gate", "yard-*"], &[]);
        assert!(viewer.sees("gate") && viewer.sees("yard-7"));
        assert!(!viewer.sees("gate2") && !viewer.sees("yard") && !viewer.sees(""));
        assert!(!principal(Role::Viewer, &[], &[]).sees("gate"));
        assert!(principal(Role::Operator, &[], &[]).sees("gate"));
    }

    #[test]
    fn streams_are_names_or_beginnings_of_names() {
        let sound =
            |names: &[&str]| Streams(names.iter().map(|name| (*name).to_owned()).collect()).is_sound();
        assert!(sound(&["gate", "yard-*", "*"]) && sound(&[]));
        for bad in ["", "a b", "a*b", "../x", "\u{e4}", &"n".repeat(65)] {
            assert!(!sound(&[bad]), "{bad}");
        }
        assert!(sound(&["n"; STREAMS_MAX]) && !sound(&["n"; STREAMS_MAX + 1]));
    }
}
