//! Which encoder does what, and whether all of it fits: the most important mountpoint chooses first.

use super::{
    Action, Cost, Form, Guest, Known, KnownEncoder, Load, MountpointPlan, Output, Overload, Plan, Step, Work,
    decide,
};
use crate::config::{Config, Path, Problem};
use fieldgate_media::Codec;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Processor time for a million pixels where it was not measured, microseconds: decoding in software, and painting or
/// converting a picture.
const DECODE_US: u64 = 4_000;
const PAINT_US: u64 = 1_500;

/// The plan of a valid config.
pub fn plan(config: &Config, known: &Known) -> Plan {
    let mut mountpoints: BTreeMap<String, MountpointPlan> = config
        .mountpoints
        .iter()
        .map(|(name, settings)| (name.clone(), decide::mountpoint(name, settings, known)))
        .collect();
    for (stream, template) in &known.instances {
        if let Some(settings) = config.mountpoints.get(template) {
            mountpoints.insert(stream.clone(), decide::mountpoint(stream, settings, known));
        }
    }
    let mut jobs: Vec<Job> = Vec::new();
    for (name, mountpoint) in &mountpoints {
        // A template counts as one stream until there are some.
        if known.instances.values().any(|template| template == name) {
            continue;
        }
        let of = |rendition| Job { mountpoint: name.clone(), rendition, priority: mountpoint.priority };
        jobs.push(of(None));
        jobs.extend((0..mountpoint.renditions.len()).map(|at| of(Some(at))));
    }
    jobs.sort_by(|a, b| {
        (Reverse(a.priority), &a.mountpoint, a.rendition).cmp(&(
            Reverse(b.priority),
            &b.mountpoint,
            b.rendition,
        ))
    });
    let mut room = Room::of(config, known);
    let mut over = Vec::new();
    for job in &jobs {
        let Some(mountpoint) = mountpoints.get_mut(&job.mountpoint) else { continue };
        over.extend(room.place(job, mountpoint));
    }
    for mountpoint in mountpoints.values_mut() {
        share(mountpoint);
    }
    over.reverse();
    let guests = known.guests.iter().map(|(id, guest)| (*id, room.admit(guest))).collect();
    Plan { mountpoints, load: room.load(), over, guests }
}

/// Why a change from `before` to `after` is not admitted: what it would overload the machine with. A load that was
/// too much before refuses nothing.
pub fn admit(config: &Config, before: &Plan, after: &Plan) -> Vec<Problem> {
    let is_new = |over: &&Overload| {
        !before.over.iter().any(|old| old.mountpoint == over.mountpoint && old.rendition == over.rendition)
    };
    after.over.iter().filter(is_new).map(|over| refusal(config, after, over)).collect()
}

fn refusal(config: &Config, plan: &Plan, over: &Overload) -> Problem {
    let name = config.mountpoint_for(&over.mountpoint).map_or(over.mountpoint.as_str(), |(name, _)| name);
    let mountpoint = plan.mountpoints.get(&over.mountpoint);
    let leg = mountpoint.and_then(|mountpoint| {
        let takes = |leg: &&super::Leg| leg.rendition.is_some() && leg.rendition == over.rendition;
        let id = mountpoint.legs.iter().find(takes).and_then(|leg| match &leg.output {
            Output::Push { id, .. } => Some(id),
            Output::Players => None,
        })?;
        config.mountpoints.get(name)?.push.iter().position(|push| push.effective_id() == *id)
    });
    let path = match leg {
        Some(index) => Path::mountpoint(name).field("push").item(index),
        None => Path::mountpoint(name).field("source"),
    };
    let step = mountpoint.and_then(|mountpoint| match &over.rendition {
        Some(rendition) => mountpoint.renditions.iter().find(|it| it.name == *rendition).map(|it| &it.video),
        None => Some(&mountpoint.source.video),
    });
    let instead =
        step.and_then(|step| step.remedy.clone()).map(|remedy| format!("{remedy}; or ")).unwrap_or_default();
    Problem::new(&path, format!("overloads this machine: {}", over.reason)).got(format!("priority {}", over.priority)).remedy(
        format!(
            "{instead}drop this, make its pictures smaller or fewer, lower the priority of others below {}, or raise \
             limits.cpu_percent",
            over.priority
        ),
    )
}

