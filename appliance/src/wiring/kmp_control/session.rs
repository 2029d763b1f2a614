//! One RTMP connection under a controller: its callbacks, and the KMP tracks of what it publishes.

use super::calls::Controller;
use super::convert;
use super::publication::{self, Moment, Moments};
use super::streams::{Name, Place};
use super::tracks::{TrackEntry, Tracks};
use fieldgate_compat::CallOutcome;
use fieldgate_compat::kmp_control::{CallId, MediaKind, Output, Publication, Reason, Session, TrackKey};
use fieldgate_hub::{
    Clock, ConnectTerms, ConnectVerdict, LedgerKeeper, Mountpoint, RtmpClient, RtmpSession, Shard,
};
use fieldgate_model::config::KmpApplication;
use fieldgate_net::{KmpShared, KmpTrackReport, RtmpConnections, TrackAsk, TrackCommand};
use fieldgate_proto::kmp::sender::UpstreamKey;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Questions that may wait for a session.
pub(super) const INBOX: usize = 8;
/// How long a session may still talk to its controller when the gateway stops.
const LAST_CALLS: Duration = Duration::from_secs(3);

/// Reaches a track's sender.
pub(super) type Commands = mpsc::Sender<TrackCommand>;

/// What a session is asked.
pub(super) enum Ask {
    /// Its peer is about to publish on this mountpoint; answered when nothing of it can be missed any more.
    Expect {
        /// Where.
        mountpoint: Arc<Mountpoint>,
        /// Its media thread.
        shard: Shard,
        /// Name and mountpoint, if they are there for this publication alone.
        place: Option<(Name, Place)>,
        /// Told when it is ready.
        ready: oneshot::Sender<()>,
    },
    /// The last upstream of a track was removed through the API.
    LastRemoved {
        /// The track's number there.
        number: u64,
    },
}

type Calls = FuturesUnordered<Pin<Box<dyn Future<Output = (CallId, Option<CallOutcome>)> + Send>>>;

/// One kind of media of a publication.
struct Track {
    commands: Commands,
    report: KmpTrackReport,
    /// Once its first frame has come: its name towards the controller, its number in the API.
    known: Option<(TrackKey, u64)>,
}

/// What the peer publishes.
struct Published {
    mountpoint: Arc<Mountpoint>,
    session: Option<Arc<RtmpSession>>,
    /// Freed when it has ended.
    name: Option<Name>,
    tracks: BTreeMap<MediaKind, Track>,
    has_ended: bool,
}

/// The task of one connection.
pub(super) struct SessionTask {
    pub(super) application: Arc<KmpApplication>,
    pub(super) controller: Arc<Controller>,
    pub(super) client: Arc<RtmpClient>,
    pub(super) connections: RtmpConnections,
    pub(super) tracks: Arc<Tracks>,
    pub(super) ledger: Arc<dyn LedgerKeeper>,
    pub(super) clock: Clock,
    /// Numbers the connections to upstreams.
    pub(super) serial: Arc<AtomicU64>,
    pub(super) inbox: mpsc::Receiver<Ask>,
    /// Waits for the answer to `connect`.
    pub(super) connect: Option<oneshot::Sender<ConnectVerdict>>,
    pub(super) cancel: CancellationToken,
}

struct Running {
    task: SessionTask,
    core: Session,
    calls: Calls,
    cancels: BTreeMap<CallId, CancellationToken>,
    moments: Moments,
    publications: BTreeMap<u32, Published>,
    next_publication: u32,
}

impl SessionTask {
    /// Runs until the connection is gone and all is said.
    pub(super) async fn run(self) {
        let gone = self.connections.gone(self.client.connection);
        let cancel = self.cancel.clone();
        let mut running = Running {
            core: Session::new((&*self.application).into()),
            task: self,
            calls: FuturesUnordered::new(),
            cancels: BTreeMap::new(),
            moments: Moments::default(),
            publications: BTreeMap::new(),
            next_publication: 0,
        };
        running.core.connect(&convert::client(&running.task.client));
        let mut is_gone = false;
        let mut stop_at = None;
        loop {
            running.do_all();
            if is_gone && running.core.is_idle() && running.publications.is_empty() {
                return;
            }
            let due = running.core.next_timeout().map(Instant::from_std);
            tokio::select! {
                Some((call, outcome)) = running.calls.next() => running.on_reply(call, outcome),
                Some((publication, moment)) = running.moments.next() => running.on_moment(publication, moment),
                Some(ask) = running.task.inbox.recv() => running.on_ask(ask),
                () = sleep_until(due), if due.is_some() => running.core.handle_timeout(now()),
                () = gone.cancelled(), if !is_gone => {
                    is_gone = true;
                    running.on_gone();
                }
                () = cancel.cancelled(), if stop_at.is_none() => {
                    stop_at = Some(Instant::now() + LAST_CALLS);
                    running.task.connections.drop_connection(running.task.client.connection);
                }
                () = sleep_until(stop_at), if stop_at.is_some() => return,
            }
        }
    }
}

impl Running {
    fn do_all(&mut self) {
        while let Some(output) = self.core.poll_output() {
            self.do_one(output);
        }
    }

