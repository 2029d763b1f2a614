//! The config's secrets: where they are, how they are stored, how they survive being read back and sent again.

use super::{
    Config, Control, Coordinator, CoordinatorCall, Encoder, KmpApplication, Path, Problem, Push, Secret,
    SecretUrl, Source, UrlParts,
};
use serde_json::Value;

/// Why a config has no stored form.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// A secret stands for "as it was", so its text is not known here.
    #[error("{path} holds no secret but the wish to keep one")]
    Kept {
        /// Where.
        path: String,
    },
    /// What would be stored does not read back as the same config.
    #[error("the config does not survive being stored; a setting is left out of its stored form")]
    Lossy,
    /// It does not serialise.
    #[error("the config does not serialise")]
    Json(#[from] serde_json::Error),
}

impl Config {
    /// The form **with all secrets**, for the store alone.
    ///
    /// Checked by reading it back: a secret that `visit` forgets is an error here, never a loss on flash.
    pub fn stored(&self) -> Result<Value, StoredError> {
        let mut value = serde_json::to_value(self)?;
        let mut kept = None;
        visit(&mut self.clone(), &mut |path, _, secret| {
            let text = match secret {
                Held::Text(secret) if !secret.is_kept() => secret.reveal(),
                Held::Url(url) if !url.is_kept() => url.reveal(),
                Held::Text(_) | Held::Url(_) => {
                    kept = Some(path.to_string());
                    return;
                }
            };
            if let Some(place) = path.find_mut(&mut value) {
                *place = Value::from(text);
            }
        });
        if let Some(path) = kept {
            return Err(StoredError::Kept { path });
        }
        match serde_json::from_value::<Config>(value.clone()) {
            Ok(back) if back == *self => Ok(value),
            Ok(_) => Err(StoredError::Lossy),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts the secrets of `before` where this config says "as it was" (`{"set": true}`, `***` in a URL).
    ///
    /// A secret goes only to the same setting, and that of a URL only to the same scheme, user, host and port: else
    /// whoever may change the config could send a camera's password to a host of his own. Returns one problem for
    /// each that finds nothing to keep.
    pub fn keep_secrets(&mut self, before: &Config) -> Vec<Problem> {
        let mut problems = Vec::new();
        visit(self, &mut |path, owner, secret| match secret {
            Held::Text(secret) if secret.is_kept() => match owner.text_of(before) {
                Some(text) => *secret = text.clone(),
                None => problems.push(nothing_to_keep(path)),
            },
            Held::Url(url) if url.is_kept() => {
                let kept = owner.urls_of(before, url).into_iter().find_map(|old| with_secrets_of(url, old));
                match kept {
                    Some(whole) => *url = whole,
                    None => problems.push(nothing_to_keep(path).got(url.redacted())),
                }
            }
            Held::Text(_) | Held::Url(_) => {}
        });
        problems
    }

    /// Every secret text, to be taken out of what is shown: keys, passwords, the secret parts of URLs.
    pub fn secret_texts(&self) -> Vec<String> {
        let mut texts = Vec::new();
        visit(&mut self.clone(), &mut |_, _, secret| match secret {
            Held::Text(secret) => texts.push(secret.reveal().to_owned()),
            Held::Url(url) => texts.extend(url.secret_parts().into_iter().map(str::to_owned)),
        });
        texts.retain(|text| !text.is_empty());
        texts.sort_unstable();
        texts.dedup();
        texts
    }

    /// One problem for each secret that still stands for "as it was".
    pub(super) fn kept_secrets(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        visit(&mut self.clone(), &mut |path, _, secret| match secret {
            Held::Text(secret) if secret.is_kept() => problems.push(nothing_to_keep(path)),
            Held::Url(url) if url.is_kept() => problems.push(nothing_to_keep(path).got(url.redacted())),
            Held::Text(_) | Held::Url(_) => {}
        });
        problems
    }
}

fn nothing_to_keep(path: &Path) -> Problem {
    Problem::new(path, "there is no secret to keep here").remedy("write the secret itself")
}

/// One secret, as [`visit`] finds it.
enum Held<'a> {
    Text(&'a mut Secret),
    Url(&'a mut SecretUrl),
}

/// The setting that a secret belongs to, to be found again in another config.
enum Owner<'a> {
    Source {
        mountpoint: &'a str,
    },
    Play {
        mountpoint: &'a str,
    },
    Push {
        mountpoint: &'a str,
        id: String,
    },
    /// A webhook's signature; it goes to this URL.
    Webhook {
        name: &'a str,
        url: SecretUrl,
    },
    /// A mesh's master key, which goes to this master.
    Master {
        address: Option<String>,
    },
    /// `compat.control`: what tokens for this coordinator are signed with.
    Control {
        url: Option<String>,
    },
    /// `compat.control`: the key of a channel that a camera is.
    ControlCamera {
        channel: &'a str,
    },
    /// `compat.encoder`: what tokens for this coordinator are signed with.
    Encoder {
        url: Option<String>,
    },
    /// `compat.encoder.http`: what the server of the files is shown, and its own address.
    EncoderFiles {
        field: &'static str,
        url: SecretUrl,
    },
    /// `compat.coordinator`: what opens its sockets or commands, by the setting's name.
    Coordinator {
        setting: &'static str,
    },
    /// `compat.coordinator`: what an application is shown, and its own address, by the setting's name.
    CoordinatorCall {
        setting: &'static str,
        field: &'static str,
        url: SecretUrl,
    },
    /// A callback of a controller, by the setting's name.
    Callback {
        application: &'a str,
        setting: &'static str,
    },
    /// The password of a Wi-Fi network.
    Wifi {
        link: &'a str,
        ssid: String,
    },
    /// The broker's password.
    Broker {
        url: String,
    },
    /// The token of the fleet manager's URL.
    Pull {
        url: SecretUrl,
    },
    /// The n-th header of this name that goes to these URLs.
    /// `compat.aggregator.token`.
    AggregatorToken,
    /// The key of a registered camera.
    CameraKey {
        camera: &'a str,
    },
    Header {
        application: &'a str,
        name: String,
        nth: usize,
        urls: Vec<SecretUrl>,
    },
}

impl Owner<'_> {
    fn text_of<'c>(&self, config: &'c Config) -> Option<&'c Secret> {
        match self {
            Owner::Source { mountpoint } => match &config.mountpoints.get(*mountpoint)?.source {
                Source::Publish(publish) => publish.key.as_ref(),
                _ => None,
            },
            Owner::Play { mountpoint } => config.mountpoints.get(*mountpoint)?.play.key.as_ref(),
            Owner::Header { application, name, nth, urls } => {
                let before = config.compat.kmp.applications.get(*application)?;
                // It may not go to a host that did not have it before.
                let is_known = |url: &SecretUrl| before.urls().any(|(_, old)| is_same_peer(url, old));
                let mut same = before.add_header.iter().filter(|header| header.name == *name);
                same.nth(*nth).filter(|_| urls.iter().all(is_known)).map(|header| &header.value)
            }
            Owner::AggregatorToken => config.compat.aggregator.token.as_ref(),
            Owner::CameraKey { camera } => config.compat.aggregator.cameras.get(*camera)?.key.as_ref(),
            Owner::Webhook { name, url } => {
                let before = config.events.webhooks.get(*name)?;
                before.secret.as_ref().filter(|_| is_same_peer(url, &before.url))
            }
            // It may not go to a master that did not have it before.
            Owner::Master { address } => {
                let before = &config.compat.node;
                before.master_key.as_ref().filter(|_| before.master.is_none() || before.master == *address)
            }
            // It may not go to a network that did not have it before.
            Owner::Wifi { link, ssid } => {
                let before = config.network.links.get(*link)?.wifi.as_ref()?;
                before.psk.as_ref().filter(|_| before.ssid == *ssid)
            }
            // It may not go to a coordinator that did not have it before.
            Owner::Control { url } => {
                let before = &config.compat.control;
                before.secret.as_ref().filter(|_| before.url.is_none() || before.url == *url)
            }
            Owner::ControlCamera { channel } => {
                config.compat.control.cameras.get(*channel).map(|camera| &camera.key)
            }
            Owner::Encoder { url } => {
                let before = &config.compat.encoder;
                before.secret.as_ref().filter(|_| before.url.is_none() || before.url == *url)
            }
            // It may not go to a server that did not have it before.
            Owner::EncoderFiles { field, url } => {
                let before = config.compat.encoder.http.as_ref()?;
                of_call(before, field).filter(|_| is_same_peer(url, &before.url))
            }
            Owner::Coordinator { setting } => {
                let before = &config.compat.coordinator;
                match *setting {
                    "control_secret" => before.control_secret.as_ref(),
                    "password" => before.commands.password.as_ref(),
                    _ => before.commands.token.as_ref(),
                }
            }
            // It may not go to an application that did not have it before.
            Owner::CoordinatorCall { setting, field, url } => {
                let mut before = config.compat.coordinator.calls();
                let (_, before) =
                    before.find(|(name, call)| name == setting && is_same_peer(url, &call.url))?;
                of_call(before, field)
            }
            Owner::Broker { url } => {
                let before = config.fleet.mqtt.as_ref()?;
                before.password.as_ref().filter(|_| before.url == *url)
            }
            Owner::Pull { url } => {
                let before = config.fleet.pull.as_ref()?;
                before.token.as_ref().filter(|_| is_same_peer(url, &before.url))
            }
            Owner::Push { .. } | Owner::Callback { .. } => None,
        }
    }

    /// The URLs that may hold the secret of `url`, the likeliest first.
    fn urls_of<'c>(&self, config: &'c Config, url: &SecretUrl) -> Vec<&'c SecretUrl> {
        match self {
            Owner::Source { mountpoint } => match config.mountpoints.get(*mountpoint).map(|m| &m.source) {
                Some(Source::Rtsp(rtsp)) => {
                    let mut both: Vec<_> = std::iter::once(&rtsp.url).chain(&rtsp.sub_url).collect();
                    // Each stream may have a login of its own: the one of the same address is meant.
                    both.sort_by_key(|known| known.redacted() != url.redacted());
                    both
                }
                Some(Source::Pull(pull)) => vec![&pull.url],
                Some(Source::Mjpeg(mjpeg)) => vec![&mjpeg.url],
                _ => Vec::new(),
            },
            Owner::Push { mountpoint, id } => {
                let pushes =
                    config.mountpoints.get(*mountpoint).map(|m| m.push.as_slice()).unwrap_or_default();
                let same_id = pushes.iter().filter(|push| push.effective_id() == *id);
                // Without an `id` of its own a push whose path changes has a new one; its neighbours on the same
                // server are then candidates, if there is no doubt which.
                let mut same_server = pushes.iter().filter(|push| is_same_peer(&push.url, url));
                let only = same_server.next().filter(|_| same_server.next().is_none());
                same_id.chain(only).map(|push| &push.url).collect()
            }
            Owner::Callback { application, setting } => {
                let before = config.compat.kmp.applications.get(*application);
                let urls = before.into_iter().flat_map(KmpApplication::urls);
                urls.filter(|(name, _)| name == setting).map(|(_, url)| url).collect()
            }
            Owner::Pull { .. } => config.fleet.pull.iter().map(|pull| &pull.url).collect(),
            Owner::Play { .. }
            | Owner::Header { .. }
            | Owner::Broker { .. }
            | Owner::Wifi { .. }
            | Owner::AggregatorToken
            | Owner::CameraKey { .. }
            | Owner::Coordinator { .. }
            | Owner::Control { .. }
            | Owner::ControlCamera { .. }
            | Owner::Encoder { .. }
            | Owner::Master { .. } => Vec::new(),
            Owner::EncoderFiles { .. } => config.compat.encoder.http.iter().map(|http| &http.url).collect(),
            Owner::CoordinatorCall { setting, .. } => {
                let calls = config.compat.coordinator.calls();
                calls.filter(|(name, _)| name == setting).map(|(_, call)| &call.url).collect()
            }
            Owner::Webhook { name, .. } => {
                config.events.webhooks.get(*name).map(|hook| &hook.url).into_iter().collect()
            }
        }
    }
}

