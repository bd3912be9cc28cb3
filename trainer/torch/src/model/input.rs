//! A micro-batch as tensors, checked once on the way in.
//!
//! Promises: ids and labels are in range and shapes fit, so no index into an embedding can be out of bounds later. Ids and pixels
//! stay where the loader made them, and go to a GPU as they are there; what a model needs of them is made where it computes.

use forebay_c10d::{Transfer, over};
use forebay_loader::{Arena, Documents, Masked, Numbers};
use forebay_schemas::run::Pixels;
use tch::{Device, Kind as Scalar, TchError, Tensor};

use crate::error::{Error, Kind, Result, of_libtorch};

/// The target of an input that has none.
pub(super) const NO_TARGET: i64 = -100;

/// A micro-batch.
pub struct Input {
    content: Content,
    /// Its way to a device.
    transfer: Option<Transfer>,
}

enum Content {
    Tokens(Tokens),
    Images(Images),
}

/// Token sequences.
pub(super) struct Tokens {
    /// Ids, `[samples, length + 1]`, i32.
    rows: Tensor,
    /// What a model sees in place of the first `length` ids of each row, `[samples, length]`, i32; none where it sees those.
    shown: Option<Tensor>,
    /// Whether an id after the first is not to be foretold, `[samples, length]`, bool; none where all are.
    spared: Option<Tensor>,
    /// How many are to be foretold.
    pub(super) counted: u64,
    /// Where the documents of the rows lie; none if each row is one.
    pub(super) packed: Option<Packed>,
}

/// Rows that hold several documents.
pub(super) struct Packed {
    /// Position of each id in its document, `[samples, length]`.
    pub(super) positions: Tensor,
    /// Which document of its row each id belongs to, `[samples, length]`.
    numbers: Tensor,
}

/// Pictures.
struct Images {
    /// `[samples, 3, side, side]`, in the format of the batch.
    pixels: Tensor,
    /// Classes, `[samples]`.
    labels: Tensor,
    /// What normalises them, scale and bias, `[1, 3, 1, 1]` each; none where they are.
    normalise: Option<[Tensor; 2]>,
}

impl Tokens {
    /// What a model sees, `[samples, length]`, i32.
    pub(super) fn ids(&self) -> Tensor {
        self.shown.as_ref().map_or_else(|| self.rows.narrow(1, 0, self.length()), Tensor::shallow_clone)
    }

    /// The id after each, `[samples, length]`, i64; -100 where that is not to be foretold.
    pub(super) fn targets(&self) -> Tensor {
        let after = self.rows.narrow(1, 1, self.length()).to_kind(Scalar::Int64);
        self.spared.as_ref().map_or_else(|| after.shallow_clone(), |spared| after.masked_fill(spared, NO_TARGET))
    }

    /// Ids of a row that a model sees.
    pub(super) fn length(&self) -> i64 {
        self.rows.size()[1] - 1
    }
}

impl Packed {
    fn new(documents: &Documents, length: usize) -> std::result::Result<Self, TchError> {
        let shape = [documents.rows() as i64, length as i64];
        let tensor = |values: &[i64]| Tensor::f_from_slice(values)?.f_view(shape);
        Ok(Self { positions: tensor(&documents.positions(length))?, numbers: tensor(&documents.numbers(length))? })
    }

    /// What is added to the scores of attention, `[samples, 1, length, length]`: 0 for an id of the same document that is not
    /// later, else -∞.
    pub(super) fn mask(&self) -> Tensor {
        let seen = self.numbers.unsqueeze(2).eq_tensor(&self.numbers.unsqueeze(1)).tril(0).unsqueeze(1);
        seen.zeros_like().to_kind(Scalar::Float).masked_fill(&seen.logical_not(), f64::NEG_INFINITY)
    }
}

impl Input {
    /// Rows of `length` + 1 ids each, one after the other, each of one document.
    pub fn tokens(ids: Arena<u32>, vocabulary: i64, length: i64) -> Result<Self> {
        let rows = sequences_over(ids, vocabulary, length + 1)?;
        let counted = (rows.size()[0] * length) as u64;
        Ok(Content::Tokens(Tokens { rows, shown: None, spared: None, counted, packed: None }).into())
    }

