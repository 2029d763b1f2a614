//! The announcement: who the node is, and what the master makes of it.

use super::Key;
use super::role::Role;
use serde_json::{Value, json};
use std::net::Ipv4Addr;

/// Characters of what the master calls things.
const TEXT_MAX: usize = 256;

/// What the master said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    /// The master's id of this node; not our own.
    pub id: String,
    /// For all later calls, until the next announcement.
    pub secret: Key,
    /// The role that it gives.
    pub role: Role,
    /// Its name for the node.
    pub name: String,
    /// A short one.
    pub slug: String,
    /// `host:port` where it believes our RTMP to be.
    pub rtmp_address: Option<String>,
}

/// Why an announcement did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnounceError {
    /// No JSON object.
    #[error("the answer is no JSON object")]
    NotJson,
    /// Something that is needed is not there.
    #[error("the answer lacks {0}, or it is not what it should be")]
    Lacks(&'static str),
}

/// The body. Ports are texts, as masters of old want them.
pub(super) fn body(ip: Ipv4Addr, rtmp_port: u16, http_port: u16, server_uuid: &str) -> Vec<u8> {
    let ip = ip.to_string();
    json!({
        "rtmp_ip": ip,
        "rtmp_port": rtmp_port.to_string(),
        "http_ip": ip,
        "http_port": http_port.to_string(),
        "server_uuid": server_uuid,
    })
    .to_string()
    .into_bytes()
}

/// Reads the reply to an announcement that succeeded.
pub(super) fn reply(body: &[u8]) -> Result<Announced, AnnounceError> {
    let Ok(Value::Object(reply)) = serde_json::from_slice(body) else { return Err(AnnounceError::NotJson) };
    let text = |field: &'static str| {
        let text = reply.get(field).and_then(Value::as_str).unwrap_or_default();
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        let good = !text.is_empty() && text.len() <= TEXT_MAX && is_plain;
        good.then(|| text.to_owned()).ok_or(AnnounceError::Lacks(field))
    };
    let port = match reply.get("rtmp_port") {
        Some(Value::Number(number)) => Some(number.to_string()),
        Some(Value::String(text)) => Some(text.clone()),
        _ => None,
    };
    let role = text("mode").ok().and_then(|mode| Role::parse(&mode)).ok_or(AnnounceError::Lacks("mode"))?;
    Ok(Announced {
        id: text("id")?,
        secret: Key::new(text("secret")?),
        role,
        name: text("name")?,
        slug: text("slug")?,
        rtmp_address: text("rtmp_ip").ok().zip(port).map(|(ip, port)| format!("{ip}:{port}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"id":"m-1","name":"n","mode":"RR","slug":"0.IE.EU","region":"EU","rtmp_ip":"203.0.113.7",
        "rtmp_port":1935,"secret":"0123456789012345678901234567890123456789abc","live":false}"#;

    #[test]
    fn check_01_the_body_has_the_five_fields_and_ports_are_texts() {
        let body: Value =
            serde_json::from_slice(&body("203.0.113.7".parse().unwrap(), 1935, 7511, "u-1")).unwrap();
        let expected = json!({"rtmp_ip": "203.0.113.7", "rtmp_port": "1935", "http_ip": "203.0.113.7",
            "http_port": "7511", "server_uuid": "u-1"});
        assert_eq!(body, expected);
    }

    #[test]
    fn check_04_the_reply_gives_id_secret_and_role() {
        let said = reply(GOOD.as_bytes()).unwrap();
        assert_eq!((said.id.as_str(), said.role), ("m-1", Role::RootRelay));
        assert_eq!(said.rtmp_address.as_deref(), Some("203.0.113.7:1935"));
        assert!(!format!("{said:?}").contains("0123456789"), "no secret is shown");
    }

    #[test]
    fn a_reply_without_what_is_needed_is_a_failure() {
        assert_eq!(reply(b"<html>"), Err(AnnounceError::NotJson));
        assert_eq!(reply(b"[]"), Err(AnnounceError::NotJson));
        for field in ["id", "secret", "mode", "name", "slug"] {
            let Value::Object(mut fields) = serde_json::from_str(GOOD).unwrap() else { panic!() };
            for bad in
                [None, Some(json!("")), Some(json!(7)), Some(json!("a\r\nb")), Some(json!("x".repeat(257)))]
            {
                match bad {
                    Some(bad) => fields.insert(field.to_owned(), bad),
                    None => fields.remove(field),
                };
                let body = Value::Object(fields.clone()).to_string();
                assert_eq!(reply(body.as_bytes()), Err(AnnounceError::Lacks(field)), "{body}");
            }
        }
    }
}
