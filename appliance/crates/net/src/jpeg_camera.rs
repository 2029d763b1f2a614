//! Pictures from a camera that has them by HTTP: Motion JPEG as one endless body, or one picture per request.

use crate::dial::{DialError, DialOptions, Stream, Target, dial};
use bytes::Bytes;
use fieldgate_media::jpeg;
use fieldgate_proto::http_auth::{self, Challenge, Credentials, DigestChallenge, Proof};
use fieldgate_proto::multipart::{MultipartError, MultipartReader};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT, WWW_AUTHENTICATE};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Bytes of one picture.
pub const PICTURE_MAX: usize = 4 << 20;
/// Bytes that a response's head may have.
const HEAD_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// Bodies in a row that are no JPEG before the camera is given up.
const NO_PICTURE_MAX: u32 = 10;
/// Pixels of a picture's side, and of all of it (8K): a few bytes may claim a picture that fills the memory.
const SIDE_MAX: u32 = 8_192;
const PIXELS_MAX: u32 = 7_680 * 4_320;

/// How pictures are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JpegFetch {
    /// Once: the camera sends one after the other.
    Stream,
    /// One by one, so often.
    Every(Duration),
}

/// One camera.
#[derive(Clone, Debug)]
pub struct JpegCamera {
    /// Where it is.
    pub target: Target,
    /// Path and query, beginning with `/`.
    pub path: String,
    /// Who logs in, if the camera asks for it.
    pub credentials: Option<Credentials>,
    /// Whether the password may be sent as it is over a connection without TLS.
    pub allow_basic: bool,
    /// How pictures are asked for.
    pub fetch: JpegFetch,
    /// Silence after which the camera is given up; for single pictures, how long one may take.
    pub stall_timeout: Duration,
}

/// One picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jpeg {
    /// The whole JPEG.
    pub bytes: Bytes,
    /// Pixels, as its frame header says.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

/// Why there are no more pictures.
#[derive(Debug, thiserror::Error)]
pub enum JpegCameraError {
    /// There is no connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The camera does not speak HTTP as it should, or went away.
    #[error("the camera's HTTP server: {0}")]
    Http(#[from] hyper::Error),
    /// The address cannot be asked for.
    #[error("path {0:?} cannot be asked for by HTTP: take it from the camera's manual")]
    Path(String),
    /// Name or password are wrong, or there are none.
    #[error("user name or password refused: correct them in the camera's URL")]
    Login,
    /// Only a login in plain text is offered.
    #[error("the camera wants the password in plain text: use https, or set `allow_basic` for this camera")]
    PlainLogin,
    /// Any other status.
    #[error("the camera answers {0}: check the path in its URL")]
    Status(StatusCode),
    /// No stream of pictures.
    #[error(transparent)]
    Multipart(#[from] MultipartError),
    /// What comes are no pictures.
    #[error("what the camera sends is no JPEG")]
    NoPicture,
    /// A picture is too large.
    #[error("a picture is longer than {PICTURE_MAX} bytes: lower the camera's resolution or quality")]
    TooLong,
    /// A picture has too many pixels.
    #[error(
        "a picture of {width}x{height} is larger than 8192 a side or 33 million pixels: lower the camera's resolution"
    )]
    TooLarge {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// The stream ended.
    #[error("the camera ended the stream")]
    Ended,
    /// Nothing came.
    #[error("no picture within {0:?}")]
    Stalled(Duration),
}

impl JpegCamera {
    /// Hands each picture to `take` as it comes, until something fails. Dropping the future ends the connection.
    pub async fn run(&self, mut take: impl FnMut(Jpeg)) -> JpegCameraError {
        let mut login = Login::default();
        loop {
            let options = DialOptions { user_timeout: self.stall_timeout, ..DialOptions::default() };
            let stream = match dial(&self.target, &options).await {
                Ok(stream) => stream,
                Err(error) => return error.into(),
            };
            match self.talk(stream, &mut login, &mut take).await {
                // Many close after each picture, or after the demand to log in.
                Ok(()) => {}
                Err(error) => return error,
            }
        }
    }

    /// One connection; `Ok` when the next request needs another.
    async fn talk(
        &self,
        stream: Stream,
        login: &mut Login,
        take: &mut impl FnMut(Jpeg),
    ) -> Result<(), JpegCameraError> {
        let shaken =
            Builder::new().max_headers(HEADERS_MAX).max_buf_size(HEAD_MAX).handshake(TokioIo::new(stream));
        let (mut sender, connection) = shaken.await?;
        let asking = async {
            loop {
                let at = Instant::now();
                let response = self.ask(&mut sender, login).await?;
                if response.status() == StatusCode::UNAUTHORIZED {
                    login.answer(&response, self)?;
                    // A body may follow that nobody wants to read.
                    return Ok(());
                }
                if response.status() != StatusCode::OK {
                    return Err(JpegCameraError::Status(response.status()));
                }
                login.accepted();
                match self.fetch {
                    JpegFetch::Stream => return self.stream(response, take).await,
                    JpegFetch::Every(interval) => {
                        take(self.picture(response).await?);
                        tokio::time::sleep_until(at + interval).await;
                    }
                }
                if sender.ready().await.is_err() {
                    return Ok(());
                }
            }
        };
        // The connection moves only while it is polled beside what uses it; at its end it is dropped, which the sender
        // waits for.
        let moving = async move {
            let ended = connection.await;
            ended.map_err(JpegCameraError::from)
        };
        tokio::select! {
            biased;
            asked = asking => asked,
            Err(error) = moving => Err(error),
        }
    }

