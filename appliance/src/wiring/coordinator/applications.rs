//! The applications that keys are verified by and that are told of streams.

use fieldgate_compat::coordinator::{CALL_WITHIN, Call, CallAuth};
use fieldgate_compat::key::Key;
use fieldgate_compat::{CallOutcome, Reply};
use fieldgate_model::config::{CoordinatorCall, UrlParts};
use fieldgate_net::{ClientTls, HttpCall};

/// Bytes of an answer, whose body means nothing.
const ANSWER_MAX: usize = 256 << 10;

/// One application.
#[derive(Clone, Debug)]
pub(super) struct Application {
    host: String,
    port: u16,
    tls: Option<ClientTls>,
    target: String,
}

impl Application {
    /// `None` for an address that no valid config has.
    pub(super) fn new(call: &CoordinatorCall, tls: Option<ClientTls>) -> Option<Application> {
        let UrlParts { scheme, host, port, path, query, .. } = call.url.parts().ok()?;
        let is_tls = scheme.eq_ignore_ascii_case("https");
        let path = if path.is_empty() { "/" } else { path };
        Some(Application {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: port.unwrap_or(if is_tls { 443 } else { 80 }),
            tls: tls.filter(|_| is_tls),
            target: query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}")),
        })
    }

    /// Makes a call; it ends by itself. Redirects are not followed.
    pub(super) async fn call(self, call: Call) -> CallOutcome {
        let headers =
            call.headers.iter().map(|(name, value)| ((*name).to_owned(), value.reveal().to_owned()));
        let request = HttpCall {
            method: "POST",
            host: self.host,
            port: self.port,
            tls: self.tls,
            target: self.target,
            headers: headers.collect(),
            body: Vec::new(),
            send_timeout: CALL_WITHIN,
            read_timeout: CALL_WITHIN,
            reply_max_bytes: ANSWER_MAX,
            until_close: false,
        };
        match tokio::time::timeout(CALL_WITHIN, request.send()).await {
            Ok(Ok(reply)) => {
                CallOutcome::Replied(Reply { status: reply.status, headers: reply.headers, body: Vec::new() })
            }
            Ok(Err(error)) => CallOutcome::Failed(crate::steward::chain(&error)),
            Err(_) => CallOutcome::Failed(format!("no answer within {CALL_WITHIN:?}")),
        }
    }
}

/// How we show an application who we are.
pub(in crate::wiring) fn auth_of(call: &CoordinatorCall) -> CallAuth {
    let key = |secret: &fieldgate_model::config::Secret| Key::new(secret.reveal());
    match (&call.user, &call.password, &call.token, &call.header) {
        (Some(user), Some(password), ..) => CallAuth::Basic { user: user.clone(), password: key(password) },
        (_, _, Some(token), _) => CallAuth::Bearer(key(token)),
        (_, _, _, Some(header)) => CallAuth::Custom(key(header)),
        _ => CallAuth::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_application_is_called_where_its_address_says() {
        let of = |url: &str| {
            let call: CoordinatorCall = serde_json::from_value(json!({"url": url})).unwrap();
            let at = Application::new(&call, Some(ClientTls::public())).unwrap();
            (at.host, at.port, at.tls.is_some(), at.target)
        };
        let some = |host: &str, port, tls, target: &str| (host.to_owned(), port, tls, target.to_owned());
        assert_eq!(of("https://app.example"), some("app.example", 443, true, "/"));
        assert_eq!(of("http://app:8080/a/b?c=d"), some("app", 8080, false, "/a/b?c=d"));
        assert_eq!(of("http://[::1]"), some("::1", 80, false, "/"));
    }

    #[test]
    fn each_kind_of_authentication_is_taken_over() {
        let of = |fields: serde_json::Value| {
            let mut call = json!({"url": "http://a"});
            call.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            auth_of(&serde_json::from_value(call).unwrap())
        };
        let basic = CallAuth::Basic { user: "u".into(), password: Key::new("p") };
        assert_eq!(of(json!({"user": "u", "password": "p"})), basic);
        assert_eq!(of(json!({"token": "t"})), CallAuth::Bearer(Key::new("t")));
        assert_eq!(of(json!({"header": "h"})), CallAuth::Custom(Key::new("h")));
        assert_eq!(of(json!({})), CallAuth::None);
    }
}
