//! RTSP cameras: what a camera's worker is told, how it is reached, and what its end says about the next try.

use super::job_for;
use crate::clock::timestamp;
use crate::supervisor::{ChildError, Handling};
use crate::wiring::Wiring;
use crate::wiring::pushes::{client_tls, dial_options};
use crate::wiring::treatment::Treatments;
use fieldgate_hub::{CameraKey, LOGIN_REST, LoginTry, LoginWait, Retry};
use fieldgate_model::config::{Rtsp, RtspTransport, Source, UrlParts};
use fieldgate_model::job::{self, EncoderWish, Job, RtspCamera, Sandbox, VideoTreatment, Work};
use fieldgate_net::{CameraRelay, CameraRelayError, Target};
use fieldgate_proto::http_auth::Credentials;
use fieldgate_worker::{Deadlines, Report, WorkerError};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How long a camera's name may take to resolve.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);
/// RTSP's ports where the address names none.
const RTSP_PORT: u16 = 554;
const RTSPS_PORT: u16 = 322;
/// Without a first unit for so long, `auto` gives UDP up: many networks let it through in one direction only.
const AUTO_UDP_WITHIN: Duration = Duration::from_secs(8);

/// A login under way, shared by who waits for the first unit and who waits for the end.
#[derive(Clone, Default)]
pub(super) struct Login(Arc<Mutex<Option<LoginTry>>>);

impl Login {
    /// The camera sends: it has taken it.
    pub(super) fn accepted(&self) {
        if let Some(login) = self.take() {
            login.accepted(Instant::now());
        }
    }

    pub(super) fn put(&self, begun: LoginTry) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun);
    }

    pub(super) fn take(&self) -> Option<LoginTry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// One try at a camera.
pub(super) struct Attempt {
    pub(super) job: Job,
    pub(super) deadlines: Deadlines,
    /// Where the camera speaks TLS.
    pub(super) relay: Option<CameraRelay>,
    /// Where it is shown a user name; taken when its fate is known.
    pub(super) login: Login,
    /// Where `auto` may ask in another way next.
    auto: Option<job::RtspTransport>,
}

impl Wiring {
    /// Finds and, where it speaks TLS, connects the camera; refuses while a login that it has refused must wait.
    pub(super) async fn rtsp(
        &self,
        name: &str,
        source: &Source,
        handling: &Handling,
        cancel: &CancellationToken,
    ) -> Result<Attempt, ChildError> {
        let Source::Rtsp(rtsp) = source else {
            return Err(ChildError::new(Retry::Never, "it is no RTSP camera"));
        };
        let (treat, devices) = self.rtsp_treatments(name, source, handling, cancel).await?;
        let parts = rtsp.taken_url().parts().map_err(|error| ChildError::of(Retry::Never, &error))?;
        let has_tls = parts.scheme.eq_ignore_ascii_case("rtsps");
        let port = parts.port.unwrap_or(if has_tls { RTSPS_PORT } else { RTSP_PORT });
        let found = resolve(parts.host, port).await?;
        let address = self.transports.address(name, &found);
        let address = address.ok_or_else(|| unresolved(parts.host, "no address"))?;
        let user = percent_decoded(parts.user.unwrap_or_default());
        let password = percent_decoded(parts.password.unwrap_or_default());
        let login = Login::default();
        if !user.is_empty() {
            let camera = CameraKey::address(address.ip());
            let begun = self.cameras.logins().begin(camera, &user, &password, Instant::now());
            let begun = begun.map_err(|wait| self.must_wait(wait))?;
            login.put(begun);
        }
        let tls = client_tls(has_tls, rtsp.verify, rtsp.ca.as_deref())?;
        let relay = match tls {
            None => None,
            Some(tls) => {
                let target = Target { host: parts.host.to_owned(), port, tls: Some(tls) };
                let relay = CameraRelay::open(target, dial_options(rtsp.stall_timeout.get())).await;
                let unused = |error| {
                    if let Some(begun) = login.take() {
                        begun.unused();
                    }
                    ChildError::of(CameraRelayError::retry(&error), &error)
                };
                Some(relay.map_err(unused)?)
            }
        };
        // Packets beside the connection would not be encrypted.
        let wanted = if has_tls { RtspTransport::Tcp } else { rtsp.transport };
        let transport = self.transports.next(name, wanted);
        let address = relay.as_ref().map_or(address, CameraRelay::address);
        let auto = (wanted == RtspTransport::Auto).then_some(transport);
        let mut deadlines = Deadlines { between_units: rtsp.stall_timeout.get(), ..Deadlines::default() };
        if auto == Some(job::RtspTransport::Udp) {
            deadlines.first_unit = Some(AUTO_UDP_WITHIN);
        }
        let camera = camera(rtsp, parts, address, transport, (user, password), treat);
        Ok(Attempt { job: job_of(name, camera, devices), deadlines, relay, login, auto })
    }

