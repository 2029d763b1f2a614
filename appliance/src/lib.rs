//! Wiring of the gateway: what the binary is made of.

pub mod access;
pub mod admin;
pub mod admit;
pub mod boot;
pub mod certificate;
pub mod cli;
pub mod clock;
pub mod devices;
pub mod health;
pub mod logging;
pub mod plan;
pub mod run;
pub mod status;
pub mod steward;
pub mod store;
pub mod supervisor;
pub mod unbuilt;
pub mod wiring;
