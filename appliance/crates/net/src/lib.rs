//! Sockets and tasks around the protocol cores: RTMP listener, pushes and pulls.
//!
//! Knows neither GStreamer nor the config's owner: what it needs is handed in as settings and `hub::Context`.

mod accept;
mod announcer;
mod camera_relay;
mod dial;
mod discovery;
mod http_client;
mod http_server;
mod jpeg_camera;
mod keys;
mod kmp_listen;
mod kmp_push;
mod limits;
mod outbox;
mod recordings;
mod rtmp_client;
mod rtmp_pull;
mod rtmp_push;
mod rtmp_server;
mod rtmp_trial;
mod socket;
mod tls;
mod viewers;
mod wire;

pub use announcer::{Announcer, AnnouncerSettings, Told};
pub use camera_relay::{CameraRelay, CameraRelayError};
pub use dial::{DialError, DialOptions, Failures, Stage, Stream, Target, dial};
pub use discovery::{
    CameraClient, CameraClientError, CameraLogin, Finder, FinderError, FinderSettings, FinderState, Found,
    FoundBy, Interface as NetworkInterface, MAX_NAMED, Refusals, StreamHint, may_be_camera,
};
pub use http_client::{HttpCall, HttpCallError, HttpDocument, HttpReply};
pub use http_server::{
    HttpAnswer, HttpHandler, HttpListener, HttpRequest, HttpServerSettings, SocketCall, SocketCallError,
    SocketHandler, SocketMessage, SocketTask, WebSocket, WebSocketError,
};
pub use jpeg_camera::{Jpeg, JpegCamera, JpegCameraError, JpegFetch, PICTURE_MAX};
pub use keys::KeyCheck;
pub use kmp_listen::{
    KmpChannelSettings, KmpConnectionError, KmpDirectory, KmpListenCounters, KmpListener, KmpPlace,
    KmpReceiverSettings, KmpRefusal, KmpSource, KmpSourceError, KmpSourceTrack,
};
pub use kmp_push::{
    KmpBacklog, KmpDialer, KmpLinkError, KmpPush, KmpPushReport, KmpPushTrack, KmpSentTrack, KmpSentUpstream,
    KmpShared, KmpTotals, KmpTrack, KmpTrackHandle, KmpTrackReport, KmpTrackSettings, TrackAsk, TrackCommand,
};
pub use limits::{ConnectionCounts, ConnectionLimits, Permit, Refusal};
pub use recordings::{
    Excerpt, InitFile, RecordBudget, RecordedSegment, Recorder, Recordings, Shelf, ShelfReport,
};
pub use rtmp_client::{RtmpClientError, RtmpEndpoint};
pub use rtmp_pull::RtmpPull;
pub use rtmp_push::{PushPhase, PushReport, RtmpPush};
pub use rtmp_server::{
    RtmpConnectionError, RtmpConnectionView, RtmpConnections, RtmpListener, RtmpServerCounters,
    RtmpServerSettings, RtmpStreamView, RtmpTotals,
};
pub use rtmp_trial::{RtmpTrialStage, TRIAL_SEND_BUFFER, Throughput, rtmp_trial};
pub use tls::{CertificateState, ClientTls, ServerCertificates, TlsError};
pub use viewers::{Absent, Cutting, Elsewhere, Maker, ViewerListener, Viewers, WatchedReport};
pub use wire::RtmpForm;
