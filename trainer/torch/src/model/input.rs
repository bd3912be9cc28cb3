//! A micro-batch as tensors, checked once on the way in.
//!
//! Promises: ids and labels are in range and shapes fit, so no index into an embedding can be out of bounds later. A batch of
//! the loader is copied once, byte by byte: libtorch could use the loader's memory in its place, but only unsafely, and the
//! copy is nothing beside a forward pass.

use forebay_c10d::upload;
use forebay_loader::{Documents, Masked, Numbers};
use forebay_schemas::run::Pixels;
use tch::{Device, Kind as Scalar, TchError, Tensor};

use crate::error::{Error, Kind, Result, of_libtorch};

/// The target of an input that has none.
pub(super) const NO_TARGET: i64 = -100;

/// A micro-batch.
pub enum Input {
    /// Token sequences.
    Tokens(Tokens),
    /// Pictures.
    Images {
        /// Normalised pixels, `[samples, 3, side, side]`.
        pixels: Tensor,
        /// Classes, `[samples]`.
        labels: Tensor,
    },
}

/// Token sequences.
pub struct Tokens {
    /// Ids, `[samples, length]`.
    pub ids: Tensor,
    /// The id after each, `[samples, length]`; -100 where that is not to be foretold.
    pub targets: Tensor,
    /// How many are to be foretold.
    pub counted: u64,
    /// Where the documents of the rows lie; none if each row is one.
    pub packed: Option<Packed>,
}

/// Rows that hold several documents.
pub struct Packed {
    /// Position of each id in its document, `[samples, length]`.
    pub positions: Tensor,
    /// Which document of its row each id belongs to, `[samples, length]`.
    pub numbers: Tensor,
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
    pub fn tokens(ids: &[u32], vocabulary: i64, length: i64) -> Result<Self> {
        let rows = rows(ids, vocabulary, length + 1)?;
        let made = || {
            let targets = rows.f_narrow(1, 1, length)?.f_contiguous()?;
            let counted = targets.numel() as u64;
            Ok(Self::Tokens(Tokens { ids: rows.f_narrow(1, 0, length)?.f_contiguous()?, targets, counted, packed: None }))
        };
        made().map_err(of_libtorch)
    }

    /// The same rows where they hold several documents: none attends to another, its positions count from 0, and neither its
    /// first token nor filling is a target. Where tokens are hidden, the inputs are those that are shown, and what counts is said.
    pub fn packed(ids: &[u32], documents: &Documents, masked: Option<&Masked>, vocabulary: i64, length: i64) -> Result<Self> {
        let rows = rows(ids, vocabulary, length + 1)?;
        let shown = masked.map(|masked| self::rows(&masked.inputs, vocabulary, length)).transpose()?;
        let expected = documents.rows() * length as usize;
        if documents.rows() as i64 != rows.size()[0] {
            return Err(corrupt(format!("documents of {} token rows: expected those of {}", documents.rows(), rows.size()[0])));
        }
        if let Some(masked) = masked.filter(|masked| (masked.inputs.len(), masked.scored.len()) != (expected, expected)) {
            let found = (masked.inputs.len(), masked.scored.len());
            return Err(corrupt(format!("hidden tokens: found {} inputs and {} scores, expected {expected} of each", found.0, found.1)));
        }
        let targeted = masked.map_or_else(|| documents.targets(length as usize), |masked| masked.scored.clone());
        let counted = targeted.iter().filter(|targeted| **targeted).count() as u64;
        let made = || {
            let without = Tensor::f_from_slice(&targeted)?.f_view([-1, length])?.f_logical_not()?;
            let targets = rows.f_narrow(1, 1, length)?.f_masked_fill(&without, NO_TARGET)?;
            let packed = if documents.are_alone(length as usize) { None } else { Some(Packed::new(documents, length as usize)?) };
            let ids = shown.map_or_else(|| rows.f_narrow(1, 0, length)?.f_contiguous(), Ok)?;
            Ok(Self::Tokens(Tokens { ids, targets, counted, packed }))
        };
        made().map_err(of_libtorch)
    }

    /// Pictures of `side` × `side` pixels, one after the other, and their classes.
    pub fn images(pixels: &[f32], labels: &[i64], side: i64, classes: i64) -> Result<Self> {
        check_images(pixels.len(), labels, side, classes)?;
        let made = || {
            let pixels = Tensor::f_from_slice(pixels)?.f_view([-1, 3, side, side])?;
            Ok(Self::Images { pixels, labels: Tensor::f_from_slice(labels)? })
        };
        made().map_err(of_libtorch)
    }

