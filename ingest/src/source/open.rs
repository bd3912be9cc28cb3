//! One raw object to its records: containers are unpacked, formats read, whatever they are nested in.
//!
//! Promises: memory is bounded by one record and the windows of the codecs, whatever the object's size; the records do
//! not depend on how the input is cut into reads; `Err` is a failure of the input and of nothing else, and what is wrong
//! with the bytes is a record with a fault. Deliberately absent: where the bytes come from, and what they say.

use std::cell::{Cell, RefCell};
use std::io::{self, Read};
use std::ops::ControlFlow;

use forebay_schemas::dataset::Modality;
use forebay_schemas::pipeline::Formats;

use super::container::{self, members::Names};
use super::fault;
use super::format::{self, detect};
use super::raw::{Content, RawRecord, Visit};
use crate::clean::Rejection;

/// Bytes by which a kind is told.
const HEAD_BYTES: usize = 4 << 10;

/// How objects are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading<'a> {
    pub(crate) formats: &'a Formats,
    pub(crate) modality: Modality,
    /// A larger record is `too_large`.
    pub(crate) max_record_bytes: u64,
}

/// Gives the records of the object `key` to `visit`, in the order of the object, until it breaks.
pub(crate) fn read(key: &str, input: &mut dyn Read, reading: Reading<'_>, visit: &mut Visit<'_>) -> io::Result<()> {
    let origin = Origin::default();
    let mut walk = Walk { reading, visit, origin: &origin, names: Names::default(), members: 0 };
    let mut object = Object { input, origin: &origin };
    let name = key.rsplit('/').next().unwrap_or(key);
    // Whether the visitor broke off or the object ended is the visitor's to know.
    let _ = walk.open(Item { name, place: "", depth: 0, member: false }, &mut object);
    origin.failure.into_inner().map_or(Ok(()), Err)
}

/// How the reader of a format or container left its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Read to the end.
    Complete,
    /// Left at a damage that it has reported and that covers the rest.
    Damaged,
}

/// `Break` once the visitor breaks or the input has failed.
pub(super) type Flow = ControlFlow<(), End>;

/// Something to open: an object, a member of an archive, what a codec unpacks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item<'a> {
    /// Its name without folders; the extensions in it tell what it is.
    pub(super) name: &'a str,
    pub(super) place: &'a str,
    /// Containers around it.
    pub(super) depth: u32,
    /// Whether an archive holds it, rather than that the user asked for it by its key.
    pub(super) member: bool,
}

/// The way through one object.
pub(super) struct Walk<'a, 'v> {
    pub(super) reading: Reading<'a>,
    pub(super) origin: &'a Origin,
    /// Places given to members so far.
    pub(super) names: Names,
    /// Members of all archives so far.
    pub(super) members: u64,
    visit: &'a mut Visit<'v>,
}

impl Walk<'_, '_> {
    /// Opens whatever `input` is.
    pub(super) fn open(&mut self, item: Item<'_>, input: &mut dyn Read) -> Flow {
        let mut input = Peeked::new(input);
        let (kind, name) = detect::kind(item, input.head(), self.reading.modality);
        let item = Item { name, ..item };
        let end = self.open_kind(kind, item, &mut input)?;
        // A damage met with the first bytes, which the reader has not got to: it would be a gap.
        match input.error.take() {
            Some(error) => {
                let place = self.names.place(item.place, "@end");
                self.damaged(place, 0, fault::rejection(&error))
            }
            None => ControlFlow::Continue(end),
        }
    }

    fn open_kind(&mut self, kind: detect::Kind, item: Item<'_>, input: &mut Peeked<'_>) -> Flow {
        match kind {
            detect::Kind::Container(_) if item.depth >= self.reading.formats.max_nesting => {
                let detail = format!("containers are nested more than {} deep", self.reading.formats.max_nesting);
                self.damaged(item.place.to_owned(), 0, Rejection::new(fault::TOO_DEEP, detail))
            }
            detect::Kind::Container(kind) => container::open(self, kind, item, input),
            detect::Kind::Format(kind) => format::read(self, kind, item, input),
            detect::Kind::Unsupported(detail) => {
                self.damaged(item.place.to_owned(), input.head().len() as u64, Rejection::new(fault::UNSUPPORTED_FORMAT, detail))
            }
        }
    }

