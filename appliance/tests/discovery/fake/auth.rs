//! The camera's side of logins: RFC 7616 and 7617, and the WS-Security user name token.

use super::{Auth, Shared};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds by which a token's time may be off.
const TOKEN_LIFE: i64 = 300;

/// Our clock in seconds since 1970.
pub(super) fn now(shared: &Shared) -> i64 {
    let real = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    i64::try_from(real).unwrap() + shared.settings.clock_offset
}

/// The `WWW-Authenticate` header, if the camera sends one.
pub(super) fn challenge(shared: &Shared, is_rtsp: bool) -> Option<String> {
    let nonce = shared.state().nonce;
    match shared.settings.auth {
        Auth::Token if !is_rtsp => None,
        Auth::Basic => Some("Basic realm=\"cam\"".to_owned()),
        Auth::DigestSha256 => {
            Some(format!("Digest realm=\"cam\", nonce=\"n{nonce}\", qop=\"auth\", algorithm=SHA-256"))
        }
        Auth::Digest if !is_rtsp => Some(format!("Digest realm=\"cam\", nonce=\"n{nonce}\", qop=\"auth\"")),
        // What most RTSP servers send to this day.
        Auth::Token | Auth::Digest => Some(format!("Digest realm=\"cam\", nonce=\"n{nonce}\"")),
    }
}

/// Whether an `Authorization` header is right; nothing if its nonce is an old one, which is no wrong password.
pub(super) fn header_is_right(shared: &Shared, sent: &str, method: &str) -> Option<bool> {
    let settings = &shared.settings;
    let (user, password) = (settings.user, settings.password);
    if let Some(basic) = sent.strip_prefix("Basic ") {
        shared.state().saw_password = true;
        return Some(
            STANDARD.decode(basic).is_ok_and(|sent| sent == format!("{user}:{password}").into_bytes()),
        );
    }
    let field = |name: &str| {
        let at = sent.find(&format!("{name}="))? + name.len() + 1;
        sent[at..].trim_start_matches('"').split(['"', ',']).next().map(str::to_owned)
    };
    let hash = |text: String| match settings.auth {
        Auth::DigestSha256 => hex(&Sha256::digest(text)),
        _ => hex(&Md5::digest(text)),
    };
    let Some((nonce, uri, response)) =
        field("nonce").zip(field("uri")).zip(field("response")).map(|((a, b), c)| (a, b, c))
    else {
        return Some(false);
    };
    let current = format!("n{}", shared.state().nonce);
    let secret = hash(format!("{user}:cam:{password}"));
    let request = hash(format!("{method}:{uri}"));
    let expected = match field("cnonce").zip(field("nc")) {
        Some((cnonce, count)) => hash(format!("{secret}:{nonce}:{count}:{cnonce}:auth:{request}")),
        None => hash(format!("{secret}:{nonce}:{request}")),
    };
    if settings.one_time_nonces {
        shared.state().nonce += 1;
    }
    (nonce == current).then(|| field("username").as_deref() == Some(user) && response == expected)
}

/// Whether the user name token of a message is right; nothing if it has none.
pub(super) fn token_is_right(shared: &Shared, message: &str) -> Option<bool> {
    let nonce = STANDARD.decode(text_of(message, "Nonce")?).ok()?;
    let (created, sent) = (text_of(message, "Created")?, text_of(message, "Password")?);
    let mut hash = Sha1::new();
    hash.update(nonce);
    hash.update(created);
    hash.update(shared.settings.password);
    let is_fresh = (unix(created)? - now(shared)).abs() <= TOKEN_LIFE;
    let is_user = text_of(message, "Username") == Some(shared.settings.user);
    Some(is_fresh && is_user && sent == STANDARD.encode(hash.finalize()))
}

/// The text of the first element of this name.
pub(super) fn text_of<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = message.split('<').find_map(|tag| {
        let (tag_name, _) = tag.split_once([' ', '>'])?;
        (tag_name.rsplit(':').next() == Some(name) && !tag_name.starts_with('/'))
            .then(|| tag.split_once('>'))?
    })?;
    Some(rest)
}

/// Seconds since 1970 of `2026-11-21T02:00:00.250Z`.
fn unix(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let days = (1970..year).map(days_of).sum::<i64>() - (year..1970).map(days_of).sum::<i64>();
    let lengths = [31, days_of(year) - 337, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let days = days + lengths.iter().take(usize::try_from(month - 1).ok()?).sum::<i64>() + day - 1;
    Some(days * 86_400 + number(11..13)? * 3_600 + number(14..16)? * 60 + number(17..19)?)
}

/// Days of a year.
fn days_of(year: i64) -> i64 {
    if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) { 366 } else { 365 }
}

/// Year, month, day, hour, minute, second of seconds since 1970.
pub(super) fn calendar(unix: i64) -> [i64; 6] {
    let (mut days, rest) = (unix.div_euclid(86_400), unix.rem_euclid(86_400));
    let mut year = 1970;
    while days >= days_of(year) {
        days -= days_of(year);
        year += 1;
    }
    let mut month = 1;
    for length in [31, days_of(year) - 337, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    [year, month, days + 1, rest / 3_600, rest / 60 % 60, rest % 60]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
