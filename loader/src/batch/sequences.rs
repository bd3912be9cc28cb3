//! Batches of token sequences: stored ones as they are, documents made tokens, and what of them is hidden.
//!
//! A document is ended by the end-of-document token. One that is longer than a sample shows a window of itself, drawn for
//! training, its beginning for validation; the rest of a sample that is longer than its document is filling.

use std::time::Instant;

use arrow::array::RecordBatch;
use forebay_schemas::run::Scored;
use forebay_tokens::{Encoder, Tokenizer};

use super::recipe::{Ingredients, Made, Recipe, Scratch, others};
use super::{Arena, Batch, Documents, Masked, Masking, Pool, Replaced};
use crate::augment::{hide, span_draws, window, window_draws};
use crate::decode::{Sequences, Starts, document};
use crate::error::Result;
use crate::plan::Draw;
use crate::stall::Work;

/// How token sequences are made.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Text {
    /// Ids in a row of the batch.
    pub(super) width: usize,
    /// The token that ends documents.
    pub(super) end: Option<u32>,
    /// Makes tokens of documents; none where rows hold tokens.
    pub(super) tokenizer: Option<Tokenizer>,
    /// Whether windows of documents are drawn.
    pub(super) random: bool,
    pub(super) masking: Option<Masking>,
}

