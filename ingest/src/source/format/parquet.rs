//! Parquet: a record a row, of the columns asked for and no others.
//!
//! Pictures are a binary column or a struct of `bytes` and `path`; class numbers get the names that Hugging Face keeps in
//! the file's metadata. Promises: damage costs the rest of its row group, as one fault; the place is the number of the
//! row, from 1. The file is spooled, for its metadata stands at the end; one batch of some MiB and the pages under it are
//! held. Deliberately absent: encryption, and text in lists.

use std::io::{self, Read};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Fields, Schema};
use bytes::Bytes;
use forebay_schemas::dataset::Modality;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};

use super::columns::{self, Columns, as_view};
use crate::clean::Rejection;
use crate::source::container::{self, spool::Spool};
use crate::source::fault;
use crate::source::open::{End, Flow, Item, Walk};

/// Content of a batch, about.
const BATCH_BYTES: u64 = 4 << 20;
const BATCH_ROWS: u64 = 1024;

/// Reads the rows.
pub(super) fn read(walk: &mut Walk<'_, '_>, item: Item<'_>, input: &mut dyn Read) -> Flow {
    let spool = match Spool::read(input, walk.reading.formats.max_spooled.0) {
        Ok(spool) => spool,
        Err(error) => return walk.abort(error),
    };
    let length = spool.len();
    if let Some(damage) = spool.damage() {
        return walk.damaged(item.place.to_owned(), length, damage.clone());
    }
    let wanted = columns::wanted(walk.reading.formats, walk.reading.modality);
    let opened = guarded(|| Ok(Table::open(spool, &wanted, walk.reading.modality))).unwrap_or_else(|error| Err(corrupt(&error)));
    let table = match opened {
        Ok(table) => table,
        Err(fault) => return walk.damaged(item.place.to_owned(), length, fault),
    };
    let mut first = 1_u64;
    for group in 0..table.metadata.metadata().num_row_groups() {
        group_rows(walk, item, &table, group, first)?;
        first += u64::try_from(table.metadata.metadata().row_group(group).num_rows()).unwrap_or(0);
        if walk.origin.is_exhausted() {
            return ControlFlow::Continue(End::Damaged);
        }
    }
    ControlFlow::Continue(End::Complete)
}

/// The rows of one group, of which the first is number `first`.
fn group_rows(walk: &mut Walk<'_, '_>, item: Item<'_>, table: &Table, group: usize, first: u64) -> ControlFlow<()> {
    let rows = u64::try_from(table.metadata.metadata().row_group(group).num_rows()).unwrap_or(0);
    let mut number = first;
    let place = |number: u64| format!("{}#{number}", item.place);
    let max_ratio = walk.reading.formats.max_ratio;
    let (unpacked, packed) = table.sizes(group);
    if container::is_bomb(unpacked, packed, max_ratio) {
        return walk.fault(place(number), packed, container::bomb(unpacked, packed, max_ratio));
    }
    let mut batches = match guarded(|| table.group(group)) {
        Ok(batches) => batches,
        Err(error) => return walk.fault(place(number), 0, corrupt(&error)),
    };
    loop {
        let batch = match guarded(|| batches.next().transpose().map_err(ParquetError::from)) {
            Ok(Some(batch)) => batch,
            Ok(None) if number - first == rows => return ControlFlow::Continue(()),
            Ok(None) => {
                let detail = format!("parquet: a row group of {} rows, expected {rows}", number - first);
                return walk.fault(place(number), 0, Rejection::new(fault::CORRUPT_RECORD, detail));
            }
            Err(error) => return walk.fault(place(number), 0, corrupt(&error)),
        };
        let columns = match Columns::of(&batch, &table.wanted, walk.reading.modality) {
            Ok(columns) => columns,
            Err(fault) => return walk.fault(place(number), 0, fault),
        };
        for row in 0..batch.num_rows() {
            // A group with more rows than it says would take the numbers of the next one.
            if number - first == rows {
                return ControlFlow::Continue(());
            }
            let record = columns.record(row, place(number), walk.reading.max_record_bytes, &table.class_names);
            // A dictionary of one value can stand for any number of rows.
            if let Some(bomb) = container::charge(walk.origin, record.bytes, max_ratio) {
                return walk.fault(record.place, record.bytes, bomb);
            }
            walk.emit(record)?;
            number += 1;
        }
    }
}

fn corrupt(error: &ParquetError) -> Rejection {
    let reason = match error {
        ParquetError::NYI(_) => fault::UNSUPPORTED_FORMAT,
        ParquetError::General(text) if text.contains("Disabled feature") => fault::UNSUPPORTED_FORMAT,
        _ => fault::CORRUPT_RECORD,
    };
    Rejection::new(reason, format!("parquet: {error}"))
}

