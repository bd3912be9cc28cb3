//! Which rows to read from which part of a table, and how to put them back in the order asked for.
//!
//! Pure. A table is a sequence of parts (Lance fragments, Parquet files). Each part is read once, in ascending ranges
//! that do not overlap, which is what both formats are fast at; the order asked for is restored by slicing.

use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;

use crate::error::{Error, Kind, Result};

/// What to read of one part.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Index of the part in the table.
    pub(super) index: usize,
    /// Its rows, ascending, neither overlapping nor adjacent.
    pub(super) ranges: Vec<Range<u64>>,
}

/// A run of rows of the answer.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    /// Index into the parts that are read.
    part: usize,
    /// First row, counted in what is read of the part.
    at: u64,
    rows: u64,
}

/// What to read, and how to order it.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) parts: Vec<Part>,
    pieces: Vec<Piece>,
}

/// Plans the read of `ranges` of a table whose parts begin at `starts` (one more than there are parts).
pub(super) fn plan(name: &str, starts: &[u64], ranges: &[Range<u64>]) -> Result<Plan> {
    let total = starts.last().copied().unwrap_or(0);
    let mut wanted: Vec<(usize, Range<u64>)> = Vec::with_capacity(ranges.len());
    for range in ranges {
        if range.start > range.end || range.end > total {
            return Err(Error::new(Kind::Invalid, format!("{name}: rows {}..{}: it has {total} rows", range.start, range.end)));
        }
        let mut at = range.start;
        while at < range.end {
            // The last part that begins at or before the row; empty parts before it begin at the same row.
            let index = starts.partition_point(|start| *start <= at) - 1;
            let end = range.end.min(starts[index + 1]);
            wanted.push((index, at - starts[index]..end - starts[index]));
            at = end;
        }
    }

    let mut sorted = wanted.clone();
    sorted.sort_unstable_by_key(|(index, range)| (*index, range.start));
    let mut parts: Vec<Part> = Vec::new();
    for (index, range) in sorted {
        match parts.last_mut().filter(|part| part.index == index) {
            None => parts.push(Part { index, ranges: vec![range] }),
            Some(part) => match part.ranges.last_mut().filter(|last| last.end >= range.start) {
                Some(last) => last.end = last.end.max(range.end),
                None => part.ranges.push(range),
            },
        }
    }
    let mut pieces: Vec<Piece> = Vec::new();
    for piece in wanted.iter().filter_map(|(index, range)| place(&parts, *index, range)) {
        match pieces.last_mut().filter(|last| last.part == piece.part && last.at + last.rows == piece.at) {
            // What is asked for in the order of the table is what is read: no row of it is copied.
            Some(last) => last.rows += piece.rows,
            None => pieces.push(piece),
        }
    }
    Ok(Plan { parts, pieces })
}

/// Where a range of part `index` is found in what is read.
fn place(parts: &[Part], index: usize, range: &Range<u64>) -> Option<Piece> {
    let part = parts.binary_search_by_key(&index, |part| part.index).ok()?;
    let mut before = 0;
    for read in &parts[part].ranges {
        if read.contains(&range.start) {
            return Some(Piece { part, at: before + range.start - read.start, rows: range.end - range.start });
        }
        before += read.end - read.start;
    }
    None
}

impl Part {
    /// Number of rows that are read.
    pub(super) fn rows(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }
}

impl Plan {
    /// The answer, from the batches read of every part.
    pub(super) fn assemble(&self, name: &str, schema: &SchemaRef, read: &[Vec<RecordBatch>]) -> Result<RecordBatch> {
        for (part, batches) in self.parts.iter().zip(read) {
            let found: u64 = batches.iter().map(|batch| batch.num_rows() as u64).sum();
            if found != part.rows() {
                return Err(Error::new(Kind::Corrupt, format!("{name}: part {} gave {found} rows, expected {}", part.index, part.rows())));
            }
        }
        let mut slices = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            let (mut skip, mut left) = (piece.at as usize, piece.rows as usize);
            for batch in &read[piece.part] {
                let rows = batch.num_rows().saturating_sub(skip).min(left);
                if rows > 0 {
                    slices.push(super::conform(name, schema, &batch.slice(skip, rows))?);
                }
                skip = skip.saturating_sub(batch.num_rows());
                left -= rows;
            }
        }
        match slices.as_slice() {
            [one] => Ok(one.clone()),
            _ => concat_batches(schema, &slices)
                .map_err(|error| Error::new(Kind::Internal, format!("{name}: rows cannot be put together: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use arrow::array::{AsArray, UInt64Array};
    use arrow::datatypes::{DataType, Field, Schema, UInt64Type};
    use proptest::prelude::*;

    fn batch(schema: &SchemaRef, rows: impl Iterator<Item = u64>) -> RecordBatch {
        RecordBatch::try_new(schema.clone(), vec![Arc::new(UInt64Array::from_iter_values(rows))]).expect("batch")
    }

    proptest! {
        #[test]
        fn rows_come_in_the_order_asked_for(
            sizes in prop::collection::vec(0u64..30, 1..6),
            picks in prop::collection::vec((0.0f64..1.0, 0.0f64..1.0), 0..8),
            cut in 1usize..9,
        ) {
            let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("x", DataType::UInt64, false)]));
            let starts: Vec<u64> = std::iter::once(0).chain(sizes.iter().scan(0, |sum, size| { *sum += size; Some(*sum) })).collect();
            let total = starts[sizes.len()];
            let ranges: Vec<Range<u64>> = picks.iter().map(|(a, b)| {
                let (a, b) = ((a * total as f64) as u64, (b * (total + 1) as f64) as u64);
                a.min(b)..a.max(b)
            }).collect();
            let plan = plan("t", &starts, &ranges).expect("plan");
            let read: Vec<Vec<RecordBatch>> = plan.parts.iter().map(|part| {
                prop_assert!(part.ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
                let rows: Vec<u64> = part.ranges.iter().cloned().flatten().map(|row| row + starts[part.index]).collect();
                Ok(rows.chunks(cut).map(|rows| batch(&schema, rows.iter().copied())).collect())
            }).collect::<std::result::Result<_, TestCaseError>>()?;
            let answer = plan.assemble("t", &schema, &read).expect("answer");
            let expected: Vec<u64> = ranges.into_iter().flatten().collect();
            prop_assert_eq!(answer.column(0).as_primitive::<UInt64Type>().values().to_vec(), expected);
        }
    }

    #[test]
    fn ascending_ranges_are_taken_as_they_are_read() {
        let ascending = plan("t", &[0, 10, 20], &[1..3, 5..6, 8..13, 17..18]).expect("plan");
        assert_eq!(ascending.pieces, [Piece { part: 0, at: 0, rows: 5 }, Piece { part: 1, at: 0, rows: 4 }]);
        let backward = plan("t", &[0, 10], &[5..6, 1..3]).expect("plan");
        assert_eq!(backward.pieces, [Piece { part: 0, at: 2, rows: 1 }, Piece { part: 0, at: 0, rows: 2 }]);
    }

    #[test]
    fn rows_beyond_the_end_are_refused() {
        let error = plan("table `t`", &[0, 4, 7], std::slice::from_ref(&(5..9))).expect_err("beyond");
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Invalid, "table `t`: rows 5..9: it has 7 rows"));
    }
}
