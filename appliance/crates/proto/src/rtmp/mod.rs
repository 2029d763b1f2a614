//! RTMP and Enhanced RTMP: handshake, chunks, messages, FLV tag bodies, both sides of a session.
//!
//! `rml_rtmp` does the handshake and AMF0, the latter only behind [`amf::screen`]; the rest is ours, since its chunk
//! reader and sessions can be panicked from outside.

pub mod amf;
mod chunk_reader;
mod chunk_writer;
mod client;
mod commands;
mod events;
pub mod flv;
pub mod fuzz;
mod handshake;
mod server;
mod url;
pub mod wire;

pub use chunk_reader::{ChunkError, ChunkReader, Limits, Message, kind};
pub use chunk_writer::ChunkWriter;
pub use client::{ClientSession, ClientSettings};
pub use events::{
    ClientEvent, ClientMode, ConnectRequest, Event, PlayRefusal, PlayRequest, PublishKind, PublishRefusal,
    PublishRequest, SessionError,
};
pub use handshake::{ClientHandshake, HandshakeError, ServerHandshake};
pub use server::{Received, ServerSession, ServerSettings};
pub use url::{RtmpUrl, UrlError};
pub use wire::RtmpWire;
