//! Why raw bytes cannot be read: the reasons, and how damage travels through [`std::io::Read`] to where it is reported.
//!
//! A layer that unpacks finds the damage, the reader of the format above it meets an `io::Error` in the middle of a
//! record and makes one fault of it. Deliberately absent: failures of the input itself; those are no record's fault.

use std::borrow::Cow;
use std::io;

use crate::clean::Rejection;

/// The container is damaged from here on.
pub(crate) const CORRUPT_ARCHIVE: &str = "corrupt_archive";
/// The record does not follow its format.
pub(crate) const CORRUPT_RECORD: &str = "corrupt_record";
/// The bytes are no text in the encoding that the format asks for.
pub(crate) const BAD_ENCODING: &str = "bad_encoding";
/// Larger than `source.max_record`, or too large to spool.
pub(crate) const TOO_LARGE: &str = "too_large";
/// Unpacks to more than `source.formats.max_ratio` times its size.
pub(crate) const BOMB: &str = "bomb";
/// More containers within each other than `source.formats.max_nesting`.
pub(crate) const TOO_DEEP: &str = "too_deep";
/// More members than `source.formats.max_members`.
pub(crate) const TOO_MANY_MEMBERS: &str = "too_many_members";
/// No reader for it, or none in this modality.
pub(crate) const UNSUPPORTED_FORMAT: &str = "unsupported_format";
/// A link, device or the like.
pub(crate) const NOT_A_FILE: &str = "not_a_file";
/// The record has no text where `source.formats.text_field` says.
pub(crate) const NO_TEXT_FIELD: &str = "no_text_field";
/// The record has no picture where `source.formats.image_field` says, or in its sample.
pub(crate) const NO_IMAGE_FIELD: &str = "no_image_field";

/// Damage as an error of reading.
#[derive(Debug, thiserror::Error)]
#[error("{}: {}", .0.reason, .0.detail)]
struct Damage(Rejection);

/// An error of reading that says which fault it is.
pub(crate) fn damage(reason: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> io::Error {
    io::Error::other(Damage(Rejection::new(reason, detail)))
}

/// The fault that an error of reading is; one that does not say so is damage of the container.
pub(crate) fn rejection(error: &io::Error) -> Rejection {
    let damage = error.get_ref().and_then(|inner| inner.downcast_ref::<Damage>());
    damage.map_or_else(|| Rejection::new(CORRUPT_ARCHIVE, error.to_string()), |damage| damage.0.clone())
}

/// The error as damage found by `layer` after `unpacked` bytes; damage from further below stays as it is.
pub(super) fn found_by(layer: &str, unpacked: u64, error: &io::Error) -> Rejection {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Damage>()) {
        Some(damage) => damage.0.clone(),
        None if unpacked == 0 => Rejection::new(CORRUPT_ARCHIVE, format!("{layer}: {error}")),
        None => Rejection::new(CORRUPT_ARCHIVE, format!("{layer}: {error}, after {unpacked} unpacked bytes")),
    }
}
