//! Cameras with JPEG pictures by HTTP: the gateway fetches them, a transcode worker encodes them.
//!
//! ```text
//!  camera --HTTP--> JpegCamera --> Feeder --> worker --> mountpoint
//! ```
//! The worker is started with the first picture: a camera that is away costs no process. What the camera sends is
//! decoded in the worker alone.

use super::rtsp::{Login, percent_decoded, resolve, unresolved};
use super::{Treatments, job_for};
use crate::supervisor::{ChildError, Handling};
use crate::wiring::Wiring;
use crate::wiring::pushes::client_tls;
use bytes::Bytes;
use fieldgate_hub::link::Feeder;
use fieldgate_hub::{CameraKey, Clock, LOGIN_REST, LoginWait, Retry};
use fieldgate_media::{Captured, ClockSource, Codec, Ticks, Track, TrackId, Tracks, UnitHead, VideoShape};
use fieldgate_model::config::{Mjpeg, Source};
use fieldgate_model::job::{AudioTreatment, Job, Sandbox, Transcode, VideoTreatment, Work};
use fieldgate_net::{Jpeg, JpegCamera, JpegCameraError, JpegFetch, Target};
use fieldgate_proto::http_auth::Credentials;
use fieldgate_worker::Deadlines;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Decoded pictures of the largest size, and what an encoder holds.
const MEMORY_BYTES: u64 = 512 << 20;

/// A camera whose first picture has come.
pub(super) struct Fetch {
    pub(super) job: Job,
    pub(super) deadlines: Deadlines,
    /// Pictures on their way to the worker.
    pub(super) feeder: Feeder,
    /// There is no sound; silence may stand for it.
    pub(super) audio: AudioTreatment,
    pictures: Pin<Box<dyn Future<Output = JpegCameraError> + Send>>,
    /// Whom a refusal would be about.
    account: Option<Account>,
}

/// What logs in where.
#[derive(Clone)]
struct Account {
    camera: CameraKey,
    credentials: Credentials,
}

impl Wiring {
    /// Reaches the camera and waits for its first picture; refuses while a login that it has refused must wait.
    pub(super) async fn mjpeg(
        &self,
        name: &str,
        source: &Source,
        handling: &Handling,
        cancel: &CancellationToken,
    ) -> Result<Fetch, ChildError> {
        let Source::Mjpeg(mjpeg) = source else {
            return Err(ChildError::new(Retry::Never, "it is no camera with JPEG by HTTP"));
        };
        let asked = self.asked(name, handling)?;
        let (encoder, devices) = self.proven(name, cancel).await?;
        let treat = self.treated(name, source, handling, asked, (encoder, true));
        let job = job(name, &treat, devices)?;
        let (camera, account) = camera(mjpeg).await?;
        let login = Login::default();
        if let Some(Account { camera, credentials }) = &account {
            let Credentials { user, password } = credentials;
            let begun = self.cameras.logins().begin(camera.clone(), user, password, Instant::now());
            login.put(begun.map_err(|wait| self.must_wait(wait))?);
        }
        let feeder = Feeder::default();
        let (seen, mut first) = oneshot::channel();
        let clock = self.context.clock.clone();
        let mut feeding =
            Feeding { feeder: feeder.clone(), clock, began: None, shape: None, first: Some(seen) };
        let fetching = async move { camera.run(|picture| feeding.picture(picture)).await };
        let mut pictures: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(fetching);
        tokio::select! {
            biased;
            _ = &mut first => login.accepted(),
            error = &mut pictures => {
                let begun = login.take();
                if matches!(error, JpegCameraError::Login) && let Some(begun) = begun {
                    begun.refused(Instant::now());
                    return Err(self.must_wait(LoginWait::Refused(LOGIN_REST)));
                }
                // It failed before or after the camera looked at it.
                if let Some(begun) = begun {
                    begun.unused();
                }
                return Err(ended(&error));
            }
        }
        let deadlines = deadlines(mjpeg);
        Ok(Fetch { job, deadlines, feeder, audio: treat.audio, pictures, account })
    }

