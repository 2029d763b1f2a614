//! What reconnects leave behind: nothing.

use crate::common::wait::{self, secs};
use crate::scene::{SOON, Scene, wait_for_more};
use crate::script::Script;
use serde_json::json;

/// Reconnects in every run of the tests; `FARM_RECONNECTS` asks for more.
const RECONNECTS: u64 = 20;
/// The first few fill caches and pools.
const WARM: u64 = 5;

struct Held {
    memory: u64,
    files: usize,
    threads: usize,
    workers: usize,
}

impl Scene {
    fn held(&self) -> Held {
        let pid = self.gateway.pid();
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
        let files = self.gateway.open_files();
        Held { memory: self.gateway.held_bytes(), files, threads, workers: self.workers() }
    }

    fn workers(&self) -> usize {
        let pid = self.gateway.pid();
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let of_task = |task: std::fs::DirEntry| {
            std::fs::read_to_string(task.path().join("children")).unwrap_or_default()
        };
        tasks.map(of_task).map(|pids| pids.split_whitespace().count()).sum()
    }
}

#[test]
fn reconnects_leave_no_memory_files_threads_or_processes_behind() {
    let reconnects = std::env::var("FARM_RECONNECTS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(RECONNECTS)
        .max(WARM + 1);
    // Pictures for a second and a half, then gone without a word.
    let script = Script { close_after: Some(35), sound: true, ..Script::good() };
    let scene = Scene::with(script, json!({ "backoff_cap": "1s" }));
    let after = |count: u64| {
        let within = secs(60 + 90 * count);
        wait::until_true(&format!("{count} sessions"), within, || {
            scene.camera.seen(|seen| &seen.played) >= count
        });
        wait_for_more(&scene.player, 10, SOON);
        scene.held()
    };
    let before = after(WARM);
    let held = after(reconnects);
    println!(
        "{reconnects} sessions: memory {} -> {} KiB, files {} -> {}, threads {} -> {}, workers {}",
        before.memory >> 10,
        held.memory >> 10,
        before.files,
        held.files,
        before.threads,
        held.threads,
        held.workers
    );
    assert!(held.files <= before.files + 2, "files");
    assert!(held.threads <= before.threads + 1, "threads");
    // The camera's, and the one that looks at pictures.
    assert!(held.workers <= 2, "worker processes");
    // Growth that goes on would be seen a thousand times; what one picture's ring holds is not growth.
    assert!(held.memory <= before.memory + (4 << 20), "memory");
}
