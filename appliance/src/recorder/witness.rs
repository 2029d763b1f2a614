//! Tells from one status to the next what happened. Pure: it is handed what there is, and says what to record.
//!
//! What flaps is told [`OFTEN`] times an hour and then counted, so that one bad camera cannot push out all else.

use super::outage::Outage;
use super::probe::Reach;
use fieldgate_model::status::{Activity, ConfigPhase, MountpointStatus, PushStatus, State, Status};
use fieldgate_model::{Cause, Event, EventKind, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Events of one kind about one thing in an hour; more are counted.
const OFTEN: u32 = 12;
const HOUR_MILLIS: i64 = 3_600_000;
/// Things whose events are counted, before all is forgotten.
const COUNTED: usize = 4_096;

/// What came of a look.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Seen {
    /// To be recorded, in this order.
    pub(super) events: Vec<Event>,
    /// Mountpoints whose source is to be looked for in the network.
    pub(super) missing: Vec<String>,
}

/// Remembers how things were.
#[derive(Debug, Default)]
pub(super) struct Witness {
    is_begun: bool,
    revision: u64,
    pending: Option<Timestamp>,
    undone: Option<Timestamp>,
    streams: BTreeMap<String, Stream>,
    pushes: BTreeMap<(String, String), Line>,
    listeners: BTreeSet<String>,
    notices: BTreeSet<(String, String)>,
    capacity_event: u64,
    is_claimed: bool,
    often: HashMap<(EventKind, Option<String>, Option<String>), Often>,
}

#[derive(Debug, Default)]
struct Stream {
    /// When it delivered last, and since when it then did.
    delivered: Option<(Timestamp, Timestamp)>,
    outage: Option<Outage>,
    trouble: String,
    verdict: String,
    steps: usize,
    last_step: (Timestamp, String),
}

#[derive(Debug, Default)]
struct Line {
    has_delivered: bool,
    last_at: Timestamp,
    outage: Option<Outage>,
    trouble: String,
    lost: u64,
}

#[derive(Debug, Default)]
struct Often {
    since: i64,
    told: u32,
    untold: u64,
}

impl Witness {
    /// How things are now.
    pub(super) fn look(&mut self, status: &Status, is_claimed: bool) -> Seen {
        let mut seen = Seen::default();
        self.config(status, &mut seen.events);
        if is_claimed && !self.is_claimed && self.is_begun {
            seen.events.push(Event::new(EventKind::Claimed, "somebody claimed the gateway"));
        }
        self.is_claimed = is_claimed;
        for (name, mountpoint) in &status.mountpoints {
            let stream = self.streams.entry(name.clone()).or_default();
            stream.look(name, mountpoint, status.at, &mut seen);
            for (id, push) in mountpoint.pushes.iter().filter(|(_, push)| push.enabled) {
                let line = self.pushes.entry((name.clone(), id.clone())).or_default();
                line.look(name, id, push, status.at, &mut seen.events);
            }
        }
        self.streams.retain(|name, _| status.mountpoints.contains_key(name));
        self.pushes.retain(|(name, id), _| {
            let mountpoint = status.mountpoints.get(name);
            mountpoint.is_some_and(|it| it.pushes.get(id).is_some_and(|push| push.enabled))
        });
        self.listeners(status, &mut seen.events);
        self.notices(status, &mut seen.events);
        self.is_begun = true;
        seen.events = self.thinned(seen.events, status.at);
        seen
    }

    /// What was found when the source of a mountpoint was looked for.
    pub(super) fn probed(&mut self, name: &str, reach: Reach) -> Option<Event> {
        let outage = self.streams.get_mut(name)?.outage.as_mut()?;
        let event = Event::new(EventKind::SourceProbed, reach.text()).of(name);
        let event = reach.cause().map_or(event.clone(), |cause| event.because(cause));
        outage.reach = Some(reach);
        Some(event)
    }

