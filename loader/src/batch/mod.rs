//! Rows to one contiguous batch, ready to become a tensor.
//!
//! Promises: shape, order and content depend on the rows and the draws alone, not on threads; every error names its row.
//! Deliberately absent: devices and tensors, which are the trainer's.

mod arena;
mod documents;
mod recipe;
mod sequences;
pub(crate) mod slab;
mod transform;

use std::sync::Arc;

use forebay_schemas::Digest;
use forebay_schemas::run::Pixels;
use serde::Serialize;

use crate::error::Error;
pub use arena::{Arena, Block, Memory};
pub(crate) use arena::{Out, Pool};
pub use documents::Documents;
pub(crate) use recipe::{Ingredients, Made, Recipe, Scratch};
pub use transform::{Masking, Transform, pin};

/// Samples side by side in one buffer.
#[derive(Clone, Debug, PartialEq)]
pub enum Batch {
    /// Token ids.
    Tokens {
        /// Shape `[samples, length + 1]`, row-major: inputs are the first `length`, targets the last.
        ids: Arena<u32>,
        /// Where the documents of each sample begin.
        documents: Documents,
        /// What the model does not see; none where all of it is shown.
        masked: Option<Masked>,
        /// Number of samples.
        samples: usize,
        /// Ids in a sample less one.
        length: usize,
    },
    /// Normalised images with their labels.
    Images {
        /// Shape `[samples, 3, size, size]`: red, green, blue.
        pixels: Numbers,
        /// Shape `[samples]`.
        labels: Vec<i64>,
        /// Number of samples.
        samples: usize,
        /// Side in pixels.
        size: usize,
    },
}

/// Token sequences of which some tokens are hidden: the targets are those of [`Batch::Tokens::ids`].
#[derive(Clone, Debug, PartialEq)]
pub struct Masked {
    /// Shape `[samples, length]`: the inputs, with the mask token in place of those that are hidden.
    pub inputs: Arena<u32>,
    /// Shape `[samples, length]`: whether the target of an input counts for the loss. A first token and filling never do.
    pub scored: Vec<bool>,
}

impl Batch {
    /// Number of samples.
    pub fn samples(&self) -> usize {
        match self {
            Self::Tokens { samples, .. } | Self::Images { samples, .. } => *samples,
        }
    }

    /// The bytes of its ids or pixels, as they are in memory.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Tokens { ids, .. } => ids.as_bytes(),
            Self::Images { pixels, .. } => pixels.as_bytes(),
        }
    }

    /// Counts its memory as being with the consumer, until it is dropped.
    pub(crate) fn hand_out(&mut self, out: &Arc<Out>) {
        match self {
            Self::Tokens { ids, masked, .. } => {
                ids.hand_out(out);
                masked.iter_mut().for_each(|masked| masked.inputs.hand_out(out));
            }
            Self::Images { pixels, .. } => match pixels {
                Numbers::F32(numbers) => numbers.hand_out(out),
                Numbers::Bf16(numbers) | Numbers::F16(numbers) => numbers.hand_out(out),
                Numbers::U8(numbers) => numbers.hand_out(out),
            },
        }
    }

    /// Size of the buffers.
    pub fn bytes(&self) -> u64 {
        let beside = match self {
            Self::Tokens { masked, .. } => masked.as_ref().map_or(0, |masked| masked.inputs.as_bytes().len() + masked.scored.len()),
            Self::Images { labels, .. } => size_of_val(labels.as_slice()),
        };
        (self.as_bytes().len() + beside) as u64
    }
}

/// Pixels in one of the formats that [`Pixels`] lists.
#[derive(Clone, Debug, PartialEq)]
pub enum Numbers {
    /// Normalised.
    F32(Arena<f32>),
    /// Normalised; the bits of the upper half of an IEEE single.
    Bf16(Arena<u16>),
    /// Normalised; the bits of an IEEE half.
    F16(Arena<u16>),
    /// From 0 to 255, not normalised.
    U8(Arena<u8>),
}

impl Numbers {
    pub(crate) fn take(pool: &Pool, format: Pixels, length: usize) -> Self {
        match format {
            Pixels::F32 => Self::F32(pool.take(length)),
            Pixels::Bf16 => Self::Bf16(pool.take(length)),
            Pixels::F16 => Self::F16(pool.take(length)),
            Pixels::U8 => Self::U8(pool.take(length)),
        }
    }

    /// The format.
    pub fn format(&self) -> Pixels {
        match self {
            Self::F32(_) => Pixels::F32,
            Self::Bf16(_) => Pixels::Bf16,
            Self::F16(_) => Pixels::F16,
            Self::U8(_) => Pixels::U8,
        }
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(numbers) => numbers.len(),
            Self::Bf16(numbers) | Self::F16(numbers) => numbers.len(),
            Self::U8(numbers) => numbers.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their bytes, as they are in memory.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::F32(numbers) => numbers.as_bytes(),
            Self::Bf16(numbers) | Self::F16(numbers) => numbers.as_bytes(),
            Self::U8(numbers) => numbers,
        }
    }

    /// Those of the format [`Pixels::F32`]; none of another.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match self {
            Self::F32(numbers) => Some(numbers),
            _ => None,
        }
    }
}

/// The samples of one micro-batch, and what they are.
#[derive(Clone, Debug, PartialEq)]
pub struct MicroBatch {
    /// Its step.
    pub step: u64,
    /// Its index in the step.
    pub index: u32,
    /// Digest of what is in `batch`: [`crate::plan::MicroBatchPlan::digest`], and of what was replaced.
    pub digest: Digest,
    /// The samples.
    pub batch: Batch,
    /// Samples that do not decode, and what is in their places.
    pub replaced: Vec<Replaced>,
}

/// A sample that does not decode. In its place is the next one of its micro-batch that does, in the augmentation of the one
/// that does not: a function of the stored bytes, which moves no other sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Replaced {
    /// Which sample of the micro-batch.
    pub place: u32,
    /// Its source.
    pub source: u32,
    /// Its row of the source's table.
    pub row: u64,
    /// The sample of the micro-batch that is in its place too.
    pub by: u32,
    /// Why it does not decode.
    pub reason: String,
}

impl Replaced {
    /// The same as a failure.
    pub(crate) fn into_error(self, split: &str) -> Error {
        Error::Corrupt { split: split.to_owned(), row: self.row, reason: self.reason }
    }

    /// The digest of a micro-batch with these replacements.
    pub(crate) fn digest(planned: Digest, replaced: &[Self]) -> Digest {
        if replaced.is_empty() {
            return planned;
        }
        let pairs: Vec<u8> = replaced.iter().flat_map(|one| [one.place.to_le_bytes(), one.by.to_le_bytes()]).flatten().collect();
        Digest::of_parts([planned.as_bytes(), &pairs[..]])
    }
}
