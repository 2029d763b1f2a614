//! How the machine fares, second by second.

use fieldgate_compat::node::api::Second;
use std::collections::VecDeque;
use std::fs;
use tokio::time::Instant;

/// Seconds that are kept.
const KEPT: usize = 10;
/// Network rates are never shown below this, as the old nodes did.
const RATE_MIN: f64 = 0.01;

/// The last seconds.
#[derive(Debug, Default)]
pub(super) struct Vitals {
    seconds: VecDeque<Second>,
    before: Option<(Instant, Counted)>,
}

/// What the kernel counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    busy: u64,
    all: u64,
    received: u64,
    sent: u64,
}

impl Vitals {
    /// Looks at the kernel's counters; to be called once a second.
    pub(super) fn look(&mut self, unix: i64, now: Instant) {
        // Files of the kernel: reading them waits for nothing.
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let counted = counted(&text("/proc/stat"), &text("/proc/net/dev"));
        let ram = ram(&text("/proc/meminfo"));
        if let Some((at, before)) = self.before {
            let span = now.duration_since(at).as_secs_f64().max(0.1);
            let share =
                |part: u64, whole: u64| if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 };
            let mbps =
                |bytes: u64| ((bytes as f64 * 8e-6 / span) * 100.0).round().max(RATE_MIN * 100.0) / 100.0;
            self.seconds.push_back(Second {
                unix,
                cpu: share(counted.busy.saturating_sub(before.busy), counted.all.saturating_sub(before.all)),
                ram,
                rx_mbps: mbps(counted.received.saturating_sub(before.received)),
                tx_mbps: mbps(counted.sent.saturating_sub(before.sent)),
            });
            if self.seconds.len() > KEPT {
                self.seconds.pop_front();
            }
        }
        self.before = Some((now, counted));
    }

    /// The newest.
    pub(super) fn last(&self) -> Second {
        self.seconds.back().copied().unwrap_or_default()
    }

    /// All that are kept, newest last.
    pub(super) fn all(&self) -> impl Iterator<Item = &Second> {
        self.seconds.iter()
    }
}

fn counted(stat: &str, net: &str) -> Counted {
    let times: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|number| number.parse().ok())
        .collect();
    let all: u64 = times.iter().sum();
    // Idle, and waiting for a disk.
    let idle: u64 = times.iter().skip(3).take(2).sum();
    let mut counted = Counted { busy: all.saturating_sub(idle), all, ..Counted::default() };
    for line in net.lines() {
        let Some((name, numbers)) = line.split_once(':') else { continue };
        if name.trim() == "lo" {
            continue;
        }
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        counted.received = counted.received.saturating_add(numbers.first().copied().unwrap_or(0));
        counted.sent = counted.sent.saturating_add(numbers.get(8).copied().unwrap_or(0));
    }
    counted
}

fn ram(meminfo: &str) -> f64 {
    let of = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
    };
    match (of("MemTotal"), of("MemAvailable")) {
        (Some(total), Some(free)) if total > 0 => 100.0 * total.saturating_sub(free) as f64 / total as f64,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_21_received_is_received_and_sent_is_sent() {
        let net = "Inter-|   Receive\n face |bytes\n    lo: 5 1 0 0 0 0 0 0 5 1\n  eth0: 1000 1 0 0 0 0 0 0 2000 1\n";
        let stat = "cpu  10 0 20 60 10 0 0 0 0 0\ncpu0 1\n";
        assert_eq!(counted(stat, net), Counted { busy: 30, all: 100, received: 1000, sent: 2000 });
        assert_eq!(counted("", ""), Counted::default());
        assert!((ram("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 250 kB\n") - 75.0).abs() < 0.01);
    }

    #[tokio::test(start_paused = true)]
    async fn check_21_ten_seconds_are_kept() {
        let mut vitals = Vitals::default();
        for second in 0..20 {
            vitals.look(second, Instant::now());
            tokio::time::advance(std::time::Duration::from_secs(1)).await;
        }
        let seconds: Vec<i64> = vitals.all().map(|second| second.unix).collect();
        assert_eq!(seconds, (10..20).collect::<Vec<_>>());
        assert!(vitals.all().all(|second| second.rx_mbps >= 0.01 && second.tx_mbps >= 0.01));
    }
}
