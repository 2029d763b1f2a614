//! What a request shows to be known by, and what is said to who is not let in.
//!
//! Judged twice: by the front before a body is taken in, and again before the handler, which needs to know who asks.

use super::head::{Method, RequestHead};
use super::reply::Reply;
use super::routes::{self, Admission};
use crate::access::{Access, Asked, Credential, Identity, Principal, Refusal};
use std::net::SocketAddr;
use tokio::time::Instant;

/// The session's cookie, over TLS and without. Browsers take one with the first name only over TLS, from this very host and
/// for all paths, so that no other service on the same machine can plant one.
const COOKIE_SECURE: &str = "__Host-fieldgate";
const COOKIE_PLAIN: &str = "fieldgate";

/// How a request came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Way {
    /// Over TLS.
    pub(super) is_secure: bool,
    /// The browser says that a page of ours sent it.
    pub(super) is_same_origin: bool,
}

impl Way {
    /// `guarded` is a head that the guard has let through: an `Origin` in it is ours.
    pub(super) fn of(guarded: &RequestHead, is_secure: bool) -> Self {
        let is_same_origin = guarded.origin.is_some() || guarded.fetch_site.as_deref() == Some("same-origin");
        Way { is_secure, is_same_origin }
    }

    /// As the front writes it for the handler.
    pub(super) fn to_text(self) -> &'static str {
        match (self.is_secure, self.is_same_origin) {
            (true, true) => "secure same-origin",
            (true, false) => "secure",
            (false, true) => "same-origin",
            (false, false) => "none",
        }
    }

    /// As the front wrote it.
    pub(super) fn from_text(text: &str) -> Self {
        let has = |word| text.split(' ').any(|part| part == word);
        Way { is_secure: has("secure"), is_same_origin: has("same-origin") }
    }
}

/// A request before its body.
pub(super) struct Asking<'a> {
    pub(super) method: Method,
    pub(super) target: &'a str,
    /// By lower-case name.
    pub(super) headers: &'a [(String, String)],
    pub(super) peer: SocketAddr,
    pub(super) way: Way,
}

/// Why a request is not answered, and how that is said.
pub(super) struct Refused {
    pub(super) reply: Reply,
    /// Somebody known wanted what is not his: for the audit log.
    pub(super) who: Option<Identity>,
}

/// Who asks, if anybody needs to be known.
pub(super) fn judge(
    access: &Access,
    asking: &Asking<'_>,
    now: Instant,
) -> Result<Option<Principal>, Refused> {
    let path = asking.target.split('?').next().unwrap_or_default();
    let Admission { need, mountpoint, .. } = routes::admission(asking.method, path);
    let credential = credential(asking.headers, asking.way.is_secure)
        .map_err(|detail| Refused { reply: Reply::problem(400, detail, &[]), who: None })?;
    let asked = Asked {
        need,
        mountpoint,
        is_safe: asking.method.is_safe(),
        credential,
        csrf: header(asking.headers, "x-csrf-token"),
        is_same_origin: asking.way.is_same_origin,
        from: asking.peer.ip(),
    };
    access.admit(&asked, now).map_err(refused)
}

fn refused(refusal: Refusal) -> Refused {
    let detail = refusal.to_string();
    let (reply, who) = match refusal {
        Refusal::Unknown => (Reply::problem(401, &detail, &[]).with("www-authenticate", "Bearer"), None),
        Refusal::Wait(wait) => {
            (Reply::problem(429, &detail, &[]).with("retry-after", wait.seconds().to_string()), None)
        }
        Refusal::Unclaimed | Refusal::Forged => (Reply::problem(403, &detail, &[]), None),
        Refusal::Role { who, .. } | Refusal::Stream { who } => (Reply::problem(403, &detail, &[]), Some(who)),
    };
    Refused { reply, who }
}

/// What is shown, if anything; or why that cannot be told.
fn credential(headers: &[(String, String)], is_secure: bool) -> Result<Option<Credential<'_>>, &'static str> {
    let bearer = match header(headers, "authorization") {
        None => None,
        Some(value) => {
            let bearer = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            let (_, token) = bearer.ok_or("the only Authorization taken here is Bearer")?;
            Some(Credential::Bearer(token.trim()))
        }
    };
    match (bearer, session(headers, is_secure)?) {
        (Some(_), Some(_)) => Err("send either a token or a session's cookie, not both"),
        (Some(bearer), None) => Ok(Some(bearer)),
        (None, session) => Ok(session.map(Credential::Session)),
    }
}

/// The session's cookie.
pub(super) fn session(headers: &[(String, String)], is_secure: bool) -> Result<Option<&str>, &'static str> {
    let name = if is_secure { COOKIE_SECURE } else { COOKIE_PLAIN };
    let cookies = header(headers, "cookie").unwrap_or_default();
    let pairs = cookies.split(';').filter_map(|pair| pair.trim().split_once('='));
    let mut ours = pairs.filter(|(known, _)| *known == name).map(|(_, value)| value);
    match (ours.next(), ours.next()) {
        (_, Some(_)) => Err("the session's cookie stands twice"),
        (found, None) => Ok(found),
    }
}

/// The header that gives the cookie, or with no secret takes it away.
pub(super) fn set_cookie(secret: Option<&str>, is_secure: bool) -> String {
    let (name, secure) = if is_secure { (COOKIE_SECURE, "; Secure") } else { (COOKIE_PLAIN, "") };
    let end = if secret.is_none() { "; Max-Age=0" } else { "" };
    let value = secret.unwrap_or_default();
    format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{end}")
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn one_credential_is_read_and_two_are_refused() {
        let read = |pairs: &[(&str, &str)], is_secure| {
            let headers = headers(pairs);
            credential(&headers, is_secure).map(|found| match found {
                None => String::new(),
                Some(Credential::Session(text)) => format!("session {text}"),
                Some(Credential::Bearer(text)) => format!("bearer {text}"),
            })
        };
        assert_eq!(read(&[], false), Ok(String::new()));
        assert_eq!(read(&[("cookie", "a=b; fieldgate=x;c")], false), Ok("session x".to_owned()));
        assert_eq!(read(&[("authorization", "bEARER  t")], false), Ok("bearer t".to_owned()));
        assert_eq!(read(&[("cookie", "fieldgate=x; __Host-fieldgate=y")], true), Ok("session y".to_owned()));
        assert_eq!(read(&[("cookie", "fieldgate=x")], true), Ok(String::new()), "planted without TLS");
        assert!(read(&[("cookie", "fieldgate=x; fieldgate=y")], false).is_err());
        assert!(read(&[("cookie", "fieldgate=x"), ("authorization", "Bearer t")], false).is_err());
        assert!(read(&[("authorization", "Basic dXNlcg==")], false).is_err());
        assert!(read(&[("authorization", "Bearer")], false).is_err());
    }

    #[test]
    fn the_cookie_is_for_this_site_alone_and_out_of_reach_of_scripts() {
        let cookie = set_cookie(Some("s"), true);
        assert_eq!(cookie, "__Host-fieldgate=s; Path=/; HttpOnly; SameSite=Strict; Secure");
        assert_eq!(set_cookie(Some("s"), false), "fieldgate=s; Path=/; HttpOnly; SameSite=Strict");
        assert!(set_cookie(None, true).ends_with("; Max-Age=0"));
    }

    #[test]
    fn how_a_request_came_is_passed_on_whole() {
        for (is_secure, is_same_origin) in [(true, true), (true, false), (false, true), (false, false)] {
            let way = Way { is_secure, is_same_origin };
            assert_eq!(Way::from_text(way.to_text()), way);
        }
    }
}
