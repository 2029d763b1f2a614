//! What memory a process holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Memory of its own, in bytes: without the pages of program and libraries, which the kernel maps and takes back as it
/// likes. `None`: the process is gone.
pub(crate) fn held_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1_024)
}

/// Looks at a process again and again, as the kernel notes no peak of that.
pub(crate) struct Peak {
    seen: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Peak {
    /// Of the process `pid`, from now on.
    pub(crate) fn watch(pid: u32) -> Peak {
        let (seen, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen_there, done_there) = (seen.clone(), done.clone());
        let thread = std::thread::spawn(move || {
            while !done_there.load(Ordering::Relaxed) {
                let Some(held) = held_bytes(pid) else { return };
                seen_there.fetch_max(held, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Peak { seen, done, thread: Some(thread) }
    }

    /// Panics if it was more than `bound` bytes at a time.
    pub(crate) fn assert_below(&self, bound: u64) {
        let peak = self.seen.load(Ordering::Relaxed);
        assert!(peak > 0, "nothing was seen of the process");
        assert!(peak <= bound, "held {} MiB at its peak", peak >> 20);
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
