//! The API of KMP controllers' operators: what is so at the moment of a request, and what it asks for.

use super::KmpControl;
use super::session::Ask;
use super::tracks::{TrackEntry, Tracks};
use fieldgate_compat::kmp_control::MediaKind;
use fieldgate_compat::kmp_control::api::{
    Action, Application, Build, Exchange, Outcome, SessionView, Snapshot, Step, StreamView, TrackView,
    Traffic, UpstreamView,
};
use fieldgate_compat::{Reply, Request};
use fieldgate_net::{
    HttpAnswer, HttpRequest, KmpSentTrack, KmpSentUpstream, RtmpConnectionView, RtmpConnections, TrackCommand,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How long a track may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// Samples that rates are made from: 10 s.
const SAMPLES: usize = 11;

impl KmpControl {
    /// Answers one request to the API.
    pub async fn answer(&self, request: HttpRequest) -> HttpAnswer {
        let config = self.config.get().map(|config| config.borrow().clone());
        let Some(config) = config else { return HttpAnswer::empty(503) };
        let request = Request {
            method: request.method,
            target: request.target,
            headers: request.headers,
            body: request.body,
            peer: request.peer.ip(),
        };
        let mut exchange = Exchange::new(&request, &config.compat.kmp.api);
        loop {
            match exchange.step(&self.snapshot()) {
                Step::Act(action) => exchange.handle_outcome(self.act(action).await),
                Step::Reply(Reply { status, headers, body }) => return HttpAnswer { status, headers, body },
            }
        }
    }

    async fn act(&self, action: Action) -> Outcome {
        let done = |is_done| if is_done { Outcome::Done } else { Outcome::NotFound };
        match action {
            Action::DropSession { connection } => done(self.connections.drop_connection(connection)),
            Action::AddUpstream { track, upstream, source } => {
                let Some(entry) = self.tracks.get(track) else { return Outcome::NotFound };
                let like = match source {
                    Some(id) => match key_of(&entry, &id).await {
                        Some((key, _)) => Some(key),
                        None => return Outcome::NotFound,
                    },
                    None => None,
                };
                let spec = super::convert::upstream(&upstream);
                let (answer, added) = oneshot::channel();
                let command = TrackCommand::AddUpstream { spec, like, done: answer };
                ask(&entry, command, added).await.map_or(Outcome::Failed, |key| done(key.is_some()))
            }
            Action::RemoveUpstream { track, upstream } => {
                let Some(entry) = self.tracks.get(track) else { return Outcome::NotFound };
                let Some((key, is_last)) = key_of(&entry, &upstream).await else { return Outcome::NotFound };
                let (answer, removed) = oneshot::channel();
                let command = TrackCommand::RemoveUpstream { upstream: key, done: answer };
                let outcome = ask(&entry, command, removed).await.map_or(Outcome::Failed, done);
                if outcome == Outcome::Done && is_last {
                    let inbox = self.lock().get(&entry.connection).map(|known| known.inbox.clone());
                    if let Some(inbox) = inbox {
                        // If it is over, it knows.
                        inbox.send(Ask::LastRemoved { number: track }).await.ok();
                    }
                }
                outcome
            }
        }
    }

    /// All that the API shows now.
    fn snapshot(&self) -> Snapshot {
        let (totals, views, entries) = (self.connections.totals(), self.connections.all(), self.tracks.all());
        let rates = self.rates.lock();
        let config = self.config.get().map(|config| config.borrow().clone());
        let names = config.iter().flat_map(|config| config.compat.kmp.applications.keys());
        let applications = names.map(|name| Application {
            name: name.clone(),
            sessions: views
                .iter()
                .filter(|view| view.client.app == *name)
                .map(|view| session(view, &entries, &rates))
                .collect(),
        });
        let tracks =
            entries.iter().filter_map(|(number, entry)| Some((*number, track(*number, entry, &rates)?)));
        Snapshot {
            build: build(),
            uptime_seconds: rates.started.elapsed().as_secs(),
            accepted: totals.connections,
            traffic_in: traffic(&rates, &Of::TotalIn, totals.bytes_in),
            traffic_out: traffic(&rates, &Of::TotalOut, totals.bytes_out),
            servers: vec![applications.collect()],
            tracks: tracks.collect(),
        }
    }
}

/// The key of the upstream that a controller calls `id`, and whether it is the track's only one.
async fn key_of(entry: &TrackEntry, id: &str) -> Option<(fieldgate_proto::kmp::sender::UpstreamKey, bool)> {
    let upstreams = entry.report.view()?.upstreams;
    let is_last = upstreams.len() == 1;
    upstreams.iter().find(|upstream| upstream.id == id).map(|upstream| (upstream.key, is_last))
}

async fn ask<T>(entry: &TrackEntry, command: TrackCommand, answer: oneshot::Receiver<T>) -> Option<T> {
    entry.commands.try_send(command).ok()?;
    tokio::time::timeout(ANSWER, answer).await.ok()?.ok()
}

fn build() -> Build {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Build {
        nginx_version: version.clone(),
        rtmp_version: version.clone(),
        version,
        compiler: concat!("rustc ", env!("CARGO_PKG_RUST_VERSION"), " or newer").to_owned(),
        built: String::new(),
        pid: std::process::id(),
    }
}

fn session(view: &RtmpConnectionView, entries: &BTreeMap<u64, TrackEntry>, rates: &Measured) -> SessionView {
    let client = &view.client;
    let number = client.connection;
    let streams = view.stream.iter().map(|stream| {
        let of_kind = |kind: MediaKind| {
            let mut live = entries.iter().filter(|(_, entry)| entry.connection == number && entry.is_live);
            live.find(|(_, entry)| entry.kind == kind).map(|(number, _)| *number)
        };
        StreamView {
            name: stream.session.name.clone(),
            args: stream.session.args.clone(),
            kind: stream.session.kind.clone(),
            traffic_in: traffic(rates, &Of::In(number), view.bytes_in),
            audio_in: traffic(rates, &Of::Audio(number), stream.audio_bytes),
            video_in: traffic(rates, &Of::Video(number), stream.video_bytes),
            traffic_out: traffic(rates, &Of::Out(number), view.bytes_out),
            uptime_seconds: stream.uptime.as_secs(),
            video: of_kind(MediaKind::Video),
            audio: of_kind(MediaKind::Audio),
        }
    });
    SessionView {
        flashver: client.flash_ver.clone(),
        swf_url: client.swf_url.clone(),
        tc_url: client.tc_url.clone(),
        page_url: client.page_url.clone(),
        repeats_extended_timestamps: view.repeats_extended_timestamps,
        remote_addr: client.peer,
        uptime_seconds: view.uptime.as_secs(),
        connection: number,
        streams: streams.collect(),
    }
}

/// `None` before its sender has shown itself.
fn track(number: u64, entry: &TrackEntry, rates: &Measured) -> Option<TrackView> {
    let view = entry.report.view()?;
    let media_info = view.media_info.as_ref().and_then(super::convert::media_info)?;
    let text = |name: &fieldgate_proto::kmp::Name| String::from_utf8_lossy(name.as_bytes()).into_owned();
    Some(TrackView {
        publication: entry.publication.clone(),
        channel_id: text(&view.channel_id),
        track_id: text(&view.track_id),
        mem_left: view.free_bytes.unwrap_or(entry.mem_limit.saturating_sub(view.held_bytes)),
        mem_limit: entry.mem_limit,
        last_timestamp: last_timestamp(&view),
        last_created: view.last_created,
        sent_frames: view.frames,
        sent_key_frames: view.keyframes,
        written: view.queued_bytes,
        bitrate: rates.per_second(&Of::TrackBytes(number)).saturating_mul(8),
        frame_rate_hundredths: rates.per_second(&Of::TrackCentiframes(number)),
        media_info,
        upstreams: view.upstreams.iter().map(upstream).collect(),
        strict: entry.strict,
    })
}

fn last_timestamp(view: &KmpSentTrack) -> i64 {
    let per_milli = view.media_info.as_ref().map_or(90, |info| i64::from(info.timescale / 1_000)).max(1);
    view.last_dts / per_milli
}

fn upstream(view: &KmpSentUpstream) -> UpstreamView {
    UpstreamView {
        id: view.id.clone(),
        remote_addr: view.remote_addr,
        local_addr: view.local_addr,
        connection: view.connection,
        required: view.required,
        resume_from: super::convert::resume_from(view.resume_from),
        sent_bytes: view.sent_bytes,
        position: view.position,
        acked_frames: view.acked_frames,
        acked_bytes: view.acked_bytes,
        auto_acked_frames: view.auto_acked_frames,
    }
}

fn traffic(rates: &Measured, of: &Of, bytes: u64) -> Traffic {
    Traffic { bits_per_second: rates.per_second(of).saturating_mul(8), bytes }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    TotalIn,
    TotalOut,
    In(u64),
    Out(u64),
    Audio(u64),
    Video(u64),
    TrackBytes(u64),
    /// Hundred for each frame.
    TrackCentiframes(u64),
}

/// Rates over the last 10 s; 0 before that, as the connector shows them.
#[derive(Clone, Debug)]
pub(super) struct Rates(Arc<Mutex<Measured>>);

#[derive(Debug)]
struct Measured {
    started: Instant,
    counts: BTreeMap<Of, VecDeque<u64>>,
}

impl Measured {
    fn per_second(&self, of: &Of) -> u64 {
        let Some(counts) = self.counts.get(of).filter(|counts| counts.len() == SAMPLES) else { return 0 };
        let (Some(first), Some(last)) = (counts.front(), counts.back()) else { return 0 };
        let seconds = u64::try_from(SAMPLES - 1).unwrap_or(1);
        last.saturating_sub(*first) / seconds
    }
}

impl Rates {
    /// Time between two samples.
    pub(super) const INTERVAL: Duration = Duration::from_secs(1);

    /// Begins now.
    pub(super) fn new() -> Self {
        let measured = Measured { started: Instant::now(), counts: BTreeMap::new() };
        Rates(Arc::new(Mutex::new(measured)))
    }

    /// To be called once per interval.
    pub(super) fn sample(&self, connections: &RtmpConnections, tracks: &Tracks) {
        let totals = connections.totals();
        let mut now = BTreeMap::from([(Of::TotalIn, totals.bytes_in), (Of::TotalOut, totals.bytes_out)]);
        for view in connections.all() {
            let number = view.client.connection;
            now.insert(Of::In(number), view.bytes_in);
            now.insert(Of::Out(number), view.bytes_out);
            if let Some(stream) = view.stream {
                now.insert(Of::Audio(number), stream.audio_bytes);
                now.insert(Of::Video(number), stream.video_bytes);
            }
        }
        for (number, entry) in tracks.all() {
            if let Some(view) = entry.report.view() {
                now.insert(Of::TrackBytes(number), view.queued_bytes);
                now.insert(Of::TrackCentiframes(number), view.frames.saturating_mul(100));
            }
        }
        let mut measured = self.lock();
        measured.counts.retain(|of, _| now.contains_key(of));
        for (of, count) in now {
            let counts = measured.counts.entry(of).or_default();
            counts.push_back(count);
            if counts.len() > SAMPLES {
                counts.pop_front();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Measured> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_shown_after_ten_seconds_and_follows() {
        let measured = |counts: &[u64]| {
            let counts = BTreeMap::from([(Of::TotalIn, counts.iter().copied().collect())]);
            Measured { started: Instant::now(), counts }.per_second(&Of::TotalIn)
        };
        assert_eq!(measured(&[0; 10]), 0);
        let even: Vec<u64> = (0..11).map(|second| second * 250).collect();
        assert_eq!(measured(&even[..10]), 0, "not yet");
        assert_eq!(measured(&even), 250);
    }

    #[tokio::test]
    async fn what_has_gone_is_not_measured_any_more() {
        let (rates, connections, tracks) = (Rates::new(), RtmpConnections::default(), Tracks::default());
        rates.lock().counts.insert(Of::In(7), VecDeque::from([1, 2]));
        for _ in 0..20 {
            rates.sample(&connections, &tracks);
        }
        assert_eq!(rates.lock().counts.len(), 2);
        assert!(rates.lock().counts.values().all(|counts| counts.len() == SAMPLES));
    }
}
