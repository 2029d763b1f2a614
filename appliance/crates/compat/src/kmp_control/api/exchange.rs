//! One request to the APIs, from its target to its reply.

use super::document::Snapshot;
use crate::kmp_control::json::{Json, Writer, pretty};
use crate::kmp_control::reply::Fields;
use crate::kmp_control::upstream::Upstream;
use crate::{Reply, Request, percent};
use fieldgate_model::config::KmpControlApi;
use std::collections::VecDeque;

/// Requests in one `POST /multi`.
const MAX_MULTI: usize = 64;

/// What the owner shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Drop an RTMP connection.
    DropSession {
        /// Its serial number.
        connection: u64,
    },
    /// Open one more upstream for a track, at the acknowledged place of the one called `source`, without that the one
    /// furthest behind.
    AddUpstream {
        /// The track's number.
        track: u64,
        /// What to open.
        upstream: Upstream,
        /// The id of the upstream to go on from.
        source: Option<String>,
    },
    /// Close an upstream of a track.
    RemoveUpstream {
        /// The track's number.
        track: u64,
        /// The upstream's id.
        upstream: String,
    },
}

/// What became of an [`Action`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// There is no such connection, track or upstream.
    NotFound,
    /// It could not be done.
    Failed,
}

/// The next step of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Do this, then tell [`Exchange::handle_outcome`].
    Act(Action),
    /// The exchange is over.
    Reply(Reply),
}

