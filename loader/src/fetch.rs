//! Rows from storage: sorted, joined into ranges, read at once, and found again.
//!
//! Promises: each row of a group is read once, however often it is drawn; neighbours are read as one range, and so are
//! rows with a gap between them that is cheaper to read than to skip; of what is read at least half was asked for.
//! Deliberately absent: which rows belong together in a group (`prefetch`), and any copy that outlives its group.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use forebay_store::Table;

use crate::error::{Error, Result};

/// A gap of so many bytes is read along: a request for it alone would cost more.
const GAP_BYTES: u64 = 8 << 10;

/// A table and what is read of it.
#[derive(Clone)]
pub(crate) struct Fetch {
    pub(crate) table: Arc<dyn Table>,
    pub(crate) split: String,
    pub(crate) columns: &'static [&'static str],
}

/// Rows of a table in memory.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) rows: RecordBatch,
    ranges: Ranges,
}

impl Fetch {
    /// Reads the rows of `ranges`.
    pub(crate) async fn read(&self, ranges: Ranges) -> Result<Fetched> {
        let rows = self.table.read(&ranges.ranges, self.columns).await.map_err(|source| Error::Store {
            split: self.split.clone(),
            doing: format!("cannot read {} rows in {} ranges", ranges.rows(), ranges.ranges.len()),
            source,
        })?;
        if rows.num_rows() as u64 != ranges.rows() {
            return Err(Error::Internal(format!("split `{}`: found {} rows, expected {}", self.split, rows.num_rows(), ranges.rows())));
        }
        Ok(Fetched { rows, ranges })
    }
}

impl Fetched {
    /// Where `row` is in `rows`; none if it was not asked for.
    pub(crate) fn place(&self, row: u64) -> Option<usize> {
        self.ranges.place(row)
    }
}

/// Ascending, disjoint ranges of rows, and how many rows are before each.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ranges {
    ranges: Vec<Range<u64>>,
    before: Vec<u64>,
}

impl Ranges {
    /// Covers `rows`, in any order and with repetitions; `row_bytes` is what a row takes, about.
    pub(crate) fn covering(rows: Vec<u64>, row_bytes: u64) -> Self {
        Self::with_gaps(rows, GAP_BYTES / row_bytes.max(1))
    }

    fn with_gaps(mut rows: Vec<u64>, longest_gap: u64) -> Self {
        rows.sort_unstable();
        rows.dedup();
        let mut ranges: Vec<Range<u64>> = Vec::new();
        // Rows of the last range that were asked for: its gaps may be as many, and no more.
        let mut wanted = 0;
        for row in rows {
            match ranges.last_mut() {
                Some(last) if row - last.end <= longest_gap && row - last.start <= 2 * wanted => {
                    last.end = row + 1;
                    wanted += 1;
                }
                _ => {
                    ranges.push(row..row + 1);
                    wanted = 1;
                }
            }
        }
        let before = ranges.iter().scan(0, |sum, range| Some(std::mem::replace(sum, *sum + range.end - range.start))).collect();
        Self { ranges, before }
    }

    /// Number of rows covered.
    pub(crate) fn rows(&self) -> u64 {
        self.ranges.last().zip(self.before.last()).map_or(0, |(range, before)| before + range.end - range.start)
    }

    fn place(&self, row: u64) -> Option<usize> {
        let i = self.ranges.partition_point(|range| range.end <= row);
        let range = self.ranges.get(i).filter(|range| range.contains(&row))?;
        Some((self.before[i] + row - range.start) as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_row_is_covered_once_and_found_again(rows in prop::collection::vec(0u64..400, 0..80), gap in 0u64..8) {
            let found = Ranges::with_gaps(rows.clone(), gap);
            let wanted: BTreeSet<u64> = rows.into_iter().collect();
            prop_assert!(found.ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "{:?}", found);
            let flat: Vec<u64> = found.ranges.iter().cloned().flatten().collect();
            prop_assert_eq!(flat.len() as u64, found.rows());
            for row in 0..400 {
                prop_assert_eq!(found.place(row), flat.iter().position(|other| *other == row));
            }
            prop_assert!(wanted.iter().all(|row| found.place(*row).is_some()));
            for range in &found.ranges {
                let useful = range.clone().filter(|row| wanted.contains(row)).count() as u64;
                prop_assert!(wanted.contains(&range.start) && wanted.contains(&(range.end - 1)));
                prop_assert!(range.end - range.start <= 2 * useful, "{:?}: {} useful", range, useful);
            }
        }
    }

    #[test]
    fn neighbours_become_one_range_and_short_gaps_are_read_along() {
        let rows = || vec![7, 3, 4, 5, 3, 20];
        assert_eq!(Ranges::with_gaps(rows(), 0).ranges, [3..6, 7..8, 20..21]);
        assert_eq!(Ranges::with_gaps(rows(), 1).ranges, [3..8, 20..21]);
        assert_eq!(Ranges::with_gaps(rows(), 1000).ranges, [3..8, 20..21]);
    }
}
