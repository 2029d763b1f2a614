//! One request to the API, from its target to its reply.

use super::access;
use super::reply::{Refused, json_reply};
use super::snapshot::Snapshot;
use super::target::{Engine, Target, hls_of_camera, hls_of_push};
use super::wish::{Filter, Manner, Wish};
use crate::{Reply, Request};
use fieldgate_model::Command;
use fieldgate_model::config::{Push, host_port};
use serde_json::{Value, json};
use std::collections::VecDeque;

/// The next step of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Carry this out, then tell [`Exchange::handle_outcome`].
    Command(Command),
    /// The exchange is over.
    Reply(Reply),
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is carried out, and on flash.
    Done,
    /// It is not.
    Refused(Refusal, String),
}

/// Why a command was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such camera.
    Unknown,
    /// It does not fit what there is: a taken name, a stream that would feed itself.
    Conflict,
    /// There is no room for more.
    Full,
    /// Too much at once, or the gateway stops; it may work in a moment.
    Busy,
    /// It could not be kept.
    Failed,
}

/// One request. Its owner calls [`Exchange::step`] until it gives the reply, each time with what is so at that moment.
#[derive(Debug)]
pub struct Exchange {
    wish: Result<Wish, Refused>,
    /// The host that the caller asked.
    asked_host: Option<String>,
    begun: bool,
    commands: VecDeque<Command>,
    /// The answer once all commands are carried out.
    success: Value,
}

impl Exchange {
    /// Begins to answer, by the settings of this moment.
    pub fn new(request: &Request, snapshot: &Snapshot) -> Self {
        let settings = &snapshot.config.compat.aggregator;
        let wish = access::check(request, settings).and_then(|()| Wish::of(request));
        let asked_host = access::header(request, "host").and_then(host_port).map(|(host, _)| host.to_owned());
        Exchange { wish, asked_host, begun: false, commands: VecDeque::new(), success: Value::Null }
    }

    /// What a push to an application that is not registered asks for, to be logged once: the application.
    pub fn registers_unasked(&self, snapshot: &Snapshot) -> Option<&str> {
        match &self.wish {
            Ok(Wish::ConnectStream { app, and_camera: false, .. }) if snapshot.camera(app).is_none() => {
                Some(app)
            }
            _ => None,
        }
    }

    /// Goes on. After [`Step::Command`] only with its outcome.
    pub fn step(&mut self, snapshot: &Snapshot) -> Step {
        let legacy = snapshot.config.compat.aggregator.legacy_content_type;
        if !self.begun {
            self.begun = true;
            let begun = match self.wish.clone() {
                Ok(wish) => self.begin(wish, snapshot),
                Err(refused) => Err(refused),
            };
            self.wish = begun.and_then(|()| self.wish.clone());
        }
        if let Err(refused) = &self.wish {
            return Step::Reply(refused.reply(legacy));
        }
        match self.commands.pop_front() {
            Some(command) => Step::Command(command),
            None => Step::Reply(json_reply(200, &self.success, legacy)),
        }
    }

    /// What became of the command that [`Exchange::step`] asked for.
    pub fn handle_outcome(&mut self, outcome: Outcome) {
        let Outcome::Refused(refusal, text) = outcome else { return };
        let status = match refusal {
            Refusal::Unknown => 404,
            Refusal::Conflict => 409,
            Refusal::Full => 507,
            Refusal::Busy => 503,
            Refusal::Failed => 500,
        };
        self.wish = Err(Refused::new(status, text));
    }

    /// Lays down the commands and the answer.
    fn begin(&mut self, wish: Wish, snapshot: &Snapshot) -> Result<(), Refused> {
        let settings = &snapshot.config.compat.aggregator;
        match wish {
            Wish::ConnectCamera { app } => {
                let endpoint = self.endpoint(&app, snapshot);
                self.success = json!({
                    "code": 200, "type": "ok", "message": format!("{app} registered"), "endpoint": endpoint,
                });
                self.commands.push_back(Command::RegisterCamera { name: app, kind: None });
            }
            Wish::ConnectStream { app, target, hls, and_camera } => {
                let register = and_camera || !settings.strict;
                if !register && snapshot.camera(&app).is_none() {
                    return Err(not_registered(&app));
                }
                self.success = json!({"code": 200, "type": "ok", "message": hls});
                self.push(app, &target, register, snapshot)?;
            }
            Wish::FindStream { app } => {
                let camera = snapshot.camera(&app).ok_or_else(|| not_registered(&app))?;
                let url = camera.mountpoint.push.iter().find_map(hls_of_push);
                let url = url.ok_or_else(|| Refused::new(404, format!("{app} is pushed nowhere")))?;
                self.success = json!({"code": 200, "type": "ok", "message": url, "url": url});
            }
            Wish::Disconnect { app, filter, manner } => {
                let camera = snapshot.camera(&app).ok_or_else(|| not_registered(&app))?;
                let gone = camera.mountpoint.push.iter().filter(|push| fits(push, &filter));
                let gone: Vec<String> = gone.map(Push::effective_id).collect();
                let message = if gone.is_empty() { "not connected" } else { "disconnected" };
                self.success = match manner {
                    Manner::Aggregator => json!({"code": 200, "type": "ok", "message": message}),
                    Manner::Manager => json!("Stream removed successfully."),
                };
                let remove = |id| Command::RemovePush { mountpoint: app.clone(), id };
                self.commands.extend(gone.into_iter().map(remove));
            }
            Wish::RemoveCamera { name } => {
                snapshot.camera(&name).ok_or_else(|| not_registered(&name))?;
                let message = format!("{name} removed");
                self.success = json!({"code": 200, "type": "ok", "message": message});
                self.commands.push_back(Command::RemoveCamera { name });
            }
            Wish::RegisterCamera { name, kind } => {
                let known = snapshot.camera(&name).map(|camera| camera.settings.kind);
                let kind_now = kind.or(known).unwrap_or_default();
                self.success = json!({
                    "endpoint": self.endpoint(&name, snapshot), "code": 200, "type": kind_now.as_str(),
                });
                self.commands.push_back(Command::RegisterCamera { name, kind });
            }
            Wish::GetStream { name, engine } => self.get_stream(name, engine, snapshot)?,
            Wish::Stats => self.success = snapshot.totals(),
            Wish::Status => {
                let status = if snapshot.is_up() { "ok" } else { "down" };
                self.success = json!({"resource_id": snapshot.resource_id(), "status": status});
            }
            Wish::Cameras => self.success = snapshot.document(),
        }
        Ok(())
    }

