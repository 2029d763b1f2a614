//! The node's own API: what its answers are made of.

use super::Watching;
use super::driver::{Done, Driver};
use super::places::Place;
use crate::wiring::timing::now;
use fieldgate_compat::node::api::{self, Element, Second, Wanted};
use fieldgate_compat::node::{Refused, Verdict, judged};
use fieldgate_compat::{ExchangeId, Reply, Request};
use fieldgate_media::{TrackKind, Tracks};
use fieldgate_net::{HttpAnswer, HttpRequest};
use tokio::sync::oneshot;

/// Lines of the log that are looked at.
const LOG_LINES: usize = 10_000;

impl Driver {
    /// Answers one request; `exchange` is its own.
    pub(super) fn on_request(
        &mut self,
        exchange: ExchangeId,
        request: HttpRequest,
        answer: oneshot::Sender<HttpAnswer>,
    ) {
        let HttpRequest { method, target, headers, body, peer } = request;
        let request = Request { method, target, headers, body, peer: peer.ip() };
        let wanted = api::wanted(&self.node, &self.api_key, self.local_only, &request);
        let reply = match wanted.map(|wanted| self.reply(exchange, wanted)) {
            Err(reply) | Ok(Some(reply)) => reply,
            Ok(None) => {
                let (tell, verdict) = oneshot::channel();
                self.verdicts.insert(exchange, tell);
                self.work.spawn(async move {
                    let verdict = verdict.await.unwrap_or(Verdict::Refuse(Refused::Full));
                    answer.send(http(judged(&verdict))).ok();
                    Done::Nothing
                });
                return;
            }
        };
        answer.send(http(reply)).ok();
    }

    /// The answer; none yet: it is the verdict of this exchange.
    fn reply(&mut self, exchange: ExchangeId, wanted: Wanted) -> Option<Reply> {
        Some(match wanted {
            Wanted::Peer(question) => {
                self.node.handle_question(exchange, question, now());
                return None;
            }
            Wanted::ShownRole => api::shown_role(&self.node),
            Wanted::Role(role) => {
                self.node.set_role(role, now());
                api::role_taken()
            }
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
                let place = self.places.get(&stream_id);
                let is_there = place.is_some_and(|place| app.is_none_or(|app| place.app() == app));
                api::dropped(usize::from(is_there && self.node.end_stream(&stream_id)))
            }
            Wanted::DropViewers { app, stream_id } => {
                let of_stream = self.places.get(&stream_id).map(|place| place.app());
                // Players name the application that they play by, not that of the publisher.
                let app = app.filter(|app| of_stream != Some(app.as_str()));
                api::dropped(self.mesh.dismiss_viewers(Some(&stream_id), app.as_deref()))
            }
            Wanted::Tables(document) => api::taken(&self.node.handle_tables(&document, now())),
        })
    }

    /// The node's streams, in the old media server's words.
    fn statistics(&self) -> Element {
        let totals = self.mesh.connections.totals();
        let rates = self.rates;
        let application = |app: &'static str| {
            let places = self.places.iter().filter(|(_, place)| place.app() == app);
            let streams: Vec<(u64, Element)> =
                places.filter_map(|(stream_id, place)| self.stream(stream_id, place)).collect();
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

    /// A stream that is published, its publisher first and then its viewers, with how many they are.
    fn stream(&self, stream_id: &str, place: &Place) -> Option<(u64, Element)> {
        let publisher = place.mountpoint.publisher()?;
        let millis = self.unix().saturating_sub(place.since_unix).max(0) * 1000;
        let (connection, flash_ver) = publisher.rtmp.map_or((0, String::new()), |session| {
            (session.client.connection, session.client.flash_ver.clone())
        });
        let viewers = self.mesh.viewers_of(stream_id);
        let clients = viewers.len() as u64 + 1;
        let mut stream = vec![
            ("name", Element::text(stream_id)),
            ("time", Element::text(millis)),
            ("bw_in", Element::text(place.bits_per_second())),
            ("bytes_in", Element::text(place.mountpoint.ring().counters().bytes)),
            (
                "client",
                Element::Of(vec![
                    ("id", Element::text(connection)),
                    ("address", Element::text(&publisher.from)),
                    ("time", Element::text(millis)),
                    ("flashver", Element::text(flash_ver)),
                    ("publishing", Element::text("")),
                    ("active", Element::text("")),
                ]),
            ),
        ];
        stream.extend(viewers.iter().map(|viewer| ("client", client(viewer))));
        stream.extend([
            ("meta", meta(&place.mountpoint.ring().tracks())),
            ("nclients", Element::text(clients)),
            ("publishing", Element::text("")),
            ("active", Element::text("")),
        ]);
        Some((clients, Element::Of(stream)))
    }
}

fn http(reply: Reply) -> HttpAnswer {
    let Reply { status, headers, body } = reply;
    HttpAnswer { status, headers, body }
}

/// A viewer; one of HLS or DASH has no connection of its own.
fn client(viewer: &Watching) -> Element {
    let (connection, flash_ver) =
        viewer.client.as_ref().map_or((0, "HTTP"), |client| (client.connection, client.flash_ver.as_str()));
    Element::Of(vec![
        ("id", Element::text(connection)),
        ("address", Element::text(viewer.peer)),
        ("time", Element::text(viewer.since.elapsed().as_millis())),
        ("flashver", Element::text(flash_ver)),
        ("active", Element::text("")),
    ])
}

/// What the stream consists of; empty until that is known.
fn meta(tracks: &Tracks) -> Element {
    let video = tracks.first(TrackKind::Video).map(|track| {
        let video = Element::Of(vec![
            ("width", Element::text(track.video.width)),
            ("height", Element::text(track.video.height)),
            ("frame_rate", Element::text(track.video.frame_rate.round())),
            ("codec", Element::text(track.codec.name().to_uppercase())),
        ]);
        ("video", video)
    });
    let audio = tracks.first(TrackKind::Audio).map(|track| {
        let audio = Element::Of(vec![
            ("codec", Element::text(track.codec.name().to_uppercase())),
            ("channels", Element::text(track.audio.channels)),
            ("sample_rate", Element::text(track.audio.sample_rate)),
        ]);
        ("audio", audio)
    });
    let known: Vec<_> = video.into_iter().chain(audio).collect();
    if known.is_empty() { Element::text("") } else { Element::Of(known) }
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
