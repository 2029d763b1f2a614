mod reference;

use super::*;
use std::collections::BTreeSet;

/// Paths of the page itself, not of the API.
fn is_api(route: &&Route) -> bool {
    route.path.starts_with("/api/") || matches!(route.path, "/healthz" | "/metrics")
}

#[test]
fn every_route_is_in_the_document_and_the_other_way_round() {
    let routed: BTreeSet<(String, String)> = routes::all()
        .filter(is_api)
        .flat_map(|route| {
            let methods = route.methods().into_iter();
            // HEAD comes with GET, OPTIONS with everything.
            let methods = methods.filter(|method| !matches!(method, Method::Head | Method::Options));
            methods.map(|method| (route.path.to_owned(), method.name().to_ascii_lowercase()))
        })
        .collect();
    let document = document();
    let told: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, operations)| {
            operations.as_object().unwrap().keys().map(|method| (path.clone(), method.clone()))
        })
        .collect();
    assert_eq!(told, routed);
}

#[test]
fn every_path_is_answered_by_the_route_that_it_names() {
    for route in routes::all() {
        let path: Vec<&str> = route
            .path
            .split('/')
            .map(|part| match part {
                // A name that any of them takes.
                "{revision}" => "7",
                "{picture}" => "7.jpg",
                part if part.starts_with('{') => "x",
                part => part,
            })
            .collect();
        let path = path.join("/");
        let found = routes::route(&path).map(|found| found.path);
        assert_eq!(found, Some(route.path), "{path}");
    }
}

#[test]
fn what_is_in_a_path_is_a_parameter_and_every_reference_leads_somewhere() {
    fn references<'a>(node: &'a Value, found: &mut BTreeSet<&'a str>) {
        match node {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 50, "{found:?}");
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    let mut ids = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for operation in operations.as_object().unwrap().values() {
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            for part in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
                let wanted = json!({"$ref": format!("#/components/parameters/{part}")});
                assert!(parameters.contains(&wanted), "{path}: {part}");
            }
            assert!(operation["summary"].as_str().is_some_and(|text| text.ends_with(['.', '?'])), "{path}");
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{path}");
            assert!(!operation["x-needs"].is_null(), "{path}");
        }
    }
}

/// A type that is both asked and answered must be one thing.
#[test]
fn no_name_means_two_things() {
    let names: BTreeSet<String> = schemas().into_iter().map(|(name, _)| name).collect();
    let doubled: Vec<&String> =
        names.iter().filter(|name| name.ends_with('2') && names.contains(&name[..name.len() - 1])).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
    let written: Value = serde_json::from_str(include_str!("../openapi.json")).unwrap();
    let written = written["components"]["schemas"].as_object().unwrap();
    let both: Vec<&String> = written.keys().filter(|name| names.contains(*name)).collect();
    assert!(both.is_empty(), "{both:?}");
}

#[test]
fn the_document_is_sound_json_schema() {
    let document = document();
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$ref": format!("#/components/schemas/{name}"),
            "components": document["components"],
        });
        jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
