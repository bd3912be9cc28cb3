//! Documents to rows of a fixed number of tokens.
//!
//! Every document is followed by the end-of-document token, and a row is `length` + 1 tokens. As a stream, rows are cut
//! wherever they are full, and the last token of a row is the first of the next, so every token but the stream's first is
//! a target exactly once. By best fit (Ding et al. 2024), only documents longer than a row are cut, likewise with one
//! token in common, and every row is filled up. Nothing is dropped; filling is of end-of-document tokens.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, ListBuilder, RecordBatch, UInt32Array, UInt32Builder, UInt64Builder};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, SchemaRef};
use forebay_schemas::pipeline::PackMethod;
use forebay_schemas::record;

use super::text::Cut;
use crate::error::{Error, Kind, Result};

/// Makes rows of documents.
pub(crate) struct Packer {
    length: usize,
    end: u32,
    layout: Layout,
    rows: Rows,
    /// Times each token occurs, the filling left out.
    counts: Vec<u64>,
    documents: u64,
    split_documents: u64,
}

enum Layout {
    Stream(Row),
    BestFit(BestFit),
}

/// A row as far as it is filled.
#[derive(Default)]
struct Row {
    tokens: Vec<u32>,
    documents: Vec<u64>,
    starts: Vec<u32>,
    /// The document of the last token, and whether it starts there.
    last: (u64, bool),
}

impl Row {
    /// Adds tokens of a document that go into the row.
    fn add(&mut self, document: u64, tokens: &[u32], starts: bool) {
        if starts {
            self.starts.push(self.tokens.len() as u32);
        }
        // A document named last in a row is the one that goes on, also where two with one id meet.
        if starts || self.documents.is_empty() {
            self.documents.push(document);
        }
        self.tokens.extend_from_slice(tokens);
        self.last = (document, starts && tokens.len() == 1);
    }
}

/// Complete rows.
struct Rows {
    schema: SchemaRef,
    count: usize,
    padding_tokens: u64,
    tokens: Vec<u32>,
    documents: ListBuilder<UInt64Builder>,
    starts: ListBuilder<UInt32Builder>,
}

impl Rows {
    fn append(&mut self, row: &Row) {
        self.tokens.extend_from_slice(&row.tokens);
        self.documents.values().append_slice(&row.documents);
        self.documents.append(true);
        self.starts.values().append_slice(&row.starts);
        self.starts.append(true);
        self.count += 1;
    }

    /// The ids of the rows, in as many bytes as the schema says.
    fn finish_tokens(&mut self) -> Result<ArrayRef> {
        let DataType::FixedSizeList(item, width) = self.schema.field(0).data_type() else {
            return Err(Error::new(Kind::Internal, "rows of tokens are not lists of one length"));
        };
        let ids: ArrayRef = Arc::new(UInt32Array::from(std::mem::take(&mut self.tokens)));
        // None is above the vocabulary; one that were is an error, and not another token.
        let ids = cast_with_options(&ids, item.data_type(), &CastOptions { safe: false, ..CastOptions::default() })?;
        Ok(Arc::new(FixedSizeListArray::try_new(Arc::clone(item), *width, ids, None)?))
    }

    /// Appends a row that is filled up to `tokens` tokens.
    fn append_filled(&mut self, mut row: Row, tokens: usize, end: u32) {
        self.padding_tokens += (tokens - row.tokens.len()) as u64;
        row.tokens.resize(tokens, end);
        self.append(&row);
    }
}

impl Packer {
    /// A packer of rows as this says.
    pub(crate) fn new(Cut { method, length, end, vocabulary, id_bytes }: Cut) -> Self {
        let item = |kind| Arc::new(Field::new("item", kind, false));
        let rows = Rows {
            schema: record::sequences(length as usize, id_bytes),
            count: 0,
            padding_tokens: 0,
            tokens: Vec::new(),
            documents: ListBuilder::new(UInt64Builder::new()).with_field(item(DataType::UInt64)),
            starts: ListBuilder::new(UInt32Builder::new()).with_field(item(DataType::UInt32)),
        };
        let layout = match method {
            PackMethod::Stream => Layout::Stream(Row::default()),
            PackMethod::BestFit => Layout::BestFit(BestFit::default()),
        };
        let counts = vec![0; vocabulary as usize];
        Self { length: length as usize, end, layout, rows, counts, documents: 0, split_documents: 0 }
    }

