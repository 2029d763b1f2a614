//! Cameras on the network: the search by the config that runs, and what a person, the planner or the recovery ladder
//! wants of one of them.
//!
//! A camera's credentials are kept here, in memory, for as long as the camera is heard at the address that was
//! confirmed; at another address it is another camera until somebody logs in again.

mod pictures;
mod show;
#[cfg(test)]
mod tests;

pub use pictures::Eyes;

use crate::admin::discovery::{
    CameraApi, CameraError, CameraView, CameraWish, EncoderWish, FoundPicture, LoginWish, SearchView,
};
use fieldgate_hub::{Clock, LoginWait, Logins};
use fieldgate_model::Config;
use fieldgate_net::{
    CameraClient, CameraClientError, CameraLogin, Finder, FinderSettings, Found, NetworkInterface,
    may_be_camera,
};
use fieldgate_proto::http_auth::Credentials;
use fieldgate_proto::onvif::{
    self, Camera, ClientError, Gap, Login, Profile, ServiceUrl, VideoCodec, WishError, main_and_sub,
};
use fieldgate_proto::rtsp_probe::{self, COMMON_PATHS, Cause, Outcome};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The port of RTSP servers that say no other.
const RTSP_PORT: u16 = 554;

/// What is known of a camera that somebody logged in to.
struct Known {
    /// The address that was confirmed.
    address: IpAddr,
    login: CameraLogin,
    survey: Option<Camera>,
    main: Option<Outcome>,
    sub: Option<Outcome>,
}

/// Finds cameras and asks them; shared by the admin plane and whoever mends or plans.
pub struct Cameras {
    finder: Finder,
    client: CameraClient,
    logins: Logins,
    clock: Clock,
    runtime: Handle,
    known: Mutex<BTreeMap<String, Known>>,
    /// None where no pictures can be taken.
    album: Option<pictures::Album>,
}

impl Cameras {
    /// To be called inside the runtime that does the asking.
    pub fn new(clock: Clock) -> Self {
        let logins = Logins::default();
        Cameras {
            finder: Finder::default(),
            client: CameraClient::new(logins.clone(), clock.clone()),
            logins,
            clock,
            runtime: Handle::current(),
            known: Mutex::default(),
            album: None,
        }
    }

    /// With pictures of cameras that were found.
    #[must_use]
    pub fn with_pictures(self, eyes: Eyes) -> Self {
        Cameras { album: Some(pictures::Album::new(eyes)), ..self }
    }

    /// Who may log in to which camera now; for every part of the gateway that does.
    pub fn logins(&self) -> &Logins {
        &self.logins
    }

