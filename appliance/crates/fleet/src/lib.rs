//! What a fleet manager says to a gateway, and what it answers: signed bundles, the key ring that they are held against,
//! templates with variables for each gateway, and how long a gateway waits before it calls again.
//!
//! Pure: no socket, no file, no clock. Whoever has them hands in bytes and times and carries out the outcome. Not for
//! what a config means, which is `model`'s.

mod backoff;
mod bundle;
pub mod fuzz;
mod judge;
mod key;
pub mod mqtt;
mod name;
mod refusal;
mod template;
mod text;

pub use backoff::Backoff;
pub use bundle::{Audience, Bundle, Content, Draft, Limits};
pub use judge::{ALL, Taken, Target, Verdict, judge};
pub use key::{KEYS_MAX, KeyError, KeyRing, PublicKey, SigningKey};
pub use name::{NAME_MAX, is_name};
pub use refusal::Refusal;
pub use template::{Variables, expand};
pub use text::{Digest, TEXT_MAX};
