//! CSV (RFC 4180) and TSV: a record a row, by the names of the first row.
//!
//! Cells that are not UTF-8 stay bytes for the cleaner to decode. Promises: a row that has not the cells of the header or
//! is too large is a fault of its own; the place is its number, from 1, the header not counted. Deliberately absent:
//! guessing delimiter or header.

use std::io::{self, Read};
use std::ops::ControlFlow;

use bytes::Bytes;
use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use forebay_schemas::pipeline::Formats;

use super::window::Window;
use crate::clean::Rejection;
use crate::source::fault;
use crate::source::open::{End, Flow, Item, Walk};
use crate::source::raw::{Content, RawRecord};

/// More cells in a row are no table.
const MAX_CELLS: usize = 1 << 16;
/// Names of columns told of a table without the one asked for.
const TOLD_NAMES: usize = 8;

/// Reads the rows; `delimiter` is what the extension says.
pub(super) fn read(walk: &mut Walk<'_, '_>, item: Item<'_>, delimiter: u8, input: &mut dyn Read) -> Flow {
    let formats = walk.reading.formats;
    let mut rows = Rows::new(Window::new(input), delimiter, formats, walk.max_record());
    let columns = match Columns::of(&mut rows, formats) {
        Ok(Some(columns)) => columns,
        Ok(None) => return ControlFlow::Continue(End::Complete),
        Err(fault) => return walk.damaged(item.place.to_owned(), rows.bytes, fault),
    };
    let mut number = 0_u64;
    loop {
        number += 1;
        let place = format!("{}#{number}", item.place);
        match rows.next() {
            Ok(Some(row)) => match columns.record(&row, formats) {
                Ok((content, url)) => walk.emit(RawRecord { place, bytes: rows.bytes, content: Ok(content), url, class: None })?,
                Err(fault) => walk.fault(place, rows.bytes, fault)?,
            },
            Ok(None) => return ControlFlow::Continue(End::Complete),
            Err(error) => return walk.damaged(place, rows.bytes, fault::rejection(&error)),
        }
    }
}

/// Where in a row the record is.
struct Columns {
    text: usize,
    url: Option<usize>,
    /// Cells of each row; none where no header says.
    count: Option<usize>,
}

impl Columns {
    /// By the header, if there is one; none for an empty file.
    fn of(rows: &mut Rows<'_>, formats: &Formats) -> Result<Option<Self>, Rejection> {
        rows.window.skip_mark().map_err(|error| fault::rejection(&error))?;
        if !formats.header {
            let number = |name: &str| name.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
            let missing = || missing(&formats.text_field, "columns without names, expected a number from 1");
            let text = number(&formats.text_field).ok_or_else(missing)?;
            return Ok(Some(Self { text, url: number(&formats.url_field), count: None }));
        }
        let Some(row) = rows.next().map_err(|error| fault::rejection(&error))? else { return Ok(None) };
        let cells = row?;
        let column = |name: &str| (0..cells.count()).find(|cell| cells.get(*cell).trim_ascii() == name.as_bytes());
        let names = || {
            let names = (0..cells.count())
                .take(TOLD_NAMES)
                .map(|cell| format!("`{}`", String::from_utf8_lossy(cells.get(cell)).chars().take(40).collect::<String>()));
            let more = if cells.count() > TOLD_NAMES { " and more" } else { "" };
            format!("only {}{more}", names.collect::<Vec<_>>().join(", "))
        };
        let text = column(&formats.text_field).ok_or_else(|| missing(&formats.text_field, &names()))?;
        Ok(Some(Self { text, url: column(&formats.url_field), count: Some(cells.count()) }))
    }

