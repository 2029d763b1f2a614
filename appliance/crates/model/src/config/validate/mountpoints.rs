//! One mountpoint's name, source and outputs.

use super::listeners::check_file;
use crate::config::{
    Config, Mountpoint, Path, Problem, Push, PushOrder, Rtp, Rtsp, RtspStream, RtspTransport, Secret,
    SecretUrl, Source, UrlParts, V4l2, is_microphone,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path as FilePath;

/// The longest name of a mountpoint or push, in bytes.
const NAME_MAX: usize = 64;

/// What stands for the stream's name in a template's URLs.
const PLACEHOLDER: &str = "{name}";

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    let mut devices: BTreeMap<&FilePath, &str> = BTreeMap::new();
    let mut sensors: BTreeMap<&Option<String>, &str> = BTreeMap::new();
    let mut ports: Vec<(&str, &Rtp, u16)> = Vec::new();
    for (name, mountpoint) in &config.mountpoints {
        let path = Path::mountpoint(name);
        problems.extend(check_name(name, &path));
        let mut checker = Checker { path, is_template: name.ends_with('*'), problems };
        checker.mountpoint(mountpoint);
        check_renditions(name, mountpoint, config, problems);
        if let Source::V4l2(v4l2) = &mountpoint.source
            && let Some(other) = devices.insert(&v4l2.device, name)
        {
            let path = Path::mountpoint(name).field("source").field("device");
            let problem = format!("is already taken by mountpoints.{other}");
            problems.push(Problem::new(&path, problem).got(v4l2.device.display().to_string()));
        }
        if let Source::Csi(csi) = &mountpoint.source
            && let Some(other) = sensors.insert(&csi.camera, name)
        {
            let path = Path::mountpoint(name).field("source").field("camera");
            let problem = format!("is already taken by mountpoints.{other}");
            problems.push(Problem::new(&path, problem).got(csi.camera.as_deref().unwrap_or("the first")));
        }
        if let Source::Rtp(rtp) = &mountpoint.source {
            check_ports(name, rtp, &mut ports, problems);
        }
    }
}

/// Renditions are other mountpoints that can be watched.
fn check_renditions(name: &str, mountpoint: &Mountpoint, config: &Config, problems: &mut Vec<Problem>) {
    let listed = mountpoint.hls.iter().flat_map(|hls| &hls.renditions);
    for (index, other) in listed.enumerate() {
        let problem = match config.mountpoints.get(other) {
            _ if other == name => "is this mountpoint itself",
            Some(found) if found.hls.is_some() && !other.ends_with('*') => continue,
            Some(_) if other.ends_with('*') => "is a template",
            Some(_) => "cannot be watched: it has no hls",
            None => "there is no mountpoint of this name",
        };
        let path = Path::mountpoint(name).field("hls").field("renditions").item(index);
        let remedy = "the names of other mountpoints, each with hls";
        problems.push(Problem::new(&path, problem).got(other.as_str()).remedy(remedy));
    }
}

/// Each stream takes its port and the next.
fn check_ports<'a>(
    name: &'a str,
    rtp: &'a Rtp,
    taken: &mut Vec<(&'a str, &'a Rtp, u16)>,
    problems: &mut Vec<Problem>,
) {
    let Ok(session) = rtp.session() else { return };
    for port in session.streams.iter().map(|stream| stream.port) {
        let clash = taken.iter().find(|(other, theirs, used)| {
            *other != name && used.abs_diff(port) < 2 && rtp.shares_address_with(theirs)
        });
        if let Some((other, _, used)) = clash {
            let problem = format!("port {used} and the next are already taken by mountpoints.{other}");
            let path = Path::mountpoint(name).field("source");
            problems.push(Problem::new(&path, problem).got(port).remedy("two ports for each stream"));
        }
        taken.push((name, rtp, port));
    }
}

/// Whether this may be the name of a mountpoint, a trailing `*` aside.
pub fn is_stream_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.len() <= NAME_MAX && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain)
}

