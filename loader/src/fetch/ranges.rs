//! Which ranges of rows to read for rows that are wanted. Pure.
//!
//! Promises: each row is read once, however often it is wanted; neighbours are one range, and so are rows with a gap
//! between them that is cheaper to read than to skip; of what is read at least half was wanted, but for columns so small that
//! it does not matter.

use std::ops::Range;

use forebay_store::GAP_BYTES;

/// Ascending, disjoint ranges of rows, and how many rows are before each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ranges {
    ranges: Vec<Range<u64>>,
    before: Vec<u64>,
}

impl Ranges {
    /// Covers `rows`, in any order and with repetitions; `row_bytes` is what a row takes, about.
    pub(crate) fn covering(rows: Vec<u64>, row_bytes: u64) -> Self {
        Self::with_gaps(rows, GAP_BYTES / row_bytes.max(1), 2)
    }

    /// Covers `rows`, reading gaps of at most so many along, as long as one row in eight is wanted.
    pub(crate) fn spanning(rows: Vec<u64>, longest_gap: u64) -> Self {
        Self::with_gaps(rows, longest_gap, 8)
    }

    /// Exactly `rows`.
    pub(crate) fn exactly(rows: Vec<u64>) -> Self {
        Self::with_gaps(rows, 0, 1)
    }

    /// Of what is covered at least one in `most` was wanted, but for the last row.
    fn with_gaps(mut rows: Vec<u64>, longest_gap: u64, most: u64) -> Self {
        rows.sort_unstable();
        rows.dedup();
        let mut ranges: Vec<Range<u64>> = Vec::new();
        // Rows of the last range that were asked for: its gaps may be as many, and no more.
        let mut wanted = 0u64;
        for row in rows {
            match ranges.last_mut() {
                Some(last) if row - last.end <= longest_gap && row - last.start <= wanted.saturating_mul(most) => {
                    last.end = row + 1;
                    wanted += 1;
                }
                _ => {
                    ranges.push(row..row + 1);
                    wanted = 1;
                }
            }
        }
        Self::of(ranges)
    }

    fn of(ranges: Vec<Range<u64>>) -> Self {
        let before = ranges.iter().scan(0, |sum, range| Some(std::mem::replace(sum, *sum + range.end - range.start))).collect();
        Self { ranges, before }
    }

    /// Cuts between and within ranges, so that no part covers more than `rows` rows.
    pub(crate) fn cut(self, rows: u64) -> Vec<Self> {
        self.in_parts(rows, rows)
    }

    /// The same, but ranges of up to one and a half times `rows` rows stay whole: what lies beside rows is stored in chunks, and those
    /// at a cut would be read twice.
    pub(crate) fn parts(self, rows: u64) -> Vec<Self> {
        self.in_parts(rows, rows.saturating_add(rows / 2))
    }

    /// Parts of `rows` rows, or of up to `most` where a range ends there.
    fn in_parts(self, rows: u64, most: u64) -> Vec<Self> {
        let (rows, most) = (rows.max(1), most.max(1));
        let (mut parts, mut part, mut held) = (Vec::new(), Vec::new(), 0);
        for range in self.ranges {
            let mut at = range.start;
            while at < range.end {
                let left = range.end - at;
                if most > rows && left <= most && held + left > most {
                    parts.push(Self::of(std::mem::take(&mut part)));
                    held = 0;
                }
                let count = if held + left <= most { left } else { rows - held };
                part.push(at..at + count);
                (at, held) = (at + count, held + count);
                if held >= rows {
                    parts.push(Self::of(std::mem::take(&mut part)));
                    held = 0;
                }
            }
        }
        if !part.is_empty() {
            parts.push(Self::of(part));
        }
        parts
    }

