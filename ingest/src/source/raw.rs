//! A raw record as a reader finds it: where, how large, and its content or why there is none.
//!
//! A record that cannot be read has a fault, never a gap. Deliberately absent: what the content says; that is `clean`'s.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::clean::Rejection;

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RawRecord {
    /// Its place in the object, appended to the object's key: empty for the whole object, `#17` for a line or row,
    /// `#path/in/archive` for a member, and so on inwards (`#docs.jsonl#17`). Unique within the object.
    pub(crate) place: String,
    /// Size of the record as read, containers unpacked.
    pub(crate) bytes: u64,
    /// Its content, or why it cannot be read.
    pub(crate) content: Result<Content, Rejection>,
    /// Where the content came from on the web, if the source says so.
    pub(crate) url: Option<String>,
    /// The class of an image, if the source says so otherwise than by the folder around it.
    pub(crate) class: Option<String>,
}

/// What a record holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    /// Plain text in some character set; `charset` is what a protocol header claims.
    Plain { bytes: Bytes, charset: Option<String> },
    /// A page; `charset` is what a protocol header claims.
    Html { bytes: Bytes, charset: Option<String> },
    /// Text that its format has decoded already.
    Text(String),
    /// An encoded picture.
    Image(Bytes),
}

/// Takes records one at a time; `Break` stops the reader.
pub(crate) type Visit<'a> = dyn FnMut(RawRecord) -> ControlFlow<()> + 'a;

impl RawRecord {
    /// A record that cannot be read.
    pub(crate) fn fault(place: String, bytes: u64, fault: Rejection) -> Self {
        Self { place, bytes, content: Err(fault), url: None, class: None }
    }
}
