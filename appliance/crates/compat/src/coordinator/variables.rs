//! The old coordinator's environment variables.

use crate::env::Variables;
use fieldgate_model::Config;
use fieldgate_model::config::{
    Coordinator, CoordinatorCall, CoordinatorCommands, CoordinatorTls, Secret, SecretUrl, Span, validate,
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Any of these says that there was a coordinator. Streaming servers, too, have a `CONTROL_SECRET`.
const SIGNS: [&str; 5] = [
    "KEY_VERIFICATION_URL",
    "EVENT_CALLBACK_URL",
    "COMMANDS_API_AUTH",
    "KEY_VERIFICATION_AUTH",
    "EVENT_CALLBACK_AUTH",
];
/// A streaming server or encoder has one of these; then its secret is not a coordinator's.
const CLIENTS: [&str; 3] = ["CONTROL_USE", "CONTROL_BASE_URL", "SERVER_CAPACITY"];

/// Takes what a coordinator was started with. Nothing is turned on where nothing of it is there.
pub fn take_variables(variables: &mut Variables, config: &mut Config, notes: &mut Vec<String>) {
    let is_client = CLIENTS.iter().any(|sign| variables.get(sign).is_some());
    let has_secret = variables.get("CONTROL_SECRET").is_some() && !is_client;
    if !has_secret && !SIGNS.iter().any(|sign| variables.get(sign).is_some()) {
        return;
    }
    let before = config.clone();
    let mut told = Vec::new();
    let coordinator = std::mem::take(&mut config.compat.coordinator);
    config.compat.coordinator = take(variables, coordinator, &mut told);
    // What is wrong in a variable is wrong in the config, too: its own words are used.
    if let Some(problem) = validate(config).into_iter().next()
        && validate(&before).is_empty()
    {
        *config = before;
        told.push(format!("the coordinator's variables are left out: {problem}"));
    }
    notes.extend(told);
}

fn take(variables: &mut Variables, mut own: Coordinator, notes: &mut Vec<String>) -> Coordinator {
    own.enabled = true;
    own.control_secret = variables.take("CONTROL_SECRET").map(Secret::new).or(own.control_secret);
    if own.control_secret.is_none() {
        notes.push(
            "CONTROL_SECRET is missing: only servers and encoders on this machine are let in, where any were before"
                .to_owned(),
        );
    }
    take_addresses(variables, &mut own, notes);
    own.key_verification = take_call(variables, "KEY_VERIFICATION", notes).or(own.key_verification);
    own.events = take_call(variables, "EVENT_CALLBACK", notes).or(own.events);
    if let Some(commands) = take_commands(variables, notes) {
        own.commands = commands;
    }
    if variables.take("LOG_REQUESTS").is_some_and(|text| text == "NO") {
        own.log_requests = false;
    }
    if variables.take("LOG_DEBUG").is_some_and(|text| text == "YES") {
        notes.push("LOG_DEBUG: left out: start the gateway with --log debug".to_owned());
    }
    // What is no number meant the default.
    if let Some(max) = variables.take("ID_MAX_LENGTH") {
        own.id_max_length = max.parse().unwrap_or(128);
    }
    // As it was; without an encoder nobody could publish.
    own.require_encoder = true;
    own
}

fn take_addresses(variables: &mut Variables, own: &mut Coordinator, notes: &mut Vec<String>) {
    let bind = variables.take("BIND_ADDRESS");
    let ip = bind.as_deref().map_or(Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), str::parse);
    let ip = ip.unwrap_or_else(|_| {
        notes.push(format!("BIND_ADDRESS: {} is no address; all are listened on", bind.unwrap_or_default()));
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    });
    let mut port = |name: &str, default: u16| {
        let told = variables.take(name).and_then(|text| text.parse().ok()).filter(|port| *port != 0);
        SocketAddr::new(ip, told.unwrap_or(default))
    };
    let (plain, tls) = (port("HTTP_PORT", 80), port("SSL_PORT", 443));
    if !own.listen.contains(&plain) {
        own.listen.push(plain);
    }
    let seconds = variables.take("SSL_CHECK_RELOAD_SECONDS").and_then(|text| text.parse().ok());
    let reload_interval =
        Span::from_secs(seconds.filter(|seconds| (1..=86_400).contains(seconds)).unwrap_or(60));
    match (variables.take("SSL_CERT"), variables.take("SSL_KEY")) {
        (Some(cert), Some(key)) => {
            let [cert, key] = [cert, key].map(PathBuf::from);
            own.tls = Some(CoordinatorTls { listen: vec![tls], cert, key, reload_interval });
        }
        (None, None) => {}
        _ => notes.push("SSL_CERT and SSL_KEY: both are needed for HTTPS; it stays off".to_owned()),
    }
    if plain.port() < 1_024 {
        notes.push(format!(
            "compat.coordinator.listen: port {} needs the right to open low ports; see docs/coordinator.md",
            plain.port()
        ));
    }
}

