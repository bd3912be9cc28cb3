//! How a batch is made of rows: a transform that was checked against a table.
//!
//! Promises: a sample that does not decode is replaced by the next one of its micro-batch, and said; a micro-batch of which
//! none decodes is an error.

use std::time::Instant;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{SchemaRef, UInt32Type};
use forebay_schemas::dataset::Modality;
use forebay_schemas::run::Augment;

use super::{Batch, Replaced, Transform};
use crate::augment::{Draws, Normalise, Renderer, View};
use crate::decode::{Images, sequence_width, widen};
use crate::error::{Error, Result};
use crate::plan::Draw;
use crate::stall::Work;

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

/// What a worker keeps from one batch to the next.
#[derive(Default)]
pub(crate) struct Scratch {
    images: Images,
    renderer: Renderer,
}

/// A batch that was made.
pub(crate) struct Made {
    pub(crate) batch: Batch,
    pub(crate) replaced: Vec<Replaced>,
    pub(crate) work: Work,
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
            (Transform::Tokens, found) => return Err(super::unfit(found, "Text for token batches")),
            (Transform::Images { .. }, found) => return Err(super::unfit(found, "Images for image batches")),
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

    /// The table's name.
    pub(crate) fn split(&self) -> &str {
        &self.split
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
    pub(crate) fn make(&self, from: &Ingredients<'_>, scratch: &mut Scratch, stopped: &dyn Fn() -> bool) -> Result<Option<Made>> {
        match &self.kind {
            Kind::Tokens { width } => self.tokens(*width, from).map(Some),
            Kind::Images { size, .. } => self.images(*size, from, scratch, stopped),
        }
    }

    fn tokens(&self, width: usize, from: &Ingredients<'_>) -> Result<Made> {
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
        Ok(Made { batch, replaced: Vec::new(), work: Work { collate: began.elapsed(), ..Work::default() } })
    }

    fn images(&self, size: u32, from: &Ingredients<'_>, scratch: &mut Scratch, stopped: &dyn Fn() -> bool) -> Result<Option<Made>> {
        let began = Instant::now();
        let mut work = Work::default();
        let area = 3 * size as usize * size as usize;
        let samples = from.draws.len();
        let (mut pixels, mut labels) = (vec![0.0; area * samples], vec![0; samples]);
        let mut bad: Vec<(usize, String)> = Vec::new();
        for (place, out) in pixels.chunks_exact_mut(area).enumerate() {
            if stopped() {
                return Ok(None);
            }
            match self.image(from, place, place, scratch, &mut work, out) {
                Ok(label) => labels[place] = label,
                Err(reason) => bad.push((place, reason)),
            }
        }
        let is_bad = |place: usize| bad.iter().any(|(other, _)| *other == place);
        let mut replaced = Vec::with_capacity(bad.len());
        for (place, reason) in &bad {
            let draw = &from.draws[*place];
            let failed = |reason: &str| self.corrupt(draw.row, reason.to_owned());
            let by = (1..samples).map(|further| (place + further) % samples).find(|other| !is_bad(*other)).ok_or_else(|| failed(reason))?;
            let out = &mut pixels[place * area..(place + 1) * area];
            labels[*place] = self.image(from, by, *place, scratch, &mut work, out).map_err(|reason| failed(&reason))?;
            let (source, row, reason) = (draw.source, draw.row, reason.clone());
            replaced.push(Replaced { place: *place as u32, source, row, by: by as u32, reason });
        }
        work.collate = began.elapsed().saturating_sub(work.total());
        let batch = Batch::Images { pixels, labels, samples, size: size as usize };
        Ok(Some(Made { batch, replaced, work }))
    }

    /// Renders the picture of sample `of`, augmented as sample `like`; returns its label.
    fn image(
        &self,
        from: &Ingredients<'_>,
        of: usize,
        like: usize,
        scratch: &mut Scratch,
        work: &mut Work,
        out: &mut [f32],
    ) -> std::result::Result<i64, String> {
        let Kind::Images { size, normalise, augment } = &self.kind else { return Err("a sample of text is no image".to_owned()) };
        let (piece, row) = from.places[of];
        let (bytes, label) = image_row(&from.rows[piece as usize], row as usize)
            .ok_or_else(|| "columns `bytes` and `label`: found none, expected an image and its label".to_owned())?;
        let began = Instant::now();
        let opened = scratch.images.open(bytes)?;
        let (width, height) = opened.sides();
        let view = match augment {
            Some(augment) => {
                let draw = &from.draws[like];
                View::random(width, height, *size, augment, &mut Draws::new(self.seed, draw.source, draw.epoch, draw.row))
            }
            None => View::centred(width, height, *size),
        };
        let (picture, view) = scratch.images.part(opened, &view, *size)?;
        let decoded = Instant::now();
        scratch.renderer.render(&picture, &view, *size, normalise, out);
        scratch.images.recycle(picture);
        work.decode += decoded - began;
        work.augment += decoded.elapsed();
        Ok(label)
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
