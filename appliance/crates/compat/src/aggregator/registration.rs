//! Telling a content manager that this aggregator is there: again and again until it says 200.
//!
//! ```text
//!  new ---> due at once ---> call under way --- 200 ---> told, for good
//!              ^                   |
//!              +--- 5 s, doubling -+ anything else
//!                   to 5 min
//! ```

use crate::CallOutcome;
use fieldgate_model::config::{AggregatorCms, host_port};
use serde_json::json;
use std::time::{Duration, Instant};

/// The wait after the first failure.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// A content manager's port.
const MANAGER_PORT: u16 = 50_000;
/// The port of our API, as managers know it.
const API_PORT: u16 = 5_000;

/// One call to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// An address without brackets, or a name.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Path.
    pub target: &'static str,
    /// JSON.
    pub body: Vec<u8>,
}

/// One manager that is to be told.
#[derive(Debug)]
pub struct Registration {
    call: Call,
    state: State,
    wait: Duration,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Due(Instant),
    Calling,
    Told,
}

impl Registration {
    /// The first call is due at once. `None` for addresses that no valid config has.
    pub fn new(cms: &AggregatorCms, host_name: &str, now: Instant) -> Option<Self> {
        let (host, port) = host_port(&cms.address)?;
        let (own, own_port) = host_port(&cms.own_address)?;
        let own_port = own_port.unwrap_or(API_PORT);
        let ip = if own.contains(':') { format!("[{own}]:{own_port}") } else { format!("{own}:{own_port}") };
        let name = cms.name.as_deref().unwrap_or(host_name);
        let body = json!({
            "Aggregators": [{"name": name, "location": cms.location, "ip": ip}],
            "StreamingEngines": [],
        });
        let call = Call {
            host: host.to_owned(),
            port: port.unwrap_or(MANAGER_PORT),
            target: "/configure",
            body: body.to_string().into_bytes(),
        };
        Some(Registration { call, state: State::Due(now), wait: FIRST_WAIT })
    }

    /// When [`Registration::handle_timeout`] shall be called; never, if none.
    pub fn next_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Due(at) => Some(at),
            State::Calling | State::Told => None,
        }
    }

    /// The call to make now, if one is due; its outcome must come back.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Call> {
        let is_due = matches!(self.state, State::Due(at) if at <= now);
        is_due.then(|| {
            self.state = State::Calling;
            self.call.clone()
        })
    }

    /// What became of the call. An error says why it is made again, and after which wait.
    pub fn handle_reply(&mut self, outcome: CallOutcome, now: Instant) -> Result<(), (String, Duration)> {
        let cause = match outcome {
            // No other success counts.
            CallOutcome::Replied(reply) if reply.status == 200 => {
                self.state = State::Told;
                return Ok(());
            }
            CallOutcome::Replied(reply) => format!("it answered with status {}", reply.status),
            CallOutcome::Failed(cause) => cause,
        };
        let wait = self.wait;
        self.state = State::Due(now.checked_add(wait).unwrap_or(now));
        self.wait = wait.saturating_mul(2).min(LONGEST_WAIT);
        Err((cause, wait))
    }

    /// Whether the manager knows.
    pub fn is_told(&self) -> bool {
        self.state == State::Told
    }
}
