//! The one error of the crate; [`Error::kind`] tells the caller the next move.
//!
//! Every message names the split and, where there is one, the row, so that a bad sample can be found in the dataset.
//! Deliberately absent: retries. Storage retries what is worth it, and a caller can open a stream at any step again.

/// What the caller should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Change the request: a split, a size or an assignment is wrong.
    Invalid,
    /// It is not there.
    NotFound,
    /// Try again later, or fix the network or credentials.
    Unavailable,
    /// A stored row is not what its version promises.
    Corrupt,
    /// A defect, or the runtime is shutting down.
    Internal,
}

/// A failure to load samples.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request cannot be served as it stands.
    #[error("{0}")]
    Invalid(String),
    /// A stored row does not decode.
    #[error("split `{split}`, row {row}: {reason}")]
    Corrupt {
        /// Table of the dataset version.
        split: String,
        /// Row of the table, from 0.
        row: u64,
        /// What was found and what was expected.
        reason: String,
    },
    /// Storage failed.
    #[error("split `{split}`: {doing}")]
    Store {
        /// Table of the dataset version.
        split: String,
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: forebay_store::Error,
    },
    /// Something beside the rows cannot be read.
    #[error("{what}")]
    Read {
        /// What.
        what: String,
        /// Why not.
        source: forebay_store::Error,
    },
    /// A defect, or the runtime is shutting down.
    #[error("{0}")]
    Internal(String),
}

/// Result of loading.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// What the caller should do.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) => Kind::Invalid,
            Self::Corrupt { .. } => Kind::Corrupt,
            Self::Internal(_) => Kind::Internal,
            Self::Store { source, .. } | Self::Read { source, .. } => match source.kind() {
                forebay_store::Kind::Invalid => Kind::Invalid,
                forebay_store::Kind::NotFound => Kind::NotFound,
                forebay_store::Kind::Unavailable => Kind::Unavailable,
                forebay_store::Kind::Corrupt => Kind::Corrupt,
                forebay_store::Kind::Conflict | forebay_store::Kind::Internal => Kind::Internal,
            },
        }
    }
}
