//! One POST of SOAP to a camera: small, bounded, over a connection of its own, redirects untouched.

use crate::dial::{DialOptions, Stream, Target, dial};
use crate::tls::ClientTls;
use fieldgate_proto::onvif::{Call, CallFailure};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::Builder;
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT, WWW_AUTHENTICATE};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// For connection and TLS together.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// From the start to the last byte of the answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(6);
/// Longest body of an answer, in bytes: what the reader of XML takes, and one more.
const MAX_BODY_LEN: usize = (256 << 10) + 1;
/// Longest head of an answer, in bytes.
const MAX_HEAD_LEN: usize = 16 << 10;
/// Most headers of an answer.
const MAX_HEADERS: usize = 64;

/// What a camera answered.
#[derive(Debug)]
pub(super) struct PostReply {
    pub(super) status: u16,
    pub(super) challenges: Vec<String>,
    pub(super) body: Vec<u8>,
}

/// Makes the call, within `deadline` and its own bounds. Dropping the future ends the connection.
pub(super) async fn post(call: &Call, tls: &ClientTls, deadline: Instant) -> Result<PostReply, CallFailure> {
    let deadline = deadline.min(Instant::now() + CALL_TIMEOUT);
    let target = Target {
        host: call.url.host.to_string(),
        port: call.url.port,
        tls: call.url.scheme.is_tls().then(|| tls.clone()),
    };
    let timeout = DIAL_TIMEOUT.min(deadline.saturating_duration_since(Instant::now()));
    let options = DialOptions { timeout, ..DialOptions::default() };
    let stream =
        dial(&target, &options).await.map_err(|error| CallFailure::Unreachable(error.to_string()))?;
    match timeout_at(deadline, exchange(call, stream)).await {
        Ok(reply) => reply,
        Err(_) => Err(CallFailure::Unusable("no complete answer in time".to_owned())),
    }
}

async fn exchange(call: &Call, stream: Stream) -> Result<PostReply, CallFailure> {
    let unusable = |error: &dyn std::fmt::Display| CallFailure::Unusable(error.to_string());
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(call.url.target.as_str())
        .header(HOST, call.url.authority())
        .header(USER_AGENT, "fieldgate")
        .header(CONTENT_TYPE, "application/soap+xml; charset=utf-8")
        .header(CONNECTION, "close");
    if let Some(authorization) = &call.authorization {
        request = request.header(AUTHORIZATION, authorization);
    }
    let body = Full::new(Bytes::from(call.body.clone().into_bytes()));
    let request = request.body(body).map_err(|error| unusable(&error))?;
    let mut builder = Builder::new();
    builder.max_buf_size(MAX_HEAD_LEN).max_headers(MAX_HEADERS);
    let (mut sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(|error| unusable(&error))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| unusable(&error))?;
        let status = response.status().as_u16();
        let challenges = response.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenges =
            challenges.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
        let body = Limited::new(response.into_body(), MAX_BODY_LEN).collect().await;
        let body = body.map_err(|error| unusable(&error))?.to_bytes().to_vec();
        Ok(PostReply { status, challenges, body })
    };
    tokio::pin!(connection);
    tokio::pin!(answer);
    tokio::select! {
        biased;
        reply = &mut answer => reply,
        // What has come by then is still read.
        _ = &mut connection => answer.await,
    }
}
