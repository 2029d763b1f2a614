//! One callback until it has an answer or no try is left.

use super::reply::ReplyError;
use bytes::Bytes;
use std::time::{Duration, Instant};

/// A callback that is being made. Each try sends the same bytes.
#[derive(Debug)]
pub(super) struct Call {
    body: Bytes,
    /// Tries after the one that is being made or waited for.
    left: u32,
    /// When the next try is due; none while one is being made.
    due: Option<Instant>,
}

/// What follows a failed try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another, after this time.
    Retry(Duration),
    /// Nothing: it has failed.
    GiveUp,
}

impl Call {
    /// The first try is being made.
    pub(super) fn new(body: String, retries: u32) -> Self {
        Call { body: body.into(), left: retries, due: None }
    }

    pub(super) fn body(&self) -> Bytes {
        self.body.clone()
    }

    /// When the next try is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether a try is being made, so that a reply may come.
    pub(super) fn is_open(&self) -> bool {
        self.due.is_none()
    }

    /// The try has failed. A no is as good as no answer, except where the caller knows better.
    pub(super) fn failed(&mut self, interval: Duration, now: Instant) -> Next {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                self.due = now.checked_add(interval);
                Next::Retry(interval)
            }
            None => Next::GiveUp,
        }
    }

    /// Begins the next try if it is due.
    pub(super) fn start(&mut self, now: Instant) -> bool {
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            self.due = None;
        }
        is_due
    }
}

/// What an RTMP peer reads when a controller gives no usable reply to `connect`.
pub(super) const NO_ANSWER: &str = "Internal server error";

/// What an RTMP peer reads when it may not connect for this reason.
pub(super) fn denial(error: &ReplyError) -> &str {
    match error {
        ReplyError::Refused { message, .. } => message,
        _ => NO_ANSWER,
    }
}
