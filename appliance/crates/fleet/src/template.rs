//! `{{name}}` in a config's texts and names.

use crate::refusal::Refusal;
use fieldgate_model::config::Path;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Values by name.
pub type Variables = BTreeMap<String, Value>;

const OPEN: &str = "{{";
const CLOSE: &str = "}}";

/// Whether this can name a variable.
pub(crate) fn is_variable(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=crate::NAME_MAX).contains(&name.len()) && name.bytes().all(is_plain)
}

/// Fills in every `{{name}}`. A text that is nothing but one becomes the value itself, also a number; inside a longer text
/// and in the name of a field it is written out. What is filled in is not looked at again.
pub fn expand<'v>(value: &Value, lookup: &impl Fn(&str) -> Option<&'v Value>) -> Result<Value, Refusal> {
    walk(value, lookup, &Path::root())
}

fn walk<'v>(value: &Value, lookup: &impl Fn(&str) -> Option<&'v Value>, at: &Path) -> Result<Value, Refusal> {
    match value {
        Value::String(text) => fill(text, lookup, at),
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.map(|(index, item)| walk(item, lookup, &at.item(index))).collect()
        }
        Value::Object(fields) => {
            let mut filled = Map::new();
            for (name, value) in fields {
                let name = plain(&fill(name, lookup, at)?);
                let at = at.field(&name);
                let value = walk(value, lookup, &at)?;
                if filled.insert(name, value).is_some() {
                    return Err(Refusal::Doubled { path: at.to_string() });
                }
            }
            Ok(Value::Object(filled))
        }
        other => Ok(other.clone()),
    }
}

fn fill<'v>(text: &str, lookup: &impl Fn(&str) -> Option<&'v Value>, at: &Path) -> Result<Value, Refusal> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPEN) {
        let broken = || Refusal::BrokenTemplate { path: at.to_string() };
        let (name, behind) = after.split_once(CLOSE).ok_or_else(broken)?;
        if !is_variable(name) {
            return Err(broken());
        }
        let unknown = || Refusal::UnknownVariable { path: at.to_string(), name: name.to_owned() };
        let value = lookup(name).ok_or_else(unknown)?;
        if before.is_empty() && behind.is_empty() && filled.is_empty() {
            return Ok(value.clone());
        }
        filled.push_str(before);
        filled.push_str(&plain(value));
        rest = behind;
    }
    filled.push_str(rest);
    Ok(Value::String(filled))
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn filled(value: Value) -> Result<Value, Refusal> {
        let variables: Variables = serde_json::from_value(json!({
            "gate": "north", "port": 1935, "tls": true, "trick": "{{gate}}", "empty": "",
        }))
        .unwrap();
        expand(&value, &|name| variables.get(name))
    }

    #[test]
    fn variables_are_filled_into_texts_names_and_as_values() {
        let template = json!({
            "mountpoints": {"{{gate}}-1": {"url": "rtmp://up:{{port}}/{{gate}}", "port": "{{port}}"}},
            "list": ["{{tls}}", 7, null, "{name}", "x{{empty}}y"],
        });
        let expected = json!({
            "mountpoints": {"north-1": {"url": "rtmp://up:1935/north", "port": 1935}},
            "list": [true, 7, null, "{name}", "xy"],
        });
        assert_eq!(filled(template).unwrap(), expected);
    }

    #[test]
    fn what_is_filled_in_is_not_looked_at_again() {
        assert_eq!(
            filled(json!({"a": "{{trick}}", "b": "_{{trick}}"})).unwrap(),
            json!({
                "a": "{{gate}}", "b": "_{{gate}}",
            })
        );
    }

    #[test]
    fn holes_are_told_with_their_place() {
        let told = |value: Value| filled(value).unwrap_err().to_string();
        assert!(told(json!({"a": [{"b": "x{{site}}"}]})).starts_with("a[0].b names the variable \"site\""));
        assert!(told(json!({"a": {"{{site}}": 1}})).starts_with("a names the variable"));
        for broken in ["{{", "{{gate", "{{ga te}}", "{{}}", "x{{gate}}{{"] {
            assert_eq!(told(json!({"a": broken})), "a holds {{ that begins no {{name}}", "{broken}");
        }
        let doubled = filled(json!({"{{gate}}": 1, "north": 2}));
        assert_eq!(doubled, Err(Refusal::Doubled { path: "north".to_owned() }));
    }
}
