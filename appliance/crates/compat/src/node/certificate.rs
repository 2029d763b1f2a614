//! The certificate of the node's API, where the master gives it.

use super::Key;
use super::{Action, Node, Note, Pending, after};
use crate::CallOutcome;
use fieldgate_media::civil;
use serde_json::Value;
use std::time::{Duration, Instant};

/// A new one is fetched when less than this remains: 20 days, in seconds.
const ENOUGH: i64 = 20 * 86_400;
/// Times between two looks. The wall clock of an appliance may jump, so none lies far ahead.
const LOOK: Duration = Duration::from_secs(3_600);
/// Wait after the master could not be asked.
const RETRY: Duration = Duration::from_secs(60);
/// Bytes of a chain, and of a key.
const PEM_MAX: usize = 64 << 10;

/// When the certificate is fetched.
#[derive(Debug, Default)]
pub(super) struct Certificate {
    /// Nothing: none is wanted, or it is on its way.
    due: Option<Instant>,
    /// Seconds since 1970 of the end of the one that is in use.
    not_after: Option<i64>,
    /// It was asked for once more after a 401.
    is_second: bool,
}

impl Certificate {
    /// Wanted from `start` on; never, if that is nothing.
    pub(super) fn new(start: Option<Instant>) -> Certificate {
        Certificate { due: start, ..Certificate::default() }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }
}

/// What the master gives.
struct Given {
    chain: String,
    key: Key,
    not_after: i64,
}

impl Node {
    pub(super) fn fetch_certificate_if_due(&mut self, now: Instant) {
        if self.certificate.due.is_none_or(|due| now < due) {
            return;
        }
        if self.certificate.not_after.is_some_and(|end| end.saturating_sub(self.unix_now) >= ENOUGH) {
            self.certificate.due = Some(after(now, LOOK));
            return;
        }
        let Some(path) = self.settings.endpoints.cert.clone() else { return };
        if let Some(call) = self.authorised("GET", &path, Vec::new()) {
            self.certificate.due = None;
            self.call(Pending::Certificate, call);
        }
    }

    pub(super) fn on_certificate(&mut self, outcome: CallOutcome, now: Instant) {
        let (note, wait) = match outcome {
            CallOutcome::Replied(reply) => match (reply.status, given(&reply.body)) {
                (200, Some(given)) => {
                    self.certificate = Certificate {
                        due: Some(after(now, LOOK)),
                        not_after: Some(given.not_after),
                        is_second: false,
                    };
                    let (chain, key) = (given.chain, given.key);
                    return self.actions.push_back(Action::UseCertificate { chain, key });
                }
                (200, None) => (Note::CertificateRefused("it is not what the contract says".into()), LOOK),
                (401, _) if !self.certificate.is_second => {
                    (self.certificate.due, self.certificate.is_second) = (Some(now), true);
                    return self.lose_secret(now);
                }
                (404, _) => (Note::NoCertificate, LOOK),
                (status, _) => (Note::CertificateMissing(format!("status {status}")), RETRY),
            },
            CallOutcome::Failed(why) => {
                self.lost(&why);
                (Note::CertificateMissing(why.chars().take(200).collect()), RETRY)
            }
        };
        self.note(note);
        (self.certificate.due, self.certificate.is_second) = (Some(after(now, wait)), false);
    }

    /// [`Action::UseCertificate`] could not be done; the one before goes on, and the master is asked again later.
    pub fn certificate_refused(&mut self, why: &str, now: Instant) {
        self.note(Note::CertificateRefused(why.chars().take(200).collect()));
        (self.certificate.not_after, self.certificate.due) = (None, Some(after(now, LOOK)));
    }
}

fn given(body: &[u8]) -> Option<Given> {
    let reply: Value = serde_json::from_slice(body).ok()?;
    let text = |field: &str| {
        let text = reply.get(field).and_then(Value::as_str)?;
        (!text.is_empty() && text.len() <= PEM_MAX).then(|| text.to_owned())
    };
    Some(Given {
        chain: text("cert")?,
        key: Key::new(text("key")?),
        not_after: unix_of(reply.get("not_after")?.as_str()?)?,
    })
}

/// Seconds since 1970 of a time by RFC 3339; parts of a second are left out.
fn unix_of(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| {
        let digits = text.get(from..to)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<i64>().ok())?
    };
    let is_apart =
        [(4, "-"), (7, "-"), (13, ":"), (16, ":")].iter().all(|(at, mark)| text.get(*at..=*at) == Some(mark));
    let between = text.get(10..11).is_some_and(|mark| matches!(mark, "T" | "t" | " "));
    if !is_apart || !between {
        return None;
    }
    let date = [number(0, 4)?, number(5, 7)?, number(8, 10)?];
    let unix = civil::to_unix(date, [number(11, 13)?, number(14, 16)?, number(17, 19)?])?;
    let rest = text.get(19..)?;
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => rest,
    };
    if zone.eq_ignore_ascii_case("z") {
        return Some(unix);
    }
    let sign = match zone.get(..1)? {
        "+" => 1_i64,
        "-" => -1,
        _ => return None,
    };
    let at = text.len().checked_sub(5)?;
    let is_zone = zone.len() == 6 && zone.get(3..4) == Some(":");
    let (hours, minutes) = (number(at, at.checked_add(2)?)?, number(at.checked_add(3)?, text.len())?);
    let offset = hours.checked_mul(3_600)?.checked_add(minutes.checked_mul(60)?)?;
    (is_zone && hours < 24 && minutes < 60).then(|| unix.checked_sub(offset.checked_mul(sign)?)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_rfc_3339() {
        for (text, unix) in [
            ("2026-11-21T02:00:00Z", Some(1_795_226_400)),
            ("2026-11-21t02:00:00.250z", Some(1_795_226_400)),
            ("2026-11-21T04:30:00+02:30", Some(1_795_226_400)),
            ("2026-11-20 21:00:00.5-05:00", Some(1_795_226_400)),
            ("2026-11-21T02:00:00", None),
            ("2026-02-30T02:00:00Z", None),
            ("2026-11-21T02:00:00+0230", None),
            ("2026-11-21T02:00:00+24:00", None),
            ("2026-11-21T02:00:00+2:300", None),
            ("2026-11-21", None),
            ("2026-11-21T02:00:0öZ", None),
            ("tomorrow", None),
            ("", None),
        ] {
            assert_eq!(unix_of(text), unix, "{text}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_none() {
        let reply = |cert: &str, key: &str, end: &str| {
            serde_json::json!({"cert": cert, "key": key, "not_after": end}).to_string()
        };
        let end = "2026-11-21T02:00:00Z";
        let (most, more) = ("c".repeat(PEM_MAX), "c".repeat(PEM_MAX + 1));
        assert!(given(reply(&most, "k", end).as_bytes()).is_some());
        for bad in [
            reply("", "k", end),
            reply(&more, "k", end),
            reply("c", &more, end),
            reply("c", "k", "soon"),
            "[]".into(),
            "<html>".into(),
        ] {
            assert!(given(bad.as_bytes()).is_none(), "{bad:.60}");
        }
    }
}
