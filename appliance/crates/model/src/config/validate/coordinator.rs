//! A coordinator of streaming servers and encoders.

use super::compat::check_url;
use super::listeners::check_file;
use crate::config::{Config, CoordinatorCall, Path, Problem, Secret};

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    let (own, at) = (&config.compat.coordinator, Path::root().field("compat").field("coordinator"));
    problems.extend(check_text(&at.field("control_secret"), own.control_secret.as_ref()));
    for (name, call) in own.calls() {
        check_call(&at.field(name), call, problems);
    }
    if let Some(ca) = &own.ca {
        problems.extend(check_file(&at.field("ca"), ca));
    }
    if let Some(tls) = &own.tls {
        for (name, file) in [("cert", &tls.cert), ("key", &tls.key)] {
            problems.extend(check_file(&at.field("tls").field(name), file));
        }
    }
    let (commands, path) = (&own.commands, at.field("commands"));
    let offered = commands.user.is_some() || commands.password.is_some();
    check_login(&path, commands.user.as_deref(), commands.password.as_ref(), problems);
    problems.extend(check_text(&path.field("token"), commands.token.as_ref()));
    if offered && commands.token.is_some() {
        problems.push(Problem::new(&path.field("token"), "has no meaning beside user and password"));
    }
    if own.enabled && own.listen.is_empty() && own.tls.is_none() {
        let problem = Problem::new(&at.field("listen"), "is empty: no server and no encoder could come");
        problems.push(problem.remedy("add an address, such as \"0.0.0.0:8090\""));
    }
    if own.own_encoder.is_some() && config.http.listen.is_empty() && config.http.tls.is_none() {
        let problem = Problem::new(&at.field("own_encoder"), "nobody could watch what it shows");
        problems.push(problem.remedy("add an address to http.listen, or leave own_encoder out"));
    }
    if own.enabled && config.compat.node.enabled {
        let problem = "a gateway is either a coordinator or a node of a mesh";
        problems.push(Problem::new(&at.field("enabled"), problem).remedy("turn off one of the two"));
    }
}

pub(super) fn check_call(at: &Path, call: &CoordinatorCall, problems: &mut Vec<Problem>) {
    if let Err(problem) = check_url(&at.field("url"), &call.url, "use user and password here") {
        problems.push(problem);
    }
    check_login(at, call.user.as_deref(), call.password.as_ref(), problems);
    problems.extend(check_text(&at.field("token"), call.token.as_ref()));
    problems.extend(check_text(&at.field("header"), call.header.as_ref()));
    let ways = [call.user.is_some(), call.token.is_some(), call.header.is_some()];
    if ways.into_iter().filter(|is_set| *is_set).count() > 1 {
        problems.push(Problem::new(at, "must have one of user, token and header at most"));
    }
}

fn check_login(at: &Path, user: Option<&str>, password: Option<&Secret>, problems: &mut Vec<Problem>) {
    if let Some(user) = user.filter(|user| user.contains(':') || user.chars().any(char::is_control)) {
        problems
            .push(Problem::new(&at.field("user"), "must have no colon and no control character").got(user));
    }
    match (user, password) {
        (None, Some(_)) => problems.push(Problem::new(&at.field("user"), "is missing beside password")),
        (Some(_), None) => problems.push(Problem::new(&at.field("password"), "is missing beside user")),
        _ => problems.extend(check_text(&at.field("password"), password)),
    }
}

/// It may stand in a header.
pub(super) fn check_text(path: &Path, secret: Option<&Secret>) -> Option<Problem> {
    let text = secret.filter(|secret| !secret.is_kept())?.reveal();
    let is_plain = (1..=256).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic() || c == ' ');
    (!is_plain || text.trim() != text).then(|| {
        Problem::new(path, "must be 1 to 256 printable ASCII characters without a blank at either end")
    })
}

#[cfg(test)]
mod tests {
    use crate::Config;
    use crate::config::validate;
    use serde_json::json;

    fn problems(coordinator: serde_json::Value) -> Vec<String> {
        let config = json!({"compat": {"coordinator": coordinator}});
        let config: Config = serde_json::from_value(config).unwrap();
        validate(&config).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_whole_coordinator_is_fine() {
        let whole = json!({
            "enabled": true,
            "listen": ["0.0.0.0:8090"],
            "tls": {"listen": ["0.0.0.0:8443"], "cert": "/c.pem", "key": "/k.pem", "reload_interval": "5s"},
            "control_secret": "s3cret",
            "key_verification": {"url": "https://app/key?x=1", "user": "u", "password": "p w"},
            "events": {"url": "http://app/events", "header": "Signature a=b"},
            "commands": {"token": "t"},
        });
        assert_eq!(problems(whole), [""; 0]);
        assert_eq!(problems(json!({"enabled": false})), [""; 0]);
    }

    #[test]
    fn what_cannot_work_is_told_with_its_place() {
        let wrong = json!({
            "enabled": true,
            "tls": {"listen": [], "cert": "c.pem", "key": "/k.pem"},
            "control_secret": " s",
            "key_verification": {"url": "ftp://app", "user": "u:x", "password": "p", "token": "t"},
            "events": {"url": "http://u:p@app/", "password": "p"},
            "commands": {"user": "u", "token": "t"},
        });
        let found = problems(wrong);
        for (place, part) in [
            ("compat.coordinator.tls.listen", "at least 1"),
            ("compat.coordinator.tls.cert", "absolute"),
            ("compat.coordinator.control_secret", "printable"),
            ("compat.coordinator.key_verification.url", "scheme"),
            ("compat.coordinator.key_verification.user", "colon"),
            ("compat.coordinator.key_verification", "one of user, token"),
            ("compat.coordinator.events.url", "user and password"),
            ("compat.coordinator.events.user", "missing"),
            ("compat.coordinator.commands.password", "missing"),
            ("compat.coordinator.commands.token", "beside user"),
        ] {
            let is_told =
                found.iter().any(|text| text.starts_with(&format!("{place}: ")) && text.contains(part));
            assert!(is_told, "{place} {part}: {found:#?}");
        }
        let unseen = problems(json!({"own_encoder": 4}));
        assert!(unseen.iter().any(|text| text.contains("nobody could watch")), "{unseen:?}");
        let alone = problems(json!({"enabled": true}));
        assert!(alone.iter().any(|text| text.contains("no encoder could come")), "{alone:?}");
    }
}
