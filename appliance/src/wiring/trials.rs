//! Tests of upstreams: name, connection, TLS, handshake, publishing and bandwidth, each step told as it is taken.
//!
//! One at a time: it sends as much as the line takes. What came of the last ones is kept in memory.

use super::pushes::client_tls;
use fieldgate_hub::Shard;
use fieldgate_model::config::{Config, Push, SecretUrl};
use fieldgate_net::{
    ClientTls, DialError, DialOptions, RtmpClientError, RtmpEndpoint, RtmpTrialStage, TRIAL_SEND_BUFFER,
    Target, Throughput, dial, rtmp_trial,
};
use fieldgate_proto::kmp::KmpUrl;
use fieldgate_proto::rtmp::RtmpUrl;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Tests that are kept; the oldest go.
const KEPT: usize = 8;
/// For the name alone, and for each connection.
const STEP_WITHIN: Duration = Duration::from_secs(10);
/// How long the line is filled.
const SENDING: Duration = Duration::from_secs(3);

/// What is to be tested: an address, or a push that is set up.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrialWish {
    /// `rtmp://`, `rtmps://`, `kmp://` or `kmps://`.
    #[serde(default)]
    pub url: Option<SecretUrl>,
    /// The mountpoint of the push.
    #[serde(default)]
    pub mountpoint: Option<String>,
    /// The push's id.
    #[serde(default)]
    pub push: Option<String>,
}

/// A test, as far as it has come. Holds no secret.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Trial {
    /// Names it.
    pub id: String,
    /// Its address, secrets masked.
    pub url: String,
    /// The whole of it.
    pub state: TrialState,
    /// Its steps, in the order in which they are taken.
    pub steps: Vec<TrialStep>,
    /// What the line took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits_per_second: Option<u64>,
    /// TCP segments that the whole machine sent meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segments: Option<u64>,
    /// Those among them that were sent again, as they got lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resent_segments: Option<u64>,
}

/// One step.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TrialStep {
    /// `address`, `dns`, `tcp`, `tls`, `handshake`, `publish` or `bandwidth`.
    pub step: &'static str,
    /// How it went.
    pub state: TrialState,
    /// What was found, or why it failed and what helps.
    pub text: String,
    /// How long it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub millis: Option<u64>,
}

/// How a step, or all of it, went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrialState {
    /// Not begun.
    Waiting,
    /// Under way.
    Running,
    /// Good.
    Passed,
    /// It ends here.
    Failed,
    /// There is nothing to do, or an earlier step failed.
    Skipped,
}

/// Why no test begins.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrialError {
    /// One at a time.
    #[error("another test is under way; it ends within a minute")]
    Busy,
    /// No such push.
    #[error("mountpoint {mountpoint} has no push {push}")]
    Unknown {
        /// As asked.
        mountpoint: String,
        /// As asked.
        push: String,
    },
    /// Neither this nor that.
    #[error("say either url, or mountpoint and push")]
    Neither,
}

const STEPS: [&str; 7] = ["address", "dns", "tcp", "tls", "handshake", "publish", "bandwidth"];

type Kept = Arc<Mutex<VecDeque<Trial>>>;

/// All tests.
pub struct Trials {
    shard: Shard,
    runtime: Handle,
    kept: Kept,
    tasks: Mutex<(u64, JoinSet<()>)>,
}

impl Trials {
    /// To be called inside the runtime that runs them; `shard` does what needs one.
    pub fn new(shard: Shard) -> Self {
        Trials { shard, runtime: Handle::current(), kept: Kept::default(), tasks: Mutex::default() }
    }

    /// A test by its id.
    pub fn get(&self, id: &str) -> Option<Trial> {
        lock(&self.kept).iter().find(|trial| trial.id == id).cloned()
    }

