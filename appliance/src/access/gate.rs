//! Judges a request by what it shows: nothing, a session's cookie, a token, the machine's own secret.

use super::role::{Identity, Need, Principal, Role, Streams};
use super::secret::{Digest, hex};
use super::{Access, LOCAL_PREFIX, State, TOKEN_PREFIX, Wait};
use crate::clock::timestamp;
use sha2::Digest as _;
use std::net::IpAddr;
use tokio::time::Instant;

/// Why a request is not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Before the claim there is only the claim.
    #[error("this gateway is not claimed yet: claim it at / or with POST /api/v1/claim")]
    Unclaimed,
    /// Nobody, or somebody who is not known any more.
    #[error("log in first: POST /api/v1/session, or send a token with Authorization: Bearer")]
    Unknown,
    /// Guessed too often.
    #[error(transparent)]
    Wait(#[from] Wait),
    /// A session's request that another site could have caused.
    #[error(
        "send the session's csrf value of GET /api/v1/session in X-CSRF-Token, from a page of this gateway"
    )]
    Forged,
    /// Known, but not enough.
    #[error("this needs the role {least}, and with a token this part of the API")]
    Role {
        /// What is needed.
        least: Role,
        /// Who has less.
        who: Identity,
    },
    /// Known, but not for this one.
    #[error("this account may not see this mountpoint")]
    Stream {
        /// Who wanted to.
        who: Identity,
    },
}

/// What somebody shows to be known by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Credential<'a> {
    /// The session cookie's value.
    Session(&'a str),
    /// The bearer token.
    Bearer(&'a str),
}

/// A request, as far as it matters who asks.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// What the route asks for.
    pub need: Need,
    /// The mountpoint that it is about.
    pub mountpoint: Option<&'a str>,
    /// Whether it only reads.
    pub is_safe: bool,
    /// What is shown.
    pub credential: Option<Credential<'a>>,
    /// The header that a page of ours sends along.
    pub csrf: Option<&'a str>,
    /// Whether the browser says that a page of ours asks.
    pub is_same_origin: bool,
    /// From where; good for counting wrong tries, never for being known.
    pub from: IpAddr,
}

impl Access {
    /// Judges a request; the principal is none where nobody needs to be known and nobody is. Wrong tokens are counted.
    pub fn admit(&self, asked: &Asked<'_>, now: Instant) -> Result<Option<Principal>, Refusal> {
        let mut state = self.lock_state();
        let found = match asked.credential {
            None => None,
            Some(Credential::Session(text)) => state.of_session(text, now),
            Some(Credential::Bearer(text)) => self.of_bearer(&state, text, asked.from),
        };
        let Some(principal) = found else {
            return match asked.need {
                Need::Nothing => Ok(None),
                _ if !state.book.is_claimed() => Err(Refusal::Unclaimed),
                Need::Login => Ok(state.lockout.check(asked.from, now).map(|()| None)?),
                Need::Known | Need::Role(..) => {
                    if matches!(asked.credential, Some(Credential::Bearer(_))) {
                        state.lockout.begin(asked.from, now)?;
                    }
                    Err(Refusal::Unknown)
                }
            };
        };
        if asked.need == Need::Login {
            // Whoever logs in is judged by what he sends, not by who he was.
            state.lockout.check(asked.from, now)?;
            return Ok(None);
        }
        if let (Some(Credential::Session(text)), false) = (asked.credential, asked.is_safe)
            && asked.need != Need::Nothing
        {
            let is_ours = asked.csrf.is_some_and(|sent| Digest::of(&csrf(text)).fits(sent));
            if !is_ours || !asked.is_same_origin {
                return Err(Refusal::Forged);
            }
        }
        match asked.need {
            Need::Role(least, _) if !principal.may(asked.need) => {
                Err(Refusal::Role { least, who: principal.identity })
            }
            _ if asked.mountpoint.is_some_and(|name| !principal.sees(name)) => {
                Err(Refusal::Stream { who: principal.identity })
            }
            _ => Ok(Some(principal)),
        }
    }

    fn of_bearer(&self, state: &State, text: &str, from: IpAddr) -> Option<Principal> {
        if text.starts_with(LOCAL_PREFIX) {
            // Only its file makes it known; that it must also come from this machine is for copies that get away.
            let is_here = from.to_canonical().is_loopback();
            return (self.local.fits(text) && is_here).then(|| Principal {
                identity: Identity::Local,
                role: Role::Admin,
                streams: Streams::all(),
                areas: Vec::new(),
            });
        }
        let (id, _) = text.strip_prefix(TOKEN_PREFIX)?.split_once('_')?;
        let token = state.book.tokens.get(id).filter(|token| token.digest.fits(text))?;
        if token.expires.is_some_and(|at| at <= timestamp(&self.clock)) {
            return None;
        }
        Some(Principal {
            identity: Identity::Token { id: id.to_owned(), name: token.name.clone() },
            role: token.role,
            streams: token.streams.clone(),
            areas: token.areas.clone(),
        })
    }
}

impl State {
    fn of_session(&mut self, text: &str, now: Instant) -> Option<Principal> {
        let name = self.sessions.user(Digest::of(text), now)?.to_owned();
        self.principal(&name)
    }

    pub(super) fn principal(&self, name: &str) -> Option<Principal> {
        let user = self.book.users.get(name)?;
        let identity = Identity::User { name: name.to_owned() };
        Some(Principal { identity, role: user.role, streams: user.streams.clone(), areas: Vec::new() })
    }
}

/// What a page must send along with a session's cookie to change something. Another site can make a browser send the
/// cookie, but can neither read this nor compute it.
pub fn csrf(session: &str) -> String {
    let mut hash = sha2::Sha256::new();
    hash.update(b"fieldgate csrf ");
    hash.update(session.as_bytes());
    hex(&hash.finalize())
}
