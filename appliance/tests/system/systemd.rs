//! What systemd is told, through a real notification socket.

use crate::common::fixture::Fixture;
use crate::common::gateway::Gateway;
use crate::common::healthy::{End, Publisher};
use crate::common::scratch::Scratch;
use crate::common::wait::secs;
use rustix::process::Signal;
use serde_json::json;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Manager {
    socket: UnixDatagram,
    heard: Vec<(Instant, String)>,
}

impl Manager {
    fn new(scratch: &Scratch) -> Manager {
        let socket = UnixDatagram::bind(scratch.join("notify")).unwrap();
        Manager { socket, heard: Vec::new() }
    }

    /// Hears what is said until `done` or the time is over.
    fn listen(&mut self, within: Duration, mut done: impl FnMut(&str) -> bool) -> bool {
        let end = Instant::now() + within;
        let mut bytes = [0; 4_096];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.socket.set_read_timeout(Some(left)).unwrap();
            let Ok(len) = self.socket.recv(&mut bytes) else { continue };
            for line in String::from_utf8_lossy(&bytes[..len]).lines() {
                self.heard.push((Instant::now(), line.to_owned()));
                if done(line) {
                    return true;
                }
            }
        }
    }

    fn has_heard(&self, line: &str) -> bool {
        self.heard.iter().any(|(_, heard)| heard == line)
    }
}

fn start(scratch: &Arc<Scratch>) -> Gateway {
    let config = json!({ "mountpoints": { "yard": { "source": { "kind": "publish" } } } });
    Gateway::start_in(scratch.clone(), config, |command| {
        command.env("NOTIFY_SOCKET", scratch.join("notify")).env("WATCHDOG_USEC", "3000000");
    })
}

#[test]
fn systemd_hears_ready_pings_status_and_stopping() {
    let scratch = Arc::new(Scratch::new());
    let mut manager = Manager::new(&scratch);
    let mut gateway = start(&scratch);
    assert!(manager.listen(secs(30), |line| line == "READY=1"), "{:?}", manager.heard);
    let publisher = Publisher::start(gateway.rtmp, "yard", &Fixture::h264_aac(6), 0, End::Polite);
    let mut pings = 0;
    let enough = manager.listen(secs(20), |line| {
        pings += u32::from(line == "WATCHDOG=1");
        pings >= 4
    });
    assert!(enough, "pings go on: {:?}", manager.heard);
    let status = manager.listen(secs(20), |line| line.starts_with("STATUS="));
    assert!(
        status || manager.heard.iter().any(|(_, line)| line.starts_with("STATUS=")),
        "{:?}",
        manager.heard
    );
    publisher.finish();
    gateway.process().signal(Signal::TERM);
    assert!(manager.listen(secs(20), |line| line == "STOPPING=1"), "{:?}", manager.heard);
    assert_eq!(gateway.process().end_within(secs(30)).code(), Some(0));
    assert!(manager.has_heard("READY=1"));
}

#[test]
fn stopped_process_sends_no_pings_and_a_continued_one_does() {
    let scratch = Arc::new(Scratch::new());
    let mut manager = Manager::new(&scratch);
    let mut gateway = start(&scratch);
    assert!(manager.listen(secs(30), |line| line == "WATCHDOG=1"), "{:?}", manager.heard);
    gateway.process().signal(Signal::STOP);
    // What was on its way may still come.
    manager.listen(Duration::from_millis(500), |_| false);
    let before = manager.heard.len();
    manager.listen(secs(4), |_| false);
    assert_eq!(manager.heard.len(), before, "{:?}", manager.heard);
    gateway.process().signal(Signal::CONT);
    assert!(manager.listen(secs(20), |line| line == "WATCHDOG=1"), "{:?}", manager.heard);
}