    fn record(&self, row: &Row<'_>, formats: &Formats) -> Result<(Content, Option<String>), Rejection> {
        let cells = row.as_ref().map_err(Rejection::clone)?;
        if let Some(count) = self.count.filter(|count| *count != cells.count()) {
            let detail = format!("a row of {} cells, expected {count} as the header has", cells.count());
            return Err(Rejection::new(fault::CORRUPT_RECORD, detail));
        }
        if self.text >= cells.count() {
            return Err(missing(&formats.text_field, &format!("only {} columns", cells.count())));
        }
        let text = cells.get(self.text);
        let content = match std::str::from_utf8(text) {
            Ok(text) => Content::Text(text.to_owned()),
            Err(_) => Content::Plain { bytes: Bytes::copy_from_slice(text), charset: None },
        };
        let url = self.url.filter(|url| *url < cells.count()).map(|url| String::from_utf8_lossy(cells.get(url)).into_owned());
        Ok((content, url.filter(|url| !url.is_empty())))
    }
}

fn missing(column: &str, found: &str) -> Rejection {
    Rejection::new(fault::NO_TEXT_FIELD, format!("column `{column}`: found {found}"))
}

/// The cells of a row, or why there are none.
type Row<'a> = Result<Cells<'a>, Rejection>;

struct Cells<'a> {
    bytes: &'a [u8],
    ends: &'a [usize],
}

impl Cells<'_> {
    fn count(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, cell: usize) -> &[u8] {
        let start = if cell == 0 { 0 } else { self.ends[cell - 1] };
        &self.bytes[start..self.ends[cell]]
    }
}

/// Cuts rows. Not the `csv` crate's reader: that one takes a row of any size into memory.
struct Rows<'i> {
    window: Window<'i>,
    reader: Reader,
    cells: Vec<u8>,
    ends: Vec<usize>,
    max_record: usize,
    /// Bytes of the row that was read last.
    bytes: u64,
}

impl<'i> Rows<'i> {
    fn new(window: Window<'i>, delimiter: u8, formats: &Formats, max_record: usize) -> Self {
        let delimiter = formats.delimiter.and_then(|delimiter| u8::try_from(delimiter).ok()).unwrap_or(delimiter);
        let reader = ReaderBuilder::new().delimiter(delimiter).quoting(formats.quoted).build();
        Self { window, reader, cells: vec![0; 8 << 10], ends: vec![0; 64], max_record, bytes: 0 }
    }

    /// The next row; none at the end.
    fn next(&mut self) -> io::Result<Option<Row<'_>>> {
        self.bytes = 0;
        let (mut filled, mut ended) = (0, 0);
        let mut fault = None;
        loop {
            if self.window.bytes().is_empty() {
                self.window.more()?;
            }
            let (result, read, wrote, ends) =
                self.reader.read_record(self.window.bytes(), &mut self.cells[filled..], &mut self.ends[ended..]);
            self.window.consume(read);
            self.bytes += read as u64;
            (filled, ended) = (filled + wrote, ended + ends);
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if self.cells.len() <= self.max_record => self.cells.resize(self.cells.len() * 2, 0),
                ReadRecordResult::OutputEndsFull if self.ends.len() < MAX_CELLS => self.ends.resize(self.ends.len() * 2, 0),
                // The row is passed over to its end, and what is kept of it is overwritten.
                ReadRecordResult::OutputFull => (filled, fault) = (0, Some(fault::TOO_LARGE)),
                ReadRecordResult::OutputEndsFull => (ended, fault) = (0, Some(fault::CORRUPT_RECORD)),
                ReadRecordResult::Record => break,
                ReadRecordResult::End => return Ok(None),
            }
        }
        if self.bytes > self.max_record as u64 {
            fault.get_or_insert(fault::TOO_LARGE);
        }
        Ok(Some(match fault {
            None => Ok(Cells { bytes: &self.cells[..filled], ends: &self.ends[..ended] }),
            Some(fault::CORRUPT_RECORD) => Err(Rejection::new(fault::CORRUPT_RECORD, format!("a row of more than {MAX_CELLS} cells"))),
            Some(reason) => Err(Rejection::new(reason, format!("a row of {} bytes, expected at most {}", self.bytes, self.max_record))),
        }))
    }
}
