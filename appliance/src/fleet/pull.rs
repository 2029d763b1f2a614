//! Asks the fleet manager's URL for a bundle, now and then.

use super::{Fleet, LinkView, TakeError, Way};
use fieldgate_fleet::{Backoff, TEXT_MAX};
use fieldgate_hub::Clock;
use fieldgate_model::Config;
use fieldgate_model::config::{FleetPull, SecretUrl};
use fieldgate_net::{ClientTls, HttpCall, HttpCallError, HttpDocument, TlsError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Room for the head of an answer.
const HEAD_MAX: usize = 16 << 10;
/// The longest wait before the question that proves the way.
const PROOF_SPREAD: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
enum PullError {
    #[error("the URL cannot be asked: {0}")]
    Url(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Call(#[from] HttpCallError),
    #[error("the server answered {0}")]
    Status(u16),
    #[error("the answer is no text")]
    Text,
}

/// Asks as the config that runs says, until cancelled. `chance` gives evenly distributed numbers.
pub async fn run_pull(
    fleet: Fleet,
    mut config: watch::Receiver<Arc<Config>>,
    clock: Clock,
    chance: impl Fn() -> u32,
    cancel: CancellationToken,
) {
    loop {
        let Some(pull) = config.borrow_and_update().fleet.pull.clone() else {
            fleet.link(Way::Pull, None);
            tokio::select! {
                () = cancel.cancelled() => return,
                changed = config.changed() => if changed.is_err() { return },
            }
            continue;
        };
        let asking = ask_for_ever(&fleet, &pull, &clock, &chance);
        tokio::select! {
            () = cancel.cancelled() => return,
            () = asking => {}
            changed = config.wait_for(|config| config.fleet.pull.as_ref() != Some(&pull)) => {
                if changed.is_err() { return }
            }
        }
    }
}

async fn ask_for_ever(fleet: &Fleet, pull: &FleetPull, clock: &Clock, chance: &impl Fn() -> u32) {
    let interval = pull.interval.get();
    let share = |chance: u32| f64::from(chance) / f64::from(u32::MAX);
    let mut backoff =
        Backoff::new(interval.min(Duration::from_secs(30)), interval.max(Duration::from_secs(30)));
    let (mut tag, mut view, mut proofs) = (None, LinkView::default(), fleet.shared.proof.subscribe());
    let mut wait = backoff.wait(chance());
    if proofs.borrow_and_update().is_some_and(|(way, _)| way == Way::Pull) {
        wait = PROOF_SPREAD.mul_f64(share(chance()));
    }
    loop {
        view.next_attempt = Some(crate::clock::timestamp(clock).plus(wait));
        fleet.link(Way::Pull, Some(view.clone()));
        tokio::select! {
            () = sleep(wait) => {}
            Ok(()) = proofs.changed() => {
                if !proofs.borrow_and_update().is_some_and(|(way, _)| way == Way::Pull) {
                    continue;
                }
                sleep(PROOF_SPREAD.mul_f64(share(chance()))).await;
            }
            // A bundle that was refused for want of a key is asked for again.
            () = fleet.shared.keys_changed.notified() => tag = None,
        }
        let opened = Instant::now();
        match ask(fleet, pull, tag.as_deref()).await {
            Ok(document) => {
                (view.connected, view.cause) = (true, None);
                view.sessions += 1;
                backoff.reset();
                wait = interval.mul_f64(0.8 + 0.4 * share(chance()));
                fleet.prove(Way::Pull, opened).await;
                if let Some(HttpDocument { reply, etag }) = document {
                    match String::from_utf8(reply.body) {
                        Ok(text) => {
                            let taken = fleet.take(text, Way::Pull, "fleet.pull").await;
                            // What could not be judged yet is asked for again.
                            let again = matches!(
                                taken,
                                Err(TakeError::Busy | TakeError::Pending | TakeError::Store(_))
                            );
                            tag = etag.filter(|_| !again);
                        }
                        Err(_) => view.cause = Some(PullError::Text.to_string()),
                    }
                }
            }
            Err(error) => {
                wait = backoff.wait(chance());
                if let PullError::Call(HttpCallError::TooLong(len)) = &error {
                    fleet.refuse_long(*len, Way::Pull);
                    wait = interval;
                }
                let cause = crate::steward::chain(&error);
                warn!(url = pull.url.redacted(), retry_in = ?wait, error = %cause, "the fleet's URL is not answered");
                (view.connected, view.cause) = (false, Some(cause));
            }
        }
    }
}

/// The bundle, or none if it is the one that the tag names or there is none.
async fn ask(fleet: &Fleet, pull: &FleetPull, tag: Option<&str>) -> Result<Option<HttpDocument>, PullError> {
    let url = SecretUrl::new(pull.url.reveal().replace("{device_id}", &fleet.view().device));
    let parts = url.parts().map_err(|error| PullError::Url(error.to_string()))?;
    let is_tls = parts.scheme == "https";
    let ca = pull.ca.clone().filter(|_| is_tls);
    let tls = tokio::task::spawn_blocking(move || match ca {
        Some(ca) => ClientTls::with_ca_file(&ca).map(Some),
        None => Ok(is_tls.then(ClientTls::public)),
    });
    let tls = tls.await.map_err(|error| PullError::Url(error.to_string()))??;
    let mut headers = vec![("Accept".to_owned(), "text/plain, application/octet-stream".to_owned())];
    headers
        .extend(pull.token.iter().map(|it| ("Authorization".to_owned(), format!("Bearer {}", it.reveal()))));
    headers.extend(tag.map(|tag| ("If-None-Match".to_owned(), tag.to_owned())));
    let path = if parts.path.is_empty() { "/" } else { parts.path };
    let call = HttpCall {
        method: "GET",
        host: parts.host.to_owned(),
        port: parts.port.unwrap_or(if is_tls { 443 } else { 80 }),
        tls,
        target: parts.query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}")),
        headers,
        body: Vec::new(),
        send_timeout: pull.timeout.get(),
        read_timeout: pull.timeout.get(),
        reply_max_bytes: TEXT_MAX + HEAD_MAX,
        until_close: false,
    };
    let document = call.fetch().await?;
    match document.reply.status {
        200 => {
            info!(
                url = pull.url.redacted(),
                bytes = document.reply.body.len(),
                "the fleet's URL has something"
            );
            Ok(Some(document))
        }
        204 | 304 => Ok(None),
        other => Err(PullError::Status(other)),
    }
}
