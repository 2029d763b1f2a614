//! Wiring of the gateway: what the binary is made of.

pub mod acceptance;
pub mod access;
pub mod admin;
pub mod admit;
pub mod boot;
pub mod certificate;
pub mod cli;
pub mod clock;
pub mod devices;
pub mod fleet;
pub mod health;
pub mod local_name;
pub mod logging;
pub mod machine;
pub mod plan;
pub mod recorder;
pub mod run;
pub mod status;
pub mod steward;
pub mod store;
pub mod supervisor;
pub mod unbuilt;
pub mod update;
pub mod wiring;
