//! The session with the fleet's MQTT broker.
//!
//! | topic under the prefix | retained | what |
//! |---|---|---|
//! | `DEVICE/desired`, `groups/GROUP/desired` | as sent | bundles, to the gateway |
//! | `DEVICE/reported` | yes | the reported state, as soon as it differs, at most once a second |
//! | `DEVICE/presence` | yes | `online`, and by the last will `offline` |
//! | `DEVICE/health` | no | how it does, in an interval |
//! | `DEVICE/events` | no | what mountpoints begin and cease to do |
//!
//! The reported state is made from what is true when it is sent: after any time without a broker the next session says it
//! all. Events wait in a bounded queue; the oldest go, and are counted.

use super::report::{health, states};
use super::{Fleet, LinkView, Way};
use fieldgate_fleet::mqtt::{Message, SendError, Session, SessionError, SessionEvent, SessionSettings};
use fieldgate_fleet::{ALL, Backoff, TEXT_MAX};
use fieldgate_hub::Clock;
use fieldgate_model::config::FleetMqtt;
use fieldgate_model::{Config, Status};
use fieldgate_net::{ClientTls, DialError, DialOptions, Stream, Target, TlsError, dial};
use futures_util::future::OptionFuture;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The longest wait for the next try.
const BACKOFF_MAX: Duration = Duration::from_secs(600);
/// A session that held that long has ended for a new reason.
const HELD: Duration = Duration::from_secs(60);
/// How often the gateway is looked at for what differs; also the least time between two reports.
const LOOK: Duration = Duration::from_secs(1);
/// Events that wait for a session.
const EVENTS_MAX: usize = 256;
/// Events that are sent between two looks.
const EVENTS_AT_ONCE: usize = 5;
/// For name, connection and TLS.
const DIAL_WITHIN: Duration = Duration::from_secs(15);
/// How long one write may take.
const WRITE_WITHIN: Duration = Duration::from_secs(20);
/// The longest wait before a session that proves the way in: well within the time for confirming.
const PROOF_SPREAD_MAX: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("network: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("the broker takes nothing for {WRITE_WITHIN:?}")]
    Stuck,
    #[error("the broker closed the connection")]
    Closed,
}

/// Why a session was ended by the gateway.
enum Ended {
    /// A new one must prove that the way still works.
    Proof,
    /// Other settings.
    Settings,
    /// The program ends.
    Stopped,
}

/// What sessions are made of, and what outlives them.
struct Link<'a, S> {
    fleet: &'a Fleet,
    status: S,
    clock: &'a Clock,
    events: VecDeque<Value>,
    seen: Option<BTreeMap<String, (&'static str, Option<String>)>>,
    view: LinkView,
}

/// Keeps a session as the config that runs says, until cancelled. `chance` gives evenly distributed numbers.
pub async fn run_mqtt(
    fleet: Fleet,
    mut config: watch::Receiver<Arc<Config>>,
    status: impl Fn() -> Status,
    clock: Clock,
    chance: impl Fn() -> u32,
    cancel: CancellationToken,
) {
    let mut link = Link {
        fleet: &fleet,
        status,
        clock: &clock,
        events: VecDeque::new(),
        seen: None,
        view: LinkView::default(),
    };
    loop {
        let now = config.borrow_and_update().fleet.clone();
        let Some(mqtt) = now.mqtt else {
            fleet.link(Way::Mqtt, None);
            tokio::select! {
                () = cancel.cancelled() => return,
                changed = config.changed() => if changed.is_err() { return },
            }
            continue;
        };
        let mut backoff = Backoff::new(mqtt.spread.get(), BACKOFF_MAX);
        // Whole districts come back from a power cut in one moment.
        let mut wait = backoff.wait(chance());
        let mut proofs = fleet.shared.proof.subscribe();
        if proofs.borrow_and_update().is_some_and(|(way, _)| way == Way::Mqtt) {
            wait = soon(&mqtt, chance());
        }
        loop {
            link.show(None, Some(wait));
            tokio::select! {
                () = cancel.cancelled() => return,
                () = link.watch_for(wait) => {}
                changed = changed_to(&mut config, &mqtt, &now.groups) => {
                    if !changed { return }
                    break;
                }
            }
            let begun = Instant::now();
            let ended = tokio::select! {
                ended = link.session(&mqtt, &now.groups, &mut proofs, &cancel) => ended,
                changed = changed_to(&mut config, &mqtt, &now.groups) => {
                    if !changed { return }
                    Ok(Ended::Settings)
                }
            };
            if begun.elapsed() >= HELD {
                backoff.reset();
            }
            match ended {
                Ok(Ended::Stopped) => return,
                Ok(Ended::Settings) => break,
                Ok(Ended::Proof) => wait = soon(&mqtt, chance()),
                Err(error) => {
                    wait = backoff.wait(chance());
                    let cause = crate::steward::chain(&error);
                    warn!(broker = mqtt.url, retry_in = ?wait, error = %cause, "no session with the fleet's broker");
                    link.view.cause = Some(cause);
                }
            }
        }
    }
}

