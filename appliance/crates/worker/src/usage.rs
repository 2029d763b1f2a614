//! What a worker process costs, from `/proc`.

use std::time::Duration;

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since its start.
    pub cpu: Duration,
    /// Resident memory, shared libraries included, bytes.
    pub rss_bytes: u64,
    /// Its fair share of resident memory (shared pages divided among their users), bytes; 0 where unknown.
    pub pss_bytes: u64,
    /// Threads.
    pub threads: u32,
}

impl Usage {
    /// Of the process with this id, without its share of memory; `None` when it is gone.
    pub fn of(pid: u32) -> Option<Usage> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let ticks_per_second = rustix::param::clock_ticks_per_second();
        let page = u64::try_from(rustix::param::page_size()).ok()?;
        parse_stat(&stat, ticks_per_second, page)
    }

    /// A process's fair share of memory, bytes. The kernel walks all its pages: milliseconds. `None` when it is gone, or
    /// the gateway may not trace it (same user is enough).
    pub fn share_of(pid: u32) -> Option<u64> {
        parse_pss(&std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?)
    }
}

fn parse_stat(stat: &str, ticks_per_second: u64, page: u64) -> Option<Usage> {
    // The name may hold spaces and brackets; the fields are counted from its last bracket.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok());
    let ticks = field(14)?.checked_add(field(15)?)?;
    Some(Usage {
        cpu: Duration::from_millis(ticks.saturating_mul(1000) / ticks_per_second.max(1)),
        rss_bytes: field(24)?.saturating_mul(page),
        pss_bytes: 0,
        threads: u32::try_from(field(20)?).ok()?,
    })
}

fn parse_pss(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_shifts_no_field() {
        let stat = "7 (fg-a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 120 30 0 0 20 0 9 0 100 1000000 2500 18446744073709551615";
        let usage = parse_stat(stat, 100, 4096).unwrap();
        assert_eq!(usage.cpu, Duration::from_millis(1500));
        assert_eq!((usage.rss_bytes, usage.threads), (2500 * 4096, 9));
    }

    #[test]
    fn this_process_uses_something() {
        let pid = std::process::id();
        let usage = Usage { pss_bytes: Usage::share_of(pid).unwrap(), ..Usage::of(pid).unwrap() };
        assert!(usage.rss_bytes > 100_000 && usage.threads >= 1);
        assert!(usage.pss_bytes > 0 && usage.pss_bytes <= usage.rss_bytes);
    }
}
