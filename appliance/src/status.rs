//! Puts together what the gateway shows of itself.

mod meter;
mod renditions;

pub use meter::{Meter, Pace};

use crate::clock::timestamp;
use crate::steward::View;
use crate::supervisor::{ChildKey, RenditionKey, Snapshot};
use crate::update::Updates;
use crate::wiring::{Wiring, WorkerView, encoders};
use fieldgate_hub::backlog::Keeping;
use fieldgate_hub::{Mountpoint, StreamState};
use fieldgate_media::TrackKind;
use fieldgate_model::config::{self, Config, Source, Span};
use fieldgate_model::status::{
    Activity, Counters, EncoderStatus, KmpPushStatus, ListenerStatus, MountpointStatus, Notice, PushStatus,
    RecordingStatus, SourceStatus, SpoolStatus, State, Status, StreamStatus, TrackStatus, WatchingStatus,
    WorkerStatus,
};
use fieldgate_model::{Timestamp, config::Push};
use fieldgate_net::{KmpPush, KmpPushReport, PushPhase, PushReport, WatchedReport};
use fieldgate_spool::SpoolReport;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Makes snapshots; cheap enough to be asked every second.
pub struct StatusBoard {
    /// The running things.
    pub wiring: Wiring,
    /// Rates.
    pub meter: Arc<Meter>,
    /// When the program started.
    pub started: Timestamp,
    /// What the start found.
    pub notices: Vec<Notice>,
    /// The machine's firmware.
    pub updates: Updates,
}

