//! Asks one camera: which call comes next, with which login, and what its answers amount to.
//!
//! ```text
//!            no login needed, or none known           refused without a login
//!   calls ---------------------------------> Feeling ------------------------> Digest, Basic or user name token
//!                                                                                   | first call with the login
//!                                                              refused  <-----------+----------->  accepted
//!                                                              all ends                            all goes on
//! ```
//!
//! A password that is refused once is not sent again: cameras lock accounts after three or five tries. So the way of
//! logging in is found by a call without a login, and only then one call carries it. Nothing that an answer says makes
//! the client talk to another host, and redirects are not followed.

mod steps;
#[cfg(test)]
mod tests;

use super::device::{Identity, Services};
use super::encoder::{EncoderOptions, EncoderWish, VideoEncoder, WishError};
use super::media::{MediaVersion, Profile};
use super::service_url::{ServiceUrl, ServiceUrlError};
use super::soap::{self, Fault, FaultKind, SoapError};
use super::xml::Element;
use crate::http_auth::{self, Challenge, Credentials, DigestChallenge, Proof};
use std::collections::VecDeque;
use steps::Step;

/// Most calls to one camera for one wish, repeated ones included.
const MAX_CALLS: u32 = 64;
/// Most gaps that are kept.
const MAX_GAPS: usize = 32;
/// Calls that may be refused in a row to an accepted login before no more are made.
const MAX_DENIED: u32 = 2;

/// What the client shall do.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// Find out who the camera is and where its streams are.
    Survey,
    /// Reboot it.
    Reboot,
    /// Set its clock to ours.
    SetClock,
    /// Set a video encoder, then survey its profiles anew.
    SetEncoder(EncoderWish),
}

/// Our wall clock, and 16 random bytes that were never used before.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Milliseconds since 1970.
    pub unix_millis: i64,
    /// Random bytes.
    pub random: [u8; 16],
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make this call, then [`Client::handle_reply`] or [`Client::handle_failure`].
    Call(Call),
    /// Nothing more: [`Client::finish`].
    Done,
}

/// One HTTP POST of `application/soap+xml; charset=utf-8`.
#[derive(Clone, PartialEq, Eq)]
pub struct Call {
    /// Where to; always the camera itself.
    pub url: ServiceUrl,
    /// Value of the `Authorization` header.
    pub authorization: Option<String>,
    /// The message.
    pub body: String,
    /// Whether it carries the login in some form: the one try there is.
    pub with_login: bool,
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call")
            .field("url", &self.url)
            .field("with_login", &self.with_login)
            .finish_non_exhaustive()
    }
}

/// An HTTP answer.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// HTTP status.
    pub status: u16,
    /// Values of all `WWW-Authenticate` headers.
    pub challenges: &'a [String],
    /// The body.
    pub body: &'a [u8],
}

/// Why there was no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallFailure {
    /// No connection, or none in time.
    #[error("the camera cannot be reached: {0}")]
    Unreachable(String),
    /// Connected, but nothing that is an answer came in time.
    #[error("the camera gave no usable answer: {0}")]
    Unusable(String),
}

/// What became of the login.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Login {
    /// It was not sent.
    #[default]
    Unused,
    /// It was sent, and no answer told whether it is right.
    Undecided,
    /// The camera took it.
    Accepted,
    /// The camera refused it.
    Refused,
}

/// What a survey did not find, or found odd, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Gap {
    /// The camera wants a login and none was given.
    #[error("credentials wanted")]
    CredentialsWanted,
    /// The login is wrong.
    #[error("the camera refused the credentials")]
    LoginRefused,
    /// The camera only takes the password itself, unencrypted.
    #[error("the camera takes only the password in clear text (Basic); it is sent only with allow_basic")]
    BasicNeedsConsent,
    /// The login is right but may not do this.
    #[error("the account may not do {0}")]
    NotPermitted(&'static str),
    /// The camera does not know the call.
    #[error("the camera has no {0}")]
    NotSupported(&'static str),
    /// The call failed otherwise.
    #[error("{call} failed: {cause}")]
    Failed {
        /// Which call.
        call: &'static str,
        /// Why.
        cause: String,
    },
    /// An address that is none.
    #[error("{call}: {cause}")]
    Address {
        /// Which call told it.
        call: &'static str,
        /// What is wrong with it.
        cause: ServiceUrlError,
    },
    /// An address of another machine; the camera's own was used.
    #[error("the camera names {host} in place of itself in {call}; its own address is used")]
    ForeignAddress {
        /// Which call told it.
        call: &'static str,
        /// The other host.
        host: String,
    },
    /// It offers no profile.
    #[error("the camera offers no profile")]
    NoProfiles,
    /// Its clock is not known.
    #[error("the camera does not tell its time")]
    ClockUnknown,
}

/// What was found out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Camera {
    /// Who it is.
    pub identity: Identity,
    /// Its profiles.
    pub profiles: Vec<Profile>,
    /// How far its clock is before ours.
    pub time_offset_millis: Option<i64>,
    /// What became of the login.
    pub login: Login,
    /// What is missing or odd.
    pub gaps: Vec<Gap>,
}

