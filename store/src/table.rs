//! Immutable tables of rows: one trait, Lance and Parquet behind it.
//!
//! Promises: rows come back in the order written; a table that was opened never changes; what a crashed writer left is
//! in no table. Deliberately absent: indices.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use forebay_schemas::dataset::{TableFormat, TableRef};
use futures::stream::BoxStream;

use crate::error::{Error, Kind, Result};
use crate::location::Location;
use crate::manifest;

pub use direct::Direct;
pub(crate) use joined::undeleted;
pub use select::RowRanges;

mod direct;
mod items;
mod joined;
mod lance;
mod parquet;
mod ranges;
mod select;

/// A gap between bytes that are wanted is read along if it has no more: a request would cost more. Lance's own 64 KiB double what
/// is read of rows that are picked, and more of small columns.
pub const GAP_BYTES: u64 = 8 << 10;

/// Writes and opens tables below a dataset's root.
#[async_trait]
pub trait Tables: Send + Sync {
    /// Writes a table at `path` below the root, in the order of `rows`. It is invisible until a manifest names it.
    ///
    /// With a `parent` the new table is the parent's rows followed by `rows`, and shares the parent's files; rows that a
    /// crashed writer left behind are not in it. Memory is bounded by a few batches. A Lance table lies where its parent
    /// lies, whatever `path` says. `Conflict` if another writer wrote the same table at the same time.
    async fn write(
        &self,
        path: &str,
        parent: Option<&TableRef>,
        schema: SchemaRef,
        rows: BoxStream<'static, Result<RecordBatch>>,
    ) -> Result<TableRef>;

    /// Opens a table; fails as `Corrupt` if its number of rows is not the one that `table` says.
    async fn open(&self, table: &TableRef) -> Result<Arc<dyn Table>>;
}

/// An open table.
#[async_trait]
pub trait Table: Send + Sync {
    /// Number of rows.
    fn rows(&self) -> u64;

    /// Schema of all columns.
    fn schema(&self) -> SchemaRef;

    /// The rows of `ranges`, concatenated in the order given (ranges may be in any order), columns as named.
    async fn read(&self, ranges: &[Range<u64>], columns: &[&str]) -> Result<RecordBatch>;

    /// Where rows of a column are, if it is a list of fixed length whose rows lie in local files as they are in memory: little-endian,
    /// without gaps. None if they have to be read. `rows` ascend, some may be there twice, and there is at least one.
    async fn direct(&self, rows: &[u64], column: &str) -> Result<Option<Direct>> {
        let _ = (rows, column);
        Ok(None)
    }

    /// The rows for which `predicate`, an SQL expression over the columns, is true: ascending ranges that do not overlap.
    /// `Invalid` if it is no predicate over this table. Reads the columns that it names, and of these what the format can tell apart.
    async fn select(&self, predicate: &str) -> Result<BoxStream<'static, Result<RowRanges>>>;

    /// All rows in order, in batches.
    async fn scan(&self, columns: &[&str]) -> Result<BoxStream<'static, Result<RecordBatch>>>;
}

/// Tables below `location`; written in `format`, opened in whatever format they are.
pub(crate) fn tables(location: Location, format: TableFormat) -> Arc<dyn Tables> {
    let lance = self::lance::LanceTables::new(location.clone());
    let parquet = self::parquet::ParquetTables::new(location.clone());
    Arc::new(AnyTables { location, format, lance, parquet })
}

struct AnyTables {
    location: Location,
    format: TableFormat,
    lance: self::lance::LanceTables,
    parquet: self::parquet::ParquetTables,
}

impl AnyTables {
    fn of(&self, format: TableFormat) -> &dyn Tables {
        match format {
            TableFormat::Lance => &self.lance,
            TableFormat::Parquet => &self.parquet,
        }
    }
}

/// The rows that a table of parts lists as deleted, ascending, counted over all parts.
pub(crate) async fn deleted(location: &Location, table: &TableRef) -> Result<Vec<u64>> {
    let Some(object) = &table.deleted else { return Ok(Vec::new()) };
    let bytes = manifest::get_checked(location, object).await?;
    let rows = bytes.chunks_exact(8).map(|row| row.iter().rev().fold(0, |row, byte| row << 8 | u64::from(*byte)));
    Ok(rows.collect())
}

#[async_trait]
impl Tables for AnyTables {
    async fn write(
        &self,
        path: &str,
        parent: Option<&TableRef>,
        schema: SchemaRef,
        rows: BoxStream<'static, Result<RecordBatch>>,
    ) -> Result<TableRef> {
        self.of(self.format).write(path, parent, schema, rows).await
    }

    async fn open(&self, table: &TableRef) -> Result<Arc<dyn Table>> {
        if table.parts.is_empty() && table.deleted.is_none() {
            return self.of(table.format).open(table).await;
        }
        let name = named(&self.location, &table.path);
        let mut parts = Vec::with_capacity(table.parts.len());
        for part in table.plain() {
            parts.push(self.of(part.format).open(part).await?);
        }
        let joined = joined::Joined::new(name.clone(), parts, deleted(&self.location, table).await?)?;
        if joined.rows() != table.rows {
            return Err(Error::new(Kind::Corrupt, format!("{name}: its parts have {} rows, expected {}", joined.rows(), table.rows)));
        }
        Ok(Arc::new(joined))
    }
}

/// Opens a version of the Lance table at `location`, which another program may have written.
pub async fn open_lance(location: &Location, version: u64) -> Result<Arc<dyn Table>> {
    lance::open(location, version).await
}

/// How messages name a table.
fn named(location: &Location, path: &str) -> String {
    format!("table `{}`", location.url_of(path))
}

/// The columns of a schema that are named, in the order named.
fn project(name: &str, schema: &Schema, columns: &[&str]) -> Result<SchemaRef> {
    let fields: Result<Vec<_>> = columns
        .iter()
        .map(|column| {
            schema.field_with_name(column).cloned().map_err(|_| {
                let there: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                Error::new(Kind::Invalid, format!("{name}: has no column `{column}`, expected one of {}", there.join(", ")))
            })
        })
        .collect();
    Ok(Arc::new(Schema::new(fields?)))
}

/// A batch with exactly the columns and types of `schema`.
fn conform(name: &str, schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    let bad = |found: String| Error::new(Kind::Corrupt, format!("{name}: rows do not have the table's schema: {found}"));
    let columns: Result<Vec<_>> = schema
        .fields()
        .iter()
        .map(|field| {
            let column = batch.column_by_name(field.name()).ok_or_else(|| bad(format!("column `{}` is missing", field.name())))?;
            Ok(items::restored(column, field.data_type()))
        })
        .collect();
    RecordBatch::try_new(schema.clone(), columns?).map_err(|error| bad(error.to_string()))
}
