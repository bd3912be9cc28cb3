//! The rows that a filter left, in one or two bits each: the row of number k without walking there.
//!
//! Rows are kept by chunks of 2¹⁶, each in the form that is smallest: nothing for a chunk of which all rows are selected,
//! a list of 16-bit offsets where few are, a bitmap with counts every 512 bits where many are (the containers of Roaring
//! bitmaps, Chambi, Lemire, Kaser and Godin 2016). A table of every 2¹⁶th number finds the chunk.
//! Promises: [`Selection::row`] takes the same time wherever it looks; memory is at most 17 bits a selected row and
//! 1.04 bits a row of the table. Built from ascending ranges as they come, without holding them.

mod stored;

use std::ops::Range;

use forebay_schemas::Digest;

const CHUNK_ROWS: u64 = 1 << 16;
const CHUNK_WORDS: usize = CHUNK_ROWS as usize / 64;
/// A list of so many offsets takes as much as a bitmap.
const LIST_MAX: usize = CHUNK_ROWS as usize / 16;
/// Words of a bitmap between two counts.
const STRIDE: usize = 8;

/// Ascending rows of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    chunks: Vec<Chunk>,
    /// Selected rows before each chunk, then all of them.
    before: Vec<u64>,
    /// The chunk that holds the selected row number i · 2¹⁶.
    hints: Vec<u32>,
    digest: Digest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Chunk {
    /// First row of the chunk divided by [`CHUNK_ROWS`].
    number: u64,
    rows: Rows,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rows {
    All,
    List(Box<[u16]>),
    Bitmap { words: Box<[u64]>, counts: Box<[u16]> },
}

impl Selection {
    /// How many rows are selected.
    pub fn len(&self) -> u64 {
        self.before.last().copied().unwrap_or(0)
    }

    /// Whether no row is selected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The selected row of number `k`, which must be below [`Self::len`].
    pub fn row(&self, k: u64) -> u64 {
        debug_assert!(k < self.len(), "number {k} of {}", self.len());
        let hint = (k / CHUNK_ROWS) as usize;
        let (first, last) = (self.hints[hint] as usize, self.hints.get(hint + 1).map_or(self.chunks.len(), |next| *next as usize + 1));
        let at = first + self.before[first..last].partition_point(|before| *before <= k) - 1;
        let chunk = &self.chunks[at];
        chunk.number * CHUNK_ROWS + chunk.rows.nth(k - self.before[at])
    }

    /// Digest of the selected rows.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Size in memory.
    pub fn bytes(&self) -> u64 {
        let rows: usize = self.chunks.iter().map(|chunk| chunk.rows.bytes()).sum();
        (rows + size_of_val(self.chunks.as_slice()) + size_of_val(self.before.as_slice()) + size_of_val(self.hints.as_slice())) as u64
    }
}

impl Rows {
    fn of(words: &[u64; CHUNK_WORDS]) -> Option<Self> {
        let count: u32 = words.iter().map(|word| word.count_ones()).sum();
        match count as usize {
            0 => None,
            count if count == CHUNK_ROWS as usize => Some(Self::All),
            count if count <= LIST_MAX => Some(Self::List(ones(words).collect())),
            _ => {
                let counts = words.chunks_exact(STRIDE).scan(0u16, |before, words| {
                    // The last sum may be 2¹⁶, and is not used.
                    let sum = words.iter().map(|word| word.count_ones() as u16).fold(*before, u16::wrapping_add);
                    Some(std::mem::replace(before, sum))
                });
                Some(Self::Bitmap { counts: counts.collect(), words: words.as_slice().into() })
            }
        }
    }

    fn nth(&self, k: u64) -> u64 {
        match self {
            Self::All => k,
            Self::List(offsets) => u64::from(offsets[k as usize]),
            Self::Bitmap { words, counts } => {
                let stride = counts.partition_point(|count| u64::from(*count) <= k) - 1;
                let mut left = (k - u64::from(counts[stride])) as u32;
                let mut at = stride * STRIDE;
                while left >= words[at].count_ones() {
                    left -= words[at].count_ones();
                    at += 1;
                }
                at as u64 * 64 + u64::from(nth_one(words[at], left))
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::All => 0,
            Self::List(offsets) => size_of_val::<[u16]>(offsets),
            Self::Bitmap { words, counts } => size_of_val::<[u64]>(words) + size_of_val::<[u16]>(counts),
        }
    }

    fn hash(&self, hasher: &mut blake3::Hasher) {
        match self {
            Self::All => hasher.update(&[0]),
            Self::List(offsets) => offsets.iter().fold(hasher.update(&[1]), |hasher, offset| hasher.update(&offset.to_le_bytes())),
            Self::Bitmap { words, .. } => words.iter().fold(hasher.update(&[2]), |hasher, word| hasher.update(&word.to_le_bytes())),
        };
    }
}

fn ones(words: &[u64]) -> impl Iterator<Item = u16> + '_ {
    words.iter().enumerate().flat_map(|(at, word)| {
        let mut left = *word;
        std::iter::from_fn(move || {
            let bit = (left != 0).then(|| left.trailing_zeros())?;
            left &= left - 1;
            Some(at as u16 * 64 + bit as u16)
        })
    })
}

/// Place of the one of number `k`, from 0, of a word that has more than `k`.
fn nth_one(mut word: u64, mut k: u32) -> u32 {
    let mut place = 0;
    for width in [32, 16, 8, 4, 2, 1] {
        let low = (word & ((1 << width) - 1)).count_ones();
        if k >= low {
            k -= low;
            place += width;
            word >>= width;
        }
    }
    place
}

/// Collects ascending ranges.
#[derive(Debug)]
pub struct SelectionBuilder {
    chunks: Vec<Chunk>,
    before: Vec<u64>,
    number: u64,
    words: Box<[u64; CHUNK_WORDS]>,
    end: u64,
    hasher: blake3::Hasher,
}

impl Default for SelectionBuilder {
    fn default() -> Self {
        let words = Box::new([0; CHUNK_WORDS]);
        Self { chunks: Vec::new(), before: vec![0], number: 0, words, end: 0, hasher: blake3::Hasher::new() }
    }
}

impl SelectionBuilder {
    /// Adds rows; false, and nothing is added, if they do not lie after those added before.
    pub fn add(&mut self, rows: Range<u64>) -> bool {
        if rows.start < self.end {
            return rows.is_empty();
        }
        let mut at = rows.start;
        while at < rows.end {
            if at / CHUNK_ROWS != self.number {
                self.close();
                self.number = at / CHUNK_ROWS;
            }
            let first = at % CHUNK_ROWS;
            let last = (rows.end - self.number * CHUNK_ROWS).min(CHUNK_ROWS) - 1;
            for word in first / 64..=last / 64 {
                let from = if word == first / 64 { u64::MAX << (first % 64) } else { u64::MAX };
                let to = if word == last / 64 { u64::MAX >> (63 - last % 64) } else { u64::MAX };
                self.words[word as usize] |= from & to;
            }
            at = self.number * CHUNK_ROWS + last + 1;
        }
        self.end = self.end.max(rows.end);
        true
    }

    /// Adds the rows of the chunk of this number that are ones in `words`; false, and nothing is added, if it does not lie after
    /// those added before.
    fn add_chunk(&mut self, number: u64, words: impl Iterator<Item = u64>) -> bool {
        if number.saturating_mul(CHUNK_ROWS) < self.end {
            return false;
        }
        self.close();
        self.number = number;
        self.words.iter_mut().zip(words).for_each(|(place, word)| *place = word);
        if let Some(last) = self.words.iter().rposition(|word| *word != 0) {
            self.end = number * CHUNK_ROWS + last as u64 * 64 + u64::from(64 - self.words[last].leading_zeros());
        }
        true
    }

    /// The selection of all that was added.
    pub fn finish(mut self) -> Selection {
        self.close();
        let (chunks, before) = (self.chunks, self.before);
        let total = before[chunks.len()];
        let holder = |k: u64| (before.partition_point(|count| *count <= k) - 1) as u32;
        let hints = (0..total.div_ceil(CHUNK_ROWS)).map(|i| holder(i * CHUNK_ROWS)).collect();
        Selection { hints, chunks, before, digest: Digest::from_bytes(*self.hasher.finalize().as_bytes()) }
    }

    fn close(&mut self) {
        let Some(rows) = Rows::of(&self.words) else { return };
        self.hasher.update(&self.number.to_le_bytes());
        rows.hash(&mut self.hasher);
        let count: u32 = self.words.iter().map(|word| word.count_ones()).sum();
        self.before.push(self.before[self.before.len() - 1] + u64::from(count));
        self.chunks.push(Chunk { number: self.number, rows });
        self.words.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn select(ranges: &[Range<u64>]) -> Selection {
        let mut builder = SelectionBuilder::default();
        assert!(ranges.iter().cloned().all(|range| builder.add(range)));
        builder.finish()
    }

    fn check(ranges: &[Range<u64>]) {
        let selection = select(ranges);
        let rows: Vec<u64> = ranges.iter().cloned().flatten().collect();
        assert_eq!(selection.len(), rows.len() as u64);
        for (k, row) in rows.iter().enumerate() {
            assert_eq!(selection.row(k as u64), *row, "number {k}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn rows_come_back_by_their_number(gaps in prop::collection::vec((prop_oneof![1u64..4, 1u64..500, 60_000u64..200_000], prop_oneof![1u64..5, 1u64..3000]), 0..60)) {
            let mut end = 0;
            let ranges: Vec<Range<u64>> = gaps.into_iter().map(|(gap, rows)| {
                let start = end + gap - 1;
                end = start + rows;
                start..end
            }).collect();
            check(&ranges);
        }

        #[test]
        fn how_ranges_are_cut_does_not_matter(rows in prop::collection::btree_set(0u64..200_000, 1..400)) {
            let single: Vec<Range<u64>> = rows.iter().map(|row| *row..row + 1).collect();
            let mut joined: Vec<Range<u64>> = Vec::new();
            for row in &rows {
                match joined.last_mut().filter(|last| last.end == *row) {
                    Some(last) => last.end += 1,
                    None => joined.push(*row..row + 1),
                }
            }
            prop_assert_eq!(select(&single), select(&joined));
            let other = rows.iter().next().map(|row| row + 1..row + 2);
            prop_assert_ne!(other.map(|range| select(&[range]).digest()), Some(select(&single).digest()));
        }

        #[test]
        fn the_nth_one_of_a_word_is_found(word in 1u64.., k in 0u32..64) {
            let k = k % word.count_ones();
            let place = nth_one(word, k);
            prop_assert!(word >> place & 1 == 1);
            prop_assert_eq!((word & ((1u64 << place) - 1)).count_ones(), k);
        }
    }

    #[test]
    fn whole_chunks_dense_and_sparse_ones_are_told_apart() {
        let third = |first: u64, step: usize| (first..first + CHUNK_ROWS).step_by(step).map(|row| row..row + 1);
        let mut ranges: Vec<Range<u64>> = std::iter::once(0..2 * CHUNK_ROWS).chain(third(3 * CHUNK_ROWS, 3)).collect();
        ranges.extend(third(9 * CHUNK_ROWS, 100));
        ranges.push(1 << 40..(1 << 40) + 70_000);
        check(&ranges);
        let bytes = select(&ranges).bytes();
        assert!(bytes < 8_192 + 256 + 2 * 656 + 2 * 5_000 + 1_000, "{bytes} bytes");
    }

    #[test]
    fn rows_that_go_back_are_refused() {
        let mut builder = SelectionBuilder::default();
        assert!(builder.add(5..9) && builder.add(9..9) && builder.add(9..10));
        assert!(!builder.add(8..12));
        assert_eq!(builder.finish().len(), 5);
    }
}