    /// What the end of a try means for the next one.
    pub(super) fn note_rtsp_end(
        &self,
        name: &str,
        attempt: &Attempt,
        last: &Report,
        error: &WorkerError,
    ) -> Option<ChildError> {
        let login = attempt.login.take();
        let failure = last.status.failure.as_ref();
        if failure.is_some_and(|failure| failure.login_refused) {
            // Without a user name nothing was shown, and nothing can be locked.
            login?.refused(Instant::now());
            return Some(self.must_wait(LoginWait::Refused(LOGIN_REST)));
        }
        // It failed before or after the camera looked at it.
        if let Some(begun) = login {
            begun.unused();
        }
        if failure.is_some_and(|failure| failure.needs_encoder) {
            self.transports.note_needs_encoder(name);
            return None;
        }
        if last.units == 0 {
            self.transports.note_silent_address(name);
        }
        if let Some(used) = attempt.auto {
            self.transports.note_end(name, used, last.units, error);
        }
        None
    }

    /// Pictures pass unless the camera was seen to send what no output carries, or the picture has masks.
    async fn rtsp_treatments(
        &self,
        name: &str,
        source: &Source,
        handling: &Handling,
        cancel: &CancellationToken,
    ) -> Result<(Treatments, Vec<PathBuf>), ChildError> {
        let asked = self.asked(name, handling)?;
        match asked.masks.unmasked() {
            Some(unmasked) if !asked.must_encode && !self.transports.needs_encoder(name) => {
                let audio =
                    self.treated(name, source, handling, asked, (EncoderWish::default(), false)).audio;
                Ok((Treatments { video: VideoTreatment::Pass(unmasked), audio }, Vec::new()))
            }
            _ => {
                let (encoder, devices) = self.proven(name, cancel).await?;
                Ok((self.treated(name, source, handling, asked, (encoder, false)), devices))
            }
        }
    }

    pub(super) fn must_wait(&self, wait: LoginWait) -> ChildError {
        match wait {
            LoginWait::Refused(wait) => {
                let next = timestamp(&self.context.clock).plus(wait);
                let text = format!(
                    "user name or password refused; next try at {next}; correct it in the camera's url"
                );
                ChildError::new(Retry::Backoff, text).not_before(wait)
            }
            wait => ChildError::of(Retry::Backoff, &wait),
        }
    }
}

/// A camera's run beside its relay. The run's end is the end; that of the relay shows in the run.
pub(in crate::wiring) async fn relayed<T>(relay: CameraRelay, run: impl Future<Output = T>) -> T {
    let mut run = pin!(run);
    tokio::select! {
        ended = &mut run => return ended,
        relayed = relay.run() => {
            if let Err(error) = relayed {
                warn!(error = %crate::steward::chain(&error), "the camera's TLS connection");
            }
        }
    }
    run.await
}

pub(super) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ChildError> {
    let found = tokio::time::timeout(RESOLVE_WITHIN, tokio::net::lookup_host((host, port))).await;
    let found = found.map_err(|_| unresolved(host, "no answer"))?;
    Ok(found.map_err(|error| unresolved(host, &error.to_string()))?.collect())
}

pub(super) fn unresolved(host: &str, cause: &str) -> ChildError {
    let text = format!("camera name {host} does not resolve ({cause}): check the name or the gateway's DNS");
    ChildError::new(Retry::Backoff, text)
}

/// Names are resolved here: the worker may talk to the camera's port alone.
fn camera(
    rtsp: &Rtsp,
    parts: UrlParts<'_>,
    address: SocketAddr,
    transport: job::RtspTransport,
    (user, password): (String, String),
    treat: Treatments,
) -> RtspCamera {
    let path = if parts.path.is_empty() { "/" } else { parts.path };
    let query = parts.query.map(|query| format!("?{query}")).unwrap_or_default();
    RtspCamera {
        address,
        path: format!("{path}{query}"),
        transport,
        user,
        password: job::Secret(password),
        latency_ms: u32::try_from(rtsp.latency.get().as_millis()).unwrap_or(u32::MAX),
        video: treat.video,
        audio: treat.audio,
    }
}

fn job_of(name: &str, camera: RtspCamera, devices: Vec<PathBuf>) -> Job {
    let udp = camera.transport == job::RtspTransport::Udp;
    let sandbox = Sandbox { tcp_connect: vec![camera.address.port()], udp, devices, ..Sandbox::default() };
    job_for(name, sandbox, Work::Rtsp(camera))
}

/// The host of a camera and the account there, if its address names one.
pub(in crate::wiring) fn login_of(rtsp: &Rtsp) -> Option<(String, Credentials)> {
    let parts = rtsp.taken_url().parts().ok()?;
    let user = percent_decoded(parts.user.filter(|user| !user.is_empty())?);
    let password = percent_decoded(parts.password.unwrap_or_default());
    Some((parts.host.to_owned(), Credentials { user, password }))
}

/// A user name or password as it is meant. A `%` without two hexadecimal digits stands for itself, as cameras' own
/// pages tell passwords unencoded.
pub(super) fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits
            .filter(|digits| *first == b'%' && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests;
