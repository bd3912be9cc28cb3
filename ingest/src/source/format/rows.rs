//! XML dumps of `<row …/>` elements whose attributes are the fields, as Stack Exchange and MediaWiki tools publish.
//!
//! Posts have a `Body` of HTML, to which the `Title` is put in front as a heading, comments a `Text`, users an `AboutMe`
//! of HTML; another attribute is read where the setting names it. Promises: a row that is malformed is one fault and the
//! next one is read, since within a tag a `<` can only be the start of another. The place is its number, from 1.
//! Deliberately absent: elements within rows, and any entity that XML does not predefine.

use std::borrow::Cow;
use std::io::{self, Read};
use std::ops::ControlFlow;

use bytes::Bytes;
use quick_xml::escape::{minimal_escape, unescape};
use quick_xml::events::attributes::Attributes;

use super::window::Window;
use crate::clean::Rejection;
use crate::source::fault;
use crate::source::open::{End, Flow, Item, Walk};
use crate::source::raw::{Content, RawRecord};

/// Attributes with HTML.
const HTML: [&str; 2] = ["Body", "AboutMe"];
/// Attributes with text, where the setting's is not there.
const TEXT: [&str; 3] = ["Body", "AboutMe", "Text"];

/// Reads the rows.
pub(super) fn read(walk: &mut Walk<'_, '_>, item: Item<'_>, input: &mut dyn Read) -> Flow {
    let mut tags = Tags { window: Window::new(input), max_record: walk.max_record(), bytes: 0, closed: false };
    let mut number = 0_u64;
    loop {
        number += 1;
        let place = format!("{}#{number}", item.place);
        match tags.next_row() {
            Ok(Some(Ok(row))) => {
                let (record, bytes) = (record(row, walk), row.len() as u64);
                match record {
                    Ok((content, url)) => walk.emit(RawRecord { place, bytes, content: Ok(content), url, class: None })?,
                    Err(fault) => walk.fault(place, bytes, fault)?,
                }
                let length = row.len();
                tags.window.consume(length);
            }
            Ok(Some(Err(fault))) => walk.fault(place, tags.bytes, fault)?,
            Ok(None) => return end(walk, place, tags.closed),
            Err(error) => return walk.damaged(place, tags.bytes, fault::rejection(&error)),
        }
    }
}

fn end(walk: &mut Walk<'_, '_>, place: String, closed: bool) -> Flow {
    match closed {
        true => ControlFlow::Continue(End::Complete),
        false => walk.damaged(place, 0, Rejection::new(fault::CORRUPT_RECORD, "the root element is not closed")),
    }
}

/// The record of a tag.
fn record(row: &[u8], walk: &Walk<'_, '_>) -> Result<(Content, Option<String>), Rejection> {
    let not_utf8 = |error: std::str::Utf8Error| Rejection::new(fault::BAD_ENCODING, format!("not UTF-8 at byte {}", error.valid_up_to()));
    let row = std::str::from_utf8(row).map_err(not_utf8)?;
    let corrupt = |error: &dyn std::fmt::Display| Rejection::new(fault::CORRUPT_RECORD, format!("a malformed row: {error}"));
    let formats = walk.reading.formats;
    let inner = row.trim_start_matches("<row").trim_end_matches('>').trim_end_matches('/');
    let (mut asked, mut found, mut title, mut url) = (None, None, None, None);
    for attribute in Attributes::new(inner, 0) {
        let attribute = attribute.map_err(|error| corrupt(&error))?;
        let name = attribute.key.as_ref();
        let value = || unescape(&attribute.value).map(Cow::into_owned).map_err(|error| corrupt(&error));
        if name == formats.text_field {
            asked = Some(value()?);
        } else if let Some(rank) = TEXT.iter().position(|known| *known == name) {
            if found.as_ref().is_none_or(|(best, _)| rank < *best) {
                found = Some((rank, value()?));
            }
        } else if name == "Title" {
            title = Some(value()?);
        }
        if name == formats.url_field {
            url = Some(value()?);
        }
    }
    let (name, text) = match (asked, found) {
        (Some(text), _) => (formats.text_field.as_str(), text),
        (None, Some((rank, text))) => (TEXT[rank], text),
        (None, None) => {
            let detail = format!("a row without any of `{}`, `{}`", formats.text_field, TEXT.join("`, `"));
            return Err(Rejection::new(fault::NO_TEXT_FIELD, detail));
        }
    };
    if !HTML.contains(&name) {
        return Ok((Content::Text(text), url));
    }
    let page = match title {
        Some(title) => format!("<h1>{}</h1>\n{text}", minimal_escape(title.as_str())),
        None => text,
    };
    // What XML has decoded is UTF-8, whatever the page says.
    Ok((Content::Html { bytes: Bytes::from(page), charset: Some("utf-8".to_owned()) }, url))
}

