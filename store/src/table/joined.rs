//! A table of parts: plain tables one after the other, less the rows that are deleted.
//!
//! This is how a version adds to its parent: the parts of the parent stay as they are, new rows are a part of their own,
//! and rows that no longer count are named in a list. So writers never touch a table that another one reads or writes.
//! Deliberately absent: merging parts; an ingest from the start makes a table of one.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use super::{Direct, RowRanges, Table, project};
use crate::error::{Error, Kind, Result};

/// Reads that one call has under way.
const READS_IN_FLIGHT: usize = 8;

/// Parts as one table.
pub(super) struct Joined {
    name: String,
    parts: Vec<Arc<dyn Table>>,
    /// First row of every part, deleted ones counted, then the number of all rows.
    starts: Vec<u64>,
    /// Ascending, counted as `starts`.
    deleted: Vec<u64>,
}

impl Joined {
    /// Joins parts; `deleted` must ascend and lie within them.
    pub(super) fn new(name: String, parts: Vec<Arc<dyn Table>>, deleted: Vec<u64>) -> Result<Self> {
        let mut starts = vec![0];
        for part in &parts {
            starts.push(starts[starts.len() - 1] + part.rows());
        }
        let total = starts[starts.len() - 1];
        let is_ascending = deleted.windows(2).all(|pair| pair[0] < pair[1]) && deleted.last().is_none_or(|last| *last < total);
        if parts.is_empty() || !is_ascending {
            return Err(Error::new(Kind::Corrupt, format!("{name}: its list of deleted rows does not ascend within its {total} rows")));
        }
        Ok(Self { name, parts, starts, deleted })
    }

    /// Rows of the parts, deleted ones counted, that `range` of the table means; ascending.
    fn within_parts(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut found = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let first = undeleted(&self.deleted, at);
            // Up to the next deleted row nothing is skipped.
            let next = self.deleted.partition_point(|row| *row < first);
            let room = self.deleted.get(next).map_or(u64::MAX, |row| row - first);
            let count = room.min(range.end - at);
            found.push(first..first + count);
            at += count;
        }
        found
    }

    /// A range of the parts' rows cut at the parts: (part, rows in it).
    fn cut(&self, range: Range<u64>) -> Vec<(usize, Range<u64>)> {
        let mut pieces = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let part = self.starts.partition_point(|start| *start <= at) - 1;
            let end = range.end.min(self.starts[part + 1]);
            pieces.push((part, at - self.starts[part]..end - self.starts[part]));
            at = end;
        }
        pieces
    }
}

/// The row, deleted ones counted, of the undeleted row number `row`.
pub(crate) fn undeleted(deleted: &[u64], row: u64) -> u64 {
    // The number of deleted rows before the answer; `deleted[i] - i` is the undeleted row that follows the deletion.
    let (mut low, mut high) = (0, deleted.len());
    while low < high {
        let middle = (low + high) / 2;
        if deleted[middle] - middle as u64 <= row { low = middle + 1 } else { high = middle }
    }
    row + low as u64
}

#[async_trait]
impl Table for Joined {
    fn rows(&self) -> u64 {
        self.starts[self.starts.len() - 1] - self.deleted.len() as u64
    }

    fn schema(&self) -> SchemaRef {
        self.parts[0].schema()
    }

    async fn read(&self, ranges: &[Range<u64>], columns: &[&str]) -> Result<RecordBatch> {
        let (name, rows) = (&self.name, self.rows());
        if let Some(bad) = ranges.iter().find(|range| range.start > range.end || range.end > rows) {
            return Err(Error::new(Kind::Invalid, format!("{name}: rows {}..{}: it has {rows} rows", bad.start, bad.end)));
        }
        // Consecutive pieces of one part are one read.
        let mut reads: Vec<(usize, Vec<Range<u64>>)> = Vec::new();
        for range in ranges.iter().flat_map(|range| self.within_parts(range)) {
            for (part, piece) in self.cut(range) {
                match reads.last_mut().filter(|(last, _)| *last == part) {
                    Some((_, pieces)) => pieces.push(piece),
                    None => reads.push((part, vec![piece])),
                }
            }
        }
        let reads: Vec<_> = reads
            .into_iter()
            .map(|(part, pieces)| {
                let table = Arc::clone(&self.parts[part]);
                async move { table.read(&pieces, columns).await }
            })
            .collect();
        let read: Vec<RecordBatch> = futures::stream::iter(reads).buffered(READS_IN_FLIGHT).try_collect().await?;
        let schema = project(name, &self.schema(), columns)?;
        concat_batches(&schema, &read).map_err(|error| Error::with_source(Kind::Corrupt, format!("{name}: its parts differ"), error))
    }

