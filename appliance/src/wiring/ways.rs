//! Which stream each push takes: its mountpoint's own, or a rendition of it, as the plan says now.

use super::Wiring;
use super::capacity::Standing;
use crate::supervisor::{ChildContext, ChildError, ChildKey, Made, MadeSound, RenditionKey};
use fieldgate_hub::Mountpoint;
use fieldgate_media::Codec;
use fieldgate_model::config::{Accepts, Push};
use fieldgate_model::job::{PictureCodec, SoundCodec};
use fieldgate_model::plan::{Action, Form, Leg, Output, Plan, Rendition};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::info;

/// How often a rendition's mountpoint is looked for that is about to come into being.
const LOOK: Duration = Duration::from_millis(100);

/// Where a push finds what it sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The mountpoint's own stream.
    Own,
    /// A form of it that is made for this push, and for others that need the same.
    Rendition(RenditionKey),
    /// Nothing yet: what it needs shows when the stream is there, or cannot be made.
    Nothing,
}

impl Way {
    /// Of the push with this effective id; none before it is planned.
    pub(super) fn of(plan: &Plan, mountpoint: &str, push: &str) -> Option<Way> {
        let leg = leg(plan, mountpoint, push)?;
        let is_open = |step: &fieldgate_model::plan::Step| {
            step.action == Action::PassOrTranscode && step.to == Form::Unknown
        };
        if leg.video.action == Action::Unable || is_open(&leg.video) || is_open(&leg.audio) {
            return Some(Way::Nothing);
        }
        Some(match &leg.rendition {
            Some(name) => Way::Rendition(RenditionKey { of: mountpoint.to_owned(), name: name.clone() }),
            None => Way::Own,
        })
    }
}

/// Waits until the plan has another way for a push.
async fn differs(standing: &mut watch::Receiver<Arc<Standing>>, name: &str, id: &str, way: Option<&Way>) {
    let other = |now: &Arc<Standing>| {
        let planned = Way::of(&now.plan, name, id);
        planned.is_some() && planned.as_ref() != way
    };
    // The sender lives as long as the wiring.
    standing.wait_for(other).await.map(drop).ok();
}

fn takes_all(push: &Push) -> bool {
    !super::kmp_pushes::is_kmp(push) && push.accepts == Accepts::default()
}

/// The way to one push, in the plan.
pub fn leg<'a>(plan: &'a Plan, mountpoint: &str, push: &str) -> Option<&'a Leg> {
    let legs = &plan.mountpoints.get(mountpoint)?.legs;
    legs.iter().find(|leg| matches!(&leg.output, Output::Push { id, .. } if id == push))
}

/// A rendition in the plan.
pub fn rendition<'a>(plan: &'a Plan, key: &RenditionKey) -> Option<&'a Rendition> {
    plan.mountpoints.get(&key.of)?.renditions.iter().find(|rendition| rendition.name == key.name)
}

/// The renditions that some push needs and that can be made. What a template would need is none.
pub(super) fn wanted(plan: &Plan) -> BTreeMap<RenditionKey, Made> {
    let streams = plan.mountpoints.iter().filter(|(name, _)| !name.ends_with('*'));
    let all = streams.flat_map(|(name, planned)| planned.renditions.iter().map(move |one| (name, one)));
    all.filter_map(|(of, rendition)| {
        Some((RenditionKey { of: of.clone(), name: rendition.name.clone() }, made(rendition)?))
    })
    .collect()
}

/// None when its pictures cannot be made.
fn made(rendition: &Rendition) -> Option<Made> {
    let video = match (rendition.video.action, rendition.video.to) {
        (Action::Unable, _) => return None,
        (Action::Transcode, Form::Coded(Codec::Hevc)) => Some(PictureCodec::Hevc),
        (Action::Transcode, _) => Some(PictureCodec::H264),
        _ => None,
    };
    let sound = match rendition.audio.to {
        Form::Coded(Codec::Opus) => SoundCodec::Opus,
        _ => SoundCodec::Aac,
    };
    let audio = match rendition.audio.action {
        Action::Transcode => MadeSound::Encode(sound),
        Action::Silence => MadeSound::Silence(sound),
        Action::Off => MadeSound::Off,
        _ => MadeSound::Pass,
    };
    Some(Made { video, audio })
}

impl Wiring {
    /// A push's life: it sends what the plan says, and changes over when that changes.
    pub(super) async fn push(
        &self,
        key: ChildKey,
        name: String,
        push: Push,
        child: ChildContext,
    ) -> Result<(), ChildError> {
        let own = self.existing(&name)?;
        let id = push.effective_id();
        let mut standing = self.capacity.standing();
        let ended = loop {
            let planned = Way::of(&standing.borrow_and_update().plan, &name, &id);
            // One that takes whatever its protocol carries need not wait for the plan.
            let way = planned.or_else(|| takes_all(&push).then_some(Way::Own));
            let mountpoint = tokio::select! {
                mountpoint = self.ground(&own, way.as_ref()) => mountpoint,
                () = child.cancel.cancelled() => break Ok(()),
                () = differs(&mut standing, &name, &id, way.as_ref()) => continue,
            };
            let stop = child.cancel.child_token();
            let context = ChildContext { cancel: stop.clone(), ready: child.ready.clone() };
            let tightened = self.masks.tightened(&name);
            let mut run = Box::pin(self.push_from(&key, &name, &push, mountpoint, context));
            tokio::select! {
                // A rendition's mountpoint is made anew when its bounds change.
                ended = &mut run => match ended {
                    Ok(()) if way != Some(Way::Own) && !child.cancel.is_cancelled() => tokio::time::sleep(LOOK).await,
                    ended => break ended,
                },
                // What it keeps of the stream goes with it: not even its last words may be sent.
                () = self.masks.tightened_since(&name, tightened), if super::kmp_pushes::is_kmp(&push) => {
                    drop(run);
                    info!(mountpoint = name, push = id, "what it kept from before a mask was set is dropped");
                    tokio::time::sleep(LOOK).await;
                }
                () = differs(&mut standing, &name, &id, way.as_ref()) => {
                    stop.cancel();
                    run.await.ok();
                    info!(mountpoint = name, push = id, "the plan has another stream for it");
                }
            }
        };
        if child.cancel.is_cancelled() {
            self.board.forget(&key);
        }
        ended
    }

    /// The mountpoint behind a way, once it is there.
    async fn ground(&self, own: &Arc<Mountpoint>, way: Option<&Way>) -> Arc<Mountpoint> {
        let rendition = match way {
            None => return std::future::pending().await,
            Some(Way::Own) => return own.clone(),
            Some(Way::Nothing) => return self.context.registry.detached(own),
            Some(Way::Rendition(rendition)) => rendition.mountpoint(),
        };
        loop {
            let there = self.context.registry.get(&rendition);
            if let Some(there) = there.filter(|it| !it.closed().is_cancelled()) {
                return there;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn push_from(
        &self,
        key: &ChildKey,
        name: &str,
        push: &Push,
        mountpoint: Arc<Mountpoint>,
        child: ChildContext,
    ) -> Result<(), ChildError> {
        match super::kmp_pushes::is_kmp(push) {
            true => self.kmp_push(key, name, push, mountpoint, child).await,
            false => self.rtmp_push(key, name, push, mountpoint, child).await,
        }
    }
}
