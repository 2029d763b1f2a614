//! Whether an authentic bundle is for this gateway, and new.

use crate::bundle::Bundle;
use crate::refusal::Refusal;
use crate::text::Digest;
use fieldgate_model::Timestamp;
use serde::{Deserialize, Serialize};

/// The group that every gateway is in.
pub const ALL: &str = "all";

/// The bundle with the highest number so far, as far as it matters for the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Its number.
    pub number: u64,
    /// What tells it from others.
    pub digest: Digest,
    /// When it was made: it is at least as late now.
    pub issued: Timestamp,
}

/// The gateway that a bundle has come to.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Its id.
    pub device: &'a str,
    /// The groups that it is in, beside [`ALL`].
    pub groups: &'a [String],
    /// What its clock shows, never before the time last saved.
    pub now: Timestamp,
    /// What it took last; none if it never did.
    pub taken: Option<&'a Taken>,
}

/// What to do with a bundle that is not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Take it.
    New,
    /// It is the one that was taken last.
    Known,
}

/// Judges an authentic bundle.
pub fn judge(bundle: &Bundle, target: &Target<'_>) -> Result<Verdict, Refusal> {
    let Target { device, groups, now, taken } = *target;
    let draft = &bundle.draft;
    let is_ours = |group: &String| group == ALL || groups.contains(group);
    if !draft.to.devices.iter().any(|it| it == device) && !draft.to.groups.iter().any(is_ours) {
        return Err(Refusal::OtherDevice { device: device.to_owned(), groups: groups.to_vec() });
    }
    if let Some(taken) = taken {
        if draft.number < taken.number {
            return Err(Refusal::Older { number: draft.number, taken: taken.number });
        }
        if draft.number == taken.number {
            let is_known = bundle.digest == taken.digest;
            return if is_known { Ok(Verdict::Known) } else { Err(Refusal::SameNumber(draft.number)) };
        }
    }
    // A signature of a trusted key that names a later time proves that the clock is slow.
    let now = taken.map_or(now, |taken| now.max(taken.issued));
    if now >= draft.expires {
        return Err(Refusal::Expired { expires: draft.expires, now });
    }
    Ok(Verdict::New)
}
