//! Looks at the status about once a second, and tells the recorder what happened in between.

use super::Recorder;
use super::probe::{Reach, address_of, look};
use super::witness::Witness;
use fieldgate_model::Status;
use fieldgate_model::config::Config;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// A look may take this part of the time: with a thousand mountpoints it is looked less often.
const SHARE: u32 = 50;
/// Sources that are looked for at once.
const PROBES: usize = 8;

/// The watch over what happens.
pub struct Watch<S> {
    recorder: Arc<Recorder>,
    status: S,
    config: watch::Receiver<Arc<Config>>,
    is_claimed: Box<dyn Fn() -> bool + Send>,
}

impl<S: Fn() -> Status + Send> Watch<S> {
    /// `status` gives the status without waiting, `config` what runs, `is_claimed` whether the gateway has an owner.
    pub fn new(
        recorder: Arc<Recorder>,
        status: S,
        config: watch::Receiver<Arc<Config>>,
        is_claimed: impl Fn() -> bool + Send + 'static,
    ) -> Self {
        Watch { recorder, status, config, is_claimed: Box::new(is_claimed) }
    }

    /// Watches until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        let mut witness = Witness::default();
        let mut probes: JoinSet<(String, Reach)> = JoinSet::new();
        let mut next = Instant::now();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                Some(Ok((name, reach))) = probes.join_next() => {
                    if let Some(event) = witness.probed(&name, reach) {
                        self.recorder.note(event);
                    }
                }
                () = tokio::time::sleep_until(next) => {
                    let began = Instant::now();
                    let seen = witness.look(&(self.status)(), (self.is_claimed)());
                    next = Instant::now() + EVERY.max(began.elapsed() * SHARE);
                    seen.events.into_iter().for_each(|event| self.recorder.note(event));
                    for name in seen.missing {
                        self.probe(name, &mut probes);
                    }
                }
            }
        }
    }

    fn probe(&self, name: String, probes: &mut JoinSet<(String, Reach)>) {
        let config = self.config.borrow().clone();
        let source = config.mountpoint_for(&name).map(|(_, mountpoint)| &mountpoint.source);
        if let Some(address) = source.and_then(address_of).filter(|_| probes.len() < PROBES) {
            probes.spawn(async move { (name, look(address).await) });
        }
    }
}
