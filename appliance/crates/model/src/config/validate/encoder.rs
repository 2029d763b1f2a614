//! A coordinator elsewhere, whose encoder this is.

use super::control::check_address;
use super::coordinator::{check_call, check_text};
use super::listeners::check_file;
use crate::config::{Config, Path, Problem};

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    let (own, at) = (&config.compat.encoder, Path::root().field("compat").field("encoder"));
    match &own.url {
        Some(url) => problems.extend(check_address(&at.field("url"), url).err()),
        None if own.enabled && !config.compat.coordinator.enabled => {
            let problem = Problem::new(&at.field("url"), "is missing: there is no coordinator to come to");
            problems.push(
                problem.remedy("such as \"wss://coordinator.example/\", or turn on compat.coordinator"),
            );
        }
        None if own.enabled && config.compat.coordinator.own_encoder.is_some() => {
            let path = Path::root().field("compat").field("coordinator").field("own_encoder");
            let problem = Problem::new(&path, "the gateway would be two encoders of its own coordinator");
            problems
                .push(problem.remedy("leave it out: compat.encoder makes what own_encoder shows, and more"));
        }
        None => {}
    }
    problems.extend(check_text(&at.field("secret"), own.secret.as_ref()));
    for (name, file) in [("ca", &own.ca), ("folder", &own.folder)] {
        if let Some(file) = file {
            problems.extend(check_file(&at.field(name), file));
        }
    }
    if let Some(http) = &own.http {
        let path = at.field("http");
        check_call(&path, http, problems);
        if http.url.reveal().contains('?') {
            let problem = Problem::new(&path.field("url"), "must have no query: paths are put behind it");
            problems.push(problem.got(http.url.redacted()));
        }
        if own.folder.is_some() {
            problems.push(Problem::new(&at.field("folder"), "has no meaning beside http"));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::Config;
    use crate::config::validate;
    use serde_json::json;

    fn problems(encoder: serde_json::Value) -> Vec<String> {
        let config: Config = serde_json::from_value(json!({"compat": {"encoder": encoder}})).unwrap();
        validate(&config).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_whole_encoder_is_fine() {
        let whole = json!({
            "enabled": true, "url": "wss://c.example/", "secret": "s3cret", "ca": "/ca.pem", "capacity": -1,
            "segment": "2s", "folder": "/srv/hls", "folder_bytes": 1_u64 << 40,
        });
        assert_eq!(problems(whole), [""; 0]);
        let http =
            json!({"enabled": true, "url": "ws://c/", "http": {"url": "https://files/hls/", "token": "t"}});
        assert_eq!(problems(http), [""; 0]);
        assert_eq!(problems(json!({})), [""; 0]);
    }

    #[test]
    fn what_cannot_work_is_told_with_its_place() {
        let found = problems(json!({
            "enabled": true, "url": "https://c/", "secret": " s", "folder": "hls", "capacity": -2, "live_segments": 2,
            "segment": "0s", "http": {"url": "ftp://files", "user": "u"},
        }));
        for (place, part) in [
            ("url", "scheme must be ws"),
            ("secret", "printable"),
            ("folder", "absolute"),
            ("folder", "no meaning beside http"),
            ("capacity", "-1"),
            ("live_segments", "3"),
            ("segment", "1s"),
            ("http.url", "scheme"),
            ("http.password", "missing"),
        ] {
            let begin = format!("compat.encoder.{place}: ");
            assert!(
                found.iter().any(|text| text.starts_with(&begin) && text.contains(part)),
                "{place} {part}: {found:#?}"
            );
        }
        for (own_encoder, count) in [(json!(null), 0), (json!(2), 1)] {
            let config = json!({
                "http": {"listen": ["0.0.0.0:8081"]},
                "compat": {"encoder": {"enabled": true}, "coordinator": {
                    "enabled": true, "listen": ["0.0.0.0:8090"], "own_encoder": own_encoder,
                }},
            });
            let config: Config = serde_json::from_value(config).unwrap();
            let found: Vec<String> = validate(&config).iter().map(ToString::to_string).collect();
            assert_eq!(found.iter().filter(|text| text.contains("two encoders")).count(), count, "{found:?}");
            assert_eq!(found.len(), count, "{found:?}");
        }
        for (encoder, part) in [
            (json!({"enabled": true}), "no coordinator to come to"),
            (json!({"http": {"url": "http://files/?a=b"}}), "no query"),
        ] {
            let found = problems(encoder);
            assert!(found.len() == 1 && found[0].contains(part), "{part}: {found:?}");
        }
    }
}
