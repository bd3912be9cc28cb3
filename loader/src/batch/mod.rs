//! Rows to one contiguous batch, ready to become a tensor.
//!
//! Promises: shape, order and content depend on the rows and the draws alone, not on threads; every error names its row.
//! Deliberately absent: devices and tensors, which are the trainer's.

mod recipe;

use forebay_schemas::Digest;
use forebay_schemas::dataset::{DatasetManifest, Modality};
use forebay_schemas::run::{Augment, Model, Run};
use serde::Serialize;

use crate::error::{Error, Result};
pub(crate) use recipe::{Ingredients, Made, Recipe, Scratch};

/// What becomes of the rows.
#[derive(Clone, Debug, PartialEq)]
pub enum Transform {
    /// Packed token sequences are widened to 64 bits.
    Tokens,
    /// Images are decoded, turned upright, cropped, resized and normalised.
    Images {
        /// Side of the square sample, in pixels.
        size: u32,
        /// Mean of each channel, in 0…1, which becomes 0.
        mean: [f64; 3],
        /// Standard deviation of each channel, which becomes 1.
        std: [f64; 3],
        /// Random crop, flip and rotation; none shows the centre.
        augment: Option<Augment>,
    },
}

impl Transform {
    /// What a training run makes of its dataset: the model's input size, the statistics that ingest measured, the run's
    /// augmentation. `Invalid` if the model is for another kind of samples, or nothing was measured.
    pub fn training(run: &Run, manifest: &DatasetManifest) -> Result<Self> {
        let size = match (&run.model, manifest.modality) {
            (Model::Gpt { .. }, Modality::Text) => return Ok(Self::Tokens),
            (Model::Resnet { image_size, .. } | Model::Vit { image_size, .. }, Modality::Images) => *image_size,
            (Model::Gpt { .. }, found) => return Err(unfit(found, "Text for a gpt")),
            (Model::Resnet { .. } | Model::Vit { .. }, found) => return Err(unfit(found, "Images for a resnet or vit")),
        };
        let statistics = manifest.statistics.channel_mean.zip(manifest.statistics.channel_std);
        let (mean, std) = statistics.ok_or_else(|| {
            Error::Invalid(format!(
                "dataset version {}: found no channel mean and std, expected those of its training pixels",
                manifest.version
            ))
        })?;
        Ok(Self::Images { size, mean, std, augment: Some(run.augment.clone()) })
    }
}

fn unfit(found: Modality, expected: &str) -> Error {
    Error::Invalid(format!("dataset: found modality {found:?}, expected {expected}"))
}

/// Samples side by side in one buffer.
#[derive(Clone, Debug, PartialEq)]
pub enum Batch {
    /// Token ids.
    Tokens {
        /// Shape `[samples, length + 1]`, row-major: inputs are the first `length`, targets the last.
        ids: Vec<i64>,
        /// Number of samples.
        samples: usize,
        /// Ids in a sample less one.
        length: usize,
    },
    /// Normalised images with their labels.
    Images {
        /// Shape `[samples, 3, size, size]`: red, green, blue.
        pixels: Vec<f32>,
        /// Shape `[samples]`.
        labels: Vec<i64>,
        /// Number of samples.
        samples: usize,
        /// Side in pixels.
        size: usize,
    },
}

impl Batch {
    /// Number of samples.
    pub fn samples(&self) -> usize {
        match self {
            Self::Tokens { samples, .. } | Self::Images { samples, .. } => *samples,
        }
    }

    /// Size of the buffers.
    pub fn bytes(&self) -> u64 {
        let bytes = match self {
            Self::Tokens { ids, .. } => size_of_val(ids.as_slice()),
            Self::Images { pixels, labels, .. } => size_of_val(pixels.as_slice()) + size_of_val(labels.as_slice()),
        };
        bytes as u64
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
