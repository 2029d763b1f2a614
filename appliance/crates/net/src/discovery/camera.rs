//! Asks one camera, when somebody told to: ONVIF calls and RTSP probes, each login through the gateway's [`Logins`].

use super::{post, rtsp};
use crate::tls::ClientTls;
use fieldgate_hub::{CameraKey, Clock, LoginTry, LoginWait, Logins};
use fieldgate_proto::http_auth::Credentials;
use fieldgate_proto::onvif::{
    Action, Camera, Client, ClientError, EncoderWish, Login, Moment, Profile, Reply, ServiceUrl, Wish,
};
use fieldgate_proto::rtsp_probe::{Outcome, Probe};
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;

/// How long one wish may take in all; what was found by then stands.
const WISH_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the search for a stream may take in all.
const STREAM_TIMEOUT: Duration = Duration::from_secs(8);

/// Who logs in, and how far the password may travel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CameraLogin {
    /// User and password.
    pub credentials: Credentials,
    /// The password may be sent in clear text (HTTP or RTSP Basic without TLS).
    pub allow_basic: bool,
}

/// Why a camera was not asked, or did not do it.
#[derive(Debug, thiserror::Error)]
pub enum CameraClientError {
    /// It would be one try too many.
    #[error(transparent)]
    Wait(#[from] LoginWait),
    /// The camera did not do it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The system gives no random numbers, without which no login is safe.
    #[error("the system gives no random numbers")]
    Random,
}

/// Asks cameras. Cheap to clone. The caller answers for the address: it must be one that a person confirmed.
#[derive(Clone)]
pub struct CameraClient {
    logins: Logins,
    clock: Clock,
    tls: ClientTls,
}

impl CameraClient {
    /// `logins` must be the gateway's own, so that all its parts together make one try.
    pub fn new(logins: Logins, clock: Clock) -> Self {
        // Cameras sign their certificates themselves. This keeps the password from those who only listen.
        CameraClient { logins, clock, tls: ClientTls::unverified() }
    }

    /// Finds out who the camera is and where its streams are. What it does not tell is among the gaps.
    pub async fn survey(
        &self,
        device: ServiceUrl,
        login: Option<&CameraLogin>,
    ) -> Result<Camera, CameraClientError> {
        self.ask(device, login, Wish::Survey).await
    }

    /// The camera's profiles, with encoder and stream: what a planner asks for a second profile.
    pub async fn profiles(
        &self,
        device: ServiceUrl,
        login: Option<&CameraLogin>,
    ) -> Result<Vec<Profile>, CameraClientError> {
        Ok(self.survey(device, login).await?.profiles)
    }

    /// Reboots the camera. It has said yes when this returns, and is gone for a minute or so.
    pub async fn reboot(
        &self,
        device: ServiceUrl,
        login: Option<&CameraLogin>,
    ) -> Result<(), CameraClientError> {
        self.ask(device, login, Wish::Reboot).await.map(drop)
    }

    /// Sets the camera's clock to the gateway's; a camera that follows NTP ceases to.
    pub async fn set_clock(
        &self,
        device: ServiceUrl,
        login: Option<&CameraLogin>,
    ) -> Result<(), CameraClientError> {
        self.ask(device, login, Wish::SetClock).await.map(drop)
    }

    /// Sets a video encoder; the answer is what the camera says afterwards.
    pub async fn set_encoder(
        &self,
        device: ServiceUrl,
        login: Option<&CameraLogin>,
        wish: EncoderWish,
    ) -> Result<Camera, CameraClientError> {
        self.ask(device, login, Wish::SetEncoder(wish)).await
    }

    /// The first of `urls`, all of the camera at `address`, that has a stream.
    pub async fn find_stream(
        &self,
        address: IpAddr,
        urls: Vec<ServiceUrl>,
        login: Option<&CameraLogin>,
    ) -> Result<Outcome, CameraClientError> {
        let ticket = self.begin(address, login)?;
        random()?;
        let urls = urls.into_iter().filter(|url| url.host == address).collect();
        let credentials = login.map(|login| login.credentials.clone());
        let mut probe = Probe::new(urls, credentials, login.is_some_and(|login| login.allow_basic));
        let deadline = Instant::now() + STREAM_TIMEOUT;
        rtsp::run(&mut probe, &self.tls, deadline, || random().unwrap_or_default()).await;
        settle(ticket, probe.login());
        Ok(probe.finish())
    }

    async fn ask(
        &self,
        device: ServiceUrl,
        login: Option<&CameraLogin>,
        wish: Wish,
    ) -> Result<Camera, CameraClientError> {
        let ticket = self.begin(device.host, login)?;
        let credentials = login.map(|login| login.credentials.clone());
        let allow_basic = login.is_some_and(|login| login.allow_basic);
        let deadline = Instant::now() + WISH_TIMEOUT;
        let mut client = Client::new(device, credentials, allow_basic, wish);
        while Instant::now() < deadline {
            let moment = Moment { unix_millis: self.unix_millis(), random: random()? };
            let Action::Call(call) = client.poll_action(moment) else { break };
            match post::post(&call, &self.tls, deadline).await {
                Ok(reply) => {
                    let post::PostReply { status, challenges, body } = &reply;
                    client.handle_reply(Reply { status: *status, challenges, body }, self.unix_millis());
                }
                Err(failure) => client.handle_failure(failure),
            }
        }
        settle(ticket, client.login());
        Ok(client.finish()?)
    }

    fn begin(&self, address: IpAddr, login: Option<&CameraLogin>) -> Result<Option<LoginTry>, LoginWait> {
        let Some(CameraLogin { credentials: Credentials { user, password }, .. }) = login else {
            return Ok(None);
        };
        self.logins.begin(CameraKey::address(address), user, password, Instant::now()).map(Some)
    }

    fn unix_millis(&self) -> i64 {
        self.clock.unix_micros() / 1_000
    }
}

/// Writes down what became of a login; what is not known counts as refused.
fn settle(ticket: Option<LoginTry>, login: Login) {
    let Some(ticket) = ticket else { return };
    match login {
        Login::Unused => ticket.unused(),
        Login::Accepted => ticket.accepted(Instant::now()),
        Login::Refused => ticket.refused(Instant::now()),
        Login::Undecided => drop(ticket),
    }
}

fn random() -> Result<[u8; 16], CameraClientError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| CameraClientError::Random)?;
    Ok(bytes)
}
