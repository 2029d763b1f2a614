//! Rates for the statistics, from totals that are taken once a second.

use super::Aggregator;
use crate::supervisor::ChildKey;
use fieldgate_compat::aggregator::{Client, Rate, Traffic};
use fieldgate_model::Config;
use fieldgate_net::RtmpConnections;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Samples that a rate is made from at most: ten seconds.
const SAMPLES: usize = 11;

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    In,
    Out,
    CameraIn(String),
    CameraOut(String),
    Audio(u64),
    Video(u64),
}

/// Totals of the last seconds.
#[derive(Debug, Default)]
pub(super) struct Rates(Mutex<BTreeMap<Of, VecDeque<u64>>>);

impl Rates {
    /// Time between two samples.
    pub(super) const INTERVAL: Duration = Duration::from_secs(1);

    /// To be called once per interval.
    pub(super) fn sample(&self, aggregator: &Aggregator, config: &Config) {
        let totals = aggregator.connections.totals();
        let pushed = aggregator.board.pushes();
        let sent = |mountpoint: Option<&str>| {
            let of = pushed.iter().filter(|(key, _)| match key {
                ChildKey::Push { mountpoint: name, .. } => mountpoint.is_none_or(|wanted| wanted == name),
                _ => false,
            });
            of.fold(0_u64, |sum, (_, report)| sum.saturating_add(report.sent_bytes()))
        };
        let mut now = BTreeMap::from([
            (Of::In, totals.bytes_in),
            (Of::Out, totals.bytes_out.saturating_add(sent(None))),
        ]);
        let views = aggregator.connections.all();
        for name in config.compat.aggregator.cameras.keys() {
            let mountpoint = aggregator.context.registry.get(name);
            let taken = mountpoint.map_or(0, |mountpoint| mountpoint.ring().counters().bytes);
            let played = views.iter().filter(|view| view.client.app == *name && view.stream.is_none());
            let played = played.fold(0_u64, |sum, view| sum.saturating_add(view.bytes_out));
            now.insert(Of::CameraIn(name.clone()), taken);
            now.insert(Of::CameraOut(name.clone()), sent(Some(name)).saturating_add(played));
        }
        for view in
            views.iter().filter(|view| config.compat.aggregator.cameras.contains_key(&view.client.app))
        {
            if let Some(stream) = &view.stream {
                now.insert(Of::Audio(view.client.connection), stream.audio_bytes);
                now.insert(Of::Video(view.client.connection), stream.video_bytes);
            }
        }
        self.take(now);
    }

    fn take(&self, now: BTreeMap<Of, u64>) {
        let mut counts = self.lock();
        counts.retain(|of, _| now.contains_key(of));
        for (of, total) in now {
            let counts = counts.entry(of).or_default();
            counts.push_back(total);
            if counts.len() > SAMPLES {
                counts.pop_front();
            }
        }
    }

    fn rate(&self, of: &Of) -> Rate {
        let counts = self.lock();
        let Some(counts) = counts.get(of) else { return Rate::default() };
        let (Some(first), Some(last)) = (counts.front(), counts.back()) else { return Rate::default() };
        let seconds = u64::try_from(counts.len()).unwrap_or(1).saturating_sub(1).max(1);
        Rate { bits_per_second: last.saturating_sub(*first).saturating_mul(8) / seconds, bytes: *last }
    }

    /// Of all RTMP.
    pub(super) fn of_all(&self) -> Traffic {
        Traffic { into: self.rate(&Of::In), out: self.rate(&Of::Out) }
    }

    /// By camera.
    pub(super) fn of_cameras(&self, config: &Config) -> BTreeMap<String, Traffic> {
        let names = config.compat.aggregator.cameras.keys();
        let of = |name: &String| Traffic {
            into: self.rate(&Of::CameraIn(name.clone())),
            out: self.rate(&Of::CameraOut(name.clone())),
        };
        names.map(|name| (name.clone(), of(name))).collect()
    }

    /// Connections to cameras' applications.
    pub(super) fn clients(&self, connections: &RtmpConnections, config: &Config) -> Vec<Client> {
        let views = connections.all().into_iter();
        let views = views.filter(|view| config.compat.aggregator.cameras.contains_key(&view.client.app));
        let client = views.map(|view| {
            let connection = view.client.connection;
            Client {
                connection,
                app: view.client.app.clone(),
                peer: view.client.peer,
                flash_ver: view.client.flash_ver.clone(),
                time_ms: u64::try_from(view.uptime.as_millis()).unwrap_or(u64::MAX),
                publishes: view.stream.as_ref().map(|stream| stream.session.name.clone()),
                audio: self.rate(&Of::Audio(connection)),
                video: self.rate(&Of::Video(connection)),
            }
        });
        client.collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Of, VecDeque<u64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_seconds_and_what_has_gone_is_forgotten() {
        let rates = Rates::default();
        assert_eq!(rates.of_all(), Traffic::default());
        for second in 0..20_u64 {
            rates.take(BTreeMap::from([(Of::In, second * 1_000), (Of::Audio(7), second)]));
        }
        assert_eq!(rates.of_all().into, Rate { bits_per_second: 8_000, bytes: 19_000 });
        // A total that begins anew is no negative rate.
        rates.take(BTreeMap::from([(Of::In, 0)]));
        assert_eq!(rates.of_all().into, Rate { bits_per_second: 0, bytes: 0 });
        assert_eq!(rates.rate(&Of::Audio(7)), Rate::default());
    }
}
