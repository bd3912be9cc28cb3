//! The order of samples: (dataset version, seed, step, micro-batch) -> rows.
//!
//! Promises: a pure function in O(1) time and memory, whatever the number of rows and the step; every row exactly once an
//! epoch for any K, B, seed and number of rows; steps run on over the end of an epoch, so nothing has to divide anything.
//! The order is durable: it is part of what a committed step means, and a test pins it.
//!
//! How good the shuffle is: each epoch the rows are cut, from a random place on, into blocks of [`BLOCK_ROWS`]
//! neighbours, the blocks are shuffled, and all rows of [`WINDOW_BLOCKS`] blocks at a time are shuffled among each other.
//! Up to half as many rows again as in a window (24,576) it is one uniform shuffle of everything. Above, rows meet freely
//! within a window and only as blocks beyond it: a dataset stored in runs of similar rows that are longer than a block
//! keeps some of that likeness in a window, with a spread as if `WINDOW_BLOCKS` blocks had been drawn.
//! A reader that takes a window as a whole reads blocks of neighbours, never single rows.

pub(crate) mod permutation;

use forebay_schemas::{Digest, Position};

use crate::error::{Error, Result};
use permutation::{Domain, below, derive};

/// Rows of a block: neighbours in the table that are read together.
pub const BLOCK_ROWS: u64 = 128;

/// Blocks of a window, within which all rows are shuffled.
pub const WINDOW_BLOCKS: u64 = 128;

const WINDOW_ROWS: u64 = BLOCK_ROWS * WINDOW_BLOCKS;

/// Names the order; a new order needs a new name, and a dataset identity that carries it.
const ORDER: &[u8] = b"forebay order 1";

/// The order of samples of one dataset version under one seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    identity: Digest,
    seed: u64,
    rows: u64,
    micro_batches: u32,
    micro_batch_size: u32,
    key: u64,
    windows: u64,
    full_blocks: Domain,
    full_window: Domain,
    last_window: Domain,
}

/// One sample to feed: a row, and the epoch it is fed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct Draw {
    /// Row of the table.
    pub row: u64,
    /// How many times the whole table was fed before.
    pub epoch: u64,
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
    /// Digest of what is fed: the dataset's identity, then (epoch, row) of every sample in order.
    pub fn digest(&self) -> Digest {
        let mut bytes = Vec::with_capacity(32 + 16 * self.draws.len());
        bytes.extend_from_slice(self.position.dataset.as_bytes());
        for draw in &self.draws {
            bytes.extend_from_slice(&draw.epoch.to_le_bytes());
            bytes.extend_from_slice(&draw.row.to_le_bytes());
        }
        Digest::of(&bytes)
    }
}

impl Plan {
    /// The order of a table of `rows` rows; `identity` is [`forebay_schemas::dataset::DatasetManifest::identity`].
    pub fn new(identity: Digest, seed: u64, rows: u64, micro_batches: u32, micro_batch_size: u32) -> Result<Self> {
        for (name, found) in [
            ("rows", rows),
            ("micro-batches in a step", u64::from(micro_batches)),
            ("samples in a micro-batch", u64::from(micro_batch_size)),
        ] {
            if found == 0 {
                return Err(Error::Invalid(format!("order of samples: found 0 {name}, expected at least 1")));
            }
        }
        let key = Digest::of_parts([ORDER, identity.as_bytes(), &seed.to_le_bytes(), &rows.to_le_bytes()]).as_u64();
        // The last window takes what is left, half a window to one and a half: a short one would be hardly shuffled.
        let windows = (rows.saturating_add(WINDOW_ROWS / 2) / WINDOW_ROWS).max(1);
        Ok(Self {
            identity,
            seed,
            rows,
            micro_batches,
            micro_batch_size,
            key,
            windows,
            full_blocks: Domain::new(rows / BLOCK_ROWS),
            full_window: Domain::new(WINDOW_ROWS),
            last_window: Domain::new(rows - (windows - 1) * WINDOW_ROWS),
        })
    }

