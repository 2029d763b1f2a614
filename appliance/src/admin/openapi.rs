//! `GET /api/v1/openapi.json`: the API as OpenAPI 3.1, for programs.
//!
//! What is asked and answered where stands in `openapi.json`. The schemas of what has a type come from the types, and who
//! may ask from the routes, so that neither can say anything else than the gateway does.

use super::routes::{self, Route};
use super::{discovery, head::Method, people};
use crate::access::Need;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

/// The document, whole.
pub(super) fn document() -> Value {
    let text = include_str!("openapi.json");
    let mut document: Value = serde_json::from_str(text).expect("it is JSON, as a test reads it");
    let written = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut);
    written.expect("it has schemas").extend(schemas());
    let paths = document.get_mut("paths").and_then(Value::as_object_mut).expect("it has paths");
    for route in routes::all() {
        let Some(operations) = paths.get_mut(route.path).and_then(Value::as_object_mut) else { continue };
        for (name, operation) in operations {
            complete(operation, Method::from_name(&name.to_ascii_uppercase()), route);
        }
    }
    document
}

/// Adds what holds for every operation.
fn complete(operation: &mut Value, method: Option<Method>, route: &Route) {
    let need = method.and_then(|method| route.need(method)).unwrap_or(Need::Known);
    operation["x-needs"] = match need {
        Need::Nothing | Need::Login => json!("nothing"),
        Need::Known => json!("login"),
        Need::Role(role, area) => json!({"role": role, "area": area}),
    };
    if matches!(need, Need::Nothing | Need::Login) {
        operation["security"] = json!([]);
    }
    operation["responses"]["default"] = json!({"$ref": "#/components/responses/Problem"});
}

/// The schemas of all types that are asked or answered, by name.
fn schemas() -> Map<String, Value> {
    let mut told = generator(SchemaSettings::for_serialize);
    told.subschema_for::<fieldgate_model::Status>();
    told.subschema_for::<crate::recorder::Page>();
    told.subschema_for::<crate::recorder::RecorderStatus>();
    told.subschema_for::<crate::recorder::WebhookStatus>();
    told.subschema_for::<crate::logging::LogPage>();
    told.subschema_for::<crate::acceptance::Survey>();
    told.subschema_for::<fieldgate_model::config::Changes>();
    told.subschema_for::<fieldgate_model::config::Problem>();
    told.subschema_for::<fieldgate_model::config::Difference>();
    told.subschema_for::<crate::supervisor::Blip>();
    told.subschema_for::<crate::plan::Answer>();
    told.subschema_for::<crate::machine::Facts>();
    told.subschema_for::<crate::machine::TimeFacts>();
    told.subschema_for::<crate::wiring::Listed>();
    told.subschema_for::<crate::wiring::Trial>();
    told.subschema_for::<crate::certificate::CertificateView>();
    told.subschema_for::<crate::access::UserView>();
    told.subschema_for::<crate::fleet::FleetView>();
    told.subschema_for::<crate::fleet::Outcome>();
    told.subschema_for::<crate::update::UpdateView>();
    told.subschema_for::<crate::update::UploadView>();
    told.subschema_for::<crate::access::TokenView>();
    told.subschema_for::<crate::access::Entry>();
    told.subschema_for::<discovery::CameraView>();
    told.subschema_for::<discovery::SearchView>();
    let mut asked = generator(SchemaSettings::for_deserialize);
    asked.subschema_for::<fieldgate_model::Config>();
    asked.subschema_for::<fieldgate_model::masks::Masks>();
    asked.subschema_for::<crate::wiring::TrialWish>();
    asked.subschema_for::<crate::acceptance::Wish>();
    asked.subschema_for::<fieldgate_fleet::KeyRing>();
    asked.subschema_for::<crate::update::UploadWish>();
    asked.subschema_for::<crate::update::InstallWish>();
    asked.subschema_for::<people::ClaimWish>();
    asked.subschema_for::<people::LoginWish>();
    asked.subschema_for::<people::NewUser>();
    asked.subschema_for::<people::UserWish>();
    asked.subschema_for::<people::PasswordWish>();
    asked.subschema_for::<people::NewToken>();
    asked.subschema_for::<discovery::LoginWish>();
    asked.subschema_for::<discovery::EncoderWish>();
    asked.subschema_for::<discovery::ScanWish>();
    // What is asked has more that may be left out; such a schema fits answers too.
    let mut all = told.take_definitions(true);
    all.append(&mut asked.take_definitions(true));
    all.values_mut().for_each(fieldgate_model::config::join_lines);
    all
}

fn generator(contract: fn(SchemaSettings) -> SchemaSettings) -> SchemaGenerator {
    let mut settings = contract(SchemaSettings::draft2020_12());
    settings.definitions_path = "/components/schemas".into();
    settings.into_generator()
}

#[cfg(test)]
mod tests;
