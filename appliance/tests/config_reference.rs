//! The written reference of the config says what the schema says: it is made from it.
//!
//! `FIELDGATE_WRITE_REFERENCE=1 cargo test -p fieldgate --test config_reference` writes it anew.

use serde_json::Value;
use std::fmt::Write as _;

const PLACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");

/// Parts in the order in which one meets them; parts of the schema that are not named here are one-line types.
const PARTS: [(&str, &str); 51] = [
    ("Rtmp", "`rtmp`"),
    ("ListenTls", "`rtmp.tls`, `kmp.tls`, `http.tls`"),
    ("Kmp", "`kmp`"),
    ("KmpChannel", "`kmp.channels.CHANNEL_ID`"),
    ("Admin", "`admin`"),
    ("Http", "`http`"),
    ("MachineNetwork", "`network`"),
    ("Link", "`network.links.NAME`"),
    ("Wifi", "`network.links.NAME.wifi`"),
    ("MachineTime", "`time`"),
    ("Update", "`update`"),
    ("WantedFirmware", "`update.wanted`"),
    ("Media", "`media`"),
    ("Limits", "`limits`"),
    ("Discovery", "`discovery`"),
    ("Events", "`events`"),
    ("Webhook", "`events.webhooks.NAME`"),
    ("Mountpoint", "`mountpoints.NAME`"),
    ("Video", "`mountpoints.NAME.video`"),
    ("Overlay", "`mountpoints.NAME.video.overlay`"),
    ("Audio", "`mountpoints.NAME.audio`"),
    ("Ring", "`mountpoints.NAME.ring`"),
    ("Truth", "`mountpoints.NAME.truth`"),
    ("Mend", "`mountpoints.NAME.truth.mend`"),
    ("Play", "`mountpoints.NAME.play`"),
    ("Hls", "`mountpoints.NAME.hls`"),
    ("Size", "`mountpoints.NAME.hls.sizes[]`"),
    ("Record", "`mountpoints.NAME.record`"),
    ("Push", "`mountpoints.NAME.push[]`"),
    ("Accepts", "`mountpoints.NAME.push[].accepts`"),
    ("Spool", "`mountpoints.NAME.push[].spool`"),
    ("Compat", "`compat`"),
    ("KmpControl", "`compat.kmp`"),
    ("KmpApplication", "`compat.kmp.applications.NAME`"),
    ("KmpHeader", "`compat.kmp.applications.NAME.add_header[]`"),
    ("KmpControlApi", "`compat.kmp.api`"),
    ("Aggregator", "`compat.aggregator`"),
    ("AggregatorCms", "`compat.aggregator.cms`"),
    ("AggregatorCamera", "`compat.aggregator.cameras.NAME`"),
    ("MeshNode", "`compat.node`"),
    ("MeshNodeTls", "`compat.node.tls`"),
    ("Coordinator", "`compat.coordinator`"),
    ("CoordinatorTls", "`compat.coordinator.tls`"),
    (
        "CoordinatorCall",
        "`compat.coordinator.key_verification`, `compat.coordinator.events`, `compat.encoder.http`",
    ),
    ("Control", "`compat.control`"),
    ("ControlCamera", "`compat.control.cameras.CHANNEL`"),
    ("Encoder", "`compat.encoder`"),
    ("CoordinatorCommands", "`compat.coordinator.commands`"),
    ("Fleet", "`fleet`"),
    ("FleetMqtt", "`fleet.mqtt`"),
    ("FleetPull", "`fleet.pull`"),
];

/// Values that stand for themselves.
const TYPES: [&str; 16] = [
    "NodeRole",
    "EventKind",
    "Span",
    "Secret",
    "SecretUrl",
    "Network",
    "Address",
    "LinkAddress",
    "RtspTransport",
    "V4l2Format",
    "VideoCodec",
    "AudioCodec",
    "PictureFault",
    "VideoMode",
    "AudioMode",
    "CameraType",
];

const OPENING: &str = "# Configuration

<!-- Made from the schema by appliance/tests/config_reference.rs; change the doc comments of the settings instead. -->

