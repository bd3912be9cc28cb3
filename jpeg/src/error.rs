//! What can be wrong with a JPEG file.

/// Why there are no pixels, or no file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file is damaged, or not a JPEG file.
    #[error("{0}")]
    Corrupt(String),
    /// A kind of JPEG that is not decoded here.
    #[error("{0}")]
    Unsupported(String),
    /// The file asks for more memory or scans than the decoder may take.
    #[error("{0}")]
    Limit(String),
    /// The caller asked for what cannot be: a part outside the picture, a buffer of another size.
    #[error("{0}")]
    Usage(String),
}

/// `std::result::Result` with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The kind that a message of the library is of.
    pub(crate) fn of_message(message: &str) -> Self {
        let message = message.split_once("(): ").map_or(message, |(_, message)| message);
        let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
        match message {
            _ if has(&["Unsupported", "not supported", "not compatible", "Unable to determine"]) => Self::Unsupported(message.into()),
            _ if has(&["limit", "Memory", "memory", "scans"]) => Self::Limit(message.into()),
            _ => Self::Corrupt(message.into()),
        }
    }
}
