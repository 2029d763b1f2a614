//! What is known of a camera, as the API shows it: without passwords, wherever the camera put one.

use super::Known;
use crate::admin::discovery::{
    Auth, CameraView, CheckedStream, EncoderView, FoundByView, InterfaceView, ProfileView, RefusalsView,
    SearchView, StreamView,
};
use crate::devices;
use fieldgate_hub::Clock;
use fieldgate_model::Timestamp;
use fieldgate_model::config::SecretUrl;
use fieldgate_net::{FinderState, Found};
use fieldgate_proto::onvif::{self, Camera, Login, Profile, ServiceUrl};
use fieldgate_proto::rtsp_probe::Outcome;
use tokio::time::Instant;

/// Passwords shorter than this are not looked for in texts: they would be found everywhere.
const MIN_SCRUBBED: usize = 4;

/// One camera; `known` only if somebody logged in at this very address.
pub(super) fn camera(found: &Found, known: Option<&Known>, clock: &Clock) -> CameraView {
    let known = known.filter(|known| known.address == found.address);
    let survey = known.and_then(|known| known.survey.as_ref());
    let identity = survey.map(|survey| survey.identity.clone()).unwrap_or_default();
    let mut macs = identity.macs;
    macs.extend(found.mac.iter().filter(|mac| !macs.contains(mac)).cloned().collect::<Vec<_>>());
    let scrub = Scrub(known.map_or("", |known| known.login.credentials.password.as_str()));
    let profiles = survey.map_or(&[][..], |survey| survey.profiles.as_slice());
    let (main, sub) = onvif::main_and_sub(profiles);
    let snapshot = main.into_iter().chain(profiles).find_map(|profile| profile.snapshot.as_ref());
    CameraView {
        id: found.id.clone(),
        found_by: FoundByView {
            onvif: found.found_by.onvif,
            mdns: found.found_by.mdns,
            named: found.found_by.named,
            v4l2: false,
        },
        address: Some(found.address),
        other_addresses: found.other_addresses.clone(),
        interface: Some(found.interface.clone()).filter(|name| !name.is_empty()),
        device: None,
        names: found.names.iter().map(|name| scrub.text(name)).collect(),
        locations: found.locations.clone(),
        make: identity.make,
        model: identity.model.or(found.hardware.clone()),
        firmware: identity.firmware,
        serial: identity.serial,
        macs,
        login: known.map_or(Auth::None, auth),
        profiles: profiles.iter().map(|profile| view(profile, &scrub)).collect(),
        main: stream(main, known.and_then(|known| known.main.as_ref()), &scrub),
        sub: stream(sub, known.and_then(|known| known.sub.as_ref()), &scrub),
        snapshot_url: snapshot.map(|url| scrub.url(url)),
        time_offset: survey.and_then(|survey| survey.time_offset_millis).map(seconds),
        missing: missing(found, known, survey, &scrub),
        gone: found.gone,
        first_seen: Some(wall(found.first_seen, clock)),
        last_seen: Some(wall(found.last_seen, clock)),
    }
}

/// How the search goes.
pub(super) fn search(state: &FinderState, clock: &Clock) -> SearchView {
    let refusals = state.refusals;
    SearchView {
        searching: state.searching,
        last_round: state.last_round.map(|at| wall(at, clock)),
        interfaces: state
            .interfaces
            .iter()
            .map(|interface| InterfaceView {
                name: interface.name.clone(),
                address: interface.address.to_string(),
            })
            .collect(),
        problems: state.problems.clone(),
        refused: RefusalsView {
            malformed: refusals.malformed,
            too_many: refusals.too_many,
            not_a_camera: refusals.not_a_camera,
            unasked: refusals.unasked,
            no_room: refusals.no_room,
        },
    }
}

/// The local cameras; none where they cannot be listed.
pub(super) fn local_cameras() -> Vec<CameraView> {
    let devices = devices::list().unwrap_or_default();
    // The other files of a camera bring no pictures.
    let cameras = devices.into_iter().filter(|device| device.index == 0);
    cameras
        .map(|device| {
            let lasting = device.by_id.as_ref().or(device.by_path.as_ref()).unwrap_or(&device.device);
            let name =
                lasting.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let is_plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            CameraView {
                id: format!("v4l2-{}", name.chars().filter(is_plain).take(96).collect::<String>()),
                found_by: FoundByView { v4l2: true, ..FoundByView::default() },
                names: vec![device.name.clone()],
                serial: device.serial.clone(),
                device: Some(lasting.clone()),
                login: Auth::NotNeeded,
                ..CameraView::default()
            }
        })
        .collect()
}

fn auth(known: &Known) -> Auth {
    let stream = known.main.as_ref().map(|outcome| outcome.login);
    match (known.survey.as_ref().map(|survey| survey.login), stream) {
        (_, Some(Login::Refused)) => Auth::Refused,
        (Some(Login::Accepted), _) | (_, Some(Login::Accepted)) => Auth::Accepted,
        _ => Auth::NotNeeded,
    }
}

