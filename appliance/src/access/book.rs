//! Users, tokens and the claim, as they are kept. Pure.

use super::password::{Hashed, PasswordError};
use super::role::{Area, Role, Streams};
use super::secret::{Digest, normal_code};
use fieldgate_model::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use subtle::ConstantTimeEq as _;

/// The number of the file's shape.
pub(super) const SCHEMA: u32 = 1;
/// Most users.
pub(super) const USERS_MAX: usize = 64;
/// Most tokens.
pub(super) const TOKENS_MAX: usize = 64;
/// Longest name of a user or token, in bytes.
pub(super) const NAME_MAX: usize = 32;

/// Why people or tokens were not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// No user or token of this name.
    #[error("there is no {0:?}")]
    Unknown(String),
    /// Taken.
    #[error("there is a user {0:?} already")]
    Exists(String),
    /// Not a name.
    #[error("a name is 1 to {NAME_MAX} of the characters a-z 0-9 . _ - and begins with a letter or digit")]
    Name,
    /// Not names of mountpoints.
    #[error(
        "mountpoints are names, or beginnings of names that end in *, at most {}",
        super::role::STREAMS_MAX
    )]
    Streams,
    /// Nobody could manage the gateway any more.
    #[error("{0:?} is the last admin: make somebody else one first")]
    LastAdmin(String),
    /// Full.
    #[error("at most {0} are kept; remove one first")]
    TooMany(usize),
    /// In the past.
    #[error("a token must expire in the future")]
    Expired,
    /// Not a good password.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// Changed in between.
    #[error("people and tokens have revision {current} by now: read them again")]
    Stale {
        /// The revision in force.
        current: u64,
    },
}

/// A person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct User {
    pub(super) role: Role,
    pub(super) streams: Streams,
    pub(super) password: Hashed,
    pub(super) created: Timestamp,
}

/// A machine's credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Token {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) streams: Streams,
    pub(super) areas: Vec<Area>,
    pub(super) digest: Digest,
    pub(super) created: Timestamp,
    pub(super) created_by: String,
    pub(super) expires: Option<Timestamp>,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Book {
    schema: u32,
    /// Rises with each change.
    pub(super) revision: u64,
    /// The code that claims the gateway; none once it is claimed. Kept as it is, as it must be shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claim: Option<String>,
    /// Whether the fleet has it: claimed without any user.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    of_fleet: bool,
    pub(super) users: BTreeMap<String, User>,
    /// By id.
    pub(super) tokens: BTreeMap<String, Token>,
    /// What told the last reset file from others: it is heeded once, also if it cannot be removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reset: Option<String>,
}

impl Book {
    /// Of a gateway that nobody has claimed.
    pub(super) fn unclaimed(code: String) -> Self {
        Book {
            schema: SCHEMA,
            revision: 0,
            claim: Some(code),
            of_fleet: false,
            users: BTreeMap::new(),
            tokens: BTreeMap::new(),
            reset: None,
        }
    }

