//! A change that runs and waits for its confirmation.

use fieldgate_model::Config;
use fieldgate_model::config::{Part, Path, Problem, Scope};
use std::collections::BTreeSet;
use tokio::time::Instant;

pub(super) struct Pending {
    pub(super) candidate: Config,
    pub(super) by: String,
    pub(super) applied_at: Instant,
    pub(super) deadline: Instant,
    /// What must deliver before the change counts as good.
    pub(super) required: BTreeSet<Part>,
    /// Whether somebody came over the new way in.
    pub(super) proven: bool,
}

impl Pending {
    pub(super) fn unhealthy(&self, healthy: &BTreeSet<Part>) -> Vec<String> {
        self.required.difference(healthy).map(ToString::to_string).collect()
    }
}

pub(super) fn not_healthy(part: &str) -> Problem {
    Problem::new(&Path::root(), format!("{part} delivered before the change and does not any more"))
}

/// What must deliver again: all that did before, as far as the change touches it and the new config has it.
pub(super) fn required(scope: &Scope, baseline: &BTreeSet<Part>, candidate: &Config) -> BTreeSet<Part> {
    let parts = match scope {
        Scope::All => return baseline.iter().filter(|part| is_in(part, candidate)).cloned().collect(),
        Scope::Parts(parts) => parts,
    };
    let was_healthy = |part: &&Part| {
        baseline.contains(*part)
            || match part {
                // A push without an id of its own has another one since its URL changed; it stands for the healthy
                // one of its mountpoint that is gone.
                Part::Push { name, .. } => baseline.iter().any(|old| {
                    matches!(old, Part::Push { name: of, .. } if of == name) && !is_in(old, candidate)
                }),
                _ => false,
            }
    };
    parts.iter().filter(was_healthy).cloned().collect()
}

fn is_in(part: &Part, config: &Config) -> bool {
    match part {
        Part::Mountpoint { name } | Part::Source { name } | Part::Play { name } => {
            config.mountpoint_for(name).is_some()
        }
        Part::Push { name, id } => config.mountpoint_for(name).is_some_and(|(_, mountpoint)| {
            mountpoint.push.iter().any(|push| push.enabled && push.effective_id() == *id)
        }),
        Part::RtmpTls => config.rtmp.tls.is_some(),
        Part::RtmpListen => !config.rtmp.listen.is_empty(),
        Part::KmpListen => !config.kmp.listen.is_empty(),
        Part::KmpTls => config.kmp.tls.is_some(),
        Part::HttpListen => !config.http.listen.is_empty(),
        Part::HttpTls => config.http.tls.is_some(),
        Part::AdminListen => !config.admin.listen.is_empty(),
        Part::KmpApplication { name } => config.compat.kmp.applications.contains_key(name),
        Part::MeshNode => config.compat.node.enabled,
        Part::Coordinator => config.compat.coordinator.enabled,
        Part::Control => config.compat.control.enabled,
        Part::Encoder => config.compat.encoder.enabled,
        Part::KmpApi => !config.compat.kmp.api.listen.is_empty(),
        Part::Aggregator => !config.compat.aggregator.listen.is_empty(),
        Part::Fleet
        | Part::RtmpLimits
        | Part::KmpLimits
        | Part::HttpLimits
        | Part::Discovery
        | Part::Events
        | Part::Media
        | Part::Network
        | Part::Time
        | Part::Update
        | Part::Limits => true,
    }
}
