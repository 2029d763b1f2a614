//! The single calls: what each asks, what its answer changes, what is tried in its place.

use super::super::encoder::{self, VideoEncoder};
use super::super::media::{self, MediaVersion};
use super::super::service_url::ServiceUrl;
use super::super::xml::Element;
use super::super::{device, encoder::WishError};
use super::{Client, ClientError, Gap, Moment, Wish};
use std::collections::VecDeque;

/// Profiles whose snapshot is asked for.
const SNAPSHOTS: usize = 4;

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Time,
    Services,
    Capabilities,
    Information,
    Interfaces,
    Profiles(MediaVersion),
    StreamUri(usize),
    SnapshotUri(usize),
    Options,
    SetEncoder,
    SetTime,
    Reboot,
}

/// What is asked first. The device's description comes first with a login: every camera has that call.
pub(super) fn first(wish: &Wish) -> VecDeque<Step> {
    let steps: &[Step] = match wish {
        Wish::Survey => &[Step::Time, Step::Services, Step::Information, Step::Interfaces],
        Wish::SetEncoder(_) => &[Step::Time, Step::Services, Step::Information],
        Wish::Reboot => &[Step::Time, Step::Information, Step::Reboot],
        Wish::SetClock => &[Step::Time, Step::Information, Step::SetTime],
    };
    steps.iter().cloned().collect()
}

impl Step {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Step::Time => "GetSystemDateAndTime",
            Step::Services => "GetServices",
            Step::Capabilities => "GetCapabilities",
            Step::Information => "GetDeviceInformation",
            Step::Interfaces => "GetNetworkInterfaces",
            Step::Profiles(_) => "GetProfiles",
            Step::StreamUri(_) => "GetStreamUri",
            Step::SnapshotUri(_) => "GetSnapshotUri",
            Step::Options => "GetVideoEncoderConfigurationOptions",
            Step::SetEncoder => "SetVideoEncoderConfiguration",
            Step::SetTime => "SetSystemDateAndTime",
            Step::Reboot => "SystemReboot",
        }
    }

    /// The standard lets everybody ask this.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Step::Time | Step::Services | Step::Capabilities)
    }

    /// The call that all others prepare.
    pub(super) fn is_the_wish(&self) -> bool {
        matches!(self, Step::SetEncoder | Step::SetTime | Step::Reboot)
    }
}

impl Client {
    /// Where a step goes and what it says; nothing if it has become void.
    pub(super) fn compose(&mut self, step: &Step, now: Moment) -> Option<(ServiceUrl, String)> {
        let device = |body: &str| (self.device.clone(), body.to_owned());
        match step {
            Step::Time => Some(device(device::GET_TIME)),
            Step::Services => Some(device(device::GET_SERVICES)),
            Step::Capabilities => Some(device(device::GET_CAPABILITIES)),
            Step::Information => Some(device(device::GET_INFORMATION)),
            Step::Interfaces => Some(device(device::GET_INTERFACES)),
            Step::Reboot => Some(device(device::REBOOT)),
            Step::SetTime => Some(device(&device::set_time(now.unix_millis.div_euclid(1_000)))),
            Step::Profiles(version) => Some((self.media_url(*version), media::get_profiles(*version))),
            Step::StreamUri(index) => {
                let (version, token) = self.profile(*index)?;
                Some((self.media_url(version), media::get_stream_uri(version, &token)))
            }
            Step::SnapshotUri(index) => {
                let (version, token) = self.profile(*index)?;
                Some((self.media_url(version), media::get_snapshot_uri(version, &token)))
            }
            Step::Options => {
                let (version, profile, encoder) = self.wished_encoder()?;
                Some((self.media_url(version), media::get_options(version, &encoder.token, &profile)))
            }
            Step::SetEncoder => {
                let (version, _, _) = self.wished_encoder()?;
                let encoder = self.encoder.take()?;
                Some((self.media_url(version), encoder.set(version == MediaVersion::Two)))
            }
        }
    }

    fn profile(&self, index: usize) -> Option<(MediaVersion, String)> {
        self.camera.profiles.get(index).map(|profile| (profile.version, profile.token.clone()))
    }

    /// The encoder that shall be set, with its service and profile.
    fn wished_encoder(&self) -> Option<(MediaVersion, String, VideoEncoder)> {
        let Wish::SetEncoder(wish) = &self.wish else { return None };
        let profile = self.camera.profiles.iter().find(|profile| profile.token == wish.profile)?;
        Some((profile.version, profile.token.clone(), profile.video.clone()?))
    }

