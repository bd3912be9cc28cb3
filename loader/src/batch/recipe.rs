//! How a batch is made of rows: a transform that was checked against a table.
//!
//! Promises: a sample that does not decode is replaced by the next one of its micro-batch, and said; a micro-batch of which
//! none decodes is an error.

use std::collections::BTreeSet;
use std::time::Instant;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{SchemaRef, UInt32Type};
use forebay_schemas::dataset::Modality;
use forebay_schemas::run::{Augment, Pixels};
use forebay_tokens::Encoder;

use super::sequences::Text;
use super::transform::unfit;
use super::{Arena, Batch, Numbers, Pool, Replaced, Transform};
use crate::augment::{Brain, Byte, Draws, Format, Half, Jitter, Normalise, Renderer, Sample, Single, View};
use crate::decode::{Images, check_documents, sequence_width};
use crate::error::{Error, Result};
use crate::plan::Draw;
use crate::stall::Work;

/// A checked transform of one table: how a batch is made of its rows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Recipe {
    split: String,
    pub(super) seed: u64,
    kind: Kind,
    stored_bytes: u64,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Tokens(Text),
    Images { size: u32, normalise: Normalise, format: Pixels, augment: Option<Augment> },
}

/// Which rows become which samples.
pub(crate) struct Ingredients<'a> {
    pub(crate) draws: &'a [Draw],
    /// For each draw, which of `rows` holds it, and where.
    pub(crate) places: &'a [(u32, u32)],
    pub(crate) rows: &'a [RecordBatch],
    /// Source and row of those that are not what was written.
    pub(crate) unfit: &'a BTreeSet<(u32, u64)>,
}

impl Ingredients<'_> {
    /// Refuses a sample whose row is not what was written.
    pub(super) fn check(&self, place: usize) -> std::result::Result<(), String> {
        let draw = &self.draws[place];
        match self.unfit.contains(&(draw.source, draw.row)) {
            true => Err("its bytes are not those that were written".to_owned()),
            false => Ok(()),
        }
    }
}

/// What a worker keeps from one batch to the next.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(super) pool: Pool,
    /// Made with the first document.
    pub(super) encoder: Option<Encoder>,
    /// Bytes that the words may take which the encoder remembers.
    pub(super) words: usize,
    images: Images,
    renderer: Renderer,
}

impl Scratch {
    /// Makes batches in arenas of this pool; words that were made tokens may take so many bytes.
    pub(crate) fn new(pool: Pool, words: usize) -> Self {
        Self { pool, words, ..Self::default() }
    }
}

/// What is beside the pixels of a batch.
struct Labelled {
    labels: Vec<i64>,
    replaced: Vec<Replaced>,
    work: Work,
}

/// A batch that was made.
pub(crate) struct Made {
    pub(crate) batch: Batch,
    pub(crate) replaced: Vec<Replaced>,
    pub(crate) work: Work,
}

impl Recipe {
    /// Checks a transform against the dataset's modality and the table's columns; `end` is the token that ends documents.
    pub(crate) fn new(
        split: &str,
        seed: u64,
        (modality, end): (Modality, Option<u32>),
        schema: &SchemaRef,
        transform: &Transform,
    ) -> Result<Self> {
        let kind = match (transform, modality) {
            (Transform::Tokens { masking }, Modality::Text) => {
                let width = sequence_width(schema).map_err(|reason| Error::Invalid(format!("split `{split}`: {reason}")))?;
                Kind::Tokens(Text { width, end, tokenizer: None, random: false, masking: masking.clone() })
            }
            (Transform::Documents { tokenizer, length, masking }, Modality::Text) => {
                check_documents(schema).map_err(|reason| Error::Invalid(format!("split `{split}`: {reason}")))?;
                if *length == 0 {
                    return Err(Error::Invalid("length of samples: found 0 tokens, expected at least 1".to_owned()));
                }
                let (width, end) = (*length as usize + 1, Some(tokenizer.end_of_document()));
                Kind::Tokens(Text { width, end, tokenizer: Some(tokenizer.clone()), random: true, masking: masking.clone() })
            }
            (Transform::Images { size, mean, std, format, augment }, Modality::Images) => {
                check_images(*size, mean, std)?;
                let normalise = if *format == Pixels::U8 { Normalise::NONE } else { Normalise::new(*mean, *std) };
                Kind::Images { size: *size, normalise, format: *format, augment: augment.clone() }
            }
            (Transform::Tokens { .. } | Transform::Documents { .. }, found) => return Err(unfit(found, "Text for token batches")),
            (Transform::Images { .. }, found) => return Err(unfit(found, "Images for image batches")),
        };
        Ok(Self { split: split.to_owned(), seed, kind, stored_bytes: 16 << 10 })
    }

