//! What is shown of renditions, and of the pushes that need them.

use super::{StatusBoard, stream_status};
use crate::supervisor::{ChildKey, RenditionKey, Snapshot};
use crate::wiring::{encoders, leg, rendition};
use fieldgate_hub::StreamState;
use fieldgate_model::plan::{Action, Step};
use fieldgate_model::status::{Activity, PushStatus, RenditionStatus, State};
use std::collections::BTreeMap;

impl StatusBoard {
    /// All renditions of one mountpoint.
    pub(super) fn renditions(&self, name: &str, snapshot: &Snapshot) -> BTreeMap<String, RenditionStatus> {
        let of_it = snapshot.children.keys().filter_map(|key| match key {
            ChildKey::Rendition(rendition) if rendition.of == name => Some(rendition),
            _ => None,
        });
        of_it.map(|key| (key.name.clone(), self.rendition(key, snapshot))).collect()
    }

    fn rendition(&self, key: &RenditionKey, snapshot: &Snapshot) -> RenditionStatus {
        let (name, standing) = (key.mountpoint(), self.wiring.capacity.standing().borrow().clone());
        let mountpoint = self.wiring.context.registry.get(&name);
        let pace = self.meter.pace(&name);
        let planned = rendition(&standing.plan, key);
        let cost = planned.map(|planned| planned.cost()).unwrap_or_default();
        let made = planned.into_iter().flat_map(|planned| [&planned.video, &planned.audio]);
        let made: Vec<&Step> = made
            .filter(|step| matches!(step.action, Action::Transcode | Action::Silence | Action::Off))
            .collect();
        let worker = self.wiring.board.workers().remove(&name);
        RenditionStatus {
            activity: self.rendition_activity(key, snapshot),
            reason: told(made.iter().map(|step| step.reason.as_str())),
            remedy: Some(told(made.iter().filter_map(|step| step.remedy.as_deref())))
                .filter(|it| !it.is_empty()),
            encoder_sessions: cost.sessions,
            cpu_percent: cost.cpu_percent,
            encoder: worker.and_then(|worker| encoders::status_of(&worker.report.status.encoders)),
            stream: mountpoint.as_deref().and_then(|mountpoint| stream_status(mountpoint, &pace)),
            dropped_units: self.wiring.board.dropped_units(&name),
        }
    }

    /// One that is left out, or has nothing to be made of, is ready and does nothing.
    fn rendition_activity(&self, key: &RenditionKey, snapshot: &Snapshot) -> Activity {
        let mut activity =
            snapshot.children.get(&ChildKey::Rendition(key.clone())).cloned().unwrap_or_default();
        let standing = self.wiring.capacity.standing().borrow().clone();
        let is_live = |name: &str| {
            let mountpoint = self.wiring.context.registry.get(name);
            mountpoint.is_some_and(|it| matches!(*it.state().borrow(), StreamState::Live(_)))
        };
        if let Some(shed) = standing.shed_reason(&key.of, Some(&key.name)) {
            activity.state = State::Waiting;
            activity.cause = Some(format!("left out: {}", shed.reason));
        } else if activity.state == State::Running && !is_live(&key.mountpoint()) {
            activity.state = if is_live(&key.of) { State::Starting } else { State::Waiting };
        }
        activity
    }

    /// Which stream a push sends; why it has none, if that is what it waits for.
    pub(super) fn tell_way(&self, name: &str, id: &str, snapshot: &Snapshot, push: &mut PushStatus) {
        let standing = self.wiring.capacity.standing().borrow().clone();
        let Some(leg) = leg(&standing.plan, name, id).filter(|_| push.enabled) else { return };
        push.rendition = leg.rendition.clone();
        if push.activity.state != State::Waiting {
            return;
        }
        let with_remedy = |cause: String, remedy: Option<&str>| match remedy {
            Some(remedy) => format!("{cause}; {remedy}"),
            None => cause,
        };
        if leg.video.action == Action::Unable {
            push.activity.cause = Some(with_remedy(leg.video.reason.clone(), leg.video.remedy.as_deref()));
            return;
        }
        let Some(rendition) = &leg.rendition else { return };
        let made = self.rendition(&RenditionKey { of: name.to_owned(), name: rendition.clone() }, snapshot);
        if let Some(cause) = made.activity.cause.filter(|_| made.stream.is_none()) {
            let cause = format!("what it needs ({rendition}) is not made: {cause}");
            push.activity.cause = Some(with_remedy(cause, made.remedy.as_deref()));
        }
    }
}

fn told<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    texts.collect::<Vec<_>>().join("; ")
}