    fn config(&mut self, status: &Status, events: &mut Vec<Event>) {
        let config = &status.config;
        let by = |by: &str| if by.is_empty() { "the gateway".to_owned() } else { by.to_owned() };
        if self.is_begun && config.revision != self.revision {
            let text = format!("config {} is in force, by {}", config.revision, by(&config.changed_by));
            events.push(Event::new(EventKind::ConfigConfirmed, text));
        }
        self.revision = config.revision;
        let pending = config.pending.as_ref().filter(|_| config.phase == ConfigPhase::AwaitingConfirm);
        if let Some(pending) = pending.filter(|it| self.pending != Some(it.deadline)) {
            let text =
                format!("a change by {} runs and goes back unless it is confirmed in time", by(&pending.by));
            events.push(Event::new(EventKind::ConfigTried, text));
        }
        self.pending = pending.map(|pending| pending.deadline);
        let undone = config.rolled_back.as_ref();
        if let Some(undone) = undone.filter(|it| self.is_begun && self.undone != Some(it.at)) {
            let causes: Vec<String> = undone.causes.iter().take(3).map(ToString::to_string).collect();
            let text = format!("the change by {} was undone: {}", by(&undone.by), causes.join("; "));
            events.push(Event::new(EventKind::ConfigUndone, text).because(Cause::Settings));
        }
        self.undone = undone.map(|undone| undone.at);
    }

    fn listeners(&mut self, status: &Status, events: &mut Vec<Event>) {
        for (kind, listener) in &status.listeners {
            let is_down = matches!(listener.activity.state, State::Retrying | State::Failed);
            if is_down && self.listeners.insert(kind.clone()) {
                let cause = listener.activity.cause.clone().unwrap_or_default();
                events.push(Event::new(
                    EventKind::ListenerLost,
                    format!("{kind} is not listened for: {cause}"),
                ));
            }
            if listener.activity.state == State::Running && self.listeners.remove(kind) {
                events.push(Event::new(EventKind::ListenerBack, format!("{kind} is listened for again")));
            }
        }
        self.listeners.retain(|kind| status.listeners.contains_key(kind));
    }

    fn notices(&mut self, status: &Status, events: &mut Vec<Event>) {
        let now: BTreeSet<(String, String)> =
            status.notices.iter().map(|notice| (notice.code.clone(), notice.text.clone())).collect();
        let new = now.iter().filter(|notice| !self.notices.contains(*notice));
        events.extend(new.map(|(_, text)| Event::new(EventKind::Notice, text.clone())));
        self.notices = now;
        let capacity = status.capacity.events.iter().filter(|event| event.id > self.capacity_event);
        events.extend(capacity.cloned());
        self.capacity_event = status.capacity.events.last().map_or(self.capacity_event, |event| event.id);
    }

    fn thinned(&mut self, events: Vec<Event>, at: Timestamp) -> Vec<Event> {
        if self.often.len() > COUNTED {
            self.often.clear();
        }
        let often = &mut self.often;
        let told = events.into_iter().filter_map(|mut event| {
            let key = (event.kind, event.mountpoint.clone(), event.upstream.clone());
            let often = often.entry(key).or_default();
            let now = at.unix_millis();
            if now < often.since || now - often.since >= HOUR_MILLIS {
                (often.since, often.told) = (now, 0);
            }
            if often.told >= OFTEN {
                often.untold += 1;
                return None;
            }
            often.told += 1;
            let untold = std::mem::take(&mut often.untold);
            if untold > 0 {
                event.text.push_str(&format!(" ({untold} more like this were not told)"));
            }
            Some(event)
        });
        told.collect()
    }
}