fn soon(mqtt: &FleetMqtt, chance: u32) -> Duration {
    let spread = mqtt.spread.get().min(PROOF_SPREAD_MAX);
    spread.mul_f64(f64::from(chance) / f64::from(u32::MAX))
}

/// Waits until the settings of the session differ; false if there is no config any more.
async fn changed_to(config: &mut watch::Receiver<Arc<Config>>, mqtt: &FleetMqtt, groups: &[String]) -> bool {
    let differs =
        |config: &Arc<Config>| config.fleet.mqtt.as_ref() != Some(mqtt) || config.fleet.groups != groups;
    config.wait_for(differs).await.is_ok()
}

fn tls_of(mqtt: &FleetMqtt, is_tls: bool) -> Result<Option<ClientTls>, TlsError> {
    let ca = mqtt.ca.as_deref();
    match (is_tls, &mqtt.cert, &mqtt.key) {
        (false, ..) => Ok(None),
        (true, Some(cert), Some(key)) => ClientTls::with_own_certificate(ca, cert, key).map(Some),
        (true, ..) => {
            ca.map_or_else(|| Ok(ClientTls::public()), |ca: &Path| ClientTls::with_ca_file(ca)).map(Some)
        }
    }
}

type Taking<'a> = Pin<Box<dyn Future<Output = Option<u16>> + Send + 'a>>;

