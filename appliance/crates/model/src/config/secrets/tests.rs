use super::*;
use serde_json::json;

fn config(value: Value) -> Config {
    serde_json::from_value(value).unwrap()
}

fn whole() -> Config {
    config(json!({"mountpoints": {
        "yard": {
            "source": {"kind": "publish", "key": "PUBLISH-KEY"},
            "push": [
                {"url": "rtmp://u:PUSH-PASS@up/live/yard?token=PUSH-TOKEN&x=1"},
                {"url": "kmp://k:1", "channel_id": "yard"},
            ],
            "play": {"key": "PLAY-KEY"},
        },
        "gate": {"source": {"kind": "rtsp", "url": "rtsp://u:RTSP-PASS@cam/main",
                 "sub_url": "rtsp://u:SUB-PASS@cam/second"}},
        "shed": {"source": {"kind": "mjpeg", "url": "http://u:MJPEG-PASS@cam/v?pwd=MJPEG-QUERY"}},
        "far": {"source": {"kind": "pull", "url": "rtmp://u:PULL-PASS@far/live/a"}},
    }, "events": {"webhooks": {"fleet": {
        "url": "https://hooks/a?token=HOOK-TOKEN", "secret": "HOOK-SECRET-01234",
    }}}, "compat": {"encoder": {"url": "wss://up", "secret": "ENCODER-SECRET", "http": {"url": "https://files/a?token=FILES-URL",
        "user": "u", "password": "FILES-PASS"}}, "control": {"url": "wss://up", "secret": "UPSTREAM-SECRET", "cameras": {"c1": {"mountpoint": "gate",
        "key": "CHANNEL-KEY"}}}, "coordinator": {
        "control_secret": "CONTROL-SECRET",
        "key_verification": {"url": "https://app/key?token=VERIFY-URL", "user": "u", "password": "VERIFY-PASS",
                             "token": "VERIFY-TOKEN", "header": "VERIFY-HEADER"},
        "events": {"url": "https://app/events?token=EVENTS-URL", "token": "EVENTS-TOKEN"},
        "commands": {"user": "u", "password": "COMMANDS-PASS", "token": "COMMANDS-TOKEN"},
    }, "node": {"master": "https://m", "master_key": "MASTER-KEY"}, "aggregator": {"token": "CMS-TOKEN", "cameras": {"yard": {"key": "CAMERA-KEY"}}}, "kmp": {"applications": {"ingest": {
        "connect_url": "http://ctl/connect?token=CONNECT-TOKEN",
        "publish_url": "https://ctl/publish?token=CALLBACK-TOKEN",
        "unpublish_url": "http://ctl/unpublish?token=UNPUBLISH-TOKEN",
        "republish_url": "http://ctl/republish?token=REPUBLISH-TOKEN",
        "add_header": [{"name": "X-Key", "value": "HEADER-ONE"}, {"name": "X-Key", "value": "HEADER-TWO"}],
    }}}}, "network": {"links": {"wlan0": {"wifi": {"ssid": "yard", "psk": "WIFI-PASS"}}}}, "fleet": {
        "mqtt": {"url": "mqtt://broker", "username": "u", "password": "BROKER-PASS"},
        "pull": {"url": "https://fleet/x?key=FLEET-KEY", "token": "FLEET-TOKEN"},
    }}))
}

const SECRETS: [&str; 37] = [
    "ENCODER-SECRET",
    "FILES-URL",
    "FILES-PASS",
    "UPSTREAM-SECRET",
    "CHANNEL-KEY",
    "WIFI-PASS",
    "CONTROL-SECRET",
    "VERIFY-URL",
    "VERIFY-PASS",
    "VERIFY-TOKEN",
    "VERIFY-HEADER",
    "EVENTS-URL",
    "EVENTS-TOKEN",
    "COMMANDS-PASS",
    "COMMANDS-TOKEN",
    "MASTER-KEY",
    "CMS-TOKEN",
    "CAMERA-KEY",
    "HOOK-TOKEN",
    "HOOK-SECRET-01234",
    "BROKER-PASS",
    "FLEET-KEY",
    "FLEET-TOKEN",
    "MJPEG-PASS",
    "MJPEG-QUERY",
    "PUBLISH-KEY",
    "PUSH-PASS",
    "PUSH-TOKEN",
    "PLAY-KEY",
    "RTSP-PASS",
    "PULL-PASS",
    "CONNECT-TOKEN",
    "CALLBACK-TOKEN",
    "UNPUBLISH-TOKEN",
    "REPUBLISH-TOKEN",
    "HEADER-ONE",
    "HEADER-TWO",
];

