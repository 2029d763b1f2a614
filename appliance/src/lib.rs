//! Wiring of the gateway: what the binary is made of.

pub mod admin;
pub mod clock;
pub mod health;
pub mod steward;
pub mod store;
pub mod supervisor;
