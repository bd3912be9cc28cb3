//! The order of samples: (sources, weights, seed, step, micro-batch) -> rows.
//!
//! A sample's ordinal, (step × K + micro-batch) × B + i, gives its source and its number within the source (`mixture`);
//! the number gives epoch and place (`order`); the place among the rows that a filter left gives the row (`selection`).
//! Promises: a pure function, the same time and memory whatever the number of rows and the step; every row exactly once
//! an epoch of its source for any K, B, seed, weights and number of rows; steps run on over the end of an epoch, so
//! nothing has to divide anything; after 2⁶⁴ samples the order begins anew.
//! The order is durable: it is part of what a committed step means, and a test pins it.
//! Deliberately absent: a list of indices, a count of what was fed, and who computes which micro-batch.

pub(crate) mod mixture;
pub(crate) mod order;
pub(crate) mod permutation;
pub(crate) mod selection;

use std::ops::Range;
use std::sync::Arc;

use forebay_schemas::{Digest, Position};

pub use mixture::Schedule;
pub use order::Shuffle;
pub use selection::{Selection, SelectionBuilder};

use crate::error::{Error, Result};
use mixture::Mixture;
use order::{Order, Window};

/// Names the order; a new order needs a new name, and a dataset identity that carries it.
const ORDER: &[u8] = b"forebay order 2";

/// Where samples come from.
#[derive(Clone, Debug)]
pub struct Source {
    /// [`forebay_schemas::dataset::DatasetManifest::identity`] of the version.
    pub identity: Digest,
    /// Rows of its table.
    pub rows: u64,
    /// The rows that a filter left; none takes all.
    pub selection: Option<Arc<Selection>>,
    /// How its rows are shuffled.
    pub shuffle: Shuffle,
    /// Its weight, step by step.
    pub weight: Schedule,
}

/// The order of samples of one or several sources under one seed. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Plan {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    identity: Digest,
    order: Digest,
    seed: u64,
    micro_batches: u32,
    micro_batch_size: u32,
    sources: Vec<(Order, Option<Arc<Selection>>)>,
    mixture: Mixture,
}

/// One sample to feed: a row of a source, and the epoch it is fed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct Draw {
    /// Which source, in the order of the plan's.
    pub source: u32,
    /// How many times all rows of the source were fed before.
    pub epoch: u64,
    /// Row of the source's table.
    pub row: u64,
    /// Number of the row among those that the filter left; the row itself where there is no filter.
    pub place: u64,
}

/// Neighbours that are read together: consecutive places of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Block {
    /// Which source.
    pub source: u32,
    /// Its number in the source.
    pub number: u64,
}

/// The samples of one micro-batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MicroBatchPlan {
    /// The position before its step is committed.
    pub position: Position,
    /// Its index in the step, below K.
    pub index: u32,
    /// The samples in order.
    pub draws: Vec<Draw>,
}

impl MicroBatchPlan {
    /// Digest of what is fed: the plan's identity, then (source, epoch, row) of every sample in order. With the seed these
    /// are the key of its augmentation too, so the digest says all that decides the batch.
    pub fn digest(&self) -> Digest {
        let mut bytes = Vec::with_capacity(40 + 20 * self.draws.len());
        bytes.extend_from_slice(self.position.dataset.as_bytes());
        bytes.extend_from_slice(&self.position.seed.to_le_bytes());
        for draw in &self.draws {
            bytes.extend_from_slice(&draw.source.to_le_bytes());
            bytes.extend_from_slice(&draw.epoch.to_le_bytes());
            bytes.extend_from_slice(&draw.row.to_le_bytes());
        }
        Digest::of(&bytes)
    }
}

impl Plan {
    /// The order of `sources` in steps of `micro_batches` × `micro_batch_size` samples.
    ///
    /// `Invalid` if there is nothing to feed, or the weights are no weights.
    pub fn new(sources: &[Source], seed: u64, micro_batches: u32, micro_batch_size: u32) -> Result<Self> {
        Self::of_text(sources, seed, micro_batches, micro_batch_size, None)
    }

    /// The same order where more than the rows decides the samples, which `text` names: a tokenizer, spans that are hidden. It
    /// moves no row, but digests tell it.
    pub fn of_text(sources: &[Source], seed: u64, micro_batches: u32, micro_batch_size: u32, text: Option<Digest>) -> Result<Self> {
        for (name, found) in [("micro-batches in a step", micro_batches), ("samples in a micro-batch", micro_batch_size)] {
            if found == 0 {
                return Err(Error::Invalid(format!("order of samples: found 0 {name}, expected at least 1")));
            }
        }
        let schedules: Vec<Schedule> = sources.iter().map(|source| source.weight.clone()).collect();
        let mixture = Mixture::new(&schedules, u64::from(micro_batches) * u64::from(micro_batch_size))?;
        let keys: Vec<Digest> = sources.iter().map(|source| source.key(seed)).collect();
        let orders: Result<Vec<_>> =
            sources.iter().zip(&keys).map(|(source, key)| Ok((source.order(key)?, source.selection.clone()))).collect();
        let identity = identity(sources, text);
        let numbers = [micro_batches, micro_batch_size].map(u32::to_le_bytes);
        let parts = [b"forebay plan 1", &identity.as_bytes()[..], numbers.as_flattened()];
        let order = Digest::of_parts(parts.into_iter().chain(keys.iter().map(|key| &key.as_bytes()[..])));
        Ok(Self { inner: Arc::new(Inner { identity, order, seed, micro_batches, micro_batch_size, sources: orders?, mixture }) })
    }

