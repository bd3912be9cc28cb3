//! JSON (RFC 8259): which way a `.json` file is read, and one value to one record.
//!
//! A `.json` file is an array, values one behind the other, or a value a line as `.jsonl` has it; the first line tells.
//! Promises: what is no JSON, no UTF-8 or has no text is a fault of that record. Deliberately absent: other charsets.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::ControlFlow;

use forebay_schemas::pipeline::Formats;
use serde::de::IgnoredAny;

use super::fields::{self, Fields, Value};
use super::window::Window;
use super::{json_lines, json_values};
use crate::clean::Rejection;
use crate::source::fault;
use crate::source::open::{Flow, Item, Walk};
use crate::source::raw::{Content, RawRecord};

/// Names of fields told of a record without the one asked for.
const TOLD_NAMES: usize = 8;

/// Reads a `.json` file.
pub(super) fn read(walk: &mut Walk<'_, '_>, item: Item<'_>, input: &mut dyn Read) -> Flow {
    let mut window = Window::new(input);
    let first = window.skip_mark().and_then(|()| window.skip_space());
    match first {
        Ok(Some(b'[')) => {
            window.consume(1);
            json_values::array(walk, item, &mut window)
        }
        Ok(Some(b'{')) if !is_line(&mut window, walk.max_record()) => json_values::sequence(walk, item, &mut window),
        Ok(Some(_)) => json_lines::read(walk, item, &mut window),
        Ok(None) => walk.damaged(item.place.to_owned(), 0, Rejection::new(fault::CORRUPT_RECORD, "an empty file, expected JSON")),
        Err(error) => walk.damaged(item.place.to_owned(), 0, fault::rejection(&error)),
    }
}

/// Whether the first line is an object by itself.
fn is_line(window: &mut Window<'_>, max_record: usize) -> bool {
    let mut searched = 0;
    loop {
        let bytes = window.bytes();
        if let Some(at) = memchr::memchr(b'\n', &bytes[searched..]) {
            return bytes[..searched + at].trim_ascii_end().ends_with(b"}");
        }
        searched = bytes.len();
        // An error comes again where the bytes are read for good.
        if searched > max_record || !window.more().unwrap_or(false) {
            return true;
        }
    }
}

/// Makes records of values.
#[derive(Debug)]
pub(super) struct Records {
    fields: Fields,
    text_field: String,
}

impl Records {
    pub(super) fn new(formats: &Formats) -> Self {
        Self { fields: Fields::new([&formats.text_field, &formats.url_field]), text_field: formats.text_field.clone() }
    }

    /// Hands the record out that `json` is; false if it is no JSON, so that nothing is sure of what follows it.
    pub(super) fn emit(&self, walk: &mut Walk<'_, '_>, place: String, json: &[u8]) -> ControlFlow<(), bool> {
        let bytes = json.len() as u64;
        let (content, url, valid) = match self.parse(json) {
            Ok((text, url)) => (Ok(Content::Text(text)), url, true),
            Err(fault) => (Err(fault.clone()), None, fault.reason != fault::CORRUPT_RECORD),
        };
        walk.emit(RawRecord { place, bytes, content, url, class: None })?;
        ControlFlow::Continue(valid)
    }

    /// The text and the address.
    fn parse(&self, json: &[u8]) -> Result<(String, Option<String>), Rejection> {
        let not_utf8 =
            |error: std::str::Utf8Error| Rejection::new(fault::BAD_ENCODING, format!("not UTF-8 at byte {}", error.valid_up_to()));
        let json = std::str::from_utf8(json).map_err(not_utf8)?;
        let [text, url] = self.fields.find(json).map_err(|error| match fields::check(json) {
            Ok(()) if error.to_string().starts_with("number") => self.without_text("a number"),
            // JSON all right, but a string in it is no text.
            Ok(()) => Rejection::new(fault::BAD_ENCODING, format!("an unpaired surrogate: {error}")),
            Err(error) => Rejection::new(fault::CORRUPT_RECORD, format!("not JSON: {error}")),
        })?;
        let found = match text {
            Some(Value::Text(text)) => return Ok((text.into_owned(), url.and_then(Value::label).map(|url| url.into_owned()))),
            Some(Value::Number(_)) => "a number".to_owned(),
            Some(Value::Other(kind)) => kind.to_owned(),
            None => names(json),
        };
        Err(self.without_text(&found))
    }

    fn without_text(&self, found: &str) -> Rejection {
        Rejection::new(fault::NO_TEXT_FIELD, format!("field `{}`: found {found}, expected a string", self.text_field))
    }
}

/// What there is instead of the field asked for.
fn names(json: &str) -> String {
    let Ok(object) = serde_json::from_str::<BTreeMap<String, IgnoredAny>>(json) else { return "no object".to_owned() };
    let names = object.keys().take(TOLD_NAMES).map(|name| format!("`{}`", name.chars().take(40).collect::<String>()));
    match object.len() {
        0 => "an empty object".to_owned(),
        count if count > TOLD_NAMES => format!("only {} and more", names.collect::<Vec<_>>().join(", ")),
        _ => format!("only {}", names.collect::<Vec<_>>().join(", ")),
    }
}