    /// The same rows where they hold several documents: none attends to another, its positions count from 0, and neither its
    /// first token nor filling is a target. Where tokens are hidden, the inputs are those that are shown, and what counts is said.
    pub fn packed(ids: Arena<u32>, documents: &Documents, masked: Option<Masked>, vocabulary: i64, length: i64) -> Result<Self> {
        let rows = sequences_over(ids, vocabulary, length + 1)?;
        let expected = documents.rows() * length as usize;
        if documents.rows() as i64 != rows.size()[0] {
            return Err(corrupt(format!("documents of {} token rows: expected those of {}", documents.rows(), rows.size()[0])));
        }
        let (shown, targeted) = match masked {
            Some(Masked { inputs, scored }) if (inputs.len(), scored.len()) == (expected, expected) => {
                (Some(sequences_over(inputs, vocabulary, length)?), scored)
            }
            Some(Masked { inputs, scored }) => {
                let found = (inputs.len(), scored.len());
                return Err(corrupt(format!(
                    "hidden tokens: found {} inputs and {} scores, expected {expected} of each",
                    found.0, found.1
                )));
            }
            None => (None, documents.targets(length as usize)),
        };
        let counted = targeted.iter().filter(|targeted| **targeted).count();
        let made = || {
            let spared = match targeted.len() - counted {
                0 => None,
                _ => Some(Tensor::f_from_slice(&targeted)?.f_view([-1, length])?.f_logical_not()?),
            };
            let packed = if documents.are_alone(length as usize) { None } else { Some(Packed::new(documents, length as usize)?) };
            Ok(Content::Tokens(Tokens { rows, shown, spared, counted: counted as u64, packed }).into())
        };
        made().map_err(of_libtorch)
    }

    /// Pictures of `side` × `side` pixels, one after the other, and their classes. Bytes are normalised by the channels' mean and
    /// standard deviation, in 0…1.
    pub fn images(pixels: Numbers, labels: &[i64], side: i64, classes: i64, [mean, std]: [[f64; 3]; 2]) -> Result<Self> {
        check_images(pixels.len(), labels, side, classes)?;
        let shape = [labels.len() as i64, 3, side, side];
        let bytes = pixels.format() == Pixels::U8;
        let pixels = match pixels {
            Numbers::F32(pixels) => over(pixels, &shape, Scalar::Float),
            Numbers::Bf16(pixels) => over(pixels, &shape, Scalar::BFloat16),
            Numbers::F16(pixels) => over(pixels, &shape, Scalar::Half),
            Numbers::U8(pixels) => over(pixels, &shape, Scalar::Uint8),
        };
        let pixels = pixels.map_err(of_memory)?;
        let made = || {
            let channels = |of: [f64; 3]| Tensor::f_from_slice(&of.map(|value| value as f32))?.f_view([1, 3, 1, 1]);
            let normalise = if bytes {
                let (scale, bias) = (std.map(|std| 1.0 / (255.0 * std)), [0, 1, 2].map(|channel| -mean[channel] / std[channel]));
                Some([channels(scale)?, channels(bias)?])
            } else {
                None
            };
            Ok(Content::Images(Images { pixels, labels: Tensor::f_from_slice(labels)?, normalise }).into())
        };
        made().map_err(of_libtorch)
    }

    /// Begins to bring it to `device`, beside whatever is computed there.
    pub fn send(mut self, device: Device) -> Result<Self> {
        let places = self.tensors();
        let host: Vec<Tensor> = places.iter().map(|tensor| tensor.shallow_clone()).collect();
        let (sent, transfer) = Transfer::begin(&host, device).map_err(of_memory)?;
        places.into_iter().zip(sent).for_each(|(place, sent)| *place = sent);
        self.transfer = Some(transfer);
        Ok(self)
    }

    /// What is computed from now on finds it there.
    pub fn arrive(&self) -> Result<()> {
        self.transfer.as_ref().map_or(Ok(()), Transfer::arrive).map_err(of_memory)
    }

    /// Samples in the micro-batch.
    pub fn samples(&self) -> i64 {
        match &self.content {
            Content::Tokens(tokens) => tokens.rows.size()[0],
            Content::Images(images) => images.labels.size()[0],
        }
    }