    /// The ranges.
    pub(crate) fn as_slice(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// The last row and one.
    pub(crate) fn end(&self) -> u64 {
        self.ranges.last().map_or(0, |range| range.end)
    }

    /// Number of rows covered.
    pub(crate) fn rows(&self) -> u64 {
        self.ranges.last().zip(self.before.last()).map_or(0, |(range, before)| before + range.end - range.start)
    }

    /// The row at a place among the rows covered; none beyond them.
    pub(crate) fn row(&self, place: u64) -> Option<u64> {
        let i = self.before.partition_point(|before| *before <= place).checked_sub(1)?;
        let row = self.ranges[i].start + place - self.before[i];
        self.ranges[i].contains(&row).then_some(row)
    }

    /// Where rows, which ascend and are all covered, are among the rows covered.
    pub(crate) fn places(&self, rows: impl Iterator<Item = u64>) -> Vec<u32> {
        let mut at = 0;
        let place = |row: u64| {
            while self.ranges.get(at).is_some_and(|range| range.end <= row) {
                at += 1;
            }
            self.ranges.get(at).map_or(u32::MAX, |range| (self.before[at] + row - range.start) as u32)
        };
        rows.map(place).collect()
    }

    /// Where `row` is among the rows covered; none if it is not.
    pub(crate) fn place(&self, row: u64) -> Option<usize> {
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
            let found = Ranges::with_gaps(rows.clone(), gap, 2);
            let wanted: BTreeSet<u64> = rows.into_iter().collect();
            prop_assert!(found.ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "{:?}", found);
            let flat: Vec<u64> = found.ranges.iter().cloned().flatten().collect();
            prop_assert_eq!(flat.len() as u64, found.rows());
            for row in 0..400 {
                prop_assert_eq!(found.place(row), flat.iter().position(|other| *other == row));
                prop_assert_eq!(found.row(row), flat.get(row as usize).copied());
            }
            prop_assert!(wanted.iter().all(|row| found.place(*row).is_some()));
            let places: Vec<u32> = wanted.iter().filter_map(|row| found.place(*row)).map(|place| place as u32).collect();
            prop_assert_eq!(found.places(wanted.iter().copied()), places);
            for range in &found.ranges {
                let useful = range.clone().filter(|row| wanted.contains(row)).count() as u64;
                prop_assert!(wanted.contains(&range.start) && wanted.contains(&(range.end - 1)));
                prop_assert!(range.end - range.start <= 2 * useful, "{:?}: {} useful", range, useful);
            }
        }

        #[test]
        fn parts_are_small_and_together_the_whole(rows in prop::collection::vec(0u64..400, 0..80), gap in 0u64..8, size in 1u64..50) {
            let whole = Ranges::with_gaps(rows, gap, 2);
            let parts = whole.clone().cut(size);
            let flat = |ranges: &Ranges| ranges.ranges.iter().cloned().flatten().collect::<Vec<u64>>();
            prop_assert_eq!(parts.iter().flat_map(flat).collect::<Vec<_>>(), flat(&whole));
            prop_assert!(parts.iter().all(|part| (1..=size).contains(&part.rows()) && part.ranges.iter().all(|range| !range.is_empty())));
            prop_assert_eq!(parts.len() as u64, whole.rows().div_ceil(size));
            let (parts, most) = (whole.clone().parts(size), size + size / 2);
            prop_assert_eq!(parts.iter().flat_map(flat).collect::<Vec<_>>(), flat(&whole));
            prop_assert!(parts.iter().all(|part| (1..=most).contains(&part.rows()) && part.ranges.iter().all(|range| !range.is_empty())));
            prop_assert!(parts.windows(2).all(|pair| pair[0].rows() + pair[1].rows() > size), "{:?}", parts);
            let is_whole = |range: &Range<u64>| parts.iter().any(|part| part.ranges.contains(range));
            prop_assert!(whole.ranges.iter().filter(|range| range.end - range.start <= most).all(is_whole), "{:?}", parts);
        }
    }

    #[test]
    fn neighbours_become_one_range_and_short_gaps_are_read_along() {
        let rows = || vec![7, 3, 4, 5, 3, 20];
        assert_eq!(Ranges::exactly(rows()).ranges, [3..6, 7..8, 20..21]);
        assert_eq!(Ranges::with_gaps(rows(), 1, 2).ranges, [3..8, 20..21]);
        assert_eq!(Ranges::with_gaps(rows(), 1000, 2).ranges, [3..8, 20..21]);
        assert_eq!(Ranges::spanning(rows(), 12).ranges, std::slice::from_ref(&(3..21)));
        assert_eq!(Ranges::spanning(vec![0, 100], 200).ranges, [0..1, 100..101]);
    }
}
