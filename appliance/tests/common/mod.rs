//! What the whole-program tests stand on: the gateway, real peers, a hand-made RTMP peer, and the comparison of what
//! was sent with what arrived.
//!
//! Every peer listens on a port that the kernel chose, and every process ends by its own id when its owner is dropped.

pub(crate) mod address;
pub(crate) mod amf;
pub(crate) mod chunks;
#[cfg(feature = "gst")]
pub(crate) mod decoded;
pub(crate) mod fixture;
pub(crate) mod flv;
pub(crate) mod gateway;
pub(crate) mod healthy;
pub(crate) mod hevc;
pub(crate) mod http;
pub(crate) mod memory;
pub(crate) mod mosquitto;
pub(crate) mod nginx;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod rtmp;
#[cfg(feature = "gst")]
pub(crate) mod rtp_ports;
#[cfg(feature = "gst")]
pub(crate) mod rtsp;
pub(crate) mod scratch;
pub(crate) mod take;
pub(crate) mod tools;
pub(crate) mod wait;
