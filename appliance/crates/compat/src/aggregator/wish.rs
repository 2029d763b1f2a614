//! What a request asks for: its route, its fields, and all that can be wrong with them.

use super::BODY_MAX;
use super::access::header;
use super::reply::Refused;
use super::target::{Engine, Target, hls_of_stream};
use crate::{Request, percent};
use fieldgate_model::config::{CameraType, RESERVED_APPLICATIONS, is_stream_name};
use serde_json::{Map, Value};

/// One request, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Gen 1: create an application.
    ConnectCamera { app: String },
    /// Gen 1: push it. `and_camera`: the application is created without a word, also where that is forbidden.
    ConnectStream { app: String, target: Target, hls: String, and_camera: bool },
    /// Where the first push of an application is watched.
    FindStream { app: String },
    /// End the pushes that fit.
    Disconnect { app: String, filter: Filter, manner: Manner },
    /// Remove an application with all it has.
    RemoveCamera { name: String },
    /// Gen 2: register a camera.
    RegisterCamera { name: String, kind: Option<CameraType> },
    /// Gen 2: push it.
    GetStream { name: String, engine: Option<Engine> },
    /// Totals.
    Stats,
    /// Whether it works.
    Status,
    /// What became of all that was asked for.
    Cameras,
}

/// Which pushes of an application are meant; all that is set must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) key: Option<String>,
    pub(super) engine: Option<Engine>,
    pub(super) target: Option<Target>,
}

/// How a disconnection is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// As an aggregator would have.
    Aggregator,
    /// As the content manager did.
    Manager,
}

/// A route with the methods that it knows.
const ROUTES: [(&str, &[&str], &str); 9] = [
    ("/connectCamera", &["PUT"], "PUT"),
    ("/connectStream", &["PUT", "GET"], "GET, PUT"),
    ("/disconnectStream", &["PUT", "POST"], "POST, PUT"),
    ("/disconnectCamera", &["PUT"], "PUT"),
    ("/registerCamera", &["POST"], "POST"),
    // As it is printed in the old manual.
    ("/resgisterCamera", &["POST"], "POST"),
    ("/getStream", &["GET", "POST"], "GET, POST"),
    ("/stats", &["GET"], "GET"),
    ("/cameras", &["GET"], "GET"),
];

impl Wish {
    pub(super) fn of(request: &Request) -> Result<Wish, Refused> {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        // Written both ways by those who know it.
        let (path, methods, allow) = if path.eq_ignore_ascii_case("/status") {
            ("/status", ["GET"].as_slice(), "GET")
        } else {
            let known = ROUTES.iter().find(|(known, _, _)| *known == path);
            *known.ok_or_else(|| Refused::new(404, "there is no such call"))?
        };
        let method = request.method.as_str();
        if !methods.contains(&method) {
            let text = format!("this call is made by {allow}");
            return Err(Refused { allow: Some(allow), ..Refused::new(405, text) });
        }
        if request.body.len() > BODY_MAX {
            return Err(Refused::new(413, format!("the body is longer than {BODY_MAX} bytes")));
        }
        match (method, path) {
            (_, "/connectCamera") => connect_camera(&Fields::of_body(request)?),
            ("PUT", "/connectStream") => connect_stream(&Fields::of_body(request)?, false),
            (_, "/connectStream") => {
                let fields = Fields::of_query(query);
                Ok(Wish::FindStream { app: fields.name("stream_id")? })
            }
            ("PUT", "/disconnectStream") => disconnect(&Fields::of_body(request)?),
            (_, "/disconnectStream") => {
                let app = Fields::of_body(request)?.name("stream_id")?;
                Ok(Wish::Disconnect { app, filter: Filter::default(), manner: Manner::Manager })
            }
            (_, "/disconnectCamera") => {
                let fields = Fields::of_body(request)?;
                let field = if fields.has("stream_app") { "stream_app" } else { "name" };
                Ok(Wish::RemoveCamera { name: fields.name(field)? })
            }
            (_, "/registerCamera" | "/resgisterCamera") => register_camera(&Fields::of_body(request)?),
            (_, "/getStream") => get_stream(request, query),
            (_, "/stats") => Ok(Wish::Stats),
            (_, "/cameras") => Ok(Wish::Cameras),
            _ => Ok(Wish::Status),
        }
    }
}

fn connect_camera(fields: &Fields) -> Result<Wish, Refused> {
    // The printed example of connectStream is sent here.
    if fields.has("stream_key") && fields.has("stream_engine_IP") {
        return connect_stream(fields, true);
    }
    Ok(Wish::ConnectCamera { app: fields.application("stream_app")? })
}

