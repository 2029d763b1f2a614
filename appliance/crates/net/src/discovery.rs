//! Finds cameras on the local networks, and asks them once somebody has given credentials.
//!
//! ```text
//!  Finder   one task: probes by WS-Discovery and multicast DNS, hears Hello and Bye
//!    -> Table   who is there, bounded, aged
//!  CameraClient   asks one camera, when told to: ONVIF calls, RTSP DESCRIBE; each login through hub::Logins
//! ```
//!
//! What answers a probe is a stranger. Nothing is sent to it but probes until a person asks for it: some cameras count
//! even a call without a login as a wrong one. Then all goes to the very address that answered: hosts in its answers
//! are not used, names are not looked up, redirects not followed.

mod camera;
mod finder;
mod interfaces;
mod post;
mod rtsp;
mod sockets;
mod table;
#[cfg(test)]
mod tests;

pub use camera::{CameraClient, CameraClientError, CameraLogin};
pub use finder::{Finder, FinderError, FinderSettings, FinderState, MAX_NAMED};
pub use interfaces::{Interface, may_be_camera};
pub use table::{Found, FoundBy, Refusals, StreamHint};