impl StatusBoard {
    /// The status as of now.
    pub fn status(&self, view: &View, snapshot: &Snapshot) -> Status {
        let mut notices = self.notices.clone();
        notices.extend(snapshot.stuck.iter().map(|name| Notice {
            code: "stuck".into(),
            text: format!("{name} does not stop and was left behind; a reboot is advised"),
        }));
        notices.extend(self.wiring.spawner.abandoned().into_iter().map(|worker| Notice {
            code: "worker_stuck".into(),
            text: format!(
                "process {} of {} cannot be killed: a driver hangs; its device is left alone, a reboot is advised",
                worker.pid, worker.name
            ),
        }));
        notices.extend(self.wiring.access.notice());
        let encoders = &self.wiring.encoders;
        notices.extend(encoders.notices());
        notices.extend(self.visits());
        notices.extend(self.wiring.machine.notices());
        notices.extend(self.updates.notices());
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            at: timestamp(&self.wiring.context.clock),
            started: self.started,
            config: view.status.clone(),
            listeners: self.listeners(snapshot),
            mountpoints: self.mountpoints(&view.running, snapshot),
            encoder: encoders.found().map(|found| found.status()),
            capacity: self.wiring.capacity.status(),
            workers: self.workers(snapshot),
            elsewhere: self.wiring.board.elsewhere(),
            update: self.updates.last(),
            notices,
        }
    }

    /// Cameras that a person has to look after.
    fn visits(&self) -> Vec<Notice> {
        let mountpoints = self.wiring.context.registry.all();
        let notice = |mountpoint: &Arc<Mountpoint>| {
            let name = mountpoint.name();
            let advice = self.wiring.sight.pictures.ladder(name)?.advice?;
            Some(Notice { code: "picture".into(), text: format!("{name}: {advice}") })
        };
        mountpoints.iter().filter_map(notice).collect()
    }

    fn listeners(&self, snapshot: &Snapshot) -> BTreeMap<String, ListenerStatus> {
        let mut listeners: BTreeMap<String, ListenerStatus> = BTreeMap::new();
        let addresses = self.wiring.board.addresses();
        let counts = self.wiring.limits.counts();
        for (key, activity) in &snapshot.children {
            let kind = match key {
                ChildKey::Admin => "admin",
                ChildKey::RtmpListener { .. } => "rtmp",
                ChildKey::RtmpsListener { .. } => "rtmps",
                ChildKey::KmpListener { .. } => "kmp",
                ChildKey::KmpsListener { .. } => "kmps",
                ChildKey::HttpListener { .. } => "http",
                ChildKey::HttpsListener { .. } => "https",
                ChildKey::KmpApi { .. } => "kmp_api",
                ChildKey::AggregatorApi { .. } => "aggregator",
                ChildKey::AggregatorStat { .. } => "aggregator_stat",
                ChildKey::MeshNode => "mesh_node",
                ChildKey::Coordinator => "coordinator",
                _ => continue,
            };
            let listener = listeners
                .entry(kind.to_owned())
                .or_insert_with(|| ListenerStatus { activity: activity.clone(), ..Default::default() });
            // Of several the worst is shown.
            if activity.state != State::Running {
                listener.activity = activity.clone();
            }
            listener.addresses.extend(addresses.get(key).into_iter().flatten());
            if kind == "admin" {
                let load = self.wiring.board.admin_load();
                (listener.connections, listener.refused) = (load.connections as u64, load.refused);
            }
            if kind == "rtmp" {
                listener.connections = counts.open as u64;
                listener.refused = self.wiring.rtmp_counters.refused.load(Ordering::Relaxed);
            }
            if kind == "http" || kind == "https" {
                // Of all viewers' listeners together.
                let counts = self.wiring.viewers.limits().counts();
                listener.connections = counts.open as u64;
                listener.refused = counts.refused_total + counts.refused_per_address;
            }
            if kind == "kmp" || kind == "kmps" {
                // Of all KMP listeners together.
                listener.connections = self.wiring.kmp_in.limits.counts().open as u64;
                listener.refused = self.wiring.kmp_in.counters.refused.load(Ordering::Relaxed);
            }
        }
        listeners
    }

    fn mountpoints(&self, config: &Config, snapshot: &Snapshot) -> BTreeMap<String, MountpointStatus> {
        let configured = config.mountpoints.iter().filter(|(name, _)| !name.ends_with('*'));
        let configured = configured.map(|(name, settings)| (name.as_str(), None, settings));
        let instances = snapshot.instances.iter().filter_map(|(name, template)| {
            Some((name.as_str(), Some(template.clone()), config.mountpoints.get(template)?))
        });
        let all = configured.chain(instances);
        all.map(|(name, template, settings)| {
            (name.to_owned(), self.mountpoint(name, template, settings, snapshot))
        })
        .collect()
    }

    fn mountpoint(
        &self,
        name: &str,
        template: Option<String>,
        settings: &config::Mountpoint,
        snapshot: &Snapshot,
    ) -> MountpointStatus {
        let mountpoint = self.wiring.context.registry.get(name);
        let pace = self.meter.pace(name);
        let reports = self.wiring.board.pushes();
        let kmp_reports = self.wiring.board.kmp_pushes();
        let pushes: BTreeMap<String, PushStatus> = settings
            .push
            .iter()
            .map(|push| {
                let id = push.effective_id();
                let key = ChildKey::Push { mountpoint: name.to_owned(), id: id.clone() };
                let reports = (reports.get(&key), kmp_reports.get(&key));
                let spool = self.wiring.spool.reports();
                let spool = spool.iter().filter(|one| one.key.mountpoint == name && one.key.upstream == id);
                let spool = spool.map(|one| (one.key.track.clone(), spool_status(one))).collect();
                let mut status = push_status(push, name, snapshot.children.get(&key), reports, spool);
                self.tell_way(name, &id, snapshot, &mut status);
                (id, status)
            })
            .collect();
        let renditions = self.renditions(name, snapshot);
        let ring = mountpoint.as_ref().map(|mountpoint| mountpoint.ring().counters()).unwrap_or_default();
        let reads = |push: &PushStatus| match push.kmp {
            Some(_) => KmpPush::SUBSCRIBERS,
            None => u64::from(push.activity.state == State::Running),
        };
        let watched = self.wiring.viewers.report(name);
        let sizes = self.wiring.sizes.of(name);
        let own = pushes.values().filter(|push| push.rendition.is_none());
        let pushed = own.map(reads).sum::<u64>()
            + renditions.values().filter(|rendition| rendition.stream.is_some()).count() as u64
            + u64::from(watched.is_some_and(|watched| watched.is_cut))
            + sizes.len() as u64
            + u64::from(self.wiring.viewers.recordings().of(name).is_some());
        MountpointStatus {
            template,
            source: self.source(name, &settings.source, mountpoint.as_deref(), snapshot),
            stream: mountpoint.as_deref().and_then(|mountpoint| stream_status(mountpoint, &pace)),
            picture: self.wiring.sight.pictures.picture(name),
            players: u32::try_from(ring.subscribers.saturating_sub(pushed)).unwrap_or(u32::MAX),
            watching: watched.map(|watched| watching_status(watched, sizes)),
            recording: self.recording(name, settings, snapshot),
            pushes,
            renditions,
            counters: Counters {
                units: ring.units,
                bytes: ring.bytes,
                dropped_units: ring.dropped_units,
                jumps: ring.jumps,
                malformed_units: mountpoint.as_ref().map_or(0, |mountpoint| mountpoint.malformed_units()),
                clock_jumps: mountpoint.as_ref().map_or(0, |mountpoint| mountpoint.clock_jumps()),
                stalled_subscribers: mountpoint
                    .as_ref()
                    .map_or(0, |mountpoint| mountpoint.stalled_subscribers()),
            },
        }
    }

    fn recording(
        &self,
        name: &str,
        settings: &config::Mountpoint,
        snapshot: &Snapshot,
    ) -> Option<RecordingStatus> {
        settings.record.as_ref()?;
        let activity =
            snapshot.children.get(&ChildKey::Recorder(name.to_owned())).cloned().unwrap_or_default();
        let report =
            self.wiring.viewers.recordings().of(name).map(|shelf| shelf.report()).unwrap_or_default();
        let time = |micros: i64| Timestamp::from_unix_millis(micros / 1_000);
        Some(RecordingStatus {
            activity,
            segments: report.segments,
            bytes: report.bytes,
            oldest: report.oldest.map(time),
            newest: report.newest.map(time),
            written_bytes: report.written_bytes,
            lost_segments: report.lost,
            mended_files: report.mended,
            trouble: report.trouble,
        })
    }

    fn source(
        &self,
        name: &str,
        source: &Source,
        mountpoint: Option<&Mountpoint>,
        snapshot: &Snapshot,
    ) -> SourceStatus {
        let worker = self.wiring.board.workers().remove(name);
        SourceStatus {
            kind: source.kind().to_owned(),
            from: mountpoint.and_then(Mountpoint::publisher).map(|publisher| publisher.from),
            activity: self.source_activity(name, snapshot),
            described: worker
                .as_ref()
                .map(|worker| worker.report.status.source.clone())
                .filter(|source| !source.is_empty()),
            refused: worker.as_ref().and_then(|worker| worker.report.status.refused.clone()),
            microphone: worker.as_ref().and_then(|worker| worker.report.status.microphone.clone()),
            refused_packets: worker.as_ref().and_then(|worker| worker.report.status.refused_packets.clone()),
            encoder: worker.and_then(|worker| self.encoder(&worker)),
            ladder: self.wiring.sight.pictures.ladder(name),
            kmp: match source {
                Source::Kmp(_) => self.wiring.kmp_in.tracks(name),
                _ => BTreeMap::new(),
            },
        }
    }

    /// One that is left out is ready and does nothing; why is its cause.
    fn source_activity(&self, name: &str, snapshot: &Snapshot) -> Option<Activity> {
        let mut activity = snapshot.children.get(&ChildKey::Source(name.to_owned())).cloned()?;
        let standing = self.wiring.capacity.standing().borrow().clone();
        if let Some(shed) = standing.shed_reason(name, None) {
            activity.state = State::Waiting;
            activity.cause = Some(format!("left out: {}", shed.reason));
        }
        if let Some(missing) = self.wiring.board.missing(name) {
            activity.state = State::Waiting;
            activity.cause = Some(missing);
        }
        Some(activity)
    }

    /// The encoder that a worker uses, with what was seen when it was found.
    fn encoder(&self, worker: &WorkerView) -> Option<EncoderStatus> {
        let used = encoders::status_of(&worker.report.status.encoders)?;
        let found = self.wiring.encoders.found().filter(|found| found.name == used.name);
        Some(found.map_or(used, |found| found.status()))
    }

    fn workers(&self, snapshot: &Snapshot) -> BTreeMap<String, WorkerStatus> {
        let workers = self.wiring.board.workers().into_iter();
        workers
            .map(|(name, worker)| {
                let key = match name.split_once('~') {
                    Some((of, name)) => {
                        ChildKey::Rendition(RenditionKey { of: of.into(), name: name.into() })
                    }
                    None => ChildKey::Source(name.clone()),
                };
                let activity = snapshot.children.get(&key).cloned().unwrap_or_default();
                let gaps = worker.report.status.sandbox.iter().filter(|guard| !guard.on);
                let status = WorkerStatus {
                    pid: worker.report.pid,
                    activity,
                    memory_bytes: worker.report.usage.pss_bytes,
                    pulse_age: Span::from_millis(
                        u64::try_from(worker.at.elapsed().as_millis()).unwrap_or(u64::MAX),
                    ),
                    sandbox_gaps: gaps.map(|guard| format!("{}: {}", guard.name, guard.note)).collect(),
                };
                (name, status)
            })
            .collect()
    }
}