    /// The samples of micro-batch `micro_batch` of step `step`. An index of K or more runs on into the next steps.
    pub fn micro_batch(&self, step: u64, micro_batch: u32) -> MicroBatchPlan {
        let first = self.ordinal(step, micro_batch);
        let mut windows = vec![None; self.inner.sources.len()];
        let draws = (0..u64::from(self.inner.micro_batch_size)).map(|i| self.inner.draw(first.wrapping_add(i), &mut windows)).collect();
        MicroBatchPlan { position: self.position(step), index: micro_batch, draws }
    }

    /// The sample of number `ordinal`, (step × K + micro-batch) × B + i.
    pub fn draw(&self, ordinal: u64) -> Draw {
        let (source, number) = self.inner.mixture.deal(ordinal);
        self.inner.place(source, &self.inner.sources[source as usize].0.window(number), number)
    }

    /// The position before `step` is committed.
    pub fn position(&self, step: u64) -> Position {
        let Inner { identity, seed, micro_batches, micro_batch_size, .. } = *self.inner;
        Position { dataset: identity, seed, step, micro_batches, micro_batch_size }
    }

    /// [`MicroBatchPlan::digest`] of a micro-batch.
    pub fn samples_digest(&self, step: u64, micro_batch: u32) -> Digest {
        self.micro_batch(step, micro_batch).digest()
    }

    /// What is read: the identity of the only version if there is no filter, otherwise a digest of all versions, what
    /// their filters left, and the weights; and of what is made of text where its rows do not say it.
    pub fn identity(&self) -> Digest {
        self.inner.identity
    }

    /// Names the plan: two with the same name feed the same samples in the same micro-batches of the same steps.
    pub fn order(&self) -> Digest {
        self.inner.order
    }

    /// Number of sources.
    pub fn sources(&self) -> u32 {
        self.inner.sources.len() as u32
    }

    /// Rows of a source that are fed in an epoch.
    pub fn rows(&self, source: u32) -> u64 {
        self.inner.sources[source as usize].0.rows()
    }

    /// Samples that a source gives before `step`.
    pub fn given(&self, source: u32, step: u64) -> u64 {
        self.inner.mixture.given(source, self.ordinal(step, 0))
    }

    /// The step in which a source's epoch number `epoch` ends, that is, its last sample is fed; none if it never does.
    pub fn end_of_epoch(&self, source: u32, epoch: u64) -> Option<u64> {
        let samples = epoch.checked_add(1)?.checked_mul(self.rows(source))?;
        let ordinal = self.inner.mixture.when(source, samples - 1)?;
        Some(ordinal / (u64::from(self.inner.micro_batches) * u64::from(self.inner.micro_batch_size)))
    }

    /// K: micro-batches in a step.
    pub fn micro_batches(&self) -> u32 {
        self.inner.micro_batches
    }

    /// B: samples in a micro-batch.
    pub fn micro_batch_size(&self) -> u32 {
        self.inner.micro_batch_size
    }

    /// Seed of the order and of every other draw.
    pub fn seed(&self) -> u64 {
        self.inner.seed
    }

    /// The block that holds a sample.
    pub fn block_of(&self, draw: &Draw) -> Block {
        Block { source: draw.source, number: self.inner.sources[draw.source as usize].0.block_of(draw.place) }
    }

    /// Blocks of a source, the last of which may be shorter.
    pub fn blocks(&self, source: u32) -> u64 {
        self.inner.sources[source as usize].0.blocks()
    }

    /// The places of a block; the rows of its table are those of [`Self::row`].
    pub fn places(&self, block: Block) -> Range<u64> {
        self.inner.sources[block.source as usize].0.block(block.number)
    }

    /// The row of the table at a place.
    pub fn row(&self, source: u32, place: u64) -> u64 {
        self.inner.sources[source as usize].1.as_ref().map_or(place, |selection| selection.row(place))
    }

    /// How a source's rows are shuffled.
    pub fn shuffle(&self, source: u32) -> Shuffle {
        self.inner.sources[source as usize].0.shuffle()
    }

