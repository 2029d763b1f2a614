//! The sending half of the link: frames go out at once from the streaming thread, or wait in the bounded outbox for
//! the "link-out" thread.

use bytes::Bytes;
use fieldgate_hub::link::{LogLevel, Outbox, OutboxBound};
use fieldgate_media::{Tracks, UnitHead};
use fieldgate_model::job::WorkerStatus;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use std::io::{self, IoSlice};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A unit's bytes: where GStreamer has them, or our own.
#[derive(Debug)]
pub(crate) enum Payload {
    Mapped(gst::MappedBuffer<gst::buffer::Readable>),
    Owned(Bytes),
}

impl From<gst::MappedBuffer<gst::buffer::Readable>> for Payload {
    fn from(mapped: gst::MappedBuffer<gst::buffer::Readable>) -> Self {
        Payload::Mapped(mapped)
    }
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        match self {
            Payload::Mapped(mapped) => mapped.as_ref(),
            Payload::Owned(bytes) => bytes.as_ref(),
        }
    }
}

/// Sends frames to the gateway. Cheap to clone; every method returns at once.
#[derive(Clone, Debug)]
pub(crate) struct Outlet(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    link: UnixStream,
    outbox: Mutex<Outbox<Payload>>,
    waiting: Condvar,
    closed: AtomicBool,
}

impl Outlet {
    /// Starts the thread that sends what the socket does not take at once.
    pub(crate) fn start(link: UnixStream) -> io::Result<Outlet> {
        let outlet = Outlet(Arc::new(Shared {
            link,
            outbox: Mutex::new(Outbox::new(OutboxBound::default())),
            waiting: Condvar::new(),
            closed: AtomicBool::new(false),
        }));
        let writer = outlet.clone();
        std::thread::Builder::new()
            .name("link-out".into())
            .stack_size(128 << 10)
            .spawn(move || writer.0.serve())?;
        Ok(outlet)
    }

    /// Whether the gateway is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Relaxed)
    }

    /// One unit; `false` when it was dropped and a keyframe would help.
    pub(crate) fn unit(&self, head: &UnitHead, payload: impl Into<Payload>) -> bool {
        self.0.push(|outbox| outbox.push_unit(head, payload.into()))
    }

    pub(crate) fn tracks(&self, tracks: &Tracks) {
        self.0.push(|outbox| outbox.push_tracks(tracks));
    }

    pub(crate) fn pulse(&self) {
        self.0.push(Outbox::push_pulse);
    }

    pub(crate) fn status(&self, status: &WorkerStatus) {
        if let Ok(json) = serde_json::to_vec(status) {
            self.0.push(|outbox| outbox.push_status(Bytes::from(json)));
        }
    }

    pub(crate) fn answer(&self, answer: Vec<u8>) {
        self.0.push(|outbox| outbox.push_answer(Bytes::from(answer)));
    }

    pub(crate) fn log(&self, level: LogLevel, line: &str) {
        self.0.push(|outbox| outbox.push_log(level, line));
    }

    pub(crate) fn count_unusable(&self) {
        self.0.lock().count_unusable();
    }

    pub(crate) fn count_dropped(&self, units: u64) {
        self.0.lock().count_dropped(units);
    }

    /// Waits until all is sent, but not for long: the last words before the end.
    pub(crate) fn drain(&self) {
        for _ in 0..20 {
            if self.is_closed() || self.0.lock().sending().is_none() {
                return;
            }
            self.0.wait_writable();
            self.0.send(&mut self.0.lock());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Outbox<Payload>> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push<T>(&self, what: impl FnOnce(&mut Outbox<Payload>) -> T) -> T {
        let mut outbox = self.lock();
        let was_idle = outbox.sending().is_none();
        let taken = what(&mut outbox);
        // With older frames waiting the socket is full, and "link-out" is at it.
        if was_idle && !self.send(&mut outbox) {
            self.waiting.notify_one();
        }
        taken
    }

    /// Sends as much as the socket takes; `false` when something is left.
    fn send(&self, outbox: &mut Outbox<Payload>) -> bool {
        while let Some(sending) = outbox.sending() {
            let pieces = [IoSlice::new(sending.head), IoSlice::new(sending.body)];
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match sendmsg(&self.link, &pieces, &mut SendAncillaryBuffer::default(), flags) {
                Ok(sent) => outbox.advance(sent),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return false,
                Err(_) => {
                    self.closed.store(true, Ordering::Relaxed);
                    return true;
                }
            }
        }
        true
    }

    fn serve(&self) {
        while !self.closed.load(Ordering::Relaxed) {
            let outbox = self.lock();
            let idle = |outbox: &mut Outbox<Payload>| outbox.sending().is_none();
            drop(self.waiting.wait_while(outbox, idle).unwrap_or_else(PoisonError::into_inner));
            self.wait_writable();
            self.send(&mut self.lock());
        }
    }

    fn wait_writable(&self) {
        let mut fds = [PollFd::new(&self.link, PollFlags::OUT)];
        let _ = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 100_000_000 }));
    }
}
