//! Streams that the config does not name: somebody else says who may watch them, and brings them here.

use fieldgate_hub::Request;
use fieldgate_model::config::Hls;
use std::future::Future;
use std::pin::Pin;

/// Why there is nothing to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// HTTP status.
    pub status: u16,
    /// Words for the viewer; no secrets.
    pub text: String,
}

/// Whoever has streams that the config does not name.
pub trait Elsewhere: Send + Sync {
    /// Whether there can be such streams now.
    fn is_on(&self) -> bool;

    /// How they are cut.
    fn hls(&self) -> Hls;

    /// Lets a viewer in and waits until the stream is here: the name of its mountpoint. Must end by itself.
    fn open(&self, request: Request) -> Pin<Box<dyn Future<Output = Result<String, Absent>> + Send + '_>>;

    /// The mountpoint of a stream, for a viewer who was let in; or why it is not shown any more.
    fn mountpoint(&self, stream: &str) -> Result<String, Absent>;
}
