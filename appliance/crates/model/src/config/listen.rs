//! How a listen address looks in the JSON Schema.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

/// Stands for `SocketAddr` in the schema, which schemars knows only as a text.
pub(super) struct Address;

impl JsonSchema for Address {
    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "fieldgate-address",
            "description": "An address with port, such as \"0.0.0.0:1935\" or \"[::1]:1935\".",
        })
    }
}