fn view(profile: &Profile, scrub: &Scrub<'_>) -> ProfileView {
    ProfileView {
        profile: profile.token.clone(),
        name: scrub.text(&profile.name),
        video: profile.video.as_ref().map(|video| EncoderView {
            codec: video.codec.map(onvif::VideoCodec::as_str),
            width: video.width,
            height: video.height,
            fps: video.fps,
            bitrate_kbps: video.bitrate_kbps,
            gop: video.gop,
        }),
        audio: profile.audio.clone(),
        url: profile.stream.as_ref().map(|url| scrub.url(url)),
    }
}

/// What was described, else what the profile says.
fn stream(profile: Option<&Profile>, outcome: Option<&Outcome>, scrub: &Scrub<'_>) -> Option<CheckedStream> {
    if let Some(found) = outcome.and_then(|outcome| outcome.found.as_ref()) {
        let streams = found.streams.iter().map(|stream| StreamView {
            kind: stream.kind.clone(),
            codec: stream.codec.clone(),
            clock_rate: stream.clock_rate,
        });
        return Some(CheckedStream { url: scrub.url(&found.url), checked: true, streams: streams.collect() });
    }
    let url = profile?.stream.as_ref()?;
    Some(CheckedStream { url: scrub.url(url), checked: false, streams: Vec::new() })
}

fn missing(found: &Found, known: Option<&Known>, survey: Option<&Camera>, scrub: &Scrub<'_>) -> Vec<String> {
    let mut missing = Vec::new();
    if !found.reachable {
        missing.push("it is not in a network of this gateway".to_owned());
    }
    let Some(known) = known else {
        missing.push("credentials wanted".to_owned());
        return missing;
    };
    match survey {
        Some(survey) => missing.extend(survey.gaps.iter().map(|gap| scrub.text(&gap.to_string()))),
        None => missing.push("it does not answer as an ONVIF device".to_owned()),
    }
    for outcome in [&known.main, &known.sub].into_iter().flatten() {
        missing.extend(outcome.cause.map(|cause| format!("stream: {cause}")));
    }
    missing
}

/// `-9800s`, or with milliseconds where there are only those.
fn seconds(millis: i64) -> String {
    if millis != 0 && millis.abs() < 1_000 { format!("{millis}ms") } else { format!("{}s", millis / 1_000) }
}

fn wall(at: Instant, clock: &Clock) -> Timestamp {
    let ago = i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_unix_millis((clock.unix_micros() / 1_000).saturating_sub(ago))
}

/// Takes a password out of what a camera says.
struct Scrub<'a>(&'a str);

impl Scrub<'_> {
    fn text(&self, text: &str) -> String {
        if self.0.len() < MIN_SCRUBBED { text.to_owned() } else { text.replace(self.0, "***") }
    }

    fn url(&self, url: &ServiceUrl) -> String {
        let shown = SecretUrl::new(url.to_string()).redacted();
        // There are makers who put `user=admin_password=abc_` into the path.
        let mut masked = String::with_capacity(shown.len());
        let mut rest = shown.as_str();
        while let Some(at) = rest.to_ascii_lowercase().find("password=") {
            let (before, after) = rest.split_at(at + "password=".len());
            masked.push_str(before);
            let end = after.find(['&', '_', '/', '?']).unwrap_or(after.len());
            masked.push_str("***");
            rest = after.get(end..).unwrap_or_default();
        }
        masked.push_str(rest);
        self.text(&masked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_inside_urls_are_masked_wherever_they_stand() {
        let camera = "10.0.0.7".parse().unwrap();
        let shown =
            |told: &str, password: &str| Scrub(password).url(&ServiceUrl::stream(told, camera).unwrap().url);
        assert_eq!(shown("rtsp://u:p@10.0.0.7/main", "secret"), "rtsp://10.0.0.7/main");
        assert_eq!(
            shown("rtsp://10.0.0.7/user=admin_password=abc_channel=1", "secret"),
            "rtsp://10.0.0.7/user=admin_password=***_channel=1"
        );
        assert_eq!(
            shown("rtsp://10.0.0.7/x?user=a&password=abc&b=1", ""),
            "rtsp://10.0.0.7/x?user=a&password=***&b=1"
        );
        assert_eq!(shown("rtsp://10.0.0.7/x/c4n4ry/y", "c4n4ry"), "rtsp://10.0.0.7/x/***/y");
    }

    #[test]
    fn offsets_are_durations_with_a_sign() {
        for (millis, text) in [(0, "0s"), (-9_800_000, "-9800s"), (37_600_400, "37600s"), (-250, "-250ms")] {
            assert_eq!(seconds(millis), text);
        }
    }
}