    /// The samples of micro-batch `micro_batch` of step `step`. An index of K or more runs on into the next steps.
    pub fn micro_batch(&self, step: u64, micro_batch: u32) -> MicroBatchPlan {
        let first = self.ordinal(step, micro_batch);
        let (mut epoch, mut index) = self.split(first);
        let mut order = self.epoch(epoch);
        let mut draws = Vec::with_capacity(self.micro_batch_size as usize);
        for _ in 0..self.micro_batch_size {
            draws.push(Draw { row: order.row(index), epoch });
            index += 1;
            if index == self.rows {
                (epoch, index) = (epoch.saturating_add(1), 0);
                order = self.epoch(epoch);
            }
        }
        MicroBatchPlan { position: self.position(step), index: micro_batch, draws }
    }

    /// The sample of number `ordinal` in the endless row of samples, (step × K + micro-batch) × B + i.
    pub fn draw(&self, ordinal: u64) -> Draw {
        let (epoch, index) = (ordinal / self.rows, ordinal % self.rows);
        Draw { row: self.epoch(epoch).row(index), epoch }
    }

    /// The position before `step` is committed.
    pub fn position(&self, step: u64) -> Position {
        Position {
            dataset: self.identity,
            seed: self.seed,
            step,
            micro_batches: self.micro_batches,
            micro_batch_size: self.micro_batch_size,
        }
    }

    /// [`MicroBatchPlan::digest`] of a micro-batch.
    pub fn samples_digest(&self, step: u64, micro_batch: u32) -> Digest {
        self.micro_batch(step, micro_batch).digest()
    }

    /// Rows of the table.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// K: micro-batches in a step.
    pub fn micro_batches(&self) -> u32 {
        self.micro_batches
    }

    /// B: samples in a micro-batch.
    pub fn micro_batch_size(&self) -> u32 {
        self.micro_batch_size
    }

    /// Seed of the order and of every other draw.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// How many samples from the first of the micro-batch on lie in the same window of the same epoch: what is worth
    /// fetching together.
    pub(crate) fn left_in_window(&self, step: u64, micro_batch: u32) -> u64 {
        let (_, index) = self.split(self.ordinal(step, micro_batch));
        let window = (index / WINDOW_ROWS).min(self.windows - 1);
        let end = if window == self.windows - 1 { self.rows } else { (window + 1) * WINDOW_ROWS };
        end - index
    }

    fn ordinal(&self, step: u64, micro_batch: u32) -> u128 {
        // Less than 2⁶⁴ · 2³² + 2³² micro-batches of less than 2³² samples each: 128 bits hold it.
        (u128::from(step) * u128::from(self.micro_batches) + u128::from(micro_batch)) * u128::from(self.micro_batch_size)
    }

    /// Epoch and index in the epoch; after 2⁶⁴ epochs the last one is repeated.
    fn split(&self, ordinal: u128) -> (u64, u64) {
        let rows = u128::from(self.rows);
        (u64::try_from(ordinal / rows).unwrap_or(u64::MAX), (ordinal % rows) as u64)
    }

    fn epoch(&self, epoch: u64) -> EpochOrder<'_> {
        let key = derive(self.key, epoch);
        EpochOrder { plan: self, blocks: derive(key, 0), windows: derive(key, 1), shift: below(derive(key, 2), self.rows) }
    }
}

/// The order of one epoch: its keys, and where on the ring of rows its blocks start.
struct EpochOrder<'a> {
    plan: &'a Plan,
    blocks: u64,
    windows: u64,
    shift: u64,
}

impl EpochOrder<'_> {
    /// The row that is fed as number `index` of the epoch.
    fn row(&self, index: u64) -> u64 {
        let plan = self.plan;
        let window = (index / WINDOW_ROWS).min(plan.windows - 1);
        let domain = if window == plan.windows - 1 { &plan.last_window } else { &plan.full_window };
        let start = window * WINDOW_ROWS;
        let shuffled = start + domain.permute(derive(self.windows, window), index - start);
        let (slot, offset) = (shuffled / BLOCK_ROWS, shuffled % BLOCK_ROWS);
        // What is left over after the full blocks keeps its slot at the end; the shift moves it about among epochs.
        let block = if slot < plan.full_blocks.size() { plan.full_blocks.permute(self.blocks, slot) } else { slot };
        let unshifted = block * BLOCK_ROWS + offset;
        if unshifted >= plan.rows - self.shift { unshifted - (plan.rows - self.shift) } else { unshifted + self.shift }
    }
}

#[cfg(test)]
mod tests;