fn connect_stream(fields: &Fields, and_camera: bool) -> Result<Wish, Refused> {
    let app = fields.application("stream_app")?;
    let spelt_out = fields.text("target_url")?.map(Target::spelt_out).transpose()?;
    let (key, engine) = match &spelt_out {
        // Then the rest is only for the address of the viewers.
        Some(target) => (
            fields.optional_name("stream_key")?.unwrap_or_else(|| target.name.clone()),
            fields.optional_engine("stream_engine_IP")?.unwrap_or_else(|| target.engine.clone()),
        ),
        None => (fields.name("stream_key")?, fields.engine("stream_engine_IP")?),
    };
    let hls = hls_of_stream(&engine, &key);
    let target = spelt_out.unwrap_or_else(|| Target::stream(&engine, &key));
    Ok(Wish::ConnectStream { app, target, hls, and_camera })
}

fn disconnect(fields: &Fields) -> Result<Wish, Refused> {
    let filter = Filter {
        key: fields.optional_name("stream_key")?,
        engine: fields.optional_engine("stream_engine_IP")?,
        target: fields.text("target_url")?.map(Target::spelt_out).transpose()?,
    };
    Ok(Wish::Disconnect { app: fields.name("stream_app")?, filter, manner: Manner::Aggregator })
}

fn register_camera(fields: &Fields) -> Result<Wish, Refused> {
    let kind = match fields.text("type")? {
        Some(text) => match CameraType::parse(text) {
            Some(kind) => Some(kind),
            None => return Err(Refused::new(400, "type must be 360 or plane, or left out")),
        },
        None => None,
    };
    Ok(Wish::RegisterCamera { name: fields.application("name")?, kind })
}

fn get_stream(request: &Request, query: &str) -> Result<Wish, Refused> {
    let mut fields = Fields::of_query(query);
    if !request.body.is_empty() {
        match json(request)? {
            // One content manager sends the name alone.
            Value::String(name) => {
                fields.0.insert("name".to_owned(), Value::String(name));
            }
            Value::Object(object) => fields.0.extend(object),
            _ => return Err(not_an_object()),
        }
    }
    let engine = match fields.text("se_ip")? {
        None | Some("") => None,
        Some(_) => Some(fields.engine("se_ip")?.without_api_port()),
    };
    Ok(Wish::GetStream { name: fields.name("name")?, engine })
}

/// The fields of a request, by name.
struct Fields(Map<String, Value>);

impl Fields {
    fn of_body(request: &Request) -> Result<Fields, Refused> {
        match json(request)? {
            Value::Object(object) => Ok(Fields(object)),
            _ => Err(not_an_object()),
        }
    }

    fn of_query(query: &str) -> Fields {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        Fields(
            pairs
                .map(|(name, value)| (percent::of_field(name), Value::String(percent::of_field(value))))
                .collect(),
        )
    }

    /// Whether there is anything of that name; `null` is nothing.
    fn has(&self, field: &str) -> bool {
        self.0.get(field).is_some_and(|value| !value.is_null())
    }

    fn text(&self, field: &str) -> Result<Option<&str>, Refused> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Refused::new(400, format!("{field} must be a text"))),
        }
    }

    fn optional_name(&self, field: &str) -> Result<Option<String>, Refused> {
        let Some(text) = self.text(field)? else { return Ok(None) };
        if !is_stream_name(text) {
            let text = "must be 1 to 64 of A-Z a-z 0-9 . _ - and start with a letter or digit";
            return Err(Refused::new(400, format!("{field} {text}")));
        }
        Ok(Some(text.to_owned()))
    }

    fn name(&self, field: &str) -> Result<String, Refused> {
        self.optional_name(field)?.ok_or_else(|| missing(field))
    }

    /// The name of an application that may be made.
    fn application(&self, field: &str) -> Result<String, Refused> {
        let name = self.name(field)?;
        if RESERVED_APPLICATIONS.contains(&name.as_str()) {
            return Err(Refused::new(409, format!("{field} {name} is reserved on the RTMP port")));
        }
        Ok(name)
    }

    fn optional_engine(&self, field: &str) -> Result<Option<Engine>, Refused> {
        let Some(text) = self.text(field)? else { return Ok(None) };
        let wrong =
            || Refused::new(400, format!("{field} must be an address or host name, with or without port"));
        Engine::parse(text).map(Some).ok_or_else(wrong)
    }

    fn engine(&self, field: &str) -> Result<Engine, Refused> {
        self.optional_engine(field)?.ok_or_else(|| missing(field))
    }
}

fn missing(field: &str) -> Refused {
    Refused::new(400, format!("{field} is missing"))
}

fn not_an_object() -> Refused {
    Refused::new(400, "the body must be a JSON object")
}

/// The body, also of a GET.
fn json(request: &Request) -> Result<Value, Refused> {
    if request.body.is_empty() {
        return Err(Refused::new(400, "the body is missing; it must be a JSON object"));
    }
    // A page in a browser can't say this without asking first.
    let kind = header(request, "content-type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(Refused::new(400, "the body must come with Content-Type: application/json"));
    }
    serde_json::from_slice(&request.body)
        .map_err(|error| Refused::new(400, format!("the body is no JSON: {error}")))
}