    /// What the end of the pictures means for the next try.
    pub(super) fn note_mjpeg_end(&self, fetch: &Fetch, error: &JpegCameraError) -> ChildError {
        match (&fetch.account, error) {
            // Its password was changed while it sent.
            (Some(Account { camera, credentials }), JpegCameraError::Login) => {
                let Credentials { user, password } = credentials;
                match self.cameras.logins().begin(camera.clone(), user, password, Instant::now()) {
                    Ok(begun) => {
                        begun.refused(Instant::now());
                        self.must_wait(LoginWait::Refused(LOGIN_REST))
                    }
                    Err(wait) => self.must_wait(wait),
                }
            }
            _ => ended(error),
        }
    }
}

impl Fetch {
    /// The worker's run beside the pictures that it is fed with; when they end it is stopped, and why is told.
    pub(super) async fn beside<T>(
        &mut self,
        run: impl Future<Output = T>,
        stop: &CancellationToken,
    ) -> (T, Option<JpegCameraError>) {
        let mut run = std::pin::pin!(run);
        tokio::select! {
            ended = &mut run => (ended, None),
            error = &mut self.pictures => {
                stop.cancel();
                (run.await, Some(error))
            }
        }
    }
}

fn ended(error: &JpegCameraError) -> ChildError {
    let retry = if matches!(error, JpegCameraError::Path(_)) { Retry::Never } else { Retry::Backoff };
    ChildError::of(retry, error)
}

/// From the camera to the worker's queue.
struct Feeding {
    feeder: Feeder,
    clock: Clock,
    began: Option<Instant>,
    /// As it was announced.
    shape: Option<(u32, u32)>,
    /// Told of the first picture.
    first: Option<oneshot::Sender<()>>,
}

impl Feeding {
    fn picture(&mut self, picture: Jpeg) {
        let Jpeg { bytes, width, height } = picture;
        if self.shape.replace((width, height)) != Some((width, height)) {
            let mut track = Track::new(TrackId::VIDEO, Codec::Jpeg, Bytes::new());
            track.video = VideoShape { width, height, frame_rate: 0.0 };
            self.feeder.tracks(&Tracks::new(vec![track]));
        }
        let now = Instant::now();
        let began = *self.began.get_or_insert(now);
        // JPEG has no times of its own.
        let micros = i64::try_from((now - began).as_micros()).unwrap_or(i64::MAX);
        let at = Ticks::new(micros.saturating_mul(9) / 100);
        let captured = Captured { unix_micros: self.clock.unix_micros(), by: ClockSource::Arrival };
        let head = UnitHead {
            track: TrackId::VIDEO,
            dts: at,
            pts: at,
            source_dts: at,
            source_pts: at,
            keyframe: true,
            captured: Some(captured),
        };
        // What a slow worker misses is counted there.
        self.feeder.unit(&head, bytes);
        if let Some(first) = self.first.take() {
            // Who waits for it may have been told to end.
            first.send(()).ok();
        }
    }
}

/// The worker sees pictures alone: no network, no files.
fn job(name: &str, treat: &Treatments, devices: Vec<std::path::PathBuf>) -> Result<Job, ChildError> {
    let VideoTreatment::Encode(video) = &treat.video else {
        return Err(ChildError::new(Retry::Never, "JPEG pictures cannot pass as they are"));
    };
    let work = Work::Transcode(Box::new(Transcode { video: Some((**video).clone()), audio: None }));
    let sandbox = Sandbox { devices, memory_bytes: MEMORY_BYTES, ..Sandbox::default() };
    Ok(job_for(name, sandbox, work))
}

/// A slow camera's worker has nothing to say between two pictures.
fn deadlines(mjpeg: &Mjpeg) -> Deadlines {
    let pause = mjpeg.interval.map_or(Duration::ZERO, |interval| interval.get());
    let usual = Deadlines::default();
    Deadlines {
        first_unit: usual.first_unit.map(|first| first + pause),
        between_units: mjpeg.stall_timeout.get() + pause,
        ..usual
    }
}