/// What `call` gives, a panic as an error: the reader of the `parquet` crate has asserts that some damaged files meet.
fn guarded<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err(ParquetError::General("the pages contradict each other".to_owned())))
}

/// An open file.
struct Table {
    file: Chunks,
    metadata: ArrowReaderMetadata,
    wanted: [String; 2],
    mask: ProjectionMask,
    /// Names of the classes by their numbers.
    class_names: Vec<String>,
}

impl Table {
    fn open(spool: Spool, wanted: &[String; 2], modality: Modality) -> std::result::Result<Self, Rejection> {
        let file = Chunks(spool);
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = ArrowReaderMetadata::load(&file, options.clone()).map_err(|error| corrupt(&error))?;
        let leaves: Vec<String> = leaves(metadata.schema().fields());
        let has = |path: &String| leaves.iter().any(|column| column == path || column.starts_with(&format!("{path}.")));
        if !has(&wanted[0]) {
            let told = leaves.iter().take(8).map(|column| format!("`{column}`")).collect::<Vec<_>>().join(", ");
            return Err(Rejection::new(columns::reason(modality), format!("column `{}`: found only {told}", wanted[0])));
        }
        let mask = ProjectionMask::columns(metadata.parquet_schema(), wanted.iter().map(String::as_str));
        if let Some(found) = unfit(metadata.schema().fields(), &wanted[0]) {
            let detail = format!("column `{}`: found {found}, expected text or bytes", wanted[0]);
            return Err(Rejection::new(columns::reason(modality), detail));
        }
        // As views, values are not copied together: a dictionary of large values cannot blow a batch up.
        let schema = Arc::new(Schema::new(metadata.schema().fields().iter().map(as_view).collect::<Fields>()));
        let metadata =
            ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options.with_schema(schema)).map_err(|error| corrupt(&error))?;
        let class_names = class_names(&metadata, &wanted[1]);
        Ok(Self { file, metadata, wanted: wanted.clone(), mask, class_names })
    }

    /// Bytes of a group's columns that are read, unpacked and packed.
    fn sizes(&self, group: usize) -> (u64, u64) {
        let columns = self.metadata.metadata().row_group(group).columns().iter().enumerate();
        columns.filter(|(leaf, _)| self.mask.leaf_included(*leaf)).fold((0, 0), |(unpacked, packed): (u64, u64), (_, column)| {
            let size = |size: i64| u64::try_from(size).unwrap_or(0);
            (unpacked.saturating_add(size(column.uncompressed_size())), packed.saturating_add(size(column.compressed_size())))
        })
    }

    fn group(&self, group: usize) -> Result<ParquetRecordBatchReader> {
        let metadata = self.metadata.metadata().row_group(group);
        let rows = u64::try_from(metadata.num_rows()).unwrap_or(0).max(1);
        let rows = (BATCH_BYTES.saturating_mul(rows) / self.sizes(group).0.max(1)).clamp(1, BATCH_ROWS);
        ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), self.metadata.clone())
            .with_projection(self.mask.clone())
            .with_row_groups(vec![group])
            .with_batch_size(rows as usize)
            .build()
    }
}

/// Dotted paths of the columns that structs and lists are made of.
fn leaves(fields: &Fields) -> Vec<String> {
    let inner = |field: &FieldRef| match field.data_type() {
        DataType::Struct(fields) => leaves(fields).into_iter().map(|leaf| format!("{}.{leaf}", field.name())).collect(),
        _ => vec![field.name().clone()],
    };
    fields.iter().flat_map(inner).collect()
}

/// The type of the column `path` if nothing in it can be read: a list or map would unpack for nothing.
fn unfit(fields: &Fields, path: &str) -> Option<String> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let (_, field) = fields.find(first)?;
    match (field.data_type(), rest) {
        (DataType::Struct(inner), Some(rest)) => unfit(inner, rest),
        (DataType::Struct(_) | DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary, None) => None,
        (other, _) => Some(other.to_string()),
    }
}

/// The names that `datasets` of Hugging Face writes for a `ClassLabel` column.
fn class_names(metadata: &ArrowReaderMetadata, column: &str) -> Vec<String> {
    let pairs = metadata.metadata().file_metadata().key_value_metadata();
    let written = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == "huggingface")?.value.as_deref());
    let parsed: Option<serde_json::Value> = written.and_then(|json| serde_json::from_str(json).ok());
    let names = parsed.as_ref().and_then(|json| json["info"]["features"][column]["names"].as_array());
    names.into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

/// The spooled file, with every range checked.
#[derive(Clone)]
struct Chunks(Spool);

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl ChunkReader for Chunks {
    type T = io::BufReader<Spool>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(io::BufReader::new(self.0.at(start)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        Ok(self.0.range(start, length)?)
    }
}
