//! Peers that break the protocol, by accident or on purpose. Beside each runs a healthy stream that must lose nothing;
//! the process must live and its memory stay bounded.

mod chunks;
mod limits;
mod messages;
mod upstreams;

use crate::common::chunks::Message;
use crate::common::gateway::Gateway;
use crate::common::healthy::Healthy;
use crate::common::memory::Peak;
use crate::common::rtmp::Client;
use crate::common::scratch::Scratch;
use crate::common::wait::secs;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most memory of its own that the process may ever hold in these tests, in bytes: one ring, and what a stranger can make
/// it hold.
const MEMORY_BOUND: u64 = 16 << 20;

/// A gateway with a healthy stream on `yard`, and `spare` for the others.
struct Arena {
    gateway: Gateway,
    healthy: Healthy,
    peak: Peak,
}

impl Arena {
    fn new() -> Arena {
        Arena::with(json!({}))
    }

    fn with(rtmp: serde_json::Value) -> Arena {
        let config = json!({
            "rtmp": rtmp,
            "mountpoints": { "yard": { "source": { "kind": "publish" } },
                             "spare": { "source": { "kind": "publish" }, "grace": "0s" } },
        });
        // The HTTP server behind the front panics when it gets no file for a connection, and is rebuilt. To print where,
        // this build would read a hundred megabytes of its debug information, which count as its memory.
        let gateway = Gateway::start_in(Arc::new(Scratch::new()), config, |command| {
            command.env("RUST_BACKTRACE", "0");
        });
        let peak = Peak::watch(gateway.pid());
        let healthy = Healthy::start(gateway.rtmp, "yard");
        Arena { gateway, healthy, peak }
    }

    fn address(&self) -> SocketAddr {
        self.gateway.rtmp
    }

    /// The process lives, still takes a publisher, held no more than it may, and the healthy stream lost nothing.
    fn assert_unharmed(mut self) {
        self.gateway.assert_running();
        let end = Instant::now() + secs(20);
        while let Err(refusal) = Client::publishing(self.address(), "spare") {
            assert!(Instant::now() < end, "no publisher is taken any more: {refusal:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
        self.healthy.assert_unharmed();
        self.gateway.assert_running();
        self.peak.assert_below(MEMORY_BOUND);
    }
}

fn message(kind: u8, stream: u32, body: Vec<u8>) -> Message {
    Message { kind, ts: 0, stream, body }
}