pub(super) fn check_name(name: &str, path: &Path) -> Option<Problem> {
    let stem = name.strip_suffix('*').unwrap_or(name);
    if (stem.is_empty() && name == "*") || (is_stream_name(stem) && name.len() <= NAME_MAX) {
        return None;
    }
    let problem = if stem.contains('*') {
        "a name may have one *, at its end".to_owned()
    } else {
        format!("a name is 1 to {NAME_MAX} of A-Z a-z 0-9 . _ - and starts with a letter or digit")
    };
    Some(Problem::new(path, problem).got(name))
}

struct Checker<'a> {
    path: Path,
    is_template: bool,
    problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    fn mountpoint(&mut self, mountpoint: &Mountpoint) {
        if !self.is_template
            && let Some(max) = mountpoint.max
        {
            let problem =
                Problem::new(&self.path.field("max"), "only a template (a name ending in *) has it");
            self.problems.push(problem.got(max));
        }
        if mountpoint.max_lag > mountpoint.ring.age {
            let problem = format!("must be at most ring.age, which is {}", mountpoint.ring.age);
            let problem = Problem::new(&self.path.field("max_lag"), problem);
            self.problems.push(problem.got(mountpoint.max_lag.to_string()));
        }
        self.hls(mountpoint);
        self.source(&mountpoint.source);
        self.key(&self.path.field("play").field("key"), mountpoint.play.key.as_ref());
        let mut ids = BTreeSet::new();
        for (index, push) in mountpoint.push.iter().enumerate() {
            let path = self.path.field("push").item(index);
            self.push(&path, push, mountpoint.max);
            if !ids.insert(push.effective_id()) {
                let problem = match &push.id {
                    Some(id) => Problem::new(&path.field("id"), "is already taken in this mountpoint")
                        .got(id.as_str()),
                    None => Problem::new(&path.field("url"), "is already pushed to from this mountpoint")
                        .got(push.url.redacted())
                        .remedy("give both an id if this is meant"),
                };
                self.problems.push(problem);
            }
        }
    }

    fn hls(&mut self, mountpoint: &Mountpoint) {
        let Some(hls) = &mountpoint.hls else { return };
        let path = self.path.field("hls");
        if hls.part > hls.segment {
            let problem = format!("must be at most hls.segment, which is {}", hls.segment);
            self.problems.push(Problem::new(&path.field("part"), problem).got(hls.part.to_string()));
        }
        if hls.window.get() < hls.segment.get() * 3 {
            let problem = format!("must be at least three times hls.segment, which is {}", hls.segment);
            self.problems.push(Problem::new(&path.field("window"), problem).got(hls.window.to_string()));
        }
        for (index, size) in hls.sizes.iter().enumerate() {
            let at = path.field("sizes").item(index).field("height");
            self.even(&at, Some(size.height));
            if hls.sizes.iter().take(index).any(|other| other.height == size.height) {
                let problem = Problem::new(&at, "is the height of another size already");
                self.problems.push(problem.got(size.height).remedy("one size of each height"));
            }
        }
    }

    fn source(&mut self, source: &Source) {
        let path = self.path.field("source");
        if self.is_template && !matches!(source, Source::Publish(_)) {
            let problem =
                Problem::new(&path.field("kind"), "a template (a name ending in *) must be publish");
            self.problems.push(problem.got(source.kind()));
        }
        if let Some(name) = source.microphone().filter(|name| !is_microphone(name)) {
            let problem = Problem::new(&path.field("microphone"), "must be hw:... or plughw:... or null");
            self.problems.push(problem.got(name).remedy("`arecord -L` lists the microphones"));
        }
        match source {
            Source::Publish(publish) => self.key(&path.field("key"), publish.key.as_ref()),
            Source::Rtsp(rtsp) => {
                self.rtsp(&path, rtsp);
            }
            Source::Kmp(_) => {}
            Source::Pull(pull) => {
                if let Some(parts) = self.url(&path.field("url"), &pull.url, &["rtmp", "rtmps"]) {
                    self.rtmp_path(&path.field("url"), &pull.url, parts);
                    self.tls(&path, parts.scheme, pull.verify, pull.ca.as_deref());
                }
            }
            Source::V4l2(v4l2) => {
                if !v4l2.has_device_name() {
                    let problem = Problem::new(
                        &path.field("device"),
                        "must be a device file under /dev, serial:... or usb:...",
                    );
                    self.problems.push(
                        problem
                            .got(v4l2.device.display().to_string())
                            .remedy("`fieldgate devices` lists the cameras"),
                    );
                }
                self.controls(&path.field("controls"), &v4l2.controls);
                self.even(&path.field("width"), v4l2.width);
                self.even(&path.field("height"), v4l2.height);
            }
            Source::Csi(csi) => {
                if !csi.has_camera_name() {
                    let problem = Problem::new(&path.field("camera"), "must be printable ASCII");
                    let remedy = "`cam --list` shows libcamera's names";
                    self.problems.push(problem.got(csi.camera.clone().unwrap_or_default()).remedy(remedy));
                }
                self.even(&path.field("width"), Some(csi.width));
                self.even(&path.field("height"), Some(csi.height));
            }
            Source::Rtp(rtp) => {
                if let Err(error) = rtp.session() {
                    let remedy = "take the session description from the sender, or name its streams";
                    self.problems.push(Problem::new(&path, error.to_string()).remedy(remedy));
                }
            }
            Source::Mjpeg(mjpeg) => {
                if let Some(parts) = self.url(&path.field("url"), &mjpeg.url, &["http", "https"]) {
                    self.tls(&path, parts.scheme, mjpeg.verify, mjpeg.ca.as_deref());
                    if mjpeg.allow_basic && parts.user.is_none_or(str::is_empty) {
                        let problem =
                            Problem::new(&path.field("allow_basic"), "there is no password to send");
                        self.problems.push(problem.remedy("put user:password@ into the url"));
                    }
                }
            }
            Source::File(file) => {
                if !file.has_file_name() {
                    let problem =
                        Problem::new(&path.field("path"), "must be the whole path of a file, without ..");
                    let got = file.path.display().to_string();
                    self.problems.push(problem.got(got).remedy("an MP4, Matroska, FLV or MPEG-TS file"));
                }
            }
            Source::Test(test) => {
                self.even(&path.field("width"), Some(test.width));
                self.even(&path.field("height"), Some(test.height));
            }
        }
    }

    fn controls(&mut self, path: &Path, controls: &BTreeMap<String, i64>) {
        if controls.len() > V4l2::CONTROLS_MAX {
            let problem = format!("at most {} controls", V4l2::CONTROLS_MAX);
            self.problems.push(Problem::new(path, problem).got(controls.len().to_string()));
        }
        for name in controls.keys().filter(|name| !V4l2::is_control_name(name)) {
            let problem = Problem::new(path, "a name of a control is 1 to 32 of a-z 0-9 _");
            self.problems.push(problem.got(name.as_str()).remedy("`fieldgate devices` lists the controls"));
        }
    }

    fn rtsp(&mut self, path: &Path, rtsp: &Rtsp) {
        let schemes = ["rtsp", "rtsps"];
        let main = self.url(&path.field("url"), &rtsp.url, &schemes);
        let sub_url = rtsp.sub_url.as_ref();
        let sub = sub_url.and_then(|url| self.url(&path.field("sub_url"), url, &schemes));
        if rtsp.stream == RtspStream::Sub && sub_url.is_none() {
            let problem = Problem::new(&path.field("stream"), "the sub-stream has no address");
            self.problems.push(problem.got("sub").remedy("set sub_url"));
        }
        if let (Some(main), Some(sub)) = (main, sub)
            && !main.host.eq_ignore_ascii_case(sub.host)
        {
            let problem = Problem::new(&path.field("sub_url"), "must be on the same camera as url");
            self.problems.push(problem.got(sub.host));
        }
        let taken = if rtsp.stream == RtspStream::Sub { sub } else { main };
        let Some(taken) = taken else { return };
        self.tls(path, taken.scheme, rtsp.verify, rtsp.ca.as_deref());
        if taken.scheme.eq_ignore_ascii_case("rtsps") && rtsp.transport == RtspTransport::Udp {
            let problem = Problem::new(&path.field("transport"), "packets over UDP would not be encrypted");
            self.problems.push(problem.got("udp").remedy("use tcp with an rtsps:// address"));
        }
    }

    fn push(&mut self, path: &Path, push: &Push, max: Option<u32>) {
        let at = path.field("url");
        if let Some(id) = &push.id
            && !is_stream_name(id)
        {
            let problem = "must be A-Z a-z 0-9 . _ - and start with a letter or digit";
            self.problems.push(Problem::new(&path.field("id"), problem).got(id.as_str()));
        }
        let Some(parts) = self.url(&at, &push.url, &["rtmp", "rtmps", "kmp", "kmps"]) else { return };
        let is_kmp = ["kmp", "kmps"].iter().any(|kmp| parts.scheme.eq_ignore_ascii_case(kmp));
        if is_kmp {
            self.kmp(path, push, parts);
        } else {
            self.rtmp_path(&at, &push.url, parts);
            self.only_for(&path.field("channel_id"), push.channel_id.is_some(), "kmp");
            self.only_for(&path.field("track_ids"), push.track_ids.is_some(), "kmp");
            self.only_for(&path.field("spool"), push.spool.is_some(), "kmp");
            self.only_for(&path.field("memory"), push.memory.is_some(), "kmp");
            self.only_for(&path.field("order"), push.order != PushOrder::default(), "kmp");
            self.only_for(&path.field("backlog_channel_id"), push.backlog_channel_id.is_some(), "kmp");
        }
        self.only_for(&path.field("chunk_len"), is_kmp && push.chunk_len.is_some(), "rtmp");
        self.tls(path, parts.scheme, push.verify, push.ca.as_deref());
        let names_stream = [Some(push.url.reveal()), push.channel_id.as_deref()];
        let names_stream = names_stream.into_iter().flatten().any(|text| text.contains(PLACEHOLDER));
        if self.is_template && !names_stream && max != Some(1) {
            self.problems.push(
                Problem::new(&at, "every stream of the template would be pushed to one address")
                    .got(push.url.redacted())
                    .remedy("put {name} into the URL or channel_id, or set max to 1"),
            );
        }
    }

    fn kmp(&mut self, path: &Path, push: &Push, parts: UrlParts<'_>) {
        if parts.port.is_none() {
            self.problems.push(Problem::new(&path.field("url"), "names no port").got(push.url.redacted()));
        }
        match push.channel_id.as_deref() {
            None => self.problems.push(Problem::new(&path.field("channel_id"), "is missing; KMP needs it")),
            Some(id) => self.printable(&path.field("channel_id"), id),
        }
        self.kmp_order(path, push);
        if push.memory.is_some() && push.spool.is_some() {
            let problem = Problem::new(&path.field("memory"), "has no meaning beside spool");
            self.problems.push(problem.remedy("leave one of them out"));
        }
        if let Some(ids) = &push.track_ids {
            self.printable(&path.field("track_ids").field("video"), &ids.video);
            self.printable(&path.field("track_ids").field("audio"), &ids.audio);
            if ids.video == ids.audio {
                let path = path.field("track_ids").field("audio");
                self.problems
                    .push(Problem::new(&path, "must differ from the video track's").got(ids.audio.as_str()));
            }
        }
    }

    fn kmp_order(&mut self, path: &Path, push: &Push) {
        let at = path.field("backlog_channel_id");
        match (push.order, push.backlog_channel_id.as_deref()) {
            (PushOrder::LiveFirst, None) => self.problems.push(Problem::new(
                &at,
                "is missing; live_first needs a second channel, as ids only rise on a channel",
            )),
            (PushOrder::OldestFirst, Some(id)) => {
                self.problems.push(Problem::new(&at, "has a meaning only with order live_first").got(id));
            }
            (PushOrder::LiveFirst, Some(id)) if Some(id) == push.channel_id.as_deref() => {
                self.problems.push(Problem::new(&at, "must differ from channel_id").got(id));
            }
            (_, id) => id.into_iter().for_each(|id| self.printable(&at, id)),
        }
        if self.is_template
            && let Some(id) = push.backlog_channel_id.as_deref().filter(|id| !id.contains(PLACEHOLDER))
            && push.channel_id.as_deref().is_some_and(|channel| channel.contains(PLACEHOLDER))
        {
            let problem = Problem::new(&at, "every stream of the template would share it");
            self.problems.push(problem.got(id).remedy("put {name} into it, as into channel_id"));
        }
    }

    /// Checks what holds for every URL; its parts if they can be looked at further.
    fn url<'u>(&mut self, path: &Path, url: &'u SecretUrl, schemes: &[&str]) -> Option<UrlParts<'u>> {
        let text = url.reveal();
        if text.replace(PLACEHOLDER, "").contains(['{', '}']) {
            let problem = Problem::new(path, "{name} is the only placeholder");
            self.problems.push(problem.got(url.redacted()));
        } else if text.contains(PLACEHOLDER) && !self.is_template {
            let problem = Problem::new(path, "{name} has a meaning only in a template (a name ending in *)");
            self.problems.push(problem.got(url.redacted()));
        }
        let parts = match url.parts() {
            Ok(parts) => parts,
            Err(error) => {
                self.problems.push(Problem::new(path, error.to_string()).got(url.redacted()));
                return None;
            }
        };
        if schemes.iter().any(|scheme| parts.scheme.eq_ignore_ascii_case(scheme)) {
            return Some(parts);
        }
        let (last, others) = schemes.split_last()?;
        let problem = format!("scheme must be {} or {last}", others.join(", "));
        self.problems.push(Problem::new(path, problem).got(parts.scheme));
        None
    }

    /// An RTMP URL needs an application and a stream; some servers take the latter from the query.
    fn rtmp_path(&mut self, path: &Path, url: &SecretUrl, parts: UrlParts<'_>) {
        let segments = parts.path.split('/').filter(|segment| !segment.is_empty()).count();
        if segments == 0 || (segments == 1 && parts.query.is_none()) {
            let problem = Problem::new(path, "names no stream");
            self.problems.push(problem.got(url.redacted()).remedy("rtmp://HOST/APPLICATION/STREAM"));
        }
    }

    fn tls(&mut self, path: &Path, scheme: &str, verify: bool, ca: Option<&FilePath>) {
        if !["rtmps", "kmps", "rtsps", "https"].iter().any(|tls| scheme.eq_ignore_ascii_case(tls)) {
            let with_tls = match scheme.to_ascii_lowercase().as_str() {
                "rtsp" => "rtsps",
                "http" => "https",
                _ => "rtmps:// and kmps",
            };
            self.only_for(&path.field("verify"), !verify, with_tls);
            self.only_for(&path.field("ca"), ca.is_some(), with_tls);
        } else if let Some(ca) = ca {
            self.problems.extend(check_file(&path.field("ca"), ca));
        }
    }

    fn only_for(&mut self, path: &Path, is_set: bool, scheme: &str) {
        if is_set {
            self.problems.push(Problem::new(path, format!("has a meaning only for {scheme}:// URLs")));
        }
    }

    fn even(&mut self, path: &Path, len: Option<u32>) {
        if let Some(len) = len.filter(|len| len % 2 != 0) {
            self.problems.push(Problem::new(path, "must be even").got(len));
        }
    }

    fn printable(&mut self, path: &Path, text: &str) {
        if !text.chars().all(|c| c.is_ascii_graphic() || matches!(c, '{' | '}')) {
            self.problems.push(Problem::new(path, "must be printable ASCII without blanks").got(text));
        }
    }

    fn key(&mut self, path: &Path, key: Option<&Secret>) {
        self.problems.extend(check_key(path, key));
    }
}

/// The length of a key is not in its public form, which is all that `shape` sees.
pub(super) fn check_key(path: &Path, key: Option<&Secret>) -> Option<Problem> {
    let text = key.filter(|key| !key.is_kept())?.reveal();
    let is_key = (1..=256).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic());
    (!is_key).then(|| Problem::new(path, "a key is 1 to 256 printable ASCII characters without blanks"))
}
