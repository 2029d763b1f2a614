//! `/api/v1/plan`: what the running config, or one that is not applied yet, does to every stream and what that costs.

use super::api::AdminApi;
use super::reply::Reply;
use super::routes::{Request, is_json, refused};
use crate::plan::{Answer, Plan};
use crate::wiring::capacity::Capacity;
use fieldgate_model::Config;
use fieldgate_model::plan::{Plan as Encoding, admit};
use serde_json::json;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Makes plans for the admin plane.
pub struct Planner {
    /// What is known of the machine.
    pub capacity: Arc<Capacity>,
    /// For the default budget of rings.
    pub machine_memory_bytes: Option<u64>,
}

impl Planner {
    /// Of the config that runs.
    pub fn running(&self, config: &Config) -> Answer {
        let standing = self.capacity.standing().borrow().clone();
        let is_current = config.mountpoints.keys().all(|name| standing.plan.mountpoints.contains_key(name));
        let encoding = if is_current { standing.plan.clone() } else { self.capacity.plan_of(config) };
        self.answer(config, encoding, None)
    }

    /// Of one that is valid and might replace `running`. Encoders are measured for it if need be.
    pub async fn candidate(&self, running: &Config, config: &Config) -> Answer {
        let encoding = self.capacity.measured_plan_of(config, &CancellationToken::new()).await;
        self.answer(config, encoding, Some(&self.capacity.plan_of(running)))
    }

    fn answer(&self, config: &Config, encoding: Encoding, before: Option<&Encoding>) -> Answer {
        let problems = before.map(|before| admit(config, before, &encoding)).unwrap_or_default();
        Answer { plan: Plan::of(config, self.machine_memory_bytes, encoding), problems }
    }
}

/// Answers `GET` and `POST`.
pub(super) fn respond(request: &Request, api: &dyn AdminApi) -> Reply {
    let as_text = match request.target.split_once('?').map_or("", |(_, query)| query) {
        "" | "format=json" => false,
        "format=text" => true,
        other => {
            let detail = format!("the only parameter here is format, json or text, not {other:?}");
            return Reply::problem(400, &detail, &[]);
        }
    };
    if request.is_post() && !is_json(request) {
        return Reply::problem(415, "send the config with Content-Type: application/json", &[]);
    }
    let candidate = request.is_post().then_some(request.body.as_slice());
    match api.plan(candidate) {
        Ok(answer) if as_text => {
            let mut text = answer.plan.to_string();
            text.extend(answer.problems.iter().map(|problem| format!("refused: {problem}\n")));
            Reply::new(200, "text/plain; charset=utf-8", text)
        }
        Ok(answer) => Reply::json(200, &json!(answer)),
        Err(error) => refused(&error),
    }
}