impl<S: Fn() -> Status> Link<'_, S> {
    fn show(&mut self, connected: Option<()>, wait: Option<Duration>) {
        self.view.connected = connected.is_some();
        self.view.next_attempt = wait.map(|wait| crate::clock::timestamp(self.clock).plus(wait));
        self.fleet.link(Way::Mqtt, Some(self.view.clone()));
    }

    /// Waits, and keeps what happens meanwhile.
    async fn watch_for(&mut self, wait: Duration) {
        let until = Instant::now() + wait;
        while Instant::now() < until {
            self.look(&(self.status)());
            sleep_until(until.min(Instant::now() + LOOK)).await;
        }
    }

    /// Keeps as events what differs from the last look.
    fn look(&mut self, status: &Status) {
        let now = states(status);
        let Some(before) = self.seen.replace(now.clone()) else { return };
        let gone = before.keys().filter(|name| !now.contains_key(*name)).map(|name| (name, "removed", None));
        let differs =
            now.iter().filter(|(name, (word, _))| before.get(*name).is_none_or(|(old, _)| old != word));
        let changed = differs.map(|(name, (word, cause))| (name, *word, cause.clone()));
        for (name, word, cause) in changed.chain(gone) {
            if self.events.len() >= EVENTS_MAX {
                self.events.pop_front();
                self.view.lost_events += 1;
            }
            self.events
                .push_back(json!({"at": status.at, "mountpoint": name, "event": word, "cause": cause}));
        }
    }

    async fn session(
        &mut self,
        mqtt: &FleetMqtt,
        groups: &[String],
        proofs: &mut watch::Receiver<Option<(Way, Instant)>>,
        cancel: &CancellationToken,
    ) -> Result<Ended, LinkError> {
        let (host, port, is_tls) = mqtt.broker().ok_or(LinkError::Closed)?;
        let files = mqtt.clone();
        let tls = tokio::task::spawn_blocking(move || tls_of(&files, is_tls));
        let tls = tls.await.map_err(io::Error::other)??;
        let options = DialOptions { timeout: DIAL_WITHIN, ..DialOptions::default() };
        let opened = Instant::now();
        let mut stream = dial(&Target { host, port, tls }, &options).await?;
        let device = self.fleet.view().device;
        let topic = |rest: &str| format!("{}/{device}/{rest}", mqtt.topic_prefix);
        let of_group = |group: &str| format!("{}/groups/{group}/desired", mqtt.topic_prefix);
        let settings = SessionSettings {
            client_id: device.clone(),
            login: mqtt.username.clone().map(|user| {
                (user, mqtt.password.as_ref().map(|it| it.reveal().to_owned()).unwrap_or_default())
            }),
            keep_alive: mqtt.keep_alive.get(),
            will: (topic("presence"), "offline".to_owned()),
            topics: [topic("desired"), of_group(ALL)]
                .into_iter()
                .chain(groups.iter().map(|it| of_group(it)))
                .collect(),
        };
        let mut session = Session::open(settings, Instant::now().into_std());
        let (mut input, mut taking): (_, Option<Taking<'_>>) = (vec![0; 16 << 10], None);
        let (mut waiting, mut reported, mut sent_health) = (VecDeque::new(), None, None);
        let mut next_look = Instant::now();
        let fleet = self.fleet;
        loop {
            while let Some(event) = session.poll_event() {
                match event {
                    SessionEvent::Ready => {
                        info!(broker = mqtt.url, "a session with the fleet's broker");
                        self.view.cause = None;
                        self.view.sessions += 1;
                        self.show(Some(()), None);
                        send(&mut session, &topic("presence"), b"online".to_vec(), true);
                        fleet.prove(Way::Mqtt, opened).await;
                    }
                    SessionEvent::Message(message) => waiting.push_back(message),
                    SessionEvent::Delivered(_) => {}
                }
            }
            if taking.is_none() {
                taking = waiting.pop_front().map(|message| -> Taking<'_> { Box::pin(take(fleet, message)) });
            }
            if session.is_ready() && Instant::now() >= next_look {
                next_look = Instant::now() + LOOK;
                let status = (self.status)();
                self.look(&status);
                let now = fleet.view().reported(&status);
                if reported.as_ref() != Some(&now)
                    && send(&mut session, &topic("reported"), now.to_string().into_bytes(), true)
                {
                    reported = Some(now);
                }
                let is_due = sent_health.is_none_or(|at: Instant| at.elapsed() >= mqtt.status_interval.get());
                if is_due
                    && send(&mut session, &topic("health"), health(&status).to_string().into_bytes(), false)
                {
                    sent_health = Some(Instant::now());
                }
                for _ in 0..EVENTS_AT_ONCE {
                    let Some(event) = self.events.front() else { break };
                    if !send(&mut session, &topic("events"), event.to_string().into_bytes(), false) {
                        break;
                    }
                    self.events.pop_front();
                }
            }
            while let Some(output) = session.poll_output() {
                timeout(WRITE_WITHIN, async {
                    stream.write_all(&output).await?;
                    stream.flush().await
                })
                .await
                .map_err(|_| LinkError::Stuck)??;
            }
            let look_at = if session.is_ready() { next_look } else { next_look + DIAL_WITHIN };
            let wake = Instant::from_std(session.next_timeout()).min(look_at);
            tokio::select! {
                () = cancel.cancelled() => {
                    goodbye(&mut stream).await;
                    return Ok(Ended::Stopped);
                }
                changed = proofs.changed() => {
                    let wanted = changed.is_ok() && proofs.borrow_and_update().is_some_and(|(way, _)| way == Way::Mqtt);
                    if wanted {
                        info!("a change came by MQTT: a new session shows whether that still works");
                        goodbye(&mut stream).await;
                        return Ok(Ended::Proof);
                    }
                }
                Some(done) = OptionFuture::from(taking.as_mut()) => {
                    taking = None;
                    if let Some(id) = done {
                        session.acknowledge(id, Instant::now().into_std());
                    }
                    // What became of it is told at once.
                    next_look = Instant::now();
                }
                read = stream.read(&mut input) => match read? {
                    0 => return Err(LinkError::Closed),
                    read => session.handle_input(input.get(..read).unwrap_or_default(), Instant::now().into_std())?,
                },
                () = sleep_until(wake) => session.handle_timeout(Instant::now().into_std())?,
            }
        }
    }
}

/// Sends, if there is room; what does not fit now is made anew at the next look.
fn send(session: &mut Session, topic: &str, payload: Vec<u8>, retain: bool) -> bool {
    match session.publish(topic, payload, retain, Instant::now().into_std()) {
        Ok(_) => true,
        Err(SendError::Full | SendError::NotReady) => false,
        Err(error @ SendError::TooLong(_)) => {
            warn!(topic, %error, "a message to the fleet's broker is left out");
            true
        }
    }
}

/// Deals with one message; its id is given back to be acknowledged.
async fn take(fleet: &Fleet, message: Message) -> Option<u16> {
    let Message { topic, payload, id } = message;
    // A retained message is removed by an empty one.
    if payload.is_empty() {
        return id;
    }
    if payload.len() > TEXT_MAX {
        fleet.refuse_long(payload.len(), Way::Mqtt);
        return id;
    }
    let text = String::from_utf8_lossy(&payload).into_owned();
    while let Err(super::TakeError::Busy) = fleet.take(text.clone(), Way::Mqtt, &topic).await {
        sleep(LOOK).await;
    }
    id
}

/// Ends a session so that the broker does not say `offline` of a gateway that comes back at once.
async fn goodbye(stream: &mut Stream) {
    // DISCONNECT, normal, as the codec writes none that short.
    timeout(Duration::from_secs(2), async {
        stream.write_all(&[0xe0, 0x00]).await.ok();
        stream.shutdown().await.ok();
    })
    .await
    .ok();
}
