//! Formats of raw records, one file a format: from a stream of bytes to records.
//!
//! Promises: a record that does not follow its format is a fault, and reading goes on at the next one where the format
//! allows to find it. Deliberately absent: containers around a format, and any judgement of the content.

use std::io::Read;
use std::ops::ControlFlow;

use super::fault;
use super::open::{End, Flow, Item, Walk};
use super::raw::RawRecord;

pub(super) mod columns;
mod csv;
pub(super) mod detect;
mod fields;
mod json;
mod json_lines;
mod json_values;
mod parquet;
mod rows;
pub(crate) mod warc;
pub(super) mod web_dataset;
mod whole;
mod window;

/// A format with a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// A JSON value a line.
    JsonLines,
    /// A JSON array, or values one behind the other.
    Json,
    /// Comma-separated, or whatever the setting says.
    Csv,
    /// Tab-separated.
    Tsv,
    Parquet,
    /// An XML dump of `<row …/>` elements, as Stack Exchange publishes.
    Rows,
    /// WARC or ARC.
    WebArchive,
    /// One record, plain text.
    Plain,
    /// One record, a page.
    Html,
    /// One record, a picture.
    Picture,
}

impl Format {
    /// By the last extension, lower case. Files of text and pictures, of which there are many kinds, are not listed here.
    fn of_name(extension: &str) -> Option<Self> {
        match extension {
            "jsonl" | "ndjson" | "jsonlines" => Some(Self::JsonLines),
            "json" => Some(Self::Json),
            "csv" => Some(Self::Csv),
            "tsv" | "tab" => Some(Self::Tsv),
            "parquet" | "pq" => Some(Self::Parquet),
            "xml" => Some(Self::Rows),
            "warc" | "arc" | "wet" | "wat" => Some(Self::WebArchive),
            "html" | "htm" | "xhtml" => Some(Self::Html),
            _ => None,
        }
    }

    /// By the first bytes, where they leave no doubt.
    fn of_bytes(head: &[u8]) -> Option<Self> {
        match head {
            [b'P', b'A', b'R', b'1', ..] => Some(Self::Parquet),
            [b'W', b'A', b'R', b'C', b'/', b'0' | b'1', ..] => Some(Self::WebArchive),
            [0xFF, 0xD8, 0xFF, ..] | [0x89, b'P', b'N', b'G', 0x0D, 0x0A, 0x1A, 0x0A, ..] => Some(Self::Picture),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::Picture),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Picture),
            _ => None,
        }
    }
}

/// Reads `input` as `format`.
pub(super) fn read(walk: &mut Walk<'_, '_>, format: Format, item: Item<'_>, input: &mut dyn Read) -> Flow {
    match format {
        Format::JsonLines => json_lines::read(walk, item, &mut window::Window::new(input)),
        Format::Json => json::read(walk, item, input),
        Format::Csv => csv::read(walk, item, b',', input),
        Format::Tsv => csv::read(walk, item, b'\t', input),
        Format::Parquet => parquet::read(walk, item, input),
        Format::Rows => rows::read(walk, item, input),
        Format::WebArchive => web_archive(walk, item, input),
        Format::Plain => whole::read(walk, item, whole::Kind::Plain, input),
        Format::Html => whole::read(walk, item, whole::Kind::Html, input),
        Format::Picture => whole::read(walk, item, whole::Kind::Picture, input),
    }
}

fn web_archive(walk: &mut Walk<'_, '_>, item: Item<'_>, input: &mut dyn Read) -> Flow {
    let max_record_bytes = walk.reading.max_record_bytes;
    let mut flow = ControlFlow::Continue(());
    let read = warc::read(item.place, input, max_record_bytes, &mut |record: RawRecord| {
        flow = walk.emit(record);
        flow
    });
    flow?;
    match read {
        Ok(()) => ControlFlow::Continue(End::Complete),
        // Damage of a container around it; a failure of the object's own input ends the walk in `emit`.
        Err(error) => {
            let place = walk.names.place(item.place, "@end");
            walk.damaged(place, 0, fault::rejection(&error))
        }
    }
}

#[cfg(test)]
mod tests;
