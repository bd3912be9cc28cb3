//! Where the documents of packed token rows begin and end.
//!
//! A row holds several documents, each ended by the end-of-document token, and the last may be followed by filling, which is
//! of that token too. A document knows nothing of those before it: its positions count from 0, attention stays within
//! it, and neither its first token nor filling is a target, because nothing in the row foretells them.
//! Promises: what it says follows from the stored rows alone.

/// The documents of the rows of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Documents {
    /// Places at which documents begin, row after row; each row's first is 0.
    starts: Vec<u32>,
    rows: Vec<Row>,
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    /// Its places in `starts` end here.
    end: u32,
    /// Tokens before the filling.
    tokens: u32,
}

impl Documents {
    /// Those of rows given by their ids and the places at which documents begin; `end` ends documents. None if these are no
    /// places in their row, in ascending order.
    pub fn new<'a>(rows: impl IntoIterator<Item = (&'a [u32], &'a [u32])>, end: Option<u32>) -> Option<Self> {
        let mut documents = Self::default();
        rows.into_iter().all(|(ids, starts)| documents.push(ids, starts, end)).then_some(documents)
    }

    pub(crate) fn with_capacity(rows: usize) -> Self {
        Self { starts: Vec::with_capacity(2 * rows), rows: Vec::with_capacity(rows) }
    }

    /// Adds the row `ids`, of which documents begin at `starts`; `end` ends documents. False if these are no places in the row.
    pub(crate) fn push(&mut self, ids: &[u32], starts: &[u32], end: Option<u32>) -> bool {
        let ascend = starts.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascend || starts.last().is_some_and(|last| *last as usize >= ids.len()) {
            return false;
        }
        if starts.first() != Some(&0) {
            self.starts.push(0);
        }
        self.starts.extend_from_slice(starts);
        // Of several ends at the end of a row the first ends its document, and the others fill.
        let ends = ids.iter().rev().take_while(|id| Some(**id) == end).count() as u32;
        let filled = (ids.len() as u32).saturating_sub(ends) + 1;
        let tokens = filled.max(starts.last().map_or(0, |last| last + 1)).min(ids.len() as u32);
        self.rows.push(Row { end: self.starts.len() as u32, tokens });
        true
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// The places at which documents of a row begin: ascending, the first is 0, also where that document began in another row.
    pub fn starts(&self, row: usize) -> &[u32] {
        let from = row.checked_sub(1).map_or(0, |before| self.rows[before].end);
        &self.starts[from as usize..self.rows[row].end as usize]
    }

    /// Tokens of a row before its filling.
    pub fn tokens(&self, row: usize) -> usize {
        self.rows[row].tokens as usize
    }

    /// Whether no row holds more than one document in its first `length` tokens.
    pub fn are_alone(&self, length: usize) -> bool {
        (0..self.rows()).all(|row| self.starts(row).get(1).is_none_or(|second| *second as usize >= length))
    }

    /// Position of each input in its document, shape `[rows, length]`.
    pub fn positions(&self, length: usize) -> Vec<i64> {
        self.each(length, |_, tokens| 0..tokens as i64)
    }

    /// Which document of its row each input belongs to, shape `[rows, length]`.
    pub fn numbers(&self, length: usize) -> Vec<i64> {
        self.each(length, |number, tokens| std::iter::repeat_n(number as i64, tokens))
    }

    /// Whether each token is a target, shape `[rows, length]`: the place of an input says it of the token after it.
    pub fn targets(&self, length: usize) -> Vec<bool> {
        let mut targets = vec![true; self.rows() * length];
        for (row, targets) in targets.chunks_exact_mut(length.max(1)).enumerate() {
            targets[(self.tokens(row) - 1).min(length)..].fill(false);
            for start in self.starts(row).iter().filter(|start| (1..=length).contains(&(**start as usize))) {
                targets[*start as usize - 1] = false;
            }
        }
        targets
    }

    /// The values that `of` gives for a document of this number and so many inputs, document after document.
    fn each<I: Iterator<Item = i64>>(&self, length: usize, of: impl Fn(usize, usize) -> I) -> Vec<i64> {
        let mut values = Vec::with_capacity(self.rows() * length);
        for row in 0..self.rows() {
            let starts = self.starts(row);
            let ends = starts.iter().skip(1).map(|start| *start as usize).chain([length]);
            for (number, (start, end)) in starts.iter().zip(ends).enumerate() {
                let (from, to) = ((*start as usize).min(length), end.min(length));
                values.extend(of(number, to - from));
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const END: u32 = 0;

    fn of(rows: &[(&[u32], &[u32])]) -> Documents {
        Documents::new(rows.iter().copied(), Some(END)).expect("places")
    }

    #[test]
    fn a_document_counts_from_its_first_token_and_its_first_token_is_no_target() {
        // A document goes on from the row before, two follow, the last of which is filled up; then one that fills its row.
        let documents = of(&[(&[7, 7, 0, 8, 9, 0, 5, 0, 0], &[3, 6]), (&[3; 9], &[0])]);
        assert_eq!((documents.starts(0), documents.starts(1)), (&[0, 3, 6][..], &[0][..]));
        assert_eq!((documents.tokens(0), documents.tokens(1)), (8, 9));
        assert_eq!(documents.positions(8)[..8], [0, 1, 2, 0, 1, 2, 0, 1]);
        assert_eq!(documents.positions(8)[8..], [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(documents.numbers(8), [0, 0, 0, 1, 1, 1, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
        let targets = documents.targets(8);
        assert_eq!(targets[..8], [true, true, false, true, true, false, true, false]);
        assert!(targets[8..].iter().all(|target| *target));
        assert!(!documents.are_alone(8) && of(&[(&[1, 2, 0, 0], &[])]).are_alone(3));
    }

    #[test]
    fn a_document_that_begins_with_the_last_token_is_there_only_not_to_be_a_target() {
        let documents = of(&[(&[1, 2, 0, 4], &[0, 3])]);
        assert!(documents.are_alone(3));
        assert_eq!((documents.positions(3), documents.targets(3)), (vec![0, 1, 2], vec![true, true, false]));
    }

    #[test]
    fn empty_documents_are_no_filling_and_a_row_may_have_no_target() {
        let documents = of(&[(&[0, 0, 0, 0], &[0, 1, 2])]);
        assert_eq!(documents.tokens(0), 3);
        assert_eq!(documents.targets(3), [false; 3]);
    }

    #[test]
    fn places_beyond_the_row_or_out_of_order_are_refused() {
        for starts in [&[4][..], &[2, 1], &[1, 1]] {
            assert_eq!(Documents::new([(&[1, 2, 3, 4][..], starts)], None), None, "{starts:?}");
        }
    }

    proptest! {
        #[test]
        fn targets_are_all_tokens_but_first_ones_and_filling(
            documents in prop::collection::vec(1usize..6, 1..6), filling in 0usize..4, continues: bool,
        ) {
            let mut ids = Vec::new();
            let (mut starts, mut expected) = (Vec::new(), Vec::new());
            for (number, length) in documents.iter().enumerate() {
                if number > 0 || !continues {
                    starts.push(ids.len() as u32);
                }
                ids.extend(std::iter::repeat_n(number as u32 + 1, length - 1).chain([END]));
                expected.extend((0..*length).map(|place| place > 0));
            }
            ids.extend(std::iter::repeat_n(END, filling));
            expected.extend(std::iter::repeat_n(false, filling));
            let length = ids.len() - 1;
            let mut found = Documents::default();
            prop_assert!(found.push(&ids, &starts, Some(END)));
            prop_assert_eq!(found.targets(length), &expected[1..]);
            prop_assert_eq!(found.positions(length).len(), length);
            let steps = found.positions(length).windows(2).all(|pair| pair[1] == pair[0] + 1 || pair[1] == 0);
            prop_assert!(steps);
        }
    }
}
