//! The gateway's side: has the machine's network and time made as the config says, and keeps at it.
//!
//! No child of the supervisor: what it stands for outlives the program, and what leaves the config must be undone too.

use super::{BundleFacts, Firmware, MAX_ANSWER, Said, Wish};
use crate::logging::RateLimit;
use crate::steward::{View, chain};
use crate::supervisor::{Backoff, random_jitter};
use fieldgate_model::Config;
use fieldgate_model::config::{MachineNetwork, MachineTime, Path, Problem, StoredError};
use fieldgate_model::status::Notice;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How long a wish may take: less than a child has to start.
const WITHIN: Duration = Duration::from_secs(9);
/// How long a question about the firmware may take: RAUC may have to be started first.
const FIRMWARE_WITHIN: Duration = Duration::from_secs(20);
/// How often a fault that lasts is logged again.
const REPEAT_AFTER: Duration = Duration::from_secs(300);

/// Why the machine is not as the config says.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens on its socket.
    #[error("the system helper does not answer at {}: {source}", .socket.display())]
    Absent {
        /// Where it should be.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It takes longer than it may.
    #[error("the system helper took longer than {} s", .0.as_secs())]
    Silent(Duration),
    /// It said no.
    #[error("the system helper refuses: {0}")]
    Refused(String),
    /// It said something else.
    #[error("the system helper's answer is not understood")]
    Odd,
    /// A secret is not known.
    #[error(transparent)]
    Stored(#[from] StoredError),
}

/// Whether the machine is as the config says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "state")]
#[schemars(rename = "MachineState")]
pub enum State {
    /// The config leaves it to the image, and nobody is there who could change it.
    #[default]
    Untouched,
    /// It is.
    Applied,
    /// It is not; it is tried again.
    Failed {
        /// Why.
        cause: String,
    },
}

#[derive(Debug, Default)]
struct Shown {
    network: State,
    time: State,
}

/// Has the machine changed, one wish after the other.
#[derive(Debug)]
pub struct Desk {
    socket: PathBuf,
    /// What was carried out last; none while that is not known.
    done: tokio::sync::Mutex<(Option<MachineNetwork>, Option<MachineTime>)>,
    shown: Mutex<Shown>,
}

impl Desk {
    /// With the helper behind this socket.
    pub fn new(socket: PathBuf) -> Self {
        Desk { socket, done: tokio::sync::Mutex::default(), shown: Mutex::default() }
    }

    /// Network and time.
    pub fn states(&self) -> (State, State) {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        (shown.network.clone(), shown.time.clone())
    }

    /// What somebody should look at.
    pub fn notices(&self) -> Vec<Notice> {
        let (network, time) = self.states();
        let notice = |code: &str, what: &str, state| match state {
            State::Failed { cause } => {
                Some(Notice { code: code.to_owned(), text: format!("{what} is not as set: {cause}") })
            }
            State::Untouched | State::Applied => None,
        };
        let network = notice("network_not_set", "the network", network);
        network.into_iter().chain(notice("time_not_set", "time zone or time servers", time)).collect()
    }

    /// Makes the machine's network this. Ends within ten seconds.
    pub async fn set_network(&self, wanted: &MachineNetwork) -> Result<(), Problem> {
        let outcome = self.network(wanted).await;
        outcome.map_err(|error| {
            let problem = Problem::new(&Path::root().field("network"), chain(&error));
            match error {
                AskError::Absent { .. } => {
                    problem.remedy("start fieldgate-system-helper.socket, or leave the network to the image")
                }
                _ => problem,
            }
        })
    }

    async fn network(&self, wanted: &MachineNetwork) -> Result<(), AskError> {
        let mut done = self.done.lock().await;
        if done.0.as_ref() == Some(wanted) {
            return Ok(());
        }
        done.0 = None;
        let outcome = match Wish::network(wanted) {
            Ok(wish) => self.ask(&wish, *wanted == MachineNetwork::default()).await,
            Err(error) => Err(error.into()),
        };
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).network = state_of(&outcome);
        outcome.map(|_| done.0 = Some(wanted.clone()))
    }

    async fn time(&self, wanted: &MachineTime) -> Result<(), AskError> {
        let mut done = self.done.lock().await;
        if done.1.as_ref() == Some(wanted) {
            return Ok(());
        }
        done.1 = None;
        let outcome = self.ask(&Wish::time(wanted), *wanted == MachineTime::default()).await;
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).time = state_of(&outcome);
        outcome.map(|_| done.1 = Some(wanted.clone()))
    }

    /// Keeps the machine as the running config says, until cancelled: also from the start on, and after a failure.
    pub async fn keep(&self, mut view: watch::Receiver<View>, cancel: CancellationToken) {
        let mut backoff = Backoff::new(Backoff::CAP);
        let mut jitter = random_jitter();
        let mut limit = RateLimit::new(REPEAT_AFTER);
        loop {
            let running = view.borrow_and_update().running.clone();
            let wait = match self.make(&running).await {
                Ok(()) => {
                    backoff = Backoff::new(Backoff::CAP);
                    None
                }
                Err(error) => {
                    let wait = backoff.next(Duration::ZERO, jitter());
                    if let Some(unsaid) = limit.pass(Instant::now()) {
                        let error = chain(&error);
                        warn!(error, unsaid, retry_in = ?wait, "the machine is not as the config says");
                    }
                    Some(wait)
                }
            };
            let again = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                changed = view.changed() => if changed.is_err() {
                    return;
                },
                () = again => {}
            }
        }
    }

    async fn make(&self, config: &Config) -> Result<(), AskError> {
        // A time zone that is not taken must not keep the network from being set.
        let (network, time) = (self.network(&config.network).await, self.time(&config.time).await);
        network.and(time)
    }

    /// What RAUC says of the machine's firmware.
    pub async fn firmware(&self) -> Result<Firmware, AskError> {
        match self.talk(&json!({"verb": "show_firmware"}), FIRMWARE_WITHIN).await? {
            Said::Firmware(firmware) => Ok(firmware),
            _ => Err(AskError::Odd),
        }
    }

    /// What the bundle is that waits.
    pub async fn inspect_bundle(&self) -> Result<BundleFacts, AskError> {
        match self.talk(&json!({"verb": "inspect_bundle"}), FIRMWARE_WITHIN).await? {
            Said::Bundle(facts) => Ok(facts),
            _ => Err(AskError::Odd),
        }
    }

    /// Has RAUC begin to install it.
    pub async fn install_bundle(&self) -> Result<(), AskError> {
        self.do_this(&json!({"verb": "install_bundle"})).await
    }

    /// Has the slot that runs kept, or not started again.
    pub async fn mark_slot(&self, good: bool) -> Result<(), AskError> {
        self.do_this(&json!({"verb": "mark_slot", "good": good})).await
    }

    /// Has the machine started anew.
    pub async fn restart_machine(&self) -> Result<(), AskError> {
        self.do_this(&json!({"verb": "restart_machine"})).await
    }

    async fn do_this(&self, wish: &Value) -> Result<(), AskError> {
        match self.talk(wish, FIRMWARE_WITHIN).await? {
            Said::Done(_) => Ok(()),
            _ => Err(AskError::Odd),
        }
    }

    /// `is_nothing`: there is nothing to ask for where there is no helper. Tells whether it was asked.
    async fn ask(&self, wish: &Value, is_nothing: bool) -> Result<bool, AskError> {
        let outcome = match self.talk(wish, WITHIN).await {
            Ok(Said::Done(_)) => Ok(true),
            Ok(_) => Err(AskError::Odd),
            Err(AskError::Absent { source, .. })
                if is_nothing && source.kind() == io::ErrorKind::NotFound =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        };
        if let Ok(true) = outcome {
            info!(verb = wish["verb"].as_str(), "the machine is as the config says");
        }
        outcome
    }

    async fn talk(&self, wish: &Value, within: Duration) -> Result<Said, AskError> {
        let absent = |source| AskError::Absent { socket: self.socket.clone(), source };
        let talk = async {
            let mut socket = UnixStream::connect(&self.socket).await.map_err(absent)?;
            let line = format!("{wish}\n");
            socket.write_all(line.as_bytes()).await.map_err(absent)?;
            let mut answer = Vec::new();
            // The helper takes an asker who has closed his side for one who has gone.
            (&mut socket).take(MAX_ANSWER).read_to_end(&mut answer).await.map_err(absent)?;
            match serde_json::from_slice(&answer) {
                Ok(Said::Refused(why)) => Err(AskError::Refused(why)),
                Ok(said) => Ok(said),
                Err(_) => Err(AskError::Odd),
            }
        };
        timeout(within, talk).await.unwrap_or(Err(AskError::Silent(within)))
    }
}

fn state_of(outcome: &Result<bool, AskError>) -> State {
    match outcome {
        Ok(true) => State::Applied,
        Ok(false) => State::Untouched,
        Err(error) => State::Failed { cause: chain(error) },
    }
}

#[cfg(test)]
mod tests;