    async fn direct(&self, rows: &[u64], column: &str) -> Result<Option<Direct>> {
        let rows: Vec<u64> = rows.iter().map(|row| undeleted(&self.deleted, *row)).collect();
        let (mut left, mut found) = (rows.as_slice(), None::<Direct>);
        while let Some(first) = left.first() {
            let part = self.starts.partition_point(|start| start <= first) - 1;
            let Some(table) = self.parts.get(part) else { return Ok(None) };
            let (within, rest) = left.split_at(left.partition_point(|row| *row < self.starts[part + 1]));
            let within: Vec<u64> = within.iter().map(|row| row - self.starts[part]).collect();
            let Some(more) = table.direct(&within, column).await? else { return Ok(None) };
            let fits = match &mut found {
                Some(found) => found.append(more),
                None => found.replace(more).is_none(),
            };
            if !fits {
                return Ok(None);
            }
            left = rest;
        }
        Ok(found)
    }

    async fn select(&self, predicate: &str) -> Result<BoxStream<'static, Result<RowRanges>>> {
        let mut streams = Vec::with_capacity(self.parts.len());
        for (part, table) in self.parts.iter().enumerate() {
            let first = self.starts[part];
            let from = self.deleted.partition_point(|row| *row < first);
            let to = self.deleted.partition_point(|row| *row < self.starts[part + 1]);
            let deleted: Vec<u64> = self.deleted[from..to].to_vec();
            let ranges = table.select(predicate).await?;
            streams.push(ranges.map(move |ranges| Ok(undeleted_ranges(&ranges?, first, from as u64, &deleted))));
        }
        Ok(futures::stream::iter(streams).flatten().boxed())
    }

    async fn scan(&self, columns: &[&str]) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let mut streams = Vec::with_capacity(self.parts.len());
        for (part, table) in self.parts.iter().enumerate() {
            let first = self.starts[part];
            let from = self.deleted.partition_point(|row| *row < first);
            let to = self.deleted.partition_point(|row| *row < self.starts[part + 1]);
            let deleted: Vec<u64> = self.deleted[from..to].iter().map(|row| row - first).collect();
            let mut at = 0;
            let rows = table.scan(columns).await?;
            streams.push(rows.map(move |batch| {
                let batch = batch?;
                let rows = at..at + batch.num_rows() as u64;
                at = rows.end;
                without(&batch, rows, &deleted)
            }));
        }
        Ok(futures::stream::iter(streams).flatten().boxed())
    }
}

/// Ranges of a part's rows as ranges of the joined table's: the part begins at `first`, `before` rows before it are deleted,
/// and `deleted` are those in it.
fn undeleted_ranges(ranges: &[Range<u64>], first: u64, before: u64, deleted: &[u64]) -> RowRanges {
    let mut found = RowRanges::new();
    for range in ranges {
        let (mut at, end) = (range.start + first, range.end + first);
        while at < end {
            let skipped = deleted.partition_point(|row| *row < at);
            let stop = deleted.get(skipped).map_or(end, |row| end.min(*row));
            if at < stop {
                let less = before + skipped as u64;
                found.push(at - less..stop - less);
            }
            at = stop.max(at) + u64::from(deleted.get(skipped) == Some(&stop));
        }
    }
    found
}

/// A batch that holds `rows`, less those of `deleted`.
fn without(batch: &RecordBatch, rows: Range<u64>, deleted: &[u64]) -> Result<RecordBatch> {
    let from = deleted.partition_point(|row| *row < rows.start);
    let to = deleted.partition_point(|row| *row < rows.end);
    if from == to {
        return Ok(batch.clone());
    }
    let mut keep = vec![true; batch.num_rows()];
    for row in &deleted[from..to] {
        keep[(row - rows.start) as usize] = false;
    }
    filter_record_batch(batch, &BooleanArray::from(keep))
        .map_err(|error| Error::with_source(Kind::Internal, "leaving out deleted rows failed", error))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::select::push;
    use super::*;

    proptest! {
        #[test]
        fn selected_rows_are_counted_without_the_deleted_ones(
            flags in prop::collection::vec((any::<bool>(), any::<bool>()), 1..60), first in 0u64..40, before in 0u64..40,
        ) {
            let before = before.min(first);
            let deleted: Vec<u64> = (0..).zip(&flags).filter(|(_, (gone, _))| *gone).map(|(row, _)| first + row).collect();
            let mut ranges = RowRanges::new();
            (0..).zip(&flags).filter(|(_, (_, wanted))| *wanted).for_each(|(row, _)| push(&mut ranges, row));
            let found: Vec<u64> = undeleted_ranges(&ranges, first, before, &deleted).into_iter().flatten().collect();
            let left = flags.iter().filter(|(gone, _)| !gone).zip(first - before..);
            let expected: Vec<u64> = left.filter(|((_, wanted), _)| *wanted).map(|(_, row)| row).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn undeleted_rows_are_counted_past_the_deleted_ones(flags in prop::collection::vec(any::<bool>(), 1..60)) {
            let deleted: Vec<u64> = (0..flags.len() as u64).filter(|row| flags[*row as usize]).collect();
            let left: Vec<u64> = (0..flags.len() as u64).filter(|row| !flags[*row as usize]).collect();
            for (row, expected) in left.iter().enumerate() {
                prop_assert_eq!(undeleted(&deleted, row as u64), *expected);
            }
        }
    }
}