    async fn ask(
        &self,
        sender: &mut SendRequest<Empty<Bytes>>,
        login: &mut Login,
    ) -> Result<Response<Incoming>, JpegCameraError> {
        let host = if self.target.host.contains(':') {
            format!("[{}]:{}", self.target.host, self.target.port)
        } else {
            format!("{}:{}", self.target.host, self.target.port)
        };
        let mut request = Request::get(&self.path)
            .header(HOST, host)
            .header(USER_AGENT, concat!("fieldgate/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "multipart/x-mixed-replace, image/jpeg");
        if let Some(authorization) = login.authorization(self) {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Empty::new()).map_err(|_| JpegCameraError::Path(self.path.clone()))?;
        let answered = timeout(self.stall_timeout, sender.send_request(request)).await;
        Ok(answered.map_err(|_| JpegCameraError::Stalled(self.stall_timeout))??)
    }

    async fn stream(
        &self,
        response: Response<Incoming>,
        take: &mut impl FnMut(Jpeg),
    ) -> Result<(), JpegCameraError> {
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let mut reader = MultipartReader::new(content_type.unwrap_or_default(), PICTURE_MAX)?;
        let mut body = response.into_body();
        let (mut since, mut wrong) = (Instant::now(), 0);
        loop {
            let left = self.stall_timeout.saturating_sub(since.elapsed());
            let frame = timeout(left, body.frame()).await;
            let frame = frame.map_err(|_| JpegCameraError::Stalled(self.stall_timeout))?;
            let frame = frame.ok_or(JpegCameraError::Ended)??;
            let Ok(data) = frame.into_data() else { continue };
            reader.push(&data);
            while let Some(part) = reader.next_part()? {
                if let Some(picture) = Jpeg::of(part)? {
                    (since, wrong) = (Instant::now(), 0);
                    take(picture);
                } else {
                    wrong += 1;
                    if wrong >= NO_PICTURE_MAX {
                        return Err(JpegCameraError::NoPicture);
                    }
                }
            }
        }
    }

    async fn picture(&self, response: Response<Incoming>) -> Result<Jpeg, JpegCameraError> {
        let body =
            timeout(self.stall_timeout, Limited::new(response.into_body(), PICTURE_MAX).collect()).await;
        let body = body.map_err(|_| JpegCameraError::Stalled(self.stall_timeout))?;
        let picture = body.map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => JpegCameraError::Http(*error),
            Err(_) => JpegCameraError::TooLong,
        })?;
        Jpeg::of(picture.to_bytes())?.ok_or(JpegCameraError::NoPicture)
    }
}

impl Jpeg {
    /// `None` if it is no JPEG that decoders take.
    fn of(bytes: Bytes) -> Result<Option<Jpeg>, JpegCameraError> {
        let Some((width, height)) = jpeg::shape(&bytes) else { return Ok(None) };
        if width.max(height) > SIDE_MAX || width * height > PIXELS_MAX {
            return Err(JpegCameraError::TooLarge { width, height });
        }
        Ok(Some(Jpeg { bytes, width, height }))
    }
}

/// How the camera lets us in.
#[derive(Debug, Default)]
struct Login {
    challenge: Option<Challenge>,
    /// With the nonce that it has now.
    requests: u32,
    /// It was refused with this challenge answered; once more is once too often.
    tried: bool,
}

impl Login {
    fn authorization(&mut self, camera: &JpegCamera) -> Option<String> {
        let credentials = camera.credentials.as_ref()?;
        let challenge = self.challenge.as_ref()?;
        self.tried = true;
        self.requests = self.requests.saturating_add(1);
        Some(match challenge {
            Challenge::Basic => http_auth::basic(credentials),
            Challenge::Digest(digest) => {
                let cnonce = cnonce();
                let proof = Proof { method: "GET", uri: &camera.path, count: self.requests, cnonce: &cnonce };
                digest.authorization(credentials, proof)
            }
        })
    }

    fn accepted(&mut self) {
        self.tried = false;
    }

    /// What a 401 demands.
    fn answer(&mut self, response: &Response<Incoming>, camera: &JpegCamera) -> Result<(), JpegCameraError> {
        let headers = response.headers().get_all(WWW_AUTHENTICATE).iter();
        let offered = http_auth::challenges(headers.filter_map(|value| value.to_str().ok()));
        let is_stale =
            matches!(offered.first(), Some(Challenge::Digest(DigestChallenge { stale: true, .. })));
        // A second try with the same password is how accounts get locked.
        if camera.credentials.is_none() || (self.tried && !is_stale) {
            return Err(JpegCameraError::Login);
        }
        let may_be_plain = camera.target.tls.is_some() || camera.allow_basic;
        let mut usable = offered.iter().filter(|one| may_be_plain || !matches!(one, Challenge::Basic));
        match usable.next() {
            Some(challenge) => self.challenge = Some(challenge.clone()),
            None if offered.is_empty() => return Err(JpegCameraError::Login),
            None => return Err(JpegCameraError::PlainLogin),
        }
        self.requests = 0;
        Ok(())
    }
}

fn cnonce() -> String {
    let mut bytes = [0; 16];
    // Only a name for this request: without randomness digest is as good as it was before cnonces.
    let _ = getrandom::fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
