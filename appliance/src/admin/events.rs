//! `GET /api/v1/events`: what happened, in plain words.

use super::api::AdminApi;
use super::reply::Reply;
use super::routes::Request;
use crate::access::Principal;
use crate::recorder::Wanted;
use fieldgate_model::Event;
use fieldgate_model::config::{Path, Problem};
use serde_json::json;

/// Events in one answer, unless asked for fewer or more.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1_000;

/// Answers from the query part of the request.
pub(super) fn get(request: &Request, api: &dyn AdminApi) -> Reply {
    let wanted = match parse(request.target.split_once('?').map_or("", |(_, query)| query)) {
        Ok(wanted) => wanted,
        Err(problems) => return Reply::problem(400, "the query cannot be understood", &problems),
    };
    let Some(recorder) = api.recorder() else {
        return Reply::problem(503, "the gateway is starting; try again", &[]);
    };
    let principal = request.principal.as_ref();
    let mut body = json!(recorder.page(wanted, |event| may_see(principal, event)));
    if principal.is_some_and(Principal::sees_all) {
        body["recorder"] = json!(recorder.status());
        body["webhooks"] = json!(recorder.hooks());
    }
    Reply::json(200, &body)
}

/// Who is bound to some mountpoints sees what is told of these, but not of where they are sent.
pub(super) fn may_see(principal: Option<&Principal>, event: &Event) -> bool {
    let Some(principal) = principal else { return false };
    let of_his = || event.mountpoint.as_deref().is_some_and(|name| principal.sees(name));
    principal.sees_all() || (event.upstream.is_none() && of_his())
}

/// Reads the parameters `since` and `limit`, or tells all that is wrong with them.
pub(super) fn parse(text: &str) -> Result<Wanted, Vec<Problem>> {
    let mut wanted = Wanted { since: None, limit: DEFAULT_LIMIT };
    let mut problems = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let mut problem = |text: String| {
            // What a stranger sends is shown cut.
            let got: String = value.chars().take(64).collect();
            problems.push(Problem::new(&Path::root().field(name), text).got(got));
        };
        match name {
            "since" => match value.parse() {
                Ok(id) => wanted.since = Some(id),
                Err(_) => problem("must be the number of an event, such as a next_cursor".to_owned()),
            },
            "limit" => match value.parse() {
                Ok(limit @ 1..=MAX_LIMIT) => wanted.limit = limit,
                _ => problem(format!("must be 1 to {MAX_LIMIT}")),
            },
            _ => problem("is no parameter here; there are since and limit".to_owned()),
        }
    }
    if problems.is_empty() { Ok(wanted) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Identity, Role, Streams};
    use fieldgate_model::EventKind;

    #[test]
    fn parameters_are_read_and_every_wrong_one_is_named() {
        assert_eq!(parse("since=7&limit=3"), Ok(Wanted { since: Some(7), limit: 3 }));
        assert_eq!(parse(""), Ok(Wanted { since: None, limit: DEFAULT_LIMIT }));
        let problems = parse("since=-1&limit=1001&page=2").unwrap_err();
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["since", "limit", "page"]);
    }

    #[test]
    fn a_viewer_is_told_of_the_mountpoints_named_to_him_and_not_of_upstreams() {
        let viewer = |role| Principal {
            identity: Identity::Local,
            role,
            streams: Streams(vec!["gate*".to_owned()]),
            areas: Vec::new(),
        };
        let event = || Event::new(EventKind::Notice, "x");
        let may = |role, event| may_see(Some(&viewer(role)), &event);
        assert!(may(Role::Viewer, event().of("gate-2")));
        assert!(!may(Role::Viewer, event().of("yard")) && !may(Role::Viewer, event()));
        assert!(!may(Role::Viewer, event().of("gate-2").to("up")));
        assert!(may(Role::Operator, event()) && may(Role::Operator, event().of("yard").to("up")));
        assert!(!may_see(None, &event().of("gate-2")));
    }
}