    /// From a file.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let book: Book = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match book.schema {
            SCHEMA if book.claim.is_none() && book.admins() == 0 && !book.of_fleet => {
                Err("it names no admin".to_owned())
            }
            SCHEMA => Ok(book),
            other => Err(format!("it has schema {other}, this build reads {SCHEMA}")),
        }
    }

    pub(super) fn claim_code(&self) -> Option<&str> {
        self.claim.as_deref()
    }

    pub(super) fn is_claimed(&self) -> bool {
        self.claim.is_none()
    }

    /// Whether this is the code, however it was typed.
    pub(super) fn is_code(&self, typed: &str) -> bool {
        let expected = self.claim.as_deref().map(normal_code).unwrap_or_default();
        let typed = normal_code(typed);
        !expected.is_empty() && bool::from(typed.as_bytes().ct_eq(expected.as_bytes()))
    }

    /// Leaves it to the fleet, if nobody has claimed it: the code claims it no more.
    pub(super) fn leave_to_fleet(&mut self) {
        if self.claim.take().is_some() {
            self.of_fleet = true;
        }
    }

    /// Makes the claimer the first admin and forgets the code.
    pub(super) fn claim(&mut self, name: &str, password: Hashed, now: Timestamp) -> Result<(), BookError> {
        self.add_user(name, Role::Admin, Streams::all(), password, now)?;
        self.claim = None;
        Ok(())
    }

    pub(super) fn add_user(
        &mut self,
        name: &str,
        role: Role,
        streams: Streams,
        password: Hashed,
        created: Timestamp,
    ) -> Result<(), BookError> {
        self.check_new_user(name, &streams)?;
        self.users.insert(name.to_owned(), User { role, streams, password, created });
        Ok(())
    }

    /// What can be said before a password is hashed.
    pub(super) fn check_new_user(&self, name: &str, streams: &Streams) -> Result<(), BookError> {
        if !is_name(name) {
            Err(BookError::Name)
        } else if self.users.contains_key(name) {
            Err(BookError::Exists(name.to_owned()))
        } else if self.users.len() >= USERS_MAX {
            Err(BookError::TooMany(USERS_MAX))
        } else if !streams.is_sound() {
            Err(BookError::Streams)
        } else {
            Ok(())
        }
    }

    pub(super) fn set_user(&mut self, name: &str, role: Role, streams: Streams) -> Result<(), BookError> {
        let last = self.is_last_admin(name);
        let user = self.users.get_mut(name).ok_or_else(|| BookError::Unknown(name.to_owned()))?;
        if last && role != Role::Admin {
            return Err(BookError::LastAdmin(name.to_owned()));
        }
        if !streams.is_sound() {
            return Err(BookError::Streams);
        }
        (user.role, user.streams) = (role, streams);
        Ok(())
    }

    pub(super) fn set_password(&mut self, name: &str, password: Hashed) -> Result<(), BookError> {
        let user = self.users.get_mut(name).ok_or_else(|| BookError::Unknown(name.to_owned()))?;
        user.password = password;
        Ok(())
    }

    pub(super) fn remove_user(&mut self, name: &str) -> Result<(), BookError> {
        if self.is_last_admin(name) {
            return Err(BookError::LastAdmin(name.to_owned()));
        }
        self.users.remove(name).map(drop).ok_or_else(|| BookError::Unknown(name.to_owned()))
    }

    pub(super) fn add_token(&mut self, id: &str, token: Token, now: Timestamp) -> Result<(), BookError> {
        if !is_name(&token.name) {
            Err(BookError::Name)
        } else if !token.streams.is_sound() {
            Err(BookError::Streams)
        } else if token.expires.is_some_and(|at| at <= now) {
            Err(BookError::Expired)
        } else {
            self.tokens.retain(|_, kept| kept.expires.is_none_or(|at| at > now));
            if self.tokens.len() >= TOKENS_MAX {
                return Err(BookError::TooMany(TOKENS_MAX));
            }
            self.tokens.insert(id.to_owned(), token);
            Ok(())
        }
    }

    pub(super) fn remove_token(&mut self, id: &str) -> Result<(), BookError> {
        self.tokens.remove(id).map(drop).ok_or_else(|| BookError::Unknown(id.to_owned()))
    }

    fn admins(&self) -> usize {
        self.users.values().filter(|user| user.role == Role::Admin).count()
    }

    fn is_last_admin(&self, name: &str) -> bool {
        self.users.get(name).is_some_and(|user| user.role == Role::Admin) && self.admins() == 1
    }
}

fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let first = name.bytes().next().is_some_and(is_plain);
    first && name.len() <= NAME_MAX && name.bytes().all(|byte| is_plain(byte) || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::super::password::{Cost, Hasher};
    use super::*;

    fn hashed() -> Hashed {
        Hasher::new(Cost::CHEAP).unwrap().hash("battery staple").unwrap()
    }

    fn claimed() -> Book {
        let mut book = Book::unclaimed("K7Q2M-0XW9D".to_owned());
        book.claim("ann", hashed(), Timestamp::default()).unwrap();
        book
    }

    fn token(name: &str, expires: Option<i64>) -> Token {
        Token {
            name: name.to_owned(),
            role: Role::Viewer,
            streams: Streams::all(),
            areas: Vec::new(),
            digest: Digest::of("x"),
            created: Timestamp::default(),
            created_by: "ann".to_owned(),
            expires: expires.map(Timestamp::from_unix_millis),
        }
    }

    #[test]
    fn a_claim_makes_the_first_admin_and_uses_the_code_up() {
        let mut book = Book::unclaimed("K7Q2M-0XW9D".to_owned());
        assert!(!book.is_claimed() && book.is_code("k7q2m oxw9d") && !book.is_code("K7Q2M-0XW9E"));
        assert!(!book.is_code("") && !book.is_code("K7Q2M"));
        book.claim("ann", hashed(), Timestamp::default()).unwrap();
        assert!(book.is_claimed() && book.claim_code().is_none());
        assert!(!book.is_code("K7Q2M-0XW9D") && !book.is_code(""));
        assert_eq!(book.users["ann"].role, Role::Admin);
    }

    #[test]
    fn the_last_admin_stays_one() {
        let mut book = claimed();
        let refused = Err(BookError::LastAdmin("ann".to_owned()));
        assert_eq!(book.remove_user("ann"), refused);
        assert_eq!(book.set_user("ann", Role::Installer, Streams::all()), refused);
        book.add_user("bob", Role::Admin, Streams::all(), hashed(), Timestamp::default()).unwrap();
        assert_eq!(book.set_user("ann", Role::Installer, Streams::all()), Ok(()));
        assert_eq!(book.remove_user("bob"), Err(BookError::LastAdmin("bob".to_owned())));
        assert_eq!(book.remove_user("ann"), Ok(()));
        assert_eq!(book.remove_user("ann"), Err(BookError::Unknown("ann".to_owned())));
    }

    #[test]
    fn names_and_numbers_have_bounds() {
        let mut book = claimed();
        for name in ["", "Bob", "-bob", "b b", "b/b", "\u{e4}", "b:", &"b".repeat(NAME_MAX + 1)] {
            assert_eq!(book.check_new_user(name, &Streams::all()), Err(BookError::Name), "{name}");
        }
        assert_eq!(book.check_new_user(&"b".repeat(NAME_MAX), &Streams::all()), Ok(()));
        assert_eq!(book.check_new_user("ann", &Streams::all()), Err(BookError::Exists("ann".to_owned())));
        let password = hashed();
        for number in 1..USERS_MAX {
            let name = format!("u{number}");
            book.add_user(&name, Role::Viewer, Streams::default(), password.clone(), Timestamp::default())
                .unwrap();
        }
        assert_eq!(book.check_new_user("more", &Streams::all()), Err(BookError::TooMany(USERS_MAX)));
    }

    #[test]
    fn expired_tokens_make_room_and_none_is_born_expired() {
        let (mut book, now) = (claimed(), Timestamp::from_unix_millis(1_000));
        assert_eq!(book.add_token("t", token("nvr", Some(1_000)), now), Err(BookError::Expired));
        for number in 0..TOKENS_MAX {
            book.add_token(&format!("t{number}"), token("nvr", Some(2_000)), now).unwrap();
        }
        assert_eq!(book.add_token("t", token("nvr", None), now), Err(BookError::TooMany(TOKENS_MAX)));
        let later = Timestamp::from_unix_millis(2_000);
        book.add_token("t", token("nvr", None), later).unwrap();
        assert_eq!(book.tokens.len(), 1);
        assert_eq!(book.remove_token("t0"), Err(BookError::Unknown("t0".to_owned())));
        assert_eq!(book.remove_token("t"), Ok(()));
    }

    #[test]
    fn what_is_stored_holds_no_secret_and_reads_back() {
        let mut book = claimed();
        book.add_token("t", token("nvr", None), Timestamp::default()).unwrap();
        let bytes = serde_json::to_vec(&book).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("staple"));
        assert_eq!(Book::read(&bytes).unwrap(), book);
        assert!(Book::read(b"{}").is_err() && Book::read(b"").is_err());
        book.users.clear();
        let text = Book::read(&serde_json::to_vec(&book).unwrap()).unwrap_err();
        assert!(text.contains("no admin"), "a book without admin and without code would lock everybody out");
        book.schema = 2;
        assert!(Book::read(&serde_json::to_vec(&book).unwrap()).unwrap_err().contains("schema 2"));
    }
}
