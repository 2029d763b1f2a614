//! The written reference of the API says what the document says: it is made from it.
//!
//! `FIELDGATE_WRITE_REFERENCE=1 cargo test -p fieldgate --lib openapi` writes it anew.

use super::super::document;
use serde_json::Value;
use std::fmt::Write as _;

const PLACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api.md");
/// What stands behind this line is made here.
const MARK: &str =
    "<!-- Made from the OpenAPI document by src/admin/openapi/tests/reference.rs: change that. -->\n";

fn name_of(schema: &Value) -> String {
    let reference = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
    if let Some(name) = reference.and_then(|it| it.rsplit('/').next()) {
        return format!("`{name}`");
    }
    match schema["type"].as_str() {
        Some("object") => {
            let fields = schema["properties"].as_object().into_iter().flatten();
            let fields: Vec<String> = fields.map(|(field, _)| format!("`{field}`")).collect();
            if fields.is_empty() { "an object".to_owned() } else { fields.join(", ") }
        }
        Some(kind) => kind.to_owned(),
        None => "see the document".to_owned(),
    }
}

fn content(node: &Value) -> String {
    let kinds = node["content"].as_object().into_iter().flatten();
    let kinds: Vec<String> = kinds
        .map(|(kind, content)| match kind.ends_with("json") {
            true => format!("{} (`{kind}`)", name_of(&content["schema"])),
            false => format!("`{kind}`"),
        })
        .collect();
    kinds.join(" or ")
}

fn reference() -> String {
    let document = document();
    let mut text = String::new();
    for tag in document["tags"].as_array().unwrap() {
        let _ = write!(text, "\n### {}\n", tag["description"].as_str().unwrap());
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                if operation["tags"][0] == tag["name"] {
                    describe(&mut text, &document, &format!("{} {path}", method.to_uppercase()), operation);
                }
            }
        }
    }
    text
}

fn describe(text: &mut String, document: &Value, title: &str, operation: &Value) {
    let needs = match &operation["x-needs"] {
        Value::String(needs) if needs == "nothing" => "nobody needs to be known".to_owned(),
        Value::String(_) => "whoever is known".to_owned(),
        needs => format!("{}, area {}", needs["role"].as_str().unwrap(), needs["area"].as_str().unwrap()),
    };
    let _ = write!(text, "\n#### `{title}`\n\n{} For: {needs}.\n\n", operation["summary"].as_str().unwrap());
    let resolved = |node: &Value| match node["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap().clone(),
        None => node.clone(),
    };
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let parameter = resolved(parameter);
        let (name, place) = (parameter["name"].as_str().unwrap(), parameter["in"].as_str().unwrap());
        let about = parameter["description"].as_str().unwrap_or_default();
        let _ = writeln!(text, "- `{name}` ({place}): {about}");
    }
    if operation["requestBody"].is_object() {
        let _ = writeln!(text, "- body: {}", content(&resolved(&operation["requestBody"])));
    }
    for (status, answer) in operation["responses"].as_object().unwrap() {
        let answer = resolved(answer);
        let about = answer["description"].as_str().unwrap_or_default();
        let shape = content(&answer);
        let shape = if shape.is_empty() { String::new() } else { format!(" {shape}") };
        let status = if status == "default" { "else" } else { status };
        let _ = writeln!(text, "- {status}: {about}{shape}");
    }
}

#[test]
fn the_written_reference_says_what_the_document_says() {
    let written = std::fs::read_to_string(PLACE).unwrap();
    let (guide, _) = written.split_once(MARK).expect("the guide, the mark, the reference");
    let expected = format!("{guide}{MARK}{}", reference());
    if std::env::var_os("FIELDGATE_WRITE_REFERENCE").is_some() {
        std::fs::write(PLACE, &expected).unwrap();
        return;
    }
    assert!(
        written == expected,
        "docs/api.md is behind the OpenAPI document; write it anew with FIELDGATE_WRITE_REFERENCE=1 cargo test -p fieldgate \
         --lib openapi"
    );
}