/// Something that is encoded: a source treatment, or a rendition by its place.
struct Job {
    mountpoint: String,
    rendition: Option<usize>,
    priority: u8,
}

/// What is left of the machine.
struct Room<'a> {
    known: &'a Known,
    used: Cost,
    limit: Cost,
    /// Sessions and thousands of pixels a second that are used, by encoder.
    taken: BTreeMap<&'a str, (u32, u64)>,
    has_placed_pictures: bool,
}

impl<'a> Room<'a> {
    fn of(config: &Config, known: &'a Known) -> Self {
        let sessions: u32 = known.encoders.iter().filter_map(|encoder| encoder.sessions).max().unwrap_or(0);
        let sessions = config.limits.encoder_sessions.map_or(sessions, |most| most.min(sessions));
        let cpu_percent = known.cores.saturating_mul(u32::from(config.limits.cpu_percent));
        Room {
            known,
            used: Cost::default(),
            limit: Cost { sessions, cpu_percent },
            taken: BTreeMap::new(),
            has_placed_pictures: false,
        }
    }

    fn load(&self) -> Load {
        Load { used: self.used, limit: self.limit, measured: self.known.is_measured }
    }

    fn place(&mut self, job: &Job, mountpoint: &mut MountpointPlan) -> Option<Overload> {
        let name = job.rendition.and_then(|at| mountpoint.renditions.get(at)).map(|it| it.name.clone());
        let (video, audio) = match job.rendition {
            None => (&mut mountpoint.source.video, &mut mountpoint.source.audio),
            Some(at) => {
                let rendition = mountpoint.renditions.get_mut(at)?;
                (&mut rendition.video, &mut rendition.audio)
            }
        };
        let sound = audio.cost;
        let Some(work) = video.work.filter(|_| self.known.is_measured) else {
            self.used = self.used.plus(sound);
            return None;
        };
        match self.choose(&work) {
            Choice::Fits(encoder, cost) => {
                video.encoder = Some(encoder.name.clone());
                video.cost = cost;
                self.take(encoder, &work, cost.plus(sound));
                None
            }
            Choice::TooMuch(encoder, cost, reason) => {
                video.encoder = Some(encoder.name.clone());
                video.cost = cost;
                if !self.has_placed_pictures {
                    // One that is measured to be too much may still do: it is the most important of all.
                    self.take(encoder, &work, cost.plus(sound));
                    return None;
                }
                let mountpoint = job.mountpoint.clone();
                Some(Overload { mountpoint, rendition: name, priority: job.priority, cost, reason })
            }
            Choice::None(reason) => {
                video.action = Action::Unable;
                video.to = Form::Absent;
                video.reason = format!("{}; {reason}", video.reason);
                None
            }
        }
    }

    /// A guest's encoder, or why it has none. Without measurements whoever comes is let in: the name is empty then.
    fn admit(&mut self, guest: &Guest) -> Result<String, String> {
        if !self.known.is_measured {
            return Ok(String::new());
        }
        let work = Work {
            from: Form::Coded(guest.from),
            to: Codec::H264,
            width: guest.width,
            height: guest.height,
            frame_rate: guest.frame_rate,
            paints: true,
        };
        match self.choose(&work) {
            Choice::Fits(encoder, cost) => {
                self.take(encoder, &work, cost);
                Ok(encoder.name.clone())
            }
            Choice::TooMuch(_, _, reason) | Choice::None(reason) => Err(reason),
        }
    }

    fn take(&mut self, encoder: &'a KnownEncoder, work: &Work, cost: Cost) {
        self.has_placed_pictures = true;
        self.used = self.used.plus(cost);
        let (sessions, pixels) = self.taken.entry(&encoder.name).or_default();
        *sessions += 1;
        *pixels += work.kilopixels_per_second();
    }

