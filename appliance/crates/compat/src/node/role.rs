//! Roles of nodes, and what each may do.

/// What a node is in its mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Takes broadcasters, sends to root relays.
    Ingest,
    /// Takes ingests and other root relays, sends to root relays and relays.
    RootRelay,
    /// Takes root relays and relays, sends to relays and viewers.
    Relay,
}

impl Role {
    /// A word (`ingest`, `relay`, `root_relay`, `edge`) or a master's code (`I`, `R`, `RR`), in any case.
    pub fn parse(text: &str) -> Option<Role> {
        match text.trim().to_ascii_lowercase().as_str() {
            "ingest" | "i" => Some(Role::Ingest),
            "root_relay" | "rr" => Some(Role::RootRelay),
            "relay" | "r" | "edge" => Some(Role::Relay),
            _ => None,
        }
    }

    /// The word that a node says.
    pub const fn word(self) -> &'static str {
        match self {
            Role::Ingest => "ingest",
            Role::RootRelay => "root_relay",
            Role::Relay => "relay",
        }
    }
}

/// The roles that a node has: one, unless it stands alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roles(Vec<Role>);

impl Roles {
    /// One role.
    pub fn one(role: Role) -> Roles {
        Roles(vec![role])
    }

    /// The first is the one that is shown; the others are joined to it.
    pub fn joined(role: Role, others: &[Role]) -> Roles {
        let mut roles = vec![role];
        for other in others {
            if !roles.contains(other) {
                roles.push(*other);
            }
        }
        Roles(roles)
    }

    /// The role that is shown.
    pub fn shown(&self) -> Role {
        self.0.first().copied().unwrap_or(Role::Ingest)
    }

    /// Whether it has this one.
    pub fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }

    /// Whether broadcasters may publish here.
    pub fn takes_broadcasters(&self) -> bool {
        self.has(Role::Ingest)
    }

    /// Whether other nodes may publish here.
    pub fn takes_nodes(&self) -> bool {
        self.has(Role::RootRelay) || self.has(Role::Relay)
    }

    /// Whether viewers may watch here.
    pub fn serves_viewers(&self) -> bool {
        self.has(Role::Relay)
    }

    /// Whether a stream from this kind of peer may be here.
    pub fn takes(&self, peer: PeerKind) -> bool {
        match peer {
            PeerKind::Broadcaster => self.has(Role::Ingest),
            PeerKind::Ingest => self.has(Role::RootRelay),
            PeerKind::RootRelay => self.takes_nodes(),
            PeerKind::Relay => self.has(Role::Relay),
            PeerKind::Unknown => false,
        }
    }

    /// What a node is that sends with a token of type `RELAY`: towards a root relay it is an ingest.
    pub fn sender_of_relay_token(&self) -> PeerKind {
        if self.has(Role::Relay) { PeerKind::Relay } else { PeerKind::Ingest }
    }
}

/// Who feeds a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerKind {
    /// Not a node.
    Broadcaster,
    /// An ingest node.
    Ingest,
    /// A root relay.
    RootRelay,
    /// A relay.
    Relay,
    /// A node whose role nobody said.
    Unknown,
}

impl PeerKind {
    /// A node of this role.
    pub fn of(role: Option<Role>) -> PeerKind {
        match role {
            Some(Role::Ingest) => PeerKind::Ingest,
            Some(Role::RootRelay) => PeerKind::RootRelay,
            Some(Role::Relay) => PeerKind::Relay,
            None => PeerKind::Unknown,
        }
    }
}

/// What a token is for, as the master is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenType {
    /// Publishes as a broadcaster.
    Broadcaster,
    /// Watches.
    Viewer,
    /// Publishes as a root relay.
    RootRelay,
    /// Publishes as any other node.
    Relay,
}

impl TokenType {
    /// As the master knows it.
    pub const fn word(self) -> &'static str {
        match self {
            TokenType::Broadcaster => "BROADCASTER",
            TokenType::Viewer => "VIEWER",
            TokenType::RootRelay => "ROOT_RELAY",
            TokenType::Relay => "RELAY",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_04_words_and_codes_are_both_taken_and_words_are_said() {
        for (text, role) in [
            ("RR", Some(Role::RootRelay)),
            ("rr", Some(Role::RootRelay)),
            ("Root_Relay", Some(Role::RootRelay)),
            ("R", Some(Role::Relay)),
            ("relay", Some(Role::Relay)),
            ("EDGE", Some(Role::Relay)),
            ("I", Some(Role::Ingest)),
            (" ingest ", Some(Role::Ingest)),
            ("", None),
            ("relays", None),
        ] {
            assert_eq!(Role::parse(text), role, "{text:?}");
        }
        let words = [Role::Ingest, Role::RootRelay, Role::Relay].map(Role::word);
        assert_eq!(words, ["ingest", "root_relay", "relay"]);
    }

    #[test]
    fn each_role_takes_what_the_table_of_roles_says() {
        use PeerKind::{Broadcaster, Ingest, Relay, RootRelay, Unknown};
        let taken = |role| {
            let roles = Roles::one(role);
            [Broadcaster, Ingest, RootRelay, Relay, Unknown].map(|peer| roles.takes(peer))
        };
        assert_eq!(taken(Role::Ingest), [true, false, false, false, false]);
        assert_eq!(taken(Role::RootRelay), [false, true, true, false, false]);
        assert_eq!(taken(Role::Relay), [false, false, true, true, false]);
        let both = Roles::joined(Role::Ingest, &[Role::Relay, Role::Relay]);
        assert!(both.takes_broadcasters() && both.serves_viewers() && both.shown() == Role::Ingest);
    }
}