    /// Takes in what a step was answered.
    pub(super) fn apply(&mut self, step: &Step, answer: &Element, unix_millis: i64) {
        match step {
            Step::Time => {
                let theirs = device::time(answer).map(|time| time.unix_seconds.saturating_mul(1_000));
                self.camera.time_offset_millis = theirs.map(|theirs| theirs.saturating_sub(unix_millis));
            }
            Step::Services => self.found_services(device::services(answer), true),
            Step::Capabilities => self.found_services(device::capabilities(answer), false),
            Step::Information => {
                let macs = std::mem::take(&mut self.camera.identity.macs);
                self.camera.identity = device::Identity { macs, ..device::information(answer) };
            }
            Step::Interfaces => self.camera.identity.macs = device::macs(answer),
            Step::Profiles(version) => self.found_profiles(answer, *version),
            Step::StreamUri(index) => self.profile_uri(answer, *index, true),
            Step::SnapshotUri(index) => self.profile_uri(answer, *index, false),
            Step::Options => {
                self.options = encoder::read_options(answer);
                self.prepare_encoder();
            }
            Step::SetEncoder => {
                self.done = true;
                if let Some((version, _, _)) = self.wished_encoder() {
                    self.steps.push_back(Step::Profiles(version));
                }
            }
            Step::SetTime => {
                self.done = true;
                self.camera.time_offset_millis = Some(0);
            }
            Step::Reboot => self.done = true,
        }
    }

    /// A step has failed. Puts what may lead to the same in its place; false if that makes the failure meaningless.
    pub(super) fn fall_back(&mut self, step: &Step) -> bool {
        match step {
            // Old cameras know only the older call.
            Step::Services => {
                self.steps.push_front(Step::Capabilities);
                false
            }
            Step::Capabilities => {
                self.plan_profiles();
                true
            }
            Step::Profiles(MediaVersion::Two) => {
                self.steps.push_front(Step::Profiles(MediaVersion::One));
                false
            }
            Step::Profiles(MediaVersion::One) => {
                self.gap(Gap::NoProfiles);
                true
            }
            Step::Options => {
                self.prepare_encoder();
                true
            }
            // What only rounds the picture off.
            Step::Interfaces | Step::SnapshotUri(_) => false,
            _ => true,
        }
    }

    fn found_services(&mut self, services: device::Services, newer: bool) {
        let is_empty = services.media1.is_none() && services.media2.is_none();
        self.services = services;
        if is_empty && newer {
            self.steps.push_front(Step::Capabilities);
        } else {
            self.plan_profiles();
        }
    }

    fn plan_profiles(&mut self) {
        if !matches!(self.wish, Wish::Survey | Wish::SetEncoder(_)) {
            return;
        }
        let version = if self.services.media2.is_some() { MediaVersion::Two } else { MediaVersion::One };
        self.steps.push_back(Step::Profiles(version));
    }

    fn found_profiles(&mut self, answer: &Element, version: MediaVersion) {
        let profiles = media::profiles(answer, version);
        if profiles.is_empty() {
            if version == MediaVersion::Two {
                return self.steps.push_front(Step::Profiles(MediaVersion::One));
            }
            self.gap(Gap::NoProfiles);
        }
        self.camera.profiles = profiles;
        if matches!(self.wish, Wish::SetEncoder(_)) && !self.done {
            if self.wished_encoder().is_some() {
                return self.steps.push_back(Step::Options);
            }
            if let Wish::SetEncoder(wish) = &self.wish {
                self.failure = Some(ClientError::Wish(WishError::NoProfile(wish.profile.clone())));
            }
            return self.steps.clear();
        }
        let count = self.camera.profiles.len();
        self.steps.extend((0..count).map(Step::StreamUri));
        self.steps.extend((0..count.min(SNAPSHOTS)).map(Step::SnapshotUri));
    }

    fn prepare_encoder(&mut self) {
        let Wish::SetEncoder(wish) = &self.wish else { return };
        let Some((_, _, encoder)) = self.wished_encoder() else { return };
        match encoder.changed(wish, &self.options) {
            Ok(changed) => {
                self.encoder = Some(changed);
                self.steps.push_front(Step::SetEncoder);
            }
            Err(error) => {
                self.failure = Some(error.into());
                self.steps.clear();
            }
        }
    }

    /// Whether the service that a step goes to is encrypted.
    pub(super) fn is_tls(&mut self, step: &Step) -> bool {
        let version = match step {
            Step::Profiles(version) => *version,
            _ => return self.device.scheme.is_tls(),
        };
        self.media_url(version).scheme.is_tls()
    }
}
