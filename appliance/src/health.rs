//! Tells systemd whether the program is alive, from the signs of life of its critical loops.
//!
//! The watch runs as a task on the control runtime, so that a starved runtime stops the pings too. Sending happens on a
//! thread of its own: each message opens a blocking socket. Outside systemd nothing is sent and all else is the same.

use fieldgate_hub::Pulses;
use fieldgate_model::Status;
use fieldgate_model::status::State;
use sd_notify::NotifyState;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

/// Messages that may wait for systemd. More means that it does not read: a ping is then withheld, which is right.
const QUEUE: usize = 16;
/// How often the loops are looked at when nobody set a watchdog.
const UNWATCHED_ROUND: Duration = Duration::from_secs(5);
/// Longest status line.
const MAX_STATUS_LEN: usize = 200;

#[derive(Debug, PartialEq, Eq)]
enum Message {
    Ready,
    Status(String),
    Ping,
    Stopping,
}

/// Speaks to systemd. Cheap to clone; never waits.
#[derive(Clone, Debug)]
pub struct Notifier {
    queue: SyncSender<Message>,
}

impl Notifier {
    /// Starts the sending thread. It ends when the last clone is gone, having sent what was queued.
    pub fn start() -> io::Result<(Self, JoinHandle<()>)> {
        let (queue, messages) = sync_channel(QUEUE);
        let thread =
            thread::Builder::new().name("sd-notify".to_owned()).spawn(move || send_all(&messages))?;
        Ok((Notifier { queue }, thread))
    }

    /// The confirmed config is applied.
    pub fn ready(&self) {
        self.send(Message::Ready);
    }

    /// One line for `systemctl status`.
    pub fn status(&self, line: &str) {
        let line: String = line.chars().filter(|c| !c.is_control()).take(MAX_STATUS_LEN).collect();
        self.send(Message::Status(line));
    }

    /// The program is on its way out.
    pub fn stopping(&self) {
        self.send(Message::Stopping);
    }

    fn ping(&self) {
        self.send(Message::Ping);
    }

    fn send(&self, message: Message) {
        match self.queue.try_send(message) {
            Ok(()) => {}
            Err(TrySendError::Full(message)) => {
                warn!(?message, "systemd does not take messages; one is left out")
            }
            Err(TrySendError::Disconnected(message)) => {
                debug!(?message, "the thread that talks to systemd has ended");
            }
        }
    }
}

fn send_all(messages: &Receiver<Message>) {
    let mut failed = false;
    for message in messages {
        let sent = match &message {
            Message::Ready => sd_notify::notify(&[NotifyState::Ready]),
            Message::Status(line) => sd_notify::notify(&[NotifyState::Status(line)]),
            Message::Ping => sd_notify::notify(&[NotifyState::Watchdog]),
            Message::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
        };
        match sent {
            Ok(()) => failed = false,
            Err(error) if !failed => {
                failed = true;
                warn!(%error, "systemd cannot be told");
            }
            Err(_) => {}
        }
    }
}

/// The time within which systemd wants a ping, from `WATCHDOG_USEC` and `WATCHDOG_PID`. To be called by `main`, which
/// alone looks at the environment.
pub fn watchdog_from_env() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// Looks at all pulses, pings while all are fresh.
#[derive(Debug)]
pub struct Watch<S> {
    pulses: Pulses,
    notifier: Notifier,
    round: Duration,
    status: S,
    told: Option<String>,
    stuck: bool,
}

impl<S> Watch<S>
where
    S: FnMut() -> String,
{
    /// `watchdog` is the time within which a ping is due, if one is; it is looked every third of it. `status` gives
    /// the line for `systemctl status`, see [`status_line`]; it is asked once a round and must not wait.
    pub fn new(pulses: Pulses, notifier: Notifier, watchdog: Option<Duration>, status: S) -> Self {
        let round = watchdog.map_or(UNWATCHED_ROUND, |within| (within / 3).max(Duration::from_millis(1)));
        Watch { pulses, notifier, round, status, told: None, stuck: false }
    }

    /// Runs until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut rounds = interval(self.round);
        // After a stall one look is enough; a burst of pings would say nothing more.
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = rounds.tick() => self.look(),
            }
        }
    }

    fn look(&mut self) {
        let silent = self.pulses.silent();
        if silent.is_empty() {
            self.notifier.ping();
            if self.stuck {
                self.stuck = false;
                info!("all critical loops are alive again");
            }
        } else {
            self.stuck = true;
            for loop_ in &silent {
                error!(
                    name = loop_.name,
                    silent_for = ?loop_.age,
                    allowed = ?loop_.max_silence,
                    "a critical loop is stuck; the watchdog's ping is withheld"
                );
            }
        }
        let line = (self.status)();
        if self.told.as_ref() != Some(&line) {
            self.notifier.status(&line);
            self.told = Some(line);
        }
    }
}

/// The gateway in one line: "3 of 4 mountpoints live, 2 of 2 pushes delivering".
pub fn status_line(status: &Status) -> String {
    // Templates are no streams; those that exist under them are listed by their own names.
    let streams = || status.mountpoints.iter().filter(|(name, _)| !name.ends_with('*'));
    let live = streams().filter(|(_, mountpoint)| mountpoint.stream.is_some()).count();
    let pushes = || streams().flat_map(|(_, it)| it.pushes.values()).filter(|push| push.enabled);
    let delivering = pushes().filter(|push| push.activity.state == State::Running).count();
    let mut line = format!(
        "{live} of {} mountpoints live, {delivering} of {} pushes delivering",
        streams().count(),
        pushes().count()
    );
    if let Some(notice) = status.notices.first() {
        line.push_str(", look at: ");
        line.push_str(&notice.code);
    }
    line
}

#[cfg(test)]
mod tests;
