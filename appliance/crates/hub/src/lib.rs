//! Mountpoints and who reads them: one ring per stream, cursors instead of queues, sinks that the publisher's turn
//! writes to.
//!
//! ```text
//!  Publisher --publish--> Ring [K u u|K u u u|K u] <--cursor-- Subscriber
//!      \--flush (once per turn)--> Sinks on the same shard: written directly, no task woken
//! ```
//!
//! Knows no protocol: what a unit looks like on the wire of RTMP subscribers comes from a [`WireForm`] that is handed in.

#![warn(clippy::indexing_slicing)]

mod admit;
pub mod backlog;
mod clock;
mod context;
pub mod ledger;
pub mod link;
pub mod logins;
mod mountpoint;
mod pulse;
mod registry;
mod retry;
mod ring;
pub mod rtmp;
mod shard;
mod sink;
mod timeline;
pub mod truth;
mod wire;

pub use admit::{Action, Admit, ConnectTerms, ConnectVerdict, Request, Terms, Verdict};
pub use backlog::{Backlog, RamBacklog};
pub use clock::Clock;
pub use context::Context;
pub use ledger::{LedgerHandle, LedgerKeeper};
pub use logins::{CameraKey, LoginTry, LoginWait, Logins, REST as LOGIN_REST};
pub use mountpoint::{Limits, Mountpoint, MountpointError, PublisherInfo, StreamState};
pub use pulse::{Pulse, Pulses, Silence};
pub use registry::{Registry, RegistryError, origin_of};
pub use retry::Retry;
pub use ring::{Bound, Counters, Entry, Item, Ring, Start, Subscriber, Taken};
pub use rtmp::{RtmpClient, RtmpEnd, RtmpSession};
pub use shard::{Beat, Beats, LocalShard, SCRATCH_BYTES, Shard, ShardError};
pub use sink::{Publisher, Sink, SinkGuard, SinkList};
pub use timeline::{Pace, Timeline};
pub use wire::WireForm;
