//! Channels of our own RTMP server under a coordinator: who waits for its word, and the mountpoints of those it let in.
//!
//! A channel that is published here has a mountpoint of its own, which comes and goes with its publisher. A camera's
//! channel has the mountpoint of the config, which stays; only those go who play it by the channel.

use super::passing::{Moment, watch};
use fieldgate_compat::ExchangeId;
use fieldgate_compat::coordinator::Refused;
use fieldgate_hub::{Action, Bound, Limits, Mountpoint, Registry, Request, Terms, Verdict};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

/// What happens to places and is not heard yet.
const MOMENTS: usize = 64;

/// Somebody who wants to publish or play a channel. Who does not wait for the answer any more has dropped its end.
pub(super) struct Asking {
    pub(super) is_publish: bool,
    pub(super) channel: String,
    pub(super) key: String,
    pub(super) peer: IpAddr,
    /// The mountpoint.
    answer: oneshot::Sender<Result<String, Refused>>,
    revoked: Weak<CancellationToken>,
}

impl Asking {
    /// The answer to an RTMP peer; `tell`: passes the question on, if there is room.
    pub(super) async fn verdict(request: &Request, tell: impl FnOnce(Asking) -> bool) -> Verdict {
        let (answer, answered) = oneshot::channel();
        let asking = Asking {
            is_publish: request.action == Action::Publish,
            channel: request.app.clone(),
            key: request.name.clone(),
            peer: request.peer,
            answer,
            revoked: Arc::downgrade(&request.revoked),
        };
        let told =
            if tell(asking) { answered.await.unwrap_or(Err(Refused::Full)) } else { Err(Refused::Full) };
        match told {
            Ok(mountpoint) => Verdict::Allow { mountpoint, terms: Terms::default() },
            // Whatever the cause, publishers hear of a bad name, as they always did.
            Err(why) => {
                info!(channel = request.app, %why, "a publisher or player of a channel is refused");
                Verdict::UnknownName
            }
        }
    }

    /// No.
    pub(super) fn refuse(self, why: Refused) {
        self.answer.send(Err(why)).ok();
    }
}

/// The mountpoint of a channel; no stream of the config can have such a name.
pub(super) fn mountpoint_of(channel: &str) -> String {
    format!("channel/{channel}")
}

/// One stream of our own server.
struct Place {
    channel: String,
    mountpoint: Arc<Mountpoint>,
}

/// All channels, their streams under the coordinator's names.
pub(super) struct Channels<K> {
    registry: Arc<Registry>,
    next: u64,
    asking: BTreeMap<ExchangeId, Asking>,
    places: BTreeMap<K, Place>,
    /// Mountpoints of the config, by channel.
    cameras: BTreeMap<String, String>,
    /// Who plays those.
    players: BTreeMap<String, Vec<Weak<CancellationToken>>>,
    moments: mpsc::Receiver<(K, Moment)>,
    tell: mpsc::Sender<(K, Moment)>,
    watches: JoinSet<()>,
}

impl<K: Clone + Ord + Send + Sync + 'static> Channels<K> {
    /// None yet. `cameras`: mountpoints of the config, by channel.
    pub(super) fn new(registry: Arc<Registry>, cameras: BTreeMap<String, String>) -> Channels<K> {
        let (tell, moments) = mpsc::channel(MOMENTS);
        Channels {
            registry,
            next: 0,
            asking: BTreeMap::new(),
            places: BTreeMap::new(),
            cameras,
            players: BTreeMap::new(),
            moments,
            tell,
            watches: JoinSet::new(),
        }
    }

    /// Keeps somebody until there is a verdict.
    pub(super) fn ask(&mut self, asking: Asking) -> ExchangeId {
        let exchange = ExchangeId(self.next);
        self.next += 1;
        self.asking.insert(exchange, asking);
        exchange
    }

    /// Those who have left before their verdict.
    pub(super) fn take_gone(&mut self) -> Vec<ExchangeId> {
        let gone = self.asking.iter().filter(|(_, asking)| asking.answer.is_closed());
        let gone: Vec<ExchangeId> = gone.map(|(exchange, _)| *exchange).collect();
        gone.iter().for_each(|exchange| drop(self.asking.remove(exchange)));
        gone
    }

    /// Answers somebody. What is returned is a publication that is over already: its publisher has left meanwhile, or the
    /// one before it has not left yet.
    pub(super) fn judge(&mut self, exchange: ExchangeId, verdict: Result<K, Refused>) -> Option<(String, K)> {
        let asking = self.asking.remove(&exchange)?;
        let stream = match verdict {
            Ok(stream) => stream,
            Err(why) => {
                asking.refuse(why);
                return None;
            }
        };
        let Asking { is_publish, channel, answer, revoked, .. } = asking;
        if !is_publish {
            let mountpoint = match self.cameras.get(&channel) {
                Some(camera) => {
                    let players = self.players.entry(channel).or_default();
                    players.retain(|player| player.strong_count() > 0);
                    players.push(revoked);
                    camera.clone()
                }
                None => mountpoint_of(&channel),
            };
            let exists = self.registry.get(&mountpoint).is_some();
            answer.send(if exists { Ok(mountpoint) } else { Err(Refused::Unknown) }).ok();
            return None;
        }
        let limits = Limits { bound: Bound::default(), grace: Duration::ZERO, ..Limits::default() };
        let Ok(mountpoint) = self.registry.add(&mountpoint_of(&channel), limits) else {
            answer.send(Err(Refused::Busy)).ok();
            return Some((channel, stream));
        };
        self.watches.spawn(watch(mountpoint.clone(), stream.clone(), self.tell.clone()));
        let name = mountpoint.name().to_owned();
        self.places.insert(stream.clone(), Place { channel, mountpoint });
        if answer.send(Ok(name)).is_err() {
            return self.end(&stream).map(|channel| (channel, stream));
        }
        None
    }

    /// The next thing that happens to a stream. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> (K, Moment) {
        loop {
            tokio::select! {
                Some(moment) = self.moments.recv() => return moment,
                Some(_) = self.watches.join_next() => {}
                else => std::future::pending().await,
            }
        }
    }

    /// The mountpoint of a stream.
    pub(super) fn mountpoint(&self, stream: &K) -> Option<&Arc<Mountpoint>> {
        self.places.get(stream).map(|place| &place.mountpoint)
    }

    /// A stream is over: its channel, if that was not known yet.
    pub(super) fn end(&mut self, stream: &K) -> Option<String> {
        let place = self.places.remove(stream)?;
        self.registry.remove(place.mountpoint.name());
        Some(place.channel)
    }

    /// Sends the publisher of a channel away, or those who play a camera by it. What watches a place tells the rest.
    pub(super) fn dismiss(&mut self, channel: &str) {
        if !self.cameras.contains_key(channel) {
            return self.registry.remove(&mountpoint_of(channel));
        }
        let players = self.players.remove(channel).unwrap_or_default();
        players.iter().filter_map(Weak::upgrade).for_each(|revoked| revoked.cancel());
    }

    /// Ends all.
    pub(super) fn clear(&mut self) {
        let cameras: Vec<String> = self.players.keys().cloned().collect();
        cameras.iter().for_each(|channel| self.dismiss(channel));
        let streams: Vec<K> = self.places.keys().cloned().collect();
        streams.iter().for_each(|stream| drop(self.end(stream)));
    }

    /// All streams.
    pub(super) fn streams(&self) -> impl Iterator<Item = &K> {
        self.places.keys()
    }
}
