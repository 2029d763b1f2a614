//! What a node's log says.

use super::announce::AnnounceError;
use super::role::Role;
use super::tables::TableError;

/// One line for the log; its `Display` is the text. Holds no secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Note {
    /// The master knows the node.
    #[error("the mesh's master knows this node as {name} ({id}, {slug}), role {}", role.word())]
    Announced {
        /// The master's id of it.
        id: String,
        /// And name.
        name: String,
        /// And short name.
        slug: String,
        /// The role that it gives.
        role: Role,
    },
    /// The shared key is wrong.
    #[error(
        "the mesh's master refuses compat.node.master_key; this node is not in the mesh until the key is right"
    )]
    KeyRefused,
    /// An announcement failed.
    #[error("the announcement to the mesh's master failed: {0}")]
    AnnounceFailed(String),
    /// What the master said to an announcement makes no sense.
    #[error("the mesh's master answered the announcement with nonsense: {0}")]
    AnnounceNonsense(#[from] AnnounceError),
    /// The master does not answer.
    #[error("the mesh's master is lost ({0}); what is here goes on")]
    Lost(String),
    /// It answers again.
    #[error("the mesh's master is back")]
    Back,
    /// The master does not know the node any more.
    #[error("the mesh's master does not know this node any more; it is announced again")]
    Unknown,
    /// A beat was too early or too late.
    #[error("the mesh's master counts a beat as too early or too late")]
    Strike,
    /// A heartbeat has begun anew.
    #[error("the mesh's master gave the heartbeat up; a new one begins")]
    HeartbeatLost,
    /// The role is another one.
    #[error("role changes from {} to {}", from.word(), to.word())]
    Role {
        /// Before.
        from: Role,
        /// Now.
        to: Role,
    },
    /// A role that there is not.
    #[error("the mesh's master gives the role {0:?}, which there is not; nothing changes")]
    UnknownRole(String),
    /// New tables are in force.
    #[error("relay tables of version {0} are in force")]
    Tables(u64),
    /// Tables were not taken; those before stay.
    #[error("relay tables are not taken, those before stay: {0}")]
    TablesRefused(#[from] TableError),
    /// The tables could not be fetched.
    #[error("relay tables could not be fetched: {0}")]
    TablesMissing(String),
    /// The master has no certificate for the node.
    #[error(
        "the mesh's master has no certificate for this node; the one before stays, and it is asked again in an hour"
    )]
    NoCertificate,
    /// It could not be fetched.
    #[error("the certificate could not be fetched from the mesh's master: {0}")]
    CertificateMissing(String),
    /// What the master gave is of no use.
    #[error("the certificate that the mesh's master gave is not used, the one before stays: {0}")]
    CertificateRefused(String),
    /// The master refused a stream.
    #[error("the mesh's master refuses the stream {0}")]
    StreamRefused(String),
    /// The master has a stream dropped.
    #[error("the mesh's master has the stream {0} dropped")]
    DropAsked(String),
}

impl Note {
    /// Whether somebody should look at it.
    pub fn is_warning(&self) -> bool {
        !matches!(
            self,
            Note::Announced { .. } | Note::Back | Note::Role { .. } | Note::Tables(_) | Note::DropAsked(_)
        )
    }
}
