//! Tokens that open control sockets: JSON Web Tokens of the HMAC family.

use crate::key::Key;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Value, json};

/// Longest token, in bytes.
const TOKEN_MAX: usize = 4_096;
/// How far a peer's clock may be wrong, in seconds.
const LEEWAY: f64 = 60.0;

/// Why a token opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is no such token.
    #[error("it is no JSON Web Token")]
    Malformed,
    /// `none`, RSA and so on.
    #[error("it is not signed with HS256, HS384 or HS512")]
    Algorithm,
    /// Signed with another secret.
    #[error("it is signed with another secret")]
    Signature,
    /// For another kind of socket, or without a subject.
    #[error("its subject is not the socket's")]
    Subject,
    /// Not valid any more.
    #[error("it has expired")]
    Expired,
    /// Not valid yet.
    #[error("it is not valid yet; is a clock wrong?")]
    Early,
}

/// Whether `token` opens the sockets of `subject` at `unix_now`, in seconds since 1970.
pub fn check(token: &str, secret: &Key, subject: &str, unix_now: i64) -> Result<(), TokenError> {
    if token.len() > TOKEN_MAX {
        return Err(TokenError::Malformed);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed);
    let parse = |part: &str| -> Result<Value, TokenError> {
        serde_json::from_slice(&decode(part)?).map_err(|_| TokenError::Malformed)
    };
    let algorithm = match parse(header)?.get("alg").and_then(Value::as_str) {
        Some("HS256") => hmac::HMAC_SHA256,
        Some("HS384") => hmac::HMAC_SHA384,
        Some("HS512") => hmac::HMAC_SHA512,
        _ => return Err(TokenError::Algorithm),
    };
    let key = hmac::Key::new(algorithm, secret.reveal().as_bytes());
    // In constant time.
    hmac::verify(&key, signed.as_bytes(), &decode(signature)?).map_err(|_| TokenError::Signature)?;
    let claims = parse(claims)?;
    if claims.get("sub").and_then(Value::as_str) != Some(subject) {
        return Err(TokenError::Subject);
    }
    let time = |name: &str| match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or(TokenError::Malformed),
    };
    #[allow(clippy::cast_precision_loss, reason = "seconds of the next million years fit")]
    let now = unix_now as f64;
    if time("exp")?.is_some_and(|expires| now > expires + LEEWAY) {
        return Err(TokenError::Expired);
    }
    if time("nbf")?.is_some_and(|begins| now < begins - LEEWAY) {
        return Err(TokenError::Early);
    }
    Ok(())
}

/// A token for the sockets of `subject`; `valid`: from when to when, in seconds since 1970, for clocks that are right.
pub fn sign(secret: &Key, subject: &str, valid: Option<(i64, i64)>) -> String {
    let claims = match valid {
        Some((from, to)) => json!({"sub": subject, "iat": from, "exp": to}),
        None => json!({"sub": subject}),
    };
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", encode(r#"{"alg":"HS256","typ":"JWT"}"#), encode(&claims.to_string()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes()), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with Python's hmac module: key `s3cret`, claims `{"sub":"rtmp-control"}`.
    const PEERS: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJydG1wLWNvbnRyb2wifQ.7wsWr03zO4AtO2i7Kz_SD2QN32YaoZWg7URdeErCgEs";

    fn made(alg: &str, claims: &Value) -> String {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let signed = format!("{}.{}", encode(&json!({"alg": alg}).to_string()), encode(&claims.to_string()));
        let algorithm = match alg {
            "HS384" => hmac::HMAC_SHA384,
            "HS512" => hmac::HMAC_SHA512,
            _ => hmac::HMAC_SHA256,
        };
        let tag = hmac::sign(&hmac::Key::new(algorithm, b"s3cret"), signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    fn checked(token: &str) -> Result<(), TokenError> {
        check(token, &Key::new("s3cret"), "rtmp-control", 1_000)
    }

    #[test]
    fn check_01_only_a_good_token_for_this_socket_opens_it() {
        assert_eq!(checked(PEERS), Ok(()));
        assert_eq!(checked(&sign(&Key::new("s3cret"), "rtmp-control", None)), Ok(()));
        assert_eq!(checked(&sign(&Key::new("s3cret"), "hls-control", None)), Err(TokenError::Subject));
        assert_eq!(checked(&sign(&Key::new("other"), "rtmp-control", None)), Err(TokenError::Signature));
        for alg in ["HS256", "HS384", "HS512"] {
            assert_eq!(checked(&made(alg, &json!({"sub": "rtmp-control"}))), Ok(()), "{alg}");
        }
        for alg in ["none", "RS256", "hs256", "ES256"] {
            assert_eq!(checked(&made(alg, &json!({"sub": "rtmp-control"}))), Err(TokenError::Algorithm));
        }
        for subject in [json!(7), json!(null), json!(["rtmp-control"])] {
            assert_eq!(checked(&made("HS256", &json!({"sub": subject}))), Err(TokenError::Subject));
        }
        assert_eq!(checked(&made("HS256", &json!([]))), Err(TokenError::Subject));
    }

    #[test]
    fn check_01_times_count_with_a_minute_of_grace() {
        let at = |name: &str, seconds: Value| {
            let mut claims = json!({"sub": "rtmp-control"});
            claims[name] = seconds;
            checked(&made("HS256", &claims))
        };
        assert_eq!(at("exp", json!(940)), Ok(()));
        assert_eq!(at("exp", json!(939)), Err(TokenError::Expired));
        assert_eq!(at("nbf", json!(1_060)), Ok(()));
        assert_eq!(at("nbf", json!(1_061)), Err(TokenError::Early));
        assert_eq!(at("exp", json!("tomorrow")), Err(TokenError::Malformed));
        assert_eq!(checked(&sign(&Key::new("s3cret"), "rtmp-control", Some((0, 3_600)))), Ok(()));
    }

    #[test]
    fn check_01_what_is_no_token_opens_nothing() {
        let good = sign(&Key::new("s3cret"), "rtmp-control", None);
        for bad in ["", ".", "..", "a.b.c", "a.b.c.d", &good[..good.len() - 1], &good.replace('.', "")] {
            assert!(checked(bad).is_err(), "{bad:?}");
        }
        assert_eq!(checked(&format!("{good}{}", "A".repeat(TOKEN_MAX))), Err(TokenError::Malformed));
    }
}
