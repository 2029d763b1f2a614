//! Webhooks: each is told of every event that it wants, in order, again and again until it takes it.
//!
//! ```text
//!  cursor --> batch from the ring --> POST --2xx--> cursor moves
//!                 ^                     \-- else: wait 1 s, doubled to 5 min, 20 % more or less --+
//!                 +-------------------------------------------------------------------------------+
//! ```
//! The queue is the recorder itself, so it is bounded and outlives a restart; how far each hook is stands in one small file,
//! saved now and then: what was taken shortly before a crash may be told twice, and its number says so.

use super::{Recorder, Wanted};
use crate::clock::timestamp;
use crate::store::{DirFs, StoreFs, write_whole};
use crate::supervisor::{Backoff, random_jitter};
use fieldgate_hub::Clock;
use fieldgate_model::config::{Config, SecretUrl, Webhook};
use fieldgate_model::{Cause, Event, EventKind, Timestamp};
use fieldgate_net::{ClientTls, HttpCall};
use ring::hmac;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Events in one call.
const BATCH: usize = 32;
/// Longest wait between two tries.
const PATIENCE: Duration = Duration::from_secs(300);
/// Failures in a row after which an event says so.
const TROUBLE: u32 = 3;
/// Longest answer; only its status counts.
const REPLY_MAX: usize = 64 << 10;
/// How often the cursors are saved.
const SAVE_EVERY: Duration = Duration::from_secs(300);
/// Where they are.
const FILE: &str = "cursors.json";

/// How one webhook does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct WebhookStatus {
    /// Events up to this one were taken, or not wanted.
    pub delivered_to: u64,
    /// Calls that failed in a row.
    pub failures: u32,
    /// Why the last one failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<Timestamp>,
    /// Events that were forgotten before they could be delivered.
    pub missed: u64,
}

/// How all webhooks do, for the API.
#[derive(Clone, Default)]
pub struct HookBoard(Arc<Mutex<BTreeMap<String, WebhookStatus>>>);

impl HookBoard {
    /// All of them, by name.
    pub fn all(&self) -> BTreeMap<String, WebhookStatus> {
        self.lock().clone()
    }

    fn edit(&self, name: &str, edit: impl FnOnce(&mut WebhookStatus)) {
        edit(self.lock().entry(name.to_owned()).or_default());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, WebhookStatus>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All webhooks.
pub struct Hooks {
    recorder: Arc<Recorder>,
    board: HookBoard,
    files: Option<DirFs>,
    clock: Clock,
}

impl Hooks {
    /// Reads how far each hook was; without a folder that can be used that is kept in memory. Blocks on the disk.
    pub fn open(recorder: Arc<Recorder>, folder: &Path, clock: Clock) -> Hooks {
        let board = HookBoard::default();
        let files = DirFs::open(folder);
        let read = files.as_ref().map_err(ToString::to_string).and_then(|files| {
            let bytes = files.read(FILE).map_err(|error| error.to_string())?;
            let cursors = bytes.map(|bytes| serde_json::from_slice::<BTreeMap<String, u64>>(&bytes));
            cursors.transpose().map_err(|error| error.to_string())
        });
        match read {
            Ok(cursors) => {
                for (name, cursor) in cursors.unwrap_or_default() {
                    board.edit(&name, |hook| hook.delivered_to = cursor);
                }
            }
            Err(error) => warn!(%error, "it is not known how far webhooks were told; they begin anew"),
        }
        Hooks { recorder, board, files: files.ok(), clock }
    }

    /// How they do.
    pub fn board(&self) -> HookBoard {
        self.board.clone()
    }

    /// Follows the config until cancelled. Ends within a second then: a call that is under way is made again at the next start.
    pub async fn run(mut self, mut config: watch::Receiver<Arc<Config>>, cancel: CancellationToken) {
        let mut running: BTreeMap<String, (Webhook, CancellationToken)> = BTreeMap::new();
        let mut tasks = JoinSet::new();
        let mut saved = (Instant::now(), self.cursors());
        loop {
            let wanted = config.borrow_and_update().events.webhooks.clone();
            running.retain(|name, (settings, stop)| {
                let stays = wanted.get(name) == Some(settings);
                if !stays {
                    stop.cancel();
                }
                stays
            });
            self.board.lock().retain(|name, _| wanted.contains_key(name));
            for (name, settings) in wanted {
                if running.contains_key(&name) {
                    continue;
                }
                let stop = cancel.child_token();
                running.insert(name.clone(), (settings.clone(), stop.clone()));
                let hook = Hook {
                    name,
                    settings,
                    recorder: self.recorder.clone(),
                    board: self.board.clone(),
                    clock: self.clock.clone(),
                };
                tasks.spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = hook.run() => {}
                    }
                });
            }
            tokio::select! {
                () = cancel.cancelled() => break,
                changed = config.changed() => if changed.is_err() {
                    break;
                },
                Some(_) = tasks.join_next() => {}
                () = sleep(SAVE_EVERY) => {}
            }
            if saved.0.elapsed() >= SAVE_EVERY && self.cursors() != saved.1 {
                self.save().await;
                saved = (Instant::now(), self.cursors());
            }
        }
        tasks.shutdown().await;
        self.save().await;
    }

    fn cursors(&self) -> BTreeMap<String, u64> {
        self.board.lock().iter().map(|(name, hook)| (name.clone(), hook.delivered_to)).collect()
    }

    async fn save(&mut self) {
        let Some(mut files) = self.files.take() else { return };
        let bytes = serde_json::to_vec(&self.cursors()).expect("names and numbers serialise");
        let work = tokio::task::spawn_blocking(move || {
            let saved = write_whole(&mut files, FILE, &bytes);
            (files, saved)
        });
        if let Ok((files, saved)) = work.await {
            self.files = Some(files);
            if let Err(error) = saved {
                warn!(%error, "it cannot be saved how far webhooks were told");
            }
        }
    }
}

