//! Does a JSON text have the config's shape? Finds all that is wrong, not only the first.
//!
//! The shape is the JSON Schema that the types give, so that each name, range and default is said once, in the types.
//! Only the parts of JSON Schema that appear there are known.

use super::{LinkAddress, Network, Path, Problem, Span};
use serde_json::{Map, Value};
use std::net::SocketAddr;

/// The JSON Schema of the config, as it is served: every setting with unit, range and default.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(super::Config).to_value();
    join_lines(&mut schema);
    schema
}

/// Descriptions come from doc comments, wrapped where the source is.
pub fn join_lines(node: &mut Value) {
    match node {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "description" => *text = text.replace('\n', " "),
                    value => join_lines(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(join_lines),
        _ => {}
    }
}

/// Every place where `value` has not the shape of `schema`.
pub(super) fn check(schema: &Value, value: &Value) -> Vec<Problem> {
    let mut checker = Checker { root: schema, problems: Vec::new() };
    checker.node(schema, value, &Path::root());
    checker.problems
}

struct Checker<'a> {
    root: &'a Value,
    problems: Vec<Problem>,
}

impl<'a> Checker<'a> {
    /// Problems beyond this are not looked for: the file is something else.
    const MAX: usize = 100;

    fn report(&mut self, problem: Problem) {
        if self.problems.len() < Self::MAX {
            self.problems.push(problem);
        }
    }

    fn node(&mut self, schema: &'a Value, value: &Value, path: &Path) {
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            let resolved = target.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            self.node(resolved.expect("schemars defines what it refers to"), value, path);
        }
        if let Some(branches) = schema.get("oneOf").and_then(Value::as_array) {
            return self.one_of(branches, value, path);
        }
        if schema.get("format").and_then(Value::as_str) == Some("fieldgate-secret") {
            return self.secret(schema, value, path);
        }
        if let Some(branches) = schema.get("anyOf").and_then(Value::as_array) {
            // Only `Option<T>` gives this: T or null.
            if let (false, Some(inner)) = (value.is_null(), branches.first()) {
                self.node(inner, value, path);
            }
            return;
        }
        if !self.has_type(schema, value, path) {
            return;
        }
        match value {
            Value::Object(fields) => self.object(schema, fields, path),
            Value::Array(items) => self.list(schema, items, path),
            Value::String(text) => self.text(schema, text, path),
            Value::Number(number) => self.number(schema, number, path),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn has_type(&mut self, schema: &Value, value: &Value, path: &Path) -> bool {
        let allowed: Vec<&str> = match schema.get("type") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => return true,
        };
        let fits = |name: &&&str| match **name {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_u64() || value.is_i64(),
            "null" => value.is_null(),
            _ => value.is_number(),
        };
        if allowed.iter().any(|name| fits(&name)) {
            return true;
        }
        let wanted = match allowed.iter().find(|name| **name != "null").copied() {
            Some("object") => "an object",
            Some("array") => "a list",
            Some("string") => "a text",
            Some("boolean") => "true or false",
            Some("integer") => "a whole number",
            _ => "a number",
        };
        self.report(Problem::new(path, format!("must be {wanted}")).got(value.clone()));
        false
    }

