//! What is so at the moment of a request.

use super::target::Engine;
use fieldgate_model::config::{AggregatorCamera, Mountpoint};
use fieldgate_model::status::{MountpointStatus, PushStatus, State, Status};
use fieldgate_model::{Config, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// Bits per second, and bytes so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Over the last seconds.
    pub bits_per_second: u64,
    /// Since the start.
    pub bytes: u64,
}

/// What goes in and out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// From publishers.
    pub into: Rate,
    /// To players and by pushes.
    pub out: Rate,
}

/// An RTMP connection to a camera's application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its number.
    pub connection: u64,
    /// The application, which is the camera's name.
    pub app: String,
    /// Where from.
    pub peer: SocketAddr,
    /// What it calls itself.
    pub flash_ver: String,
    /// Since its accept, in milliseconds.
    pub time_ms: u64,
    /// The stream's name that it publishes under, if it publishes.
    pub publishes: Option<String>,
    /// Sound's and pictures' bytes that it has published.
    pub audio: Rate,
    /// As `audio`.
    pub video: Rate,
}

/// All that answers are made from.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The config that runs.
    pub config: Arc<Config>,
    /// The gateway's status.
    pub status: Status,
    /// This machine's name.
    pub host_name: String,
    /// Names and addresses that lead to this machine, IPv6 addresses without brackets.
    pub own_hosts: Vec<String>,
    /// Ports on which RTMP is listened for; the first is told to callers.
    pub rtmp_ports: Vec<u16>,
    /// Process id.
    pub pid: u32,
    /// Since the start of the program.
    pub uptime_seconds: u64,
    /// RTMP connections since then.
    pub accepted: u64,
    /// Of all RTMP.
    pub traffic: Traffic,
    /// By camera.
    pub cameras: BTreeMap<String, Traffic>,
    /// Connections to cameras' applications.
    pub clients: Vec<Client>,
}

/// A registered camera with all that is known of it.
pub(super) struct Camera<'s> {
    pub(super) name: &'s str,
    pub(super) settings: &'s AggregatorCamera,
    pub(super) mountpoint: &'s Mountpoint,
    pub(super) status: Option<&'s MountpointStatus>,
}

impl Snapshot {
    pub(super) fn cameras(&self) -> impl Iterator<Item = Camera<'_>> {
        let registered = &self.config.compat.aggregator.cameras;
        registered.keys().filter_map(|name| self.camera(name))
    }

    pub(super) fn camera(&self, name: &str) -> Option<Camera<'_>> {
        let (name, settings) = self.config.compat.aggregator.cameras.get_key_value(name)?;
        let mountpoint = self.config.mountpoints.get(name)?;
        Some(Camera { name, settings, mountpoint, status: self.status.mountpoints.get(name) })
    }

    /// Whether RTMP is taken.
    pub(super) fn is_up(&self) -> bool {
        let listeners = ["rtmp", "rtmps"].into_iter().filter_map(|kind| self.status.listeners.get(kind));
        listeners.into_iter().any(|listener| listener.activity.state == State::Running)
    }

    /// The mountpoint that a push leads to, if it leads back to this gateway.
    pub(super) fn own_mountpoint(&self, engine: &Engine, app: &str, name: &str) -> Option<&str> {
        let is_own = self.own_hosts.iter().any(|own| own.eq_ignore_ascii_case(&engine.host))
            && self.rtmp_ports.contains(&engine.port.unwrap_or(1935));
        if !is_own {
            return None;
        }
        if app == "live" {
            return self.config.mountpoint_for(name).map(|(known, _)| known);
        }
        self.camera(app).map(|camera| camera.name)
    }

    /// What the statistics call this aggregator.
    pub(super) fn resource_id(&self) -> &str {
        self.config.compat.aggregator.resource_id.as_deref().unwrap_or(&self.host_name)
    }

    /// `/stats`.
    pub(super) fn totals(&self) -> Value {
        let publishing = self.cameras().filter(Camera::is_publishing).count();
        let pushes = self.cameras().flat_map(|camera| camera.pushes().collect::<Vec<_>>());
        let connected = pushes.filter(|(_, _, push)| push.is_some_and(|push| state_of(push) == "live"));
        json!({
            "resource_id": self.resource_id(),
            "container_id": self.resource_id(),
            "bw_in": self.traffic.into.bits_per_second.to_string(),
            "bw_out": self.traffic.out.bits_per_second.to_string(),
            "input_conn": self.config.compat.aggregator.cameras.len(),
            "publishing": publishing,
            "push_conn": connected.count(),
        })
    }

    /// `/cameras`.
    pub(super) fn document(&self) -> Value {
        let cameras: Vec<Value> = self.cameras().map(|camera| camera.document()).collect();
        json!({ "cameras": cameras })
    }
}

impl<'s> Camera<'s> {
    pub(super) fn is_publishing(&self) -> bool {
        self.status.is_some_and(|status| status.stream.is_some())
    }

    /// Id, URL without secrets, and status, if it runs.
    pub(super) fn pushes(&self) -> impl Iterator<Item = (String, String, Option<&'s PushStatus>)> {
        let status = self.status;
        self.mountpoint.push.iter().map(move |push| {
            let id = push.effective_id();
            let status = status.and_then(|status| status.pushes.get(&id));
            (id, push.url.redacted(), status)
        })
    }

    fn document(&self) -> Value {
        let pushes = self.pushes().map(|(_, url, status)| {
            let activity = status.map(|status| &status.activity);
            let error = activity.and_then(|activity| activity.cause.as_deref());
            let state = status.map_or("idle", state_of);
            json!({
                "url": url,
                "state": state,
                "since": activity.map(|activity| time(activity.since)),
                // The cause of an old failure is no news while it works.
                "error": error.filter(|_| state != "live"),
            })
        });
        json!({
            "name": self.name,
            "type": self.settings.kind.as_str(),
            "publishing": self.is_publishing(),
            "pushes": pushes.collect::<Vec<Value>>(),
        })
    }
}

/// A push's state in this API's words.
pub(super) fn state_of(push: &PushStatus) -> &'static str {
    match push.activity.state {
        _ if !push.enabled => "idle",
        State::Starting => "connecting",
        State::Running => "live",
        State::Retrying | State::Failed | State::Stuck => "retrying",
        State::Waiting | State::Ended | State::Stopping => "idle",
    }
}

fn time(at: Timestamp) -> Value {
    serde_json::to_value(at).unwrap_or(Value::Null)
}
