//! The one error of the crate; [`Error::kind`] tells the caller the next move.

/// What the caller should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Change the request: a URL, a version or a name is wrong.
    Invalid,
    /// It is not there.
    NotFound,
    /// Try again later, or fix the network, credentials or space.
    Unavailable,
    /// Bytes are not what their manifest says.
    Corrupt,
    /// Somebody else committed first: read again, then decide.
    Conflict,
    /// A defect.
    Internal,
}

/// A failure of storage, naming the object.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: Kind,
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Result of a storage operation.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error that names the object, what was found and what was expected.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The same with its cause.
    pub fn with_source(kind: Kind, message: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { kind, message: message.into(), source: Some(source.into()) }
    }

    /// What the caller should do.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}