    /// Begins one. `delivers` tells whether the push is taken by its server right now.
    pub fn start(
        &self,
        wish: TrialWish,
        config: &Config,
        delivers: impl Fn(&str, &str) -> bool,
    ) -> Result<Trial, TrialError> {
        let (push, is_delivering) = match (wish.url, wish.mountpoint, wish.push) {
            (Some(url), None, None) => (Push::new(url), false),
            (None, Some(mountpoint), Some(id)) => {
                let found = config.mountpoints.get(&mountpoint);
                let found = found.and_then(|it| it.push.iter().find(|push| push.effective_id() == id));
                let delivering = delivers(&mountpoint, &id);
                (found.cloned().ok_or(TrialError::Unknown { mountpoint, push: id })?, delivering)
            }
            _ => return Err(TrialError::Neither),
        };
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.1.try_join_next().is_some() {}
        if !tasks.1.is_empty() {
            return Err(TrialError::Busy);
        }
        tasks.0 += 1;
        let step = |step| TrialStep { step, state: TrialState::Waiting, text: String::new(), millis: None };
        let trial = Trial {
            id: tasks.0.to_string(),
            url: push.url.redacted(),
            state: TrialState::Running,
            steps: STEPS.map(step).to_vec(),
            bits_per_second: None,
            segments: None,
            resent_segments: None,
        };
        let mut kept = lock(&self.kept);
        kept.push_back(trial.clone());
        while kept.len() > KEPT {
            kept.pop_front();
        }
        drop(kept);
        let run = Run { id: trial.id.clone(), kept: self.kept.clone(), shard: self.shard.clone() };
        tasks.1.spawn_on(async move { run.whole(push, is_delivering).await }, &self.runtime);
        Ok(trial)
    }
}

fn lock(kept: &Kept) -> MutexGuard<'_, VecDeque<Trial>> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One test while it runs.
#[derive(Clone)]
struct Run {
    id: String,
    kept: Kept,
    shard: Shard,
}

/// The end of a test at a step that failed; what is to be said has been said.
struct Ended;

impl Run {
    async fn whole(&self, push: Push, is_delivering: bool) {
        let outcome = self.steps(&push, is_delivering).await;
        self.edit(|trial| {
            trial.state = if outcome.is_ok() { TrialState::Passed } else { TrialState::Failed };
            for step in &mut trial.steps {
                if matches!(step.state, TrialState::Waiting | TrialState::Running) {
                    step.state = TrialState::Skipped;
                }
            }
        });
    }

    async fn steps(&self, push: &Push, is_delivering: bool) -> Result<(), Ended> {
        let text = push.url.reveal();
        let is_kmp = text.starts_with("kmp");
        let parsed = match is_kmp {
            true => KmpUrl::parse(text).map(|url| (url.tls, url.host, url.port)).map_err(|it| it.to_string()),
            false => {
                RtmpUrl::parse(text).map(|url| (url.tls, url.host, url.port)).map_err(|it| it.to_string())
            }
        };
        let wanted = match self.taken("address", async { parsed }).await {
            Ok((tls, host, port)) => Place { tls, host, port },
            Err(ended) => return Err(ended),
        };
        self.name(&wanted).await?;
        let plain = Target { host: wanted.host.clone(), port: wanted.port, tls: None };
        self.taken("tcp", connect(plain)).await?;
        let tls = client_tls(wanted.tls, push.verify, push.ca.as_deref());
        let tls: Option<ClientTls> = match tls {
            Ok(tls) => tls,
            Err(error) => return self.taken("tls", async { Err::<(), _>(error.to_string()) }).await,
        };
        match &tls {
            None => self.skip("tls", "the address asks for none: what is sent can be read on the way"),
            Some(tls) => {
                let secure = Target { host: wanted.host, port: wanted.port, tls: Some(tls.clone()) };
                self.taken("tls", connect(secure)).await?;
            }
        }
        if is_kmp {
            let text = "KMP has none; the push's status shows what its receiver acknowledges";
            for step in ["handshake", "publish", "bandwidth"] {
                self.skip(step, text);
            }
            return Ok(());
        }
        if is_delivering {
            let text = "the server takes this very stream right now";
            self.edit_step("handshake", |step| step.pass(text, None));
            self.edit_step("publish", |step| step.pass(text, None));
            self.skip("bandwidth", "not measured while the stream is delivered, so that it is not disturbed");
            return Ok(());
        }
        self.publish(push, tls).await
    }