impl Stream {
    fn look(&mut self, name: &str, status: &MountpointStatus, at: Timestamp, seen: &mut Seen) {
        let kind = status.source.kind.as_str();
        let verdict = status.picture.as_ref().map_or("ok", |picture| picture.verdict.as_str());
        let stream = status.stream.as_ref().filter(|_| verdict != "dead");
        let activity = status.source.activity.as_ref();
        match stream {
            Some(stream) => {
                let age = stream.newest_unit_age.get();
                let age = i64::try_from(age.as_millis()).unwrap_or(0);
                let last = Timestamp::from_unix_millis(at.unix_millis().saturating_sub(age));
                match self.outage.take() {
                    Some(outage) if self.delivered.is_none() => {
                        let text = format!("delivers, from {}", stream.publisher);
                        let told =
                            outage.told().iter().map(|it| format!("; before: {it}")).collect::<String>();
                        seen.events.push(Event::new(EventKind::StreamBegan, text + &told).of(name));
                    }
                    Some(outage) => {
                        seen.events.push(back(name, kind, &outage, stream.since.max(outage.since)))
                    }
                    None if self.delivered.is_none_or(|(_, since)| since != stream.since) => {
                        let text = format!("delivers, from {}", stream.publisher);
                        seen.events.push(Event::new(EventKind::StreamBegan, text).of(name));
                    }
                    None => {}
                }
                self.delivered = Some((last, stream.since));
                self.trouble.clear();
            }
            None => {
                if let Some((last, _)) = self.delivered.filter(|_| self.outage.is_none()) {
                    let who = noun(kind);
                    let text = match (kind, activity.and_then(|it| it.cause.as_deref())) {
                        ("publish", _) => format!("{who} is gone"),
                        (_, Some(cause)) if is_troubled(activity) => {
                            format!("{who} stopped sending: {cause}")
                        }
                        _ => format!("{who} stopped sending"),
                    };
                    seen.events.push(Event::new(EventKind::StreamLost, text).of(name));
                    seen.missing.push(name.to_owned());
                    self.outage = Some(Outage::new(last));
                }
                self.trouble(name, activity, seen);
            }
        }
        self.steps(name, status, seen);
        self.picture(name, status, seen);
    }

    fn trouble(&mut self, name: &str, activity: Option<&Activity>, seen: &mut Seen) {
        let Some(activity) = activity.filter(|it| is_troubled(Some(it))) else { return };
        let Some(cause) = &activity.cause else { return };
        let attempt = format!("{} {cause}", activity.starts);
        if self.trouble == attempt {
            return;
        }
        self.trouble = attempt;
        let is_new = match &mut self.outage {
            Some(outage) => outage.note(cause),
            // It never came: told once, then only another cause.
            None => {
                let outage = self.outage.insert(Outage::new(activity.since));
                seen.missing.push(name.to_owned());
                outage.note(cause)
            }
        };
        if is_new {
            seen.events.push(Event::new(EventKind::SourceTrouble, cause.clone()).of(name));
        }
    }

    fn steps(&mut self, name: &str, status: &MountpointStatus, seen: &mut Seen) {
        let Some(ladder) = &status.source.ladder else { return };
        for step in &ladder.steps {
            let mark = (step.at, step.result.clone());
            let is_known = step.at < self.last_step.0 || mark == self.last_step;
            if is_known || step.result.is_empty() {
                continue;
            }
            let text = format!("{}: {}", step_words(&step.step), step.result);
            if let Some(outage) = &mut self.outage {
                outage.note(step_words(&step.step));
            }
            self.steps += 1;
            seen.events.push(Event::new(EventKind::Mending, text).of(name));
            self.last_step = mark;
        }
    }

    fn picture(&mut self, name: &str, status: &MountpointStatus, seen: &mut Seen) {
        let Some(picture) = &status.picture else { return };
        // A camera that sends nothing at all is told as that.
        if picture.verdict == self.verdict || picture.verdict == "dead" {
            return;
        }
        let was = std::mem::replace(&mut self.verdict, picture.verdict.clone());
        if picture.verdict != "ok" {
            let cause = picture.cause.as_deref().unwrap_or_default();
            let text = format!("the picture is {}: {cause}", picture.verdict.replace('_', " "));
            seen.events.push(Event::new(EventKind::PictureBad, text).of(name).because(Cause::Camera));
        } else if !was.is_empty() {
            let text = format!("the picture is good again, after it was {}", was.replace('_', " "));
            seen.events.push(Event::new(EventKind::PictureGood, text).of(name));
        }
    }
}

