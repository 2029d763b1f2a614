//! A stream that must not notice what happens beside it: published and played in real time, compared at its end.

use super::fixture::Fixture;
use super::flv::{DATA, Tag};
use super::rtmp::{Client, Silence};
use super::take::Take;
use super::wait::{self, secs};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Publishes a recording in real time, over and over, until it is told to stop.
pub(crate) struct Publisher {
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    sent: Arc<Mutex<Vec<Tag>>>,
}

/// How a publisher goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With `FCUnpublish` and `deleteStream`.
    Polite,
    /// The connection just ends.
    Abrupt,
}

impl Publisher {
    /// Publishes `name` (which may carry `?key=`) from timestamp `from_ms` on.
    pub(crate) fn start(
        address: SocketAddr,
        name: &str,
        fixture: &Fixture,
        from_ms: u32,
        end: End,
    ) -> Publisher {
        let (client, stream) = Client::publishing(address, name).unwrap();
        Publisher::with(client, stream, name, fixture.tags(), from_ms, end)
    }

    /// As [`Publisher::start`], on a connection that publishes already.
    pub(crate) fn with(
        client: Client,
        stream: u32,
        name: &str,
        tags: Vec<Tag>,
        from_ms: u32,
        end: End,
    ) -> Publisher {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(Mutex::new(Vec::new()));
        let (stop_there, sent_there, name) = (stop.clone(), sent.clone(), name.to_owned());
        let thread = std::thread::spawn(move || {
            publish_loop(client, stream, &name, &tags, from_ms, end, &stop_there, &sent_there);
        });
        Publisher { thread: Some(thread), stop, sent }
    }

    /// Media messages sent so far.
    pub(crate) fn sent(&self) -> Vec<Tag> {
        self.sent.lock().unwrap().clone()
    }

    /// How many have been sent so far.
    pub(crate) fn count(&self) -> usize {
        self.sent.lock().unwrap().len()
    }

    /// Waits until `count` more messages have gone out.
    pub(crate) fn wait_for_more(&self, count: usize) {
        let from = self.count();
        wait::until_true("the publisher to go on", secs(30), || self.count() >= from + count);
    }