    async fn name(&self, place: &Place) -> Result<(), Ended> {
        if place.host.parse::<IpAddr>().is_ok() {
            self.skip("dns", "the address is a number: there is no name to look up");
            return Ok(());
        }
        let asked = (place.host.clone(), place.port);
        let looking = async move {
            let host = asked.0.clone();
            match timeout(STEP_WITHIN, tokio::net::lookup_host(asked)).await {
                Err(_) => {
                    Err(format!("nobody said what {host} is within {STEP_WITHIN:?}: check the gateway's DNS"))
                }
                Ok(Err(source)) => Err(DialError::Resolve { host, source }.to_string()),
                Ok(Ok(found)) => {
                    let all: Vec<String> = found.map(|address| address.ip().to_string()).take(4).collect();
                    if all.is_empty() {
                        Err(DialError::NoAddress { host }.to_string())
                    } else {
                        Ok(all.join(", "))
                    }
                }
            }
        };
        let found = self.taken("dns", looking).await?;
        self.edit_step("dns", |step| step.text = found);
        Ok(())
    }

    async fn publish(&self, push: &Push, tls: Option<ClientTls>) -> Result<(), Ended> {
        // It has been read before.
        let Ok(url) = RtmpUrl::parse(push.url.reveal()) else { return Err(Ended) };
        let dial = DialOptions {
            timeout: STEP_WITHIN,
            send_buffer: Some(TRIAL_SEND_BUFFER),
            ..DialOptions::default()
        };
        let chunk_len = push.chunk_len.unwrap_or(Push::DEFAULT_CHUNK_LEN);
        let endpoint = RtmpEndpoint { url, tls, chunk_len, dial };
        let before = segments().await;
        let since = Arc::new(Mutex::new(Instant::now()));
        self.edit_step("handshake", TrialStep::run);
        let told = {
            let (run, since) = (self.clone(), since.clone());
            move |stage| {
                let mut since = since.lock().unwrap_or_else(PoisonError::into_inner);
                let (done, next) = match stage {
                    RtmpTrialStage::ShookHands => ("handshake", "publish"),
                    RtmpTrialStage::Accepted => ("publish", "bandwidth"),
                };
                run.edit_step(done, |step| step.pass("", Some(since.elapsed())));
                run.edit_step(next, TrialStep::run);
                *since = Instant::now();
            }
        };
        let tried = self.shard.run(move |local| rtmp_trial(endpoint, SENDING, local, told)).await;
        let took = since.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        let outcome = match tried {
            Ok(Ok(throughput)) => Ok(throughput),
            Ok(Err(error)) => Err(why(&error)),
            Err(error) => Err(error.to_string()),
        };
        match outcome {
            Ok(throughput) => {
                self.measured(throughput, before, segments().await, took);
                Ok(())
            }
            Err(text) => {
                self.edit(|trial| {
                    if let Some(step) = trial.steps.iter_mut().find(|step| step.state == TrialState::Running)
                    {
                        step.fail(&text, took);
                    }
                });
                Err(Ended)
            }
        }
    }

    fn measured(
        &self,
        throughput: Throughput,
        before: Option<Segments>,
        after: Option<Segments>,
        took: Duration,
    ) {
        self.edit_step("bandwidth", |step| step.pass("", Some(took)));
        self.edit(|trial| {
            trial.bits_per_second = Some(throughput.bits_per_second());
            if let (Some(before), Some(after)) = (before, after) {
                trial.segments = Some(after.sent.saturating_sub(before.sent));
                trial.resent_segments = Some(after.resent.saturating_sub(before.resent));
            }
        });
    }