    /// One token row of zeros.
    pub(super) fn blank_tokens(length: i64) -> Self {
        let rows = Tensor::zeros([1, length + 1], (Scalar::Int, Device::Cpu));
        Content::Tokens(Tokens { rows, shown: None, spared: None, counted: length as u64, packed: None }).into()
    }

    /// Two black pictures: a batch norm needs more than one value a channel.
    pub(super) fn blank_images(side: i64) -> Self {
        let cpu = Device::Cpu;
        let (pixels, labels) = (Tensor::zeros([2, 3, side, side], (Scalar::Float, cpu)), Tensor::zeros([2], (Scalar::Int64, cpu)));
        Content::Images(Images { pixels, labels, normalise: None }).into()
    }

    fn tensors(&mut self) -> Vec<&mut Tensor> {
        match &mut self.content {
            Content::Tokens(Tokens { rows, shown, spared, packed, .. }) => {
                let packed = packed.iter_mut().flat_map(|packed| [&mut packed.positions, &mut packed.numbers]);
                [rows].into_iter().chain(shown).chain(spared).chain(packed).collect()
            }
            Content::Images(Images { pixels, labels, normalise }) => {
                [pixels, labels].into_iter().chain(normalise.iter_mut().flatten()).collect()
            }
        }
    }
}

impl From<Content> for Input {
    fn from(content: Content) -> Self {
        Self { content, transfer: None }
    }
}

/// Rows of `row` ids each, `[samples, row]`, i32.
fn sequences_over(ids: Arena<u32>, vocabulary: i64, row: i64) -> Result<Tensor> {
    if ids.is_empty() || ids.len() as i64 % row != 0 {
        return Err(corrupt(format!("a micro-batch of {} token ids: expected a multiple of {row}", ids.len())));
    }
    // The largest first: it takes one pass that a processor does several at a time.
    let largest = ids.iter().copied().fold(0, u32::max);
    if i64::from(largest) >= vocabulary || largest > i32::MAX as u32 {
        return Err(corrupt(format!("token id {largest}: expected 0 to {}", vocabulary - 1)));
    }
    let shape = [ids.len() as i64 / row, row];
    over(ids, &shape, Scalar::Int).map_err(of_memory)
}

fn check_images(pixels: usize, labels: &[i64], side: i64, classes: i64) -> Result<()> {
    let expected = labels.len() as i64 * 3 * side * side;
    if labels.is_empty() || pixels as i64 != expected {
        return Err(corrupt(format!("a micro-batch of {pixels} pixel values: expected {expected} for its labels")));
    }
    if let Some(label) = labels.iter().find(|label| !(0..classes).contains(*label)) {
        return Err(corrupt(format!("label {label}: expected 0 to {}", classes - 1)));
    }
    Ok(())
}

/// The token sequences of a text model's input.
pub(super) fn sequences(input: &Input) -> Result<&Tokens> {
    match &input.content {
        Content::Tokens(tokens) => Ok(tokens),
        Content::Images(_) => Err(corrupt("a micro-batch of images: expected tokens".to_owned())),
    }
}

/// The pixels, normalised, f32, and the labels of an image model's input; refuses another size.
pub(super) fn pictures(input: &Input, side: i64) -> Result<(Tensor, &Tensor)> {
    let Content::Images(Images { pixels, labels, normalise }) = &input.content else {
        return Err(corrupt("a micro-batch of tokens: expected images".to_owned()));
    };
    match pixels.size()[..] {
        [_, 3, height, width] if height == side && width == side => {}
        ref shape => return Err(corrupt(format!("pixels of shape {shape:?}: expected [samples, 3, {side}, {side}]"))),
    }
    let pixels = pixels.to_kind(Scalar::Float);
    let pixels = normalise.as_ref().map_or_else(|| pixels.shallow_clone(), |[scale, bias]| &pixels * scale + bias);
    Ok((pixels, labels))
}

fn corrupt(message: String) -> Error {
    Error::new(Kind::Corrupt, message)
}

fn of_memory(error: forebay_c10d::Error) -> Error {
    Error::with_source(Kind::Internal, "micro-batch", error)
}