    /// Searches, and takes the pictures that are asked for, until cancelled, as the config says.
    pub async fn run(&self, mut config: watch::Receiver<Arc<Config>>, cancel: CancellationToken) {
        let settings = |config: &Config| FinderSettings {
            interfaces: config.discovery.interfaces.clone(),
            onvif: config.discovery.onvif,
            mdns: config.discovery.mdns,
            interval: config.discovery.interval.get(),
            ..FinderSettings::default()
        };
        let first = settings(&config.borrow_and_update());
        let (feed, follow) = watch::channel(first);
        let watched = config.clone();
        let taking = async move {
            self.take_pictures(watched).await;
            std::future::pending::<()>().await;
        };
        let following = async {
            while config.changed().await.is_ok() {
                let now = settings(&config.borrow_and_update());
                feed.send_if_modified(|settings| {
                    let differs = *settings != now;
                    *settings = now;
                    differs
                });
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = self.finder.run(follow, cancel) => {}
            () = following => {}
            () = taking => {}
        }
    }

    /// Reboots the camera at `host`, an address or a name out of the config. It has said yes when this returns.
    ///
    /// At most one try per credential in five minutes, unless the camera has taken it before.
    pub async fn reboot(&self, host: &str, credentials: &Credentials) -> Result<(), CameraHostError> {
        let device = self.device(host).await?;
        Ok(self.client.reboot(device, Some(&encrypted_only(credentials))).await?)
    }

    /// The profiles of the camera at `host`, an address or a name out of the config: "has it one in H.264?"
    pub async fn profiles(
        &self,
        host: &str,
        credentials: &Credentials,
    ) -> Result<Vec<Profile>, CameraHostError> {
        let device = self.device(host).await?;
        Ok(self.client.profiles(device, Some(&encrypted_only(credentials))).await?)
    }

    /// The device service of a host. A name is looked up once, and what comes of it is all that is used.
    async fn device(&self, host: &str) -> Result<ServiceUrl, CameraHostError> {
        let plain = host.trim_start_matches('[').trim_end_matches(']');
        let address = match plain.parse::<IpAddr>() {
            // Somebody wrote it into the config.
            Ok(address) => address,
            Err(_) => {
                let unknown = || CameraHostError::Unknown(host.to_owned());
                let found = tokio::net::lookup_host((host, 80)).await.map_err(|_| unknown())?;
                let addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
                let interfaces = self.finder.state().interfaces;
                let camera = addresses.iter().find(|address| may_be_camera(**address, &interfaces)).copied();
                camera.ok_or_else(|| match addresses.first() {
                    Some(address) => CameraHostError::Forbidden { host: host.to_owned(), address: *address },
                    None => unknown(),
                })?
            }
        };
        let found = self.finder.found().into_iter().find(|camera| camera.address == address.to_canonical());
        Ok(found.map_or_else(|| ServiceUrl::device_service(address, 80), |found| device_of(&found)))
    }

    async fn do_login(&self, id: &str, wish: LoginWish) -> Result<CameraView, CameraError> {
        let found = self.reachable(id)?;
        if let Some(wanted) = wish.address.filter(|wanted| wanted.to_canonical() != found.address) {
            return Err(CameraError::Moved { wanted, now: found.address });
        }
        let credentials = Credentials { user: wish.user, password: wish.password.reveal().to_owned() };
        let login = CameraLogin { credentials, allow_basic: wish.allow_basic };
        let known = self.look_around(&found, login).await?;
        info!(camera = id, address = %found.address, "a camera was logged in to");
        let view = show::camera(&found, Some(&known), &self.clock);
        self.lock().insert(id.to_owned(), known);
        Ok(view)
    }

    /// Asks a camera all that a person may want to know.
    async fn look_around(&self, found: &Found, login: CameraLogin) -> Result<Known, CameraError> {
        let survey = match self.client.survey(device_of(found), Some(&login)).await {
            Ok(survey) => Some(survey),
            // No ONVIF there: perhaps a stream all the same.
            Err(CameraClientError::Client(ClientError::NoAnswer(_))) => None,
            Err(error) => return Err(told(error)),
        };
        if let Some(survey) = &survey {
            if survey.login == Login::Refused {
                return Err(CameraError::LoginRefused);
            }
            if survey.gaps.contains(&Gap::BasicNeedsConsent) {
                return Err(CameraError::BasicNeedsConsent);
            }
            if survey.login == Login::Undecided {
                return Err(CameraError::Camera(
                    "the camera did not answer the login, so whether it is right is not known".to_owned(),
                ));
            }
        }
        let profiles = survey.as_ref().map_or(&[][..], |survey| survey.profiles.as_slice());
        let (main, sub) = main_and_sub(profiles);
        let url = |profile: Option<&Profile>| profile.and_then(|profile| profile.stream.clone());
        let (main_url, sub_url) = (url(main), url(sub));
        let has_urls = main_url.is_some();
        let candidates = if has_urls { main_url.into_iter().collect() } else { candidates(found) };
        let main = self.stream(found.address, candidates, &login).await?;
        if !has_urls && survey.as_ref().is_none_or(|survey| survey.login == Login::Unused) {
            // All that is known of the login comes from the stream.
            match main.cause {
                Some(Cause::LoginRefused) => return Err(CameraError::LoginRefused),
                Some(Cause::BasicNeedsConsent) => return Err(CameraError::BasicNeedsConsent),
                Some(Cause::NoAnswer) if survey.is_none() => {
                    let text = "the camera answers neither ONVIF nor RTSP";
                    return Err(CameraError::Camera(text.to_owned()));
                }
                _ => {}
            }
        }
        let sub = match sub_url.filter(|_| main.found.is_some()) {
            Some(url) => Some(self.stream(found.address, vec![url], &login).await?),
            None => None,
        };
        Ok(Known { address: found.address, login, survey, main: Some(main), sub })
    }

    async fn stream(
        &self,
        address: IpAddr,
        urls: Vec<ServiceUrl>,
        login: &CameraLogin,
    ) -> Result<Outcome, CameraError> {
        self.client.find_stream(address, urls, Some(login)).await.map_err(told)
    }

    async fn set_encoder(&self, id: &str, wish: EncoderWish) -> Result<CameraView, CameraError> {
        let (found, login) = self.logged_in(id)?;
        let codec = match wish.codec.as_deref() {
            None => None,
            Some(name) => Some(VideoCodec::from_name(name).ok_or_else(|| {
                CameraError::Setting("codec must be h264, hevc, mjpeg or mpeg4".to_owned())
            })?),
        };
        let wish = onvif::EncoderWish {
            profile: wish.profile,
            codec,
            bitrate_kbps: wish.bitrate_kbps,
            gop: wish.gop,
            fps: wish.fps,
        };
        let changed = self.client.set_encoder(device_of(&found), Some(&login), wish).await.map_err(told)?;
        info!(camera = id, address = %found.address, "a camera's encoder was set");
        let mut all = self.lock();
        let known = all.get_mut(id);
        if let Some(survey) =
            known.and_then(|known| known.survey.as_mut()).filter(|_| !changed.profiles.is_empty())
        {
            survey.profiles = changed.profiles;
        }
        Ok(show::camera(&found, all.get(id), &self.clock))
    }

    async fn reboot_found(&self, id: &str) -> Result<CameraView, CameraError> {
        let (found, login) = self.logged_in(id)?;
        self.client.reboot(device_of(&found), Some(&login)).await.map_err(told)?;
        info!(camera = id, address = %found.address, "a camera reboots");
        Ok(show::camera(&found, self.lock().get(id), &self.clock))
    }

    async fn set_clock(&self, id: &str) -> Result<CameraView, CameraError> {
        let (found, login) = self.logged_in(id)?;
        self.client.set_clock(device_of(&found), Some(&login)).await.map_err(told)?;
        info!(camera = id, address = %found.address, "a camera's clock was set");
        let mut all = self.lock();
        if let Some(survey) = all.get_mut(id).and_then(|known| known.survey.as_mut()) {
            survey.time_offset_millis = Some(0);
        }
        Ok(show::camera(&found, all.get(id), &self.clock))
    }

    /// A camera to which something may be sent.
    fn reachable(&self, id: &str) -> Result<Found, CameraError> {
        let Some(found) = self.finder.get(id) else {
            let is_local = show::local_cameras().iter().any(|camera| camera.id == id);
            let id = id.to_owned();
            return Err(if is_local { CameraError::Local(id) } else { CameraError::Unknown(id) });
        };
        let interfaces: Vec<NetworkInterface> = self.finder.state().interfaces;
        if !found.reachable || !may_be_camera(found.address, &interfaces) {
            return Err(CameraError::Unreachable(found.address));
        }
        Ok(found)
    }

    fn logged_in(&self, id: &str) -> Result<(Found, CameraLogin), CameraError> {
        let found = self.reachable(id)?;
        let all = self.lock();
        let known = all.get(id).filter(|known| known.address == found.address);
        let login = known.map(|known| known.login.clone());
        Ok((found, login.ok_or_else(|| CameraError::LoginFirst(id.to_owned()))?))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CameraApi for Cameras {
    fn cameras(&self) -> Vec<CameraView> {
        let found = self.finder.found();
        let mut known = self.lock();
        // Credentials go with the camera, and with the address that was confirmed.
        known.retain(|id, known| {
            found.iter().any(|camera| camera.id == *id && camera.address == known.address)
        });
        let on_network = found.iter().map(|camera| show::camera(camera, known.get(&camera.id), &self.clock));
        on_network.chain(show::local_cameras()).collect()
    }

    fn search(&self) -> SearchView {
        show::search(&self.finder.state(), &self.clock)
    }

    fn scan(&self, addresses: &[IpAddr]) -> Result<(), CameraError> {
        self.finder.scan(addresses).map_err(|error| CameraError::Address(error.to_string()))
    }

    fn picture(&self, id: &str, login: Option<LoginWish>) -> Result<FoundPicture, CameraError> {
        self.found_picture(id, login)
    }

    fn act(&self, id: &str, wish: CameraWish) -> Result<CameraView, CameraError> {
        let done = async {
            match wish {
                CameraWish::Login(wish) => self.do_login(id, wish).await,
                CameraWish::Encoder(wish) => self.set_encoder(id, wish).await,
                CameraWish::Reboot => self.reboot_found(id).await,
                CameraWish::Clock => self.set_clock(id).await,
            }
        };
        let done = self.runtime.block_on(done);
        if let Err(error) = &done {
            warn!(camera = id, %error, "a camera did not do it");
        }
        done
    }
}

/// Why a configured camera did not do it.
#[derive(Debug, thiserror::Error)]
pub enum CameraHostError {
    /// DNS does not know it.
    #[error("name {0} does not resolve: check the name or the gateway's DNS")]
    Unknown(String),
    /// It resolves to what can be no camera.
    #[error("{host} resolves to {address}, which can be no camera's address")]
    Forbidden {
        /// The name.
        host: String,
        /// Its address.
        address: IpAddr,
    },
    /// The camera said no, or nothing.
    #[error(transparent)]
    Camera(#[from] CameraClientError),
}

/// Nobody was asked whether the password may go out in clear text.
fn encrypted_only(credentials: &Credentials) -> CameraLogin {
    CameraLogin { credentials: credentials.clone(), allow_basic: false }
}

fn device_of(found: &Found) -> ServiceUrl {
    found.device.clone().unwrap_or_else(|| ServiceUrl::device_service(found.address, 80))
}

/// Where a camera that tells no address of a stream may have one.
fn candidates(found: &Found) -> Vec<ServiceUrl> {
    let url = |port: u16, path: &str| ServiceUrl {
        scheme: onvif::Scheme::Rtsp,
        host: found.address,
        port,
        target: format!("/{}", path.trim_start_matches('/')),
    };
    let is_plain = |path: &String| path.bytes().all(|byte| byte.is_ascii_graphic());
    let hinted = found
        .hints
        .iter()
        .filter_map(|hint| hint.path.as_ref().filter(|path| is_plain(path)).map(|path| url(hint.port, path)));
    let port = found.hints.first().map_or(RTSP_PORT, |hint| hint.port);
    let mut all: Vec<ServiceUrl> = hinted.collect();
    all.extend(COMMON_PATHS.iter().map(|path| url(port, path)));
    all.truncate(rtsp_probe::MAX_URLS);
    all
}

fn told(error: CameraClientError) -> CameraError {
    match error {
        CameraClientError::Wait(wait) => {
            let remaining = match wait {
                LoginWait::Refused(remaining) => remaining,
                LoginWait::UnderWay => Duration::from_secs(5),
                LoginWait::Full => Duration::from_secs(60),
            };
            CameraError::Wait { cause: wait.to_string(), remaining }
        }
        CameraClientError::Client(ClientError::LoginRefused) => CameraError::LoginRefused,
        CameraClientError::Client(ClientError::BasicNeedsConsent) => CameraError::BasicNeedsConsent,
        CameraClientError::Client(ClientError::Wish(error)) => {
            let text: &WishError = &error;
            CameraError::Setting(text.to_string())
        }
        other => CameraError::Camera(other.to_string()),
    }
}
