//! The one error of the crate; [`Error::kind`] tells the caller the next move.
//!
//! Deliberately absent: variants for every cause. A replica decides by kind alone: leave, try the step again, or stop.

/// What the caller should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Change the request: a setting, a name or a version is wrong.
    Invalid,
    /// It is not there.
    NotFound,
    /// A peer, the coordinator or the store cannot be reached now: try again.
    Unavailable,
    /// Bytes or numbers are not what was promised.
    Corrupt,
    /// Somebody else committed first: read again, then decide.
    Conflict,
    /// This replica is out of the run: stop at once and write nothing.
    Fenced,
    /// A defect.
    Internal,
}

/// A failure of the trainer, naming the object.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: Kind,
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Result of an operation of the trainer.
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

    /// The message and those of its causes in one line, each once.
    pub fn chain(&self) -> String {
        let causes = std::iter::successors(std::error::Error::source(self), |cause| cause.source());
        causes
            .map(ToString::to_string)
            .fold(self.to_string(), |line, cause| if line.contains(&cause) { line } else { format!("{line}: {cause}") })
    }
}

impl From<forebay_store::Error> for Error {
    fn from(error: forebay_store::Error) -> Self {
        use forebay_store::Kind as Store;
        let kind = match error.kind() {
            Store::Invalid => Kind::Invalid,
            Store::NotFound => Kind::NotFound,
            Store::Unavailable => Kind::Unavailable,
            Store::Corrupt => Kind::Corrupt,
            Store::Conflict => Kind::Conflict,
            Store::Internal => Kind::Internal,
        };
        Self::with_source(kind, "storage", error)
    }
}

impl From<forebay_schemas::settings::Invalid> for Error {
    fn from(error: forebay_schemas::settings::Invalid) -> Self {
        Self::with_source(Kind::Invalid, error.to_string(), error)
    }
}