/// One webhook while its settings stay.
struct Hook {
    name: String,
    settings: Webhook,
    recorder: Arc<Recorder>,
    board: HookBoard,
    clock: Clock,
}

impl Hook {
    async fn run(self) {
        let mut news = self.recorder.follow();
        let newest = *news.borrow_and_update();
        let known = self.board.lock().get(&self.name).map(|hook| hook.delivered_to);
        // One that is new is told of what comes from now on. A number that there is not yet is of another recorder.
        let mut cursor = known.map_or(newest, |known| if known > newest { 0 } else { known });
        self.board
            .edit(&self.name, |hook| *hook = WebhookStatus { delivered_to: cursor, ..Default::default() });
        let mut backoff = Backoff::new(PATIENCE);
        let mut jitter = random_jitter();
        let wanted = |event: &Event| {
            let kinds = &self.settings.events;
            // It would be told of its own trouble for ever.
            let is_own = matches!(event.kind, EventKind::WebhookTrouble | EventKind::WebhookBack)
                && event.upstream.as_deref() == Some(self.name.as_str());
            !is_own && (kinds.is_empty() || kinds.contains(&event.kind))
        };
        loop {
            let page = self.recorder.page(Wanted { since: Some(cursor), limit: BATCH }, wanted);
            let next = page.next_cursor.unwrap_or(cursor);
            let missed = page.oldest.map_or(0, |oldest| oldest.saturating_sub(cursor + 1));
            if page.events.is_empty() {
                cursor = next;
                self.board.edit(&self.name, |hook| hook.delivered_to = cursor);
                if news.changed().await.is_err() {
                    return;
                }
                continue;
            }
            match self.deliver(&page.events, missed).await {
                Ok(()) => {
                    let failed = backoff.attempts();
                    backoff = Backoff::new(PATIENCE);
                    cursor = next;
                    self.board.edit(&self.name, |hook| {
                        (hook.delivered_to, hook.failures) = (cursor, 0);
                        (hook.error, hook.next_attempt) = (None, None);
                        hook.missed += missed;
                    });
                    if failed >= TROUBLE {
                        info!(webhook = self.name, "takes events again");
                        let text =
                            format!("webhook {} takes events again, after {failed} failures", self.name);
                        self.recorder.note(Event::new(EventKind::WebhookBack, text).to(&self.name));
                    }
                }
                Err(error) => {
                    let wait = backoff.next(Duration::ZERO, jitter());
                    let failures = backoff.attempts();
                    let next_attempt = Some(timestamp(&self.clock).plus(wait));
                    self.board.edit(&self.name, |hook| {
                        (hook.failures, hook.next_attempt) = (failures, next_attempt);
                        hook.error = Some(error.clone());
                    });
                    if failures == TROUBLE {
                        warn!(
                            webhook = self.name,
                            error, "does not take events; it is tried again and again"
                        );
                        let text = format!("webhook {} does not take events: {error}", self.name);
                        let event = Event::new(EventKind::WebhookTrouble, text).to(&self.name);
                        self.recorder.note(event.because(Cause::Upstream));
                    }
                    sleep(wait).await;
                }
            }
        }
    }

