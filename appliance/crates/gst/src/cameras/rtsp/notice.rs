//! What a session tells the worker's main thread.

use crate::error::WorkError;
use fieldgate_model::job::RtspCamera;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Notices that may wait; more are lost, and none but the last counts.
const WAITING: usize = 8;
/// Of a server's name for itself so much is shown.
const TOOL_MAX: usize = 80;

/// Something that the main thread has to know.
#[derive(Debug)]
pub(crate) enum Notice {
    /// What the source is, for the status.
    Source(String),
    /// Only GStreamer's elements carry what this camera sends.
    UseElements,
    /// The session has ended.
    Failed(WorkError),
}

/// The sending end. Cheap to clone; never waits.
#[derive(Clone, Debug)]
pub(crate) struct Teller(SyncSender<Notice>);

impl Teller {
    pub(crate) fn new() -> (Teller, Receiver<Notice>) {
        let (sender, receiver) = sync_channel(WAITING);
        (Teller(sender), receiver)
    }

    pub(crate) fn tell(&self, notice: Notice) {
        let _ = self.0.try_send(notice);
    }

    /// Tells what the camera is like: transport, codecs, and the server's name for itself if it has one.
    pub(crate) fn source(&self, camera: &RtspCamera, transport: &str, codecs: &[String], tool: &str) {
        let tool: String = tool.chars().filter(|c| !c.is_control()).take(TOOL_MAX).collect();
        let server = if tool.is_empty() { tool } else { format!(", server {tool}") };
        let text = format!("RTSP over {transport} from {}: {}{server}", camera.address, codecs.join(", "));
        self.tell(Notice::Source(text));
    }
}