    /// The same of a batch in any format; bytes are normalised by the channels' mean and standard deviation, in 0…1.
    pub fn numbers(pixels: &Numbers, labels: &[i64], side: i64, classes: i64, [mean, std]: [[f64; 3]; 2]) -> Result<Self> {
        check_images(pixels.len(), labels, side, classes)?;
        let kind = match pixels.format() {
            Pixels::F32 => Scalar::Float,
            Pixels::Bf16 => Scalar::BFloat16,
            Pixels::F16 => Scalar::Half,
            Pixels::U8 => Scalar::Uint8,
        };
        let made = || {
            let size = [labels.len() as i64, 3, side, side];
            let mut tensor = Tensor::f_from_data_size(pixels.as_bytes(), &size, kind)?.f_to_kind(Scalar::Float)?;
            if pixels.format() == Pixels::U8 {
                let channels = |of: [f64; 3]| Tensor::f_from_slice(&of.map(|value| value as f32))?.f_view([1, 3, 1, 1]);
                let (scale, bias) = (std.map(|std| 1.0 / (255.0 * std)), [0, 1, 2].map(|channel| -mean[channel] / std[channel]));
                tensor = tensor.f_mul(&channels(scale)?)?.f_add(&channels(bias)?)?;
            }
            Ok(Self::Images { pixels: tensor, labels: Tensor::f_from_slice(labels)? })
        };
        made().map_err(of_libtorch)
    }

    /// The same on `device`.
    pub fn on(&self, device: Device) -> Result<Self> {
        let moved = |tensor: &Tensor| upload(tensor, device).map_err(|error| Error::with_source(Kind::Internal, "micro-batch", error));
        Ok(match self {
            Self::Tokens(Tokens { ids, targets, counted, packed }) => {
                let packed = match packed {
                    Some(Packed { positions, numbers }) => Some(Packed { positions: moved(positions)?, numbers: moved(numbers)? }),
                    None => None,
                };
                Self::Tokens(Tokens { ids: moved(ids)?, targets: moved(targets)?, counted: *counted, packed })
            }
            Self::Images { pixels, labels } => Self::Images { pixels: moved(pixels)?, labels: moved(labels)? },
        })
    }

    /// Samples in the micro-batch.
    pub fn samples(&self) -> i64 {
        match self {
            Self::Tokens(tokens) => tokens.ids.size()[0],
            Self::Images { labels, .. } => labels.size()[0],
        }
    }

    /// One token row of zeros.
    pub(super) fn blank_tokens(length: i64) -> Self {
        let zeros = || Tensor::zeros([1, length], (Scalar::Int64, Device::Cpu));
        Self::Tokens(Tokens { ids: zeros(), targets: zeros(), counted: length as u64, packed: None })
    }

    /// Two black pictures: a batch norm needs more than one value a channel.
    pub(super) fn blank_images(side: i64) -> Self {
        let cpu = Device::Cpu;
        Self::Images { pixels: Tensor::zeros([2, 3, side, side], (Scalar::Float, cpu)), labels: Tensor::zeros([2], (Scalar::Int64, cpu)) }
    }
}

/// Rows of `row` ids each, `[samples, row]`.
fn rows(ids: &[u32], vocabulary: i64, row: i64) -> Result<Tensor> {
    if ids.is_empty() || ids.len() as i64 % row != 0 {
        return Err(corrupt(format!("a micro-batch of {} token ids: expected a multiple of {row}", ids.len())));
    }
    let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
    if let Some(id) = ids.iter().find(|id| !(0..vocabulary).contains(*id)) {
        return Err(corrupt(format!("token id {id}: expected 0 to {}", vocabulary - 1)));
    }
    Tensor::f_from_slice(&ids).and_then(|ids| ids.f_view([-1, row])).map_err(of_libtorch)
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
    match input {
        Input::Tokens(tokens) => Ok(tokens),
        Input::Images { .. } => Err(corrupt("a micro-batch of images: expected tokens".to_owned())),
    }
}

/// The pixels and labels of an image model's input; refuses another size.
pub(super) fn pictures(input: &Input, side: i64) -> Result<(&Tensor, &Tensor)> {
    let Input::Images { pixels, labels } = input else {
        return Err(corrupt("a micro-batch of tokens: expected images".to_owned()));
    };
    match pixels.size()[..] {
        [_, 3, height, width] if height == side && width == side => Ok((pixels, labels)),
        ref shape => Err(corrupt(format!("pixels of shape {shape:?}: expected [samples, 3, {side}, {side}]"))),
    }
}

fn corrupt(message: String) -> Error {
    Error::new(Kind::Corrupt, message)
}