fn stream_status(mountpoint: &Mountpoint, pace: &Pace) -> Option<StreamStatus> {
    let live = matches!(*mountpoint.state().borrow(), StreamState::Live(_));
    let publisher = mountpoint.publisher().filter(|_| live)?;
    let tracks = mountpoint.ring().tracks();
    let tracks = tracks.iter().map(|track| TrackStatus {
        kind: match track.kind() {
            TrackKind::Video => "video".to_owned(),
            TrackKind::Audio => "audio".to_owned(),
        },
        codec: track.codec.name().to_owned(),
        width: track.video.width,
        height: track.video.height,
        frame_rate: track.video.frame_rate,
        sample_rate: track.audio.sample_rate,
        channels: track.audio.channels,
    });
    Some(StreamStatus {
        publisher: publisher.from,
        since: Timestamp::from_unix_millis(publisher.since_unix_micros / 1000),
        tracks: tracks.collect(),
        bitrate: pace.bitrate,
        newest_unit_age: Span::from_millis(u64::try_from(pace.idle.as_millis()).unwrap_or(u64::MAX)),
    })
}

fn watching_status(report: WatchedReport, sizes: Vec<String>) -> WatchingStatus {
    WatchingStatus {
        sizes,
        viewers: report.viewers,
        is_cut: report.is_cut,
        segments: report.segments,
        held_bytes: report.held_bytes,
        answers: report.answers,
        sent_bytes: report.sent_bytes,
        lost_units: report.lost_units,
    }
}

