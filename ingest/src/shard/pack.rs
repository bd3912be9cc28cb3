//! Documents to rows of a fixed number of tokens.
//!
//! Every document is followed by the end-of-document token, all are one stream, and a row is `length` + 1 tokens of it;
//! the last token of a row is the first of the next, so every token but the stream's first is a target exactly once.
//! Nothing is dropped: the last row is filled up with end-of-document tokens.

use std::sync::Arc;

use arrow::array::{FixedSizeListBuilder, ListBuilder, RecordBatch, UInt32Builder, UInt64Builder};
use arrow::datatypes::{DataType, Field, SchemaRef};
use forebay_schemas::record;

use crate::error::Result;

/// Cuts a stream of documents into rows.
pub(crate) struct Packer {
    length: usize,
    end: u32,
    schema: SchemaRef,
    row: Row,
    /// The document of the last token, and whether it starts there.
    last: (u64, bool),
    rows: Rows,
    /// Times each token occurs, the filling left out.
    counts: Vec<u64>,
    documents: u64,
}

#[derive(Default)]
struct Row {
    tokens: Vec<u32>,
    documents: Vec<u64>,
    starts: Vec<u32>,
}

struct Rows {
    count: usize,
    tokens: FixedSizeListBuilder<UInt32Builder>,
    documents: ListBuilder<UInt64Builder>,
    starts: ListBuilder<UInt32Builder>,
}

impl Packer {
    /// A packer of rows of `length` + 1 tokens with ids below `vocabulary`.
    pub(crate) fn new(length: u32, end: u32, vocabulary: u32) -> Self {
        let item = |kind| Arc::new(Field::new("item", kind, false));
        let rows = Rows {
            count: 0,
            tokens: FixedSizeListBuilder::new(UInt32Builder::new(), length as i32 + 1).with_field(item(DataType::UInt32)),
            documents: ListBuilder::new(UInt64Builder::new()).with_field(item(DataType::UInt64)),
            starts: ListBuilder::new(UInt32Builder::new()).with_field(item(DataType::UInt32)),
        };
        Self {
            length: length as usize,
            end,
            schema: record::sequences(length as usize),
            row: Row::default(),
            last: (0, false),
            rows,
            counts: vec![0; vocabulary as usize],
            documents: 0,
        }
    }

    /// Adds a document and the token that ends it.
    pub(crate) fn push(&mut self, document: u64, tokens: &[u32]) {
        self.documents += 1;
        self.put(document, tokens, true);
        self.put(document, &[self.end], tokens.is_empty());
    }

    /// Complete rows not yet taken.
    pub(crate) fn ready(&self) -> usize {
        self.rows.count
    }

    /// Takes the complete rows.
    pub(crate) fn take(&mut self) -> Result<RecordBatch> {
        self.rows.count = 0;
        let columns = vec![
            Arc::new(self.rows.tokens.finish()) as _,
            Arc::new(self.rows.documents.finish()) as _,
            Arc::new(self.rows.starts.finish()) as _,
        ];
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// Fills up the last row, so that [`Self::take`] gives it.
    pub(crate) fn fill(&mut self) {
        if !self.row.tokens.is_empty() {
            self.row.tokens.resize(self.length + 1, self.end);
            self.flush();
            self.row = Row::default();
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

    fn put(&mut self, document: u64, mut tokens: &[u32], mut starts: bool) {
        for token in tokens {
            if let Some(count) = self.counts.get_mut(*token as usize) {
                *count += 1;
            }
        }
        while !tokens.is_empty() {
            // A full row waits for the token after it: without one there is no next row.
            if self.row.tokens.len() > self.length {
                self.flush();
            }
            let (now, later) = tokens.split_at(tokens.len().min(self.length + 1 - self.row.tokens.len()));
            if starts {
                self.row.starts.push(self.row.tokens.len() as u32);
            }
            // A document named last in a row is the one that goes on, also where two with one id meet.
            if starts || self.row.documents.is_empty() {
                self.row.documents.push(document);
            }
            self.row.tokens.extend_from_slice(now);
            self.last = (document, starts && now.len() == 1);
            starts = false;
            tokens = later;
        }
    }

    fn flush(&mut self) {
        let Some(last) = self.row.tokens.last().copied() else { return };
        self.rows.tokens.values().append_slice(&self.row.tokens);
        self.rows.tokens.append(true);
        self.rows.documents.values().append_slice(&self.row.documents);
        self.rows.documents.append(true);
        self.rows.starts.values().append_slice(&self.row.starts);
        self.rows.starts.append(true);
        self.rows.count += 1;
        let (document, is_start) = self.last;
        self.row.tokens.clear();
        self.row.tokens.push(last);
        self.row.documents.clear();
        self.row.documents.push(document);
        self.row.starts.clear();
        self.row.starts.extend(is_start.then_some(0));
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{UInt32Type, UInt64Type};
    use proptest::prelude::*;

    use super::*;

    type PackedRow = (Vec<u32>, Vec<u64>, Vec<u32>);

    fn pack(length: u32, documents: &[Vec<u32>]) -> (Vec<PackedRow>, Packer) {
        let mut packer = Packer::new(length, 0, 100);
        for (id, tokens) in documents.iter().enumerate() {
            packer.push(id as u64, tokens);
        }
        packer.fill();
        let batch = packer.take().expect("rows");
        let row = |at: usize| {
            let tokens = batch.column(0).as_fixed_size_list().value(at).as_primitive::<UInt32Type>().values().to_vec();
            let documents = batch.column(1).as_list::<i32>().value(at).as_primitive::<UInt64Type>().values().to_vec();
            (tokens, documents, batch.column(2).as_list::<i32>().value(at).as_primitive::<UInt32Type>().values().to_vec())
        };
        ((0..batch.num_rows()).map(row).collect(), packer)
    }

    #[test]
    fn rows_overlap_by_one_token_and_the_last_is_filled() {
        let (rows, _) = pack(4, &[vec![1, 2, 3], vec![4, 5], vec![6]]);
        assert_eq!(rows, [(vec![1, 2, 3, 0, 4], vec![0, 1], vec![0, 4]), (vec![4, 5, 0, 6, 0], vec![1, 2], vec![0, 3])]);
        let (rows, _) = pack(4, &[vec![1]]);
        assert_eq!(rows, [(vec![1, 0, 0, 0, 0], vec![0], vec![0])]);
    }

    proptest! {
        #[test]
        fn every_token_is_there_once_with_its_document(
            length in 8u32..20,
            documents in prop::collection::vec(prop::collection::vec(1u32..100, 0..40), 1..20),
        ) {
            let (rows, packer) = pack(length, &documents);
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
}
