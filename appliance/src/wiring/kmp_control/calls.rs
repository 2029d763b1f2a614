//! Callbacks to a controller: which URL, with which settings.

use fieldgate_compat::kmp_control::Callback;
use fieldgate_compat::{CallOutcome, Reply};
use fieldgate_model::config::{KmpApplication, SecretUrl};
use fieldgate_net::{ClientTls, HttpCall, TlsError};

/// One application's controller.
#[derive(Clone, Debug)]
pub(super) struct Controller {
    connect: Option<HttpCall>,
    publish: Option<HttpCall>,
    unpublish: Option<HttpCall>,
    republish: Option<HttpCall>,
    /// Towards `kmps://` upstreams.
    pub(super) tls: ClientTls,
}

impl Controller {
    /// By an application's settings. Reads the CA's file, if there is one.
    pub(super) fn new(application: &KmpApplication) -> Result<Controller, TlsError> {
        let tls = match (application.verify, &application.ca) {
            (false, _) => ClientTls::unverified(),
            (true, None) => ClientTls::public(),
            (true, Some(ca)) => ClientTls::with_ca_file(ca)?,
        };
        let call = |url: &Option<SecretUrl>| url.as_ref().and_then(|url| call_to(url, application, &tls));
        Ok(Controller {
            connect: call(&application.connect_url),
            publish: call(&application.publish_url),
            unpublish: call(&application.unpublish_url),
            republish: call(&application.republish_url),
            tls,
        })
    }

    /// Makes a call; it ends by the application's timeouts.
    pub(super) async fn call(&self, callback: Callback, body: Vec<u8>) -> CallOutcome {
        let call = match callback {
            Callback::Connect => &self.connect,
            Callback::Publish => &self.publish,
            Callback::Unpublish => &self.unpublish,
            Callback::Republish => &self.republish,
        };
        let Some(call) = call else {
            return CallOutcome::Failed(format!("there is no usable {}_url", callback.name()));
        };
        match (HttpCall { body, ..call.clone() }).send().await {
            Ok(reply) => {
                let content_type =
                    reply.content_type.into_iter().map(|kind| ("content-type".to_owned(), kind));
                let (status, body) = (reply.status, reply.body);
                CallOutcome::Replied(Reply { status, headers: content_type.collect(), body })
            }
            Err(error) => CallOutcome::Failed(crate::steward::chain(&error)),
        }
    }
}

/// A call without a body; `None` for a URL that no valid config has.
fn call_to(url: &SecretUrl, application: &KmpApplication, tls: &ClientTls) -> Option<HttpCall> {
    let parts = url.parts().ok()?;
    let is_tls = parts.scheme.eq_ignore_ascii_case("https");
    let path = if parts.path.is_empty() { "/" } else { parts.path };
    let query = parts.query.map(|query| format!("?{query}")).unwrap_or_default();
    let headers = application.add_header.iter();
    Some(HttpCall {
        method: "POST",
        host: parts.host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: parts.port.unwrap_or(if is_tls { 443 } else { 80 }),
        tls: is_tls.then(|| tls.clone()),
        target: format!("{path}{query}"),
        headers: headers.map(|header| (header.name.clone(), header.value.reveal().to_owned())).collect(),
        body: Vec::new(),
        send_timeout: application.timeout.get(),
        read_timeout: application.read_timeout.get(),
        // One byte of the buffer is not for replies, as in the connector.
        reply_max_bytes: usize::try_from(application.buffer_bytes).unwrap_or(usize::MAX).saturating_sub(1),
        until_close: application.strict,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Option<(String, u16, bool, String)> {
        let application = KmpApplication { publish_url: Some(SecretUrl::new(url)), ..Default::default() };
        let call = Controller::new(&application).unwrap().publish?;
        Some((call.host, call.port, call.tls.is_some(), call.target))
    }

    #[test]
    fn a_url_tells_where_a_callback_goes() {
        let plain = |host: &str, port, target: &str| Some((host.to_owned(), port, false, target.to_owned()));
        assert_eq!(target("http://10.0.0.1:8003/publish?x=1"), plain("10.0.0.1", 8003, "/publish?x=1"));
        assert_eq!(target("http://controller"), plain("controller", 80, "/"));
        assert_eq!(target("http://[::1]:9/a"), plain("::1", 9, "/a"));
        assert_eq!(target("https://c.example/p"), Some(("c.example".into(), 443, true, "/p".into())));
        assert_eq!(target("nothing"), None);
    }
}
