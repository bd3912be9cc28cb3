//! The one error of the crate; [`Error::kind`] tells the caller the next move.
//!
//! A bad record is never an error: it is quarantined with a reason and counted.

use datafusion::error::DataFusionError;
use forebay_store as store;

/// What the caller should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Change a setting or the source: the message names it.
    Invalid,
    /// Try again later, or fix the network, credentials or space.
    Unavailable,
    /// Bytes in storage are not what they should be.
    Corrupt,
    /// Others kept committing first: run again.
    Conflict,
    /// A defect.
    Internal,
}

/// A failure of an ingest, naming the object.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: Kind,
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Result of an ingest operation.
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

    /// A failure of a library of ours on our own data, while doing `what`.
    pub(crate) fn internal(what: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::with_source(Kind::Internal, what, source)
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        let kind = match error.kind() {
            store::Kind::Invalid | store::Kind::NotFound => Kind::Invalid,
            store::Kind::Unavailable => Kind::Unavailable,
            store::Kind::Corrupt => Kind::Corrupt,
            store::Kind::Conflict => Kind::Conflict,
            store::Kind::Internal => Kind::Internal,
        };
        let message = error.to_string();
        match std::error::Error::source(&error) {
            // The message is taken over, so the chain goes on below it.
            Some(source) => Self::with_source(kind, message, source.to_string()),
            None => Self::new(kind, message),
        }
    }
}

impl From<Error> for store::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            Kind::Invalid => store::Kind::Invalid,
            Kind::Unavailable => store::Kind::Unavailable,
            Kind::Corrupt => store::Kind::Corrupt,
            Kind::Conflict => store::Kind::Conflict,
            Kind::Internal => store::Kind::Internal,
        };
        Self::with_source(kind, error.message.clone(), error)
    }
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        Self::External(Box::new(error))
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        match error {
            DataFusionError::External(source) => match source.downcast::<Error>() {
                Ok(ours) => *ours,
                Err(other) => Self::with_source(Kind::Internal, "query failed", other),
            },
            DataFusionError::ResourcesExhausted(message) => {
                Self::new(Kind::Unavailable, format!("setting `limits.memory`: too little for this input: {message}"))
            }
            DataFusionError::Context(_, inner) => (*inner).into(),
            DataFusionError::IoError(source) => Self::with_source(Kind::Unavailable, "temporary files of the query failed", source),
            other => Self::with_source(Kind::Internal, "query failed", other),
        }
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::internal("building rows failed", error)
    }
}

impl From<parquet::errors::ParquetError> for Error {
    fn from(error: parquet::errors::ParquetError) -> Self {
        Self::with_source(Kind::Corrupt, "a stage object could not be read or written", error)
    }
}
