//! Why a release has no report, sorted by what became of the message.

use crate::desk::DsnError;
use crate::id::QuarantineId;
use crate::quarantine::spool::SpoolError;

/// Why a release has no report.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The message cannot be claimed or read, or the decision cannot be written. This try sent it to nobody.
    #[error(transparent)]
    NotSent(#[from] SpoolError),
    /// The upstream has answered, which the disk does not take. The message stays claimed, and that is tried again, so it is
    /// not sent once more.
    #[error(
        "message {id}: the upstream has answered, and that cannot be written down: {cause}; it is tried again each second"
    )]
    NotNoted {
        /// Which.
        id: QuarantineId,
        /// Why.
        cause: EndError,
    },
    /// The process has no upstream.
    #[error("message {0}: nothing is relayed by this command")]
    NoUpstream(QuarantineId),
}

/// Why the end of a release could not be made durable.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    /// A file of the quarantine could not be read, written or removed.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The sender could not be told of refused recipients.
    #[error(transparent)]
    Dsn(#[from] DsnError),
}