    /// Adds a document and the token that ends it.
    pub(crate) fn push(&mut self, document: u64, tokens: &[u32]) {
        self.documents += 1;
        let mut whole = Vec::with_capacity(tokens.len() + 1);
        whole.extend_from_slice(tokens);
        whole.push(self.end);
        for token in &whole {
            if let Some(count) = self.counts.get_mut(*token as usize) {
                *count += 1;
            }
        }
        self.push_piece(document, &whole, true);
    }

    /// Adds a part of a document as it stood in another row. It counts neither as a document nor are its tokens counted:
    /// they were.
    pub(crate) fn push_piece(&mut self, document: u64, tokens: &[u32], starts: bool) {
        let room = self.length + 1;
        match &mut self.layout {
            Layout::Stream(row) => stream(row, &mut self.rows, room, document, tokens, starts),
            Layout::BestFit(best_fit) => {
                self.split_documents += u64::from(tokens.len() > room);
                best_fit.push(document, tokens, starts, room);
                if best_fit.tokens >= WINDOW_ROWS * room {
                    best_fit.flush(&mut self.rows, room, self.end);
                }
            }
        }
    }

    /// Complete rows not yet taken.
    pub(crate) fn ready(&self) -> usize {
        self.rows.count
    }

    /// Takes the complete rows.
    pub(crate) fn take(&mut self) -> Result<RecordBatch> {
        self.rows.count = 0;
        let columns =
            vec![self.rows.finish_tokens()?, Arc::new(self.rows.documents.finish()) as _, Arc::new(self.rows.starts.finish()) as _];
        Ok(RecordBatch::try_new(Arc::clone(&self.rows.schema), columns)?)
    }

    /// Fills up what is left, so that [`Self::take`] gives it.
    pub(crate) fn fill(&mut self) {
        let room = self.length + 1;
        match &mut self.layout {
            Layout::Stream(row) if row.tokens.is_empty() => {}
            Layout::Stream(row) => self.rows.append_filled(std::mem::take(row), room, self.end),
            Layout::BestFit(best_fit) => best_fit.flush(&mut self.rows, room, self.end),
        }
    }

    /// Documents pushed.
    pub(crate) fn documents(&self) -> u64 {
        self.documents
    }

    /// Times each token occurs.
    pub(crate) fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Tokens of filling in the rows so far.
    pub(crate) fn padding_tokens(&self) -> u64 {
        self.rows.padding_tokens
    }

    /// Documents that were cut though rows are not: they are longer than one.
    pub(crate) fn split_documents(&self) -> u64 {
        self.split_documents
    }
}

/// Adds tokens to the stream.
fn stream(row: &mut Row, rows: &mut Rows, room: usize, document: u64, mut tokens: &[u32], mut starts: bool) {
    while !tokens.is_empty() {
        // A full row waits for the token after it: without one there is no next row.
        if row.tokens.len() == room {
            rows.append(row);
            let (last, (document, is_start)) = (row.tokens[room - 1], row.last);
            *row = Row::default();
            row.tokens.push(last);
            row.documents.push(document);
            row.starts.extend(is_start.then_some(0));
        }
        let (now, later) = tokens.split_at(tokens.len().min(room - row.tokens.len()));
        row.add(document, now, starts);
        starts = false;
        tokens = later;
    }
}

/// Rows of documents that are fitted at a time: more fit better, and are held in memory.
const WINDOW_ROWS: usize = 1024;

/// Documents that wait to be fitted.
#[derive(Default)]
struct BestFit {
    pieces: Vec<(u64, Vec<u32>, bool)>,
    tokens: usize,
}