    /// Digest of the rows that a source's filter left; none where all are fed.
    pub fn selection(&self, source: u32) -> Option<Digest> {
        self.inner.sources[source as usize].1.as_ref().map(|selection| selection.digest())
    }

    /// The ordinal of the first sample from `step` on that is of a block; none if there is none.
    pub fn next_use(&self, block: Block, step: u64) -> Option<u64> {
        let now = self.ordinal(step, 0);
        let (order, _) = &self.inner.sources[block.source as usize];
        let number = order.next_use(block.number, self.inner.mixture.given(block.source, now));
        self.inner.mixture.when(block.source, number)
    }

    /// Number of the first sample of a step.
    pub(crate) fn ordinal_of(&self, step: u64) -> u64 {
        self.ordinal(step, 0)
    }

    /// How many samples from the first of the micro-batch on lie in one window of the source that gives most of them: what
    /// is worth fetching together.
    pub(crate) fn left_in_window(&self, step: u64, micro_batch: u32) -> u64 {
        /// Samples over which shares are compared.
        const AHEAD: u64 = 1 << 16;
        let (now, mixture) = (self.ordinal(step, micro_batch), &self.inner.mixture);
        let given = |source: &u32| mixture.given(*source, now.saturating_add(AHEAD)) - mixture.given(*source, now);
        let source = (0..self.sources()).max_by_key(given).unwrap_or(0);
        let (order, number) = (&self.inner.sources[source as usize].0, mixture.given(source, now));
        let left = order.window(number).left(number);
        mixture.when(source, number.saturating_add(left)).map_or(left, |end| end.saturating_sub(now)).max(1)
    }

    fn ordinal(&self, step: u64, micro_batch: u32) -> u64 {
        let Inner { micro_batches, micro_batch_size, .. } = *self.inner;
        step.wrapping_mul(micro_batches.into()).wrapping_add(micro_batch.into()).wrapping_mul(micro_batch_size.into())
    }
}

impl Inner {
    /// The sample of an ordinal; `windows` keeps each source's last one.
    fn draw(&self, ordinal: u64, windows: &mut [Option<Window>]) -> Draw {
        let (source, number) = self.mixture.deal(ordinal);
        let kept = &mut windows[source as usize];
        let window = match kept {
            Some(window) if window.contains(number) => window,
            _ => kept.insert(self.sources[source as usize].0.window(number)),
        };
        self.place(source, window, number)
    }

    fn place(&self, source: u32, window: &Window, number: u64) -> Draw {
        let (order, selection) = &self.sources[source as usize];
        let place = order.row(window, number);
        Draw { source, epoch: window.epoch(), row: selection.as_ref().map_or(place, |selection| selection.row(place)), place }
    }
}

impl Source {
    /// A source of all rows, of weight 1.
    pub fn whole(identity: Digest, rows: u64, shuffle: Shuffle) -> Self {
        Self { identity, rows, selection: None, shuffle, weight: vec![(0, 1.0)] }
    }

    /// Rows that are fed in an epoch.
    fn fed(&self) -> u64 {
        self.selection.as_ref().map_or(self.rows, |selection| selection.len())
    }

    /// Names the source's order. It depends on itself and the seed alone, so that another one beside it does not move it.
    fn key(&self, seed: u64) -> Digest {
        let numbers = [seed, self.fed(), self.shuffle.block_rows, self.shuffle.window_blocks].map(u64::to_le_bytes);
        let selection = self.selection.as_ref().map(|selection| selection.digest());
        let selected = selection.as_ref().map_or(&[][..], |digest| digest.as_bytes());
        Digest::of_parts([ORDER, self.identity.as_bytes(), numbers.as_flattened(), selected])
    }

    fn order(&self, key: &Digest) -> Result<Order> {
        Order::new(key.as_u64(), self.fed(), self.shuffle)
    }
}

fn identity(sources: &[Source], text: Option<Digest>) -> Digest {
    let rows = identity_of_rows(sources);
    text.map_or(rows, |text| Digest::of_parts([b"forebay text 1", &rows.as_bytes()[..], text.as_bytes()]))
}

fn identity_of_rows(sources: &[Source]) -> Digest {
    if let [only] = sources
        && only.selection.is_none()
    {
        return only.identity;
    }
    let mut parts: Vec<Vec<u8>> = vec![b"forebay mixture 1".to_vec()];
    for source in sources {
        parts.push(source.identity.as_bytes().to_vec());
        parts.push(source.selection.as_ref().map_or_else(Vec::new, |selection| selection.digest().as_bytes().to_vec()));
        parts.push(source.weight.iter().flat_map(|(step, weight)| [step.to_le_bytes(), weight.to_le_bytes()].concat()).collect());
    }
    Digest::of_parts(parts.iter().map(Vec::as_slice))
}

#[cfg(test)]
mod tests;
