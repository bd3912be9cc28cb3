//! Rows to one contiguous batch, ready to become a tensor.
//!
//! Promises: shape, order and content depend on the rows and the draws alone, not on threads; every error names its row.
//! Deliberately absent: devices and tensors, which are the trainer's.

use std::time::Instant;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{SchemaRef, UInt32Type};
use forebay_schemas::Digest;
use forebay_schemas::dataset::{DatasetManifest, Modality};
use forebay_schemas::run::{Augment, Model, Run};

use crate::augment::{Draws, Normalise, View, render};
use crate::decode::{decode_image, sequence_width, widen};
use crate::error::{Error, Result};
use crate::plan::Draw;
use crate::stall::Work;

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
    /// [`crate::plan::MicroBatchPlan::digest`] of the rows that are in `batch`.
    pub digest: Digest,
    /// The samples.
    pub batch: Batch,
}

/// A checked transform of one table: how a batch is made of its rows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Recipe {
    split: String,
    seed: u64,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Tokens { width: usize },
    Images { size: u32, normalise: Normalise, augment: Option<Augment> },
}

/// Which rows become which samples.
pub(crate) struct Ingredients<'a> {
    pub(crate) draws: &'a [Draw],
    /// For each draw, which of `rows` holds it, and where.
    pub(crate) places: &'a [(u32, u32)],
    pub(crate) rows: &'a [RecordBatch],
}

impl Recipe {
    /// Checks a transform against the dataset's modality and the table's columns.
    pub(crate) fn new(split: &str, seed: u64, modality: Modality, schema: &SchemaRef, transform: &Transform) -> Result<Self> {
        let kind = match (transform, modality) {
            (Transform::Tokens, Modality::Text) => {
                let width = sequence_width(schema).map_err(|reason| Error::Invalid(format!("split `{split}`: {reason}")))?;
                Kind::Tokens { width }
            }
            (Transform::Images { size, mean, std, augment }, Modality::Images) => {
                check_images(*size, mean, std)?;
                Kind::Images { size: *size, normalise: Normalise::new(*mean, *std), augment: augment.clone() }
            }
            (Transform::Tokens, found) => return Err(unfit(found, "Text for token batches")),
            (Transform::Images { .. }, found) => return Err(unfit(found, "Images for image batches")),
        };
        Ok(Self { split: split.to_owned(), seed, kind })
    }

    /// The same without augmentation.
    pub(crate) fn plain(&self) -> Self {
        let mut plain = self.clone();
        if let Kind::Images { augment, .. } = &mut plain.kind {
            *augment = None;
        }
        plain
    }