/// One request. Its owner calls [`Exchange::step`] until it gives the reply, each time with what is so at that moment.
#[derive(Debug)]
pub struct Exchange {
    api: Api,
    writable: bool,
    lists: bool,
    pretty: bool,
    /// Whether it is several in one, each with a status of its own.
    is_multi: bool,
    /// What is still to be answered; a status where that is clear already.
    open: VecDeque<Result<Item, u16>>,
    /// The status of the action that is being done when it succeeds.
    acting: Option<u16>,
    /// Status and JSON of what is answered already.
    done: Vec<(u16, Option<String>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Api {
    Rtmp,
    Out,
}

/// One request, or one of several.
#[derive(Debug)]
struct Item {
    method: String,
    segments: Vec<String>,
    lists: bool,
    /// Absent if none came; JSON where a body must be.
    body: Option<Json>,
}

impl Exchange {
    /// Begins to answer.
    pub fn new(request: &Request, settings: &KmpControlApi) -> Self {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let mut segments = segments(path);
        let api = match segments.first().map(String::as_str) {
            Some("kmp_out_api") => Api::Out,
            _ => Api::Rtmp,
        };
        if matches!(segments.first().map(String::as_str), Some("kmp_out_api" | "rtmp_kmp_api")) {
            segments.remove(0);
        }
        let is_on = |name: &str| query.split('&').any(|pair| pair.split_once('=') == Some((name, "1")));
        let mut exchange = Exchange {
            api,
            writable: settings.write,
            lists: is_on("list"),
            pretty: is_on("pretty"),
            is_multi: false,
            open: VecDeque::new(),
            acting: None,
            done: Vec::new(),
        };
        let peer = request.peer.to_canonical();
        let is_allowed = match settings.allow.as_slice() {
            [] => peer.is_loopback(),
            networks => networks.iter().any(|network| network.contains(peer)),
        };
        if !is_allowed {
            exchange.open.push_back(Err(403));
        } else if let Err(status) = exchange.accept(request, segments) {
            exchange.open.push_back(Err(status));
        }
        exchange
    }

    fn accept(&mut self, request: &Request, segments: Vec<String>) -> Result<(), u16> {
        let method = request.method.clone();
        let is_multi = method == "POST" && segments == ["multi"];
        if method != "GET" && !self.writable {
            return Err(405);
        }
        let item = Item { method, segments, lists: self.lists, body: None };
        if !is_multi && !takes_body(self.api, &item)? {
            self.open.push_back(Ok(item));
            return Ok(());
        }
        let kind =
            request.headers.iter().find(|(name, _)| name == "content-type").map(|(_, kind)| kind.as_str());
        let is_json = kind
            .and_then(|kind| kind.get(..16))
            .is_some_and(|it| it.eq_ignore_ascii_case("application/json"));
        let body = Json::parse(&request.body).ok().filter(|_| is_json).ok_or(415_u16)?;
        if !is_multi {
            self.open.push_back(Ok(Item { body: Some(body), ..item }));
            return Ok(());
        }
        match body {
            Json::List(items) if items.len() > MAX_MULTI => Err(413),
            Json::List(items)
                if !items.is_empty() && items.iter().all(|item| matches!(item, Json::Object(_))) =>
            {
                self.is_multi = true;
                let items: Vec<_> = items.into_iter().map(|item| self.item(item)).collect();
                self.open.extend(items);
                Ok(())
            }
            _ => Err(415),
        }
    }

    /// One request of a `multi`: `uri`, `method` and perhaps `body`.
    fn item(&self, item: Json) -> Result<Item, u16> {
        let Json::Object(object) = item else { return Err(415) };
        let fields = Fields(&object);
        let uri = fields.text("uri").ok().flatten().filter(|uri| !uri.is_empty()).ok_or(415_u16)?;
        let method = fields.text("method").ok().flatten();
        let method = method.filter(|it| matches!(*it, "GET" | "POST" | "PUT" | "DELETE")).ok_or(415_u16)?;
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let lists = self.lists || query.split('&').any(|pair| pair == "list=1");
        let mut item = Item { method: method.to_owned(), segments: segments(path), lists, body: None };
        let takes_body = takes_body(self.api, &item)?;
        let body = object.into_iter().find(|(name, body)| name == "body" && *body != Json::Null);
        if takes_body != body.is_some() {
            return Err(415);
        }
        item.body = body.map(|(_, body)| body);
        Ok(item)
    }

    /// Goes on. After [`Step::Act`] only with the action's outcome.
    pub fn step(&mut self, snapshot: &Snapshot) -> Step {
        while let Some(item) = self.open.pop_front() {
            match item.and_then(|item| self.answer(item, snapshot)) {
                Ok(Answer::Shown(json)) => self.done.push((200, Some(json))),
                Ok(Answer::Act(action, status)) => {
                    self.acting = Some(status);
                    return Step::Act(action);
                }
                Err(status) => self.done.push((status, None)),
            }
        }
        Step::Reply(self.reply())
    }

    /// What became of the action that [`Exchange::step`] asked for.
    pub fn handle_outcome(&mut self, outcome: Outcome) {
        if let Some(status) = self.acting.take() {
            let status = match outcome {
                Outcome::Done => status,
                Outcome::NotFound => 404,
                Outcome::Failed => 500,
            };
            self.done.push((status, None));
        }
    }

    fn reply(&mut self) -> Reply {
        let (status, json) = if self.is_multi {
            let json = Writer::list_document(&self.done, |w, (status, json)| {
                w.braces(|w| {
                    w.plain("code", status);
                    json.iter().for_each(|json| w.written("body", json));
                });
            });
            (200, Some(json))
        } else {
            self.done.pop().unwrap_or((500, None))
        };
        let json = json.map(|json| if self.pretty { pretty(&json) } else { json });
        let headers =
            json.iter().map(|_| ("content-type".to_owned(), "application/json".to_owned())).collect();
        Reply { status, headers, body: json.unwrap_or_default().into_bytes() }
    }

    fn answer(&self, item: Item, snapshot: &Snapshot) -> Result<Answer, u16> {
        let Item { method, segments, lists, body } = item;
        let path: Vec<&str> = segments.iter().map(String::as_str).collect();
        match (self.api, method.as_str(), path.as_slice()) {
            (Api::Rtmp, "GET", []) if lists => Ok(folders(&["multi", "sessions"])),
            (Api::Rtmp, "GET", []) => Ok(Answer::Shown(snapshot.rtmp())),
            (Api::Rtmp, "DELETE", ["sessions", connection]) => {
                let connection = number(connection).ok_or(400_u16)?;
                Ok(Answer::Act(Action::DropSession { connection }, 204))
            }
            (Api::Out, "GET", []) if lists => Ok(folders(&["multi", "tracks"])),
            (Api::Out, "GET", []) => Ok(Answer::Shown(snapshot.out())),
            (Api::Out, "GET", ["tracks"]) if lists => {
                let numbers = snapshot.tracks.keys();
                Ok(Answer::Shown(Writer::list_document(numbers, |w, number| w.quoted(&number.to_string()))))
            }
            (Api::Out, "GET", ["tracks"]) => Ok(Answer::Shown(snapshot.tracks_alone())),
            (Api::Out, method, ["tracks", track, rest @ ..]) => {
                let number = number(track).ok_or(404_u16)?;
                let track = snapshot.tracks.get(&number).ok_or(404_u16);
                match (method, rest, body) {
                    ("GET", [], _) if lists => track.map(|_| folders(&["upstreams"])),
                    ("GET", [], _) => Ok(Answer::Shown(track?.document())),
                    ("GET", ["upstreams"], _) if lists => {
                        let upstreams = &track?.upstreams;
                        Ok(Answer::Shown(Writer::list_document(upstreams, |w, it| w.quoted(&it.id))))
                    }
                    ("GET", ["upstreams"], _) => Ok(Answer::Shown(track?.upstreams())),
                    ("POST", ["upstreams"], Some(Json::Object(object))) => {
                        let strict = track?.strict;
                        let upstream = Upstream::from_fields(&object, strict).map_err(|_| 415_u16)?;
                        let source = Fields(&object).text("src_id").map_err(|_| 415_u16)?.map(str::to_owned);
                        Ok(Answer::Act(Action::AddUpstream { track: number, upstream, source }, 201))
                    }
                    ("POST", ["upstreams"], _) => Err(415),
                    ("DELETE", ["upstreams", upstream], _) => {
                        track?;
                        let upstream = (*upstream).to_owned();
                        Ok(Answer::Act(Action::RemoveUpstream { track: number, upstream }, 204))
                    }
                    _ => Err(405),
                }
            }
            _ => Err(405),
        }
    }
}

enum Answer {
    Shown(String),
    /// With the status of its success.
    Act(Action, u16),
}

/// Whether the request needs a body; 400 where the API has no such place, 405 where that place knows no such method.
fn takes_body(api: Api, item: &Item) -> Result<bool, u16> {
    let path: Vec<&str> = item.segments.iter().map(String::as_str).collect();
    let known: &[&str] = match (api, path.as_slice()) {
        (_, []) | (Api::Out, ["tracks"] | ["tracks", _]) => &["GET"],
        (Api::Rtmp, ["sessions"]) => &[],
        (Api::Rtmp, ["sessions", _]) | (Api::Out, ["tracks", _, "upstreams", _]) => &["DELETE"],
        (Api::Out, ["tracks", _, "upstreams"]) => &["GET", "POST"],
        _ => return Err(400),
    };
    if known.contains(&item.method.as_str()) { Ok(item.method == "POST") } else { Err(405) }
}

fn folders(names: &[&str]) -> Answer {
    Answer::Shown(Writer::list_document(names, |w, name| w.quoted(name)))
}

/// A number as it is written in paths: digits alone.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The parts of a path, percent-decoded; empty ones do not count.
fn segments(path: &str) -> Vec<String> {
    path.split('/').filter(|segment| !segment.is_empty()).map(percent::of_path).collect()
}