    async fn deliver(&self, events: &[Event], missed: u64) -> Result<(), String> {
        let mut body = json!({"events": events});
        if missed > 0 {
            body["missed"] = json!(missed);
        }
        let body = body.to_string();
        let call = self.call(body).ok_or("its address cannot be used")?;
        match call?.send().await {
            Ok(reply) if (200..300).contains(&reply.status) => Ok(()),
            Ok(reply) if (300..400).contains(&reply.status) => Err(format!(
                "it answers {}, a redirect, which is not followed: set the address itself",
                reply.status
            )),
            Ok(reply) => Err(format!("it answers {}", reply.status)),
            Err(error) => Err(crate::steward::chain(&error)),
        }
    }

    fn call(&self, body: String) -> Option<Result<HttpCall, String>> {
        let parts = self.settings.url.parts().ok()?;
        let is_tls = parts.scheme.eq_ignore_ascii_case("https");
        let tls = match (is_tls, self.settings.verify, &self.settings.ca) {
            (false, ..) => None,
            (true, false, _) => Some(ClientTls::unverified()),
            (true, true, None) => Some(ClientTls::public()),
            // Read anew each time: it may have been replaced.
            (true, true, Some(ca)) => match ClientTls::with_ca_file(ca) {
                Ok(tls) => Some(tls),
                Err(error) => return Some(Err(crate::steward::chain(&error))),
            },
        };
        let mut headers = Vec::new();
        if let Some(secret) = &self.settings.secret {
            let seconds = self.clock.unix_micros() / 1_000_000;
            headers.push(("X-Fieldgate-Signature".to_owned(), signature(secret.reveal(), seconds, &body)));
        }
        Some(Ok(HttpCall {
            method: "POST",
            host: parts.host.to_owned(),
            port: parts.port.unwrap_or(if is_tls { 443 } else { 80 }),
            tls,
            target: target(&self.settings.url)?,
            headers,
            body: body.into_bytes(),
            send_timeout: self.settings.timeout.get(),
            read_timeout: self.settings.timeout.get(),
            reply_max_bytes: REPLY_MAX,
            until_close: false,
        }))
    }
}

fn target(url: &SecretUrl) -> Option<String> {
    let parts = url.parts().ok()?;
    let path = if parts.path.is_empty() { "/" } else { parts.path };
    Some(parts.query.map_or(path.to_owned(), |query| format!("{path}?{query}")))
}

/// What the receiver compares: `t=SECONDS,v1=HEX`, HMAC-SHA256 of `SECONDS.BODY`.
fn signature(secret: &str, unix_seconds: i64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{unix_seconds}.{body}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={unix_seconds},v1={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_what_openssl_makes() {
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac 0123456789abcdef
        assert_eq!(
            signature("0123456789abcdef", 1_700_000_000, "{}"),
            "t=1700000000,v1=e4f8e2ecae2295b2ddb2f0b5584c8275e226c0ebe9b3b819e70156bb67122e3e"
        );
    }

    #[test]
    fn path_and_query_are_sent_as_they_are_written() {
        let of = |url: &str| target(&SecretUrl::new(url));
        assert_eq!(of("https://h/a/b?key=k").as_deref(), Some("/a/b?key=k"));
        assert_eq!(of("https://h").as_deref(), Some("/"));
    }
}