    fn object(&mut self, schema: &'a Value, fields: &Map<String, Value>, path: &Path) {
        let none = Map::new();
        let known = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties");
        if known.is_none() && others.is_none() {
            return;
        }
        for (name, value) in fields {
            match (known.and_then(|known| known.get(name)), others) {
                (Some(field), _) => self.node(field, value, &path.field(name)),
                (None, Some(Value::Object(_))) => {
                    self.node(others.expect("just matched"), value, &path.field(name));
                }
                (None, _) => {
                    let names = known.unwrap_or(&none).keys().map(String::as_str);
                    let problem = Problem::new(&path.field(name), "there is no such setting");
                    self.report(problem.remedy(hint(name, names)));
                }
            }
        }
        for required in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            if let Some(name) = required.as_str().filter(|name| !fields.contains_key(*name)) {
                self.report(Problem::new(&path.field(name), "is missing"));
            }
        }
        let max = schema.get("maxProperties").and_then(Value::as_u64);
        if let Some(max) = max.filter(|max| fields.len() as u64 > *max) {
            self.report(Problem::new(path, format!("must have at most {max} entries")).got(fields.len()));
        }
    }

    fn list(&mut self, schema: &'a Value, items: &[Value], path: &Path) {
        self.length(schema, ["minItems", "maxItems"], items.len(), "entries", path);
        if let Some(item_schema) = schema.get("items") {
            for (index, item) in items.iter().enumerate() {
                self.node(item_schema, item, &path.item(index));
            }
        }
    }

    fn text(&mut self, schema: &Value, text: &str, path: &Path) {
        self.length(schema, ["minLength", "maxLength"], text.chars().count(), "characters", path);
        let problem = match schema.get("format").and_then(Value::as_str) {
            Some("fieldgate-span") => text.parse::<Span>().err().map(|error| error.to_string()),
            Some("fieldgate-network") => text.parse::<Network>().err().map(|error| error.to_string()),
            Some("fieldgate-link-address") => {
                text.parse::<LinkAddress>().err().map(|error| error.to_string())
            }
            Some("ip") if text.parse::<std::net::IpAddr>().is_err() => {
                Some("must be an address, such as \"192.168.1.1\"".to_owned())
            }
            Some("fieldgate-address") if text.parse::<SocketAddr>().is_err() => {
                Some("must be an address with port, such as \"0.0.0.0:1935\" or \"[::1]:1935\"".to_owned())
            }
            _ => None,
        };
        if let Some(problem) = problem {
            return self.report(Problem::new(path, problem).got(text));
        }
        let bound =
            |name: &str| schema.get(name).and_then(Value::as_str).and_then(|text| text.parse::<Span>().ok());
        if let (Ok(span), Some(min), Some(max)) = (text.parse::<Span>(), bound("minSpan"), bound("maxSpan"))
            && !(min..=max).contains(&span)
        {
            self.report(Problem::new(path, format!("must be {min} to {max}")).got(text));
        }
    }

    fn number(&mut self, schema: &Value, number: &serde_json::Number, path: &Path) {
        let bound = |name: &str| schema.get(name).and_then(Value::as_i64).map(i128::from);
        // Without a range of its own a setting is bounded by its type; schemars says that for small types only.
        let max = bound("maximum").or_else(|| match schema.get("format").and_then(Value::as_str) {
            Some("uint32") => Some(i128::from(u32::MAX)),
            Some("uint64") => Some(i128::from(u64::MAX)),
            _ => None,
        });
        if let (Some(min), Some(max), Some(number)) = (bound("minimum"), max, number.as_i128())
            && !(min..=max).contains(&number)
        {
            let wanted =
                if min == max { format!("must be {min}") } else { format!("must be {min} to {max}") };
            self.report(Problem::new(path, wanted).got(clamped(number)));
        }
    }

    fn length(&mut self, schema: &Value, [min, max]: [&str; 2], len: usize, what: &str, path: &Path) {
        let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
        let (min, max, len) = (bound(min).unwrap_or(0), bound(max).unwrap_or(u64::MAX), len as u64);
        if len < min {
            self.report(Problem::new(path, format!("must have at least {min} {what}")).got(len));
        } else if len > max {
            self.report(Problem::new(path, format!("must have at most {max} {what}")).got(len));
        }
    }

    /// A secret is a text or `{"set": true}`; what stands there instead is never repeated.
    fn secret(&mut self, schema: &'a Value, value: &Value, path: &Path) {
        match value {
            Value::String(text) => {
                let written = schema.pointer("/anyOf/0").expect("a secret's schema has a written form");
                self.length(written, ["minLength", "maxLength"], text.chars().count(), "characters", path);
            }
            Value::Object(fields) if fields.len() == 1 && fields.get("set") == Some(&Value::Bool(true)) => {}
            _ => self
                .report(Problem::new(path, "must be a text, or {\"set\": true} to keep the secret as it is")),
        }
    }

    /// An enum: of texts, or of objects told apart by a field with a constant (`kind`).
    fn one_of(&mut self, branches: &'a [Value], value: &Value, path: &Path) {
        let texts: Vec<&str> = branches.iter().filter_map(|branch| branch.get("const")?.as_str()).collect();
        if texts.len() == branches.len() {
            return self.choice(&texts, Some(value), path);
        }
        let Some(fields) = value.as_object() else {
            return self.report(Problem::new(path, "must be an object").got(value.clone()));
        };
        let tag_of = |branch: &'a Value| {
            let properties = branch.get("properties")?.as_object()?;
            properties.iter().find_map(|(name, schema)| Some((name.as_str(), schema.get("const")?.as_str()?)))
        };
        let tags: Vec<(&str, &str)> = branches.iter().filter_map(tag_of).collect();
        let tag = tags.first().map_or("kind", |(name, _)| *name);
        let chosen = fields.get(tag).and_then(Value::as_str);
        match tags.iter().position(|(_, constant)| Some(*constant) == chosen).and_then(|at| branches.get(at))
        {
            Some(branch) => self.node(branch, value, path),
            None => {
                let constants: Vec<&str> = tags.iter().map(|(_, constant)| *constant).collect();
                self.choice(&constants, fields.get(tag), &path.field(tag));
            }
        }
    }

    fn choice(&mut self, choices: &[&str], value: Option<&Value>, path: &Path) {
        if value.and_then(Value::as_str).is_some_and(|text| choices.contains(&text)) {
            return;
        }
        let list = choices.join(", ");
        let mut problem = Problem::new(path, format!("must be one of {list}"));
        match value {
            None => problem.problem = format!("is missing; one of {list}"),
            Some(value) => {
                problem = problem.got(value.clone());
                if let Some(near) = value.as_str().and_then(|text| nearest(text, choices.iter().copied())) {
                    problem = problem.remedy(format!("did you mean {near}?"));
                }
            }
        }
        self.report(problem);
    }
}

