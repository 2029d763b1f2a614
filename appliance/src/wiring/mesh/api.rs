//! The node's own API: what its answers are made of.

use super::driver::Driver;
use crate::wiring::timing::now;
use fieldgate_compat::node::api::{self, Element, Second, Wanted};
use fieldgate_compat::{Reply, Request};
use fieldgate_net::{HttpAnswer, HttpRequest};
use tokio::sync::oneshot;

/// Lines of the log that are looked at.
const LOG_LINES: usize = 10_000;

impl Driver {
    /// Answers one request.
    pub(super) fn on_request(&mut self, request: HttpRequest, answer: oneshot::Sender<HttpAnswer>) {
        let HttpRequest { method, target, headers, body, peer } = request;
        let request = Request { method, target, headers, body, peer: peer.ip() };
        let reply = match api::wanted(&self.node, &self.api_key, self.local_only, &request) {
            Err(reply) => reply,
            Ok(wanted) => self.reply(wanted),
        };
        let Reply { status, headers, body } = reply;
        answer.send(HttpAnswer { status, headers, body }).ok();
    }

    fn reply(&mut self, wanted: Wanted) -> Reply {
        match wanted {
            Wanted::Log { start, end, logger } => {
                let page = self.mesh.log.page(None, LOG_LINES);
                let lines = page
                    .lines
                    .iter()
                    .map(|line| format!("{} {} {}: {}\n", line.at, line.level, line.target, line.text));
                api::log(&lines.collect::<String>(), start, end, logger.as_deref())
            }
            Wanted::Server => {
                let seconds: Vec<Second> = self.vitals.all().copied().collect();
                api::server_statistics(&seconds)
            }
            Wanted::Json => self.statistics().json("rtmp"),
            Wanted::Xml => self.statistics().xml("rtmp"),
            Wanted::DropPublisher { app, stream_id } => {
                let is_there = self.places.get(&stream_id).is_some_and(|place| place.app() == app);
                api::dropped(usize::from(is_there && self.node.end_stream(&stream_id)))
            }
            Wanted::DropViewers { stream_id } => api::dropped(self.mesh.dismiss_viewers(Some(&stream_id))),
            Wanted::Tables(document) => api::taken(&self.node.handle_tables(&document, now())),
        }
    }

    /// The node's streams, in the old media server's words.
    fn statistics(&self) -> Element {
        let totals = self.mesh.connections.totals();
        let rates = self.rates;
        let application = |app: &'static str| {
            let places = self.places.iter().filter(|(_, place)| place.app() == app);
            let streams = places.filter_map(|(stream_id, place)| {
                let publisher = place.mountpoint.publisher()?;
                let connection = publisher.rtmp.as_ref().map_or(0, |session| session.client.connection);
                let flashver =
                    publisher.rtmp.map_or(String::new(), |session| session.client.flash_ver.clone());
                let millis = self.unix().saturating_sub(place.since_unix).max(0) * 1000;
                let viewers = self.mesh.viewers_of(stream_id);
                let client = Element::Of(vec![
                    ("id", Element::text(connection)),
                    ("address", Element::text(&publisher.from)),
                    ("time", Element::text(millis)),
                    ("flashver", Element::text(flashver)),
                    ("publishing", Element::text("")),
                    ("active", Element::text("")),
                ]);
                let stream = Element::Of(vec![
                    ("name", Element::text(stream_id)),
                    ("time", Element::text(millis)),
                    ("bw_in", Element::text(place.bits_per_second())),
                    ("bytes_in", Element::text(place.mountpoint.ring().counters().bytes)),
                    ("client", client),
                    ("meta", Element::text("")),
                    ("nclients", Element::text(viewers + 1)),
                    ("publishing", Element::text("")),
                    ("active", Element::text("")),
                ]);
                Some((viewers + 1, stream))
            });
            let streams: Vec<(u64, Element)> = streams.collect();
            let clients: u64 = streams.iter().map(|(clients, _)| clients).sum();
            let mut live: Vec<_> = streams.into_iter().map(|(_, stream)| ("stream", stream)).collect();
            live.push(("nclients", Element::text(clients)));
            Element::Of(vec![("name", Element::text(app)), ("live", Element::Of(live))])
        };
        let server = ["live", "relay"].map(|app| ("application", application(app)));
        Element::Of(vec![
            ("uptime", Element::text(self.began.elapsed().as_secs())),
            ("naccepted", Element::text(totals.connections)),
            ("bw_in", Element::text(rates.bits_in)),
            ("bytes_in", Element::text(totals.bytes_in)),
            ("bw_out", Element::text(rates.bits_out)),
            ("bytes_out", Element::text(totals.bytes_out)),
            ("server", Element::Of(server.into())),
        ])
    }
}

/// What went through all RTMP connections in the last second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rates {
    pub(super) bits_in: u64,
    pub(super) bits_out: u64,
    bytes: (u64, u64),
}

impl Rates {
    /// To be called once a second with the totals.
    pub(super) fn look(&mut self, bytes_in: u64, bytes_out: u64) {
        let (before_in, before_out) = self.bytes;
        self.bits_in = bytes_in.saturating_sub(before_in).saturating_mul(8);
        self.bits_out = bytes_out.saturating_sub(before_out).saturating_mul(8);
        self.bytes = (bytes_in, bytes_out);
    }
}