fn take_call(variables: &mut Variables, prefix: &str, notes: &mut Vec<String>) -> Option<CoordinatorCall> {
    let mut of = |what: &str| variables.take(&format!("{prefix}_{what}"));
    let (url, kind) = (of("URL"), of("AUTH").unwrap_or_default().to_ascii_lowercase());
    let (user, password) = (of("AUTH_USER"), of("PASSWORD"));
    let (token, header) = (of("AUTH_TOKEN"), of("AUTH_CUSTOM"));
    let mut call =
        CoordinatorCall { url: SecretUrl::new(url?), user: None, password: None, token: None, header: None };
    let missing = match kind.as_str() {
        "basic" => {
            call.user = user;
            call.password = password.map(Secret::new);
            (call.user.is_none() || call.password.is_none()).then_some("user and password")
        }
        "bearer" => {
            call.token = token.map(Secret::new);
            call.token.is_none().then_some("token")
        }
        "custom" => {
            call.header = header.map(Secret::new);
            call.header.is_none().then_some("header")
        }
        _ => None,
    };
    if let Some(missing) = missing {
        notes.push(format!("{prefix}_AUTH is {kind}, but there is no {missing}: nothing is shown there"));
        (call.user, call.password) = (None, None);
    }
    Some(call)
}

/// The old code compared the password with the token; the manual had a variable of its own for it.
fn take_commands(variables: &mut Variables, notes: &mut Vec<String>) -> Option<CoordinatorCommands> {
    let mut of = |what: &str| variables.take(&format!("COMMANDS_API_AUTH{what}"));
    let (kind, user) = (of("")?.to_ascii_lowercase(), of("_USER"));
    let (password, token) = (of("_PASSWORD"), of("_TOKEN"));
    let commands = match kind.as_str() {
        "basic" => CoordinatorCommands { user, password: password.or(token).map(Secret::new), token: None },
        "bearer" => CoordinatorCommands { token: token.map(Secret::new), ..CoordinatorCommands::default() },
        _ => CoordinatorCommands::default(),
    };
    let is_open = commands.token.is_some() || (commands.user.is_some() && commands.password.is_some());
    if !is_open {
        notes.push("COMMANDS_API_AUTH says nothing that opens commands: nobody may give any".to_owned());
        return Some(CoordinatorCommands::default());
    }
    Some(commands)
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
        (whole["compat"]["coordinator"].clone(), imported.notes)
    }

    #[test]
    fn an_old_coordinators_variables_make_a_coordinator() {
        let (own, notes) = imported(
            "CONTROL_SECRET=s3cret\nHTTP_PORT=8080\nSSL_PORT=8443\nSSL_CERT=/c.pem\nSSL_KEY=/k.pem\n\
             SSL_CHECK_RELOAD_SECONDS=5\nBIND_ADDRESS=10.0.0.1\nLOG_REQUESTS=NO\nLOG_DEBUG=NO\nID_MAX_LENGTH=64\n\
             KEY_VERIFICATION_URL=https://app/key\nKEY_VERIFICATION_AUTH=bAsIc\nKEY_VERIFICATION_AUTH_USER=u\n\
             KEY_VERIFICATION_PASSWORD=p\nEVENT_CALLBACK_URL=https://app/events\nEVENT_CALLBACK_AUTH=Custom\n\
             EVENT_CALLBACK_AUTH_CUSTOM=Signature x\nCOMMANDS_API_AUTH=Basic\nCOMMANDS_API_AUTH_USER=c\n\
             COMMANDS_API_AUTH_TOKEN=of-the-code\n",
        );
        for (field, value) in [
            ("enabled", json!(true)),
            ("control_secret", json!("s3cret")),
            ("listen", json!(["10.0.0.1:8080"])),
            (
                "tls",
                json!({"listen": ["10.0.0.1:8443"], "cert": "/c.pem", "key": "/k.pem", "reload_interval": "5s"}),
            ),
            ("key_verification", json!({"url": "https://app/key", "user": "u", "password": "p"})),
            ("events", json!({"url": "https://app/events", "header": "Signature x"})),
            ("commands", json!({"user": "c", "password": "of-the-code"})),
            ("require_encoder", json!(true)),
            ("log_requests", json!(false)),
            ("id_max_length", json!(64)),
        ] {
            assert_eq!(own[field], value, "{field}");
        }
        assert_eq!(notes, [""; 0]);
    }

    #[test]
    fn defaults_and_oddities_are_as_they_were() {
        let (own, notes) = imported(
            "EVENT_CALLBACK_URL=http://app/\nHTTP_PORT=x\nID_MAX_LENGTH=many\nCOMMANDS_API_AUTH=Bearer\n\
             COMMANDS_API_AUTH_TOKEN=t\nCOMMANDS_API_AUTH_PASSWORD=p\nLOG_REQUESTS=no\nLOG_DEBUG=YES\nSSL_CERT=/c.pem\n\
             EVENT_CALLBACK_AUTH=Bearer\n",
        );
        assert_eq!((&own["listen"], &own["id_max_length"]), (&json!(["0.0.0.0:80"]), &json!(128)));
        assert_eq!((&own["commands"], &own["log_requests"]), (&json!({"token": "t"}), &json!(true)));
        assert_eq!(own["events"], json!({"url": "http://app/"}));
        for name in
            ["CONTROL_SECRET", "SSL_CERT", "LOG_DEBUG", "EVENT_CALLBACK_AUTH", "compat.coordinator.listen"]
        {
            assert!(notes.iter().any(|note| note.starts_with(name)), "{name}: {notes:?}");
        }
        let basic = imported(
            "COMMANDS_API_AUTH=Basic\nCOMMANDS_API_AUTH_USER=u\nCOMMANDS_API_AUTH_PASSWORD=p\nCOMMANDS_API_AUTH_TOKEN=t\n",
        );
        assert_eq!(basic.0["commands"], json!({"user": "u", "password": "p"}));
    }

    #[test]
    fn what_makes_no_sense_is_told_and_left_out() {
        let (own, notes) = imported("CONTROL_SECRET=s\nKEY_VERIFICATION_URL=ftp://app\n");
        assert_eq!(own["enabled"], json!(false));
        assert!(notes.iter().any(|note| note.contains("left out")), "{notes:?}");
        let (own, notes) = imported("CONTROL_SECRET=s\nCOMMANDS_API_AUTH=Digest\nBIND_ADDRESS=here\n");
        assert_eq!((&own["enabled"], &own["commands"]), (&json!(true), &json!({})));
        assert!(notes.iter().any(|note| note.starts_with("BIND_ADDRESS")), "{notes:?}");
        // A streaming server's, and another program's.
        assert_eq!(imported("CONTROL_SECRET=s\nCONTROL_USE=YES\n").0["enabled"], json!(false));
        assert_eq!(imported("HTTP_PORT=8080\n").0["enabled"], json!(false));
    }
}