impl Line {
    fn look(&mut self, name: &str, id: &str, push: &PushStatus, at: Timestamp, events: &mut Vec<Event>) {
        let error = push.kmp.as_ref().and_then(|kmp| kmp.error.as_deref());
        let lost_frames = push.kmp.as_ref().map_or(push.counters.dropped_units, |kmp| kmp.lost_frames);
        let is_troubled = error.is_some() || is_troubled(Some(&push.activity));
        let cause = error.or(push.activity.cause.as_deref());
        if push.activity.state == State::Running && error.is_none() {
            match self.outage.take() {
                Some(outage) if self.has_delivered => {
                    let lost = lost_frames.saturating_sub(self.lost);
                    let mut told = outage.told();
                    if lost > 0 {
                        told.push(format!("{lost} frames were not sent"));
                    }
                    let (seconds, cause) = (outage.seconds(at), outage.cause(Cause::Upstream));
                    let text = summary("delivers again", &told, seconds, cause);
                    let event = Event::new(EventKind::UpstreamBack, text).of(name).to(id);
                    events.push(event.lost(seconds).because(cause));
                }
                _ if !self.has_delivered => {
                    events.push(Event::new(EventKind::UpstreamBack, "delivers").of(name).to(id));
                }
                _ => {}
            }
            (self.has_delivered, self.last_at, self.lost) = (true, at, lost_frames);
            return self.trouble.clear();
        }
        if !is_troubled {
            return;
        }
        let since = if self.has_delivered { self.last_at } else { push.activity.since };
        if self.outage.is_none() && self.has_delivered {
            let text = format!("does not deliver any more: {}", cause.unwrap_or("no reason is known"));
            let event = Event::new(EventKind::UpstreamLost, text).of(name).to(id);
            events.push(event.because(Cause::Upstream));
        }
        let has_delivered = self.has_delivered;
        let outage = self.outage.get_or_insert_with(|| Outage::new(since));
        let attempt = format!("{} {}", push.activity.starts, cause.unwrap_or_default());
        if self.trouble != attempt {
            self.trouble = attempt;
            let is_first = outage.told().is_empty() && has_delivered;
            if outage.note(cause.unwrap_or("no reason is known")) && !is_first {
                let text = cause.unwrap_or("no reason is known");
                events.push(Event::new(EventKind::UpstreamTrouble, text).of(name).to(id));
            }
        }
    }
}

fn is_troubled(activity: Option<&Activity>) -> bool {
    activity.is_some_and(|it| matches!(it.state, State::Retrying | State::Failed))
}

fn back(name: &str, kind: &str, outage: &Outage, since: Timestamp) -> Event {
    let otherwise = match kind {
        "publish" => Cause::Publisher,
        "test" | "file" => Cause::Gateway,
        _ => Cause::Unknown,
    };
    let (seconds, cause) = (outage.seconds(since), outage.cause(otherwise));
    let text = summary(&format!("{} sends again", noun(kind)), &outage.told(), seconds, cause);
    Event::new(EventKind::StreamBack, text).of(name).lost(seconds).because(cause)
}

fn summary(begin: &str, told: &[String], seconds: u64, cause: Cause) -> String {
    let told: String = told.iter().map(|it| format!("; {it}")).collect();
    format!("{begin}{told}; {seconds} s lost; cause: {}", cause.name())
}

fn noun(kind: &str) -> &'static str {
    match kind {
        "publish" => "the publisher",
        "rtsp" | "mjpeg" | "v4l2" | "rtp" => "the camera",
        _ => "the source",
    }
}

fn step_words(step: &str) -> &'static str {
    match step {
        "setup" => "asked for the stream anew",
        "reconnect" => "connected anew after a pause",
        "transport" => "tried the other transport",
        "reboot" => "rebooted the camera",
        "worker" => "began with a new worker",
        _ => "tried to mend it",
    }
}

#[cfg(test)]
mod tests;