fn clamped(number: i128) -> Value {
    i64::try_from(number)
        .map(Value::from)
        .or_else(|_| u64::try_from(number).map(Value::from))
        .unwrap_or(Value::Null)
}

fn hint<'n>(name: &str, known: impl Iterator<Item = &'n str> + Clone) -> String {
    match nearest(name, known.clone()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("known here: {}", known.collect::<Vec<_>>().join(", ")),
    }
}

/// The name that was likely meant: at most a third of its letters (two at least) differ.
fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    // Longer texts are no misspelt names; the bound keeps the work small.
    if name.len() > 64 {
        return None;
    }
    known
        .map(|candidate| (edits(name, candidate), name.len().abs_diff(candidate.len()), candidate))
        .filter(|(edits, _, candidate)| *edits <= (candidate.len() / 3).max(2) && *edits < candidate.len())
        .min()
        .map(|(_, _, candidate)| candidate)
}

/// How many letters are changed, left out, put in or swapped with their neighbour, case ignored.
fn edits(one: &str, other: &str) -> usize {
    let lower = |text: &str| text.bytes().map(|byte| byte.to_ascii_lowercase()).collect::<Vec<u8>>();
    let (one, other) = (lower(one), lower(other));
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, byte) in one.iter().enumerate() {
        let mut next = vec![index + 1];
        for (at, (above, wanted)) in row.windows(2).zip(&other).enumerate() {
            let [diagonal, up] = above else { continue };
            let left = next.last().copied().unwrap_or_default();
            let mut fewest = (diagonal + usize::from(byte != wanted)).min(up + 1).min(left + 1);
            let swapped = index > 0 && at > 0 && one.get(index - 1) == Some(wanted);
            if swapped && other.get(at - 1) == Some(byte) {
                fewest = fewest.min(before.get(at - 1).map_or(fewest, |edits| edits + 1));
            }
            next.push(fewest);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problems(value: Value) -> Vec<String> {
        check(&schema(), &value).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_unknown_name_gets_a_hint_at_the_nearest() {
        let found = problems(json!({
            "rmtp": {},
            "mountpoints": {"yard": {"source": {"kind": "publish", "keey": "s3cret"}, "pushes": []}},
            "rtmp": {"zzz": 1},
        }));
        assert_eq!(
            found,
            [
                "mountpoints.yard.pushes: there is no such setting (did you mean push?)",
                "mountpoints.yard.source.keey: there is no such setting (did you mean key?)",
                "rmtp: there is no such setting (did you mean rtmp?)",
                "rtmp.zzz: there is no such setting (known here: handshake_timeout, idle_timeout, listen, \
                 max_connections, max_connections_per_address, max_message_bytes, tls, write_timeout)",
            ]
        );
        assert!(!found.concat().contains("s3cret"), "what stands under an unknown name may be a secret");
    }

    #[test]
    fn every_fault_is_found_at_once() {
        let found = problems(json!({
            "schema": 2,
            "rtmp": {"listen": ["1935", 7], "idle_timeout": "30", "max_connections": -1, "write_timeout": "1h"},
            "mountpoints": {
                "a": {},
                "b": {"source": {"kind": "publsh"}},
                "c": {"source": {}},
                "d": {"source": {"kind": "rtsp", "transport": "tpc"}},
                "e": {"source": {"kind": "test", "width": 99999999999_u64, "audio": "yes"}},
                "f": {"source": {"kind": "publish", "key": 7, "allow": ["10.0.0.0/99"]}, "play": []},
            },
        }));
        let expected = [
            "mountpoints.a.source: is missing",
            "mountpoints.b.source.kind: must be one of publish, rtsp, v4l2, csi, rtp, mjpeg, file, test, pull, kmp, got \"publsh\" \
             (did you mean publish?)",
            "mountpoints.c.source.kind: is missing; one of publish, rtsp, v4l2, csi, rtp, mjpeg, file, test, pull, kmp",
            "mountpoints.d.source.transport: must be one of auto, tcp, udp, got \"tpc\" (did you mean tcp?)",
            "mountpoints.d.source.url: is missing",
            "mountpoints.e.source.audio: must be true or false, got \"yes\"",
            "mountpoints.e.source.width: must be 16 to 8192, got 99999999999",
            "mountpoints.f.play: must be an object, got \"a list\"",
            "mountpoints.f.source.allow[0]: must be an address or network such as \"10.0.0.7\" or \"10.0.0.0/8\", \
             got \"10.0.0.0/99\"",
            "mountpoints.f.source.key: must be a text, or {\"set\": true} to keep the secret as it is",
            "rtmp.idle_timeout: must be a whole number with a unit (ms, s, m, h or d), such as \"90s\", got \"30\"",
            "rtmp.listen[0]: must be an address with port, such as \"0.0.0.0:1935\" or \"[::1]:1935\", got \"1935\"",
            "rtmp.listen[1]: must be a text, got 7",
            "rtmp.max_connections: must be 1 to 65536, got -1",
            "rtmp.write_timeout: must be 1s to 10m, got \"1h\"",
            "schema: must be 1, got 2",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn absent_and_null_settings_are_fine_where_they_are_optional() {
        assert_eq!(problems(json!({})), [""; 0]);
        let value = json!({"mountpoints": {"a": {"source": {"kind": "publish", "key": null}, "max": null}}});
        assert_eq!(problems(value), [""; 0]);
    }

    #[test]
    fn the_count_of_problems_is_bounded() {
        let fields: Map<String, Value> = (0..500).map(|n| (format!("x{n}"), Value::Null)).collect();
        assert_eq!(check(&schema(), &Value::Object(fields)).len(), Checker::MAX);
    }

    #[test]
    fn every_setting_explains_itself() {
        fn walk(node: &Value, path: &str) {
            if let Some(properties) = node.get("properties").and_then(Value::as_object) {
                for (name, field) in properties {
                    let explained = field.get("description").is_some() || field.get("const").is_some();
                    assert!(explained, "{path}.{name} has no description");
                    walk(field, &format!("{path}.{name}"));
                }
            }
            for (name, definition) in node.get("$defs").and_then(Value::as_object).into_iter().flatten() {
                walk(definition, name);
            }
            for branch in node.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
                walk(branch, path);
            }
        }
        walk(&schema(), "");
    }
}