    /// Takes one step, timed and told.
    async fn taken<T>(
        &self,
        name: &'static str,
        step: impl Future<Output = Result<T, String>>,
    ) -> Result<T, Ended> {
        self.edit_step(name, TrialStep::run);
        let began = Instant::now();
        let outcome = step.await;
        let took = began.elapsed();
        match outcome {
            Ok(found) => {
                self.edit_step(name, |step| step.pass("", Some(took)));
                Ok(found)
            }
            Err(text) => {
                self.edit_step(name, |step| step.fail(&text, took));
                Err(Ended)
            }
        }
    }

    fn skip(&self, name: &str, text: &str) {
        self.edit_step(name, |step| {
            step.state = TrialState::Skipped;
            text.clone_into(&mut step.text);
        });
    }

    fn edit_step(&self, name: &str, edit: impl FnOnce(&mut TrialStep)) {
        self.edit(|trial| {
            if let Some(step) = trial.steps.iter_mut().find(|step| step.step == name) {
                edit(step);
            }
        });
    }

    fn edit(&self, edit: impl FnOnce(&mut Trial)) {
        // Gone only if eight others began meanwhile, which one at a time rules out.
        if let Some(trial) = lock(&self.kept).iter_mut().find(|trial| trial.id == self.id) {
            edit(trial);
        }
    }
}

impl TrialStep {
    fn run(&mut self) {
        self.state = TrialState::Running;
    }

    fn pass(&mut self, text: &str, took: Option<Duration>) {
        self.state = TrialState::Passed;
        text.clone_into(&mut self.text);
        self.millis = took.map(millis);
    }

    fn fail(&mut self, text: &str, took: Duration) {
        self.state = TrialState::Failed;
        text.clone_into(&mut self.text);
        self.millis = Some(millis(took));
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

struct Place {
    tls: bool,
    host: String,
    port: u16,
}

async fn connect(target: Target) -> Result<(), String> {
    let options = DialOptions { timeout: STEP_WITHIN, ..DialOptions::default() };
    dial(&target, &options).await.map(drop).map_err(|error| error.to_string())
}

/// What a person can do about it stands with the errors of connections; the server's own words are handed on.
fn why(error: &RtmpClientError) -> String {
    match error {
        RtmpClientError::Rejected { .. } => {
            format!("{error}: check application and stream key with whoever runs the server")
        }
        RtmpClientError::Closed => {
            "the server closed the connection: check application and stream key, or whether it takes others' streams"
                .to_owned()
        }
        other => other.to_string(),
    }
}

/// The kernel's count of TCP segments, of all connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// Sent since the machine started.
    pub sent: u64,
    /// Those among them that were sent again.
    pub resent: u64,
}

/// What the kernel counts now; none where it does not tell.
pub async fn segments() -> Option<Segments> {
    let read = tokio::task::spawn_blocking(|| std::fs::read_to_string("/proc/net/snmp"));
    parse_segments(&read.await.ok()?.ok()?)
}

/// From `/proc/net/snmp`: a line of names, a line of numbers.
fn parse_segments(text: &str) -> Option<Segments> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let of = |wanted: &str| {
        let mut pairs = names.split(' ').zip(numbers.split(' '));
        pairs.find(|(name, _)| *name == wanted)?.1.parse().ok()
    };
    Some(Segments { sent: of("OutSegs")?, resent: of("RetransSegs")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_found_by_their_names() {
        let text = "Ip: Forwarding\nIp: 1\nTcp: RtoMin OutSegs RetransSegs InErrs\nTcp: 200 1500 3 0\nUdp: A\nUdp: 1\n";
        assert_eq!(parse_segments(text), Some(Segments { sent: 1_500, resent: 3 }));
        for broken in ["", "Tcp: OutSegs\n", "Tcp: OutSegs RetransSegs\nTcp: 1 x\n"] {
            assert_eq!(parse_segments(broken), None, "{broken:?}");
        }
    }
}