    fn choose(&self, work: &Work) -> Choice<'a> {
        let fitting = self.known.encoders.iter().filter(|encoder| encoder.codec == work.to);
        let Some(decoding) = self.decoding_us(work.from) else {
            return Choice::None(format!("nothing here decodes {}", work.from));
        };
        let mut too_much = None;
        for encoder in fitting {
            let cost = cost(encoder, work, decoding);
            match self.hindrance(encoder, work, cost) {
                None => return Choice::Fits(encoder, cost),
                // Of several reasons the last resort's counts.
                Some(reason) => too_much = Some(Choice::TooMuch(encoder, cost, reason)),
            }
        }
        too_much.unwrap_or_else(|| Choice::None(format!("no encoder for {} works here", work.to.name())))
    }

    /// Processor time for a million pixels; none where nothing decodes it.
    fn decoding_us(&self, from: Form) -> Option<u64> {
        let codec = match from {
            Form::Jpeg => None,
            Form::Coded(codec) => Some(codec),
            Form::Raw | Form::Unknown | Form::Absent => return Some(0),
        };
        let decoder = self.known.decoders.iter().find(|decoder| decoder.codec == codec)?;
        Some(match (decoder.cpu_us_per_megapixel, decoder.hardware) {
            (0, true) => PAINT_US,
            (0, false) => DECODE_US,
            (measured, _) => u64::from(measured),
        })
    }

    /// Why this encoder cannot take it as well.
    fn hindrance(&self, encoder: &KnownEncoder, work: &Work, cost: Cost) -> Option<String> {
        let (sessions, pixels) = self.taken.get(encoder.name.as_str()).copied().unwrap_or_default();
        if encoder.hardware {
            let most = encoder.sessions.unwrap_or(self.limit.sessions).min(self.limit.sessions);
            if sessions >= most || self.used.sessions >= self.limit.sessions {
                return Some(format!("all {most} sessions of {} are taken", encoder.name));
            }
            let wanted = work.kilopixels_per_second();
            if let Some(most) = encoder.kilopixels_per_second
                && pixels.saturating_add(wanted) > most
            {
                return Some(format!(
                    "{} manages {} million pixels a second, {} are taken, {} more are wanted",
                    encoder.name,
                    most / 1_000,
                    pixels / 1_000,
                    wanted / 1_000
                ));
            }
        }
        let left = self.limit.cpu_percent.saturating_sub(self.used.cpu_percent);
        (cost.cpu_percent > left).then(|| {
            format!(
                "{} needs {} % of a core, {left} % of {} % are left",
                encoder.name, cost.cpu_percent, self.limit.cpu_percent
            )
        })
    }
}

enum Choice<'a> {
    Fits(&'a KnownEncoder, Cost),
    TooMuch(&'a KnownEncoder, Cost, String),
    None(String),
}

fn cost(encoder: &KnownEncoder, work: &Work, decoding_us: u64) -> Cost {
    let painting = if work.paints { PAINT_US } else { 0 };
    let each = u64::from(encoder.cpu_us_per_megapixel) + decoding_us + painting;
    // Thousands of pixels a second times microseconds for a million of them: nanoseconds a second.
    let nanos = work.kilopixels_per_second().saturating_mul(each);
    let cpu_percent = u32::try_from(nanos.div_ceil(10_000_000)).unwrap_or(u32::MAX);
    Cost { sessions: u32::from(encoder.hardware), cpu_percent }
}

/// Tells the legs which encoder their rendition or source treatment has, and what it costs.
fn share(mountpoint: &mut MountpointPlan) {
    let MountpointPlan { source, renditions, legs, .. } = mountpoint;
    if source.video.action == Action::Unable {
        // Nothing of it goes anywhere: sound without its masked picture would be half a secret.
        for audio in std::iter::once(&mut source.audio).chain(legs.iter_mut().map(|leg| &mut leg.audio)) {
            (audio.action, audio.to, audio.cost) = (Action::Off, Form::Absent, Cost::default());
            "the stream as a whole is off".clone_into(&mut audio.reason);
            audio.remedy = None;
        }
        renditions.clear();
        legs.iter_mut().for_each(|leg| leg.rendition = None);
    }
    for leg in legs {
        let made = leg.rendition.as_ref().and_then(|name| renditions.iter().find(|it| it.name == *name));
        let from = made.map_or(&source.video, |rendition| &rendition.video);
        let encodes = matches!(leg.video.action, Action::Transcode | Action::PassOrTranscode);
        if encodes && from.encoder.is_some() {
            tell(from, &mut leg.video);
        } else if from.action == Action::Unable {
            leg.video = from.clone();
        }
    }
}

fn tell(from: &Step, to: &mut Step) {
    to.encoder.clone_from(&from.encoder);
    to.cost = from.cost;
}