    fn do_one(&mut self, output: Output) {
        let number = self.task.client.connection;
        match output {
            Output::Call { call, callback, body } => {
                debug!(connection = number, callback = callback.name(), "calling the controller");
                let (controller, cancelled) = (self.task.controller.clone(), CancellationToken::new());
                self.cancels.insert(call, cancelled.clone());
                self.calls.push(Box::pin(async move {
                    let calling = controller.call(callback, body.to_vec());
                    (call, cancelled.run_until_cancelled(calling).await)
                }));
            }
            Output::Cancel { call } => {
                if let Some(cancelled) = self.cancels.remove(&call) {
                    cancelled.cancel();
                }
            }
            Output::TryFailed { callback, track, error, retry_in } => {
                let (app, callback) = (&self.task.client.app, callback.name());
                let track = track.and_then(|key| self.find(key)).map(|(_, kind)| kind.name());
                warn!(app, connection = number, callback, track, %error, ?retry_in, "callback failed");
            }
            Output::Admit => self.answer(ConnectVerdict::Accept(self.terms())),
            Output::Deny { text } => {
                let keep_open = self.task.application.strict;
                self.answer(ConnectVerdict::Refuse { text, keep_open, terms: self.terms() });
            }
            Output::Published { track, channel_id, track_id, upstreams } => {
                let (channel_id, track_id) = (convert::name(&channel_id), convert::name(&track_id));
                let upstreams = upstreams.iter().map(convert::upstream).collect();
                self.command(track, TrackCommand::Published { channel_id, track_id, upstreams });
            }
            Output::Republished { track, upstream, place } => {
                let (upstream, url) = (UpstreamKey(upstream), place.url.to_string());
                let connect_data = place.connect_data;
                self.command(track, TrackCommand::Republished { upstream, url, connect_data });
            }
            Output::RepublishFailed { track, upstream } => {
                self.command(track, TrackCommand::RepublishFailed(UpstreamKey(upstream)));
            }
            Output::EndTrack { track, reason } => self.command(track, convert::end(reason)),
            // Of a track that was never sent anywhere nobody has told the sender.
            Output::TrackDone { track } => self.command(track, convert::end(Reason::RtmpClose)),
            Output::DropSession { reason } => {
                info!(
                    connection = number,
                    reason = reason.name(),
                    "RTMP connection ended by its KMP session"
                );
                self.task.connections.drop_connection(number);
            }
        }
    }

    fn terms(&self) -> ConnectTerms {
        let idle = self.task.application.idle_timeout.get();
        ConnectTerms {
            idle_timeout: (!idle.is_zero()).then_some(idle),
            end_on_bad_media: self.task.application.strict,
        }
    }

    fn answer(&mut self, verdict: ConnectVerdict) {
        if let Some(connect) = self.task.connect.take() {
            // The peer may have left.
            connect.send(verdict).ok();
        }
    }

    /// The publication and kind of a track that the controller knows.
    fn find(&self, key: TrackKey) -> Option<(u32, MediaKind)> {
        self.publications.iter().find_map(|(number, published)| {
            let of_key = |track: &&Track| track.known.is_some_and(|(known, _)| known == key);
            let (kind, _) = published.tracks.iter().find(|(_, track)| of_key(track))?;
            Some((*number, *kind))
        })
    }

    fn command(&self, key: TrackKey, command: TrackCommand) {
        let Some((publication, kind)) = self.find(key) else { return };
        let track = self.publications.get(&publication).and_then(|published| published.tracks.get(&kind));
        if let Some(track) = track {
            self.send(track, command);
        }
    }

    fn send(&self, track: &Track, command: TrackCommand) {
        if let Err(mpsc::error::TrySendError::Full(_)) = track.commands.try_send(command) {
            let connection = self.task.client.connection;
            warn!(connection, "a KMP track does not take its commands; its connection is ended");
            self.task.connections.drop_connection(connection);
        }
    }

    fn on_reply(&mut self, call: CallId, outcome: Option<CallOutcome>) {
        self.cancels.remove(&call);
        if let Some(outcome) = outcome {
            self.core.handle_reply(call, &outcome, now());
        }
    }

    fn on_ask(&mut self, ask: Ask) {
        let (mountpoint, shard, place, ready) = match ask {
            Ask::Expect { mountpoint, shard, place, ready } => (mountpoint, shard, place, ready),
            Ask::LastRemoved { number } => {
                let tracks = self.publications.values().flat_map(|published| published.tracks.values());
                let known = tracks.filter_map(|track| track.known).find(|(_, known)| *known == number);
                if let Some((key, _)) = known {
                    self.core.upstreams_gone(key);
                }
                return;
            }
        };
        let number = self.next_publication;
        self.next_publication += 1;
        let application = &self.task.application;
        let shared = KmpShared {
            mountpoint: mountpoint.clone(),
            dialer: convert::dialer(application, &self.task.controller, &self.task.serial),
            clock: self.task.clock.clone(),
            ledger: self.task.ledger.clone(),
            cancel: CancellationToken::new(),
        };
        let settings = |kind| convert::track_settings(application, kind);
        let connection = self.task.client.connection;
        let (video, audio) = (settings(MediaKind::Video), settings(MediaKind::Audio));
        let (job, handles) = publication::start(connection, shared, video, audio, application.log_frames);
        let (name, place) = place.unzip();
        self.moments.run(number, job, shard, place, ready);
        let mut tracks = BTreeMap::new();
        for (kind, handle, report) in handles {
            self.moments.listen(number, kind, handle.asks);
            tracks.insert(kind, Track { commands: handle.commands, report, known: None });
        }
        let published = Published { mountpoint, session: None, name, tracks, has_ended: false };
        self.publications.insert(number, published);
    }