    fn get_stream(
        &mut self,
        name: String,
        engine: Option<Engine>,
        snapshot: &Snapshot,
    ) -> Result<(), Refused> {
        let settings = &snapshot.config.compat.aggregator;
        let Some(camera) = snapshot.camera(&name) else {
            let text = format!("The camera {name} is not registered in this Media Aggregator.");
            if settings.legacy_unknown_ok {
                self.success = json!({ "error": text });
                return Ok(());
            }
            return Err(Refused::new(404, text));
        };
        let configured = |text: &Option<String>| text.as_deref().and_then(Engine::parse);
        let engine = engine.or_else(|| configured(&settings.engine));
        let missing = || Refused::new(400, "se_ip is missing, and compat.aggregator.engine is not set");
        let engine = engine.ok_or_else(missing)?;
        let pushed_to = configured(&settings.transcoder).unwrap_or_else(|| engine.clone());
        let target = Target::camera(&pushed_to, camera.settings.kind, &name);
        self.success = json!({"url": hls_of_camera(&engine, &name)});
        self.push(name, &target, false, snapshot)
    }

    fn push(
        &mut self,
        camera: String,
        target: &Target,
        register: bool,
        snapshot: &Snapshot,
    ) -> Result<(), Refused> {
        let own = snapshot.own_mountpoint(&target.engine, &target.app, &target.name);
        // An application of its name that does not exist yet is the camera's own, too.
        let is_to_come = register && target.app == camera && is_own_port(snapshot, target);
        if own == Some(camera.as_str()) || is_to_come {
            return Err(Refused::new(409, format!("{camera} would be pushed to itself")));
        }
        self.commands.push_back(Command::AddCameraPush { camera, push: Box::new(target.push()), register });
        Ok(())
    }

    /// Where the camera publishes to.
    fn endpoint(&self, name: &str, snapshot: &Snapshot) -> String {
        let settings = &snapshot.config.compat.aggregator;
        let configured = settings.address.as_deref().and_then(Engine::parse);
        let asked = || self.asked_host.clone().map(|host| Engine { host, port: None });
        let by_name = || Engine { host: snapshot.host_name.clone(), port: None };
        let mut address = configured.or_else(asked).unwrap_or_else(by_name);
        let port = address.port.or(snapshot.rtmp_ports.first().copied()).unwrap_or(1935);
        address.port = Some(port);
        format!("rtmp://{address}/{name}/{name}")
    }
}

fn is_own_port(snapshot: &Snapshot, target: &Target) -> bool {
    let engine = &target.engine;
    snapshot.own_hosts.iter().any(|own| own.eq_ignore_ascii_case(&engine.host))
        && snapshot.rtmp_ports.contains(&engine.port.unwrap_or(1935))
}

fn not_registered(name: &str) -> Refused {
    Refused::new(404, format!("no camera {name} is registered"))
}

fn fits(push: &Push, filter: &Filter) -> bool {
    let Ok(parts) = push.url.parts() else { return false };
    let is_host = |engine: &Engine| engine.host.eq_ignore_ascii_case(parts.host);
    let is_target = |target: &Target| {
        let port = target.engine.port.unwrap_or(1935);
        let path = format!("/{}/{}", target.app, target.name);
        is_host(&target.engine) && port == parts.port.unwrap_or(1935) && parts.path == path
    };
    match (filter.target.as_ref(), filter.key.as_deref(), filter.engine.as_ref()) {
        (Some(target), _, _) => is_target(target),
        // Exactly the push that these two connected.
        (None, Some(key), Some(engine)) => is_target(&Target::stream(engine, key)),
        (None, Some(key), None) => parts.path.rsplit('/').next() == Some(key),
        (None, None, Some(engine)) => is_host(engine) && (engine.port.is_none() || engine.port == parts.port),
        (None, None, None) => true,
    }
}