The config is one JSON object. `fieldgate check FILE` tells every problem with its path; the running gateway serves the
schema at `/api/v1/config/schema`. Settings that are not named here are refused, so a misspelt one is never silently
ignored. Only `source` is required: all else has a default.

Secrets read back as `{\"set\": true}` (inside URLs as `***`), and sending that back keeps them.
";

fn reference() -> String {
    let schema = fieldgate_model::config::schema();
    let mut text = OPENING.to_owned();
    text.push_str("\n## The whole\n\n");
    settings(&mut text, &schema);
    for (part, title) in PARTS {
        let node = &schema["$defs"][part];
        assert!(node.is_object(), "the schema has no {part} any more");
        let _ = write!(text, "\n## {title}\n\n{}\n\n", description(node));
        settings(&mut text, node);
    }
    text.push_str("\n## `mountpoints.NAME.source`\n\nWhere the stream comes from, by `kind`.\n");
    for kind in schema["$defs"]["Source"]["oneOf"].as_array().expect("kinds of sources") {
        let name = kind["properties"]["kind"]["const"].as_str().expect("a kind has a name");
        let _ = write!(text, "\n### `\"kind\": \"{name}\"`\n\n{}\n\n", description(kind));
        settings(&mut text, kind);
    }
    text.push_str("\n## Types\n\n| type | is |\n|---|---|\n");
    for name in TYPES {
        let node = &schema["$defs"][name];
        let _ = writeln!(text, "| {name} | {} |", cell(&with_choices(node)));
    }
    text
}

fn settings(text: &mut String, node: &Value) {
    text.push_str("| setting | type | meaning |\n|---|---|---|\n");
    let required = node["required"].as_array().cloned().unwrap_or_default();
    for (name, setting) in node["properties"].as_object().expect("an object has settings") {
        if name == "kind" {
            continue;
        }
        let must = if required.iter().any(|it| it == name) { " **Required.**" } else { "" };
        let _ = writeln!(text, "| `{name}` | {} | {}{must} |", kind(setting), cell(&with_choices(setting)));
    }
}

/// The description, with the words that may stand there.
fn with_choices(node: &Value) -> String {
    let mut text = description(node).to_owned();
    let choices = node["oneOf"].as_array().or(node["anyOf"].as_array()).cloned().unwrap_or_default();
    for choice in choices.iter().filter(|choice| choice["const"].is_string()) {
        let _ = write!(text, " `{}`: {}", choice["const"], description(choice));
    }
    text
}

fn description(node: &Value) -> &str {
    node["description"].as_str().unwrap_or_default()
}

fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

fn kind(node: &Value) -> String {
    if let Some(name) = node["$ref"].as_str() {
        return name.rsplit('/').next().unwrap_or(name).to_owned();
    }
    if let Some(any) = node["anyOf"].as_array() {
        return any.iter().map(kind).filter(|it| it != "null").collect::<Vec<_>>().join(" or ");
    }
    match &node["type"] {
        Value::String(name) if name == "array" => format!("list of {}", kind(&node["items"])),
        Value::String(name) if name == "object" && node["additionalProperties"].is_object() => {
            format!("{} by name", kind(&node["additionalProperties"]))
        }
        Value::String(name) => name.clone(),
        Value::Array(names) => {
            let names = names.iter().filter_map(Value::as_str).filter(|name| *name != "null");
            names.collect::<Vec<_>>().join(" or ")
        }
        _ => String::new(),
    }
}

#[test]
fn the_reference_says_what_the_schema_says() {
    let expected = reference();
    if std::env::var_os("FIELDGATE_WRITE_REFERENCE").is_some() {
        std::fs::write(PLACE, &expected).unwrap();
    }
    let written = std::fs::read_to_string(PLACE).unwrap_or_default();
    assert!(
        written == expected,
        "docs/configuration.md is behind the schema; write it anew with \
         FIELDGATE_WRITE_REFERENCE=1 cargo test -p fieldgate --test config_reference"
    );
}
