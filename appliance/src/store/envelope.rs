//! A config file: the config with its origin and a checksum.

use super::{Confirmed, StoreError};
use fieldgate_model::config::{SCHEMA, StoredError};
use fieldgate_model::{Config, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Where a config comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Its shape's version.
    pub schema: u32,
    /// Rises with each confirmed change.
    pub revision: u64,
    /// Who sent it.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// Why a file is no config that this build can run.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Torn, overwritten, not ours.
    #[error("is no config file")]
    Shape(#[source] serde_json::Error),
    /// The bytes changed since they were written.
    #[error("is damaged: its checksum does not fit")]
    Checksum,
    /// Written by another build.
    #[error("has schema {schema}, this build reads {SCHEMA}")]
    Schema {
        /// The file's.
        schema: u32,
        /// The file's.
        revision: u64,
    },
    /// A config, but not one that this build knows.
    #[error("does not fit this build: {0}")]
    Config(String),
}

/// A config file's content.
#[derive(Serialize, Deserialize)]
pub(super) struct Envelope {
    #[serde(flatten)]
    pub(super) meta: Meta,
    /// SHA-256 of `config` as compact JSON with sorted names, in hex.
    sha256: String,
    config: Value,
}

impl Envelope {
    pub(super) fn encode(meta: &Meta, config: &Value) -> Result<Vec<u8>, StoreError> {
        let envelope = Envelope { meta: meta.clone(), sha256: checksum(config), config: config.clone() };
        let mut bytes = serde_json::to_vec_pretty(&envelope).map_err(StoredError::from)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Envelope, EnvelopeError> {
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(EnvelopeError::Shape)?;
        if envelope.sha256 == checksum(&envelope.config) {
            Ok(envelope)
        } else {
            Err(EnvelopeError::Checksum)
        }
    }

    pub(super) fn into_config(self) -> Result<Confirmed, EnvelopeError> {
        if self.meta.schema != SCHEMA {
            return Err(EnvelopeError::Schema { schema: self.meta.schema, revision: self.meta.revision });
        }
        let config = Config::from_value(self.config).map_err(|problems| {
            EnvelopeError::Config(problems.first().map(ToString::to_string).unwrap_or_default())
        })?;
        Ok(Confirmed { config, meta: self.meta })
    }
}

fn checksum(config: &Value) -> String {
    Sha256::digest(config.to_string()).iter().map(|byte| format!("{byte:02x}")).collect()
}