impl BestFit {
    fn push(&mut self, document: u64, tokens: &[u32], starts: bool, room: usize) {
        let mut from = 0;
        loop {
            let to = tokens.len().min(from + room);
            self.pieces.push((document, tokens[from..to].to_vec(), starts && from == 0));
            self.tokens += to - from;
            if to == tokens.len() {
                return;
            }
            // The last token of a piece is the first of the next, so that it is a target once and context once.
            from = to - 1;
        }
    }

    /// Puts each piece, the longest first, into the row where it leaves the least room.
    fn flush(&mut self, rows: &mut Rows, room: usize, end: u32) {
        self.tokens = 0;
        let mut pieces = std::mem::take(&mut self.pieces);
        pieces.sort_by_key(|(_, tokens, _)| std::cmp::Reverse(tokens.len()));
        let mut open: Vec<Row> = Vec::new();
        let mut by_room: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (document, tokens, starts) in pieces {
            let place = match by_room.range_mut(tokens.len()..).next().map(|(room, places)| (*room, places.pop())) {
                Some((left, Some(place))) => {
                    if by_room.get(&left).is_some_and(Vec::is_empty) {
                        by_room.remove(&left);
                    }
                    place
                }
                _ => {
                    open.push(Row::default());
                    open.len() - 1
                }
            };
            open[place].add(document, &tokens, starts);
            let left = room - open[place].tokens.len();
            if left > 0 {
                by_room.entry(left).or_default().push(place);
            }
        }
        open.into_iter().for_each(|row| rows.append_filled(row, room, end));
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{UInt16Type, UInt32Type, UInt64Type};
    use proptest::prelude::*;

    use super::*;

    type PackedRow = (Vec<u32>, Vec<u64>, Vec<u32>);

    fn pack(method: PackMethod, length: u32, documents: &[Vec<u32>]) -> (Vec<PackedRow>, Packer) {
        let mut packer = Packer::new(Cut { method, length, end: 0, vocabulary: 100, id_bytes: 2 });
        for (id, tokens) in documents.iter().enumerate() {
            packer.push(id as u64, tokens);
        }
        packer.fill();
        let batch = packer.take().expect("rows");
        let row = |at: usize| {
            let tokens = batch.column(0).as_fixed_size_list().value(at);
            let tokens = tokens.as_primitive::<UInt16Type>().values().iter().map(|id| u32::from(*id)).collect();
            let documents = batch.column(1).as_list::<i32>().value(at).as_primitive::<UInt64Type>().values().to_vec();
            (tokens, documents, batch.column(2).as_list::<i32>().value(at).as_primitive::<UInt32Type>().values().to_vec())
        };
        ((0..batch.num_rows()).map(row).collect(), packer)
    }

    #[test]
    fn rows_overlap_by_one_token_and_the_last_is_filled() {
        let (rows, _) = pack(PackMethod::Stream, 4, &[vec![1, 2, 3], vec![4, 5], vec![6]]);
        assert_eq!(rows, [(vec![1, 2, 3, 0, 4], vec![0, 1], vec![0, 4]), (vec![4, 5, 0, 6, 0], vec![1, 2], vec![0, 3])]);
        let (rows, _) = pack(PackMethod::Stream, 4, &[vec![1]]);
        assert_eq!(rows, [(vec![1, 0, 0, 0, 0], vec![0], vec![0])]);
    }

    #[test]
    fn ids_have_four_bytes_where_two_do_not_hold_them() {
        let packed = |vocabulary| {
            let cut = Cut { method: PackMethod::Stream, length: 2, end: 0, vocabulary, id_bytes: record::id_bytes(vocabulary) };
            let mut packer = Packer::new(cut);
            packer.push(0, &[65_535, vocabulary - 1]);
            packer.fill();
            packer.take()
        };
        let wide = packed(65_537).expect("rows");
        let ids = wide.column(0).as_fixed_size_list().values();
        assert_eq!(ids.as_primitive::<UInt32Type>().values(), &[65_535, 65_536, 0]);
        let narrow = packed(65_536).expect("rows");
        let ids = narrow.column(0).as_fixed_size_list().values();
        assert_eq!(ids.as_primitive::<UInt16Type>().values(), &[65_535, 65_535, 0]);
    }

    #[test]
    fn an_id_above_the_vocabulary_is_an_error() {
        let mut packer = Packer::new(Cut { method: PackMethod::Stream, length: 2, end: 0, vocabulary: 100, id_bytes: 2 });
        packer.push(0, &[65_536, 1]);
        packer.fill();
        assert!(packer.take().is_err());
    }

    proptest! {
        #[test]
        fn every_token_is_there_once_with_its_document(
            length in 8u32..20,
            documents in prop::collection::vec(prop::collection::vec(1u32..100, 0..40), 1..20),
        ) {
            let (rows, packer) = pack(PackMethod::Stream, length, &documents);
            let stream: Vec<(u32, usize, bool)> = documents
                .iter()
                .enumerate()
                .flat_map(|(id, tokens)| tokens.iter().copied().chain([0]).enumerate().map(move |(at, token)| (token, id, at == 0)))
                .collect();
            let length = length as usize;
            prop_assert_eq!(rows.len(), (stream.len() - 1).div_ceil(length).max(1));
            for (number, (tokens, ids, starts)) in rows.iter().enumerate() {
                let window = &stream[number * length..stream.len().min(number * length + length + 1)];
                let mut expected: Vec<u32> = window.iter().map(|(token, ..)| *token).collect();
                expected.resize(length + 1, 0);
                prop_assert_eq!(tokens, &expected);
                let mut holders: Vec<u64> = window.iter().map(|(_, id, _)| *id as u64).collect();
                holders.dedup();
                prop_assert_eq!(ids, &holders);
                let begins: Vec<u32> = window.iter().enumerate().filter(|(_, (.., start))| *start).map(|(at, _)| at as u32).collect();
                prop_assert_eq!(starts, &begins);
            }
            prop_assert_eq!(packer.documents(), documents.len() as u64);
            prop_assert_eq!(packer.counts().iter().sum::<u64>(), stream.len() as u64);
        }
    }

    #[test]
    fn best_fit_cuts_only_what_is_longer_than_a_row() {
        let (rows, packer) = pack(PackMethod::BestFit, 4, &[vec![1], vec![2, 2, 2], vec![3; 6], vec![4, 4]]);
        // With their ends: 2, 4, 7 (cut into 5 and 3) and 3 tokens, in rows of 5.
        let expected = [
            (vec![3, 3, 3, 3, 3], vec![2], vec![0]),
            (vec![2, 2, 2, 0, 0], vec![1], vec![0]),
            (vec![3, 3, 0, 0, 0], vec![2], vec![]),
            (vec![4, 4, 0, 1, 0], vec![3, 0], vec![0, 3]),
        ];
        assert_eq!(rows, expected);
        assert_eq!((packer.split_documents(), packer.padding_tokens()), (1, 3));
    }

    proptest! {
        #[test]
        fn best_fit_loses_nothing(
            length in 8u32..20,
            documents in prop::collection::vec(prop::collection::vec(1u32..100, 0..60), 1..20),
        ) {
            let (rows, packer) = pack(PackMethod::BestFit, length, &documents);
            let tokens: usize = documents.iter().map(|tokens| tokens.len() + 1).sum();
            let cuts: usize = documents.iter().map(|tokens| (tokens.len() + 1).saturating_sub(2) / length as usize).sum();
            let room = length as usize + 1;
            prop_assert_eq!(rows.len() * room, tokens + cuts + packer.padding_tokens() as usize);
            // Every document is found whole, or its pieces one token over another.
            for (id, tokens) in documents.iter().enumerate().filter(|(_, tokens)| tokens.len() < room) {
                let whole: Vec<u32> = tokens.iter().copied().chain([0]).collect();
                let holding = rows.iter().filter(|(_, ids, _)| ids.contains(&(id as u64))).collect::<Vec<_>>();
                prop_assert_eq!(holding.len(), 1);
                let (row, ids, starts) = holding[0];
                let continues = usize::from(starts.first() != Some(&0));
                let at = starts[ids.iter().position(|found| *found == id as u64).expect("held") - continues] as usize;
                prop_assert_eq!(&row[at..at + whole.len()], &whole[..]);
            }
        }
    }
}