    fn on_moment(&mut self, number: u32, moment: Moment) {
        match moment {
            Moment::Began(session) => {
                if let Some(published) = self.publications.get_mut(&number) {
                    published.session = Some(session);
                }
            }
            Moment::Ended => self.end_publication(number),
            Moment::Asked(kind, ask) => self.on_track(number, kind, ask),
            Moment::Over => {
                // Its tracks have told so before, unless their media thread is gone.
                let Some(published) = self.publications.remove(&number) else { return };
                for (key, of_api) in published.tracks.values().filter_map(|track| track.known) {
                    self.core.finish_track(key, Reason::RtmpDisconnect);
                    self.task.tracks.remove(of_api);
                }
            }
        }
    }

    fn on_track(&mut self, number: u32, kind: MediaKind, ask: TrackAsk) {
        match ask {
            TrackAsk::Publish { media_info } => self.on_first_frame(number, kind, &media_info),
            TrackAsk::Republish { upstream, id, media_info, .. } => {
                let info = media_info.as_ref().and_then(convert::media_info);
                if let (Some((key, _)), Some(info)) = (self.known(number, kind), info) {
                    self.core.republish(key, upstream.0, &id, &info);
                }
            }
            TrackAsk::Unpublish { reason } => {
                if let Some((key, of_api)) = self.known(number, kind) {
                    self.core.finish_track(key, convert::reason(reason));
                    self.task.tracks.remove(of_api);
                }
            }
            TrackAsk::DropSession { reason } => {
                if let Some((key, _)) = self.known(number, kind) {
                    self.core.fail_track(key, convert::reason(reason));
                }
            }
        }
    }

    fn on_first_frame(&mut self, number: u32, kind: MediaKind, info: &fieldgate_proto::kmp::MediaInfo) {
        let Some(published) = self.publications.get_mut(&number) else { return };
        let Some(track) = published.tracks.get_mut(&kind) else { return };
        // The first frame may be faster than the news that it has begun.
        let now = || published.mountpoint.publisher().and_then(|publisher| publisher.rtmp);
        let session = published.session.clone().or_else(now);
        let publication: Option<Arc<Publication>> = session.map(|session| convert::publication(&session));
        let started = publication.zip(convert::media_info(info)).and_then(|(publication, info)| {
            let key = self.core.start_track(&publication, &info)?;
            Some((key, publication))
        });
        let Some((key, publication)) = started else {
            track.commands.try_send(convert::end(Reason::Unexpected)).ok();
            return;
        };
        let entry = TrackEntry {
            publication,
            kind,
            connection: self.task.client.connection,
            report: track.report.clone(),
            commands: track.commands.clone(),
            strict: self.task.application.strict,
            mem_limit: convert::mem_limit(&self.task.application, kind),
            is_live: true,
        };
        track.known = Some((key, self.task.tracks.add(entry)));
        if published.has_ended {
            let reason = convert::reason_of(published.session.as_ref().and_then(|session| session.ended()));
            self.core.end_track(key, reason);
        }
    }

    fn known(&self, number: u32, kind: MediaKind) -> Option<(TrackKey, u64)> {
        self.publications.get(&number)?.tracks.get(&kind)?.known
    }

    /// The peer has ended this stream, or was ended: every track gets its reason, also those that nobody knows yet.
    fn end_publication(&mut self, number: u32) {
        let Some(published) = self.publications.get_mut(&number).filter(|published| !published.has_ended)
        else {
            return;
        };
        published.has_ended = true;
        published.name = None;
        let reason = convert::reason_of(published.session.as_ref().and_then(|session| session.ended()));
        let mut unknown = Vec::new();
        let mut known = Vec::new();
        for track in published.tracks.values() {
            match track.known {
                Some((key, of_api)) => {
                    known.push(key);
                    self.task.tracks.ended(of_api);
                }
                None => unknown.push(track.commands.clone()),
            }
        }
        // What made no sense was pictures: of sound there is no message too short.
        match (reason, known.first()) {
            (Reason::RtmpBadData, Some(first)) => self.core.fail_track(*first, reason),
            _ => known.iter().for_each(|key| self.core.end_track(*key, reason)),
        }
        for commands in unknown {
            commands.try_send(convert::end(reason)).ok();
        }
    }

    fn on_gone(&mut self) {
        let numbers: Vec<u32> = self.publications.keys().copied().collect();
        numbers.into_iter().for_each(|number| self.end_publication(number));
        self.core.end(Reason::RtmpDisconnect);
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
