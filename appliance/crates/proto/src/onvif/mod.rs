//! ONVIF: finding cameras and asking them. Bytes in, bytes out; the sockets are in `fieldgate-net`.
//!
//! ```text
//!  ws_discovery   probe ->  <- who is there
//!  client         what to ask next: time, services, identity, profiles, addresses; login, once
//!    device, media, encoder   the calls, one file per service
//!    soap                     envelope, fault, user name token
//!      xml                    the tree, bounded
//!  service_url    what a camera says of itself, held against its own address
//! ```
//!
//! Not for events, PTZ, recordings or analytics.

mod client;
mod device;
mod encoder;
pub mod fuzz;
mod media;
mod service_url;
mod soap;
pub mod ws_discovery;
mod xml;

pub use client::{Action, Call, CallFailure, Camera, Client, ClientError, Gap, Login, Moment, Reply, Wish};
pub use device::Identity;
pub use encoder::{EncoderOptions, EncoderWish, VideoCodec, VideoEncoder, WishError};
use fieldgate_media::civil;
pub use media::{MAX_PROFILES, MediaVersion, Profile, main_and_sub};
pub use service_url::{Anchored, Scheme, ServiceUrl, ServiceUrlError};
pub use soap::{Fault, FaultKind, SoapError, username_token};
pub use xml::XmlError;