/// Where the ids of a sample come from.
enum From<'a> {
    Stored(Vec<Option<Sequences<'a>>>),
    Documents(&'a mut Encoder, u32),
}

/// Rows of which ids are in their places, or are not.
enum Beside<'a> {
    Starts(Starts<'a>),
    Row(Sequences<'a>),
    Nothing,
}

impl<'a> Beside<'a> {
    fn of(rows: &'a RecordBatch, width: usize) -> Self {
        match rows.column_by_name("tokens") {
            Some(_) => Sequences::of(rows, width).map_or(Self::Nothing, Self::Row),
            None => Starts::of(rows).map_or(Self::Nothing, Self::Starts),
        }
    }
}

impl Recipe {
    /// Makes a batch of tokens; none if it was stopped.
    pub(super) fn sequences(
        &self,
        text: &Text,
        from: &Ingredients<'_>,
        scratch: &mut Scratch,
        stopped: &dyn Fn() -> bool,
    ) -> Result<Option<Made>> {
        let began = Instant::now();
        let (width, samples) = (text.width, from.draws.len());
        let Scratch { pool, encoder, words, .. } = scratch;
        let mut source = match &text.tokenizer {
            None => From::Stored(from.rows.iter().map(|rows| Sequences::of(rows, width)).collect()),
            Some(tokenizer) => {
                From::Documents(encoder.get_or_insert_with(|| Encoder::remembering(tokenizer.clone(), *words)), tokenizer.end_of_document())
            }
        };
        let (mut ids, mut documents) = (pool.take::<u32>(width * samples), Documents::with_capacity(samples));
        let mut work = Work::default();
        // The ids of sample `of`, in the window of sample `like`.
        let mut put = |(of, like): (usize, usize), out: &mut [u32]| {
            from.check(of)?;
            let (piece, place) = from.places[of];
            let starts = match &mut source {
                From::Stored(pieces) => {
                    let row = pieces.get(piece as usize).and_then(|piece| piece.as_ref()?.row(place as usize));
                    let (tokens, starts) = row.ok_or_else(|| format!("tokens: found none, expected {width} ids"))?;
                    tokens.copy_to(out);
                    starts
                }
                From::Documents(encoder, end) => {
                    let began = Instant::now();
                    let mut tokens =
                        encoder.encode(document(&from.rows[piece as usize], place as usize)?).map_err(|error| error.to_string())?;
                    if tokens.is_empty() {
                        return Err("text: found no token, expected at least 1".to_owned());
                    }
                    tokens.push(*end);
                    let Draw { source, epoch, row, .. } = from.draws[like];
                    let mut draws = window_draws(self.seed, source, epoch, row);
                    let first = if text.random { window(tokens.len(), width, &mut draws) } else { 0 };
                    let shown = &tokens[first..tokens.len().min(first + width)];
                    out[..shown.len()].copy_from_slice(shown);
                    out[shown.len()..].fill(*end);
                    work.decode += began.elapsed();
                    &[]
                }
            };
            documents.push(out, starts, text.end).then_some(()).ok_or_else(|| misplaced(starts, width))
        };
        let mut replaced = Vec::new();
        for (place, out) in ids.chunks_exact_mut(width).enumerate() {
            if stopped() {
                return Ok(None);
            }
            let Err(reason) = put((place, place), out) else { continue };
            let by = others(place, samples).find(|by| put((*by, place), out).is_ok());
            replaced.push(self.replaced(from, place, reason, by)?);
        }
        work.collate = began.elapsed().saturating_sub(work.decode);
        Ok(Some(self.made(text, (ids, documents), from.draws, replaced, work, pool)))
    }

    /// Makes a batch of ids that are in their places already, but for those of rows that were decoded.
    pub(super) fn filled_sequences(&self, text: &Text, mut ids: Arena<u32>, from: &Ingredients<'_>, pool: &Pool) -> Result<Made> {
        let began = Instant::now();
        let (width, samples) = (text.width, from.draws.len());
        // The last id of each row, which says whether it is filled, is in no cache: all of them are fetched at a time.
        std::hint::black_box(ids.chunks_exact(width).fold(0, |all, row| all ^ row[width - 1]));
        let pieces: Vec<Beside<'_>> = from.rows.iter().map(|rows| Beside::of(rows, width)).collect();
        let mut documents = Documents::with_capacity(samples);
        // The ids of sample `of`, in the place of sample `like`.
        let mut put = |(of, like): (usize, usize), ids: &mut [u32]| {
            from.check(of)?;
            let (piece, place) = from.places[of];
            let out = like * width..(like + 1) * width;
            let starts = match pieces.get(piece as usize) {
                Some(Beside::Starts(starts)) => {
                    let starts = starts
                        .row(place as usize)
                        .ok_or_else(|| "starts of documents: found none, expected places in the row".to_owned())?;
                    // Only places of rows that do not fit are written over, so this one still has its own.
                    if of != like {
                        ids.copy_within(of * width..(of + 1) * width, out.start);
                    }
                    starts
                }
                Some(Beside::Row(rows)) => {
                    let (tokens, starts) = rows.row(place as usize).ok_or_else(|| format!("tokens: found none, expected {width} ids"))?;
                    tokens.copy_to(&mut ids[out.clone()]);
                    starts
                }
                Some(Beside::Nothing) | None => return Err(format!("tokens: found none, expected {width} ids")),
            };
            documents.push(&ids[out], starts, text.end).then_some(()).ok_or_else(|| misplaced(starts, width))
        };
        let mut replaced = Vec::new();
        for place in 0..samples {
            let Err(reason) = put((place, place), &mut ids) else { continue };
            let by = others(place, samples).find(|by| put((*by, place), &mut ids).is_ok());
            replaced.push(self.replaced(from, place, reason, by)?);
        }
        let work = Work { collate: began.elapsed(), ..Work::default() };
        Ok(self.made(text, (ids, documents), from.draws, replaced, work, pool))
    }

    /// Hides what is to be hidden, and puts the batch together.
    fn made(
        &self,
        text: &Text,
        (ids, documents): (Arena<u32>, Documents),
        draws: &[Draw],
        replaced: Vec<Replaced>,
        work: Work,
        pool: &Pool,
    ) -> Made {
        let began = Instant::now();
        let masked = text.masking.as_ref().map(|masking| self.mask(masking, (&ids, text.width), &documents, draws, pool));
        let work = Work { augment: work.augment + began.elapsed(), ..work };
        let batch = Batch::Tokens { ids, documents, masked, samples: draws.len(), length: text.width - 1 };
        Made { batch, replaced, work }
    }

    /// Hides tokens of the rows of `ids`, each as its draw says.
    fn mask(&self, masking: &Masking, (ids, width): (&[u32], usize), documents: &Documents, draws: &[Draw], pool: &Pool) -> Masked {
        let length = width - 1;
        let (mut inputs, mut scored, mut hidden) = (pool.take::<u32>(length * draws.len()), documents.targets(length), vec![false; length]);
        let rows = ids.chunks_exact(width).zip(draws).zip(inputs.chunks_exact_mut(length)).zip(scored.chunks_exact_mut(length));
        for (((ids, draw), inputs), scored) in rows {
            hide(&masking.spans, scored, &mut span_draws(self.seed, draw.source, draw.epoch, draw.row), &mut hidden);
            inputs.copy_from_slice(&ids[..length]);
            // The target of an input is the input of the next place.
            inputs[1..].iter_mut().zip(&hidden).filter(|(_, hidden)| **hidden).for_each(|(input, _)| *input = masking.mask);
            if masking.spans.scored == Scored::Hidden {
                scored.copy_from_slice(&hidden);
            }
        }
        Masked { inputs, scored }
    }
}

fn misplaced(starts: &[u32], width: usize) -> String {
    format!("starts of documents: found {starts:?}, expected places in the row, ascending, below {width}")
}
