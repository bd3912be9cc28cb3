//! Turns errors of the libraries below into ours: one line that names the object, a kind that names the next move.
//!
//! The reason is the innermost cause, on one line and cut to a readable length: what stands around it are the library's
//! own layers. Deliberately absent: the causes as `source()`, which would print the same thing twice.

use std::error::Error as StdError;

use crate::error::{Error, Kind};

/// Longest reason that is passed on; servers answer whole XML pages.
const REASON_LIMIT_CHARS: usize = 300;

/// An object store's error about `object`.
pub(crate) fn from_object_store(object: &str, error: object_store::Error) -> Error {
    classify(object, &error)
}

/// Lance's error about the table `object`; an error of ours that passed through Lance comes out as it went in.
pub(crate) fn from_lance(object: &str, error: lance::Error) -> Error {
    use lance::Error as Lance;
    match &error {
        Lance::CommitConflict { .. }
        | Lance::RetryableCommitConflict { .. }
        | Lance::IncompatibleTransaction { .. }
        | Lance::TooMuchWriteContention { .. }
        | Lance::DatasetAlreadyExists { .. } => {
            Error::new(Kind::Conflict, format!("{object}: another writer committed to it at the same time"))
        }
        Lance::DatasetNotFound { .. } | Lance::VersionNotFound { .. } | Lance::NotFound { .. } => {
            Error::new(Kind::NotFound, format!("{object}: not found"))
        }
        Lance::CorruptFile { .. } => Error::new(Kind::Corrupt, format!("{object}: {}", reason(&error))),
        Lance::SchemaMismatch { difference, .. } => {
            Error::new(Kind::Invalid, format!("{object}: rows do not fit the table: {}", one_line(difference)))
        }
        _ => classify(object, &error),
    }
}

/// Parquet's error about the file `object`.
pub(crate) fn from_parquet(object: &str, error: parquet::errors::ParquetError) -> Error {
    let found = classify(object, &error);
    match (&error, found.kind()) {
        // What Parquet itself says is about bytes; what it passes on is about storage.
        (parquet::errors::ParquetError::External(_), _) => found,
        (_, Kind::Unavailable) => Error::new(Kind::Corrupt, format!("{object}: {}", reason(&error))),
        _ => found,
    }
}

/// An error of the local file system about `object`.
pub(crate) fn from_io(object: &str, error: &std::io::Error) -> Error {
    classify(object, error)
}

fn classify(object: &str, error: &(dyn StdError + 'static)) -> Error {
    for cause in chain(error) {
        if let Some(ours) = cause.downcast_ref::<Error>() {
            return Error::new(ours.kind(), ours.to_string());
        }
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && let Some(found) = classify_io(object, io)
        {
            return found;
        }
    }
    for cause in chain(error) {
        if let Some(store) = cause.downcast_ref::<object_store::Error>()
            && let Some(found) = classify_store(object, store)
        {
            return found;
        }
    }
    let reason = reason(error);
    if reason.contains("No space left") || reason.contains("QuotaExceeded") {
        return no_space(object);
    }
    Error::new(Kind::Unavailable, format!("{object}: {reason}"))
}

fn classify_io(object: &str, error: &std::io::Error) -> Option<Error> {
    use std::io::ErrorKind::{IsADirectory, NotADirectory, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let found = match error.kind() {
        StorageFull | QuotaExceeded => no_space(object),
        PermissionDenied => Error::new(Kind::Unavailable, format!("{object}: permission denied")),
        ReadOnlyFilesystem => Error::new(Kind::Unavailable, format!("{object}: the file system is read-only")),
        NotFound => Error::new(Kind::NotFound, format!("{object}: not found")),
        NotADirectory => Error::new(Kind::Invalid, format!("{object}: a part of the path is a file, expected folders")),
        IsADirectory => Error::new(Kind::Invalid, format!("{object}: is a folder, expected a file")),
        _ => return None,
    };
    Some(found)
}

fn classify_store(object: &str, error: &object_store::Error) -> Option<Error> {
    use object_store::Error as Store;
    let found = match error {
        Store::NotFound { .. } if reason(error).contains("NoSuchBucket") => {
            Error::new(Kind::NotFound, format!("{object}: the bucket does not exist"))
        }
        Store::NotFound { .. } => Error::new(Kind::NotFound, format!("{object}: not found")),
        Store::AlreadyExists { .. } | Store::Precondition { .. } => Error::new(Kind::Conflict, format!("{object}: already exists")),
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => {
            let reason = reason(error);
            if reason.contains("QuotaExceeded") {
                return Some(no_space(object));
            }
            Error::new(Kind::Unavailable, format!("{object}: the store refuses access, check the credentials: {reason}"))
        }
        Store::InvalidPath { .. } | Store::NotSupported { .. } | Store::NotImplemented { .. } | Store::UnknownConfigurationKey { .. } => {
            Error::new(Kind::Invalid, format!("{object}: {}", reason(error)))
        }
        _ => return None,
    };
    Some(found)
}

fn no_space(object: &str) -> Error {
    Error::new(Kind::Unavailable, format!("{object}: no space left on the store"))
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), cause_of)
}

fn cause_of<'a>(error: &&'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    let error: &'a (dyn StdError + 'static) = *error;
    // An `io::Error` hides what it wraps: its `source()` is already the cause of that.
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

fn reason(error: &(dyn StdError + 'static)) -> String {
    one_line(&chain(error).last().map_or_else(String::new, ToString::to_string))
}

fn one_line(text: &str) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((cut, _)) = line.char_indices().nth(REASON_LIMIT_CHARS) {
        line.truncate(cut);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(source: impl Into<Box<dyn StdError + Send + Sync>>) -> object_store::Error {
        object_store::Error::Generic { store: "LocalFileSystem", source: source.into() }
    }

    #[test]
    fn a_full_disk_is_unavailable_and_says_so() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let error = from_object_store("object `a`", generic(full));
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Unavailable, "object `a`: no space left on the store"));
    }

    #[test]
    fn our_own_error_comes_back_through_a_library() {
        let ours = Error::new(Kind::Invalid, "record 7: bad");
        let error = from_object_store("object `a`", generic(std::io::Error::other(ours)));
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Invalid, "record 7: bad"));
    }

    #[test]
    fn a_page_of_text_becomes_one_short_line() {
        let error = from_object_store("object `a`", generic("<xml>\n  broken\n".repeat(100)));
        assert!(!error.to_string().contains('\n') && error.to_string().chars().count() < 350, "{error}");
    }
}
