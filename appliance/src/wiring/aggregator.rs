//! The API of content managers at its edge: its requests become durable commands, its answers show what runs.
//!
//! ```text
//!  content manager --HTTP--> Exchange (pure) --Command--> steward --> config, mountpoints, pushes
//!                                 ^------- status, connections, rates
//!  content manager <--HTTP-- Registration (pure)
//! ```

mod listen;
mod traffic;

use crate::certificate::{machine_addresses, machine_names};
use crate::steward::{ChangeError, StewardHandle};
use crate::supervisor::ChildKey;
use crate::wiring::Board;
use fieldgate_compat::aggregator::{self as api, Exchange, Outcome, Refusal, Snapshot, Step};
use fieldgate_compat::{Reply, Request};
use fieldgate_hub::Context;
use fieldgate_model::status::Status;
use fieldgate_model::{Command, CommandError, Config};
use fieldgate_net::{HttpAnswer, HttpRequest, RtmpConnections};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use traffic::Rates;

/// How long a caller waits for its wish: longer than any change takes that nobody has to confirm.
const WISH: Duration = Duration::from_secs(15);

/// Shows the gateway's status.
type ShowStatus = Arc<dyn Fn() -> Status + Send + Sync>;

/// What the API works with, once the gateway runs.
struct Running {
    steward: StewardHandle,
    config: watch::Receiver<Arc<Config>>,
    status: ShowStatus,
}

/// The aggregator that content managers see.
pub struct Aggregator {
    context: Context,
    connections: RtmpConnections,
    board: Arc<Board>,
    rates: Rates,
    started: Instant,
    running: OnceLock<Running>,
}

impl Aggregator {
    /// Answers 503 until [`Aggregator::work_with`].
    pub fn new(context: &Context, connections: RtmpConnections, board: Arc<Board>) -> Self {
        Aggregator {
            context: context.clone(),
            connections,
            board,
            rates: Rates::default(),
            started: Instant::now(),
            running: OnceLock::new(),
        }
    }

    /// From now on wishes go to this steward, and answers come of this config and status.
    pub fn work_with(
        &self,
        steward: StewardHandle,
        config: watch::Receiver<Arc<Config>>,
        status: ShowStatus,
    ) {
        // Set once, when the gateway starts.
        self.running.set(Running { steward, config, status }).ok();
    }

    /// Measures traffic while the API is on, until `cancel`.
    pub async fn run(&self, cancel: CancellationToken) {
        let Some(running) = self.running.get() else { return };
        let mut rounds = tokio::time::interval(Rates::INTERVAL);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = rounds.tick() => {
                    let config = running.config.borrow().clone();
                    let aggregator = &config.compat.aggregator;
                    if !aggregator.listen.is_empty() || !aggregator.stat_listen.is_empty() {
                        self.rates.sample(self, &config);
                    }
                }
            }
        }
    }

    /// Answers one request to the API.
    async fn answer(&self, request: HttpRequest) -> HttpAnswer {
        let Some(running) = self.running.get() else { return HttpAnswer::empty(503) };
        let request = whole(request);
        let mut snapshot = self.snapshot(running);
        let mut exchange = Exchange::new(&request, &snapshot);
        if let Some(camera) = exchange.registers_unasked(&snapshot) {
            warn!(peer = %request.peer, camera, "a push registers a camera that nobody had registered");
        }
        let by = format!("content manager {}", request.peer);
        loop {
            match exchange.step(&snapshot) {
                Step::Command(command) => {
                    exchange.handle_outcome(carry_out(&running.steward, command, &by).await)
                }
                Step::Reply(reply) => return answer_of(reply),
            }
            snapshot = self.snapshot(running);
        }
    }

    /// Answers one request for the statistics.
    fn statistics(&self, request: HttpRequest) -> HttpAnswer {
        let Some(running) = self.running.get() else { return HttpAnswer::empty(503) };
        answer_of(api::statistics(&whole(request), &self.snapshot(running)))
    }

    fn snapshot(&self, running: &Running) -> Snapshot {
        let config = running.config.borrow().clone();
        let addresses = self.board.addresses();
        let rtmp = addresses.iter().filter(|(key, _)| matches!(key, ChildKey::RtmpListener { .. }));
        let names = machine_names();
        let own_addresses = machine_addresses().into_iter().map(|address| address.to_string());
        Snapshot {
            status: (running.status)(),
            host_name: names.last().cloned().unwrap_or_default(),
            own_hosts: own_addresses.chain(names).collect(),
            rtmp_ports: rtmp.flat_map(|(_, bound)| bound.iter().map(|address| address.port())).collect(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            accepted: self.connections.totals().connections,
            traffic: self.rates.of_all(),
            cameras: self.rates.of_cameras(&config),
            clients: self.rates.clients(&self.connections, &config),
            config,
        }
    }
}

async fn carry_out(steward: &StewardHandle, command: Command, by: &str) -> Outcome {
    let done = tokio::time::timeout(WISH, steward.command(command, by)).await;
    let Ok(done) = done else {
        // It waits for its turn still, and can be asked for again.
        let text = "another change of the config awaits its confirmation; try again in a moment";
        return Outcome::Refused(Refusal::Busy, text.to_owned());
    };
    match done {
        Ok(_) => Outcome::Done,
        Err(error) => Outcome::Refused(refusal_of(&error), error.to_string()),
    }
}

fn refusal_of(error: &ChangeError) -> Refusal {
    match error {
        ChangeError::Command(error) => match error {
            CommandError::NoCamera { .. }
            | CommandError::NoMountpoint { .. }
            | CommandError::NoPush { .. } => Refusal::Unknown,
            CommandError::Full { .. } => Refusal::Full,
            CommandError::Exists { .. } | CommandError::Taken { .. } | CommandError::NotDurable => {
                Refusal::Conflict
            }
        },
        // What the caller wrote was checked before: either the stream would come back, or the machine is full.
        ChangeError::Invalid(problems) => {
            let is_push = problems.iter().any(|problem| problem.path.contains(".push["));
            if is_push { Refusal::Conflict } else { Refusal::Full }
        }
        ChangeError::Busy | ChangeError::Stopping | ChangeError::Pending => Refusal::Busy,
        ChangeError::Stale { .. }
        | ChangeError::MissingRevision
        | ChangeError::NothingPending
        | ChangeError::OldConnection
        | ChangeError::Store(_)
        | ChangeError::NotDurable(_) => Refusal::Failed,
    }
}

fn whole(request: HttpRequest) -> Request {
    let HttpRequest { method, target, headers, body, peer } = request;
    Request { method, target, headers, body, peer: peer.ip() }
}

fn answer_of(reply: Reply) -> HttpAnswer {
    HttpAnswer { status: reply.status, headers: reply.headers, body: reply.body }
}
