//! Its listeners, and the task that tells a content manager of us.

use super::Aggregator;
use crate::certificate::machine_names;
use crate::supervisor::{ChildContext, ChildError, ChildKey};
use crate::wiring::Wiring;
use crate::wiring::listening::cannot_listen;
use fieldgate_compat::aggregator::{BODY_MAX, Call, Registration};
use fieldgate_compat::{CallOutcome, Reply};
use fieldgate_hub::Retry;
use fieldgate_model::config::AggregatorCms;
use fieldgate_net::{ConnectionLimits, HttpCall, HttpHandler, HttpListener, HttpServerSettings};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{info, warn};

/// Connections to one listener, in all and from one address.
const CONNECTIONS: (usize, usize) = (128, 64);
/// How long a content manager may take for each half of a call.
const CALL: Duration = Duration::from_secs(10);
/// Longest answer of a content manager, with its head.
const ANSWER_MAX: usize = 16 << 10;

impl Wiring {
    pub(in crate::wiring) async fn aggregator_api(
        &self,
        key: ChildKey,
        address: SocketAddr,
        child: ChildContext,
    ) -> Result<(), ChildError> {
        let aggregator = self.aggregator.clone();
        let handler: HttpHandler = Arc::new(move |request| {
            let aggregator = aggregator.clone();
            Box::pin(async move { aggregator.answer(request).await })
        });
        self.serve_managers(key, address, handler, child).await
    }

    pub(in crate::wiring) async fn aggregator_stat(
        &self,
        key: ChildKey,
        address: SocketAddr,
        child: ChildContext,
    ) -> Result<(), ChildError> {
        let aggregator = self.aggregator.clone();
        let handler: HttpHandler = Arc::new(move |request| {
            let aggregator: Arc<Aggregator> = aggregator.clone();
            Box::pin(async move { aggregator.statistics(request) })
        });
        self.serve_managers(key, address, handler, child).await
    }

    async fn serve_managers(
        &self,
        key: ChildKey,
        address: SocketAddr,
        handler: HttpHandler,
        child: ChildContext,
    ) -> Result<(), ChildError> {
        let cannot = cannot_listen(address);
        // One byte more, so that the API itself says what is too long.
        let settings = HttpServerSettings { body_bytes: BODY_MAX + 1, ..HttpServerSettings::default() };
        let limits = ConnectionLimits::new(CONNECTIONS.0, CONNECTIONS.1);
        let listener = HttpListener::bind(address, settings, limits, handler).map_err(cannot)?;
        let bound = listener.local_addr().map_err(cannot)?;
        let what = key.to_string();
        let serving = async { listener.run(child.cancel.clone()).await.map_err(cannot) };
        self.listening((key, &what), bound, None, &child, serving).await
    }

    /// Tells the content manager until it knows, then rests.
    pub(in crate::wiring) async fn aggregator_cms(
        &self,
        cms: AggregatorCms,
        child: ChildContext,
    ) -> Result<(), ChildError> {
        let host_name = machine_names().pop().unwrap_or_default();
        let unusable = || ChildError::new(Retry::Never, "its address is no host and port");
        let mut registration =
            Registration::new(&cms, &host_name, Instant::now().into_std()).ok_or_else(unusable)?;
        child.ready.ready();
        while let Some(due) = registration.next_timeout() {
            tokio::select! {
                () = child.cancel.cancelled() => return Ok(()),
                () = tokio::time::sleep_until(due.into()) => {}
            }
            let Some(call) = registration.handle_timeout(Instant::now().into_std()) else { continue };
            let outcome = tokio::select! {
                () = child.cancel.cancelled() => return Ok(()),
                outcome = make(call) => outcome,
            };
            match registration.handle_reply(outcome, Instant::now().into_std()) {
                Ok(()) => info!(manager = cms.address, "registered at the content manager"),
                Err((cause, wait)) => {
                    warn!(manager = cms.address, cause, retry_in = ?wait, "the content manager was not told");
                }
            }
        }
        child.cancel.cancelled().await;
        Ok(())
    }
}

async fn make(call: Call) -> CallOutcome {
    let call = HttpCall {
        method: "POST",
        host: call.host,
        port: call.port,
        tls: None,
        target: call.target.to_owned(),
        headers: Vec::new(),
        body: call.body,
        send_timeout: CALL,
        read_timeout: CALL,
        reply_max_bytes: ANSWER_MAX,
        until_close: false,
    };
    match call.send().await {
        Ok(reply) => {
            CallOutcome::Replied(Reply { status: reply.status, headers: Vec::new(), body: reply.body })
        }
        Err(error) => CallOutcome::Failed(crate::steward::chain(&error)),
    }
}
