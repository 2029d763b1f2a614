//! Why a bundle is not taken.

use fieldgate_model::Timestamp;

/// Why a bundle is not taken. Its text goes back to the fleet manager.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Longer than any bundle may be.
    #[error("the bundle has {len} bytes, at most {max} are taken")]
    TooLarge {
        /// Bytes of its text, as far as that is known.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// Not the text form.
    #[error("this is no bundle: {0}")]
    NotABundle(&'static str),
    /// Signed by somebody whose key is not in the ring.
    #[error("the bundle is signed with the key {0:?}, which this gateway does not know")]
    UnknownKey(String),
    /// Not signed with that key, or changed afterwards.
    #[error("the signature is wrong: the bundle was not made with the key {0:?}, or was changed on its way")]
    BadSignature(String),
    /// Authentic, but not understood.
    #[error("the bundle's content cannot be read: {0}")]
    Unreadable(String),
    /// Authentic, but over a limit.
    #[error("{what} must be {must}, got {got}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// What would be right.
        must: String,
        /// What it was.
        got: String,
    },
    /// For somebody else.
    #[error("the bundle is for other gateways, this one is {device:?} in the groups {groups:?}")]
    OtherDevice {
        /// Who this is.
        device: String,
        /// What this belongs to.
        groups: Vec<String>,
    },
    /// Too late.
    #[error("the bundle expired at {expires}, it is {now}")]
    Expired {
        /// Its end.
        expires: Timestamp,
        /// The time that counts here.
        now: Timestamp,
    },
    /// A replay or a step back.
    #[error("the bundle has number {number}, but number {taken} was taken already; numbers only rise")]
    Older {
        /// Its number.
        number: u64,
        /// The highest number taken.
        taken: u64,
    },
    /// Two bundles with one number.
    #[error("another bundle with number {0} was taken already; give each bundle a number of its own")]
    SameNumber(u64),
    /// A variable that this gateway has not.
    #[error("{path} names the variable {name:?}, which the bundle does not give for this gateway")]
    UnknownVariable {
        /// Where in the config.
        path: String,
        /// Which.
        name: String,
    },
    /// `{{` without a name and `}}`.
    #[error("{path} holds {{{{ that begins no {{{{name}}}}")]
    BrokenTemplate {
        /// Where in the config.
        path: String,
    },
    /// Two names became one.
    #[error("{path} stands there twice once the variables are filled in")]
    Doubled {
        /// Where in the config.
        path: String,
    },
}

impl Refusal {
    /// One word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::TooLarge { .. } => "too_large",
            Refusal::NotABundle(_) => "not_a_bundle",
            Refusal::UnknownKey(_) => "unknown_key",
            Refusal::BadSignature(_) => "bad_signature",
            Refusal::Unreadable(_) => "unreadable",
            Refusal::Limit { .. } => "limit",
            Refusal::OtherDevice { .. } => "other_device",
            Refusal::Expired { .. } => "expired",
            Refusal::Older { .. } => "older",
            Refusal::SameNumber(_) => "same_number",
            Refusal::UnknownVariable { .. } | Refusal::BrokenTemplate { .. } | Refusal::Doubled { .. } => {
                "template"
            }
        }
    }
}