/// Visits every secret of the config with its place and owner. **The one list of where secrets are.**
fn visit(config: &mut Config, visitor: &mut dyn FnMut(&Path, &Owner<'_>, Held<'_>)) {
    for (mountpoint, settings) in &mut config.mountpoints {
        let at = Path::mountpoint(mountpoint);
        let source = Owner::Source { mountpoint };
        match &mut settings.source {
            Source::Publish(publish) => {
                if let Some(key) = &mut publish.key {
                    visitor(&at.field("source").field("key"), &source, Held::Text(key));
                }
            }
            Source::Rtsp(rtsp) => {
                visitor(&at.field("source").field("url"), &source, Held::Url(&mut rtsp.url));
                if let Some(sub) = &mut rtsp.sub_url {
                    visitor(&at.field("source").field("sub_url"), &source, Held::Url(sub));
                }
            }
            Source::Pull(pull) => {
                visitor(&at.field("source").field("url"), &source, Held::Url(&mut pull.url))
            }
            Source::Mjpeg(mjpeg) => {
                visitor(&at.field("source").field("url"), &source, Held::Url(&mut mjpeg.url))
            }
            Source::V4l2(_)
            | Source::Csi(_)
            | Source::Rtp(_)
            | Source::File(_)
            | Source::Test(_)
            | Source::Kmp(_) => {}
        }
        for (index, push) in settings.push.iter_mut().enumerate() {
            let owner = Owner::Push { mountpoint, id: Push::effective_id(push) };
            visitor(&at.field("push").item(index).field("url"), &owner, Held::Url(&mut push.url));
        }
        if let Some(key) = &mut settings.play.key {
            visitor(&at.field("play").field("key"), &Owner::Play { mountpoint }, Held::Text(key));
        }
    }
    let aggregator = Path::root().field("compat").field("aggregator");
    if let Some(token) = &mut config.compat.aggregator.token {
        visitor(&aggregator.field("token"), &Owner::AggregatorToken, Held::Text(token));
    }
    for (camera, settings) in &mut config.compat.aggregator.cameras {
        if let Some(key) = &mut settings.key {
            let path = aggregator.field("cameras").field(camera).field("key");
            visitor(&path, &Owner::CameraKey { camera }, Held::Text(key));
        }
    }
    let webhooks = Path::root().field("events").field("webhooks");
    for (name, hook) in &mut config.events.webhooks {
        let at = webhooks.field(name);
        let owner = Owner::Webhook { name, url: hook.url.clone() };
        visitor(&at.field("url"), &owner, Held::Url(&mut hook.url));
        if let Some(secret) = &mut hook.secret {
            visitor(&at.field("secret"), &owner, Held::Text(secret));
        }
    }
    let node = &mut config.compat.node;
    let owner = Owner::Master { address: node.master.clone() };
    if let Some(key) = &mut node.master_key {
        visitor(&Path::root().field("compat").field("node").field("master_key"), &owner, Held::Text(key));
    }
    let links = Path::root().field("network").field("links");
    for (link, settings) in &mut config.network.links {
        if let Some(wifi) = &mut settings.wifi
            && let Some(psk) = &mut wifi.psk
        {
            let owner = Owner::Wifi { link, ssid: wifi.ssid.clone() };
            visitor(&links.field(link).field("wifi").field("psk"), &owner, Held::Text(psk));
        }
    }
    visit_coordinator(&mut config.compat.coordinator, visitor);
    visit_control(&mut config.compat.control, visitor);
    visit_encoder(&mut config.compat.encoder, visitor);
    let fleet = Path::root().field("fleet");
    if let Some(mqtt) = &mut config.fleet.mqtt
        && let Some(password) = &mut mqtt.password
    {
        let owner = Owner::Broker { url: mqtt.url.clone() };
        visitor(&fleet.field("mqtt").field("password"), &owner, Held::Text(password));
    }
    if let Some(pull) = &mut config.fleet.pull {
        let (at, owner) = (fleet.field("pull"), Owner::Pull { url: pull.url.clone() });
        visitor(&at.field("url"), &owner, Held::Url(&mut pull.url));
        if let Some(token) = &mut pull.token {
            visitor(&at.field("token"), &owner, Held::Text(token));
        }
    }
    let applications = Path::root().field("compat").field("kmp").field("applications");
    for (application, settings) in &mut config.compat.kmp.applications {
        let at = applications.field(application);
        let urls: Vec<SecretUrl> = settings.urls().map(|(_, url)| url.clone()).collect();
        let callbacks = [
            ("connect_url", &mut settings.connect_url),
            ("publish_url", &mut settings.publish_url),
            ("unpublish_url", &mut settings.unpublish_url),
            ("republish_url", &mut settings.republish_url),
        ];
        for (setting, url) in callbacks {
            if let Some(url) = url {
                visitor(&at.field(setting), &Owner::Callback { application, setting }, Held::Url(url));
            }
        }
        let names: Vec<String> = settings.add_header.iter().map(|header| header.name.clone()).collect();
        for (index, header) in settings.add_header.iter_mut().enumerate() {
            let nth = names.iter().take(index).filter(|name| **name == header.name).count();
            let owner = Owner::Header { application, name: header.name.clone(), nth, urls: urls.clone() };
            let path = at.field("add_header").item(index).field("value");
            visitor(&path, &owner, Held::Text(&mut header.value));
        }
    }
}