/// Why a wish was not fulfilled.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ClientError {
    /// It never answered.
    #[error(transparent)]
    NoAnswer(#[from] CallFailure),
    /// It wants a login and none was given.
    #[error("the camera wants credentials")]
    CredentialsWanted,
    /// The login is wrong.
    #[error("the camera refused the credentials")]
    LoginRefused,
    /// It only takes the password itself, unencrypted.
    #[error("the camera takes only the password in clear text (Basic); it is sent only with allow_basic")]
    BasicNeedsConsent,
    /// Something on the way failed.
    #[error(transparent)]
    Gap(Gap),
    /// It is not what the camera can do.
    #[error(transparent)]
    Wish(#[from] WishError),
    /// It refused.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// It did not say why.
    #[error("the camera did not do it")]
    NotDone,
}

/// How the camera wants to be logged in to.
#[derive(Clone, Debug)]
enum Way {
    /// Not known yet; calls go without.
    Feeling,
    /// WS-Security user name token.
    Token,
    /// HTTP Digest, and how often its nonce was used.
    Digest(DigestChallenge, u32),
    /// HTTP Basic.
    Basic,
}

struct Flight {
    step: Step,
    with_login: bool,
    /// The nonce was renewed for this step already.
    renewed: bool,
}

/// One camera, one wish.
pub struct Client {
    device: ServiceUrl,
    credentials: Option<Credentials>,
    allow_basic: bool,
    wish: Wish,
    steps: VecDeque<Step>,
    flight: Option<Flight>,
    renewed: bool,
    /// Nonces are good for one call: each is asked for by a call without a login.
    one_time_nonces: bool,
    way: Way,
    calls: u32,
    denied: u32,
    answered: bool,
    silence: Option<CallFailure>,
    services: Services,
    options: Vec<EncoderOptions>,
    encoder: Option<VideoEncoder>,
    failure: Option<ClientError>,
    done: bool,
    camera: Camera,
}

impl Client {
    /// For the camera whose device service is `device`. `allow_basic`: the password may be sent in clear text.
    pub fn new(device: ServiceUrl, credentials: Option<Credentials>, allow_basic: bool, wish: Wish) -> Self {
        let steps = steps::first(&wish);
        Client {
            device,
            credentials,
            allow_basic,
            wish,
            steps,
            flight: None,
            renewed: false,
            one_time_nonces: false,
            way: Way::Feeling,
            calls: 0,
            denied: 0,
            answered: false,
            silence: None,
            services: Services::default(),
            options: Vec::new(),
            encoder: None,
            failure: None,
            done: false,
            camera: Camera::default(),
        }
    }

    /// What became of the login so far.
    pub fn login(&self) -> Login {
        self.camera.login
    }

    /// What to do now.
    pub fn poll_action(&mut self, now: Moment) -> Action {
        while let Some(step) = self.steps.pop_front() {
            if self.calls >= MAX_CALLS {
                self.gap(Gap::Failed {
                    call: step.name(),
                    cause: format!("{MAX_CALLS} calls were not enough"),
                });
                self.steps.clear();
                break;
            }
            let Some((url, body)) = self.compose(&step, now) else { continue };
            self.calls = self.calls.saturating_add(1);
            let (authorization, token) = self.authorize(&url, now);
            let with_login = authorization.is_some() || token.is_some();
            if with_login && self.camera.login == Login::Unused {
                self.camera.login = Login::Undecided;
            }
            self.flight = Some(Flight { step, with_login, renewed: std::mem::take(&mut self.renewed) });
            let body = soap::request(&body, token.as_deref());
            return Action::Call(Call { url, authorization, body, with_login });
        }
        Action::Done
    }

    /// The answer to the call that is under way; `unix_millis` is our wall clock.
    pub fn handle_reply(&mut self, reply: Reply<'_>, unix_millis: i64) {
        let Some(flight) = self.flight.take() else { return };
        let answer = soap::answer(reply.body);
        if (300..400).contains(&reply.status) {
            self.answered = true;
            let cause = format!("it redirects (HTTP {}), which is not followed", reply.status);
            return self.failed(flight, Gap::Failed { call: "", cause }, None);
        }
        let is_refusal = reply.status == 401
            || matches!(&answer, Err(SoapError::Fault(fault)) if fault.kind == FaultKind::NotAuthorized)
            // Some answer a call without a login with a plain 400 or 403.
            || (matches!(reply.status, 400 | 403) && !flight.with_login && self.can_log_in_another_way());
        if is_refusal {
            self.answered = true;
            return self.refused(flight, http_auth::challenges(reply.challenges.iter().map(String::as_str)));
        }
        match answer {
            Ok(answer) if (200..300).contains(&reply.status) => {
                self.answered = true;
                if flight.with_login {
                    self.camera.login = Login::Accepted;
                    self.denied = 0;
                    if self.one_time_nonces {
                        self.way = Way::Feeling;
                    }
                }
                self.apply(&flight.step, &answer, unix_millis);
            }
            Err(SoapError::Fault(fault)) => {
                self.answered = true;
                let call = flight.step.name();
                let gap = match fault.kind {
                    FaultKind::NotSupported => Gap::NotSupported(call),
                    _ => Gap::Failed { call, cause: fault.reason.clone() },
                };
                self.failed(flight, gap, Some(fault));
            }
            Ok(_) => {
                let cause = format!("HTTP status {}", reply.status);
                self.failed(flight, Gap::Failed { call: "", cause }, None);
            }
            Err(error) => {
                let cause = match reply.status {
                    200..300 => error.to_string(),
                    status => format!("HTTP status {status}"),
                };
                self.silence.get_or_insert_with(|| CallFailure::Unusable(cause.clone()));
                self.failed(flight, Gap::Failed { call: "", cause }, None);
            }
        }
    }

    /// There was no answer to the call that is under way.
    pub fn handle_failure(&mut self, failure: CallFailure) {
        let Some(flight) = self.flight.take() else { return };
        let gap = Gap::Failed { call: "", cause: failure.to_string() };
        let unreachable = matches!(failure, CallFailure::Unreachable(_));
        let undecided = self.camera.login == Login::Undecided;
        self.silence.get_or_insert(failure);
        self.failed(flight, gap, None);
        // Whether the login was counted cannot be known, so it is not sent once more.
        if undecided || (unreachable && !self.answered) {
            self.steps.clear();
        }
    }

    /// What came of it, after [`Action::Done`].
    pub fn finish(mut self) -> Result<Camera, ClientError> {
        if !self.answered {
            let silence = self.silence.unwrap_or(CallFailure::Unusable("nothing was asked".to_owned()));
            return Err(silence.into());
        }
        if self.camera.time_offset_millis.is_none() {
            self.gap(Gap::ClockUnknown);
        }
        match self.wish {
            Wish::Survey => Ok(self.camera),
            _ if self.done => Ok(self.camera),
            _ => Err(self.failure.unwrap_or(ClientError::NotDone)),
        }
    }

    /// A user name token is left to try, and there is a login.
    fn can_log_in_another_way(&self) -> bool {
        matches!(self.way, Way::Feeling) && self.credentials.is_some()
    }

    /// What goes with a call, by the way that the camera wants: a header, or a part of the message.
    fn authorize(&mut self, url: &ServiceUrl, now: Moment) -> (Option<String>, Option<String>) {
        let Some(credentials) = &self.credentials else { return (None, None) };
        match &mut self.way {
            Way::Feeling => (None, None),
            Way::Token => {
                let offset = self.camera.time_offset_millis.unwrap_or(0);
                let theirs = now.unix_millis.saturating_add(offset);
                (None, Some(soap::username_token(credentials, &now.random, theirs)))
            }
            Way::Digest(challenge, count) => {
                *count = count.saturating_add(1);
                let cnonce = http_auth::hex(&now.random);
                let proof = Proof { method: "POST", uri: &url.target, count: *count, cnonce: &cnonce };
                (Some(challenge.authorization(credentials, proof)), None)
            }
            Way::Basic if url.scheme.is_tls() || self.allow_basic => {
                (Some(http_auth::basic(credentials)), None)
            }
            // It was promised over TLS, and this service is elsewhere.
            Way::Basic => (None, None),
        }
    }

    fn refused(&mut self, flight: Flight, challenges: Vec<Challenge>) {
        if !flight.with_login {
            return self.wants_login(flight, challenges);
        }
        let fresh = challenges.into_iter().find_map(|challenge| match challenge {
            Challenge::Digest(digest) => Some(digest),
            Challenge::Basic => None,
        });
        let accepted = self.camera.login == Login::Accepted;
        if let (Way::Digest(used, _), Some(fresh), false) = (&self.way, fresh, flight.renewed)
            // "Stale" says that the password was right. After one success a new nonce alone says so too: there are
            // cameras whose nonces are good for one call.
            && (fresh.stale || (accepted && fresh.nonce != used.nonce))
        {
            self.one_time_nonces |= !fresh.stale;
            self.way = Way::Digest(fresh, 0);
            self.renewed = true;
            self.steps.push_front(flight.step);
            return;
        }
        if accepted {
            self.denied = self.denied.saturating_add(1);
            let call = flight.step.name();
            self.failed(flight, Gap::NotPermitted(call), None);
            if self.denied >= MAX_DENIED {
                self.steps.clear();
            }
            return;
        }
        self.camera.login = Login::Refused;
        self.stop(Gap::LoginRefused, ClientError::LoginRefused);
    }

    /// A call without a login was refused: how does the camera want it?
    fn wants_login(&mut self, flight: Flight, challenges: Vec<Challenge>) {
        if self.credentials.is_none() {
            if flight.step.is_open() {
                return self.failed(flight, Gap::CredentialsWanted, None);
            }
            return self.stop(Gap::CredentialsWanted, ClientError::CredentialsWanted);
        }
        if !matches!(self.way, Way::Feeling) {
            // Basic that may not go to this service.
            return self.stop(Gap::BasicNeedsConsent, ClientError::BasicNeedsConsent);
        }
        self.way = match challenges.into_iter().next() {
            Some(Challenge::Digest(challenge)) => Way::Digest(challenge, 0),
            Some(Challenge::Basic) if self.allow_basic || self.is_tls(&flight.step) => Way::Basic,
            Some(Challenge::Basic) => {
                return self.stop(Gap::BasicNeedsConsent, ClientError::BasicNeedsConsent);
            }
            None => Way::Token,
        };
        self.steps.push_front(flight.step);
    }

    /// Nothing more can succeed.
    fn stop(&mut self, gap: Gap, error: ClientError) {
        self.gap(gap);
        self.failure.get_or_insert(error);
        self.steps.clear();
    }

    /// A step has failed; what else could lead on?
    fn failed(&mut self, flight: Flight, mut gap: Gap, fault: Option<Fault>) {
        if let Gap::Failed { call, .. } = &mut gap {
            *call = flight.step.name();
        }
        if flight.step.is_the_wish() {
            let error = match fault {
                Some(fault) => ClientError::Fault(fault),
                None => ClientError::Gap(gap.clone()),
            };
            self.failure.get_or_insert(error);
            self.steps.clear();
        }
        if self.fall_back(&flight.step) {
            self.gap(gap);
        }
    }

    fn gap(&mut self, gap: Gap) {
        if self.camera.gaps.len() < MAX_GAPS && !self.camera.gaps.contains(&gap) {
            self.camera.gaps.push(gap);
        }
    }

    /// Takes what the camera says of a service of its own, host replaced.
    fn service(&mut self, told: Option<String>, call: &'static str) -> Option<ServiceUrl> {
        match ServiceUrl::service(&told?, &self.device) {
            Ok(anchored) => {
                if let Some(host) = anchored.foreign_host {
                    self.gap(Gap::ForeignAddress { call, host });
                }
                Some(anchored.url)
            }
            Err(cause) => {
                self.gap(Gap::Address { call, cause });
                None
            }
        }
    }

    fn media_url(&mut self, version: MediaVersion) -> ServiceUrl {
        let told = match version {
            MediaVersion::One => self.services.media1.clone(),
            MediaVersion::Two => self.services.media2.clone(),
        };
        // Where nothing is told, many take every call at the device service.
        self.service(told, "GetServices").unwrap_or_else(|| self.device.clone())
    }

    fn profile_uri(&mut self, answer: &Element, index: usize, stream: bool) {
        let call = if stream { "GetStreamUri" } else { "GetSnapshotUri" };
        let Some(told) = super::media::uri(answer) else {
            return self.gap(Gap::NotSupported(call));
        };
        let anchored = match stream {
            true => ServiceUrl::stream(told, self.device.host),
            false => ServiceUrl::service(told, &self.device),
        };
        match anchored {
            Ok(anchored) => {
                if let Some(host) = anchored.foreign_host {
                    self.gap(Gap::ForeignAddress { call, host });
                }
                if let Some(profile) = self.camera.profiles.get_mut(index) {
                    let place = if stream { &mut profile.stream } else { &mut profile.snapshot };
                    *place = Some(anchored.url);
                }
            }
            Err(cause) => self.gap(Gap::Address { call, cause }),
        }
    }
}