    /// Hands a record out. What was made of bytes that never came is none.
    pub(super) fn emit(&mut self, record: RawRecord) -> ControlFlow<()> {
        match self.origin.has_failed() {
            true => ControlFlow::Break(()),
            false => (self.visit)(record),
        }
    }

    /// A record without anything but its content.
    pub(super) fn content(&mut self, place: String, bytes: u64, content: Content) -> ControlFlow<()> {
        self.emit(RawRecord { place, bytes, content: Ok(content), url: None, class: None })
    }

    /// A record with a fault.
    pub(super) fn fault(&mut self, place: String, bytes: u64, fault: Rejection) -> ControlFlow<()> {
        self.emit(RawRecord { place, bytes, content: Err(fault), url: None, class: None })
    }

    /// A record with a fault that covers the rest of its input.
    pub(super) fn damaged(&mut self, place: String, bytes: u64, fault: Rejection) -> Flow {
        self.fault(place, bytes, fault)?;
        ControlFlow::Continue(End::Damaged)
    }

    /// Ends the walk: the machine failed, not the bytes.
    pub(super) fn abort(&mut self, error: io::Error) -> Flow {
        self.origin.failure.borrow_mut().get_or_insert(error);
        ControlFlow::Break(())
    }

    /// `max_record_bytes` as a length.
    pub(super) fn max_record(&self) -> usize {
        usize::try_from(self.reading.max_record_bytes).unwrap_or(usize::MAX / 4)
    }
}

/// What is known of the object's own bytes.
#[derive(Debug, Default)]
pub(super) struct Origin {
    bytes: Cell<u64>,
    unpacked: Cell<u64>,
    exhausted: Cell<bool>,
    failure: RefCell<Option<io::Error>>,
}

impl Origin {
    /// Counts unpacked bytes in: all of them so far, and all of the object read so far.
    pub(super) fn unpack(&self, count: u64) -> (u64, u64) {
        self.unpacked.set(self.unpacked.get().saturating_add(count));
        (self.unpacked.get(), self.bytes.get())
    }

    /// The object has unpacked to too much; nothing more comes out of it.
    pub(super) fn exhaust(&self) {
        self.exhausted.set(true);
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted.get()
    }

    fn has_failed(&self) -> bool {
        self.failure.borrow().is_some()
    }
}

/// The object's input. Its failure is kept here, out of the hands of decoders that would call it damage.
struct Object<'a> {
    input: &'a mut dyn Read,
    origin: &'a Origin,
}

impl Read for Object<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.origin.has_failed() {
            return Err(io::Error::other("the input has failed"));
        }
        loop {
            match self.input.read(buffer) {
                Ok(count) => {
                    self.origin.bytes.set(self.origin.bytes.get() + count as u64);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    *self.origin.failure.borrow_mut() = Some(error);
                    return Err(io::Error::other("the input has failed"));
                }
            }
        }
    }
}

/// An input whose first bytes have been looked at.
struct Peeked<'a> {
    head: Vec<u8>,
    position: usize,
    error: Option<io::Error>,
    input: &'a mut dyn Read,
}

impl<'a> Peeked<'a> {
    fn new(input: &'a mut dyn Read) -> Self {
        let mut head = vec![0; HEAD_BYTES];
        let (mut length, mut error) = (0, None);
        while length < HEAD_BYTES {
            match input.read(&mut head[length..]) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(found) => {
                    error = Some(found);
                    break;
                }
            }
        }
        head.truncate(length);
        Self { head, position: 0, error, input }
    }

    fn head(&self) -> &[u8] {
        &self.head
    }
}

impl Read for Peeked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let held = &self.head[self.position..];
        if !held.is_empty() {
            let count = held.len().min(buffer.len());
            buffer[..count].copy_from_slice(&held[..count]);
            self.position += count;
            return Ok(count);
        }
        // The bytes before a damage come first, then the damage.
        match self.error.take() {
            Some(error) => Err(error),
            None => self.input.read(buffer),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
