//! `GET /api/v1/logs`: the last lines of the program's log, for admins.

use super::api::AdminApi;
use super::events::parse;
use super::reply::Reply;
use super::routes::Request;
use serde_json::json;

/// Answers from the query part of the request.
pub(super) fn get(request: &Request, api: &dyn AdminApi) -> Reply {
    let wanted = match parse(request.target.split_once('?').map_or("", |(_, query)| query)) {
        Ok(wanted) => wanted,
        Err(problems) => return Reply::problem(400, "the query cannot be understood", &problems),
    };
    match api.log() {
        Some(log) => Reply::json(200, &json!(log.page(wanted.since, wanted.limit))),
        None => Reply::problem(503, "the gateway is starting; try again", &[]),
    }
}
