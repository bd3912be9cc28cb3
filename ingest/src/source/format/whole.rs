//! Files that are one record: plain text, pages, pictures.
//!
//! Deliberately absent: decoding.

use std::io::{self, Read};

use bytes::Bytes;

use crate::clean::Rejection;
use crate::source::fault;
use crate::source::open::{End, Flow, Item, Walk};
use crate::source::raw::Content;
use std::ops::ControlFlow;

/// Read at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// What the file holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Plain,
    Html,
    Picture,
}

/// The file as one record.
pub(super) fn read(walk: &mut Walk<'_, '_>, item: Item<'_>, kind: Kind, input: &mut dyn Read) -> Flow {
    let mut bytes = Vec::new();
    let place = item.place.to_owned();
    match take(input, walk.max_record(), &mut bytes) {
        Ok(true) => {}
        Ok(false) => {
            let detail = format!("more than {} bytes", walk.max_record());
            return walk.damaged(place, bytes.len() as u64, Rejection::new(fault::TOO_LARGE, detail));
        }
        Err(error) => return walk.damaged(place, bytes.len() as u64, fault::rejection(&error)),
    }
    let (length, bytes) = (bytes.len() as u64, Bytes::from(bytes));
    let content = match kind {
        Kind::Plain => Content::Plain { bytes, charset: None },
        Kind::Html => Content::Html { bytes, charset: None },
        Kind::Picture => Content::Image(bytes),
    };
    walk.content(place, length, content)?;
    ControlFlow::Continue(End::Complete)
}

/// Reads all of `input` to `bytes`; false if it has more than `most`.
pub(super) fn take(input: &mut dyn Read, most: usize, bytes: &mut Vec<u8>) -> io::Result<bool> {
    let mut chunk = [0; CHUNK_BYTES];
    loop {
        match input.read(&mut chunk)? {
            0 => return Ok(true),
            count => bytes.extend_from_slice(&chunk[..count]),
        }
        if bytes.len() > most {
            return Ok(false);
        }
    }
}
