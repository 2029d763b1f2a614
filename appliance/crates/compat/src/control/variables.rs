//! A streaming server's environment variables.

use crate::env::Variables;
use fieldgate_model::Config;
use fieldgate_model::config::{Control, Network, Secret, validate};
use std::net::IpAddr;

/// Takes what a streaming server of a coordinator was started with. Nothing is turned on where nothing of it is there.
pub fn take_variables(variables: &mut Variables, config: &mut Config, notes: &mut Vec<String>) {
    // Exactly so; an encoder has an address and a secret, too, but not this.
    if variables.get("CONTROL_USE") != Some("YES") {
        if variables.take("CONTROL_USE").is_some() {
            variables.take("CONTROL_BASE_URL");
            variables.take("CONTROL_SECRET");
            notes.push(
                "CONTROL_USE: it is not YES: there was no coordinator, and everybody could publish; nobody can here \
                 but by the keys of mountpoints"
                    .to_owned(),
            );
        }
        return;
    }
    variables.take("CONTROL_USE");
    let before = config.clone();
    let mut told = Vec::new();
    let control = std::mem::take(&mut config.compat.control);
    config.compat.control = take(variables, control, &mut told);
    if let Some(problem) = validate(config).into_iter().next()
        && validate(&before).is_empty()
    {
        *config = before;
        told.push(format!("the streaming server's variables are left out: {problem}"));
    }
    notes.extend(told);
}

fn take(variables: &mut Variables, mut own: Control, notes: &mut Vec<String>) -> Control {
    own.enabled = true;
    own.url = variables.take("CONTROL_BASE_URL").or(own.url);
    own.secret = variables.take("CONTROL_SECRET").map(Secret::new).or(own.secret);
    if let Some(text) = variables.take("EXTERNAL_IP") {
        match text.parse::<IpAddr>() {
            Ok(ip) => own.external_ip = Some(ip),
            Err(_) => notes.push(format!("EXTERNAL_IP: {text} is no address; the coordinator takes ours")),
        }
    }
    if let Some(text) = variables.take("EXTERNAL_PORT") {
        match text.parse() {
            Ok(port) if port > 0 => own.external_port = Some(port),
            _ => notes.push(format!("EXTERNAL_PORT: {text} is no port; that of rtmp.listen is told")),
        }
    }
    own.external_tls |= variables.take("EXTERNAL_SSL").is_some_and(|text| text == "YES");
    if let Some(list) = variables.take("RTMP_PLAY_WHITELIST") {
        for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let networks = if part == "*" { vec!["0.0.0.0/0", "::/0"] } else { vec![part] };
            for text in networks {
                match network(text) {
                    Some(network) if own.play_allow.contains(&network) => {}
                    Some(network) => own.play_allow.push(network),
                    None => notes.push(format!("RTMP_PLAY_WHITELIST: {text} is no network; left out")),
                }
            }
        }
    }
    if own.play_allow.is_empty() {
        notes.push(
            "compat.control.play_allow is empty: no encoder may play; name their networks there".to_owned(),
        );
    }
    if variables.take("CONCURRENT_LIMIT_WHITELIST").is_some() {
        notes.push(
            "CONCURRENT_LIMIT_WHITELIST: no address is exempt here: rtmp.max_connections_per_address must suffice for \
             each encoder, with two for each of its streams"
                .to_owned(),
        );
    }
    // What is no number meant the default.
    if let Some(max) = variables.take("ID_MAX_LENGTH") {
        own.id_max_length = max.parse().unwrap_or(128);
    }
    own
}

/// A network, or an address alone.
fn network(text: &str) -> Option<Network> {
    let alone = |ip: IpAddr| format!("{text}/{}", if ip.is_ipv4() { 32 } else { 128 });
    text.parse().ok().or_else(|| alone(text.parse().ok()?).parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::import;
    use serde_json::json;

    fn imported(text: &str) -> (serde_json::Value, Vec<String>) {
        let imported = import(Variables::parse(text).unwrap(), Config::default());
        assert_eq!(validate(&imported.config), []);
        let whole = imported.config.stored().unwrap();
        assert_eq!(whole["compat"]["coordinator"]["enabled"], json!(false));
        (whole["compat"]["control"].clone(), imported.notes)
    }

    #[test]
    fn a_streaming_servers_variables_make_one() {
        let (own, notes) = imported(
            "CONTROL_USE=YES\nCONTROL_BASE_URL=wss://c.example/base/\nCONTROL_SECRET=s3cret\nEXTERNAL_IP=192.0.2.1\n\
             EXTERNAL_PORT=1936\nEXTERNAL_SSL=YES\nRTMP_PLAY_WHITELIST=10.0.0.0/8, 192.0.2.7,::1\nID_MAX_LENGTH=64\n",
        );
        for (field, value) in [
            ("enabled", json!(true)),
            ("url", json!("wss://c.example/base/")),
            ("secret", json!("s3cret")),
            ("external_ip", json!("192.0.2.1")),
            ("external_port", json!(1936)),
            ("external_tls", json!(true)),
            ("play_allow", json!(["10.0.0.0/8", "192.0.2.7/32", "::1/128"])),
            ("id_max_length", json!(64)),
        ] {
            assert_eq!(own[field], value, "{field}");
        }
        assert_eq!(notes, [""; 0]);
        let (own, _) = imported("CONTROL_USE=YES\nCONTROL_BASE_URL=ws://c\nRTMP_PLAY_WHITELIST=*\n");
        assert_eq!(own["play_allow"], json!(["0.0.0.0/0", "::/0"]));
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        let (own, notes) = imported(
            "CONTROL_USE=YES\nCONTROL_BASE_URL=ws://c\nEXTERNAL_IP=gate.example\nEXTERNAL_PORT=0\nEXTERNAL_SSL=yes\n\
             RTMP_PLAY_WHITELIST=here\nCONCURRENT_LIMIT_WHITELIST=10.0.0.1\nID_MAX_LENGTH=x\n",
        );
        for field in ["external_ip", "external_port", "secret"] {
            assert_eq!(own.get(field), None, "{field}");
        }
        assert_eq!((&own["external_tls"], &own["id_max_length"]), (&json!(false), &json!(128)));
        for part in [
            "EXTERNAL_IP: gate.example",
            "EXTERNAL_PORT: 0",
            "RTMP_PLAY_WHITELIST: here",
            "play_allow is empty",
            "CONCURRENT_LIMIT_WHITELIST",
        ] {
            assert!(notes.iter().any(|note| note.contains(part)), "{part}: {notes:?}");
        }
        let (own, notes) = imported("CONTROL_USE=YES\nCONTROL_BASE_URL=https://c\n");
        assert_eq!(own["enabled"], json!(false));
        assert!(notes.iter().any(|note| note.contains("left out: compat.control.url")), "{notes:?}");
        let (own, notes) = imported("CONTROL_USE=NO\nCONTROL_BASE_URL=ws://c\n");
        assert_eq!(own["enabled"], json!(false));
        assert!(notes.iter().any(|note| note.contains("nobody can here")), "{notes:?}");
    }
}
