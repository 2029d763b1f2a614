//! `/api/v1/certificate`: the certificate that the admin plane shows.

use super::api::AdminApi;
use super::head::Method;
use super::reply::Reply;
use super::routes::{Request, is_json};
use crate::certificate::CertificateError;
use fieldgate_model::config::{Path, Problem, Secret};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    chain: String,
    key: Secret,
}

/// Answers `GET`, `PUT` and `DELETE`.
pub(super) fn respond(request: &Request, api: &dyn AdminApi) -> Reply {
    let Some(desk) = api.certificates() else {
        return Reply::problem(503, "the gateway is starting; try again", &[]).with("retry-after", "1");
    };
    let done = match request.method {
        Method::Put => {
            if !is_json(request) {
                return Reply::problem(415, "send it with Content-Type: application/json", &[]);
            }
            // What stands in the body is not repeated: it holds a key.
            let Ok(wish) = serde_json::from_slice::<Wish>(&request.body) else {
                let detail = "send {\"chain\": PEM, \"key\": PEM}, the gateway's own certificate first";
                return Reply::problem(400, detail, &[]);
            };
            desk.replace(&wish.chain, wish.key.reveal()).map(Some)
        }
        Method::Delete => desk.reset().map(Some),
        _ => desk.view(),
    };
    match done {
        Ok(Some(shown)) => Reply::json(200, &json!(shown)),
        Ok(None) => Reply::problem(404, "there is none yet; the first use of admin.tls makes it", &[]),
        Err(error @ CertificateError::Unusable(_)) => {
            let problem = Problem::new(&Path::root(), error.to_string());
            Reply::problem(422, "this certificate cannot be used", &[problem])
        }
        Err(error) => Reply::problem(500, &error.to_string(), &[]),
    }
}
