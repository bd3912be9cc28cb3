//! Parquet tables: a list of immutable files in row order.
//!
//! A table with a parent lists the parent's files and then its own, whose names nobody else uses, so a crashed writer
//! leaves files that no list names. Pages are small and indexed, so that a read of a few rows fetches little more than
//! these. Encoded images are stored as they are; they do not compress.

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use forebay_schemas::dataset::{FileRef, TableFormat, TableRef};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::file::metadata::PageIndexPolicy;

use super::select::Predicate;
use super::{RowRanges, Table, Tables, conform, named, project, ranges};
use crate::cause::from_parquet;
use crate::error::{Error, Kind, Result};
use crate::location::Location;

mod read;
mod write;

use read::Reader;

const SCAN_BATCH_ROWS: usize = 512;
/// Files that one call reads or checks at a time.
const FILES_IN_FLIGHT: usize = 8;

/// Parquet tables below a location.
pub(super) struct ParquetTables {
    location: Location,
}

impl ParquetTables {
    pub(super) fn new(location: Location) -> Self {
        Self { location }
    }

    async fn check_size(&self, file: &FileRef) -> Result<()> {
        let object = &file.object;
        match self.location.head(&object.path).await? {
            Some(meta) if meta.size == object.bytes => Ok(()),
            Some(meta) => Err(self.location.corrupt(&object.path, format!("has {} bytes, expected {}", meta.size, object.bytes))),
            None => Err(self.location.corrupt(&object.path, format!("is missing, expected {} bytes", object.bytes))),
        }
    }
}

#[async_trait]
impl Tables for ParquetTables {
    async fn write(
        &self,
        path: &str,
        parent: Option<&TableRef>,
        schema: SchemaRef,
        rows: BoxStream<'static, Result<RecordBatch>>,
    ) -> Result<TableRef> {
        let mut files = match parent {
            Some(parent) => checked(&named(&self.location, &parent.path), parent)?.files.clone(),
            None => Vec::new(),
        };
        files.extend(write::files(&self.location, path, schema, rows, files.is_empty()).await?);
        let rows = files.iter().map(|file| file.rows).sum();
        Ok(TableRef {
            format: TableFormat::Parquet,
            path: path.to_owned(),
            lance_version: None,
            files,
            rows,
            parts: Vec::new(),
            deleted: None,
        })
    }

    async fn open(&self, table: &TableRef) -> Result<Arc<dyn Table>> {
        let name = named(&self.location, &table.path);
        checked(&name, table)?;
        let checks: Vec<_> = table.files.iter().map(|file| self.check_size(file)).collect();
        futures::stream::iter(checks).buffer_unordered(FILES_IN_FLIGHT).try_collect::<()>().await?;
        let files = table.files.iter().map(|file| File { file: file.clone(), metadata: Mutex::default() }).collect();
        let mut table = ParquetTable { location: self.location.clone(), name, schema: Arc::new(Schema::empty()), starts: vec![0], files };
        table.starts.extend(table.files.iter().scan(0, |rows, file| {
            *rows += file.file.rows;
            Some(*rows)
        }));
        if let Some(first) = table.files.first() {
            let fields = first.metadata(&table.location).await?.schema().fields().clone();
            table.schema = Arc::new(Schema::new(fields));
        }
        Ok(Arc::new(table))
    }
}

/// The table, if it is one of ours and its files add up to its rows.
fn checked<'a>(name: &str, table: &'a TableRef) -> Result<&'a TableRef> {
    if table.format != TableFormat::Parquet {
        return Err(Error::new(Kind::Invalid, format!("{name}: is {:?}, expected a Parquet table", table.format)));
    }
    let found: u64 = table.files.iter().map(|file| file.rows).sum();
    if found != table.rows {
        return Err(Error::new(Kind::Corrupt, format!("{name}: its files have {found} rows, expected {}", table.rows)));
    }
    Ok(table)
}

/// An open Parquet table.
struct ParquetTable {
    location: Location,
    name: String,
    schema: SchemaRef,
    /// First row of every file, then the number of rows.
    starts: Vec<u64>,
    files: Vec<File>,
}

struct File {
    file: FileRef,
    /// Read at first use.
    metadata: Mutex<Option<ArrowReaderMetadata>>,
}

