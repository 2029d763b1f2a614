//! What a server's process tree costs: CPU time and memory, read from /proc.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Memory of a process tree.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Proportional set size: shared pages count by their share.
    pub pss_kb: u64,
    /// Resident set size.
    pub rss_kb: u64,
}

/// The process and all its descendants that live now.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        if let Some((pid, fields)) = pid.and_then(|pid| Some((pid, stat(pid)?))) {
            parents.push((pid, fields[1] as u32));
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

/// The fields of /proc/PID/stat after the name, as numbers; the state letter is 0.
fn stat(pid: u32) -> Option<Vec<u64>> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<u64> =
        line.rsplit_once(')')?.1.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    (fields.len() > 15).then_some(fields)
}

/// CPU time of the tree so far, in nanoseconds: user and system, with that of its ended children.
pub(crate) fn cpu_ns(root: u32) -> u64 {
    tree(root).into_iter().map(process_cpu_ns).sum()
}

fn process_cpu_ns(pid: u32) -> u64 {
    let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
    let Some(fields) = stat(pid) else { return 0 };
    let (own, ended) = (fields[11] + fields[12], fields[13] + fields[14]);
    // The scheduler's figure is exact where ticks of 10 ms are not, but forgets threads that ended.
    let mut exact = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let line = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        exact += line.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
    }
    exact.max(own * tick) + ended * tick
}

/// The tree's memory now.
pub(crate) fn memory(root: u32) -> Memory {
    let mut sum = Memory::default();
    for pid in tree(root) {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let field = |name: &str| -> u64 {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
        };
        sum.pss_kb += field("Pss:");
        sum.rss_kb += field("Rss:");
    }
    sum
}

/// Bytes that the tree has had written to disks so far, in whole pages; what was removed before it got there is taken off.
/// Processes that have ended are not counted.
pub(crate) fn written_bytes(root: u32) -> u64 {
    let sum = tree(root).into_iter().map(|pid| {
        let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        let field = |name: &str| -> u64 {
            let value = io.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            value.and_then(|value| value.parse().ok()).unwrap_or(0)
        };
        field("write_bytes").saturating_sub(field("cancelled_write_bytes"))
    });
    sum.sum()
}

/// Bytes of all files below `folder`.
pub(crate) fn folder_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => folder_bytes(&entry.path()),
        Ok(data) => data.len(),
        // A segment may go while we look.
        Err(_) => 0,
    });
    sizes.sum()
}

/// Watches a tree's memory from a thread of its own and keeps the highest values.
#[derive(Debug)]
pub(crate) struct PeakWatch {
    stop: Arc<AtomicBool>,
    peak: Arc<Mutex<Memory>>,
    thread: Option<JoinHandle<()>>,
}

impl PeakWatch {
    /// Starts to watch the tree of `root`.
    pub(crate) fn start(root: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let peak = Arc::new(Mutex::new(Memory::default()));
        let (stop_seen, peak_kept) = (Arc::clone(&stop), Arc::clone(&peak));
        let thread = std::thread::spawn(move || {
            while !stop_seen.load(Ordering::Relaxed) {
                let now = memory(root);
                let mut kept = peak_kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.pss_kb = kept.pss_kb.max(now.pss_kb);
                kept.rss_kb = kept.rss_kb.max(now.rss_kb);
                drop(kept);
                std::thread::sleep(Duration::from_millis(400));
            }
        });
        Self { stop, peak, thread: Some(thread) }
    }

    /// The highest values so far.
    pub(crate) fn peak(&self) -> Memory {
        *self.peak.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PeakWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the watcher only costs its figure.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_a_child_is_in_its_tree() {
        let own = std::process::id();
        assert!(memory(own).rss_kb > 100);
        let mut child = std::process::Command::new("sleep").arg("20").spawn().unwrap();
        let found = tree(own).contains(&child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found);
    }

    #[test]
    fn files_below_a_folder_are_summed() {
        let folder = std::env::temp_dir().join(format!("fieldgate-bench-meter-{}", std::process::id()));
        fs::create_dir_all(folder.join("inner")).unwrap();
        fs::write(folder.join("a"), [0; 100]).unwrap();
        fs::write(folder.join("inner/b"), [0; 23]).unwrap();
        let sum = folder_bytes(&folder);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!((sum, folder_bytes(&folder)), (123, 0));
    }

    #[test]
    fn work_shows_in_the_cpu_time() {
        let own = std::process::id();
        let before = cpu_ns(own);
        let mut sum = 0u64;
        while cpu_ns(own) < before + 20_000_000 {
            sum = (0..1_000_000u64).fold(sum, |sum, i| std::hint::black_box(sum ^ i));
        }
        assert!(cpu_ns(own) >= before + 20_000_000);
    }
}