/// Cuts tags.
struct Tags<'i> {
    window: Window<'i>,
    max_record: usize,
    /// Bytes of the row that was read last, where it is a fault.
    bytes: u64,
    /// Whether the last tag was a closing one.
    closed: bool,
}

impl Tags<'_> {
    /// Moves to the next row, which then starts the window, or passes it and says why; none at the end.
    fn next_row(&mut self) -> io::Result<Option<Result<&[u8], Rejection>>> {
        loop {
            self.bytes = 0;
            if !self.skip_to_tag()? {
                return Ok(None);
            }
            self.window.at_least(5)?;
            match self.window.bytes() {
                [b'<', b'!', b'-', b'-', ..] => self.skip_comment()?,
                [b'<', b'r', b'o', b'w', b' ' | b'\t' | b'\r' | b'\n' | b'/' | b'>', ..] => {
                    self.closed = false;
                    return match self.measure()? {
                        Ok(length) => Ok(Some(Ok(&self.window.bytes()[..length]))),
                        Err(fault) => Ok(Some(Err(fault))),
                    };
                }
                [b'<', b'/', rest @ ..] => {
                    self.closed = !rest.starts_with(b"row");
                    self.window.consume(1);
                }
                _ => self.window.consume(1),
            }
        }
    }

    fn skip_to_tag(&mut self) -> io::Result<bool> {
        loop {
            if let Some(at) = memchr::memchr(b'<', self.window.bytes()) {
                self.window.consume(at);
                return Ok(true);
            }
            self.window.consume(usize::MAX);
            if !self.window.more()? {
                return Ok(false);
            }
        }
    }

    fn skip_comment(&mut self) -> io::Result<()> {
        self.window.consume(4);
        loop {
            if let Some(at) = memchr::memmem::find(self.window.bytes(), b"-->") {
                self.window.consume(at + 3);
                return Ok(());
            }
            self.window.consume(self.window.bytes().len().saturating_sub(2));
            if !self.window.more()? {
                return Ok(());
            }
        }
    }

    /// The length of the tag that starts the window; a tag that is none is passed.
    fn measure(&mut self) -> io::Result<Result<usize, Rejection>> {
        let (mut at, mut dropped, mut quote) = (1, 0_u64, None);
        loop {
            let bytes = self.window.bytes();
            let next = match quote {
                None => bytes[at..].iter().position(|byte| matches!(byte, b'"' | b'\'' | b'>' | b'<')),
                Some(quote) => memchr::memchr2(quote, b'<', &bytes[at..]),
            };
            let found = next.map(|next| (at + next, bytes[at + next]));
            match found {
                Some((end, b'<')) => return Ok(Err(self.pass(dropped, end, "`<` within a row"))),
                Some((end, b'>')) if quote.is_none() => {
                    let length = dropped + end as u64 + 1;
                    if length > self.max_record as u64 {
                        self.pass(dropped, end + 1, "");
                        let detail = format!("a row of {length} bytes, expected at most {}", self.max_record);
                        return Ok(Err(Rejection::new(fault::TOO_LARGE, detail)));
                    }
                    return Ok(Ok(end + 1));
                }
                Some((end, byte)) => {
                    quote = if quote.is_none() { Some(byte) } else { None };
                    at = end + 1;
                    continue;
                }
                None => at = bytes.len(),
            }
            if at > self.max_record {
                dropped += at as u64;
                self.window.consume(at);
                at = 0;
            }
            self.bytes = dropped + at as u64;
            if !self.window.more()? {
                // The file ends here, and this row is the fault of it.
                self.closed = true;
                return Ok(Err(self.pass(dropped, at, "the file ends within a row")));
            }
        }
    }

    /// Passes a row that is a fault.
    fn pass(&mut self, dropped: u64, length: usize, detail: &str) -> Rejection {
        self.window.consume(length);
        self.bytes = dropped + length as u64;
        Rejection::new(fault::CORRUPT_RECORD, format!("a malformed row: {detail}"))
    }
}