#[test]
fn the_public_form_holds_no_secret_and_the_stored_form_all() {
    let public = serde_json::to_string(&whole()).unwrap();
    let debug = format!("{:?}", whole());
    let stored = whole().stored().unwrap().to_string();
    for secret in SECRETS {
        assert!(!public.contains(secret), "{secret} in {public}");
        assert!(!debug.contains(secret), "{secret} in {debug}");
        assert!(stored.contains(secret), "{secret} not in {stored}");
    }
    assert!(!stored.contains("***") && !stored.contains(r#""set""#));
}

#[test]
fn sending_the_public_form_back_keeps_every_secret() {
    let mut back = config(serde_json::to_value(whole()).unwrap());
    assert_ne!(back, whole());
    assert_eq!(back.keep_secrets(&whole()), []);
    assert_eq!(back, whole());
}

#[test]
fn a_password_never_moves_to_another_host() {
    for url in [
        "rtsp://u:***@evil/main",
        "rtsp://other:***@cam/main",
        "rtsps://u:***@cam/main",
        "rtsp://u:***@cam:1/",
    ] {
        let mut sent = config(json!({"mountpoints": {"gate": {"source": {"kind": "rtsp", "url": url}}}}));
        let problems = sent.keep_secrets(&whole());
        assert_eq!(problems.len(), 1, "{url}");
        assert_eq!(problems[0].path, "mountpoints.gate.source.url");
        assert!(sent.stored().is_err());
    }
    let mut moved =
        config(json!({"mountpoints": {"gate": {"source": {"kind": "rtsp", "url": "rtsp://u:***@cam/sub"}}}}));
    assert_eq!(moved.keep_secrets(&whole()), []);
    assert!(moved.stored().unwrap().to_string().contains("rtsp://u:RTSP-PASS@cam/sub"));
}

#[test]
fn a_push_keeps_its_password_when_its_path_changes() {
    let url = "rtmp://u:***@up/live/yard2?token=***";
    let mut sent =
        config(json!({"mountpoints": {"yard": {"source": {"kind": "publish"}, "push": [{"url": url}]}}}));
    assert_eq!(sent.keep_secrets(&whole()), []);
    assert!(sent.stored().unwrap().to_string().contains("rtmp://u:PUSH-PASS@up/live/yard2?token=PUSH-TOKEN"));
}

#[test]
fn a_header_never_moves_to_another_controller() {
    let sent = |publish: &str| {
        let header = json!({"name": "X-Key", "value": {"set": true}});
        let ingest = json!({"publish_url": publish, "add_header": [header]});
        config(json!({"compat": {"kmp": {"applications": {"ingest": ingest}}}}))
    };
    let mut moved = sent("https://evil/publish");
    let problems = moved.keep_secrets(&whole());
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].path, "compat.kmp.applications.ingest.add_header[0].value");
    let mut kept = sent("https://ctl/other?token=***");
    assert_eq!(kept.keep_secrets(&whole()), []);
    let stored = kept.stored().unwrap().to_string();
    assert!(stored.contains("HEADER-ONE") && stored.contains("https://ctl/other?token=CALLBACK-TOKEN"));
}

#[test]
fn what_an_application_is_shown_never_moves_to_another() {
    let sent = |url: &str| {
        let call = json!({"url": url, "token": {"set": true}});
        config(json!({"compat": {"coordinator": {"events": call}}}))
    };
    let problems = sent("https://evil/events").keep_secrets(&whole());
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].path, "compat.coordinator.events.token");
    let mut kept = sent("https://app/other?token=***");
    assert_eq!(kept.keep_secrets(&whole()), []);
    let stored = kept.stored().unwrap().to_string();
    assert!(stored.contains("EVENTS-TOKEN") && stored.contains("https://app/other?token=EVENTS-URL"));
}

#[test]
fn a_kept_secret_without_a_past_is_a_problem() {
    let mut sent =
        config(json!({"mountpoints": {"new": {"source": {"kind": "publish", "key": {"set": true}}}}}));
    assert_eq!(sent.keep_secrets(&whole()).len(), 1);
    assert_eq!(sent.kept_secrets().len(), 1);
    assert!(matches!(sent.stored(), Err(StoredError::Kept { .. })));
}

/// A secret added to the config's types but not to `visit` must fail here, before it is lost on flash.
#[test]
fn every_secret_of_the_schema_is_visited() {
    fn count(node: &Value, found: &mut usize) {
        match node {
            Value::Object(fields) => {
                let target = fields.get("$ref").and_then(Value::as_str).unwrap_or_default();
                *found += usize::from(target.ends_with("/Secret") || target.ends_with("/SecretUrl"));
                fields.values().for_each(|value| count(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| count(value, found)),
            _ => {}
        }
    }
    let mut in_schema = 0;
    count(schemars::schema_for!(Config).as_value(), &mut in_schema);
    let mut visited = std::collections::BTreeSet::new();
    visit(&mut whole(), &mut |path, _, _| {
        visited.insert(path.to_string());
    });
    visited.remove("mountpoints.yard.push[1].url");
    visited.remove("compat.kmp.applications.ingest.add_header[1].value");
    // Of a kind that was seen before.
    visited.remove("compat.coordinator.events.url");
    visited.remove("compat.coordinator.events.token");
    visited.remove("compat.encoder.http.url");
    visited.remove("compat.encoder.http.password");
    assert_eq!(visited.len(), in_schema, "{visited:?}");
}