fn visit_coordinator(settings: &mut Coordinator, visitor: &mut dyn FnMut(&Path, &Owner<'_>, Held<'_>)) {
    let at = Path::root().field("compat").field("coordinator");
    let commands = at.field("commands");
    for (path, setting, secret) in [
        (at.field("control_secret"), "control_secret", &mut settings.control_secret),
        (commands.field("password"), "password", &mut settings.commands.password),
        (commands.field("token"), "token", &mut settings.commands.token),
    ] {
        if let Some(secret) = secret {
            visitor(&path, &Owner::Coordinator { setting }, Held::Text(secret));
        }
    }
    let calls = [("key_verification", &mut settings.key_verification), ("events", &mut settings.events)];
    for (setting, call) in calls {
        let Some(call) = call else { continue };
        let (url, path) = (call.url.clone(), at.field(setting));
        visit_call(call, &path, |field| Owner::CoordinatorCall { setting, field, url: url.clone() }, visitor);
    }
}

/// What an application is shown, by its setting's name.
fn of_call<'a>(call: &'a CoordinatorCall, field: &str) -> Option<&'a Secret> {
    match field {
        "password" => call.password.as_ref(),
        "token" => call.token.as_ref(),
        _ => call.header.as_ref(),
    }
}

fn visit_call(
    call: &mut CoordinatorCall,
    at: &Path,
    owner: impl Fn(&'static str) -> Owner<'static>,
    visitor: &mut dyn FnMut(&Path, &Owner<'_>, Held<'_>),
) {
    visitor(&at.field("url"), &owner("url"), Held::Url(&mut call.url));
    let secrets = [&mut call.password, &mut call.token, &mut call.header];
    for (secret, field) in secrets.into_iter().zip(["password", "token", "header"]) {
        if let Some(secret) = secret {
            visitor(&at.field(field), &owner(field), Held::Text(secret));
        }
    }
}

fn visit_encoder(settings: &mut Encoder, visitor: &mut dyn FnMut(&Path, &Owner<'_>, Held<'_>)) {
    let at = Path::root().field("compat").field("encoder");
    if let Some(secret) = &mut settings.secret {
        let owner = Owner::Encoder { url: settings.url.clone() };
        visitor(&at.field("secret"), &owner, Held::Text(secret));
    }
    if let Some(http) = &mut settings.http {
        let url = http.url.clone();
        visit_call(http, &at.field("http"), |field| Owner::EncoderFiles { field, url: url.clone() }, visitor);
    }
}

fn visit_control(settings: &mut Control, visitor: &mut dyn FnMut(&Path, &Owner<'_>, Held<'_>)) {
    let at = Path::root().field("compat").field("control");
    if let Some(secret) = &mut settings.secret {
        let owner = Owner::Control { url: settings.url.clone() };
        visitor(&at.field("secret"), &owner, Held::Text(secret));
    }
    for (channel, camera) in &mut settings.cameras {
        let path = at.field("cameras").field(channel).field("key");
        visitor(&path, &Owner::ControlCamera { channel }, Held::Text(&mut camera.key));
    }
}

fn is_same_peer(one: &SecretUrl, other: &SecretUrl) -> bool {
    let peer = |parts: UrlParts<'_>| {
        let UrlParts { scheme, user, host, port, .. } = parts;
        (scheme.to_ascii_lowercase(), user.map(str::to_owned), host.to_ascii_lowercase(), port)
    };
    match (one.parts(), other.parts()) {
        (Ok(one), Ok(other)) => peer(one) == peer(other),
        _ => false,
    }
}

/// `url` with its masks replaced by what `old` has there; `None` if `old` is another peer or lacks one of them.
fn with_secrets_of(url: &SecretUrl, old: &SecretUrl) -> Option<SecretUrl> {
    is_same_peer(url, old).then(|| url.unmasked_from(old)).flatten().filter(|whole| !whole.is_kept())
}

#[cfg(test)]
mod tests;
