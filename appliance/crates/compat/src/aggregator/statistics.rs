//! Statistics in XML, in the form of the RTMP module whose place we take.

use super::access;
use super::reply::Refused;
use super::snapshot::{Camera, Client, Rate, Snapshot, Traffic, state_of};
use crate::{Reply, Request};
use fieldgate_model::config::host_port;
use std::fmt::{Display, Write as _};

/// Answers a request to the statistics' own port: `/stat` and whatever begins like it, also under `/static`.
pub fn statistics(request: &Request, snapshot: &Snapshot) -> Reply {
    let settings = &snapshot.config.compat.aggregator;
    if let Err(refused) = access::check(request, settings) {
        return refused.reply(settings.legacy_content_type);
    }
    let path = request.target.split('?').next().unwrap_or_default();
    if !path.starts_with("/stat") {
        return Refused::new(404, "the statistics are at /stat").reply(settings.legacy_content_type);
    }
    if request.method != "GET" {
        let refused = Refused { allow: Some("GET"), ..Refused::new(405, "the statistics are read by GET") };
        return refused.reply(settings.legacy_content_type);
    }
    let headers = [("content-type", "text/xml"), ("cache-control", "no-store")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Reply { status: 200, headers: headers.into(), body: document(snapshot).into_bytes() }
}

fn document(snapshot: &Snapshot) -> String {
    let mut xml = Xml("<?xml version=\"1.0\" encoding=\"utf-8\" ?>\r\n".to_owned());
    xml.within("rtmp", |xml| {
        let product = format!("fieldgate {}", snapshot.status.version);
        xml.text("nginx_version", &product);
        xml.text("nginx_rtmp_version", &product);
        xml.text("compiler", "rustc");
        xml.text("built", "");
        xml.text("pid", snapshot.pid);
        xml.text("uptime", snapshot.uptime_seconds);
        xml.text("naccepted", snapshot.accepted);
        traffic(xml, &snapshot.traffic);
        xml.within("server", |xml| {
            for camera in snapshot.cameras() {
                application(xml, &camera, snapshot);
            }
        });
    });
    xml.0
}

fn application(xml: &mut Xml, camera: &Camera<'_>, snapshot: &Snapshot) {
    let clients: Vec<&Client> = snapshot.clients.iter().filter(|client| client.app == camera.name).collect();
    let pushes: Vec<_> = camera.pushes().filter_map(|(_, url, push)| Some((url, push?))).collect();
    let connected = pushes.iter().filter(|(_, push)| state_of(push) == "live");
    let publisher = clients.iter().find(|client| client.publishes.is_some());
    xml.within("application", |xml| {
        xml.text("name", camera.name);
        xml.within("live", |xml| {
            if camera.is_publishing() {
                xml.within("stream", |xml| {
                    let name =
                        publisher.and_then(|client| client.publishes.as_deref()).unwrap_or(camera.name);
                    xml.text("name", name);
                    xml.text("time", publisher.map_or(0, |client| client.time_ms));
                    traffic(xml, &snapshot.cameras.get(camera.name).copied().unwrap_or_default());
                    let of = |rate: fn(&Client) -> Rate| publisher.map(|client| rate(client).bits_per_second);
                    xml.text("bw_audio", of(|client| client.audio).unwrap_or(0));
                    xml.text("bw_video", of(|client| client.video).unwrap_or(0));
                    for client in &clients {
                        rtmp_client(xml, client);
                    }
                    for (url, push) in connected.clone() {
                        pushed(xml, url, push.counters.dropped_units);
                    }
                    meta(xml, camera);
                    xml.text("nclients", clients.len().saturating_add(connected.clone().count()));
                    xml.empty("publishing");
                    xml.empty("active");
                });
            }
            xml.text("nclients", clients.len().saturating_add(connected.count()));
        });
    });
}

fn rtmp_client(xml: &mut Xml, client: &Client) {
    xml.within("client", |xml| {
        xml.text("id", client.connection);
        xml.text("address", client.peer.ip());
        xml.text("time", client.time_ms);
        xml.text("flashver", &client.flash_ver);
        xml.text("dropped", 0);
        xml.text("avsync", 0);
        xml.text("timestamp", client.time_ms);
        if client.publishes.is_some() {
            xml.empty("publishing");
        }
        xml.empty("active");
    });
}

/// A push shows as a client by the name that relays have.
fn pushed(xml: &mut Xml, url: &str, dropped: u64) {
    let (authority, path) =
        url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).unwrap_or((url, ""));
    let host = host_port(authority).map_or(authority, |(host, _)| host);
    xml.within("client", |xml| {
        xml.text("id", 0);
        xml.text("address", format_args!("{host}/{path}"));
        xml.text("time", 0);
        xml.text("flashver", "ngx-local-relay");
        xml.text("dropped", dropped);
        xml.text("avsync", 0);
        xml.text("timestamp", 0);
        xml.empty("active");
    });
}

fn meta(xml: &mut Xml, camera: &Camera<'_>) {
    let tracks =
        camera.status.and_then(|status| status.stream.as_ref()).map(|stream| stream.tracks.as_slice());
    let track = |kind: &str| tracks.unwrap_or_default().iter().find(|track| track.kind == kind);
    xml.within("meta", |xml| {
        if let Some(video) = track("video") {
            xml.within("video", |xml| {
                xml.text("width", video.width);
                xml.text("height", video.height);
                xml.text("frame_rate", video.frame_rate.round());
                xml.text("codec", &video.codec);
                xml.text("profile", "");
                xml.text("compat", 0);
                xml.text("level", "");
            });
        }
        if let Some(audio) = track("audio") {
            xml.within("audio", |xml| {
                xml.text("codec", &audio.codec);
                xml.text("profile", "");
                xml.text("channels", audio.channels);
                xml.text("sample_rate", audio.sample_rate);
            });
        }
    });
}

fn traffic(xml: &mut Xml, traffic: &Traffic) {
    xml.text("bw_in", traffic.into.bits_per_second);
    xml.text("bytes_in", traffic.into.bytes);
    xml.text("bw_out", traffic.out.bits_per_second);
    xml.text("bytes_out", traffic.out.bytes);
}

struct Xml(String);

impl Xml {
    fn within(&mut self, name: &str, inside: impl FnOnce(&mut Xml)) {
        self.raw(format_args!("<{name}>"));
        inside(self);
        self.raw(format_args!("</{name}>\r\n"));
    }

    fn text(&mut self, name: &str, value: impl Display) {
        self.raw(format_args!("<{name}>"));
        let text = value.to_string();
        for c in text.chars() {
            match c {
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '&' => self.0.push_str("&amp;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&apos;"),
                // No XML may hold them, however written.
                c if c < ' ' && !matches!(c, '\t' | '\n' | '\r') => self.0.push('\u{FFFD}'),
                '\u{FFFE}' | '\u{FFFF}' => self.0.push('\u{FFFD}'),
                c => self.0.push(c),
            }
        }
        self.raw(format_args!("</{name}>\r\n"));
    }

    fn empty(&mut self, name: &str) {
        self.raw(format_args!("<{name}/>"));
    }

    fn raw(&mut self, text: impl Display) {
        // A String takes all that is written to it.
        let _ = write!(self.0, "{text}");
    }
}