async fn camera(mjpeg: &Mjpeg) -> Result<(JpegCamera, Option<Account>), ChildError> {
    let parts = mjpeg.url.parts().map_err(|error| ChildError::of(Retry::Never, &error))?;
    let has_tls = parts.scheme.eq_ignore_ascii_case("https");
    let port = parts.port.unwrap_or(if has_tls { 443 } else { 80 });
    let path = if parts.path.is_empty() { "/" } else { parts.path };
    let query = parts.query.map(|query| format!("?{query}")).unwrap_or_default();
    let user = percent_decoded(parts.user.unwrap_or_default());
    let mut account = None;
    if !user.is_empty() {
        let found = resolve(parts.host, port).await?;
        let address = found.first().ok_or_else(|| unresolved(parts.host, "no address"))?;
        let password = percent_decoded(parts.password.unwrap_or_default());
        let camera = CameraKey::address(address.ip());
        account = Some(Account { camera, credentials: Credentials { user, password } });
    }
    let tls = client_tls(has_tls, mjpeg.verify, mjpeg.ca.as_deref())?;
    let camera = JpegCamera {
        target: Target { host: parts.host.to_owned(), port, tls },
        path: format!("{path}{query}"),
        credentials: account.as_ref().map(|account| account.credentials.clone()),
        allow_basic: mjpeg.allow_basic,
        fetch: mjpeg.interval.map_or(JpegFetch::Stream, |interval| JpegFetch::Every(interval.get())),
        stall_timeout: mjpeg.stall_timeout.get(),
    };
    Ok((camera, account))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldgate_model::job::EncoderWish;

    fn mjpeg(settings: serde_json::Value) -> Mjpeg {
        serde_json::from_value(settings).unwrap()
    }

    #[tokio::test]
    async fn an_address_is_taken_apart_as_it_is_meant() {
        let settings =
            serde_json::json!({"url": "https://ad%40min:p%2Fw@127.0.0.1/v.cgi?q=1", "interval": "2s"});
        let (camera, account) = camera(&mjpeg(settings)).await.unwrap();
        assert_eq!((camera.target.port, camera.path.as_str()), (443, "/v.cgi?q=1"));
        assert!(camera.target.tls.is_some() && !camera.allow_basic);
        assert_eq!(camera.fetch, JpegFetch::Every(Duration::from_secs(2)));
        let login = account.unwrap().credentials;
        assert_eq!((login.user.as_str(), login.password.as_str()), ("ad@min", "p/w"));
        let (camera, account) =
            super::camera(&mjpeg(serde_json::json!({"url": "http://cam"}))).await.unwrap();
        assert_eq!((camera.target.port, camera.path.as_str(), camera.fetch), (80, "/", JpegFetch::Stream));
        assert!(account.is_none() && camera.target.tls.is_none());
    }

    #[test]
    fn the_worker_gets_pictures_and_nothing_else() {
        let treat = Treatments::plain(EncoderWish::default(), true);
        let job = job("yard", &treat, vec!["/dev/video11".into()]).unwrap();
        assert!(job.sandbox.tcp_connect.is_empty() && !job.sandbox.udp && job.sandbox.read.is_empty());
        let Work::Transcode(transcode) = job.work else { panic!() };
        assert!(transcode.video.is_some() && transcode.audio.is_none());
        assert!(super::job("yard", &Treatments::plain(EncoderWish::default(), false), Vec::new()).is_err());
    }

    #[test]
    fn a_slow_camera_is_given_its_time() {
        let slow = mjpeg(serde_json::json!({"url": "http://cam", "interval": "1m", "stall_timeout": "5s"}));
        assert_eq!(deadlines(&slow).between_units, Duration::from_secs(65));
        assert!(deadlines(&slow).first_unit > Some(Duration::from_secs(60)));
    }
}