    /// The columns to read.
    pub(crate) fn columns(&self) -> &'static [&'static str] {
        match self.kind {
            Kind::Tokens { .. } => &["tokens"],
            Kind::Images { .. } => &["bytes", "label"],
        }
    }

    /// The bytes of a stored row, guessed for images until some were read.
    pub(crate) fn row_bytes(&self) -> u64 {
        match self.kind {
            Kind::Tokens { width } => 4 * width as u64,
            Kind::Images { .. } => 16 << 10,
        }
    }

    /// The bytes of a finished batch.
    pub(crate) fn batch_bytes(&self, samples: usize) -> u64 {
        let sample = match self.kind {
            Kind::Tokens { width } => 8 * width as u64,
            Kind::Images { size, .. } => 12 * u64::from(size) * u64::from(size) + 8,
        };
        sample * samples as u64
    }

    /// Makes a batch; none if `stopped` says so between two samples.
    pub(crate) fn make(&self, from: &Ingredients<'_>, stopped: &dyn Fn() -> bool) -> Result<Option<(Batch, Work)>> {
        match &self.kind {
            Kind::Tokens { width } => self.tokens(*width, from).map(Some),
            Kind::Images { size, normalise, augment } => self.images(*size, normalise, augment.as_ref(), from, stopped),
        }
    }

    fn tokens(&self, width: usize, from: &Ingredients<'_>) -> Result<(Batch, Work)> {
        let began = Instant::now();
        let mut ids = Vec::with_capacity(width * from.draws.len());
        let columns: Vec<_> =
            from.rows.iter().map(|rows| rows.column_by_name("tokens").and_then(|column| column.as_fixed_size_list_opt())).collect();
        for (draw, (piece, place)) in from.draws.iter().zip(from.places) {
            let column = columns.get(*piece as usize).copied().flatten();
            let found = column.is_some_and(|column| column.value_length() as usize == width && widen(column, *place as usize, &mut ids));
            if !found {
                return Err(self.corrupt(draw.row, format!("tokens: found none, expected {width} ids")));
            }
        }
        let batch = Batch::Tokens { ids, samples: from.draws.len(), length: width - 1 };
        Ok((batch, Work { collate: began.elapsed(), ..Work::default() }))
    }

    fn images(
        &self,
        size: u32,
        normalise: &Normalise,
        augment: Option<&Augment>,
        from: &Ingredients<'_>,
        stopped: &dyn Fn() -> bool,
    ) -> Result<Option<(Batch, Work)>> {
        let began = Instant::now();
        let mut work = Work::default();
        let area = 3 * size as usize * size as usize;
        let mut pixels = vec![0.0; area * from.draws.len()];
        let mut labels = Vec::with_capacity(from.draws.len());
        for (out, (draw, (piece, place))) in pixels.chunks_exact_mut(area).zip(from.draws.iter().zip(from.places)) {
            if stopped() {
                return Ok(None);
            }
            let (bytes, label) = image_row(&from.rows[*piece as usize], *place as usize).ok_or_else(|| {
                self.corrupt(draw.row, "columns `bytes` and `label`: found none, expected an image and its label".to_owned())
            })?;
            let at = Instant::now();
            let picture = decode_image(bytes).map_err(|reason| self.corrupt(draw.row, reason))?;
            let decoded = Instant::now();
            let view = match augment {
                Some(augment) => {
                    let mut draws = Draws::new(self.seed, draw.source, draw.epoch, draw.row);
                    View::random(picture.width, picture.height, size, augment, &mut draws)
                }
                None => View::centred(picture.width, picture.height, size),
            };
            render(&picture, &view, size, normalise, out);
            work.decode += decoded - at;
            work.augment += decoded.elapsed();
            labels.push(label);
        }
        work.collate = began.elapsed().saturating_sub(work.total());
        Ok(Some((Batch::Images { pixels, labels, samples: from.draws.len(), size: size as usize }, work)))
    }

    fn corrupt(&self, row: u64, reason: String) -> Error {
        Error::Corrupt { split: self.split.clone(), row, reason }
    }
}

fn image_row(rows: &RecordBatch, place: usize) -> Option<(&[u8], i64)> {
    let bytes = rows.column_by_name("bytes")?.as_binary_opt::<i64>()?;
    let labels = rows.column_by_name("label")?.as_primitive_opt::<UInt32Type>()?;
    (bytes.is_valid(place) && labels.is_valid(place)).then(|| (bytes.value(place), i64::from(labels.value(place))))
}

fn check_images(size: u32, mean: &[f64; 3], std: &[f64; 3]) -> Result<()> {
    if !(1..=4096).contains(&size) {
        return Err(Error::Invalid(format!("image size: found {size}, expected 1 to 4096")));
    }
    if !mean.iter().all(|mean| mean.is_finite()) {
        return Err(Error::Invalid(format!("channel mean: found {mean:?}, expected finite numbers")));
    }
    // A dataset of one colour has a deviation of 0, and nothing to divide by.
    if !std.iter().all(|std| std.is_finite() && *std > 0.0) {
        return Err(Error::Invalid(format!("channel standard deviation: found {std:?}, expected numbers above 0")));
    }
    Ok(())
}
