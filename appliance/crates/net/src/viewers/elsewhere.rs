//! What others do for viewers: streams that the config does not name, and sizes that are made for them.

use fieldgate_hub::Request;
use fieldgate_model::config::{Hls, Size};
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

/// Whoever makes sizes of streams.
pub trait Maker: Send + Sync {
    /// Has it made, unless it is already, and waits until it is there: the name of its mountpoint. `of` is the stream's name.
    /// It is made until a while after nobody watches that mountpoint any more. Must end by itself.
    fn make(
        &self,
        of: &str,
        hls: &Hls,
        size: &Size,
    ) -> Pin<Box<dyn Future<Output = Result<String, Absent>> + Send + '_>>;
}