    /// Whether the gateway has closed it.
    pub(crate) fn is_closed(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Stops and gives what was sent.
    pub(crate) fn finish(mut self) -> Take {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        Take::of(&self.sent())
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[expect(clippy::too_many_arguments, reason = "one thread's whole world")]
fn publish_loop(
    mut client: Client,
    stream: u32,
    name: &str,
    tags: &[Tag],
    from_ms: u32,
    end: End,
    stop: &AtomicBool,
    sent: &Mutex<Vec<Tag>>,
) {
    let start = Instant::now();
    let length = tags.iter().map(|tag| tag.ts).max().unwrap() + 33;
    let mut client = 'whole: {
        for round in 0.. {
            for tag in tags {
                // Metadata and headers are sent once, as an encoder would.
                if round > 0 && (tag.is_header() || tag.kind == DATA) {
                    continue;
                }
                let after = round * length + tag.ts;
                while start.elapsed() < Duration::from_millis(u64::from(after)) {
                    if stop.load(Ordering::Relaxed) {
                        break 'whole client;
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
                let tag = Tag { ts: from_ms + after, ..tag.clone() };
                client
                    .media(stream, &tag)
                    .unwrap_or_else(|e| panic!("the gateway closed publisher {name}: {e}"));
                sent.lock().unwrap().push(tag);
            }
        }
        client
    };
    if end == End::Polite {
        drop(client.unpublish(stream, name));
    }
    // Takes what the peer still says: closing over unread bytes is a reset, which would eat what is on the way.
    client.is_closed_within(Duration::from_millis(300));
}

/// Plays a stream and keeps all of it.
pub(crate) struct Player {
    thread: Option<JoinHandle<(Vec<Tag>, Silence)>>,
    stop: Arc<AtomicBool>,
    got: Arc<AtomicU32>,
    last_at: Arc<Mutex<Instant>>,
}

impl Player {
    /// Plays `name`; returns once the gateway has said yes.
    pub(crate) fn start(address: SocketAddr, name: &str) -> Player {
        Player::with(Client::playing(address, name).unwrap())
    }

    /// Goes on with a connection that plays already.
    pub(crate) fn with(mut client: Client) -> Player {
        let stop = Arc::new(AtomicBool::new(false));
        let got = Arc::new(AtomicU32::new(0));
        let last_at = Arc::new(Mutex::new(Instant::now()));
        let (stop_there, got_there, last_there) = (stop.clone(), got.clone(), last_at.clone());
        let thread = std::thread::spawn(move || {
            let mut tags = Vec::new();
            loop {
                match client.tag(Duration::from_millis(50)) {
                    Ok(tag) => {
                        *last_there.lock().unwrap() = Instant::now();
                        if tag.kind != DATA {
                            got_there.fetch_add(1, Ordering::Relaxed);
                        }
                        tags.push(tag);
                        // A steady stream has no silence to stop in.
                        if stop_there.load(Ordering::Relaxed) {
                            return (tags, Silence::TimedOut);
                        }
                    }
                    Err(Silence::TimedOut) if !stop_there.load(Ordering::Relaxed) => {}
                    Err(silence) => return (tags, silence),
                }
            }
        });
        Player { thread: Some(thread), stop, got, last_at }
    }

    /// Pictures and sounds, with their headers, that have come so far.
    pub(crate) fn got(&self) -> u32 {
        self.got.load(Ordering::Relaxed)
    }

    /// Waits until `count` more messages have come.
    pub(crate) fn wait_for_more(&self, count: u32) {
        let from = self.got();
        wait::until_true("the player to go on", secs(30), || self.got() >= from + count);
    }

    /// Whether the gateway has closed it.
    pub(crate) fn is_closed(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// All messages up to now.
    #[cfg(feature = "gst")]
    pub(crate) fn stopped(mut self) -> Vec<Tag> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap().0
    }

    /// All messages, once nothing came for a second.
    pub(crate) fn tags(mut self) -> Vec<Tag> {
        wait::until_true("the player's stream to fall silent", secs(60), || {
            self.is_closed() || self.last_at.lock().unwrap().elapsed() > Duration::from_secs(1)
        });
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap().0
    }

    /// All messages, once `count` of them with pictures and sound came, or none for ten seconds.
    fn finish_at(self, count: usize) -> Take {
        wait::until_true("the player's stream to come to its end", secs(60), || {
            self.got() as usize >= count
                || self.is_closed()
                || self.last_at.lock().unwrap().elapsed() > Duration::from_secs(10)
        });
        self.finish()
    }

    /// As [`Player::tags`], as a take.
    pub(crate) fn finish(self) -> Take {
        Take::of(&self.tags())
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Publisher and player of one stream.
pub(crate) struct Healthy {
    publisher: Publisher,
    player: Player,
}

impl Healthy {
    /// Starts both on the mountpoint `name`, which takes publishers without a key.
    pub(crate) fn start(address: SocketAddr, name: &str) -> Healthy {
        let player = Player::start(address, name);
        let publisher = Publisher::start(address, name, &Fixture::h264_aac(6), 0, End::Polite);
        player.wait_for_more(10);
        Healthy { publisher, player }
    }

    /// Waits until `count` more messages have come through.
    pub(crate) fn wait_for_more(&self, count: u32) {
        self.player.wait_for_more(count);
    }

    /// Ends both and compares; gives what was sent.
    pub(crate) fn assert_unharmed(self) -> Take {
        // Some more, so that harm done a moment ago shows.
        self.player.wait_for_more(40);
        let sent = self.publisher.finish();
        let count = sent.video.headers.len()
            + sent.audio.headers.len()
            + sent.video.frames.len()
            + sent.audio.frames.len();
        sent.assert_same(&self.player.finish_at(count), "the healthy stream");
        sent
    }
}