fn push_status(
    push: &Push,
    name: &str,
    activity: Option<&Activity>,
    (rtmp, kmp): (Option<&Arc<PushReport>>, Option<&KmpPushReport>),
    spool: BTreeMap<String, SpoolStatus>,
) -> PushStatus {
    let mut activity = activity.cloned().unwrap_or_default();
    if activity.state == State::Running {
        let phase = rtmp.map(|report| report.phase()).or(kmp.map(KmpPushReport::phase));
        activity.state = match phase {
            Some(PushPhase::Delivering) => State::Running,
            Some(PushPhase::Connecting) => State::Starting,
            Some(PushPhase::Waiting) | None => State::Waiting,
        };
    }
    PushStatus {
        url: push.url.redacted().replace("{name}", name),
        enabled: push.enabled,
        activity,
        counters: match (rtmp, kmp.map(KmpPushReport::totals)) {
            (Some(report), _) => Counters {
                units: report.sent_units(),
                bytes: report.sent_bytes(),
                dropped_units: report.dropped_units(),
                jumps: report.jumps(),
                ..Counters::default()
            },
            (None, Some(totals)) => Counters {
                units: totals.frames,
                bytes: totals.sent_bytes,
                dropped_units: totals.lost_frames + totals.left_out_units,
                ..Counters::default()
            },
            (None, None) => Counters::default(),
        },
        kmp: kmp.map(kmp_status),
        rendition: None,
        spool,
    }
}

fn spool_status(report: &SpoolReport) -> SpoolStatus {
    let oldest = (report.held.frames > 0).then_some(report.held.oldest_unix_micros / 1000);
    SpoolStatus {
        frames: report.held.frames,
        bytes: report.held.bytes,
        oldest: oldest.map(Timestamp::from_unix_millis),
        trouble: match report.keeping {
            Keeping::MemoryInstead(cause) => Some(cause.as_str().to_owned()),
            Keeping::Memory | Keeping::Disk => None,
        },
        appended_bytes: report.appended_bytes,
        written_bytes: report.written_bytes,
        flash_bytes_per_day: report.flash_bytes_per_day,
    }
}

fn kmp_status(report: &KmpPushReport) -> KmpPushStatus {
    let totals = report.totals();
    KmpPushStatus {
        acked_frames: totals.acked_frames,
        unconfirmed_frames: totals.sent_frames,
        unacked_frames: report.unacked_frames(),
        lost_frames: totals.lost_frames,
        connections: totals.connections,
        error: report.error(),
    }
}

/// How often rates are taken.
pub const METER_EVERY: Duration = Duration::from_secs(1);