impl File {
    async fn metadata(&self, location: &Location) -> Result<ArrowReaderMetadata> {
        if let Some(metadata) = self.metadata.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            return Ok(metadata.clone());
        }
        let path = &self.file.object.path;
        let options = ArrowReaderOptions::new().with_offset_index_policy(PageIndexPolicy::Optional);
        let mut reader = Reader::new(location, &self.file);
        // Of a schema that is damaged arrow does not say so, it panics.
        let metadata = AssertUnwindSafe(ArrowReaderMetadata::load_async(&mut reader, options)).catch_unwind().await;
        let metadata = metadata.map_err(|_| location.corrupt(path, "has a footer that cannot be read".to_owned()))?;
        let metadata = metadata.map_err(|error| from_parquet(&location.named(path), error))?;
        let rows = metadata.metadata().file_metadata().num_rows();
        if rows != self.file.rows as i64 {
            return Err(location.corrupt(path, format!("has {rows} rows, expected {}", self.file.rows)));
        }
        *self.metadata.lock().unwrap_or_else(PoisonError::into_inner) = Some(metadata.clone());
        Ok(metadata)
    }

    /// The rows of a selection, or all, in batches of at most `batch_rows`.
    async fn stream(
        &self,
        location: &Location,
        columns: &[String],
        selection: Option<RowSelection>,
        batch_rows: usize,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let name = location.named(&self.file.object.path);
        let metadata = self.metadata(location).await?;
        let roots: Vec<usize> = columns.iter().filter_map(|column| metadata.schema().index_of(column).ok()).collect();
        let mask = ProjectionMask::roots(metadata.parquet_schema(), roots);
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(Reader::new(location, &self.file), metadata)
            .with_projection(mask)
            .with_batch_size(batch_rows.max(1));
        if let Some(selection) = selection {
            builder = builder.with_row_selection(selection);
        }
        let stream = builder.build().map_err(|error| from_parquet(&name, error))?;
        Ok(stream.map_err(move |error| from_parquet(&name, error)).boxed())
    }
}

impl ParquetTable {
    async fn read_part(&self, part: &ranges::Part, columns: &[String]) -> Result<Vec<RecordBatch>> {
        let file = &self.files[part.index];
        let rows = part.ranges.iter().map(|range| range.start as usize..range.end as usize);
        let selection = RowSelection::from_consecutive_ranges(rows, file.file.rows as usize);
        file.stream(&self.location, columns, Some(selection), part.rows() as usize).await?.try_collect().await
    }
}

#[async_trait]
impl Table for ParquetTable {
    fn rows(&self) -> u64 {
        self.starts[self.starts.len() - 1]
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    async fn read(&self, ranges: &[Range<u64>], columns: &[&str]) -> Result<RecordBatch> {
        let schema = project(&self.name, &self.schema, columns)?;
        let plan = ranges::plan(&self.name, &self.starts, ranges)?;
        let columns: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
        let reads: Vec<_> = plan.parts.iter().map(|part| self.read_part(part, &columns)).collect();
        let read: Vec<_> = futures::stream::iter(reads).buffered(FILES_IN_FLIGHT).try_collect().await?;
        plan.assemble(&self.name, &schema, &read)
    }

    async fn select(&self, predicate: &str) -> Result<BoxStream<'static, Result<RowRanges>>> {
        Predicate::parse(&self.name, &self.schema, predicate)?.scan(self).await
    }

    async fn scan(&self, columns: &[&str]) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let schema = project(&self.name, &self.schema, columns)?;
        let columns: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
        let (location, name) = (self.location.clone(), self.name.clone());
        let mut files = Vec::with_capacity(self.files.len());
        for file in &self.files {
            let metadata = Mutex::new(file.metadata.lock().unwrap_or_else(PoisonError::into_inner).clone());
            files.push(File { file: file.file.clone(), metadata });
        }
        let rows = futures::stream::iter(files)
            .then(move |file| {
                let (location, columns) = (location.clone(), columns.clone());
                async move { file.stream(&location, &columns, None, SCAN_BATCH_ROWS).await }
            })
            .try_flatten();
        Ok(rows.map(move |batch| conform(&name, &schema, &batch?)).boxed())
    }
}