    /// The same where a stored row is expected to have about so many bytes.
    pub(crate) fn expecting(self, stored_bytes: u64) -> Self {
        Self { stored_bytes, ..self }
    }

    /// The same without augmentation.
    pub(crate) fn plain(&self) -> Self {
        let mut plain = self.clone();
        match &mut plain.kind {
            Kind::Tokens(text) => (text.random, text.masking) = (false, None),
            Kind::Images { augment, .. } => *augment = None,
        }
        plain
    }

    /// The table's name.
    pub(crate) fn split(&self) -> &str {
        &self.split
    }

    /// The columns to read.
    pub(crate) fn columns(&self) -> &'static [&'static str] {
        match &self.kind {
            Kind::Tokens(text) if text.tokenizer.is_some() => &["text"],
            Kind::Tokens(_) => &["tokens", "starts"],
            Kind::Images { .. } => &["bytes", "label"],
        }
    }

    /// Whether tokens are made of documents on the way.
    pub(crate) fn encodes(&self) -> bool {
        matches!(&self.kind, Kind::Tokens(text) if text.tokenizer.is_some())
    }

    /// How many ids a row has that goes into a batch as it is stored, in the first of [`Self::columns`]; none for documents and images.
    pub(crate) fn width(&self) -> Option<usize> {
        match &self.kind {
            Kind::Tokens(text) if text.tokenizer.is_none() => Some(text.width),
            Kind::Tokens(_) | Kind::Images { .. } => None,
        }
    }

    /// The bytes of a row, for images and documents those expected until some were read.
    pub(crate) fn row_bytes(&self) -> u64 {
        match &self.kind {
            Kind::Tokens(text) if text.tokenizer.is_none() => 4 * text.width as u64 + 12,
            Kind::Tokens(_) | Kind::Images { .. } => self.stored_bytes,
        }
    }

    /// The bytes of a finished batch.
    pub(crate) fn batch_bytes(&self, samples: usize) -> u64 {
        let sample = match &self.kind {
            Kind::Tokens(text) => {
                let masked = if text.masking.is_some() { 5 * (text.width as u64 - 1) } else { 0 };
                4 * text.width as u64 + masked
            }
            Kind::Images { size, format, .. } => {
                let bytes = match format {
                    Pixels::F32 => 4,
                    Pixels::Bf16 | Pixels::F16 => 2,
                    Pixels::U8 => 1,
                };
                3 * bytes * u64::from(*size) * u64::from(*size) + 8
            }
        };
        sample * samples as u64
    }

    /// Makes a batch; none if `stopped` says so between two samples.
    pub(crate) fn make(&self, from: &Ingredients<'_>, scratch: &mut Scratch, stopped: &dyn Fn() -> bool) -> Result<Option<Made>> {
        match &self.kind {
            Kind::Tokens(text) => self.sequences(text, from, scratch, stopped),
            Kind::Images { size, format, .. } => {
                let mut pixels = Numbers::take(&scratch.pool, *format, 3 * *size as usize * *size as usize * from.draws.len());
                let made = match &mut pixels {
                    Numbers::F32(out) => self.images::<Single>(from, scratch, stopped, out),
                    Numbers::Bf16(out) => self.images::<Brain>(from, scratch, stopped, out),
                    Numbers::F16(out) => self.images::<Half>(from, scratch, stopped, out),
                    Numbers::U8(out) => self.images::<Byte>(from, scratch, stopped, out),
                };
                let (samples, size) = (from.draws.len(), *size as usize);
                let whole = |Labelled { labels, replaced, work }| {
                    let batch = Batch::Images { pixels, labels, samples, size };
                    Made { batch, replaced, work }
                };
                Ok(made?.map(whole))
            }
        }
    }

    /// Makes a batch of ids that are in their places already, each sample's own; `from` has the places at which documents begin.
    pub(crate) fn filled(&self, ids: Arena<u32>, from: &Ingredients<'_>, pool: &Pool) -> Result<Made> {
        match &self.kind {
            Kind::Tokens(text) => self.filled_sequences(text, ids, from, pool),
            Kind::Images { .. } => Err(Error::Internal("images are not read into batches".to_owned())),
        }
    }

    /// Renders all samples into `pixels`; none if it was stopped.
    fn images<F: Format>(
        &self,
        from: &Ingredients<'_>,
        scratch: &mut Scratch,
        stopped: &dyn Fn() -> bool,
        pixels: &mut [F::Bits],
    ) -> Result<Option<Labelled>> {
        let began = Instant::now();
        let mut work = Work::default();
        let samples = from.draws.len();
        let area = pixels.len() / samples.max(1);
        let mut labels = vec![0; samples];
        let mut bad: Vec<(usize, String)> = Vec::new();
        for (place, out) in pixels.chunks_exact_mut(area.max(1)).enumerate() {
            if stopped() {
                return Ok(None);
            }
            match self.image::<F>(from, (place, place), scratch, &mut work, out) {
                Ok(label) => labels[place] = label,
                Err(reason) => bad.push((place, reason)),
            }
        }
        let is_bad = |place: usize| bad.iter().any(|(other, _)| *other == place);
        let mut replaced = Vec::with_capacity(bad.len());
        for (place, reason) in &bad {
            let by = others(*place, samples).find(|other| !is_bad(*other));
            replaced.push(self.replaced(from, *place, reason.clone(), by)?);
            if let Some(by) = by {
                let out = &mut pixels[place * area..(place + 1) * area];
                let again = self.image::<F>(from, (by, *place), scratch, &mut work, out);
                labels[*place] = again.map_err(|reason| self.corrupt(from.draws[by].row, reason))?;
            }
        }
        work.collate = began.elapsed().saturating_sub(work.total());
        Ok(Some(Labelled { labels, replaced, work }))
    }

    /// Renders the picture of sample `of`, augmented as sample `like`; returns its label.
    fn image<F: Format>(
        &self,
        from: &Ingredients<'_>,
        (of, like): (usize, usize),
        scratch: &mut Scratch,
        work: &mut Work,
        out: &mut [F::Bits],
    ) -> std::result::Result<i64, String> {
        let Kind::Images { size, normalise, augment, .. } = &self.kind else { return Err("a sample of text is no image".to_owned()) };
        from.check(of)?;
        let (piece, place) = from.places[of];
        let (bytes, label) = image_row(&from.rows[piece as usize], place as usize)
            .ok_or_else(|| "columns `bytes` and `label`: found none, expected an image and its label".to_owned())?;
        let began = Instant::now();
        let opened = scratch.images.open(bytes)?;
        let (width, height) = opened.sides();
        let Draw { source, epoch, row, .. } = from.draws[like];
        let view = match augment {
            Some(augment) => View::random(width, height, *size, augment, &mut Draws::new(self.seed, source, epoch, row)),
            None => View::centred(width, height, *size),
        };
        let jitter = augment.as_ref().and_then(|augment| Jitter::random(augment, self.seed, source, epoch, row));
        let (picture, view) = scratch.images.part(opened, &view, *size)?;
        let decoded = Instant::now();
        let sample = Sample { view: &view, size: *size, jitter: jitter.as_ref(), normalise };
        scratch.renderer.render::<F>(&picture, &sample, out);
        scratch.images.recycle(picture);
        work.decode += decoded - began;
        work.augment += decoded.elapsed();
        Ok(label)
    }

    /// What is said of a sample in whose place is another; an error where there is none.
    pub(super) fn replaced(&self, from: &Ingredients<'_>, place: usize, reason: String, by: Option<usize>) -> Result<Replaced> {
        let Draw { source, row, .. } = from.draws[place];
        match by {
            Some(by) => Ok(Replaced { place: place as u32, source, row, by: by as u32, reason }),
            None => Err(self.corrupt(row, reason)),
        }
    }

    fn corrupt(&self, row: u64, reason: String) -> Error {
        Error::Corrupt { split: self.split.clone(), row, reason }
    }
}

/// The samples that may stand in for that of `place`, in the order in which they are asked.
pub(super) fn others(place: usize, samples: usize) -> impl Iterator<Item = usize> {
    (1..samples).map(move |further| (place + further) % samples)
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
